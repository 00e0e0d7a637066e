//! A tree of files as facts that can be compared: all that a restore has to
//! bring back.
#![allow(dead_code, reason = "each test binary uses its part of this")]
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What is known of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Type and permission bits.
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    /// Size and SHA-256 of a file's bytes.
    pub contents: Option<(u64, String)>,
    pub link: Option<PathBuf>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// All names in this tree of a file that has several.
    pub names: Vec<PathBuf>,
}

/// Everything at and below `root`, by path relative to it.
pub fn facts(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut found = BTreeMap::new();
    let mut inodes: BTreeMap<(u64, u64), Vec<PathBuf>> = BTreeMap::new();
    let mut inode_of = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(root).unwrap().to_owned();
        let meta = entry.metadata().unwrap();
        if meta.is_file() {
            inodes.entry((meta.dev(), meta.ino())).or_default().push(path.clone());
            inode_of.insert(path.clone(), (meta.dev(), meta.ino()));
        }
        let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = xattr::list(entry.path())
            .unwrap()
            .map(|n| (n.as_bytes().to_vec(), xattr::get(entry.path(), &n).unwrap().unwrap()))
            .collect();
        xattrs.sort();
        let facts = Facts {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            contents: meta.is_file().then(|| (meta.len(), digest(entry.path()))),
            link: meta.is_symlink().then(|| fs::read_link(entry.path()).unwrap()),
            xattrs,
            names: Vec::new(),
        };
        found.insert(path, facts);
    }
    for (path, inode) in inode_of {
        let names = &inodes[&inode];
        if names.len() > 1 {
            let mut names = names.clone();
            names.sort();
            found.get_mut(&path).unwrap().names = names;
        }
    }
    found
}

fn digest(path: &Path) -> String {
    let mut hasher = Sha256::new();
    std::io::copy(&mut fs::File::open(path).unwrap(), &mut hasher).unwrap();
    hex::encode(hasher.finalize())
}

/// Fails the test with the first differences when two trees are not the same.
#[track_caller]
pub fn assert_same(expected: &BTreeMap<PathBuf, Facts>, found: &BTreeMap<PathBuf, Facts>) {
    let all: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let differences: Vec<String> = all
        .into_iter()
        .filter(|path| expected.get(*path) != found.get(*path))
        .map(|path| format!("{path:?}:\n  was {:?}\n  is  {:?}", expected.get(path), found.get(path)))
        .collect();
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences[..differences.len().min(5)].join("\n")
    );
}
