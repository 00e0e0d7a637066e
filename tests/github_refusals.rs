//! What GitHub refuses for good: the whole message, its hint, and no second try.

#[path = "support/hub.rs"]
mod hub;
mod support;

use hub::{ADDRESS, Hub, PATHS};
use serde_json::json;
use support::{KEY, TOKEN, ran};

/// Runs `args` with `token` and expects exactly `stderr`, after the requests
/// that are `asked` and no more.
#[track_caller]
fn refused(hub: &Hub, token: &str, args: &[&str], asked: &[&str], stderr: &str) {
    hub.asked();
    let mut command = hub.world.command(args);
    command.env("GITHUB_TOKEN", token);
    let ran = ran(command).expect(1);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", stderr), "{args:?}");
    assert_eq!(hub.asked(), asked, "{args:?}");
}

const TOKEN_WRONG: &str = "error: github://acme/backups: the token is wrong or has expired (GitHub says: 401 Bad credentials)\n\
    hint: make a fine-grained token for this one repository with Contents: read and write, and put it in the token's place\n";

#[test]
fn a_token_that_is_wrong_is_said_to_be_wrong() {
    let hub = Hub::new(&[]);
    refused(&hub, "github_pat_other", &["backup"], &["PUT 401"], TOKEN_WRONG);
    refused(&hub, "github_pat_other", &["list"], &["GET 401"], TOKEN_WRONG);
    refused(&hub, "github_pat_other", &["status", "--max-age", "7h"], &["GET 401"], TOKEN_WRONG);
    let check = hub.world.command(&["--json", "check"]).env("GITHUB_TOKEN", "x").output().unwrap();
    let check: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap();
    let findings = check["findings"].as_array().unwrap();
    assert!(findings.iter().any(|f| f["subject"] == "destination" && f["level"] == "failure"), "{check}");
}

#[test]
fn a_token_that_may_only_read_lists_and_is_told_what_it_lacks() {
    let hub = Hub::new(&["--read-only-token", "reader"]);
    let stderr = "error: github://acme/backups: the token may not do this \
        (GitHub says: 403 Resource not accessible by personal access token)\n\
        hint: give the token the permission contents=write on this repository\n";
    refused(&hub, "reader", &["backup"], &["PUT 403"], stderr);
    let name = hub.backup()["snapshot"].as_str().unwrap().to_owned();
    for args in [&["list"][..], &["verify"], &["restore", "--target", "back"]] {
        let mut command = hub.world.command(args);
        command.env("GITHUB_TOKEN", "reader");
        ran(command).expect(0);
    }
    assert_eq!(hub.names(), [name]);
    let mut check = hub.world.command(&["check"]);
    check.env("GITHUB_TOKEN", "reader");
    let check = ran(check).expect(1).stderr;
    assert!(
        check.contains("FAILED   destination: the token cannot write to github://acme/backups\n"),
        "{check}"
    );
    assert!(check.contains("hint: give the token Contents: read and write on this repository\n"), "{check}");
}

const NO_REPOSITORY: &str = "there is no such repository, or the token has no access to it (GitHub says: 404 Not Found)\n\
    hint: look at the spelling, and at which repositories the token was made for\n";

#[test]
fn a_repository_that_is_not_there_and_one_that_is_out_of_reach_look_the_same() {
    let hub = Hub::new(&["--no-access-token", "stranger"]);
    let stderr = format!("error: github://acme/backups: {NO_REPOSITORY}");
    refused(&hub, "stranger", &["backup"], &["PUT 404"], &stderr);
    refused(&hub, "stranger", &["list"], &["GET 404", "GET 404"], &stderr);
    hub.world.config_for("github://acme/none", &format!("{}{PATHS}", hub.github.config()));
    let stderr = format!("error: github://acme/none: {NO_REPOSITORY}");
    refused(&hub, TOKEN, &["backup"], &["PUT 404"], &stderr);
    refused(&hub, TOKEN, &["list"], &["GET 404", "GET 404"], &stderr);
}

#[test]
fn an_archived_repository_can_be_read_and_not_written() {
    let hub = Hub::new(&[]);
    hub.backup();
    hub.settings(json!({"archived": true}));
    let stderr = "error: github://acme/backups: the repository is archived \
        (GitHub says: 403 Repository was archived so is read-only.)\n\
        hint: unarchive it in its settings, or choose another one\n";
    refused(&hub, TOKEN, &["backup"], &["PUT 403"], stderr);
    hub.assert_restores("back");
    let check = hub.run(&["check"]).expect(1).stderr;
    assert!(
        check.contains("FAILED   destination: github://acme/backups is archived and read-only\n"),
        "{check}"
    );
}

