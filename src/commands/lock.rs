//! One run at a time: a lock on the config file.
//!
//! The config is the one file that every run of a system has open, so locking
//! it needs no folder for state, leaves nothing behind after a kill, and works
//! on a read-only root and across containers that mount the same file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Held for as long as a run lasts.
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the lock, or says that another run has it.
    pub fn take(config: &Path) -> Result<Self> {
        let file = File::open(config).map_err(|e| Error::io("open", config, e))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(Error::failed(format!("another run with {} is going on", config.display()))
                    .hint("wait for it; `fuser` on that file names its process"))
            }
            Err(e) => Err(Error::io("lock", config, e.into()).hint("put the config on a local file system")),
        }
    }
}

/// Where something is remembered between the runs of `config` on this machine:
/// in `$OFFSITE_STATE_DIR`, else `$STATE_DIRECTORY` (which systemd sets), else
/// the temporary folder. Nothing there is needed: it may be gone at any time.
pub(super) fn state_file(config: &Path, what: &str) -> PathBuf {
    let folder = ["OFFSITE_STATE_DIR", "STATE_DIRECTORY"].iter().find_map(std::env::var_os);
    let folder = folder.map_or_else(std::env::temp_dir, PathBuf::from);
    let user = rustix::process::geteuid().as_raw();
    let digest = Sha256::digest(config.as_os_str().as_encoded_bytes());
    folder.join(format!(".offsite-{user}-{}.{what}", hex::encode(&digest[..6])))
}

/// When the last run of this config began on this machine, as far as it is
/// known. A daemon that is restarted again and again by its own runs must not
/// start another one each time.
pub struct LastStart {
    path: PathBuf,
}

impl LastStart {
    /// The mark for `config`.
    pub fn of(config: &Path) -> Self {
        Self { path: state_file(config, "started") }
    }

    /// How long ago it was; `None` when that is not known.
    pub fn age(&self) -> Option<Duration> {
        let started = std::fs::symlink_metadata(&self.path).ok()?.modified().ok()?;
        SystemTime::now().duration_since(started).ok()
    }

    /// Notes that a run begins now. Without a place to note it in, nothing is
    /// noted: a backup is worth more than the mark.
    pub fn mark(&self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = File::create_new(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_refused_until_the_first_one_ends() {
        let config = tempfile::NamedTempFile::new().unwrap();
        let first = RunLock::take(config.path()).unwrap();
        assert!(RunLock::take(config.path()).err().unwrap().message().contains("another run"));
        drop(first);
        assert!(RunLock::take(config.path()).is_ok());
    }

    #[test]
    fn the_last_start_is_remembered() {
        let config = tempfile::NamedTempFile::new().unwrap();
        let mark = LastStart::of(config.path());
        assert!(mark.age().is_none());
        mark.mark();
        mark.mark();
        assert!(mark.age().unwrap() < Duration::from_secs(60));
        std::fs::remove_file(&mark.path).unwrap();
    }
}
