//! Uploads to GitHub that fail: a lost reply hides a success, what was not done
//! is done again, and what cannot be done is told and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "support/hub.rs"]
mod hub;

mod support;

use hub::Hub;
use serde_json::{Value, json};

/// Backs up under one fault of the PUT: it succeeds after exactly the requests
/// that are `asked`, one snapshot is there, and it verifies.
#[track_caller]
fn survives(fault: Value, asked: &[&str]) {
    let hub = Hub::of_size(200_000);
    let mut fault = fault;
    fault["method"] = "PUT".into();
    hub.fault(fault);
    let report = hub.backup();
    assert_eq!(hub.asked(), asked);
    assert_eq!(report["api_calls"], asked.len());
    assert_eq!(hub.names(), [report["snapshot"].as_str().unwrap()]);
    assert_eq!(hub.git(&["rev-list", "--count", "HEAD", "--", "test"]), b"1\n", "it was stored once");
    hub.run(&["verify"]).expect(0);
    hub.world.assert_no_leftovers();
}

#[test]
fn a_502_for_a_put_that_was_done_is_a_success() {
    survives(json!({"kind": "status_after", "status": 502}), &["PUT 502", "GET 200"]);
}

#[test]
fn a_504_page_of_a_proxy_for_a_put_that_was_done_is_a_success() {
    survives(json!({"kind": "html", "status": 504, "perform": true}), &["PUT 504", "GET 200"]);
}

#[test]
fn a_line_that_breaks_before_the_answer_to_a_put_hides_a_success() {
    survives(json!({"kind": "reset_after"}), &["PUT -", "GET 200"]);
}

#[test]
fn a_silence_instead_of_the_answer_to_a_put_hides_a_success() {
    survives(json!({"kind": "silence_after", "seconds": 2}), &["PUT -", "GET 200"]);
}

#[test]
fn an_answer_to_a_put_that_breaks_off_hides_a_success() {
    survives(json!({"kind": "truncate", "bytes": 20, "reset": true}), &["PUT 201", "GET 200"]);
}

#[test]
fn a_success_without_a_blob_in_it_is_looked_up() {
    survives(json!({"kind": "status_after", "status": 200, "body": "<html>"}), &["PUT 200", "GET 200"]);
}

#[test]
fn a_put_that_never_arrived_is_sent_again() {
    survives(json!({"kind": "reset_before"}), &["PUT -", "GET 404", "PUT 201"]);
}

#[test]
fn a_put_that_broke_off_in_the_middle_is_sent_again() {
    survives(json!({"kind": "reset_during"}), &["PUT -", "GET 404", "PUT 201"]);
}

#[test]
fn a_put_that_was_swallowed_is_sent_again() {
    survives(json!({"kind": "silence", "seconds": 2}), &["PUT -", "GET 404", "PUT 201"]);
}

#[test]
fn a_503_page_is_waited_out() {
    survives(json!({"kind": "html", "status": 503}), &["PUT 503", "GET 404", "PUT 201"]);
}

#[test]
fn a_409_because_another_writer_won_is_sent_again() {
    survives(json!({"kind": "other_writer"}), &["PUT 409", "GET 404", "GET 404", "PUT 201"]);
}

#[test]
fn a_secondary_rate_limit_is_waited_for_as_long_as_it_says() {
    survives(
        json!({"kind": "status", "status": 403, "headers": {"retry-after": "1"},
            "message": "You have exceeded a secondary rate limit."}),
        &["PUT 403", "GET 404", "PUT 201"],
    );
}

#[test]
fn a_429_is_waited_for_as_long_as_it_says() {
    survives(
        json!({"kind": "status", "status": 429, "headers": {"retry-after": "1"}}),
        &["PUT 429", "GET 404", "PUT 201"],
    );
}

