//! `unchanged = "mark"`: a run that finds everything as it was.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;
#[path = "support/hub.rs"]
mod the_hub;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use support::{World, ran};
use the_hub::{ADDRESS, Hub, PATHS};

const MARKING: &str = "unchanged = \"mark\"\n[tier1.all]\npaths = [\"sys\"]\n";

fn world() -> World {
    let world = World::new();
    world.write("sys/data/large", &the_hub::noise(2_000_000));
    world.config(MARKING);
    world
}

/// Backs up in another second than the run before: names tell seconds apart.
#[track_caller]
fn backup(world: &World) -> Value {
    std::thread::sleep(Duration::from_millis(1010));
    world.backup()
}

/// How many snapshots and how many marks there are.
fn stored(world: &World) -> (usize, usize) {
    let objects = world.objects();
    let ends = |end: &str| objects.iter().filter(|o| o.to_str().unwrap().ends_with(end)).count();
    assert_eq!(ends(".tar.gz.fernet") + ends(".unchanged"), objects.len());
    (ends(".tar.gz.fernet"), ends(".unchanged"))
}

fn newest(world: &World) -> Value {
    world.run(&["--json", "status"]).expect(0).json()["newest"].clone()
}

#[test]
fn the_same_again_stores_a_mark_and_counts_as_young() {
    let world = world();
    let first = backup(&world);
    assert_eq!(first["state"], "complete");
    let again = backup(&world);
    assert_eq!((again["state"].as_str(), &again["snapshot"]), (Some("unchanged"), &first["snapshot"]));
    assert_eq!((&again["content_bytes"], &again["groups"]), (&first["content_bytes"], &first["groups"]));
    assert_eq!(stored(&world), (1, 1));
    assert!(newest(&world)["unchanged_at"].is_string());
    let list = world.run(&["--json", "list"]).expect(0).json();
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 1);
    let printed = world.run(&["backup"]).expect(0).stderr;
    assert!(printed.contains("nothing has changed since"), "{printed}");
    world.run(&["verify"]).expect(0);
    world.run(&["restore", "--target", "back"]).expect(0);
    the_hub::same_files(&world.path("sys"), &world.restored("back", "sys"));
}

#[test]
fn every_change_stores_a_snapshot() {
    let world = world();
    let env = world.path("sys/.env");
    let kept = fs::metadata(&env).unwrap().modified().unwrap();
    let changes: [(&str, &dyn Fn()); 5] = [
        ("a new file", &|| world.write("sys/data/new", b"1")),
        ("other bytes with the old size and time", &|| {
            fs::write(&env, "C=3\n").unwrap();
            fs::File::options().write(true).open(&env).unwrap().set_modified(kept).unwrap();
        }),
        ("another mode", &|| fs::set_permissions(&env, fs::Permissions::from_mode(0o640)).unwrap()),
        ("another time", &|| {
            let file = fs::File::options().write(true).open(&env).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(5)).unwrap();
        }),
        ("a link", &|| std::os::unix::fs::symlink("x", world.path("sys/data/link")).unwrap()),
    ];
    backup(&world);
    for (at, (what, change)) in changes.iter().enumerate() {
        assert_eq!(backup(&world)["state"], "unchanged", "before {what}");
        change();
        assert_eq!(backup(&world)["state"], "complete", "{what}");
        assert_eq!(stored(&world), (at + 2, at + 1), "{what}");
    }
}

