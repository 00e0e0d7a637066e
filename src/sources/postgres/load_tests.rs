use std::fs::File;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;

use super::super::dump::{Dump, dump};
use super::super::testing::{ODD_DATABASE, ODD_ROLE, Server, spool, workers};
use super::*;

const HASHES: &str =
    "SELECT rolname, rolpassword FROM pg_authid WHERE rolname !~ '^pg_' AND rolname <> 'boot' ORDER BY 1;";
const ROWS: &str = "SELECT count(*), md5(string_agg(words, ',' ORDER BY id)) FROM t;";

fn dump_of(server: &Server) -> Dump {
    dump(
        "main",
        &server.connection(),
        spool(server.scratch.path(), &workers()),
        &Stop::default(),
        &mut |_| {},
    )
    .unwrap()
}

fn expected(dump: &Dump) -> Expected<'_> {
    Expected { inventory: &dump.inventory, client_major: dump.client_major, needs_psql: dump.needs_psql }
}

fn sql_of(dump: &Dump) -> MultiGzDecoder<File> {
    let mut file = dump.gzip.try_clone().unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    MultiGzDecoder::new(file)
}

fn load_text(server: &Server, sql: &str, expected: &Expected) -> Result<Loaded> {
    load(&server.connection(), &mut sql.as_bytes(), expected, &Stop::default())
}

fn nothing() -> Inventory {
    Inventory {
        server_version: String::new(),
        server_major: 15,
        databases: vec![],
        roles: vec![],
        bootstrap_role: "boot".into(),
        bootstrap_grants: false,
    }
}

fn expecting(inventory: &Inventory) -> Expected<'_> {
    Expected { inventory, client_major: 15, needs_psql: PsqlVersion { major: 15, minor: 14 } }
}

#[test]
fn what_was_dumped_is_there_again_with_its_odd_names_and_passwords() {
    let (source, target) = (Server::start("boot"), Server::start("drill"));
    source.fill();
    let dump = dump_of(&source);
    let loaded = load(&target.connection(), &mut sql_of(&dump), &expected(&dump), &Stop::default()).unwrap();
    assert_eq!((loaded.databases, loaded.roles), (4, 4));
    assert!(loaded.server_version.starts_with("15."));
    assert_eq!(loaded.harmless, Vec::<String>::new());
    assert_eq!(target.sql("app", ROWS), source.sql("app", ROWS));
    assert_eq!(target.sql(ODD_DATABASE, "SELECT v FROM odd;"), "ß");
    let hashes = source.sql("postgres", HASHES);
    assert!(hashes.contains(ODD_ROLE) && hashes.matches("SCRAM-SHA-256").count() == 3);
    assert_eq!(target.sql("postgres", HASHES.replace("'boot'", "ALL('{boot,drill}')").as_str()), hashes);

    let error =
        load(&target.connection(), &mut sql_of(&dump), &expected(&dump), &Stop::default()).unwrap_err();
    assert!(error.message().contains("already has databases that the dump would make: \"app\", "), "{error}");
    assert!(error.next_step().unwrap().contains("empty cluster"));
}

#[test]
fn the_role_that_loads_may_be_in_the_dump_with_another_password() {
    let (source, target) = (Server::start("postgres"), Server::start("postgres"));
    source.fill();
    source.sql("postgres", "ALTER ROLE postgres PASSWORD 'old';");
    let dump = dump_of(&source);
    target.sql("postgres", "ALTER ROLE postgres PASSWORD 'new';");
    target.demand_passwords_except_from("nobody_at_all");
    let loaded =
        load(&target.login("postgres", "new"), &mut sql_of(&dump), &expected(&dump), &Stop::default())
            .unwrap();
    assert!(loaded.harmless[0].contains("role \"postgres\" already exists"), "{:?}", loaded.harmless);
    assert!(loaded.harmless[1].contains("now has its password and rights"), "{:?}", loaded.harmless);
    let error =
        check_target(&target.login("postgres", "new"), &expected(&dump), &Stop::default()).unwrap_err();
    assert!(error.message().starts_with("the server refused the password"), "{error}");
    let error =
        check_target(&target.login("postgres", "old"), &expected(&dump), &Stop::default()).unwrap_err();
    assert!(error.message().contains("already has databases"), "{error}");
}

#[test]
fn errors_amid_the_dump_fail_the_load_though_psql_exits_with_0() {
    let server = Server::start("boot");
    let empty = nothing();
    let sql = "CREATE ROLE boot;\n\\connect template1\nCREATE TABLE t (id int);\nINSERT INTO nowhere VALUES (1);\n\
               CREATE EXTENSION nonesuch;\nSELECT 1/0;\n\\nonesense\n";
    let error = load_text(&server, sql, &expecting(&empty)).unwrap_err();
    let message = error.message();
    assert!(
        message.starts_with("loading the dump met 4 errors: line 4: ERROR:  42P01: relation"),
        "{message}"
    );
    assert!(message.ends_with("| …") && !message.contains("boot"), "{message}");
    assert!(error.next_step().unwrap().contains("postgresql-contrib"), "{error:?}");
}

