//! The daemon as a process: when it backs up, and when it does not.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/hub.rs"]
mod hub;
mod support;

use std::fs;

use chrono::TimeDelta;
use daemon::{Daemon, OFTEN, TIER1, pretend_snapshot, scheduled, six_hourly, taken};
use hub::{ADDRESS, Hub};
use support::{KEY, World};

const NEVER_DUE: &str = "watches over test";

#[test]
fn runs_follow_the_schedule_and_never_overlap() {
    let world = World::new();
    world.config(&scheduled(OFTEN));
    let daemon = Daemon::start(&world);
    daemon.wait_for_times("backup complete", 4);
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0));
    // Each line of a begin is followed by the end of the same run.
    let events: Vec<&str> = log
        .lines()
        .filter_map(|line| ["backup begins", "backup complete"].into_iter().find(|e| line.contains(e)))
        .collect();
    assert!(events.chunks(2).all(|pair| pair == ["backup begins", "backup complete"]), "{log}");
    assert!(log.contains("backup begins (scheduled)"), "{log}");
    assert!(!log.contains("error"), "{log}");
    assert_eq!(taken(&world).len(), events.len() / 2);
    world.run(&["verify"]).expect(0);
    world.assert_no_leftovers();
}

#[test]
fn a_run_that_outlasts_the_schedule_is_not_overtaken_and_the_skipped_ones_are_told() {
    let world = World::new();
    world.config(&format!("{}{}", scheduled(OFTEN), daemon::CLUSTER));
    let postgres = daemon::FakePostgres::new(&world, "[ -e \"$HOME/quick\" ] || sleep 5; complete");
    let daemon = Daemon::of(&world, postgres.command(&world, &["daemon"]));
    daemon.wait_for("were skipped: the run before them was still going on");
    assert_eq!(daemon.count("backup begins"), 1, "{}", daemon.log());
    world.write("quick", b"");
    daemon.wait_for_times("backup complete", 3);
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0));
    let skipped = log.lines().find(|l| l.contains("were skipped")).unwrap();
    let skipped: u32 = skipped.split_once("error: ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert!((2..=4).contains(&skipped), "{log}");
}

#[test]
fn a_start_catches_up_once_when_the_newest_snapshot_is_old() {
    let world = World::new();
    world.config(&scheduled(&six_hourly()));
    pretend_snapshot(&world, TimeDelta::hours(7), ".tar.gz.fernet");
    let daemon = Daemon::start(&world);
    daemon.wait_for("backup complete");
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0));
    assert!(
        log.contains("backup begins (catching up: the newest snapshot is older than one interval)"),
        "{log}"
    );
    assert_eq!(taken(&world).len(), 1);
}

/// A daemon that has looked whether a backup is due, and found that none is,
/// says nothing; so it is given the time of a whole backup.
fn takes_none(world: &World) -> String {
    let daemon = Daemon::start(world);
    daemon.wait_for(NEVER_DUE);
    world.run(&["list"]).expect(0);
    world.run(&["backup", "--dry-run"]).expect(0);
    std::thread::sleep(std::time::Duration::from_millis(700));
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("backup begins"), "{log}");
    assert!(taken(world).is_empty());
    log
}

#[test]
fn a_start_takes_none_when_the_newest_snapshot_is_young() {
    let world = World::new();
    world.config(&scheduled(&six_hourly()));
    pretend_snapshot(&world, TimeDelta::hours(5), ".tar.gz.fernet");
    takes_none(&world);
}

#[test]
fn a_start_takes_none_when_the_newest_snapshot_is_young_and_degraded() {
    let world = World::new();
    world.config(&scheduled(&six_hourly()));
    pretend_snapshot(&world, TimeDelta::hours(1), ".degraded.tar.gz.fernet");
    takes_none(&world);
}

#[test]
fn neither_half_a_snapshot_nor_one_from_the_future_nor_another_system_s_keeps_a_start_from_catching_up() {
    let world = World::new();
    world.config(&scheduled(&six_hourly()));
    pretend_snapshot(&world, TimeDelta::hours(1), ".tar.gz.fernet.1-of-2");
    pretend_snapshot(&world, TimeDelta::hours(-20), ".tar.gz.fernet");
    let now = chrono::Utc::now();
    world.write(&now.format("dest/other/%Y/%m/%Y%m%dT%H%M%SZ-aaaaaaaa.tar.gz.fernet").to_string(), b"");
    let daemon = Daemon::start(&world);
    daemon.wait_for("backup complete");
    daemon.stop();
    assert_eq!(taken(&world).len(), 1);
}

#[test]
fn five_restarts_in_a_row_make_one_backup() {
    let world = World::new();
    world.config(&scheduled(&six_hourly()));
    let first = Daemon::start(&world);
    first.wait_for("backup complete");
    first.stop();
    for _ in 0..4 {
        let daemon = Daemon::start(&world);
        std::thread::sleep(std::time::Duration::from_millis(500));
        let (code, log) = daemon.stop();
        assert_eq!(code, Some(0));
        assert!(!log.contains("backup begins"), "{log}");
    }
    assert_eq!(taken(&world).len(), 1);
}

#[test]
fn a_daemon_whose_runs_fail_does_not_start_one_at_each_restart() {
    let hub = Hub::new(&["--read-only-token", "reader"]);
    let rest = format!("schedule = \"{}\"\n{}{TIER1}", six_hourly(), hub.github.config());
    hub.world.config_for(ADDRESS, &rest);
    let start = || {
        let mut command = hub.world.command(&["daemon"]);
        command.env("GITHUB_TOKEN", "reader");
        Daemon::of(&hub.world, command)
    };
    let first = start();
    first.wait_for("error: backup failed: github://acme/backups: the token may not do this");
    first.wait_for("hint: give the token the permission contents=write");
    let (code, _) = first.stop();
    assert_eq!(code, Some(0));
    assert_eq!(hub.asked(), ["GET 200", "PUT 403"]);
    for _ in 0..3 {
        let daemon = start();
        daemon.wait_for("a backup is due, but a run began only");
        let (code, log) = daemon.stop();
        assert_eq!(code, Some(0));
        assert!(!log.contains("backup begins"), "{log}");
        assert_eq!(hub.asked(), ["GET 200"]);
    }
}

#[test]
fn with_json_each_run_is_one_line_on_stdout() {
    let world = World::new();
    world.config(&scheduled(OFTEN));
    let mut command = world.command(&["--json", "daemon"]);
    let out = world.path("out");
    // The helper would send both to one file.
    command.args(["-q"]);
    let mut child =
        command.stdout(fs::File::create(&out).unwrap()).stderr(std::process::Stdio::null()).spawn().unwrap();
    support::wait_until("two runs are told", || fs::read_to_string(&out).unwrap().lines().count() >= 2);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let out = fs::read_to_string(&out).unwrap();
    for line in out.lines() {
        let report: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(report["state"], "complete");
        assert!(world.path("dest").join(report["snapshot"].as_str().unwrap()).exists());
    }
    assert!(!out.contains(KEY));
}
