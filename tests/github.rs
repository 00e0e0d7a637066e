//! GitHub as the destination: what the program asks of it, and what is stored.

#[path = "support/hub.rs"]
mod hub;
mod support;

use std::fs;
use std::process::Command;

use hub::{ADDRESS, Hub, PATHS};
use serde_json::{Value, json};
use support::{KEY, TOKEN, World, ran};

#[test]
fn a_backup_is_one_request_and_reading_one_more_than_listing() {
    let hub = Hub::new(&[]);
    let report = hub.backup();
    let name = report["snapshot"].as_str().unwrap();
    let put = ("PUT".to_owned(), format!("/repos/acme/backups/contents/{name}"), Some(201));
    assert_eq!(hub.github.requests(), [put]);
    assert_eq!(report["api_calls"], 1);

    let tree = ("GET".to_owned(), "/repos/acme/backups/git/trees/HEAD?recursive=1".to_owned(), Some(200));
    let object = ("GET".to_owned(), format!("/repos/acme/backups/contents/{name}"), Some(200));
    assert_eq!(hub.names(), [name]);
    assert_eq!(hub.github.requests(), std::slice::from_ref(&tree));
    assert_eq!(hub.run(&["--json", "status"]).expect(0).json()["verdict"], "good");
    assert_eq!(hub.github.requests(), std::slice::from_ref(&tree));
    let verified = hub.run(&["--json", "verify"]).expect(0).json();
    assert_eq!(hub.github.requests(), [tree.clone(), object.clone()]);
    assert_eq!(verified["api_calls"], 2);
    let restored = hub.run(&["--json", "restore", "--target", "back"]).expect(0).json();
    assert_eq!(hub.github.requests(), [tree, object]);
    assert_eq!(restored["api_calls"], 2);
    hub::same_files(&hub.world.path("sys"), &hub.world.restored("back", "sys"));
}

#[test]
fn every_request_names_the_program_the_api_version_and_the_token() {
    let hub = Hub::new(&[]);
    hub.fault(json!({"kind": "status_after", "method": "PUT", "status": 502}));
    for args in [&["check"][..], &["backup"], &["list"], &["verify"]] {
        hub.run(args).expect(0);
    }
    let requests = hub.github.control("GET", "requests", &Value::Null);
    let requests = requests.as_array().unwrap();
    assert_eq!(requests.len(), 2 + 2 + 1 + 2);
    for request in requests {
        let headers = &request["headers"];
        assert_eq!(headers["x-github-api-version"], "2022-11-28", "{request}");
        assert!(headers["user-agent"].is_string(), "{request}");
        assert_eq!(request["authorization"], true, "{request}");
        assert_eq!(request["chunked"], false, "{request}");
    }
}

#[test]
fn what_is_stored_is_a_sound_commit_of_exactly_the_sealed_bytes() {
    let hub = Hub::of_size(300_000);
    let report = hub.backup();
    let name = report["snapshot"].as_str().unwrap();
    hub.git(&["fsck", "--strict"]);
    let blob = hub.git(&["cat-file", "blob", &format!("HEAD:{name}")]);
    assert_eq!(report["size_bytes"], blob.len());
    assert_eq!(hub.git(&["log", "-1", "--format=%s"]), format!("offsite: {name}\n").as_bytes());
    // Opened without GitHub: the same bytes under the same name in a folder.
    hub.world.write(&format!("dest/{name}"), &blob);
    hub.run(&["verify", "--from", &hub.world.destination()]).expect(0);
    // And from a clone, as a person would do it whose API token is lost.
    let clone = hub.world.path("clone");
    let git = Command::new("git").args(["clone", "-q"]).arg(hub.repo()).arg(&clone).status().unwrap();
    assert!(git.success());
    let from = format!("file://{}", clone.display());
    hub.run(&["restore", "--from", &from, "--target", "back"]).expect(0);
    hub::same_files(&hub.world.path("sys"), &hub.world.restored("back", "sys"));
}

