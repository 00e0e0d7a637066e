//! `backup`: one run, from the config to a confirmed object.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::lock::{LastStart, RunLock};
use super::{Run, blocking, host_name, scratch_folder};
use crate::config::Config;
use crate::destination::Destination;
use crate::error::{Error, Result};
use crate::key::MasterKey;
use crate::pipeline::pack::{Order, Packed, pack};
use crate::pipeline::seal::Sealed;
use crate::pipeline::select::{Event, Selection};
use crate::pipeline::transfer;
use crate::progress::{Progress, Stage};
use crate::repository::inventory::Inventory;
use crate::repository::manifest::{FORMAT, Group, Manifest, Needs, RegenerableRecord, Skipped};
use crate::repository::name::SnapshotName;
use crate::scratch::Scratch;
use crate::secret;
use crate::sources::postgres::dump::{self, Spool};
use crate::sources::postgres::{connection::Connection, inventory};
use crate::stop::Stop;
use crate::workers::Workers;

/// How long an upload that has begun may go on after a request to stop.
pub const UPLOAD_GRACE: Duration = Duration::from_secs(30);

/// What a run came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The snapshot's name.
    pub snapshot: String,
    /// Its id.
    pub id: String,
    /// `complete` or `degraded`.
    pub state: &'static str,
    /// When the run started.
    pub taken_at: DateTime<Utc>,
    /// Where it is.
    pub destination: String,
    /// Bytes stored.
    pub size_bytes: u64,
    /// Bytes of contents packed.
    pub content_bytes: u64,
    /// Which key sealed it.
    pub key_id: String,
    /// Entries and bytes of each tier-1 group.
    pub groups: Vec<Group>,
    /// What was dumped.
    pub postgres: Vec<ClusterReport>,
    /// What was left out, and why.
    pub skipped: Vec<Skipped>,
    /// Why it is degraded.
    pub problems: Vec<String>,
    /// How long each stage took. Dumps are made while files are packed.
    pub seconds: Seconds,
    /// Requests sent to the destination.
    pub api_calls: u64,
}

/// One dumped cluster.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterReport {
    /// Its label.
    pub label: String,
    /// The server's version.
    pub server_version: String,
    /// The client's version.
    pub client_version: String,
    /// How many databases.
    pub databases: usize,
    /// How many roles.
    pub roles: usize,
}

/// Seconds that the stages took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Seconds {
    /// All dumps.
    pub dump: f64,
    /// Reading, packing and sealing, the wait for dumps included.
    pub pack: f64,
    /// The upload.
    pub upload: f64,
    /// All of it.
    pub total: f64,
}

/// Backs up once: packs and seals, then uploads. The report is only made when
/// the destination has confirmed the object.
pub async fn backup(config: &Config, run: &Run) -> Result<Report> {
    let began = Instant::now();
    let _lock = RunLock::take(&config.path)?;
    LastStart::of(&config.path).mark();
    let keys = config.resolve_keys()?;
    let destination = Arc::new(Destination::open(&config.destination, &config.github)?);
    if matches!(&*destination, Destination::Github(_)) {
        // Before the work, not after it.
        config.github.resolve_token()?;
    }
    let now = Utc::now();
    let mut id = [0; 4];
    getrandom::fill(&mut id).map_err(|e| Error::failed(format!("the system gave no random bytes: {e}")))?;
    let name = SnapshotName::new(&config.system, now, u32::from_be_bytes(id), false);

    let (job, key, stop, progress) =
        (config.clone(), keys.sealing().clone(), run.stop.clone(), run.progress.clone());
    let (packed, dump_seconds) = blocking(move || pack_all(&job, &key, &name, now, &stop, &progress)).await?;
    let pack_seconds = began.elapsed().as_secs_f64();
    run.stop.check()?;

    let uploading = Instant::now();
    upload(config, &destination, &packed.name, &packed.sealed, run).await?;
    let seconds = Seconds {
        dump: dump_seconds,
        pack: pack_seconds,
        upload: uploading.elapsed().as_secs_f64(),
        total: began.elapsed().as_secs_f64(),
    };
    Ok(report(packed, &destination, seconds))
}

/// Sends the sealed file. A request to stop lets it finish within a grace time;
/// what is cut off then is not a snapshot.
async fn upload(
    config: &Config,
    destination: &Destination,
    name: &SnapshotName,
    sealed: &Sealed<std::fs::File>,
    run: &Run,
) -> Result<()> {
    let limit = config.deadlines.upload;
    let stopped = async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            if let Err(reason) = run.stop.check() {
                tokio::time::sleep(UPLOAD_GRACE).await;
                return reason;
            }
        }
    };
    tokio::select! {
        result = tokio::time::timeout(limit, transfer::upload(destination, name, sealed, &run.progress)) => {
            result.unwrap_or_else(|_| {
                Err(Error::failed(format!("upload took longer than its deadline of {}", humantime::format_duration(limit)))
                    .hint("raise `upload` under [deadlines] in the config if it needs that long"))
            })
        }
        reason = stopped => Err(reason.during("the upload was cut off")),
    }
}

