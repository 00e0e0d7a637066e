//! A file's metadata: read from one, given to another.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use uzers::{Groups, Users, UsersCache};
use xattr::FileExt;

use crate::error::{Error, Result};

/// Looking up names opens files and may ask the network: each once.
static NAMES: LazyLock<Mutex<UsersCache>> = LazyLock::new(|| Mutex::new(UsersCache::new()));

/// What a snapshot keeps of a file beside its contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileMetadata {
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Owner's name, where it has one.
    pub user: Option<String>,
    /// Group's name, where it has one.
    pub group: Option<String>,
    /// Last modification.
    pub mtime: Mtime,
    /// Extended attributes, by name; ACLs are among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A point in time: whole seconds since 1970, rounded down, and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mtime {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999, always counted forward.
    pub nanos: u32,
}

impl Mtime {
    /// The decimal number of seconds that pax headers hold (POSIX, pax
    /// extended header `mtime`): -1.5 is a second and a half before 1970.
    pub fn decimal(self) -> String {
        if self.seconds < 0 && self.nanos > 0 {
            format!("-{}.{:09}", -(self.seconds + 1), 1_000_000_000 - self.nanos)
        } else {
            format!("{}.{:09}", self.seconds, self.nanos)
        }
    }

    /// Reads [`Mtime::decimal`], with any number of decimals.
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, negative) = match text.strip_prefix('-') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let numeric = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !numeric(whole) || !numeric(fraction) {
            return None;
        }
        let seconds: i64 = whole.parse().ok()?;
        let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
        Some(match (negative, nanos) {
            (false, _) => Self { seconds, nanos },
            (true, 0) => Self { seconds: -seconds, nanos },
            (true, _) => Self { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
        })
    }
}

impl FileMetadata {
    /// Takes what `meta` says, and the extended attributes of `path` itself (a
    /// symlink is not followed).
    pub fn read(path: &Path, meta: &Metadata) -> io::Result<Self> {
        let mut found = Self {
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            user: None,
            group: None,
            mtime: Mtime { seconds: meta.mtime(), nanos: u32::try_from(meta.mtime_nsec()).unwrap_or(0) },
            xattrs: Vec::new(),
        };
        if let Ok(names) = NAMES.lock() {
            found.user = names.get_user_by_uid(found.uid).and_then(|u| u.name().to_str().map(str::to_owned));
            found.group =
                names.get_group_by_gid(found.gid).and_then(|g| g.name().to_str().map(str::to_owned));
        }
        match xattr::list(path) {
            Ok(names) => {
                for name in names {
                    // One that vanished, or may not be read, is not worth the file.
                    if let Ok(Some(value)) = xattr::get(path, &name) {
                        found.xattrs.push((name.as_bytes().to_vec(), value));
                    }
                }
                found.xattrs.sort();
            }
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {}
            Err(e) => return Err(e),
        }
        Ok(found)
    }

