//! The archive: POSIX pax tar, written and read.
//!
//! `tar` formats and parses the headers; pax records are ours, because paths
//! and attributes are bytes, which need not be UTF-8 and may hold newlines.

mod pax;
mod read;
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

#[cfg(test)]
mod tests;
