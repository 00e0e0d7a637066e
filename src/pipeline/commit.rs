//! Commit: from the staging folder into the target, once all is checked.
//!
//! A new or empty target appears in one rename: it is untouched or complete. A
//! target that has files (`--force`) is merged into file by file, each by a
//! rename, after every conflict has been looked for.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::staging::write_sparse;
use crate::error::{Error, Result};
use crate::sources::metadata::FileMetadata;

/// What is at the target before a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing.
    New,
    /// A folder without anything in it.
    Empty,
    /// A folder with something in it.
    Occupied,
}

/// Looks at the target; refuses one that is occupied unless `force` is given.
pub fn look(target: &Path, force: bool) -> Result<Target> {
    let entries = match fs::read_dir(target) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound && !target.is_symlink() => return Ok(Target::New),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            return Err(Error::failed(format!("{} is not a folder", target.display())));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Error::failed(format!("{} is a symlink to nowhere", target.display()))
                .hint("make the folder that it points to, or choose another target"));
        }
        Err(e) => return Err(Error::io("open", target, e)),
    };
    // What a killed restore left here is ours to sweep, not somebody's file.
    let theirs = entries.flatten().any(|e| !e.file_name().as_bytes().starts_with(b".offsite-scratch-"));
    match (theirs, force) {
        (false, _) => Ok(Target::Empty),
        (true, true) => Ok(Target::Occupied),
        (true, false) => Err(Error::failed(format!("{} is not empty", target.display())).hint(
            "choose a new folder, or give --force: files of the same names are then replaced, others stay",
        )),
    }
}

/// Moves everything below `staged` to `target`. `folders_above` are paths below
/// the target of folders that keep their own mode and owner where they exist.
pub fn commit(staged: &Path, target: &Path, before: Target, folders_above: &HashSet<PathBuf>) -> Result<()> {
    if before != Target::Occupied {
        dress(staged, target, before)?;
        match fs::rename(staged, target) {
            Ok(()) => return sync_folder(target.parent().unwrap_or(target)),
            // A mount point cannot be replaced, nor one that the staging is in.
            Err(e) if before == Target::New => return Err(Error::io("create", target, e)),
            Err(_) => {}
        }
    }
    find_conflicts(staged, target)?;
    let mut merge = Merge { target, folders_above, copied: HashMap::new() };
    merge.folder(staged, target)?;
    sync_folder(target)
}

/// Gives the staged root the look of what it replaces.
fn dress(staged: &Path, target: &Path, before: Target) -> Result<()> {
    let cannot = |e| Error::io("prepare", staged, e);
    if before == Target::Empty {
        let meta = fs::metadata(target).map_err(cannot)?;
        let old = FileMetadata::read(target, &meta).map_err(cannot)?;
        old.apply(staged, false)?;
        // All bits: it is the owner's own folder, not something from a snapshot.
        return fs::set_permissions(staged, meta.permissions()).map_err(cannot);
    }
    fs::set_permissions(staged, fs::Permissions::from_mode(0o755)).map_err(cannot)
}

/// Finds what would be in the way, before anything is touched.
fn find_conflicts(staged: &Path, target: &Path) -> Result<()> {
    for entry in children(staged)? {
        let theirs = target.join(entry.file_name());
        let is_dir = entry.file_type().map_err(|e| Error::io("look at", &entry.path(), e))?.is_dir();
        let Ok(existing) = fs::symlink_metadata(&theirs) else { continue };
        match (is_dir, existing.is_dir()) {
            (true, true) => find_conflicts(&entry.path(), &theirs)?,
            (false, false) => {}
            (true, false) => {
                return Err(Error::failed(format!(
                    "{} is in the way: the snapshot has a folder there",
                    theirs.display()
                ))
                .hint("nothing was touched; move it aside, or restore to a new folder"));
            }
            (false, true) => {
                return Err(Error::failed(format!(
                    "the folder {} is in the way of a file",
                    theirs.display()
                ))
                .hint("nothing was touched; move it aside, or restore to a new folder"));
            }
        }
    }
    Ok(())
}

struct Merge<'a> {
    target: &'a Path,
    folders_above: &'a HashSet<PathBuf>,
    /// Where files with several names went, by device and inode.
    copied: HashMap<(u64, u64), PathBuf>,
}

