//! What one group of published events means to one feed.

use crate::codec::{Framing, Shown};
use crate::event::Position;
use bytes::{Bytes, BytesMut};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// How many framings there are.
const FRAMINGS: usize = Framing::MessagePackBody as usize + 1;

/// One or more consecutive events of a feed, written to a client in one piece where nothing is filtered out.
pub struct Batch {
    events: Box<[Arc<Shown>]>,
    footprint: usize,
    excludes: bool,
    accepted: Instant,
    joined: [OnceLock<Bytes>; FRAMINGS],
}

impl Batch {
    /// A batch of at least one event, in position order, the first of which was accepted at `accepted`.
    pub fn new(events: Vec<Arc<Shown>>, accepted: Instant) -> Self {
        debug_assert!(!events.is_empty() && events.is_sorted_by_key(|shown| shown.event.position));
        Self {
            // The frames are about as large as the event itself; both count.
            footprint: events.iter().map(|shown| 2 * shown.event.footprint() + 512).sum(),
            excludes: events.iter().any(|shown| shown.event.exclude.is_some()),
            accepted,
            events: events.into(),
            joined: Default::default(),
        }
    }

    /// The events, in position order.
    pub fn events(&self) -> &[Arc<Shown>] {
        &self.events
    }

    /// Position of the first event.
    pub fn first(&self) -> Position {
        self.events[0].event.position
    }

    /// Position of the last event.
    pub fn last(&self) -> Position {
        self.events[self.events.len() - 1].event.position
    }

    /// Whether some connection must not get some event of it.
    pub fn excludes(&self) -> bool {
        self.excludes
    }

    /// When the first event of its group was accepted from its publisher.
    pub fn accepted(&self) -> Instant {
        self.accepted
    }

    /// About how many bytes it takes in memory.
    pub fn footprint(&self) -> usize {
        self.footprint
    }

    /// All its frames one after the other, made once for all clients with this framing.
    pub fn joined(&self, framing: Framing) -> &[u8] {
        if let [only] = &*self.events {
            return only.frame(framing);
        }
        self.joined[framing as usize].get_or_init(|| {
            let length = self.events.iter().map(|shown| shown.frame(framing).len()).sum();
            let mut joined = BytesMut::with_capacity(length);
            for shown in &self.events {
                joined.extend_from_slice(shown.frame(framing));
            }
            joined.freeze()
        })
    }
}
