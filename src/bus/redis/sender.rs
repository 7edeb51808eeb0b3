//! Puts parcels on a stream.

use super::RedisAddress;
use super::entry_id::EntryId;
use super::error::{refusal, send_error};
use super::server::text;
use crate::bus::backend::{Parcel, SendError, SendFailure, Sender};
use crate::bus::envelope;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use std::time::Duration;

/// Largest event that is put on a stream. Redis takes more, but is busy with nothing else meanwhile.
const MAX_EVENT_BYTES: usize = 64 << 20;

/// Puts parcels on a stream, a batch at a time: all of it is on the stream, or nothing.
pub struct StreamSender {
    connection: MultiplexedConnection,
    address: RedisAddress,
    events: String,
    retention: Duration,
    /// The server's clock as last seen, in ms: nodes' clocks may differ, and each would trim by its own.
    server_ms: u64,
}

impl StreamSender {
    pub(super) fn new(
        connection: MultiplexedConnection,
        address: RedisAddress,
        events: &str,
        retention: Duration,
        server_ms: u64,
    ) -> Self {
        Self { connection, address, events: events.to_owned(), retention, server_ms }
    }

    /// One transaction: where Redis refuses an entry (out of memory, say) and takes the next one, the order of
    /// a channel would be lost.
    fn transaction(&self, parcels: &[Parcel]) -> Pipeline {
        let retention_ms = u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX);
        let oldest = self.server_ms.saturating_sub(retention_ms);
        let mut pipeline = Pipeline::with_capacity(parcels.len() + 2);
        // Not by the library's `atomic`, which cannot count when this is what Redis refuses.
        pipeline.cmd("MULTI");
        for (index, parcel) in parcels.iter().enumerate() {
            let command = pipeline.cmd("XADD").arg(&self.events).arg("NOMKSTREAM");
            // Trimming looks for whole blocks that are too old; once for each batch keeps up with any rate.
            if index == 0 {
                command.arg("MINID").arg("~").arg(oldest);
            }
            command.arg("*");
            let (fields, payload) = envelope::fields(parcel);
            for (name, text) in &fields {
                command.arg(*name).arg(&**text);
            }
            if let Some(payload) = payload {
                command.arg("data").arg(payload);
            }
        }
        pipeline.cmd("EXEC");
        pipeline
    }

    async fn send_all(&mut self, parcels: &[Parcel]) -> Result<(), SendFailure> {
        if parcels.is_empty() {
            return Ok(());
        }
        let pipeline = self.transaction(parcels);
        let answers = self.connection.send_packed_commands(&pipeline, 0, parcels.len() + 2).await;
        let failed = |confirmed, error| Err(SendFailure { confirmed, error });
        let mut answers = match answers {
            Ok(answers) => answers,
            Err(error) => return failed(0, send_error(&self.address, error)),
        };
        // Each answer but the last one says that a command waits for the transaction's end, or why there will be none.
        let refused = answers.iter().find_map(|answer| match answer {
            Value::ServerError(error) => Some(error),
            _ => None,
        });
        if let Some(error) = refused {
            return failed(0, refusal(&self.address, error));
        }
        let results = match answers.pop() {
            Some(Value::Array(results)) if results.len() == parcels.len() => results,
            _ => {
                let why = format!("Redis at {} answers a transaction with something else", self.address);
                return failed(0, SendError::Lost(why));
            }
        };
        for (confirmed, result) in results.into_iter().enumerate() {
            match result {
                Value::Nil => {
                    let why = format!("the stream on Redis at {} is gone", self.address);
                    return failed(confirmed, SendError::Gone(why));
                }
                Value::ServerError(error) => return failed(confirmed, refusal(&self.address, &error)),
                result => {
                    if let Some(id) = text(&result).and_then(EntryId::parse) {
                        self.server_ms = id.ms;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Sender for StreamSender {
    async fn send(&mut self, parcels: &[Parcel]) -> Result<(), SendFailure> {
        let unfit = parcels.iter().position(|parcel| size(parcel) > MAX_EVENT_BYTES);
        self.send_all(&parcels[..unfit.unwrap_or(parcels.len())]).await?;
        match unfit {
            None => Ok(()),
            Some(confirmed) => {
                let why = format!("an event on Redis has at most {MAX_EVENT_BYTES} bytes");
                Err(SendFailure { confirmed, error: SendError::Unfit(why) })
            }
        }
    }

    fn max_event_bytes(&self) -> usize {
        MAX_EVENT_BYTES
    }
}

/// About the bytes that it takes: all else of an event is bounded and small.
fn size(parcel: &Parcel) -> usize {
    match parcel {
        Parcel::Event { event, .. } => event.data.len(),
        Parcel::Probe { .. } => 0,
    }
}
