//! Unpack: from a sealed stream to checked members. The inverse of `pack`.
//!
//! Every member's SHA-256, type, size, mode, owner and time are written down as
//! they come by, and compared, one by one and in order, with the manifest that
//! comes last. Only when this returns is anything in the stream to be believed.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Lines, Read, Seek, Write};
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use ring::digest::{Context, SHA256, digest};

use super::archive::{self, Ending, FILES, MANIFEST, Member, POSTGRES, RESTORE_NOTES, SHA256SUMS};
use super::seal::Opener;
use super::staging::{check_path, twice};
use crate::error::{Error, Kind, Result};
use crate::gzip::GzipReader;
use crate::key::Keyring;
use crate::repository::manifest::{Entry, EntryType, Manifest};
use crate::repository::name::SnapshotName;
use crate::workers::Workers;

/// How much older than its snapshot's name a token without a manifest may be.
/// A run takes no longer than this; an older one was put under a newer name.
const RUN_TIME_MAX: TimeDelta = TimeDelta::days(1);

/// Where a restore puts the manifest and the dumps, by the snapshot's id. No
/// snapshot may have anything but other snapshots' folders there.
const EXTRAS: &str = ".offsite";

/// What a stream held, all of it checked.
pub struct Unpacked {
    /// The manifest; none in what the earlier Python system stored.
    pub manifest: Option<Manifest>,
    /// The manifest's exact text, in a nameless file.
    pub manifest_text: Option<File>,
    /// Members, the manifest not counted.
    pub entries: u64,
    /// Bytes of file contents.
    pub bytes: u64,
    /// Fernet tokens.
    pub tokens: u64,
    /// Folders above tier-1 paths, as archive paths.
    pub folders_above: HashSet<Vec<u8>>,
    /// Files with a setuid or setgid bit, or with capabilities.
    pub setuid: Vec<String>,
}

