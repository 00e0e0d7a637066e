use super::*;

fn manifest() -> Manifest {
    Manifest {
        format: FORMAT,
        snapshot: "s/2026/11/20261121T061703Z-0a1b2c3d.tar.gz.fernet".into(),
        id: "0a1b2c3d".into(),
        system: "s".into(),
        host: "h".into(),
        degraded: false,
        started_at: "2026-11-21T06:17:03Z".parse().unwrap(),
        packed_at: "2026-11-21T06:17:05Z".parse().unwrap(),
        tool: "offsite 0.1.0".into(),
        key_id: "4405f0eb".into(),
        nonce: "00".repeat(16),
        problems: vec![],
        skipped: vec![],
        groups: vec![Group { name: "a".into(), entries: 2, bytes: 5 }],
        postgres: vec![],
        needs: Needs::default(),
        regenerable: vec![],
    }
}

fn entry(path: &[u8]) -> Entry {
    Entry {
        path: EntryPath::new(path),
        kind: EntryType::File,
        size: 5,
        sha256: Some("ab".repeat(32)),
        mode: "0644".into(),
        uid: 0,
        gid: 0,
        user: Some("root".into()),
        group: None,
        mtime: "1790000000.000000001".into(),
        link: None,
        tier1: Some("a".into()),
        changed: false,
    }
}

fn written(manifest: &Manifest, entries: &[Entry]) -> Vec<u8> {
    let lines: String = entries.iter().map(|e| serde_json::to_string(e).unwrap() + "\n").collect();
    let mut out = Vec::new();
    manifest.write(&mut lines.as_bytes(), &mut out).unwrap();
    out
}

#[test]
fn head_and_entries_come_back_with_names_that_are_not_text() {
    let entries = [entry(b"files/a"), entry(b"files/odd\xff\n\"name"), entry("files/ü".as_bytes())];
    for some in [&entries[..], &entries[..1], &[]] {
        let bytes = written(&manifest(), some);
        let mut seen = Vec::new();
        let read = Manifest::read(bytes.as_slice(), &mut |e| {
            seen.push(e);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, some);
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(manifest()).unwrap());
        // And any JSON reader takes it.
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["entries"].as_array().unwrap().len(), some.len());
    }
}

#[test]
fn a_caller_s_error_comes_out_as_it_is() {
    let bytes = written(&manifest(), &[entry(b"a"), entry(b"b")]);
    let error = Manifest::read(bytes.as_slice(), &mut |_| Err(Error::integrity("differs"))).unwrap_err();
    assert_eq!(error.message(), "differs");
}

#[test]
fn damage_is_an_integrity_error_and_a_later_format_is_not() {
    let bytes = written(&manifest(), &[entry(b"a")]);
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 3] {
        let error = Manifest::read(&bytes[..cut], &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.kind().exit_code(), 5, "cut at {cut}: {error}");
    }
    let more = [bytes.as_slice(), b"{}"].concat();
    assert_eq!(Manifest::read(more.as_slice(), &mut |_| Ok(())).unwrap_err().kind().exit_code(), 5);
    let later = Manifest { format: 2, ..manifest() };
    let error = Manifest::read(written(&later, &[]).as_slice(), &mut |_| Ok(())).unwrap_err();
    assert!(error.message().contains("format 2") && error.kind().exit_code() == 1);
    let unknown =
        String::from_utf8(written(&later, &[entry(b"a")])).unwrap().replace("\"file\"", "\"new kind\"");
    let error = Manifest::read(unknown.as_bytes(), &mut |_| Ok(())).unwrap_err();
    assert!(error.message().contains("format 2"), "{error}");
}

#[test]
fn a_key_that_occurs_twice_is_refused() {
    let text = String::from_utf8(written(&manifest(), &[entry(b"a")])).unwrap();
    for (key, again) in [("\n}", ",\n\"entries\": []}"), ("\"id\"", "\"id\": \"0a1b2c3d\", \"id\"")] {
        assert!(text.contains(key));
        let error = Manifest::read(text.replacen(key, again, 1).as_bytes(), &mut |_| Ok(())).unwrap_err();
        assert!(error.message().contains("twice"), "{error}");
    }
}
