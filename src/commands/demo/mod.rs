//! `demo`: the whole story on this machine. A sample system is built, backed
//! up, destroyed, restored from the object and the key alone, and compared byte
//! by byte and row by row.
//!
//! Every step is the program itself, run as a person would type it.

mod compare;
mod database;
mod system;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Run, blocking, scratch_folder};
use crate::error::{Error, Result};
use crate::key::{DEFAULT_VARIABLE, MasterKey};
use crate::progress::Progress;
use crate::scratch::Scratch;
use crate::sources::postgres::server_installed;
use crate::stop::Stop;
use compare::Picture;
use database::Database;
use system::LiveMemory;

/// The name that the sample system has at the destination.
const SYSTEM: &str = "offsite-demo";

/// How the story went.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Whether everything came back as it was.
    pub identical: bool,
    /// Files, folders and links compared.
    pub entries: usize,
    /// Rows compared, of PostgreSQL and SQLite.
    pub rows: u64,
    /// What took how long.
    pub steps: Vec<Step>,
    /// What was left out, and what stays behind.
    pub notes: Vec<String>,
    /// What did not come back as it was.
    pub differences: Vec<String>,
}

/// One step of the story.
#[derive(Debug, Serialize)]
pub struct Step {
    /// What was done.
    pub what: String,
    /// How long it took.
    pub seconds: f64,
}

/// Tells the story with a folder as the destination, or with `to`.
pub async fn demo(to: Option<&str>, run: &Run) -> Result<Report> {
    let (to, run) = (to.map(str::to_owned), run.clone());
    blocking(move || Story::new(to, &run)?.tell()).await
}

struct Story {
    scratch: Scratch,
    destination: String,
    key: Zeroizing<String>,
    progress: Progress,
    stop: Stop,
    report: Report,
}

impl Story {
    fn new(to: Option<String>, run: &Run) -> Result<Self> {
        let scratch = Scratch::new(&scratch_folder())?;
        let mut report = Report::default();
        let destination = match to {
            Some(to) => {
                report.notes.push(format!("the demo's snapshot stays at {to}, as the system {SYSTEM}"));
                to
            }
            None => {
                let path = scratch.path().join("destination");
                make_folder(&path)?;
                format!("file://{}", path.display())
            }
        };
        Ok(Self {
            scratch,
            destination,
            key: MasterKey::generate()?.text(),
            progress: run.progress.clone(),
            stop: run.stop.clone(),
            report,
        })
    }

    fn tell(mut self) -> Result<Report> {
        let began = Instant::now();
        let root = self.scratch.path().join("system");
        let memory = self.step("build a sample system: 635 files, 10 MB", |_| {
            make_folder(&root)?;
            system::build(&root)?;
            LiveMemory::start(&root)
        })?;
        let original = self.database()?;
        let rows_before = original.as_ref().map(|db| db.fingerprint(&self.stop)).transpose()?;
        let config = self.write_config(&root, original.is_some())?;
        let committed_before = memory.committed();
        let url = original.as_ref().map(Database::url);
        self.step("back it up, while its memory database is being written to", |story| {
            let config = config.display().to_string();
            story.offsite(&["--config", &config, "backup"], url.as_deref().map(|u| ("DEMO_DATABASE_URL", u)))
        })?;
        let committed_after = memory.stop()?;
        let before = Picture::take(&root)?;

        let id = self.newest()?;
        self.step("look at the snapshot", |story| {
            let from = story.destination.clone();
            story.offsite(&["show", &id, "--from", &from], None)
        })?;
        self.step("burn it down: files, databases, configuration", |story| {
            drop(original);
            std::fs::remove_dir_all(&root).map_err(|e| Error::io("remove", &root, e))?;
            story.say(&format!("{} is gone", root.display()));
            Ok(())
        })?;
        let (target, empty) = self.restore(&id, rows_before.is_some())?;
        self.step("compare every byte, mode, owner, time, link and row", |story| {
            let restored = target.join(root.strip_prefix("/").unwrap_or(&root));
            let after = Picture::take(&restored)?;
            story.report.entries = before.len();
            story.report.differences = before.differences(&after);
            let memory = system::check_memory(&restored, committed_before, committed_after)?;
            story.report.rows += memory.rows;
            story.report.differences.extend(memory.problem);
            if let (Some(before), Some(db)) = (&rows_before, &empty) {
                let after = db.fingerprint(&story.stop)?;
                story.report.rows += before.rows;
                story.report.differences.extend(before.differences(&after));
            }
            Ok(())
        })?;
        self.report.identical = self.report.differences.is_empty();
        self.report.steps.push(Step { what: "all of it".into(), seconds: began.elapsed().as_secs_f64() });
        Ok(self.report)
    }