#[test]
fn a_protected_branch_is_named_and_nothing_is_stored() {
    let hub = Hub::new(&[]);
    hub.settings(json!({"protected_branch": true}));
    let stderr = "error: github://acme/backups: a rule protects the branch \
        (GitHub says: 409 Repository rule violations found)\n\
        hint: let this token bypass the rule, or set another `branch` in [github]\n";
    // 409 also means that another writer won: so it is looked up, once.
    refused(&hub, TOKEN, &["backup"], &["PUT 409", "GET 404"], stderr);
    assert!(hub.names().is_empty());
}

#[test]
fn a_renamed_repository_is_not_followed_but_named() {
    let hub = Hub::new(&[]);
    let redirect = |status: u16| {
        hub.good_weather();
        hub.fault(json!({"kind": "redirect", "status": status, "times": -1,
            "location": "https://api.github.example/repositories/1296269{rest}"}));
    };
    let stderr = |said: &str, rest: &str| {
        format!(
            "error: github://acme/backups: the repository has been renamed or moved (GitHub says: {said})\n\
             hint: put its new name into `destination`; GitHub points to https://api.github.example/repositories/1296269{rest}\n"
        )
    };
    redirect(301);
    let moved = stderr("301 Moved Permanently", "/git/trees/HEAD?recursive=1");
    refused(&hub, TOKEN, &["list"], &["GET 301"], &moved);
    redirect(307);
    let error = hub.run(&["backup"]).expect(1).stderr;
    let moved = stderr("307 Temporary Redirect", "/contents/test/");
    assert!(error.starts_with(moved.trim_end()), "{error}");
    assert_eq!(hub.asked(), ["PUT 307"]);
}

#[test]
fn without_a_token_every_place_is_named_and_nothing_is_asked() {
    let hub = Hub::new(&[]);
    let places = format!(
        "[github]\ntoken = [\"env:GITHUB_TOKEN\", \"file:none\", \"command:false --password hunter2\"]\n\
         api_url = \"{}\"\n{PATHS}",
        hub.github.url
    );
    hub.world.config_for(ADDRESS, &places);
    let stderr = format!(
        "error: found no GitHub token; tried env:GITHUB_TOKEN (not set), file:{} (not there), \
         command:false (exit status: 1)\nhint: put the GitHub token in one of these places\n",
        hub.world.path("none").display()
    );
    for args in [&["backup"][..], &["list"], &["verify"], &["restore", "--target", "back"]] {
        let ran = hub.world.run(args).expect(1);
        assert_eq!(ran.stderr, stderr, "{args:?}");
    }
    assert!(hub.asked().is_empty());
    assert!(!hub.world.path("back").exists());
}

#[test]
fn a_token_that_cannot_be_one_is_refused_before_anything_is_sent() {
    let hub = Hub::new(&[]);
    let stderr = "error: the GitHub token has a space, a line break or another odd character in it\n\
        hint: the place of the token should hold the token and nothing else\n";
    for token in ["two\nlines", "a token", "t\u{f6}ken"] {
        refused(&hub, token, &["backup"], &[], stderr);
        refused(&hub, token, &["list"], &[], stderr);
    }
}

#[test]
fn a_rate_limit_that_lasts_an_hour_is_told_and_not_waited_for() {
    let hub = Hub::new(&[]);
    let limit = json!({"kind": "status", "status": 403, "times": -1, "headers": {"retry-after": "3600"},
        "message": "You have exceeded a secondary rate limit."});
    hub.fault(limit);
    let stderr = "error: github://acme/backups: too many requests \
        (GitHub says: 403 You have exceeded a secondary rate limit.)\n\
        hint: the server asks to wait 1h; try again after that\n";
    refused(&hub, TOKEN, &["backup"], &["PUT 403"], stderr);
    refused(&hub, TOKEN, &["list"], &["GET 403"], stderr);
}

#[test]
fn a_body_that_github_finds_too_large_is_our_defect_and_not_tried_again() {
    let hub = Hub::of_size(100_000);
    hub.settings(json!({"body_limit": 50_000}));
    let error = hub.run(&["backup"]).expect(1).stderr;
    assert!(error.contains("the object is too large for GitHub"), "{error}");
    assert!(error.contains("please report it"), "{error}");
    assert_eq!(hub.asked(), ["PUT 422"]);
    assert!(hub.names().is_empty());
}

#[test]
fn an_api_address_that_would_show_the_token_is_refused_before_anything_is_sent() {
    let hub = Hub::new(&[]);
    let rest = format!("[github]\napi_url = \"http://github.example/api/v3\"\n{PATHS}");
    hub.world.config_for(ADDRESS, &rest);
    let ran = hub.run(&["backup"]).expect(2);
    assert_eq!(ran.stderr, "error: `api_url` is http: the token would travel in clear\nhint: use https\n");
    assert!(!ran.stderr.contains(KEY));
}
