//! The keys, and the file that they stand in.

use super::{Cipher, KeyId, LOCK_BYTES, Lock, Part, fresh_salt};
use crate::secret::{SecretError, SecretSource};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::hmac;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

const SECRET_BYTES: usize = 32;
/// Most keys of a file: they are tried by no one, but a file with more is something else.
const MOST_KEYS: usize = 64;
/// The first line of a file whose keys only decrypt.
const NO_MORE: &str = "none";

/// The keys that are known. Clones are the same, also when the file is read again.
#[derive(Clone, Default)]
pub struct Keyring(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// None where no file is configured.
    path: Option<PathBuf>,
    keys: RwLock<Arc<Keys>>,
}

#[derive(Default)]
struct Keys {
    /// Encrypts what is new.
    current: Option<KeyId>,
    all: Vec<Key>,
}

struct Key {
    id: KeyId,
    secret: [u8; SECRET_BYTES],
    /// It is no longer in the file: it counts until this process ends.
    is_removed: bool,
}

impl Keyring {
    /// Without a key: nothing is encrypted, and what is cannot be read.
    pub fn none() -> Self {
        Self::default()
    }

    /// The keys of a file: one a line, 32 bytes in hexadecimal or Base64. The first encrypts, all decrypt. Empty lines
    /// and those that begin with `#` do not count. With `none` as the first, nothing new is encrypted.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let keys = RwLock::new(Arc::new(read(path)?));
        Ok(Self(Arc::new(Shared { path: Some(path.to_owned()), keys })))
    }

    /// Reads the file again: what is new is encrypted with what is its first key now. A key that is gone from it
    /// decrypts on until this process ends. Says whether anything has changed.
    pub fn reload(&self) -> Result<bool, KeyFileError> {
        let Some(path) = &self.0.path else { return Ok(false) };
        let mut fresh = read(path)?;
        let before = self.keys();
        let in_file =
            |keys: &Keys| keys.all.iter().filter(|key| !key.is_removed).map(|key| key.id).collect::<Vec<_>>();
        let is_changed = before.current != fresh.current || in_file(&before) != in_file(&fresh);
        for key in &before.all {
            if !fresh.all.iter().any(|known| known.id == key.id) {
                fresh.all.push(Key { is_removed: true, ..*key });
            }
        }
        *self.0.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(is_changed)
    }

    /// The key that encrypts what is new; none where nothing is encrypted.
    pub fn current(&self) -> Option<KeyId> {
        self.keys().current
    }

    /// Whether a key is known.
    pub fn has(&self, id: KeyId) -> bool {
        self.keys().all.iter().any(|key| key.id == id)
    }

    /// The keys that are no longer in the file, and would be missing after the next start.
    pub fn removed(&self) -> Vec<KeyId> {
        self.keys().all.iter().filter(|key| key.is_removed).map(|key| key.id).collect()
    }

    /// Begins a part: with a key of its own, or none where nothing is encrypted.
    pub fn begin(&self, part: Part) -> io::Result<Option<Cipher>> {
        let keys = self.keys();
        let Some(key) = keys.current.and_then(|id| keys.all.iter().find(|key| key.id == id)) else {
            return Ok(None);
        };
        Cipher::new(&key.secret, Lock { key: key.id, salt: fresh_salt()? }, part).map(Some)
    }

    /// For a part that was begun with this lock.
    pub fn cipher(&self, lock: Lock, part: Part) -> Result<Cipher, MissingKey> {
        let keys = self.keys();
        let key = keys.all.iter().find(|key| key.id == lock.key);
        key.and_then(|key| Cipher::new(&key.secret, lock, part).ok()).ok_or_else(|| self.missing(lock.key))
    }

    /// Something small, encrypted as a part of its own; as it is where nothing is encrypted.
    pub fn seal_whole(&self, part: Part, about: &[u8], bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let Some(cipher) = self.begin(part)? else { return Ok(None) };
        let mut out = cipher.lock().to_bytes().to_vec();
        out.extend_from_slice(bytes);
        cipher.seal(0, about, &mut out, LOCK_BYTES)?;
        Ok(Some(out))
    }

    /// Undoes [`Keyring::seal_whole`]; the inner `None` if it is something else.
    pub fn open_whole(&self, part: Part, about: &[u8], sealed: &[u8]) -> Result<Option<Vec<u8>>, MissingKey> {
        let Some((lock, rest)) = sealed.split_first_chunk::<LOCK_BYTES>() else { return Ok(None) };
        let cipher = self.cipher(Lock::from_bytes(lock), part)?;
        Ok(cipher.open(0, about, rest))
    }

    /// What to say where a key is missing.
    pub fn missing(&self, wanted: KeyId) -> MissingKey {
        let known = self.keys().all.iter().map(|key| key.id).collect();
        MissingKey { wanted, known, path: self.0.path.clone() }
    }

    fn keys(&self) -> Arc<Keys> {
        self.0.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// With keys that are made of one byte each; the first encrypts.
    #[cfg(test)]
    pub(crate) fn for_tests(bytes: &[u8]) -> Self {
        let all: Vec<_> = bytes.iter().map(|byte| key([*byte; SECRET_BYTES])).collect();
        let current = all.first().map(|key| key.id);
        Self(Arc::new(Shared { path: None, keys: RwLock::new(Arc::new(Keys { current, all })) }))
    }

    /// The same for keys that only decrypt.
    #[cfg(test)]
    pub(crate) fn only_decrypting(bytes: &[u8]) -> Self {
        let keyring = Self::for_tests(bytes);
        let all = bytes.iter().map(|byte| key([*byte; SECRET_BYTES])).collect();
        *keyring.0.keys.write().unwrap() = Arc::new(Keys { current: None, all });
        keyring
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys();
        f.debug_list().entries(keys.all.iter().map(|key| key.id)).finish()
    }
}

