//! When the daemon backs up: six cron fields, UTC.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds};

use crate::error::{Error, Result};

/// A schedule that has a next run.
#[derive(Clone)]
pub struct Schedule {
    text: String,
    cron: Cron,
}

impl Schedule {
    /// Reads six cron fields, seconds first. A schedule that never fires is
    /// refused: cron libraries accept `0 0 0 30 2 *` (30 February) in silence.
    pub fn parse(text: &str) -> Result<Self> {
        let fields = text.split_whitespace().count();
        if fields != 6 && !text.starts_with('@') {
            return Err(Error::usage(format!(
                "`{text}` has {fields} fields; a schedule has six fields, seconds first"
            ))
            .hint("every six hours at 17 past: \"0 17 */6 * * *\""));
        }
        // The same settings as tokio-cron-scheduler's own parser.
        let cron = CronParser::builder()
            .seconds(Seconds::Required)
            .dom_and_dow(true)
            .build()
            .parse(text)
            .map_err(|e| Error::usage(format!("`{text}` is not a schedule: {e}")))?;
        let schedule = Self { text: text.to_owned(), cron };
        if schedule.next_after(Utc::now()).is_none() {
            return Err(
                Error::usage(format!("`{text}` never fires")).hint("look at its day and month fields")
            );
        }
        Ok(schedule)
    }

    /// The first run strictly after `now`.
    pub fn next_after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.cron.find_next_occurrence(&now, false).ok()
    }

    /// The time between the two runs that follow `now`.
    pub fn interval(&self, now: DateTime<Utc>) -> Option<Duration> {
        let first = self.next_after(now)?;
        (self.next_after(first)? - first).to_std().ok()
    }

    /// Whether a backup is due at `now` when the newest snapshot is from
    /// `newest`: there is none, or it is older than one interval.
    pub fn is_due(&self, newest: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
        let (Some(newest), Some(interval)) = (newest, self.interval(now)) else { return true };
        now - newest > TimeDelta::from_std(interval).unwrap_or(TimeDelta::MAX)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn six_hourly_runs_are_due_after_six_hours() {
        let schedule = Schedule::parse("0 17 */6 * * *").unwrap();
        let now = at("2026-11-21T13:00:00Z");
        assert_eq!(schedule.next_after(now), Some(at("2026-11-21T18:17:00Z")));
        assert_eq!(schedule.interval(now), Some(Duration::from_secs(6 * 3600)));
        assert!(schedule.is_due(None, now));
        assert!(schedule.is_due(Some(at("2026-11-21T06:17:00Z")), now));
        assert!(!schedule.is_due(Some(at("2026-11-21T07:01:00Z")), now));
        assert!(!schedule.is_due(Some(at("2026-11-22T00:00:00Z")), now));
    }

    #[test]
    fn the_wrong_number_of_fields_and_impossible_dates_are_refused() {
        assert!(Schedule::parse("*/6 * * * *").is_err());
        assert!(Schedule::parse("0 0 0 30 2 *").is_err());
        assert!(Schedule::parse("0 61 * * * *").is_err());
    }
}
