//! Seal and open: bytes to Fernet tokens, one a line, and back.
//!
//! The stream is cut into blocks of at most 4 MiB, each of which becomes one
//! token (<https://github.com/fernet/spec>). So memory stays constant, every
//! block is authenticated before it is decrypted, and three lines of Python
//! open the whole. That tokens are complete and in order is not proven here
//! but by the manifest inside.

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::key::{Keyring, MasterKey};

/// The most that one token holds, in bytes of plaintext. Part of the format.
pub const BLOCK_BYTES: usize = 4 * 1024 * 1024;

/// The longest line that is read. Our own tokens are 5.6 MB; what the earlier
/// Python system stored is one token of whatever size it had.
const TOKEN_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The latest time that the `fernet` crate can check against without overflow.
/// A host with a slow clock must still open a token from its future, so every
/// token is opened at the end of time.
const END_OF_TIME: u64 = u64::MAX - 60;

/// Seals what is written to it. [`Sealer::finish`] must be called: dropping a
/// sealer loses the last block.
pub struct Sealer<W> {
    block: Vec<u8>,
    blocks: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<Result<Sealed<W>>>>,
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

impl<W: Write + Send + 'static> Sealer<W> {
    /// Seals into `out` with `key`. Encryption runs on a thread of its own, one
    /// block behind the writer.
    pub fn new(key: &MasterKey, out: W) -> Result<Self> {
        let fernet = key.fernet()?;
        // Nothing waits in between: a block is being filled or being sealed.
        let (sender, receiver) = sync_channel(0);
        let thread = thread::Builder::new()
            .name("seal".into())
            .spawn(move || seal_blocks(&fernet, &receiver, out))
            .map_err(|e| Error::from_io("cannot start a thread", e))?;
        Ok(Self { block: Vec::with_capacity(BLOCK_BYTES), blocks: Some(sender), thread: Some(thread) })
    }

    /// Seals what is left and waits until all of it is written.
    pub fn finish(mut self) -> Result<Sealed<W>> {
        if !self.block.is_empty() {
            let block = std::mem::take(&mut self.block);
            self.send(block)?;
        }
        self.join()
    }

    fn send(&mut self, block: Vec<u8>) -> Result<()> {
        let sent = self.blocks.as_ref().is_some_and(|blocks| blocks.send(block).is_ok());
        if sent {
            return Ok(());
        }
        // The thread has given up; its reason is the one to tell.
        self.join().and_then(|_| Err(Error::failed("the sealing thread ended too early")))
    }

    fn join(&mut self) -> Result<Sealed<W>> {
        self.blocks = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(Error::failed("the sealing thread died")),
        }
    }
}

impl<W: Write + Send + 'static> Write for Sealer<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&buf[..n]);
        if self.block.len() == BLOCK_BYTES {
            let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES));
            self.send(block)?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        // A token cannot be flushed in halves; `finish` writes the rest.
        Ok(())
    }
}

fn seal_blocks<W: Write>(
    fernet: &fernet::Fernet,
    blocks: &Receiver<Vec<u8>>,
    mut out: W,
) -> Result<Sealed<W>> {
    let cannot = |e| {
        Error::io("write", &std::env::temp_dir(), e)
            .hint("is the temporary folder full? $TMPDIR names another one")
    };
    let mut ends = Vec::new();
    let mut end = 0;
    for block in blocks {
        // A clock before 1970 would make the crate panic if it asked by itself.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let token = fernet.encrypt_at_time(&block, now);
        drop(block);
        // Between tokens, not after the last: one token is just a token.
        if end > 0 {
            out.write_all(b"\n").map_err(cannot)?;
            end += 1;
            if let Some(last) = ends.last_mut() {
                *last = end;
            }
        }
        out.write_all(token.as_bytes()).map_err(cannot)?;
        end += token.len() as u64;
        ends.push(end);
    }
    out.flush().map_err(cannot)?;
    Ok(Sealed { out, ends })
}

/// Opens tokens, one a line, as a reader of their plaintext.
pub struct Opener<R> {
    tokens: R,
    keys: Vec<fernet::Fernet>,
    ids: String,
    line: Vec<u8>,
    block: Vec<u8>,
    at: usize,
    opened: u64,
    oldest: Option<u64>,
}

