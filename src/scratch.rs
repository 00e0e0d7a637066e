//! Folders for files that must not outlive the run: entered by nobody else,
//! removed at the end, and swept by the next run when this one was killed.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use walkdir::WalkDir;

use crate::error::{Error, Result};

/// A scratch folder's name begins with this, by which the next run finds it.
const PREFIX: &str = ".offsite-scratch-";

/// A private folder that is removed when it is dropped.
pub struct Scratch {
    path: PathBuf,
    // Held for as long as the folder is in use; a dead process holds no lock.
    _lock: File,
}

impl Scratch {
    /// Makes a folder of mode 0700 in `parent`, and first removes those in it
    /// that killed runs of this user have left behind.
    pub fn new(parent: &Path) -> Result<Self> {
        sweep(parent);
        let cannot = |e| {
            Error::io("make a scratch folder in", parent, e)
                .hint("is it there, writable and not full? $TMPDIR names another one")
        };
        loop {
            let mut random = [0; 8];
            getrandom::fill(&mut random)
                .map_err(|e| Error::failed(format!("the system gave no random bytes: {e}")))?;
            let path = parent.join(format!("{PREFIX}{}", hex::encode(random)));
            fs::DirBuilder::new().mode(0o700).create(&path).map_err(cannot)?;
            let lock = File::open(&path).map_err(cannot)?;
            let locked = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            // Another process may have swept it between its making and the lock.
            if locked && path.exists() {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let ours = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let is_ours = entry.metadata().is_ok_and(|m| m.is_dir() && m.uid() == ours);
        let stale = |file: File| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_ours && File::open(entry.path()).is_ok_and(stale) {
            remove(&entry.path());
        }
    }
}

/// Folders closed to their owner that may lie inside one another.
const CLOSED_DEPTH_MAX: usize = 64;

/// Removes a folder and all below it. A restored folder may be closed even to
/// its owner, and what is in it shows only once it is open. What cannot be
/// removed at all is left for the next sweep.
fn remove(folder: &Path) {
    for _ in 0..CLOSED_DEPTH_MAX {
        if fs::remove_dir_all(folder).is_ok() {
            return;
        }
        for entry in WalkDir::new(folder).into_iter().flatten().filter(|e| e.file_type().is_dir()) {
            let _ = fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_run_s_folder_is_swept_and_a_live_one_s_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let live = Scratch::new(parent.path()).unwrap();
        fs::write(live.path().join("secret"), "x").unwrap();
        let dead = parent.path().join(format!("{PREFIX}dead"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("secret"), "x").unwrap();
        let other = Scratch::new(parent.path()).unwrap();
        assert!(!dead.exists() && live.path().join("secret").exists());
        let path = other.path().to_owned();
        drop(other);
        assert!(!path.exists());
    }
}
