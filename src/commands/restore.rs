//! `restore`: from an object and the key to a system's files and databases.
//!
//! Everything is fetched, authenticated and checked in a staging folder beside
//! the target; only then is the target touched, and after it the databases.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::Seek;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Home, Run, Whence, blocking};
use crate::error::{Error, Result};
use crate::key::Keyring;
use crate::pipeline::archive::{FILES, MANIFEST, Member, POSTGRES, RESTORE_NOTES};
use crate::pipeline::commit::{self, Target};
use crate::pipeline::staging::Staging;
use crate::pipeline::transfer::download;
use crate::pipeline::unpack::{Unpacked, unpack};
use crate::progress::Stage;
use crate::repository::manifest::{Cluster, EntryType, Manifest, RegenerableRecord};
use crate::repository::name::SnapshotName;
use crate::secret::{Place, resolve};
use crate::sources::postgres::connection::Connection;
use crate::sources::postgres::load::{Expected, check_target, load};
use crate::workers::Workers;

/// What to restore, and where to.
pub struct Options {
    /// `SNAPSHOT`: a name, a unique prefix, an id, or `latest`.
    pub wanted: String,
    /// The folder that stands for `/`.
    pub target: PathBuf,
    /// Only what matches one of these; everything when empty.
    pub only: Vec<String>,
    /// `[LABEL=]URL` of clusters to load dumps into; a URL may be a place of one.
    pub postgres: Vec<Zeroizing<String>>,
    /// Accept a target that has files.
    pub force: bool,
}

/// What came back.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The snapshot's name.
    pub snapshot: String,
    /// Its id; empty for what the earlier Python system stored.
    pub id: String,
    /// `complete` or `degraded`.
    pub state: &'static str,
    /// Whether it has a manifest; without one only its authenticity is known.
    pub manifest: bool,
    /// Where its files are now. In paths, bytes that are not UTF-8 are replaced.
    pub target: String,
    /// Where its dumps and manifest are now.
    pub extras: Option<String>,
    /// Files, folders and links restored.
    pub entries: u64,
    /// Bytes of contents checked.
    pub content_bytes: u64,
    /// Why it is degraded.
    pub problems: Vec<String>,
    /// What could not be given back, such as owners without being root.
    pub refused: Vec<String>,
    /// Files with a setuid or setgid bit.
    pub setuid: Vec<String>,
    /// Databases that were loaded.
    pub loaded: Vec<LoadedCluster>,
    /// Dumps that were restored but not loaded, as files.
    pub dumps: Vec<String>,
    /// What else a person should know, such as a newer snapshot that was passed over.
    pub notes: Vec<String>,
    /// What was left out on purpose, and how it comes back.
    pub regenerable: Vec<RegenerableRecord>,
    /// How long it took.
    pub seconds: f64,
    /// Requests sent to the destination.
    pub api_calls: u64,
}

/// One cluster that was loaded and compared with the manifest.
#[derive(Clone, Debug, Serialize)]
pub struct LoadedCluster {
    /// Its label.
    pub label: String,
    /// The server's version.
    pub server_version: String,
    /// Databases compared.
    pub databases: usize,
    /// Roles compared.
    pub roles: usize,
    /// What `psql` complained of that is harmless.
    pub harmless: Vec<String>,
}

