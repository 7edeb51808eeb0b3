//! What a reader sees: the parts of the log in order, and what is missing between them. A view never changes;
//! appends show in its last part, everything else makes a new view.

use super::generation::Generation;
use super::memtable::Memtable;
use super::packed::PackedFold;
use crate::event::Position;
use std::sync::Arc;

/// A part of the log.
#[derive(Clone)]
pub(super) enum Source {
    /// A packed journal.
    Packed(Arc<PackedFold>),
    /// Events of a journal.
    Memory(Arc<Memtable>),
}

impl Source {
    pub(super) fn first(&self) -> Position {
        match self {
            Self::Packed(packed) => packed.fold.first,
            Self::Memory(table) => table.header.first,
        }
    }

    pub(super) fn last(&self) -> Position {
        match self {
            Self::Packed(packed) => packed.fold.last,
            Self::Memory(table) => table.last(),
        }
    }
}

/// Positions whose events are lost: all in `(after, up_to]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hole {
    pub(super) after: Position,
    pub(super) up_to: Position,
}

/// The parts in order of position, and the holes.
#[derive(Clone, Default)]
pub(super) struct View {
    pub(super) sources: Vec<Source>,
    /// The generations, oldest first.
    pub(super) generations: Vec<Arc<Generation>>,
    pub(super) holes: Vec<Hole>,
    /// Everything up to here was removed on purpose.
    pub(super) floor: Position,
}

impl View {
    /// The folds of a generation.
    pub(super) fn folds_of<'a>(
        &'a self,
        generation: &'a Arc<Generation>,
    ) -> impl Iterator<Item = &'a Arc<PackedFold>> {
        self.sources.iter().filter_map(move |source| match source {
            Source::Packed(packed) if Arc::ptr_eq(&packed.generation, generation) => Some(packed),
            _ => None,
        })
    }

    /// The holes that end in `(after, up_to]`: what the part that covers it must remember.
    pub(super) fn holes_within(&self, after: Position, up_to: Position) -> Vec<Hole> {
        self.holes.iter().filter(|hole| hole.up_to > after && hole.up_to <= up_to).copied().collect()
    }

    /// Leaves out a generation that was removed on purpose, with all that came before its end.
    pub(super) fn forget(&mut self, generation: &Arc<Generation>, last: Option<Position>) {
        self.drop_generation(generation);
        self.floor = self.floor.max(last.unwrap_or_default());
        let floor = self.floor;
        self.holes.retain(|hole| hole.up_to > floor);
    }

    /// Leaves out a damaged generation; false if it was gone already.
    pub(super) fn lose(&mut self, generation: &Arc<Generation>) -> bool {
        let folds: Vec<_> = self.folds_of(generation).cloned().collect();
        if let (Some(first), Some(last)) = (folds.first(), folds.last()) {
            self.holes.push(Hole { after: first.fold.previous_stored, up_to: last.fold.last });
        }
        self.drop_generation(generation)
    }

    fn drop_generation(&mut self, generation: &Arc<Generation>) -> bool {
        let before = self.generations.len();
        self.generations.retain(|other| !Arc::ptr_eq(other, generation));
        self.sources.retain(|source| match source {
            Source::Packed(packed) => !Arc::ptr_eq(&packed.generation, generation),
            Source::Memory(_) => true,
        });
        self.generations.len() < before
    }

    /// The journals, oldest first.
    pub(super) fn tables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        self.sources.iter().filter_map(|source| match source {
            Source::Memory(table) => Some(table),
            Source::Packed(_) => None,
        })
    }

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
            || self.holes.iter().any(|hole| hole.after < up_to && after < hole.up_to)
    }

    /// Whether something behind a cursor here is gone.
    pub(super) fn is_broken_after(&self, cursor: Position) -> bool {
        cursor < self.floor || self.holes.iter().any(|hole| cursor < hole.up_to)
    }
}
