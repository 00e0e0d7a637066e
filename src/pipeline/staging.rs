//! Staging: a restore's files in a folder of their own, until all is checked.
//!
//! Nothing of a snapshot touches the target before every byte of it has been
//! authenticated. Paths are never trusted: each component is opened by itself,
//! without following symlinks, from the staging folder down.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::scratch::Scratch;
use crate::sources::metadata::FileMetadata;
use crate::workers::Workers;
use small::{SMALL_BYTES, SmallFile, SmallFiles};

mod small;

/// Zeros in a sparse file's contents are written as holes in units of this.
const HOLE_BYTES: usize = 4096;

static ZEROS: [u8; HOLE_BYTES] = [0; HOLE_BYTES];

/// A folder that is filled with a snapshot's files.
pub struct Staging {
    scratch: Scratch,
    root: OwnedFd,
    /// The folder of the last file, kept open: neighbours come one after another.
    last: Option<(Vec<u8>, Arc<OwnedFd>)>,
    /// Metadata of folders, which is set when they are filled.
    folders: BTreeMap<Vec<u8>, FileMetadata>,
    made: HashSet<Vec<u8>>,
    refused: Vec<String>,
    small: SmallFiles,
    /// What is copied passes through here.
    chunk: Vec<u8>,
}

impl Staging {
    /// Makes a staging folder beside `target`, where its files can be moved from
    /// without being copied; inside it when it is a mount point or the folder
    /// around it may not be written to. A target whose parents are missing is
    /// staged beside the first of them.
    pub fn beside(target: &Path, workers: &Workers) -> Result<Self> {
        let around = target.ancestors().skip(1).find(|folder| folder.exists());
        let beside = around.filter(|parent| {
            let device = |p: &Path| fs::metadata(p).map(|m| m.dev()).ok();
            let same = !target.exists() || device(parent) == device(target);
            same && rustix::fs::access(*parent, rustix::fs::Access::WRITE_OK).is_ok()
        });
        let place = if target.exists() { beside } else { around };
        let scratch = Scratch::new(place.unwrap_or(target))?;
        let path = scratch.path().join("root");
        fs::create_dir(&path).map_err(|e| Error::io("create", &path, e))?;
        let root = rustix::fs::open(&path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| Error::io("open", &path, e.into()))?;
        Ok(Self {
            scratch,
            root,
            last: None,
            folders: BTreeMap::new(),
            made: HashSet::new(),
            refused: Vec::new(),
            small: SmallFiles::new(workers),
            chunk: vec![0; 128 * 1024],
        })
    }

    /// The folder that stands for the target.
    pub fn root(&self) -> PathBuf {
        self.scratch.path().join("root")
    }

    /// Notes a folder's metadata, and makes it when `make` says so; else it is
    /// made when something in it is.
    pub fn folder(&mut self, path: &[u8], metadata: &FileMetadata, make: bool) -> Result<()> {
        check_path(path)?;
        if self.folders.insert(path.to_vec(), metadata.clone()).is_some() {
            return Err(twice(path));
        }
        if make && !path.is_empty() {
            let (parent, name) = self.parent(path)?;
            make_folder(&parent, name, path)?;
            // Its metadata is set by path in the end, which would follow a symlink.
            if !is_of_type(&parent, name, FileType::Directory) {
                return Err(twice(path));
            }
            self.made.insert(path.to_vec());
        }
        Ok(())
    }