impl<R: BufRead> Opener<R> {
    /// Opens `tokens` with whichever of the keys fits.
    pub fn new(keys: &Keyring, tokens: R) -> Result<Self> {
        let fernets = keys.all().iter().map(MasterKey::fernet).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            tokens,
            keys: fernets,
            ids: keys.ids(),
            line: Vec::new(),
            block: Vec::new(),
            at: 0,
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

    fn next_block(&mut self) -> Result<bool> {
        loop {
            self.line.clear();
            let n = (&mut self.tokens)
                .take(TOKEN_BYTES_MAX)
                .read_until(b'\n', &mut self.line)
                .map_err(|e| Error::from_io("cannot read the snapshot", e))?;
            if n == 0 && self.opened == 0 {
                return Err(Error::integrity("the object is empty")
                    .hint("choose another snapshot with `offsite list`"));
            }
            if n == 0 {
                return Ok(false);
            }
            // Only the last line may lack its newline, and an editor may have added one.
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        // The last block goes before the next one comes: each is 4 MiB.
        self.block = Vec::new();
        self.at = 0;
        self.block = self.open_line()?;
        self.opened += 1;
        Ok(true)
    }

    fn open_line(&mut self) -> Result<Vec<u8>> {
        let number = self.opened + 1;
        let token = std::str::from_utf8(self.line.trim_ascii()).unwrap_or("");
        // The crate forgives missing padding; Python does not, and must be able to open it.
        let padded = token.len().is_multiple_of(4);
        for (at, key) in self.keys.iter().enumerate() {
            if padded && let Ok(block) = key.decrypt_at_time(token, None, END_OF_TIME) {
                self.keys.swap(0, at);
                self.oldest = [self.oldest, sealed_at(token)].into_iter().flatten().min();
                return Ok(block);
            }
        }
        Err(if number > 1 {
            Error::integrity(format!("token {number} is damaged: its authentication fails"))
                .hint("choose another snapshot with `offsite list`")
        } else if token.starts_with("gAAAA") {
            Error::integrity(format!("the key {} does not open this snapshot, or its first token is damaged", self.ids))
                .hint("compare the key id with the one in the destination's RESTORE.md; a second snapshot that opens rules the key out")
        } else {
            Error::integrity(
                "the object does not begin with a Fernet token: it is damaged, or not a snapshot",
            )
            .hint("choose another snapshot with `offsite list`")
        })
    }
}

/// The time stamp inside a token: bytes 1 to 8, big-endian (Fernet spec).
fn sealed_at(token: &str) -> Option<u64> {
    use base64::Engine;
    let head = base64::engine::general_purpose::URL_SAFE.decode(token.get(..12)?).ok()?;
    Some(u64::from_be_bytes(head.get(1..9)?.try_into().ok()?))
}

impl<R: BufRead> Read for Opener<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let n = buf.len().min(self.block.len() - self.at);
        buf[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> Keyring {
        Keyring::new(MasterKey::generate().unwrap(), vec![])
    }

    fn seal(keys: &Keyring, bytes: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::new(keys.sealing(), Vec::new()).unwrap();
        sealer.write_all(bytes).unwrap();
        let sealed = sealer.finish().unwrap();
        assert_eq!(sealed.len(), sealed.out.len() as u64);
        for end in &sealed.ends[..sealed.ends.len().saturating_sub(1)] {
            assert_eq!(sealed.out[*end as usize - 1], b'\n');
        }
        sealed.out
    }

    fn open(keys: &Keyring, tokens: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        match Opener::new(keys, tokens)?.read_to_end(&mut out) {
            Ok(_) => Ok(out),
            Err(e) => Err(Error::from_io("open", e)),
        }
    }

    #[test]
    fn whatever_is_sealed_opens_to_the_same_bytes() {
        let keys = ring();
        for len in [1, 100, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES + 5] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 253) as u8).collect();
            let sealed = seal(&keys, &bytes);
            assert_eq!(sealed.split(|b| *b == b'\n').count(), len.div_ceil(BLOCK_BYTES));
            assert!(open(&keys, &sealed).unwrap() == bytes, "{len}");
        }
    }

    #[test]
    fn one_token_is_a_bare_token_and_a_newline_after_it_does_no_harm() {
        let keys = ring();
        let mut sealed = seal(&keys, b"hello");
        assert_eq!(
            keys.sealing().fernet().unwrap().decrypt(std::str::from_utf8(&sealed).unwrap()).unwrap(),
            b"hello"
        );
        sealed.extend_from_slice(b"\r\n\n");
        assert_eq!(open(&keys, &sealed).unwrap(), b"hello");
    }

    #[test]
    fn any_key_of_the_ring_opens() {
        let old = ring();
        let new = Keyring::new(MasterKey::generate().unwrap(), old.all().to_vec());
        assert_eq!(open(&new, &seal(&old, b"old")).unwrap(), b"old");
        assert_eq!(open(&new, &seal(&new, b"new")).unwrap(), b"new");
        let error = open(&old, &seal(&new, b"new")).unwrap_err();
        assert!(error.message().contains(&old.ids()) && error.kind().exit_code() == 5, "{error}");
    }

    #[test]
    fn a_token_from_the_far_future_opens_and_tells_its_time() {
        let keys = ring();
        let token = keys.sealing().fernet().unwrap().encrypt_at_time(b"x", 99_999_999_999);
        let mut opener = Opener::new(&keys, token.as_bytes()).unwrap();
        opener.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(opener.oldest(), Some(99_999_999_999));
    }

    #[test]
    fn damage_is_an_integrity_error_wherever_it_is() {
        let keys = ring();
        let sealed = seal(&keys, &vec![7; BLOCK_BYTES + 10]);
        for at in [0, 5, 20, 1000, sealed.len() - 1, sealed.len() - 100] {
            let mut damaged = sealed.clone();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(open(&keys, &damaged).unwrap_err().kind().exit_code(), 5, "at {at}");
        }
        // The last byte is padding, without which Python does not open it.
        for len in [1, 5, 1000, sealed.len() - 50, sealed.len() - 1] {
            let error = open(&keys, &sealed[..len]).map(|_| len).unwrap_err();
            assert_eq!(error.kind().exit_code(), 5, "cut at {len}");
        }
        for garbage in [&b""[..], b"\n\n", b"<html>502</html>", &[0xff; 100]] {
            assert_eq!(open(&keys, garbage).unwrap_err().kind().exit_code(), 5);
        }
    }

    #[test]
    fn a_full_disk_is_told_by_whoever_writes() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut sealer = Sealer::new(ring().sealing(), Full).unwrap();
        let error = sealer.write_all(&vec![0; 4 * BLOCK_BYTES]).map_err(|e| Error::from_io("x", e));
        let error = error.and_then(|()| sealer.finish().map(|_| ())).unwrap_err();
        assert!(error.message().contains("no storage space"), "{error}");
    }
}
