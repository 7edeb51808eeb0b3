//! Position, epoch, and the opaque cursor that clients keep.

mod text;

pub use text::{CursorError, CursorText};

use super::{Marks, Origin, Sender};
use smallvec::SmallVec;
use std::fmt;

/// Where an event stands in the log. It grows within an epoch and is never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Position(pub u64);

/// Positions that a node which numbers events itself has for each millisecond of the clock: more than it can give
/// in one.
pub const POSITIONS_PER_MS: u64 = 1 << 20;

impl Position {
    /// Before every event.
    pub const ZERO: Position = Position(0);
    /// After every event.
    pub const MAX: Position = Position(u64::MAX);

    /// The next one.
    pub fn next(self) -> Position {
        Position(self.0 + 1)
    }

    /// The one before; `ZERO` stays.
    pub fn previous(self) -> Position {
        Position(self.0.saturating_sub(1))
    }
}

/// Which log a position belongs to. A log that was lost and begun anew has another epoch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Epoch(pub u64);

impl Epoch {
    /// One that never was.
    pub fn fresh() -> Self {
        // The lower half of each UUID holds 62 random bits; the second fills the two fixed ones of the first.
        let random = || uuid::Uuid::now_v7().as_u64_pair().1;
        Self(random().rotate_left(2) ^ random().rotate_left(33))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// "I have everything up to here": a place and the log it belongs to, and what the client has got besides. On
/// the wire it is an opaque, URL-safe string of at most [`Cursor::MAX_TEXT_BYTES`] bytes.
///
/// Clients may send what they like. A cursor only ever says what its own client is to be spared.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Cursor {
    /// The log.
    pub epoch: Epoch,
    /// Up to where the client has everything.
    pub place: Place,
    /// What it has got besides, before the bus had ordered it. Oldest first.
    pub early: EarlyRanges,
}

/// A place in a log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// In a log of one order.
    At(Position),
    /// In each shard of a bus: every node has another order between them.
    Marks(Marks),
}

/// What a client has of the events of a few senders; nearly always nothing.
pub type EarlyRanges = SmallVec<[EarlyRange; 1]>;

/// All events of one sender with numbers in (`from`, `to`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EarlyRange {
    /// The run of the node that sent them.
    pub origin: Origin,
    /// The number before the first.
    pub from: u64,
    /// The number of the last.
    pub to: u64,
}

impl EarlyRange {
    /// Whether an event is among them.
    pub fn has(&self, sender: Sender) -> bool {
        self.origin == sender.origin && self.from < sender.number && sender.number <= self.to
    }
}

impl Cursor {
    /// The cursor of a client that has everything up to a position, and nothing besides.
    pub fn at(epoch: Epoch, position: Position) -> Self {
        Self { epoch, place: Place::At(position), early: EarlyRanges::new() }
    }

    /// The position; none in a log of several shards.
    pub fn position(&self) -> Option<Position> {
        match self.place {
            Place::At(position) => Some(position),
            Place::Marks(_) => None,
        }
    }
}
