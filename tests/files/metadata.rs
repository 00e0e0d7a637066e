//! Modes, owners, times, attributes, links, holes and odd names come back.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use super::support::World;
use super::{fs, is_root, tree};

fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A world whose tier 1 is all of `sys/`.
fn world() -> World {
    let world = World::empty();
    world.config("[tier1.all]\npaths = [\"sys\"]\n");
    world
}

/// Backs up, restores, and compares everything.
#[track_caller]
fn comes_back(world: &World) {
    let before = tree::facts(&world.path("sys"));
    assert_eq!(world.backup()["state"], "complete");
    tree::assert_same(&before, &tree::facts(&world.restore()));
    world.run(&["verify"]).expect(0);
}

#[test]
fn modes_with_setuid_sticky_and_none_at_all() {
    let world = world();
    for mode in [0o644, 0o600, 0o755, 0o777, 0o400, 0o1644] {
        let name = format!("sys/f{mode:o}");
        world.write(&name, b"x");
        set_mode(&world.path(&name), mode);
        let name = format!("sys/d{mode:o}");
        fs::create_dir(world.path(&name)).unwrap();
        set_mode(&world.path(&name), mode | 0o500);
    }
    if is_root() {
        for mode in [0, 0o4755, 0o2755, 0o6711] {
            let name = format!("sys/d{mode:o}/f{mode:o}");
            world.write(&name, b"x");
            set_mode(&world.path(&name), mode);
            set_mode(world.path(&name).parent().unwrap(), mode);
        }
    } else {
        eprintln!("not tested: setuid and mode 0000 need root");
    }
    comes_back(&world);
    if is_root() {
        // What runs as somebody else is said.
        let again = world.run(&["restore", "--target", "again"]).expect(0);
        assert_eq!(again.stderr.matches("has a setuid or setgid bit: files/").count(), 3, "{}", again.stderr);
    }
}

#[test]
fn numeric_owners_come_back() {
    if !is_root() {
        return eprintln!("not tested: giving files away needs root");
    }
    let world = world();
    for (name, uid, gid) in [("odd", 54321, 54322), ("huge", 4_000_000_000, 3_999_999_999), ("root", 0, 0)] {
        world.write(&format!("sys/{name}/f"), b"x");
        symlink("f", world.path(&format!("sys/{name}/l"))).unwrap();
        for path in [format!("sys/{name}"), format!("sys/{name}/f"), format!("sys/{name}/l")] {
            lchown(world.path(&path), Some(uid), Some(gid)).unwrap();
        }
    }
    comes_back(&world);
}

#[test]
fn an_owner_with_a_name_comes_back_by_name() {
    if !is_root() {
        return eprintln!("not tested: giving files away needs root");
    }
    let world = world();
    world.write("sys/f", b"x");
    // `daemon` is 1:1 on every Linux.
    chown(world.path("sys/f"), Some(1), Some(1)).unwrap();
    world.backup();
    // A machine where the same names have other numbers.
    world.write("etc/passwd", b"root:x:0:0::/:/bin/sh\ndaemon:x:777:778::/:/bin/sh\n");
    world.write("etc/group", b"root:x:0:\ndaemon:x:778:\n");
    let script = "mount --bind etc/passwd /etc/passwd; mount --bind etc/group /etc/group; $offsite restore --target back";
    let Some(ran) = world.with_mounts(script) else { return };
    ran.expect(0);
    let restored = fs::metadata(world.restored("back", "sys/f")).unwrap();
    assert_eq!((restored.uid(), restored.gid()), (777, 778));
}

#[test]
fn times_to_the_nanosecond_before_1970_and_of_folders() {
    let world = world();
    for (name, seconds, nanos) in [
        ("now", 1_800_000_000, 123_456_789),
        ("one", 1, 1),
        ("epoch", 0, 0),
        ("before", -1, 999_999_999),
        ("long-before", -1_000_000_000, 1),
        ("far", 7_000_000_000, 5),
    ] {
        world.write(&format!("sys/{name}/f"), b"x");
        symlink("f", world.path(&format!("sys/{name}/l"))).unwrap();
        for path in [format!("sys/{name}/f"), format!("sys/{name}/l"), format!("sys/{name}")] {
            set_mtime(&world.path(&path), seconds, nanos);
        }
    }
    set_mtime(&world.path("sys"), 99, 99);
    comes_back(&world);
}

