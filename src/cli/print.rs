//! Reports as people read them. Each verb's report has its function here.

use std::io::Write;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::printer::Printer;
use crate::commands::{backup, check, demo, init, list, plan, restore, show, status, verify};
use crate::repository::manifest::{RegenerableRecord, Skipped};

/// How many skipped paths are named before the rest is counted.
const SKIPPED_SHOWN: usize = 20;

/// A size for people: `3.8 MB`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A path on one line, without what would steer a terminal.
fn plain(path: &str) -> String {
    path.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// An age for people: the two largest units.
fn age(of: TimeDelta) -> String {
    let minutes = of.num_minutes().max(0);
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, m) => format!("{m} min"),
        (0, h, m) => format!("{h} h {m} min"),
        (d, h, _) => format!("{d} d {h} h"),
    }
}

fn skipped(p: &Printer, all: &[Skipped]) {
    let (required, other): (Vec<&Skipped>, Vec<&Skipped>) = all.iter().partition(|s| s.required);
    for s in required.iter().chain(&other).take(SKIPPED_SHOWN) {
        let mark = if s.required { "MISSING" } else { "skipped" };
        p.line(&format!("  {mark}  {}: {} [{}]", plain(&s.path), s.reason, s.tier1));
    }
    if all.len() > SKIPPED_SHOWN {
        p.line(&format!("  … and {} more; --json lists all", all.len() - SKIPPED_SHOWN));
    }
}

fn regenerable(p: &Printer, all: &[RegenerableRecord]) {
    if all.is_empty() {
        return;
    }
    p.line("Not in the snapshot, and how it comes back:");
    for item in all {
        let takes = item.takes.as_ref().map(|t| format!(" (about {t})")).unwrap_or_default();
        p.line(&format!("  {} [{}]{takes}", item.name, item.paths.join(", ")));
        p.line(&format!("    {}", item.how));
    }
}

pub(super) fn backup(p: &Printer, r: &backup::Report) {
    p.line(&format!(
        "{} snapshot {}",
        match r.state {
            "degraded" => "DEGRADED",
            "unchanged" => "nothing has changed since",
            state => state,
        },
        r.snapshot
    ));
    p.line(&format!(
        "  at {}, {} stored from {} of contents, key {}",
        r.destination,
        bytes(r.size_bytes),
        bytes(r.content_bytes),
        r.key_id
    ));
    for g in &r.groups {
        p.line(&format!("  {:<14} {:>6} entries  {:>9}", g.name, g.entries, bytes(g.bytes)));
    }
    for c in &r.postgres {
        p.line(&format!(
            "  postgres.{}: {} databases, {} roles, server {}",
            c.label, c.databases, c.roles, c.server_version
        ));
    }
    let s = r.seconds;
    p.line(&format!(
        "  took {:.1} s: pack {:.1} s (dump {:.1} s beside it), upload {:.1} s; {} API calls",
        s.total, s.pack, s.dump, s.upload, r.api_calls
    ));
    skipped(p, &r.skipped);
    for problem in &r.problems {
        p.line(&format!("degraded: {problem}"));
    }
}

pub(super) fn plan(p: &Printer, plan: &plan::Plan) {
    for path in &plan.paths {
        p.line(&format!("  {:>9}  {}", bytes(path.size_bytes), plain(&path.path)));
    }
    for c in &plan.postgres {
        let size: u64 = c.inventory.dumped().map(|d| d.size_bytes).sum();
        p.line(&format!(
            "  {:>9}  postgres.{}: {} databases, {} roles",
            bytes(size),
            c.label,
            c.inventory.dumped().count(),
            c.inventory.roles.len()
        ));
    }
    let (entries, total) = plan.groups.iter().fold((0, 0), |(n, b), g| (n + g.entries, b + g.bytes));
    p.line(&format!("would take {entries} entries, {} of files; nothing was stored", bytes(total)));
    skipped(p, &plan.skipped);
    for problem in &plan.problems {
        p.line(&format!("would be degraded: {problem}"));
    }
}

