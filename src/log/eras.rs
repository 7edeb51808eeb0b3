//! Whose positions the positions of this log are. While a node is alone it numbers events itself; on a bus the
//! bus does, and a node may move from one bus to another, or a bus may lose its log and begin anew. Each such
//! stretch is an *era*. Within the log positions only ever grow; an era says by how much they are shifted
//! against those of the bus, so that a cursor names the position on the bus and means the same on every node.
//! A bus of several shards has no one order: the log numbers what comes from it, and a cursor names a position in
//! each shard.

use super::directory;
use super::meta::{sealed, unsealed};
use super::view::Hole;
use super::wire::{Damaged, Reader, put_varint};
use crate::event::{Cursor, Epoch, Marks, Position};
use std::fs;
use std::io;
use std::path::Path;

const FILE: &str = "eras";
/// More eras than this are not told apart: cursors of older ones are of a log that is gone.
const MOST_ERAS: usize = 64;
/// The same for stretches that the bus no longer had.
const MOST_GAPS: usize = 256;

/// In the file: who gives the positions of an era.
const OWN: u8 = 0;
const BUS: u8 = 1;
const SHARDS: u8 = 2;

/// A stretch of the log with positions of one epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Era {
    orderer: Orderer,
    /// Its events come after this position.
    after: Position,
    /// How far the log had come when it ended; none while it goes on.
    end: Option<Position>,
}

/// Who gives the positions of an era.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Orderer {
    /// The log itself.
    Own,
    /// A bus with one order.
    Bus {
        epoch: Epoch,
        /// What is to be added to a position of the bus, modulo 2^64.
        shift: u64,
    },
    /// The log itself, of what comes from the shards of a bus. Its events say how far each had been read.
    Shards(Shards),
}

/// The shards of a bus.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Shards {
    /// The epoch of all of them together.
    epoch: Epoch,
    /// The epochs of each.
    epochs: Vec<Epoch>,
    /// How far the log had come on each when the era began.
    begin: Marks,
}

/// What a log goes over to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next<'a> {
    /// It numbers its events itself, after this position.
    Own(Position),
    /// The shards of a bus, each of this epoch and after this position; one alone is a bus with one order.
    Bus(&'a [(Epoch, Position)]),
}

/// What the bus could not give any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Gap {
    /// The stretch of the log in which it would stand.
    pub(super) hole: Hole,
    /// With several shards: up to where in each it is gone, or has been read.
    pub(super) marks: Option<Marks>,
}

/// The eras of a log, oldest first, and what the bus could not give any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Eras {
    eras: Vec<Era>,
    gaps: Vec<Gap>,
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

/// A stretch of the log whose events came from the shards of a bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stretch<'a> {
    pub(super) epoch: Epoch,
    /// Its events come after this position,
    pub(super) after: Position,
    /// up to this one; none while it goes on.
    pub(super) end: Option<Position>,
    /// How far the log had come on each shard when it began.
    pub(super) begin: &'a Marks,
}

impl Orderer {
    fn bus(&self) -> Option<Epoch> {
        match self {
            Self::Own => None,
            Self::Bus { epoch, .. } | Self::Shards(Shards { epoch, .. }) => Some(*epoch),
        }
    }

    fn shift(&self) -> u64 {
        match self {
            Self::Bus { shift, .. } => *shift,
            Self::Own | Self::Shards(_) => 0,
        }
    }
}

impl Era {
    fn own(after: Position) -> Self {
        Self { orderer: Orderer::Own, after, end: None }
    }

    fn stretch(&self) -> Option<Stretch<'_>> {
        match &self.orderer {
            Orderer::Shards(Shards { epoch, begin, .. }) => {
                Some(Stretch { epoch: *epoch, after: self.after, end: self.end, begin })
            }
            Orderer::Own | Orderer::Bus { .. } => None,
        }
    }
}

