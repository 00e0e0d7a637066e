//! `--json`: one object on stdout, of a shape that scripts may rely on.

use serde_json::{Value, json};

use super::support::{World, ran};
use super::{OTHER_KEY, object};

/// The keys of an object, in alphabetical order.
#[track_caller]
fn keys(value: &Value) -> String {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys.join(" ")
}

/// Runs with `--json`: stdout is one object, stderr is empty.
#[track_caller]
fn quiet(world: &World, args: &[&str], code: i32) -> Value {
    let ran = world.run(&[args, &["--json"]].concat()).expect(code);
    assert_eq!(ran.stderr, "", "{args:?}");
    ran.json()
}

#[test]
fn list_is_what_the_design_says() {
    let world = World::new();
    assert_eq!(quiet(&world, &["list"], 0), json!({ "snapshots": [] }));
    let a = "test/2026/11/20261121T061703Z-aaaaaaaa.tar.gz.fernet";
    let b = "test/2026/11/20261121T001703Z-bbbbbbbb.degraded.tar.gz.fernet";
    let c = "test/2026/11/20261120T181703Z-cccccccc.tar.gz.fernet";
    object(&world, b);
    object(&world, a);
    object(&world, &format!("{c}.2-of-3"));
    object(&world, "other/2026/11/20261121T061703Z-dddddddd.tar.gz.fernet");
    object(&world, "RESTORE.md");
    object(&world, ".incoming/half");
    let line = |name: &str, id: &str, at: &str, state: &str| json!({ "name": name, "id": id, "system": "test", "taken_at": at, "size_bytes": 1, "state": state, "proven_at": null });
    let expected = json!({ "snapshots": [
        line(a, "aaaaaaaa", "2026-11-21T06:17:03Z", "complete"),
        line(b, "bbbbbbbb", "2026-11-21T00:17:03Z", "degraded"),
        line(c, "cccccccc", "2026-11-20T18:17:03Z", "incomplete"),
    ] });
    assert_eq!(quiet(&world, &["list"], 0), expected);
    let from = world.destination();
    assert_eq!(quiet(&world, &["list", "--from", &from, "--system", "test"], 0), expected);
    assert_eq!(quiet(&world, &["list", "--from", &from], 0)["snapshots"].as_array().unwrap().len(), 4);
}

#[test]
fn backup_and_its_plan_say_what_was_taken_and_what_was_not() {
    let world = World::new();
    world.config("[tier1.secrets]\npaths = [\"sys\", \"gone\"]\n[tier1.more]\npaths = [\"not-there\"]\noptional = true\n");
    let gone =
        json!({ "path": world.path("gone"), "tier1": "secrets", "reason": "missing", "required": true });
    let plan = quiet(&world, &["backup", "--dry-run"], 3);
    assert_eq!(keys(&plan), "groups paths postgres problems skipped");
    assert_eq!(keys(&plan["paths"][0]), "path size_bytes");
    assert_eq!(plan["skipped"], json!([gone]));
    assert_eq!(plan["problems"], json!(["required paths that could not be stored whole: 1"]));
    assert!(world.objects().is_empty());
    let report = quiet(&world, &["backup"], 3);
    assert_eq!(
        keys(&report),
        "api_calls content_bytes destination groups id key_id postgres problems seconds size_bytes skipped snapshot state taken_at"
    );
    assert_eq!(keys(&report["seconds"]), "dump pack total upload");
    assert_eq!(report["state"], "degraded");
    assert_eq!(report["skipped"], json!([gone]));
    assert_eq!(report["problems"], plan["problems"]);
    assert_eq!(report["groups"], json!([{ "name": "secrets", "entries": 4, "bytes": 16 }]));
    assert_eq!(report["groups"], plan["groups"]);
    let name = report["snapshot"].as_str().unwrap();
    assert!(name.ends_with(&format!("-{}.degraded.tar.gz.fernet", report["id"].as_str().unwrap())));
    assert_eq!(report["size_bytes"], std::fs::metadata(world.path("dest").join(name)).unwrap().len());
}

