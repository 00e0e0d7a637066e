//! What the tests share: a small system to back up, the program as a user runs
//! it, the GitHub stand-in, and a throwaway PostgreSQL cluster.
#![allow(dead_code, reason = "each test binary uses its part of this")]
#![expect(clippy::panic, clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use offsite::sources::postgres::Cluster;
use offsite::stop::Stop;
use serde_json::Value;

/// The key of every test: the bytes 0 to 31. Its id is 4405f0eb.
pub const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
pub const TOKEN: &str = "github_pat_s3cret-t0ken";

/// A scratch place with a system (`sys/`), a destination (`dest/`) and a config.
pub struct World {
    dir: tempfile::TempDir,
    pub root: PathBuf,
}

/// What a run of the program came to.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.stdout, self.stderr))
    }

    /// Fails the test unless the exit code is `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

impl World {
    /// An empty world with an empty `sys/` and `dest/`.
    pub fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for folder in ["sys", "dest", "tmp"] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        Self { dir, root }
    }

    /// A world with a few files and a config that backs them up to `dest/`.
    pub fn new() -> Self {
        let world = Self::empty();
        world.write("sys/data/vault.enc", b"sealed vault");
        world.write("sys/.env", b"A=1\n");
        world.config("[tier1.secrets]\npaths = [\"sys/data\", \"sys/.env\"]\n");
        world
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    pub fn write(&self, relative: &str, bytes: &[u8]) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Where `sys/<relative>` is after a restore to `target`.
    pub fn restored(&self, target: &str, relative: &str) -> PathBuf {
        self.path(target).join(self.path(relative).strip_prefix("/").unwrap())
    }

    /// Writes `backup-paths.toml` with a head for `dest/` and `rest`.
    pub fn config(&self, rest: &str) {
        self.config_for(&format!("file://{}", self.path("dest").display()), rest);
    }

    pub fn config_for(&self, destination: &str, rest: &str) {
        let text = format!(
            "system = \"test\"\ndestination = \"{destination}\"\nkey = [\"env:AITHER_MASTER_KEY\"]\n{rest}"
        );
        self.write("backup-paths.toml", text.as_bytes());
    }

    pub fn destination(&self) -> String {
        format!("file://{}", self.path("dest").display())
    }

    /// The program with a clean environment, the key, and this world's folders.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_offsite"));
        command.args(args).current_dir(&self.root).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", &self.root).env("TMPDIR", self.path("tmp")).env("AITHER_MASTER_KEY", KEY);
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args))
    }

    /// Backs up and returns the report.
    #[track_caller]
    pub fn backup(&self) -> Value {
        self.run(&["--json", "backup"]).expect(0).json()
    }

    /// The files of the destination, by name.
    pub fn objects(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = walkdir::WalkDir::new(self.path("dest"))
            .into_iter()
            .flatten()
            .filter(|e| e.file_type().is_file())
            .map(|e| e.path().to_owned())
            .collect();
        found.sort();
        found
    }

    /// Nothing of a run is left in the temporary folder but the mark of its start.
    #[track_caller]
    pub fn assert_no_leftovers(&self) {
        for entry in fs::read_dir(self.path("tmp")).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(name.ends_with(".started") || name.ends_with(".last"), "left behind: {name}");
        }
    }

    /// Keeps the world for a look at it after a failure.
    pub fn keep(self) -> PathBuf {
        self.dir.keep()
    }
}

pub fn ran(mut command: Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().unwrap();
    Ran {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Python with `cryptography`: from `make test`, which installs it. Without it
/// the test fails and says so.
pub fn python() -> PathBuf {
    let given = std::env::var_os("OFFSITE_TEST_PYTHON").map(PathBuf::from);
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-venv/bin/python");
    let python = given.unwrap_or(made);
    assert!(python.exists(), "no Python with `cryptography` at {}: run `make test`", python.display());
    python
}

/// The GitHub stand-in, with its repository in a world's folder.
pub struct StandIn {
    child: Child,
    pub url: String,
    pub state: PathBuf,
}

impl StandIn {
    /// Starts it for `acme/backups`; `args` are its own.
    pub fn start(world: &World, args: &[&str]) -> Self {
        let state = world.path("github");
        let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/github_stand_in/server.py");
        let mut child = Command::new(python())
            .arg("-B")
            .arg(server)
            .arg("--state")
            .arg(&state)
            .args(["--token", TOKEN, "--exit-with-stdin"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, url, state }
    }

    /// The lines of a config that point the program here.
    pub fn config(&self) -> String {
        format!("[github]\ntoken = [\"env:GITHUB_TOKEN\"]\napi_url = \"{}\"\n", self.url)
    }

    /// A control request; see the stand-in's README.
    pub fn control(&self, method: &str, path: &str, body: &Value) -> Value {
        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let body = body.to_string();
        write!(
            stream,
            "{method} /_control/{path} HTTP/1.1\r\nhost: x\r\nuser-agent: tests\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, json) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{answer}");
        serde_json::from_str(json).unwrap_or(Value::Null)
    }

    /// Arms faults.
    pub fn faults(&self, faults: Value) {
        self.control("POST", "faults", &faults);
    }

    /// What has been requested since the last call: method, path, status.
    pub fn requests(&self) -> Vec<(String, String, Option<u64>)> {
        let list = self.control("GET", "requests", &Value::Null);
        self.control("DELETE", "requests", &Value::Null);
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        list.as_array()
            .unwrap()
            .iter()
            .map(|r| (text(&r["method"]), text(&r["path"]), r["status"].as_u64()))
            .collect()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A throwaway cluster with two databases, three roles and some rows.
pub fn filled_cluster(scratch: &Path) -> Cluster {
    let cluster = Cluster::start(scratch, "postgres", &Stop::default()).unwrap();
    cluster
        .sql(
            "postgres",
            "CREATE ROLE tenant_owner LOGIN PASSWORD 'db-s3cret'; CREATE ROLE reader; CREATE DATABASE tenants OWNER tenant_owner; CREATE DATABASE \"odd 'name\";",
            &Stop::default(),
        )
        .unwrap();
    cluster
        .sql(
            "tenants",
            "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 2000) g;",
            &Stop::default(),
        )
        .unwrap();
    cluster
}

/// Waits until `done` says so, at most 30 s.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
