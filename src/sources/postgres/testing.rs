//! What this folder's tests share: a filled cluster, and clients that lie.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::client::{Client, installed};
use super::cluster::Cluster;
use super::connection::Connection;
use super::dump::Spool;
use super::query::ask;
use crate::gzip::Level;
use crate::stop::Stop;
use crate::workers::Workers;

/// Workers for one dump.
pub(super) fn workers() -> Workers {
    Workers::start().unwrap()
}

/// A place for one dump.
pub(super) fn spool<'a>(folder: &'a Path, workers: &'a Workers) -> Spool<'a> {
    Spool { folder, level: Level::Fast, workers }
}

/// A role's name with everything that may go wrong in one.
pub(super) const ODD_ROLE: &str = "o'dd \"q\"\n\\connect nowhere\nnl";
/// The same for a database, which cannot have a line break.
pub(super) const ODD_DATABASE: &str = "my \"db's\" a=b\\c ünï";

/// A cluster of its own for one test. Without PostgreSQL 15 the test fails.
pub(super) struct Server {
    pub(super) cluster: Cluster,
    pub(super) scratch: TempDir,
}

impl Server {
    pub(super) fn start(role: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(scratch.path(), role, &Stop::default()).unwrap();
        Self { cluster, scratch }
    }

    pub(super) fn connection(&self) -> Connection {
        Connection::from_url(&self.cluster.url()).unwrap()
    }

    /// The same cluster through a password.
    pub(super) fn login(&self, user: &str, password: &str) -> Connection {
        let (_, host) =
            self.cluster.url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        Connection::from_url(&format!("postgres://{user}:{password}@{host}")).unwrap()
    }

    pub(super) fn sql(&self, database: &str, sql: &str) -> String {
        let answer =
            ask(&client(), &self.connection().with_database(database), sql, &Stop::default()).unwrap();
        String::from_utf8(answer).unwrap().trim_end().to_owned()
    }

    /// From now on everybody but `role` needs a password.
    pub(super) fn demand_passwords_except_from(&self, role: &str) {
        let rules = format!("local all {role} trust\nlocal all all scram-sha-256\n");
        fs::write(self.sql("postgres", "SHOW hba_file;"), rules).unwrap();
        assert_eq!(self.sql("postgres", "SELECT pg_reload_conf();"), "t");
        // The reload is asynchronous.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }

    /// Two databases and three roles with passwords, and data that looks like
    /// the dump's own commands.
    pub(super) fn fill(&self) {
        let (role, database) = (ODD_ROLE.replace('"', "\"\""), ODD_DATABASE.replace('"', "\"\""));
        self.sql(
            "postgres",
            &format!(
                "CREATE ROLE app LOGIN PASSWORD 'app-pw';\n\
                 CREATE ROLE \"{role}\" LOGIN PASSWORD 'odd-pw';\n\
                 CREATE ROLE \"ünï cödé\" SUPERUSER LOGIN PASSWORD 'uni-pw';\n\
                 GRANT app TO \"ünï cödé\";\n\
                 COMMENT ON ROLE app IS E'it''s;\\n\\\\connect liar\\nCREATE ROLE liar;\\n';\n\
                 CREATE DATABASE app OWNER app;\n\
                 CREATE DATABASE \"{database}\" OWNER \"{role}\";\n\
                 CREATE DATABASE closed ALLOW_CONNECTIONS false;\n"
            ),
        );
        self.sql(
            "app",
            "CREATE TABLE t (id int PRIMARY KEY, words text);\n\
             INSERT INTO t SELECT n, E'\\\\connect liar\\n' || n FROM generate_series(1, 5000) n;\n\
             COMMENT ON TABLE t IS E'\\n\\\\connect liar\\n-- PostgreSQL database cluster dump complete\\n';\n",
        );
        self.sql(ODD_DATABASE, "CREATE TABLE odd (v text); INSERT INTO odd VALUES ('ß');");
    }
}

/// The real client that this machine has.
pub(super) fn client() -> Client {
    installed().into_iter().rfind(|client| client.major == 15).expect("PostgreSQL 15 is installed")
}

/// A client whose `pg_dumpall` is `script`, and whose `psql` is real.
pub(super) fn fake_client(directory: &Path, script: &str) -> Client {
    let bin: PathBuf = directory.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let real = client();
    symlink(real.bin.join("psql"), bin.join("psql")).unwrap();
    write_program(&bin.join("pg_dumpall"), script);
    Client { bin, ..real }
}

/// By another process: a file that this one has open for writing may be
/// inherited by a child of another test, and then cannot be run for a moment.
fn write_program(path: &Path, script: &str) {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
}