impl Merge<'_> {
    fn folder(&mut self, staged: &Path, target: &Path) -> Result<()> {
        for entry in children(staged)? {
            let (from, to) = (entry.path(), target.join(entry.file_name()));
            let is_dir = entry.file_type().map_err(|e| Error::io("look at", &from, e))?.is_dir();
            if is_dir && to.is_dir() {
                // Before its time changes, because things are moved out of it.
                let meta = fs::symlink_metadata(&from).map_err(|e| Error::io("look at", &from, e))?;
                let metadata =
                    FileMetadata::read(&from, &meta).map_err(|e| Error::io("look at", &from, e))?;
                self.folder(&from, &to)?;
                let relative = to.strip_prefix(self.target).unwrap_or(&to);
                if !self.folders_above.contains(relative) {
                    metadata.apply(&to, false)?;
                }
                continue;
            }
            match fs::rename(&from, &to) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::CrossesDevices => self.copy(&from, &to)?,
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied && is_dir => {
                    move_read_only(&from, &to)?;
                }
                Err(e) => return Err(Error::io("write", &to, e)),
            }
        }
        Ok(())
    }

    /// Copies to another file system, with everything that a rename would keep.
    fn copy(&mut self, from: &Path, to: &Path) -> Result<()> {
        let cannot = |e| Error::io("write", to, e).hint("is the disk full?");
        let meta = fs::symlink_metadata(from).map_err(|e| Error::io("read", from, e))?;
        let metadata = FileMetadata::read(from, &meta).map_err(|e| Error::io("read", from, e))?;
        if meta.is_dir() {
            fs::DirBuilder::new().mode(0o700).create(to).map_err(cannot)?;
            self.folder(from, to)?;
            return metadata.apply(to, false).map(|_| ());
        }
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(".offsite-new");
        let new = to.with_file_name(name);
        let copied = self.copy_file(from, &meta, &metadata, &new);
        if copied.is_err() {
            // The error is worth more than what a failed removal would say.
            let _ = fs::remove_file(&new);
        }
        copied?;
        fs::rename(&new, to).map_err(cannot)?;
        if meta.is_file() {
            self.copied.entry((meta.dev(), meta.ino())).or_insert_with(|| to.to_owned());
        }
        Ok(())
    }

    fn copy_file(&self, from: &Path, meta: &fs::Metadata, metadata: &FileMetadata, new: &Path) -> Result<()> {
        let cannot = |e| Error::io("write", new, e).hint("is the disk full?");
        match fs::remove_file(new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(cannot(e)),
            _ => {}
        }
        let inode = (meta.dev(), meta.ino());
        if meta.is_symlink() {
            let link = fs::read_link(from).map_err(|e| Error::io("read", from, e))?;
            std::os::unix::fs::symlink(link, new).map_err(cannot)?;
            metadata.apply(new, true)?;
        } else if let Some(first) = self.copied.get(&inode).filter(|_| meta.nlink() > 1) {
            fs::hard_link(first, new).map_err(cannot)?;
        } else {
            let mut out =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(new).map_err(cannot)?;
            let mut source = File::open(from).map_err(|e| Error::io("read", from, e))?;
            if meta.blocks() * 512 < meta.len() {
                write_sparse(&mut out, &mut source).map_err(cannot)?;
            } else {
                io::copy(&mut source, &mut out).map_err(cannot)?;
            }
            metadata.apply(new, false)?;
            out.sync_all().map_err(cannot)?;
        }
        Ok(())
    }
}

/// Moves a folder that its own owner may not write to: to a user that is not
/// root the system allows that only while they may.
fn move_read_only(from: &Path, to: &Path) -> Result<()> {
    let cannot = |e| Error::io("write", to, e);
    let permissions = fs::symlink_metadata(from).map_err(cannot)?.permissions();
    fs::set_permissions(from, fs::Permissions::from_mode(permissions.mode() | 0o700)).map_err(cannot)?;
    fs::rename(from, to).map_err(cannot)?;
    fs::set_permissions(to, permissions).map_err(cannot)
}

