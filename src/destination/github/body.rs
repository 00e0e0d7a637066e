//! The body of a PUT: JSON around base64, streamed from the sealed file.

use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::channel::Channel;
use octocrab::OctoBody;
use sha1::{Digest, Sha1};

use crate::destination::Source;
use crate::error::{Error, Result};

/// Read at a time; a multiple of 3, so that base64 needs no padding in between.
const CHUNK_BYTES: usize = 48 * 1024;

/// A PUT's body and its length.
pub(super) struct Put {
    pub(super) body: OctoBody,
    pub(super) len: u64,
}

/// The git blob SHA-1 of the object in hex: over `blob <length>`, a NUL and the
/// bytes (<https://git-scm.com/book/en/v2/Git-Internals-Git-Objects>).
pub(super) fn git_blob_sha1(source: &Source<'_>) -> Result<String> {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", source.len));
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut done = 0;
    while done < source.len {
        let n = read_chunk(source.file, source.offset + done, source.len - done, &mut chunk)
            .map_err(|e| Error::from_io("cannot read the sealed object", e))?;
        hasher.update(&chunk[..n]);
        done += n as u64;
    }
    Ok(hex::encode(hasher.finalize()))
}

/// The body that stores the object at `name`. A thread reads and encodes it as
/// fast as the network takes it, a few chunks ahead.
pub(super) fn put(name: &str, branch: Option<&str>, source: &Source<'_>) -> Result<Put> {
    let mut head = serde_json::json!({ "message": format!("offsite: {name}") });
    if let Some(branch) = branch {
        head["branch"] = branch.into();
    }
    let head = format!("{},\"content\":\"", head.to_string().trim_end_matches('}'));
    let tail = "\"}";
    let len = (head.len() + tail.len()) as u64 + source.len.div_ceil(3) * 4;
    let file = source.file.try_clone().map_err(|e| Error::from_io("cannot read the sealed object", e))?;
    let (offset, bytes) = (source.offset, source.len);
    let (mut sender, channel) = Channel::<Bytes, io::Error>::new(4);
    tokio::spawn(async move {
        if sender.send_data(Bytes::from(head)).await.is_err() {
            return;
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut done = 0;
        while done < bytes {
            let n = match read_chunk(&file, offset + done, bytes - done, &mut chunk) {
                Ok(n) => n,
                Err(error) => return sender.abort(error),
            };
            done += n as u64;
            // A closed channel means that the request is over, with or without us.
            if sender.send_data(Bytes::from(STANDARD.encode(&chunk[..n]))).await.is_err() {
                return;
            }
        }
        let _ = sender.send_data(Bytes::from_static(tail.as_bytes())).await;
    });
    Ok(Put { body: OctoBody::new(channel), len })
}

/// Fills as much of `chunk` as there is left, at `offset`.
fn read_chunk(file: &std::fs::File, offset: u64, left: u64, chunk: &mut [u8]) -> io::Result<usize> {
    let n = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
    file.read_exact_at(&mut chunk[..n], offset)?;
    Ok(n)
}

/// Escapes a path segment or query value (a branch may hold `/` or `#`).
pub(super) fn encode_segment(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn file(bytes: &[u8]) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn the_blob_sha_is_git_s() {
        // printf 'hello\n' | git hash-object --stdin
        let file = file(b"xxhello\nyy");
        let source = Source { file: &file, offset: 2, len: 6 };
        assert_eq!(git_blob_sha1(&source).unwrap(), "ce013625030ba8dba906f756967f9e9ca394464a");
    }

    #[tokio::test]
    async fn the_body_has_the_promised_length_and_contents() {
        for len in [0, 1, 2, 3, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let file = file(&bytes);
            let put = put("s/a", Some("b"), &Source { file: &file, offset: 0, len: len as u64 }).unwrap();
            let body = put.body.collect().await.unwrap().to_bytes();
            assert_eq!(body.len() as u64, put.len);
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(json["branch"], "b");
            assert_eq!(STANDARD.decode(json["content"].as_str().unwrap()).unwrap(), bytes);
        }
    }

    #[test]
    fn branches_are_escaped() {
        assert_eq!(encode_segment("ring/a#1?"), "ring%2Fa%231%3F");
    }
}