#[test]
fn an_empty_repository_lists_nothing_and_takes_the_first_backup() {
    let hub = Hub::new(&["--empty"]);
    assert_eq!(hub.run(&["list"]).expect(0).stderr, "no snapshots\n");
    hub.run(&["status"]).expect(4);
    let error = hub.run(&["verify"]).expect(1).stderr;
    assert!(
        error.starts_with("error: github://acme/backups: there is no snapshot at this destination\n"),
        "{error}"
    );
    hub.github.requests();
    let name = hub.backup()["snapshot"].as_str().unwrap().to_owned();
    assert_eq!(hub.asked(), ["PUT 201"]);
    assert_eq!(hub.names(), [name]);
    hub.run(&["verify"]).expect(0);
    hub.git(&["fsck", "--strict"]);
}

#[test]
fn a_branch_that_is_named_is_the_only_one_that_is_touched() {
    let hub = Hub::new(&[]);
    hub.git(&["branch", "ring/a"]);
    let main = hub.git(&["rev-parse", "main"]);
    hub.config("branch = \"ring/a\"\n");
    hub.fault(json!({"kind": "reset_after", "method": "PUT"}));
    let name = hub.backup()["snapshot"].as_str().unwrap().to_owned();
    assert_eq!(hub.asked(), ["PUT -", "GET 200"]);
    assert_eq!(hub.names(), std::slice::from_ref(&name));
    hub.assert_restores("back");
    assert_eq!(hub.git(&["rev-parse", "main"]), main);
    assert!(!hub.git(&["cat-file", "blob", &format!("ring/a:{name}")]).is_empty());
    hub.config("");
    assert!(hub.names().is_empty());
}

#[test]
fn a_branch_that_does_not_exist_is_named_as_the_trouble() {
    let hub = Hub::new(&[]);
    hub.config("branch = \"ring/none\"\n");
    for args in [&["backup"][..], &["list"], &["verify"]] {
        let error = hub.run(args).expect(1).stderr;
        assert!(error.contains("branch"), "{args:?}: {error}");
        assert!(error.contains("hint: look at `branch` in [github]"), "{args:?}: {error}");
        assert_eq!(hub.asked().len(), 1, "{args:?}");
    }
}

#[test]
fn a_public_repository_is_refused_unless_it_is_accepted() {
    let hub = Hub::new(&["--public"]);
    let init = |more: &[&str]| {
        let args = ["--config", "new.toml", "init", "--destination", ADDRESS, "sys"];
        let mut command = hub.command(&[&args, more].concat());
        ran({
            command.env("OFFSITE_GITHUB_API_URL", &hub.github.url);
            command
        })
    };
    let refused = "error: github://acme/backups is a public repository\n\
         hint: make it private in its settings, or accept it with `allow_public = true` under [github]\n";
    assert_eq!(init(&[]).expect(1).stderr, refused);
    assert!(!hub.world.path("new.toml").exists(), "a refused init leaves no config");
    let check = hub.run(&["check"]).expect(1).stderr;
    assert!(
        check.contains("FAILED   destination: github://acme/backups is a public repository\n"),
        "{check}"
    );
    assert!(hub.git(&["ls-tree", "-r", "--name-only", "HEAD"]) == b"README.md\n");

    init(&["--allow-public"]).expect(0);
    let config = fs::read_to_string(hub.world.path("new.toml")).unwrap();
    assert!(config.contains("\nallow_public = true\n"), "{config}");
    hub.config("allow_public = true\n");
    let check = hub.run(&["check"]).expect(0).stderr;
    assert!(check.contains("warning  destination: the repository is public"), "{check}");
    hub.backup();
}

