//! What the program says, word for word, and how it exits.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "cli/json.rs"]
mod json;
#[path = "cli/keys.rs"]
mod keys;
#[path = "cli/people.rs"]
mod people;
mod support;

use std::fs;
use std::path::Path;

use support::{KEY, Ran, World, ran};

/// Another key than the world's; its id is 35f4d835.
const OTHER_KEY: &str = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

const HELP: &str = "hint: `offsite --help` lists the commands, `offsite COMMAND --help` their options\n";

impl World {
    /// A run without config, key or anything else in the environment.
    fn bare(&self, args: &[&str]) -> Ran {
        let mut command = self.command(args);
        command.env_remove("AITHER_MASTER_KEY");
        ran(command)
    }

    /// The run's stderr, with this world's folder as ROOT.
    fn said(&self, ran: &Ran) -> String {
        ran.stderr.replace(self.root.to_str().unwrap(), "ROOT")
    }

    /// The run failed with `code`, said exactly `stderr`, and nothing on stdout.
    #[track_caller]
    fn fails(&self, args: &[&str], code: i32, stderr: &str) {
        let ran = self.run(args).expect(code);
        assert_eq!((self.said(&ran).as_str(), ran.stdout.as_str()), (stderr, ""));
    }
}

/// Puts an empty object of that name into `dest/`.
fn object(world: &World, name: &str) {
    world.write(&format!("dest/{name}"), b"x");
}

#[test]
fn without_a_config_the_error_names_both_places() {
    let world = World::empty();
    let expected = "error: found no config: neither ./backup-paths.toml nor /etc/offsite/backup-paths.toml exists\n\
        hint: `offsite init` writes one; on a fresh machine give `--from github://owner/repo` in its place\n";
    for verb in [&["backup"][..], &["check"], &["list"], &["status"], &["verify"], &["daemon"]] {
        world.fails(verb, 2, expected);
    }
    world.fails(
        &["--config", "none.toml", "list"],
        2,
        "error: there is no config at none.toml\nhint: `offsite init` writes one\n",
    );
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
    let world = World::new();
    world.config("[tier1.secrets]\npaths = [\"sys\"]\nexclud = [\"x\"]\n");
    world.fails(
        &["backup"],
        2,
        "error: ROOT/backup-paths.toml:6:1: unknown key `exclud`\nhint: did you mean `exclude`?\n",
    );
    world.config("schedul = \"0 17 */6 * * *\"\n[tier1.secrets]\npaths = [\"sys\"]\n");
    world.fails(
        &["list"],
        2,
        "error: ROOT/backup-paths.toml:4:1: unknown key `schedul`\nhint: did you mean `schedule`?\n",
    );
}

#[test]
fn without_a_key_the_error_names_every_place_and_no_argument() {
    let world = World::new();
    let text = fs::read_to_string(world.path("backup-paths.toml")).unwrap();
    let places = "[\"env:NOT_SET\", \"file:no-key\", \"file:empty\", \"command:false --password hunter2\"]";
    world.write("backup-paths.toml", text.replace("[\"env:AITHER_MASTER_KEY\"]", places).as_bytes());
    world.write("empty", b" \n");
    for verb in [&["backup"][..], &["key", "id"], &["verify"]] {
        let ran = world.run(verb).expect(1);
        let said = world.said(&ran);
        assert!(
            said.starts_with("error: found no master key; tried env:NOT_SET (not set), file:ROOT/no-key (")
        );
        assert!(said.contains("), file:ROOT/empty (empty), command:false (exit status: 1)\n"), "{said}");
        assert!(said.ends_with("\nhint: put the master key in one of these places\n"), "{said}");
        assert!(!said.contains("hunter2") && ran.stdout.is_empty());
    }
    assert!(world.objects().is_empty());
}

