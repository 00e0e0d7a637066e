//! Pack: from the selected paths and the dumps to one sealed file.
//!
//! This is the backup's middle: what `select` finds is read through `sources`
//! and written through `archive` and `seal`. Nothing here stops at a file that
//! cannot be read: it is named, and the snapshot is degraded.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use chrono::Utc;
use ring::digest::{Context, SHA256};

use super::archive::{About, ArchiveWriter, FILES, POSTGRES, RESTORE_NOTES};
use super::seal::{Sealed, Sealer};
use super::select::{Event, Item, Selection, unreadable};
use crate::error::{Error, Result};
use crate::gzip::Level;
use crate::key::MasterKey;
use crate::progress::{Progress, Stage};
use crate::repository::manifest::{Cluster, Group, Manifest, Needs, Skipped};
use crate::repository::name::SnapshotName;
use crate::repository::restore_notes;
use crate::sources::file::{self, Content};
use crate::sources::metadata::{FileMetadata, Mtime};
use crate::sources::postgres::dump::Dump;
use crate::sources::sqlite;
use crate::stop::Stop;
use crate::workers::Workers;

mod traits;

use traits::note;
pub use traits::{Traits, look};

/// How many skipped paths are kept by name; the rest are only counted.
const SKIPPED_MAX: usize = 10_000;

/// What packing needs to know.
pub struct Order<'a> {
    /// What to take.
    pub selection: &'a Selection,
    /// The key that seals.
    pub key: &'a MasterKey,
    /// How hard to compress.
    pub level: Level,
    /// Who compresses and seals.
    pub workers: &'a Workers,
    /// A folder for nameless files and the sealed one.
    pub scratch: &'a Path,
    /// Whom to tell.
    pub progress: &'a Progress,
    /// Asked for between reads.
    pub stop: &'a Stop,
}

/// A packed and sealed snapshot.
pub struct Packed {
    /// The sealed object, in a nameless file.
    pub sealed: Sealed<File>,
    /// Its manifest, without the entries.
    pub manifest: Manifest,
    /// Its name.
    pub name: SnapshotName,
    /// What a later run compares itself with.
    pub traits: Traits,
}

/// What reading everything and storing nothing came to.
pub struct Survey {
    /// What was read, by tier-1 group.
    pub groups: Vec<Group>,
    /// Bytes of contents.
    pub bytes: u64,
    /// What was left out, and why.
    pub skipped: Vec<Skipped>,
    /// Digests of everything.
    pub traits: Traits,
}

/// Reads everything as [`pack`] does and stores nothing. None when something
/// required could not be read: that is for a run to tell.
pub fn survey(order: &Order<'_>) -> Result<Option<Survey>> {
    let mut packer = Packer::new(order, ArchiveWriter::survey(order.scratch)?);
    packer.walk()?;
    if packer.required_missing > 0 {
        return Ok(None);
    }
    let (bytes, traits) = (packer.archive.bytes(), packer.traits());
    Ok(Some(Survey { groups: listed(packer.groups), bytes, skipped: packer.skipped, traits }))
}

fn listed(groups: BTreeMap<String, Group>) -> Vec<Group> {
    groups.into_iter().map(|(name, group)| Group { name, ..group }).collect()
}

/// Packs everything. `dumps` is asked for once the files are in: dumps are made
/// meanwhile. Each is a dump or the reason why there is none. `head` is the
/// manifest with all that is known before; `name` the name that it would have
/// when nothing is missing.
pub fn pack(
    order: &Order<'_>,
    mut head: Manifest,
    name: &SnapshotName,
    dumps: impl FnOnce() -> Result<Vec<std::result::Result<Dump, Error>>>,
) -> Result<Packed> {
    let spool =
        tempfile::tempfile_in(order.scratch).map_err(|e| Error::io("write into", order.scratch, e))?;
    let archive = ArchiveWriter::new(
        Sealer::new(order.key, spool, order.workers)?,
        order.level,
        order.workers,
        order.scratch,
    )?;
    let mut packer = Packer::new(order, archive);
    packer.walk()?;
    for dump in dumps()? {
        match dump {
            Ok(dump) => head.postgres.push(packer.dump(dump)?),
            Err(error) => {
                let hint = error.next_step().map(|h| format!(" ({h})")).unwrap_or_default();
                head.problems.push(format!("{error}{hint}"));
            }
        }
    }
    packer.finish(head, name)
}

struct Packer<'a> {
    order: &'a Order<'a>,
    archive: ArchiveWriter<Sealer<File>>,
    groups: BTreeMap<String, Group>,
    skipped: Vec<Skipped>,
    unlisted: u64,
    required_missing: u64,
    stats: Context,
}

