//! `backup-paths.toml`: text in, typed values out, once, at the edge.
//!
//! Everything behind this module may rely on it: places of secrets parse,
//! paths are absolute, the schedule has a next run, no key is unknown. A leaf:
//! it knows nothing of what is done with the values.

mod explain;
mod file;
pub mod schedule;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::gzip::Level;
use crate::key::{DEFAULT_VARIABLE, Keyring};
use crate::repository::name::check_system;
use crate::secret::{Place, resolve, resolve_all};
use schedule::Schedule;

/// The config's name in the current folder.
pub const FILE_NAME: &str = "backup-paths.toml";

/// Where it is looked for after `--config`, `$OFFSITE_CONFIG` and the current folder.
pub const SYSTEM_FILE: &str = "/etc/offsite/backup-paths.toml";

/// A checked config.
#[derive(Clone)]
pub struct Config {
    /// The file that it was read from.
    pub path: PathBuf,
    /// The name of the system that is backed up.
    pub system: String,
    /// Where snapshots go, as written: `github://owner/repo` or `file:///dir`.
    pub destination: String,
    /// When the daemon backs up.
    pub schedule: Schedule,
    /// How hard to compress.
    pub compression: Level,
    /// What a run does that finds nothing changed.
    pub unchanged: Unchanged,
    /// Where the master key may be.
    pub key: Vec<Place>,
    /// What concerns GitHub.
    pub github: GithubConfig,
    /// What cannot be regenerated, by group.
    pub tier1: BTreeMap<String, Tier1>,
    /// What is left out on purpose, by name.
    pub regenerable: BTreeMap<String, Regenerable>,
    /// PostgreSQL clusters to dump, by label.
    pub postgres: BTreeMap<String, PostgresConfig>,
    /// How long each stage of a run may take.
    pub deadlines: Deadlines,
}

/// What a run does that finds everything as it was in the run before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unchanged {
    /// Stores a snapshot like every other run.
    #[default]
    Upload,
    /// Stores a mark that the last snapshot still holds everything.
    Mark,
}

/// `[github]`
#[derive(Clone)]
pub struct GithubConfig {
    /// Where the token may be.
    pub token: Vec<Place>,
    /// The branch; `None` is the repository's default branch.
    pub branch: Option<String>,
    /// The API's address; `None` is github.com's.
    pub api_url: Option<String>,
    /// Whether a public repository is accepted.
    pub allow_public: bool,
}

/// `[tier1.<group>]`
#[derive(Clone, Debug)]
pub struct Tier1 {
    /// Absolute paths.
    pub paths: Vec<PathBuf>,
    /// gitignore-style patterns, relative to each of the paths.
    pub exclude: Vec<String>,
    /// Whether absence is fine; else it makes the snapshot degraded.
    pub optional: bool,
}

/// `[regenerable.<name>]`
#[derive(Clone, Debug)]
pub struct Regenerable {
    /// Paths as written in the config.
    pub paths: Vec<String>,
    /// The command that brings it back.
    pub how: String,
    /// About how long that takes, in the operator's words.
    pub takes: Option<String>,
}

/// `[postgres.<label>]`
#[derive(Clone)]
pub struct PostgresConfig {
    /// Where the connection URL may be.
    pub url: Vec<Place>,
}

/// `[deadlines]`: how long each stage may take before it is given up.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// One cluster's dump. Default 1 h.
    pub dump: Duration,
    /// Reading, packing and sealing the files. Default 2 h.
    pub archive: Duration,
    /// The upload, all retries included. Default 1 h.
    pub upload: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        Self { dump: hours(1), archive: hours(2), upload: hours(1) }
    }
}

impl GithubConfig {
    /// What holds when there is no config: the token from the environment.
    pub fn from_environment() -> Self {
        let token = vec![Place::Env("GITHUB_TOKEN".into()), Place::File("/run/secrets/github_token".into())];
        let api_url = std::env::var("OFFSITE_GITHUB_API_URL").ok().filter(|url| !url.is_empty());
        Self { token, branch: None, api_url, allow_public: false }
    }

    /// The token, from the first place that has it.
    pub fn resolve_token(&self) -> Result<Zeroizing<String>> {
        resolve("GitHub token", &self.token)
    }
}

/// Where the key is looked for when no config says so.
pub fn default_key_places() -> Vec<Place> {
    vec![Place::Env(DEFAULT_VARIABLE.into()), Place::File("/run/secrets/aither_master_key".into())]
}

/// The keyring, from every place that has a key.
pub fn resolve_keys(places: &[Place]) -> Result<Keyring> {
    let texts = resolve_all("master key", places)?;
    Keyring::parse(texts.iter().map(|text| text.as_str()))
}

impl Config {
    /// The path of the config that applies: `given`, else the file in the
    /// current folder, else the system's.
    pub fn locate(given: Option<&Path>) -> Result<PathBuf> {
        if let Some(path) = given {
            return Ok(path.to_owned());
        }
        for candidate in [FILE_NAME, SYSTEM_FILE] {
            if Path::new(candidate).exists() {
                return Ok(candidate.into());
            }
        }
        Err(Error::usage(format!("found no config: neither ./{FILE_NAME} nor {SYSTEM_FILE} exists")).hint(
            "`offsite init` writes one; on a fresh machine give `--from github://owner/repo` in its place",
        ))
    }

    /// Reads and checks the config at `path`.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::usage(format!("there is no config at {}", path.display()))
                .hint("`offsite init` writes one"),
            std::io::ErrorKind::InvalidData => Error::usage(format!("{} is not UTF-8 text", path.display())),
            _ => Error::io("read", path, source),
        })?;
        let absolute = std::path::absolute(path).map_err(|e| Error::io("find", path, e))?;
        Self::parse(&text, &absolute)
    }

    /// Checks the text of a config that lies, or will lie, at the absolute `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let raw: file::File = toml::from_str(text).map_err(|e| explain::syntax(path, text, &e))?;
        raw.check(path).map_err(|e| e.during(path.display()))
    }

    /// The master keys.
    pub fn resolve_keys(&self) -> Result<Keyring> {
        resolve_keys(&self.key)
    }
}

/// Makes `path` absolute from the folder of the config, without `.` and `..`
/// (read as text: a symlink in front of a `..` is not looked at).
fn absolute(base: &Path, path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in base.join(path).components() {
        match component {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            std::path::Component::Normal(part) => clean.push(part),
            _ => {}
        }
    }
    clean
}
