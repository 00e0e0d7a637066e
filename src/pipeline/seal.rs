//! Seal and open: bytes to Fernet tokens, one a line, and back.
//!
//! A stream of up to 4 MiB becomes one Fernet token
//! (<https://github.com/fernet/spec>), a longer one several. So memory stays
//! constant, all cores work, every block is authenticated before it is
//! decrypted, and three lines of Python open the whole. That tokens are complete
//! and in order is not proven here but by the manifest inside.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::key::{Keyring, MasterKey};
use crate::workers::{InOrder, Workers};

/// The most that one token holds, in bytes of plaintext. Part of the format:
/// what fits one token is one token.
pub const BLOCK_BYTES: usize = 4 * 1024 * 1024;

/// What each of several tokens holds. The `fernet` crate has five copies of a
/// block in memory while it works on it, for each worker.
const SHARE_BYTES: usize = 256 * 1024;

/// The longest line that is read. Our own tokens are 5.6 MB; what the earlier
/// Python system stored is one token of whatever size it had.
const TOKEN_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Tokens are given to the workers until they come to this.
const AHEAD_BYTES: usize = 2 * 1024 * 1024;

/// The latest time that the `fernet` crate can check against without overflow.
/// A host with a slow clock must still open a token from its future, so every
/// token is opened at the end of time.
const END_OF_TIME: u64 = u64::MAX - 60;

/// Seals what is written to it. [`Sealer::finish`] must be called: dropping a
/// sealer loses the last block.
pub struct Sealer<W> {
    fernet: Arc<fernet::Fernet>,
    /// Up to [`BLOCK_BYTES`] of a stream that may yet fit one token; later, of
    /// the next share.
    block: Vec<u8>,
    is_long: bool,
    tokens: InOrder<(String, Vec<u8>)>,
    /// A share that was sealed; its buffer is used again.
    spare: Vec<Vec<u8>>,
    sealed: Sealed<W>,
}

/// What sealing came to.
pub struct Sealed<W> {
    /// Where the tokens went.
    pub out: W,
    /// Where each token's line ends, in bytes from the start.
    pub ends: Vec<u64>,
}

