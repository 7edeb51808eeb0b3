//! Whose positions the positions of this log are. While a node is alone it numbers events itself; on a bus the
//! bus does, and a node may move from one bus to another, or a bus may lose its log and begin anew. Each such
//! stretch is an *era*. Within the log positions only ever grow; an era says by how much they are shifted
//! against those of the bus, so that a cursor names the position on the bus and means the same on every node.

use super::directory;
use super::meta::{sealed, unsealed};
use super::view::Hole;
use super::wire::{Damaged, Reader, put_varint};
use crate::event::{Cursor, Epoch, Position};
use std::fs;
use std::io;
use std::path::Path;

const FILE: &str = "eras";
/// More eras than this are not told apart: cursors of older ones are of a log that is gone.
const MOST_ERAS: usize = 64;
/// The same for stretches that the bus no longer had.
const MOST_GAPS: usize = 256;

/// A stretch of the log with positions of one epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Era {
    /// The epoch on the bus; none for positions that this log gave itself.
    bus: Option<Epoch>,
    /// Its events come after this position.
    after: Position,
    /// What is to be added to a position of the bus, modulo 2^64.
    shift: u64,
    /// How far the log had come when it ended; none while it goes on.
    end: Option<Position>,
}

/// The eras of a log, oldest first, and what the bus could not give any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Eras {
    eras: Vec<Era>,
    gaps: Vec<Hole>,
}

/// Where a cursor points in this log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// To a position of the era that goes on now.
    Current(Position),
    /// Before the first position of the era that goes on now.
    BeforeCurrent(Position),
    /// To a position of an era that has ended.
    Past(Position),
    /// To another log.
    Elsewhere,
}

impl Eras {
    /// A log that has always numbered its events itself.
    pub(super) fn own() -> Self {
        Self { eras: vec![Era { bus: None, after: Position::ZERO, shift: 0, end: None }], gaps: Vec::new() }
    }

    /// The stored ones. Without the file, or with a damaged one, all positions are the log's own: a cursor of a
    /// bus is then of a log that is gone, which is the truth about what can be said of it.
    pub(super) fn read(dir: &Path) -> Self {
        let Ok(bytes) = fs::read(dir.join(FILE)) else { return Self::own() };
        Self::parse(&bytes).unwrap_or_else(|Damaged| {
            tracing::error!(dir = %dir.display(), "the log's list of buses is damaged: cursors of before are answered `reset`");
            Self::own()
        })
    }

