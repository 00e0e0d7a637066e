//! Clusters, from a backup of one that runs to a restore into one that is empty.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

mod support;
#[path = "postgres/wheel.rs"]
mod wheel;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use offsite::sources::postgres::{Client, Cluster, Connection, for_server, installed};
use offsite::stop::Stop;
use serde_json::Value;
use support::{Ran, World, filled_cluster, ran, wait_until};
use wheel::WheelServer;

const PASSWORD: &str = "db-s3cret-pw";

const CONFIG: &str = "[tier1.secrets]\npaths = [\"sys\"]\n[postgres.main]\nurl = [\"env:DATABASE_URL\"]\n";

fn world() -> World {
    let world = World::new();
    world.config(CONFIG);
    world
}

fn empty_cluster(world: &World) -> Cluster {
    Cluster::start(&world.path("tmp"), "postgres", &Stop::default()).unwrap()
}

/// The cluster's URL with a password in it, which `trust` does not look at.
fn with_password(cluster: &Cluster) -> String {
    cluster.url().replace("postgres@", &format!("postgres:{PASSWORD}@"))
}

/// Runs the program with a database URL or two in its environment.
fn run(world: &World, args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut command = world.command(args);
    command.envs(env.iter().copied());
    ran(command)
}

/// What the server's own client says the cluster holds, without the keys that
/// are random in each dump.
fn dump(cluster: &Cluster) -> String {
    let clients = installed();
    let Client { bin, .. } = for_server(&clients, cluster.server_major()).unwrap();
    let mut command = Command::new(bin.join("pg_dumpall"));
    command.args(["-d", &cluster.url()]);
    let dump = ran(command).expect(0).stdout;
    dump.lines()
        .filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict"))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Looks through every command line of this machine while `work` runs; returns
/// the programs that it saw, and fails when one has `secret`.
fn watching_command_lines<T>(secret: &str, work: impl FnOnce() -> T) -> (T, Vec<String>) {
    let done = Arc::new(AtomicBool::new(false));
    let (until, secret) = (done.clone(), secret.as_bytes().to_owned());
    let watch = thread::spawn(move || {
        let mut seen = Vec::new();
        while !until.load(Ordering::Relaxed) {
            for process in fs::read_dir("/proc").unwrap().flatten() {
                let Ok(line) = fs::read(process.path().join("cmdline")) else { continue };
                let found = line.windows(secret.len()).any(|window| window == secret);
                assert!(!found, "in a command line: {}", String::from_utf8_lossy(&line));
                let program = line.split(|b| *b == 0).next().unwrap_or_default();
                let program = String::from_utf8_lossy(program).rsplit('/').next().unwrap().to_owned();
                if !seen.contains(&program) {
                    seen.push(program);
                }
            }
        }
        seen
    });
    let result = work();
    done.store(true, Ordering::Relaxed);
    (result, watch.join().unwrap())
}

/// The only snapshot as `list` has it.
fn listed(world: &World) -> Value {
    let list = world.run(&["--json", "list"]).expect(0).json();
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 1);
    list["snapshots"][0].clone()
}

/// Backs up, and sees that the snapshot is degraded for `reason`: in the exit
/// code, on stderr, in the report, in its name and in the list.
#[track_caller]
fn assert_degraded(world: &World, env: &[(&str, &str)], reason: &str) -> String {
    let _ = fs::remove_dir_all(world.path("dest/test"));
    let people = run(world, &["backup"], env).expect(3);
    let line = people.stderr.lines().find(|l| l.starts_with("degraded: the dump of [postgres.main]: "));
    let line = line.unwrap_or_else(|| panic!("{}", people.stderr)).to_owned();
    assert!(line.contains(reason), "`{reason}` is not in `{line}`");
    assert!(people.stderr.contains("DEGRADED snapshot"), "{}", people.stderr);
    let snapshot = listed(world);
    assert_eq!(snapshot["state"], "degraded");
    assert!(snapshot["name"].as_str().unwrap().ends_with(".degraded.tar.gz.fernet"));
    fs::remove_dir_all(world.path("dest/test")).unwrap();

    let report = run(world, &["--json", "backup"], env).expect(3).json();
    assert_eq!(report["state"], "degraded");
    assert!(report["problems"][0].as_str().unwrap().contains(reason), "{report:#}");
    assert!(report["postgres"].as_array().unwrap().is_empty(), "{report:#}");
    let text = format!("{report}{}", people.stderr);
    assert!(!text.contains(PASSWORD), "{text}");
    world.assert_no_leftovers_but_clusters();
    line
}