#[test]
fn trouble_with_the_look_up_does_not_make_a_second_snapshot() {
    let hub = Hub::new(&[]);
    hub.github.faults(json!([
        {"kind": "reset_after", "method": "PUT"},
        {"kind": "html", "status": 502, "method": "GET"},
    ]));
    hub.backup();
    assert_eq!(hub.asked(), ["PUT -", "GET 502", "GET 200"]);
    assert_eq!(hub.names().len(), 1);
}

#[test]
fn a_lost_reply_in_a_folder_that_is_listed_only_in_part_is_found_all_the_same() {
    let hub = Hub::new(&[]);
    let name = hub.backup()["snapshot"].as_str().unwrap().to_owned();
    let folder = name.rsplit_once('/').unwrap().0;
    fill(&hub, folder, 1000);
    hub.asked();
    hub.fault(json!({"kind": "reset_after", "method": "PUT"}));
    hub.backup();
    assert_eq!(hub.asked(), ["PUT -", "GET 200", "GET 200"]);
    assert_eq!(hub.names().len(), 2);
}

/// Puts `n` files into a folder that sort before every snapshot of this century.
fn fill(hub: &Hub, folder: &str, n: usize) {
    let git = |args: &[&str], input: &str| {
        use std::io::Write;
        let mut child = std::process::Command::new("git")
            .arg("-C")
            .arg(hub.repo())
            .args(["-c", "user.name=t", "-c", "user.email=t@example.invalid"])
            .args(args)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let blob = git(&["hash-object", "-w", "--stdin"], "x");
    let there = git(&["ls-tree", &format!("HEAD:{folder}")], "");
    let more: String = (0..n).map(|i| format!("100644 blob {blob}\t0{i:04}\n")).collect();
    let mut tree = git(&["mktree"], &format!("{there}\n{more}"));
    for component in folder.split('/').rev() {
        tree = git(&["mktree"], &format!("040000 tree {tree}\t{component}\n"));
    }
    let commit = git(&["commit-tree", "-p", "HEAD", "-m", "full", &tree], "");
    git(&["update-ref", "refs/heads/main", &commit], "");
}

#[test]
fn a_success_that_names_another_blob_is_never_a_success() {
    let hub = Hub::new(&[]);
    hub.fault(json!({"kind": "wrong_sha", "method": "PUT"}));
    let ran = hub.run(&["backup"]).expect(5);
    assert!(ran.stderr.starts_with("error: GitHub holds other bytes at test/"), "{}", ran.stderr);
    assert!(ran.stderr.contains("\nhint: nothing was overwritten; run the backup again"), "{}", ran.stderr);
    assert_eq!(hub.asked(), ["PUT 201"]);
}

#[test]
fn five_502s_in_a_row_are_told_and_nothing_is_listed() {
    let hub = Hub::new(&[]);
    hub.fault(
        json!({"kind": "status", "method": "PUT", "status": 502, "message": "Server Error", "times": -1}),
    );
    let ran = hub.run(&["backup"]).expect(1);
    assert_eq!(
        ran.stderr,
        "error: tried 5 times: github://acme/backups: it could not be done now (GitHub says: 502 Server Error)\n\
         hint: githubstatus.com tells whether GitHub has trouble; then try again\n"
    );
    let asked = hub.asked();
    assert_eq!(asked.iter().filter(|a| *a == "PUT 502").count(), 5, "{asked:?}");
    assert!(hub.names().is_empty());
    hub.world.assert_no_leftovers();
}

#[test]
fn nobody_at_the_address_is_told_with_the_address() {
    let hub = Hub::new(&[]);
    let (address, rest) = (hub::ADDRESS, hub::PATHS);
    // A port that nobody listens to any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    hub.world.config_for(address, &format!("[github]\napi_url = \"http://127.0.0.1:{port}\"\n{rest}"));
    let error = hub.run(&["list"]).expect(1).stderr;
    assert!(error.starts_with("error: tried 5 times: cannot reach 127.0.0.1: "), "{error}");
    assert!(error.contains("refused"), "{error}");
    assert!(
        error.contains("\nhint: look at the network, a firewall, or a proxy that is needed\n"),
        "{error}"
    );
}
