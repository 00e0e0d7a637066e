//! Select: which paths are in a snapshot.
//!
//! Each path that the config lists is a root. Roots may lie inside one another;
//! the innermost one owns what is below it, so nothing is taken twice. The
//! folders above a root are taken too, for their owner and mode.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use walkdir::WalkDir;

use crate::config::Tier1;
use crate::error::{Error, Result};
use crate::repository::manifest::Skipped;

/// A folder with this file in it, beginning with the signature below, holds a
/// cache (<https://bford.info/cachedir/>).
const CACHE_TAG: &str = "CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// One path that belongs into the snapshot.
pub struct Item {
    /// Its absolute path; no component but the last is a symlink.
    pub path: PathBuf,
    /// Its own metadata (a symlink is not followed).
    pub metadata: Metadata,
    /// Its tier-1 group; none for what lies above a root.
    pub tier1: Option<String>,
    /// Whether a failure to read it makes the snapshot degraded.
    pub required: bool,
}

impl Item {
    /// Why its contents cannot be read, if they cannot.
    pub fn obstacle(&self) -> Option<String> {
        if !self.metadata.is_file() {
            return None;
        }
        crate::sources::file::open(&self.path).err().map(|e| unreadable(&e))
    }
}

/// What a walk comes upon.
pub enum Event {
    /// Something to take.
    Item(Item),
    /// Something that is left out, other than by an `exclude`.
    Skipped(Skipped),
}

/// The roots of a config, resolved against the file system.
pub struct Selection {
    roots: Vec<Root>,
    paths: HashSet<PathBuf>,
    /// Every folder and symlink above a root.
    above: HashSet<PathBuf>,
}

struct Root {
    listed: PathBuf,
    /// The listed path with the symlinks in its parents resolved.
    real: PathBuf,
    /// The symlinks that were passed on the way.
    links: Vec<PathBuf>,
    group: String,
    optional: bool,
    exclude: Gitignore,
}

impl Selection {
    /// Resolves the roots; nothing is walked yet.
    pub fn new(tier1: &BTreeMap<String, Tier1>) -> Result<Self> {
        let mut roots: Vec<Root> = Vec::new();
        for (group, rules) in tier1 {
            for listed in &rules.paths {
                let (real, links) = resolve_parents(listed);
                if let Some(known) = roots.iter_mut().find(|root| root.real == real) {
                    // What one group requires is required.
                    known.optional &= rules.optional;
                    continue;
                }
                let exclude = excludes(&real, &rules.exclude)?;
                roots.push(Root {
                    listed: listed.clone(),
                    real,
                    links,
                    group: group.clone(),
                    optional: rules.optional,
                    exclude,
                });
            }
        }
        // An outer root comes before the ones inside it.
        roots.sort_by(|a, b| a.real.cmp(&b.real));
        let paths = roots.iter().map(|root| root.real.clone()).collect();
        let above = roots.iter().flat_map(Root::above).collect();
        Ok(Self { roots, paths, above })
    }

    /// Walks all roots. Folders come before what is in them.
    pub fn walk(&self, on_event: &mut dyn FnMut(Event) -> Result<()>) -> Result<()> {
        let mut seen = HashSet::new();
        for root in &self.roots {
            self.walk_root(root, &mut seen, on_event)?;
        }
        Ok(())
    }

    fn walk_root(
        &self,
        root: &Root,
        seen: &mut HashSet<PathBuf>,
        on_event: &mut dyn FnMut(Event) -> Result<()>,
    ) -> Result<()> {
        let metadata = match fs::symlink_metadata(&root.real) {
            Ok(metadata) => metadata,
            Err(e) if root.optional && e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return on_event(root.skipped(&root.listed, unreadable(&e), !root.optional)),
        };
        take_parents(root, seen, on_event)?;
        if metadata.is_symlink()
            && let Some(reason) = self.uncovered_target(root)
        {
            on_event(root.skipped(&root.listed, reason, !root.optional))?;
        }
        // One symlink of a root's own is stored like any other.
        let mut walk = WalkDir::new(&root.real).follow_links(false).follow_root_links(false).into_iter();
        while let Some(entry) = walk.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(e) => {
                    let path = e.path().unwrap_or(&root.real).to_owned();
                    let error = e.into_io_error().unwrap_or_else(|| io::Error::other("cannot be walked"));
                    on_event(vanished_or(root, &path, &error))?;
                    continue;
                }
            };
            let path = entry.path();
            let is_dir = entry.file_type().is_dir();
            let belongs_elsewhere = entry.depth() > 0 && self.paths.contains(path);
            let excluded = entry.depth() > 0 && root.exclude.matched(path, is_dir).is_ignore();
            if belongs_elsewhere || excluded {
                if is_dir {
                    walk.skip_current_dir();
                }
                continue;
            }
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(e) => {
                    let error = e.into_io_error().unwrap_or_else(|| io::Error::other("cannot be looked at"));
                    on_event(vanished_or(root, path, &error))?;
                    continue;
                }
            };
            if let Some(kind) = special(&metadata) {
                on_event(root.skipped(path, kind.to_owned(), false))?;
                continue;
            }
            let is_cache = is_dir && is_cache(path);
            // A folder above another root may have been taken on its behalf.
            if !self.above.contains(path) || seen.insert(path.to_owned()) {
                on_event(root.item(path, metadata))?;
            }
            if is_cache {
                on_event(root.skipped(path, format!("a cache, says its {CACHE_TAG}"), entry.depth() == 0))?;
                walk.skip_current_dir();
            }
        }
        Ok(())
    }

    /// Why a root that is a symlink protects nothing: where it points is not tier 1.
    fn uncovered_target(&self, root: &Root) -> Option<String> {
        let Ok(target) = fs::canonicalize(&root.real) else {
            let target = fs::read_link(&root.real).unwrap_or_default();
            return Some(format!("a symlink to {}, where nothing can be found", target.display()));
        };
        let covered = self.paths.iter().any(|path| path != &root.real && target.starts_with(path));
        (!covered)
            .then(|| format!("a symlink to {}, which no tier-1 path covers: add that path", target.display()))
    }
}