fn key(secret: [u8; SECRET_BYTES]) -> Key {
    let digest = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), b"sidewire key id");
    let mut id = KeyId([0; 8]);
    let length = id.0.len();
    id.0.copy_from_slice(&digest.as_ref()[..length]);
    Key { id, secret, is_removed: false }
}

fn read(path: &Path) -> Result<Keys, KeyFileError> {
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

/// A key that something was encrypted with is not known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MissingKey {
    /// Which.
    pub wanted: KeyId,
    /// Those that are.
    pub known: Vec<KeyId>,
    /// Where they are from.
    path: Option<PathBuf>,
}

impl fmt::Display for MissingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is encrypted with the key {}, ", self.wanted)?;
        match &self.path {
            None => f.write_str(
                "and no key is configured: name the file that has it with log.encryption_key_file",
            ),
            Some(path) => {
                write!(f, "and {} has ", path.display())?;
                if self.known.is_empty() {
                    f.write_str("none")?;
                }
                for (place, known) in self.known.iter().enumerate() {
                    write!(f, "{}{known}", if place == 0 { "only " } else { ", " })?;
                }
                f.write_str(": add the line with that key to it")
            }
        }
    }
}

impl std::error::Error for MissingKey {}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_reload_changes_what_encrypts_and_forgets_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let second = "22".repeat(SECRET_BYTES);
        write(&path, HEX);
        let keyring = Keyring::load(&path).unwrap();
        assert_eq!(keyring.reload(), Ok(false));
        let first = keyring.current().unwrap();
        let old = keyring.begin(Part::Fold).unwrap().unwrap().lock();
        write(&path, &second);
        assert_eq!(keyring.clone().reload(), Ok(true));
        assert_ne!(keyring.current(), Some(first));
        assert!(keyring.cipher(old, Part::Fold).is_ok());
        assert_eq!(keyring.removed(), [first]);
        write(&path, &format!("{second}\n{HEX}"));
        assert_eq!(keyring.reload(), Ok(true));
        assert_eq!(keyring.removed(), []);
        write(&path, &format!("none\n{second}\n{HEX}"));
        assert_eq!(keyring.reload(), Ok(true));
        assert!(keyring.current().is_none() && keyring.begin(Part::Fold).unwrap().is_none());
        write(&path, "no key");
        assert!(keyring.reload().is_err());
        assert!(keyring.has(first), "what was read before counts on");
    }

    #[test]
    fn a_missing_key_is_named_beside_those_that_are_there() {
        let lock = Keyring::for_tests(&[1]).begin(Part::Segment).unwrap().unwrap().lock();
        let error = Keyring::none().cipher(lock, Part::Segment).unwrap_err();
        let words = error.to_string();
        assert!(words.contains(&lock.key.to_string()) && words.contains("no key is configured"), "{words}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        write(&path, HEX);
        let other = Keyring::load(&path).unwrap();
        let words = other.cipher(lock, Part::Segment).unwrap_err().to_string();
        for part in [lock.key.to_string(), other.current().unwrap().to_string(), path.display().to_string()] {
            assert!(words.contains(&part), "{words}");
        }
    }

    #[test]
    fn small_things_are_sealed_whole() {
        let keyring = Keyring::for_tests(&[1]);
        let sealed = keyring.seal_whole(Part::Deletions, b"here", b"secret").unwrap().unwrap();
        let opened = |keyring: &Keyring, about: &[u8]| keyring.open_whole(Part::Deletions, about, &sealed);
        assert_eq!(opened(&keyring, b"here"), Ok(Some(b"secret".to_vec())));
        assert_eq!(opened(&keyring, b"there"), Ok(None));
        assert!(opened(&Keyring::none(), b"here").is_err());
        assert_eq!(keyring.open_whole(Part::Deletions, b"here", b"short"), Ok(None));
        assert_eq!(Keyring::none().seal_whole(Part::Deletions, b"", b"x").unwrap(), None);
    }
}
