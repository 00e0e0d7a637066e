//! The daemon as a process, and stand-ins for PostgreSQL's programs.
#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Timelike, Utc};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{World, wait_until};

/// A schedule that rings every other second.
pub const OFTEN: &str = "*/2 * * * * *";

/// A six-hourly schedule whose next run is two to three hours away.
pub fn six_hourly() -> String {
    let first = (Utc::now().hour() + 3) % 6;
    format!("0 0 {},{},{},{} * * *", first, first + 6, first + 12, first + 18)
}

/// The lines of a config that set the schedule and what is backed up.
pub fn scheduled(schedule: &str) -> String {
    format!("schedule = \"{schedule}\"\n{TIER1}")
}

pub const TIER1: &str = "[tier1.secrets]\npaths = [\"sys/data\", \"sys/.env\"]\n";

/// A running daemon. Its words go to a file.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub fn start(world: &World) -> Self {
        Self::of(world, world.command(&["daemon"]))
    }

    /// Starts `command`, which runs the daemon.
    pub fn of(world: &World, mut command: Command) -> Self {
        let log = world.path("daemon.log");
        let file = File::create(&log).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(Stdio::from(file)).spawn().unwrap();
        let daemon = Self { child, log };
        daemon.wait_for("watches over test");
        daemon
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// How often it has said `words`.
    pub fn count(&self, words: &str) -> usize {
        self.log().matches(words).count()
    }

    /// Waits until it has said `words`.
    #[track_caller]
    pub fn wait_for(&self, words: &str) {
        self.wait_for_times(words, 1);
    }

    #[track_caller]
    pub fn wait_for_times(&self, words: &str, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.count(words) < times {
            assert!(Instant::now() < deadline, "not said {times} times: {words}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[track_caller]
    pub fn assert_runs(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "it ended:\n{}", self.log());
    }

    /// Asks it to stop, and returns its exit code and all that it said.
    pub fn stop(self) -> (Option<i32>, String) {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits until it has ended by itself.
    pub fn ended(mut self) -> (Option<i32>, String) {
        let mut status = None;
        wait_until("the daemon ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap().code(), self.log())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts an empty file where a snapshot of `age` would be.
pub fn pretend_snapshot(world: &World, age: TimeDelta, ending: &str) {
    let name =
        (Utc::now() - age).format(&format!("dest/test/%Y/%m/%Y%m%dT%H%M%SZ-aaaaaaaa{ending}")).to_string();
    world.write(&name, b"");
}

/// The snapshots in the world's folder, oldest first; `-aaaaaaaa` are pretended.
pub fn taken(world: &World) -> Vec<String> {
    let names = world.objects().into_iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned());
    names.filter(|name| name.contains(".tar.gz.fernet") && !name.contains("-aaaaaaaa")).collect()
}

/// What a backup needs to dump a cluster that is not there: programs of
/// PostgreSQL 99. `dump` is the shell code of `pg_dumpall`.
pub struct FakePostgres {
    pub bin: PathBuf,
}

/// The lines of a config that dump it.
pub const CLUSTER: &str = "[postgres.main]\nurl = [\"env:DATABASE_URL\"]\n";

impl FakePostgres {
    pub fn new(world: &World, dump: &str) -> Self {
        let fake = Self { bin: world.path("bin") };
        fs::create_dir(&fake.bin).unwrap();
        fake.program(
            "psql",
            "cat > /dev/null; echo '{\"version\":\"99.0\",\"version_num\":990000,\"user\":\"u\",\
             \"superuser\":true,\"bootstrap_grants\":false}'",
        );
        fake.dump_with(dump);
        fake
    }

    /// From now on `pg_dumpall` does this.
    pub fn dump_with(&self, dump: &str) {
        self.program(
            "pg_dumpall",
            &format!(
                "[ \"$1\" = --version ] && {{ echo 'pg_dumpall (PostgreSQL) 99.0'; exit; }}\n\
                 complete() {{ echo '-- PostgreSQL database cluster dump complete'; }}\n{dump}"
            ),
        );
    }

    fn program(&self, name: &str, script: &str) {
        // Another file each time: one that is being run cannot be written.
        let new = self.bin.join(".new");
        fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&new, self.bin.join(name)).unwrap();
    }

    /// The program with these first on its path.
    pub fn command(&self, world: &World, args: &[&str]) -> Command {
        let mut command = world.command(args);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.bin.display()));
        command.env("DATABASE_URL", "postgres://u:db-s3cret@127.0.0.1:1/postgres");
        command
    }
}

/// Whether the process whose number is in this file is gone.
pub fn is_gone(pid: &Path) -> bool {
    let pid = fs::read_to_string(pid).unwrap();
    // Nobody may have waited for it: then a zombie is left of it.
    match fs::read_to_string(format!("/proc/{}/stat", pid.trim())) {
        Ok(stat) => stat.rsplit_once(") ").unwrap().1.starts_with('Z'),
        Err(_) => true,
    }
}
