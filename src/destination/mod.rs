//! Where objects live. A destination knows bytes and names, never snapshots.
//!
//! The contract of the four verbs, which every destination keeps and which one
//! suite of tests holds it to:
//! - `put_new` stores an object that appears whole or not at all, and never
//!   replaces one that is there: if the name is taken by other bytes it fails,
//!   if by the same bytes (an earlier reply was lost) it succeeds;
//! - `get` streams an object's exact bytes;
//! - `list` names every object with its size, in order of name, or fails;
//! - `delete` removes an object; that it is gone already is not an error.

mod directory;
mod github;
mod retry;

use std::fs::File;
use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::config::GithubConfig;
use crate::error::{Error, Result};
pub use directory::Directory;
pub use github::Github;

/// An object that a destination holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name, of `[A-Za-z0-9._/-]`.
    pub name: String,
    /// Its length.
    pub size_bytes: u64,
}

/// A slice of a file that becomes one object. The file may be read again, from
/// any thread, as often as a retry needs it.
pub struct Source<'a> {
    /// The file; its read position is not used.
    pub file: &'a File,
    /// Where the object starts in it.
    pub offset: u64,
    /// The object's length.
    pub len: u64,
}

/// Where `get` delivers: chunks in order, or the error that ends them.
pub type Chunks = mpsc::Sender<Result<Bytes>>;

/// What `check` and `init` want to know about a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Good news, a line each.
    pub facts: Vec<String>,
    /// What works but should be changed.
    pub warnings: Vec<String>,
}

/// A place where objects live.
pub enum Destination {
    /// A private GitHub repository.
    Github(Box<Github>),
    /// A directory: a disk, a NAS, a folder that something else copies away.
    Directory(Directory),
}

impl Destination {
    /// Opens the destination that `address` names. The GitHub token is looked up
    /// only when it is needed.
    pub fn open(address: &str, github: &GithubConfig) -> Result<Self> {
        if let Some(repository) = address.strip_prefix("github://") {
            return Ok(Self::Github(Box::new(Github::open(repository, github)?)));
        }
        if let Some(path) = address.strip_prefix("file://") {
            return Ok(Self::Directory(Directory::open(PathBuf::from(path))?));
        }
        Err(Error::usage(format!("`{address}` is not a destination"))
            .hint("write github://owner/repo or file:///absolute/dir"))
    }

    /// The address, as a config would have it.
    pub fn address(&self) -> String {
        match self {
            Self::Github(github) => github.address(),
            Self::Directory(directory) => directory.address(),
        }
    }

    /// The largest object that it takes, in bytes; `None` when there is no limit.
    pub fn object_bytes_max(&self) -> Option<u64> {
        match self {
            Self::Github(_) => Some(github::OBJECT_BYTES_MAX),
            Self::Directory(_) => None,
        }
    }

    /// Requests sent so far, retries included; 0 for a directory.
    pub fn api_calls(&self) -> u64 {
        match self {
            Self::Github(github) => github.api_calls(),
            Self::Directory(_) => 0,
        }
    }

    /// Stores a new object.
    pub async fn put_new(&self, name: &str, source: &Source<'_>) -> Result<()> {
        check_name(name)?;
        match self {
            Self::Github(github) => github.put_new(name, source).await,
            Self::Directory(directory) => directory.put_new(name, source),
        }
    }

    /// Streams an object into `chunks` and returns when it has been delivered.
    /// Ends quietly when the receiver has gone away.
    pub async fn get(&self, name: &str, chunks: Chunks) {
        let result = match check_name(name) {
            Err(error) => Err(error),
            Ok(()) => match self {
                Self::Github(github) => github.get(name, &chunks).await,
                Self::Directory(directory) => directory.get(name, &chunks).await,
            },
        };
        if let Err(error) = result {
            // The receiver may have lost interest; then nobody minds the error.
            let _ = chunks.send(Err(error)).await;
        }
    }

    /// Every object, in order of name.
    pub async fn list(&self) -> Result<Vec<Object>> {
        let mut objects = match self {
            Self::Github(github) => github.list().await?,
            Self::Directory(directory) => directory.list()?,
        };
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    /// Removes an object.
    pub async fn delete(&self, name: &str) -> Result<()> {
        check_name(name)?;
        match self {
            Self::Github(github) => github.delete(name).await,
            Self::Directory(directory) => directory.delete(name),
        }
    }

    /// Looks, without writing, whether it is reachable, private and writable.
    pub async fn inspect(&self) -> Result<Condition> {
        match self {
            Self::Github(github) => github.inspect().await,
            Self::Directory(directory) => directory.inspect(),
        }
    }
}

/// Refuses names that a destination could take for something else.
fn check_name(name: &str) -> Result<()> {
    let legal = !name.is_empty()
        && name.split('/').all(|c| !c.is_empty() && c != "." && c != ".." && !c.starts_with('.'))
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b));
    if legal { Ok(()) } else { Err(Error::usage(format!("`{name}` cannot be the name of an object"))) }
}
