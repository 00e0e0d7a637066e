use super::*;

fn workers() -> Workers {
    Workers::start().unwrap()
}

fn ring() -> Keyring {
    Keyring::new(MasterKey::generate().unwrap(), vec![])
}

fn seal(keys: &Keyring, bytes: &[u8]) -> Vec<u8> {
    let mut sealer = Sealer::new(keys.sealing(), Vec::new(), &workers()).unwrap();
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
    match Opener::new(keys, tokens, &workers())?.read_to_end(&mut out) {
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
        let tokens = if len <= BLOCK_BYTES { 1 } else { len.div_ceil(SHARE_BYTES) };
        assert_eq!(sealed.split(|b| *b == b'\n').count(), tokens);
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
    let mut opener = Opener::new(&keys, token.as_bytes(), &workers()).unwrap();
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
    let mut sealer = Sealer::new(ring().sealing(), Full, &workers()).unwrap();
    let error = sealer.write_all(&vec![0; 4 * BLOCK_BYTES]).map_err(|e| Error::from_io("x", e));
    let error = error.and_then(|()| sealer.finish().map(|_| ())).unwrap_err();
    assert!(error.message().contains("no storage space"), "{error}");
}
