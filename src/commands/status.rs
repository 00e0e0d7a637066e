//! `status`: is the newest snapshot young and whole? Asked of the destination,
//! not of this machine's memory.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::list::Line;
use super::{Home, Whence};
use crate::error::Result;
use crate::repository::listing::{Snapshot, State};

/// A snapshot that is further ahead of the clock than this was made, or is
/// looked at, by a clock that is wrong; it must not hide that backups stopped.
const CLOCK_SKEW_MAX: TimeDelta = TimeDelta::minutes(10);

/// How things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The newest snapshot is complete and young enough.
    Good,
    /// The newest snapshot lacks something required.
    Degraded,
    /// There is none, or it is older than `--max-age`.
    Stale,
}

/// What `status` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How things stand; decides the exit code.
    pub verdict: Verdict,
    /// The newest snapshot that is all there.
    pub newest: Option<Line>,
    /// Its age; counted from the last run that found nothing changed since, if any.
    pub age_seconds: Option<i64>,
    /// The newest complete one.
    pub newest_complete: Option<Line>,
    /// The newest one that a drill has proven.
    pub proven_at: Option<DateTime<Utc>>,
    /// How many snapshots there are.
    pub snapshots: usize,
    /// What else a person should know.
    pub warnings: Vec<String>,
}

/// Looks at the destination: one API call.
pub async fn status(whence: &Whence, max_age: Option<Duration>, now: DateTime<Utc>) -> Result<Report> {
    let found = Home::open(whence)?.snapshots().await?;
    Ok(judge(&found, max_age, now))
}

fn judge(found: &[Snapshot], max_age: Option<Duration>, now: DateTime<Utc>) -> Report {
    let mut warnings = Vec::new();
    let (future, past): (Vec<_>, Vec<_>) =
        found.iter().partition(|s| s.name.taken_at() > now + CLOCK_SKEW_MAX);
    if let Some(first) = future.first() {
        warnings.push(format!(
            "{} snapshots are from the future, such as {}: a clock is or was wrong; they do not count",
            future.len(),
            first.name
        ));
    }
    let incomplete = past.iter().filter(|s| s.state == State::Incomplete).count();
    if incomplete > 0 {
        warnings.push(format!("{incomplete} snapshots are incomplete: uploads were cut off"));
    }
    let newest = past.iter().find(|s| s.state != State::Incomplete);
    let complete = past.iter().find(|s| s.state == State::Complete);
    let age = newest.map(|s| now - s.current_at(now + CLOCK_SKEW_MAX));
    let too_old = |age: TimeDelta| max_age.is_some_and(|max| age.to_std().is_ok_and(|age| age > max));
    let verdict = match (newest, age) {
        (Some(newest), Some(age)) if !too_old(age) && newest.state == State::Complete => Verdict::Good,
        (Some(_), Some(age)) if !too_old(age) => Verdict::Degraded,
        _ => Verdict::Stale,
    };
    Report {
        verdict,
        newest: newest.map(|s| Line::from(*s)),
        age_seconds: age.map(|age| age.num_seconds().max(0)),
        newest_complete: complete.map(|s| Line::from(*s)),
        proven_at: found.iter().filter_map(|s| s.proven_at).max(),
        snapshots: found.len(),
        warnings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Object;
    use crate::repository::listing::snapshots;

    fn verdict(names: &[&str], hours: Option<u64>) -> Verdict {
        let objects = names
            .iter()
            .map(|n| Object { name: format!("s/2026/11/{n}.tar.gz.fernet"), size_bytes: 1 })
            .collect();
        let max_age = hours.map(|h| Duration::from_secs(h * 3600));
        judge(&snapshots(objects), max_age, "2026-11-21T12:00:00Z".parse().unwrap()).verdict
    }

    #[test]
    fn young_and_complete_is_good() {
        assert_eq!(verdict(&["20261121T061703Z-aaaaaaaa"], Some(7)), Verdict::Good);
        assert_eq!(verdict(&["20261101T061703Z-aaaaaaaa"], None), Verdict::Good);
    }

    #[test]
    fn old_or_none_is_stale() {
        assert_eq!(verdict(&["20261121T041703Z-aaaaaaaa"], Some(7)), Verdict::Stale);
        assert_eq!(verdict(&[], None), Verdict::Stale);
    }

    #[test]
    fn a_degraded_newest_one_is_degraded_even_when_a_complete_one_is_young() {
        let names = ["20261121T061703Z-aaaaaaaa", "20261121T071703Z-bbbbbbbb.degraded"];
        assert_eq!(verdict(&names, Some(7)), Verdict::Degraded);
    }

    #[test]
    fn a_mark_that_nothing_changed_makes_its_snapshot_young_and_no_other() {
        let mark =
            |id: &str, time: &str| Object { name: format!("s/2026/11/{time}-{id}.unchanged"), size_bytes: 1 };
        let old = Object { name: "s/2026/11/20261101T061703Z-aaaaaaaa.tar.gz.fernet".into(), size_bytes: 1 };
        let verdict = |mark: Object| {
            let now = "2026-11-21T12:00:00Z".parse().unwrap();
            judge(&snapshots(vec![old.clone(), mark]), Some(Duration::from_secs(7 * 3600)), now).verdict
        };
        assert_eq!(verdict(mark("aaaaaaaa", "20261121T061703Z")), Verdict::Good);
        assert_eq!(verdict(mark("aaaaaaaa", "20261120T061703Z")), Verdict::Stale);
        assert_eq!(verdict(mark("bbbbbbbb", "20261121T061703Z")), Verdict::Stale);
        assert_eq!(verdict(mark("aaaaaaaa", "20261122T061703Z")), Verdict::Stale);
        // Neither hides the other.
        let marks = ["20261121T061703Z", "20271121T061703Z"].map(|time| mark("aaaaaaaa", time));
        let all = [vec![old.clone()], marks.to_vec()].concat();
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let report = judge(&snapshots(all), Some(Duration::from_secs(7 * 3600)), now);
        assert_eq!(report.verdict, Verdict::Good);
    }

    #[test]
    fn a_snapshot_from_the_future_does_not_hide_that_backups_stopped() {
        assert_eq!(verdict(&["20261122T061703Z-aaaaaaaa"], Some(7)), Verdict::Stale);
        assert_eq!(verdict(&["20261121T120500Z-aaaaaaaa"], Some(7)), Verdict::Good);
    }
}
