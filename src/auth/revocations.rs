//! Tokens that count no longer although they have not expired. They are kept in a file: a token that was revoked does
//! not come to life again with a restart.

use crate::event::UnixMs;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most tokens that are revoked at a time. A node that revokes more needs another key.
const MAX_REVOKED: usize = 100_000;
/// Lines of the file, beyond which it is written anew with those that still count.
const MAX_LINES: usize = 2 * MAX_REVOKED;

type Revoked = HashMap<Box<str>, UnixMs, foldhash::fast::RandomState>;

/// The ids of revoked tokens, each until it would expire by itself.
#[derive(Default)]
pub struct Revocations {
    revoked: Mutex<Revoked>,
    /// Apart from the ids, so that nobody who looks one up waits for the disk.
    store: Mutex<Option<Store>>,
}

/// Why a token is not revoked, or not for good.
#[derive(Debug)]
pub enum RevokeError {
    /// There are too many already.
    TooMany,
    /// It is revoked until the next start: the file cannot be written.
    NotKept(io::Error),
}

/// One line for each, `END ID`, the newest last. What was not written to its end is no line.
struct Store {
    path: PathBuf,
    file: File,
    lines: usize,
}

impl Revocations {
    /// Reads what was revoked before, and keeps what will be in the same file.
    pub fn open(path: &Path, now: UnixMs) -> io::Result<Self> {
        let text = match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut revoked = Revoked::default();
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            if let Some((end, id)) = line.split_once(' ')
                && let Ok(end) = end.parse::<UnixMs>()
                && end > now
            {
                let known = revoked.entry(id.into()).or_insert(end);
                *known = end.max(*known);
            }
        }
        let store = Store::write(path, &revoked)?;
        Ok(Self { revoked: Mutex::new(revoked), store: Mutex::new(Some(store)) })
    }

    /// Revokes a token until `end`. Waits for the disk.
    pub fn revoke(&self, token_id: &str, end: UnixMs, now: UnixMs) -> Result<(), RevokeError> {
        {
            let mut revoked = self.lock();
            if revoked.len() >= MAX_REVOKED && !revoked.contains_key(token_id) {
                revoked.retain(|_, end| *end > now);
                if revoked.len() >= MAX_REVOKED {
                    return Err(RevokeError::TooMany);
                }
            }
            let known = revoked.entry(token_id.into()).or_insert(end);
            *known = end.max(*known);
        }
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(store) = store.as_mut() else { return Ok(()) };
        if store.lines >= MAX_LINES {
            let kept = self.lock().clone();
            *store = Store::write(&store.path, &kept).map_err(RevokeError::NotKept)?;
            return Ok(());
        }
        store.append(token_id, end).map_err(RevokeError::NotKept)
    }

    /// Whether a token is revoked at `now`.
    pub fn contains(&self, token_id: &str, now: UnixMs) -> bool {
        self.lock().get(token_id).is_some_and(|end| *end > now)
    }

    fn lock(&self) -> MutexGuard<'_, Revoked> {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Writes the file in whole: a crash leaves the old one or the new one.
    fn write(path: &Path, revoked: &Revoked) -> io::Result<Self> {
        let unfinished = path.with_extension("unfinished");
        let mut text = String::new();
        for (id, end) in revoked {
            text += &format!("{end} {id}\n");
        }
        // What an earlier process left half-made must not be appended to.
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(Self { path: path.into(), file, lines: revoked.len() })
    }

    fn append(&mut self, token_id: &str, end: UnixMs) -> io::Result<()> {
        self.lines += 1;
        self.file.write_all(format!("{end} {token_id}\n").as_bytes())?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revoked_until_it_would_expire_and_no_longer() {
        let revocations = Revocations::default();
        revocations.revoke("a", 100, 0).unwrap();
        revocations.revoke("a", 50, 0).unwrap();
        assert!(revocations.contains("a", 99) && !revocations.contains("a", 100));
        assert!(!revocations.contains("b", 0));
    }

    #[test]
    fn there_is_room_again_when_some_have_expired() {
        let revocations = Revocations::default();
        for number in 0..MAX_REVOKED {
            revocations.revoke(&number.to_string(), if number == 0 { 10 } else { 100 }, 0).unwrap();
        }
        assert!(matches!(revocations.revoke("more", 100, 5), Err(RevokeError::TooMany)));
        assert!(revocations.revoke("more", 100, 10).is_ok());
    }

    #[test]
    fn what_is_revoked_stays_so_whatever_the_file_ends_with() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        let revocations = Revocations::open(&path, 0).unwrap();
        revocations.revoke("a token with spaces", 100, 0).unwrap();
        revocations.revoke("b", 20, 0).unwrap();
        drop(revocations);
        let mut text = fs::read(&path).unwrap();
        text.extend(b"no number\n\xff\xfe\n\n90 torn");
        fs::write(&path, text).unwrap();
        let again = Revocations::open(&path, 30).unwrap();
        assert!(again.contains("a token with spaces", 30) && !again.contains("b", 30));
        assert!(!again.contains("torn", 30));
        again.revoke("c", 200, 30).unwrap();
        drop(again);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        assert!(Revocations::open(&path, 150).unwrap().contains("c", 150));
    }
}
