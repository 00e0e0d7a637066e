//! `list`: the snapshots at a destination, newest first.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Home, Whence};
use crate::error::Result;
use crate::repository::listing::Snapshot;

/// What `list --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Newest first.
    pub snapshots: Vec<Line>,
}

/// One snapshot.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its full name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The system that it is of.
    pub system: String,
    /// When its run started.
    pub taken_at: DateTime<Utc>,
    /// Bytes stored.
    pub size_bytes: u64,
    /// `complete`, `degraded` or `incomplete`.
    pub state: &'static str,
    /// When a drill proved it; null when none has.
    pub proven_at: Option<DateTime<Utc>>,
    /// When a later run last found that nothing had changed since; left out when
    /// none has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unchanged_at: Option<DateTime<Utc>>,
}

impl From<&Snapshot> for Line {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            name: snapshot.name.to_string(),
            id: snapshot.name.id().to_owned(),
            system: snapshot.name.system().to_owned(),
            taken_at: snapshot.name.taken_at(),
            size_bytes: snapshot.size_bytes,
            state: snapshot.state.as_str(),
            proven_at: snapshot.proven_at,
            unchanged_at: snapshot.unchanged_at.last().copied(),
        }
    }
}

/// Lists the snapshots: one API call, however many there are.
pub async fn list(whence: &Whence) -> Result<Report> {
    let home = Home::open(whence)?;
    let found = home.snapshots().await?;
    Ok(Report { snapshots: found.iter().map(Line::from).collect() })
}
