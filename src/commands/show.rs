//! `show`: a snapshot's manifest. All of it is read and checked on the way,
//! because the manifest is the last thing in it.

use serde::Serialize;
use serde_json::Value;

use super::{Home, Run, Whence, blocking, scratch_folder};
use crate::error::{Error, Result};
use crate::pipeline::transfer::download;
use crate::pipeline::unpack::unpack;
use crate::progress::Stage;
use crate::repository::manifest::{Entry, Manifest};
use crate::scratch::Scratch;

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
    let keys = home.keys()?;
    let snapshot = home.choose(wanted).await?;
    let stream = run.stop.reading(download(home.destination.clone(), &snapshot, &run.progress));
    let name = snapshot.name.clone();
    let report = blocking(move || {
        let scratch = Scratch::new(&scratch_folder())?;
        let unpacked = unpack(stream, &keys, Some(&name), scratch.path(), &mut |_| Ok(()))?;
        let (Some(manifest), Some(mut text)) = (unpacked.manifest, unpacked.manifest_text) else {
            return Err(Error::failed("it has no manifest: the earlier Python system stored it")
                .hint("`offsite restore` unpacks it all the same"));
        };
        let cannot = |e| Error::from_io("cannot read the manifest", e);
        std::io::Seek::rewind(&mut text).map_err(cannot)?;
        let mut entries = Vec::new();
        Manifest::read(&text, &mut |entry| {
            entries.push(entry);
            Ok(())
        })?;
        Ok(Report { manifest, entries })
    })
    .await
    .map_err(|e| e.during(&snapshot.name))?;
    run.progress.end(Stage::Download);
    Ok(report)
}

impl Report {
    /// The JSON form: the manifest as it is stored.
    pub fn json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}
