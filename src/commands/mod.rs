//! The verbs, a file each. They return reports; only `cli` prints.

pub mod backup;
pub mod check;
pub mod daemon;
pub mod demo;
pub mod init;
pub mod list;
pub mod lock;
pub mod plan;
pub mod restore;
pub mod show;
pub mod status;
mod unchanged;
pub mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::DateTime;

use crate::config::{Config, GithubConfig, default_key_places, resolve_keys};
use crate::destination::Destination;
use crate::error::{Error, Result};
use crate::key::Keyring;
use crate::pipeline::transfer::download;
use crate::pipeline::unpack::{Unpacked, unpack};
use crate::progress::{Progress, Stage};
use crate::repository::listing::{Snapshot, State, choose, snapshots};
use crate::repository::name::{ObjectName, SnapshotName};
use crate::scratch::Scratch;
use crate::secret::Place;
use crate::stop::Stop;
use crate::workers::Workers;

/// What every verb is run with.
#[derive(Clone)]
pub struct Run {
    /// Whom to tell.
    pub progress: Progress,
    /// How to be stopped.
    pub stop: Stop,
}

/// Where a verb reads snapshots from: a config's destination, or `--from`.
pub struct Home {
    /// The destination.
    pub destination: Arc<Destination>,
    /// The only system to look at; all of them when there is none.
    pub system: Option<String>,
    key: Vec<Place>,
    /// The config, when there is one.
    pub config: Option<Config>,
}

/// How a verb was told where to read.
#[derive(Clone, Debug, Default)]
pub struct Whence {
    /// `--config` or `$OFFSITE_CONFIG`.
    pub config: Option<PathBuf>,
    /// `--from`: takes the place of the config's destination, or of a config.
    pub from: Option<String>,
    /// `--system`.
    pub system: Option<String>,
}

impl Home {
    /// Opens the place that `whence` names. With `--from` no config is needed,
    /// and only one that was named is read.
    pub fn open(whence: &Whence) -> Result<Self> {
        let config = match (&whence.from, &whence.config) {
            (Some(_), None) => None,
            (_, given) => Some(Config::load(&Config::locate(given.as_deref())?)?),
        };
        let github = config.as_ref().map_or_else(GithubConfig::from_environment, |c| c.github.clone());
        let address = match (&whence.from, &config) {
            (Some(from), _) => from.clone(),
            (None, Some(config)) => config.destination.clone(),
            (None, None) => {
                return Err(Error::usage("neither a config nor --from says where the snapshots are"));
            }
        };
        let own = config.as_ref().filter(|_| whence.from.is_none()).map(|c| c.system.clone());
        Ok(Self {
            destination: Arc::new(Destination::open(&address, &github)?),
            system: whence.system.clone().or(own),
            key: config.as_ref().map_or_else(default_key_places, |c| c.key.clone()),
            config,
        })
    }

    /// The master keys.
    pub fn keys(&self) -> Result<Keyring> {
        resolve_keys(&self.key)
    }

    /// Its snapshots, newest first; one API call.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let mut found = snapshots(self.destination.list().await?);
        if let Some(system) = &self.system {
            found.retain(|snapshot| snapshot.name.system() == system);
        }
        Ok(found)
    }

    /// Reads a snapshot back in full and checks all of it; nothing is kept but
    /// its manifest.
    pub async fn read_back(&self, found: &Found, run: &Run) -> Result<Unpacked> {
        let keys = self.keys()?;
        let stream = run.stop.reading(download(self.destination.clone(), &found.snapshot, &run.progress));
        let name = found.name();
        let unpacked = blocking(move || {
            let scratch = Scratch::new(&scratch_folder())?;
            unpack(stream, &keys, name.as_ref(), scratch.path(), &Workers::start()?, &mut |_| Ok(()))
        });
        let unpacked = unpacked.await.map_err(|e| e.during(found.shown()))?;
        run.progress.end(Stage::Download);
        Ok(unpacked)
    }

    /// The snapshot that `wanted` names, or the object of exactly that name: what
    /// the earlier Python system stored was not named in our way.
    pub async fn find(&self, wanted: &str) -> Result<Found> {
        let objects = self.destination.list().await?;
        let foreign = objects.iter().find(|o| o.name == wanted).cloned();
        let mut found = snapshots(objects);
        if let Some(system) = &self.system {
            found.retain(|snapshot| snapshot.name.system() == system);
        }
        match (choose(&found, wanted), foreign) {
            (Ok(snapshot), _) => {
                let newer = found.iter().take_while(|s| wanted == "latest" && s.name != snapshot.name);
                let passed_over =
                    newer.map(|s| format!("passed over the newer {} ({})", s.name, s.state.as_str()));
                Ok(Found { snapshot: snapshot.clone(), passed_over: passed_over.collect(), foreign: None })
            }
            (Err(_), Some(object)) if ObjectName::parse(&object.name).is_none() => {
                let name = SnapshotName::new("unnamed", DateTime::UNIX_EPOCH, 0, false);
                let (size_bytes, foreign) = (object.size_bytes, Some(object.name.clone()));
                let snapshot = Snapshot {
                    name,
                    size_bytes,
                    state: State::Complete,
                    proven_at: None,
                    unchanged_at: Vec::new(),
                    objects: vec![object],
                };
                Ok(Found { snapshot, passed_over: Vec::new(), foreign })
            }
            (Err(error), _) => Err(error.during(self.destination.address())),
        }
    }
}

/// A snapshot that was asked for.
pub struct Found {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Newer ones that `latest` does not mean, a sentence each.
    pub passed_over: Vec<String>,
    /// The name of an object that is not named in our way.
    foreign: Option<String>,
}

impl Found {
    /// The name that its manifest must hold; none for one not named in our way.
    pub fn name(&self) -> Option<SnapshotName> {
        self.foreign.is_none().then(|| self.snapshot.name.clone())
    }

    /// Its name for people.
    pub fn shown(&self) -> String {
        self.foreign.clone().unwrap_or_else(|| self.snapshot.name.to_string())
    }
}

/// The folder for nameless files: `$TMPDIR`, else `/tmp`.
pub fn scratch_folder() -> PathBuf {
    std::env::temp_dir()
}

/// Runs blocking work of the pipeline on its own thread.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::failed(format!("a worker died: {error}"))
            .hint("this is a defect of offsite: please report it")),
    }
}

/// This machine's name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether `path` can be entered by nobody but its owner; for warnings.
pub fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o077 == 0)
}