trait Leftovers {
    fn assert_no_leftovers_but_clusters(&self);
}

impl Leftovers for World {
    #[track_caller]
    fn assert_no_leftovers_but_clusters(&self) {
        for entry in fs::read_dir(self.path("tmp")).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let known = name.ends_with(".started") || name.starts_with("cluster-");
            assert!(known, "left behind: {name}");
        }
    }
}

#[test]
fn a_cluster_comes_back_with_its_databases_roles_and_rows() {
    let world = world();
    let (source, target) = thread::scope(|threads| {
        let target = threads.spawn(|| empty_cluster(&world));
        (filled_cluster(&world.path("tmp")), target.join().unwrap())
    });
    let before = dump(&source);
    assert!(before.contains("CREATE DATABASE tenants") && before.contains("ROLE tenant_owner"));
    assert_ne!(before, dump(&target));

    let plan = run(&world, &["backup", "--dry-run"], &[("DATABASE_URL", &with_password(&source))]).expect(0);
    assert!(plan.stderr.contains("postgres.main: 4 databases, 3 roles"), "{}", plan.stderr);
    let json = ["--json", "backup", "--dry-run"];
    let json = run(&world, &json, &[("DATABASE_URL", &with_password(&source))]).expect(0).json();
    let databases = json["postgres"][0]["inventory"]["databases"].as_array().unwrap();
    assert!(databases.iter().any(|d| d["name"] == "odd 'name"), "{json:#}");
    assert!(world.objects().is_empty(), "a dry run stores nothing");

    let (ran, seen) = watching_command_lines(PASSWORD, || {
        let backup = run(&world, &["-v", "backup"], &[("DATABASE_URL", &with_password(&source))]).expect(0);
        let env = [("TARGET", &*with_password(&target))];
        let args = ["-v", "restore", "--target", "back", "--postgres", "env:TARGET"];
        [backup, run(&world, &args, &env).expect(0)]
    });
    for program in ["pg_dumpall", "psql"] {
        assert!(seen.iter().any(|s| s == program), "the watch saw no {program}: {seen:?}");
    }
    for text in ran.iter().flat_map(|ran| [&ran.stdout, &ran.stderr]) {
        assert!(!text.contains(PASSWORD) && !text.contains("postgresql://"), "{text}");
    }
    assert!(ran[1].stderr.contains("loaded postgres.main into server"), "{}", ran[1].stderr);
    assert!(!ran[1].stderr.contains("not loaded"), "{}", ran[1].stderr);
    assert_eq!(dump(&target), before);

    // Now that it is full, it is refused before anything is written.
    let args = ["restore", "--target", "again", "--postgres", "env:TARGET"];
    let refused = run(&world, &args, &[("TARGET", &with_password(&target))]).expect(1);
    assert!(
        refused.stderr.contains("already has databases that the dump would make: "),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("\"tenants\"") && refused.stderr.contains("use an empty cluster"));
    assert!(!refused.stderr.contains(PASSWORD));
    assert!(!world.path("again").exists());
    assert_eq!(dump(&target), before);
    world.assert_no_leftovers_but_clusters();
}

