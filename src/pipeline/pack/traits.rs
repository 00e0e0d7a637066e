//! What tells whether anything has changed between two runs.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use ring::digest::{Context, Digest, SHA256};

use super::Order;
use crate::error::Result;
use crate::pipeline::select::{Event, Item};
use crate::sources::sqlite;

/// Two runs with the same ones would store the same.
#[derive(Clone)]
pub struct Traits {
    /// A digest of what the file system says of each path, times included.
    pub stats: Digest,
    /// A digest of contents and metadata.
    pub likeness: Digest,
}

/// Looks at every path without reading its contents, and digests what the file
/// system says of it.
pub fn look(order: &Order<'_>) -> Result<Digest> {
    let mut stats = Context::new(&SHA256);
    order.selection.walk(&mut |event| {
        order.stop.check()?;
        if let Event::Item(item) = event {
            note(&mut stats, &item);
        }
        Ok(())
    })?;
    Ok(stats.finish())
}

/// What changes with a path, even when its contents end up the same. Of a folder
/// above a tier-1 path that is not its time: what lies beside changes it.
pub(super) fn note(stats: &mut Context, item: &Item) {
    if item.metadata.is_file() && sqlite::owner_of(&item.path).is_some() {
        // Even reading its database touches it; what is in it is in the copy.
        return;
    }
    let meta = &item.metadata;
    stats.update(item.path.as_os_str().as_bytes());
    stats.update(&[0]);
    let owner = [meta.mode(), meta.uid(), meta.gid()].map(u32::to_le_bytes);
    owner.iter().for_each(|number| stats.update(number));
    if item.tier1.is_some() {
        let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()].map(i64::to_le_bytes);
        times.iter().for_each(|time| stats.update(time));
        [meta.ino(), meta.size()].iter().for_each(|number| stats.update(&number.to_le_bytes()));
    }
}
