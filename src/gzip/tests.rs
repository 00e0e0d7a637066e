use std::io::Read;

use super::*;

fn workers() -> Workers {
    Workers::start().unwrap()
}

fn gzip(bytes: &[u8], level: Level) -> Vec<u8> {
    let mut writer = GzipWriter::new(Vec::new(), level, &workers());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn gunzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut reader = GzipReader::new(bytes, &workers());
    reader.read_to_end(&mut out)?;
    assert!(reader.into_inner().unwrap().is_empty());
    Ok(out)
}

/// What every other gzip makes of it.
fn stock(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

fn text(len: usize) -> Vec<u8> {
    let lines = (0_u64..).flat_map(|n| format!("{n} {}\n", n.wrapping_mul(n) % 977).into_bytes());
    lines.take(len).collect()
}

fn random(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn whatever_is_compressed_inflates_to_the_same_bytes_here_and_elsewhere() {
    let mixed = [text(MEMBER_BYTES / 2), random(3 * MEMBER_BYTES), text(7)].concat();
    let edge = |n: usize| text(n);
    for bytes in [vec![], edge(1), edge(MEMBER_BYTES), edge(MEMBER_BYTES + 1), edge(5 * MEMBER_BYTES), mixed]
    {
        for level in [Level::Default, Level::Fast] {
            let packed = gzip(&bytes, level);
            assert!(stock(&packed) == bytes, "{} bytes", bytes.len());
            assert!(gunzip(&packed).unwrap() == bytes, "{} bytes", bytes.len());
        }
    }
}

#[test]
fn random_bytes_are_stored_and_counters_are_not_mistaken_for_them() {
    let noise = random(4 * MEMBER_BYTES);
    let packed = gzip(&noise, Level::Default);
    assert!(packed.len() > noise.len() && packed.len() < noise.len() + noise.len() / 1000);
    let every_byte: Vec<u8> = (0..4 * MEMBER_BYTES).map(|i| i as u8).collect();
    assert!(entropy(&every_byte) > 7.99);
    let packed = gzip(&every_byte, Level::Default);
    assert!(packed.len() < every_byte.len() / 20, "{}", packed.len());
    let sql = text(4 * MEMBER_BYTES);
    assert!(gzip(&sql, Level::Default).len() < sql.len() / 2);
}

#[test]
fn members_in_the_middle_read_as_one_stream() {
    let members = gzip(b"dump", Level::Default);
    let mut outer = GzipWriter::new(Vec::new(), Level::Default, &workers());
    outer.write_all(b"before ").unwrap();
    assert_eq!(outer.append_members(&mut members.as_slice()).unwrap(), members.len() as u64);
    outer.write_all(b" after").unwrap();
    let bytes = outer.finish().unwrap();
    assert_eq!(stock(&bytes), b"before dump after");
    assert_eq!(gunzip(&bytes).unwrap(), b"before dump after");
}

#[test]
fn members_of_other_writers_are_read_wherever_they_stand() {
    let foreign = |bytes: &[u8], level| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let large = text(3 * MEMBER_BYTES);
    let parts = [
        foreign(b"", 6),
        gzip(&large, Level::Default),
        foreign(&large, 1),
        foreign(b"x", 9),
        gzip(b"y", Level::Fast),
        foreign(&large, 6),
    ];
    let whole = [&large[..], &large[..], &b"xy"[..], &large[..]].concat();
    assert!(gunzip(&parts.concat()).unwrap() == whole);
}

#[test]
fn damage_is_an_error_wherever_it_is() {
    let packed = gzip(&text(2 * MEMBER_BYTES + 100), Level::Default);
    for at in [0, 1, 2, 3, 12, 14, 16, 17, 18, 19, 30, packed.len() / 2, packed.len() - 1, packed.len() - 6] {
        let mut damaged = packed.clone();
        damaged[at] ^= 0x10;
        // Some bits mean nothing to anybody; none may change the contents.
        assert!(gunzip(&damaged).map_or(true, |bytes| bytes == stock(&packed)), "at {at}");
    }
    for at in [0, 1, 2, packed.len() / 2, packed.len() - 1] {
        let mut damaged = packed.clone();
        damaged[at] ^= 0x10;
        assert!(gunzip(&damaged).is_err(), "at {at}");
    }
    for len in [1, 10, 19, 20, 27, 28, 1000, packed.len() - 1] {
        assert!(gunzip(&packed[..len]).is_err(), "cut at {len}");
    }
    assert!(gunzip(b"not gzip at all").is_err());
    // Data behind the last member.
    assert!(gunzip(&[&packed[..], b"more"].concat()).is_err());
}

#[test]
fn a_member_that_lies_about_its_length_or_size_is_an_error() {
    let packed = gzip(b"contents", Level::Default);
    let with = |at: usize, value: u32| {
        let mut forged = packed.clone();
        forged[at..at + 4].copy_from_slice(&value.to_le_bytes());
        forged
    };
    for size in [0, 7, 9, MEMBER_BYTES as u32 + 1, u32::MAX] {
        assert!(gunzip(&with(packed.len() - 4, size)).is_err(), "size {size}");
    }
    for length in [HEADER_BYTES as u32 + 8, packed.len() as u32 - 1, packed.len() as u32 + 1] {
        assert!(gunzip(&with(HEADER.len(), length)).is_err(), "length {length}");
    }
    // A length that no member of ours has: read like anybody else's.
    assert_eq!(gunzip(&with(HEADER.len(), u32::MAX)).unwrap(), b"contents");
}
