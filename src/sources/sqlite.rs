//! SQLite databases: a copy that is consistent while the database is written to.
//!
//! A plain copy of a live database can be torn. SQLite's own backup API reads a
//! consistent state, in WAL mode too (<https://www.sqlite.org/backup.html>).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::file;
use crate::error::{Error, Result};

/// The first bytes of every SQLite 3 database
/// (<https://www.sqlite.org/fileformat.html>, section 1.3).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The files beside a database that belong to it.
pub const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// How long a locked database is waited for.
const BUSY_MAX: Duration = Duration::from_secs(30);

/// How often a plain copy is tried until nothing changed meanwhile.
const COPIES: u32 = 4;

/// Whether the file begins as an SQLite database does.
pub fn is_database(file: &File) -> bool {
    use std::os::unix::fs::FileExt;
    let mut head = [0; 16];
    file.read_exact_at(&mut head, 0).is_ok() && &head == MAGIC
}

/// The database that `path` is a companion file of, if it is one and the
/// database is there. A file that only has such a name is not one.
pub fn owner_of(path: &Path) -> Option<PathBuf> {
    let bytes = path.as_os_str().as_bytes();
    let (database, suffix) =
        COMPANIONS.iter().find_map(|suffix| Some((bytes.strip_suffix(suffix.as_bytes())?, *suffix)))?;
    let database = PathBuf::from(OsStr::from_bytes(database));
    let is_companion = file::open(path).is_ok_and(|f| begins_as_companion(&f, suffix));
    (is_companion && file::open(&database).is_ok_and(|f| is_database(&f))).then_some(database)
}

/// Whether a file begins as SQLite begins such a companion; one that is empty, or
/// whose header has been zeroed, is one that is not in use
/// (<https://www.sqlite.org/fileformat.html>, sections 3 and 4, and
/// <https://www.sqlite.org/walformat.html>, section 2.1).
fn begins_as_companion(file: &File, suffix: &str) -> bool {
    use std::os::unix::fs::FileExt;
    let mut head = [0; 8];
    match file.read_at(&mut head, 0) {
        Ok(0) => return true,
        Ok(8) => {}
        _ => return false,
    }
    let known = match suffix {
        "-journal" => head == [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7],
        "-wal" => head.starts_with(&[0x37, 0x7f, 0x06, 0x82]) || head.starts_with(&[0x37, 0x7f, 0x06, 0x83]),
        _ => head.starts_with(&3_007_000_u32.to_ne_bytes()),
    };
    known || head == [0; 8]
}

/// A consistent copy of the database at `path`, in a nameless file in
/// `scratch`. The error says why there is none.
pub fn copy(path: &Path, scratch: &Path) -> Result<File> {
    // A database in WAL mode without a -wal file has no connection. Opening it
    // would make one, and with it files in a folder that is not ours. (In other
    // modes the journal may be in memory: only SQLite's lock tells.)
    let idle = is_in_wal_mode(path) && !companion(path, "-wal").exists();
    if idle && let Ok(copy) = copy_unchanged(path, scratch) {
        return Ok(copy);
    }
    match copy_through_sqlite(path, scratch) {
        Ok(copy) => Ok(copy),
        // Somebody is in the middle of a transaction: no copy would be whole.
        Err(Failure::Locked) => Err(Error::failed(format!("SQLite: locked for {} s", BUSY_MAX.as_secs()))
            .hint("back up while no transaction is open for that long")),
        // A read-only mount, or a journal that only a writer may roll back.
        Err(Failure::Other(first)) => copy_and_recover(path, scratch).map_err(|second| {
            Error::failed(format!("SQLite: {first}; and a copy of its files: {second}"))
                .hint("mount the folder writable, or back up while nothing writes to it")
        }),
    }
}

/// Why SQLite gave no copy.
enum Failure {
    Locked,
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Other(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
        match error.sqlite_error_code() {
            Some(DatabaseBusy | DatabaseLocked) => Failure::Locked,
            _ => Failure::Other(Error::failed(error.to_string())),
        }
    }
}

/// The header's file format versions are both 2 in WAL mode
/// (<https://www.sqlite.org/fileformat.html>, section 1.3.3).
fn is_in_wal_mode(path: &Path) -> bool {
    use std::os::unix::fs::FileExt;
    let mut versions = [0; 2];
    file::open(path).is_ok_and(|f| f.read_exact_at(&mut versions, 18).is_ok()) && versions == [2, 2]
}

