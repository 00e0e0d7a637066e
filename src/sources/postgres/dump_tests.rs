use std::fs;
use std::io::Read;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;

use super::super::testing::{ODD_DATABASE, ODD_ROLE, Server, fake_client, spool, workers};
use super::*;
use crate::repository::inventory::Database;

const COMPLETE: &str = r#"printf '%s\n' 'CREATE ROLE app;' '\connect template1' '--' \
    '-- PostgreSQL database cluster dump complete' '--' ''"#;

fn inventory(databases: &[&str], roles: &[&str]) -> Inventory {
    let database = |name: &&str| Database {
        name: (*name).into(),
        owner: "app".into(),
        encoding: "UTF8".into(),
        size_bytes: 1,
        connectable: true,
    };
    Inventory {
        server_version: "15.18".into(),
        server_major: 15,
        databases: databases.iter().map(database).collect(),
        roles: roles.iter().map(|role| (*role).into()).collect(),
        bootstrap_role: "postgres".into(),
        bootstrap_grants: false,
    }
}

/// Runs a `pg_dumpall` that is `script` against a cluster that held `before`
/// and holds `after`.
fn dump_by(script: &str, before: Inventory, after: Inventory, stop: &Stop) -> Result<Dump> {
    let scratch = tempfile::tempdir().unwrap();
    let client = fake_client(scratch.path(), script);
    let connection = Connection::from_url("postgres://u:geheim@h/d").unwrap();
    let workers = workers();
    let job = Job {
        label: "main",
        connection: &connection,
        client: &client,
        spool: spool(scratch.path(), &workers),
    };
    let result = job.run(before, stop, &mut |_| {}, &|| Ok(after.clone()));
    let left: Vec<_> =
        fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["bin"], "the dump has a name on disk");
    result
}

fn dump_simply(script: &str) -> Result<Dump> {
    let inventory = inventory(&["template1"], &["app"]);
    dump_by(script, inventory.clone(), inventory, &Stop::default())
}

#[test]
fn a_real_cluster_is_dumped_with_hash_inventory_and_versions() {
    let server = Server::start("boot");
    server.fill();
    let mut passed = 0;
    let scratch = server.scratch.path();
    let mut dump =
        dump("main", &server.connection(), spool(scratch, &workers()), &Stop::default(), &mut |bytes| {
            passed += bytes
        })
        .unwrap();
    let mut sql = Vec::new();
    MultiGzDecoder::new(&mut dump.gzip).read_to_end(&mut sql).unwrap();
    assert_eq!((sql.len() as u64, passed), (dump.bytes, dump.bytes));
    assert_eq!(dump.gzip_bytes, dump.gzip.metadata().unwrap().len());
    assert_eq!(dump.sha256.as_ref(), ring::digest::digest(&SHA256, &sql).as_ref());
    assert_eq!((dump.client_major, dump.needs_psql.to_string().as_str()), (15, "15.14"));
    assert_eq!(dump.inventory.roles.len(), 4);
    assert_eq!((dump.inventory.bootstrap_role.as_str(), dump.inventory.bootstrap_grants), ("boot", true));
    assert!(dump.inventory.roles.iter().any(|role| role == ODD_ROLE));
    let dumped: Vec<&str> = dump.inventory.dumped().map(|database| database.name.as_str()).collect();
    assert_eq!(dumped, ["app", ODD_DATABASE, "postgres", "template1"]);
    assert!(
        dump.inventory.databases.iter().any(|database| database.name == "closed" && !database.connectable)
    );
}

