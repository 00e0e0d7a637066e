//! `show`: a snapshot's manifest. All of it is read and checked on the way,
//! because the manifest is the last thing in it.

use std::io::Seek;

use serde::Serialize;
use serde_json::Value;

use super::{Home, Run, Whence};
use crate::error::{Error, Result};
use crate::repository::manifest::{Entry, Manifest};

/// A snapshot's manifest.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Everything but the entries.
    #[serde(flatten)]
    pub manifest: Manifest,
    /// The entries, in the order of the archive.
    pub entries: Vec<Entry>,
}

/// Reads the manifest of the snapshot that `wanted` names.
pub async fn show(whence: &Whence, wanted: &str, run: &Run) -> Result<Report> {
    let home = Home::open(whence)?;
    home.keys()?;
    let found = home.find(wanted).await?;
    let unpacked = home.read_back(&found, run).await?;
    let (Some(manifest), Some(mut text)) = (unpacked.manifest, unpacked.manifest_text) else {
        return Err(Error::failed(format!(
            "{} has no manifest: the earlier Python system stored it",
            found.shown()
        ))
        .hint("`offsite restore` unpacks it all the same"));
    };
    text.rewind().map_err(|e| Error::from_io("cannot read the manifest", e))?;
    let mut entries = Vec::new();
    Manifest::read(&text, &mut |entry| {
        entries.push(entry);
        Ok(())
    })?;
    Ok(Report { manifest, entries })
}

impl Report {
    /// The JSON form: the manifest as it is stored.
    pub fn json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}
