//! GitHub as a destination, through the Contents API. The only file that knows
//! octocrab, together with its two neighbours.
//!
//! One PUT to a new path stores an object: no look-up before it, and the git
//! blob SHA-1 in the answer proves what was stored. When the answer is lost,
//! the path is looked up once to learn whether the PUT happened.

mod answer;
mod body;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use octocrab::{OctoBody, Octocrab};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::retry::{Fault, retrying};
use super::{Chunks, Condition, Object, Source};
use crate::config::GithubConfig;
use crate::error::{Error, Result};
use crate::secret::is_loopback;
use answer::{lost, refusal};

/// The largest object: its PUT's body is 4/3 of it, and GitHub refuses bodies
/// of more than about 35 to 40 MB ("your input was too large to process").
pub(super) const OBJECT_BYTES_MAX: u64 = 18 * 1024 * 1024;

/// The API version that the answers are read by.
const API_VERSION: &str = "2022-11-28";

const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);

/// How long an answer may take, beyond the time that its body needs.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// The slowest line that an upload is given time for.
const BYTES_PER_SECOND_MIN: u64 = 50_000;

/// An answer that is read whole (not an object's bytes) is smaller than this:
/// a tree listing is at most 7 MB.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

type Answer = http::Response<BoxBody<Bytes, octocrab::Error>>;

/// A private repository that holds objects as files.
pub struct Github {
    owner: String,
    repo: String,
    config: GithubConfig,
    base: url::Url,
    client: OnceCell<Octocrab>,
    calls: AtomicU64,
}