impl<'a> Packer<'a> {
    fn new(order: &'a Order<'a>, archive: ArchiveWriter<Sealer<File>>) -> Self {
        Self {
            order,
            archive,
            groups: BTreeMap::new(),
            skipped: Vec::new(),
            unlisted: 0,
            required_missing: 0,
            stats: Context::new(&SHA256),
        }
    }

    fn walk(&mut self) -> Result<()> {
        self.order.progress.begin(Stage::Pack, None);
        self.order.selection.walk(&mut |event| {
            self.order.stop.check()?;
            match event {
                Event::Item(item) => self.item(&item),
                Event::Skipped(skipped) => {
                    self.skip(skipped);
                    Ok(())
                }
            }
        })
    }

    fn traits(&self) -> Traits {
        Traits { stats: self.stats.clone().finish(), likeness: self.archive.likeness() }
    }

    fn skip(&mut self, skipped: Skipped) {
        self.required_missing += u64::from(skipped.required);
        if self.skipped.len() < SKIPPED_MAX {
            self.skipped.push(skipped);
        } else {
            self.unlisted += 1;
        }
    }

    fn lost(&mut self, item: &Item, reason: String, required: bool) {
        let path = item.path.to_string_lossy().into_owned();
        self.skip(Skipped { path, tier1: item.tier1.clone().unwrap_or_default(), reason, required });
    }

    /// Takes one path; what cannot be read is named and left out.
    fn item(&mut self, item: &Item) -> Result<()> {
        note(&mut self.stats, item);
        let metadata = match FileMetadata::read(&item.path, &item.metadata) {
            Ok(metadata) => metadata,
            Err(e) => return self.unreadable(item, &e),
        };
        let path = archive_path(&item.path);
        let about = About { path: &path, metadata: &metadata, tier1: item.tier1.as_deref() };
        let before = self.archive.bytes();
        if item.metadata.is_dir() {
            self.archive.directory(&about)?;
        } else if item.metadata.is_symlink() {
            match std::fs::read_link(&item.path) {
                Ok(target) => self.archive.symlink(&about, target.as_os_str().as_bytes())?,
                Err(e) => return self.unreadable(item, &e),
            }
        } else if !self.file(item, &about)? {
            return Ok(());
        }
        if let Some(tier1) = &item.tier1 {
            let group = self.groups.entry(tier1.clone()).or_default();
            group.entries += 1;
            group.bytes += self.archive.bytes() - before;
        }
        Ok(())
    }

    fn unreadable(&mut self, item: &Item, error: &std::io::Error) -> Result<()> {
        match error.kind() {
            std::io::ErrorKind::NotFound => self.lost(item, "vanished during the walk".to_owned(), false),
            _ => self.lost(item, unreadable(error), item.required),
        }
        Ok(())
    }