fn companion(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The backup API, all pages in one step: a reader's lock for as long as that
/// takes, and in WAL mode no lock that a writer would notice.
fn copy_through_sqlite(path: &Path, scratch: &Path) -> std::result::Result<File, Failure> {
    let source = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let (copy, mut target) = nameless_database(scratch)?;
    {
        let backup = Backup::new(&source, &mut target)?;
        let deadline = Instant::now() + BUSY_MAX;
        loop {
            match backup.step(-1)? {
                StepResult::Done => break,
                _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                _ => return Err(Failure::Locked),
            }
        }
    }
    target.close().map_err(|(_, e)| e)?;
    Ok(copy)
}

/// A database whose file has no name any more once it is open, so that nothing
/// is left of it after a kill. It keeps its journal in memory for the same reason.
fn nameless_database(scratch: &Path) -> Result<(File, Connection)> {
    let failed = |e: rusqlite::Error| Error::failed(e.to_string());
    let named = tempfile::NamedTempFile::new_in(scratch).map_err(|e| Error::io("write into", scratch, e))?;
    let target = Connection::open(named.path()).map_err(failed)?;
    target.pragma_update(None, "journal_mode", "MEMORY").map_err(failed)?;
    // `into_file` removes the name and keeps the file.
    Ok((named.into_file(), target))
}

/// A plain copy of a database that nobody has open: nothing about it changed
/// while it was copied, and no journal appeared.
fn copy_unchanged(path: &Path, scratch: &Path) -> Result<File> {
    let source = file::open(path).map_err(|e| Error::io("open", path, e))?;
    for _ in 0..COPIES {
        let before = stamp(path)?;
        let mut copy = tempfile::tempfile_in(scratch).map_err(|e| Error::io("write into", scratch, e))?;
        std::io::copy(&mut &source, &mut copy).map_err(|e| Error::io("copy", path, e))?;
        if stamp(path)? == before
            && !companion(path, "-wal").exists()
            && !companion(path, "-journal").exists()
        {
            return Ok(copy);
        }
        std::io::Seek::rewind(&mut &source).map_err(|e| Error::io("copy", path, e))?;
    }
    Err(Error::failed("it changes while it is copied"))
}

/// Copies database and journals together while none of them changes, lets
/// SQLite recover the copy, and checks it.
fn copy_and_recover(path: &Path, scratch: &Path) -> Result<File> {
    // The copy needs a name, in a folder that only we can enter and that goes away.
    let folder = crate::scratch::Scratch::new(scratch)?;
    let copied = folder.path().join("db");
    for _ in 0..COPIES {
        let before = stamps(path)?;
        for suffix in ["", "-wal", "-journal"] {
            let (from, to) = (companion(path, suffix), companion(&copied, suffix));
            match fs::copy(&from, &to) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && !suffix.is_empty() => {
                    let _ = fs::remove_file(&to);
                }
                other => {
                    other.map_err(|e| Error::io("copy", &from, e))?;
                }
            }
        }
        if stamps(path)? == before {
            return recover(&copied, scratch);
        }
    }
    Err(Error::failed("it changes while it is copied"))
}

fn recover(copied: &Path, scratch: &Path) -> Result<File> {
    let failed = |e: rusqlite::Error| Error::failed(e.to_string());
    {
        let connection = Connection::open(copied).map_err(failed)?;
        let verdict: String =
            connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
        if verdict != "ok" {
            return Err(Error::failed(format!("its copy is not sound: {verdict}")));
        }
    }
    // Now free of journals: take it out through the API, as any other.
    copy_through_sqlite(copied, scratch).map_err(|failure| match failure {
        Failure::Locked => Error::failed("its copy is locked"),
        Failure::Other(error) => error,
    })
}

type FileStamp = Option<(u64, i64, i64, i64, i64)>;

fn stamp(path: &Path) -> Result<FileStamp> {
    match fs::symlink_metadata(path) {
        Ok(m) => Ok(Some((m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("look at", path, e)),
    }
}

fn stamps(path: &Path) -> Result<[FileStamp; 3]> {
    Ok([stamp(path)?, stamp(&companion(path, "-wal"))?, stamp(&companion(path, "-journal"))?])
}

#[cfg(test)]
mod tests;
