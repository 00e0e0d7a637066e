//! Keys: made, named, rotated, and set up by `init`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::support::{KEY, World, python, ran};
use super::{OTHER_KEY, Ran};

/// Every file of the world that holds `text`, config and destination included.
fn files_with(world: &World, text: &str) -> Vec<String> {
    let files = walkdir::WalkDir::new(&world.root).into_iter().flatten().filter(|e| e.file_type().is_file());
    files
        .filter(|e| String::from_utf8_lossy(&fs::read(e.path()).unwrap()).contains(text))
        .map(|e| e.path().strip_prefix(&world.root).unwrap().display().to_string())
        .collect()
}

fn with_key(world: &World, args: &[&str], key: Option<&str>) -> Ran {
    let mut command = world.command(args);
    command.env_remove("AITHER_MASTER_KEY");
    if let Some(key) = key {
        command.env("AITHER_MASTER_KEY", key);
    }
    ran(command)
}

#[test]
fn a_generated_key_is_44_characters_that_pythons_fernet_takes() {
    let world = World::empty();
    let made = world.bare(&["key", "generate"]).expect(0);
    let key = made.stdout.strip_suffix('\n').unwrap();
    assert_eq!(key.len(), 44);
    assert!(made.stderr.starts_with("This is a new master key; its id is ") && !made.stderr.contains(key));
    let taken = Command::new(python())
        .args(["-c", "import sys; from cryptography.fernet import Fernet; Fernet(sys.stdin.read())"])
        .stdin(
            fs::File::open({
                world.write("key", key.as_bytes());
                world.path("key")
            })
            .unwrap(),
        )
        .status()
        .unwrap();
    assert!(taken.success());
    let id = with_key(&world, &["key", "id"], Some(key)).expect(0);
    assert!(made.stderr.contains(&format!("its id is {}.\n", id.stdout.trim_end())));
    let json = world.bare(&["key", "generate", "--json"]).expect(0).json();
    assert_ne!(json["key"], key);
    assert_eq!(
        with_key(&world, &["key", "id"], json["key"].as_str()).expect(0).stdout.trim_end(),
        json["key_id"]
    );
}

#[test]
fn key_id_names_the_key_however_it_was_typed() {
    let world = World::empty();
    for typed in [KEY.to_owned(), KEY[..43].to_owned(), format!(" {KEY}\r\n")] {
        let ran = with_key(&world, &["key", "id"], Some(&typed)).expect(0);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("4405f0eb\n", ""));
    }
    let ran = with_key(&world, &["--json", "key", "id"], Some(&format!("{KEY}\n{OTHER_KEY}"))).expect(0);
    assert_eq!(ran.json(), serde_json::json!({ "key_id": "4405f0eb", "also_opens": ["35f4d835"] }));
    let wrong = with_key(&world, &["key", "id"], Some("hunter2-hunter2")).expect(2);
    assert_eq!(
        wrong.stderr,
        "error: this is not a master key: it has 15 characters and does not decode\n\
         hint: a key is 44 characters of A-Z a-z 0-9 - _ ending in `=`; look for a mistyped or missing one\n"
    );
}

#[test]
fn a_rotated_key_seals_and_the_old_one_still_opens() {
    let world = World::new();
    let old = world.backup()["id"].as_str().unwrap().to_owned();
    let text = fs::read_to_string(world.path("backup-paths.toml")).unwrap();
    let two = text.replace("[\"env:AITHER_MASTER_KEY\"]", "[\"env:NEW_KEY\", \"env:AITHER_MASTER_KEY\"]");
    for (config, places) in [
        (&two, vec![("NEW_KEY", OTHER_KEY.to_owned()), ("AITHER_MASTER_KEY", KEY.to_owned())]),
        (&text, vec![("AITHER_MASTER_KEY", format!("{OTHER_KEY}\n{KEY}\n"))]),
    ] {
        world.write("backup-paths.toml", config.as_bytes());
        let both = |args: &[&str]| {
            let mut command = world.command(args);
            command.env_remove("AITHER_MASTER_KEY").envs(places.clone());
            ran(command)
        };
        let report = both(&["--json", "backup"]).expect(0).json();
        assert_eq!(report["key_id"], "35f4d835");
        let new = report["id"].as_str().unwrap();
        both(&["verify", &old]).expect(0);
        both(&["verify", new]).expect(0);
        world.write("backup-paths.toml", text.as_bytes());
        with_key(&world, &["verify", new], Some(OTHER_KEY)).expect(0);
        with_key(&world, &["verify", new], Some(KEY)).expect(5);
        with_key(&world, &["verify", &old], Some(OTHER_KEY)).expect(5);
    }
}

