//! Small files: opened in order by whoever stages them, written by the workers.
//!
//! A hundred thousand files cost more in system calls than in bytes, so those
//! calls are spread over all cores. That a file is new and lies where it should
//! is settled before it comes here.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::sources::metadata::FileMetadata;
use crate::workers::{InOrder, Workers};

/// Files up to this size are small.
pub(super) const SMALL_BYTES: u64 = 64 * 1024;

/// So many files, or so many bytes, are given to a worker at once. Each is an
/// open file until then.
const FILES_MAX: usize = 8;
const BYTES_MAX: usize = 256 * 1024;

/// A new, empty file, and what it shall be.
pub(super) struct SmallFile {
    pub(super) file: File,
    pub(super) path: Vec<u8>,
    pub(super) metadata: FileMetadata,
    pub(super) contents: Vec<u8>,
}

/// Files on their way to the disk.
pub(super) struct SmallFiles {
    batch: Vec<SmallFile>,
    bytes: usize,
    written: InOrder<Result<Vec<String>>>,
    refused: Vec<String>,
}

impl SmallFiles {
    pub(super) fn new(workers: &Workers) -> Self {
        Self { batch: Vec::new(), bytes: 0, written: InOrder::new(workers), refused: Vec::new() }
    }

    /// Takes a file. An error may be that of another one before it.
    pub(super) fn add(&mut self, small: SmallFile) -> Result<()> {
        self.bytes += small.contents.len();
        self.batch.push(small);
        if self.batch.len() >= FILES_MAX || self.bytes >= BYTES_MAX { self.submit() } else { Ok(()) }
    }

    /// Waits until all are written. Returns what could not be given back.
    pub(super) fn finish(&mut self) -> Result<Vec<String>> {
        self.submit()?;
        while self.collect()? {}
        Ok(std::mem::take(&mut self.refused))
    }

    fn submit(&mut self) -> Result<()> {
        while self.written.is_full() {
            self.collect()?;
        }
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        self.written.submit(move || {
            let mut refused = Vec::new();
            for small in batch {
                write(small, &mut refused)?;
            }
            Ok(refused)
        });
        Ok(())
    }

    fn collect(&mut self) -> Result<bool> {
        let Some(refused) = self.written.take() else { return Ok(false) };
        self.refused.extend(refused??);
        Ok(true)
    }
}

fn write(mut small: SmallFile, refused: &mut Vec<String>) -> Result<()> {
    let path = Path::new(OsStr::from_bytes(&small.path));
    small
        .file
        .write_all(&small.contents)
        .map_err(|e| Error::io("write", path, e).hint("is the disk full?"))?;
    for reason in small.metadata.apply_to_file(&small.file, path)? {
        refused.push(format!("{}: {reason}", path.display()));
    }
    Ok(())
}
