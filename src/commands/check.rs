//! `check`: would a run succeed? Looks at everything and writes nothing.

use serde::Serialize;

use super::{Run, blocking, is_private, plan, scratch_folder};
use crate::config::Config;
use crate::destination::Destination;
use crate::error::{Error, Result};
use crate::repository::listing::{State, snapshots};
use crate::secret::{Place, resolve};
use crate::sources::postgres::{client, connection::Connection, inventory};

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and should be looked at.
    Warning,
    /// A run would fail or be degraded.
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// How it stands.
    pub level: Level,
    /// A sentence about it.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Everything that was looked at.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Whether nothing is a failure.
    pub ok: bool,
    /// In the order in which a run needs them.
    pub findings: Vec<Finding>,
}

impl Report {
    fn add(&mut self, subject: &str, level: Level, message: impl Into<String>) {
        self.findings.push(Finding {
            subject: subject.to_owned(),
            level,
            message: message.into(),
            hint: None,
        });
    }

    fn fail(&mut self, subject: &str, error: &Error) {
        self.findings.push(Finding {
            subject: subject.to_owned(),
            level: Level::Failure,
            message: error.message().to_owned(),
            hint: error.next_step().map(str::to_owned),
        });
    }
}

/// Looks at everything that a run needs.
pub async fn check(config: &Config, run: &Run) -> Result<Report> {
    let mut report = Report::default();
    let next = config.schedule.next_after(chrono::Utc::now());
    let next = next.map(|t| t.format("%Y-%m-%d %H:%M:%S UTC").to_string()).unwrap_or_default();
    report.add(
        "config",
        Level::Ok,
        format!("{} is valid; next run of the daemon {next}", config.path.display()),
    );
    key(config, &mut report);
    destination(config, &mut report).await;
    let plan = plan::plan(config, run).await?;
    for group in &plan.groups {
        report.add(
            &format!("tier1.{}", group.name),
            Level::Ok,
            format!("{} entries, {} bytes", group.entries, group.bytes),
        );
    }
    if plan.paths.is_empty() && config.postgres.is_empty() {
        report.add("tier1", Level::Failure, "not one of the tier-1 paths exists: a snapshot would be empty");
    }
    for skipped in &plan.skipped {
        let level = if skipped.required { Level::Failure } else { Level::Warning };
        report.add(
            &format!("tier1.{}", skipped.tier1),
            level,
            format!("{}: {}", skipped.path, skipped.reason),
        );
    }
    postgres(config, run, &mut report).await?;
    let scratch = scratch_folder();
    match tempfile::tempfile_in(&scratch) {
        Ok(_) => report.add("scratch", Level::Ok, format!("{} takes temporary files", scratch.display())),
        Err(e) => {
            report.fail("scratch", &Error::io("write into", &scratch, e).hint("$TMPDIR names another folder"))
        }
    }
    report.ok = report.findings.iter().all(|f| f.level != Level::Failure);
    Ok(report)
}

fn key(config: &Config, report: &mut Report) {
    match config.resolve_keys() {
        Ok(keys) => report.add(
            "key",
            Level::Ok,
            format!("key {} seals; opening: {}", keys.sealing().id(), keys.ids()),
        ),
        Err(e) => report.fail("key", &e),
    }
    let places =
        config.key.iter().chain(&config.github.token).chain(config.postgres.values().flat_map(|p| &p.url));
    for place in places {
        if let Place::File(path) = place
            && path.exists()
            && !is_private(path)
        {
            let subject = place.to_string();
            report.add(&subject, Level::Warning, "others on this machine may read it");
            if let Some(finding) = report.findings.last_mut() {
                finding.hint = Some(format!("chmod 600 {}", path.display()));
            }
        }
    }
}

async fn destination(config: &Config, report: &mut Report) {
    let inspected = async {
        let destination = Destination::open(&config.destination, &config.github)?;
        let condition = destination.inspect().await?;
        Ok::<_, Error>((destination, condition))
    };
    let (destination, condition) = match inspected.await {
        Ok(found) => found,
        Err(e) => return report.fail("destination", &e),
    };
    for fact in condition.facts {
        report.add("destination", Level::Ok, fact);
    }
    for warning in condition.warnings {
        report.add("destination", Level::Warning, warning);
    }
    match destination.list().await.map(snapshots) {
        Ok(found) => {
            let own = found.iter().filter(|s| s.name.system() == config.system);
            let newest = own.clone().find(|s| s.state == State::Complete);
            let message = match newest {
                Some(newest) => {
                    format!("{} snapshots; the newest complete one is {}", own.count(), newest.name)
                }
                None => format!("{} snapshots, none complete", own.count()),
            };
            report.add("snapshots", Level::Ok, message);
        }
        // The folder that the first backup makes has nothing to list.
        Err(e) if matches!(destination, Destination::Directory(_)) => {
            report.add("snapshots", Level::Warning, e.message());
        }
        Err(e) => report.fail("snapshots", &e),
    }
}

async fn postgres(config: &Config, run: &Run, report: &mut Report) -> Result<()> {
    for (label, cluster) in &config.postgres {
        let (places, stop) = (cluster.url.clone(), run.stop.clone());
        let looked = blocking(move || {
            let url = resolve("database URL", &places)?;
            let found = inventory::read(&Connection::from_url(&url)?, &stop)?;
            let clients = client::installed();
            let client = client::for_server(&clients, found.server_major)?.version.clone();
            Ok((found, client))
        });
        let subject = format!("postgres.{label}");
        match looked.await {
            Ok((found, client)) => report.add(
                &subject,
                Level::Ok,
                format!(
                    "server {} with {} databases and {} roles; pg_dumpall {client} fits",
                    found.server_version,
                    found.dumped().count(),
                    found.roles.len()
                ),
            ),
            Err(e) => report.fail(&subject, &e),
        }
    }
    Ok(())
}
