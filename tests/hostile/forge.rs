//! Takes a real snapshot apart, and seals it again with something changed.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{KEY, World};

pub const BLOCK: usize = 512;

/// One member with its extension headers, as bytes of the archive.
pub struct Member {
    pub path: String,
    pub bytes: Vec<u8>,
}

/// A real snapshot, taken apart.
pub struct Forge {
    pub world: World,
    pub name: String,
    pub id: String,
    pub members: Vec<Member>,
    pub manifest: Value,
    /// What follows the manifest, instead of the end of an archive.
    pub ending: Vec<u8>,
    /// What follows the gzip stream.
    pub after_gzip: Vec<u8>,
}

impl Forge {
    pub fn new() -> Self {
        let world = World::new();
        fs::create_dir(world.path("place")).unwrap();
        fs::create_dir(world.path("outside")).unwrap();
        fs::set_permissions(world.path("outside"), fs::Permissions::from_mode(0o711)).unwrap();
        world.write("outside/secret", b"secret");
        let report = world.backup();
        let name = report["snapshot"].as_str().unwrap().to_owned();
        let token = fs::read_to_string(world.path("dest").join(&name)).unwrap();
        let gzip = fernet::Fernet::new(KEY).unwrap().decrypt(&token).unwrap();
        let mut tar = Vec::new();
        MultiGzDecoder::new(gzip.as_slice()).read_to_end(&mut tar).unwrap();
        let mut members = split(&tar);
        let manifest = members.pop().unwrap();
        assert_eq!(manifest.path, "manifest.json");
        let text = &manifest.bytes[manifest.bytes.iter().position(|b| *b == b'{').unwrap()..];
        let end = text.iter().rposition(|b| *b == b'}').unwrap();
        let manifest = serde_json::from_slice(&text[..=end]).unwrap();
        let id = report["id"].as_str().unwrap().to_owned();
        let ending = vec![0; 2 * BLOCK];
        Self { world, name, id, members, manifest, ending, after_gzip: vec![] }
    }

    /// Where a tier-1 file is in the archive.
    pub fn inside(&self, relative: &str) -> String {
        format!("files{}", self.world.path("sys").join(relative).display())
    }

    pub fn outside(&self) -> String {
        self.world.path("outside").display().to_string()
    }

    pub fn find(&self, path: &str) -> usize {
        self.members.iter().position(|m| m.path == path).unwrap_or_else(|| panic!("no {path}"))
    }

    pub fn entries(&mut self) -> &mut Vec<Value> {
        self.manifest["entries"].as_array_mut().unwrap()
    }

    pub fn entry(&mut self, path: &str) -> &mut Value {
        self.entries().iter_mut().find(|e| e["path"] == path).unwrap_or_else(|| panic!("no {path}"))
    }

    /// Adds a member and its line in the manifest, after the tier-1 files.
    pub fn add(&mut self, member: (Member, Value)) {
        let at = self.find("RESTORE.md");
        self.members.insert(at, member.0);
        self.entries().insert(at, member.1);
    }

    /// Stores the changed snapshot under the old one's name.
    pub fn store(&mut self) {
        let manifest = self.manifest.to_string();
        let mut tar: Vec<u8> = self.members.iter().flat_map(|m| m.bytes.clone()).collect();
        if manifest != "null" {
            tar.extend(file("manifest.json", manifest.as_bytes()).0.bytes);
        }
        tar.extend(&self.ending);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar).unwrap();
        let gzip = [gzip.finish().unwrap(), self.after_gzip.clone()].concat();
        let token = fernet::Fernet::new(KEY).unwrap().encrypt(&gzip);
        fs::write(self.world.path("dest").join(&self.name), token).unwrap();
    }

    /// Stores it, and sees `restore` refuse it and leave everything alone.
    #[track_caller]
    pub fn assert_refused(&mut self, expected: &str) {
        self.store();
        let target = self.world.path("place/target");
        let ran = self.world.run(&["restore", "--target", target.to_str().unwrap()]);
        assert!(ran.stderr.contains(expected), "`{expected}` is not in\n{}", ran.stderr);
        let ran = ran.expect(5);
        assert!(ran.stderr.contains("\nhint: "), "no hint: {}", ran.stderr);
        assert_eq!(fs::read_dir(self.world.path("place")).unwrap().count(), 0, "something is left");
        let outside: Vec<_> = fs::read_dir(self.world.path("outside")).unwrap().flatten().collect();
        assert!(outside.len() == 1 && fs::read(outside[0].path()).unwrap() == b"secret");
        assert_eq!(fs::metadata(outside[0].path()).unwrap().nlink(), 1);
        assert_eq!(fs::metadata(self.world.path("outside")).unwrap().mode() & 0o7777, 0o711);
        self.world.assert_no_leftovers();
    }

    /// And sees `verify` refuse it in the same words.
    #[track_caller]
    pub fn assert_refused_by_both(&mut self, expected: &str) {
        self.assert_refused(expected);
        let ran = self.world.run(&["verify"]).expect(5);
        assert!(ran.stderr.contains(expected), "`{expected}` is not in\n{}", ran.stderr);
    }
}

