//! Restoring a part, into an existing folder, over a mount, as somebody else.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::support::{World, ran};
use super::{fs, paths, tree};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// What is below the restored `sys/`; the snapshot's notes are beside it.
fn restored(world: &World, only: &[&str]) -> Vec<String> {
    let _ = fs::remove_dir_all(world.path("back"));
    let mut args = vec!["restore", "--target", "back"];
    only.iter().for_each(|pattern| args.extend(["--only", pattern]));
    world.run(&args).expect(0);
    paths(&world.restored("back", "sys"))
}

fn pems() -> World {
    let world = World::new();
    for file in ["a.pem", "sub/b.pem", "sub/c.txt"] {
        world.write(&format!("sys/data/{file}"), file.as_bytes());
    }
    world.backup();
    world
}

#[test]
fn only_takes_a_path_a_file_name_a_glob_or_a_folder() {
    let world = pems();
    let data = world.path("sys/data");
    let absolute = |file: &str| data.join(file).display().to_string();
    assert_eq!(restored(&world, &[&absolute("sub/c.txt")]), ["data", "data/sub", "data/sub/c.txt"]);
    assert_eq!(restored(&world, &["vault.enc"]), ["data", "data/vault.enc"]);
    assert_eq!(restored(&world, &["data/a.pem"]), ["data", "data/a.pem"]);
    assert_eq!(restored(&world, &["**/*.pem"]), ["data", "data/a.pem", "data/sub", "data/sub/b.pem"]);
    assert_eq!(restored(&world, &["*.pem"]), ["data", "data/a.pem", "data/sub", "data/sub/b.pem"]);
    assert_eq!(restored(&world, &["sub"]), ["data", "data/sub", "data/sub/b.pem", "data/sub/c.txt"]);
    assert_eq!(
        restored(&world, &[&absolute("sub/")]),
        ["data", "data/sub", "data/sub/b.pem", "data/sub/c.txt"]
    );
    assert_eq!(restored(&world, &[".env", "c.txt"]), [".env", "data", "data/sub", "data/sub/c.txt"]);
    assert_eq!(fs::read(world.restored("back", "sys/.env")).unwrap(), b"A=1\n");
}

#[test]
fn only_that_matches_nothing_is_an_error_and_writes_nothing() {
    let world = pems();
    let ran = world.run(&["restore", "--target", "back", "--only", "nothing-like-it"]).expect(1);
    assert!(ran.stderr.ends_with(
        ": nothing in the snapshot matches --only\nhint: `offsite show` lists its paths; \
         a pattern is a path, a file name, or a glob such as '**/*.pem'\n"
    ));
    assert!(!world.path("back").exists());
    world.assert_no_leftovers();
    assert!(paths(&world.root).iter().all(|p| !p.contains("offsite-scratch")));
}

#[test]
fn force_replaces_the_same_names_and_keeps_the_others() {
    let world = World::new();
    world.write("sys/data/sub/f", b"new");
    fs::create_dir(world.path("sys/data/empty")).unwrap();
    set_mode(&world.path("sys/data"), 0o750);
    world.backup();
    let (sys, back) = (world.restored("back", "sys"), world.path("back"));
    fs::create_dir_all(sys.join("data/sub")).unwrap();
    fs::write(sys.join("data/vault.enc"), b"old and longer than the new one").unwrap();
    fs::write(sys.join("data/sub/mine"), b"mine").unwrap();
    fs::write(back.join("unrelated"), b"mine").unwrap();
    symlink("/etc/passwd", sys.join("data/sub/f")).unwrap();
    // Folders above tier 1 are not the snapshot's to change.
    for (folder, bits) in [(&back, 0o711), (&sys, 0o701)] {
        set_mode(folder, bits);
    }
    world.run(&["restore", "--target", "back"]).expect(1);
    world.run(&["restore", "--target", "back", "--force"]).expect(0);
    assert_eq!(
        paths(&sys),
        [".env", "data", "data/empty", "data/sub", "data/sub/f", "data/sub/mine", "data/vault.enc"]
    );
    assert_eq!(fs::read(sys.join("data/vault.enc")).unwrap(), b"sealed vault");
    assert_eq!(fs::read(sys.join("data/sub/f")).unwrap(), b"new");
    assert!(!sys.join("data/sub/f").is_symlink() && fs::read("/etc/passwd").unwrap() != b"new");
    assert_eq!((mode(&back), mode(&sys), mode(&sys.join("data"))), (0o711, 0o701, 0o750));
    let same = |path: &str| fs::metadata(sys.join(path)).unwrap().modified().unwrap();
    assert_eq!(same("data"), fs::metadata(world.path("sys/data")).unwrap().modified().unwrap());
    // Once more is no different.
    let before = tree::facts(&sys.join("data"));
    world.run(&["restore", "--target", "back", "--force"]).expect(0);
    tree::assert_same(&before, &tree::facts(&sys.join("data")));
}

#[test]
fn a_conflict_of_file_and_folder_is_refused_with_nothing_touched() {
    let world = World::new();
    world.backup();
    for (make_folder, path, message) in [
        (false, "sys/data", "is in the way: the snapshot has a folder there"),
        (true, "sys/.env", "is in the way of a file"),
    ] {
        let _ = fs::remove_dir_all(world.path("back"));
        let target = world.restored("back", path);
        fs::create_dir_all(if make_folder { &target } else { target.parent().unwrap() }).unwrap();
        if !make_folder {
            fs::write(&target, b"mine").unwrap();
        }
        fs::write(world.path("back/other"), b"mine").unwrap();
        let before = tree::facts(&world.path("back"));
        let ran = world.run(&["restore", "--target", "back", "--force"]).expect(1);
        assert!(ran.stderr.contains(message), "{}", ran.stderr);
        assert!(
            ran.stderr.ends_with("hint: nothing was touched; move it aside, or restore to a new folder\n")
        );
        tree::assert_same(&before, &tree::facts(&world.path("back")));
    }
}

