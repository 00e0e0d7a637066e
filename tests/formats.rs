//! Every format that was ever stored restores: the frozen snapshots below
//! `tests/fixtures`, and what the earlier Python system stored, a single token
//! over a tar.gz without a manifest.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use chrono::{TimeDelta, Utc};
use sha2::{Digest, Sha256};
use support::{KEY, World, python};

/// A frozen snapshot: its folder below `tests/fixtures`, which is a destination;
/// its object; the exit code of a restore. What it restores to is beside the
/// folder, in `<folder>.txt`.
const FIXTURES: &[(&str, &str, i32)] = &[
    ("v1/one-token", "test/2026/11/20261121T025839Z-03b40ac9.tar.gz.fernet", 0),
    ("v1/degraded", "test/2026/11/20261121T025839Z-867f6dec.degraded.tar.gz.fernet", 3),
    ("v1/postgres", "test/2026/11/20261121T025840Z-b97d3802.tar.gz.fernet", 0),
    ("v1/legacy-python", "test/2026/01/20260115T061703Z-5eed0001.tar.gz.fernet", 0),
];

const NO_MANIFEST: &str = "it has no manifest";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A line for each entry below `root`: mode, number of names, time, contents,
/// path. What we make ourselves, below `.offsite`, has no mode and time of its own.
fn listing(root: &Path) -> String {
    let mut text = String::new();
    for entry in walkdir::WalkDir::new(root).min_depth(1).sort_by_file_name() {
        let entry = entry.unwrap();
        let meta = entry.path().symlink_metadata().unwrap();
        let path = entry.path().strip_prefix(root).unwrap();
        if !path.starts_with(".offsite") {
            write!(text, "{:o} ", meta.mode()).unwrap();
            // What the Python system stored lacks folders, which then are new.
            if !meta.is_dir() {
                write!(text, "{} {}.{:09} ", meta.nlink(), meta.mtime(), meta.mtime_nsec()).unwrap();
            }
        }
        let contents = if meta.is_symlink() {
            format!("-> {}", fs::read_link(entry.path()).unwrap().display())
        } else if meta.is_dir() {
            "folder".to_owned()
        } else {
            hex::encode(Sha256::digest(fs::read(entry.path()).unwrap()))
        };
        writeln!(text, "{contents} {}", path.as_os_str().as_bytes().escape_ascii()).unwrap();
    }
    text
}

/// Stores at `object` what the Python system would have, sealed at `sealed_at`.
fn store_like_the_python_system(world: &World, object: &str, noise_bytes: usize, sealed_at: i64) {
    const SCRIPT: &str = r#"
import io, os, sys, tarfile
from cryptography.fernet import Fernet
out, noise, sealed_at = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
    for name, data in [(".env", b"A=1\n"), ("data/noise", os.urandom(noise))]:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = len(data), 1700000000, 0o640
        tar.addfile(info, io.BytesIO(data))
os.makedirs(os.path.dirname(out))
token = Fernet(os.environ["AITHER_MASTER_KEY"]).encrypt_at_time(buffer.getvalue(), sealed_at)
open(out, "wb").write(token)
"#;
    let mut python = Command::new(python());
    python.args(["-c", SCRIPT]).arg(world.path("dest").join(object)).env("AITHER_MASTER_KEY", KEY);
    python.args([noise_bytes.to_string(), sealed_at.to_string()]);
    assert!(python.status().unwrap().success());
}

/// The name that a snapshot of this moment has.
fn name_of_now() -> String {
    Utc::now().format("test/%Y/%m/%Y%m%dT%H%M%SZ-0a1b2c3d.tar.gz.fernet").to_string()
}

#[test]
fn every_fixture_is_listed_here() {
    let mut listed = BTreeSet::from([fixtures().join("README.md")]);
    for (folder, object, _) in FIXTURES {
        listed.insert(fixtures().join(folder).join(object));
        listed.insert(fixtures().join(format!("{folder}.txt")));
    }
    let files = walkdir::WalkDir::new(fixtures()).into_iter().map(Result::unwrap);
    let found: BTreeSet<PathBuf> =
        files.filter(|f| !f.file_type().is_dir()).map(walkdir::DirEntry::into_path).collect();
    assert_eq!(found, listed);
}

