//! Where a cursor of a bus with several shards leads. Every node has its own order between the shards, so such a
//! cursor names a position in each; its place here is the newest up to which a reader has nothing more than it
//! says.

use super::eras::Place;
use super::generation::Trouble;
use super::packed::PackedFold;
use super::view::Source;
use super::{ReadError, Shared};
use crate::event::{Cursor, Marks, Position};

impl Shared {
    /// Where a cursor points.
    pub(super) fn place_of(&self, cursor: &Cursor) -> Result<Place, ReadError> {
        let eras = self.eras();
        match &cursor.place {
            crate::event::Place::At(position) => Ok(eras.place(cursor.epoch, *position, self.meta.epoch)),
            crate::event::Place::Marks(_) if eras.bus() != Some(cursor.epoch) => Ok(Place::Elsewhere),
            crate::event::Place::Marks(marks) => self.place_of_marks(marks).map(Place::Current),
        }
    }

    /// The newest position up to which all events have marks within these; where there are more such events
    /// after others, these come later. Marks only grow in the order of the log, so it is found by halving.
    pub(super) fn place_of_marks(&self, marks: &Marks) -> Result<Position, ReadError> {
        let begin = self.eras().begin_of_current();
        let view = self.view();
        let head = self.head();
        let sources = &view.sources[view.sources.partition_point(|source| source.last() <= begin)..];
        let (mut low, mut high) = (0, sources.len());
        let mut place = head;
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_beyond(&sources[middle], marks, begin)? {
                Some(beyond) => (place, high) = (beyond.previous(), middle),
                None => low = middle + 1,
            }
        }
        Ok(place.max(begin).min(head))
    }

    /// The first event of a part with marks beyond these.
    fn first_beyond(
        &self,
        source: &Source,
        marks: &Marks,
        begin: Position,
    ) -> Result<Option<Position>, ReadError> {
        match source {
            Source::Memory(table) => Ok(table.first_where(|event| {
                event.position > begin && event.marks().is_some_and(|of_event| !of_event.is_within(marks))
            })),
            Source::Packed(packed) => match self.first_beyond_packed(packed, marks, begin) {
                Ok(found) => Ok(found),
                Err(Trouble::Unavailable | Trouble::Full) => Err(ReadError::Unavailable),
                // Readers find out, and are told what is lost with it.
                Err(Trouble::Broken | Trouble::Gone) => Ok(None),
            },
        }
    }

    fn first_beyond_packed(
        &self,
        packed: &PackedFold,
        marks: &Marks,
        begin: Position,
    ) -> Result<Option<Position>, Trouble> {
        let Some(directory) = self.directory_of(packed)? else { return Ok(None) };
        let (mut low, mut high) = (0, directory.blocks.len());
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(block) = self.block_of(packed, &directory, middle)? else {
                // Damaged: as if it had nothing. What is lost with it is told to who reads it.
                low = middle + 1;
                continue;
            };
            let beyond = block.entries.iter().position(|entry| {
                entry.position() > begin && {
                    let of_event = block.marks_of(entry);
                    of_event.len() == marks.shards()
                        && of_event.iter().zip(marks.positions()).any(|(own, other)| *own > other.0)
                }
            });
            match beyond {
                None => low = middle + 1,
                Some(at) => {
                    found = Some(block.entries[at].position());
                    high = middle;
                    if at > 0 {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }
}
