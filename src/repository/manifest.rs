//! The manifest: a snapshot's own table of contents, the last thing in it.
//!
//! It authenticates what Fernet's tokens alone do not: the order and number of
//! entries, each entry's SHA-256, and the snapshot's own name. Its entries may
//! be many, so they are written and read one at a time, never all in memory.

use std::fmt;
use std::io::{self, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::inventory::{Inventory, PsqlVersion};
use crate::error::{Error, Result};

/// The version of the stored format that this program writes.
pub const FORMAT: u32 = 1;

/// Everything in a manifest but its entries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the stored format, [`FORMAT`].
    pub format: u32,
    /// The snapshot's name; must be the name that it is stored under.
    pub snapshot: String,
    /// The snapshot's id, the 8 hex digits in its name.
    pub id: String,
    /// The system that it is a snapshot of.
    pub system: String,
    /// The machine that took it.
    pub host: String,
    /// Whether something required is missing; see `skipped` and `problems`.
    pub degraded: bool,
    /// When the run started.
    pub started_at: DateTime<Utc>,
    /// When the last entry before this one had been written.
    pub packed_at: DateTime<Utc>,
    /// Name and version of the program that wrote it.
    pub tool: String,
    /// Which key sealed it.
    pub key_id: String,
    /// 32 random hex digits, by which a drill proves what it restored.
    pub nonce: String,
    /// Why it is degraded, a sentence for each reason.
    pub problems: Vec<String>,
    /// What was not stored, and why.
    pub skipped: Vec<Skipped>,
    /// Files and bytes of each tier-1 group.
    pub groups: Vec<Group>,
    /// The PostgreSQL clusters that were dumped.
    pub postgres: Vec<Cluster>,
    /// What a restore needs.
    pub needs: Needs,
    /// What was left out on purpose and how it comes back.
    pub regenerable: Vec<RegenerableRecord>,
}

/// Something that was not stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its path; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// Its tier-1 group.
    pub tier1: String,
    /// Why, in a few words.
    pub reason: String,
    /// Whether this makes the snapshot degraded.
    pub required: bool,
}

impl Skipped {
    /// The sentence for a snapshot that lacks `count` required paths.
    pub fn problem(count: u64) -> String {
        format!("required paths that could not be stored whole: {count}")
    }
}

/// What one tier-1 group came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name in the config.
    pub name: String,
    /// Entries of any type.
    pub entries: u64,
    /// Bytes of file contents.
    pub bytes: u64,
}

/// One dumped PostgreSQL cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its label in the config.
    pub label: String,
    /// The dump's path in the archive.
    pub file: String,
    /// What the cluster held before the dump.
    pub inventory: Inventory,
    /// The `pg_dumpall` that wrote it.
    pub client_version: String,
    /// Its major version: the smallest server that takes the dump.
    pub client_major: u32,
    /// The smallest `psql` that reads it.
    pub needs_psql: PsqlVersion,
}

/// What a restore needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Bytes of disk for all contents.
    pub bytes: u64,
    /// The smallest `psql` for all dumps, when there are any.
    pub psql: Option<PsqlVersion>,
}

/// One `[regenerable.…]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegenerableRecord {
    /// Its name in the config.
    pub name: String,
    /// The paths that are left out.
    pub paths: Vec<String>,
    /// The command that brings it back.
    pub how: String,
    /// About how long that takes.
    pub takes: Option<String>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; `link` is where it points.
    Symlink,
    /// A hard link; `link` is the entry that holds the contents.
    Hardlink,
}

/// One entry of the archive, as the manifest records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its path in the archive.
    #[serde(flatten)]
    pub path: EntryPath,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: EntryType,
    /// Bytes of contents; 0 for all but files and hard links.
    pub size: u64,
    /// SHA-256 of the contents in hex; files and hard links have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Permission bits in octal.
    pub mode: String,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Owner's name on the machine that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Group's name on the machine that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Seconds since 1970 with nine decimals.
    pub mtime: String,
    /// Where a link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkTarget>,
    /// The tier-1 group; folders above a tier-1 path have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier1: Option<String>,
    /// The file never held still: its contents may mix two states.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changed: bool,
}

/// A path: readable, and exact when it is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryPath {
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
}

