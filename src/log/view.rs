//! What a reader sees: the parts of the log in order, and what is missing between them. A view never changes;
//! appends show in its last part, everything else makes a new view.

use super::memtable::Memtable;
use crate::event::Position;
use std::sync::Arc;

/// A part of the log.
#[derive(Clone)]
pub(super) enum Source {
    /// Events of a journal.
    Memory(Arc<Memtable>),
}

impl Source {
    pub(super) fn first(&self) -> Position {
        match self {
            Self::Memory(table) => table.header.first,
        }
    }

    pub(super) fn last(&self) -> Position {
        match self {
            Self::Memory(table) => table.last(),
        }
    }
}

/// Positions that have nothing kept: all in `(after, up_to]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hole {
    pub(super) after: Position,
    pub(super) up_to: Position,
    /// Events were there. Otherwise a stop that was no clean close left the range out, and only a cursor
    /// within it is of a lost event.
    pub(super) lost: bool,
}

/// The parts in order of position, and the holes.
#[derive(Clone, Default)]
pub(super) struct View {
    pub(super) sources: Vec<Source>,
    pub(super) holes: Vec<Hole>,
    /// Everything up to here was removed on purpose.
    pub(super) floor: Position,
}

impl View {
    /// The part in which reading goes on after a position.
    pub(super) fn source_after(&self, after: Position) -> Option<&Source> {
        self.sources.get(self.sources.partition_point(|source| source.last() <= after))
    }

    /// The part in which reading backwards goes on before a position.
    pub(super) fn source_before(&self, before: Position) -> Option<&Source> {
        self.sources[..self.sources.partition_point(|source| source.first() < before)].last()
    }

    /// Whether events in `(after, up_to]` were removed or lost.
    pub(super) fn lost_between(&self, after: Position, up_to: Position) -> bool {
        after < self.floor && after < up_to
            || self.holes.iter().any(|hole| hole.lost && hole.after < up_to && after < hole.up_to)
    }

    /// Whether a cursor here names something that no longer is, or more behind it is gone.
    pub(super) fn is_broken_after(&self, cursor: Position) -> bool {
        cursor < self.floor
            || self.holes.iter().any(|hole| {
                if hole.lost { cursor < hole.up_to } else { hole.after < cursor && cursor <= hole.up_to }
            })
    }
}