#[test]
fn what_is_not_sure_stores_a_snapshot() {
    let world = world();
    let first = backup(&world);
    let name = first["snapshot"].as_str().unwrap();
    // The object is gone, or there is a newer one.
    fs::remove_file(world.path("dest").join(name)).unwrap();
    assert_eq!(backup(&world)["state"], "complete");
    let newer = "dest/test/2099/01/20990101T000000Z-00000001.tar.gz.fernet";
    world.write(newer, b"x");
    assert_eq!(backup(&world)["state"], "complete");
    fs::remove_file(world.path(newer)).unwrap();
    assert_eq!(backup(&world)["state"], "unchanged");
    // Another key, or another config.
    let mut other = world.command(&["--json", "backup"]);
    other.env("AITHER_MASTER_KEY", "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    assert_eq!(ran(other).expect(0).json()["state"], "complete");
    assert_eq!(backup(&world)["state"], "complete");
    world.config(&format!("{MARKING}[regenerable.models]\npaths = [\"m\"]\nhow = \"make\"\n"));
    assert_eq!(backup(&world)["state"], "complete");
    // A memory that is lost or damaged.
    for damage in [b"".as_slice(), b"{}", b"\xff"] {
        assert_eq!(backup(&world)["state"], "unchanged");
        let mut memory = fs::read_dir(world.path("tmp")).unwrap().flatten().map(|e| e.path());
        let memory = memory.find(|p| p.extension().is_some_and(|e| e == "last")).unwrap();
        assert_eq!(fs::metadata(&memory).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(memory, damage).unwrap();
        assert_eq!(backup(&world)["state"], "complete");
    }
}

#[test]
fn something_else_in_the_memory_s_place_is_passed_over() {
    let world = world();
    backup(&world);
    let mut files = fs::read_dir(world.path("tmp")).unwrap().flatten().map(|e| e.path());
    let memory = files.find(|p| p.extension().is_some_and(|e| e == "last")).unwrap();
    fs::remove_file(&memory).unwrap();
    // Whoever opens it to read waits for ever.
    let made = std::process::Command::new("mkfifo").arg(&memory).status().unwrap();
    assert!(made.success());
    assert_eq!(backup(&world)["state"], "complete");
    assert_eq!(backup(&world)["state"], "unchanged");
}

#[test]
fn a_snapshot_that_was_cut_short_is_stored_anew() {
    let world = world();
    let name = backup(&world)["snapshot"].as_str().unwrap().to_owned();
    fs::File::options().write(true).open(world.path("dest").join(name)).unwrap().set_len(10).unwrap();
    assert_eq!(backup(&world)["state"], "complete");
    world.run(&["verify"]).expect(0);
}

#[test]
fn a_link_above_a_path_counts_and_the_time_of_a_folder_above_does_not() {
    let world = world();
    world.write("v1/data/f", b"1");
    std::os::unix::fs::symlink("v1", world.path("current")).unwrap();
    world.config(&MARKING.replace("[\"sys\"]", "[\"sys\", \"current/data\"]"));
    backup(&world);
    world.write("v1/beside", b"1");
    assert_eq!(backup(&world)["state"], "unchanged");
    fs::remove_file(world.path("current")).unwrap();
    std::os::unix::fs::symlink(world.path("v1"), world.path("current")).unwrap();
    assert_eq!(backup(&world)["state"], "complete");
}

#[test]
fn an_open_database_is_unchanged_until_somebody_writes() {
    let world = world();
    let database = rusqlite::Connection::open(world.path("sys/live.db")).unwrap();
    database
        .execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (n); INSERT INTO t VALUES (1);")
        .unwrap();
    backup(&world);
    assert_eq!(backup(&world)["state"], "unchanged");
    database.execute_batch("INSERT INTO t VALUES (2);").unwrap();
    assert_eq!(backup(&world)["state"], "complete");
}

#[test]
fn a_degraded_run_is_never_unchanged() {
    let world = world();
    world.config(&MARKING.replace("[\"sys\"]", "[\"sys\", \"gone\"]"));
    for _ in 0..2 {
        let degraded = world.run(&["--json", "backup"]).expect(3).json();
        assert_eq!(degraded["state"], "degraded");
    }
    assert_eq!(stored(&world), (2, 0));
}

#[test]
fn without_the_setting_every_run_uploads() {
    let world = world();
    world.config("[tier1.all]\npaths = [\"sys\"]\n");
    assert_eq!(
        (backup(&world)["state"].as_str(), backup(&world)["state"].as_str()),
        (Some("complete"), Some("complete"))
    );
    assert_eq!(stored(&world), (2, 0));
}

#[test]
fn on_github_a_mark_is_one_small_put() {
    let hub = Hub::of_size(300_000);
    let text = format!("unchanged = \"mark\"\n{}{PATHS}", hub.github.config());
    hub.world.config_for(ADDRESS, &text);
    hub.backup();
    std::thread::sleep(Duration::from_millis(1010));
    let again = hub.backup();
    assert_eq!(again["state"], "unchanged");
    let puts: Vec<_> = hub.github.requests().into_iter().filter(|(method, ..)| method == "PUT").collect();
    assert_eq!(puts.len(), 2);
    assert!(puts[1].1.ends_with(".unchanged") && puts[1].2.unwrap() < 500, "{puts:?}");
    hub.run(&["status", "--max-age", "1h"]).expect(0);
    hub.assert_restores("back");
}