#[test]
fn a_wrong_key_exits_with_5_and_is_named() {
    let world = World::new();
    let name = world.backup()["snapshot"].as_str().unwrap().to_owned();
    for args in [&["verify"][..], &["show"], &["restore", "--target", "back"]] {
        let mut command = world.command(args);
        command.env("AITHER_MASTER_KEY", OTHER_KEY);
        let ran = ran(command).expect(5);
        assert_eq!(
            ran.stderr,
            format!(
                "error: {name}: the key 35f4d835 does not open this snapshot, or its first token is damaged\n\
                 hint: compare the key id with the one in the destination's RESTORE.md; \
                 a second snapshot that opens rules the key out\n"
            )
        );
        assert_eq!(ran.stdout, "");
    }
    assert!(!world.path("back").exists());
}

#[test]
fn wrong_arguments_are_usage_errors_that_say_what_was_meant() {
    let world = World::new();
    for (args, message) in [
        (&["bakup"][..], "unrecognized subcommand 'bakup'\n  a similar subcommand exists: 'backup'"),
        (
            &["backup", "--dryrun"],
            "unexpected argument '--dryrun' found\n  a similar argument exists: '--dry-run'",
        ),
        (&["list", "extra"], "unexpected argument 'extra' found"),
        (&["restore"], "the following required arguments were not provided:\n  --target <DIR>"),
        (&["-v", "-q", "list"], "the argument '--verbose...' cannot be used with '--quiet'"),
        (
            &["status", "--max-age", "7x"],
            "invalid value '7x' for '--max-age <AGE>': unknown time unit \"x\", supported units: ns, us/µs, ms, sec, \
             min, hours, days, weeks, months, years (and few variations)",
        ),
        (
            &["completions", "fishy"],
            "invalid value 'fishy' for '<SHELL>'\n  [possible values: bash, elvish, fish, powershell, zsh]\n  \
             a similar value exists: 'fish'",
        ),
    ] {
        world.fails(args, 2, &format!("error: {message}\n{HELP}"));
    }
    let ran = world.run(&[]).expect(2);
    assert!(ran.stderr.contains("\nCommands:\n") && ran.stderr.ends_with("\nerror: no command was given\n"));
}

#[test]
fn what_is_not_a_destination_is_refused() {
    let world = World::new();
    let write = "hint: write github://owner/repo or file:///absolute/dir\n";
    world.fails(
        &["list", "--from", "nonsense"],
        2,
        &format!("error: `nonsense` is not a destination\n{write}"),
    );
    world.fails(
        &["list", "--from", "file://dest"],
        2,
        "error: `file://dest` is not an absolute path\nhint: write three slashes: file:///mnt/backup\n",
    );
}

#[test]
fn an_empty_destination_lists_nothing_and_a_missing_one_is_an_error() {
    let world = World::new();
    world.fails(&["list"], 0, "no snapshots\n");
    world.fails(
        &["verify"],
        1,
        "error: file://ROOT/dest: there is no snapshot at this destination\n\
         hint: look at the destination's address, and whether a backup has ever succeeded\n",
    );
    fs::remove_dir(world.path("dest")).unwrap();
    for verb in [&["list"][..], &["status"], &["verify"], &["restore", "--target", "back"]] {
        world.fails(
            verb,
            1,
            "error: there is no directory ROOT/dest\n\
             hint: is the disk mounted? `offsite init` or the first backup makes a new one\n",
        );
    }
}

#[test]
fn a_target_with_files_is_refused_and_untouched() {
    let world = World::new();
    world.backup();
    world.write("back/mine", b"mine");
    world.fails(
        &["restore", "--target", "back"],
        1,
        "error: ROOT/back is not empty\n\
         hint: choose a new folder, or give --force: files of the same names are then replaced, others stay\n",
    );
    assert_eq!(fs::read_dir(world.path("back")).unwrap().count(), 1);
    world.fails(&["restore", "--target", "back/mine"], 1, "error: ROOT/back/mine is not a folder\n");
}