#[test]
fn a_stopped_server_makes_the_snapshot_degraded_and_says_so_everywhere() {
    let world = world();
    let gone = world.path("gone");
    fs::create_dir(&gone).unwrap();
    let url = format!("postgres://postgres:{PASSWORD}@/postgres?host={}", gone.display());
    let line = assert_degraded(&world, &[("DATABASE_URL", &url)], "cannot connect to PostgreSQL at");
    assert!(line.contains("check that the server runs"), "{line}");
    let plan = run(&world, &["backup", "--dry-run"], &[("DATABASE_URL", &url)]).expect(3);
    assert!(plan.stderr.contains("would be degraded: [postgres.main]: cannot connect"), "{}", plan.stderr);
    let line = assert_degraded(&world, &[], "database URL");
    assert!(line.contains("DATABASE_URL"), "{line}");
    // The files came through nevertheless.
    let id = listed(&world)["id"].as_str().unwrap().to_owned();
    let restored = run(&world, &["restore", "--target", "back", &id], &[]).expect(3);
    assert!(restored.stderr.contains("degraded: the dump of [postgres.main]"), "{}", restored.stderr);
    assert_eq!(fs::read(world.restored("back", "sys/.env")).unwrap(), b"A=1\n");
    let load = ["restore", "--target", "other", &id, "--postgres", &url];
    let refused = run(&world, &load, &[]).expect(1);
    assert!(refused.stderr.contains("the snapshot holds no dump to load"), "{}", refused.stderr);
    assert!(!world.path("other").exists());
}

#[test]
fn a_wrong_password_makes_the_snapshot_degraded_and_is_not_quoted() {
    let world = world();
    let cluster = empty_cluster(&world);
    let stop = Stop::default();
    let sql = |sql: &str| cluster.sql("postgres", sql, &stop).unwrap().trim().to_owned();
    sql("CREATE ROLE backup SUPERUSER LOGIN PASSWORD 'the right one';");
    let rules = sql("SHOW hba_file;");
    fs::write(rules, "local all postgres trust\nlocal all all scram-sha-256\n").unwrap();
    sql("SELECT pg_reload_conf();");
    let login = |password: &str| cluster.url().replace("postgres@", &format!("backup:{password}@"));
    let refused = Connection::from_url(&login(PASSWORD)).unwrap();
    wait_until("the server wants passwords", || offsite::sources::postgres::read(&refused, &stop).is_err());

    let env = [("DATABASE_URL", &*login(PASSWORD))];
    let line = assert_degraded(&world, &env, "the server refused the password");
    assert!(line.contains("check the user and the password"), "{line}");
    run(&world, &["backup"], &[("DATABASE_URL", &login("the%20right%20one"))]).expect(0);
}

#[test]
fn two_clusters_have_their_labels() {
    let world = World::new();
    world.config(
        "[tier1.secrets]\npaths = [\"sys\"]\n[postgres.accounts]\nurl = [\"env:ACCOUNTS\"]\n\
         [postgres.billing]\nurl = [\"env:BILLING\"]\n",
    );
    let stop = Stop::default();
    let start = |sql: &str| {
        let cluster = empty_cluster(&world);
        cluster.sql("postgres", sql, &stop).unwrap();
        cluster
    };
    let (accounts, billing, target) = thread::scope(|threads| {
        let accounts = threads.spawn(|| start("CREATE DATABASE people;"));
        let billing = threads.spawn(|| start("CREATE DATABASE invoices;"));
        (accounts.join().unwrap(), billing.join().unwrap(), empty_cluster(&world))
    });
    let (accounts, billing, target) = (accounts.url(), billing.url(), (target.url(), target));
    let env = [("ACCOUNTS", &*accounts), ("BILLING", &*billing), ("TARGET", &*target.0)];
    run(&world, &["backup"], &env).expect(0);
    let restore = |url: &str| run(&world, &["restore", "--target", "back", "--postgres", url], &env);
    for (url, expected) in [
        ("env:TARGET", "the snapshot holds several dumps: accounts, billing"),
        ("sales=env:TARGET", "the snapshot holds no dump `sales`, only accounts, billing"),
    ] {
        let ran = restore(url).expect(2);
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
        assert!(!world.path("back").exists());
    }
    let ran = restore("billing=env:TARGET").expect(0);
    assert!(ran.stderr.contains("loaded postgres.billing"), "{}", ran.stderr);
    assert!(ran.stderr.contains("postgres/accounts.sql; load it into an empty cluster"), "{}", ran.stderr);
    let databases = target.1.sql("postgres", "SELECT datname FROM pg_database;", &stop).unwrap();
    assert!(databases.contains("invoices") && !databases.contains("people"), "{databases}");
}

