//! A daemon that lives through trouble, and through changes of its config.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "support/daemon.rs"]
mod daemon;

mod support;

use std::fs;

use chrono::TimeDelta;
use daemon::{
    CLUSTER, Daemon, FakePostgres, OFTEN, TIER1, is_gone, pretend_snapshot, scheduled, six_hourly, taken,
};
use serde_json::Value;
use support::{KEY, World};

/// The paths in the newest complete snapshot.
fn entries(world: &World) -> Vec<String> {
    let shown = world.run(&["--json", "show"]).expect(0).json();
    let entries = shown["entries"].as_array().unwrap().iter();
    entries.map(|e| e["path"].as_str().unwrap().to_owned()).collect()
}

/// Waits for a run that begins after this call, and for its end.
#[track_caller]
fn wait_for_another(daemon: &Daemon, end: &str) {
    let begun = daemon.count("backup begins");
    daemon.wait_for_times("backup begins", begun + 1);
    let ended = daemon.count(end);
    daemon.wait_for_times(end, ended + 1);
}

#[test]
fn the_config_is_read_anew_for_every_run() {
    let world = World::new();
    world.config(&scheduled(OFTEN));
    world.write("sys/later", b"added");
    let daemon = Daemon::start(&world);
    daemon.wait_for("backup complete");
    assert!(!entries(&world).iter().any(|p| p.ends_with("sys/later")));
    world.config(&format!("{}[tier1.more]\npaths = [\"sys/later\"]\n", scheduled(OFTEN)));
    wait_for_another(&daemon, "backup complete");
    assert!(entries(&world).iter().any(|p| p.ends_with("sys/later")));
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_config_that_is_broken_is_reported_and_the_daemon_stays_up() {
    let world = World::new();
    world.config(&scheduled(OFTEN));
    let mut daemon = Daemon::start(&world);
    daemon.wait_for("backup complete");
    world.config("schedul = \"x\"\n");
    daemon.wait_for("unknown key `schedul`\n");
    daemon.wait_for("hint: did you mean `schedule`?\n");
    let log = daemon.log();
    let error = log.lines().find(|l| l.contains("unknown key")).unwrap();
    assert!(error.contains("error: backup failed: "), "{error}");
    assert!(!log.contains("next run never"), "it goes on by the schedule that it has:\n{log}");
    daemon.assert_runs();
    world.config(&scheduled(OFTEN));
    wait_for_another(&daemon, "backup complete");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_changed_schedule_holds_after_the_next_run() {
    let world = World::new();
    world.config(&scheduled(OFTEN));
    let daemon = Daemon::start(&world);
    daemon.wait_for("backup complete");
    world.config(&scheduled(&six_hourly()));
    daemon.wait_for(&format!("the schedule is now {}", six_hourly()));
    let begun = daemon.count("backup begins");
    std::thread::sleep(std::time::Duration::from_secs(5));
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0));
    assert_eq!(log.matches("backup begins").count(), begun, "{log}");
    let next = log.lines().rfind(|l| l.contains(" next run ")).unwrap();
    assert!(next.ends_with(":00:00Z"), "{log}");
}

#[test]
fn a_key_that_is_rotated_seals_the_next_run() {
    let world = World::new();
    world.write("key", KEY.as_bytes());
    let new = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
    let text = format!(
        "system = \"test\"\ndestination = \"{}\"\nkey = [\"file:key\", \"file:old-key\"]\n{}",
        world.destination(),
        scheduled(OFTEN)
    );
    world.write("backup-paths.toml", text.as_bytes());
    let daemon = Daemon::start(&world);
    daemon.wait_for("backup complete");
    world.write("old-key", KEY.as_bytes());
    world.write("key", new.as_bytes());
    wait_for_another(&daemon, "backup complete");
    assert_eq!(daemon.stop().0, Some(0));
    let list = world.run(&["--json", "list"]).expect(0).json();
    let names: Vec<&str> =
        list["snapshots"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    let (newest, oldest) = (names[0], names[names.len() - 1]);
    let key_of = |name: &str| world.run(&["--json", "show", name]).expect(0).json()["key_id"].clone();
    assert_eq!(key_of(oldest), "4405f0eb");
    assert_ne!(key_of(newest), Value::from("4405f0eb"));
    // The old key alone opens the old one, and not the new one.
    world.write("key", KEY.as_bytes());
    world.run(&["verify", oldest]).expect(0);
    world.run(&["verify", newest]).expect(5);
}

#[test]
fn a_key_that_is_gone_fails_the_runs_until_it_is_back() {
    let world = World::new();
    world.write("key", KEY.as_bytes());
    let text = format!(
        "system = \"test\"\ndestination = \"{}\"\nkey = [\"file:key\"]\n{}",
        world.destination(),
        scheduled(OFTEN)
    );
    world.write("backup-paths.toml", text.as_bytes());
    let mut daemon = Daemon::start(&world);
    daemon.wait_for("backup complete");
    fs::remove_file(world.path("key")).unwrap();
    daemon.wait_for("error: backup failed: found no master key; tried file:");
    daemon.assert_runs();
    world.write("key", KEY.as_bytes());
    wait_for_another(&daemon, "backup complete");
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0));
    assert!(!log.contains(KEY));
}

