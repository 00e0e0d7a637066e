//! The master key: parsing, making, naming. A leaf: knows nothing of the rest.
//!
//! A key is a Fernet key (<https://github.com/fernet/spec>): 32 bytes, url-safe
//! base64. Several keys may be held for reading, which is how one is rotated;
//! the first one seals.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// The variable that holds the key when no config says where it is.
pub const DEFAULT_VARIABLE: &str = "AITHER_MASTER_KEY";

/// Written before the key bytes when the id is computed, so that the id says
/// nothing about any other hash of the key.
const ID_DOMAIN: &[u8] = b"offsite key id";

/// Accepts padded and unpadded text: both are seen on paper and in vaults.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One master key. Its bytes are wiped from memory when it is dropped, and it
/// has no `Debug` or `Display` that shows them.
#[derive(Clone)]
pub struct MasterKey {
    bytes: Zeroizing<[u8; 32]>,
}

impl MasterKey {
    /// A new random key from the system's generator.
    pub fn generate() -> Result<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut())
            .map_err(|source| Error::failed(format!("the system gave no random bytes: {source}")))?;
        Ok(Self { bytes })
    }

    /// The text form: url-safe base64, always padded (44 characters).
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(general_purpose::URL_SAFE.encode(self.bytes.as_ref()))
    }

    /// The public name of this key: the first 8 hex digits of SHA-256 over
    /// `offsite key id` and the 32 bytes.
    pub fn id(&self) -> KeyId {
        let digest = Sha256::new().chain_update(ID_DOMAIN).chain_update(self.bytes.as_ref()).finalize();
        KeyId(hex::encode(&digest[..4]))
    }

    /// The cipher of this key.
    pub(crate) fn fernet(&self) -> Result<fernet::Fernet> {
        fernet::Fernet::new(&self.text()).ok_or_else(|| Error::failed("the cipher refused the master key"))
    }
}

impl FromStr for MasterKey {
    type Err = Error;

    /// Reads a key as people paste it: white space anywhere around and missing
    /// padding are forgiven. The error never repeats what was given.
    fn from_str(text: &str) -> Result<Self> {
        let text: Zeroizing<String> = Zeroizing::new(text.split_whitespace().collect());
        let wrong = |what: String| {
            Error::usage(format!("this is not a master key: {what}")).hint(
                "a key is 44 characters of A-Z a-z 0-9 - _ ending in `=`; look for a mistyped or missing one",
            )
        };
        if let Some((at, _)) =
            text.char_indices().find(|(_, c)| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '=')))
        {
            return Err(wrong(format!("character {} is none of A-Z a-z 0-9 - _", at + 1)));
        }
        let decoded = LENIENT
            .decode(text.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| wrong(format!("it has {} characters and does not decode", text.len())))?;
        let bytes = <[u8; 32]>::try_from(decoded.as_slice())
            .map_err(|_| wrong(format!("it holds {} bytes instead of 32", decoded.len())))?;
        Ok(Self { bytes: Zeroizing::new(bytes) })
    }
}

/// The public name of a key: 8 hex digits. Not a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyId(String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The keys a run holds: at least one; the first seals, all of them open.
#[derive(Clone)]
pub struct Keyring {
    keys: Vec<MasterKey>,
}

impl Keyring {
    /// A ring that seals with `first` and opens with `first` and `others`.
    pub fn new(first: MasterKey, others: Vec<MasterKey>) -> Self {
        let mut keys = vec![first];
        for key in others {
            if keys.iter().all(|held| held.bytes.as_ref() != key.bytes.as_ref()) {
                keys.push(key);
            }
        }
        Self { keys }
    }

    /// Reads a ring from the texts that the places of the key held. Each may hold
    /// several keys, one per line or separated by commas.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut keys = Vec::new();
        for text in
            texts.into_iter().flat_map(|text| text.split(['\n', ','])).filter(|text| !text.trim().is_empty())
        {
            keys.push(text.parse()?);
        }
        let others = keys.split_off(keys.len().min(1));
        match keys.pop() {
            Some(first) => Ok(Self::new(first, others)),
            None => Err(Error::usage("no master key was given")),
        }
    }

    /// The key that seals.
    pub fn sealing(&self) -> &MasterKey {
        &self.keys[0]
    }

    /// Every key, the sealing one first.
    pub fn all(&self) -> &[MasterKey] {
        &self.keys
    }

    /// The ids of all keys, for messages: `a1b2c3d4, 9f8e7d6c`.
    pub fn ids(&self) -> String {
        self.keys.iter().map(|key| key.id().to_string()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn text_comes_back_padded_however_it_was_typed() {
        for typed in
            [KEY, &KEY[..43], &format!("  {KEY}\r\n"), "AAECAwQFBgcICQoL DA0ODxAREhMU FRYXGBkaGxwdHh8"]
        {
            assert_eq!(*typed.parse::<MasterKey>().unwrap().text(), KEY);
        }
    }

    #[test]
    fn the_id_is_the_documented_hash() {
        // python3 -c 'import hashlib; print(hashlib.sha256(b"offsite key id" + bytes(range(32))).hexdigest()[:8])'
        assert_eq!(KEY.parse::<MasterKey>().unwrap().id().to_string(), "4405f0eb");
    }

    #[test]
    fn what_is_not_a_key_is_refused_without_being_repeated() {
        for typed in [
            "",
            "hunter2hunter2",
            &KEY[..40],
            &format!("{KEY}AAAA"),
            "+//////////////////////////////////////////=",
        ] {
            let error = typed.parse::<MasterKey>().err().expect("refused");
            assert!(error.message().starts_with("this is not a master key"), "{error}");
            assert!(typed.is_empty() || !error.message().contains(typed));
        }
    }

    #[test]
    fn a_ring_holds_each_key_once_and_seals_with_the_first() {
        let first = MasterKey::generate().unwrap();
        let second: MasterKey = KEY.parse().unwrap();
        let ring = Keyring::new(first.clone(), vec![second.clone(), first.clone(), second]);
        assert_eq!(ring.all().len(), 2);
        assert_eq!(ring.sealing().id(), first.id());
        let texts = [format!("{}\n{KEY}", *first.text()), format!("{KEY},")];
        let parsed = Keyring::parse(texts.iter().map(String::as_str)).unwrap();
        assert_eq!(parsed.ids(), ring.ids());
        assert!(Keyring::parse(["\n , "]).is_err());
    }
}
