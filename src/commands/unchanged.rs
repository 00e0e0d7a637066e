//! The run that finds nothing changed: `unchanged = "mark"`.
//!
//! What the last run stored is remembered on this machine, as digests that say
//! nothing without the master key. When everything is still the same, read and
//! hashed in full, and the last snapshot is still the newest at the destination,
//! a small object there says so, and `status` counts from it. Whoever loses that
//! memory stores a snapshot like every other run.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use ring::digest::Digest;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::lock::state_file;
use crate::config::{Config, Unchanged};
use crate::destination::{Destination, Source};
use crate::error::{Error, Result};
use crate::key::MasterKey;
use crate::pipeline::pack::{self, Order, Survey, Traits};
use crate::repository::listing::{Snapshot, State, snapshots};
use crate::repository::name::{MarkName, SnapshotName};

/// A memory is a few hundred bytes.
const MEMORY_BYTES_MAX: u64 = 4096;

/// What is remembered of the last run that stored a complete snapshot.
pub(super) struct Memory {
    path: PathBuf,
    key: hmac::Key,
    /// What else a snapshot depends on: a change of it stores a new one.
    basis: String,
}

/// The snapshot that still holds everything, and its size when it was stored.
pub(super) struct Stored {
    name: SnapshotName,
    size_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Last {
    snapshot: String,
    size_bytes: u64,
    stats: String,
    likeness: String,
}

impl Memory {
    /// The memory of `config` and `key`; none when every run uploads. A database
    /// is never known to be unchanged, and its dumps differ in any case.
    pub(super) fn of(config: &Config, key: &MasterKey) -> Option<Self> {
        if config.unchanged == Unchanged::Upload || !config.postgres.is_empty() {
            return None;
        }
        let regenerable: Vec<_> =
            config.regenerable.iter().map(|(name, r)| (name, &r.paths, &r.how, &r.takes)).collect();
        Some(Self {
            path: state_file(&config.path, "last"),
            key: hmac::Key::new(hmac::HMAC_SHA256, key.text().as_bytes()),
            basis: format!(
                "{:?}",
                (env!("CARGO_PKG_VERSION"), &config.system, &config.destination, regenerable)
            ),
        })
    }

    /// Remembers what a run stored.
    pub(super) fn keep(&self, snapshot: &SnapshotName, size_bytes: u64, traits: &Traits) {
        let last = Last {
            snapshot: snapshot.to_string(),
            size_bytes,
            stats: self.shown(&traits.stats),
            likeness: self.shown(&traits.likeness),
        };
        // Without a place to remember it in, the next run uploads.
        let _ = last.write(&self.path);
    }

    /// Forgets: the last run stored something else, or nothing.
    pub(super) fn drop_last(&self) {
        let _ = std::fs::remove_file(&self.path);
    }

    /// The last snapshot, when everything is as it was then. Paths that look
    /// different are not read; paths that look the same are.
    pub(super) fn compare(&self, order: &Order<'_>) -> Result<Option<(Stored, Survey)>> {
        let Some((last, name)) = Last::read(&self.path) else { return Ok(None) };
        if self.shown(&pack::look(order)?) != last.stats {
            return Ok(None);
        }
        let survey = pack::survey(order)?;
        let same = |s: &Survey| {
            self.shown(&s.traits.stats) == last.stats && self.shown(&s.traits.likeness) == last.likeness
        };
        let stored = Stored { name, size_bytes: last.size_bytes };
        Ok(survey.filter(same).map(|survey| (stored, survey)))
    }

    /// A digest that only the key's owner can make or compare.
    fn shown(&self, digest: &Digest) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(self.basis.as_bytes());
        context.update(digest.as_ref());
        hex::encode(context.sign())
    }
}

impl Last {
    fn read(path: &Path) -> Option<(Self, SnapshotName)> {
        // In a folder that everybody may write to it may be anything, even a fifo.
        let meta = std::fs::symlink_metadata(path).ok()?;
        let ours = meta.is_file() && meta.uid() == rustix::process::geteuid().as_raw();
        if !ours || meta.len() > MEMORY_BYTES_MAX {
            return None;
        }
        let last: Self = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        let name = last.snapshot.parse().ok()?;
        Some((last, name))
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
        serde_json::to_writer(&mut file, self)?;
        file.persist(path)?;
        Ok(())
    }
}

/// Stores the mark that `stored` still holds everything. None when it is not the
/// newest snapshot there any more, or not whole as far as a listing tells: then
/// a new one is due.
pub(super) async fn mark(
    destination: &Destination,
    stored: &Stored,
    now: DateTime<Utc>,
) -> Result<Option<Snapshot>> {
    let name = &stored.name;
    if name.taken_at() > now {
        // A clock is or was wrong: the mark would be older than its snapshot.
        return Ok(None);
    }
    // A destination that cannot be listed is for the upload to complain about.
    let Ok(objects) = destination.list().await else { return Ok(None) };
    let found = snapshots(objects).into_iter().find(|s| s.name.system() == name.system());
    let whole = |s: &Snapshot| s.state == State::Complete && s.size_bytes == stored.size_bytes;
    let Some(newest) = found.filter(|s| s.name == *name && whole(s)) else {
        return Ok(None);
    };
    let text = format!("Nothing had changed since {name}.\n");
    let spool = || {
        let mut file = tempfile::tempfile()?;
        file.write_all(text.as_bytes())?;
        Ok(file)
    };
    let file = spool().map_err(|e: io::Error| Error::from_io("cannot write a temporary file", e))?;
    let source = Source { file: &file, offset: 0, len: text.len() as u64 };
    destination.put_new(&MarkName::new(name, now).to_string(), &source).await?;
    Ok(Some(newest))
}
