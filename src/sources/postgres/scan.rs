//! Reads along while a dump goes by: which roles and databases are in it, and
//! whether it reached its end. Memory stays flat however large the dump is.

use std::collections::BTreeSet;

use super::globals::{Globals, Piece, created_role, identifier};

/// What `pg_dumpall` writes last, when it has written everything.
const END_MARKER: &[u8] = b"-- PostgreSQL database cluster dump complete";
/// How much of a line is looked at, in bytes. A database's name has at most 63,
/// each of which may be doubled twice.
const LINE_MAX: usize = 1024;

/// What went by.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) databases: Names,
    pub(super) roles: Names,
    /// Whether the dump has `\restrict` lines, which only a newer `psql` reads.
    pub(super) restricts: bool,
    /// Whether nothing but blank lines followed the end marker.
    pub(super) complete: bool,
}

/// Names as they stand in the dump.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<Vec<u8>>);

impl Names {
    /// Whether `name` went by. A cluster that is not in UTF-8 writes names in
    /// its own encoding, which the inventory has converted; of those, only
    /// what is ASCII in both is compared.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains(name.as_bytes())
            || self
                .0
                .iter()
                .any(|seen| std::str::from_utf8(seen).is_err() && folded(seen) == folded(name.as_bytes()))
    }
}

/// `name` with every run of other characters than ASCII as one mark.
fn folded(name: &[u8]) -> Vec<u8> {
    let mut folded: Vec<u8> = name.iter().map(|byte| if byte.is_ascii() { *byte } else { 0xFF }).collect();
    folded.dedup_by(|a, b| *a == 0xFF && *b == 0xFF);
    folded
}

/// Follows one dump.
#[derive(Default)]
pub(super) struct Scan {
    globals: Globals,
    /// The line that the last piece ended in.
    line: Vec<u8>,
    /// Between `\restrict` and its `\unrestrict`, `psql` obeys no other
    /// command, so a `\connect` there is somebody's data.
    restricted_by: Option<Vec<u8>>,
    found: Found,
}

