//! Places of secrets: where a secret may be found, tried in order.
//!
//! A config never holds a secret, only places: `env:NAME`, `file:PATH`,
//! `command:…`, `http(s)://…#/json/pointer`. Errors name every place that was
//! tried and never what was found there.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use url::Url;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// How long a command or a vault may take to answer. Short, because at boot a
/// vault is often not up yet and another place may answer.
const PLACE_TIME_MAX: Duration = Duration::from_secs(10);

/// A secret is a line of text; more than this is something else.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// One place where a secret may be.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// An environment variable.
    Env(String),
    /// A file, such as a container's `/run/secrets/…`.
    File(PathBuf),
    /// A shell command that prints the secret.
    Command(String),
    /// A URL that answers with the secret, or with JSON that holds it.
    Http {
        /// The URL without its fragment.
        url: Box<Url>,
        /// The JSON pointer (RFC 6901) into the answer, when there is one.
        pointer: Option<String>,
    },
}

impl Place {
    /// Reads one entry of a list of places. `base` is the folder of the config,
    /// from which relative paths count. The error does not repeat the entry: it
    /// may be the secret itself, pasted by mistake.
    pub fn parse(entry: &str, base: &Path) -> Result<Self> {
        if let Some(name) = entry.strip_prefix("env:") {
            return Ok(Place::Env(name.to_owned()));
        }
        if let Some(path) = entry.strip_prefix("file:") {
            return Ok(Place::File(base.join(path)));
        }
        if let Some(command) = entry.strip_prefix("command:") {
            return Ok(Place::Command(command.to_owned()));
        }
        if entry.starts_with("http://") || entry.starts_with("https://") {
            let mut url = Url::parse(entry)
                .map_err(|e| Error::usage(format!("an address of a secret is wrong: {e}")))?;
            if url.scheme() == "http" && !is_loopback(&url) {
                return Err(Error::usage(format!(
                    "a secret may not come over plain http from {}",
                    url.host_str().unwrap_or("nowhere")
                ))
                .hint("use https, or an address on this machine"));
            }
            let pointer = url.fragment().filter(|f| !f.is_empty()).map(str::to_owned);
            url.set_fragment(None);
            return Ok(Place::Http { url: Box::new(url), pointer });
        }
        Err(Error::usage(
            "an entry is not a place of a secret (a literal secret does not belong in a config)",
        )
        .hint("write env:NAME, file:PATH, command:… or https://…#/json/pointer"))
    }

    /// The secret at this place, or why it is not there.
    fn read(&self) -> std::result::Result<Zeroizing<String>, String> {
        let text = match self {
            Place::Env(name) => match std::env::var(name) {
                Ok(value) => Zeroizing::new(value),
                Err(std::env::VarError::NotPresent) => return Err("not set".into()),
                Err(std::env::VarError::NotUnicode(_)) => return Err("not text".into()),
            },
            Place::File(path) => read_file(path)?,
            Place::Command(command) => run(command)?,
            Place::Http { url, pointer } => fetch(url, pointer.as_deref())?,
        };
        let trimmed = Zeroizing::new(text.trim().to_owned());
        if trimmed.is_empty() { Err("empty".into()) } else { Ok(trimmed) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Env(name) => write!(f, "env:{name}"),
            Place::File(path) => write!(f, "file:{}", path.display()),
            // Only the program: the rest may well carry a password.
            Place::Command(command) => {
                write!(f, "command:{}", command.split_whitespace().next().unwrap_or(""))
            }
            Place::Http { url, .. } => {
                let host = url.host_str().unwrap_or("");
                write!(f, "{}://{host}{}", url.scheme(), url.path())
            }
        }
    }
}

/// The first secret that any of the places has. `what` names it in the error.
pub fn resolve(what: &str, places: &[Place]) -> Result<Zeroizing<String>> {
    let mut tried = Vec::new();
    for place in places {
        match place.read() {
            Ok(secret) => return Ok(secret),
            Err(reason) => tried.push(format!("{place} ({reason})")),
        }
    }
    Err(missing(what, &tried))
}

/// Every secret that the places have, in order: a keyring is all of its keys.
/// A command or a vault is asked only while nothing has been found: it may be
/// slow or down, and is there for when the others have nothing.
pub fn resolve_all(what: &str, places: &[Place]) -> Result<Vec<Zeroizing<String>>> {
    let mut found = Vec::new();
    let mut tried = Vec::new();
    for place in places {
        if !found.is_empty() && matches!(place, Place::Command(_) | Place::Http { .. }) {
            continue;
        }
        match place.read() {
            Ok(secret) => found.push(secret),
            Err(reason) => tried.push(format!("{place} ({reason})")),
        }
    }
    if found.is_empty() { Err(missing(what, &tried)) } else { Ok(found) }
}