impl<W> Sealed<W> {
    /// Bytes written.
    pub fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Whether nothing was sealed.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl<W: Write> Sealer<W> {
    /// Seals into `out` with `key`.
    pub fn new(key: &MasterKey, out: W, workers: &Workers) -> Result<Self> {
        Ok(Self {
            fernet: Arc::new(key.fernet()?),
            block: Vec::new(),
            is_long: false,
            tokens: InOrder::new(workers),
            spare: Vec::new(),
            sealed: Sealed { out, ends: Vec::new() },
        })
    }

    /// Seals what is left and waits until all of it is written.
    pub fn finish(mut self) -> Result<Sealed<W>> {
        if !self.block.is_empty() {
            let block = std::mem::take(&mut self.block);
            self.submit(block)?;
        }
        while self.put_oldest()? {}
        self.sealed.out.flush().map_err(cannot_write)?;
        Ok(self.sealed)
    }

    fn submit(&mut self, block: Vec<u8>) -> Result<()> {
        while self.tokens.is_full() {
            self.put_oldest()?;
        }
        let fernet = Arc::clone(&self.fernet);
        // A clock before 1970 would make the crate panic if it asked by itself.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        self.tokens.submit(move || (fernet.encrypt_at_time(&block, now), block));
        Ok(())
    }

    /// Writes the oldest token that is under way, if any.
    fn put_oldest(&mut self) -> Result<bool> {
        let Some(token) = self.tokens.take() else { return Ok(false) };
        let (token, mut share) = token?;
        self.sealed.push(&token)?;
        share.clear();
        self.spare.push(share);
        Ok(true)
    }
}

impl<W: Write> Sealed<W> {
    fn push(&mut self, token: &str) -> Result<()> {
        // Between tokens, not after the last: one token is just a token.
        if let Some(last) = self.ends.last_mut() {
            self.out.write_all(b"\n").map_err(cannot_write)?;
            *last += 1;
        }
        self.out.write_all(token.as_bytes()).map_err(cannot_write)?;
        self.ends.push(self.len() + token.len() as u64);
        Ok(())
    }
}

fn cannot_write(error: io::Error) -> Error {
    Error::io("write", &std::env::temp_dir(), error)
        .hint("is the temporary folder full? $TMPDIR names another one")
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = if self.is_long { SHARE_BYTES } else { BLOCK_BYTES };
        if self.block.len() == room && !buf.is_empty() {
            let full = std::mem::take(&mut self.block);
            if self.is_long {
                self.submit(full)?;
            } else {
                // More than one token's worth: no need to wait for all of it.
                self.is_long = true;
                for share in full.chunks(SHARE_BYTES) {
                    let mut copy = self.spare.pop().unwrap_or_default();
                    copy.extend_from_slice(share);
                    self.submit(copy)?;
                }
            }
            self.block = self.spare.pop().unwrap_or_default();
            return self.write(buf);
        }
        let n = buf.len().min(room - self.block.len());
        self.block.extend_from_slice(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        // A token cannot be flushed in halves; `finish` writes the rest.
        Ok(())
    }
}

/// Opens tokens, one a line, as a reader of their plaintext.
pub struct Opener<R> {
    tokens: R,
    keys: Arc<Vec<fernet::Fernet>>,
    ids: String,
    /// What the workers are opening, and the bytes of each.
    blocks: InOrder<(Option<Opened>, Vec<u8>)>,
    lengths: VecDeque<usize>,
    /// The line of a token that was opened; its buffer is used again.
    spare: Vec<u8>,
    block: Vec<u8>,
    at: usize,
    /// Whether the first token looked like one.
    looked_right: bool,
    ended: bool,
    /// Why no more could be read; told when what was read before is opened.
    failure: Option<Error>,
    opened: u64,
    oldest: Option<u64>,
}

struct Opened {
    block: Vec<u8>,
    sealed_at: Option<u64>,
}

impl<R: BufRead> Opener<R> {
    /// Opens `tokens` with whichever of the keys fits.
    pub fn new(keys: &Keyring, tokens: R, workers: &Workers) -> Result<Self> {
        let fernets = keys.all().iter().map(MasterKey::fernet).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            tokens,
            keys: Arc::new(fernets),
            ids: keys.ids(),
            blocks: InOrder::new(workers),
            lengths: VecDeque::new(),
            spare: Vec::new(),
            block: Vec::new(),
            at: 0,
            looked_right: false,
            ended: false,
            failure: None,
            opened: 0,
            oldest: None,
        })
    }

    /// How many tokens have been opened so far.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// The earliest time stamp of the opened tokens, in seconds since 1970.
    /// Authenticated, but only as good as the clock of the machine that sealed.
    pub fn oldest(&self) -> Option<u64> {
        self.oldest
    }

    /// Gives tokens to the workers until they have enough.
    fn read_ahead(&mut self) {
        while !self.ended && !self.blocks.is_full() && self.lengths.iter().sum::<usize>() < AHEAD_BYTES {
            let mut line = std::mem::take(&mut self.spare);
            line.clear();
            match (&mut self.tokens).take(TOKEN_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(error) => {
                    self.ended = true;
                    self.failure = Some(Error::from_io("cannot read the snapshot", error));
                }
            }
            // Only the last line may lack its newline, and an editor may have added one.
            if !self.ended && !line.trim_ascii().is_empty() {
                self.looked_right |=
                    self.opened == 0 && self.lengths.is_empty() && line.starts_with(b"gAAAA");
                self.lengths.push_back(line.len());
                let keys = Arc::clone(&self.keys);
                self.blocks.submit(move || (open(&keys, &line), line));
            }
        }
    }

    fn next_block(&mut self) -> Result<bool> {
        // The last block goes before the next one comes.
        self.block = Vec::new();
        self.at = 0;
        self.read_ahead();
        let Some(result) = self.blocks.take() else {
            return match (self.failure.take(), self.opened) {
                (Some(error), _) => Err(error),
                (None, 0) => Err(Error::integrity("the object is empty")
                    .hint("choose another snapshot with `offsite list`")),
                (None, _) => Ok(false),
            };
        };
        self.lengths.pop_front();
        let (opened, line) = result?;
        self.spare = line;
        let opened = opened.ok_or_else(|| self.refusal())?;
        self.opened += 1;
        self.oldest = [self.oldest, opened.sealed_at].into_iter().flatten().min();
        self.block = opened.block;
        Ok(true)
    }

    /// Why the next token does not open.
    fn refusal(&self) -> Error {
        let number = self.opened + 1;
        if number > 1 {
            Error::integrity(format!("token {number} is damaged: its authentication fails"))
                .hint("choose another snapshot with `offsite list`")
        } else if self.looked_right {
            Error::integrity(format!("the key {} does not open this snapshot, or its first token is damaged", self.ids))
                .hint("compare the key id with the one in the destination's RESTORE.md; a second snapshot that opens rules the key out")
        } else {
            Error::integrity(
                "the object does not begin with a Fernet token: it is damaged, or not a snapshot",
            )
            .hint("choose another snapshot with `offsite list`")
        }
    }
}

/// Authenticates and decrypts one token.
fn open(keys: &[fernet::Fernet], line: &[u8]) -> Option<Opened> {
    let token = std::str::from_utf8(line.trim_ascii()).ok()?;
    // The crate forgives missing padding; Python does not, and must be able to open it.
    if !token.len().is_multiple_of(4) {
        return None;
    }
    let block = keys.iter().find_map(|key| key.decrypt_at_time(token, None, END_OF_TIME).ok())?;
    Some(Opened { block, sealed_at: sealed_at(token) })
}

/// The time stamp inside a token: bytes 1 to 8, big-endian (Fernet spec).
fn sealed_at(token: &str) -> Option<u64> {
    use base64::Engine;
    let head = base64::engine::general_purpose::URL_SAFE.decode(token.get(..12)?).ok()?;
    Some(u64::from_be_bytes(head.get(1..9)?.try_into().ok()?))
}

impl<R: BufRead> BufRead for Opener<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.block.len() {
            if !self.next_block()? {
                break;
            }
        }
        Ok(&self.block[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at = (self.at + amount).min(self.block.len());
    }
}

impl<R: BufRead> Read for Opener<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
