//! `backup`: one run, from the config to a confirmed object.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::lock::{LastStart, RunLock};
use super::unchanged::{self, Memory, Stored};
use super::{Run, blocking, host_name, scratch_folder};
use crate::config::Config;
use crate::destination::Destination;
use crate::error::{Error, Result};
use crate::key::MasterKey;
use crate::pipeline::pack::{Order, Packed, Survey, pack};
use crate::pipeline::select::Selection;
use crate::pipeline::transfer;
use crate::progress::{Progress, Stage};
use crate::repository::listing::Snapshot;
use crate::repository::manifest::{FORMAT, Group, Manifest, Needs, RegenerableRecord, Skipped};
use crate::repository::name::SnapshotName;
use crate::scratch::Scratch;
use crate::secret;
use crate::sources::postgres::connection::Connection;
use crate::sources::postgres::dump::{self, Spool};
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
    /// `complete`, `degraded`, or `unchanged` since that snapshot.
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

    let memory = Memory::of(config, keys.sealing()).map(Arc::new);
    if let Some(memory) = &memory
        && let Some((last, survey)) = look_for_changes(config, keys.sealing(), memory, run).await?
    {
        let looked_seconds = began.elapsed().as_secs_f64();
        run.stop.check()?;
        let marking = unchanged::mark(&destination, &last, now);
        if let Some(newest) = within_deadline(config, run, marking).await? {
            let total = began.elapsed().as_secs_f64();
            let upload = total - looked_seconds;
            let seconds = Seconds { dump: 0.0, pack: looked_seconds, upload, total };
            return Ok(unchanged_report(&newest, survey, keys.sealing(), &destination, seconds));
        }
    }

    let (job, key, stop, progress) =
        (config.clone(), keys.sealing().clone(), run.stop.clone(), run.progress.clone());
    let (packed, dump_seconds) = blocking(move || pack_all(&job, &key, &name, now, &stop, &progress)).await?;
    let pack_seconds = began.elapsed().as_secs_f64();
    run.stop.check()?;

    let uploading = Instant::now();
    let uploading_all = transfer::upload(&destination, &packed.name, &packed.sealed, &run.progress);
    within_deadline(config, run, uploading_all).await?;
    let seconds = Seconds {
        dump: dump_seconds,
        pack: pack_seconds,
        upload: uploading.elapsed().as_secs_f64(),
        total: began.elapsed().as_secs_f64(),
    };
    if let Some(memory) = memory {
        match packed.manifest.degraded {
            false => memory.keep(&packed.name, packed.sealed.len(), &packed.traits),
            true => memory.drop_last(),
        }
    }
    Ok(report(packed, &destination, seconds))
}

/// Reads everything; the last snapshot and what was read, when nothing differs.
async fn look_for_changes(
    config: &Config,
    key: &MasterKey,
    memory: &Arc<Memory>,
    run: &Run,
) -> Result<Option<(Stored, Survey)>> {
    let (config, key, memory) = (config.clone(), key.clone(), Arc::clone(memory));
    let (stop, progress) = (run.stop.clone(), run.progress.clone());
    blocking(move || {
        let scratch = Scratch::new(&scratch_folder())?;
        let workers = Workers::start()?;
        memory.compare(&Order {
            selection: &Selection::new(&config.tier1)?,
            key: &key,
            level: config.compression,
            workers: &workers,
            scratch: scratch.path(),
            progress: &progress,
            stop: &stop.within(config.deadlines.archive, "archive"),
        })
    })
    .await
}

/// Sends something within its deadline. A request to stop lets it finish within
/// a grace time; what is cut off then is not a snapshot.
async fn within_deadline<T>(
    config: &Config,
    run: &Run,
    sending: impl Future<Output = Result<T>>,
) -> Result<T> {
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
        result = tokio::time::timeout(limit, sending) => {
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

/// The report of a run that found nothing changed since `newest`.
fn unchanged_report(
    newest: &Snapshot,
    survey: Survey,
    key: &MasterKey,
    destination: &Destination,
    seconds: Seconds,
) -> Report {
    Report {
        snapshot: newest.name.to_string(),
        id: newest.name.id().to_owned(),
        state: "unchanged",
        taken_at: newest.name.taken_at(),
        destination: destination.address(),
        size_bytes: 0,
        content_bytes: survey.bytes,
        key_id: key.id().to_string(),
        groups: survey.groups,
        postgres: Vec::new(),
        skipped: survey.skipped,
        problems: Vec::new(),
        seconds,
        api_calls: destination.api_calls(),
    }
}