    /// Stores them durably.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let mut out = Vec::new();
        put_varint(&mut out, self.eras.len() as u64);
        for era in &self.eras {
            out.push(u8::from(era.bus.is_some()));
            put_varint(&mut out, era.bus.map_or(0, |epoch| epoch.0));
            put_varint(&mut out, era.after.0);
            put_varint(&mut out, era.shift);
            put_varint(&mut out, era.end.unwrap_or(Position::ZERO).0);
        }
        put_varint(&mut out, self.gaps.len() as u64);
        for gap in &self.gaps {
            put_varint(&mut out, gap.after.0);
            put_varint(&mut out, gap.up_to.0);
        }
        directory::replace(dir, FILE, &sealed(out))
    }

    fn parse(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(unsealed(bytes)?);
        let mut eras = Vec::new();
        for _ in 0..reader.size()? {
            let on_bus = reader.byte()? != 0;
            let epoch = Epoch(reader.varint()?);
            eras.push(Era {
                bus: on_bus.then_some(epoch),
                after: Position(reader.varint()?),
                shift: reader.varint()?,
                end: Some(Position(reader.varint()?)).filter(|end| *end > Position::ZERO),
            });
        }
        let mut gaps = Vec::new();
        for _ in 0..reader.size()? {
            gaps.push(Hole { after: Position(reader.varint()?), up_to: Position(reader.varint()?) });
        }
        if eras.is_empty() { Err(Damaged) } else { Ok(Self { eras, gaps }) }
    }

    fn current(&self) -> &Era {
        self.eras.last().expect("there is always at least one era")
    }

    /// The epoch of the bus that orders events now; none while the log does so itself.
    pub(super) fn bus(&self) -> Option<Epoch> {
        self.current().bus
    }

    /// Begins an era after `least`: of a bus, at its position `after`, or of the log itself, which has come to
    /// `head`. Returns the position in the log after which its events come.
    pub(super) fn begin(
        &mut self,
        bus: Option<Epoch>,
        after: Position,
        least: Position,
        head: Position,
    ) -> Position {
        let begin = after.max(least);
        if let Some(last) = self.eras.last_mut() {
            last.end = Some(head.max(last.after));
        }
        self.eras.push(Era { bus, after: begin, shift: begin.0.wrapping_sub(after.0), end: None });
        if self.eras.len() > MOST_ERAS {
            self.eras.remove(0);
        }
        begin
    }

    /// The position after which the events of the era that goes on now come.
    pub(super) fn begin_of_current(&self) -> Position {
        self.current().after
    }

    /// Notes that the bus no longer had what stood in (`after`, `up_to`].
    pub(super) fn add_gap(&mut self, gap: Hole) {
        self.gaps.push(gap);
        if self.gaps.len() > MOST_GAPS {
            // Rather told that something is gone than not told.
            let oldest = self.gaps.remove(0);
            self.gaps[0].after = oldest.after;
        }
    }

    /// What the bus could not give any more, oldest first.
    pub(super) fn gaps(&self) -> &[Hole] {
        &self.gaps
    }

    /// How far the log came on the log of a bus that it was on, and left.
    pub(super) fn came_to(&self, epoch: Epoch) -> Option<Position> {
        let era = self.eras.iter().rev().find(|era| era.bus == Some(epoch))?;
        era.end.map(|end| Position(end.0.wrapping_sub(era.shift)))
    }

    /// The position in the log of a position on the bus, in the current era.
    pub(super) fn at_bus(&self, position: Position) -> Position {
        Position(position.0.wrapping_add(self.current().shift))
    }

    /// The cursor of a position. `own` is the epoch of the log itself.
    pub(super) fn cursor(&self, position: Position, own: Epoch) -> Cursor {
        // Nearly always the last one.
        let era = self.eras.iter().rev().find(|era| era.after <= position).unwrap_or(&self.eras[0]);
        Cursor::at(era.bus.unwrap_or(own), Position(position.0.wrapping_sub(era.shift)))
    }

    /// Where a position of an epoch is. `own` is the epoch of the log itself.
    pub(super) fn place(&self, epoch: Epoch, position: Position, own: Epoch) -> Place {
        let mut end = None;
        for (age, era) in self.eras.iter().rev().enumerate() {
            if era.bus.unwrap_or(own) == epoch {
                // A position of the bus before the era may wrap around; then it is far above any real one.
                let before = position.0 < era.after.0.wrapping_sub(era.shift);
                let position = Position(position.0.wrapping_add(era.shift));
                match (age, before) {
                    (0, true) => {
                        // An earlier stretch of the same epoch may know better.
                        let earlier = self.eras[..self.eras.len() - 1].iter().rev();
                        if !earlier.clone().any(|other| other.bus == era.bus) {
                            return Place::BeforeCurrent(era.after);
                        }
                    }
                    (0, false) => return Place::Current(position),
                    (_, false) if end.is_none_or(|end| position <= end) => return Place::Past(position),
                    _ => {}
                }
            }
            end = Some(era.after);
        }
        Place::Elsewhere
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Epoch = Epoch(1);
    const BUS: Epoch = Epoch(2);
    const NEXT: Epoch = Epoch(3);

    fn cursor(epoch: Epoch, position: u64) -> Cursor {
        Cursor::at(epoch, Position(position))
    }

    fn place(eras: &Eras, epoch: Epoch, position: u64) -> Place {
        eras.place(epoch, Position(position), OWN)
    }

    #[test]
    fn a_cursor_names_the_position_on_the_bus() {
        let mut eras = Eras::own();
        assert_eq!(eras.cursor(Position(7), OWN), cursor(OWN, 7));
        // A bus that counts from one, after a log that stands at 1,000.
        assert_eq!(eras.begin(Some(BUS), Position(0), Position(1000), Position(999)), Position(1000));
        assert_eq!(eras.at_bus(Position(1)), Position(1001));
        assert_eq!(eras.cursor(Position(1001), OWN), cursor(BUS, 1));
        assert_eq!(eras.cursor(Position(1000), OWN), cursor(BUS, 0));
        assert_eq!(eras.cursor(Position(999), OWN), cursor(OWN, 999));
        // And one whose positions are far above.
        assert_eq!(eras.came_to(BUS), None, "it goes on");
        let begin = eras.begin(Some(NEXT), Position(50_000), Position(1010), Position(1008));
        assert_eq!((begin, eras.came_to(BUS)), (Position(50_000), Some(Position(8))));
        assert_eq!(eras.at_bus(Position(50_001)), Position(50_001));
        assert_eq!(place(&eras, NEXT, 50_002), Place::Current(Position(50_002)));
        assert_eq!(place(&eras, NEXT, 49_999), Place::BeforeCurrent(Position(50_000)));
        assert_eq!(place(&eras, BUS, 10), Place::Past(Position(1010)));
        assert_eq!(place(&eras, OWN, 999), Place::Past(Position(999)));
        assert_eq!(place(&eras, Epoch(9), 999), Place::Elsewhere);
    }

    #[test]
    fn they_come_back_and_damage_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Eras::read(dir.path()), Eras::own());
        let mut eras = Eras::own();
        eras.begin(Some(BUS), Position(u64::MAX >> 1), Position(5), Position(5));
        eras.begin(None, Position(u64::MAX >> 1), Position(7), Position(7));
        eras.add_gap(Hole { after: Position(9), up_to: Position(12) });
        eras.write(dir.path()).unwrap();
        assert_eq!(Eras::read(dir.path()), eras);
        let mut bytes = fs::read(dir.path().join(FILE)).unwrap();
        bytes[3] ^= 1;
        fs::write(dir.path().join(FILE), bytes).unwrap();
        assert_eq!(Eras::read(dir.path()), Eras::own());
    }

    #[test]
    fn very_many_take_bounded_space() {
        let mut eras = Eras::own();
        for n in 1..1000 {
            eras.begin(Some(Epoch(n + 10)), Position(0), Position(n * 10), Position(n * 10));
            eras.add_gap(Hole { after: Position(n * 10), up_to: Position(n * 10 + 5) });
        }
        assert_eq!((eras.eras.len(), eras.gaps.len()), (MOST_ERAS, MOST_GAPS));
        assert_eq!(eras.gaps[0].after, Position(10));
    }
}
