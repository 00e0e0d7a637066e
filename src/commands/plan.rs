//! `backup --dry-run`: what a run would take, and what it would lack.

use serde::Serialize;

use super::{Run, blocking};
use crate::config::Config;
use crate::error::Result;
use crate::pipeline::select::{Event, Selection};
use crate::repository::inventory::Inventory;
use crate::repository::manifest::{Group, Skipped};
use crate::secret;
use crate::sources::postgres::{connection::Connection, inventory};

/// What a run would do.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    /// Entries and bytes of each tier-1 group.
    pub groups: Vec<Group>,
    /// Every path that would be taken, with its size.
    pub paths: Vec<PlannedPath>,
    /// What would be left out, and why.
    pub skipped: Vec<Skipped>,
    /// What each cluster holds now.
    pub postgres: Vec<PlannedCluster>,
    /// What would make the snapshot degraded.
    pub problems: Vec<String>,
}

/// A path that would be taken.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedPath {
    /// The path; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// Its size now.
    pub size_bytes: u64,
}

/// A cluster that would be dumped.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedCluster {
    /// Its label.
    pub label: String,
    /// What it holds.
    pub inventory: Inventory,
}

/// `backup --dry-run`: looks at everything and stores nothing.
pub async fn plan(config: &Config, run: &Run) -> Result<Plan> {
    let (config, stop) = (config.clone(), run.stop.clone());
    blocking(move || {
        let mut plan = Plan::default();
        Selection::new(&config.tier1)?.walk(&mut |event| {
            stop.check()?;
            match event {
                Event::Skipped(skipped) => plan.skipped.push(skipped),
                Event::Item(item) => {
                    if let Some(reason) = item.obstacle() {
                        let path = item.path.to_string_lossy().into_owned();
                        let tier1 = item.tier1.unwrap_or_default();
                        plan.skipped.push(Skipped { path, tier1, reason, required: item.required });
                        return Ok(());
                    }
                    let size_bytes = if item.metadata.is_file() { item.metadata.len() } else { 0 };
                    if let Some(tier1) = item.tier1 {
                        let known = plan.groups.iter().position(|g| g.name == tier1);
                        let at = known.unwrap_or_else(|| {
                            plan.groups.push(Group { name: tier1, ..Group::default() });
                            plan.groups.len() - 1
                        });
                        plan.groups[at].entries += 1;
                        plan.groups[at].bytes += size_bytes;
                        let path = item.path.to_string_lossy().into_owned();
                        plan.paths.push(PlannedPath { path, size_bytes });
                    }
                }
            }
            Ok(())
        })?;
        let required = plan.skipped.iter().filter(|s| s.required).count() as u64;
        if required > 0 {
            plan.problems.push(Skipped::problem(required));
        }
        for (label, cluster) in &config.postgres {
            let found = secret::resolve("database URL", &cluster.url)
                .and_then(|url| Connection::from_url(&url))
                .and_then(|connection| inventory::read(&connection, &stop));
            match found {
                Ok(inventory) => plan.postgres.push(PlannedCluster { label: label.clone(), inventory }),
                Err(e) => plan.problems.push(e.during(format!("[postgres.{label}]")).message().to_owned()),
            }
        }
        Ok(plan)
    })
    .await
}