/// The blocking part: files are packed while a thread makes the dumps.
fn pack_all(
    config: &Config,
    key: &MasterKey,
    name: &SnapshotName,
    now: DateTime<Utc>,
    stop: &Stop,
    progress: &Progress,
) -> Result<(Packed, f64)> {
    let scratch = Scratch::new(&scratch_folder())?;
    let workers = Workers::start()?;
    let spool = Spool { folder: scratch.path(), level: config.compression, workers: &workers };
    let selection = Selection::new(&config.tier1)?;
    let head = head(config, key, name, now)?;
    let mut dump_seconds = 0.0;
    let packed = std::thread::scope(|threads| {
        let dumping = threads.spawn(|| {
            let began = Instant::now();
            (dump_all(config, spool, stop, progress), began.elapsed().as_secs_f64())
        });
        let archive_stop = stop.within(config.deadlines.archive, "archive");
        let order = Order {
            selection: &selection,
            key,
            level: config.compression,
            workers: &workers,
            scratch: scratch.path(),
            progress,
            stop: &archive_stop,
        };
        let packed = pack(&order, head, name, || match dumping.join() {
            Ok((dumps, seconds)) => {
                dump_seconds = seconds;
                // A dump that was stopped is not a degraded snapshot but no snapshot.
                stop.check().map(|()| dumps)
            }
            Err(_) => Err(Error::failed("the thread that makes the dumps died")),
        });
        if let Err(error) = &packed {
            // Do not leave a dump running whose archive is gone.
            stop.request(error.clone());
        }
        packed
    })?;
    Ok((packed, dump_seconds))
}

fn dump_all(
    config: &Config,
    spool: Spool<'_>,
    stop: &Stop,
    progress: &Progress,
) -> Vec<std::result::Result<dump::Dump, Error>> {
    let one = |label: &String, places: &[secret::Place]| {
        progress.begin(Stage::Dump, None);
        let url = secret::resolve("database URL", places)?;
        let connection = Connection::from_url(&url)?;
        let stop = stop.within(config.deadlines.dump, "dump");
        let mut on_bytes = |bytes| progress.bytes(Stage::Dump, bytes);
        let dump = dump::dump(label, &connection, spool, &stop, &mut on_bytes)?;
        progress.end(Stage::Dump);
        Ok(dump)
    };
    let clusters = config.postgres.iter();
    clusters
        .map(|(label, cluster)| {
            one(label, &cluster.url).map_err(|e: Error| e.during(format!("the dump of [postgres.{label}]")))
        })
        .collect()
}

fn head(config: &Config, key: &MasterKey, name: &SnapshotName, now: DateTime<Utc>) -> Result<Manifest> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)
        .map_err(|e| Error::failed(format!("the system gave no random bytes: {e}")))?;
    let regenerable = config.regenerable.iter().map(|(name, r)| RegenerableRecord {
        name: name.clone(),
        paths: r.paths.clone(),
        how: r.how.clone(),
        takes: r.takes.clone(),
    });
    Ok(Manifest {
        format: FORMAT,
        snapshot: name.to_string(),
        id: name.id().to_owned(),
        system: config.system.clone(),
        host: host_name(),
        degraded: false,
        started_at: now,
        packed_at: now,
        tool: format!("offsite {}", env!("CARGO_PKG_VERSION")),
        key_id: key.id().to_string(),
        nonce: hex::encode(nonce),
        problems: Vec::new(),
        skipped: Vec::new(),
        groups: Vec::new(),
        postgres: Vec::new(),
        needs: Needs::default(),
        regenerable: regenerable.collect(),
    })
}

fn report(packed: Packed, destination: &Destination, seconds: Seconds) -> Report {
    let manifest = packed.manifest;
    let postgres = manifest.postgres.iter().map(|c| ClusterReport {
        label: c.label.clone(),
        server_version: c.inventory.server_version.clone(),
        client_version: c.client_version.clone(),
        databases: c.inventory.dumped().count(),
        roles: c.inventory.roles.len(),
    });
    Report {
        snapshot: packed.name.to_string(),
        id: manifest.id,
        state: if manifest.degraded { "degraded" } else { "complete" },
        taken_at: packed.name.taken_at(),
        destination: destination.address(),
        size_bytes: packed.sealed.len(),
        content_bytes: manifest.needs.bytes,
        key_id: manifest.key_id,
        groups: manifest.groups,
        postgres: postgres.collect(),
        skipped: manifest.skipped,
        problems: manifest.problems,
        seconds,
        api_calls: destination.api_calls(),
    }
}

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
