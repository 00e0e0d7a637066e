//! Gzip and its inverse, on all cores.
//!
//! The stream is cut into pieces of 1 MiB, each of which becomes a gzip member
//! of its own; every gzip reads them as one stream (RFC 1952, section 2.2). A
//! member carries its own length in an extra field (section 2.3.1.1), so that a
//! reader finds the next one without inflating this one first. Members without
//! it, from older versions of this program and from others, are read one after
//! the other.

use std::io::{self, BufRead, Chain, Cursor, Read, Write};

use flate2::bufread::GzDecoder;
use libdeflater::{CompressionLvl, Compressor, Crc, Decompressor};
use serde::Deserialize;

use crate::workers::{InOrder, Workers};

/// What a member holds at most, before compression. Larger ones would save less
/// than half a percent and cost memory for every worker.
const MEMBER_BYTES: usize = 1024 * 1024;

/// Incompressible data is looked for in units of this.
const UNIT_BYTES: usize = 128 * 1024;

/// What is looked at of a unit to see whether all of it is worth compressing:
/// so many samples, evenly spread, of so many bytes.
const SAMPLES: usize = 4;
const SAMPLE_BYTES: usize = 2 * 1024;

/// Deflate, an extra field, no name, no time, an unknown system; then the extra
/// field's length, our subfield's name and its length.
const HEADER: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 8, 0, b'O', b'S', 4, 0];

/// [`HEADER`] and the member's length: 4 bytes, little-endian, all included.
const HEADER_BYTES: usize = HEADER.len() + 4;

/// CRC-32 and length of the contents.
const TRAILER_BYTES: usize = 8;

/// The longest member of ours that is read at once: stored blocks add 5 bytes
/// to 64 KiB.
const MEMBER_LENGTH_MAX: usize = MEMBER_BYTES + MEMBER_BYTES / 1024 + HEADER_BYTES + TRAILER_BYTES;

/// How hard to compress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// About as small as `gzip -6` makes it (docs/benchmarks.md).
    #[default]
    Default,
    /// Faster, and some percent larger.
    Fast,
}

impl Level {
    /// libdeflate's level for it. Its `fastest()` is 0, which does not compress.
    fn deflate(self) -> CompressionLvl {
        let level = match self {
            Self::Default => 5,
            Self::Fast => 1,
        };
        CompressionLvl::new(level).unwrap_or_default()
    }
}

/// Compresses what is written to it. [`GzipWriter::finish`] must be called:
/// dropping a writer loses what is under way.
pub struct GzipWriter<W: Write> {
    out: W,
    level: Level,
    now: Piece,
    pieces: InOrder<io::Result<Piece>>,
    /// Done with; their buffers are used again, so that memory stays what it is.
    spare: Vec<Piece>,
    is_empty: bool,
}

