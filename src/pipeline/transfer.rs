//! Transfer: between a sealed file and a destination's objects.
//!
//! The only stage that meets the network. A sealed snapshot is a file before it
//! is sent: a PUT needs its length and its blob SHA-1 before the first byte, and
//! a retry needs the bytes again.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::seal::Sealed;
use crate::destination::{Destination, Source};
use crate::error::{Error, Result};
use crate::progress::{Progress, Stage};
use crate::repository::listing::Snapshot;
use crate::repository::name::SnapshotName;

/// Chunks that may wait between the network and the reader.
const CHUNKS_AHEAD: usize = 4;

/// GitHub asks for a second between writes
/// (<https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api>).
const PAUSE_BETWEEN_PARTS: Duration = Duration::from_secs(1);

/// Stores a sealed snapshot under its name, in one object or in parts.
pub async fn upload(
    destination: &Destination,
    name: &SnapshotName,
    sealed: &Sealed<File>,
    progress: &Progress,
) -> Result<()> {
    let parts = cut(&sealed.ends, destination.object_bytes_max())?;
    progress.begin(Stage::Upload, Some(sealed.len()));
    for (at, &(offset, len)) in parts.iter().enumerate() {
        if at > 0 && destination.api_calls() > 0 {
            tokio::time::sleep(PAUSE_BETWEEN_PARTS).await;
        }
        let source = Source { file: &sealed.out, offset, len };
        destination.put_new(&name.object(at + 1, parts.len()), &source).await?;
        progress.bytes(Stage::Upload, len);
    }
    progress.end(Stage::Upload);
    Ok(())
}

/// Cuts a sealed file between lines into parts of at most `max` bytes, as few
/// as can be: `(offset, length)` of each.
fn cut(ends: &[u64], max: Option<u64>) -> Result<Vec<(u64, u64)>> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut last = 0;
    for &end in ends {
        if max.is_some_and(|max| end - last > max) {
            return Err(Error::failed("one token is larger than an object of this destination may be"));
        }
        if max.is_some_and(|max| end - start > max) {
            parts.push((start, last - start));
            start = last;
        }
        last = end;
    }
    parts.push((start, last - start));
    Ok(parts)
}

/// A snapshot's bytes, all parts in order, as a blocking reader. The download
/// runs as a task of its own and stops when the reader is dropped.
pub fn download(destination: Arc<Destination>, snapshot: &Snapshot, progress: &Progress) -> Download {
    let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
    let names: Vec<String> = snapshot.objects.iter().map(|o| o.name.clone()).collect();
    progress.begin(Stage::Download, Some(snapshot.size_bytes));
    tokio::spawn(async move {
        for name in names {
            destination.get(&name, sender.clone()).await;
            if sender.is_closed() {
                return;
            }
        }
    });
    Download { chunks, chunk: Bytes::new(), progress: progress.clone(), failed: false }
}

/// A reader of what a destination sends; made by [`download`].
pub struct Download {
    chunks: mpsc::Receiver<Result<Bytes>>,
    chunk: Bytes,
    progress: Progress,
    failed: bool,
}

impl Read for Download {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            if self.failed {
                return Err(io::Error::other("the download has failed"));
            }
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => {
                    self.progress.bytes(Stage::Download, chunk.len() as u64);
                    self.chunk = chunk;
                }
                Some(Err(error)) => {
                    self.failed = true;
                    return Err(error.into());
                }
            }
        }
        let n = buf.len().min(self.chunk.len());
        buf[..n].copy_from_slice(&self.chunk.split_to(n));
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_between_lines_and_cover_everything() {
        assert_eq!(cut(&[10], Some(10)).unwrap(), [(0, 10)]);
        assert_eq!(cut(&[10, 20, 30, 35], Some(20)).unwrap(), [(0, 20), (20, 15)]);
        assert_eq!(cut(&[10, 20, 30], Some(10)).unwrap(), [(0, 10), (10, 10), (20, 10)]);
        assert_eq!(cut(&[10, 20, 30], None).unwrap(), [(0, 30)]);
        assert!(cut(&[10, 30], Some(15)).is_err());
    }
}