    /// Gives `path` (itself, not what it may point to) this metadata. Owners are
    /// set only by root, by name where the name exists on this machine, else by
    /// number. Returns what this file system or user did not allow.
    pub fn apply(&self, path: &Path, is_symlink: bool) -> Result<Vec<String>> {
        let mut refused = Vec::new();
        let mut owned = rustix::process::geteuid().is_root();
        if owned {
            let (uid, gid) = self.owner_here();
            let ids = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            let outcome = rustix::fs::chownat(CWD, path, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW);
            owned = self.note_owner(outcome, path, &mut refused)?;
        }
        for (name, value) in &self.xattrs {
            if let Err(error) = xattr::set(path, OsStr::from_bytes(name), value) {
                refused.push(format!("extended attribute {}: {error}", String::from_utf8_lossy(name)));
            }
        }
        if !is_symlink {
            // After the owner, because a change of owner drops setuid.
            rustix::fs::chmodat(CWD, path, self.mode_for(owned), AtFlags::empty())
                .map_err(|e| Error::io("set the mode of", path, e.into()))?;
        }
        rustix::fs::utimensat(CWD, path, &self.times(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| Error::io("set the time of", path, e.into()))?;
        Ok(refused)
    }

    /// The same for an open file of this user's own making.
    pub fn apply_to_file(&self, file: &File, path: &Path) -> Result<Vec<String>> {
        let mut refused = Vec::new();
        let mut owned = rustix::process::geteuid().is_root();
        if owned {
            let (uid, gid) = self.owner_here();
            owned = self.note_owner(
                rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))),
                path,
                &mut refused,
            )?;
        }
        for (name, value) in &self.xattrs {
            if let Err(error) = file.set_xattr(OsStr::from_bytes(name), value) {
                refused.push(format!("extended attribute {}: {error}", String::from_utf8_lossy(name)));
            }
        }
        rustix::fs::fchmod(file, self.mode_for(owned))
            .map_err(|e| Error::io("set the mode of", path, e.into()))?;
        rustix::fs::futimens(file, &self.times())
            .map_err(|e| Error::io("set the time of", path, e.into()))?;
        Ok(refused)
    }

    /// Whether the owner could be set.
    fn note_owner(
        &self,
        outcome: rustix::io::Result<()>,
        path: &Path,
        refused: &mut Vec<String>,
    ) -> Result<bool> {
        match outcome {
            Ok(()) => Ok(true),
            // Root of a rootless container has only some ids (EINVAL), and on
            // some network mounts root may give nothing away (EPERM).
            Err(e @ (Errno::INVAL | Errno::PERM)) => {
                let (uid, gid) = self.owner_here();
                refused.push(format!("owner {uid}:{gid}: {}", std::io::Error::from(e).kind()));
                Ok(false)
            }
            Err(e) => Err(Error::io("set the owner of", path, e.into())),
        }
    }

    /// With another owner than it had, setuid would be for somebody else.
    fn mode_for(&self, owned: bool) -> Mode {
        Mode::from_raw_mode(if owned { self.mode } else { self.mode & 0o1777 })
    }

    fn times(&self) -> Timestamps {
        let mtime = Timespec { tv_sec: self.mtime.seconds, tv_nsec: self.mtime.nanos.into() };
        Timestamps { last_access: mtime, last_modification: mtime }
    }

    /// The owner on this machine: by name, else by number.
    fn owner_here(&self) -> (u32, u32) {
        let Ok(names) = NAMES.lock() else { return (self.uid, self.gid) };
        let uid = self.user.as_ref().and_then(|n| names.get_user_by_name(n)).map_or(self.uid, |u| u.uid());
        let gid = self.group.as_ref().and_then(|n| names.get_group_by_name(n)).map_or(self.gid, |g| g.gid());
        (uid, gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decimal_on_both_sides_of_1970() {
        for (seconds, nanos, text) in [
            (0, 0, "0.000000000"),
            (5, 1, "5.000000001"),
            (-5, 0, "-5.000000000"),
            (-5, 250_000_000, "-4.750000000"),
        ] {
            let time = Mtime { seconds, nanos };
            assert_eq!(time.decimal(), text);
            assert_eq!(Mtime::parse(text), Some(time));
        }
        assert_eq!(Mtime::parse("1790000000.5"), Some(Mtime { seconds: 1_790_000_000, nanos: 500_000_000 }));
        assert_eq!(Mtime::parse("7"), Some(Mtime { seconds: 7, nanos: 0 }));
        for bad in ["", "-", "1e3", "x", "99999999999999999999"] {
            assert_eq!(Mtime::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_applied_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let mut wanted = FileMetadata::read(&path, &std::fs::symlink_metadata(&path).unwrap()).unwrap();
        wanted.mode = 0o640;
        wanted.mtime = Mtime { seconds: -3, nanos: 123_456_789 };
        wanted.apply(&path, false).unwrap();
        let found = FileMetadata::read(&path, &std::fs::symlink_metadata(&path).unwrap()).unwrap();
        assert_eq!(found, wanted);
    }
}