#[test]
fn init_writes_a_key_file_with_which_check_and_backup_pass() {
    let world = World::empty();
    world.write("data/f", b"x");
    let destination = world.destination();
    let init = ["init", "--destination", &destination, "--system", "s", "--write-key", "master.key", "data"];
    let first = with_key(&world, &init, None).expect(0);
    assert!(
        first.stdout.is_empty() && first.stderr.contains("to master.key (mode 0600)\n"),
        "{}",
        first.stderr
    );
    assert_eq!(fs::metadata(world.path("master.key")).unwrap().permissions().mode() & 0o7777, 0o600);
    let key = fs::read_to_string(world.path("master.key")).unwrap();
    assert_eq!((key.len(), files_with(&world, key.trim_end())), (45, vec!["master.key".to_owned()]));
    assert!(fs::read_to_string(world.path("dest/RESTORE.md")).unwrap().contains("offsite restore --from"));
    with_key(&world, &["check"], None).expect(0);
    with_key(&world, &["backup"], None).expect(0);
    with_key(&world, &["restore", "--target", "back"], None).expect(0);
    assert_eq!(fs::read(world.restored("back", "data/f")).unwrap(), b"x");
}

#[test]
fn a_second_init_changes_nothing() {
    let world = World::empty();
    let destination = world.destination();
    let init = ["init", "--destination", &destination, "--write-key", "master.key"];
    with_key(&world, &init, None).expect(0);
    let read =
        || ["backup-paths.toml", "master.key", "dest/RESTORE.md"].map(|f| fs::read(world.path(f)).unwrap());
    let before = read();
    for again in [&init[..], &["init"], &["init", "--destination", "file:///elsewhere", "other"]] {
        let ran = with_key(&world, again, None).expect(0);
        assert!(ran.stderr.contains("note: backup-paths.toml was there already and is used as it is\n"));
        assert!(!ran.stderr.contains("wrote"), "{}", ran.stderr);
        assert!(read() == before);
    }
    // The key went to the safe: it is not made anew, and said to be needed.
    fs::remove_file(world.path("master.key")).unwrap();
    let ran = with_key(&world, &init, None).expect(0);
    assert!(ran.stderr.contains("which is in none of the places of `key`: put it there\n"), "{}", ran.stderr);
    assert!(!world.path("master.key").exists());
}

#[test]
fn init_refuses_to_write_a_key_over_a_file() {
    let world = World::empty();
    world.write("mine", b"precious");
    let destination = world.destination();
    let ran =
        with_key(&world, &["init", "--destination", &destination, "--write-key", "mine"], None).expect(1);
    assert_eq!(
        ran.stderr,
        "error: cannot write mine: file exists\nhint: it is there already and is not replaced; choose another name\n"
    );
    assert_eq!(fs::read(world.path("mine")).unwrap(), b"precious");
    assert!(!world.path("backup-paths.toml").exists() && world.objects().is_empty(), "half a setup is left");
}

#[test]
fn init_makes_no_key_beside_one_that_is_mistyped() {
    let world = World::empty();
    let ran = with_key(&world, &["init", "--destination", &world.destination()], Some(&KEY[..40])).expect(2);
    assert!(ran.stderr.starts_with("error: this is not a master key: "), "{}", ran.stderr);
    assert!(!world.path("backup-paths.toml").exists() && world.objects().is_empty());
}

#[test]
fn a_key_file_that_the_config_does_not_name_is_said() {
    let world = World::new();
    let ran = with_key(&world, &["init", "--write-key", "master.key"], None).expect(0);
    let note = "note: add \"file:ROOT/master.key\" to `key` in the config: it does not look there yet\n";
    assert!(world.said(&ran).contains(note), "{}", ran.stderr);
}

#[test]
fn without_write_key_the_new_key_is_shown_once_and_stored_nowhere() {
    let world = World::empty();
    let destination = world.destination();
    let init = ["init", "--destination", &destination];
    let first = with_key(&world, &init, None).expect(0);
    let key = first.stderr.lines().find_map(|l| l.strip_prefix("    ")).unwrap();
    assert_eq!((key.len(), first.stderr.matches(key).count(), first.stdout.as_str()), (44, 1, ""));
    assert_eq!(files_with(&world, key), Vec::<String>::new());
    let id = with_key(&world, &["key", "id"], Some(key)).expect(0).stdout;
    assert!(
        first.stderr.contains(&format!("The new master key, id {}. It is shown this once", id.trim_end()))
    );
    assert!(fs::read_to_string(world.path("dest/RESTORE.md")).unwrap().contains(id.trim_end()));
    let second = with_key(&world, &init, None).expect(0);
    assert!(!second.stderr.contains("new master key") && !second.stderr.contains(key));
    with_key(&world, &["check"], Some(key)).expect(0);
    // Even --quiet does not lose a key, and --json has it in its object.
    let quiet = World::empty();
    let ran = with_key(&quiet, &["-q", "init", "--destination", &quiet.destination()], None).expect(0);
    assert_eq!(ran.stderr.trim().len(), 44);
    let json = World::empty();
    let ran = with_key(&json, &["--json", "init", "--destination", &json.destination()], None).expect(0);
    assert_eq!((ran.json()["new_key"].as_str().unwrap().len(), ran.stderr.as_str()), (44, ""));
}

#[test]
fn init_without_a_destination_says_how() {
    let world = World::empty();
    let ran = world.bare(&["init"]).expect(2);
    assert_eq!(
        ran.stderr,
        "error: a new config needs a destination\n\
         hint: offsite init --destination github://owner/repo (or file:///mnt/backup) PATH…\n"
    );
    assert!(!world.path("backup-paths.toml").exists());
}
