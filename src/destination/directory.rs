//! A directory as a destination: a NAS, a USB disk, a synchronised folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{CWD, FlockOperation, RenameFlags};
use walkdir::WalkDir;

use super::{Chunks, Condition, Object, Source};
use crate::error::{Error, Result};

/// Objects are written here first. A leading dot keeps it out of every listing.
const INCOMING: &str = ".incoming";

/// How much is read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// A directory that holds objects as files of the same names.
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Names the directory; it need not exist before the first `put_new`.
    pub fn open(root: PathBuf) -> Result<Self> {
        if !root.is_absolute() {
            return Err(Error::usage(format!("`file://{}` is not an absolute path", root.display()))
                .hint("write three slashes: file:///mnt/backup"));
        }
        Ok(Self { root })
    }

    /// Whether there is nothing at its path yet.
    pub fn is_absent(&self) -> bool {
        !self.root.exists()
    }

    pub(super) fn address(&self) -> String {
        format!("file://{}", self.root.display())
    }

    /// Copies into `.incoming`, syncs, then gives it its name in one step that
    /// fails when the name is taken, and syncs the folder.
    pub(super) fn put_new(&self, name: &str, source: &Source<'_>) -> Result<()> {
        let target = self.root.join(name);
        let folder = target.parent().unwrap_or(&self.root).to_owned();
        fs::create_dir_all(&folder).map_err(|e| self.cannot("create", &folder, e))?;
        let incoming = self.root.join(INCOMING);
        fs::create_dir_all(&incoming).map_err(|e| self.cannot("create", &incoming, e))?;
        sweep(&incoming);
        let mut written = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .tempfile_in(&incoming)
            .map_err(|e| self.cannot("write into", &incoming, e))?;
        // Held while we write: whoever finds the file unlocked may sweep it away.
        rustix::fs::flock(written.as_file(), FlockOperation::LockExclusive)
            .map_err(|e| self.cannot("lock", written.path(), e.into()))?;
        let mut from = source.file;
        from.seek(SeekFrom::Start(source.offset))
            .map_err(|e| Error::from_io("cannot read the sealed object", e))?;
        let copied = io::copy(&mut from.take(source.len), written.as_file_mut())
            .map_err(|e| self.cannot("write", &target, e))?;
        if copied != source.len {
            return Err(Error::failed("the sealed object was cut short while it was copied"));
        }
        written.as_file().sync_all().map_err(|e| self.cannot("sync", &target, e))?;
        match give_name(written.path(), &target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                same_bytes(written.path(), &target)?
            }
            Err(error) => return Err(self.cannot("store", &target, error)),
        }
        for made in folder.ancestors().take_while(|a| a.starts_with(&self.root)) {
            File::open(made).and_then(|f| f.sync_all()).map_err(|e| self.cannot("sync", made, e))?;
        }
        Ok(())
    }

    pub(super) async fn get(&self, name: &str, chunks: &Chunks) -> Result<()> {
        let path = self.root.join(name);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(missing(name, &self.address())),
            Err(e) => return Err(self.cannot("open", &path, e)),
        };
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let n = file.read(&mut chunk).map_err(|e| self.cannot("read", &path, e))?;
            chunk.truncate(n);
            if n == 0 || chunks.send(Ok(Bytes::from(chunk))).await.is_err() {
                return Ok(());
            }
        }
    }

    pub(super) fn list(&self) -> Result<Vec<Object>> {
        self.must_exist()?;
        let mut objects = Vec::new();
        let walk = WalkDir::new(&self.root).min_depth(1).into_iter();
        for entry in walk.filter_entry(|e| !e.file_name().to_string_lossy().starts_with('.')) {
            let entry = entry.map_err(|e| {
                let path = e.path().unwrap_or(&self.root).to_owned();
                self.cannot("list", &path, e.into())
            })?;
            if !entry.file_type().is_file() {
                continue;
            }
            let Some(name) = entry.path().strip_prefix(&self.root).ok().and_then(Path::to_str) else {
                continue;
            };
            let size_bytes = entry.metadata().map_err(|e| self.cannot("list", entry.path(), e.into()))?.len();
            objects.push(Object { name: name.to_owned(), size_bytes });
        }
        Ok(objects)
    }

    pub(super) fn delete(&self, name: &str) -> Result<()> {
        let path = self.root.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.cannot("delete", &path, e)),
            _ => Ok(()),
        }
    }

    pub(super) fn inspect(&self) -> Result<Condition> {
        // It may be made by the first backup: then its parent has to take it.
        let existing = self.root.ancestors().find(|a| a.exists()).unwrap_or(Path::new("/"));
        if !existing.is_dir() {
            return Err(Error::failed(format!("{} is not a directory", existing.display())));
        }
        rustix::fs::access(existing, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .map_err(|e| self.cannot("write into", existing, e.into()))?;
        let mut condition = Condition::default();
        condition.facts.push(format!("{} is writable", existing.display()));
        if existing != self.root {
            condition
                .warnings
                .push(format!("{} does not exist yet; the first backup makes it", self.root.display()));
        }
        condition
            .warnings
            .push("a directory on this machine burns down with it; mount one from elsewhere".to_owned());
        Ok(condition)
    }

    fn must_exist(&self) -> Result<()> {
        match fs::metadata(&self.root) {
            Ok(meta) if meta.is_dir() => Ok(()),
            Ok(_) => Err(Error::failed(format!("{} is not a directory", self.root.display()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(Error::failed(format!("there is no directory {}", self.root.display()))
                    .hint("is the disk mounted? `offsite init` or the first backup makes a new one"))
            }
            Err(e) => Err(self.cannot("open", &self.root, e)),
        }
    }

    fn cannot(&self, verb: &str, path: &Path, error: io::Error) -> Error {
        let hint = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "the destination is full: make room and run again"
            }
            io::ErrorKind::ReadOnlyFilesystem => "the destination is mounted read-only",
            io::ErrorKind::PermissionDenied => "look at who owns the destination, and as whom this runs",
            _ => "look at the destination's disk or mount",
        };
        Error::io(verb, path, error).hint(hint)
    }
}

/// Names a finished file without ever replacing one. Not every file system has
/// hard links (exFAT), and not every one has the exclusive rename (NFS).
fn give_name(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
        Err(_) => Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?),
    }
}

/// The name is taken: fine when by the same bytes, an error otherwise.
fn same_bytes(ours: &Path, theirs: &Path) -> Result<()> {
    let digest = |path: &Path| -> Result<[u8; 32]> {
        use sha2::{Digest, Sha256};
        let mut hasher = Sha256::new();
        let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        io::copy(&mut file, &mut hasher).map_err(|e| Error::io("read", path, e))?;
        Ok(hasher.finalize().into())
    };
    if digest(ours)? == digest(theirs)? {
        return Ok(());
    }
    Err(Error::failed(format!(
        "{} exists already with other contents; it is never overwritten",
        theirs.display()
    )))
}

pub(super) fn missing(name: &str, address: &str) -> Error {
    Error::failed(format!("there is no object {name} at {address}"))
        .hint("`offsite list` shows what is there")
}

/// Removes what killed runs left behind: files that nobody holds a lock on.
fn sweep(incoming: &Path) {
    let Ok(entries) = fs::read_dir(incoming) else { return };
    for entry in entries.flatten() {
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(no_follow).open(entry.path());
        let stale =
            file.is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
        if stale {
            // Another sweeper may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
}