#[test]
fn a_killed_run_leaves_no_dump_that_has_a_name() {
    let world = world();
    let cluster = empty_cluster(&world);
    let clients = installed();
    let real = for_server(&clients, cluster.server_major()).unwrap();
    let bin = world.path("bin");
    fs::create_dir(&bin).unwrap();
    symlink(real.bin.join("psql"), bin.join("psql")).unwrap();
    let began = world.path("began");
    // Writes until nobody reads any more.
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in --version) exec '{}/pg_dumpall' --version;; esac\n\
         while echo 'INSERT INTO t VALUES (plaintext-row);'; do n=$((n + 1)); [ $n = 9000 ] && : > '{}'; \
         [ $n -gt 9000 ] && sleep 0.02; done\n",
        real.bin.display(),
        began.display()
    );
    fs::write(bin.join("pg_dumpall"), script).unwrap();
    fs::set_permissions(bin.join("pg_dumpall"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());

    let mut command = world.command(&["backup"]);
    command.env("PATH", path).env("DATABASE_URL", cluster.url());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    wait_until("the dump has begun", || began.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let named = |place: &Path| -> Vec<PathBuf> {
        let files = walkdir::WalkDir::new(place)
            .into_iter()
            .filter_entry(|e| !e.file_name().to_string_lossy().starts_with("cluster-"));
        let files = files.flatten().filter(|e| e.file_type().is_file()).map(walkdir::DirEntry::into_path);
        files.filter(|f| f.extension().is_none_or(|e| e != "started")).collect()
    };
    assert_eq!(named(&world.path("tmp")), Vec::<PathBuf>::new());
    assert!(world.objects().is_empty());
    // And the next run sweeps what is left of the scratch folder.
    run(&world, &["backup"], &[("DATABASE_URL", &cluster.url())]).expect(0);
    world.assert_no_leftovers_but_clusters();
}

#[test]
fn a_client_that_is_older_than_the_server_makes_the_snapshot_degraded_and_names_the_package() {
    let world = world();
    let server = WheelServer::start(&world, "pginstall18");
    if for_server(&installed(), 18).is_ok() {
        // This machine's own clients would do; nothing can hide /usr/lib/postgresql.
        eprintln!(
            "not tested: a client that is older than the server, because one of 18 or newer is installed"
        );
        return;
    }
    let line = assert_degraded(&world, &[("DATABASE_URL", &server.url)], "the server is PostgreSQL 18");
    assert!(line.contains("no pg_dumpall of 18 or newer is installed"), "{line}");
    assert!(line.contains("apt-get install postgresql-client-18"), "{line}");
}

#[test]
fn a_dump_of_a_newer_client_is_not_loaded_into_an_older_server() {
    let world = world();
    let older = empty_cluster(&world);
    let before = dump(&older);
    if older.server_major() >= 18 {
        eprintln!("not tested: a dump of a newer client, because the newest server is 18 or newer");
        return;
    }
    let server = WheelServer::start(&world, "pginstall18");
    let path = format!("{}:{}", server.bin.display(), std::env::var("PATH").unwrap());
    run(&world, &["backup"], &[("PATH", &path), ("DATABASE_URL", &server.url)]).expect(0);
    let args = ["restore", "--target", "back", "--postgres", "env:TARGET"];
    let refused = run(&world, &args, &[("PATH", &path), ("TARGET", &older.url())]).expect(1);
    let expected = "the dump needs a server of PostgreSQL 18 or newer, and ";
    assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    assert!(refused.stderr.contains("apt-get install postgresql-18"), "{}", refused.stderr);
    assert!(!world.path("back").exists());
    assert_eq!(dump(&older), before);
    // A psql that is too old is found out before it meets the dump.
    let refused = run(&world, &args, &[("TARGET", &server.url)]).expect(1);
    assert!(refused.stderr.contains("needs psql 18"), "{}", refused.stderr);
    assert!(!world.path("back").exists());
}
