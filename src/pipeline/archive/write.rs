//! Writes the archive, and beside it the lines of `SHA256SUMS` and of the
//! manifest's entries. Those go to nameless files: there may be many.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::Path;

use ring::digest::{Context, Digest, SHA256, digest};
use tar::{Builder, EntryType as TarType, Header};

use super::pax::{Record, sparse_map};
use super::sums::sum_line;
use super::{FILES, MANIFEST, SHA256SUMS, entry};
use crate::error::{Error, Result};
use crate::gzip::{GzipWriter, Level};
use crate::repository::manifest::{EntryType, Manifest};
use crate::sources::file::Content;
use crate::sources::metadata::FileMetadata;
use crate::workers::Workers;

/// The largest number that fits an octal header field of 8 bytes.
const SMALL_FIELD_MAX: u64 = 0o7_777_777;
/// The largest size that fits the octal size field.
const SIZE_FIELD_MAX: u64 = 0o77_777_777_777;
const NAME_FIELD_BYTES: usize = 100;

/// Writes one archive. [`ArchiveWriter::finish`] must be called: it writes the
/// manifest, without which the archive is not a snapshot.
pub struct ArchiveWriter<W: Write> {
    /// None for a survey, which only looks and hashes.
    tar: Option<Builder<GzipWriter<W>>>,
    sums: BufWriter<File>,
    entries: BufWriter<File>,
    first_links: HashMap<(u64, u64), FirstLink>,
    /// What is copied passes through here.
    chunk: Vec<u8>,
    bytes: u64,
    /// Of all that is known of tier-1 files.
    likeness: Context,
}

/// The entry that holds the contents of a file with several names.
#[derive(Clone)]
struct FirstLink {
    path: Vec<u8>,
    size: u64,
    sha256: String,
}

/// What every entry has.
pub struct About<'a> {
    /// Its path in the archive, without a trailing slash.
    pub path: &'a [u8],
    /// Its metadata.
    pub metadata: &'a FileMetadata,
    /// Its tier-1 group; none for folders above a tier-1 path and our own files.
    pub tier1: Option<&'a str>,
}

impl<W: Write> ArchiveWriter<W> {
    /// Writes into `out`, compressed by `workers`, with nameless files in
    /// `scratch`.
    pub fn new(out: W, level: Level, workers: &Workers, scratch: &Path) -> Result<Self> {
        let tar = Builder::new(GzipWriter::new(out, level, workers));
        Self::with(Some(tar), scratch)
    }

    /// Writes nothing: reads what it is given, for its [`ArchiveWriter::likeness`].
    pub fn survey(scratch: &Path) -> Result<Self> {
        Self::with(None, scratch)
    }

    fn with(tar: Option<Builder<GzipWriter<W>>>, scratch: &Path) -> Result<Self> {
        let nameless = || tempfile::tempfile_in(scratch).map_err(|e| Error::io("write into", scratch, e));
        Ok(Self {
            tar,
            sums: BufWriter::new(nameless()?),
            entries: BufWriter::new(nameless()?),
            first_links: HashMap::new(),
            chunk: vec![0; 128 * 1024],
            bytes: 0,
            likeness: Context::new(&SHA256),
        })
    }

    /// Bytes of contents so far: what a restore writes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A digest of all tier-1 entries so far, with their contents and metadata:
    /// two archives with the same one hold the same.
    pub fn likeness(&self) -> Digest {
        self.likeness.clone().finish()
    }

    /// Adds a directory.
    pub fn directory(&mut self, about: &About<'_>) -> Result<()> {
        self.header(TarType::Directory, about, 0, None, vec![])?;
        self.record(about, EntryType::Directory, 0, None, None, false)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, about: &About<'_>, target: &[u8]) -> Result<()> {
        self.header(TarType::Symlink, about, 0, Some(target), vec![])?;
        self.record(about, EntryType::Symlink, 0, None, Some(target), false)
    }

    /// Adds another name of the file with this device and inode number, when it
    /// is in the archive already. Says whether it was.
    pub fn hard_link(&mut self, about: &About<'_>, inode: (u64, u64)) -> Result<bool> {
        let Some(first) = self.first_links.get(&inode).cloned() else { return Ok(false) };
        self.header(TarType::Link, about, 0, Some(&first.path), vec![])?;
        self.record(about, EntryType::Hardlink, first.size, Some(first.sha256), Some(&first.path), false)?;
        Ok(true)
    }

