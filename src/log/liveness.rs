//! Whether an event that is on the disk still counts: not expired, not deleted, not beyond its channel's
//! number of events. Exact on every read, whenever the disk space itself is given back.

use super::Shared;
use super::deletions::Deletions;
use super::view::View;
use crate::event::{Channel, Event, Position, UnixMs};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Says of one event after the other whether it is alive, as of one moment.
pub(super) struct Liveness<'a> {
    shared: &'a Shared,
    view: Arc<View>,
    now: UnixMs,
    deletions: Arc<Deletions>,
    has_limits: bool,
    /// The floors of channels that were met.
    floors: HashMap<Channel, Position, foldhash::fast::RandomState>,
}

impl<'a> Liveness<'a> {
    /// As of now.
    pub(super) fn now(shared: &'a Shared, view: Arc<View>) -> Self {
        Self {
            shared,
            view,
            now: unix_ms(),
            deletions: shared.deletions(),
            has_limits: shared.options.rules.iter().any(|rule| rule.max_events.is_some()),
            floors: HashMap::default(),
        }
    }

    /// Whether the event still counts.
    pub(super) fn is_alive(&mut self, event: &Event) -> bool {
        !event.is_expired(self.now)
            && !self.deletions.cover(event)
            && (!self.has_limits || event.position >= self.floor(&event.channel))
    }

    fn floor(&mut self, channel: &Channel) -> Position {
        if let Some(floor) = self.floors.get(channel) {
            return *floor;
        }
        let most = self.shared.options.rule(channel).and_then(|rule| rule.max_events);
        let floor = most.map_or(Position::ZERO, |most| self.shared.floor_of(&self.view, channel, most));
        self.floors.insert(channel.clone(), floor);
        floor
    }
}

/// The wall clock.
pub(super) fn unix_ms() -> UnixMs {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