pub(super) fn list(p: &Printer, r: &list::Report, now: DateTime<Utc>) {
    if r.snapshots.is_empty() {
        return p.line("no snapshots");
    }
    p.line(&format!(
        "{:<8}  {:<20}  {:>12}  {:>9}  {:<10}  {:<10}  SYSTEM",
        "ID", "TAKEN (UTC)", "AGE", "SIZE", "STATE", "PROVEN"
    ));
    for s in &r.snapshots {
        let proven = s.proven_at.map_or("no".to_owned(), |t| t.format("%Y-%m-%d").to_string());
        p.line(&format!(
            "{:<8}  {:<20}  {:>12}  {:>9}  {:<10}  {:<10}  {}",
            s.id,
            s.taken_at.format("%Y-%m-%d %H:%M:%S"),
            age(now - s.taken_at),
            bytes(s.size_bytes),
            s.state,
            proven,
            s.system
        ));
    }
}

pub(super) fn show(p: &Printer, r: &show::Report, from: Option<&str>, entries: bool) {
    let m = &r.manifest;
    p.line(&format!("snapshot  {} ({})", m.snapshot, if m.degraded { "DEGRADED" } else { "complete" }));
    p.line(&format!(
        "taken     {} on {} by {}",
        m.started_at.format("%Y-%m-%d %H:%M:%S UTC"),
        m.host,
        m.tool
    ));
    p.line(&format!("key       {}", m.key_id));
    p.line(&format!("contents  {} entries, {}", r.entries.len(), bytes(m.needs.bytes)));
    for g in &m.groups {
        p.line(&format!("  {:<14} {:>6} entries  {:>9}", g.name, g.entries, bytes(g.bytes)));
    }
    for c in &m.postgres {
        let names = c.inventory.dumped().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ");
        p.line(&format!(
            "  {}: server {}, needs psql {}; databases {names}; roles {}",
            c.file,
            c.inventory.server_version,
            c.needs_psql,
            c.inventory.roles.join(", ")
        ));
    }
    if entries {
        for e in &r.entries {
            let link = e.link.as_ref().map(|l| format!(" -> {}", plain(l.shown()))).unwrap_or_default();
            p.line(&format!("  {} {:>9} {}{link}", e.mode, bytes(e.size), plain(e.path.shown())));
        }
    } else {
        p.line("  -v lists every entry");
    }
    skipped(p, &m.skipped);
    m.problems.iter().for_each(|problem| p.line(&format!("degraded: {problem}")));
    let from = from.map(|from| format!(" --from {from}")).unwrap_or_default();
    p.line(&format!("restore it: offsite restore {}{from} --target DIR", m.id));
    regenerable(p, &m.regenerable);
}

pub(super) fn verify(p: &Printer, r: &verify::Report) {
    p.line(&format!("verified {} ({})", r.snapshot, r.state));
    p.line(&format!(
        "  {} read back in {:.1} s: {} tokens authenticated, {} entries, {}",
        bytes(r.size_bytes),
        r.seconds,
        r.tokens,
        r.entries,
        bytes(r.content_bytes)
    ));
    if r.manifest {
        p.line("  every checksum, mode, owner and time is as the manifest says");
    } else {
        p.line("  it has no manifest (the earlier Python system stored it): it is authentic, but nothing lists what it should hold");
    }
}

pub(super) fn restore(p: &Printer, r: &restore::Report) {
    p.line(&format!("restored {} ({}) to {}", r.snapshot, r.state, r.target));
    p.line(&format!(
        "  {} entries, {} of contents checked, {:.1} s, {} API calls",
        r.entries,
        bytes(r.content_bytes),
        r.seconds,
        r.api_calls
    ));
    r.notes.iter().for_each(|note| p.line(&format!("note: {note}")));
    if !r.manifest {
        p.line("  it has no manifest (the earlier Python system stored it): it is authentic, but nothing lists what it should hold");
    }
    r.problems.iter().for_each(|problem| p.line(&format!("degraded: {problem}")));
    for c in &r.loaded {
        p.line(&format!(
            "  loaded postgres.{} into server {}: {} databases and {} roles are there",
            c.label, c.server_version, c.databases, c.roles
        ));
    }
    for dump in &r.dumps {
        p.line(&format!("  not loaded: {}; load it into an empty cluster: psql -X -d postgres < {0}", dump));
    }
    for file in r.setuid.iter().take(SKIPPED_SHOWN) {
        p.line(&format!("  has a setuid or setgid bit: {file}"));
    }
    for reason in r.refused.iter().take(SKIPPED_SHOWN) {
        p.line(&format!("  not given back: {reason}"));
    }
    if let Some(extras) = &r.extras {
        p.line(&format!("  its manifest and RESTORE.md are in {}", extras));
    }
    regenerable(p, &r.regenerable);
}

