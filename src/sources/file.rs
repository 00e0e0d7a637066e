//! A plain file's contents, read such that a change during the read is noticed.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags, ResolveFlags, SeekFrom};

use crate::error::{Error, Result};

/// Files up to this size are read into memory, where a second try is free.
const SMALL_BYTES: u64 = 1024 * 1024;

/// A larger file that was touched this recently is copied aside first, so that
/// it can be read again when it changes meanwhile.
const HOT: Duration = Duration::from_secs(60);

/// How often a file that does not hold still is read.
const ATTEMPTS: u32 = 4;

/// A hole smaller than this is not worth describing.
const HOLE_BYTES_MIN: u64 = 64 * 1024;

/// The contents of a file: exactly `size` bytes, whatever happens to the file.
pub struct Content {
    size: u64,
    segments: Vec<(u64, u64)>,
    data: Data,
    segment: usize,
    at: u64,
    live: Option<Stamp>,
    changed: bool,
    fault: Option<io::Error>,
}

enum Data {
    Memory(Vec<u8>),
    File(File),
}

/// What changes when a file is written to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// Opens a file for reading without following a symlink in any component:
/// `path` is real, so a link in it was put there after the walk. Does not wait
/// on a fifo, and asks the system not to touch the access time.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let attempt = |flags: OFlags| {
        match rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            // An old kernel, or a container's filter that does not know the call.
            Err(rustix::io::Errno::NOSYS) => rustix::fs::open(path, flags, Mode::empty()),
            other => other,
        }
    };
    // NOATIME is for the owner only.
    match attempt(flags | OFlags::NOATIME) {
        Err(rustix::io::Errno::PERM) => Ok(attempt(flags)?.into()),
        other => Ok(other?.into()),
    }
}

impl Content {
    /// Contents that lie complete in `file`, which nobody else writes to.
    pub fn still(file: File, size: u64) -> Self {
        Self::new(Data::File(file), size, vec![(0, size)])
    }

    /// The contents of `path`, opened as `file`. What may be changing right now
    /// is read until it holds still, a few times; copies go to nameless files in
    /// `scratch`.
    pub fn steady(file: File, path: &Path, scratch: &Path) -> Result<Self> {
        let cannot = |e| Error::io("read", path, e);
        let mut attempt = 0;
        loop {
            let meta = file.metadata().map_err(cannot)?;
            let before = Stamp::of(&meta);
            let mut content = if before.size <= SMALL_BYTES {
                let mut bytes = Vec::with_capacity(before.size as usize);
                (&file).take(before.size).read_to_end(&mut bytes).map_err(cannot)?;
                let complete = bytes.len() as u64 == before.size;
                bytes.resize(before.size as usize, 0);
                Self {
                    changed: !complete,
                    ..Self::new(Data::Memory(bytes), before.size, vec![(0, before.size)])
                }
            } else {
                let segments = segments(&file, &meta).map_err(cannot)?;
                if attempt == 0 && !is_hot(&meta) {
                    let live = file.try_clone().map_err(cannot)?;
                    let content = Self::new(Data::File(live), before.size, segments);
                    return Ok(Self { live: Some(before), ..content });
                }
                match copy_aside(&file, before.size, &segments, scratch) {
                    Ok((copy, complete)) => {
                        Self { changed: !complete, ..Self::new(Data::File(copy), before.size, segments) }
                    }
                    // No room for a copy, or a fault that reading will meet again:
                    // the file as it is, once, is better than nothing of it.
                    Err(_) => {
                        let content = Self::new(Data::File(file), before.size, segments);
                        return Ok(Self { live: Some(before), ..content });
                    }
                }
            };
            let after = Stamp::of(&file.metadata().map_err(cannot)?);
            content.changed |= before != after;
            attempt += 1;
            if !content.changed || attempt == ATTEMPTS {
                return Ok(content);
            }
            std::thread::sleep(Duration::from_millis(40 * u64::from(attempt)));
            io::Seek::rewind(&mut &file).map_err(cannot)?;
        }
    }

    fn new(data: Data, size: u64, segments: Vec<(u64, u64)>) -> Self {
        let segments = segments.into_iter().filter(|(_, len)| *len > 0).collect();
        Self { size, segments, data, segment: 0, at: 0, live: None, changed: false, fault: None }
    }

    /// The length, holes included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// `(offset, length)` of everything that is not a hole, in order.
    pub fn segments(&self) -> &[(u64, u64)] {
        &self.segments
    }

    /// Whether the file changed while it was read; ask after reading.
    pub fn has_changed(&self) -> bool {
        let moved = match (&self.data, self.live) {
            (Data::File(file), Some(before)) => {
                file.metadata().map_or(true, |meta| Stamp::of(&meta) != before)
            }
            _ => false,
        };
        self.changed || moved
    }

    /// The error that reading ran into, if any; zeros stand for what was lost.
    pub fn take_fault(&mut self) -> Option<io::Error> {
        self.fault.take()
    }
}