/// Restores the snapshot that the options name.
pub async fn restore(whence: &Whence, options: Options, run: &Run) -> Result<Report> {
    let began = Instant::now();
    let home = Home::open(whence)?;
    let options = Options { target: absolute(&options.target)?, ..options };
    let before = commit::look(&options.target, options.force)?;
    let keys = home.keys()?;
    let wish = Wish::new(&options)?;
    let found = home.find(&options.wanted).await?;
    let (snapshot, shown) = (&found.snapshot, found.shown());

    let job = Job { options, before, keys, name: found.name(), run: run.clone(), wish };
    let stream = run.stop.reading(download(home.destination.clone(), snapshot, &run.progress));
    let during = shown.clone();
    let mut report = blocking(move || job.carry_out(stream)).await.map_err(|e| e.during(during))?;
    report.snapshot = shown;
    report.notes = found.passed_over;
    report.state = snapshot.state.as_str();
    report.api_calls = home.destination.api_calls();
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

fn absolute(target: &Path) -> Result<PathBuf> {
    let target = std::path::absolute(target).map_err(|e| Error::io("find", target, e))?;
    // A symlink to the target is fine; what is written goes where it points.
    Ok(fs::canonicalize(&target).unwrap_or(target))
}

/// Which members are wanted, and what is to be loaded.
struct Wish {
    only: Option<Gitignore>,
    postgres: Vec<(Option<String>, Connection)>,
}

impl Wish {
    fn new(options: &Options) -> Result<Self> {
        let postgres = options.postgres.iter().map(|text| {
            let (label, url) = match text.split_once('=') {
                Some((label, url)) if !label.contains([':', '/', '?']) => (Some(label.to_owned()), url),
                _ => (None, text.as_str()),
            };
            let url = match Place::parse(url, Path::new(".")) {
                Ok(place) => resolve("database URL", &[place])?,
                Err(_) => Zeroizing::new(url.to_owned()),
            };
            Ok((label, Connection::from_url(&url)?))
        });
        let only = if options.only.is_empty() { None } else { Some(globs(&options.only)?) };
        Ok(Self { only, postgres: postgres.collect::<Result<_>>()? })
    }

    fn wants(&self, path: &[u8], is_dir: bool) -> bool {
        let Some(only) = &self.only else { return true };
        // Our own notes are never in the way, and say how to go on.
        if path == RESTORE_NOTES.as_bytes() {
            return true;
        }
        let path = path.strip_prefix(b"files/").unwrap_or(path);
        only.matched_path_or_any_parents(OsStr::from_bytes(path), is_dir).is_ignore()
    }
}

/// A pattern matches a path from the root or any tail of it, and with a folder
/// everything below.
fn globs(patterns: &[String]) -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new("");
    for pattern in patterns {
        let wrong = |e: ignore::Error| Error::usage(format!("`--only {pattern}` is not a pattern: {e}"));
        let anchored =
            if pattern.starts_with(['/', '*']) { pattern.clone() } else { format!("**/{pattern}") };
        builder.add_line(None, &anchored).map_err(wrong)?;
    }
    builder.build().map_err(|e| Error::usage(format!("`--only` is not a pattern: {e}")))
}

struct Job {
    options: Options,
    before: Target,
    keys: Keyring,
    name: Option<SnapshotName>,
    run: Run,
    wish: Wish,
}

impl Job {
    fn carry_out(self, stream: impl std::io::Read) -> Result<Report> {
        let target = &self.options.target;
        let workers = Workers::start()?;
        let mut staging = Staging::beside(target, &workers)?;
        let scratch = staging.root();
        let mut staged = 0;
        let unpacked = unpack(stream, &self.keys, self.name.as_ref(), &scratch, &workers, &mut |member| {
            let wanted = stage(&mut staging, member, &self.wish)?;
            staged += u64::from(wanted && member.path != RESTORE_NOTES.as_bytes());
            Ok(())
        })?;
        self.run.progress.end(Stage::Download);
        if staged == 0 && self.wish.only.is_some() {
            return Err(Error::failed("nothing in the snapshot matches --only")
                .hint("`offsite show` lists its paths; a pattern is a path, a file name, or a glob such as '**/*.pem'"));
        }
        let jobs = self.loads(unpacked.manifest.as_ref())?;
        let mut report = Report { refused: staging.finish()?, entries: staged, ..Report::default() };
        let (from, above) = arrange(&staging.root(), &unpacked)?;
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
        }
        commit::commit(&from, target, self.before, &above)?;
        drop(staging);
        self.describe(unpacked, &mut report);
        self.load(jobs, &mut report)?;
        Ok(report)
    }

    fn describe(&self, unpacked: Unpacked, report: &mut Report) {
        report.target = text(&self.options.target);
        report.content_bytes = unpacked.bytes;
        if rustix::process::geteuid().is_root() {
            report.setuid = unpacked.setuid;
        } else {
            report.refused.push("owners and groups: only root can give files away".to_owned());
        }
        let Some(manifest) = unpacked.manifest else { return };
        let extras = extras(&self.options.target, &manifest.id);
        report.manifest = true;
        let dumps = manifest.postgres.iter().map(|c| extras.join(&c.file)).filter(|f| f.exists());
        report.dumps = dumps.map(|dump| text(&dump)).collect();
        report.extras = Some(text(&extras));
        report.id = manifest.id;
        report.problems = manifest.problems;
        report.regenerable = manifest.regenerable;
    }

    /// Pairs every `--postgres` with a dump, and looks whether it can be loaded.
    fn loads(&self, manifest: Option<&Manifest>) -> Result<Vec<(Connection, Cluster, PathBuf)>> {
        let clusters = manifest.map(|m| m.postgres.as_slice()).unwrap_or_default();
        let labels = clusters.iter().map(|c| c.label.as_str()).collect::<Vec<_>>().join(", ");
        let mut jobs = Vec::new();
        for (label, connection) in &self.wish.postgres {
            let cluster = match (label, clusters) {
                (_, []) => return Err(Error::failed("the snapshot holds no dump to load")),
                (None, [one]) => one,
                (None, _) => {
                    return Err(Error::usage(format!("the snapshot holds several dumps: {labels}"))
                        .hint("say which: --postgres LABEL=URL"));
                }
                (Some(label), _) => clusters.iter().find(|c| &c.label == label).ok_or_else(|| {
                    Error::usage(format!("the snapshot holds no dump `{label}`, only {labels}"))
                })?,
            };
            if !self.wish.wants(cluster.file.as_bytes(), false) {
                return Err(Error::usage(format!(
                    "--only leaves out {}, which --postgres needs",
                    cluster.file
                ))
                .hint(format!("add --only '{}'", cluster.file)));
            }
            check_target(connection, &expected(cluster), &self.run.stop)?;
            let file =
                manifest.map(|m| extras(&self.options.target, &m.id)).unwrap_or_default().join(&cluster.file);
            jobs.push((connection.clone(), cluster.clone(), file));
        }
        Ok(jobs)
    }

    fn load(&self, jobs: Vec<(Connection, Cluster, PathBuf)>, report: &mut Report) -> Result<()> {
        for (connection, cluster, path) in jobs {
            self.run.progress.begin(Stage::Load, None);
            let mut sql = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
            let loaded = load(&connection, &mut sql, &expected(&cluster), &self.run.stop).map_err(|e| {
                e.during(format!("the files are restored, but loading {} failed", path.display()))
            })?;
            self.run.progress.end(Stage::Load);
            report.dumps.retain(|dump| dump != &text(&path));
            report.loaded.push(LoadedCluster {
                label: cluster.label,
                server_version: loaded.server_version,
                databases: loaded.databases,
                roles: loaded.roles,
                harmless: loaded.harmless,
            });
        }
        Ok(())
    }
}

