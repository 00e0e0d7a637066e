//! What a child wrote to stderr: its beginning and its end, in bounded memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// How much is kept of the beginning, and as much again of the end, in bytes.
const KEPT: usize = 8 * 1024;

/// A bounded record of one child's stderr. Clones are one record.
#[derive(Clone, Default)]
pub(super) struct Stderr {
    record: Arc<Mutex<Record>>,
}

#[derive(Default)]
struct Record {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: bool,
}

impl Stderr {
    pub(super) fn push(&self, bytes: &[u8]) {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, rest) = bytes.split_at(bytes.len().min(KEPT - record.head.len()));
        record.head.extend_from_slice(first);
        record.tail.extend(&rest[rest.len().saturating_sub(KEPT)..]);
        let excess = record.tail.len().saturating_sub(KEPT);
        record.tail.drain(..excess);
        record.left_out |= excess > 0 || rest.len() > KEPT;
    }

    /// Everything that was kept, as lines. Where something was left out, the
    /// lines on both sides that were cut in two are gone as well: half a line
    /// may hold half a password, which nobody would recognise.
    pub(super) fn text(&self) -> String {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut head, mut tail) = (record.head.as_slice(), Vec::from(record.tail.clone()));
        if !record.left_out {
            return String::from_utf8_lossy(&[head, tail.as_slice()].concat()).into_owned();
        }
        head = &head[..memchr::memrchr(b'\n', head).map_or(0, |at| at + 1)];
        tail.drain(..memchr::memchr(b'\n', &tail).map_or(tail.len(), |at| at + 1));
        String::from_utf8_lossy(&[head, b"[...]\n", tail.as_slice()].concat()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_all_of_a_little() {
        let stderr = Stderr::default();
        stderr.push(b"one\ntw");
        stderr.push(b"o\n");
        assert_eq!(stderr.text(), "one\ntwo\n");
    }

    #[test]
    fn keeps_both_ends_of_a_flood_in_whole_lines() {
        let stderr = Stderr::default();
        for line in 0..100_000 {
            stderr.push(format!("line {line}\n").as_bytes());
        }
        let text = stderr.text();
        assert!(text.len() <= 2 * KEPT + 6, "{}", text.len());
        assert!(text.starts_with("line 0\n") && text.ends_with("line 99999\n"));
        let (before, after) = text.split_once("[...]\n").unwrap();
        assert!(before.ends_with('\n') && after.starts_with("line 9"));
    }

    #[test]
    fn one_endless_line_is_bounded_too() {
        let stderr = Stderr::default();
        stderr.push(&[b'x'; 100_000]);
        assert_eq!(stderr.text(), "[...]\n");
    }
}
