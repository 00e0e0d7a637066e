//! What is selected comes back, and what is not is said.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "files/interrupted.rs"]
mod interrupted;
#[path = "files/metadata.rs"]
mod metadata;
#[path = "files/restore.rs"]
mod restore;
#[path = "files/sqlite.rs"]
mod sqlite;
mod support;
#[path = "support/tree.rs"]
mod tree;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use support::{Ran, World, ran};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl World {
    /// Restores the newest snapshot to `back` and returns where `sys/` is in it.
    #[track_caller]
    fn restore(&self) -> PathBuf {
        self.run(&["restore", "--target", "back"]).expect(0);
        self.restored("back", "sys")
    }

    /// The program as a user that is not root, who owns nothing but `dest` and `tmp`.
    fn as_nobody(&self, args: &[&str]) -> Command {
        let plain = self.command(args);
        if !is_root() {
            return plain;
        }
        let program = self.path("offsite");
        if !program.exists() {
            fs::copy(plain.get_program(), &program).unwrap();
            fs::set_permissions(&self.root, fs::Permissions::from_mode(0o777)).unwrap();
            for folder in ["dest", "tmp"] {
                std::os::unix::fs::chown(self.path(folder), Some(65534), Some(65534)).unwrap();
            }
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(program);
        command.args(args).current_dir(&self.root).env_clear();
        command.envs(plain.get_envs().filter_map(|(k, v)| Some((k, v?))));
        command
    }

    /// A shell script that may mount things, which nobody else sees and which
    /// are gone when it ends; `$offsite` is the program. `None`, and a word on
    /// why, where this machine does not allow that.
    fn with_mounts(&self, script: &str) -> Option<Ran> {
        let unshare = if is_root() { &["-m"][..] } else { &["-r", "-m"] };
        let shell = |script: &str| {
            let mut command = self.command(&[]);
            let program = command.get_program().to_owned();
            let envs: Vec<_> =
                command.get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect();
            command = Command::new("unshare");
            command.args(unshare).args(["sh", "-ec", script]).current_dir(&self.root).env_clear();
            command.envs(envs.into_iter().filter_map(|(k, v)| Some((k, v?)))).env("offsite", program);
            ran(command)
        };
        if shell("mkdir -p probe; mount -t tmpfs -o size=1m none probe").code != 0 {
            eprintln!("not tested: this user may not mount anything here");
            return None;
        }
        Some(shell(script))
    }

    /// The manifest of the newest complete snapshot.
    #[track_caller]
    fn manifest(&self) -> Value {
        self.run(&["--json", "show"]).expect(0).json()
    }
}

/// The skipped paths of a report or manifest below the world: path, reason, required.
fn skipped(world: &World, report: &Value) -> Vec<(String, String, bool)> {
    let root = format!("{}/", world.root.display());
    let mut found: Vec<_> = report["skipped"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| {
            let path = s["path"].as_str().unwrap();
            let path = path.strip_prefix(&root).unwrap_or(path).to_owned();
            (path, s["reason"].as_str().unwrap().replace(&root, ""), s["required"].as_bool().unwrap())
        })
        .collect();
    found.sort();
    found
}

fn skip(path: &str, reason: &str, required: bool) -> (String, String, bool) {
    (path.to_owned(), reason.to_owned(), required)
}

/// Everything below `folder`, sorted.
fn paths(folder: &Path) -> Vec<String> {
    let below = walkdir::WalkDir::new(folder).min_depth(1).sort_by_file_name();
    below.into_iter().map(|e| e.unwrap().path().strip_prefix(folder).unwrap().display().to_string()).collect()
}

#[test]
fn a_missing_required_path_is_said_everywhere() {
    let world = World::new();
    world.config("[tier1.secrets]\npaths = [\"sys/data\", \"sys/gone\"]\n");
    let told = world.run(&["backup"]).expect(3);
    assert!(told.stderr.starts_with("DEGRADED snapshot "), "{}", told.stderr);
    let gone = format!("\n  MISSING  {}: missing [secrets]\n", world.path("sys/gone").display());
    assert!(told.stderr.contains(&gone), "{}", told.stderr);
    assert!(told.stderr.ends_with("\ndegraded: required paths that could not be stored whole: 1\n"));
    let list = world.run(&["--json", "list"]).expect(0).json();
    let name = list["snapshots"][0]["name"].as_str().unwrap();
    assert!(name.ends_with(".degraded.tar.gz.fernet"));
    assert_eq!(list["snapshots"][0]["state"], "degraded");
    assert!(world.path("dest").join(name).is_file());
    let id = list["snapshots"][0]["id"].as_str().unwrap();
    let manifest = world.run(&["--json", "show", id]).expect(0).json();
    assert_eq!(manifest["degraded"], true);
    assert_eq!(skipped(&world, &manifest), [skip("sys/gone", "missing", true)]);
    world.run(&["status"]).expect(3);
    world.run(&["verify", id]).expect(3);
    // It is not what `latest` means, but can be had by its id.
    let latest = world.run(&["restore", "--target", "back"]).expect(1);
    assert!(latest.stderr.contains("none of the 1 snapshots is complete"), "{}", latest.stderr);
    let restored = world.run(&["restore", "--target", "back", id]).expect(3);
    assert!(restored.stderr.contains("\ndegraded: required paths that could not be stored whole: 1\n"));
    assert_eq!(fs::read(world.restored("back", "sys/data/vault.enc")).unwrap(), b"sealed vault");
    let notes = fs::read_to_string(world.path("back/.offsite").join(id).join("RESTORE.md")).unwrap();
    assert!(notes.contains("This snapshot is degraded"));
}

#[test]
fn a_missing_optional_path_is_fine_unless_another_group_requires_it() {
    let world = World::new();
    world.config("[tier1.a]\npaths = [\"sys/gone\"]\noptional = true\n[tier1.b]\npaths = [\"sys/data\"]\n");
    let report = world.backup();
    assert_eq!((&report["state"], &report["skipped"]), (&json!("complete"), &json!([])));
    world.config("[tier1.a]\npaths = [\"sys/gone\"]\noptional = true\n[tier1.b]\npaths = [\"sys/gone\", \"sys/data\"]\n");
    world.run(&["backup"]).expect(3);
}

#[test]
fn what_cannot_be_read_is_degraded_and_the_rest_is_saved() {
    let world = World::new();
    world.write("sys/data/locked", b"x");
    world.write("sys/data/closed/inside", b"x");
    world.config(
        "[tier1.a]\npaths = [\"sys/data\"]\n[tier1.o]\npaths = [\"sys/optional\"]\noptional = true\n",
    );
    world.write("sys/optional", b"x");
    for path in ["sys/data/locked", "sys/data/closed", "sys/optional"] {
        fs::set_permissions(world.path(path), fs::Permissions::from_mode(0o000)).unwrap();
    }
    // What would be missing is known before.
    let plan = ran(world.as_nobody(&["--json", "backup", "--dry-run"])).expect(3).json();
    let checked = ran(world.as_nobody(&["check"])).expect(1).stderr;
    assert!(checked.contains("sys/data/locked: permission denied"), "{checked}");
    let report = ran(world.as_nobody(&["--json", "backup"])).expect(3).json();
    assert_eq!(skipped(&world, &plan), skipped(&world, &report));
    let expected = [
        skip("sys/data/closed", "permission denied", true),
        skip("sys/data/locked", "permission denied", true),
        skip("sys/optional", "permission denied", false),
    ];
    assert_eq!(skipped(&world, &report), expected);
    let id = report["id"].as_str().unwrap();
    ran(world.as_nobody(&["restore", "--target", "back", id])).expect(3);
    let data = world.restored("back", "sys/data");
    assert_eq!(fs::read(data.join("vault.enc")).unwrap(), b"sealed vault");
    assert!(data.join("closed").exists() && !data.join("locked").exists());
    fs::set_permissions(world.path("sys/data/closed"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn sockets_and_fifos_are_left_out_and_listed() {
    let world = World::new();
    let _socket = UnixListener::bind(world.path("sys/data/s")).unwrap();
    assert!(Command::new("mkfifo").arg(world.path("sys/data/p")).status().unwrap().success());
    let report = world.backup();
    let expected = [skip("sys/data/p", "a fifo", false), skip("sys/data/s", "a socket", false)];
    assert_eq!(skipped(&world, &report), expected);
    assert_eq!(skipped(&world, &world.manifest()), expected);
    assert_eq!(paths(&world.restore()), [".env", "data", "data/vault.enc"]);
}

#[test]
fn caches_come_back_as_empty_folders() {
    let world = World::new();
    world.write("sys/data/cache/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n");
    world.write("sys/data/cache/big", b"x");
    world.write("sys/data/no-cache/CACHEDIR.TAG", b"something else");
    let report = world.backup();
    assert_eq!(skipped(&world, &report), [skip("sys/data/cache", "a cache, says its CACHEDIR.TAG", false)]);
    let expected = ["cache", "no-cache", "no-cache/CACHEDIR.TAG", "vault.enc"];
    assert_eq!(paths(&world.restore().join("data")), expected);
}

#[test]
fn excludes_hold_below_their_own_group_only() {
    let world = World::empty();
    for file in ["a/x.tmp", "a/keep.tmp", "a/logs/l", "a/sub/logs/l", "a/f", "b/x.tmp"] {
        world.write(&format!("sys/{file}"), b"x");
    }
    world.config(
        "[tier1.a]\npaths = [\"sys/a\"]\nexclude = [\"**/*.tmp\", \"!keep.tmp\", \"/logs\"]\n[tier1.b]\npaths = [\"sys/b\"]\n",
    );
    world.backup();
    let expected = ["a", "a/f", "a/keep.tmp", "a/sub", "a/sub/logs", "a/sub/logs/l", "b", "b/x.tmp"];
    assert_eq!(paths(&world.restore()), expected);
}

#[test]
fn overlapping_paths_are_taken_once() {
    let world = World::new();
    world.write("sys/data/deep/f", b"x");
    world.config(
        "[tier1.all]\npaths = [\"sys\", \"sys/data/\", \"./sys/data\"]\n[tier1.deep]\npaths = [\"sys/data/deep\", \"sys/.env\"]\n",
    );
    let report = world.backup();
    let groups =
        json!([{ "name": "all", "entries": 3, "bytes": 12 }, { "name": "deep", "entries": 3, "bytes": 5 }]);
    assert_eq!(report["groups"], groups);
    let before = tree::facts(&world.path("sys"));
    tree::assert_same(&before, &tree::facts(&world.restore()));
}

#[test]
fn a_path_behind_a_symlink_comes_back_with_the_symlink() {
    let world = World::empty();
    world.write("sys/disk2/data/f", b"x");
    symlink("disk2/data", world.path("sys/data")).unwrap();
    world.config("[tier1.a]\npaths = [\"sys/data/f\"]\n");
    assert_eq!(world.backup()["state"], "complete");
    let back = world.restore();
    assert_eq!(paths(&back), ["data", "disk2", "disk2/data", "disk2/data/f"]);
    assert_eq!(fs::read(back.join("data/f")).unwrap(), b"x");
}

#[test]
fn a_path_that_is_a_symlink_to_what_is_not_saved_is_degraded() {
    let world = World::empty();
    world.write("sys/disk2/f", b"x");
    symlink("disk2", world.path("sys/data")).unwrap();
    symlink("not-mounted", world.path("sys/vault")).unwrap();
    world.config("[tier1.a]\npaths = [\"sys/data\", \"sys/vault\"]\n");
    let report = world.run(&["--json", "backup"]).expect(3).json();
    let expected = [
        skip("sys/data", "a symlink to sys/disk2, which no tier-1 path covers: add that path", true),
        skip("sys/vault", "a symlink to not-mounted, where nothing can be found", true),
    ];
    assert_eq!(skipped(&world, &report), expected);
    world.config("[tier1.a]\npaths = [\"sys/data\", \"sys/disk2\"]\n");
    assert_eq!(world.backup()["state"], "complete");
}

#[test]
fn a_file_that_grows_meanwhile_is_stored_as_it_once_was() {
    for size in [100_000_usize, 3_000_000] {
        let world = World::new();
        world.write("sys/data/log", &vec![b'.'; size]);
        let mut log = fs::File::options().append(true).open(world.path("sys/data/log")).unwrap();
        let done = AtomicBool::new(false);
        let report = std::thread::scope(|threads| {
            threads.spawn(|| {
                for line in 0_u64.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    writeln!(log, "line {line}").unwrap();
                }
            });
            let report = world.run(&["--json", "backup"]);
            done.store(true, Ordering::Relaxed);
            report.expect(0).json()
        });
        let restored = fs::read(world.restore().join("data/log")).unwrap();
        let now = fs::read(world.path("sys/data/log")).unwrap();
        assert!(restored.len() >= size && now.starts_with(&restored));
        // Where it never held still, that is said; where it is said, it is in the manifest.
        let path = world.path("sys/data/log");
        let manifest = world.manifest();
        let entry = manifest["entries"]
            .as_array()
            .unwrap()
            .iter()
            .find(|e| e["path"] == format!("files{}", path.display()));
        let named = skipped(&world, &report)
            == [skip("sys/data/log", "stored, but it changed while it was read", false)];
        assert_eq!(entry.unwrap()["changed"] == true, named);
    }
}