    /// Adds a file. `inode` is given when it has more names than this one.
    pub fn file(
        &mut self,
        about: &About<'_>,
        content: &mut Content,
        inode: Option<(u64, u64)>,
    ) -> Result<()> {
        let size = content.size();
        let segments = content.segments().to_vec();
        let stored: u64 = segments.iter().map(|(_, len)| len).sum();
        let map = if stored == size { Vec::new() } else { sparse_map(&segments, size) };
        let pax = if map.is_empty() { vec![] } else { sparse_records(about.path, size) };
        let stored = stored + map.len() as u64;
        self.header(TarType::Regular, about, stored, None, pax)?;
        let mut hasher = Context::new(&SHA256);
        self.put(&map)?;
        let mut end = 0;
        for (offset, len) in segments {
            hash_zeros(&mut hasher, offset - end);
            self.copy(content, len, Some(&mut hasher))?;
            end = offset + len;
        }
        hash_zeros(&mut hasher, size - end);
        self.pad(stored)?;
        let sha256 = hex::encode(hasher.finish());
        if let Some(inode) = inode {
            let first = FirstLink { path: about.path.to_vec(), size, sha256: sha256.clone() };
            self.first_links.insert(inode, first);
        }
        self.record(about, EntryType::File, size, Some(sha256), None, content.has_changed())
    }

    /// Adds a file whose contents are gzip members already, with their size and
    /// SHA-256 before compression.
    pub fn compressed_file(
        &mut self,
        about: &About<'_>,
        members: &mut dyn Read,
        size: u64,
        sha256: &Digest,
    ) -> Result<()> {
        self.header(TarType::Regular, about, size, None, vec![])?;
        if let Some(tar) = &mut self.tar {
            tar.get_mut().append_members(members).map_err(cannot)?;
        }
        self.pad(size)?;
        self.record(about, EntryType::File, size, Some(hex::encode(sha256)), None, false)
    }

    /// Adds a file whose contents and their SHA-256 are in memory. `changed`
    /// when it changed while it was read.
    pub fn small_file(
        &mut self,
        about: &About<'_>,
        contents: &[u8],
        sha256: &Digest,
        changed: bool,
    ) -> Result<()> {
        let size = contents.len() as u64;
        self.header(TarType::Regular, about, size, None, vec![])?;
        self.put(contents)?;
        self.pad(size)?;
        self.record(about, EntryType::File, size, Some(hex::encode(sha256)), None, changed)
    }

    /// Adds a file of our own from memory.
    pub fn text(&mut self, about: &About<'_>, text: &[u8]) -> Result<()> {
        self.small_file(about, text, &digest(&SHA256, text), false)
    }

    /// Adds `SHA256SUMS` and, last of all, the manifest; returns the output.
    pub fn finish(mut self, metadata: &FileMetadata, manifest: &Manifest, scratch: &Path) -> Result<W> {
        let about = |path: &'static str| About { path: path.as_bytes(), metadata, tier1: None };
        let (mut sums, size) = rewound(&mut self.sums)?;
        self.own_file(&about(SHA256SUMS), &mut sums, size, true)?;
        let (mut entries, _) = rewound(&mut self.entries)?;
        let spool = tempfile::tempfile_in(scratch).map_err(|e| Error::io("write into", scratch, e))?;
        let mut spool = BufWriter::new(spool);
        manifest.write(&mut entries, &mut spool).map_err(cannot)?;
        let (mut text, size) = rewound(&mut spool)?;
        self.own_file(&about(MANIFEST), &mut text, size, false)?;
        let tar = self.tar.ok_or_else(|| Error::failed("a survey has no archive"))?;
        let gzip = tar.into_inner().map_err(cannot)?;
        gzip.finish().map_err(cannot)
    }

    fn own_file(&mut self, about: &About<'_>, source: &mut dyn Read, size: u64, record: bool) -> Result<()> {
        self.header(TarType::Regular, about, size, None, vec![])?;
        let mut hasher = Context::new(&SHA256);
        self.copy(source, size, record.then_some(&mut hasher))?;
        self.pad(size)?;
        if record {
            let sha256 = hex::encode(hasher.finish());
            self.record(about, EntryType::File, size, Some(sha256), None, false)?;
        }
        Ok(())
    }

    fn header(
        &mut self,
        kind: TarType,
        about: &About<'_>,
        size: u64,
        link: Option<&[u8]>,
        mut pax: Vec<Record>,
    ) -> Result<()> {
        let Some(tar) = &mut self.tar else { return Ok(()) };
        let mut header = Header::new_ustar();
        let meta = about.metadata;
        header.set_entry_type(kind);
        header.set_mode(meta.mode);
        header.set_uid(meta.uid.into());
        header.set_gid(meta.gid.into());
        header.set_size(size);
        header.set_mtime(u64::try_from(meta.mtime.seconds).unwrap_or(0).min(SIZE_FIELD_MAX));
        let mut path = about.path.to_vec();
        if kind == TarType::Directory {
            path.push(b'/');
        }
        let old = header.as_old_mut();
        fill(&mut old.name, &path);
        fill(&mut old.linkname, link.unwrap_or(b""));
        if path.len() > NAME_FIELD_BYTES {
            pax.push(("path".into(), path));
        }
        if let Some(link) = link.filter(|l| l.len() > NAME_FIELD_BYTES) {
            pax.push(("linkpath".into(), link.to_vec()));
        }
        if meta.mtime.nanos != 0 || !(0..=SIZE_FIELD_MAX as i64).contains(&meta.mtime.seconds) {
            pax.push(("mtime".into(), meta.mtime.decimal().into_bytes()));
        }
        for (keyword, value, max) in [
            ("uid", meta.uid.into(), SMALL_FIELD_MAX),
            ("gid", meta.gid.into(), SMALL_FIELD_MAX),
            ("size", size, SIZE_FIELD_MAX),
        ] {
            if value > max {
                pax.push((keyword.into(), value.to_string().into_bytes()));
            }
        }
        set_names(&mut header, meta, &mut pax);
        for (name, value) in &meta.xattrs {
            // The keyword is text in tar's interface; a name that is not is kept lossily.
            pax.push((format!("SCHILY.xattr.{}", String::from_utf8_lossy(name)), value.clone()));
        }
        header.set_cksum();
        let records = pax.iter().map(|(k, v)| (k.as_str(), v.as_slice()));
        tar.append_pax_extensions(records).map_err(cannot)?;
        tar.get_mut().write_all(header.as_bytes()).map_err(cannot)
    }

