//! Where a cluster is and who asks: from a URL to libpq's environment.
//!
//! Client programs get a connection through `PG*` variables only. A command
//! line is readable by every user of the machine; an environment is not.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Command;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::child::clean_environment;
use crate::error::{Error, Result};

/// How long a client waits for a server that does not answer, in seconds.
const CONNECT_TIMEOUT_SECONDS: &str = "10";

/// The URL parameters that libpq reads from its environment too.
const PARAMETERS: &[(&str, &str)] = &[
    ("application_name", "PGAPPNAME"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("dbname", "PGDATABASE"),
    ("gssdelegation", "PGGSSDELEGATION"),
    ("gssencmode", "PGGSSENCMODE"),
    ("gsslib", "PGGSSLIB"),
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("krbsrvname", "PGKRBSRVNAME"),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    ("max_protocol_version", "PGMAXPROTOCOLVERSION"),
    ("min_protocol_version", "PGMINPROTOCOLVERSION"),
    ("options", "PGOPTIONS"),
    ("passfile", "PGPASSFILE"),
    ("password", "PGPASSWORD"),
    ("port", "PGPORT"),
    ("require_auth", "PGREQUIREAUTH"),
    ("requirepeer", "PGREQUIREPEER"),
    ("requiressl", "PGREQUIRESSL"),
    ("service", "PGSERVICE"),
    ("servicefile", "PGSERVICEFILE"),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    ("sslcert", "PGSSLCERT"),
    ("sslcertmode", "PGSSLCERTMODE"),
    ("sslcompression", "PGSSLCOMPRESSION"),
    ("sslcrl", "PGSSLCRL"),
    ("sslcrldir", "PGSSLCRLDIR"),
    ("sslkey", "PGSSLKEY"),
    ("sslmode", "PGSSLMODE"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslsni", "PGSSLSNI"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("user", "PGUSER"),
];

/// Parameters that libpq knows, but not through its environment, and that only
/// tune. `client_encoding` is among them because it would change the dump.
const WITHOUT_EFFECT: &[&str] = &[
    "client_encoding",
    "fallback_application_name",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "tcp_user_timeout",
];

/// A connection to one cluster. Values are wiped when it is dropped, and
/// neither `Debug` nor [`Connection::shown`] has the password.
#[derive(Clone)]
pub struct Connection {
    settings: BTreeMap<&'static str, Zeroizing<String>>,
}

impl Connection {
    /// Reads `postgres://`, `postgresql://` or SQLAlchemy's
    /// `postgresql+driver://`, with everything that libpq's URLs may hold:
    /// several hosts, socket directories, IPv6, parameters. White space around
    /// it is forgiven. No error quotes any part of the URL but the name of an
    /// unknown parameter.
    pub fn from_url(url: &str) -> Result<Self> {
        let rest = after_scheme(url.trim())?;
        let (before_query, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = before_query.split_once('/').unwrap_or((before_query, ""));
        // Nobody's database or parameter then, but the rest of a password.
        if !authority.contains('@') && database.contains('@') {
            return Err(malformed("there is a `/` before its `@`"));
        }
        if before_query.contains(':') && !before_query.contains(['@', '/']) && query.contains('@') {
            return Err(malformed("there is a `?` before its `@`"));
        }
        let mut connection = Self { settings: BTreeMap::new() };
        // From the right: an `@` that nobody encoded belongs to the password.
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        connection.set("PGUSER", user)?;
        connection.set("PGPASSWORD", password)?;
        connection.set_hosts(hosts)?;
        connection.set("PGDATABASE", database)?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            connection.set_parameter(pair)?;
        }
        connection.check_port()?;
        connection.default("PGDATABASE", "postgres");
        connection.default("PGCONNECT_TIMEOUT", CONNECT_TIMEOUT_SECONDS);
        Ok(connection)
    }

    /// `host:port/user`, for people; never the password.
    pub fn shown(&self) -> String {
        let server = match (self.get("PGHOST").or(self.get("PGHOSTADDR")), self.get("PGSERVICE")) {
            (Some(hosts), _) => self.shown_hosts(hosts),
            (None, Some(service)) => format!("service {service}"),
            (None, None) => format!("local socket:{}", self.get("PGPORT").unwrap_or("5432")),
        };
        match self.get("PGUSER") {
            Some(user) => format!("{server}/{user}"),
            None => server,
        }
    }

    /// The same connection to another database of the cluster.
    pub fn with_database(&self, name: &str) -> Self {
        let mut other = self.clone();
        other.settings.insert("PGDATABASE", Zeroizing::new(name.to_owned()));
        other
    }

    /// The same connection with one more server setting for its sessions.
    pub(super) fn with_option(&self, option: &str) -> Self {
        let mut other = self.clone();
        let options = format!("{} -c {option}", self.get("PGOPTIONS").unwrap_or_default());
        other.settings.insert("PGOPTIONS", Zeroizing::new(options.trim_start().to_owned()));
        other
    }

    /// Gives `command` this connection and nothing else of our environment.
    pub(super) fn apply(&self, command: &mut Command) {
        clean_environment(command);
        command.envs(self.settings.iter().map(|(name, value)| (name, value.as_str())));
    }

    /// `text` without the password, wherever a server or a client put it.
    pub(super) fn redact(&self, text: &str) -> String {
        match self.get("PGPASSWORD") {
            Some(password) => text.replace(password, "***"),
            None => text.to_owned(),
        }
    }

    fn get(&self, variable: &str) -> Option<&str> {
        self.settings.get(variable).map(|value| value.as_str())
    }

    fn default(&mut self, variable: &'static str, value: &str) {
        self.settings.entry(variable).or_insert_with(|| Zeroizing::new(value.to_owned()));
    }

    /// Stores a percent-encoded value; an empty one means "not given".
    fn set(&mut self, variable: &'static str, encoded: &str) -> Result<()> {
        let value = decode(encoded)?;
        if !value.is_empty() {
            self.settings.insert(variable, value);
        }
        Ok(())
    }

    /// libpq wants the hosts and the ports as two lists of the same length.
    fn set_hosts(&mut self, authority: &str) -> Result<()> {
        let pairs = authority.split(',').map(host_and_port).collect::<Result<Vec<_>>>()?;
        let (hosts, ports): (Vec<&str>, Vec<&str>) = pairs.into_iter().unzip();
        for (variable, list) in [("PGHOST", hosts), ("PGPORT", ports)] {
            if list.iter().any(|item| !item.is_empty()) {
                self.set(variable, &list.join(","))?;
            }
        }
        Ok(())
    }

    fn set_parameter(&mut self, pair: &str) -> Result<()> {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let Some((_, variable)) = PARAMETERS.iter().find(|(known, _)| *known == name) {
            return self.set(variable, value);
        }
        match (name, value) {
            ("ssl", "true") => self.set("PGSSLMODE", "require"),
            (name, _) if WITHOUT_EFFECT.contains(&name) => Ok(()),
            _ => Err(unknown_parameter(name)),
        }
    }

    fn check_port(&self) -> Result<()> {
        let sound = |port: &str| port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0);
        match self.get("PGPORT") {
            Some(ports) if !ports.split(',').all(sound) => {
                Err(malformed("its port is not a number between 1 and 65535"))
            }
            _ => Ok(()),
        }
    }

    fn shown_hosts(&self, hosts: &str) -> String {
        let ports: Vec<&str> = self.get("PGPORT").unwrap_or("5432").split(',').collect();
        let shown = hosts.split(',').enumerate().map(|(at, host)| {
            let port = ports.get(at).or(ports.first()).filter(|port| !port.is_empty()).unwrap_or(&"5432");
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        });
        shown.collect::<Vec<_>>().join(",")
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.shown())
    }
}

