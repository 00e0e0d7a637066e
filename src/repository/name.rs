//! Names of snapshots and of their objects: the one place that knows them.
//!
//! `<system>/<YYYY>/<MM>/<YYYYMMDDTHHMMSSZ>-<id>[.degraded].tar.gz.fernet`, in
//! UTC, and `.<k>-of-<n>` behind it for one of several parts. A mark that
//! nothing had changed at a later time is
//! `<system>/<YYYY>/<MM>/<YYYYMMDDTHHMMSSZ>-<id>.unchanged`, with that time and
//! the id of the snapshot that still holds everything.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDateTime, Utc};

use crate::error::{Error, Result};

const SUFFIX: &str = ".tar.gz.fernet";
const DEGRADED: &str = ".degraded";
const UNCHANGED: &str = ".unchanged";
const TIME: &str = "%Y%m%dT%H%M%SZ";

/// Folders at a destination's root that are not systems.
const RESERVED: [&str; 1] = ["drills"];

/// Checks a system's name: one path component of `[A-Za-z0-9._-]`.
pub fn check_system(name: &str) -> Result<()> {
    let legal = !name.is_empty()
        && name.len() <= 100
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !legal {
        return Err(Error::usage(format!("`{name}` cannot be the name of a system"))
            .hint("use letters, digits, `.`, `_` and `-`, not starting with `.` or `-`, 100 at most"));
    }
    if RESERVED.contains(&name) {
        return Err(Error::usage(format!(
            "`{name}` is a reserved folder and cannot be the name of a system"
        )));
    }
    Ok(())
}

/// The name of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName {
    // The order of the fields is the order of snapshots: by time, then by id.
    taken_at: DateTime<Utc>,
    id: String,
    system: String,
    degraded: bool,
}

impl SnapshotName {
    /// The name of a run of `system` that started at `taken_at` (whole seconds
    /// are kept) and drew the random number `id`.
    pub fn new(system: &str, taken_at: DateTime<Utc>, id: u32, degraded: bool) -> Self {
        let taken_at = DateTime::from_timestamp(taken_at.timestamp(), 0).unwrap_or(taken_at);
        Self { taken_at, id: format!("{id:08x}"), system: system.to_owned(), degraded }
    }

    /// The name of the same run when something required is missing.
    pub fn degraded(&self) -> Self {
        Self { degraded: true, ..self.clone() }
    }

    /// When the run started, in whole seconds.
    pub fn taken_at(&self) -> DateTime<Utc> {
        self.taken_at
    }

    /// Eight hex digits, random for each run.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The system that it is a snapshot of.
    pub fn system(&self) -> &str {
        &self.system
    }

    /// Whether it lacks something required.
    pub fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// The last component, without the folders.
    pub fn file_name(&self) -> String {
        let degraded = if self.degraded { DEGRADED } else { "" };
        format!("{}-{}{degraded}{SUFFIX}", self.taken_at.format(TIME), self.id)
    }

    /// The name of the object that holds part `k` of `n` (both from 1). A
    /// snapshot in one object is stored under its own name. `k` is padded such
    /// that a shell's `*` sorts the parts.
    pub fn object(&self, k: usize, n: usize) -> String {
        if n == 1 {
            return self.to_string();
        }
        let width = n.to_string().len();
        format!("{self}.{k:0width$}-of-{n}")
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = self.taken_at;
        write!(f, "{}/{:04}/{:02}/{}", self.system, date.year(), date.month(), self.file_name())
    }
}

impl FromStr for SnapshotName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match ObjectName::parse(text) {
            Some(ObjectName { snapshot, part: None }) => Ok(snapshot),
            _ => Err(Error::usage(format!("`{text}` is not the name of a snapshot"))
                .hint("`offsite list` shows the names; an id or a unique prefix does as well")),
        }
    }
}

/// The name of one object of a snapshot: the snapshot's own, or one part's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// The snapshot that it belongs to.
    pub snapshot: SnapshotName,
    /// `(k, n)`: part k of n, both from 1.
    pub part: Option<(usize, usize)>,
}

impl ObjectName {
    /// Reads an object's name; `None` for whatever else lies at a destination.
    pub fn parse(text: &str) -> Option<Self> {
        let mut components = text.split('/');
        let (system, year, month, file) =
            (components.next()?, components.next()?, components.next()?, components.next()?);
        if components.next().is_some() || check_system(system).is_err() {
            return None;
        }
        let (stem, rest) = file.split_once(SUFFIX)?;
        let part = match rest {
            "" => None,
            _ => Some(parse_part(rest.strip_prefix('.')?)?),
        };
        let (stem, degraded) = match stem.strip_suffix(DEGRADED) {
            Some(stem) => (stem, true),
            None => (stem, false),
        };
        let (time, id) = stem.split_once('-')?;
        let taken_at = NaiveDateTime::parse_from_str(time, TIME).ok()?.and_utc();
        let id = (id.len() == 8 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
            .then(|| u32::from_str_radix(id, 16).ok())??;
        let snapshot = SnapshotName::new(system, taken_at, id, degraded);
        let folders_agree =
            format!("{:04}", taken_at.year()) == year && format!("{:02}", taken_at.month()) == month;
        (folders_agree && snapshot.file_name() == file[..file.len() - rest.len()])
            .then_some(Self { snapshot, part })
    }
}

/// The name of a mark: at this time, everything was as in that snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkName {
    /// The system.
    pub system: String,
    /// The snapshot's id.
    pub id: String,
    /// When nothing had changed, in whole seconds.
    pub at: DateTime<Utc>,
}

