//! Looking for the events of an id among those that wait, and among those that were refused.

use super::{Entry, Outbox, ReadError, Refused};
use crate::event::{EventId, UnixMs};
use std::time::{Duration, Instant};

/// A search goes on no longer than this.
const LONGEST: Duration = Duration::from_secs(1);
/// Events read at once, and about how many bytes of them.
const EVENTS_AT_ONCE: usize = 256;
const BYTES_AT_ONCE: u64 = 1 << 20;

/// What became of an id in the outbox.
#[derive(Clone, Default, Debug)]
pub struct Sought {
    /// Its events that wait, one for each channel.
    pub waiting: Vec<Waiting>,
    /// Its events that the bus will never take.
    pub refused: Vec<Refused>,
    /// Only what was accepted before this time was looked at, as the search had lasted too long.
    pub looked_on_to: Option<UnixMs>,
}

/// An event that waits for the bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// The event and who sends it.
    pub entry: Entry,
    /// How many events wait before it.
    pub before: u64,
}

impl Outbox {
    /// The events of an id, from the oldest on, for a bounded time.
    pub fn seek(&self, id: &EventId) -> Result<Sought, ReadError> {
        let mut sought = self.seek_waiting(id)?;
        // After those that wait: one that is refused meanwhile is found here.
        sought.refused = self.0.rejected.of(id)?;
        Ok(sought)
    }

    fn seek_waiting(&self, id: &EventId) -> Result<Sought, ReadError> {
        let mut sought = Sought::default();
        let deadline = Instant::now() + LONGEST;
        let (mut last, mut before) = (None, 0);
        loop {
            let entries = self.read(last, EVENTS_AT_ONCE, BYTES_AT_ONCE)?;
            let Some((number, newest)) = entries.last() else { return Ok(sought) };
            let newest = newest.event.time;
            last = Some(*number);
            for (_, entry) in entries {
                if entry.event.id.as_str() == id.as_str() {
                    sought.waiting.push(Waiting { entry, before });
                }
                before += 1;
            }
            if Instant::now() >= deadline {
                sought.looked_on_to = Some(newest);
                return Ok(sought);
            }
        }
    }
}