    /// Writes a file of `size` bytes. A small one is written some time before
    /// [`Staging::finish`] returns.
    pub fn file(
        &mut self,
        path: &[u8],
        metadata: &FileMetadata,
        contents: &mut dyn Read,
        size: u64,
        sparse: bool,
    ) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600));
        let file = match create() {
            // Too many are open: small ones that are waiting to be written.
            Err(Errno::MFILE | Errno::NFILE) => {
                let refused = self.small.finish()?;
                self.refused.extend(refused);
                create()
            }
            made => made,
        };
        let file = file.map_err(|e| cannot_make(path, e))?;
        let mut file = File::from(file);
        if size <= SMALL_BYTES && !sparse {
            let mut bytes = Vec::with_capacity(size as usize);
            contents.read_to_end(&mut bytes).map_err(|e| Error::io("write", &self.shown(path), e))?;
            let (path, metadata) = (path.to_vec(), metadata.clone());
            return self.small.add(SmallFile { file, path, metadata, contents: bytes });
        }
        let written = match sparse {
            true => write_sparse(&mut file, contents),
            false => copy(contents, &mut file, &mut self.chunk),
        };
        written.map_err(|e| Error::io("write", &self.shown(path), e).hint("is the disk full?"))?;
        for reason in metadata.apply_to_file(&file, Path::new(OsStr::from_bytes(path)))? {
            self.refused.push(format!("{}: {reason}", String::from_utf8_lossy(path)));
        }
        Ok(())
    }

    /// Makes a symbolic link. Where it points is not looked at: it is data, and
    /// nothing is ever written through it.
    pub fn symlink(&mut self, path: &[u8], metadata: &FileMetadata, target: &[u8]) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::symlinkat(OsStr::from_bytes(target), &parent, name).map_err(|e| cannot_make(path, e))?;
        self.apply(path, metadata, true)
    }

    /// Makes another name for the file at `first`, which must be in here.
    pub fn hard_link(&mut self, path: &[u8], first: &[u8]) -> Result<()> {
        let (from, from_name) = self.parent(first)?;
        if !is_of_type(&from, from_name, FileType::RegularFile) {
            return Err(Error::integrity(format!(
                "{} is a hard link to {}, which is no file of this snapshot",
                String::from_utf8_lossy(path),
                String::from_utf8_lossy(first)
            )));
        }
        let (parent, name) = self.parent(path)?;
        rustix::fs::linkat(&from, from_name, &parent, name, AtFlags::empty())
            .map_err(|e| cannot_make(path, e))
    }

    /// Sets the metadata of folders, innermost first, and syncs everything to
    /// disk. Returns what could not be given back.
    pub fn finish(&mut self) -> Result<Vec<String>> {
        self.last = None;
        let refused = self.small.finish()?;
        self.refused.extend(refused);
        let folders = std::mem::take(&mut self.folders);
        for path in self.made.iter().filter(|path| !folders.contains_key(*path)) {
            // What the earlier system stored may lack the folders of its files.
            let path = self.shown(path);
            rustix::fs::chmodat(rustix::fs::CWD, &path, Mode::from_raw_mode(0o755), AtFlags::empty())
                .map_err(|e| Error::io("set the mode of", &path, e.into()))?;
        }
        for (path, metadata) in folders.iter().rev() {
            if self.made.contains(path) {
                self.apply(path, metadata, false)?;
            }
        }
        rustix::fs::syncfs(&self.root).map_err(|e| Error::io("sync", &self.root(), e.into()))?;
        Ok(std::mem::take(&mut self.refused))
    }

    fn apply(&mut self, path: &[u8], metadata: &FileMetadata, is_symlink: bool) -> Result<()> {
        for reason in metadata.apply(&self.shown(path), is_symlink)? {
            self.refused.push(format!("{}: {reason}", String::from_utf8_lossy(path)));
        }
        Ok(())
    }

    fn shown(&self, path: &[u8]) -> PathBuf {
        self.root().join(OsStr::from_bytes(path))
    }

    /// The open folder that `path` lies in, and its last component. Folders that
    /// are missing on the way are made.
    fn parent<'p>(&mut self, path: &'p [u8]) -> Result<(Arc<OwnedFd>, &'p OsStr)> {
        check_path(path)?;
        let (folder, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        if name.is_empty() {
            return Err(leaves(path, "it has no name"));
        }
        let name = OsStr::from_bytes(name);
        if let Some((last, fd)) = &self.last
            && last == folder
        {
            return Ok((Arc::clone(fd), name));
        }
        let mut fd =
            self.root.try_clone().map_err(|e| Error::from_io("cannot open the staging folder", e))?;
        let mut at = Vec::new();
        for component in folder.split(|b| *b == b'/').filter(|c| !c.is_empty()) {
            if !at.is_empty() {
                at.push(b'/');
            }
            at.extend_from_slice(component);
            let component = OsStr::from_bytes(component);
            if self.made.insert(at.clone()) {
                make_folder(&fd, component, path)?;
            }
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fd = rustix::fs::openat(&fd, component, flags, Mode::empty()).map_err(|e| match e {
                Errno::LOOP | Errno::NOTDIR => leaves(path, "it goes through a symlink or a file"),
                other => cannot_make(path, other),
            })?;
        }
        let fd = Arc::new(fd);
        self.last = Some((folder.to_vec(), Arc::clone(&fd)));
        Ok((fd, name))
    }
}