/// Takes an archive apart; extension headers go with the member that they are for.
pub fn split(tar: &[u8]) -> Vec<Member> {
    let (mut members, mut at, mut start) = (Vec::new(), 0, 0);
    while tar[at..at + BLOCK].iter().any(|b| *b != 0) {
        let header = tar::Header::from_byte_slice(&tar[at..at + BLOCK]);
        let size = usize::try_from(header.entry_size().unwrap()).unwrap();
        let kind = header.entry_type();
        at += BLOCK + size.next_multiple_of(BLOCK);
        if kind != tar::EntryType::XHeader {
            let path = String::from_utf8(header.path_bytes().into_owned()).unwrap();
            members.push(Member { path: path.trim_end_matches('/').into(), bytes: tar[start..at].to_vec() });
            start = at;
        }
    }
    members
}

/// A member and its line in a manifest, both right.
pub fn member(kind: tar::EntryType, path: &str, contents: &[u8], link: &str) -> (Member, Value) {
    member_of_mode(kind, path, contents, link, 0o644)
}

pub fn member_of_mode(
    kind: tar::EntryType,
    path: &str,
    contents: &[u8],
    link: &str,
    mode: u32,
) -> (Member, Value) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(contents.len() as u64);
    header.set_mode(mode);
    header.set_mtime(1_700_000_000);
    header.set_uid(rustix::process::getuid().as_raw().into());
    header.set_gid(rustix::process::getgid().as_raw().into());
    // Not by `set_path`, which refuses what is wanted here.
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(contents);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    let kind = match kind {
        tar::EntryType::Directory => "directory",
        tar::EntryType::Symlink => "symlink",
        tar::EntryType::Link => "hardlink",
        _ => "file",
    };
    let mut entry = json!({
        "path": path.trim_end_matches('/'), "type": kind, "size": contents.len(), "mode": format!("{mode:04o}"),
        "uid": rustix::process::getuid().as_raw(), "gid": rustix::process::getgid().as_raw(),
        "mtime": "1700000000.000000000",
    });
    if kind == "file" {
        entry["sha256"] = hex::encode(Sha256::digest(contents)).into();
    }
    if !link.is_empty() {
        entry["link"] = json!({ "path": link });
    }
    (Member { path: path.into(), bytes }, entry)
}

pub fn file(path: &str, contents: &[u8]) -> (Member, Value) {
    member(tar::EntryType::Regular, path, contents, "")
}

/// Puts a pax header in front of a member.
pub fn with_pax(mut member: (Member, Value), keyword: &str, value: &[u8]) -> (Member, Value) {
    let mut record = [b" ", keyword.as_bytes(), b"=", value, b"\n"].concat();
    let mut len = record.len();
    while len != record.len() + len.to_string().len() {
        len = record.len() + len.to_string().len();
    }
    record.splice(0..0, len.to_string().into_bytes());
    let header = self::member(tar::EntryType::XHeader, "pax", &record, "").0.bytes;
    member.0.bytes.splice(0..0, header);
    member
}

/// The same with other words for a field of its line in the manifest.
pub fn listed_as(mut member: (Member, Value), key: &str, value: Value) -> (Member, Value) {
    member.1[key] = value;
    member
}