impl EntryPath {
    /// Records the exact bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let exact = std::str::from_utf8(bytes).is_err().then(|| STANDARD.encode(bytes));
        Self { path: String::from_utf8_lossy(bytes).into_owned(), path_base64: exact }
    }

    /// The exact bytes.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        match &self.path_base64 {
            None => Ok(self.path.clone().into_bytes()),
            Some(exact) => STANDARD
                .decode(exact)
                .map_err(|_| Error::integrity(format!("the manifest's path {} cannot be read", self.path))),
        }
    }

    /// The path for people; bytes that are not UTF-8 are replaced.
    pub fn shown(&self) -> &str {
        &self.path
    }
}

/// Where a link points: text, with its exact bytes when it is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkTarget(EntryPath);

impl LinkTarget {
    /// Records the exact bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(EntryPath::new(bytes))
    }

    /// The target for people.
    pub fn shown(&self) -> &str {
        self.0.shown()
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl Manifest {
    /// Writes the manifest with `entries`, which holds one JSON object a line.
    pub fn write(&self, entries: &mut dyn Read, out: &mut dyn Write) -> io::Result<()> {
        let head = serde_json::to_string_pretty(self)?;
        let head = head.trim_end_matches(['}', '\n']);
        write!(out, "{head},\n  \"entries\": [")?;
        let mut first = true;
        for line in io::BufRead::split(io::BufReader::new(entries), b'\n') {
            out.write_all(if first { b"\n    " } else { b",\n    " })?;
            out.write_all(&line?)?;
            first = false;
        }
        out.write_all(b"\n  ]\n}\n")
    }

    /// Reads a manifest and hands each of its entries to `on_entry`, in order.
    pub fn read(source: impl Read, on_entry: &mut dyn FnMut(Entry) -> Result<()>) -> Result<Self> {
        let mut failure = None;
        let mut json = serde_json::Deserializer::from_reader(io::BufReader::new(source));
        let read = ManifestSeed { on_entry, failure: &mut failure }.deserialize(&mut json);
        if let Some(error) = failure {
            return Err(error);
        }
        let manifest = read.and_then(|manifest| json.end().map(|()| manifest));
        manifest.map_err(|e| Error::integrity(format!("the manifest cannot be read: {e}")))?
    }
}

/// Reads the object in one pass: entries go to the caller, the rest to [`Manifest`].
struct ManifestSeed<'a> {
    on_entry: &'a mut dyn FnMut(Entry) -> Result<()>,
    failure: &'a mut Option<Error>,
}

impl<'de> DeserializeSeed<'de> for ManifestSeed<'_> {
    type Value = Result<Manifest>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ManifestSeed<'_> {
    type Value = Result<Manifest>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a manifest")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<Self::Value, M::Error> {
        let mut head = serde_json::Map::new();
        let mut entries_seen = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == "entries" && !entries_seen {
                entries_seen = true;
                if let Some(error) = check_format(&head) {
                    // Whose entries may be of kinds that are unknown here.
                    map.next_value::<IgnoredAny>()?;
                    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                    return Ok(Err(error));
                }
                map.next_value_seed(EntriesSeed { on_entry: self.on_entry, failure: self.failure })?;
            } else if key == "entries" {
                return Err(serde::de::Error::custom("`entries` occurs twice"));
            } else if head.insert(key, map.next_value()?).is_some() {
                return Err(serde::de::Error::custom("a key occurs twice"));
            }
        }
        if !entries_seen {
            return Err(serde::de::Error::missing_field("entries"));
        }
        check_format(&head).map_or_else(
            || serde_json::from_value(head.into()).map(Ok).map_err(serde::de::Error::custom),
            |error| Ok(Err(error)),
        )
    }
}

/// A later format is a reason to update, not damage.
fn check_format(head: &serde_json::Map<String, serde_json::Value>) -> Option<Error> {
    let format = head.get("format")?.as_u64()?;
    (format > u64::from(FORMAT)).then(|| {
        Error::failed(format!("this snapshot has format {format}; this program knows up to {FORMAT}"))
            .hint("restore it with a newer offsite, or by hand as its RESTORE.md says")
    })
}

struct EntriesSeed<'a> {
    on_entry: &'a mut dyn FnMut(Entry) -> Result<()>,
    failure: &'a mut Option<Error>,
}

impl<'de> DeserializeSeed<'de> for EntriesSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for EntriesSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> std::result::Result<(), S::Error> {
        while let Some(entry) = seq.next_element::<Entry>()? {
            if let Err(error) = (self.on_entry)(entry) {
                *self.failure = Some(error);
                // Whatever follows is not looked at any more.
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