#[test]
fn extended_attributes_and_acls() {
    let world = world();
    world.write("sys/d/f", b"x");
    if xattr::set(world.path("sys/d/f"), "user.note", b"a\0b\nc=\xff").is_err() {
        return eprintln!("not tested: no extended attributes on this file system");
    }
    xattr::set(world.path("sys/d"), "user.big", &[7; 2000]).unwrap();
    xattr::set(world.path("sys/d/f"), "user.empty", b"").unwrap();
    let acl = Command::new("setfacl")
        .args(["-m", "u:54321:rw,g:54322:r,d:u:54321:rwx"])
        .arg(world.path("sys/d"))
        .status()
        .unwrap();
    let file = Command::new("setfacl").args(["-m", "u:54321:r"]).arg(world.path("sys/d/f")).status().unwrap();
    assert!(acl.success() && file.success());
    if is_root() {
        // A file capability, as `ping` has it.
        let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        xattr::set(world.path("sys/d/f"), "security.capability", capability).unwrap();
    }
    assert!(xattr::list(world.path("sys/d")).unwrap().count() >= 3, "the ACLs are attributes");
    comes_back(&world);
}

#[test]
fn hard_links_stay_one_file() {
    let world = world();
    world.write("sys/a/first", &vec![7; 300_000]);
    world.write("sys/empty", b"");
    fs::create_dir_all(world.path("sys/z")).unwrap();
    for name in ["sys/a/second", "sys/z/third"] {
        fs::hard_link(world.path("sys/a/first"), world.path(name)).unwrap();
    }
    fs::hard_link(world.path("sys/empty"), world.path("sys/z/empty")).unwrap();
    // Its other name is not in the snapshot.
    world.write("outside", b"x");
    fs::hard_link(world.path("outside"), world.path("sys/lonely")).unwrap();
    let report = world.backup();
    assert_eq!(report["groups"][0]["bytes"], 300_001, "the contents are there once");
    comes_back(&world);
}

#[test]
fn a_hole_of_a_gigabyte_is_cheap_in_both_directions() {
    let world = world();
    // (name, size, where six bytes are)
    let files = [
        ("middle", 1 << 30, Some(512 << 20)),
        ("end", 32 << 20, Some((32 << 20) - 6)),
        ("all", 32 << 20, None),
    ];
    for (name, size, at) in files {
        let file = fs::File::create(world.path("sys").join(name)).unwrap();
        file.set_len(size).unwrap();
        if let Some(at) = at {
            file.write_all_at(b"middle", at).unwrap();
        }
    }
    if fs::metadata(world.path("sys/all")).unwrap().blocks() > 0 {
        return eprintln!("not tested: no holes on this file system");
    }
    let report = world.backup();
    assert!(report["size_bytes"].as_u64().unwrap() < 1 << 20, "{report}");
    let back = world.restore();
    for (name, size, at) in files {
        let meta = fs::metadata(back.join(name)).unwrap();
        assert_eq!(meta.len(), size);
        assert!(meta.blocks() * 512 < 1 << 20, "{name} takes {} blocks", meta.blocks());
        if let Some(at) = at {
            let mut found = [0; 6];
            fs::File::open(back.join(name)).unwrap().read_exact_at(&mut found, at).unwrap();
            assert_eq!(&found, b"middle");
        }
    }
}

#[test]
fn names_of_any_bytes_length_and_depth() {
    let world = world();
    let sys = world.path("sys");
    for name in [
        &b"new\nline"[..],
        b"back\\slash",
        b"tab\tcr\resc\x1b",
        b" leading and trailing ",
        b"-rf",
        b"*?[x]{y}",
        b"quote'\"",
        b"latin-\xe9",
        b"\xff\xfe",
        "größe-日本".as_bytes(),
        &[b'n'; 255],
        b"...",
        b"CON:",
    ] {
        let path = sys.join(OsStr::from_bytes(name));
        fs::create_dir(&path).unwrap();
        fs::write(path.join(OsStr::from_bytes(name)), name).unwrap();
        symlink(OsStr::from_bytes(name), path.join("link")).unwrap();
        fs::hard_link(path.join(OsStr::from_bytes(name)), path.join("hard")).unwrap();
    }
    let deep = (0..12).fold(sys, |path, _| path.join("d".repeat(120)));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f"), b"deep").unwrap();
    symlink(deep.join("f"), deep.join("a-long-link")).unwrap();
    assert!(deep.as_os_str().len() > 1000);
    comes_back(&world);
}

#[test]
fn empty_folders_empty_files_and_dangling_links() {
    let world = world();
    fs::create_dir_all(world.path("sys/empty/inside")).unwrap();
    world.write("sys/zero", b"");
    symlink("nowhere", world.path("sys/dangling")).unwrap();
    symlink("/etc/passwd", world.path("sys/absolute")).unwrap();
    symlink("loop", world.path("sys/loop")).unwrap();
    comes_back(&world);
}
