//! Tokens that count no longer although they have not expired. They are kept in a file: a token that was revoked does
//! not come to life again with a restart.

use crate::event::UnixMs;
use serde::{Deserialize, Serialize};
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
/// Longest `jti`.
const MAX_TOKEN_ID_BYTES: usize = 255;

type Revoked = HashMap<Box<str>, UnixMs, foldhash::fast::RandomState>;

/// A token that counts no longer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "(Box<str>, UnixMs)", into = "(Box<str>, UnixMs)")]
pub struct Revocation {
    token_id: Box<str>,
    end: UnixMs,
}

impl Revocation {
    /// Accepts ids of 1 to 255 bytes without control characters. At `end` the token would have expired by itself.
    pub fn new(token_id: &str, end: UnixMs) -> Option<Self> {
        let valid =
            (1..=MAX_TOKEN_ID_BYTES).contains(&token_id.len()) && !token_id.contains(char::is_control);
        valid.then(|| Self { token_id: token_id.into(), end })
    }

    /// The token's `jti`.
    pub fn token_id(&self) -> &str {
        &self.token_id
    }
}

impl TryFrom<(Box<str>, UnixMs)> for Revocation {
    type Error = &'static str;

    fn try_from((token_id, end): (Box<str>, UnixMs)) -> Result<Self, Self::Error> {
        Self::new(&token_id, end).ok_or("the id of a token has 1 to 255 bytes without control characters")
    }
}

impl From<Revocation> for (Box<str>, UnixMs) {
    fn from(revocation: Revocation) -> Self {
        (revocation.token_id, revocation.end)
    }
}

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

    /// Revokes a token. Waits for the disk.
    pub fn revoke(&self, revocation: &Revocation, now: UnixMs) -> Result<(), RevokeError> {
        self.enter(&mut self.lock(), revocation, now)?;
        self.keep(std::slice::from_ref(revocation))
    }

    /// The same for several of which another node told. Those that were news are in `fresh` whatever happens.
    pub fn learn(
        &self,
        told: Vec<Revocation>,
        now: UnixMs,
        fresh: &mut Vec<Revocation>,
    ) -> Result<(), RevokeError> {
        let mut entered = Ok(());
        {
            let mut revoked = self.lock();
            for revocation in told.into_iter().filter(|revocation| revocation.end > now) {
                if revoked.get(&revocation.token_id).is_some_and(|end| *end >= revocation.end) {
                    continue;
                }
                match self.enter(&mut revoked, &revocation, now) {
                    Ok(()) => fresh.push(revocation),
                    Err(error) => entered = Err(error),
                }
            }
        }
        if !fresh.is_empty() {
            self.keep(fresh)?;
        }
        entered
    }

    /// All that count at `now`.
    pub fn all(&self, now: UnixMs) -> Vec<Revocation> {
        let revoked = self.lock();
        let counting = revoked.iter().filter(|(_, end)| **end > now);
        counting.map(|(id, end)| Revocation { token_id: id.clone(), end: *end }).collect()
    }

    fn enter(&self, revoked: &mut Revoked, revocation: &Revocation, now: UnixMs) -> Result<(), RevokeError> {
        let Revocation { token_id, end } = revocation;
        if revoked.len() >= MAX_REVOKED && !revoked.contains_key(token_id) {
            revoked.retain(|_, end| *end > now);
            if revoked.len() >= MAX_REVOKED {
                return Err(RevokeError::TooMany);
            }
        }
        let known = revoked.entry(token_id.clone()).or_insert(*end);
        *known = *end.max(known);
        Ok(())
    }

    /// Writes what was entered.
    fn keep(&self, revocations: &[Revocation]) -> Result<(), RevokeError> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(store) = store.as_mut() else { return Ok(()) };
        if store.lines >= MAX_LINES {
            let kept = self.lock().clone();
            *store = Store::write(&store.path, &kept).map_err(RevokeError::NotKept)?;
            return Ok(());
        }
        store.append(revocations).map_err(RevokeError::NotKept)
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

    fn append(&mut self, revocations: &[Revocation]) -> io::Result<()> {
        self.lines += revocations.len();
        let lines: String =
            revocations.iter().map(|Revocation { token_id, end }| format!("{end} {token_id}\n")).collect();
        self.file.write_all(lines.as_bytes())?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation(token_id: &str, end: UnixMs) -> Revocation {
        Revocation::new(token_id, end).unwrap()
    }

    #[test]
    fn revoked_until_it_would_expire_and_no_longer() {
        let revocations = Revocations::default();
        revocations.revoke(&revocation("a", 100), 0).unwrap();
        revocations.revoke(&revocation("a", 50), 0).unwrap();
        assert!(revocations.contains("a", 99) && !revocations.contains("a", 100));
        assert!(!revocations.contains("b", 0));
    }

    #[test]
    fn there_is_room_again_when_some_have_expired() {
        let revocations = Revocations::default();
        for number in 0..MAX_REVOKED {
            revocations
                .revoke(&revocation(&number.to_string(), if number == 0 { 10 } else { 100 }), 0)
                .unwrap();
        }
        assert!(matches!(revocations.revoke(&revocation("more", 100), 5), Err(RevokeError::TooMany)));
        assert!(revocations.revoke(&revocation("more", 100), 10).is_ok());
    }

    #[test]
    fn what_is_revoked_stays_so_whatever_the_file_ends_with() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        let revocations = Revocations::open(&path, 0).unwrap();
        revocations.revoke(&revocation("a token with spaces", 100), 0).unwrap();
        revocations.revoke(&revocation("b", 20), 0).unwrap();
        drop(revocations);
        let mut text = fs::read(&path).unwrap();
        text.extend(b"no number\n\xff\xfe\n\n90 torn");
        fs::write(&path, text).unwrap();
        let again = Revocations::open(&path, 30).unwrap();
        assert!(again.contains("a token with spaces", 30) && !again.contains("b", 30));
        assert!(!again.contains("torn", 30));
        again.revoke(&revocation("c", 200), 30).unwrap();
        drop(again);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        assert!(Revocations::open(&path, 150).unwrap().contains("c", 150));
    }

    #[test]
    fn what_others_tell_is_news_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        let revocations = Revocations::open(&path, 0).unwrap();
        let told = || vec![revocation("a", 100), revocation("b", 20), revocation("c", 200)];
        let mut fresh = Vec::new();
        revocations.learn(told(), 30, &mut fresh).unwrap();
        assert_eq!(fresh, [revocation("a", 100), revocation("c", 200)]);
        fresh.clear();
        revocations.learn(told(), 30, &mut fresh).unwrap();
        assert_eq!(fresh, []);
        drop(revocations);
        let mut all = Revocations::open(&path, 30).unwrap().all(30);
        all.sort_by_key(|revocation| revocation.end);
        assert_eq!(all, [revocation("a", 100), revocation("c", 200)]);
    }

    #[test]
    fn an_id_that_would_forge_a_line_is_none() {
        for id in ["", "a\nb", "a\0", &"x".repeat(256)] {
            assert_eq!(Revocation::new(id, 1), None, "{id:?}");
            assert!(serde_json::from_value::<Revocation>(serde_json::json!([id, 1])).is_err());
        }
    }
}
