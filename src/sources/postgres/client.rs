//! Which PostgreSQL programs this machine has, and which of them fit.
//!
//! A client that is older than the server refuses to dump it, and a dump can
//! only be loaded where everything that its client wrote is understood. So the
//! installed client with the smallest major version that is new enough is
//! taken, and where none fits the error names the package.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::child::{Child, Pipes, clean_environment};
use super::connection::Connection;
use crate::error::{Error, Result};
use crate::repository::inventory::PsqlVersion;
use crate::stop::Stop;

/// How long a program may take to say its version.
const VERSION_LIMIT: Duration = Duration::from_secs(5);

/// The first release of each major version whose `psql` knows `\restrict`. Its
/// `pg_dumpall` writes it, and an older `psql` fails on it. From 18 on all do.
const RESTRICT_SINCE: &[(u32, u32)] = &[(13, 22), (14, 19), (15, 14), (16, 10), (17, 6)];

/// One directory of PostgreSQL's client programs.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// The directory that holds `pg_dumpall`, `pg_dump` and `psql`.
    pub bin: PathBuf,
    /// The major version, such as 15.
    pub major: u32,
    /// The minor version, such as 18; 0 for a beta.
    pub minor: u32,
    /// Its own words, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
}

impl Client {
    /// One of its programs, with `connection` and nothing else around it.
    pub(super) fn command(&self, program: &str, connection: &Connection) -> Command {
        let mut command = Command::new(self.bin.join(program));
        connection.apply(&mut command);
        command
    }

    fn order(&self) -> (u32, u32) {
        (self.major, self.minor)
    }
}

/// The clients of this machine, sorted by version. Of two with the same version
/// the one whose directory comes first in `PATH` comes first here.
pub fn installed() -> Vec<Client> {
    let mut seen = HashSet::new();
    let mut clients: Vec<Client> = directories()
        .into_iter()
        .filter(|bin| bin.join("psql").exists())
        .filter(|bin| {
            fs::canonicalize(bin.join("pg_dumpall")).is_ok_and(|real| !is_wrapper(&real) && seen.insert(real))
        })
        .filter_map(|bin| at(&bin))
        .collect();
    clients.sort_by_key(Client::order);
    clients
}

/// The installed client that dumps a server of this major version: the
/// smallest major that is not older, and of that the newest minor.
pub fn for_server(clients: &[Client], server_major: u32) -> Result<&Client> {
    let enough = clients.iter().filter(|client| client.major >= server_major);
    smallest_major(enough).ok_or_else(|| {
        Error::failed(format!(
            "the server is PostgreSQL {server_major}, and no pg_dumpall of {server_major} or newer is installed \
             (found: {})",
            found(clients)
        ))
        .hint(format!("apt-get install postgresql-client-{server_major}"))
    })
}

/// The installed `psql` that reads a dump which `needs` one, preferably one
/// that is not older than the server which loads it.
pub fn psql_at_least(clients: &[Client], needs: PsqlVersion, server_major: u32) -> Result<&Client> {
    let fitting = || clients.iter().filter(|client| reads(client, needs));
    let new_enough = fitting().filter(|client| client.major >= server_major);
    // From behind, because of equals the last is the greatest.
    let best = smallest_major(new_enough).or_else(|| fitting().rev().max_by_key(|client| client.order()));
    best.ok_or_else(|| {
        Error::failed(format!("loading this dump needs psql {needs} or newer (found: {})", found(clients)))
            .hint(format!("apt-get install postgresql-client-{}", needs.major.max(server_major)))
    })
}

/// The oldest `psql` that reads a dump by a `pg_dumpall` of this major version.
pub(super) fn needed_psql(client_major: u32, restricts: bool) -> PsqlVersion {
    let since = restrict_since(client_major).unwrap_or(0);
    PsqlVersion { major: client_major, minor: if restricts { since } else { 0 } }
}

/// A newer major is not enough: 16.3 is newer than 15.14 and knows no `\restrict`.
fn reads(client: &Client, needs: PsqlVersion) -> bool {
    let restricted = needs.minor > 0 || needs.major >= 18;
    let minor = if restricted { restrict_since(client.major).unwrap_or(0) } else { 0 };
    let same_major_minor = if client.major == needs.major { needs.minor } else { 0 };
    client.major >= needs.major && client.minor >= minor.max(same_major_minor)
}

fn restrict_since(major: u32) -> Option<u32> {
    RESTRICT_SINCE.iter().find(|(known, _)| *known == major).map(|(_, minor)| *minor)
}

/// Of the smallest major the newest minor, and of equals the first.
fn smallest_major<'a>(clients: impl Iterator<Item = &'a Client>) -> Option<&'a Client> {
    clients.reduce(|best, next| match (next.major, next.minor > best.minor) {
        (major, newer) if major < best.major || (major == best.major && newer) => next,
        _ => best,
    })
}

fn found(clients: &[Client]) -> String {
    let versions: Vec<String> =
        clients.iter().map(|client| format!("{}.{}", client.major, client.minor)).collect();
    if versions.is_empty() { "none".into() } else { versions.join(", ") }
}

/// `PATH` first, then where distributions keep versions side by side.
pub(super) fn directories() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<PathBuf> = std::env::split_paths(&path).filter(|bin| bin.is_absolute()).collect();
    all.extend(
        children_of(Path::new("/usr/lib/postgresql"), "").into_iter().map(|version| version.join("bin")),
    );
    all.extend(children_of(Path::new("/usr"), "pgsql-").into_iter().map(|version| version.join("bin")));
    all.push(PathBuf::from("/usr/local/pgsql/bin"));
    all
}

