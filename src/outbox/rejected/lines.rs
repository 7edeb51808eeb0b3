//! The lines of the files of rejected events. Where the disk is encrypted a line says when and why, and has the whole
//! line encrypted in it.

use super::FILES;
use crate::cipher::{KeyId, Keyring, LOCK_BYTES, Lock, MissingKey, Part};
use crate::event::UnixMs;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

/// What an encrypted line is bound to.
const ABOUT: &[u8] = b"line";

#[derive(Serialize, Deserialize)]
struct SealedLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<UnixMs>,
    #[serde(borrow)]
    why: Cow<'a, str>,
    #[serde(rename = "$encrypted", borrow)]
    encrypted: Cow<'a, str>,
}

/// The line that stands for another where the disk is encrypted; none where it is not.
pub(super) fn seal(
    line: &str,
    time: Option<UnixMs>,
    why: &str,
    keyring: &Keyring,
) -> io::Result<Option<String>> {
    let Some(sealed) = keyring.seal_whole(Part::Rejected, ABOUT, line.as_bytes())? else { return Ok(None) };
    let sealed = SealedLine { time, why: why.into(), encrypted: STANDARD.encode(sealed).into() };
    Ok(Some(serde_json::to_string(&sealed)? + "\n"))
}

/// The line that another stands for. One that was changed since is given as it is.
pub(super) fn open<'a>(line: &'a str, keyring: &Keyring) -> Result<Cow<'a, str>, MissingKey> {
    let Some(sealed) = sealed(line) else { return Ok(line.into()) };
    let opened = keyring.open_whole(Part::Rejected, ABOUT, &sealed)?;
    let opened = opened.and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(opened.map_or(line.into(), |text| text.trim_end().to_owned().into()))
}

/// The lines of a file, which need not be there. What is no text is passed over.
pub(super) fn lines(path: &Path) -> io::Result<impl Iterator<Item = io::Result<String>>> {
    let file = match File::open(path) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let lines = file.into_iter().flat_map(|file| BufReader::new(file).split(b'\n'));
    Ok(lines.filter_map(|line| match line {
        Ok(bytes) => String::from_utf8(bytes).ok().map(Ok),
        Err(error) => Some(Err(error)),
    }))
}

/// See [`Outbox::rejected`](crate::outbox::Outbox::rejected).
pub(in crate::outbox) fn read(
    dir: &Path,
    keyring: &Keyring,
    take: &mut dyn FnMut(&str) -> io::Result<()>,
) -> Result<(), RejectedError> {
    for name in FILES {
        let path = &dir.join(name);
        let refused = |error| RejectedError::Io { path: path.clone(), error };
        let missing = |error| RejectedError::KeyMissing { path: path.clone(), error };
        for line in lines(path).map_err(refused)? {
            let line = line.map_err(refused)?;
            take(&open(&line, keyring).map_err(missing)?).map_err(RejectedError::Write)?;
        }
    }
    Ok(())
}

/// The keys that lines of a file need.
pub(in crate::outbox) fn keys_of(path: &Path) -> io::Result<BTreeSet<KeyId>> {
    let mut keys = BTreeSet::new();
    for line in lines(path)? {
        let sealed = sealed(&line?);
        let lock = sealed.as_ref().and_then(|sealed| sealed.first_chunk::<LOCK_BYTES>());
        keys.extend(lock.map(|lock| Lock::from_bytes(lock).key));
    }
    Ok(keys)
}

/// What is encrypted in a line.
fn sealed(line: &str) -> Option<Vec<u8>> {
    let line: SealedLine<'_> = serde_json::from_str(line).ok()?;
    STANDARD.decode(&*line.encrypted).ok()
}

/// Why rejected events cannot be read.
#[derive(Debug)]
pub enum RejectedError {
    /// A line is encrypted with a key that is not known.
    KeyMissing {
        /// The file.
        path: PathBuf,
        /// Which key, and which ones are known.
        error: MissingKey,
    },
    /// A file cannot be read.
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Whoever took the lines failed.
    Write(io::Error),
}

impl fmt::Display for RejectedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyMissing { path, error } => write!(f, "a line of {} {error}", path.display()),
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Write(error) => write!(f, "the events cannot be written: {error}"),
        }
    }
}

impl std::error::Error for RejectedError {}
