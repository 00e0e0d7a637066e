//! Snapshots open without this program: the commands of `RESTORE.md`, as they
//! are written, run by bash with stock Python, GNU tar, sha256sum and psql in a
//! folder that holds nothing but the object.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use offsite::sources::postgres::Cluster;
use offsite::stop::Stop;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use serde_json::Value;
use sha2::{Digest, Sha256};
use support::{KEY, Ran, StandIn, TOKEN, World, filled_cluster, python, ran};

/// The contents of the ```sh blocks of a text, in order.
fn commands(markdown: &str) -> Vec<String> {
    let parts = markdown.split("```sh\n").skip(1);
    parts.map(|part| part.split_once("```").unwrap().0.to_owned()).collect()
}

/// Runs a script in `folder` with the test's Python first on PATH, the key in
/// the environment, and nothing else.
fn bash(world: &World, folder: &Path, script: &str, env: &[(&str, &str)]) -> Ran {
    let bin = world.path("bin");
    fs::create_dir_all(&bin).unwrap();
    // A script and not a symlink: a virtual environment knows itself by its path.
    fs::write(bin.join("python3"), format!("#!/bin/sh\nexec '{}' \"$@\"\n", python().display())).unwrap();
    fs::set_permissions(bin.join("python3"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = [bin.as_os_str(), &std::env::var_os("PATH").unwrap()].join(OsStr::new(":"));
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(folder).env_clear();
    command.env("PATH", path).env("HOME", folder).env("AITHER_MASTER_KEY", KEY).envs(env.iter().copied());
    ran(command)
}

/// An empty folder with the objects of the world's only snapshot, its name, and
/// the `RESTORE.md` that a real restore brought back.
fn object_in_a_folder(world: &World, objects: &[PathBuf], restore: &[&str]) -> (PathBuf, String, String) {
    world.run(restore).expect(0);
    let ids: Vec<_> = fs::read_dir(world.path("back/.offsite")).unwrap().flatten().collect();
    assert_eq!(ids.len(), 1);
    let notes = fs::read_to_string(ids[0].path().join("RESTORE.md")).unwrap();
    let folder = world.path("by hand");
    fs::create_dir(&folder).unwrap();
    for object in objects {
        fs::copy(object, folder.join(object.file_name().unwrap())).unwrap();
    }
    let name = objects[0].file_name().unwrap().to_string_lossy().into_owned();
    (folder, name.split_once(".fernet").unwrap().0.to_owned() + ".fernet", notes)
}

/// Everything that a file is, but for where it is.
#[derive(Debug, PartialEq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    sha256: Option<String>,
    link: Option<PathBuf>,
    /// The first path of the same inode.
    same_as: PathBuf,
    has_holes: bool,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn facts(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut first = BTreeMap::new();
    let mut all = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(root).unwrap().to_owned();
        let meta = entry.path().symlink_metadata().unwrap();
        let same_as = first.entry(meta.ino()).or_insert_with(|| path.clone()).clone();
        let xattrs = xattr::list(entry.path()).unwrap().map(|name| {
            let value = xattr::get(entry.path(), &name).unwrap().unwrap_or_default();
            (name.as_bytes().to_vec(), value)
        });
        let found = Facts {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            sha256: meta.is_file().then(|| hex::encode(Sha256::digest(fs::read(entry.path()).unwrap()))),
            link: fs::read_link(entry.path()).ok(),
            same_as,
            has_holes: meta.is_file() && meta.blocks() * 512 + 65_536 < meta.size(),
            xattrs: xattrs.collect(),
        };
        all.insert(path, found);
    }
    all
}

/// Fails the test at the first difference, and names it.
#[track_caller]
fn assert_same(before: &Path, after: &Path) {
    let (before, mut after) = (facts(before), facts(after));
    assert!(before.len() > 1);
    for (path, was) in before {
        assert_eq!(after.remove(&path).as_ref(), Some(&was), "{}", path.display());
    }
    assert!(after.is_empty(), "extra: {:?}", after.keys());
}

fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Fills `sys/` with everything that a file system may hold.
fn fill_with_odd_files(world: &World) {
    let sys = world.path("sys");
    let named = |bytes: &[u8]| sys.join(OsStr::from_bytes(bytes));
    for name in [
        &b"plain"[..],
        b"new\nline",
        b"carriage\rreturn",
        b"back\\slash\\n",
        b"latin-1-\xe9\xff",
        b"two  words ",
        b"-rf",
        b"--checkpoint-action=exec=false",
        "größe-日本".as_bytes(),
        b"quote'\"$(x)",
        &[b'n'; 240],
    ] {
        fs::write(named(name), name).unwrap();
    }
    let deep = sys.join("d".repeat(120)).join("e".repeat(120)).join("f".repeat(120));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("deep"), "deep").unwrap();
    fs::write(sys.join("empty"), "").unwrap();
    fs::create_dir(sys.join("empty folder")).unwrap();
    fs::create_dir(sys.join("sticky")).unwrap();
    fs::write(sys.join("private"), "p").unwrap();
    for (name, mode) in [("private", 0o600), ("plain", 0o751), ("empty folder", 0o710), ("sticky", 0o1777)] {
        fs::set_permissions(sys.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("plain", sys.join("link")).unwrap();
    symlink("/nowhere/at all", sys.join("dangling")).unwrap();
    symlink("t".repeat(150), sys.join("long link")).unwrap();
    symlink(OsStr::from_bytes(b"bytes-\xe9"), named(b"odd link \xe9")).unwrap();
    fs::hard_link(sys.join("plain"), sys.join("plain again")).unwrap();
    fs::hard_link(named(b"new\nline"), sys.join("sticky/another name")).unwrap();
    let sparse = File::create(sys.join("sparse")).unwrap();
    sparse.set_len(20 << 20).unwrap();
    sparse.write_all_at(b"in the middle", (7 << 20) + 5).unwrap();
    let holes = File::create(sys.join("only a hole")).unwrap();
    holes.set_len(4 << 20).unwrap();
    if xattr::set(sys.join("plain"), "user.note", b"\x00\xff=\n1").is_ok() {
        xattr::set(sys.join("empty folder"), "user.folder", b"yes").unwrap();
        let setfacl = |args: &[&str], name: &str| {
            let status = Command::new("setfacl").args(args).arg(sys.join(name)).status().unwrap();
            assert!(status.success(), "setfacl {args:?}");
        };
        setfacl(&["-m", "u:12345:r,g:23456:rw"], "private");
        setfacl(&["-d", "-m", "u:12345:rx"], "sticky");
    }
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(sys.join("link"), Some(12_345), Some(23_456)).unwrap();
        std::os::unix::fs::chown(sys.join("private"), Some(12_345), Some(23_456)).unwrap();
        fs::set_permissions(sys.join("private"), fs::Permissions::from_mode(0o4750)).unwrap();
    }
    set_mtime(&sys.join("plain"), 1_234_567_890, 123_456_789);
    set_mtime(&sys.join("private"), -86_400, 500_000_001);
    set_mtime(&sys.join("link"), 1_000_000_000, 1);
    set_mtime(&sys.join("empty folder"), 999_999_999, 999_999_999);
    set_mtime(&sys, 1_600_000_000, 42);
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// The names in a `.tar.gz` as Python's tarfile sees them.
fn names_in_python(world: &World, folder: &Path) -> Vec<Vec<u8>> {
    let script = "python3 -c 'import os, tarfile\n\
                  for member in tarfile.open(\"snapshot.tar.gz\"): print(os.fsencode(member.name).hex())'";
    let found = bash(world, folder, script, &[("LC_ALL", "C.UTF-8")]).expect(0);
    found.stdout.lines().map(|line| hex::decode(line).unwrap()).collect()
}

fn names_in_manifest(manifest: &Path) -> Vec<Vec<u8>> {
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    let name = |entry: &Value| match entry["path_base64"].as_str() {
        Some(exact) => base64::engine::general_purpose::STANDARD.decode(exact).unwrap(),
        None => entry["path"].as_str().unwrap().as_bytes().to_vec(),
    };
    manifest["entries"].as_array().unwrap().iter().map(name).collect()
}

#[test]
fn a_snapshot_of_one_token_comes_back_by_hand_exactly_as_it_was() {
    let world = World::empty();
    fill_with_odd_files(&world);
    world.config("[tier1.all]\npaths = [\"sys\"]\n");
    world.backup();
    let objects = world.objects();
    let (folder, name, notes) = object_in_a_folder(&world, &objects, &["restore", "--target", "back"]);
    let blocks = commands(&notes);
    assert!(blocks[0].starts_with("offsite restore "), "{notes}");
    bash(&world, &folder, &blocks[1..].concat(), &[]).expect(0);

    let here = |below: &str| folder.join(below).join(world.path("sys").strip_prefix("/").unwrap());
    assert_same(&world.path("sys"), &here("files"));
    assert_same(&world.path("sys"), &world.restored("back", "sys"));

    let mut names = names_in_python(&world, &folder);
    assert_eq!(names.pop().unwrap(), b"manifest.json");
    assert_eq!(names, names_in_manifest(&folder.join("manifest.json")));

    let whole = "import sys\nfrom cryptography.fernet import Fernet\n\
                 sys.stdout.write(Fernet(sys.argv[1]).decrypt(open(sys.argv[2], 'rb').read())[:2].hex())";
    let script = format!("python3 -c \"{whole}\" {KEY} {name}");
    assert_eq!(bash(&world, &folder, &script, &[]).expect(0).stdout, "1f8b");
}

#[test]
fn the_first_command_of_the_notes_restores_with_offsite() {
    let world = World::new();
    world.backup();
    let (folder, _, notes) = object_in_a_folder(&world, &world.objects(), &["restore", "--target", "back"]);
    let script = commands(&notes)[0].replace("DESTINATION", &world.destination());
    let script = format!("offsite() {{ '{}' \"$@\"; }}\n{script}", env!("CARGO_BIN_EXE_offsite"));
    bash(&world, &folder, &script, &[]).expect(0);
    let sys = world.path("sys");
    assert_same(&sys, &folder.join("restored").join(sys.strip_prefix("/").unwrap()));
}

#[test]
fn a_snapshot_of_many_tokens_comes_back_by_hand() {
    let world = World::empty();
    world.write("sys/noise", &noise(13 << 20));
    world.config("[tier1.all]\npaths = [\"sys\"]\n");
    world.backup();
    let objects = world.objects();
    let (folder, name, notes) = object_in_a_folder(&world, &objects, &["restore", "--target", "back"]);
    assert!(fs::read(folder.join(&name)).unwrap().split(|b| *b == b'\n').count() > 3);
    bash(&world, &folder, &commands(&notes)[1..].concat(), &[]).expect(0);
    assert_same(&world.path("sys"), &folder.join("files").join(world.path("sys").strip_prefix("/").unwrap()));

    let reordered = "head -n 1 *.fernet > 1; sed 1d *.fernet > 2; printf '\\n' >> 2; cat 2 1 > swapped;\
                     python3 open.py swapped snapshot.tar.gz && tar -tzf snapshot.tar.gz";
    assert_ne!(bash(&world, &folder, reordered, &[]).code, 0, "tokens in another order must not open");
}

#[test]
fn the_notes_at_the_destination_open_a_snapshot_and_name_no_secret() {
    let world = World::empty();
    world.write("sys/a file", b"contents");
    let args = ["init", "--destination", &world.destination(), "--system", "test", "sys"];
    world.run(&args).expect(0);
    world.backup();
    let notes = fs::read_to_string(world.path("dest/RESTORE.md")).unwrap();
    for secret in [KEY, "a file", &world.path("sys").to_string_lossy()] {
        assert!(!notes.contains(secret), "{secret}");
    }
    let objects: Vec<PathBuf> = world.objects().into_iter().filter(|o| !o.ends_with("RESTORE.md")).collect();
    let (folder, name, _) = object_in_a_folder(&world, &objects, &["restore", "--target", "back"]);
    let script = commands(&notes)[1].replace("OBJECT", &name);
    bash(&world, &folder, &script, &[]).expect(0);
    assert_same(&world.path("sys"), &folder.join("files").join(world.path("sys").strip_prefix("/").unwrap()));
    assert!(folder.join("RESTORE.md").is_file(), "the notes say that it is there");
}

#[test]
fn a_snapshot_in_parts_is_cloned_from_github_and_comes_back_by_hand() {
    let world = World::empty();
    let github = StandIn::start(&world, &["--empty"]);
    world.write("sys/noise", &noise(14 << 20));
    world
        .config_for("github://acme/backups", &format!("{}[tier1.all]\npaths = [\"sys\"]\n", github.config()));
    let run = |args: &[&str]| {
        let mut command = world.command(args);
        command.env("GITHUB_TOKEN", TOKEN);
        ran(command)
    };
    run(&["init"]).expect(0);
    run(&["backup"]).expect(0);
    let clone = "git clone -q github/repo.git dest/clone";
    bash(&world, &world.root, clone, &[]).expect(0);
    let all = world.objects();
    let objects: Vec<PathBuf> =
        all.iter().filter(|o| o.to_string_lossy().contains("-of-")).cloned().collect();
    assert_eq!(objects.len(), 2, "{all:?}");
    let from_clone = format!("file://{}", world.path("dest/clone").display());
    let restore = ["restore", "--from", &from_clone, "--target", "back"];
    let (folder, name, notes) = object_in_a_folder(&world, &objects, &restore);
    bash(&world, &folder, &commands(&notes)[1..].concat(), &[]).expect(0);
    let files = folder.join("files").join(world.path("sys").strip_prefix("/").unwrap());
    assert_same(&world.path("sys"), &files);

    // What lies in clear at the destination has to do for parts as well.
    let clear = fs::read_to_string(world.path("dest/clone/RESTORE.md")).unwrap();
    let script = format!("rm -r files {name}\n{}", commands(&clear)[1].replace("OBJECT", &name));
    bash(&world, &folder, &script, &[]).expect(0);
    assert_same(&world.path("sys"), &files);
}

#[test]
fn a_dump_is_loaded_by_hand_with_stock_psql() {
    let world = World::new();
    let stop = Stop::default();
    let source = filled_cluster(&world.path("tmp"));
    world.config("[tier1.secrets]\npaths = [\"sys\"]\n[postgres.main]\nurl = [\"env:DATABASE_URL\"]\n");
    let mut command = world.command(&["backup"]);
    command.env("DATABASE_URL", source.url());
    ran(command).expect(0);
    let (folder, _, notes) = object_in_a_folder(&world, &world.objects(), &["restore", "--target", "back"]);
    drop(source);

    let target = Cluster::start(&world.path("tmp"), "postgres", &stop).unwrap();
    let url = target.url();
    let socket = url.split_once("host=").unwrap().1;
    let socket = percent_encoding::percent_decode_str(socket).decode_utf8().unwrap();
    let loaded = commands(&notes)[1..].concat();
    let env = [("PGHOST", &*socket), ("PGUSER", "postgres")];
    let answer = bash(&world, &folder, &loaded, &env).expect(0);
    let errors: Vec<&str> = answer.stderr.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.iter().all(|e| e.ends_with("role \"postgres\" already exists")), "{errors:?}");
    let rows = target.sql("tenants", "SELECT count(*), min(v), max(v) FROM t;", &stop).unwrap();
    assert!(rows.starts_with("2000|"), "{rows}");
    let names = target.sql("postgres", "SELECT datname FROM pg_database ORDER BY 1;", &stop).unwrap();
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        ["odd 'name", "postgres", "template0", "template1", "tenants"]
    );
    let password = "SELECT rolpassword LIKE 'SCRAM-%' FROM pg_authid WHERE rolname = 'tenant_owner';";
    assert_eq!(target.sql("postgres", password, &stop).unwrap().trim(), "t");
}