/// Yields the segments one after the other, always all of their bytes.
impl Read for Content {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(&(offset, len)) = self.segments.get(self.segment) else { return Ok(0) };
        let wanted = usize::try_from(len - self.at).unwrap_or(usize::MAX).min(buf.len());
        let buf = &mut buf[..wanted];
        let n = match &self.data {
            Data::Memory(bytes) => {
                let start = (offset + self.at) as usize;
                buf.copy_from_slice(&bytes[start..start + wanted]);
                wanted
            }
            Data::File(_) if self.fault.is_some() => 0,
            Data::File(file) => match file.read_at(buf, offset + self.at) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => return Err(e),
                Err(e) => {
                    self.fault = Some(e);
                    0
                }
                Ok(n) => n,
            },
        };
        let n = if n == 0 && wanted > 0 {
            // Cut short: the header has promised this many bytes already.
            self.changed = true;
            buf.fill(0);
            wanted
        } else {
            n
        };
        self.at += n as u64;
        if self.at == len {
            self.segment += 1;
            self.at = 0;
        }
        Ok(n)
    }
}

fn is_hot(meta: &Metadata) -> bool {
    let now = SystemTime::now();
    let recent = |seconds: i64| {
        let touched = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        // In the future counts as recent: one of the two clocks is wrong.
        now.duration_since(touched).map_or(true, |age| age < HOT)
    };
    recent(meta.mtime()) || recent(meta.ctime())
}

/// Copies the segments into a nameless file; also says whether all were there.
fn copy_aside(file: &File, size: u64, segments: &[(u64, u64)], scratch: &Path) -> io::Result<(File, bool)> {
    let copy = tempfile::tempfile_in(scratch)?;
    copy.set_len(size)?;
    let mut chunk = vec![0; 256 * 1024];
    let mut complete = true;
    for &(offset, len) in segments {
        let mut done = 0;
        while done < len {
            let wanted = usize::try_from(len - done).unwrap_or(usize::MAX).min(chunk.len());
            let n = file.read_at(&mut chunk[..wanted], offset + done)?;
            if n == 0 {
                complete = false;
                break;
            }
            copy.write_all_at(&chunk[..n], offset + done)?;
            done += n as u64;
        }
    }
    Ok((copy, complete))
}

/// Where a file has data. A file without holes worth the name is one segment.
fn segments(file: &File, meta: &Metadata) -> io::Result<Vec<(u64, u64)>> {
    let size = meta.size();
    let whole = vec![(0, size)];
    if meta.blocks() * 512 + HOLE_BYTES_MIN > size {
        return Ok(whole);
    }
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            // No data behind `at`.
            Err(rustix::io::Errno::NXIO) => break,
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => return Ok(whole),
            Err(e) => return Err(e.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.clamp(start, size);
        if end == start {
            break;
        }
        found.push((start, end - start));
        at = end;
    }
    rustix::fs::seek(file, SeekFrom::Start(0))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn read(path: &Path, scratch: &Path) -> (Vec<u8>, Content) {
        let mut content = Content::steady(open(path).unwrap(), path, scratch).unwrap();
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).unwrap();
        (bytes, content)
    }

    #[test]
    fn small_hot_and_cold_files_are_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        for (size, old) in [(0, false), (10, false), (3_000_000, false), (3_000_000, true)] {
            let path = dir.path().join(format!("{size}{old}"));
            let bytes: Vec<u8> = (0..size).map(|i| (i % 241) as u8).collect();
            fs::write(&path, &bytes).unwrap();
            let (found, content) = read(&path, dir.path());
            assert!(found == bytes && !content.has_changed());
        }
    }

    #[test]
    fn a_file_that_shrinks_keeps_its_promised_size_and_is_named_as_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, vec![1; 2_000_000]).unwrap();
        let file = open(&path).unwrap();
        let live = Stamp::of(&file.metadata().unwrap());
        let mut content =
            Content { live: Some(live), ..Content::new(Data::File(file), 2_000_000, vec![(0, 2_000_000)]) };
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1000).unwrap();
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).unwrap();
        assert!(bytes.len() == 2_000_000 && content.has_changed());
    }

    #[test]
    fn a_writer_that_stops_in_time_gives_a_steady_copy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, vec![1; 2_000_000]).unwrap();
        let writer = {
            let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
            std::thread::spawn(move || (0..20).for_each(|_| file.write_all(&[2; 100]).unwrap()))
        };
        let (bytes, content) = read(&path, dir.path());
        writer.join().unwrap();
        assert!(!content.has_changed());
        // One of the states that it was in, whichever.
        assert!(fs::read(&path).unwrap().starts_with(&bytes) && bytes.len() % 100 == 0);
    }

    #[test]
    fn holes_are_found_and_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        let file = File::create(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(b"middle", 512 << 20).unwrap();
        let (bytes, content) = read(&path, dir.path());
        assert_eq!(content.size(), 1 << 30);
        assert!(bytes.len() < 1 << 20, "{} bytes of data", bytes.len());
        assert!(bytes.starts_with(b"middle"));
    }

    #[test]
    fn a_symlink_anywhere_in_the_path_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        fs::create_dir(dir.join("real")).unwrap();
        fs::write(dir.join("real/f"), "x").unwrap();
        std::os::unix::fs::symlink("real", dir.join("link")).unwrap();
        assert!(open(&dir.join("real/f")).is_ok());
        assert!(open(&dir.join("link/f")).is_err());
    }
}