    /// Restores into a new folder and, when there was a cluster, an empty one.
    fn restore(&mut self, id: &str, with_database: bool) -> Result<(PathBuf, Option<Database>)> {
        let target = self.scratch.path().join("restored");
        let empty = match with_database {
            true => Some(self.step("start an empty cluster", |story| {
                Database::empty(story.scratch.path(), &story.stop)
            })?),
            false => None,
        };
        self.step("restore from the object and the key alone", |story| {
            let (from, to) = (story.destination.clone(), target.display().to_string());
            let mut args = vec!["restore", id, "--from", &from, "--target", &to];
            let url = empty.as_ref().map(Database::url);
            if url.is_some() {
                args.extend(["--postgres", "env:DEMO_DATABASE_URL"]);
            }
            story.offsite(&args, url.as_deref().map(|u| ("DEMO_DATABASE_URL", u)))
        })?;
        Ok((target, empty))
    }

    fn database(&mut self) -> Result<Option<Database>> {
        if !server_installed() {
            self.report.notes.push(
                "PostgreSQL's server is not on this machine, so the databases were left out; \
                 `apt-get install postgresql` brings it"
                    .to_owned(),
            );
            return Ok(None);
        }
        self.step("start a PostgreSQL cluster: two databases, three roles", |story| {
            Database::filled(story.scratch.path(), &story.stop).map(Some)
        })
    }

    fn write_config(&self, root: &Path, with_database: bool) -> Result<PathBuf> {
        let mut text = system::config(SYSTEM, &self.destination);
        if with_database {
            text.push_str("\n[postgres.main]\nurl = [\"env:DEMO_DATABASE_URL\"]\n");
        }
        let path = root.join("backup-paths.toml");
        std::fs::write(&path, text).map_err(|e| Error::io("write", &path, e))?;
        Ok(path)
    }

    /// The id of the snapshot that was just made.
    fn newest(&self) -> Result<String> {
        let output = self
            .command(&["--json", "list", "--from", &self.destination, "--system", SYSTEM])?
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| Error::from_io("cannot run offsite itself", e))?;
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let id = list.pointer("/snapshots/0/id").and_then(Value::as_str);
        id.map(str::to_owned).ok_or_else(|| Error::failed("the snapshot that was just made is not listed"))
    }

    /// Runs this program with the key in its environment and no config but what
    /// the arguments name.
    fn offsite(&self, args: &[&str], variable: Option<(&str, &str)>) -> Result<()> {
        self.stop.check()?;
        self.say(&format!("$ offsite {}", args.join(" ")));
        let mut command = self.command(args)?;
        if let Some((name, value)) = variable {
            command.env(name, value);
        }
        let output = command.output().map_err(|e| Error::from_io("cannot run offsite itself", e))?;
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            self.say(line);
        }
        if output.status.success() {
            return Ok(());
        }
        let last = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::failed(format!("`offsite {}` failed ({}): {last}", args[0], output.status)))
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let program = std::env::current_exe().map_err(|e| Error::from_io("cannot find offsite itself", e))?;
        let mut command = Command::new(program);
        command.args(args).current_dir(self.scratch.path()).stdin(Stdio::null());
        command.env(DEFAULT_VARIABLE, self.key.as_str()).env_remove("OFFSITE_CONFIG");
        Ok(command)
    }

    fn step<T>(&mut self, what: &str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.stop.check()?;
        self.say(&format!("\n== {what}"));
        let began = Instant::now();
        let result = work(self)?;
        self.report.steps.push(Step { what: what.to_owned(), seconds: began.elapsed().as_secs_f64() });
        Ok(result)
    }

    fn say(&self, text: &str) {
        self.progress.note(text);
    }
}

fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir(path).map_err(|e| Error::io("create", path, e))
}

/// Writes a file and gives it a mode, as the sample's builder needs it.
fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let cannot = |e| Error::io("write", path, e);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(cannot)?;
    }
    let mut file = std::fs::File::create(path).map_err(cannot)?;
    file.write_all(bytes).map_err(cannot)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(cannot)
}
