//! A world whose destination is the GitHub stand-in.
#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Ran, StandIn, TOKEN, World, ran};

/// Where the stand-in's repository is in a config.
pub const ADDRESS: &str = "github://acme/backups";
/// What the worlds of these tests back up.
pub const PATHS: &str = "[tier1.secrets]\npaths = [\"sys\"]\n";

/// The stand-in, and a world that backs up to it.
pub struct Hub {
    pub github: StandIn,
    pub world: World,
}

impl Hub {
    /// A small system and an empty stand-in; `args` are the stand-in's own.
    pub fn new(args: &[&str]) -> Self {
        let world = World::new();
        let github = StandIn::start(&world, args);
        let hub = Self { github, world };
        hub.config("");
        hub
    }

    /// A system of `bytes` bytes that cannot be compressed.
    pub fn of_size(bytes: usize) -> Self {
        let hub = Self::new(&[]);
        hub.world.write("sys/data/noise", &noise(bytes));
        hub
    }

    /// Writes the config; `extra` goes into `[github]`.
    pub fn config(&self, extra: &str) {
        self.world.config_for(ADDRESS, &format!("{}{extra}{PATHS}", self.github.config()));
    }

    /// The program with the token, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(args);
        command.env("GITHUB_TOKEN", TOKEN);
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args))
    }

    #[track_caller]
    pub fn backup(&self) -> Value {
        self.run(&["--json", "backup"]).expect(0).json()
    }

    /// The names of the snapshots, newest first.
    #[track_caller]
    pub fn names(&self) -> Vec<String> {
        let list = self.run(&["--json", "list"]).expect(0).json();
        let snapshots = list["snapshots"].as_array().unwrap().iter();
        snapshots.map(|s| s["name"].as_str().unwrap().to_owned()).collect()
    }

    pub fn settings(&self, settings: Value) {
        self.github.control("POST", "settings", &settings);
    }

    /// Arms one fault.
    pub fn fault(&self, fault: Value) {
        self.github.faults(json!([fault]));
    }

    pub fn good_weather(&self) {
        self.github.control("DELETE", "faults", &Value::Null);
    }

    /// What has been asked since the last look, such as `PUT 201`; `-` stands
    /// for a request that got no answer.
    pub fn asked(&self) -> Vec<String> {
        let requests = self.github.requests().into_iter();
        requests
            .map(|(method, _, status)| {
                format!("{method} {}", status.map_or("-".to_owned(), |s| s.to_string()))
            })
            .collect()
    }

    /// `git` in the stand-in's bare repository.
    #[track_caller]
    pub fn git(&self, args: &[&str]) -> Vec<u8> {
        let output = Command::new("git").arg("-C").arg(self.repo()).args(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    pub fn repo(&self) -> std::path::PathBuf {
        self.github.state.join("repo.git")
    }

    /// The restored system is the one that was backed up, byte for byte.
    #[track_caller]
    pub fn assert_restores(&self, target: &str) {
        self.run(&["restore", "--target", target]).expect(0);
        same_files(&self.world.path("sys"), &self.world.restored(target, "sys"));
    }
}

/// Bytes that no compressor makes smaller, the same ones for every run.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(words.next().unwrap());
    }
    bytes.truncate(len);
    bytes
}

/// Every file below `before` is below `after` with the same bytes.
#[track_caller]
pub fn same_files(before: &Path, after: &Path) {
    let mut compared = 0;
    for entry in walkdir::WalkDir::new(before).into_iter().map(Result::unwrap) {
        if entry.file_type().is_file() {
            let other = after.join(entry.path().strip_prefix(before).unwrap());
            assert!(fs::read(entry.path()).unwrap() == fs::read(&other).unwrap(), "{}", other.display());
            compared += 1;
        }
    }
    assert!(compared > 0, "nothing to compare in {}", before.display());
}