fn children(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    entries.map_err(|e| Error::io("list", folder, e))
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| Error::io("sync", folder, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        _dir: tempfile::TempDir,
        staged: PathBuf,
        target: PathBuf,
    }

    fn case(staged: &[&str], target: Option<&[&str]>) -> Case {
        let dir = tempfile::tempdir().unwrap();
        let make = |root: &Path, files: &[&str]| {
            fs::create_dir(root).unwrap();
            for file in files {
                let path = root.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, root.file_name().unwrap().as_bytes()).unwrap();
            }
        };
        let (s, t) = (dir.path().join("staged"), dir.path().join("target"));
        make(&s, staged);
        if let Some(files) = target {
            make(&t, files);
        }
        Case { _dir: dir, staged: s, target: t }
    }

    fn read(case: &Case, file: &str) -> String {
        fs::read_to_string(case.target.join(file)).unwrap()
    }

    #[test]
    fn a_new_or_empty_target_appears_at_once_and_an_occupied_one_needs_force() {
        for before in [None, Some(&[][..])] {
            let c = case(&["a/b"], before);
            let state = look(&c.target, false).unwrap();
            if before.is_some() {
                fs::set_permissions(&c.target, fs::Permissions::from_mode(0o711)).unwrap();
            }
            commit(&c.staged, &c.target, state, &HashSet::new()).unwrap();
            assert_eq!(read(&c, "a/b"), "staged");
            let mode = fs::metadata(&c.target).unwrap().mode() & 0o777;
            assert_eq!(mode, if before.is_some() { 0o711 } else { 0o755 });
        }
        let c = case(&["a"], Some(&["b"]));
        assert!(look(&c.target, false).unwrap_err().message().ends_with("is not empty"));
        assert!(look(&c.target.join("b"), true).unwrap_err().message().ends_with("is not a folder"));
        std::os::unix::fs::symlink("nowhere", c.target.join("link")).unwrap();
        assert!(
            look(&c.target.join("link"), true).unwrap_err().message().ends_with("is a symlink to nowhere")
        );
    }

    #[test]
    fn a_merge_replaces_files_keeps_others_and_the_mode_of_folders_above() {
        let c = case(&["d/new", "d/same", "above/x/f"], Some(&["d/same", "d/other", "above/keep"]));
        fs::set_permissions(c.staged.join("d"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::set_permissions(c.staged.join("above"), fs::Permissions::from_mode(0o700)).unwrap();
        let state = look(&c.target, true).unwrap();
        commit(&c.staged, &c.target, state, &HashSet::from([PathBuf::from("above")])).unwrap();
        assert_eq!((read(&c, "d/same"), read(&c, "d/other")), ("staged".into(), "target".into()));
        assert_eq!((read(&c, "d/new"), read(&c, "above/x/f")), ("staged".into(), "staged".into()));
        let mode = |p: &str| fs::metadata(c.target.join(p)).unwrap().mode() & 0o777;
        assert_eq!((mode("d"), mode("above")), (0o750, 0o755));
    }

    #[test]
    fn a_conflict_is_found_before_anything_is_touched() {
        for (staged, target) in [(["a", "z/f"], ["a", "z"]), (["a", "z"], ["a", "z/f"])] {
            let c = case(&staged, Some(&target));
            let error = commit(&c.staged, &c.target, Target::Occupied, &HashSet::new()).unwrap_err();
            assert!(error.message().contains("in the way"), "{error}");
            assert_eq!(read(&c, "a"), "target");
        }
    }

    #[test]
    fn a_copy_keeps_what_a_rename_keeps() {
        let c = case(&["d/a"], Some(&[]));
        fs::hard_link(c.staged.join("d/a"), c.staged.join("d/b")).unwrap();
        std::os::unix::fs::symlink("a", c.staged.join("d/l")).unwrap();
        fs::set_permissions(c.staged.join("d/a"), fs::Permissions::from_mode(0o640)).unwrap();
        let above = HashSet::new();
        let mut merge = Merge { target: &c.target, folders_above: &above, copied: HashMap::new() };
        merge.copy(&c.staged.join("d/a"), &c.target.join("a")).unwrap();
        merge.copy(&c.staged.join("d/b"), &c.target.join("b")).unwrap();
        merge.copy(&c.staged.join("d/l"), &c.target.join("l")).unwrap();
        let meta = |p: &str| fs::symlink_metadata(c.target.join(p)).unwrap();
        assert_eq!((meta("a").mode() & 0o777, meta("a").ino()), (0o640, meta("b").ino()));
        assert!(meta("l").is_symlink());
    }
}
