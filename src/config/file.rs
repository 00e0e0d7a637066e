//! The config as TOML has it, and its checks.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::{
    Config, Deadlines, GithubConfig, PostgresConfig, Regenerable, Tier1, Unchanged, absolute, check_system,
};
use crate::config::schedule::Schedule;
use crate::error::{Error, Result};
use crate::gzip::Level;
use crate::secret::Place;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    system: String,
    destination: String,
    #[serde(default = "default_schedule")]
    schedule: String,
    #[serde(default)]
    compression: Level,
    #[serde(default)]
    unchanged: Unchanged,
    key: Vec<String>,
    #[serde(default)]
    github: GithubFile,
    #[serde(default)]
    tier1: BTreeMap<String, Tier1File>,
    #[serde(default)]
    regenerable: BTreeMap<String, RegenerableFile>,
    #[serde(default)]
    postgres: BTreeMap<String, PostgresFile>,
    #[serde(default)]
    deadlines: DeadlinesFile,
}

fn default_schedule() -> String {
    "0 17 */6 * * *".to_owned()
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct GithubFile {
    token: Option<Vec<String>>,
    branch: Option<String>,
    api_url: Option<String>,
    #[serde(default)]
    allow_public: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tier1File {
    paths: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    optional: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegenerableFile {
    paths: Vec<String>,
    how: String,
    takes: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PostgresFile {
    url: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct DeadlinesFile {
    dump: Option<String>,
    archive: Option<String>,
    upload: Option<String>,
}

impl File {
    pub(super) fn check(self, path: &Path) -> Result<Config> {
        let base = path.parent().unwrap_or(Path::new("/"));
        check_system(&self.system)?;
        let mut tier1 = BTreeMap::new();
        for (name, group) in self.tier1 {
            check_label("tier1", &name)?;
            let group = group.check(base).map_err(|e| e.during(format!("[tier1.{name}]")))?;
            tier1.insert(name, group);
        }
        let mut postgres = BTreeMap::new();
        for (label, cluster) in self.postgres {
            check_label("postgres", &label)?;
            let url =
                places(&cluster.url, base).map_err(|e| e.during(format!("`url` in [postgres.{label}]")))?;
            postgres.insert(label, PostgresConfig { url });
        }
        if tier1.is_empty() && postgres.is_empty() {
            return Err(Error::usage(
                "nothing to back up: there is neither a [tier1.…] nor a [postgres.…] section",
            )
            .hint("name the paths that cannot be regenerated: [tier1.secrets] paths = [\"data/vault\"]"));
        }
        let regenerable = self
            .regenerable
            .into_iter()
            .map(|(name, r)| (name, Regenerable { paths: r.paths, how: r.how, takes: r.takes }));
        Ok(Config {
            path: path.to_owned(),
            destination: self.destination,
            schedule: Schedule::parse(&self.schedule).map_err(|e| e.during("`schedule`"))?,
            compression: self.compression,
            unchanged: self.unchanged,
            key: places(&self.key, base).map_err(|e| e.during("`key`"))?,
            github: self.github.check(base)?,
            deadlines: self.deadlines.check()?,
            system: self.system,
            tier1,
            regenerable: regenerable.collect(),
            postgres,
        })
    }
}

impl GithubFile {
    fn check(self, base: &Path) -> Result<GithubConfig> {
        let default = GithubConfig::from_environment();
        let token = match self.token {
            Some(entries) => places(&entries, base).map_err(|e| e.during("`token` in [github]"))?,
            None => default.token,
        };
        Ok(GithubConfig {
            token,
            branch: self.branch,
            api_url: self.api_url.or(default.api_url),
            allow_public: self.allow_public,
        })
    }
}

impl Tier1File {
    fn check(self, base: &Path) -> Result<Tier1> {
        if self.paths.is_empty() {
            return Err(Error::usage("`paths` is empty"));
        }
        if self.paths.iter().any(|p| p.is_empty() || p.contains('\0')) {
            return Err(Error::usage("`paths` has an empty entry, or one with a NUL character"));
        }
        for pattern in &self.exclude {
            ignore::gitignore::GitignoreBuilder::new("/")
                .add_line(None, pattern)
                .map(|_| ())
                .map_err(|e| Error::usage(format!("`exclude` pattern `{pattern}` is wrong: {e}")))?;
        }
        let paths = self.paths.iter().map(|path| absolute(base, path)).collect();
        Ok(Tier1 { paths, exclude: self.exclude, optional: self.optional })
    }
}

impl DeadlinesFile {
    fn check(self) -> Result<Deadlines> {
        let default = Deadlines::default();
        let read = |key: &str, text: Option<String>, default: Duration| match text {
            None => Ok(default),
            Some(text) => match humantime::parse_duration(&text) {
                Ok(limit) if !limit.is_zero() => Ok(limit),
                _ => Err(Error::usage(format!("`{key}` in [deadlines] is not a time: `{text}`"))
                    .hint("write it as \"90s\", \"30m\" or \"2h\"")),
            },
        };
        Ok(Deadlines {
            dump: read("dump", self.dump, default.dump)?,
            archive: read("archive", self.archive, default.archive)?,
            upload: read("upload", self.upload, default.upload)?,
        })
    }
}

fn places(entries: &[String], base: &Path) -> Result<Vec<Place>> {
    if entries.is_empty() {
        return Err(Error::usage("the list of places is empty")
            .hint("write env:NAME, file:PATH, command:… or https://…"));
    }
    entries.iter().map(|entry| Place::parse(entry, base)).collect()
}

/// Labels become file names inside the snapshot.
fn check_label(section: &str, label: &str) -> Result<()> {
    check_system(label).map_err(|_| {
        Error::usage(format!("[{section}.{label:?}] is not a usable name"))
            .hint("use letters, digits, `.`, `_` and `-`, not starting with `.` or `-`")
    })
}