impl Scan {
    /// Looks at the next bytes of the dump, cut anywhere.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        if !self.globals.ended() {
            let (found, restricted_by) = (&mut self.found, &mut self.restricted_by);
            bytes = self.globals.push(bytes, &mut |piece| match piece {
                Piece::Line(line) => look_at(line.trim_ascii_end(), restricted_by, found),
                Piece::Statement(statement) => found.roles.0.extend(created_role(statement)),
                Piece::Part(_) => {}
            });
        }
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            if self.line.is_empty() {
                look_at(&bytes[..end], &mut self.restricted_by, &mut self.found);
            } else {
                self.keep(&bytes[..end]);
                look_at(&self.line, &mut self.restricted_by, &mut self.found);
                self.line.clear();
            }
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// What went by, now that the dump has ended.
    pub(super) fn finish(mut self) -> Found {
        if !self.line.is_empty() {
            look_at(&self.line, &mut self.restricted_by, &mut self.found);
        }
        self.found
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_MAX.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

fn look_at(line: &[u8], restricted_by: &mut Option<Vec<u8>>, found: &mut Found) {
    match line.first() {
        None => return,
        Some(b'-') if line == b"--" => return,
        Some(b'-') if line == END_MARKER => {
            found.complete = true;
            return;
        }
        Some(b'\\') => {}
        Some(_) => {
            found.complete = false;
            return;
        }
    }
    if let Some(key) = line.strip_prefix(b"\\unrestrict ") {
        // No content, so it may follow the end marker.
        if restricted_by.as_deref() == Some(key) {
            *restricted_by = None;
        }
        return;
    }
    found.complete = false;
    if restricted_by.is_some() {
        return;
    }
    if let Some(key) = line.strip_prefix(b"\\restrict ") {
        // Only a dump that begins with one uses them; later it may be data.
        found.restricts |= found.databases.0.is_empty();
        *restricted_by = found.restricts.then(|| key.to_vec());
    } else if let Some(target) = line.strip_prefix(b"\\connect ") {
        found.databases.0.extend(connected(target));
    }
}

/// The database of a `\connect`: a name, or `-reuse-previous=on "dbname='…'"`
/// where the name has other characters than letters, digits, `_` and `.`.
fn connected(target: &[u8]) -> Option<Vec<u8>> {
    let Some(quoted) = target.strip_prefix(b"-reuse-previous=on ") else {
        return identifier(target).map(|(name, _)| name);
    };
    let (conninfo, _) = identifier(quoted)?;
    let value = conninfo.strip_prefix(b"dbname=")?;
    let Some(value) = value.strip_prefix(b"'") else { return Some(value.to_vec()) };
    let mut name = Vec::new();
    let mut bytes = value.iter();
    loop {
        match bytes.next()? {
            b'\'' => return Some(name),
            b'\\' => name.push(*bytes.next()?),
            byte => name.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(dump: &str, step: usize) -> Found {
        let mut scan = Scan::default();
        dump.as_bytes().chunks(step).for_each(|chunk| scan.push(chunk));
        scan.finish()
    }

    fn names(names: &Names) -> Vec<String> {
        names.0.iter().map(|name| String::from_utf8(name.clone()).unwrap()).collect()
    }

    const RESTRICTED: &str = concat!(
        "--\n-- PostgreSQL database cluster dump\n--\n\n\\restrict A\n\nCREATE ROLE app;\n\\unrestrict A\n\n",
        "\\connect template1\n\\restrict B\n\\unrestrict B\n",
        "\\encoding SQL_ASCII\n\\connect -reuse-previous=on \"dbname='a=b\\'c\\\\d \"\"e\"\"'\"\n\\restrict C\n",
        "COMMENT ON TABLE t IS '\n\\connect liar\n\\unrestrict B\n-- PostgreSQL database cluster dump complete\n';\n",
        "\\unrestrict C\n\n\\connect \"MyDb\"\n\\restrict D\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict D\n\n",
    );
    const END: &str = "--\n-- PostgreSQL database cluster dump complete\n--\n\n";

    #[test]
    fn sees_roles_and_databases_wherever_the_stream_is_cut() {
        for step in [1, 2, 5, 64, 100_000] {
            let found = scan(&format!("{RESTRICTED}{END}"), step);
            assert_eq!(names(&found.databases), ["MyDb", "a=b'c\\d \"e\"", "template1"]);
            assert_eq!(names(&found.roles), ["app"]);
            assert!(found.restricts && found.complete);
        }
    }

    #[test]
    fn complete_means_that_the_marker_is_the_last_content() {
        for (end, complete) in [
            (END, true),
            ("-- PostgreSQL database cluster dump complete", true),
            ("-- PostgreSQL database cluster dump complete\n--\n\n\\unrestrict D\n\n", true),
            ("", false),
            ("--\n-- PostgreSQL database cluster dump compl", false),
            ("-- PostgreSQL database dump complete\n--\n", false),
            ("-- PostgreSQL database cluster dump complete\n--\nSELECT 1;\n", false),
            ("-- PostgreSQL database cluster dump complete\n\\connect x\n", false),
            ("-- PostgreSQL database cluster dump complete\n-- Database \"x\" dump\n", false),
        ] {
            assert_eq!(scan(&format!("{RESTRICTED}{end}"), 7).complete, complete, "{end:?}");
        }
    }

    #[test]
    fn a_dump_of_an_older_client_has_no_restriction() {
        let old =
            "CREATE ROLE a;\n\\connect template1\nCOMMENT ON TABLE t IS '\n\\restrict X\n';\n\\connect b\n";
        let found = scan(&format!("{old}{END}"), 9);
        assert_eq!(names(&found.databases), ["b", "template1"]);
        assert!(!found.restricts && found.complete);
    }

    #[test]
    fn a_name_in_another_encoding_is_recognised_by_its_ascii() {
        let mut scan = Scan::default();
        scan.push(b"CREATE ROLE \"m\xfcller\";\n\\connect template1\n");
        let roles = scan.finish().roles;
        assert!(roles.contains("müller") && !roles.contains("muller") && !roles.contains("möllers"));
    }

    #[test]
    fn endless_lines_do_not_fill_memory() {
        let mut scan = Scan::default();
        scan.push(b"\\connect template1\n");
        for _ in 0..1000 {
            scan.push(&[b'x'; 4096]);
        }
        assert!(scan.line.capacity() <= 4 * LINE_MAX);
        scan.push(b"\n\\connect b\n");
        assert!(scan.finish().databases.contains("b"));
    }
}
