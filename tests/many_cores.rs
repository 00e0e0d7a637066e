//! The same work with one core or with all: always done, and in little memory.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;
#[path = "support/hub.rs"]
mod the_hub;

use std::fs;
use std::process::Command;

use support::{Ran, World, ran};
use the_hub::{Hub, noise, same_files};

/// What the program may take at its peak, in KiB.
const PEAK_KIB_MAX: u64 = 48 * 1024;

/// A system of all sorts: large and small files, text and noise.
fn fill(world: &World, megabytes: usize, files: usize) {
    let line = |n: usize| format!("{n}\tuser-{}\t{}\tactive\n", n * 7919 % 1009, n.wrapping_mul(n) % 65_537);
    let text: String = (0..megabytes * 15_000).map(line).collect();
    world.write("sys/dump.sql", text.as_bytes());
    world.write("sys/picture", &noise(megabytes * 600_000));
    for n in 0..files {
        world.write(&format!("sys/notes/{}/{n}.md", n % 17), &text.as_bytes()[n * 31..n * 31 + n % 3000]);
    }
    world.config("[tier1.all]\npaths = [\"sys\"]\n");
}

/// `command`, which fails when it takes longer than that: it waits for itself.
fn within_minutes(command: &Command, before: &[&str]) -> Command {
    let mut limited = Command::new("timeout");
    limited.args(["--signal=KILL", "180"]).args(before).arg(command.get_program()).args(command.get_args());
    limited.current_dir(command.get_current_dir().unwrap()).env_clear();
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap());
    }
    limited
}

/// Runs a command and returns its largest resident set as well, in KiB.
fn measured(command: &Command) -> (Ran, u64) {
    const MEASURE: &str = "import os, sys\n\
        pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)\n\
        _, status, usage = os.wait4(pid, 0)\n\
        print(usage.ru_maxrss)\n\
        sys.exit(os.waitstatus_to_exitcode(status))";
    let python = support::python();
    let before = [python.to_str().unwrap(), "-c", MEASURE];
    let ran = ran(within_minutes(command, &before));
    let peak = ran.stdout.lines().last().and_then(|line| line.parse().ok());
    (ran, peak.unwrap_or(0))
}

#[test]
fn one_core_and_many_runs_never_wait_for_themselves() {
    let world = World::empty();
    fill(&world, 5, 300);
    for round in 0..8 {
        let target = format!("back-{round}");
        for args in [&["backup"][..], &["verify"], &["restore", "--target", &target]] {
            ran(within_minutes(&world.command(args), &["taskset", "-c", "0"])).expect(0);
        }
        same_files(&world.path("sys"), &world.restored(&target, "sys"));
        fs::remove_dir_all(world.path(&target)).unwrap();
    }
}

#[test]
fn few_open_files_are_enough() {
    let world = World::empty();
    fill(&world, 1, 1500);
    world.backup();
    let restore = world.command(&["restore", "--target", "back"]);
    ran(within_minutes(&restore, &["prlimit", "--nofile=40:40"])).expect(0);
    same_files(&world.path("sys"), &world.restored("back", "sys"));
}

#[test]
fn memory_is_small_for_little_and_for_much() {
    for (megabytes, files) in [(1, 50), (60, 3000)] {
        let world = World::empty();
        fill(&world, megabytes, files);
        for args in [&["backup"][..], &["verify"], &["restore", "--target", "back"]] {
            let (ran, peak) = measured(&world.command(args));
            ran.expect(0);
            assert!((1_000..PEAK_KIB_MAX).contains(&peak), "{args:?} of {megabytes} MB took {peak} KiB");
        }
        same_files(&world.path("sys"), &world.restored("back", "sys"));
    }
}

#[test]
fn the_body_of_a_put_never_stands_in_memory() {
    let small = Hub::of_size(100_000);
    let large = Hub::of_size(12_000_000);
    let peaks = [&small, &large].map(|hub| {
        let (ran, peak) = measured(&hub.command(&["backup"]));
        ran.expect(0);
        peak
    });
    // Its body is 21 MB.
    assert!((1_000..PEAK_KIB_MAX).contains(&peaks[1]), "{peaks:?}");
    assert!(peaks[1] < peaks[0] + 20_000, "{peaks:?}");
    large.assert_restores("back");
}

#[test]
fn fast_is_larger_and_opens_like_any_other() {
    let world = World::empty();
    fill(&world, 6, 100);
    world.backup();
    let default = fs::metadata(&world.objects()[0]).unwrap().len();
    fs::remove_file(&world.objects()[0]).unwrap();
    world.config("compression = \"fast\"\n[tier1.all]\npaths = [\"sys\"]\n");
    world.backup();
    let fast = fs::metadata(&world.objects()[0]).unwrap().len();
    assert!(fast > default && fast < default * 12 / 10, "{fast} against {default}");
    world.run(&["verify"]).expect(0);
    world.run(&["restore", "--target", "back"]).expect(0);
    same_files(&world.path("sys"), &world.restored("back", "sys"));
}
