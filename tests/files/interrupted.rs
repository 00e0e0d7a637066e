//! Killed, or without room: nothing half done is taken for something whole.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::support::{World, ran};
use super::{fs, paths};

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn large() -> World {
    let world = World::new();
    world.write("sys/data/large", &noise(12 << 20));
    world
}

fn start(world: &World, args: &[&str]) -> Child {
    world.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills the run as soon as `now` says so; whether it was still running then.
fn kill_when(mut child: Child, mut now: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !now() {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(Instant::now() < deadline, "waited in vain for the moment to kill");
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().unwrap();
    child.wait().unwrap().code().is_none()
}

/// The scratch folders in `folder`.
fn scratch(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(".offsite-scratch-")).collect()
}

#[test]
fn a_restore_that_is_killed_leaves_no_target_and_is_swept_by_the_next_one() {
    let world = large();
    world.backup();
    let staged = || {
        let folder = scratch(&world.root).pop()?;
        let file = world
            .path(&folder)
            .join("root/files")
            .join(world.path("sys/data/large").strip_prefix("/").unwrap());
        fs::metadata(file).ok().map(|meta| meta.len())
    };
    let killed =
        kill_when(start(&world, &["restore", "--target", "back"]), || staged().is_some_and(|len| len > 0));
    assert!(killed, "it was over before it could be killed");
    assert!(!world.path("back").exists());
    assert_eq!(scratch(&world.root).len(), 1, "the test needs a leftover");
    world.run(&["restore", "--target", "back"]).expect(0);
    assert_eq!(scratch(&world.root), Vec::<String>::new());
    assert!(fs::read(world.restored("back", "sys/data/large")).unwrap() == noise(12 << 20));
}

#[test]
fn a_backup_that_is_killed_is_not_listed_and_is_swept_by_the_next_one() {
    let world = large();
    let none = || world.run(&["--json", "list"]).expect(0).json()["snapshots"].as_array().unwrap().is_empty();
    // While it packs ...
    assert!(kill_when(start(&world, &["backup"]), || !scratch(&world.path("tmp")).is_empty()));
    assert!(none());
    assert_eq!(scratch(&world.path("tmp")).len(), 1, "the test needs a leftover");
    // ... and while it stores, which is short: the moment may have to be tried for.
    let incoming = world.path("dest/.incoming");
    let half = || fs::read_dir(&incoming).is_ok_and(|entries| entries.count() > 0);
    let hit = (0..20).any(|_| {
        let killed = kill_when(start(&world, &["backup"]), half) && half();
        if !killed {
            fs::remove_dir_all(world.path("dest")).unwrap();
            fs::create_dir(world.path("dest")).unwrap();
        }
        killed
    });
    assert!(hit, "it was never caught while it stored");
    assert!(none() || world.run(&["verify"]).code == 0, "half a snapshot is listed");
    let before = world.run(&["--json", "list"]).expect(0).json()["snapshots"].as_array().unwrap().len();
    let report = world.backup();
    assert_eq!(fs::read_dir(&incoming).unwrap().count(), 0);
    world.assert_no_leftovers();
    let list = world.run(&["--json", "list"]).expect(0).json();
    assert_eq!(list["snapshots"].as_array().unwrap().len(), before + 1);
    assert_eq!(list["snapshots"][0]["id"], report["id"]);
}

#[test]
fn a_full_destination_fails_with_a_hint_and_lists_nothing() {
    let world = World::new();
    world.write("sys/data/large", &noise(4 << 20));
    let script = "mount -t tmpfs -o size=2m none dest\n\
         if $offsite backup; then exit 99; else test $? = 1; fi\n\
         $offsite --json list; find dest -type f >&2; rm sys/data/large; $offsite backup -q";
    let Some(ran) = world.with_mounts(script) else { return };
    let ran = ran.expect(0);
    let said = ran.stderr.replace(world.root.to_str().unwrap(), "ROOT");
    assert!(said.starts_with("error: cannot write ROOT/dest/test/"), "{said}");
    assert!(
        said.ends_with(".tar.gz.fernet: no space left on device\nhint: the destination is full: make room and run again\n"),
        "{said}"
    );
    assert_eq!(ran.json(), serde_json::json!({ "snapshots": [] }));
    world.assert_no_leftovers();
}

#[test]
fn a_full_scratch_folder_fails_and_says_which_one() {
    let world = World::new();
    world.write("sys/data/large", &noise(4 << 20));
    let script = "mount -t tmpfs -o size=2m none tmp; $offsite backup || exit $?";
    let Some(ran) = world.with_mounts(script) else { return };
    let said = ran.expect(1).stderr.replace(world.root.to_str().unwrap(), "ROOT");
    assert_eq!(
        said,
        "error: cannot write ROOT/tmp: no space left on device\n\
         hint: is the temporary folder full? $TMPDIR names another one\n"
    );
    assert!(world.objects().is_empty());
}

#[test]
fn a_missing_scratch_folder_is_said() {
    let world = World::new();
    world.backup();
    for args in [&["backup"][..], &["verify"]] {
        let mut command = world.command(args);
        command.env("TMPDIR", "/no/such/folder");
        let ran = ran(command).expect(1);
        assert!(
            ran.stderr.ends_with(
                "cannot make a scratch folder in /no/such/folder: no such file or directory\n\
                 hint: is it there, writable and not full? $TMPDIR names another one\n"
            ),
            "{}",
            ran.stderr
        );
    }
    assert_eq!(world.objects().len(), 1);
}

#[test]
fn a_full_target_disk_fails_with_the_target_absent() {
    let world = World::new();
    world.write("sys/data/large", &noise(4 << 20));
    world.backup();
    let script = "mkdir disk; mount -t tmpfs -o size=2m none disk\n\
         if $offsite restore --target disk/back; then exit 99; else test $? = 1; fi\n\
         find disk -mindepth 1";
    let Some(ran) = world.with_mounts(script) else { return };
    let ran = ran.expect(0);
    assert!(ran.stderr.ends_with(": no space left on device\nhint: is the disk full?\n"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "", "something is left on the disk");
    assert!(paths(&world.path("disk")).is_empty());
}
