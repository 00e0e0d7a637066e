//! Archives that are sealed with the right key and lie: `restore` refuses them
//! with exit code 5 and writes nothing, neither at the target nor outside it.
//!
//! Every case takes a real snapshot apart, changes one thing in the archive and
//! in the manifest, so that nothing else is wrong, and seals it again.

#[path = "hostile/forge.rs"]
mod forge;
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;

use forge::{BLOCK, Forge, Member, file, listed_as, member, member_of_mode, with_pax};
use serde_json::{Value, json};

#[test]
fn a_forged_snapshot_with_nothing_wrong_restores() {
    let mut forge = Forge::new();
    forge.add(file("files/added", b"added"));
    forge.store();
    forge.world.run(&["verify"]).expect(0);
    forge.world.run(&["restore", "--target", "place/target"]).expect(0);
    assert_eq!(fs::read(forge.world.path("place/target/added")).unwrap(), b"added");
}

#[test]
fn a_path_that_leaves_the_target_is_refused() {
    let leaves = "has a path that would leave the target";
    for path in ["files/../../../escaped", "files/..", "../escaped", "/escaped", "files//x", "files/./x"] {
        let mut forge = Forge::new();
        forge.add(file(path, b"x"));
        forge.assert_refused_by_both(leaves);
        assert!(!forge.world.path("escaped").exists());
    }
    let mut forge = Forge::new();
    let absolute = format!("{}/written", forge.outside());
    forge.add(file(&absolute, b"x"));
    forge.assert_refused_by_both(leaves);
    let mut forge = Forge::new();
    forge.add(member(tar::EntryType::Directory, "files/../../../", b"", ""));
    forge.assert_refused_by_both(leaves);
}

#[test]
fn a_nul_in_a_name_is_refused() {
    let mut forge = Forge::new();
    let nul = listed_as(with_pax(file("files/x", b"x"), "path", b"files/x\0y"), "path", "files/x\0y".into());
    forge.add(nul);
    forge.assert_refused_by_both("it has a NUL byte");
    let mut forge = Forge::new();
    let link = with_pax(member(tar::EntryType::Symlink, "files/x", b"", "y"), "linkpath", b"y\0z");
    forge.add(listed_as(link, "link", json!({ "path": "y\0z" })));
    forge.assert_refused_by_both("has a NUL byte");
}

#[test]
fn nothing_is_written_through_a_symlink() {
    let through = "it goes through a symlink or a file";
    let link = |forge: &Forge, path: &str| member(tar::EntryType::Symlink, path, b"", &forge.outside());
    let mut forge = Forge::new();
    forge.add(link(&forge, "files/evil"));
    let at = forge.find("RESTORE.md");
    let (below, entry) = file("files/evil/written", b"x");
    forge.members.insert(at, below);
    forge.entries().insert(at, entry);
    forge.assert_refused(through);

    // Where our own manifest goes.
    let mut forge = Forge::new();
    forge.add(link(&forge, "files/.offsite"));
    forge.assert_refused_by_both("files/.offsite is where a restore puts the manifest");
    let mut forge = Forge::new();
    let path = format!("files/.offsite/{}", forge.id);
    forge.add(link(&forge, &path));
    forge.assert_refused_by_both(&format!("{path} is where a restore puts the manifest"));

    // A folder's mode and owner are set by path in the end.
    let mut forge = Forge::new();
    forge.add(link(&forge, "files/evil"));
    let at = forge.find("RESTORE.md");
    let (folder, entry) = member_of_mode(tar::EntryType::Directory, "files/evil/", b"", "", 0o777);
    forge.members.insert(at, folder);
    forge.entries().insert(at, entry);
    forge.assert_refused("files/evil");
}

