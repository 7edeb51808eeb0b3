//! Whether an event that is on the disk still counts: not expired, not deleted, not beyond its channel's
//! number of events. Exact on every read, whenever the disk space itself is given back.

use super::Shared;
use super::deletions::Deletions;
use crate::event::{Event, UnixMs};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Says of one event after the other whether it is alive, as of one moment.
pub(super) struct Liveness<'a> {
    shared: &'a Shared,
    now: UnixMs,
    deletions: Arc<Deletions>,
}

impl<'a> Liveness<'a> {
    /// As of now.
    pub(super) fn now(shared: &'a Shared) -> Self {
        Self { shared, now: unix_ms(), deletions: shared.deletions() }
    }

    /// Whether the event still counts.
    pub(super) fn is_alive(&mut self, event: &Event) -> bool {
        let ttl = self.shared.options.ttl.as_millis() as u64;
        // The second test is for a limit that was lowered since the event came.
        !event.is_expired(self.now)
            && event.time.saturating_add(ttl) > self.now
            && !self.deletions.cover(event)
    }
}

/// The wall clock.
pub(super) fn unix_ms() -> UnixMs {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