    fn copy(&mut self, source: &mut dyn Read, len: u64, mut hasher: Option<&mut Context>) -> Result<()> {
        let mut left = len;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(self.chunk.len());
            let n = match source.read(&mut self.chunk[..wanted]) {
                Ok(0) => return Err(Error::failed("a source ended before its promised size")),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(cannot(e)),
            };
            if let Some(hasher) = hasher.as_deref_mut() {
                hasher.update(&self.chunk[..n]);
            }
            if let Some(tar) = &mut self.tar {
                tar.get_mut().write_all(&self.chunk[..n]).map_err(cannot)?;
            }
            left -= n as u64;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.tar {
            Some(tar) => tar.get_mut().write_all(bytes).map_err(cannot),
            None => Ok(()),
        }
    }

    /// Fills up to the next 512 bytes.
    fn pad(&mut self, size: u64) -> Result<()> {
        let missing = (size.next_multiple_of(512) - size) as usize;
        self.put(&[0; 512][..missing])
    }

    fn record(
        &mut self,
        about: &About<'_>,
        kind: EntryType,
        size: u64,
        sha256: Option<String>,
        link: Option<&[u8]>,
        changed: bool,
    ) -> Result<()> {
        let meta = about.metadata;
        if kind == EntryType::File {
            self.bytes += size;
        }
        if let Some(sha256) = &sha256 {
            sum_line(&mut self.sums, sha256, about.path).map_err(cannot)?;
        }
        let mut entry = entry(about.path, kind, meta, size, sha256, link);
        entry.tier1 = about.tier1.map(str::to_owned);
        entry.changed = changed;
        let mut line = serde_json::to_vec(&entry).map_err(|e| cannot(e.into()))?;
        line.push(b'\n');
        if about.path.starts_with(FILES.as_bytes()) {
            match about.tier1 {
                Some(_) => self.likeness.update(&line),
                // Above a tier-1 path: its time changes with whatever lies beside.
                None => {
                    entry.mtime = String::new();
                    self.likeness.update(&serde_json::to_vec(&entry).map_err(|e| cannot(e.into()))?);
                }
            }
            for (name, value) in &meta.xattrs {
                let lengths = [name.len() as u64, value.len() as u64];
                lengths.iter().for_each(|length| self.likeness.update(&length.to_le_bytes()));
                self.likeness.update(name);
                self.likeness.update(value);
            }
        }
        self.entries.write_all(&line).map_err(cannot)
    }
}

fn cannot(error: io::Error) -> Error {
    Error::from_io("cannot write the archive", error)
}

fn fill(field: &mut [u8], bytes: &[u8]) {
    let n = bytes.len().min(field.len());
    field[..n].copy_from_slice(&bytes[..n]);
}

fn set_names(header: &mut Header, meta: &FileMetadata, pax: &mut Vec<Record>) {
    if let Some(user) = &meta.user
        && header.set_username(user).is_err()
    {
        pax.push(("uname".into(), user.clone().into_bytes()));
    }
    if let Some(group) = &meta.group
        && header.set_groupname(group).is_err()
    {
        pax.push(("gname".into(), group.clone().into_bytes()));
    }
}

fn sparse_records(path: &[u8], size: u64) -> Vec<Record> {
    vec![
        ("GNU.sparse.major".into(), b"1".to_vec()),
        ("GNU.sparse.minor".into(), b"0".to_vec()),
        ("GNU.sparse.name".into(), path.to_vec()),
        ("GNU.sparse.realsize".into(), size.to_string().into_bytes()),
    ]
}

fn hash_zeros(hasher: &mut Context, mut count: u64) {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    while count > 0 {
        let n = usize::try_from(count).unwrap_or(usize::MAX).min(ZEROS.len());
        hasher.update(&ZEROS[..n]);
        count -= n as u64;
    }
}

/// Flushes a spool and gives it to be read from the start, with its length.
fn rewound(spool: &mut BufWriter<File>) -> Result<(File, u64)> {
    spool.flush().map_err(cannot)?;
    let mut file = spool.get_ref().try_clone().map_err(cannot)?;
    let size = file.metadata().map_err(cannot)?.len();
    file.rewind().map_err(cannot)?;
    Ok((file, size))
}
