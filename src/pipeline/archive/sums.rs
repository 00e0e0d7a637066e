//! The lines of `SHA256SUMS`.

use std::io::{self, Write};

/// A line as `sha256sum` writes and reads it: a name with a backslash, newline
/// or carriage return is escaped, and the line then begins with a backslash.
pub(super) fn sum_line(out: &mut dyn Write, sha256: &str, path: &[u8]) -> io::Result<()> {
    if path.iter().any(|b| matches!(b, b'\\' | b'\n' | b'\r')) {
        out.write_all(b"\\")?;
    }
    write!(out, "{sha256}  ")?;
    for byte in path {
        match byte {
            b'\\' => out.write_all(b"\\\\")?,
            b'\n' => out.write_all(b"\\n")?,
            b'\r' => out.write_all(b"\\r")?,
            other => out.write_all(&[*other])?,
        }
    }
    out.write_all(b"\n")
}
