//! Which snapshots a destination holds, from nothing but its object names.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::name::{MarkName, ObjectName, SnapshotName};
use crate::destination::Object;
use crate::error::{Error, Result};

/// Whether a snapshot can be relied on, as far as its names tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All of it is there.
    Complete,
    /// All of it is there, but the run said that something required was not.
    Degraded,
    /// Parts are missing; it cannot be restored.
    Incomplete,
}

impl State {
    /// The word for people and for JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Complete => "complete",
            State::Degraded => "degraded",
            State::Incomplete => "incomplete",
        }
    }
}

/// One snapshot at a destination.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its name.
    pub name: SnapshotName,
    /// Bytes stored, over all parts that are there.
    pub size_bytes: u64,
    /// Whether it can be relied on.
    pub state: State,
    /// When a drill proved it restorable; `None` when none has.
    pub proven_at: Option<DateTime<Utc>>,
    /// When later runs found that nothing had changed since, oldest first.
    pub unchanged_at: Vec<DateTime<Utc>>,
    /// Its objects in order: one, or its parts.
    pub objects: Vec<Object>,
}

/// Finds the snapshots among `objects`, newest first. Other objects, such as
/// the destination's `RESTORE.md`, are passed over.
pub fn snapshots(objects: Vec<Object>) -> Vec<Snapshot> {
    let mut found: BTreeMap<SnapshotName, BTreeMap<(usize, usize), Object>> = BTreeMap::new();
    let mut marks: BTreeMap<(String, String), BTreeSet<DateTime<Utc>>> = BTreeMap::new();
    for object in objects {
        if let Some(mark) = MarkName::parse(&object.name) {
            marks.entry((mark.system, mark.id)).or_default().insert(mark.at);
        } else if let Some(name) = ObjectName::parse(&object.name) {
            found.entry(name.snapshot).or_default().insert(name.part.unwrap_or((1, 1)), object);
        }
    }
    let snapshots = found.into_iter().rev().map(|(name, parts)| {
        let times = marks.remove(&(name.system().to_owned(), name.id().to_owned())).unwrap_or_default();
        let unchanged_at = times.into_iter().filter(|at| *at >= name.taken_at()).collect();
        Snapshot { unchanged_at, ..snapshot(name, parts) }
    });
    snapshots.collect()
}

impl Snapshot {
    /// The last time up to `limit` at which everything was as it is in here, as
    /// far as the names of objects tell. Marks of a clock that ran ahead do not
    /// count.
    pub fn current_at(&self, limit: DateTime<Utc>) -> DateTime<Utc> {
        let known = self.unchanged_at.iter().rev().find(|at| **at <= limit);
        known.copied().unwrap_or(self.name.taken_at())
    }
}

fn snapshot(name: SnapshotName, parts: BTreeMap<(usize, usize), Object>) -> Snapshot {
    // Parts of two different counts cannot both be right; neither is trusted.
    let counts: Vec<usize> = parts.keys().map(|(_, n)| *n).collect();
    let whole = counts.first().is_some_and(|n| counts.iter().all(|m| m == n) && counts.len() == *n);
    let state = match (whole, name.is_degraded()) {
        (false, _) => State::Incomplete,
        (true, true) => State::Degraded,
        (true, false) => State::Complete,
    };
    let objects: Vec<Object> = parts.into_values().collect();
    let size_bytes = objects.iter().map(|o| o.size_bytes).sum();
    Snapshot { name, size_bytes, state, proven_at: None, unchanged_at: Vec::new(), objects }
}

/// Finds the snapshot that `wanted` names: a name, a unique prefix of one, an
/// id, or `latest` (the newest complete one). `snapshots` is newest first.
pub fn choose<'a>(snapshots: &'a [Snapshot], wanted: &str) -> Result<&'a Snapshot> {
    if wanted == "latest" {
        return latest(snapshots);
    }
    let by_id = snapshots.iter().filter(|s| s.name.id() == wanted);
    let exact: Vec<_> = by_id.chain(snapshots.iter().filter(|s| s.name.to_string() == wanted)).collect();
    let matching = if exact.is_empty() {
        let prefix = |s: &&Snapshot| {
            let name = s.name.to_string();
            !wanted.is_empty() && (name.starts_with(wanted) || s.name.file_name().starts_with(wanted))
        };
        snapshots.iter().filter(prefix).collect()
    } else {
        exact
    };
    match matching.as_slice() {
        [] => Err(not_found(snapshots, wanted)),
        [one] if one.state == State::Incomplete => Err(incomplete(one)),
        [one] => Ok(one),
        [first, second, ..] => Err(Error::usage(format!(
            "`{wanted}` names {} snapshots, {} and {} among them",
            matching.len(),
            first.name,
            second.name
        ))
        .hint("give more of the name, or the id")),
    }
}

