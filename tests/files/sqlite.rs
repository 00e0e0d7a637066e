//! SQLite databases that are in use come back consistent and alone.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;

use super::support::World;
use super::{fs, paths};

/// A database in WAL mode with one row.
fn database(path: &Path) -> Connection {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let db = Connection::open(path).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.execute_batch("CREATE TABLE t (n INTEGER, half INTEGER); INSERT INTO t VALUES (0, 0)").unwrap();
    db
}

/// Its number of rows, when it is sound and every transaction is whole.
fn rows(path: &Path) -> i64 {
    let db = Connection::open(path).unwrap();
    let sound: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let (rows, sum, expected): (i64, i64, i64) = db
        .query_row("SELECT count(*), sum(n), coalesce(max(n), 0) * (max(n) + 1) FROM t", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!(sum, expected, "half of a transaction is there");
    rows
}

#[test]
fn a_database_that_is_written_to_is_restored_consistent_and_alone() {
    let world = World::empty();
    world.config("[tier1.memory]\npaths = [\"sys\"]\n");
    let db = database(&world.path("sys/agent.db"));
    let done = &AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(move || {
            for n in 1.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let sql =
                    format!("BEGIN; INSERT INTO t VALUES ({n}, 1); INSERT INTO t VALUES ({n}, 2); COMMIT");
                db.execute_batch(&sql).unwrap();
            }
        });
        for _ in 0..3 {
            let ran = world.run(&["--json", "backup"]);
            if ran.code != 0 {
                done.store(true, Ordering::Relaxed);
            }
            assert_eq!(ran.expect(0).json()["skipped"], serde_json::json!([]));
        }
        done.store(true, Ordering::Relaxed);
    });
    let back = world.restore();
    assert_eq!(paths(&back), ["agent.db"]);
    assert!(rows(&back.join("agent.db")) > 1);
}

#[test]
fn rows_that_are_only_in_the_wal_come_back() {
    let world = World::empty();
    world.config("[tier1.memory]\npaths = [\"sys\"]\n");
    // The name need not be text.
    let odd = Path::new(OsStr::from_bytes(b"agent\xff.db"));
    let open: Vec<Connection> =
        [Path::new("agent.db"), odd].iter().map(|name| database(&world.path("sys").join(name))).collect();
    for db in &open {
        db.execute_batch("BEGIN; INSERT INTO t VALUES (1, 1), (1, 2); COMMIT").unwrap();
    }
    let wal = fs::metadata(world.path("sys/agent.db-wal")).unwrap().len();
    assert!(wal > 0, "the test needs rows in the -wal file");
    world.backup();
    let back = world.restore();
    assert_eq!(paths(&back).len(), 2, "{:?}", paths(&back));
    assert_eq!((rows(&back.join("agent.db")), rows(&back.join(odd))), (3, 3));
}

#[test]
fn a_database_in_a_read_only_folder_is_copied_with_its_wal() {
    let world = World::empty();
    world.config("[tier1.memory]\npaths = [\"sys\"]\n");
    {
        let db = database(&world.path("live/agent.db"));
        db.execute_batch("BEGIN; INSERT INTO t VALUES (1, 1), (1, 2); COMMIT").unwrap();
        // As a crash leaves it: database and -wal, and nobody who has it open.
        for name in ["agent.db", "agent.db-wal"] {
            fs::copy(world.path("live").join(name), world.path("sys").join(name)).unwrap();
        }
    }
    let script = "mount --bind sys sys; mount -o remount,bind,ro sys; ! touch sys/x 2>/dev/null; $offsite --json backup";
    let Some(ran) = world.with_mounts(script) else { return };
    assert_eq!(ran.expect(0).json()["state"], "complete");
    assert_eq!(paths(&world.path("sys")), ["agent.db", "agent.db-wal"]);
    let back = world.restore();
    assert_eq!(paths(&back), ["agent.db"]);
    assert_eq!(rows(&back.join("agent.db")), 3);
}

#[test]
fn a_database_at_rest_is_not_opened_and_what_only_looks_like_one_is_kept() {
    let world = World::empty();
    world.config("[tier1.memory]\npaths = [\"sys\"]\n");
    drop(database(&world.path("sys/idle.db")));
    world.write("sys/notes-wal", b"no database is called notes");
    world.write("sys/plain.db", b"not SQLite");
    world.write("sys/plain.db-wal", b"nor this");
    let before = super::tree::facts(&world.path("sys"));
    world.backup();
    super::tree::assert_same(&before, &super::tree::facts(&world.path("sys")));
    super::tree::assert_same(&before, &super::tree::facts(&world.restore()));
}