#[test]
fn init_prepares_a_repository_once_and_never_overwrites() {
    let hub = Hub::new(&[]);
    let first = hub.run(&["--json", "init"]).expect(0).json();
    assert_eq!(first["notes_written"], true);
    let notes = hub.git(&["cat-file", "blob", "HEAD:RESTORE.md"]);
    let text = String::from_utf8(notes.clone()).unwrap();
    assert!(text.contains("4405f0eb") && !text.contains(KEY), "{text}");
    let head = hub.git(&["rev-parse", "HEAD"]);
    let again = hub.run(&["--json", "init"]).expect(0).json();
    assert_eq!(again["notes_written"], false);
    assert_eq!(hub.git(&["rev-parse", "HEAD"]), head);
}

#[test]
fn a_listing_that_github_cuts_off_is_fetched_folder_by_folder() {
    let hub = Hub::new(&[]);
    for _ in 0..3 {
        hub.backup();
    }
    let whole = hub.names();
    assert_eq!(whole.len(), 3);
    hub.settings(json!({"tree_limit": 2}));
    hub.github.requests();
    assert_eq!(hub.names(), whole);
    // The cut list, then the root, the system, the year and the month.
    assert_eq!(hub.asked(), ["GET 200"; 5]);
    hub.run(&["verify"]).expect(0);
}

#[test]
fn two_systems_that_back_up_to_one_repository_at_once_both_land() {
    let hub = Hub::new(&[]);
    let other = World::new();
    let text = format!("{}{PATHS}", hub.github.config());
    other.write(
        "backup-paths.toml",
        format!("system = \"other\"\ndestination = \"{ADDRESS}\"\nkey = [\"env:AITHER_MASTER_KEY\"]\n{text}")
            .as_bytes(),
    );
    hub.fault(json!({"kind": "other_writer", "method": "PUT", "times": 2}));
    let codes = std::thread::scope(|threads| {
        let first = threads.spawn(|| hub.run(&["backup"]).code);
        let mut second = other.command(&["backup"]);
        second.env("GITHUB_TOKEN", TOKEN);
        let second = ran(second).code;
        (first.join().unwrap(), second)
    });
    assert_eq!(codes, (0, 0));
    let asked = hub.asked();
    assert_eq!(asked.iter().filter(|a| *a == "PUT 409").count(), 2, "{asked:?}");
    assert_eq!(asked.iter().filter(|a| *a == "PUT 201").count(), 2, "{asked:?}");
    assert_eq!(hub.names().len(), 1, "a config lists only its own system");
    let all = |system: &str| {
        hub.run(&["verify", "--from", ADDRESS, "--system", system, "--config", "backup-paths.toml"])
    };
    all("test").expect(0);
    all("other").expect(0);
    hub.git(&["fsck", "--strict"]);
}

#[test]
fn neither_the_token_nor_the_key_is_ever_printed() {
    let hub = Hub::new(&[]);
    hub.fault(json!({"kind": "status_after", "method": "PUT", "status": 502}));
    let mut said = String::new();
    let mut say = |hub: &Hub, code: i32, args: &[&str]| {
        for format in [&["-v"][..], &["--json"]] {
            let ran = hub.run(&[format, args].concat()).expect(code);
            said += &ran.stdout;
            said += &ran.stderr;
        }
    };
    say(&hub, 0, &["init"]);
    say(&hub, 0, &["check"]);
    say(&hub, 0, &["backup", "--dry-run"]);
    say(&hub, 0, &["backup"]);
    say(&hub, 0, &["list"]);
    say(&hub, 0, &["show"]);
    say(&hub, 0, &["verify"]);
    say(&hub, 0, &["key", "id"]);
    say(&hub, 0, &["restore", "--target", "back", "--force"]);
    for status in [401, 403, 404, 422, 301] {
        hub.fault(json!({"kind": "status", "status": status, "times": 2, "headers": {"location": "/moved"}}));
        say(&hub, 1, &["backup"]);
        hub.good_weather();
    }
    hub.config("branch = 7\n");
    say(&hub, 2, &["backup"]);
    assert!(said.contains("upload done"), "{said}");
    for secret in [TOKEN, KEY, KEY.trim_end_matches('='), "s3cret", "Bearer", "sealed vault"] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}
