//! The first section of a cluster dump: roles, tablespaces, and whatever comes
//! before the first `\connect`. Cut into statements, quotes respected, because
//! a role's name or comment may contain line breaks and anything after them.

/// The longest statement that is kept whole, in bytes.
const STATEMENT_MAX: usize = 64 * 1024;

/// One piece of the section, as it stands in the dump.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'a> {
    /// A comment, an empty line or a command to `psql`, with its line break.
    Line(&'a [u8]),
    /// A statement from its first character to its semicolon.
    Statement(&'a [u8]),
    /// A part of a statement that is too long to be kept whole.
    Part(&'a [u8]),
}

/// Cuts a stream into [`Piece`]s until the first `\connect`.
#[derive(Default)]
pub(super) struct Globals {
    buffer: Vec<u8>,
    within: Within,
    too_long: bool,
    ended: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Within {
    #[default]
    Start,
    Line,
    Statement,
    /// Inside '…' or "…". A doubled quote leaves and enters again, and
    /// `pg_dumpall` doubles backslashes, so no escape needs to be known.
    Quoted(u8),
}

impl Globals {
    /// Whether the first `\connect` has been seen. It was handed out as a line.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Hands every finished piece to `each`, and gives back what follows the
    /// section.
    pub(super) fn push<'a>(&mut self, bytes: &'a [u8], each: &mut dyn FnMut(Piece<'_>)) -> &'a [u8] {
        for (at, &byte) in bytes.iter().enumerate() {
            if self.ended {
                return &bytes[at..];
            }
            self.buffer.push(byte);
            self.step(byte, each);
        }
        &[]
    }

    /// Hands out what is left when the stream ends within the section.
    pub(super) fn finish(&mut self, each: &mut dyn FnMut(Piece<'_>)) {
        if !self.buffer.is_empty() {
            each(Piece::Part(&self.buffer));
            self.buffer.clear();
        }
    }

    fn step(&mut self, byte: u8, each: &mut dyn FnMut(Piece<'_>)) {
        match (self.within, byte) {
            (Within::Start | Within::Line, b'\n') => {
                self.ended = self.buffer.starts_with(b"\\connect ");
                each(Piece::Line(&self.buffer));
                self.begin();
                return;
            }
            (Within::Start, b'\\' | b'-') => self.within = Within::Line,
            (Within::Start | Within::Statement, b'\'' | b'"') => self.within = Within::Quoted(byte),
            (Within::Start | Within::Statement, b';') => {
                each(if self.too_long { Piece::Part(&self.buffer) } else { Piece::Statement(&self.buffer) });
                self.begin();
                return;
            }
            (Within::Start, _) => self.within = Within::Statement,
            (Within::Quoted(quote), _) if quote == byte => self.within = Within::Statement,
            (Within::Line | Within::Statement | Within::Quoted(_), _) => {}
        }
        if self.buffer.len() >= STATEMENT_MAX {
            each(Piece::Part(&self.buffer));
            self.buffer.clear();
            self.too_long = true;
        }
    }

    fn begin(&mut self) {
        self.buffer.clear();
        self.within = Within::Start;
        self.too_long = false;
    }
}

/// The role that a `CREATE ROLE name;` creates.
pub(super) fn created_role(statement: &[u8]) -> Option<Vec<u8>> {
    identifier(statement.strip_prefix(b"CREATE ROLE ")?).map(|(name, _)| name)
}

/// The role whose rights and password an `ALTER ROLE name WITH …;` sets.
pub(super) fn altered_role(statement: &[u8]) -> Option<Vec<u8>> {
    let (name, rest) = identifier(statement.strip_prefix(b"ALTER ROLE ")?)?;
    rest.starts_with(b" WITH ").then_some(name)
}

/// An SQL name at the start of `text`, without its quotes, and what follows.
pub(super) fn identifier(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| b" ;\n".contains(byte)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_vec(), &text[end..]));
    };
    let mut name = Vec::new();
    let mut rest = quoted;
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        if byte == b'"' {
            match rest.strip_prefix(b"\"") {
                Some(after) => rest = after,
                None => return Some((name, rest)),
            }
        }
        name.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: &str = concat!(
        "--\n-- Role \"it's\"\n--\n\n\\restrict abc\nSET x = off;\n",
        "CREATE ROLE \"o'dd \"\"q\"\"\n\\connect fake\nCREATE ROLE liar;\";\n",
        "ALTER ROLE me WITH SUPERUSER PASSWORD 'a;''b';\n",
        "COMMENT ON ROLE me IS E'\\\\ \n\\\\connect foo\nCREATE ROLE fake;\n';\n",
        "\\connect template1\n",
    );

    fn pieces(step: usize) -> (Vec<String>, String) {
        let (mut globals, mut found, mut rest) = (Globals::default(), Vec::new(), Vec::new());
        let text = format!("{SECTION}CREATE ROLE later;\n");
        for chunk in text.as_bytes().chunks(step) {
            let after = globals.push(chunk, &mut |piece| {
                if let Piece::Statement(bytes) = piece {
                    found.push(String::from_utf8(bytes.to_vec()).unwrap());
                }
            });
            rest.extend_from_slice(after);
        }
        assert!(globals.ended());
        (found, String::from_utf8(rest).unwrap())
    }

    #[test]
    fn statements_end_at_their_semicolon_wherever_the_stream_is_cut() {
        for step in [1, 2, 3, 7, 10_000] {
            let (statements, rest) = pieces(step);
            assert_eq!(statements.len(), 4, "{statements:?}");
            let roles: Vec<_> = statements.iter().filter_map(|s| created_role(s.as_bytes())).collect();
            assert_eq!(roles, [b"o'dd \"q\"\n\\connect fake\nCREATE ROLE liar;"]);
            assert_eq!(altered_role(statements[2].as_bytes()).unwrap(), b"me");
            assert_eq!(rest, "CREATE ROLE later;\n");
        }
    }

    #[test]
    fn the_pieces_are_the_whole_section() {
        let (mut globals, mut all) = (Globals::default(), Vec::new());
        let mut collect = |piece: Piece<'_>| match piece {
            Piece::Line(bytes) | Piece::Statement(bytes) | Piece::Part(bytes) => all.extend_from_slice(bytes),
        };
        let long = format!("SELECT '{}';\n", "x;".repeat(STATEMENT_MAX));
        let cut = &SECTION[..SECTION.len() - 9];
        globals.push(long.as_bytes(), &mut collect);
        globals.push(cut.as_bytes(), &mut collect);
        globals.finish(&mut collect);
        assert_eq!(String::from_utf8(all).unwrap(), format!("{long}{cut}"));
    }
}
