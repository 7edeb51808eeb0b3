//! Events that the bus will never take: one JSON line each in a file that an operator can read. Where the disk is
//! encrypted a line says when and why, and has the whole line encrypted in it: `sidewire log rejected` shows it.

mod lines;

pub use lines::RejectedError;
pub(super) use lines::{keys_of, read};

use super::directory;
use super::record;
use crate::cipher::Keyring;
use crate::event::{Channel, EventId, EventName, UnixMs};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const FILE: &str = "rejected.ndjson";
const OLDER_FILE: &str = "rejected.1.ndjson";
/// Both, the older one first.
pub(super) const FILES: [&str; 2] = [OLDER_FILE, FILE];
/// At this size the file takes the place of the older one, which goes.
const MOST_BYTES: u64 = 16 << 20;

/// An event that the bus will never take, as the file tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Its channel; none if its record made no sense.
    pub channel: Option<Channel>,
    /// Its name, the same.
    pub name: Option<EventName>,
    /// When it was accepted, the same.
    pub time: Option<UnixMs>,
    /// Why it was refused.
    pub why: String,
}

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

    /// The events of an id, oldest first; lines that cannot be read are passed over.
    pub(super) fn of(&self, id: &EventId) -> io::Result<Vec<Refused>> {
        let mut found = Vec::new();
        for name in FILES {
            for line in lines::lines(&self.dir.join(name))? {
                let line = line?;
                let opened = lines::open(&line, &self.keyring);
                found.extend(opened.ok().and_then(|line| refused(&line, id)));
            }
        }
        Ok(found)
    }

    fn line(&self, record: &[u8], why: &str) -> io::Result<String> {
        // One that does not open is kept as it is.
        let body = match record::body(record, &self.keyring) {
            Ok(body) => body,
            Err(_) => Cow::Borrowed(record.get(record::HEAD_BYTES..).unwrap_or_default()),
        };
        let plain = line(&body, why);
        let time = record::Head::parse(record).map(|head| head.time);
        Ok(lines::seal(&plain, time, why, &self.keyring)?.unwrap_or(plain))
    }
}

/// What is looked at in a line, whatever else it holds.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    time: Option<UnixMs>,
    why: String,
}

/// The event of a line, if it has this id.
fn refused(line: &str, id: &EventId) -> Option<Refused> {
    let line: Line<'_> = serde_json::from_str(line).ok()?;
    (line.id? == id.as_str()).then(|| Refused {
        channel: line.channel.and_then(|text| Channel::parse(&text).ok()),
        name: line.event.and_then(|text| EventName::parse(&text).ok()),
        time: line.time,
        why: line.why,
    })
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
