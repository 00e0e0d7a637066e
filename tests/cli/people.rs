//! What a person reads when things go well, or less well.

use super::object;
use super::support::{Ran, World};

/// Numbers as `#`: what differs from run to run.
fn shape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }) {
        if c != '#' || !out.ends_with('#') {
            out.push(c);
        }
    }
    out
}

#[test]
fn success_is_told_on_stderr_and_stdout_stays_empty() {
    let world = World::new();
    let backup = world.run(&["backup"]).expect(0);
    let list = world.run(&["--json", "list"]).expect(0).json();
    let (name, id) =
        (list["snapshots"][0]["name"].as_str().unwrap(), list["snapshots"][0]["id"].as_str().unwrap());
    let shaped = |ran: &Ran| {
        assert_eq!(ran.stdout, "");
        shape(&world.said(ran).replace(name, "NAME").replace(id, "ID"))
    };
    assert_eq!(
        shaped(&backup),
        "complete snapshot NAME\n  at file://ROOT/dest, #.# kB stored from # B of contents, key #f#eb\n  \
         secrets             # entries       # B\n  \
         took #.# s: pack #.# s (dump #.# s beside it), upload #.# s; # API calls\n"
    );
    assert_eq!(
        shaped(&world.run(&["list"]).expect(0)),
        "ID        TAKEN (UTC)                    AGE       SIZE  STATE       PROVEN      SYSTEM\n\
         ID  #-#-# #:#:#          # min     #.# kB  complete    no          test\n"
    );
    assert_eq!(
        shaped(&world.run(&["verify"]).expect(0)),
        "verified NAME (complete)\n  #.# kB read back in #.# s: # tokens authenticated, # entries, #.# kB\n  \
         every checksum, mode, owner and time is as the manifest says\n"
    );
    assert_eq!(
        shaped(&world.run(&["restore", "--target", "back"]).expect(0)).lines().next().unwrap(),
        "restored NAME (complete) to ROOT/back"
    );
    assert_eq!(
        shaped(&world.run(&["backup", "--dry-run"]).expect(0)),
        "        # B  ROOT/sys/.env\n        # B  ROOT/sys/data\n       # B  ROOT/sys/data/vault.enc\n\
         would take # entries, # B of files; nothing was stored\n"
    );
    assert!(
        shaped(&world.run(&["show"]).expect(0)).ends_with("restore it: offsite restore ID --target DIR\n")
    );
    assert!(shaped(&world.run(&["show", "-v"]).expect(0)).contains(" filesROOT/sys/data/vault.enc\n"));
    assert!(shaped(&world.run(&["check"]).expect(0)).ends_with("a backup would succeed\n"));
    for verb in [&["backup", "-q"][..], &["list", "-q"], &["status", "-q"], &["check", "-q"]] {
        let ran = world.run(verb).expect(0);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    }
}

#[test]
fn control_characters_in_names_do_not_reach_the_terminal() {
    let world = World::new();
    world.write("sys/data/\x1b]0;evil\x07\nMISSING", b"x");
    for args in [&["backup", "--dry-run"][..], &["backup"], &["show", "-v"]] {
        let ran = world.run(args).expect(0);
        assert!(ran.stderr.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", ran.stderr);
        assert!(!ran.stderr.contains("\nMISSING"));
    }
}

#[test]
fn status_exits_with_0_3_or_4() {
    let world = World::new();
    let never = "never proven restorable by a drill\n";
    world.fails(&["status"], 4, &format!("there is no snapshot\n{never}STALE\n"));
    object(&world, "test/2020/01/20200101T000000Z-aaaaaaaa.tar.gz.fernet");
    let old = world.run(&["status", "--max-age", "7h"]).expect(4);
    assert!(old.stderr.ends_with(&format!("{never}STALE (limit 7h)\n")), "{}", old.stderr);
    world.run(&["status"]).expect(0);
    world.backup();
    let good = world.run(&["status", "--max-age", "7h"]).expect(0);
    assert!(good.stderr.ends_with(&format!(" kB\n{never}good (limit 7h)\n")), "{}", good.stderr);
    world.config("[tier1.secrets]\npaths = [\"sys\", \"gone\"]\n");
    std::thread::sleep(std::time::Duration::from_millis(1100)); // names have whole seconds
    world.run(&["backup"]).expect(3);
    let degraded = world.run(&["status", "--max-age", "7h"]).expect(3);
    assert!(degraded.stderr.contains("\nnewest complete one "), "{}", degraded.stderr);
    assert!(degraded.stderr.ends_with("\nDEGRADED: the newest snapshot lacks something required\n"));
}

#[test]
fn a_restore_says_which_newer_snapshot_it_passed_over() {
    let world = World::new();
    let complete = world.backup()["id"].as_str().unwrap().to_owned();
    let newer = "test/2030/01/20300101T000000Z-bbbbbbbb.degraded.tar.gz.fernet";
    object(&world, newer);
    let ran = world.run(&["restore", "--target", "back"]).expect(0);
    assert!(
        ran.stderr.contains(&format!("\nnote: passed over the newer {newer} (degraded)\n")),
        "{}",
        ran.stderr
    );
    assert!(world.path("back/.offsite").join(complete).is_dir());
}
