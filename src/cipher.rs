//! What is kept on the disk, encrypted: keys from a file, and a key derived from them for each part that is
//! written. The only place that encrypts.
//!
//! A part (a journal, a packed piece of the log, a segment of the outbox) begins with a fresh random salt. Its own
//! key is derived from that (HKDF-SHA256), and what is in it is encrypted with AES-256-GCM under numbers that
//! count up and never repeat within the part. What a piece of it is about, such as its place, is authenticated with
//! it, so that no piece can stand for another. Salt and the id of the key stand beside it in the clear: the *lock*.

mod key_file;
mod keyring;

pub use key_file::KeyFileError;
pub use keyring::{Keyring, MissingKey};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::io;

/// Bytes of a [`Lock`].
pub const LOCK_BYTES: usize = KEY_ID_BYTES + SALT_BYTES;
/// Bytes that encryption adds.
pub const TAG_BYTES: usize = 16;
const KEY_ID_BYTES: usize = 8;
const SALT_BYTES: usize = 16;

/// Names a key without giving anything of it away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; KEY_ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a part is encrypted with, as it stands beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lock {
    /// The key that the part's own one is derived from.
    pub key: KeyId,
    salt: [u8; SALT_BYTES],
}

impl Lock {
    /// The bytes that stand beside the part.
    pub fn to_bytes(self) -> [u8; LOCK_BYTES] {
        let mut bytes = [0; LOCK_BYTES];
        bytes[..KEY_ID_BYTES].copy_from_slice(&self.key.0);
        bytes[KEY_ID_BYTES..].copy_from_slice(&self.salt);
        bytes
    }

    /// Takes such bytes.
    pub fn from_bytes(bytes: &[u8; LOCK_BYTES]) -> Self {
        let mut lock = Self { key: KeyId([0; KEY_ID_BYTES]), salt: [0; SALT_BYTES] };
        lock.key.0.copy_from_slice(&bytes[..KEY_ID_BYTES]);
        lock.salt.copy_from_slice(&bytes[KEY_ID_BYTES..]);
        lock
    }
}

/// What a part is. One of a kind can never be taken for one of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// A journal of the log.
    Journal,
    /// A packed piece of the log.
    Fold,
    /// The log's note of deletions.
    Deletions,
    /// A segment of the outbox.
    Segment,
    /// An event that the bus refused.
    Rejected,
}

impl Part {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Journal => b"sidewire journal",
            Self::Fold => b"sidewire fold",
            Self::Deletions => b"sidewire deletions",
            Self::Segment => b"sidewire segment",
            Self::Rejected => b"sidewire rejected",
        }
    }
}

/// Encrypts and decrypts what is in one part.
pub struct Cipher {
    lock: Lock,
    key: LessSafeKey,
}

impl Cipher {
    fn new(secret: &[u8], lock: Lock, part: Part) -> io::Result<Self> {
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, &lock.salt).extract(secret);
        let labels = [part.label()];
        let key = derived.expand(&labels, &AES_256_GCM).map_err(|_| refused("a key cannot be derived"))?;
        Ok(Self { lock, key: LessSafeKey::new(key.into()) })
    }

    /// What stands beside the part.
    pub fn lock(&self) -> Lock {
        self.lock
    }

    /// Encrypts what stands in `out` from `begin` on, in place, and appends its tag. No two pieces of a part may
    /// have the same number. `about` must be the same when it is opened.
    pub fn seal(&self, number: u64, about: &[u8], out: &mut Vec<u8>, begin: usize) -> io::Result<()> {
        let bytes = out.get_mut(begin..).ok_or_else(|| refused("there is nothing to encrypt"))?;
        let tag = self.key.seal_in_place_separate_tag(nonce(number), Aad::from(about), bytes);
        out.extend_from_slice(tag.map_err(|_| refused("it is too much to encrypt at once"))?.as_ref());
        Ok(())
    }

    /// Decrypts what was sealed; none if it is not that, or not under this number and about this.
    pub fn open(&self, number: u64, about: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = sealed.to_vec();
        let length = self.key.open_in_place(nonce(number), Aad::from(about), &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher").field("lock", &self.lock).finish_non_exhaustive()
    }
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn fresh_salt() -> io::Result<[u8; SALT_BYTES]> {
    let mut salt = [0; SALT_BYTES];
    SystemRandom::new().fill(&mut salt).map_err(|_| refused("the system gives no random bytes"))?;
    Ok(salt)
}

fn refused(why: &'static str) -> io::Error {
    io::Error::other(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_as_what_it_is() {
        let keyring = Keyring::for_tests(&[1]);
        let cipher = keyring.begin(Part::Journal).unwrap().unwrap();
        let mut out = b"head".to_vec();
        out.extend_from_slice(b"secret");
        cipher.seal(7, b"place", &mut out, 4).unwrap();
        assert!(out.starts_with(b"head") && !out.windows(6).any(|bytes| bytes == b"secret"));
        assert_eq!(out.len(), 4 + 6 + TAG_BYTES);
        let lock = Lock::from_bytes(&cipher.lock().to_bytes());
        assert_eq!(lock, cipher.lock());
        let again = keyring.cipher(lock, Part::Journal).unwrap();
        assert_eq!(again.open(7, b"place", &out[4..]).as_deref(), Some(&b"secret"[..]));
        assert_eq!(again.open(8, b"place", &out[4..]), None);
        assert_eq!(again.open(7, b"other", &out[4..]), None);
        assert_eq!(keyring.cipher(lock, Part::Fold).unwrap().open(7, b"place", &out[4..]), None);
        let other = keyring.begin(Part::Journal).unwrap().unwrap();
        assert_eq!(other.open(7, b"place", &out[4..]), None, "each part has a key of its own");
        for at in 4..out.len() {
            let mut flipped = out.clone();
            flipped[at] ^= 1;
            assert_eq!(again.open(7, b"place", &flipped[4..]), None);
        }
        assert_eq!(again.open(7, b"place", b""), None);
    }
}
