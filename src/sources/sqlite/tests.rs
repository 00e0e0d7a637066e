use super::*;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn rows(mut copy: File) -> i64 {
    let mut out = tempfile::NamedTempFile::new().unwrap();
    std::io::Seek::rewind(&mut copy).unwrap();
    std::io::copy(&mut copy, &mut out).unwrap();
    out.flush().unwrap();
    let connection = Connection::open(out.path()).unwrap();
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    connection.query_row("SELECT count(*) FROM a", [], |r| r.get(0)).unwrap()
}

fn database(dir: &Path, mode: &str) -> (PathBuf, Connection) {
    let path = dir.join("memory.db");
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "journal_mode", mode).unwrap();
    connection.execute_batch("CREATE TABLE a(x); CREATE TABLE b(x);").unwrap();
    connection.execute("INSERT INTO a VALUES (1)", []).unwrap();
    (path, connection)
}

#[test]
fn a_database_is_known_by_its_header_and_its_companions_by_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _open) = database(dir.path(), "WAL");
    assert!(is_database(&File::open(&path).unwrap()));
    assert_eq!(owner_of(&dir.path().join("memory.db-wal")), Some(path));
    fs::write(dir.path().join("notes-wal"), "x").unwrap();
    assert_eq!(owner_of(&dir.path().join("notes-wal")), None);
}

#[test]
fn a_file_that_only_has_a_companion_s_name_is_not_one() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _open) = database(dir.path(), "WAL");
    for suffix in ["-wal", "-shm"] {
        assert_eq!(owner_of(&companion(&path, suffix)), Some(path.clone()), "{suffix}");
    }
    fs::write(companion(&path, "-journal"), "precious notes").unwrap();
    assert_eq!(owner_of(&companion(&path, "-journal")), None);
}

#[test]
fn an_open_transaction_with_its_journal_in_memory_is_never_in_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (path, connection) = database(dir.path(), "DELETE");
    connection.execute_batch("INSERT INTO a SELECT randomblob(2000) FROM (VALUES (1),(2),(3),(4))").unwrap();
    connection.execute_batch("DELETE FROM a").unwrap();
    connection.pragma_update(None, "journal_mode", "MEMORY").unwrap();
    connection.pragma_update(None, "cache_size", 1).unwrap();
    connection.execute_batch("BEGIN").unwrap();
    for _ in 0..200 {
        // More than the cache holds: it is in the file before it is committed.
        connection.execute("INSERT INTO a VALUES (randomblob(2000))", []).unwrap();
    }
    assert!(path.metadata().unwrap().len() > 100_000 && !companion(&path, "-journal").exists());
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        connection.execute_batch("ROLLBACK").unwrap();
    });
    assert_eq!(rows(copy(&path, dir.path()).unwrap()), 0);
    writer.join().unwrap();
}

#[test]
fn rows_that_are_only_in_the_wal_are_in_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (path, connection) = database(dir.path(), "WAL");
    connection.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    for i in 0..50 {
        connection.execute("INSERT INTO a VALUES (?1)", [i]).unwrap();
    }
    assert!(companion(&path, "-wal").metadata().unwrap().len() > 0);
    assert_eq!(rows(copy(&path, dir.path()).unwrap()), 51);
}

#[test]
fn copies_of_a_database_that_is_written_to_are_never_torn() {
    for mode in ["WAL", "DELETE"] {
        let dir = tempfile::tempdir().unwrap();
        let (path, mut connection) = database(dir.path(), mode);
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                connection.busy_timeout(Duration::from_secs(30)).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    // Both tables grow together: a torn copy would show it.
                    let tx = connection.transaction().unwrap();
                    tx.execute("INSERT INTO a VALUES (randomblob(900))", []).unwrap();
                    tx.execute("INSERT INTO b VALUES (randomblob(900))", []).unwrap();
                    tx.commit().unwrap();
                }
            })
        };
        for _ in 0..5 {
            let mut copied = copy(&path, dir.path()).unwrap();
            let out = dir.path().join("out.db");
            std::io::Seek::rewind(&mut copied).unwrap();
            std::io::copy(&mut copied, &mut File::create(&out).unwrap()).unwrap();
            let check = Connection::open(&out).unwrap();
            let difference: i64 = check
                .query_row("SELECT (SELECT count(*) FROM a) - (SELECT count(*) FROM b)", [], |r| r.get(0))
                .unwrap();
            assert_eq!(difference, 1, "{mode}");
            drop(check);
            fs::remove_file(&out).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    }
}

#[test]
fn a_hot_journal_is_rolled_back_in_the_copy_and_left_alone_in_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let (path, connection) = database(dir.path(), "DELETE");
    // A crash in the middle of a transaction: copy the files while it is open.
    connection.pragma_update(None, "cache_size", 1).unwrap();
    connection.execute_batch("BEGIN").unwrap();
    for _ in 0..200 {
        connection.execute("INSERT INTO a VALUES (randomblob(2000))", []).unwrap();
    }
    let crashed = dir.path().join("crashed.db");
    fs::copy(&path, &crashed).unwrap();
    fs::copy(companion(&path, "-journal"), companion(&crashed, "-journal")).unwrap();
    connection.execute_batch("ROLLBACK").unwrap();
    let before = fs::read(&crashed).unwrap();
    assert_eq!(rows(copy(&crashed, dir.path()).unwrap()), 1);
    assert!(fs::read(&crashed).unwrap() == before);
}

#[test]
fn nothing_with_a_name_is_left_in_scratch() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let (path, _open) = database(dir.path(), "WAL");
    drop(copy(&path, scratch.path()).unwrap());
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn a_file_that_only_looks_like_a_database_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.db");
    fs::write(&path, [MAGIC.as_slice(), &[0xff; 5000]].concat()).unwrap();
    fs::write(companion(&path, "-wal"), "x").unwrap();
    assert!(copy(&path, dir.path()).is_err());
}
