//! The keys that are known.

use super::key_file::{self, KeyFileError, SECRET_BYTES};
use super::{Cipher, KeyId, LOCK_BYTES, Lock, Part, fresh_salt};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

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
pub(super) struct Keys {
    /// Encrypts what is new.
    pub(super) current: Option<KeyId>,
    pub(super) all: Vec<Key>,
}

/// A key.
pub(super) struct Key {
    pub(super) id: KeyId,
    pub(super) secret: [u8; SECRET_BYTES],
    /// It is no longer in the file: it counts until this process ends.
    pub(super) is_removed: bool,
}

impl Keyring {
    /// Without a key: nothing is encrypted, and what is cannot be read.
    pub fn none() -> Self {
        Self::default()
    }

    /// The keys of a file: one a line, 32 bytes in hexadecimal or Base64. The first encrypts, all decrypt. Empty lines
    /// and those that begin with `#` do not count. With `none` as the first, nothing new is encrypted.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let keys = RwLock::new(Arc::new(key_file::read(path)?));
        Ok(Self(Arc::new(Shared { path: Some(path.to_owned()), keys })))
    }

    /// Reads the file again: what is new is encrypted with what is its first key now. A key that is gone from it
    /// decrypts on until this process ends. Says whether anything has changed.
    pub fn reload(&self) -> Result<bool, KeyFileError> {
        let Some(path) = &self.0.path else { return Ok(false) };
        let mut fresh = key_file::read(path)?;
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
        let all: Vec<_> = bytes.iter().map(|byte| key_file::key([*byte; SECRET_BYTES])).collect();
        let current = all.first().map(|key| key.id);
        Self(Arc::new(Shared { path: None, keys: RwLock::new(Arc::new(Keys { current, all })) }))
    }

    /// The same for keys that only decrypt.
    #[cfg(test)]
    pub(crate) fn only_decrypting(bytes: &[u8]) -> Self {
        let keyring = Self::for_tests(bytes);
        let all = bytes.iter().map(|byte| key_file::key([*byte; SECRET_BYTES])).collect();
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
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    const HEX: &str = "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff";

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
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
