//! Pax extended header records: `<length> <keyword>=<value>\n`, where the length
//! counts the whole record (POSIX.1-2017, `pax`, "pax Extended Header").

use crate::error::{Error, Result};

/// More than this is no header: paths end at 4 KiB, an attribute at 64 KiB.
pub(super) const HEADER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A sparse map has no more segments than this.
const SEGMENTS_MAX: usize = 1 << 20;

/// One record.
pub(super) type Record = (String, Vec<u8>);

/// Takes a header apart. Values are bytes and may hold anything.
pub(super) fn parse(mut rest: &[u8]) -> Result<Vec<Record>> {
    let damaged = || Error::integrity("the archive is damaged: a pax header cannot be read");
    let mut records = Vec::new();
    while !rest.is_empty() {
        let space = rest.iter().position(|b| *b == b' ').ok_or_else(damaged)?;
        let length: usize = std::str::from_utf8(&rest[..space])
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(damaged)?;
        let record = rest.get(space + 1..length).ok_or_else(damaged)?;
        let record = record.strip_suffix(b"\n").ok_or_else(damaged)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(damaged)?;
        let keyword = String::from_utf8_lossy(&record[..equals]).into_owned();
        records.push((keyword, record[equals + 1..].to_vec()));
        rest = &rest[length..];
    }
    Ok(records)
}

/// The map of a sparse file of `size` bytes in GNU's pax format 1.0, as it
/// stands in front of the data: counts and numbers, one a line, padded to 512
/// bytes (<https://www.gnu.org/software/tar/manual/html_section/Sparse-Formats.html>).
/// A hole at the end needs an empty segment behind it, or GNU tar leaves it out.
pub(super) fn sparse_map(segments: &[(u64, u64)], size: u64) -> Vec<u8> {
    let end = segments.last().map_or(0, |(offset, len)| offset.saturating_add(*len));
    let tail = (end < size).then_some((size, 0));
    let mut map = format!("{}\n", segments.len() + usize::from(tail.is_some()));
    for (offset, len) in segments.iter().chain(&tail) {
        map.push_str(&format!("{offset}\n{len}\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(512), 0);
    map
}

/// Reads [`sparse_map`] back and checks it against the file's real size.
pub(super) fn read_sparse_map(source: &mut dyn std::io::Read, size: u64) -> Result<Vec<(u64, u64)>> {
    let damaged = || Error::integrity("the archive is damaged: a sparse file's map cannot be read");
    let mut block = [0; 512];
    let mut at = block.len();
    let mut number = |source: &mut dyn std::io::Read| -> Result<u64> {
        let mut value: u64 = 0;
        for digits in 0.. {
            if at == block.len() {
                source.read_exact(&mut block).map_err(|e| match e.kind() {
                    std::io::ErrorKind::UnexpectedEof => damaged(),
                    _ => Error::from_io("cannot read the archive", e),
                })?;
                at = 0;
            }
            let byte = block[at];
            at += 1;
            match byte {
                b'\n' if digits > 0 => return Ok(value),
                b'0'..=b'9' => {
                    value = value
                        .checked_mul(10)
                        .and_then(|v| v.checked_add(u64::from(byte - b'0')))
                        .ok_or_else(damaged)?;
                }
                _ => break,
            }
        }
        Err(damaged())
    };
    let count = usize::try_from(number(source)?).ok().filter(|n| *n <= SEGMENTS_MAX).ok_or_else(damaged)?;
    let mut segments = Vec::new();
    let mut end = 0;
    for _ in 0..count {
        let (offset, len) = (number(source)?, number(source)?);
        if offset < end {
            return Err(damaged());
        }
        end = offset.checked_add(len).filter(|e| *e <= size).ok_or_else(damaged)?;
        segments.push((offset, len));
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_newlines_equal_signs_and_bytes() {
        let header = b"13 path=a\n=b\n14 SCHILY.x=\xff\n";
        assert_eq!(
            parse(header).unwrap(),
            [("path".to_owned(), b"a\n=b".to_vec()), ("SCHILY.x".to_owned(), b"\xff".to_vec())]
        );
        for bad in [&b"x"[..], b"4 a=\n", b"99 path=a\n", b"7 path\n", b"2 \n", b"0 a=b\n"] {
            assert_eq!(parse(bad).unwrap_err().kind().exit_code(), 5, "{bad:?}");
        }
    }

    #[test]
    fn sparse_maps_come_back_and_lies_are_refused() {
        for segments in [vec![], vec![(0, 5), (1 << 40, 77)], (0..200).map(|i| (i * 1000, 10)).collect()] {
            let map = sparse_map(&segments, 1 << 41);
            assert_eq!(map.len() % 512, 0);
            let read = read_sparse_map(&mut map.as_slice(), 1 << 41).unwrap();
            assert_eq!(read, [segments, vec![(1 << 41, 0)]].concat());
        }
        for bad in [vec![(5, 5), (0, 1)], vec![(0, 200)], vec![(u64::MAX, 2)]] {
            assert!(read_sparse_map(&mut sparse_map(&bad, 100).as_slice(), 100).is_err());
        }
    }
}
