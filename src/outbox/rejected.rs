//! Events that the bus will never take: one JSON line each in a file that an operator can read. Where the disk is
//! encrypted a line says when and why, and has the whole line encrypted in it: `sidewire log rejected` shows it.

use super::directory;
use super::record;
use crate::cipher::{KeyId, Keyring, LOCK_BYTES, Lock, MissingKey, Part};
use crate::event::UnixMs;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const FILE: &str = "rejected.ndjson";
const OLDER_FILE: &str = "rejected.1.ndjson";
/// Both, the older one first.
pub(super) const FILES: [&str; 2] = [OLDER_FILE, FILE];
/// At this size the file takes the place of the older one, which goes.
const MOST_BYTES: u64 = 16 << 20;

/// The file of rejected events.
#[derive(Debug)]
pub(super) struct Rejected {
    dir: PathBuf,
    keyring: Keyring,
    most_bytes: u64,
}

impl Rejected {
    pub(super) fn new(dir: &Path, keyring: &Keyring) -> Self {
        Self { dir: dir.to_owned(), keyring: keyring.clone(), most_bytes: MOST_BYTES }
    }

    #[cfg(test)]
    pub(super) fn bounded(dir: &Path, most_bytes: u64) -> Self {
        Self { dir: dir.to_owned(), keyring: Keyring::none(), most_bytes }
    }

    /// Adds a record, durable on return.
    pub(super) fn add(&self, record: &[u8], why: &str) -> io::Result<()> {
        let line = self.line(record, why)?;
        let path = self.dir.join(FILE);
        let mut file = directory::open_file(&path)?;
        let mut end = file.seek(SeekFrom::End(0))?;
        if end > 0 && end + line.len() as u64 > self.most_bytes {
            fs::rename(&path, self.dir.join(OLDER_FILE))?;
            file = directory::open_file(&path)?;
            end = 0;
        }
        if let Err(error) = file.write_all(line.as_bytes()).and_then(|()| file.sync_data()) {
            // Half a line would spoil the next.
            let _ = file.set_len(end);
            return Err(error);
        }
        if end == 0 {
            directory::sync(&self.dir)?;
        }
        Ok(())
    }
}

/// A line of an encrypted file.
#[derive(serde::Serialize, serde::Deserialize)]
struct SealedLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<UnixMs>,
    #[serde(borrow)]
    why: Cow<'a, str>,
    #[serde(rename = "$encrypted", borrow)]
    encrypted: Cow<'a, str>,
}

/// What an encrypted line is bound to.
const ABOUT: &[u8] = b"line";

impl Rejected {
    fn line(&self, record: &[u8], why: &str) -> io::Result<String> {
        // One that does not open is kept as it is.
        let body = match record::body(record, &self.keyring) {
            Ok(body) => body,
            Err(_) => Cow::Borrowed(record.get(record::HEAD_BYTES..).unwrap_or_default()),
        };
        let plain = line(&body, why);
        let Some(sealed) = self.keyring.seal_whole(Part::Rejected, ABOUT, plain.as_bytes())? else {
            return Ok(plain);
        };
        let time = record::Head::parse(record).map(|head| head.time);
        let sealed = SealedLine { time, why: why.into(), encrypted: STANDARD.encode(sealed).into() };
        Ok(serde_json::to_string(&sealed)? + "\n")
    }
}

/// Why refused events cannot be read.
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

/// See [`super::Outbox::rejected`].
pub(super) fn read(
    dir: &Path,
    keyring: &Keyring,
    each: &mut dyn FnMut(&str) -> io::Result<()>,
) -> Result<(), RejectedError> {
    for name in FILES {
        let path = dir.join(name);
        let refused = |error| RejectedError::Io { path: path.clone(), error };
        for line in lines(&path).map_err(refused)? {
            let line = line.map_err(refused)?;
            match sealed(&line) {
                None => each(&line).map_err(RejectedError::Write)?,
                Some(sealed) => {
                    let opened = keyring
                        .open_whole(Part::Rejected, ABOUT, &sealed)
                        .map_err(|error| RejectedError::KeyMissing { path: path.clone(), error })?;
                    let opened = opened.and_then(|bytes| String::from_utf8(bytes).ok());
                    // One that was changed is shown as it is.
                    each(opened.as_deref().map_or(&*line, str::trim_end)).map_err(RejectedError::Write)?;
                }
            }
        }
    }
    Ok(())
}

/// The keys that lines of a file need.
pub(super) fn keys_of(path: &Path) -> io::Result<BTreeSet<KeyId>> {
    let mut keys = BTreeSet::new();
    for line in lines(path)? {
        let sealed = sealed(&line?);
        keys.extend(
            sealed
                .iter()
                .filter_map(|sealed| sealed.first_chunk::<LOCK_BYTES>())
                .map(|lock| Lock::from_bytes(lock).key),
        );
    }
    Ok(keys)
}

/// The lines of a file, which need not be there.
fn lines(path: &Path) -> io::Result<impl Iterator<Item = io::Result<String>>> {
    let file = match File::open(path) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(file.into_iter().flat_map(|file| BufReader::new(file).lines()))
}

/// What is encrypted in a line.
fn sealed(line: &str) -> Option<Vec<u8>> {
    let line: SealedLine<'_> = serde_json::from_str(line).ok()?;
    STANDARD.decode(&*line.encrypted).ok()
}

/// Works from the bare fields, so that a record that makes no event can be shown as well.
fn line(body: &[u8], why: &str) -> String {
    let (fields, payload) = record::split_fields(body).unwrap_or((Vec::new(), body));
    let mut object = Map::new();
    for &(name, text) in &fields {
        match name {
            "id" | "channel" | "event" | "origin" | "seq" => object.insert(name.into(), text.into()),
            "time" => {
                object.insert(name.into(), text.parse::<u64>().map_or_else(|_| text.into(), Value::from))
            }
            _ => None,
        };
    }
    object.insert("why".into(), why.into());
    let is_json = fields.contains(&("type", "json"));
    // The text stays as it came: reading its numbers could change them.
    let json = is_json.then(|| serde_json::from_slice::<&RawValue>(payload).ok()).flatten();
    let data = match json {
        Some(json) => json.get().replace(['\n', '\r'], " "),
        None => format!("{{\"$base64\":\"{}\"}}", STANDARD.encode(payload)),
    };
    let mut line = Value::Object(object).to_string();
    line.pop();
    line.push_str(",\"data\":");
    line.push_str(&data);
    line.push_str("}\n");
    line
}