#[test]
fn a_database_or_role_that_did_not_come_back_is_named() {
    let (source, target) = (Server::start("boot"), Server::start("drill"));
    source.fill();
    let dump = dump_of(&source);
    let error =
        load_text(&target, "CREATE ROLE app;\n\\connect template1\nCREATE DATABASE app;\n", &expected(&dump))
            .unwrap_err();
    for difference in [
        r#"database "app" belongs to "drill" instead of "app""#,
        "ünï\" is missing",
        "role \"boot\" is missing",
    ] {
        assert!(error.message().contains(difference), "{error}");
    }
}

#[test]
fn a_server_that_is_too_old_or_a_role_without_rights_is_refused_before_anything_is_written() {
    let server = Server::start("boot");
    let empty = nothing();
    let newer = Expected { client_major: 16, ..expecting(&empty) };
    let error = load_text(&server, "CREATE ROLE written;\n", &newer).unwrap_err();
    assert!(
        error.message().starts_with("the dump needs a server of PostgreSQL 16 or newer, and "),
        "{error}"
    );
    assert!(error.next_step().unwrap().contains("postgresql-16"));
    let newest = Expected { needs_psql: PsqlVersion { major: 99, minor: 0 }, ..expecting(&empty) };
    let error = load_text(&server, "CREATE ROLE written;\n", &newest).unwrap_err();
    assert!(error.next_step().unwrap().contains("postgresql-client-99"), "{error:?}");
    server.sql("postgres", "CREATE ROLE app LOGIN;");
    let error = check_target(&server.login("app", ""), &expecting(&empty), &Stop::default()).unwrap_err();
    assert!(
        error.message().contains("role \"app\" at ") && error.message().ends_with("is not a superuser"),
        "{error}"
    );
    assert_eq!(server.sql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'written';"), "0");
}

#[test]
fn a_server_from_16_on_needs_the_same_bootstrap_role_when_it_granted_roles() {
    let cluster = |server_major, bootstrap_role: &str, bootstrap_grants| Inventory {
        server_major,
        bootstrap_role: bootstrap_role.into(),
        bootstrap_grants,
        ..nothing()
    };
    for (target, dumped, accepted) in [
        (cluster(16, "drill", false), cluster(16, "postgres", true), false),
        (cluster(18, "drill", false), cluster(15, "postgres", true), false),
        (cluster(15, "drill", false), cluster(15, "postgres", true), true),
        (cluster(16, "drill", false), cluster(16, "postgres", false), true),
        (cluster(16, "postgres", false), cluster(16, "postgres", true), true),
    ] {
        let result = refuse_other_bootstrap(&target, &dumped);
        assert_eq!(result.is_ok(), accepted, "{target:?} {dumped:?}");
        assert!(
            result.err().is_none_or(|error| error
                .next_step()
                .is_some_and(|hint| hint.contains("initdb -U postgres")))
        );
    }
}

#[test]
fn a_psql_that_ends_early_is_an_error_and_does_not_hang() {
    let server = Server::start("boot");
    let empty = nothing();
    // More than the pipe and our queue hold.
    let rest = "SELECT 1;\n".repeat(500_000);
    let kill = format!("SELECT pg_terminate_backend(pg_backend_pid());\n{rest}");
    let error = load_text(&server, &kill, &expecting(&empty)).unwrap_err();
    assert!(error.message().contains("57P01"), "{error}");
    let error = load_text(&server, &format!("\\q\n{rest}"), &expecting(&empty)).unwrap_err();
    assert!(error.message().starts_with("psql stopped reading before the end of the dump"), "{error}");
    let error = load_text(&server, &format!("\\connect nowhere\n{rest}"), &expecting(&empty)).unwrap_err();
    assert!(error.message().contains("database \"nowhere\" does not exist"), "{error}");
}

#[test]
fn a_load_that_hangs_meets_its_deadline_and_a_broken_dump_keeps_its_error() {
    let server = Server::start("boot");
    let empty = nothing();
    let stop = Stop::default().within(Duration::from_secs(1), "restore");
    let sql = format!("SELECT pg_sleep(1000);\n{}", "SELECT 1;\n".repeat(500_000));
    let started = Instant::now();
    let error = load(&server.connection(), &mut sql.as_bytes(), &expecting(&empty), &stop).unwrap_err();
    assert!(error.message().starts_with("restore took longer"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());

    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(Error::integrity("token 3 is damaged").into())
        }
    }
    let error = load(&server.connection(), &mut Broken, &expecting(&empty), &Stop::default()).unwrap_err();
    assert_eq!((error.message(), error.kind().exit_code()), ("token 3 is damaged", 5));
}

#[test]
fn only_the_statement_of_our_own_role_is_held_back() {
    let dump = "CREATE ROLE me;\nALTER ROLE me WITH SUPERUSER\nPASSWORD 'x';\nALTER ROLE you WITH LOGIN;\n\
                ALTER ROLE me SET x TO 'y';\n\\connect template1\nALTER ROLE me WITH NOLOGIN;\nrest";
    for step in [1, 4, 1000] {
        let mut own_role = OwnRole::new("me");
        let mut passed: Vec<u8> =
            dump.as_bytes().chunks(step).flat_map(|bytes| own_role.filter(bytes)).collect();
        passed.extend(own_role.finish());
        let expected = dump.replacen("ALTER ROLE me WITH SUPERUSER\nPASSWORD 'x';", "\n", 1);
        assert_eq!(String::from_utf8(passed).unwrap(), expected);
        assert_eq!(own_role.held, b"ALTER ROLE me WITH SUPERUSER\nPASSWORD 'x';\n");
    }
}
