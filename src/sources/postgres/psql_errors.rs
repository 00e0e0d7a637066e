//! Which of the things that `psql` says while it loads a dump are errors.
//!
//! `psql` exits with 0 amid errors, and stopping at the first one would stop at
//! `role "postgres" already exists`, which every cluster says to every dump.
//! So it runs on, and its stderr is sorted: by SQLSTATE and source location,
//! because words depend on the server's language.

/// How many errors are quoted.
const QUOTED: usize = 3;
/// How many harmless messages are kept.
const HARMLESS_MAX: usize = 20;
/// How much of a line is looked at, in bytes.
const LINE_MAX: usize = 4096;

/// "An object of this name exists already."
const DUPLICATE_OBJECT: &str = "42710";
/// The verbose line that names the server's function for `CREATE ROLE`.
const IN_CREATE_ROLE: &str = "LOCATION:  CreateRole,";

/// What `psql` said, sorted. Texts are first lines: what follows one may be
/// somebody's data.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// How many errors there were that are not harmless.
    pub(super) errors: u64,
    /// The first of them.
    pub(super) first: Vec<String>,
    /// Errors that do not matter.
    pub(super) harmless: Vec<String>,
    /// Whether `psql` did not even get in.
    pub(super) unreachable: bool,
}

/// Reads `psql`'s stderr, which must be in `VERBOSITY=verbose`, cut anywhere.
#[derive(Default)]
pub(super) struct PsqlErrors {
    line: Vec<u8>,
    entry: Option<Entry>,
    verdict: Verdict,
}

/// One error, until the next one begins: its location comes last.
struct Entry {
    text: String,
    duplicate: bool,
    in_create_role: bool,
}

impl PsqlErrors {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let content = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = LINE_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(&content[..content.len().min(room)]);
            if content.len() < piece.len() {
                self.end_line();
            }
        }
    }

    /// Everything so far, sorted.
    pub(super) fn finish(&mut self) -> Verdict {
        self.end_line();
        self.end_entry();
        std::mem::take(&mut self.verdict)
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        if let Some(said) = line.strip_prefix("psql:") {
            self.end_entry();
            self.entry = self.begin(said);
        } else if let Some(entry) = &mut self.entry {
            entry.in_create_role |= line.starts_with(IN_CREATE_ROLE);
        }
    }

    /// `<stdin>:16: ERROR:  42710: …` from the server, ` error: …` from `psql`.
    fn begin(&mut self, said: &str) -> Option<Entry> {
        let (line, message) = match said.strip_prefix("<stdin>:").and_then(|rest| rest.split_once(": ")) {
            Some((line, message)) => (format!("line {line}: "), message),
            None => (String::new(), said.trim_start()),
        };
        if ["warning: ", "info: ", "hint: ", "detail: "].iter().any(|level| message.starts_with(level)) {
            return None;
        }
        let state = sqlstate(message);
        // Success, warning and no data: what servers call notices.
        if state.is_some_and(|state| ["00", "01", "02"].contains(&&state[..2])) || is_notice(message) {
            return None;
        }
        self.verdict.unreachable |= line.is_empty();
        Some(Entry {
            text: format!("{line}{message}"),
            duplicate: state == Some(DUPLICATE_OBJECT),
            in_create_role: false,
        })
    }

    fn end_entry(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        let harmless = entry.duplicate && entry.in_create_role;
        let list = if harmless { &mut self.verdict.harmless } else { &mut self.verdict.first };
        if list.len() < if harmless { HARMLESS_MAX } else { QUOTED } {
            list.push(entry.text);
        }
        self.verdict.errors += u64::from(!harmless);
    }
}

/// The SQLSTATE of `SEVERITY:  12345: words`.
fn sqlstate(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once(":  ")?;
    let (state, _) = rest.split_once(": ")?;
    let code = state.len() == 5 && state.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
    code.then_some(state)
}

