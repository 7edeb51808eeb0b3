//! Where subscriptions read, and what stands where in it.

use super::Had;
use crate::codec::Shown;
use crate::event::{Cursor, Event, Position};
use crate::hub::Hub;
use crate::log::{Log, ReadError};
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// Where subscriptions read.
pub struct Source {
    /// The live end.
    pub hub: Arc<Hub>,
    /// Everything that is kept.
    pub log: Log,
    /// What the bus does for the order of events.
    pub order: Order,
}

/// What the bus does for the order of events.
#[derive(Clone, Default)]
pub struct Order {
    /// Every node numbers events by itself, by the time of their arrival: a cursor of another node holds about.
    pub approximate: bool,
    /// Finds out whether this node has read everything that is on the bus. None where it is alone.
    pub proof: Option<Proof>,
}

/// Asks over the bus itself: true once what was on it when this was asked has been read here, false if that cannot be
/// found out now. No memory of this node can tell: a link that has just broken is not known to be broken.
pub type Proof = Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

impl Source {
    /// The cursor of a position in this log.
    pub fn cursor(&self, position: Position) -> Cursor {
        self.log.cursors().of(position)
    }

    /// The position that a cursor names, if it is one of this log. On a bus it may be one that this node has not
    /// come to yet.
    pub fn known_position(&self, cursor: &Cursor) -> Result<Option<Position>, ReadError> {
        Ok(self.log.position_of(cursor)?.filter(|position| self.is_known(*position)))
    }

    /// The same for who wants what comes before: where nodes have orders of their own, some of it may stand here
    /// behind the place that the cursor leads to.
    pub fn known_end(&self, cursor: &Cursor) -> Result<Option<Position>, ReadError> {
        Ok(self.log.end_of(cursor)?.filter(|position| self.is_known(*position)))
    }

    fn is_known(&self, position: Position) -> bool {
        position <= self.hub.head() || self.log.is_on_bus()
    }

    /// Leaves of a page what comes after the one cursor and before the other, wherever it stands here: a node may have
    /// an order of its own.
    pub fn keep_between(
        &self,
        events: &mut Vec<Arc<Event>>,
        after: Option<&Cursor>,
        before: Option<&Cursor>,
    ) {
        let cursors = self.log.cursors();
        if let Some((after, had)) = after.and_then(|after| Some((after, Had::of(after)?))) {
            events.retain(|event| cursors.of_event(event).epoch != after.epoch || !had.has(event));
        }
        // In one order everything before a place is had.
        if let Some((before, had)) = before.and_then(|before| Some((before, Had::of(before)?)))
            && before.position().is_none()
        {
            events.retain(|event| cursors.of_event(event).epoch != before.epoch || had.has(event));
        }
    }

    /// Events of the log as they are shown to clients.
    pub fn shown(&self, events: Vec<Arc<Event>>) -> Vec<Arc<Shown>> {
        let cursors = self.log.cursors();
        let shown = |event: Arc<Event>| {
            let cursor = cursors.of_event(&event);
            Arc::new(Shown::new(event, &cursor))
        };
        events.into_iter().map(shown).collect()
    }
}