#[test]
fn a_mistyped_snapshot_gets_a_suggestion_and_a_short_prefix_is_ambiguous() {
    let world = World::new();
    let a = "test/2026/11/20261121T061703Z-aaaaaaaa.tar.gz.fernet";
    let b = "test/2026/11/20261121T001703Z-abbbbbbb.degraded.tar.gz.fernet";
    object(&world, a);
    object(&world, b);
    object(&world, "test/2026/11/20261120T001703Z-cccccccc.tar.gz.fernet.1-of-2");
    object(&world, "RESTORE.md");
    world.fails(
        &["verify", "aaaaaaab"],
        1,
        &format!(
            "error: file://ROOT/dest: there is no snapshot `aaaaaaab`\nhint: did you mean aaaaaaaa ({a})?\n"
        ),
    );
    world.fails(
        &["show", "nothing-like-it"],
        1,
        "error: file://ROOT/dest: there is no snapshot `nothing-like-it`\nhint: `offsite list` shows the names\n",
    );
    world.fails(
        &["restore", "20261121", "--target", "back"],
        2,
        &format!(
            "error: file://ROOT/dest: `20261121` names 2 snapshots, {a} and {b} among them\n\
             hint: give more of the name, or the id\n"
        ),
    );
    world.fails(
        &["verify", "cccccccc"],
        5,
        "error: file://ROOT/dest: test/2026/11/20261120T001703Z-cccccccc.tar.gz.fernet is incomplete: \
         1 of its parts are there, and not all\nhint: choose another one with `offsite list`\n",
    );
}

#[test]
fn completions_and_the_manual_print_and_a_full_stdout_is_an_error() {
    let world = World::empty();
    for (shell, mark) in
        [("bash", "complete -F _offsite"), ("zsh", "#compdef offsite"), ("fish", "complete -c offsite")]
    {
        let ran = world.bare(&["completions", shell]).expect(0);
        assert!(ran.stdout.contains(mark) && ran.stderr.is_empty());
    }
    assert!(world.bare(&["man"]).expect(0).stdout.contains(".TH offsite 1"));
    let help = world.bare(&["--help"]).expect(0);
    assert!(help.stdout.contains("Exit codes: 0 done, 1 failed, 2 usage") && help.stderr.is_empty());
    for args in
        [&["man"][..], &["completions", "bash"], &["key", "generate"], &["list", "--json", "--from", "X"]]
    {
        let from = world.destination();
        let args: Vec<&str> = args.iter().map(|a| if *a == "X" { &from } else { *a }).collect();
        let mut command = world.command(&args);
        command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), stderr.as_str()),
            (Some(1), "error: cannot print: no space left on device\n")
        );
    }
}

#[test]
fn the_config_is_the_named_one_else_the_variables_else_the_folders() {
    let world = World::empty();
    for (file, system) in
        [("some/flag.toml", "flag"), ("some/variable.toml", "variable"), ("backup-paths.toml", "folder")]
    {
        let text = format!(
            "system = \"{system}\"\ndestination = \"{}\"\nkey = [\"file:key-{system}\"]\n[tier1.a]\npaths = [\"data-{system}\"]\n",
            world.destination()
        );
        world.write(file, text.as_bytes());
        for (name, content) in [("key", KEY), ("data", "x")] {
            let path = Path::new(file).with_file_name(format!("{name}-{system}"));
            world.write(path.to_str().unwrap(), content.as_bytes());
        }
    }
    let system = |args: &[&str], variable: Option<&str>| {
        let mut command = world.command(&[&["--json", "backup"], args].concat());
        command.env_remove("AITHER_MASTER_KEY");
        if let Some(path) = variable {
            command.env("OFFSITE_CONFIG", path);
        }
        ran(command).expect(0).json()["snapshot"].as_str().unwrap().split('/').next().unwrap().to_owned()
    };
    // Paths and places count from the config's folder, wherever it was started.
    assert_eq!(system(&["--config", "some/flag.toml"], Some("some/variable.toml")), "flag");
    assert_eq!(system(&[], Some("some/variable.toml")), "variable");
    assert_eq!(system(&[], Some("")), "folder");
    assert_eq!(system(&[], None), "folder");
}

#[test]
fn the_repositorys_own_config_parses() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("backup-paths.toml");
    if path.exists() {
        let config =
            offsite::config::Config::load(&path).map_err(|e| format!("{e} {:?}", e.next_step())).unwrap();
        assert!(!config.tier1.is_empty());
    }
}
