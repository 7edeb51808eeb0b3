//! What a client has got besides everything up to its position, and is not to get again: events that a node
//! showed it before the bus had ordered them, and, on a bus of several shards, what came earlier on the node
//! that it was on before.

use crate::event::{Cursor, EarlyRange, EarlyRanges, Event, Marks, Origin, Place, Sender};
use crate::hub::Hub;

/// What a cursor says besides its place in this log. Clients may send what they like: it spares their own client
/// events, and nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Had {
    early: EarlyRanges,
    marks: Option<Marks>,
}

impl Had {
    /// What a cursor says; none if that is nothing, as for nearly all.
    pub fn of(cursor: &Cursor) -> Option<Self> {
        let marks = match &cursor.place {
            Place::At(_) => None,
            Place::Marks(marks) => Some(marks.clone()),
        };
        Self { early: cursor.early.clone(), marks }.unless_empty()
    }

    fn unless_empty(self) -> Option<Self> {
        (!self.early.is_empty() || self.marks.is_some()).then_some(self)
    }

    /// The same in another log, in which no position of the one before means anything.
    pub fn without_marks(self) -> Option<Self> {
        Self { marks: None, ..self }.unless_empty()
    }

    /// What is left beside the events of one sender, and those: the newest stretch of them.
    pub fn split(mut self, origin: Option<Origin>) -> (Option<Self>, Option<EarlyRange>) {
        let own = self.early.iter().rposition(|range| Some(range.origin) == origin);
        let own = own.map(|at| self.early.remove(at));
        (self.unless_empty(), own)
    }

    /// Whether an event is among it.
    pub fn has(&self, event: &Event) -> bool {
        event.sender().is_some_and(|sender| self.has_of(sender)) || self.has_in_shard(event)
    }

    /// Whether an event stands in its shard where the client has been.
    pub fn has_in_shard(&self, event: &Event) -> bool {
        self.marks.as_ref().zip(event.marks()).is_some_and(|(had, of_event)| {
            had.shards() == of_event.shards() && of_event.of(&event.channel) <= had.of(&event.channel)
        })
    }

    /// Whether an event of a sender is among it.
    pub fn has_of(&self, sender: Sender) -> bool {
        self.early.iter().any(|range| range.has(sender))
    }

    /// Adds it to the cursor of a client.
    pub fn add_to(&self, cursor: &mut Cursor) {
        if let (Some(had), Place::Marks(marks)) = (&self.marks, &mut cursor.place) {
            *marks = marks.later(had);
        }
        cursor.early.extend(self.early.iter().copied());
    }

    /// Whether it no longer matters to a client that comes to the head as it is after this call.
    pub fn is_over(&self, hub: &Hub) -> bool {
        hub.has_shown(&self.early, self.marks.as_ref())
    }
}