impl MarkName {
    /// The mark of `snapshot` for the time `at`.
    pub fn new(snapshot: &SnapshotName, at: DateTime<Utc>) -> Self {
        let at = DateTime::from_timestamp(at.timestamp(), 0).unwrap_or(at);
        Self { system: snapshot.system.clone(), id: snapshot.id.clone(), at }
    }

    /// Reads a mark's name; `None` for whatever else lies at a destination.
    pub fn parse(text: &str) -> Option<Self> {
        let (system, rest) = text.split_once('/')?;
        let (time, id) = rest.rsplit_once('/')?.1.strip_suffix(UNCHANGED)?.split_once('-')?;
        let at = NaiveDateTime::parse_from_str(time, TIME).ok()?.and_utc();
        let mark = Self { system: system.to_owned(), id: id.to_owned(), at };
        let is_id = id.len() == 8 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (is_id && check_system(system).is_ok() && mark.to_string() == text).then_some(mark)
    }
}

impl fmt::Display for MarkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (system, at) = (&self.system, self.at);
        write!(f, "{system}/{:04}/{:02}/{}-{}{UNCHANGED}", at.year(), at.month(), at.format(TIME), self.id)
    }
}

fn parse_part(text: &str) -> Option<(usize, usize)> {
    let (k, n) = text.split_once("-of-")?;
    let number = |s: &str| if s.bytes().all(|b| b.is_ascii_digit()) { s.parse::<usize>().ok() } else { None };
    let (k, n) = (number(k)?, number(n)?);
    (1..=n).contains(&k).then_some((k, n)).filter(|_| n > 1 && n < 100_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(degraded: bool) -> SnapshotName {
        SnapshotName::new("aither-prod", "2026-11-21T06:17:03.9Z".parse().unwrap(), 0x0a1b_2c3d, degraded)
    }

    #[test]
    fn marks_are_read_back_and_are_no_snapshots() {
        let mark = MarkName::new(&name(false), "2027-01-02T03:04:05.6Z".parse().unwrap());
        let text = "aither-prod/2027/01/20270102T030405Z-0a1b2c3d.unchanged";
        assert_eq!(mark.to_string(), text);
        assert_eq!(MarkName::parse(text), Some(mark));
        assert_eq!(ObjectName::parse(text), None);
        for other in [
            "aither-prod/2027/02/20270102T030405Z-0a1b2c3d.unchanged",
            "aither-prod/2027/01/20270102T030405Z-0a1b2c3.unchanged",
            "aither-prod/2027/01/x/20270102T030405Z-0a1b2c3d.unchanged",
            ".x/2027/01/20270102T030405Z-0a1b2c3d.unchanged",
            "aither-prod/2026/11/20261121T061703Z-0a1b2c3d.tar.gz.fernet",
        ] {
            assert_eq!(MarkName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn names_are_as_documented_and_read_back() {
        let text = "aither-prod/2026/11/20261121T061703Z-0a1b2c3d.tar.gz.fernet";
        assert_eq!(name(false).to_string(), text);
        assert_eq!(text.parse::<SnapshotName>().unwrap(), name(false));
        let text = "aither-prod/2026/11/20261121T061703Z-0a1b2c3d.degraded.tar.gz.fernet";
        assert_eq!(name(true).to_string(), text);
        assert_eq!(text.parse::<SnapshotName>().unwrap(), name(true));
    }

    #[test]
    fn parts_sort_as_a_shell_sorts_them() {
        assert!(name(false).object(1, 3).ends_with(".fernet.1-of-3"));
        assert!(name(false).object(2, 12).ends_with(".fernet.02-of-12"));
        let parsed = ObjectName::parse(&name(true).object(2, 12)).unwrap();
        assert_eq!((parsed.part, parsed.snapshot), (Some((2, 12)), name(true)));
    }

    #[test]
    fn everything_else_is_not_a_snapshot() {
        for text in [
            "RESTORE.md",
            "drills/2026/11/20261121T061703Z-0a1b2c3d.tar.gz.fernet",
            "s/2026/12/20261121T061703Z-0a1b2c3d.tar.gz.fernet",
            "s/2026/11/20261121T061703Z-0A1B2C3D.tar.gz.fernet",
            "s/2026/11/20261121T061703Z-0a1b2c3.tar.gz.fernet",
            "s/2026/11/20261321T061703Z-0a1b2c3d.tar.gz.fernet",
            "s/2026/11/20261121T061703Z-0a1b2c3d.tar.gz",
            "s/2026/11/20261121T061703Z-0a1b2c3d.tar.gz.fernet.0-of-3",
            "s/2026/11/20261121T061703Z-0a1b2c3d.tar.gz.fernet.4-of-3",
            "s/2026/11/20261121T061703Z-0a1b2c3d.tar.gz.fernet.1-of-1",
            "s/2026/11/20261121T061703Z-0a1b2c3d.tar.gz.fernet.tmp",
            "s/x/2026/11/20261121T061703Z-0a1b2c3d.tar.gz.fernet",
            ".x/2026/11/20261121T061703Z-0a1b2c3d.tar.gz.fernet",
        ] {
            assert_eq!(ObjectName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn systems_are_single_plain_components() {
        for good in ["aither-prod", "a", "ring_2.example"] {
            assert!(check_system(good).is_ok(), "{good}");
        }
        for bad in ["", "a/b", "..", ".git", "-x", "a b", "drills", "größe"] {
            assert!(check_system(bad).is_err(), "{bad}");
        }
    }
}