fn expected(cluster: &Cluster) -> Expected<'_> {
    Expected {
        inventory: &cluster.inventory,
        client_major: cluster.client_major,
        needs_psql: cluster.needs_psql,
    }
}

/// Puts a member into the staging folder, in the archive's own layout, when it
/// is wanted. Says whether it was.
fn stage(staging: &mut Staging, member: &mut Member<'_>, wish: &Wish) -> Result<bool> {
    let wanted = wish.wants(&member.path, member.kind == EntryType::Directory);
    let link = member.link.clone().unwrap_or_default();
    match member.kind {
        EntryType::Directory if matches!(member.path.as_slice(), b"" | b".") => return Ok(false),
        EntryType::Directory => staging.folder(&member.path, &member.metadata, wanted)?,
        _ if !wanted => crate::pipeline::staging::check_path(&member.path)?,
        EntryType::Symlink => staging.symlink(&member.path, &member.metadata, &link)?,
        EntryType::Hardlink if !wish.wants(&link, false) => {
            return Err(Error::failed(format!(
                "{} is another name of {}, which --only leaves out",
                String::from_utf8_lossy(&member.path),
                String::from_utf8_lossy(&link)
            ))
            .hint(format!(
                "add --only '/{}'",
                String::from_utf8_lossy(link.strip_prefix(b"files/").unwrap_or(&link))
            )));
        }
        EntryType::Hardlink => staging.hard_link(&member.path, &link)?,
        EntryType::File => {
            staging.file(&member.path, &member.metadata, member.contents, member.size, member.sparse)?
        }
    }
    Ok(wanted)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn extras(target: &Path, id: &str) -> PathBuf {
    target.join(".offsite").join(id)
}

/// From the archive's layout to the target's: `files/` becomes the root, and the
/// rest goes below `.offsite/<id>/`. Returns what is to be moved to the target,
/// and the folders above tier-1 paths as paths in it.
fn arrange(root: &Path, unpacked: &Unpacked) -> Result<(PathBuf, HashSet<PathBuf>)> {
    let (Some(manifest), Some(text)) = (&unpacked.manifest, &unpacked.manifest_text) else {
        return Ok((root.to_owned(), HashSet::new()));
    };
    let files = root.join(FILES);
    let extras = extras(&files, &manifest.id);
    let cannot = |e| Error::io("write into", &extras, e).hint("is the disk full?");
    DirBuilder::new().recursive(true).mode(0o700).create(&extras).map_err(cannot)?;
    for name in [POSTGRES, RESTORE_NOTES] {
        match fs::rename(root.join(name), extras.join(name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(cannot(e)),
            _ => {}
        }
    }
    let mut text = text.try_clone().map_err(cannot)?;
    text.rewind().map_err(cannot)?;
    let mut out = File::create_new(extras.join(MANIFEST)).map_err(cannot)?;
    std::io::copy(&mut text, &mut out).map_err(cannot)?;
    out.sync_all().map_err(cannot)?;
    let prefix = format!("{FILES}/");
    let above = unpacked.folders_above.iter().filter_map(|p| p.strip_prefix(prefix.as_bytes()));
    Ok((files, above.map(|p| PathBuf::from(OsStr::from_bytes(p))).collect()))
}
