//! What the repository holds, and what GitHub says of it.

use serde::Deserialize;
use serde_json::Value;

use super::answer::{lost, refusal};
use super::{Github, body};
use crate::destination::Object;
use crate::destination::retry::{Fault, retrying};
use crate::error::{Error, Result};

#[derive(Deserialize)]
struct Tree {
    tree: Vec<TreeEntry>,
    #[serde(default)]
    truncated: bool,
}

/// What is at a tree's name.
enum Listing {
    /// The repository has no commit yet.
    Empty,
    /// Nothing has that name, or nothing that the token may see.
    Missing(Error),
    /// The tree.
    Tree(Tree),
}

#[derive(Deserialize)]
struct TreeEntry {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    sha: String,
    #[serde(default)]
    size: u64,
}

impl Github {
    pub(in crate::destination) async fn list(&self) -> Result<Vec<Object>> {
        // `HEAD` names the default branch without a look-up. The documentation
        // does not say so; where it is not understood, the branch is asked for.
        let mut branch = self.config.branch.clone().unwrap_or_else(|| "HEAD".to_owned());
        let mut tree = self.tree(&branch, true).await?;
        if matches!(tree, Listing::Missing(_)) && self.config.branch.is_none() {
            let repository = self.repository().await?;
            branch = repository["default_branch"].as_str().unwrap_or("main").to_owned();
            tree = self.tree(&branch, true).await?;
        }
        match tree {
            Listing::Empty => Ok(Vec::new()),
            Listing::Missing(error) => Err(self.missing(error)),
            Listing::Tree(tree) if !tree.truncated => Ok(blobs(&tree, "")),
            // Too many names for one answer: fetch folder by folder instead.
            Listing::Tree(_) => self.list_by_folder(&branch).await,
        }
    }

    /// GitHub answers the same for a branch that is not there.
    fn missing(&self, error: Error) -> Error {
        match &self.config.branch {
            None => error,
            Some(branch) => Error::failed(format!(
                "{}: there is no such repository or branch `{branch}`, or the token has no access to it",
                self.address()
            ))
            .hint("look at `branch` in [github], at the spelling, and at which repositories the token was made for"),
        }
    }

    async fn list_by_folder(&self, branch: &str) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        let mut folders = vec![(branch.to_owned(), String::new())];
        while let Some((reference, prefix)) = folders.pop() {
            let tree = match self.tree(&reference, false).await? {
                Listing::Empty => continue,
                Listing::Missing(error) => return Err(error),
                Listing::Tree(tree) => tree,
            };
            if tree.truncated {
                return Err(Error::failed(format!("{} does not list all of {prefix:?}", self.address()))
                    .hint(
                        "a folder there holds too many files; was anything else stored in this repository?",
                    ));
            }
            objects.extend(blobs(&tree, &prefix));
            let below = tree.tree.into_iter().filter(|e| e.kind == "tree");
            folders.extend(below.map(|e| (e.sha, format!("{prefix}{}/", e.path))));
        }
        Ok(objects)
    }

    async fn tree(&self, reference: &str, recursive: bool) -> Result<Listing> {
        let reference = body::encode_segment(reference);
        let query = if recursive { "?recursive=1" } else { "" };
        let uri = format!("/repos/{}/{}/git/trees/{reference}{query}", self.owner, self.repo);
        retrying(|_| async {
            let (status, headers, text) = self.ask(&uri).await?;
            match status {
                200 => serde_json::from_slice(&text)
                    .map(Listing::Tree)
                    .map_err(|e| Fault::Passing(lost(&format!("its listing cannot be read: {e}")), None)),
                409 if String::from_utf8_lossy(&text).contains("empty") => Ok(Listing::Empty),
                404 => match refusal(&self.address(), status, &headers, &text) {
                    Fault::Final(error) | Fault::Passing(error, _) => Ok(Listing::Missing(error)),
                },
                _ => Err(refusal(&self.address(), status, &headers, &text)),
            }
        })
        .await
    }

    /// What GitHub says of the repository itself.
    pub(super) async fn repository(&self) -> Result<Value> {
        let uri = format!("/repos/{}/{}", self.owner, self.repo);
        retrying(|_| async {
            let (status, headers, text) = self.ask(&uri).await?;
            match status {
                200 => serde_json::from_slice(&text)
                    .map_err(|e| Fault::Passing(lost(&format!("its answer cannot be read: {e}")), None)),
                _ => Err(refusal(&self.address(), status, &headers, &text)),
            }
        })
        .await
    }
}

fn blobs(tree: &Tree, prefix: &str) -> Vec<Object> {
    let files = tree.tree.iter().filter(|e| e.kind == "blob");
    files.map(|e| Object { name: format!("{prefix}{}", e.path), size_bytes: e.size }).collect()
}