/// Opens `stream` with `keys`, hands each member to `on_member`, and checks
/// everything against the manifest and the `expected` name. A name that is not
/// in our form (`None`) is accepted only for a stream without a manifest.
pub fn unpack(
    stream: impl Read,
    keys: &Keyring,
    expected: Option<&SnapshotName>,
    scratch: &Path,
    workers: &Workers,
    on_member: &mut dyn FnMut(&mut Member<'_>) -> Result<()>,
) -> Result<Unpacked> {
    read_and_compare(stream, keys, expected, scratch, workers, on_member).map_err(|error| {
        if error.kind() == Kind::Integrity && error.next_step().is_none() {
            error.hint("choose another snapshot with `offsite list`")
        } else {
            error
        }
    })
}

fn read_and_compare(
    stream: impl Read,
    keys: &Keyring,
    expected: Option<&SnapshotName>,
    scratch: &Path,
    workers: &Workers,
    on_member: &mut dyn FnMut(&mut Member<'_>) -> Result<()>,
) -> Result<Unpacked> {
    let mut reading = Reading::new(scratch, expected.map(|name| format!("{FILES}/{EXTRAS}/{}", name.id())))?;
    let opener = Opener::new(keys, BufReader::with_capacity(64 * 1024, stream), workers)?;
    let gzip = GzipReader::new(opener, workers);
    let (ending, gzip) = archive::read(gzip, &mut |member| reading.member(member, on_member))?;
    let opener =
        gzip.into_inner().ok_or_else(|| Error::integrity("the archive ends in the middle of a member"))?;
    if ending == Ending::CutShort {
        return Err(Error::integrity("the archive ends too early: it was cut short"));
    }
    let mut unpacked = Unpacked {
        manifest: None,
        manifest_text: None,
        entries: reading.entries,
        bytes: reading.bytes,
        tokens: opener.opened(),
        folders_above: HashSet::new(),
        setuid: std::mem::take(&mut reading.setuid),
    };
    match reading.manifest.take() {
        Some(text) => reading.compare(text, expected, &mut unpacked)?,
        None => accept_without_manifest(&reading, &opener, expected)?,
    }
    Ok(unpacked)
}

struct Reading<'a> {
    scratch: &'a Path,
    seen: BufWriter<File>,
    manifest: Option<File>,
    entries: u64,
    bytes: u64,
    ours: bool,
    setuid: Vec<String>,
    /// What identifies each path: half of its SHA-256.
    paths: HashSet<[u8; 16]>,
    /// Contents that nobody wants pass through here.
    chunk: Vec<u8>,
    /// Where a restore of this snapshot puts its manifest, as an archive path.
    extras: Option<String>,
}

impl<'a> Reading<'a> {
    fn new(scratch: &'a Path, extras: Option<String>) -> Result<Self> {
        Ok(Self {
            scratch,
            seen: BufWriter::new(nameless(scratch)?),
            manifest: None,
            entries: 0,
            bytes: 0,
            ours: false,
            setuid: Vec::new(),
            paths: HashSet::new(),
            chunk: vec![0; 128 * 1024],
            extras,
        })
    }

    fn member(
        &mut self,
        member: &mut Member<'_>,
        on_member: &mut dyn FnMut(&mut Member<'_>) -> Result<()>,
    ) -> Result<()> {
        let shown = String::from_utf8_lossy(&member.path).into_owned();
        if self.manifest.is_some() {
            return Err(Error::integrity(format!(
                "{shown} comes after the manifest, which has to be the last entry"
            )));
        }
        if member.path == MANIFEST.as_bytes() && member.kind == EntryType::File && self.ours {
            let mut text = nameless(self.scratch)?;
            io::copy(member.contents, &mut text)
                .map_err(|e| Error::from_io("cannot read the manifest", e))?;
            self.manifest = Some(text);
            return Ok(());
        }
        self.check_paths(member)?;
        // What only our archives have, before their manifest.
        self.ours |= member.path == SHA256SUMS.as_bytes();
        let capable = member.metadata.xattrs.iter().any(|(name, _)| name == b"security.capability");
        if member.kind == EntryType::File && (member.metadata.mode & 0o6000 != 0 || capable) {
            self.setuid.push(shown);
        }
        let mut contents = Hashing { inner: member.contents, hasher: Context::new(&SHA256), bytes: 0 };
        let mut handed = Member {
            path: member.path.clone(),
            kind: member.kind,
            metadata: member.metadata.clone(),
            link: member.link.clone(),
            size: member.size,
            sparse: member.sparse,
            contents: &mut contents,
        };
        on_member(&mut handed)?;
        // Whoever did not want the contents still has them checked.
        while contents.read(&mut self.chunk).map_err(|e| Error::from_io("cannot read the archive", e))? > 0 {}
        if contents.bytes != member.size {
            return Err(Error::integrity(format!(
                "the archive is cut short in {}",
                String::from_utf8_lossy(&member.path)
            )));
        }
        self.entries += 1;
        self.bytes += contents.bytes;
        let sha256 = (member.kind == EntryType::File).then(|| hex::encode(contents.hasher.finish()));
        let link = member.link.as_deref();
        let entry = archive::entry(&member.path, member.kind, &member.metadata, member.size, sha256, link);
        let line = serde_json::to_string(&entry).map_err(|e| Error::failed(e.to_string()))?;
        writeln!(self.seen, "{line}").map_err(|e| Error::from_io("cannot write into the scratch folder", e))
    }

    /// Refuses what no restore could write, so that whoever only verifies knows.
    fn check_paths(&mut self, member: &Member<'_>) -> Result<()> {
        let path = member.path.as_slice();
        // `tar -C DIR .` has a member for DIR itself.
        if !(member.kind == EntryType::Directory && matches!(path, b"" | b".")) {
            check_path(path)?;
        }
        if member.link.as_ref().is_some_and(|link| link.contains(&0)) {
            return Err(Error::integrity(format!(
                "the target of the link {} has a NUL byte",
                String::from_utf8_lossy(path)
            )));
        }
        let digest = digest(&SHA256, path);
        let mut half = [0; 16];
        half.copy_from_slice(&digest.as_ref()[..16]);
        if !self.paths.insert(half) {
            return Err(twice(path));
        }
        let Some(extras) = self.extras.as_deref().map(str::as_bytes) else { return Ok(()) };
        let top = format!("{FILES}/{EXTRAS}");
        let taken = path.strip_prefix(extras).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        if taken || (path == top.as_bytes() && member.kind != EntryType::Directory) {
            return Err(Error::integrity(format!(
                "{} is where a restore puts the manifest: no snapshot has it",
                String::from_utf8_lossy(path)
            ))
            .hint("nothing was written; do not trust this snapshot, or the machine that made it"));
        }
        Ok(())
    }

    /// Compares what came by with what the manifest says should have.
    fn compare(
        &mut self,
        mut text: File,
        expected: Option<&SnapshotName>,
        unpacked: &mut Unpacked,
    ) -> Result<()> {
        let cannot = |e| Error::from_io("cannot read the scratch folder", e);
        self.seen.flush().map_err(cannot)?;
        let mut seen = self.seen.get_ref().try_clone().map_err(cannot)?;
        seen.rewind().map_err(cannot)?;
        let mut seen = BufReader::new(seen).lines();
        text.rewind().map_err(cannot)?;
        let manifest = Manifest::read(&text, &mut |listed| {
            same_entry(&mut seen, &listed)?;
            if listed.kind == EntryType::Directory && listed.tier1.is_none() {
                unpacked.folders_above.insert(listed.path.bytes()?);
            }
            Ok(())
        })?;
        if seen.next().is_some() {
            return Err(Error::integrity("the archive has entries that its manifest does not list"));
        }
        check_name(&manifest, expected)?;
        unpacked.manifest = Some(manifest);
        unpacked.manifest_text = Some(text);
        Ok(())
    }
}

/// The next entry that came by must be the one that the manifest lists.
fn same_entry(seen: &mut Lines<BufReader<File>>, listed: &Entry) -> Result<()> {
    let path = listed.path.shown();
    let in_place = [FILES, POSTGRES].iter().any(|top| path.starts_with(&format!("{top}/")));
    if !in_place && ![RESTORE_NOTES, SHA256SUMS].contains(&path) {
        return Err(Error::integrity(format!(
            "the manifest lists {path}, which is not where a snapshot has files"
        )));
    }
    let came = match seen.next() {
        None => return Err(Error::integrity(format!("{path} is in the manifest, but not in the archive"))),
        Some(line) => line.map_err(|e| Error::from_io("cannot read the scratch folder", e))?,
    };
    let mut plain = listed.clone();
    plain.tier1 = None;
    plain.changed = false;
    if plain.kind == EntryType::Hardlink {
        plain.size = 0;
        plain.sha256 = None;
    }
    if serde_json::to_string(&plain).is_ok_and(|line| line == came) {
        return Ok(());
    }
    Err(Error::integrity(format!("{path} is not what the manifest says it is")))
}

/// A snapshot under another name is another snapshot: an old one replayed as new.
fn check_name(manifest: &Manifest, expected: Option<&SnapshotName>) -> Result<()> {
    let wrong = |stored: &str| {
        Error::integrity(format!(
            "this is the snapshot {}, stored under the name {stored}",
            manifest.snapshot
        ))
        .hint("somebody renamed it or put it in another one's place; choose another snapshot")
    };
    match expected {
        Some(name) if manifest.snapshot == name.to_string() => {
            if manifest.id == name.id()
                && manifest.system == name.system()
                && manifest.degraded == name.is_degraded()
            {
                Ok(())
            } else {
                Err(Error::integrity("the manifest contradicts its own snapshot's name"))
            }
        }
        Some(name) => Err(wrong(&name.to_string())),
        None => Err(wrong("of something that is not a snapshot")),
    }
}

/// What the earlier Python system stored: one token over a tar.gz, no manifest.
fn accept_without_manifest<R: BufRead>(
    reading: &Reading<'_>,
    opener: &Opener<R>,
    expected: Option<&SnapshotName>,
) -> Result<()> {
    if reading.ours || opener.opened() != 1 {
        return Err(Error::integrity("there is no manifest: the snapshot was cut short"));
    }
    let sealed_at = opener.oldest().and_then(|s| DateTime::<Utc>::from_timestamp(i64::try_from(s).ok()?, 0));
    if let (Some(name), Some(sealed_at)) = (expected, sealed_at)
        && sealed_at + RUN_TIME_MAX < name.taken_at()
    {
        return Err(Error::integrity(format!(
            "it was sealed at {}, long before the time in its name: an old snapshot under a new name",
            sealed_at.format("%Y-%m-%d %H:%M:%S UTC")
        )));
    }
    Ok(())
}

fn nameless(scratch: &Path) -> Result<File> {
    tempfile::tempfile_in(scratch).map_err(|e| Error::io("write into", scratch, e))
}

struct Hashing<'a> {
    inner: &'a mut dyn Read,
    hasher: Context,
    bytes: u64,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}
