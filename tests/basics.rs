//! The main job to a directory, as a user runs it.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use support::{World, ran};

#[test]
fn what_is_backed_up_is_listed_verified_and_restored() {
    let world = World::new();
    let report = world.backup();
    assert_eq!(report["state"], "complete");
    let name = report["snapshot"].as_str().unwrap();
    assert!(world.path("dest").join(name).is_file());
    let list = world.run(&["--json", "list"]).expect(0).json();
    assert_eq!(list["snapshots"][0]["name"], name);
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 1);
    world.run(&["verify"]).expect(0);
    world.run(&["restore", "--target", "back"]).expect(0);
    assert_eq!(fs::read(world.restored("back", "sys/data/vault.enc")).unwrap(), b"sealed vault");
    assert_eq!(fs::read(world.restored("back", "sys/.env")).unwrap(), b"A=1\n");
    world.assert_no_leftovers();
}

#[test]
fn missing_parents_of_a_target_are_made_only_when_all_is_checked() {
    let world = World::new();
    world.backup();
    let mut wrong = world.command(&["restore", "--target", "a/b/c"]);
    wrong.env("AITHER_MASTER_KEY", "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    ran(wrong).expect(5);
    assert!(!world.path("a").exists());
    world.run(&["restore", "--target", "a/b/c"]).expect(0);
    assert_eq!(fs::read(world.restored("a/b/c", "sys/.env")).unwrap(), b"A=1\n");
    assert_eq!(fs::read_dir(world.path("a")).unwrap().count(), 1);
}

#[test]
fn paths_that_are_not_utf8_are_in_json_reports() {
    let world = World::new();
    fs::write(world.path("sys/data").join(OsStr::from_bytes(b"odd-\xff")), "x").unwrap();
    let plan = world.run(&["--json", "backup", "--dry-run"]).expect(0).json();
    let paths: Vec<&str> =
        plan["paths"].as_array().unwrap().iter().map(|p| p["path"].as_str().unwrap()).collect();
    assert!(paths.iter().any(|path| path.contains("odd-")), "{paths:?}");
    world.backup();
    let target = world.root.join(OsStr::from_bytes(b"back-\xff"));
    let mut command = world.command(&["--json", "restore", "--target"]);
    command.arg(&target);
    let report = ran(command).expect(0).json();
    assert!(report["target"].as_str().unwrap().contains("back-"), "{report}");
}
