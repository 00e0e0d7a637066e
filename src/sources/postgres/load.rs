//! Loads a dump into a cluster, and believes it only when `psql` had nothing to
//! say that matters and the cluster then holds what the dump's did.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use super::child::{CHUNK, Child, Pipes};
use super::client::{Client, installed, psql_at_least};
use super::complaint::{explain, shortened};
use super::connection::Connection;
use super::globals::{Globals, Piece, altered_role};
use super::inventory::{Answer, newest, read_with};
use super::psql_errors::{PsqlErrors, Verdict};
use super::query::ask;
use super::stderr::Stderr;
use crate::error::{Error, Result};
use crate::repository::inventory::{Inventory, PsqlVersion};
use crate::stop::Stop;

/// The databases that every cluster has. A dump fills them, but their owner and
/// encoding stay the target's own.
const BUILT_IN: [&str; 2] = ["postgres", "template1"];

/// How much of one error is quoted, in bytes.
const QUOTED_BYTES: usize = 300;

/// What to do about an error that the server answers to a dump.
const REMEDIES: &[(&str, &str)] = &[
    (
        "permission denied to grant privileges as role",
        "servers from 16 on want every grantor's own rights: dump with a client of 16 or newer, which leaves old \
         grantors out, and load into a cluster whose first superuser has the same name",
    ),
    (
        "is not available",
        "install the extension's package on the target server (Debian: postgresql-contrib, postgresql-<major>-<name>)",
    ),
    (
        "invalid locale name",
        "generate the locale on the target server (Debian: dpkg-reconfigure locales) and restart it",
    ),
    (
        "password authentication failed",
        "connect as a superuser that is not in the dump, or through the server's local socket",
    ),
    ("directory", "the dump has tablespaces: make their directories on the target server, owned by its user"),
    (
        "unrecognized configuration parameter",
        "load the dump into a server that is not older than the client that wrote it",
    ),
];

/// What a dump needs and must bring, from its manifest.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// What the cluster held when it was dumped.
    pub inventory: &'a Inventory,
    /// The major version of the client that dumped it.
    pub client_major: u32,
    /// The oldest `psql` that reads the dump.
    pub needs_psql: PsqlVersion,
}

/// A cluster that holds what the dump's did.
#[derive(Debug)]
pub struct Loaded {
    /// The server that it was loaded into, in its own words.
    pub server_version: String,
    /// How many databases were found again.
    pub databases: usize,
    /// How many roles were found again.
    pub roles: usize,
    /// What was said along the way and does not matter, for a report.
    pub harmless: Vec<String>,
}

/// Whether the cluster behind `connection` can take the dump: new enough,
/// without any of its databases, and we are superuser there. Reads only.
pub fn check_target(connection: &Connection, expected: &Expected, stop: &Stop) -> Result<()> {
    preflight(&installed(), connection, expected, stop).map(drop)
}

/// Loads the SQL of a dump. Fails before anything is written when
/// [`check_target`] does; afterwards on any error that is not harmless, and
/// when a database or role is missing in the end. A failed load leaves a
/// cluster that is half full.
///
/// If the dump changes the role that we log in as, that happens last: its
/// password would otherwise stop being ours half-way.
pub fn load(connection: &Connection, sql: &mut dyn Read, expected: &Expected, stop: &Stop) -> Result<Loaded> {
    let clients = installed();
    let (psql, target) = preflight(&clients, connection, expected, stop)?;
    let connection = connection.with_database("postgres");
    let mut own_role = OwnRole::new(&target.user);
    let verdict = run(psql, &connection, sql, &mut own_role, stop)?;
    refuse_errors(&verdict)?;

    let after = read_with(psql, &connection, stop)?.inventory;
    let differences = differences(&after, expected.inventory);
    if !differences.is_empty() {
        return Err(Error::failed(format!(
            "psql said nothing of it, but the loaded cluster differs from the dumped one: {}",
            differences.join(", ")
        )));
    }
    let mut harmless = verdict.harmless;
    if !own_role.held.is_empty() {
        let statement = String::from_utf8_lossy(&own_role.held).into_owned();
        ask(psql, &connection, &statement, stop).map_err(|e| {
            e.during(format!("the dump is loaded, but not the rights of role {:?}", target.user))
        })?;
        harmless
            .push(format!("role {:?}, which loaded the dump, now has its password and rights", target.user));
    }
    Ok(Loaded {
        server_version: after.server_version,
        databases: expected.inventory.dumped().count(),
        roles: expected.inventory.roles.len(),
        harmless,
    })
}

