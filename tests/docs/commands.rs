//! Runs the blocks of the README and the runbook, as they are written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use offsite::sources::postgres::Cluster;
use offsite::stop::Stop;

use super::support::{KEY, Ran, StandIn, TOKEN, World, filled_cluster, python, ran};
use super::{blocks, section, text};

/// Runs `script` as a file with bash in `folder`, with the program and the
/// tests' Python first on PATH, `typed` on its stdin, and nothing else.
fn bash(world: &World, folder: &Path, script: &str, typed: &[&str], env: &[(&str, &str)]) -> Ran {
    let bin = world.path("bin");
    if !bin.exists() {
        fs::create_dir(&bin).unwrap();
        let mut programs = vec![
            ("offsite", format!("exec '{}' \"$@\"", env!("CARGO_BIN_EXE_offsite"))),
            ("python3", format!("exec '{}' \"$@\"", python().display())),
        ];
        if !rustix::process::geteuid().is_root() {
            // The cluster runs as this user then, and only root may change users.
            programs.push(("runuser", "shift 3; exec \"$@\"".to_owned()));
        }
        for (name, command) in programs {
            fs::write(bin.join(name), format!("#!/bin/sh\n{command}\n")).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    fs::create_dir_all(folder).unwrap();
    fs::write(world.path("script.sh"), script).unwrap();
    fs::write(world.path("typed"), typed.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail"]).arg(world.path("script.sh")).current_dir(folder).env_clear();
    command.stdin(File::open(world.path("typed")).unwrap());
    command.env("PATH", path).env("HOME", world.path("home")).env("TMPDIR", world.path("tmp"));
    ran({
        command.envs(env.iter().copied());
        command
    })
}

/// A world with files of several kinds and the dump of a real cluster.
fn system(world: &World) -> Cluster {
    world.write("sys/data/vault.enc", b"sealed vault");
    world.write("sys/data/empty", b"");
    world.write("sys/data/with space/gr\u{f6}\u{df}e", &vec![7; 70_000]);
    world.write("sys/.env", b"A=1\n");
    symlink("vault.enc", world.path("sys/data/link")).unwrap();
    fs::set_permissions(world.path("sys/.env"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(world.path("sys/data/vault.enc"), fs::Permissions::from_mode(0o440)).unwrap();
    filled_cluster(&world.root)
}

fn back_up(world: &World, destination: &str, cluster: &Cluster, env: &[(&str, &str)]) -> String {
    world.config_for(
        destination,
        "[tier1.all]\npaths = [\"sys/data\", \"sys/.env\"]\n[postgres.main]\nurl = [\"env:DATABASE_URL\"]\n",
    );
    let mut command = world.command(&["--json", "backup"]);
    command.env("DATABASE_URL", cluster.url()).envs(env.iter().copied());
    ran(command).expect(0).json()["snapshot"].as_str().unwrap().to_owned()
}

/// Path, mode, mtime and contents (or where it points) of everything.
fn facts(root: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)> {
    let fact = |entry: walkdir::DirEntry| {
        let meta = entry.path().symlink_metadata().unwrap();
        let contents = if meta.is_symlink() {
            fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes()
        } else if meta.is_file() {
            fs::read(entry.path()).unwrap()
        } else {
            Vec::new()
        };
        let path = entry.path().strip_prefix(root).unwrap().to_owned();
        (path, (meta.mode(), meta.mtime(), meta.mtime_nsec(), contents))
    };
    let walk = walkdir::WalkDir::new(root).min_depth(1);
    walk.into_iter().map(|entry| fact(entry.unwrap())).collect()
}

/// `root` holds the whole of the world's `sys/` where the old machine had it.
#[track_caller]
fn assert_came_back(world: &World, root: &Path) {
    let was = facts(&world.path("sys"));
    assert!(was.len() >= 6);
    assert_eq!(facts(&root.join(world.path("sys").strip_prefix("/").unwrap())), was, "{}", root.display());
}

/// Everything in the table that [`filled_cluster`] fills.
fn rows(cluster: &Cluster) -> String {
    cluster
        .sql("tenants", "SELECT count(*), md5(string_agg(id || v, ',' ORDER BY id)) FROM t", &Stop::default())
        .unwrap()
}

fn empty_cluster(world: &World) -> Cluster {
    Cluster::start(&world.root, "postgres", &Stop::default()).unwrap()
}

/// The folder of a throwaway cluster's socket, for `PGHOST`.
fn socket(cluster: &Cluster) -> String {
    cluster.sql("postgres", "SHOW unix_socket_directories", &Stop::default()).unwrap().trim().to_owned()
}

/// Runs all of the runbook's blocks, after `edit`, and checks what they leave.
fn recover(world: &World, source: &Cluster, edit: &dyn Fn(String) -> String, env: &[(&str, &str)]) {
    let (restored, by_hand) = (empty_cluster(world), empty_cluster(world));
    world.write("new-machine/etc/hostname", b"new\n");
    let env_file = world.restored("new-machine", "sys/.env");
    fs::create_dir_all(env_file.parent().unwrap()).unwrap();
    fs::write(&env_file, "in the way").unwrap();

    let place = world.path("new-machine").display().to_string();
    let mut script = String::new();
    for (at, block) in blocks(&text("runbook/recovery.md"), "sh").into_iter().enumerate() {
        let block = edit(block).replace("PLACE=/ ", &format!("PLACE={place} "));
        script.push_str(&format!("echo '== block {}' >&2\n{block}", at + 1));
    }
    let (socket, url) = (socket(&by_hand), restored.url());
    let mut env = env.to_vec();
    env.extend([("PGHOST", socket.as_str()), ("PGUSER", "postgres")]);
    let told = bash(world, &world.path("laptop"), &script, &[KEY, TOKEN, &url], &env).expect(0);

    let at = |path: &str| world.path("laptop/recovery").join(path);
    assert_came_back(world, &at("restored"));
    assert_came_back(world, &world.path("new-machine"));
    assert_came_back(world, &at("by-hand/files"));
    assert_eq!(fs::read(world.path("new-machine/etc/hostname")).unwrap(), b"new\n");
    let one = facts(&at("one-file"));
    let files: Vec<_> = one.keys().filter(|path| at("one-file").join(path).is_file()).collect();
    assert_eq!(files.len(), 3, "the file, the manifest and RESTORE.md: {files:?}");
    assert!(files.iter().any(|path| path.ends_with("sys/.env")));
    assert_eq!(rows(&restored), rows(source));
    assert_eq!(rows(&by_hand), rows(source));
    assert!(told.stdout.contains("no error that matters"), "{}", told.stdout);
    assert!(told.stdout.contains("4405f0eb"), "the id of the key: {}", told.stdout);
    assert!(told.stderr.contains("loaded postgres.main into server"), "{}", told.stderr);
    for secret in [KEY, TOKEN] {
        assert!(!told.stdout.contains(secret) && !told.stderr.contains(secret));
    }
}

#[test]
fn the_runbook_recovers_from_github_as_written() {
    let world = World::empty();
    let hub = StandIn::start(&world, &[]);
    let source = system(&world);
    let clone = format!("url.file://{}/repo.git.insteadOf", hub.state.display());
    let env = [
        ("GITHUB_TOKEN", TOKEN),
        ("OFFSITE_GITHUB_API_URL", hub.url.as_str()),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", &clone),
        ("GIT_CONFIG_VALUE_0", "https://github.com/acme/backups.git"),
    ];
    back_up(&world, "github://acme/backups", &source, &env);
    // The token is typed in, not given.
    recover(&world, &source, &|block| block.replace("OWNER/REPO", "acme/backups"), &env[1..]);
}

#[test]
fn the_runbook_recovers_from_a_disk_as_written() {
    let world = World::empty();
    let source = system(&world);
    back_up(&world, &world.destination(), &source, &[]);
    let disk = world.path("dest").display().to_string();
    let runbook = text("runbook/recovery.md");
    let link = "ln -s /mnt/backup objects";
    assert!(runbook.contains(&format!("`{link}`")) && runbook.contains("file:///mnt/backup,"));
    let edit = |block: String| {
        if block.contains("git clone") {
            return format!("{}\n", link.replace("/mnt/backup", &disk));
        }
        block.replace("github://OWNER/REPO ", &format!("file://{disk} "))
    };
    recover(&world, &source, &edit, &[]);
}

#[test]
fn the_readme_opens_a_snapshot_by_hand_with_the_commands_of_its_notes() {
    let world = World::empty();
    let source = system(&world);
    let name = back_up(&world, &world.destination(), &source, &[]);
    let name = name.rsplit('/').next().unwrap();
    world.run(&["restore", "--target", "back"]).expect(0);
    let ids: Vec<_> = fs::read_dir(world.path("back/.offsite")).unwrap().flatten().collect();
    let notes = fs::read_to_string(ids[0].path().join("RESTORE.md")).unwrap();

    let readme = text("README.md");
    let [block] = &blocks(section(&readme, "## By hand"), "sh")[..] else { panic!("not one block") };
    let block = block.replace("20261121T061703Z-0a1b2c3d.tar.gz.fernet", name);
    assert_eq!(block, blocks(section(&notes, "## By hand"), "sh").concat());

    let empty = empty_cluster(&world);
    let folder = world.path("by hand");
    fs::create_dir(&folder).unwrap();
    fs::copy(&world.objects()[0], folder.join(name)).unwrap();
    let socket = socket(&empty);
    let env = [("AITHER_MASTER_KEY", KEY), ("PGHOST", socket.as_str()), ("PGUSER", "postgres")];
    bash(&world, &folder, &block, &[], &env).expect(0);
    assert_came_back(&world, &folder.join("files"));
    assert_eq!(rows(&empty), rows(&source));
}

#[test]
fn the_readmes_five_minutes_end_with_a_backup_and_its_restore_day_with_the_files() {
    let world = World::empty();
    let hub = StandIn::start(&world, &["--empty", "--read-only-token", "reader"]);
    let env = [("OFFSITE_GITHUB_API_URL", hub.url.as_str())];
    world.write("sys/data/vault.enc", b"sealed vault");
    world.write("sys/.env", b"A=1\n");
    let (folder, readme) = (world.path("sys"), text("README.md").replace("OWNER/REPO", "acme/backups"));
    let steps = section(&readme, "## Five minutes to a first backup");
    let [init, backup] = &blocks(steps, "sh")[..] else { panic!("not two blocks") };

    let told = bash(&world, &folder, init, &[TOKEN], &env).expect(0).stderr;
    let key = told.lines().find(|line| line.len() == 48 && line.starts_with("    ")).unwrap().trim();
    let with_token = [env[0], ("GITHUB_TOKEN", TOKEN)];
    let told = bash(&world, &folder, backup, &[key], &with_token).expect(0).stderr;
    assert!(told.contains("complete snapshot my-system/") && told.contains("verified"), "{told}");

    let [restore] = &blocks(section(&readme, "## Restore day"), "sh")[..] else { panic!("not one block") };
    bash(&world, &world.path("laptop"), restore, &[key, TOKEN], &env).expect(0);
    let back = world.restored("laptop/restored", "sys/data/vault.enc");
    assert_eq!(fs::read(back).unwrap(), b"sealed vault");

    let [line] = &blocks(steps, "text")[..] else { panic!("not one crontab") };
    let line = line.trim().strip_prefix("*/30 * * * * ").unwrap();
    world.write("home/offsite.env", b"export GITHUB_TOKEN=reader\n");
    let quiet = bash(&world, &world.path("home"), line, &[], &env).expect(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""), "cron mails what is printed");
    let stale = bash(&world, &world.path("home"), &line.replace("7h", "0s"), &[], &env).expect(0);
    assert_eq!(stale.stdout, "backups of my-system are not well\n");
}
