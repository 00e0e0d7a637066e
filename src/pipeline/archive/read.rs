//! Reads an archive member by member, trusting nothing that it says.

use std::io::{self, Read};

use tar::{Archive, Entry as TarEntry, EntryType as TarType};

use super::pax::{HEADER_BYTES_MAX, Record, parse, read_sparse_map};
use crate::error::{Error, Result};
use crate::repository::manifest::EntryType;
use crate::sources::metadata::{FileMetadata, Mtime};

/// One member of an archive.
pub struct Member<'a> {
    /// Its path, without a trailing slash.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryType,
    /// Its metadata.
    pub metadata: FileMetadata,
    /// Where a link points.
    pub link: Option<Vec<u8>>,
    /// Bytes of contents, holes included; 0 for all but files.
    pub size: u64,
    /// Whether the contents have holes.
    pub sparse: bool,
    /// The contents, exactly `size` bytes.
    pub contents: &'a mut dyn Read,
}

/// How an archive ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With its end mark, and nothing but zeros after it.
    Proper,
    /// Without an end mark: it was cut short.
    CutShort,
}

/// Hands every member of the archive in `stream` to `on_member`, in order.
/// Data after the end of the archive is an integrity error.
pub fn read<R: Read>(
    stream: R,
    on_member: &mut dyn FnMut(&mut Member<'_>) -> Result<()>,
) -> Result<(Ending, R)> {
    let mut archive = Archive::new(stream);
    let mut pending = Pending::default();
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        match entry.header().entry_type() {
            TarType::XHeader => pending.pax = parse(&small(&mut entry)?)?,
            TarType::GNULongName => pending.path = Some(text(small(&mut entry)?)),
            TarType::GNULongLink => pending.link = Some(text(small(&mut entry)?)),
            // Records for all members: nothing that we need is ever in one.
            TarType::XGlobalHeader => {}
            _ => member(&mut entry, std::mem::take(&mut pending), on_member)?,
        }
    }
    let mut stream = archive.into_inner();
    let ending = read_to_end(&mut stream)?;
    Ok((ending, stream))
}