    /// Takes a file; says whether it is in the archive now.
    fn file(&mut self, item: &Item, about: &About<'_>) -> Result<bool> {
        let inode = (item.metadata.nlink() > 1).then(|| (item.metadata.dev(), item.metadata.ino()));
        if let Some(inode) = inode
            && self.archive.hard_link(about, inode)?
        {
            return Ok(true);
        }
        let file = match file::open(&item.path) {
            Ok(file) => file,
            // ELOOP: a symlink took the place of what the walk saw.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                self.lost(item, "replaced by a symlink during the walk".to_owned(), item.required);
                return Ok(false);
            }
            Err(e) => return self.unreadable(item, &e).map(|()| false),
        };
        if !file.metadata().is_ok_and(|m| m.is_file()) {
            self.lost(item, "replaced by something else during the walk".to_owned(), item.required);
            return Ok(false);
        }
        if sqlite::owner_of(&item.path).is_some() {
            // Its contents are in the copy of its database.
            return Ok(false);
        }
        let (content, problem) = self.content(item, file)?;
        let Some(mut content) = content else { return Ok(false) };
        self.put(item, about, &mut content, inode)?;
        if let Some(problem) = problem {
            self.lost(item, problem, item.required);
            self.companions(item)?;
        }
        Ok(true)
    }

    /// The contents to store, and what is wrong with them.
    fn content(&mut self, item: &Item, file: File) -> Result<(Option<Content>, Option<String>)> {
        let mut problem = None;
        if sqlite::is_database(&file) {
            match sqlite::copy(&item.path, self.order.scratch) {
                Ok(copy) => {
                    let size =
                        copy.metadata().map_err(|e| Error::io("read the copy of", &item.path, e))?.len();
                    return Ok((Some(Content::still(copy, size)), None));
                }
                Err(e) => problem = Some(format!("stored as it lay there, perhaps torn: {e}")),
            }
        }
        match Content::steady(file, &item.path, self.order.scratch) {
            Ok(content) => Ok((Some(content), problem)),
            Err(e) => {
                self.lost(item, e.message().to_owned(), item.required);
                Ok((None, None))
            }
        }
    }

    fn put(
        &mut self,
        item: &Item,
        about: &About<'_>,
        content: &mut Content,
        inode: Option<(u64, u64)>,
    ) -> Result<()> {
        self.order.stop.check()?;
        self.archive.file(about, content, inode)?;
        self.order.progress.bytes(Stage::Pack, content.size());
        if let Some(fault) = content.take_fault() {
            self.lost(item, format!("{}; zeros stand for the rest", unreadable(&fault)), item.required);
        } else if content.has_changed() {
            self.lost(item, "stored, but it changed while it was read".to_owned(), false);
        }
        Ok(())
    }

    /// A database that could not be copied consistently is kept as it lies
    /// there, and then its journals are worth keeping too.
    fn companions(&mut self, item: &Item) -> Result<()> {
        for suffix in sqlite::COMPANIONS {
            let mut path = item.path.as_os_str().to_owned();
            path.push(suffix);
            let path = Path::new(&path);
            let Ok(meta) = std::fs::symlink_metadata(path) else { continue };
            let (Ok(file), Ok(metadata)) = (file::open(path), FileMetadata::read(path, &meta)) else {
                continue;
            };
            let Ok(mut content) = Content::steady(file, path, self.order.scratch) else { continue };
            let stored = archive_path(path);
            let about = About { path: &stored, metadata: &metadata, tier1: item.tier1.as_deref() };
            self.put(item, &about, &mut content, None)?;
        }
        Ok(())
    }

    fn dump(&mut self, mut dump: Dump) -> Result<Cluster> {
        for database in dump.inventory.databases.iter().filter(|d| !d.connectable) {
            self.skip(Skipped {
                path: format!("database {}", database.name),
                tier1: format!("postgres.{}", dump.label),
                reason: "it allows no connections, and pg_dumpall leaves it out".to_owned(),
                required: false,
            });
        }
        let file = format!("{POSTGRES}/{}.sql", dump.label);
        let metadata = own_metadata(0o600);
        let about = About { path: file.as_bytes(), metadata: &metadata, tier1: None };
        // Without the deadline: it is the files', and dumps have one of their own.
        self.archive.compressed_file(&about, &mut dump.gzip, dump.bytes, &dump.sha256)?;
        Ok(Cluster {
            label: dump.label,
            file,
            inventory: dump.inventory,
            client_version: dump.client_version,
            client_major: dump.client_major,
            needs_psql: dump.needs_psql,
        })
    }

    fn finish(mut self, mut head: Manifest, name: &SnapshotName) -> Result<Packed> {
        let traits = self.traits();
        if self.required_missing > 0 {
            head.problems.insert(0, Skipped::problem(self.required_missing));
        }
        if self.unlisted > 0 {
            let reason = format!("and {} more, which are not listed here", self.unlisted);
            self.skipped.push(Skipped { path: String::new(), tier1: String::new(), reason, required: false });
        }
        head.degraded = !head.problems.is_empty();
        let name = if head.degraded { name.degraded() } else { name.clone() };
        head.snapshot = name.to_string();
        head.skipped = self.skipped;
        head.groups = listed(self.groups);
        let metadata = own_metadata(0o600);
        let psql = head.postgres.iter().map(|cluster| cluster.needs_psql).max();
        head.needs = Needs { bytes: self.archive.bytes(), psql };
        let notes = restore_notes::for_snapshot(&head);
        let about = About { path: RESTORE_NOTES.as_bytes(), metadata: &metadata, tier1: None };
        self.archive.text(&about, notes.as_bytes())?;
        head.packed_at = Utc::now();
        let sealer = self.archive.finish(&metadata, &head, self.order.scratch)?;
        let sealed = sealer.finish()?;
        self.order.progress.end(Stage::Pack);
        Ok(Packed { sealed, manifest: head, name, traits })
    }
}

/// `files/<path without its leading slash>`.
fn archive_path(path: &Path) -> Vec<u8> {
    [FILES.as_bytes(), path.as_os_str().as_bytes()].concat()
}

/// The metadata of files that we write ourselves.
fn own_metadata(mode: u32) -> FileMetadata {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let mtime = Mtime { seconds: Utc::now().timestamp(), nanos: 0 };
    FileMetadata { mode, uid, gid, mtime, ..FileMetadata::default() }
}
