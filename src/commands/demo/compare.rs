//! A picture of a tree: everything about every path, to be compared with another.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use super::system::MEMORY;
use crate::error::{Error, Result};
use crate::sources::metadata::FileMetadata;

/// What is compared of one path.
#[derive(PartialEq, Eq)]
struct Look {
    metadata: FileMetadata,
    /// `folder`, a symlink's target, or a file's SHA-256.
    contents: String,
    /// The first path of the same file, when it has several.
    same_as: Option<PathBuf>,
}

/// Everything about every path below a folder.
pub(super) struct Picture {
    paths: BTreeMap<PathBuf, Look>,
}

impl Picture {
    /// Looks at everything below `root`.
    pub(super) fn take(root: &Path) -> Result<Self> {
        let mut paths = BTreeMap::new();
        let mut first: HashMap<u64, PathBuf> = HashMap::new();
        for entry in WalkDir::new(root).sort_by_file_name() {
            let entry = entry.map_err(|e| Error::io("look at", root, e.into()))?;
            let relative = entry.path().strip_prefix(root).unwrap_or(entry.path()).to_owned();
            if is_left_out(&relative) {
                continue;
            }
            let cannot = |e| Error::io("look at", entry.path(), e);
            let meta = fs::symlink_metadata(entry.path()).map_err(cannot)?;
            let contents = if meta.is_symlink() {
                format!("link to {}", fs::read_link(entry.path()).map_err(cannot)?.display())
            } else if meta.is_dir() {
                "folder".to_owned()
            } else {
                let mut hasher = Sha256::new();
                std::io::copy(&mut File::open(entry.path()).map_err(cannot)?, &mut hasher).map_err(cannot)?;
                hex::encode(hasher.finalize())
            };
            let same_as = (meta.nlink() > 1 && meta.is_file())
                .then(|| first.entry(meta.ino()).or_insert_with(|| relative.clone()).clone());
            let metadata = FileMetadata::read(entry.path(), &meta).map_err(cannot)?;
            paths.insert(relative, Look { metadata, contents, same_as });
        }
        Ok(Self { paths })
    }

    /// How many paths are in it.
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    /// A sentence for each path that is not the same in `after`.
    pub(super) fn differences(&self, after: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (path, was) in &self.paths {
            let shown = path.display();
            match after.paths.get(path) {
                None => found.push(format!("{shown} did not come back")),
                Some(is) if is.contents != was.contents => found.push(format!("{shown} has other contents")),
                Some(is) if is.metadata != was.metadata => {
                    found.push(format!(
                        "{shown} has other metadata: {:?}, was {:?}",
                        is.metadata, was.metadata
                    ));
                }
                Some(is) if is.same_as != was.same_as => found.push(format!("{shown} is linked otherwise")),
                Some(_) => {}
            }
        }
        let new = after.paths.keys().filter(|path| !self.paths.contains_key(*path));
        found.extend(new.map(|path| format!("{} was not there before", path.display())));
        found
    }
}

/// The live database is compared by its rows; its companions, and the folder
/// whose time they change, are not compared; what is excluded must not be there.
fn is_left_out(relative: &Path) -> bool {
    let memory = Path::new(MEMORY);
    let text = relative.to_string_lossy();
    Some(relative) == memory.parent() || text.starts_with(MEMORY) || text == "data/memory/scratch.tmp"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), "contents").unwrap();
        fs::write(dir.path().join("d/g"), "other").unwrap();
        symlink("f", dir.path().join("d/l")).unwrap();
        dir
    }

    #[test]
    fn any_one_difference_is_seen() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("d/f has other contents", |d| {
                let before = fs::metadata(d.join("f")).unwrap().modified().unwrap();
                fs::write(d.join("f"), "Contents").unwrap();
                File::options().append(true).open(d.join("f")).unwrap().set_modified(before).unwrap();
            }),
            ("d/f has other metadata", |d| {
                fs::set_permissions(d.join("f"), fs::Permissions::from_mode(0o600)).unwrap()
            }),
            ("d/f did not come back", |d| fs::remove_file(d.join("f")).unwrap()),
            ("d/l has other contents", |d| {
                fs::remove_file(d.join("l")).unwrap();
                symlink("g", d.join("l")).unwrap();
            }),
            ("d/new was not there before", |d| fs::write(d.join("new"), "").unwrap()),
            ("d/g has other metadata", |d| {
                File::options()
                    .append(true)
                    .open(d.join("g"))
                    .unwrap()
                    .set_modified(std::time::UNIX_EPOCH)
                    .unwrap();
            }),
        ];
        for (sentence, change) in changes {
            let dir = tree();
            let before = Picture::take(dir.path()).unwrap();
            assert!(before.differences(&Picture::take(dir.path()).unwrap()).is_empty());
            change(&dir.path().join("d"));
            let found = before.differences(&Picture::take(dir.path()).unwrap());
            assert!(found.iter().any(|f| f.starts_with(sentence)), "{sentence}: {found:?}");
        }
    }
}
