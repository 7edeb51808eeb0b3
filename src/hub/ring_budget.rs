//! The bound on all rings together: whatever the number of feeds, the oldest batches leave first.

use super::{Batch, Feed};
use crate::event::Position;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Every batch in some ring, oldest first.
#[derive(Default)]
pub(super) struct RingBudget {
    entries: VecDeque<Entry>,
    bytes: usize,
}

struct Entry {
    feed: Weak<Feed>,
    last: Position,
    bytes: usize,
    pushed: Instant,
}

impl RingBudget {
    pub(super) fn pushed(&mut self, feed: &Arc<Feed>, batch: &Batch, now: Instant) {
        self.bytes += batch.footprint();
        self.entries.push_back(Entry {
            feed: Arc::downgrade(feed),
            last: batch.last(),
            bytes: batch.footprint(),
            pushed: now,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Evicts until the rest fits and is young enough. A batch that its ring let go of earlier, or whose feed
    /// is gone, only leaves the account.
    pub(super) fn enforce(&mut self, total_bytes: usize, age: Duration, now: Instant) {
        while let Some(oldest) = self.entries.front() {
            if self.bytes <= total_bytes && now.saturating_duration_since(oldest.pushed) < age {
                break;
            }
            if let Some(feed) = oldest.feed.upgrade() {
                feed.evict(oldest.last);
            }
            self.bytes -= oldest.bytes;
            self.entries.pop_front();
        }
        if self.entries.is_empty() && self.entries.capacity() > 1024 {
            self.entries.shrink_to_fit();
        }
    }
}