fn latest(snapshots: &[Snapshot]) -> Result<&Snapshot> {
    let systems: std::collections::BTreeSet<&str> = snapshots.iter().map(|s| s.name.system()).collect();
    if systems.len() > 1 {
        let systems = systems.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Error::usage(format!("this destination holds several systems: {systems}"))
            .hint("say which: --system NAME"));
    }
    if let Some(complete) = snapshots.iter().find(|s| s.state == State::Complete) {
        return Ok(complete);
    }
    match snapshots.first() {
        None => Err(Error::failed("there is no snapshot at this destination")
            .hint("look at the destination's address, and whether a backup has ever succeeded")),
        Some(newest) => Err(Error::failed(format!(
            "none of the {} snapshots is complete; the newest is {} ({})",
            snapshots.len(),
            newest.name,
            newest.state.as_str()
        ))
        .hint("`offsite list` shows them; a degraded one can be restored by its name or id")),
    }
}

fn incomplete(snapshot: &Snapshot) -> Error {
    Error::integrity(format!(
        "{} is incomplete: {} of its parts are there, and not all",
        snapshot.name,
        snapshot.objects.len()
    ))
    .hint("choose another one with `offsite list`")
}

fn not_found(snapshots: &[Snapshot], wanted: &str) -> Error {
    let near = snapshots
        .iter()
        .map(|s| {
            (
                s,
                strsim::damerau_levenshtein(wanted, s.name.id())
                    .min(strsim::damerau_levenshtein(wanted, &s.name.to_string())),
            )
        })
        .min_by_key(|(_, distance)| *distance)
        .filter(|(_, distance)| *distance <= 3);
    let error = Error::failed(format!("there is no snapshot `{wanted}`"));
    match near {
        Some((s, _)) => error.hint(format!("did you mean {} ({})?", s.name.id(), s.name)),
        None => error.hint("`offsite list` shows the names"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "s/2026/11/20261121T061703Z-aaaaaaaa.tar.gz.fernet";
    const B: &str = "s/2026/11/20261121T001703Z-bbbbbbbb.degraded.tar.gz.fernet";
    const C: &str = "s/2026/10/20261020T001703Z-cccccccc.tar.gz.fernet";

    fn list(names: &[&str]) -> Vec<Snapshot> {
        snapshots(names.iter().map(|n| Object { name: (*n).to_owned(), size_bytes: 10 }).collect())
    }

    #[test]
    fn newest_first_and_nothing_else() {
        let found = list(&[C, "RESTORE.md", A, B, "drills/x.json"]);
        assert_eq!(found.iter().map(|s| s.name.to_string()).collect::<Vec<_>>(), [A, B, C]);
        assert_eq!(found[1].state, State::Degraded);
    }

    #[test]
    fn parts_make_a_snapshot_only_when_all_are_there() {
        let part = |k: usize| format!("{A}.{k}-of-3");
        assert_eq!(list(&[&part(1), &part(3)])[0].state, State::Incomplete);
        let whole = list(&[&part(3), &part(1), &part(2)]);
        assert_eq!((whole.len(), whole[0].state, whole[0].size_bytes), (1, State::Complete, 30));
        assert_eq!(
            whole[0].objects.iter().map(|o| o.name.clone()).collect::<Vec<_>>(),
            [part(1), part(2), part(3)]
        );
        assert_eq!(list(&[&part(1), &part(2), &part(3), A])[0].state, State::Incomplete);
    }

    #[test]
    fn a_snapshot_is_chosen_by_name_prefix_id_or_latest() {
        let all = list(&[A, B, C]);
        for (wanted, expected) in
            [("latest", A), ("bbbbbbbb", B), (C, C), ("s/2026/10", C), ("20261020", C), ("20261121T06", A)]
        {
            assert_eq!(choose(&all, wanted).unwrap().name.to_string(), expected, "{wanted}");
        }
        assert!(choose(&all, "s/2026/11").unwrap_err().message().contains("names 2 snapshots"));
        assert!(choose(&all, "aaaaaaab").unwrap_err().next_step().unwrap().contains("did you mean aaaaaaaa"));
        assert!(choose(&all, "").is_err());
    }

    #[test]
    fn latest_is_never_degraded_nor_of_another_system() {
        assert_eq!(choose(&list(&[B, C]), "latest").unwrap().name.to_string(), C);
        assert!(
            choose(&list(&[B]), "latest")
                .unwrap_err()
                .message()
                .contains("none of the 1 snapshots is complete")
        );
        assert!(choose(&list(&[]), "latest").unwrap_err().message().contains("no snapshot"));
        let other = C.replacen("s/", "t/", 1);
        assert!(
            choose(&list(&[A, &other]), "latest").unwrap_err().message().contains("several systems: s, t")
        );
    }
}
