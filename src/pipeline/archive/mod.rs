//! The archive: POSIX pax tar, written and read.
//!
//! `tar` formats and parses the headers; pax records are ours, because paths
//! and attributes are bytes, which need not be UTF-8 and may hold newlines.

mod pax;
mod read;
mod sums;
mod write;

pub use read::{Ending, Member, read};
pub use write::{About, ArchiveWriter};

/// Where tier-1 files are in the archive.
pub const FILES: &str = "files";
/// Where dumps are in the archive.
pub const POSTGRES: &str = "postgres";
/// How to restore by hand.
pub const RESTORE_NOTES: &str = "RESTORE.md";
/// What `sha256sum -c` reads.
pub const SHA256SUMS: &str = "SHA256SUMS";
/// The last entry.
pub const MANIFEST: &str = "manifest.json";

use crate::repository::manifest::{Entry, EntryPath, EntryType, LinkTarget};
use crate::sources::metadata::FileMetadata;

/// A member as the manifest records it, without what only its writer knows: the
/// tier-1 group, and whether it changed while it was read.
pub fn entry(
    path: &[u8],
    kind: EntryType,
    metadata: &FileMetadata,
    size: u64,
    sha256: Option<String>,
    link: Option<&[u8]>,
) -> Entry {
    Entry {
        path: EntryPath::new(path),
        kind,
        size,
        sha256,
        mode: format!("{:04o}", metadata.mode),
        uid: metadata.uid,
        gid: metadata.gid,
        user: metadata.user.clone(),
        group: metadata.group.clone(),
        mtime: metadata.mtime.decimal(),
        link: link.map(LinkTarget::new),
        tier1: None,
        changed: false,
    }
}

#[cfg(test)]
mod tests;