/// Copies all of `contents` by way of `chunk`.
fn copy(contents: &mut dyn Read, file: &mut File, chunk: &mut [u8]) -> std::io::Result<()> {
    loop {
        match contents.read(chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => file.write_all(&chunk[..n])?,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether that is what `name` is itself: a symlink is not followed.
fn is_of_type(parent: &OwnedFd, name: &OsStr, wanted: FileType) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == wanted)
}

fn make_folder(parent: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<()> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        // A file or a symlink of that name is found out when it is opened.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(cannot_make(path, e)),
    }
}

/// A path must stay below where it starts, whatever is there.
pub fn check_path(path: &[u8]) -> Result<()> {
    if path.starts_with(b"/") {
        return Err(leaves(path, "it is absolute"));
    }
    if path.contains(&0) {
        return Err(leaves(path, "it has a NUL byte"));
    }
    if path.split(|b| *b == b'/').any(|c| c == b"..") {
        return Err(leaves(path, "it has a `..`"));
    }
    if path.split(|b| *b == b'/').any(|c| c == b"." || c.is_empty()) && !path.is_empty() {
        return Err(leaves(path, "it is not in its plain form"));
    }
    Ok(())
}

fn leaves(path: &[u8], why: &str) -> Error {
    Error::integrity(format!(
        "the snapshot has a path that would leave the target, {:?}: {why}",
        String::from_utf8_lossy(path)
    ))
    .hint("nothing was written; do not trust this snapshot, or the machine that made it")
}

/// A path that comes a second time.
pub(super) fn twice(path: &[u8]) -> Error {
    Error::integrity(format!("the snapshot has {} twice", String::from_utf8_lossy(path)))
}

fn cannot_make(path: &[u8], error: Errno) -> Error {
    match error {
        Errno::EXIST => twice(path),
        Errno::LOOP | Errno::NOTDIR => leaves(path, "it goes through a symlink or a file"),
        Errno::MFILE | Errno::NFILE => Error::io("write", Path::new(OsStr::from_bytes(path)), error.into())
            .hint("raise the limit of open files, `ulimit -n`, and restore again"),
        other => Error::io("write", Path::new(OsStr::from_bytes(path)), other.into()),
    }
}

/// Copies, with holes for runs of zeros.
pub(super) fn write_sparse(file: &mut File, contents: &mut dyn Read) -> std::io::Result<()> {
    let mut chunk = vec![0; 64 * HOLE_BYTES];
    let mut size = 0;
    loop {
        let mut filled = 0;
        while filled < chunk.len() {
            match contents.read(&mut chunk[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 {
            return file.set_len(size);
        }
        for block in chunk[..filled].chunks(HOLE_BYTES) {
            if block == &ZEROS[..block.len()] {
                file.seek(SeekFrom::Current(block.len() as i64))?;
            } else {
                file.write_all(block)?;
            }
        }
        size += filled as u64;
    }
}

#[cfg(test)]
mod tests;