#[test]
fn a_hard_link_to_outside_is_refused() {
    let link = |target: &str| member(tar::EntryType::Link, "files/stolen", b"", target);
    let mut forge = Forge::new();
    forge.add(link(&format!("{}/secret", forge.outside())));
    forge.assert_refused("it is absolute");
    let mut forge = Forge::new();
    forge.add(link("files/../../outside/secret"));
    forge.assert_refused("it has a `..`");
    let mut forge = Forge::new();
    forge.add(link("files/nothing"));
    forge.assert_refused("files/stolen is a hard link to files/nothing, which is no file of this snapshot");
    let mut forge = Forge::new();
    let secret = format!("{}/secret", forge.outside());
    forge.add(link("files/symlink"));
    let at = forge.find("files/stolen");
    let (symlink, entry) = member(tar::EntryType::Symlink, "files/symlink", b"", &secret);
    forge.members.insert(at, symlink);
    forge.entries().insert(at, entry);
    forge.assert_refused("which is no file of this snapshot");
}

#[test]
fn devices_and_other_special_files_are_refused() {
    use tar::EntryType::{Block, Char, Fifo, GNUSparse};
    for (kind, letter) in [(Char, '3'), (Block, '4'), (Fifo, '6'), (GNUSparse, 'S')] {
        let mut forge = Forge::new();
        forge.add(member(kind, "files/device", b"", ""));
        forge.assert_refused_by_both(&format!(
            "files/device is a member of type '{letter}', which no snapshot holds"
        ));
    }
}

#[test]
fn the_same_path_twice_is_refused() {
    let twice = "the snapshot has files/twice twice";
    let both = |first: (Member, Value), second: (Member, Value)| {
        let mut forge = Forge::new();
        forge.add(second);
        let at = forge.find(&first.0.path.clone()).min(forge.find("RESTORE.md") - 1);
        forge.members.insert(at, first.0);
        forge.entries().insert(at, first.1);
        forge
    };
    let folder = || member(tar::EntryType::Directory, "files/twice", b"", "");
    let symlink = || member(tar::EntryType::Symlink, "files/twice", b"", "x");
    let plain = || file("files/twice", b"x");
    for (first, second) in [
        (plain(), plain()),
        (folder(), folder()),
        (symlink(), plain()),
        (plain(), folder()),
        (folder(), plain()),
    ] {
        both(first, second).assert_refused_by_both(twice);
    }
}

#[test]
fn a_manifest_that_disagrees_with_the_archive_is_refused() {
    let not_what = |path: &str| format!("{path} is not what the manifest says it is");
    for (key, wrong) in [
        ("sha256", json!("0".repeat(64))),
        ("size", json!(5)),
        ("mode", json!("0777")),
        ("uid", json!(4242)),
        ("mtime", json!("1.000000000")),
        ("type", json!("symlink")),
        ("link", json!({ "path": "elsewhere" })),
    ] {
        let mut forge = Forge::new();
        let path = forge.inside(".env");
        forge.entry(&path)[key] = wrong;
        forge.assert_refused_by_both(&not_what(&path));
    }
    let mut forge = Forge::new();
    let env = forge.find(&forge.inside(".env"));
    let data = forge.members[env].bytes.len() - BLOCK;
    forge.members[env].bytes[data] ^= 1;
    forge.assert_refused_by_both(&not_what(&forge.inside(".env")));
    let mut forge = Forge::new();
    forge.members.remove(env);
    forge.assert_refused_by_both("is not what the manifest says it is");
    let mut forge = Forge::new();
    forge.entries().remove(env);
    forge.assert_refused_by_both("is not what the manifest says it is");
    let mut forge = Forge::new();
    forge.entries().swap(env, env - 1);
    forge.assert_refused_by_both("is not what the manifest says it is");
    let mut forge = Forge::new();
    let ghost = file("files/ghost", b"x").1;
    forge.entries().push(ghost);
    forge.assert_refused_by_both("files/ghost is in the manifest, but not in the archive");
    let mut forge = Forge::new();
    forge.entries().pop();
    forge.assert_refused_by_both("the archive has entries that its manifest does not list");
    let mut forge = Forge::new();
    forge.add(file("elsewhere/x", b"x"));
    forge.assert_refused_by_both("elsewhere/x, which is not where a snapshot has files");
}