#[test]
fn every_fixture_verifies_and_restores_to_what_was_recorded() {
    for (folder, object, code) in FIXTURES {
        let world = World::empty();
        let from = format!("file://{}", fixtures().join(folder).display());
        world.run(&["verify", "--from", &from, object]).expect(*code);
        let restored = world.run(&["restore", "--from", &from, "--target", "back", object]).expect(*code);
        let recorded = fs::read_to_string(fixtures().join(format!("{folder}.txt"))).unwrap();
        let found = listing(&world.path("back"));
        assert!(found == recorded, "{folder} restores to\n{found}\nand not to\n{recorded}");
        assert_eq!(restored.stderr.contains(NO_MANIFEST), folder.contains("legacy"), "{}", restored.stderr);
    }
}

#[test]
fn what_the_python_system_stored_restores_and_is_said_to_have_no_manifest() {
    for noise_bytes in [1000, 6 << 20] {
        let world = World::new();
        let name = name_of_now();
        store_like_the_python_system(&world, &name, noise_bytes, Utc::now().timestamp());
        let verified = world.run(&["verify"]).expect(0);
        assert!(verified.stderr.contains(NO_MANIFEST), "{}", verified.stderr);
        assert!(!verified.stderr.contains("as the manifest says"), "{}", verified.stderr);
        assert_eq!(world.run(&["--json", "verify"]).expect(0).json()["manifest"], false);
        let restored = world.run(&["restore", "--target", "back"]).expect(0);
        assert!(restored.stderr.contains(NO_MANIFEST), "{}", restored.stderr);
        assert_eq!(fs::read(world.path("back/.env")).unwrap(), b"A=1\n");
        let noise = fs::metadata(world.path("back/data/noise")).unwrap();
        assert_eq!(
            (noise.len(), noise.mode() & 0o777, noise.mtime()),
            (noise_bytes as u64, 0o640, 1_700_000_000)
        );
    }
}

#[test]
fn what_the_python_system_stored_under_its_own_names_restores_by_name() {
    let world = World::new();
    let name = "backups/old.tar.gz.enc";
    store_like_the_python_system(&world, name, 1000, 1_700_000_000);
    let restored = world.run(&["restore", "--target", "back", name]).expect(0);
    assert!(restored.stderr.contains(NO_MANIFEST), "{}", restored.stderr);
    assert!(restored.stderr.contains(name), "{}", restored.stderr);
    assert_eq!(fs::read(world.path("back/.env")).unwrap(), b"A=1\n");
    let verified = world.run(&["verify", name]).expect(0);
    assert!(verified.stderr.contains(NO_MANIFEST), "{}", verified.stderr);
    // It is no snapshot: nothing but its whole name finds it.
    world.run(&["restore", "--target", "other"]).expect(1);
    world.run(&["restore", "--target", "other", "backups/old"]).expect(1);
    assert!(!world.path("other").exists());
}

#[test]
fn an_old_token_without_a_manifest_under_a_newer_name_is_refused() {
    let world = World::new();
    let name = name_of_now();
    let sealed_at = Utc::now() - TimeDelta::hours(25);
    store_like_the_python_system(&world, &name, 1000, sealed_at.timestamp());
    for args in [&["verify"][..], &["restore", "--target", "back"]] {
        let ran = world.run(args).expect(5);
        assert!(ran.stderr.contains("an old snapshot under a new name"), "{}", ran.stderr);
        assert!(ran.stderr.contains(&sealed_at.format("%Y-%m-%d").to_string()), "{}", ran.stderr);
    }
    assert!(!world.path("back").exists());
}

#[test]
fn a_snapshot_of_ours_under_a_foreign_name_is_refused() {
    let world = World::new();
    world.backup();
    let object = world.objects().remove(0);
    fs::create_dir(world.path("dest/backups")).unwrap();
    fs::rename(object, world.path("dest/backups/x.enc")).unwrap();
    let ran = world.run(&["restore", "--target", "back", "backups/x.enc"]).expect(5);
    assert!(
        ran.stderr.contains("stored under the name of something that is not a snapshot"),
        "{}",
        ran.stderr
    );
    assert!(!world.path("back").exists());
}