fn preflight<'a>(
    clients: &'a [Client],
    connection: &Connection,
    expected: &Expected,
    stop: &Stop,
) -> Result<(&'a Client, Answer)> {
    // First of all, because it can be said without the server.
    psql_at_least(clients, expected.needs_psql, 0)?;
    let target = read_with(newest(clients)?, &connection.with_database("postgres"), stop)?;
    let (server, found) = (connection.shown(), &target.inventory);
    if found.server_major < expected.client_major {
        let needed = expected.client_major;
        return Err(Error::failed(format!(
            "the dump needs a server of PostgreSQL {needed} or newer, and {server} is {}",
            found.server_version
        ))
        .hint(format!("apt-get install postgresql-{needed}, or use a container of postgres:{needed}")));
    }
    if !target.superuser {
        return Err(Error::failed(format!("role {:?} at {server} is not a superuser", target.user))
            .hint("loading a cluster makes roles and databases: use a superuser such as postgres"));
    }
    refuse_other_bootstrap(found, expected.inventory)?;
    let existing: Vec<String> = found
        .databases
        .iter()
        .filter(|have| !BUILT_IN.contains(&have.name.as_str()))
        .filter(|have| expected.inventory.dumped().any(|want| want.name == have.name))
        .map(|have| format!("{:?}", have.name))
        .collect();
    if !existing.is_empty() {
        return Err(Error::failed(format!(
            "{server} already has databases that the dump would make: {}",
            existing.join(", ")
        ))
        .hint("use an empty cluster, or drop them there first"));
    }
    Ok((psql_at_least(clients, expected.needs_psql, found.server_major)?, target))
}

/// From 16 on, `GRANT … GRANTED BY postgres` works for the bootstrap role, and
/// for any other superuser only with the admin option.
fn refuse_other_bootstrap(found: &Inventory, expected: &Inventory) -> Result<()> {
    let (have, want) = (&found.bootstrap_role, &expected.bootstrap_role);
    if found.server_major < 16 || !expected.bootstrap_grants || have == want {
        return Ok(());
    }
    Err(Error::failed(format!(
        "the dump grants roles in the name of {want:?}, the first superuser of its cluster; that of the target is \
         {have:?}, and PostgreSQL {} does not accept it",
        found.server_major
    ))
    .hint(format!("make the target cluster with `initdb -U {want}`, or a container with POSTGRES_USER={want}")))
}

/// Feeds the dump to `psql` and sorts what it says.
fn run(
    psql: &Client,
    connection: &Connection,
    sql: &mut dyn Read,
    own_role: &mut OwnRole,
    stop: &Stop,
) -> Result<Verdict> {
    let mut command = psql.command("psql", &connection.with_option("lc_messages=C"));
    command.args(["-X", "-q", "-w", "-v", "ON_ERROR_STOP=0", "-v", "VERBOSITY=verbose", "-f", "-"]);
    let (stderr, errors) = (Stderr::default(), Arc::new(Mutex::new(PsqlErrors::default())));
    let (record, sorter) = (stderr.clone(), errors.clone());
    let mut child = Child::spawn(command, Pipes { stdin: true, stdout: false }, move |bytes| {
        record.push(bytes);
        sorter.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    })?;
    let all_read = feed(&mut child, sql, own_role, stop)?;
    let status = child.wait(stop)?;
    let mut verdict = errors.lock().unwrap_or_else(PoisonError::into_inner).finish();
    for text in verdict.first.iter_mut().chain(&mut verdict.harmless) {
        *text = shortened(&connection.redact(text), QUOTED_BYTES);
    }
    let ended_badly = !status.success() || !all_read;
    if ended_badly && (verdict.errors == 0 || verdict.unreachable) {
        let error = explain(child.program(), status, &stderr.text(), connection);
        return Err(if all_read {
            error
        } else {
            error.during("psql stopped reading before the end of the dump")
        });
    }
    Ok(verdict)
}

