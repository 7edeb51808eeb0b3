//! Where a cursor of a bus with several shards leads. Every node has its own order between the shards, so such a
//! cursor names a position in each; its place here is the newest up to which a reader has nothing more than it
//! says. Marks only grow in the order of the log, so places are found by halving.

use super::eras::{self, Stretch};
use super::generation::Trouble;
use super::packed::PackedFold;
use super::view::Source;
use super::{ReadError, Shared, lock};
use crate::event::{Cursor, Marks, Place, Position};

/// What divides a stretch of the log in two.
#[derive(Clone, Copy)]
enum Bound<'a> {
    /// From here on events are beyond these marks in some shard.
    Beyond(&'a Marks),
    /// From here on events have come to these marks in every shard.
    Reached(&'a Marks),
}

/// Where a bound divides events: the last before it, and the first behind it.
#[derive(Clone, Copy, Default, Debug)]
struct Split {
    before: Option<Position>,
    behind: Option<Position>,
}

/// The positions that are looked at: in (`after`, `up_to`].
#[derive(Clone, Copy)]
struct Range {
    after: Position,
    up_to: Position,
}

impl Range {
    fn has(&self, position: Position) -> bool {
        self.after < position && position <= self.up_to
    }
}

impl Bound<'_> {
    /// Whether an event with these marks is behind it.
    fn is_before(&self, marks: impl Iterator<Item = Position>) -> bool {
        match self {
            Self::Beyond(bound) => marks.zip(bound.positions()).any(|(own, bound)| own > *bound),
            Self::Reached(bound) => marks.zip(bound.positions()).all(|(own, bound)| own >= *bound),
        }
    }
}

impl Split {
    /// Divides parts in their order; `look` divides one of them, or says nothing of one in which nothing is to be
    /// seen. None if that is so for all.
    fn of_parts<E>(
        count: usize,
        mut look: impl FnMut(usize) -> Result<Option<Self>, E>,
    ) -> Result<Option<Self>, E> {
        let (mut low, mut high) = (0, count);
        let mut split: Option<Self> = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let mut seen = None;
            for part in middle..high {
                if let Some(found) = look(part)? {
                    seen = Some((part, found));
                    break;
                }
            }
            let Some((part, found)) = seen else {
                high = middle;
                continue;
            };
            let so_far = split.get_or_insert_default();
            so_far.before = so_far.before.max(found.before);
            match found.behind {
                None => low = part + 1,
                Some(behind) => {
                    so_far.behind = Some(behind);
                    high = middle;
                    if found.before.is_some() {
                        break;
                    }
                }
            }
        }
        Ok(split)
    }
}

impl Shared {
    /// Where a cursor points.
    pub(super) fn place_of(&self, cursor: &Cursor) -> Result<eras::Place, ReadError> {
        let eras = self.eras();
        let marks = match &cursor.place {
            Place::At(position) => return Ok(eras.place(cursor.epoch, *position, self.meta.epoch)),
            Place::Marks(marks) => marks,
        };
        let current = eras.current_stretch();
        let stretches: Vec<_> = eras.stretches(cursor.epoch).collect();
        for stretch in &stretches {
            let is_current = current == Some(*stretch);
            if stretch.begin.is_within(marks) {
                let place = self.place_in(stretch, marks)?;
                return Ok(if is_current { eras::Place::Current(place) } else { eras::Place::Past(place) });
            }
            // An earlier stretch of the same epoch may know better.
            if is_current && stretches.len() == 1 && stretch.begin.shards() == marks.shards() {
                return Ok(eras::Place::BeforeCurrent(stretch.after));
            }
        }
        Ok(eras::Place::Elsewhere)
    }

    /// The newest position up to which all is within these marks. There may be more such events after others:
    /// these come later.
    fn place_in(&self, stretch: &Stretch<'_>, marks: &Marks) -> Result<Position, ReadError> {
        let range = self.range_of(stretch);
        let split = self.split(range, Bound::Beyond(marks))?.unwrap_or_default();
        let mut place = split.before.unwrap_or(range.after);
        // Where no event stands (any more) there may have been one, or a gap.
        place = place.max(
            lock(&self.trail).newest_within(marks).filter(|place| range.has(*place)).unwrap_or_default(),
        );
        for gap in self.eras().gaps().iter().filter(|gap| range.has(gap.hole.up_to)) {
            if gap.marks.as_ref().is_some_and(|of_gap| of_gap.is_within(marks)) {
                place = place.max(gap.hole.up_to);
            }
        }
        Ok(place)
    }

    /// The position before which all stands that a cursor of several shards says, but for the event that it was told
    /// with; none if it is of another log.
    pub(super) fn end_of(&self, cursor: &Cursor) -> Result<Option<Position>, ReadError> {
        let eras = self.eras();
        let Place::Marks(marks) = &cursor.place else { return Ok(None) };
        let Some(stretch) = eras.stretches(cursor.epoch).find(|stretch| stretch.begin.is_within(marks))
        else {
            return Ok(None);
        };
        let range = self.range_of(&stretch);
        let split = self.split(range, Bound::Reached(marks))?.unwrap_or_default();
        Ok(Some(match split.behind {
            Some(reached) if self.marks_at(&stretch, reached)? == *marks => reached,
            reached => reached.unwrap_or(range.up_to).next(),
        }))
    }

    /// How far the shards had been read at a position of a stretch.
    pub(super) fn marks_at(&self, stretch: &Stretch<'_>, position: Position) -> Result<Marks, ReadError> {
        if let Some(marks) = lock(&self.trail).at(position) {
            return Ok(marks);
        }
        let range = Range { after: stretch.after, up_to: position };
        let (mut at, mut marks) = (stretch.after, stretch.begin.clone());
        if let Some((of_event, found)) = self.newest_marks(range)? {
            (at, marks) = (of_event, found);
        }
        for gap in self.eras().gaps().iter().filter(|gap| gap.hole.up_to > at && range.has(gap.hole.up_to)) {
            if let Some(of_gap) = &gap.marks {
                marks = marks.later(of_gap);
            }
        }
        Ok(marks)
    }