fn children_of(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|e| e.path())
        .collect();
    paths.sort();
    paths
}

/// Debian's `/usr/bin/pg_dumpall` is a script that picks a version by itself.
fn is_wrapper(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name == "pg_wrapper")
}

fn at(bin: &Path) -> Option<Client> {
    let (major, minor, version) = version_of(&bin.join("pg_dumpall"))?;
    Some(Client { bin: bin.to_path_buf(), major, minor, version })
}

/// What `program --version` says, as major, minor and its words; none when it
/// does not run or is not of PostgreSQL.
pub(super) fn version_of(program: &Path) -> Option<(u32, u32, String)> {
    let mut command = Command::new(program);
    clean_environment(&mut command);
    command.arg("--version");
    let stop = Stop::default().within(VERSION_LIMIT, "version");
    let mut child = Child::spawn(command, Pipes { stdin: false, stdout: true }, |_| {}).ok()?;
    let text = child.read_all(64 * 1024, &stop).ok()?;
    child.wait(&stop).ok().filter(|status| status.success())?;
    parse_version(&String::from_utf8_lossy(&text))
}

fn parse_version(text: &str) -> Option<(u32, u32, String)> {
    let (_, version) = text.trim().split_once("(PostgreSQL) ")?;
    let number = |text: &str| -> Option<u32> {
        text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())].parse().ok()
    };
    let (major, rest) = version.split_once('.').unwrap_or((version, ""));
    Some((number(major)?, number(rest).unwrap_or(0), version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(bin: &str, major: u32, minor: u32) -> Client {
        Client { bin: bin.into(), major, minor, version: format!("{major}.{minor}") }
    }

    #[test]
    fn finds_the_client_of_debian_and_not_its_wrapper() {
        let clients = installed();
        let debian = clients.iter().find(|client| client.major == 15).expect("PostgreSQL 15 is installed");
        assert_eq!(debian.bin, Path::new("/usr/lib/postgresql/15/bin"));
        assert!(clients.iter().all(|client| client.bin != Path::new("/usr/bin")));
        assert!(clients.is_sorted_by_key(Client::order));
    }

    #[test]
    fn versions_of_every_form_are_read() {
        for (text, expected) in [
            ("pg_dumpall (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some((15, 18))),
            ("pg_dumpall (PostgreSQL) 16.3", Some((16, 3))),
            ("pg_dumpall (PostgreSQL) 18beta1", Some((18, 0))),
            ("pg_dumpall (PostgreSQL) 19devel", Some((19, 0))),
            ("something else 1.2", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text).map(|(major, minor, _)| (major, minor)), expected, "{text}");
        }
    }

    #[test]
    fn the_smallest_major_that_is_not_older_dumps_a_server() {
        let clients = [
            client("a", 15, 18),
            client("b", 16, 3),
            client("c", 16, 10),
            client("d", 16, 10),
            client("e", 18, 1),
        ];
        for (server, expected) in [(13, "a"), (15, "a"), (16, "c"), (17, "e"), (18, "e")] {
            assert_eq!(for_server(&clients, server).unwrap().bin, Path::new(expected), "{server}");
        }
    }

    #[test]
    fn no_fitting_client_is_an_error_that_names_the_package() {
        let clients = [client("a", 15, 18), client("b", 16, 3)];
        let error = for_server(&clients, 18).unwrap_err();
        assert_eq!(
            error.message(),
            "the server is PostgreSQL 18, and no pg_dumpall of 18 or newer is installed (found: 15.18, 16.3)"
        );
        assert_eq!(error.next_step(), Some("apt-get install postgresql-client-18"));
        assert!(for_server(&[], 16).unwrap_err().message().ends_with("(found: none)"));
    }

    #[test]
    fn a_psql_must_know_restrict_whatever_its_major() {
        let clients = [client("a", 15, 13), client("b", 15, 18), client("c", 16, 3), client("d", 17, 6)];
        let pick = |major, minor, server| {
            psql_at_least(&clients, PsqlVersion { major, minor }, server).map(|client| client.bin.clone())
        };
        assert_eq!(pick(15, 14, 15).unwrap(), Path::new("b"));
        assert_eq!(pick(15, 14, 16).unwrap(), Path::new("d"), "16.3 knows no restrict");
        assert_eq!(pick(16, 0, 16).unwrap(), Path::new("c"));
        assert_eq!(pick(15, 14, 18).unwrap(), Path::new("d"), "an older psql is better than none");
        let error = pick(18, 0, 18).unwrap_err();
        assert_eq!(
            error.message(),
            "loading this dump needs psql 18.0 or newer (found: 15.13, 15.18, 16.3, 17.6)"
        );
        assert_eq!(error.next_step(), Some("apt-get install postgresql-client-18"));
    }

    #[test]
    fn the_psql_that_a_dump_needs_follows_its_client() {
        for (major, restricts, expected) in [
            (15, true, "15.14"),
            (16, true, "16.10"),
            (13, true, "13.22"),
            (18, true, "18.0"),
            (15, false, "15.0"),
            (12, false, "12.0"),
        ] {
            assert_eq!(needed_psql(major, restricts).to_string(), expected);
        }
    }
}