/// A notice may carry an error's SQLSTATE: `NOTICE:  42710: extension … already
/// exists, skipping`. Its severity is in English, because a load asks the
/// server for that; in another language it would count as an error.
fn is_notice(message: &str) -> bool {
    ["NOTICE:  ", "WARNING:  ", "INFO:  ", "LOG:  ", "DEBUG:  "]
        .iter()
        .any(|level| message.starts_with(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(stderr: &str, step: usize) -> Verdict {
        let mut errors = PsqlErrors::default();
        stderr.as_bytes().chunks(step).for_each(|chunk| errors.push(chunk));
        errors.finish()
    }

    #[test]
    fn only_an_existing_role_is_harmless() {
        let at = "LOCATION:  CreateRole, user.c:308\n";
        for (stderr, errors, harmless) in [
            ("", 0, 0),
            (&*format!("psql:<stdin>:16: ERROR:  42710: role \"postgres\" already exists\n{at}"), 0, 1),
            (&format!("psql:<stdin>:16: FEHLER:  42710: Rolle »postgres« existiert bereits\n{at}"), 0, 1),
            (&format!("psql:<stdin>:19: ERROR:  42710: role \"o'dd\nnl\" already exists\n{at}"), 0, 1),
            (
                "psql:<stdin>:9: ERROR:  42710: extension \"x\" already exists\nLOCATION:  CreateExtension, e.c:1\n",
                1,
                0,
            ),
            ("psql:<stdin>:9: ERROR:  42710: role \"x\" already exists\n", 1, 0),
            (
                "psql:<stdin>:9: ERROR:  42P04: database \"x\" already exists\nLOCATION:  createdb, d.c:1\n",
                1,
                0,
            ),
            (&format!("psql:<stdin>:9: ERROR:  42501: must be superuser\n{at}"), 1, 0),
            (
                "psql:<stdin>:9: NOTICE:  42710: extension \"plpgsql\" already exists, skipping\nLOCATION:  x, e.c:1\n",
                0,
                0,
            ),
            ("psql:<stdin>:9: WARNING:  01000: w\nDETAIL:  d\n", 0, 0),
            ("psql:<stdin>:9: HINWEIS:  00000: n\n", 0, 0),
            ("psql:<stdin>:9: error: invalid command \\restrict\n", 1, 0),
            ("psql:<stdin>:9: warning: w\n", 0, 0),
            (
                "psql:<stdin>:9: FATAL:  57P01: terminating connection\n\
              psql:<stdin>:9: server closed the connection unexpectedly\n\tThis probably means\n\
              psql:<stdin>:9: error: connection to server was lost\n",
                3,
                0,
            ),
            ("psql:<stdin>:9: PANIC:  XX000: p\n", 1, 0),
            ("psql:<stdin>:9: ERROR:  22P02: cut", 1, 0),
        ] {
            for step in [1, 3, 10_000] {
                let verdict = sorted(stderr, step);
                assert_eq!(
                    (verdict.errors, verdict.harmless.len()),
                    (errors, harmless),
                    "{stderr}: {verdict:?}"
                );
                assert!(!verdict.unreachable);
            }
        }
    }

    #[test]
    fn not_getting_in_is_told_apart() {
        let verdict = sorted("psql: error: connection to server at \"h\" failed: FATAL:  no\n", 5);
        assert!(verdict.unreachable && verdict.errors == 1, "{verdict:?}");
    }

    #[test]
    fn a_flood_is_counted_and_its_beginning_quoted() {
        let mut errors = PsqlErrors::default();
        for line in 1..=50_000 {
            errors.push(
                format!("psql:<stdin>:{line}: ERROR:  42601: syntax error\nLINE 1: {}\n", "x".repeat(50))
                    .as_bytes(),
            );
        }
        let verdict = errors.finish();
        assert_eq!(verdict.errors, 50_000);
        assert_eq!(verdict.first.len(), 3);
        assert_eq!(verdict.first[1], "line 2: ERROR:  42601: syntax error");
    }
}
