//! Gathers the entries of one request within its limits.

use super::error::{EntryError, IntakeError};
use super::{Intake, IntakeLimits, id};
use crate::event::{Channel, ConnectionId, Data, Draft, EventId, EventName, Tags, Ttl};
use std::borrow::Cow;

/// The channels of one event, unread.
pub(super) enum Channels<'a> {
    One(Cow<'a, str>),
    Several(Vec<Cow<'a, str>>),
}

/// All of an event but its channel.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) id: Option<EventId>,
    pub(super) name: EventName,
    pub(super) data: Data,
    pub(super) tags: Tags,
    pub(super) ttl: Ttl,
    pub(super) exclude: Option<ConnectionId>,
}

impl Common {
    /// The draft for one channel.
    pub(super) fn for_channel(self, channel: Channel) -> Draft {
        let Self { id, name, data, tags, ttl, exclude } = self;
        Draft { id, channel, name, data, tags, ttl, exclude, from: None }
    }
}

/// The entries so far.
pub(super) struct Collector<'l> {
    pub(super) limits: &'l IntakeLimits,
    key: Option<EventId>,
    batch: bool,
    events: usize,
    kept_bytes: usize,
    entries: Vec<Result<Draft, EntryError>>,
}

impl<'l> Collector<'l> {
    /// For a request with this `Idempotency-Key`.
    pub(super) fn new(limits: &'l IntakeLimits, key: Option<EventId>) -> Self {
        Self { limits, key, batch: false, events: 0, kept_bytes: 0, entries: Vec::new() }
    }

    /// From here on the request is a list, of whatever length: its reply is one as well.
    pub(super) fn begin_batch(&mut self, events: usize) {
        self.batch = true;
        self.entries.reserve_exact(events.min(self.limits.entries));
    }

    /// Adds an event that cannot be read at all.
    pub(super) fn refuse(&mut self, error: EntryError) -> Result<(), IntakeError> {
        self.events += 1;
        self.make_room(1)?;
        self.entries.push(Err(error));
        Ok(())
    }

    /// Adds an event, once for each of its channels. The name of the field with the channels is for errors.
    pub(super) fn add(
        &mut self,
        channels: Channels<'_>,
        field: &'static str,
        common: Result<Common, EntryError>,
    ) -> Result<(), IntakeError> {
        let number = self.events;
        self.events += 1;
        let mut common = match common {
            Ok(common) => common,
            Err(error) => {
                // In a list, the results stay one for each channel; alone, the request is simply wrong.
                let count = match &channels {
                    Channels::Several(names) if self.batch => names.len(),
                    _ => 1,
                };
                self.make_room(count)?;
                self.entries.extend(std::iter::repeat_n(Err(error), count));
                return Ok(());
            }
        };
        if common.id.is_none()
            && let Some(key) = &self.key
        {
            common.id = Some(if self.batch { id::of_part(key, &number.to_string()) } else { key.clone() });
        }
        let read = |text: &str| Channel::parse(text).map_err(|error| EntryError::channel(field, error));
        match channels {
            Channels::One(text) => {
                self.make_room(1)?;
                self.count_bytes(common.data.len(), 1)?;
                self.entries.push(read(&text).map(|channel| common.for_channel(channel)));
            }
            Channels::Several(names) => {
                self.make_room(names.len())?;
                self.count_bytes(common.data.len(), names.len())?;
                for text in &names {
                    self.entries.push(read(text).map(|channel| {
                        let mut common = common.clone();
                        if names.len() > 1 {
                            common.id = common.id.map(|id| id.on_channel(&channel));
                        }
                        common.for_channel(channel)
                    }));
                }
            }
        }
        Ok(())
    }

    /// The request, if there is anything in it.
    pub(super) fn finish(self) -> Result<Intake, IntakeError> {
        if self.entries.is_empty() {
            return Err(EntryError::bad("invalid_event", "there is no event in the body: send at least one"));
        }
        Ok(Intake { single: !self.batch && self.entries.len() == 1, entries: self.entries })
    }

    fn make_room(&self, more: usize) -> Result<(), IntakeError> {
        if self.entries.len() + more > self.limits.entries { Err(too_many(self.limits)) } else { Ok(()) }
    }

    /// A request of a few megabytes must not become gigabytes by naming thousands of channels.
    fn count_bytes(&mut self, bytes: usize, channels: usize) -> Result<(), IntakeError> {
        self.kept_bytes = self.kept_bytes.saturating_add(bytes.saturating_mul(channels));
        if self.kept_bytes > self.limits.total_bytes {
            return Err(EntryError::too_large(format!(
                "the data of all events, counted for each channel, is above {} bytes: split the request",
                self.limits.total_bytes
            )));
        }
        Ok(())
    }
}

/// More entries than a request may have.
pub(super) fn too_many(limits: &IntakeLimits) -> IntakeError {
    EntryError::too_large(format!(
        "a request takes at most {} events, each counted for each channel: split it",
        limits.entries
    ))
}
