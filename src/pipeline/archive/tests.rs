use std::io::Read;

use super::*;
use crate::gzip::Level;
use crate::repository::manifest::{EntryType, FORMAT, Manifest, Needs};
use crate::sources::file::{Content, open};
use crate::sources::metadata::{FileMetadata, Mtime};
use crate::workers::Workers;

fn workers() -> Workers {
    Workers::start().unwrap()
}

fn manifest() -> Manifest {
    Manifest {
        format: FORMAT,
        snapshot: String::new(),
        id: String::new(),
        system: String::new(),
        host: String::new(),
        degraded: false,
        started_at: chrono::Utc::now(),
        packed_at: chrono::Utc::now(),
        tool: String::new(),
        key_id: String::new(),
        nonce: String::new(),
        problems: vec![],
        skipped: vec![],
        groups: vec![],
        postgres: vec![],
        needs: Needs::default(),
        regenerable: vec![],
    }
}

fn metadata() -> FileMetadata {
    FileMetadata {
        mode: 0o6755,
        uid: 3_000_000,
        gid: 7,
        user: Some("a-name-that-is-longer-than-thirty-two-bytes".into()),
        group: Some("g".into()),
        mtime: Mtime { seconds: -7, nanos: 5 },
        xattrs: vec![(b"user.note".to_vec(), b"line\n=\xff".to_vec())],
    }
}

type Seen = (Vec<u8>, EntryType, FileMetadata, Option<Vec<u8>>, u64, Vec<u8>);

fn unpack(gzip: &[u8]) -> (Vec<Seen>, Ending) {
    let mut seen = Vec::new();
    let (ending, _) = read(crate::gzip::GzipReader::new(gzip, &workers()), &mut |m| {
        let mut bytes = Vec::new();
        m.contents.read_to_end(&mut bytes).unwrap();
        seen.push((m.path.clone(), m.kind, m.metadata.clone(), m.link.clone(), m.size, bytes));
        Ok(())
    })
    .unwrap();
    (seen, ending)
}

#[test]
fn every_kind_of_member_comes_back_with_all_that_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = dir.path();
    let sparse = scratch.join("sparse");
    let file = std::fs::File::create(&sparse).unwrap();
    file.set_len(5 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"data", 3 << 20).unwrap();

    let meta = metadata();
    let long = format!("files/{}/ünd\n\\so", "d".repeat(200)).into_bytes();
    let odd = b"files/\xff\xfe".to_vec();
    let about = |path| About { path, metadata: &meta, tier1: Some("g") };
    let mut writer = ArchiveWriter::new(Vec::new(), Level::Default, &workers(), scratch).unwrap();
    writer.directory(&about(b"files/dir")).unwrap();
    writer.symlink(&about(b"files/link"), &[b'x'; 150]).unwrap();
    let mut content = Content::steady(open(&sparse).unwrap(), &sparse, scratch).unwrap();
    writer.file(&about(&long), &mut content, Some((1, 2))).unwrap();
    assert!(writer.hard_link(&about(&odd), (1, 2)).unwrap());
    assert!(!writer.hard_link(&about(&odd), (1, 3)).unwrap());
    writer.text(&about(b"files/empty"), b"").unwrap();
    let mut member = crate::gzip::GzipWriter::new(Vec::new(), Level::Default, &workers());
    std::io::Write::write_all(&mut member, b"SELECT 1;").unwrap();
    let member = member.finish().unwrap();
    let sha = ring::digest::digest(&ring::digest::SHA256, b"SELECT 1;");
    writer.compressed_file(&about(b"postgres/main.sql"), &mut member.as_slice(), 9, &sha).unwrap();
    let gzip = writer.finish(&meta, &manifest(), scratch).unwrap();

    let (seen, ending) = unpack(&gzip);
    assert_eq!(ending, Ending::Proper);
    let names: Vec<_> = seen.iter().map(|s| s.0.clone()).collect();
    let expected: [&[u8]; 8] = [
        b"files/dir",
        b"files/link",
        &long,
        &odd,
        b"files/empty",
        b"postgres/main.sql",
        b"SHA256SUMS",
        b"manifest.json",
    ];
    assert_eq!(names, expected);
    assert!(seen.iter().all(|s| s.2 == meta));
    assert_eq!(seen[1].3.as_deref(), Some(&[b'x'; 150][..]));
    assert_eq!((seen[2].4, &seen[2].5[3 << 20..(3 << 20) + 4]), (5 << 20, &b"data"[..]));
    assert_eq!(seen[3].3.as_deref(), Some(long.as_slice()));
    assert_eq!(seen[5].5, b"SELECT 1;");
    let sums = String::from_utf8_lossy(&seen[6].5).into_owned();
    assert!(sums.lines().any(|l| l.starts_with('\\') && l.contains("\\n\\\\so")), "{sums}");
    let value: serde_json::Value = serde_json::from_slice(&seen[7].5).unwrap();
    assert_eq!(value["entries"].as_array().unwrap().len(), 7);
    assert!(gzip.len() < 20_000, "a hole of 5 MB cost {} bytes", gzip.len());
}

#[test]
fn a_cut_or_lengthened_archive_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let meta = metadata();
    let mut writer = ArchiveWriter::new(Vec::new(), Level::Default, &workers(), dir.path()).unwrap();
    writer.text(&About { path: b"files/a", metadata: &meta, tier1: None }, b"x").unwrap();
    let gzip = writer.finish(&meta, &manifest(), dir.path()).unwrap();
    let mut tar = Vec::new();
    flate2::read::MultiGzDecoder::new(gzip.as_slice()).read_to_end(&mut tar).unwrap();
    let outcome = |bytes: &[u8]| read(bytes, &mut |_| Ok(())).map(|(ending, _)| ending);
    assert_eq!(outcome(&tar).unwrap(), Ending::Proper);
    assert_eq!(outcome(&tar[..tar.len() - 1024]).unwrap(), Ending::CutShort);
    assert_eq!(outcome(&[&tar[..], &[0; 9000]].concat()).unwrap(), Ending::Proper);
    for bad in [[&tar[..], b"x"].concat(), tar[..700].to_vec(), [&tar[..100], &[b'z'; 1000]].concat()] {
        assert_eq!(outcome(&bad).unwrap_err().kind().exit_code(), 5);
    }
}

#[test]
fn devices_and_two_sizes_are_refused() {
    let mut header = tar::Header::new_ustar();
    header.set_path("files/dev").unwrap();
    header.set_entry_type(tar::EntryType::Char);
    header.set_size(0);
    header.set_cksum();
    let error = read(&[header.as_bytes().as_slice(), &[0; 1024]].concat()[..], &mut |_| Ok(())).unwrap_err();
    assert!(error.message().contains("type '3'"), "{error}");
    assert_eq!(error.kind().exit_code(), 5);
}
