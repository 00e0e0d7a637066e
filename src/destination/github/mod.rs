//! GitHub as a destination, through the Contents API. The only file that knows
//! octocrab, together with its two neighbours.
//!
//! One PUT to a new path stores an object: no look-up before it, and the git
//! blob SHA-1 in the answer proves what was stored. When the answer is lost,
//! the path is looked up once to learn whether the PUT happened.

mod answer;
mod body;
mod contents;
mod trees;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use octocrab::{OctoBody, Octocrab};
use tokio::sync::OnceCell;

use super::Condition;
use super::retry::Fault;
use crate::config::GithubConfig;
use crate::error::{Error, Result};
use crate::secret::is_loopback;
use answer::lost;

/// The largest object: its PUT's body is 4/3 of it, and GitHub refuses bodies
/// of more than about 35 to 40 MB ("your input was too large to process").
pub(super) const OBJECT_BYTES_MAX: u64 = 18 * 1024 * 1024;

/// The API version that the answers are read by.
const API_VERSION: &str = "2022-11-28";

const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);

/// How long an answer may take, beyond the time that its body needs.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

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

    pub(super) async fn inspect(&self) -> Result<Condition> {
        answer::condition(&self.address(), &self.repository().await?, self.config.allow_public)
    }

    /// One GET whose answer is read whole.
    async fn ask(&self, uri: &str) -> std::result::Result<(u16, http::HeaderMap, Vec<u8>), Fault> {
        let answer = self.send(self.request(Method::GET, uri), OctoBody::empty(), ANSWER_TIME_MAX).await?;
        let status = answer.status().as_u16();
        let (headers, text) = read_whole(answer).await?;
        Ok((status, headers, text))
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
        // octocrab would panic over what cannot stand in a header.
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::failed(
                "the GitHub token has a space, a line break or another odd character in it",
            )
            .hint("the place of the token should hold the token and nothing else"));
        }
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
