//! Stopping the daemon, and two runs that want the same system at once.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/hub.rs"]
mod hub;
mod support;

use std::fs;

use chrono::TimeDelta;
use daemon::{
    CLUSTER, Daemon, FakePostgres, OFTEN, TIER1, is_gone, pretend_snapshot, scheduled, six_hourly, taken,
};
use hub::{ADDRESS, Hub};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{TOKEN, World, ran, wait_until};

/// A dump that goes on until the test lets it end, and says that it has begun.
/// It gives up after 100 s, so that a failed test leaves nothing behind.
const HELD: &str = "sleep 300 & echo $! > \"$HOME/grandchild\"\n\
    for i in $(seq 1000); do [ -e \"$HOME/go\" ] && break; sleep 0.1; done\n\
    kill $!; complete";

fn held(world: &World, schedule: &str) -> FakePostgres {
    world.config(&format!("{}{CLUSTER}", scheduled(schedule)));
    FakePostgres::new(world, HELD)
}

#[track_caller]
fn wait_for_dump(world: &World) {
    wait_until("the dump began", || {
        fs::read_to_string(world.path("grandchild")).is_ok_and(|s| s.ends_with('\n'))
    });
}

#[test]
fn a_signal_while_idle_ends_it_at_once_with_a_line_about_it() {
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let world = World::new();
        world.config(&scheduled(&six_hourly()));
        pretend_snapshot(&world, TimeDelta::hours(1), ".tar.gz.fernet");
        let daemon = Daemon::start(&world);
        daemon.signal(signal);
        let (code, log) = daemon.ended();
        assert_eq!(code, Some(0), "{log}");
        let last = log.lines().last().unwrap();
        assert!(last.ends_with(&format!("Z stopped by {name}")), "{log}");
        assert!(!log.contains("error"), "{log}");
        assert_eq!(log.lines().count(), 2, "{log}");
    }
}

#[test]
fn a_signal_while_dumping_stops_without_a_snapshot_and_leaves_nothing() {
    let world = World::new();
    let postgres = held(&world, &six_hourly());
    let daemon = Daemon::of(&world, postgres.command(&world, &["daemon"]));
    wait_for_dump(&world);
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("error: backup failed: stopped by SIGTERM"), "{log}");
    assert!(taken(&world).is_empty());
    assert!(is_gone(&world.path("grandchild")), "pg_dumpall's child lives on");
    world.assert_no_leftovers();
}

#[test]
fn a_signal_while_packing_stops_a_backup_without_a_snapshot_and_leaves_nothing() {
    let world = World::new();
    // More than can be packed before the signal comes.
    world.write("sys/data/noise", &hub::noise(8_000_000).repeat(12));
    let mut command = world.command(&["-v", "backup"]);
    let log = world.path("log");
    command.stderr(fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    wait_until("packing began", || fs::read_to_string(&log).unwrap().contains("pack begins"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let said = fs::read_to_string(&log).unwrap();
    assert!(
        said.ends_with("error: stopped by SIGTERM\nhint: nothing half done is left; run it again\n"),
        "{said}"
    );
    assert!(world.objects().is_empty());
    world.assert_no_leftovers();
}

#[test]
fn a_signal_during_an_upload_lets_it_finish() {
    let hub = Hub::new(&[]);
    let rest = format!("schedule = \"{}\"\n{}{TIER1}", six_hourly(), hub.github.config());
    hub.world.config_for(ADDRESS, &rest);
    hub.fault(json!({"kind": "silence", "method": "PUT", "seconds": 3}));
    let mut command = hub.world.command(&["daemon"]);
    command.env("GITHUB_TOKEN", TOKEN);
    let daemon = Daemon::of(&hub.world, command);
    wait_until("the upload began", || {
        let requests = hub.github.control("GET", "requests", &Value::Null);
        requests.as_array().unwrap().iter().any(|r| r["method"] == "PUT")
    });
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(
        log.contains("stopped by SIGTERM: the run ends; an upload that has begun may take 30 s more"),
        "{log}"
    );
    assert!(log.contains("backup complete"), "{log}");
    assert_eq!(hub.asked(), ["GET 200", "PUT -", "GET 404", "PUT 201"]);
    assert_eq!(hub.names().len(), 1);
    hub.run(&["verify"]).expect(0);
    hub.world.assert_no_leftovers();
}

#[test]
fn a_second_signal_ends_it_without_waiting() {
    let hub = Hub::new(&[]);
    let rest = format!("schedule = \"{}\"\n{}{TIER1}", six_hourly(), hub.github.config());
    hub.world.config_for(ADDRESS, &rest);
    hub.fault(json!({"kind": "silence", "method": "PUT", "seconds": 50}));
    let mut command = hub.world.command(&["daemon"]);
    command.env("GITHUB_TOKEN", TOKEN);
    let daemon = Daemon::of(&hub.world, command);
    wait_until("the upload began", || {
        let requests = hub.github.control("GET", "requests", &Value::Null);
        requests.as_array().unwrap().iter().any(|r| r["method"] == "PUT")
    });
    daemon.signal(Signal::TERM);
    daemon.wait_for("stopped by SIGTERM");
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(143), "{log}");
    assert!(hub.names().is_empty());
    // What is left in the scratch folder is not readable by others, and swept by the next run.
    hub.good_weather();
    hub.backup();
    hub.world.assert_no_leftovers();
}

#[test]
fn a_second_run_is_refused_while_one_is_going_on() {
    let world = World::new();
    let postgres = held(&world, &six_hourly());
    let first = postgres.command(&world, &["--json", "backup"]);
    std::thread::scope(|threads| {
        let first = threads.spawn(|| ran(first));
        wait_for_dump(&world);
        let second = ran(postgres.command(&world, &["backup"])).expect(1);
        let config = world.path("backup-paths.toml");
        assert_eq!(
            second.stderr,
            format!(
                "error: another run with {} is going on\nhint: wait for it; `fuser` on that file names its process\n",
                config.display()
            )
        );
        // Looking is not refused.
        world.run(&["list"]).expect(0);
        world.write("go", b"");
        let first = first.join().unwrap().expect(0).json();
        assert_eq!(first["state"], "complete");
    });
    assert_eq!(taken(&world).len(), 1);
    ran(postgres.command(&world, &["backup"])).expect(0);
}

#[test]
fn a_run_by_hand_makes_the_daemon_s_own_fail_and_the_next_one_succeeds() {
    let world = World::new();
    let postgres = held(&world, OFTEN);
    let by_hand = postgres.command(&world, &["backup"]);
    std::thread::scope(|threads| {
        let by_hand = threads.spawn(|| ran(by_hand));
        wait_for_dump(&world);
        let mut daemon = Daemon::of(&world, postgres.command(&world, &["daemon"]));
        daemon.wait_for("error: backup failed: another run with ");
        daemon.assert_runs();
        assert!(taken(&world).is_empty());
        world.write("go", b"");
        by_hand.join().unwrap().expect(0);
        daemon.wait_for("backup complete");
        assert_eq!(daemon.stop().0, Some(0));
    });
    assert!(taken(&world).len() >= 2);
}