impl Eras {
    /// A log that has always numbered its events itself.
    pub(super) fn own() -> Self {
        Self { eras: vec![Era::own(Position::ZERO)], gaps: Vec::new() }
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
            match &era.orderer {
                Orderer::Own => out.push(OWN),
                Orderer::Bus { epoch, shift } => {
                    out.push(BUS);
                    put_varint(&mut out, epoch.0);
                    put_varint(&mut out, *shift);
                }
                Orderer::Shards(shards) => {
                    out.push(SHARDS);
                    put_varint(&mut out, shards.epochs.len() as u64);
                    shards.epochs.iter().for_each(|epoch| put_varint(&mut out, epoch.0));
                    put_marks(&mut out, Some(&shards.begin));
                }
            }
            put_varint(&mut out, era.after.0);
            put_varint(&mut out, era.end.unwrap_or(Position::ZERO).0);
        }
        put_varint(&mut out, self.gaps.len() as u64);
        for gap in &self.gaps {
            put_varint(&mut out, gap.hole.after.0);
            put_varint(&mut out, gap.hole.up_to.0);
            put_marks(&mut out, gap.marks.as_ref());
        }
        directory::replace(dir, FILE, &sealed(out))
    }

    fn parse(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(unsealed(bytes)?);
        let mut eras = Vec::new();
        for _ in 0..reader.size()? {
            let orderer = match reader.byte()? {
                OWN => Orderer::Own,
                BUS => Orderer::Bus { epoch: Epoch(reader.varint()?), shift: reader.varint()? },
                SHARDS => {
                    let mut epochs = Vec::new();
                    for _ in 0..reader.size()? {
                        epochs.push(Epoch(reader.varint()?));
                    }
                    let begin = read_marks(&mut reader)?.ok_or(Damaged)?;
                    Orderer::Shards(Shards { epoch: Epoch::of_shards(&epochs), epochs, begin })
                }
                _ => return Err(Damaged),
            };
            let after = Position(reader.varint()?);
            let end = Some(Position(reader.varint()?)).filter(|end| *end > Position::ZERO);
            eras.push(Era { orderer, after, end });
        }
        let mut gaps = Vec::new();
        for _ in 0..reader.size()? {
            let hole = Hole { after: Position(reader.varint()?), up_to: Position(reader.varint()?) };
            gaps.push(Gap { hole, marks: read_marks(&mut reader)? });
        }
        if eras.is_empty() { Err(Damaged) } else { Ok(Self { eras, gaps }) }
    }

    fn current(&self) -> &Era {
        self.eras.last().expect("there is always at least one era")
    }

    /// The epoch of the bus that orders events now; none while the log does so itself.
    pub(super) fn bus(&self) -> Option<Epoch> {
        self.current().orderer.bus()
    }

    /// Begins an era after `least`, in a log that has come to `head`. Returns the position in the log after which
    /// its events come.
    pub(super) fn begin(&mut self, next: Next<'_>, least: Position, head: Position) -> Position {
        let era = match next {
            Next::Own(after) => Era::own(after.max(least)),
            Next::Bus(&[(epoch, after)]) => {
                let begin = after.max(least);
                let shift = begin.0.wrapping_sub(after.0);
                Era { orderer: Orderer::Bus { epoch, shift }, after: begin, end: None }
            }
            Next::Bus(shards) => {
                let epochs: Vec<_> = shards.iter().map(|(epoch, _)| *epoch).collect();
                let marks = shards.iter().map(|(_, after)| *after).collect::<Vec<_>>();
                let begin = Marks::new(marks).expect("a bus has 1 to as many shards as marks take");
                let shards = Shards { epoch: Epoch::of_shards(&epochs), epochs, begin };
                Era { orderer: Orderer::Shards(shards), after: least, end: None }
            }
        };
        let begin = era.after;
        if let Some(last) = self.eras.last_mut() {
            last.end = Some(head.max(last.after));
        }
        self.eras.push(era);
        if self.eras.len() > MOST_ERAS {
            self.eras.remove(0);
        }
        begin
    }

    /// The position after which the events of the era that goes on now come.
    pub(super) fn begin_of_current(&self) -> Position {
        self.current().after
    }

    /// Notes that the bus no longer had something.
    pub(super) fn add_gap(&mut self, gap: Gap) {
        self.gaps.push(gap);
        if self.gaps.len() > MOST_GAPS {
            // Rather told that something is gone than not told.
            let oldest = self.gaps.remove(0);
            self.gaps[0].hole.after = oldest.hole.after;
        }
    }

    /// What the bus could not give any more, oldest first.
    pub(super) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// How far the log came on a bus with one order that it was on, and left.
    pub(super) fn came_to(&self, epoch: Epoch) -> Option<Position> {
        let era = self.eras.iter().rev().find(|era| era.orderer.bus() == Some(epoch))?;
        era.end.map(|end| Position(end.0.wrapping_sub(era.orderer.shift())))
    }

    /// The epochs of the shards of the bus that the log is on now.
    pub(super) fn shards(&self) -> Vec<Epoch> {
        match &self.current().orderer {
            Orderer::Own => Vec::new(),
            Orderer::Bus { epoch, .. } => vec![*epoch],
            Orderer::Shards(shards) => shards.epochs.clone(),
        }
    }

    /// The stretch with the events of the shards of a bus, if the log is on one now.
    pub(super) fn current_stretch(&self) -> Option<Stretch<'_>> {
        self.current().stretch()
    }

    /// The stretches with the events of the shards of a bus in this epoch, newest first.
    pub(super) fn stretches(&self, epoch: Epoch) -> impl Iterator<Item = Stretch<'_>> {
        self.eras.iter().rev().filter_map(Era::stretch).filter(move |stretch| stretch.epoch == epoch)
    }

    /// The position in the log of a position on the bus, in the current era.
    pub(super) fn at_bus(&self, position: Position) -> Position {
        Position(position.0.wrapping_add(self.current().orderer.shift()))
    }

    /// The cursor of a position, where one position says all; else the stretch in which it stands. `own` is the
    /// epoch of the log itself.
    pub(super) fn cursor(&self, position: Position, own: Epoch) -> Result<Cursor, Stretch<'_>> {
        // Nearly always the last one.
        let era = self.eras.iter().rev().find(|era| era.after <= position).unwrap_or(&self.eras[0]);
        let plain = |epoch| Cursor::at(epoch, Position(position.0.wrapping_sub(era.orderer.shift())));
        match era.stretch() {
            Some(stretch) => Err(stretch),
            None => Ok(plain(era.orderer.bus().unwrap_or(own))),
        }
    }

    /// Where a position of an epoch is. `own` is the epoch of the log itself.
    pub(super) fn place(&self, epoch: Epoch, position: Position, own: Epoch) -> Place {
        let mut end = None;
        for (age, era) in self.eras.iter().rev().enumerate() {
            // The place of a position in one of several shards is none in the log.
            if era.stretch().is_none() && era.orderer.bus().unwrap_or(own) == epoch {
                // A position of the bus before the era may wrap around; then it is far above any real one.
                let before = position.0 < era.after.0.wrapping_sub(era.orderer.shift());
                let position = Position(position.0.wrapping_add(era.orderer.shift()));
                match (age, before) {
                    (0, true) => {
                        // An earlier stretch of the same epoch may know better.
                        let earlier = self.eras[..self.eras.len() - 1].iter().rev();
                        if !earlier.clone().any(|other| other.orderer.bus() == era.orderer.bus()) {
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

impl Epoch {
    /// The epoch of all shards of a bus together: another one as soon as one of them has another. FNV-1a of their
    /// number and their epochs, so that every node comes to the same; one alone keeps its own.
    pub(super) fn of_shards(epochs: &[Self]) -> Self {
        let bytes = |word: u64| word.to_be_bytes();
        match epochs {
            [only] => *only,
            several => {
                let words = std::iter::once(several.len() as u64).chain(several.iter().map(|epoch| epoch.0));
                Self(words.flat_map(bytes).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
                }))
            }
        }
    }
}

fn put_marks(out: &mut Vec<u8>, marks: Option<&Marks>) {
    let positions = marks.map_or(&[][..], Marks::positions);
    put_varint(out, positions.len() as u64);
    positions.iter().for_each(|position| put_varint(out, position.0));
}

fn read_marks(reader: &mut Reader<'_>) -> Result<Option<Marks>, Damaged> {
    let mut positions = Vec::new();
    for _ in 0..reader.size()? {
        positions.push(Position(reader.varint()?));
    }
    if positions.is_empty() { Ok(None) } else { Marks::new(positions).map(Some).ok_or(Damaged) }
}

#[cfg(test)]
mod tests;
