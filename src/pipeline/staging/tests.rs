use super::*;

fn staging() -> (tempfile::TempDir, Staging) {
    let dir = tempfile::tempdir().unwrap();
    let staging = Staging::beside(&dir.path().join("target"), &Workers::start().unwrap()).unwrap();
    (dir, staging)
}

fn metadata() -> FileMetadata {
    FileMetadata {
        mode: 0o755,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        ..FileMetadata::default()
    }
}

#[test]
fn paths_that_would_leave_are_integrity_errors() {
    for path in [&b"/etc/passwd"[..], b"..", b"a/../../b", b"a/..", b"a\0b", b"./a", b"a//b", b"a/"] {
        let (dir, mut staging) = staging();
        let error = staging.file(path, &metadata(), &mut &b"x"[..], 1, false).unwrap_err();
        assert_eq!(error.kind().exit_code(), 5, "{path:?}");
        assert!(error.message().contains("leave the target"), "{error}");
        drop(staging);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn nothing_is_written_through_a_symlink_or_linked_from_outside() {
    let (dir, mut staging) = staging();
    fs::write(dir.path().join("outside"), "secret").unwrap();
    let meta = metadata();
    staging.symlink(b"link", &meta, b"../..").unwrap();
    staging.symlink(b"file", &meta, b"../../outside").unwrap();
    for error in [
        staging.file(b"link/x", &meta, &mut &b"x"[..], 1, false).unwrap_err(),
        staging.file(b"link/deep/x", &meta, &mut &b"x"[..], 1, false).unwrap_err(),
        staging.file(b"file", &meta, &mut &b"x"[..], 1, false).unwrap_err(),
        staging.folder(b"link", &meta, true).unwrap_err(),
        staging.hard_link(b"stolen", b"file").unwrap_err(),
        staging.hard_link(b"stolen", b"../../outside").unwrap_err(),
        staging.hard_link(b"stolen", b"link/outside").unwrap_err(),
    ] {
        assert_eq!(error.kind().exit_code(), 5, "{error}");
    }
    assert_eq!(fs::read(dir.path().join("outside")).unwrap(), b"secret");
}

#[test]
fn the_same_path_twice_is_refused() {
    let (_dir, mut staging) = staging();
    let meta = metadata();
    staging.folder(b"d", &meta, true).unwrap();
    staging.file(b"d/f", &meta, &mut &b"1"[..], 1, false).unwrap();
    for error in [
        staging.file(b"d/f", &meta, &mut &b"2"[..], 1, false).unwrap_err(),
        staging.folder(b"d", &meta, true).unwrap_err(),
        staging.file(b"d", &meta, &mut &b"2"[..], 1, false).unwrap_err(),
    ] {
        assert!(error.message().contains("twice"), "{error}");
    }
}

#[test]
fn folders_get_their_modes_after_their_contents() {
    let (_dir, mut staging) = staging();
    let closed = FileMetadata { mode: 0o500, ..metadata() };
    staging.folder(b"d", &closed, true).unwrap();
    staging.file(b"d/f", &metadata(), &mut &b"1"[..], 1, false).unwrap();
    staging.folder(b"not-made", &closed, false).unwrap();
    assert!(staging.finish().unwrap().is_empty());
    assert_eq!(fs::metadata(staging.root().join("d")).unwrap().mode() & 0o777, 0o500);
    assert!(!staging.root().join("not-made").exists());
}

#[test]
fn holes_stay_holes() {
    let (_dir, mut staging) = staging();
    let mut contents = vec![0; 3 << 20];
    contents[1 << 20] = 7;
    staging.file(b"s", &metadata(), &mut contents.as_slice(), 3 << 20, true).unwrap();
    let path = staging.root().join("s");
    assert!(fs::read(&path).unwrap() == contents);
    assert!(fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20);
}
