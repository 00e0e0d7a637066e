//! Snapshots at GitHub that are too large for one object, and what happens when
//! an object is missing, in the way, or of somebody else.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "support/hub.rs"]
mod hub;

mod support;

use std::fs::File;
use std::io::Write;

use hub::{ADDRESS, Hub};
use offsite::config::GithubConfig;
use offsite::destination::{Destination, Source};
use offsite::error::{Kind, Result};
use offsite::secret::Place;
use serde_json::{Value, json};
use support::TOKEN;

/// The stand-in as the library sees it.
fn destination(hub: &Hub) -> Destination {
    hub.world.write("token", TOKEN.as_bytes());
    let github = GithubConfig {
        token: vec![Place::File(hub.world.path("token"))],
        branch: None,
        api_url: Some(hub.github.url.clone()),
        allow_public: false,
    };
    Destination::open(ADDRESS, &github).unwrap()
}

fn put(hub: &Hub, name: &str, bytes: &[u8]) -> Result<()> {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let source = Source { file: &file, offset: 0, len: bytes.len() as u64 };
    wait(destination(hub).put_new(name, &source))
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
}

fn listed(hub: &Hub) -> Value {
    hub.run(&["--json", "list"]).expect(0).json()["snapshots"].clone()
}

#[test]
fn a_large_snapshot_goes_in_parts_and_comes_back() {
    let hub = Hub::of_size(45_000_000);
    // The answer to one of the parts is lost: that part is not sent again.
    hub.fault(json!({"kind": "reset_after", "method": "PUT", "path_contains": ".2-of-"}));
    let report = hub.backup();
    let requests = hub.github.control("GET", "requests", &Value::Null);
    let sizes = requests.as_array().unwrap().iter().map(|r| r["request_bytes"].as_u64().unwrap());
    assert!(sizes.max().unwrap() < 30_000_000, "near the limit of GitHub: {requests:#}");
    let asked = hub.asked();
    assert_eq!(asked, ["PUT 201", "PUT -", "GET 200", "PUT 201", "PUT 201"]);
    assert_eq!(report["api_calls"], 5);

    let name = report["snapshot"].as_str().unwrap();
    let tree = String::from_utf8(hub.git(&["ls-tree", "-r", "--name-only", "HEAD", "test"])).unwrap();
    let parts: Vec<String> = (1..=4).map(|k| format!("{name}.{k}-of-4")).collect();
    assert_eq!(tree.lines().collect::<Vec<_>>(), parts);
    let snapshots = listed(&hub);
    assert_eq!(snapshots.as_array().unwrap().len(), 1);
    assert_eq!(snapshots[0]["name"], name);
    assert_eq!(snapshots[0]["state"], "complete");
    assert_eq!(snapshots[0]["size_bytes"], report["size_bytes"]);
    hub.asked();
    // The line breaks in the middle of the third part.
    hub.fault(json!({"kind": "truncate", "bytes": 7_000_000, "reset": true, "method": "GET", "path_contains": ".3-of-"}));
    hub.assert_restores("back");
    assert_eq!(hub.asked(), ["GET 200"; 6]);
    hub.world.assert_no_leftovers();

    // Without one of its parts it is not a snapshot that anything relies on.
    wait(destination(&hub).delete(&parts[1])).unwrap();
    wait(destination(&hub).delete(&parts[1])).unwrap();
    let id = report["id"].as_str().unwrap();
    assert_eq!(listed(&hub)[0]["state"], "incomplete");
    assert_eq!(hub.run(&["--json", "status"]).expect(4).json()["newest"], Value::Null);
    let latest = hub.run(&["restore", "--target", "none"]).expect(1).stderr;
    assert_eq!(
        latest,
        format!(
            "error: github://acme/backups: none of the 1 snapshots is complete; the newest is {name} (incomplete)\n\
             hint: `offsite list` shows them; a degraded one can be restored by its name or id\n"
        )
    );
    let by_id = hub.run(&["restore", id, "--target", "none"]).expect(5).stderr;
    assert!(
        by_id.contains(&format!("{name} is incomplete: 3 of its parts are there, and not all\n")),
        "{by_id}"
    );
    assert!(!hub.world.path("none").exists());
}

#[test]
fn an_upload_that_ends_between_two_parts_is_not_a_snapshot_and_the_next_one_is() {
    let hub = Hub::of_size(16_000_000);
    hub.backup();
    hub.fault(json!({"kind": "status", "status": 403, "method": "PUT", "path_contains": ".2-of-2"}));
    hub.run(&["backup"]).expect(1);
    let snapshots = listed(&hub);
    let states: Vec<&str> =
        snapshots.as_array().unwrap().iter().map(|s| s["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["incomplete", "complete"]);
    let status = hub.run(&["--json", "status"]).expect(0).json();
    assert_eq!(status["warnings"], json!(["1 snapshots are incomplete: uploads were cut off"]));
    // `latest` passes over it.
    let verified = hub.run(&["--json", "verify"]).expect(0).json();
    assert_eq!(verified["snapshot"], snapshots[1]["name"]);
    hub.good_weather();
    let third = hub.backup();
    assert_eq!(hub.run(&["--json", "verify"]).expect(0).json()["snapshot"], third["snapshot"]);
}

#[test]
fn an_object_is_never_overwritten() {
    let hub = Hub::new(&[]);
    put(&hub, "test/2026/11/object", b"first").unwrap();
    put(&hub, "test/2026/11/object", b"first").unwrap();
    let error = put(&hub, "test/2026/11/object", b"other").unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity);
    assert!(error.message().starts_with("GitHub holds other bytes at test/2026/11/object: blob "), "{error}");
    assert_eq!(hub.git(&["cat-file", "blob", "HEAD:test/2026/11/object"]), b"first");
    // Nor when the look-up comes after a lost reply.
    hub.fault(json!({"kind": "reset_before", "method": "PUT"}));
    assert_eq!(put(&hub, "test/2026/11/object", b"other").unwrap_err().kind(), Kind::Integrity);
    assert_eq!(hub.git(&["cat-file", "blob", "HEAD:test/2026/11/object"]), b"first");
}

#[test]
fn what_is_deleted_is_gone_and_deleting_it_again_is_fine() {
    let hub = Hub::new(&[]);
    put(&hub, "test/2026/11/a", b"a").unwrap();
    put(&hub, "test/2026/11/b", b"b").unwrap();
    hub.fault(json!({"kind": "status_after", "method": "DELETE", "status": 502}));
    wait(destination(&hub).delete("test/2026/11/a")).unwrap();
    wait(destination(&hub).delete("test/2026/11/a")).unwrap();
    wait(destination(&hub).delete("test/2026/12/none")).unwrap();
    let left: Vec<String> = wait(destination(&hub).list()).unwrap().into_iter().map(|o| o.name).collect();
    assert_eq!(left, ["README.md", "test/2026/11/b"]);
}

#[test]
fn other_files_of_the_repository_are_passed_over() {
    let hub = Hub::new(&[]);
    for name in ["RESTORE.md", "drills/2026/report.json", "test/2026/11/notes.txt", "test/x.tar.gz.fernet"] {
        put(&hub, name, b"something").unwrap();
    }
    assert!(hub.names().is_empty());
    let name = hub.backup()["snapshot"].as_str().unwrap().to_owned();
    assert_eq!(hub.names(), [name]);
    hub.run(&["verify"]).expect(0);
}