/// True when `psql` took everything.
fn feed(child: &mut Child, sql: &mut dyn Read, own_role: &mut OwnRole, stop: &Stop) -> Result<bool> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = match sql.read(&mut buffer) {
            Ok(0) => return child.feed(own_role.finish(), stop),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::from_io("cannot read the dump", e)),
        };
        if !child.feed(own_role.filter(&buffer[..read]), stop)? {
            return Ok(false);
        }
    }
}

fn refuse_errors(verdict: &Verdict) -> Result<()> {
    if verdict.errors == 0 {
        return Ok(());
    }
    let quoted = verdict.first.join(" | ");
    let more = if verdict.errors > verdict.first.len() as u64 { " | …" } else { "" };
    let plural = if verdict.errors == 1 { "error" } else { "errors" };
    let error = Error::failed(format!("loading the dump met {} {plural}: {quoted}{more}", verdict.errors));
    let remedy = REMEDIES.iter().find(|(text, _)| quoted.contains(text)).map(|(_, remedy)| *remedy);
    Err(error
        .hint(remedy.unwrap_or("the cluster is half full now: load into an empty one after mending this")))
}

/// What `expected` has and `found` has not, in words.
fn differences(found: &Inventory, expected: &Inventory) -> Vec<String> {
    let mut differences = Vec::new();
    for want in expected.dumped() {
        let name = &want.name;
        match found.databases.iter().find(|have| have.name == *name) {
            None => differences.push(format!("database {name:?} is missing")),
            Some(_) if BUILT_IN.contains(&name.as_str()) => {}
            Some(have) if have.owner != want.owner => {
                differences.push(format!(
                    "database {name:?} belongs to {:?} instead of {:?}",
                    have.owner, want.owner
                ));
            }
            Some(have) if have.encoding != want.encoding => differences
                .push(format!("database {name:?} is in {} instead of {}", have.encoding, want.encoding)),
            Some(_) => {}
        }
    }
    let missing = expected.roles.iter().filter(|role| !found.roles.contains(role));
    differences.extend(missing.map(|role| format!("role {role:?} is missing")));
    differences
}

/// Takes the statement that changes one role out of a dump.
struct OwnRole {
    name: Vec<u8>,
    globals: Globals,
    held: Vec<u8>,
}

impl OwnRole {
    fn new(name: &str) -> Self {
        Self { name: name.as_bytes().to_vec(), globals: Globals::default(), held: Vec::new() }
    }

    /// `bytes` without the statement, of which only the line breaks are left,
    /// so that the line numbers in `psql`'s errors stay right.
    fn filter(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.globals.ended() {
            return bytes.to_vec();
        }
        let mut passed = Vec::with_capacity(bytes.len());
        let (name, held) = (&self.name, &mut self.held);
        let rest = self.globals.push(bytes, &mut |piece| match piece {
            Piece::Statement(statement) if altered_role(statement).is_some_and(|role| role == *name) => {
                held.extend_from_slice(statement);
                held.push(b'\n');
                passed.extend(statement.iter().filter(|byte| **byte == b'\n'));
            }
            Piece::Line(bytes) | Piece::Statement(bytes) | Piece::Part(bytes) => {
                passed.extend_from_slice(bytes)
            }
        });
        passed.extend_from_slice(rest);
        passed
    }

    fn finish(&mut self) -> Vec<u8> {
        let mut passed = Vec::new();
        self.globals.finish(&mut |piece| match piece {
            Piece::Line(bytes) | Piece::Statement(bytes) | Piece::Part(bytes) => {
                passed.extend_from_slice(bytes)
            }
        });
        passed
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