#[test]
fn show_is_the_manifest() {
    let world = World::new();
    world.config(
        "[tier1.secrets]\npaths = [\"sys/.env\"]\n[regenerable.models]\npaths = [\"models\"]\nhow = \"fetch them\"\ntakes = \"90 min\"\n",
    );
    let report = world.backup();
    let manifest = quiet(&world, &["show"], 0);
    assert_eq!(
        keys(&manifest),
        "degraded entries format groups host id key_id needs nonce packed_at postgres problems regenerable skipped \
         snapshot started_at system tool"
    );
    assert_eq!(manifest["format"], 1);
    for (key, same) in [("snapshot", "snapshot"), ("id", "id"), ("key_id", "key_id"), ("groups", "groups")] {
        assert_eq!(manifest[key], report[same]);
    }
    assert_eq!(
        manifest["regenerable"],
        json!([{ "name": "models", "paths": ["models"], "how": "fetch them", "takes": "90 min" }])
    );
    let entries = manifest["entries"].as_array().unwrap();
    let path = format!("files{}", world.path("sys/.env").display());
    let entry = entries.iter().find(|e| e["path"] == path.as_str()).unwrap();
    for (key, value) in [("type", json!("file")), ("size", json!(4)), ("tier1", json!("secrets"))] {
        assert_eq!(entry[key], value);
    }
    // printf 'A=1\n' | sha256sum
    assert_eq!(entry["sha256"], "91d6a3d55e9fea7911c537afae6607c77fa8bc0f3a76c375e104ac5a8cfa84db");
    let stored: Value = serde_json::from_slice(
        &std::fs::read(restored_manifest(&world, report["id"].as_str().unwrap())).unwrap(),
    )
    .unwrap();
    assert_eq!(stored, manifest);
}

fn restored_manifest(world: &World, id: &str) -> std::path::PathBuf {
    let report = quiet(world, &["restore", "--target", "back"], 0);
    assert_eq!(
        keys(&report),
        "api_calls content_bytes dumps entries extras id loaded manifest notes problems refused regenerable seconds setuid \
         snapshot state target"
    );
    assert_eq!(report["target"], json!(world.path("back")));
    assert_eq!(report["manifest"], true);
    let extras = world.path("back/.offsite").join(id);
    assert_eq!(report["extras"], json!(extras));
    extras.join("manifest.json")
}

#[test]
fn verify_status_check_and_init_have_their_shapes() {
    let world = World::new();
    let report = world.backup();
    let verify = quiet(&world, &["verify"], 0);
    assert_eq!(
        keys(&verify),
        "api_calls content_bytes entries manifest seconds size_bytes snapshot state tokens"
    );
    assert_eq!((&verify["snapshot"], &verify["tokens"]), (&report["snapshot"], &json!(1)));
    let status = quiet(&world, &["status"], 0);
    assert_eq!(keys(&status), "age_seconds newest newest_complete proven_at snapshots verdict warnings");
    assert_eq!(keys(&status["newest"]), "id name proven_at size_bytes state system taken_at");
    assert_eq!(status["verdict"], "good");
    let check = quiet(&world, &["check"], 0);
    assert_eq!(keys(&check), "findings ok");
    assert_eq!(keys(&check["findings"][0]), "hint level message subject");
    assert!(
        check["findings"].as_array().unwrap().iter().all(|f| f["level"] == "ok" || f["level"] == "warning")
    );
    let init = quiet(&world, &["init"], 0);
    assert_eq!(keys(&init), "config config_written destination key_file key_id new_key notes notes_written");
    assert_eq!((&init["key_id"], &init["new_key"]), (&json!("4405f0eb"), &Value::Null));
}

#[test]
fn check_fails_with_every_reason_and_writes_nothing() {
    let world = World::new();
    world.config("[tier1.secrets]\npaths = [\"gone\"]\n");
    let mut command = world.command(&["--json", "check"]);
    command.env_remove("AITHER_MASTER_KEY").env("TMPDIR", world.path("no-tmp"));
    let check = ran(command).expect(1).json();
    let failed: Vec<&str> = check["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| f["level"] == "failure")
        .map(|f| f["subject"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["key", "tier1", "tier1.secrets", "scratch"]);
    assert_eq!(check["ok"], false);
    assert!(world.objects().is_empty());
}

#[test]
fn errors_are_one_object_too_and_are_told_on_stderr_as_well() {
    let world = World::new();
    world.backup();
    for (args, code) in [
        (&["verify", "zzz"][..], 1),
        (&["bakup"], 2),
        (&["restore"], 2),
        (&["list", "--from", "nonsense"], 2),
        (&["--config", "none", "backup"], 2),
    ] {
        let ran = world.run(&[&["--json"], args].concat()).expect(code);
        let object = ran.json();
        assert_eq!(keys(&object), "error exit_code hint");
        assert_eq!(object["exit_code"], code);
        let told = format!(
            "error: {}\nhint: {}\n",
            object["error"].as_str().unwrap(),
            object["hint"].as_str().unwrap()
        );
        assert_eq!(ran.stderr, told);
    }
    let mut command = world.command(&["verify", "--json"]);
    command.env("AITHER_MASTER_KEY", OTHER_KEY);
    assert_eq!(ran(command).expect(5).json()["exit_code"], 5);
    // Behind `--` it is an argument like any other.
    assert_eq!(world.run(&["list", "--", "--json"]).expect(2).stdout, "");
}