#[test]
fn a_manifest_of_another_snapshot_is_refused() {
    let mut forge = Forge::new();
    forge.manifest["snapshot"] = "test/2020/01/20200101T000000Z-0a1b2c3d.tar.gz.fernet".into();
    forge.assert_refused_by_both(
        "this is the snapshot test/2020/01/20200101T000000Z-0a1b2c3d.tar.gz.fernet, stored",
    );
    for (key, wrong) in [("id", json!("0a1b2c3d")), ("system", json!("other")), ("degraded", json!(true))] {
        let mut forge = Forge::new();
        forge.manifest[key] = wrong;
        forge.assert_refused_by_both("the manifest contradicts its own snapshot's name");
    }
}

#[test]
fn a_manifest_that_is_missing_or_unreadable_is_refused() {
    let mut forge = Forge::new();
    forge.manifest = Value::Null;
    forge.assert_refused_by_both("there is no manifest: the snapshot was cut short");
    for (what, expected) in [
        (json!("a text"), "the manifest cannot be read: "),
        (json!({}), "the manifest cannot be read: missing field `entries`"),
        (json!({ "entries": [] }), "the manifest cannot be read: missing field"),
    ] {
        let mut forge = Forge::new();
        forge.manifest = what;
        forge.assert_refused_by_both(expected);
    }
    let mut forge = Forge::new();
    let (json, _) = file("manifest.json", b"this is no JSON");
    let at = forge.members.len();
    forge.members.insert(at, json);
    forge.manifest = Value::Null;
    forge.assert_refused_by_both("the manifest cannot be read: ");
}

#[test]
fn whatever_comes_after_the_manifest_is_refused() {
    let mut forge = Forge::new();
    forge.ending.splice(0..0, file("files/late", b"x").0.bytes);
    forge.assert_refused_by_both("files/late comes after the manifest, which has to be the last entry");
    let mut forge = Forge::new();
    forge.ending.extend(file("files/later", b"x").0.bytes);
    forge.assert_refused_by_both("there is data after the end of the archive");
    let mut forge = Forge::new();
    forge.ending.clear();
    forge.assert_refused_by_both("the archive ends too early: it was cut short");
    for garbage in [&b"garbage"[..], b"\x1f\x8b", &[0; 20]] {
        let mut forge = Forge::new();
        forge.after_gzip = garbage.to_vec();
        forge.assert_refused_by_both("the archive is damaged or cut short: ");
    }
}

#[test]
fn a_huge_header_is_refused_and_not_read() {
    let mut forge = Forge::new();
    forge.add(with_pax(file("files/x", b"x"), "comment", &vec![b'x'; 5 << 20]));
    forge.assert_refused_by_both("more than any needs");
    let mut forge = Forge::new();
    forge.add(with_pax(file("files/x", b"x"), "size", b"1000000"));
    forge.assert_refused_by_both("files/x gives two different sizes");
}

#[test]
fn a_setuid_bit_is_kept_for_root_and_then_named_in_the_report() {
    let mut forge = Forge::new();
    forge.add(member_of_mode(tar::EntryType::Regular, "files/helper", b"#!", "", 0o4755));
    forge.store();
    let root = rustix::process::geteuid().is_root();
    let json = forge.world.run(&["--json", "restore", "--target", "place/json"]).expect(0).json();
    assert_eq!(json["setuid"], if root { json!(["files/helper"]) } else { json!([]) });
    let people = forge.world.run(&["restore", "--target", "place/target"]).expect(0);
    assert_eq!(people.stderr.contains("files/helper"), root, "{}", people.stderr);
    let mode = fs::metadata(forge.world.path("place/target/helper")).unwrap().mode() & 0o7777;
    assert_eq!(mode, if root { 0o4755 } else { 0o755 });
}
