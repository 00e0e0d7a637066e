//! Downloads from GitHub that fail: what can be got whole is, and nothing else
//! is ever restored.

#[path = "support/hub.rs"]
mod hub;
mod support;

use hub::Hub;
use serde_json::{Value, json};

/// Restores under faults of the download: the system comes back after exactly
/// the requests that are `asked`.
#[track_caller]
fn reads_through(faults: &[Value], asked: &[&str]) {
    let hub = Hub::of_size(1_000_000);
    hub.backup();
    hub.asked();
    for fault in faults {
        let mut fault = fault.clone();
        fault["method"] = "GET".into();
        fault["path_contains"] = "/contents/".into();
        hub.fault(fault);
    }
    hub.assert_restores("back");
    assert_eq!(hub.asked(), asked);
    hub.world.assert_no_leftovers();
}

#[test]
fn a_download_that_breaks_goes_on_where_it_broke() {
    reads_through(
        &[
            json!({"kind": "truncate", "bytes": 400_000, "reset": true}),
            json!({"kind": "truncate", "bytes": 900_001}),
            json!({"kind": "truncate", "bytes": 7}),
        ],
        &["GET 200"; 5],
    );
}

#[test]
fn a_download_may_be_slow() {
    reads_through(&[json!({"kind": "slow_body", "chunk": 50_000, "delay": 0.05})], &["GET 200", "GET 200"]);
}

#[test]
fn a_page_of_a_proxy_is_not_taken_for_the_object() {
    reads_through(
        &[json!({"kind": "html", "status": 502}), json!({"kind": "reset_before"})],
        &["GET 200", "GET 502", "GET -", "GET 200"],
    );
}

#[test]
fn a_rate_limit_while_reading_is_waited_for() {
    reads_through(
        &[json!({"kind": "status", "status": 429, "headers": {"retry-after": "1"}})],
        &["GET 200", "GET 429", "GET 200"],
    );
}

/// Under this fault of the download nothing is restored, and the code is `code`.
#[track_caller]
fn nothing_comes_back(fault: Value, code: i32) -> String {
    let hub = Hub::of_size(1_000_000);
    hub.backup();
    let mut fault = fault;
    fault["method"] = "GET".into();
    fault["path_contains"] = "/contents/".into();
    fault["times"] = (-1).into();
    hub.fault(fault);
    if code == 5 {
        hub.run(&["verify"]).expect(code);
    }
    let ran = hub.run(&["restore", "--target", "back"]).expect(code);
    assert!(!hub.world.path("back").exists(), "the target was touched");
    hub.world.assert_no_leftovers();
    ran.stderr
}

#[test]
fn one_flipped_bit_is_damage_and_nothing_is_restored() {
    nothing_comes_back(json!({"kind": "flip", "offset": 500_000, "bit": 0}), 5);
    nothing_comes_back(json!({"kind": "flip", "offset": 0, "bit": 5}), 5);
    nothing_comes_back(json!({"kind": "flip", "offset": -3, "bit": 0}), 5);
}

#[test]
fn bytes_behind_the_object_are_damage_and_nothing_is_restored() {
    nothing_comes_back(json!({"kind": "over_long", "bytes": 1}), 5);
    nothing_comes_back(json!({"kind": "over_long", "bytes": 100_000}), 5);
}

#[test]
fn another_object_in_its_place_is_damage_and_nothing_is_restored() {
    nothing_comes_back(json!({"kind": "status", "status": 200, "body": "<html>sign in</html>"}), 5);
    nothing_comes_back(json!({"kind": "status", "status": 200, "body": ""}), 5);
}

#[test]
fn a_download_that_always_breaks_is_told_and_nothing_is_restored() {
    let error = nothing_comes_back(json!({"kind": "truncate", "bytes": 400_000, "reset": true}), 1);
    assert!(error.contains("tried 5 times: GitHub: the answer broke off"), "{error}");
}
