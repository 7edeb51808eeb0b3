//! How far the shards of a bus had been read at the newest positions of the log: cursors of clients that are at
//! the end, whether an event stands there or not, are made of it without a look at the log.

use crate::event::{Marks, Position};
use std::collections::VecDeque;

/// Positions that are remembered: for older ones the log is read.
const MOST: usize = 4096;

/// The newest positions with their marks, one behind the other in flat queues: there is one for each event.
#[derive(Default)]
pub(super) struct Trail {
    places: VecDeque<Position>,
    marks: VecDeque<Position>,
    shards: usize,
    /// How far the shards have been read by now, with what was no event.
    read: Option<Marks>,
}

impl Trail {
    /// Notes how far the shards have been read at a position that follows.
    pub(super) fn push(&mut self, place: Position, marks: &Marks) {
        if marks.shards() != self.shards {
            *self = Self { shards: marks.shards(), ..Self::default() };
        }
        self.places.push_back(place);
        self.marks.extend(marks.positions());
        if self.places.len() > MOST {
            self.places.pop_front();
            self.marks.drain(..self.shards);
        }
    }

    /// The shards have been read up to here, with what was no event.
    pub(super) fn note_read(&mut self, marks: Marks) {
        self.read = Some(marks);
    }

    /// How far the shards have been read, if that is more than the marks of the newest position.
    pub(super) fn read(&self) -> Option<&Marks> {
        self.read.as_ref()
    }

    /// After a start: how far the shards had been read at the head, unless that is known.
    pub(super) fn begin_at(&mut self, head: Position, marks: &Marks) {
        if self.places.is_empty() {
            self.push(head, marks);
        }
    }

    /// What follows is of another bus: one that begins here, with these marks if it has several shards.
    pub(super) fn begin(&mut self, place: Position, marks: Option<&Marks>) {
        *self = Self::default();
        marks.into_iter().for_each(|marks| self.push(place, marks));
    }

    /// The newest position at which nothing more than these marks had been read.
    pub(super) fn newest_within(&self, marks: &Marks) -> Option<Position> {
        if marks.shards() != self.shards {
            return None;
        }
        let (mut low, mut high) = (0, self.places.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.of(middle).zip(marks.positions()).all(|(own, most)| own <= most) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low.checked_sub(1).map(|index| self.places[index])
    }

    fn of(&self, index: usize) -> impl Iterator<Item = &Position> {
        self.marks.range(index * self.shards..(index + 1) * self.shards)
    }

    /// How far the shards had been read at a position; none if it is older than all that is remembered.
    pub(super) fn at(&self, place: Position) -> Option<Marks> {
        let index = self.places.partition_point(|noted| *noted <= place).checked_sub(1)?;
        Marks::new(self.of(index).copied().collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(first: u64, second: u64) -> Marks {
        Marks::new([Position(first), Position(second)]).unwrap()
    }

    #[test]
    fn the_marks_of_a_position_are_those_of_the_last_before_it() {
        let mut trail = Trail::default();
        assert_eq!(trail.at(Position(5)), None);
        for n in 1..10_000_u64 {
            trail.push(Position(10 * n), &marks(n, 2 * n));
        }
        assert_eq!(trail.at(Position(99_990)), Some(marks(9_999, 19_998)));
        assert_eq!(trail.at(Position(u64::MAX)), Some(marks(9_999, 19_998)));
        assert_eq!(trail.at(Position(99_989)), Some(marks(9_998, 19_996)));
        assert_eq!(trail.newest_within(&marks(9_998, 30_000)), Some(Position(99_980)));
        assert_eq!(trail.newest_within(&marks(9_998, 19_995)), Some(Position(99_970)));
        assert_eq!(trail.newest_within(&marks(9_998, 0)), None);
        assert_eq!(trail.places.len(), MOST);
        assert_eq!(trail.at(Position(10)), None, "forgotten");
        trail.push(Position(200_000), &Marks::new([Position(1); 3]).unwrap());
        assert_eq!(trail.at(Position(199_999)), None, "of another bus");
    }
}
