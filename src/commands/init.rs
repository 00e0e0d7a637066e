//! `init`: a config, a key and a prepared destination. Safe to run again: what
//! is there already is used, not replaced.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::host_name;
use crate::config::{Config, FILE_NAME};
use crate::destination::{Destination, Source};
use crate::error::{Error, Kind, Result};
use crate::key::{DEFAULT_VARIABLE, KeyId, MasterKey};
use crate::repository::restore_notes;
use crate::secret::Place;

/// What to set up.
pub struct Options {
    /// Where the config goes.
    pub config: PathBuf,
    /// The system's name; this machine's when not given.
    pub system: Option<String>,
    /// The destination; needed when there is no config yet.
    pub destination: Option<String>,
    /// Tier-1 paths for the new config.
    pub paths: Vec<String>,
    /// Store the key in this file instead of showing it.
    pub write_key: Option<PathBuf>,
    /// Accept a public repository.
    pub allow_public: bool,
}

/// What was set up.
#[derive(Serialize)]
pub struct Report {
    /// The config.
    pub config: String,
    /// Whether it was written now.
    pub config_written: bool,
    /// The destination's address.
    pub destination: String,
    /// Whether its `RESTORE.md` was written now.
    pub notes_written: bool,
    /// The key's id; none when a key exists that was not at hand.
    pub key_id: Option<String>,
    /// The new key, when one was made and not written to a file: shown once.
    #[serde(serialize_with = "shown")]
    pub new_key: Option<Zeroizing<String>>,
    /// Where the new key was written.
    pub key_file: Option<String>,
    /// What a person should know.
    pub notes: Vec<String>,
}

fn shown<S: serde::Serializer>(
    key: &Option<Zeroizing<String>>,
    s: S,
) -> std::result::Result<S::Ok, S::Error> {
    key.as_ref().map(|k| k.as_str()).serialize(s)
}

/// Sets everything up, as far as it is not there yet.
pub async fn init(options: &Options) -> Result<Report> {
    let existing = options.config.exists();
    let text = if existing { String::new() } else { text(options)? };
    let config = if existing {
        Config::load(&options.config)?
    } else {
        let path = std::path::absolute(&options.config).map_err(|e| Error::io("find", &options.config, e))?;
        Config::parse(&text, &path)?
    };
    let destination = Destination::open(&config.destination, &config.github)?;
    let condition = destination.inspect().await?;
    let sealed_with = notes_key(&destination).await?;
    let mut report = Report {
        config: options.config.to_string_lossy().into_owned(),
        config_written: !existing,
        destination: destination.address(),
        notes_written: false,
        key_id: None,
        new_key: None,
        key_file: None,
        notes: Vec::new(),
    };
    if existing {
        report.notes.push(format!("{} was there already and is used as it is", options.config.display()));
    }
    // The key before the config: where it cannot be written, nothing is.
    let key = key(options, &config, sealed_with.as_deref(), &mut report)?;
    if !existing {
        write_new(&options.config, text.as_bytes(), 0o644)?;
    }
    if let (Some(key), None) = (key, sealed_with) {
        put_notes(&destination, &key).await?;
        report.notes_written = true;
    }
    // Writing may have made the place: look again before telling about it.
    let condition = if report.notes_written { destination.inspect().await? } else { condition };
    report.notes.extend(condition.warnings);
    Ok(report)
}

/// The key at hand, else a new one; none when the destination was prepared for a
/// key that is not at hand: a second one would only confuse.
fn key(
    options: &Options,
    config: &Config,
    sealed_with: Option<&str>,
    report: &mut Report,
) -> Result<Option<KeyId>> {
    let occupied = options.write_key.as_ref().is_some_and(|path| path.exists());
    let found = match config.resolve_keys() {
        // Something is there that is no key: a second one would hide that.
        Err(e) if e.kind() == Kind::Usage && !occupied => return Err(e),
        found => found.ok(),
    };
    if let Some(keys) = found {
        let id = keys.sealing().id();
        if sealed_with.is_some_and(|other| other != id.to_string()) {
            report.notes.push(format!(
                "the destination's RESTORE.md names the key {}; this one is {id}",
                sealed_with.unwrap_or_default()
            ));
        }
        report.key_id = Some(id.to_string());
        return Ok(Some(id));
    }
    if let Some(id) = sealed_with {
        report.notes.push(format!(
            "the destination was prepared for the key {id}, which is in none of the places of `key`: put it there"
        ));
        return Ok(None);
    }
    let key = MasterKey::generate()?;
    report.key_id = Some(key.id().to_string());
    match &options.write_key {
        Some(path) => {
            write_new(path, format!("{}\n", *key.text()).as_bytes(), 0o600)?;
            let place = std::path::absolute(path).map(Place::File).map_err(|e| Error::io("find", path, e))?;
            if !config.key.contains(&place) {
                report
                    .notes
                    .push(format!("add \"{place}\" to `key` in the config: it does not look there yet"));
            }
            report.key_file = Some(path.to_string_lossy().into_owned());
        }
        None => report.new_key = Some(key.text()),
    }
    Ok(Some(key.id()))
}

