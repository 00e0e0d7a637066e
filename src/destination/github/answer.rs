//! What GitHub's answers mean, and what a person should do about them.

use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use crate::destination::Condition;
use crate::destination::retry::Fault;
use crate::error::{Error, Result};

/// GitHub asks for at least this pause after a rate limit that names none.
const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(60);

/// An answer that makes no sense; a passing fault.
pub(super) fn lost(what: &str) -> Error {
    Error::failed(format!("GitHub: {what}"))
        .hint("githubstatus.com tells whether GitHub has trouble; then try again")
}

/// What an answer that is not a success means, and whether trying again helps.
pub(super) fn refusal(address: &str, status: u16, headers: &HeaderMap, body: &[u8]) -> Fault {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = json.get("message").and_then(Value::as_str).unwrap_or("").lines().next().unwrap_or("");
    let said = if message.is_empty() { format!("{status}") } else { format!("{status} {message}") };
    let error = |what: &str| Error::failed(format!("{address}: {what} (GitHub says: {said})"));
    match status {
        401 => Fault::Final(error("the token is wrong or has expired").hint(
            "make a fine-grained token for this one repository with Contents: read and write, and put it in the token's place",
        )),
        301 | 302 | 307 | 308 => Fault::Final(error("the repository has been renamed or moved").hint(format!(
            "put its new name into `destination`{}",
            match headers.get("location").and_then(|v| v.to_str().ok()) {
                Some(location) => format!("; GitHub points to {location}"),
                None => String::new(),
            }
        ))),
        403 | 429 if is_rate_limit(status, headers, message) => {
            Fault::Passing(error("too many requests").hint("wait, then try again"), Some(pause(headers)))
        }
        403 if message.contains("archived") => {
            Fault::Final(error("the repository is archived").hint("unarchive it in its settings, or choose another one"))
        }
        403 => Fault::Final(error("the token may not do this").hint(
            match headers.get("x-accepted-github-permissions").and_then(|v| v.to_str().ok()) {
                Some(needed) => format!("give the token the permission {needed} on this repository"),
                None => "give the token Contents: read and write on this repository".to_owned(),
            },
        )),
        404 if message.to_lowercase().contains("branch") => {
            Fault::Final(error("the branch does not exist").hint("look at `branch` in [github]"))
        }
        404 => Fault::Final(
            error("there is no such repository, or the token has no access to it")
                .hint("look at the spelling, and at which repositories the token was made for"),
        ),
        409 | 422 if is_protected(message) => Fault::Final(
            error("a rule protects the branch").hint("let this token bypass the rule, or set another `branch` in [github]"),
        ),
        422 if message.contains("too large") => {
            Fault::Final(error("the object is too large for GitHub").hint("this is a defect of offsite: please report it"))
        }
        409 | 408 | 500..=599 => Fault::Passing(
            error("it could not be done now").hint("githubstatus.com tells whether GitHub has trouble; then try again"),
            None,
        ),
        _ => Fault::Final(error("an answer that was not expected")),
    }
}

fn is_rate_limit(status: u16, headers: &HeaderMap, message: &str) -> bool {
    status == 429
        || headers.contains_key("retry-after")
        || headers.get("x-ratelimit-remaining").is_some_and(|v| v == "0")
        || message.to_lowercase().contains("rate limit")
}

/// How long GitHub asks us to wait: `retry-after`, else until
/// `x-ratelimit-reset` when nothing remains, else a minute
/// (<https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api>).
fn pause(headers: &HeaderMap) -> Duration {
    let number = |name: &str| {
        headers.get(name).and_then(|v| v.to_str().ok()).and_then(|v| v.trim().parse::<u64>().ok())
    };
    if let Some(seconds) = number("retry-after") {
        return Duration::from_secs(seconds.max(1));
    }
    match (number("x-ratelimit-remaining"), number("x-ratelimit-reset")) {
        (Some(0), Some(reset)) => {
            let now = u64::try_from(chrono::Utc::now().timestamp()).unwrap_or(0);
            Duration::from_secs(reset.saturating_sub(now) + 1)
        }
        _ => RATE_LIMIT_PAUSE,
    }
}

fn is_protected(message: &str) -> bool {
    let message = message.to_lowercase();
    ["rule violations", "protected branch", "pull request"].iter().any(|words| message.contains(words))
}

/// The request got no answer at all.
pub(super) fn unreachable(base: &url::Url, error: &octocrab::Error) -> Fault {
    let words = words(error);
    let host = base.host_str().unwrap_or("GitHub");
    let hint = if words.contains("dns") || words.contains("lookup") {
        "the name does not resolve: look at this machine's DNS"
    } else if words.contains("certificate") {
        "its TLS certificate is not trusted here: are the system's certificates installed, is a proxy in between?"
    } else {
        "look at the network, a firewall, or a proxy that is needed"
    };
    Fault::Passing(Error::failed(format!("cannot reach {host}: {words}")).hint(hint), None)
}

/// The innermost cause of an error: the outer layers only say "service error".
pub(super) fn words(error: &octocrab::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string().lines().next().unwrap_or("").to_owned()
}

/// What `GET /repos/{owner}/{repo}` says of a repository's fitness.
pub(super) fn condition(address: &str, repository: &Value, allow_public: bool) -> Result<Condition> {
    let flag = |pointer: &str| repository.pointer(pointer).and_then(Value::as_bool);
    let mut condition = Condition::default();
    condition.facts.push(format!("{address} is reachable"));
    match flag("/private") {
        Some(true) => condition.facts.push("the repository is private".to_owned()),
        _ if allow_public => {
            condition.warnings.push("the repository is public: sizes and times are seen by all".to_owned())
        }
        _ => {
            return Err(Error::failed(format!("{address} is a public repository")).hint(
                "make it private in its settings, or accept it with `allow_public = true` under [github]",
            ));
        }
    }
    if flag("/archived") == Some(true) {
        return Err(Error::failed(format!("{address} is archived and read-only"))
            .hint("unarchive it in its settings"));
    }
    if flag("/permissions/push") == Some(false) {
        return Err(Error::failed(format!("the token cannot write to {address}"))
            .hint("give the token Contents: read and write on this repository"));
    }
    condition.facts.push("the token may write".to_owned());
    if flag("/permissions/admin") == Some(true) {
        condition.warnings.push(
            "the token's owner administers this repository; make sure that the token itself has nothing but Contents"
                .to_owned(),
        );
    }
    Ok(condition)
}

#[cfg(test)]
mod tests;
