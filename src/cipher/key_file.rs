//! The file of keys.

use super::KeyId;
use super::keyring::{Key, Keys};
use crate::secret::{SecretError, SecretSource};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::hmac;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a key.
pub(super) const SECRET_BYTES: usize = 32;
/// Most keys of a file: one with more is something else.
const MOST_KEYS: usize = 64;
/// The first line of a file whose keys only decrypt.
const NO_MORE: &str = "none";

/// A key, with the id that follows from it.
pub(super) fn key(secret: [u8; SECRET_BYTES]) -> Key {
    let digest = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), b"sidewire key id");
    let mut id = KeyId([0; 8]);
    let length = id.0.len();
    id.0.copy_from_slice(&digest.as_ref()[..length]);
    Key { id, secret, is_removed: false }
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Keys, KeyFileError> {
    let meta = fs::metadata(path)
        .map_err(|error| SecretError::Unreadable { path: path.to_owned(), kind: error.kind() })?;
    if meta.mode() & 0o007 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode: meta.mode() & 0o777 });
    }
    let text = SecretSource::File(path.to_owned()).read()?;
    let mut keys = Keys::default();
    let mut encrypts = true;
    let lines = text.expose().lines().map(str::trim).enumerate();
    let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).peekable();
    if lines.next_if(|(_, line)| *line == NO_MORE).is_some() {
        encrypts = false;
    }
    for (place, line) in lines {
        let Some(secret) = secret(line) else {
            return Err(KeyFileError::Line { path: path.to_owned(), line: place + 1 });
        };
        let key = key(secret);
        if keys.all.iter().any(|known| known.id == key.id) {
            continue;
        }
        if keys.all.len() == MOST_KEYS {
            return Err(KeyFileError::TooMany(path.to_owned()));
        }
        keys.all.push(key);
    }
    if encrypts {
        keys.current = keys.all.first().map(|key| key.id);
        if keys.current.is_none() {
            return Err(KeyFileError::NoKey(path.to_owned()));
        }
    }
    Ok(keys)
}

fn secret(line: &str) -> Option<[u8; SECRET_BYTES]> {
    let mut secret = [0; SECRET_BYTES];
    if line.len() == 2 * SECRET_BYTES && line.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        for (byte, digits) in secret.iter_mut().zip(line.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        return Some(secret);
    }
    let bytes = STANDARD.decode(line).or_else(|_| STANDARD_NO_PAD.decode(line)).ok()?;
    bytes.try_into().ok()
}

/// Why a file gives no keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyFileError {
    /// It cannot be read, or holds nothing.
    File(SecretError),
    /// Every user of the host may read or change it.
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A line is no key.
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// No line is a key.
    NoKey(PathBuf),
    /// There are more keys than any file has.
    TooMany(PathBuf),
}

impl From<SecretError> for KeyFileError {
    fn from(error: SecretError) -> Self {
        Self::File(error)
    }
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Exposed { path, mode } => write!(
                f,
                "{} can be read or written by every user of this host (mode {mode:03o}): `chmod 600` it, and make a new \
                 key if others had access",
                path.display()
            ),
            Self::Line { path, line } => write!(
                f,
                "{} line {line} is no key: write 32 random bytes in hexadecimal or Base64, as `openssl rand -hex 32` prints",
                path.display()
            ),
            Self::NoKey(path) => write!(
                f,
                "{} has no key: write 32 random bytes in hexadecimal or Base64, as `openssl rand -hex 32` prints",
                path.display()
            ),
            Self::TooMany(path) => {
                write!(
                    f,
                    "{} has more than {MOST_KEYS} keys: remove those that `sidewire log stats` does not name",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for KeyFileError {}

#[cfg(test)]
mod tests {
    use super::super::Keyring;
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const HEX: &str = "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff";
    const BASE64: &str = "ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=";

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn keys_are_read_in_either_form_and_only_from_a_file_of_our_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        assert!(matches!(Keyring::load(&path), Err(KeyFileError::File(SecretError::Unreadable { .. }))));
        write(&path, HEX);
        let id = Keyring::load(&path).unwrap().current().unwrap();
        assert_eq!(id.to_string().len(), 16);
        assert!(!HEX.to_ascii_lowercase().contains(&id.to_string()));
        for same in [BASE64, BASE64.trim_end_matches('='), &format!("# new\n\n  {HEX} \r\n{BASE64}\n")] {
            write(&path, same);
            let keyring = Keyring::load(&path).unwrap();
            assert_eq!(keyring.current(), Some(id), "{same}");
            assert!(format!("{keyring:?}").len() < 20, "one key, and no more than its id");
        }
        for (text, line) in [("geheim", 1), (&format!("{HEX}\n{HEX}0"), 2), (&format!("{HEX}\nnone"), 2)] {
            write(&path, text);
            assert_eq!(Keyring::load(&path).err(), Some(KeyFileError::Line { path: path.clone(), line }));
        }
        write(&path, "# nothing\n");
        assert_eq!(Keyring::load(&path).err(), Some(KeyFileError::NoKey(path.clone())));
        write(&path, HEX);
        for mode in [0o604, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(Keyring::load(&path), Err(KeyFileError::Exposed { .. })));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        assert!(Keyring::load(&path).is_ok());
    }
}