/// The key id in the destination's notes; `Some("")` when they name none.
async fn notes_key(destination: &Destination) -> Result<Option<String>> {
    let there = match destination.list().await {
        Ok(objects) => objects.iter().any(|o| o.name == restore_notes::OBJECT),
        // A directory that the first write makes.
        Err(_) if matches!(destination, Destination::Directory(_)) => false,
        Err(e) => return Err(e),
    };
    if !there {
        return Ok(None);
    }
    let (sender, mut chunks) = mpsc::channel(16);
    let receive = async {
        let mut text = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            let chunk: Bytes = chunk?;
            text.extend_from_slice(&chunk);
        }
        Ok::<_, Error>(text)
    };
    let ((), text) = tokio::join!(destination.get(restore_notes::OBJECT, sender), receive);
    let text = String::from_utf8_lossy(&text?).into_owned();
    Ok(Some(restore_notes::key_id(&text).unwrap_or_default().to_owned()))
}

async fn put_notes(destination: &Destination, key: &KeyId) -> Result<()> {
    let notes = restore_notes::for_destination(key);
    let mut file = tempfile::tempfile().map_err(|e| Error::io("write into", &std::env::temp_dir(), e))?;
    file.write_all(notes.as_bytes()).map_err(|e| Error::io("write into", &std::env::temp_dir(), e))?;
    destination
        .put_new(restore_notes::OBJECT, &Source { file: &file, offset: 0, len: notes.len() as u64 })
        .await
}

/// Writes a file that must not be there yet.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|e| {
        let error = Error::io("write", path, e);
        if path.exists() {
            error.hint("it is there already and is not replaced; choose another name")
        } else {
            error
        }
    })?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| Error::io("write", path, e))
}

/// The new config. Every key is in it, with what it is for.
fn text(options: &Options) -> Result<String> {
    let destination = options.destination.as_deref().ok_or_else(|| {
        Error::usage("a new config needs a destination")
            .hint("offsite init --destination github://owner/repo (or file:///mnt/backup) PATH…")
    })?;
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let own = host_name().chars().filter(|c| legal(*c)).collect::<String>();
    let own = own.trim_start_matches(['.', '-']);
    let system = options.system.as_deref().unwrap_or(if own.is_empty() { "system" } else { own });
    let config_name = options.config.file_name().map_or(FILE_NAME.into(), |n| n.to_string_lossy());
    let paths = if options.paths.is_empty() { vec![config_name.into_owned()] } else { options.paths.clone() };
    // JSON's escapes are a subset of those in TOML's basic strings.
    let quoted = |texts: &[String]| {
        texts.iter().map(|t| serde_json::Value::from(t.as_str()).to_string()).collect::<Vec<_>>().join(", ")
    };
    let mut key = vec![format!("env:{DEFAULT_VARIABLE}"), "file:/run/secrets/aither_master_key".to_owned()];
    if let Some(path) = &options.write_key {
        let path = std::path::absolute(path).map_err(|e| Error::io("find", path, e))?;
        key.push(format!("file:{}", path.display()));
    }
    Ok(include_str!("init/template.toml")
        .replace("@SYSTEM@", &quoted(&[system.to_owned()]))
        .replace("@DESTINATION@", &quoted(&[destination.to_owned()]))
        .replace("@KEY@", &quoted(&key))
        .replace("@PATHS@", &quoted(&paths))
        .replace(
            "@ALLOW_PUBLIC@",
            if options.allow_public { "allow_public = true" } else { "# allow_public = false" },
        ))
}
