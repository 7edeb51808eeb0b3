//! Cursors of positions: what clients are told.

use super::Shared;
use super::eras::Eras;
use crate::event::{Cursor, Event, Place, Position};
use std::sync::Arc;

/// Makes cursors of positions.
#[derive(Clone)]
pub struct Cursors {
    pub(super) eras: Arc<Eras>,
    pub(super) shared: Arc<Shared>,
}

impl Cursors {
    /// The cursor of a client that has everything up to this position. On a bus of several shards the log is read
    /// if the position is none of the newest.
    pub fn of(&self, position: Position) -> Cursor {
        self.eras.cursor(position, self.shared.meta.epoch).unwrap_or_else(|stretch| {
            let marks = self.shared.marks_at(&stretch, position).unwrap_or_else(|_| {
                // Less than the client has means that it gets something again, under the same id.
                tracing::error!("the log cannot be read to say how far the shards of the bus had come");
                stretch.begin.clone()
            });
            Cursor { place: Place::Marks(marks), ..Cursor::at(stretch.epoch, position) }
        })
    }

    /// The same of a client that has everything up to this event, which knows how far the shards of its bus had
    /// been read with it.
    pub fn of_event(&self, event: &Event) -> Cursor {
        let own = self.shared.meta.epoch;
        match (self.eras.cursor(event.position, own), event.marks()) {
            (Ok(cursor), _) => cursor,
            (Err(stretch), Some(marks)) => {
                Cursor { place: Place::Marks(marks.clone()), ..Cursor::at(stretch.epoch, event.position) }
            }
            (Err(_), None) => self.of(event.position),
        }
    }
}
