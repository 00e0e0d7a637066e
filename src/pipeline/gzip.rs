//! Gzip in several members, which every gzip reads as one stream (RFC 1952,
//! section 2.2). It lets what is compressed already, a database's dump, be put
//! into the stream as it is.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

/// The level that weighs size against time for secrets and SQL; `gzip`'s own.
pub const LEVEL: u32 = 6;

/// Compresses what is written to it, in as many members as it takes.
pub struct GzipWriter<W: Write> {
    // `None` only after an error: the encoder is taken apart to start a member.
    encoder: Option<GzEncoder<W>>,
}

impl<W: Write> GzipWriter<W> {
    /// Compresses into `out`.
    pub fn new(out: W) -> Self {
        Self { encoder: Some(encoder(out)) }
    }

    /// Ends the member, copies `members`, which are gzip members already, and
    /// starts a new one.
    pub fn append_members(&mut self, members: &mut dyn Read) -> io::Result<u64> {
        let mut out = self.take()?.finish()?;
        let copied = io::copy(members, &mut out)?;
        self.encoder = Some(encoder(out));
        Ok(copied)
    }

    /// Ends the last member and gives the output back.
    pub fn finish(mut self) -> io::Result<W> {
        self.take()?.finish()
    }

    fn take(&mut self) -> io::Result<GzEncoder<W>> {
        self.encoder.take().ok_or_else(|| io::Error::other("the archive was written after an error"))
    }
}

fn encoder<W: Write>(out: W) -> GzEncoder<W> {
    GzEncoder::new(out, Compression::new(LEVEL))
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self.encoder.as_mut() {
            Some(encoder) => encoder.write(buf),
            None => Err(io::Error::other("the archive was written after an error")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_in_the_middle_read_as_one_stream() {
        let mut inner = GzipWriter::new(Vec::new());
        inner.write_all(b"dump").unwrap();
        let members = inner.finish().unwrap();
        let mut outer = GzipWriter::new(Vec::new());
        outer.write_all(b"before ").unwrap();
        assert_eq!(outer.append_members(&mut members.as_slice()).unwrap(), members.len() as u64);
        outer.write_all(b" after").unwrap();
        let bytes = outer.finish().unwrap();
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "before dump after");
    }
}