#[test]
fn an_empty_folder_keeps_its_mode_and_a_symlink_to_it_its_target() {
    let world = World::new();
    world.backup();
    fs::create_dir(world.path("back")).unwrap();
    set_mode(&world.path("back"), 0o2710);
    symlink("back", world.path("link")).unwrap();
    world.run(&["restore", "--target", "link"]).expect(0);
    assert!(world.path("link").is_symlink());
    assert_eq!(mode(&world.path("back")), 0o2710);
    assert!(world.restored("back", "sys/.env").is_file());
}

#[test]
fn somebody_who_is_not_root_gets_everything_but_owners() {
    let world = World::new();
    world.write("sys/data/read-only/deep/f", b"x");
    for path in ["sys/data/read-only/deep", "sys/data/read-only"] {
        set_mode(&world.path(path), 0o555);
    }
    set_mode(&world.path("sys/.env"), 0o644);
    let id = ran(world.as_nobody(&["--json", "backup"])).expect(0).json()["id"].as_str().unwrap().to_owned();
    let first = ran(world.as_nobody(&["restore", "--target", "back"])).expect(0);
    assert!(first.stderr.contains("not given back: owners and groups: only root can give files away"));
    let sys = world.restored("back", "sys");
    assert_eq!(mode(&sys.join("data/read-only")), 0o555);
    assert_eq!(fs::read(sys.join("data/read-only/deep/f")).unwrap(), b"x");
    // Into a folder with files: read-only folders are moved there whole ...
    ran(world.as_nobody(&["restore", "--target", "other", "--only", "vault.enc"])).expect(0);
    assert!(!world.restored("other", "sys/data/read-only").exists());
    ran(world.as_nobody(&["restore", "--target", "other", "--force", &id])).expect(0);
    let other = world.restored("other", "sys/data/read-only");
    assert_eq!((mode(&other), mode(&other.join("deep"))), (0o555, 0o555));
    // ... and what is refused leaves nothing behind.
    fs::create_dir(world.path("third")).unwrap();
    set_mode(&world.path("third"), 0o777);
    let blocked = world.restored("third", "sys/.env");
    fs::create_dir_all(&blocked).unwrap();
    ran(world.as_nobody(&["restore", "--target", "third", "--force", &id])).expect(1);
    let left: Vec<_> = fs::read_dir(&world.root).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|n| !n.to_string_lossy().contains("scratch")), "{left:?}");
    // So that this user can clean up.
    for path in ["sys", "back", "other"] {
        for entry in
            walkdir::WalkDir::new(world.path(path)).into_iter().flatten().filter(|e| e.file_type().is_dir())
        {
            set_mode(entry.path(), 0o755);
        }
    }
}

#[test]
fn an_owner_that_this_root_cannot_give_is_said_and_costs_no_file() {
    let world = World::new();
    if super::is_root() {
        std::os::unix::fs::chown(world.path("sys/.env"), Some(54321), Some(54321)).unwrap();
    }
    world.backup();
    // Root of a user namespace, as in a rootless container, has one id only.
    let Some(ran) = world.with_mounts("exec unshare -r $offsite restore --target back") else { return };
    let ran = ran.expect(0);
    assert_eq!(fs::read(world.restored("back", "sys/.env")).unwrap(), b"A=1\n");
    let told = ran
        .stderr
        .lines()
        .find(|l| l.starts_with("  not given back: files/") && l.contains("/sys/.env: owner "));
    assert!(told.is_some(), "{}", ran.stderr);
}

#[test]
fn a_mount_point_is_restored_into_and_so_is_what_has_mounts_below() {
    let world = World::new();
    world.write("sys/data/sub/f", b"new");
    fs::hard_link(world.path("sys/data/sub/f"), world.path("sys/data/sub/g")).unwrap();
    symlink("f", world.path("sys/data/sub/l")).unwrap();
    let hole = fs::File::create(world.path("sys/data/sub/sparse")).unwrap();
    hole.set_len(16 << 20).unwrap();
    fs::create_dir(world.path("sys/data/sub/e")).unwrap();
    set_mode(&world.path("sys/data/sub/e"), 0o700);
    world.backup();
    let before = tree::facts(&world.path("sys/data"));
    let below = world.restored("mnt2", "sys/data").display().to_string();
    let script = format!(
        "mkdir -p mnt mnt2 '{below}' out\n\
         mount -t tmpfs -o size=8m,mode=0750 none mnt; $offsite restore --target mnt\n\
         ls -A mnt >out/first; cp -a --sparse=always 'mnt{root}/sys/data' out/a\n\
         mount -t tmpfs -o size=8m none '{below}'; touch mnt2/mine; $offsite restore --target mnt2 --force\n\
         cp -a --sparse=always '{below}' out/b",
        root = world.root.display()
    );
    let Some(ran) = world.with_mounts(&script) else { return };
    ran.expect(0);
    let first = fs::read_to_string(world.path("out/first")).unwrap();
    let top = world.root.components().nth(1).unwrap().as_os_str().to_str().unwrap().to_owned();
    let mut names: Vec<&str> = first.lines().collect();
    names.sort_unstable();
    assert_eq!(names, [".offsite", &top]);
    tree::assert_same(&before, &tree::facts(&world.path("out/a")));
    tree::assert_same(&before, &tree::facts(&world.path("out/b")));
}