pub(super) fn status(p: &Printer, r: &status::Report, max_age: Option<Duration>) {
    match (&r.newest, r.age_seconds) {
        (Some(newest), Some(seconds)) => {
            p.line(&format!(
                "newest snapshot {} ({}), {} old, {}",
                newest.id,
                newest.state,
                age(TimeDelta::seconds(seconds)),
                bytes(newest.size_bytes)
            ));
        }
        _ => p.line("there is no snapshot"),
    }
    if let (Some(complete), true) = (&r.newest_complete, r.verdict == status::Verdict::Degraded) {
        p.line(&format!(
            "newest complete one {}, taken {}",
            complete.id,
            complete.taken_at.format("%Y-%m-%d %H:%M:%S UTC")
        ));
    }
    match r.proven_at {
        Some(at) => p.line(&format!("proven restorable at {}", at.format("%Y-%m-%d %H:%M:%S UTC"))),
        None => p.line("never proven restorable by a drill"),
    }
    r.warnings.iter().for_each(|w| p.line(&format!("warning: {w}")));
    let limit =
        max_age.map(|max| format!(" (limit {})", humantime::format_duration(max))).unwrap_or_default();
    p.line(&match r.verdict {
        status::Verdict::Good => format!("good{limit}"),
        status::Verdict::Degraded => "DEGRADED: the newest snapshot lacks something required".to_owned(),
        status::Verdict::Stale => format!("STALE{limit}"),
    });
}

pub(super) fn check(p: &Printer, r: &check::Report) {
    for f in &r.findings {
        let mark = match f.level {
            check::Level::Ok => "ok     ",
            check::Level::Warning => "warning",
            check::Level::Failure => "FAILED ",
        };
        p.line(&format!("{mark}  {}: {}", f.subject, f.message));
        if let Some(hint) = &f.hint {
            p.line(&format!("         hint: {hint}"));
        }
    }
    p.line(if r.ok { "a backup would succeed" } else { "a backup would fail or be degraded" });
}

pub(super) fn init(p: &Printer, r: &init::Report) {
    if r.config_written {
        p.line(&format!("wrote {}", r.config));
    }
    p.line(&format!("destination {} is reachable and writable", r.destination));
    if r.notes_written {
        p.line("wrote its RESTORE.md");
    }
    r.notes.iter().for_each(|note| p.line(&format!("note: {note}")));
    if let (Some(path), Some(id)) = (&r.key_file, &r.key_id) {
        p.line(&format!("wrote the new master key {id} to {path} (mode 0600)"));
        p.line("Put a copy on paper, in a safe, away from this machine: without it no backup can be read.");
    }
    if let (Some(key), Some(id)) = (&r.new_key, &r.key_id) {
        p.line("");
        p.line(&format!("The new master key, id {id}. It is shown this once and stored nowhere:"));
        p.line("");
        // Not `line`: --quiet must not lose a key.
        let _ = writeln!(std::io::stderr(), "    {}", key.as_str());
        p.line("");
        p.line("Put it on paper, in a safe, away from this machine: without it no backup can be read.");
        p.line("Give it to offsite in the environment: export AITHER_MASTER_KEY=…");
    }
    p.line("next: look through the config, then `offsite check` and `offsite backup`");
}

pub(super) fn demo(p: &Printer, r: &demo::Report) {
    p.line("");
    for step in &r.steps {
        p.line(&format!("  {:>6.1} s  {}", step.seconds, step.what));
    }
    for note in &r.notes {
        p.line(&format!("note: {note}"));
    }
    for difference in &r.differences {
        p.line(&format!("DIFFERENT: {difference}"));
    }
    p.line(&if r.identical {
        format!("everything came back: {} entries and {} rows are identical", r.entries, r.rows)
    } else {
        format!("{} differences", r.differences.len())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_short() {
        assert_eq!(
            [bytes(0), bytes(999), bytes(1000), bytes(3_849_000), bytes(999_999)],
            ["0 B", "999 B", "1.0 kB", "3.8 MB", "1.0 MB"]
        );
        assert_eq!(
            [age(TimeDelta::minutes(5)), age(TimeDelta::minutes(125)), age(TimeDelta::hours(50))],
            ["5 min", "2 h 5 min", "2 d 2 h"]
        );
    }
}