fn missing(what: &str, tried: &[String]) -> Error {
    let places = if tried.is_empty() { "no place is configured".to_owned() } else { tried.join(", ") };
    Error::failed(format!("found no {what}; tried {places}"))
        .hint(format!("put the {what} in one of these places"))
}

fn read_file(path: &Path) -> std::result::Result<Zeroizing<String>, String> {
    let file = fs::File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "not there".to_owned(),
        other => other.to_string(),
    })?;
    read_text(file)
}

fn read_text(source: impl Read) -> std::result::Result<Zeroizing<String>, String> {
    let mut text = Zeroizing::new(String::new());
    source.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| e.kind().to_string())?;
    if text.len() as u64 > SECRET_BYTES_MAX { Err("too long for a secret".into()) } else { Ok(text) }
}

/// Runs a shell command in a process group of its own, so that whatever it
/// started dies with it when it does not answer in time.
fn run(command: &str) -> std::result::Result<Zeroizing<String>, String> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|e| e.kind().to_string())?;
    let reader = child.stdout.take().map(|out| std::thread::spawn(move || read_text(out)));
    let deadline = Instant::now() + PLACE_TIME_MAX;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            _ => {
                if let Some(group) = Pid::from_raw(child.id() as i32) {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = child.wait();
                return Err(format!("no answer within {} s", PLACE_TIME_MAX.as_secs()));
            }
        }
    };
    if !status.success() {
        return Err(format!("{status}"));
    }
    match reader.map(std::thread::JoinHandle::join) {
        Some(Ok(text)) => text,
        _ => Err("its output could not be read".into()),
    }
}

fn fetch(url: &Url, pointer: Option<&str>) -> std::result::Result<Zeroizing<String>, String> {
    let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(PLACE_TIME_MAX)).tls_config(tls).build().into();
    let mut answer = agent.get(url.as_str()).call().map_err(|e| match e {
        ureq::Error::StatusCode(code) => format!("answered {code}"),
        other => other.to_string(),
    })?;
    let body = read_text(answer.body_mut().as_reader())?;
    let Some(pointer) = pointer else { return Ok(body) };
    let json: serde_json::Value =
        serde_json::from_str(&body).map_err(|_| "the answer is not JSON".to_owned())?;
    match json.pointer(pointer).and_then(serde_json::Value::as_str) {
        Some(text) => Ok(Zeroizing::new(text.to_owned())),
        None => Err(format!("the answer has no text at {pointer}")),
    }
}

/// Whether a URL stays on this machine. Plain http is allowed only there.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    fn places(entries: &[&str]) -> Vec<Place> {
        entries.iter().map(|e| Place::parse(e, Path::new("/cfg")).unwrap()).collect()
    }

    #[test]
    fn the_first_place_that_has_it_wins_and_white_space_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "  from-file \n").unwrap();
        let found = resolve(
            "token",
            &places(&["env:OFFSITE_TEST_NOT_SET", &format!("file:{}", path.display()), "command:echo no"]),
        );
        assert_eq!(*found.unwrap(), "from-file");
    }

    #[test]
    fn the_error_names_every_place_and_no_argument_of_a_command() {
        let error = resolve(
            "GitHub token",
            &places(&["env:OFFSITE_TEST_NOT_SET", "file:none", "command:false --pw s3cret"]),
        )
        .err()
        .unwrap();
        assert_eq!(
            error.message(),
            "found no GitHub token; tried env:OFFSITE_TEST_NOT_SET (not set), file:/cfg/none (not there), \
             command:false (exit status: 1)"
        );
    }

    #[test]
    fn a_literal_secret_is_refused_and_not_repeated() {
        let error = Place::parse("ghp_abcdef", Path::new("/")).err().unwrap();
        assert!(!format!("{error} {:?}", error.next_step()).contains("ghp_"));
        assert!(Place::parse("http://vault.example/x", Path::new("/")).is_err());
    }

    #[test]
    fn an_http_answer_is_read_through_its_json_pointer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            let body = r#"{"data":{"data":{"key":"abc"}}}"#;
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
        });
        let found = resolve("key", &places(&[&format!("http://{address}/v1/secret#/data/data/key")]));
        assert_eq!(*found.unwrap(), "abc");
        server.join().unwrap();
    }

    #[test]
    fn a_command_that_floods_is_cut_off() {
        let error =
            resolve("key", &places(&["command:head -c 200000 /dev/zero | tr '\\0' x; true"])).err().unwrap();
        assert!(error.message().contains("too long"), "{error}");
    }
}