#[test]
fn a_database_with_a_line_break_in_its_name_is_refused_by_its_name() {
    let server = Server::start("boot");
    server.sql("postgres", "CREATE DATABASE \"a\nb\";");
    let scratch = server.scratch.path();
    let error = dump("main", &server.connection(), spool(scratch, &workers()), &Stop::default(), &mut |_| {})
        .unwrap_err();
    assert!(error.message().contains(r#"database "a\nb" has a line break"#), "{error}");
    server.sql("postgres", "ALTER DATABASE \"a\nb\" ALLOW_CONNECTIONS false;");
    assert!(
        dump("main", &server.connection(), spool(scratch, &workers()), &Stop::default(), &mut |_| {}).is_ok()
    );
}

#[test]
fn a_wrong_password_and_missing_rights_are_told_apart_without_the_password() {
    let server = Server::start("boot");
    server.sql("postgres", "CREATE ROLE app LOGIN PASSWORD 'right';");
    server.demand_passwords_except_from("boot");
    let try_as = |password: &str| {
        let connection = server.login("app", password);
        dump("main", &connection, spool(server.scratch.path(), &workers()), &Stop::default(), &mut |_| {})
            .unwrap_err()
    };
    let error = try_as("geheim-falsch");
    assert!(error.message().starts_with("the server refused the password ("), "{error}");
    assert!(!format!("{error:?}").contains("geheim"), "{error:?}");
    let error = try_as("right");
    assert!(error.message().starts_with("the role may not read everything ("), "{error}");
    assert!(error.message().contains("pg_authid"), "{error}");
    assert!(error.next_step().unwrap().contains("superuser"));
    let error = try_as("");
    assert!(error.message().starts_with("the server wants a password"), "{error}");
}

#[test]
fn nobody_there_is_cannot_connect() {
    let scratch = tempfile::tempdir().unwrap();
    let connection = Connection::from_url("postgres://u:geheim@127.0.0.1:1/d").unwrap();
    let error = dump("main", &connection, spool(scratch.path(), &workers()), &Stop::default(), &mut |_| {})
        .unwrap_err();
    assert!(error.message().starts_with("cannot connect to PostgreSQL at 127.0.0.1:1/u"), "{error}");
}

#[test]
fn a_complete_dump_of_a_fake_client_passes() {
    let dump = dump_simply(COMPLETE).unwrap();
    assert_eq!(dump.needs_psql.to_string(), "15.0", "nothing in it needs more");
}

#[test]
fn a_dump_cut_short_with_exit_0_is_refused() {
    for script in [
        r"printf 'CREATE ROLE app;\n\\connect template1\n'",
        "exit 0",
        &format!("{COMPLETE}; echo 'SELECT 1;'"),
    ] {
        let error = dump_simply(script).unwrap_err();
        assert!(error.message().starts_with("the dump of h:5432/u was cut short"), "{error}");
        assert!(error.next_step().is_some());
    }
}

#[test]
fn a_complete_dump_with_another_exit_status_is_refused_with_its_last_words() {
    let error = dump_simply(&format!("{COMPLETE}; echo \"bad $PGPASSWORD thing\" >&2; exit 1")).unwrap_err();
    assert_eq!(error.message(), "pg_dumpall ended with exit status 1 (h:5432/u): bad *** thing");
    let error = dump_simply("kill -9 $$").unwrap_err();
    assert_eq!(error.message(), "pg_dumpall was killed by signal 9 (h:5432/u)");
}

#[test]
fn a_missing_database_or_role_is_named_unless_it_was_dropped_meanwhile() {
    let before = inventory(&["template1", "lost", "dropped"], &["app", "ghost", "gone"]);
    let after = inventory(&["template1", "lost"], &["app", "ghost"]);
    let error = dump_by(COMPLETE, before.clone(), after, &Stop::default()).unwrap_err();
    assert!(error.message().contains(r#"incomplete: database "lost", role "ghost" exists"#), "{error}");
    let dump = dump_by(COMPLETE, before, inventory(&["template1"], &["app"]), &Stop::default()).unwrap();
    assert_eq!(dump.inventory, inventory(&["template1"], &["app"]));
}

#[test]
fn a_client_that_floods_stderr_is_drained_and_bounded() {
    let error =
        dump_simply("head -c 50000000 /dev/zero | tr '\\0' 'x' | fold >&2; echo >&2; echo end >&2; exit 3")
            .unwrap_err();
    assert!(error.message().starts_with("pg_dumpall ended with exit status 3"), "{error}");
    assert!(error.message().len() < 800 && error.message().ends_with("end"), "{error}");
}

#[test]
fn a_client_that_floods_stderr_for_ever_meets_the_deadline() {
    let stop = Stop::default().within(Duration::from_millis(400), "dump");
    let started = Instant::now();
    let error = dump_by("yes >&2", inventory(&[], &[]), inventory(&[], &[]), &stop).unwrap_err();
    assert!(error.message().starts_with("dump took longer"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_client_that_hangs_is_killed_with_its_grandchild() {
    // One that goes when asked, and one that does not listen.
    for (trap, limit) in [("", 2), ("trap '' TERM;", 5)] {
        let notes = tempfile::tempdir().unwrap();
        let pid_file = notes.path().join("pid");
        let script =
            format!("{trap} sleep 1000 & echo $! > {}; {COMPLETE}; wait; sleep 1000", pid_file.display());
        let stop = Stop::default().within(Duration::from_millis(500), "dump");
        let started = Instant::now();
        let error = dump_by(&script, inventory(&[], &[]), inventory(&[], &[]), &stop).unwrap_err();
        assert!(error.message().starts_with("dump took longer"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(limit), "{:?}", started.elapsed());
        assert_gone(fs::read_to_string(&pid_file).unwrap().trim());
    }
}

#[test]
fn a_process_left_behind_by_a_successful_client_is_ended() {
    let notes = tempfile::tempdir().unwrap();
    let pid_file = notes.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; {COMPLETE}", pid_file.display());
    let started = Instant::now();
    dump_simply(&script).unwrap();
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_gone(fs::read_to_string(&pid_file).unwrap().trim());
}

/// Ended, whether or not init has reaped it yet.
fn assert_gone(pid: &str) {
    for _ in 0..50 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("process {pid} still runs");
}
