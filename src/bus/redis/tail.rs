//! Reads a stream as it grows.

use super::RedisAddress;
use super::entry_id::EntryId;
use super::error::link_error;
use super::server::text;
use crate::bus::backend::{Arrival, Content, LinkError, Start, Tail};
use crate::bus::envelope;
use crate::event::Position;
use bytes::Bytes;
use redis::Value;
use redis::aio::MultiplexedConnection;
use std::time::Duration;

/// How long a read waits on the server for something to come.
const BLOCK: Duration = Duration::from_secs(2);
/// After so long without an answer the server is frozen, or unreachable.
pub(super) const READ_ANSWER: Duration = Duration::from_secs(6);
/// About the most bytes of one read: whatever the size of events, memory stays bounded.
const READ_BYTES: usize = 4 << 20;
/// Entries of the first read, when nothing is known of their size.
const FIRST_READ: usize = 16;

/// Reads a stream entry by entry, and waits for more at its end.
pub struct StreamTail {
    connection: MultiplexedConnection,
    address: RedisAddress,
    events: String,
    /// What was read last.
    last: EntryId,
    /// Whether there was an entry with this id, so that it must still be there where nothing was trimmed.
    last_is_entry: bool,
    position: Position,
    retention: Duration,
    /// What an entry takes, on the average of late; 0 if nothing was read yet.
    entry_bytes: usize,
    odd_id_told: bool,
}

impl StreamTail {
    /// Reads after the id `after`, which an entry has (`last_is_entry`) or had.
    pub(super) fn new(
        connection: MultiplexedConnection,
        address: RedisAddress,
        events: String,
        after: EntryId,
        start: Start,
        last_is_entry: bool,
        retention: Duration,
    ) -> Self {
        let position = match start {
            Start::Gap { up_to } => up_to,
            Start::Anew { after } => after,
            Start::Continues | Start::Now => after.position(),
        };
        Self {
            connection,
            address,
            events,
            last: after,
            last_is_entry,
            position,
            retention,
            entry_bytes: 0,
            odd_id_told: false,
        }
    }

    fn count(&self, most: usize) -> usize {
        let fitting = match self.entry_bytes {
            0 => FIRST_READ,
            bytes => READ_BYTES / bytes,
        };
        fitting.clamp(1, most.max(1))
    }

    async fn ask(&mut self, command: &redis::Cmd) -> Result<Value, LinkError> {
        let answer = self.connection.send_packed_command(command).await.and_then(|value| match value {
            // Only the outermost level can be an error; the rest may be large.
            error @ Value::ServerError(_) => error.extract_error(),
            value => Ok(value),
        });
        answer.map_err(|error| link_error(&self.address, error))
    }

    async fn read(&mut self, count: usize) -> Result<Vec<(EntryId, Vec<Value>)>, LinkError> {
        let mut command = redis::cmd("XREAD");
        command.arg("BLOCK").arg(BLOCK.as_millis() as u64).arg("COUNT").arg(count);
        command.arg("STREAMS").arg(&self.events).arg(self.last.to_string());
        match self.ask(&command).await? {
            Value::Nil => Ok(Vec::new()),
            answer => entries(answer).ok_or_else(|| {
                LinkError::Refused(format!("Redis at {} answers a read with something else", self.address))
            }),
        }
    }

    /// Fails if the stream was trimmed past this reader: the entries that were read are then not the next ones.
    /// Opening anew says how much is gone.
    async fn see_that_nothing_was_trimmed(&mut self) -> Result<(), LinkError> {
        let id = self.last.to_string();
        let mut command = redis::cmd("XRANGE");
        command.arg(&self.events).arg(&id).arg(&id).arg("COUNT").arg(1);
        match self.ask(&command).await? {
            Value::Array(found) if found.is_empty() => Err(LinkError::Away(format!(
                "the stream on Redis at {} was trimmed before this node had read it",
                self.address
            ))),
            _ => Ok(()),
        }
    }

    fn arrival(&mut self, id: EntryId, fields: Vec<Value>) -> Arrival {
        let position = id.position();
        if EntryId::at(position) == id && position > self.position {
            self.position = position;
        } else {
            if !self.odd_id_told {
                self.odd_id_told = true;
                tracing::warn!(%id, "an entry on the bus has an id that no server gives by itself");
            }
            self.position = Position(self.position.0.saturating_add(1));
        }
        Arrival { position: Some(self.position), content: content(fields) }
    }
}

impl Tail for StreamTail {
    async fn next(&mut self, most: usize) -> Result<Vec<Arrival>, LinkError> {
        loop {
            let count = self.count(most);
            let entries = self.read(count).await?;
            let Some((newest, _)) = entries.last() else { continue };
            let newest = *newest;
            // Who is at the end cannot have been overtaken by what trims a stream by age.
            let age = Duration::from_millis(newest.ms.saturating_sub(self.last.ms));
            if self.last_is_entry && (entries.len() >= count || age >= self.retention) {
                self.see_that_nothing_was_trimmed().await?;
            }
            let bytes: usize = entries.iter().flat_map(|(_, fields)| fields).map(bytes_of).sum();
            self.entry_bytes = (bytes / entries.len()).max(1);
            let arrivals = entries.into_iter().map(|(id, fields)| self.arrival(id, fields)).collect();
            self.last = newest;
            self.last_is_entry = true;
            return Ok(arrivals);
        }
    }
}

/// The entries in an answer to `XREAD` of one stream: `[[key, [[id, [name, text, ..]], ..]]]`.
fn entries(answer: Value) -> Option<Vec<(EntryId, Vec<Value>)>> {
    let Value::Array(mut streams) = answer else { return None };
    let Value::Array(mut stream) = streams.pop()? else { return None };
    let Value::Array(entries) = stream.pop()? else { return None };
    let entry = |entry: Value| {
        let Value::Array(mut parts) = entry else { return None };
        let fields = match parts.pop()? {
            Value::Array(fields) => fields,
            _ => return None,
        };
        Some((EntryId::parse(text(parts.first()?)?)?, fields))
    };
    entries.into_iter().map(entry).collect()
}

fn bytes_of(field: &Value) -> usize {
    match field {
        Value::BulkString(bytes) => bytes.len(),
        _ => 0,
    }
}

/// Reads an entry. Fields that are not text are none of ours.
fn content(fields: Vec<Value>) -> Content {
    let mut payload = None;
    let mut texts: Vec<(String, String)> = Vec::with_capacity(fields.len() / 2);
    let mut fields = fields.into_iter();
    while let (Some(Value::BulkString(name)), Some(Value::BulkString(value))) = (fields.next(), fields.next())
    {
        if name == b"data" {
            payload = Some(Bytes::from(value));
        } else if let (Ok(name), Ok(value)) = (String::from_utf8(name), String::from_utf8(value)) {
            texts.push((name, value));
        }
    }
    let get = |name: &str| texts.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str());
    envelope::content(get, payload)
}