/// What extension headers said of the member that follows them.
#[derive(Default)]
struct Pending {
    pax: Vec<Record>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Pending {
    fn get(&self, keyword: &str) -> Option<&[u8]> {
        // The last of several counts (POSIX).
        self.pax.iter().rev().find(|(k, _)| k == keyword).map(|(_, v)| v.as_slice())
    }

    fn text(&self, keyword: &str) -> Option<&str> {
        self.get(keyword).and_then(|v| std::str::from_utf8(v).ok())
    }
}

fn member<R: Read>(
    entry: &mut TarEntry<'_, R>,
    pending: Pending,
    on_member: &mut dyn FnMut(&mut Member<'_>) -> Result<()>,
) -> Result<()> {
    let header = entry.header();
    let path = pending.get("GNU.sparse.name").or(pending.get("path")).map(<[u8]>::to_vec);
    let path = path.or(pending.path.clone()).unwrap_or_else(|| header.path_bytes().into_owned());
    let mut path = path.as_slice();
    while let [rest @ .., b'/'] = path {
        path = rest;
    }
    // `tar -C DIR .` writes `./a`; ours never do.
    while let [b'.', b'/', rest @ ..] = path {
        path = rest;
    }
    let kind = match header.entry_type() {
        TarType::Regular | TarType::Continuous => EntryType::File,
        TarType::Directory => EntryType::Directory,
        TarType::Symlink => EntryType::Symlink,
        TarType::Link => EntryType::Hardlink,
        other => {
            return Err(Error::integrity(format!(
                "{} is a member of type {:?}, which no snapshot holds",
                String::from_utf8_lossy(path),
                char::from(other.as_byte())
            )));
        }
    };
    let link = match kind {
        EntryType::Symlink | EntryType::Hardlink => {
            let long = pending.get("linkpath").map(<[u8]>::to_vec).or(pending.link.clone());
            Some(long.unwrap_or_else(|| header.link_name_bytes().map(|l| l.into_owned()).unwrap_or_default()))
        }
        _ => None,
    };
    let metadata = metadata(header, &pending).map_err(damaged)?;
    let stored = header.entry_size().map_err(damaged)?;
    if pending.text("size").is_some_and(|size| size.parse() != Ok(stored)) {
        // Two sizes: readers would disagree on where the next member begins.
        return Err(Error::integrity(format!("{} gives two different sizes", String::from_utf8_lossy(path))));
    }
    let mut member = Member {
        path: path.to_vec(),
        kind,
        metadata,
        link,
        size: 0,
        sparse: false,
        contents: &mut io::empty(),
    };
    if kind != EntryType::File {
        return on_member(&mut member);
    }
    if pending.text("GNU.sparse.major") != Some("1") {
        member.size = stored;
        let mut contents = Stored(entry);
        member.contents = &mut contents;
        return on_member(&mut member);
    }
    let size = pending.text("GNU.sparse.realsize").and_then(|s| s.parse().ok());
    member.size =
        size.ok_or_else(|| Error::integrity("the archive is damaged: a sparse file has no size"))?;
    let mut contents = Stored(entry);
    let segments = read_sparse_map(&mut contents, member.size)?;
    let mut expanded = Expanded {
        stored: &mut contents,
        segments: segments.into_iter(),
        now: None,
        at: 0,
        size: member.size,
    };
    member.sparse = true;
    member.contents = &mut expanded;
    on_member(&mut member)
}

fn metadata(header: &tar::Header, pending: &Pending) -> io::Result<FileMetadata> {
    let number = |keyword: &str, field: io::Result<u64>| -> io::Result<u32> {
        let value = match pending.text(keyword).and_then(|v| v.parse().ok()) {
            Some(value) => value,
            None => field?,
        };
        u32::try_from(value).map_err(|_| io::Error::other(format!("{keyword} is too large")))
    };
    let name = |keyword: &str, field: Option<&[u8]>| {
        let name = pending.get(keyword).or(field).filter(|n| !n.is_empty())?;
        std::str::from_utf8(name).ok().map(str::to_owned)
    };
    let mtime = match pending.text("mtime") {
        Some(text) => Mtime::parse(text).ok_or_else(|| io::Error::other("mtime is not a time"))?,
        None => Mtime { seconds: i64::try_from(header.mtime()?).unwrap_or(0), nanos: 0 },
    };
    let xattrs = pending.pax.iter().filter_map(|(keyword, value)| {
        Some((keyword.strip_prefix("SCHILY.xattr.")?.as_bytes().to_vec(), value.clone()))
    });
    Ok(FileMetadata {
        mode: header.mode()? & 0o7777,
        uid: number("uid", header.uid())?,
        gid: number("gid", header.gid())?,
        user: name("uname", header.username_bytes()),
        group: name("gname", header.groupname_bytes()),
        mtime,
        xattrs: xattrs.collect(),
    })
}

/// An extension header's contents, which are bounded.
fn small<R: Read>(entry: &mut TarEntry<'_, R>) -> Result<Vec<u8>> {
    let size = entry.header().entry_size().map_err(damaged)?;
    if size > HEADER_BYTES_MAX {
        return Err(Error::integrity(format!(
            "the archive has a header of {size} bytes, more than any needs"
        )));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(damaged)?;
    Ok(bytes)
}

/// GNU's long names end in a NUL.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

/// Contents as they are stored. What goes wrong in reading them is damage,
/// whoever copies them to wherever.
struct Stored<R>(R);

impl<R: Read> Read for Stored<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf).map_err(|e| match e.kind() {
            io::ErrorKind::Interrupted => e,
            _ => damaged(e).into(),
        })
    }
}

/// A sparse file's contents with its holes as zeros.
struct Expanded<'a> {
    stored: &'a mut dyn Read,
    segments: std::vec::IntoIter<(u64, u64)>,
    now: Option<(u64, u64)>,
    at: u64,
    size: u64,
}

impl Read for Expanded<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.now.is_none() {
                self.now = self.segments.next();
            }
            let next = self.now.map_or(self.size, |(offset, _)| offset);
            if self.at < next {
                let n = usize::try_from(next - self.at).unwrap_or(usize::MAX).min(buf.len());
                buf[..n].fill(0);
                self.at += n as u64;
                return Ok(n);
            }
            let Some((offset, len)) = self.now else { return Ok(0) };
            let left = offset + len - self.at;
            if left == 0 {
                self.now = None;
                continue;
            }
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            let n = self.stored.read(&mut buf[..wanted])?;
            self.at += n as u64;
            return Ok(n);
        }
    }
}

/// What follows the first block of the end mark: at least the second one, and
/// nothing but zeros (writers pad to their record size).
fn read_to_end(stream: &mut dyn Read) -> Result<Ending> {
    let mut total = 0;
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let n = match stream.read(&mut chunk) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(damaged(e)),
        };
        if n == 0 {
            return Ok(if total >= 512 { Ending::Proper } else { Ending::CutShort });
        }
        total += n;
        if chunk[..n].iter().any(|b| *b != 0) {
            return Err(Error::integrity("there is data after the end of the archive"));
        }
    }
}

/// Whatever goes wrong below the archive has its own words; the rest, a gzip or
/// tar that does not parse, is damage.
fn damaged(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => Error::integrity(format!("the archive is damaged or cut short: {error}"))
            .hint("choose another snapshot with `offsite list`"),
    }
}
