//! From what a client wrote to stderr to an error a person can act on.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::connection::Connection;
use crate::error::Error;

/// How much of stderr an error quotes.
const QUOTED_LINES: usize = 3;
const QUOTED_BYTES: usize = 600;

/// What a text in stderr means, and what to do about it. The first that
/// matches counts. Clients speak English because they run with `LC_ALL=C`; a
/// server may speak its own language, and is then only quoted.
const MEANINGS: &[(&str, &str, &str)] = &[
    (
        "password authentication failed",
        "the server refused the password",
        "check the user and the password in the PostgreSQL URL",
    ),
    (
        "no password supplied",
        "the server wants a password, and the PostgreSQL URL has none",
        "put it into the URL: postgres://user:password@host/database",
    ),
    (
        "no pg_hba.conf entry",
        "the server does not let this host and user in",
        "add a line for it to the server's pg_hba.conf and reload the server",
    ),
    (
        "server version mismatch",
        "the client is older than the server",
        "install the server's major version of the client: apt-get install postgresql-client-<major>",
    ),
    (
        "permission denied for",
        "the role may not read everything",
        "a cluster dump reads every table and the stored passwords (pg_authid): use a superuser, or a role \
         that may read both (pg_read_all_data is not enough for pg_authid)",
    ),
    (
        "no space left on device",
        "the disk is full",
        "make room on the disk of the server or of the scratch directory",
    ),
];

/// Texts that say there was no connection at all.
const UNREACHABLE: &[&str] = &[
    "connection refused",
    "could not connect",
    "could not translate host name",
    "connection to server",
    "timeout expired",
    "server closed the connection",
];

/// The error for a client that did not end well.
pub(super) fn explain(program: &str, status: ExitStatus, stderr: &str, connection: &Connection) -> Error {
    let ended = match (status.code(), status.signal()) {
        (Some(code), _) => format!("{program} ended with exit status {code}"),
        (None, Some(signal)) => format!("{program} was killed by signal {signal}"),
        (None, None) => format!("{program} ended in an unknown way"),
    };
    let quoted = quote(stderr, connection);
    let lower = stderr.to_lowercase();
    let server = connection.shown();
    if let Some((_, meaning, hint)) = MEANINGS.iter().find(|(text, _, _)| lower.contains(text)) {
        return Error::failed(format!("{meaning} ({server}); {ended}{quoted}")).hint(*hint);
    }
    if UNREACHABLE.iter().any(|text| lower.contains(text)) {
        return Error::failed(format!("cannot connect to PostgreSQL at {server}; {ended}{quoted}")).hint(
            "check that the server runs and that the host, port and user in the PostgreSQL URL are right",
        );
    }
    Error::failed(format!("{ended} ({server}){quoted}"))
}

/// `: ` and the last lines of `stderr` in one line without the password, or
/// nothing when there are none.
fn quote(stderr: &str, connection: &Connection) -> String {
    let redacted = connection.redact(stderr);
    let lines: Vec<&str> = redacted.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(QUOTED_LINES)..].join(" | ");
    match last.is_empty() {
        true => String::new(),
        false => format!(": {}", shortened(&last, QUOTED_BYTES)),
    }
}

/// The first `limit` bytes of `text`, cut between characters, on one line.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    let mut short: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if short.len() > limit {
        let cut = (0..=limit).rev().find(|at| short.is_char_boundary(*at)).unwrap_or(0);
        short.truncate(cut);
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(stderr: &str) -> Error {
        let connection = Connection::from_url("postgres://u:geheim@h/d").unwrap();
        explain("pg_dumpall", ExitStatus::from_raw(1 << 8), stderr, &connection)
    }

    #[test]
    fn says_what_a_complaint_means() {
        for (stderr, expected, hint) in [
            (
                "FATAL:  password authentication failed for user \"u\"",
                "refused the password (h:5432/u)",
                "check the user",
            ),
            ("fe_sendauth: no password supplied", "wants a password", "put it into"),
            (
                "connection to server at \"h\", port 5432 failed: FATAL:  no pg_hba.conf entry for host",
                "let this host",
                "pg_hba",
            ),
            (
                "pg_dumpall: error: aborting because of server version mismatch",
                "older than the server",
                "apt-get install",
            ),
            ("ERROR:  permission denied for table pg_authid", "may not read everything", "pg_authid"),
            (
                "connection to server at \"h\", port 1 failed: Connection refused",
                "cannot connect to PostgreSQL at h:5432/u",
                "server runs",
            ),
            (
                "connection to server on socket \"/s\" failed: Permission denied",
                "cannot connect",
                "server runs",
            ),
            ("could not translate host name \"h\" to address", "cannot connect", "server runs"),
        ] {
            let error = explained(stderr);
            assert!(error.message().contains(expected), "{error}");
            assert!(error.message().contains("pg_dumpall ended with exit status 1: "), "{error}");
            assert!(error.next_step().unwrap().contains(hint), "{error:?}");
        }
        assert_eq!(explained("").message(), "pg_dumpall ended with exit status 1 (h:5432/u)");
        assert_eq!(
            explained("a\nb\nc\nd\n").message(),
            "pg_dumpall ended with exit status 1 (h:5432/u): b | c | d"
        );
    }

    #[test]
    fn never_quotes_the_password_and_never_much() {
        let error = explained(&format!("{}\nuser=u password=geheim\n", "x".repeat(5000)));
        assert!(!error.message().contains("geheim") && error.message().len() < 800, "{error}");
        assert!(explained("password=geheim").message().ends_with("password=***"));
    }

    #[test]
    fn a_signal_is_named() {
        let connection = Connection::from_url("postgres://h").unwrap();
        let error = explain("psql", ExitStatus::from_raw(9), "", &connection);
        assert_eq!(error.message(), "psql was killed by signal 9 (h:5432)");
    }
}