fn after_scheme(url: &str) -> Result<&str> {
    let known = |scheme: &str| {
        let dialect = scheme.split('+').next().unwrap_or_default();
        dialect.eq_ignore_ascii_case("postgres") || dialect.eq_ignore_ascii_case("postgresql")
    };
    match url.split_once("://") {
        Some((scheme, rest)) if known(scheme) => Ok(rest),
        _ => Err(malformed("it does not start with postgres:// or postgresql://")),
    }
}

/// One host of the list, still encoded, without the brackets of IPv6.
fn host_and_port(text: &str) -> Result<(&str, &str)> {
    let Some(bracketed) = text.strip_prefix('[') else {
        return Ok(text.split_once(':').unwrap_or((text, "")));
    };
    match bracketed.split_once(']') {
        Some((host, "")) => Ok((host, "")),
        Some((host, rest)) if rest.starts_with(':') => Ok((host, &rest[1..])),
        _ => Err(malformed("its IPv6 address is not of the form [address]:port")),
    }
}

fn decode(encoded: &str) -> Result<Zeroizing<String>> {
    let bytes = Zeroizing::new(percent_decode_str(encoded).collect::<Vec<u8>>());
    match std::str::from_utf8(&bytes) {
        Ok(text) if !text.contains('\0') => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(malformed("a percent-encoded part is not text")),
    }
}

fn malformed(why: &str) -> Error {
    Error::usage(format!("the PostgreSQL URL cannot be read: {why}")).hint(
        "its form is postgres://user:password@host:port/database; percent-encode special characters \
         (`@` is %40, `/` is %2F, `?` is %3F, `:` is %3A)",
    )
}

fn unknown_parameter(name: &str) -> Error {
    // A name that is none may be the rest of a password with a `?` in it.
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match is_name && !name.is_empty() && name.len() <= 40 {
        true => Error::usage(format!(
            "the PostgreSQL URL has a parameter that libpq does not know: `{name}`"
        ))
        .hint("take it out, or correct it; PostgreSQL's manual lists them under \"Parameter Key Words\""),
        false => malformed("what follows its `?` is not a list of parameters"),
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