    /// Whether a cursor of several shards says more than has been read of them.
    pub(super) fn is_beyond(&self, cursor: &Cursor) -> bool {
        let Place::Marks(marks) = &cursor.place else { return false };
        let eras = self.eras();
        let Some(stretch) = eras.current_stretch().filter(|stretch| stretch.epoch == cursor.epoch) else {
            return false;
        };
        // What is no event moves the marks of others only with the next event here.
        let is_read = lock(&self.trail).read().is_some_and(|read| marks.is_within(read));
        !is_read && self.marks_at(&stretch, self.head()).is_ok_and(|here| !marks.is_within(&here))
    }

    fn range_of(&self, stretch: &Stretch<'_>) -> Range {
        Range { after: stretch.after, up_to: stretch.end.unwrap_or_else(|| self.head()) }
    }

    fn split(&self, range: Range, bound: Bound<'_>) -> Result<Option<Split>, ReadError> {
        let view = self.view();
        let sources = &view.sources[view.sources.partition_point(|source| source.last() <= range.after)..];
        let sources = &sources[..sources.partition_point(|source| source.first() <= range.up_to)];
        Split::of_parts(sources.len(), |number| match &sources[number] {
            Source::Memory(table) => {
                let (before, behind) = table.split(range.after, range.up_to, |event| {
                    event.marks().is_some_and(|marks| bound.is_before(marks.positions().iter().copied()))
                });
                Ok((before.is_some() || behind.is_some()).then_some(Split { before, behind }))
            }
            Source::Packed(packed) => or_nothing(self.split_packed(packed, range, bound)),
        })
    }

    fn split_packed(
        &self,
        packed: &PackedFold,
        range: Range,
        bound: Bound<'_>,
    ) -> Result<Option<Split>, Trouble> {
        let Some(directory) = self.directory_of(packed)? else { return Ok(None) };
        Split::of_parts(directory.blocks.len(), |number| {
            let Some(block) = self.block_of(packed, &directory, number)? else { return Ok(None) };
            let mut split = Split::default();
            for entry in &block.entries {
                let marks = block.marks_of(entry);
                // What is left of a removed event says nothing.
                if marks.is_empty() || !range.has(entry.position()) {
                    continue;
                }
                if bound.is_before(marks.iter().copied().map(Position)) {
                    split.behind = Some(entry.position());
                    break;
                }
                split.before = Some(entry.position());
            }
            Ok((split.before.is_some() || split.behind.is_some()).then_some(split))
        })
    }

    /// The newest event with marks in a range.
    fn newest_marks(&self, range: Range) -> Result<Option<(Position, Marks)>, ReadError> {
        let view = self.view();
        for source in view.sources.iter().rev().filter(|source| source.first() <= range.up_to) {
            if source.last() <= range.after {
                break;
            }
            let found = match source {
                Source::Memory(table) => table
                    .newest_up_to(range.up_to)
                    .filter(|event| range.has(event.position))
                    .and_then(|event| Some((event.position, event.marks()?.clone()))),
                Source::Packed(packed) => or_nothing(self.newest_marks_packed(packed, range))?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn newest_marks_packed(
        &self,
        packed: &PackedFold,
        range: Range,
    ) -> Result<Option<(Position, Marks)>, Trouble> {
        let Some(directory) = self.directory_of(packed)? else { return Ok(None) };
        let count = directory.blocks.partition_point(|block| block.first <= range.up_to);
        for number in (0..count).rev() {
            let Some(block) = self.block_of(packed, &directory, number)? else { continue };
            let newest = block.entries.iter().rev().find_map(|entry| {
                let marks = block.marks_of(entry).iter().copied().map(Position).collect::<Vec<_>>();
                Marks::new(marks)
                    .filter(|_| range.has(entry.position()))
                    .map(|marks| (entry.position(), marks))
            });
            if newest.is_some() {
                return Ok(newest);
            }
        }
        Ok(None)
    }
}

/// A part that is damaged or gone says nothing: readers find out, and are told what is lost with it.
fn or_nothing<T>(found: Result<Option<T>, Trouble>) -> Result<Option<T>, ReadError> {
    match found {
        Ok(found) => Ok(found),
        Err(Trouble::Unavailable | Trouble::Full) => Err(ReadError::Unavailable),
        Err(Trouble::Broken | Trouble::Gone) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_are_divided_also_where_some_say_nothing(
            parts in proptest::collection::vec(proptest::collection::vec(0_u64..3, 0..4), 0..20),
            bound: u64,
        ) {
            // Positions that grow through all parts.
            let mut next = 0;
            let parts: Vec<Vec<u64>> = parts
                .into_iter()
                .map(|part| part.into_iter().map(|step| { next += step + 1; next }).collect())
                .collect();
            let bound = bound % (next + 2);
            let found = Split::of_parts::<()>(parts.len(), |number| {
                let place = |position: Option<&u64>| position.copied().map(Position);
                let before = place(parts[number].iter().rfind(|position| **position <= bound));
                let behind = place(parts[number].iter().find(|position| **position > bound));
                Ok((!parts[number].is_empty()).then_some(Split { before, behind }))
            });
            let found = found.unwrap().unwrap_or_default();
            let all = || parts.iter().flatten().copied();
            prop_assert_eq!(found.before, all().rfind(|position| *position <= bound).map(Position));
            prop_assert_eq!(found.behind, all().find(|position| *position > bound).map(Position));
        }
    }
}
