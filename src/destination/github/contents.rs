//! The Contents API: storing, reading and deleting one file.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, header};
use octocrab::OctoBody;
use serde::Deserialize;
use serde_json::Value;

use super::answer::{lost, refusal};
use super::{ANSWER_TIME_MAX, Github, body, next_frame, read_whole};
use crate::destination::retry::{Fault, retrying};
use crate::destination::{Chunks, Source, directory};
use crate::error::{Error, Result};

/// The slowest line that an upload is given time for.
const BYTES_PER_SECOND_MIN: u64 = 50_000;

/// A folder's listing ends here, without a word
/// (<https://docs.github.com/rest/repos/contents>).
const FOLDER_ENTRIES_MAX: usize = 1000;

#[derive(Deserialize)]
struct FolderEntry {
    name: String,
    sha: String,
}

impl Github {
    pub(in crate::destination) async fn put_new(&self, name: &str, source: &Source<'_>) -> Result<()> {
        let blob = body::git_blob_sha1(source)?;
        retrying(|tried| {
            let blob = &blob;
            async move {
                // Whatever went wrong before may have stored it all the same.
                if tried > 0
                    && let Some(there) = self.blob_at(name).await?
                {
                    return same(name, &there, blob);
                }
                self.put_once(name, source, blob).await
            }
        })
        .await
    }

    async fn put_once(&self, name: &str, source: &Source<'_>, blob: &str) -> std::result::Result<(), Fault> {
        let put = body::put(name, self.config.branch.as_deref(), source).map_err(Fault::Final)?;
        let time = ANSWER_TIME_MAX + Duration::from_secs(put.len / BYTES_PER_SECOND_MIN);
        let request = self
            .request(Method::PUT, &self.contents(name))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_LENGTH, put.len);
        let answer = self.send(request, put.body, time).await?;
        let status = answer.status().as_u16();
        let (headers, text) = read_whole(answer).await?;
        if status == 200 || status == 201 {
            let json: Value = serde_json::from_slice(&text).unwrap_or_default();
            return match json.pointer("/content/sha").and_then(Value::as_str) {
                Some(stored) => same(name, stored, blob),
                None => Err(Fault::Passing(lost("its answer to the upload names no blob"), None)),
            };
        }
        let already = status == 422 && String::from_utf8_lossy(&text).contains("wasn't supplied");
        if already || status == 409 {
            // Taken, or another writer won, or the branch is protected: look.
            if let Some(there) = self.blob_at(name).await? {
                return same(name, &there, blob);
            }
        }
        Err(refusal(&self.address(), status, &headers, &text))
    }

    /// The blob SHA-1 of the file at `name`, when there is one. Read from its
    /// folder's listing: asked for by itself, a file over 1 MB is refused by older
    /// servers.
    async fn blob_at(&self, name: &str) -> std::result::Result<Option<String>, Fault> {
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        let uri = format!("{}{}", self.contents(folder), self.reference());
        let (status, headers, text) = self.ask(&uri).await?;
        match status {
            200 => {
                let files: Vec<FolderEntry> = serde_json::from_slice(&text)
                    .map_err(|e| Fault::Passing(lost(&format!("its listing cannot be read: {e}")), None))?;
                let cut = files.len() >= FOLDER_ENTRIES_MAX;
                match files.into_iter().find(|f| f.name == file) {
                    Some(found) => Ok(Some(found.sha)),
                    None if cut => self.blob_alone(name).await,
                    None => Ok(None),
                }
            }
            404 => Ok(None),
            _ => Err(refusal(&self.address(), status, &headers, &text)),
        }
    }

    /// The same, asked for by itself: its folder has more than a listing shows.
    async fn blob_alone(&self, name: &str) -> std::result::Result<Option<String>, Fault> {
        let uri = format!("{}{}", self.contents(name), self.reference());
        let (status, headers, text) = self.ask(&uri).await?;
        match status {
            200 => serde_json::from_slice(&text)
                .map(|entry: FolderEntry| Some(entry.sha))
                .map_err(|e| Fault::Passing(lost(&format!("its answer cannot be read: {e}")), None)),
            404 => Ok(None),
            _ => Err(refusal(&self.address(), status, &headers, &text)),
        }
    }

    /// Streams an object. When the line breaks, the object is asked for again
    /// and what has been delivered already is passed over: objects never change.
    pub(in crate::destination) async fn get(&self, name: &str, chunks: &Chunks) -> Result<()> {
        let delivered = AtomicU64::new(0);
        retrying(|_| self.get_once(name, chunks, &delivered)).await
    }

    async fn get_once(
        &self,
        name: &str,
        chunks: &Chunks,
        delivered: &AtomicU64,
    ) -> std::result::Result<(), Fault> {
        let uri = format!("{}{}", self.contents(name), self.reference());
        let request =
            self.request(Method::GET, &uri).header(header::ACCEPT, "application/vnd.github.raw+json");
        let answer = self.send(request, OctoBody::empty(), ANSWER_TIME_MAX).await?;
        let status = answer.status().as_u16();
        if status != 200 {
            let (headers, text) = read_whole(answer).await?;
            if status == 404 {
                return Err(Fault::Final(directory::missing(name, &self.address())));
            }
            return Err(refusal(&self.address(), status, &headers, &text));
        }
        let mut body = answer.into_body();
        let mut skip = delivered.load(Ordering::Relaxed);
        while let Some(frame) = next_frame(&mut body).await? {
            let known = (skip.min(frame.len() as u64)) as usize;
            skip -= known as u64;
            let fresh = frame.slice(known..);
            if fresh.is_empty() {
                continue;
            }
            delivered.fetch_add(fresh.len() as u64, Ordering::Relaxed);
            if chunks.send(Ok(fresh)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    pub(in crate::destination) async fn delete(&self, name: &str) -> Result<()> {
        retrying(|_| async {
            let Some(sha) = self.blob_at(name).await? else { return Ok(()) };
            let mut json = serde_json::json!({ "message": format!("offsite: delete {name}"), "sha": sha });
            if let Some(branch) = &self.config.branch {
                json["branch"] = branch.as_str().into();
            }
            let request = self
                .request(Method::DELETE, &self.contents(name))
                .header(header::CONTENT_TYPE, "application/json");
            let answer = self.send(request, OctoBody::from(json.to_string()), ANSWER_TIME_MAX).await?;
            let status = answer.status().as_u16();
            let (headers, text) = read_whole(answer).await?;
            match status {
                200 | 404 => Ok(()),
                _ => Err(refusal(&self.address(), status, &headers, &text)),
            }
        })
        .await
    }
}

/// Compares what is stored with what we hold.
fn same(name: &str, stored: &str, ours: &str) -> std::result::Result<(), Fault> {
    if stored == ours {
        return Ok(());
    }
    Err(Fault::Final(
        Error::integrity(format!("GitHub holds other bytes at {name}: blob {stored}, ours is {ours}"))
            .hint("nothing was overwritten; run the backup again, and find out who else writes there"),
    ))
}
