//! `verify`: reads a snapshot back in full and checks all of it.

use std::time::Instant;

use serde::Serialize;

use super::{Home, Run, Whence};
use crate::error::Result;

/// What was checked.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The snapshot's name.
    pub snapshot: String,
    /// `complete` or `degraded`.
    pub state: &'static str,
    /// Whether it has a manifest; without one only its authenticity is known.
    pub manifest: bool,
    /// Bytes read back from the destination.
    pub size_bytes: u64,
    /// Fernet tokens authenticated.
    pub tokens: u64,
    /// Entries whose checksum and metadata are as the manifest says.
    pub entries: u64,
    /// Bytes of contents.
    pub content_bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Requests sent to the destination.
    pub api_calls: u64,
}

/// Verifies the snapshot that `wanted` names.
pub async fn verify(whence: &Whence, wanted: &str, run: &Run) -> Result<Report> {
    let began = Instant::now();
    let home = Home::open(whence)?;
    // Without a key there is no need to ask the destination.
    home.keys()?;
    let found = home.find(wanted).await?;
    let unpacked = home.read_back(&found, run).await?;
    Ok(Report {
        snapshot: found.shown(),
        state: found.snapshot.state.as_str(),
        manifest: unpacked.manifest.is_some(),
        size_bytes: found.snapshot.size_bytes,
        tokens: unpacked.tokens,
        entries: unpacked.entries,
        content_bytes: unpacked.bytes,
        seconds: began.elapsed().as_secs_f64(),
        api_calls: home.destination.api_calls(),
    })
}