impl Root {
    /// The folders above it, and the symlinks that lead to it.
    fn above(&self) -> Vec<PathBuf> {
        let parents = self.links.iter().chain([&self.real]).flat_map(|path| path.ancestors().skip(1));
        let parents = parents.filter(|folder| folder.parent().is_some()).map(Path::to_owned);
        parents.chain(self.links.iter().cloned()).collect()
    }

    fn item(&self, path: &Path, metadata: Metadata) -> Event {
        Event::Item(Item {
            path: path.to_owned(),
            metadata,
            tier1: Some(self.group.clone()),
            required: !self.optional,
        })
    }

    fn skipped(&self, path: &Path, reason: String, required: bool) -> Event {
        let path = path.to_string_lossy().into_owned();
        Event::Skipped(Skipped { path, tier1: self.group.clone(), reason, required })
    }
}

/// The folders above a root, and the symlinks that lead to it, once each.
fn take_parents(
    root: &Root,
    seen: &mut HashSet<PathBuf>,
    on_event: &mut dyn FnMut(Event) -> Result<()>,
) -> Result<()> {
    let mut above = root.above();
    above.sort();
    above.dedup();
    for path in above {
        if seen.contains(&path) {
            continue;
        }
        // One that cannot be looked at costs its mode, not what is below it.
        if let Ok(metadata) = fs::symlink_metadata(&path) {
            seen.insert(path.clone());
            on_event(Event::Item(Item { path, metadata, tier1: None, required: false }))?;
        }
    }
    Ok(())
}

/// Resolves the symlinks in all components but the last, and names them.
fn resolve_parents(listed: &Path) -> (PathBuf, Vec<PathBuf>) {
    let mut real = PathBuf::from("/");
    let mut links = Vec::new();
    let mut components = listed.components().skip(1).peekable();
    while let Some(component) = components.next() {
        real.push(component);
        if components.peek().is_some() && real.is_symlink() {
            links.push(real.clone());
            // A broken link stays as it is: the root is then found missing.
            real = fs::canonicalize(&real).unwrap_or(real);
        }
    }
    (real, links)
}

fn excludes(root: &Path, patterns: &[String]) -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new(root);
    let wrong = |e: ignore::Error| Error::usage(format!("an `exclude` pattern is wrong: {e}"));
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(wrong)?;
    }
    builder.build().map_err(wrong)
}

/// What has vanished since its folder was read is normal life; what cannot be
/// read is a loss.
fn vanished_or(root: &Root, path: &Path, error: &io::Error) -> Event {
    match error.kind() {
        io::ErrorKind::NotFound => root.skipped(path, "vanished during the walk".to_owned(), false),
        _ => root.skipped(path, unreadable(error), !root.optional),
    }
}

/// Why something could not be read, in a few words.
pub fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "missing".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => format!("unreadable: {error}"),
    }
}

fn special(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_socket() {
        Some("a socket")
    } else if kind.is_fifo() {
        Some("a fifo")
    } else if kind.is_block_device() || kind.is_char_device() {
        Some("a device")
    } else {
        None
    }
}

fn is_cache(folder: &Path) -> bool {
    use std::os::unix::fs::FileExt;
    let mut head = [0; CACHE_SIGNATURE.len()];
    let tag = crate::sources::file::open(&folder.join(CACHE_TAG));
    tag.is_ok_and(|file| file.read_exact_at(&mut head, 0).is_ok() && head == *CACHE_SIGNATURE)
}

#[cfg(test)]
mod tests;