#[derive(Deserialize)]
struct Tree {
    tree: Vec<TreeEntry>,
    #[serde(default)]
    truncated: bool,
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
    /// Names the repository `owner/repo`; nothing is sent yet.
    pub(super) fn open(repository: &str, config: &GithubConfig) -> Result<Self> {
        let wrong = || {
            Error::usage(format!("`github://{repository}` is not a repository"))
                .hint("write github://owner/repo, without a branch, a path or `.git`")
        };
        let legal = |s: &str| {
            !s.is_empty()
                && s != "."
                && s != ".."
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let (owner, repo) =
            repository.split_once('/').filter(|(o, r)| legal(o) && legal(r)).ok_or_else(wrong)?;
        let address = config.api_url.as_deref().unwrap_or("https://api.github.com");
        let base = url::Url::parse(address.trim_end_matches('/'))
            .map_err(|e| Error::usage(format!("`api_url` in [github] is not an address: {e}")))?;
        if base.scheme() != "https" && !(base.scheme() == "http" && is_loopback(&base)) {
            return Err(Error::usage(format!(
                "`api_url` is {}: the token would travel in clear",
                base.scheme()
            ))
            .hint("use https"));
        }
        Ok(Self {
            owner: owner.to_owned(),
            repo: repo.trim_end_matches(".git").to_owned(),
            config: config.clone(),
            base,
            client: OnceCell::new(),
            calls: AtomicU64::new(0),
        })
    }

    pub(super) fn address(&self) -> String {
        format!("github://{}/{}", self.owner, self.repo)
    }

    pub(super) fn api_calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) async fn put_new(&self, name: &str, source: &Source<'_>) -> Result<()> {
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

    /// The blob SHA-1 of the file at `name`, when there is one.
    async fn blob_at(&self, name: &str) -> std::result::Result<Option<String>, Fault> {
        // The object form has the SHA at every size; its content is left out over 1 MB.
        let uri = format!("{}{}", self.contents(name), self.reference());
        let request =
            self.request(Method::GET, &uri).header(header::ACCEPT, "application/vnd.github.object+json");
        let answer = self.send(request, OctoBody::empty(), ANSWER_TIME_MAX).await?;
        let status = answer.status().as_u16();
        let (headers, text) = read_whole(answer).await?;
        match status {
            200 => {
                let json: Value = serde_json::from_slice(&text).unwrap_or_default();
                match json.get("sha").and_then(Value::as_str) {
                    Some(sha) => Ok(Some(sha.to_owned())),
                    None => Err(Fault::Passing(lost("its answer about the object has no SHA"), None)),
                }
            }
            404 => Ok(None),
            _ => Err(refusal(&self.address(), status, &headers, &text)),
        }
    }

    /// Streams an object. When the line breaks, the object is asked for again
    /// and what has been delivered already is passed over: objects never change.
    pub(super) async fn get(&self, name: &str, chunks: &Chunks) -> Result<()> {
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
                return Err(Fault::Final(super::directory::missing(name, &self.address())));
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

    pub(super) async fn list(&self) -> Result<Vec<Object>> {
        // `HEAD` is the default branch, which need not be looked up first.
        let branch = self.config.branch.as_deref().unwrap_or("HEAD");
        let tree = match self.tree(branch, true).await? {
            None => return Ok(Vec::new()),
            Some(tree) if !tree.truncated => tree,
            // Too many names for one answer: fetch folder by folder instead.
            Some(_) => return self.list_by_folder(branch).await,
        };
        Ok(blobs(&tree, ""))
    }

    async fn list_by_folder(&self, branch: &str) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        let mut folders = vec![(branch.to_owned(), String::new())];
        while let Some((reference, prefix)) = folders.pop() {
            let Some(tree) = self.tree(&reference, false).await? else { continue };
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

    /// A tree; `None` when the repository has no commit yet.
    async fn tree(&self, reference: &str, recursive: bool) -> Result<Option<Tree>> {
        let reference = body::encode_segment(reference);
        let query = if recursive { "?recursive=1" } else { "" };
        let uri = format!("/repos/{}/{}/git/trees/{reference}{query}", self.owner, self.repo);
        retrying(|_| async {
            let answer =
                self.send(self.request(Method::GET, &uri), OctoBody::empty(), ANSWER_TIME_MAX).await?;
            let status = answer.status().as_u16();
            let (headers, text) = read_whole(answer).await?;
            match status {
                200 => serde_json::from_slice(&text)
                    .map(Some)
                    .map_err(|e| Fault::Passing(lost(&format!("its listing cannot be read: {e}")), None)),
                409 if String::from_utf8_lossy(&text).contains("empty") => Ok(None),
                _ => Err(refusal(&self.address(), status, &headers, &text)),
            }
        })
        .await
    }

    pub(super) async fn delete(&self, name: &str) -> Result<()> {
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

    pub(super) async fn inspect(&self) -> Result<Condition> {
        let uri = format!("/repos/{}/{}", self.owner, self.repo);
        let repository: Value = retrying(|_| async {
            let answer =
                self.send(self.request(Method::GET, &uri), OctoBody::empty(), ANSWER_TIME_MAX).await?;
            let status = answer.status().as_u16();
            let (headers, text) = read_whole(answer).await?;
            match status {
                200 => serde_json::from_slice(&text)
                    .map_err(|e| Fault::Passing(lost(&format!("its answer cannot be read: {e}")), None)),
                _ => Err(refusal(&self.address(), status, &headers, &text)),
            }
        })
        .await?;
        answer::condition(&self.address(), &repository, self.config.allow_public)
    }

    fn contents(&self, name: &str) -> String {
        // Names are of [A-Za-z0-9._/-]: nothing in them needs escaping.
        format!("/repos/{}/{}/contents/{name}", self.owner, self.repo)
    }

    fn reference(&self) -> String {
        match &self.config.branch {
            Some(branch) => format!("?ref={}", body::encode_segment(branch)),
            None => String::new(),
        }
    }

    fn request(&self, method: Method, uri: &str) -> http::request::Builder {
        Request::builder().method(method).uri(uri).header("x-github-api-version", API_VERSION)
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: OctoBody,
        time: Duration,
    ) -> std::result::Result<Answer, Fault> {
        let client = self.client.get_or_try_init(|| async { self.connect() }).await.map_err(Fault::Final)?;
        let request = request
            .body(body)
            .map_err(|e| Fault::Final(Error::failed(format!("cannot form a request to GitHub: {e}"))))?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        match tokio::time::timeout(time, client.execute(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(answer::unreachable(&self.base, &error)),
            Err(_) => Err(Fault::Passing(
                Error::failed(format!("no answer from {} within {} s", self.base, time.as_secs()))
                    .hint("look at the network; githubstatus.com tells whether it is GitHub"),
                None,
            )),
        }
    }

    fn connect(&self) -> Result<Octocrab> {
        let token = self.config.resolve_token()?;
        let bad = |e: octocrab::Error| {
            Error::failed(format!("cannot set up a connection to GitHub: {}", answer::words(&e)))
                .hint("are the system's TLS certificates installed (package ca-certificates)?")
        };
        Octocrab::builder()
            .base_uri(self.base.as_str().trim_end_matches('/'))
            .map_err(bad)?
            .personal_token(token.as_str().to_owned())
            .set_connect_timeout(Some(CONNECT_TIME_MAX))
            .build()
            .map_err(bad)
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

fn blobs(tree: &Tree, prefix: &str) -> Vec<Object> {
    let files = tree.tree.iter().filter(|e| e.kind == "blob");
    files.map(|e| Object { name: format!("{prefix}{}", e.path), size_bytes: e.size }).collect()
}

/// The next chunk of an answer; silence and a broken line are passing faults.
async fn next_frame(body: &mut BoxBody<Bytes, octocrab::Error>) -> std::result::Result<Option<Bytes>, Fault> {
    loop {
        let frame = match tokio::time::timeout(ANSWER_TIME_MAX, body.frame()).await {
            Err(_) => return Err(Fault::Passing(lost("it fell silent in the middle of an answer"), None)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => {
                return Err(Fault::Passing(
                    lost(&format!("the answer broke off: {}", answer::words(&error))),
                    None,
                ));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

async fn read_whole(answer: Answer) -> std::result::Result<(http::HeaderMap, Vec<u8>), Fault> {
    let (parts, mut body) = answer.into_parts();
    let mut text = Vec::new();
    while let Some(data) = next_frame(&mut body).await? {
        if text.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(Fault::Final(lost("its answer is far larger than any that it should give")));
        }
        text.extend_from_slice(&data);
    }
    Ok((parts.headers, text))
}
