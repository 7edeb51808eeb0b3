//! Publish requests into valid drafts: JSON, NDJSON, MessagePack, forms and CloudEvents.
//!
//! A body is read once. What cannot be an event never becomes one: each entry is either a [`Draft`] or an
//! [`EntryError`] that can be sent back as it is.
//!
//! **Several channels.** An event for several `channels` becomes one draft for each, in order. A given `id` is
//! the id of all of them, remembered for each channel apart: a retry is a duplicate on every channel, in
//! whatever order they are named, and none blocks another.
//!
//! **`Idempotency-Key`** is the id of a single event that has none in its body; the body's own `id` wins,
//! because it names the event and not the request. The events of a batch get `key>0`, `key>1`, ..: the same
//! batch sent again publishes nothing twice.

mod cloudevent;
mod collector;
mod error;
mod form;
mod id;
mod json;
mod media_type;
mod msgpack;
mod object;
mod raw;
mod ttl;

#[cfg(test)]
mod tests;

pub use error::{EntryError, IntakeError};
pub use json::read_message;
pub use raw::parse_raw;

use crate::event::Draft;
use bytes::Bytes;
use collector::Collector;
use hyper::HeaderMap;
use media_type::BodyForm;

/// What one request asks to publish.
#[derive(Debug)]
pub struct Intake {
    /// One entry for each event and channel, in the order of the request.
    pub entries: Vec<Result<Draft, EntryError>>,
    /// Whether the request was one event for one channel: the reply is then that entry alone, no list.
    pub single: bool,
}

/// How much one request may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IntakeLimits {
    /// Most bytes of one event's data, as the publisher sent it.
    pub event_bytes: usize,
    /// Most entries of one request: events, each counted once for each of its channels.
    pub entries: usize,
    /// Most bytes of data that one request may turn into: a large event for many channels is copied for each.
    pub total_bytes: usize,
}

impl Default for IntakeLimits {
    fn default() -> Self {
        Self { event_bytes: 1 << 20, entries: 10_000, total_bytes: 32 << 20 }
    }
}

/// Reads the body of `POST /v1/publish`. An `Err` refuses the whole request: nothing of it is published.
pub fn parse(
    content_type: Option<&str>,
    headers: &HeaderMap,
    body: &Bytes,
    limits: &IntakeLimits,
) -> Result<Intake, IntakeError> {
    let key = id::idempotency_key(headers)?;
    let mut collector = Collector::new(limits, key);
    if cloudevent::is_binary(content_type, headers) {
        cloudevent::read_binary(content_type, headers, body, &mut collector)?;
        return collector.finish();
    }
    match BodyForm::of(content_type, body)? {
        BodyForm::Json => json::read_body(body, &mut collector),
        BodyForm::Lines => json::read_lines(body, &mut collector),
        BodyForm::MessagePack => msgpack::read_body(body, &mut collector),
        BodyForm::Form => form::read_body(body, &mut collector),
        BodyForm::CloudEvent => cloudevent::read_structured(body, &mut collector),
        BodyForm::CloudEventBatch => cloudevent::read_batch(body, &mut collector),
    }?;
    collector.finish()
}
