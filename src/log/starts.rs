//! Which positions every start passed over. Numbering goes on far above the last known position, and above
//! all that an earlier process can have given before now: what a backup does not know of, or a power cut took,
//! is never given again to another event. A cursor in a range that was passed over is of such an event.

use super::directory;
use super::meta::{sealed, unsealed};
use super::wire::{Damaged, Reader, put_varint};
use crate::event::{POSITIONS_PER_MS, Position, UnixMs};
use std::fs;
use std::io;
use std::path::Path;

const FILE: &str = "starts";
/// How much is passed over at least. A journal never holds as many events.
pub(super) const RESTART_GAP: u64 = 1 << 20;
/// A clock beyond this (the year 2248) is wrong, and must not use the positions up.
const LATEST_MS: UnixMs = 1 << 43;
/// More starts than this, with events between them, are not told apart.
const MOST: usize = 1024;

/// What one start passed over: everything between the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Gap {
    /// The newest position that was known.
    after: Position,
    /// Where numbering went on.
    next: Position,
}

/// What the starts of a log passed over, oldest first.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Starts(Vec<Gap>);

impl Starts {
    /// The stored ones; none if there are none or they are damaged.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        Self::parse(&fs::read(dir.join(FILE)).ok()?).ok()
    }

    /// Nothing is known of the starts before: any cursor but the head may be of another event.
    pub(super) fn unknown(head: Position) -> Self {
        Self(vec![Gap { after: Position::ZERO, next: head }])
    }

    /// Stores them durably.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let mut out = Vec::new();
        put_varint(&mut out, self.0.len() as u64);
        for gap in &self.0 {
            put_varint(&mut out, gap.after.0);
            put_varint(&mut out, gap.next.0);
        }
        directory::replace(dir, FILE, &sealed(out))
    }

    /// Begins another start: says where numbering goes on. Up to `head` everything is found again, up to
    /// `given` positions were used; below `floor` nothing is told apart any more.
    pub(super) fn begin(
        &mut self,
        head: Position,
        given: Position,
        floor: Position,
        now: UnixMs,
    ) -> Position {
        let passed = self.0.last().map_or(Position::ZERO, |gap| gap.next);
        let least = head.max(given).max(passed).0.saturating_add(RESTART_GAP);
        let next = Position(least.max(now.min(LATEST_MS) * POSITIONS_PER_MS));
        // Of what came after a start nothing may be left: then this one passes over its range too.
        while self.0.last().is_some_and(|gap| gap.after >= head) {
            self.0.pop();
        }
        match self.0.last_mut() {
            Some(gap) if gap.next > head => gap.next = next,
            _ => self.0.push(Gap { after: head, next }),
        }
        self.0.retain(|gap| gap.next > floor);
        if self.0.len() > MOST {
            // Rather told that something is gone than not told.
            let oldest = self.0.remove(0);
            self.0[0].after = oldest.after;
        }
        next
    }

    /// Whether a position was passed over by a start.
    pub(super) fn passed_over(&self, position: Position) -> bool {
        let later = self.0.partition_point(|gap| gap.after < position);
        later.checked_sub(1).is_some_and(|place| position < self.0[place].next)
    }

    fn parse(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(unsealed(bytes)?);
        let mut gaps = Vec::new();
        for _ in 0..reader.size()? {
            gaps.push(Gap { after: Position(reader.varint()?), next: Position(reader.varint()?) });
        }
        Ok(Self(gaps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = 1_800_000_000_000;

    fn begin(starts: &mut Starts, head: u64, now: UnixMs) -> u64 {
        starts.begin(Position(head), Position(head), Position::ZERO, now).0
    }

    #[test]
    fn numbering_follows_the_clock_unless_that_went_back() {
        let mut starts = Starts::default();
        let first = begin(&mut starts, 9, NOW);
        assert_eq!(first, NOW << 20);
        let second = begin(&mut starts, first + 5, NOW - 1000);
        assert_eq!(second, first + 5 + RESTART_GAP);
        // Nothing came since, and still no position is used twice.
        let third = begin(&mut starts, first + 5, 0);
        assert_eq!(third, second + RESTART_GAP);
        assert!(begin(&mut starts, third, u64::MAX) <= 1 << 63);
    }

    #[test]
    fn the_range_of_every_start_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Starts::read(dir.path()), None);
        let mut starts = Starts::default();
        let (mut head, mut good, mut skipped) = (7, Vec::new(), Vec::new());
        for n in 0..20 {
            let next = begin(&mut starts, head, NOW + n);
            skipped.extend([head + 1, next - 1]);
            good.extend([head, next]);
            head = next + n % 3;
        }
        starts.write(dir.path()).unwrap();
        let starts = Starts::read(dir.path()).unwrap();
        assert!(good.iter().all(|&position| !starts.passed_over(Position(position))));
        assert!(skipped.iter().all(|&position| starts.passed_over(Position(position))));
        assert!(!starts.passed_over(Position::ZERO));
        // An end that is lost goes with the range before it.
        let mut cut = starts.clone();
        begin(&mut cut, 7, NOW + 100);
        assert_eq!(cut.0.len(), 1);
        assert!(cut.passed_over(Position(head)) && !cut.passed_over(Position(7)));
        // What the floor tells needs no range.
        let mut floored = starts;
        floored.begin(Position(head), Position(head), Position(head), NOW + 100);
        assert_eq!(floored.0.len(), 1);
    }

    #[test]
    fn very_many_starts_take_bounded_space() {
        let mut starts = Starts::default();
        for n in 0..MOST as u64 + 100 {
            let head = starts.0.last().map_or(5, |gap| gap.next.0);
            begin(&mut starts, head, NOW + n);
        }
        assert_eq!(starts.0.len(), MOST);
        assert!(starts.passed_over(Position(6)) && !starts.passed_over(Position(5)));
    }
}
