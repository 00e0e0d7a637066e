//! The verbs, a file each. They return reports; only `cli` prints.

pub mod backup;
pub mod check;
pub mod daemon;
pub mod demo;
pub mod init;
pub mod list;
pub mod lock;
pub mod restore;
pub mod show;
pub mod status;
pub mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Config, GithubConfig, default_key_places, resolve_keys};
use crate::destination::Destination;
use crate::error::{Error, Result};
use crate::key::Keyring;
use crate::pipeline::transfer::download;
use crate::pipeline::unpack::{Unpacked, unpack};
use crate::progress::{Progress, Stage};
use crate::repository::listing::{Snapshot, choose, snapshots};
use crate::scratch::Scratch;
use crate::secret::Place;
use crate::stop::Stop;

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
    pub async fn read_back(&self, snapshot: &Snapshot, run: &Run) -> Result<Unpacked> {
        let keys = self.keys()?;
        let stream = run.stop.reading(download(self.destination.clone(), snapshot, &run.progress));
        let name = snapshot.name.clone();
        let unpacked = blocking(move || {
            let scratch = Scratch::new(&scratch_folder())?;
            unpack(stream, &keys, Some(&name), scratch.path(), &mut |_| Ok(()))
        });
        let unpacked = unpacked.await.map_err(|e| e.during(&snapshot.name))?;
        run.progress.end(Stage::Download);
        Ok(unpacked)
    }

    /// The snapshot that `wanted` names.
    pub async fn choose(&self, wanted: &str) -> Result<Snapshot> {
        let found = self.snapshots().await?;
        choose(&found, wanted).cloned().map_err(|e| e.during(self.destination.address()))
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