/// A piece of the stream on both sides of the compression.
#[derive(Default)]
struct Piece {
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl<W: Write> GzipWriter<W> {
    /// Compresses into `out`.
    pub fn new(out: W, level: Level, workers: &Workers) -> Self {
        Self {
            out,
            level,
            now: Piece::default(),
            pieces: InOrder::new(workers),
            spare: Vec::new(),
            is_empty: true,
        }
    }

    /// Copies `members`, which are gzip members already, behind all that has
    /// been written.
    pub fn append_members(&mut self, members: &mut dyn Read) -> io::Result<u64> {
        self.submit();
        self.drain()?;
        self.is_empty = false;
        let mut chunk = vec![0; 64 * 1024];
        let mut copied = 0;
        loop {
            match members.read(&mut chunk) {
                Ok(0) => return Ok(copied),
                Ok(n) => {
                    self.out.write_all(&chunk[..n])?;
                    copied += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Writes the rest and gives the output back.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.now.plain.is_empty() || self.is_empty {
            self.submit();
        }
        self.drain()?;
        Ok(self.out)
    }

    fn submit(&mut self) {
        if self.now.plain.is_empty() && !self.is_empty {
            return;
        }
        let mut piece = std::mem::replace(&mut self.now, self.spare.pop().unwrap_or_default());
        let level = self.level;
        self.is_empty = false;
        self.pieces.submit(move || compress(&mut piece, level).map(|()| piece));
    }

    fn drain(&mut self) -> io::Result<()> {
        while self.put_oldest()? {}
        Ok(())
    }

    /// Writes the oldest piece that is under way, if any.
    fn put_oldest(&mut self) -> io::Result<bool> {
        let Some(piece) = self.pieces.take() else { return Ok(false) };
        let mut piece = piece??;
        self.out.write_all(&piece.packed)?;
        piece.plain.clear();
        piece.packed.clear();
        self.spare.push(piece);
        Ok(true)
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let plain = &mut self.now.plain;
        if plain.capacity() == 0 {
            plain.reserve_exact(MEMBER_BYTES);
        }
        let n = buf.len().min(MEMBER_BYTES - plain.len());
        plain.extend_from_slice(&buf[..n]);
        if plain.len() == MEMBER_BYTES {
            while self.pieces.is_full() {
                self.put_oldest()?;
            }
            self.submit();
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One member, or several when parts of the piece are not worth compressing.
fn compress(piece: &mut Piece, level: Level) -> io::Result<()> {
    let mut compressor = Compressor::new(level.deflate());
    let mut sampler = Compressor::new(Level::Fast.deflate());
    let Piece { plain, packed } = piece;
    let dense: Vec<bool> = plain.chunks(UNIT_BYTES).map(|unit| is_dense(unit, &mut sampler)).collect();
    let mut start = 0;
    for run in dense.chunk_by(|a, b| a == b) {
        let end = (start + run.len() * UNIT_BYTES).min(plain.len());
        append_member(packed, &plain[start..end], (!run[0]).then_some(&mut compressor))?;
        start = end;
    }
    if plain.is_empty() {
        append_member(packed, plain, Some(&mut compressor))?;
    }
    Ok(())
}

/// Appends one member; stored as it is without a compressor.
fn append_member(
    members: &mut Vec<u8>,
    contents: &[u8],
    compressor: Option<&mut Compressor>,
) -> io::Result<()> {
    let start = members.len();
    members.extend_from_slice(&HEADER);
    members.extend_from_slice(&[0; 4]);
    match compressor {
        Some(compressor) => deflate(members, contents, compressor)?,
        None => store(members, contents),
    }
    let mut crc = Crc::new();
    crc.update(contents);
    members.extend_from_slice(&crc.sum().to_le_bytes());
    // A piece is far below 4 GiB.
    members.extend_from_slice(&(contents.len() as u32).to_le_bytes());
    let length = (members.len() - start) as u32;
    members[start + HEADER.len()..start + HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

fn deflate(out: &mut Vec<u8>, contents: &[u8], compressor: &mut Compressor) -> io::Result<()> {
    let start = out.len();
    out.resize(start + compressor.deflate_compress_bound(contents.len()), 0);
    let n = compressor
        .deflate_compress(contents, &mut out[start..])
        .map_err(|e| io::Error::other(format!("cannot compress: {e}")))?;
    out.truncate(start + n);
    Ok(())
}

/// Deflate's blocks without compression (RFC 1951, section 3.2.4).
fn store(out: &mut Vec<u8>, contents: &[u8]) {
    out.reserve(contents.len() + contents.len() / 1024);
    let mut blocks = contents.chunks(usize::from(u16::MAX)).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        out.push(u8::from(blocks.peek().is_none()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
}

/// Whether a unit looks like random bytes: images, archives, ciphertext.
/// Deflating those takes many times as long as storing them and saves nothing.
fn is_dense(unit: &[u8], sampler: &mut Compressor) -> bool {
    if unit.len() < UNIT_BYTES {
        return false;
    }
    let starts = unit.chunks(UNIT_BYTES / SAMPLES);
    let sample: Vec<u8> = starts.flat_map(|part| &part[..SAMPLE_BYTES]).copied().collect();
    if entropy(&sample) < 7.9 {
        return false;
    }
    // All byte values are about as frequent: random, or counters and tables,
    // whose repetitions a compressor finds.
    let mut out = vec![0; sampler.deflate_compress_bound(sample.len())];
    sampler.deflate_compress(&sample, &mut out).is_ok_and(|n| n > sample.len() * 99 / 100)
}

/// Shannon's entropy of the bytes taken one by one, in bits for each, 0 to 8.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let total = bytes.len() as f64;
    let shares = counts.iter().filter(|n| **n > 0).map(|n| f64::from(*n) / total);
    shares.map(|share| -share * share.log2()).sum()
}

/// Inflates a stream of members, several at a time where they tell their length.
pub struct GzipReader<R> {
    // `None` only while a member is read one byte after the other.
    source: Option<R>,
    streamed: Option<GzDecoder<Chain<Cursor<Vec<u8>>, R>>>,
    /// A member that cannot be read at once, from its first bytes; after `pieces`.
    foreign: Option<Vec<u8>>,
    pieces: InOrder<io::Result<Piece>>,
    /// What is being read, from `at`.
    now: Piece,
    at: usize,
    spare: Vec<Piece>,
    ended: bool,
}

impl<R: BufRead> GzipReader<R> {
    /// Inflates what `source` holds.
    pub fn new(source: R, workers: &Workers) -> Self {
        Self {
            source: Some(source),
            streamed: None,
            foreign: None,
            pieces: InOrder::new(workers),
            now: Piece::default(),
            at: 0,
            spare: Vec::new(),
            ended: false,
        }
    }

    /// The source, once everything has been read.
    pub fn into_inner(self) -> Option<R> {
        self.source
    }

    /// Reads ahead: gives members to the workers until they have enough.
    fn read_ahead(&mut self) -> io::Result<()> {
        while !self.ended && self.foreign.is_none() && !self.pieces.is_full() {
            let Some(source) = self.source.as_mut() else { return Ok(()) };
            let mut piece = self.spare.pop().unwrap_or_default();
            piece.packed.clear();
            source.take(HEADER_BYTES as u64).read_to_end(&mut piece.packed)?;
            if piece.packed.is_empty() {
                self.ended = true;
                return Ok(());
            }
            match own_length(&piece.packed) {
                Some(length) => {
                    piece.packed.reserve(length - HEADER_BYTES);
                    source.take((length - HEADER_BYTES) as u64).read_to_end(&mut piece.packed)?;
                    self.pieces.submit(move || inflate(&mut piece, length).map(|()| piece));
                }
                None => self.foreign = Some(piece.packed),
            }
        }
        Ok(())
    }

    /// Makes the next bytes available; `false` at the end.
    fn advance(&mut self) -> io::Result<bool> {
        self.read_ahead()?;
        if let Some(piece) = self.pieces.take() {
            self.spare.push(std::mem::replace(&mut self.now, piece??));
            self.at = 0;
            return Ok(true);
        }
        let Some(head) = self.foreign.take() else { return Ok(false) };
        if let Some(source) = self.source.take() {
            self.streamed = Some(GzDecoder::new(Cursor::new(head).chain(source)));
        }
        Ok(true)
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.at < self.now.plain.len() {
                let n = (&self.now.plain[self.at..]).read(buf)?;
                self.at += n;
                return Ok(n);
            }
            if let Some(streamed) = self.streamed.as_mut() {
                let n = streamed.read(buf)?;
                if n > 0 || buf.is_empty() {
                    return Ok(n);
                }
                // A member is longer than the bytes that were looked at first.
                self.source = self.streamed.take().map(|decoder| decoder.into_inner().into_inner().1);
            }
            if !self.advance()? {
                return Ok(0);
            }
        }
    }
}

/// The length of a member of ours, from its header.
fn own_length(head: &[u8]) -> Option<usize> {
    let length = head.strip_prefix(HEADER.as_slice())?;
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    (HEADER_BYTES + TRAILER_BYTES..=MEMBER_LENGTH_MAX).contains(&length).then_some(length)
}

/// Inflates a member that said that it has `length` bytes.
fn inflate(piece: &mut Piece, length: usize) -> io::Result<()> {
    let damaged =
        || io::Error::new(io::ErrorKind::InvalidData, "a gzip member does not inflate to what it says");
    let (_, size) = piece.packed.split_last_chunk::<4>().ok_or_else(damaged)?;
    let size = u32::from_le_bytes(*size) as usize;
    if size > MEMBER_BYTES || piece.packed.len() != length {
        return Err(damaged());
    }
    piece.plain.resize(size, 0);
    // Checks the CRC and the size. What a forger hid behind the end of the
    // deflated data, within the length, is passed over.
    match Decompressor::new().gzip_decompress(&piece.packed, &mut piece.plain) {
        Ok(n) if n == size => Ok(()),
        _ => Err(damaged()),
    }
}

#[cfg(test)]
mod tests;