#[test]
fn a_dump_that_hangs_is_killed_with_all_that_it_started_and_later_runs_go_on() {
    let world = World::new();
    world.config(&format!("{}{CLUSTER}[deadlines]\ndump = \"2s\"\n", scheduled(OFTEN)));
    let hangs = "trap '' TERM; sleep 300 & echo $! > \"$HOME/grandchild\"; sleep 300; sleep 300";
    let postgres = FakePostgres::new(&world, hangs);
    let daemon = Daemon::of(&world, postgres.command(&world, &["daemon"]));
    daemon.wait_for("backup degraded: test/");
    let dumped = "degraded: the dump of [postgres.main]: dump took longer than its deadline of 2s";
    daemon.wait_for(dumped);
    assert!(is_gone(&world.path("grandchild")), "pg_dumpall's child lives on");
    assert!(taken(&world)[0].contains(".degraded."));
    // The files are in it all the same.
    let id = taken(&world)[0].split(['-', '.']).nth(1).unwrap().to_owned();
    world.run(&["restore", &id, "--target", "back"]).expect(3);
    assert_eq!(fs::read(world.restored("back", "sys/.env")).unwrap(), b"A=1\n");
    postgres.dump_with("complete");
    daemon.wait_for("backup complete");
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0));
    assert!(!log.contains("db-s3cret"), "{log}");
    world.run(&["verify"]).expect(0);
    world.assert_no_leftovers();
}

#[test]
fn a_destination_that_does_not_answer_at_the_start_is_told_and_waited_for() {
    let world = World::new();
    fs::remove_dir(world.path("dest")).unwrap();
    world.write("dest", b"not a directory");
    world.config(&scheduled(&six_hourly()));
    let mut daemon = Daemon::start(&world);
    daemon.wait_for("error: cannot tell yet whether a backup is due: ");
    std::thread::sleep(std::time::Duration::from_secs(1));
    daemon.assert_runs();
    assert_eq!(daemon.count("cannot tell yet"), 1, "{}", daemon.log());
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0));
    assert!(!log.contains("backup begins"), "{log}");
}

#[test]
fn a_destination_that_comes_back_gets_the_next_run() {
    let world = World::new();
    fs::remove_dir(world.path("dest")).unwrap();
    world.write("dest", b"not a directory");
    world.config(&scheduled(OFTEN));
    let daemon = Daemon::start(&world);
    daemon.wait_for("error: backup failed: ");
    fs::remove_file(world.path("dest")).unwrap();
    daemon.wait_for("backup complete");
    assert_eq!(daemon.stop().0, Some(0));
    world.run(&["verify"]).expect(0);
}

#[test]
fn a_degraded_run_is_told_with_what_is_missing() {
    let world = World::new();
    world.config(&format!("{}[tier1.gone]\npaths = [\"sys/gone\"]\n", scheduled(OFTEN)));
    let daemon = Daemon::start(&world);
    daemon.wait_for("backup degraded: test/");
    daemon.wait_for("  degraded: required paths that could not be stored whole: 1");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_daemon_without_a_usable_config_does_not_start() {
    let world = World::new();
    world.config(&format!("schedule = \"0 */6 * * *\"\n{TIER1}"));
    let ran = world.run(&["daemon"]).expect(2);
    assert!(ran.stderr.contains("a schedule has six fields, seconds first"), "{}", ran.stderr);
    pretend_snapshot(&world, TimeDelta::hours(1), ".tar.gz.fernet");
    world.config(&format!("schedule = \"0 0 0 30 2 *\"\n{TIER1}"));
    world.run(&["daemon"]).expect(2);
    assert!(taken(&world).is_empty());
}
