//! Which log is on the stream, and how it relates to what a node has.
//!
//! Under the epochs' key stands the history of the stream, oldest first, as `epoch:id epoch:id ..`: each epoch
//! with the entry that begins it. A node that knows an earlier epoch finds there how far its log and the
//! stream are the same.

use super::entry_id::EntryId;
use crate::bus::backend::Start;
use crate::event::{Epoch, Position};
use std::fmt;

/// How many epochs are told; a node that knows only older ones begins anew.
const KEPT: usize = 32;

/// The epochs of a stream: at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Epochs(Vec<(Epoch, EntryId)>);

impl Epochs {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let one = |part: &str| {
            let (epoch, id) = part.split_once(':')?;
            Some((Epoch(u64::from_str_radix(epoch, 16).ok()?), EntryId::parse(id)?))
        };
        let epochs: Vec<_> = text.split(' ').map(one).collect::<Option<_>>()?;
        Some(Self(epochs))
    }

    /// What another one is appended to: the newest, so that one more makes it as many as are kept.
    pub(super) fn to_continue(&self) -> Self {
        Self(self.0[self.0.len().saturating_sub(KEPT - 1)..].to_vec())
    }

    /// The one that an entry belongs to.
    fn of(&self, id: EntryId) -> Epoch {
        let begun = self.0.iter().rev().find(|(_, first)| *first <= id);
        // What is older than all that is told belongs to the oldest.
        begun.or(self.0.first()).map_or(Epoch(0), |(epoch, _)| *epoch)
    }
}

impl fmt::Display for Epochs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (epoch, id)) in self.0.iter().enumerate() {
            write!(f, "{}{epoch}:{id}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// What a look at the stream showed.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// Its epochs.
    pub(super) epochs: Epochs,
    /// The oldest entry that is kept, if any is.
    pub(super) first: Option<EntryId>,
    /// The newest that ever was on it.
    pub(super) last: EntryId,
    /// Whether the entry at the position that the node has is there.
    pub(super) has_known: bool,
}

/// How the stream relates to what a node has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Relation {
    /// The node can read.
    Readable {
        /// Which log it is where the tail begins. Later ones are told by entries.
        epoch: Epoch,
        /// What that means for the node.
        start: Start,
        /// Reading begins after this id.
        after: EntryId,
    },
    /// The newest part of the node's log is not on the stream, and no epoch says so yet.
    Lost,
}

impl Look {
    /// Relates the stream to the last arrival that a node took.
    pub(super) fn relate(&self, known: Option<(Epoch, Position)>) -> Relation {
        let Some((epoch, position)) = known else { return self.oldest_on() };
        let id = EntryId::at(position);
        let Some(index) = self.epochs.0.iter().rposition(|(known, _)| *known == epoch) else {
            return self.oldest_on();
        };
        let next = self.epochs.0.get(index + 1).copied();
        let same_log = next.is_none_or(|(_, begin)| id < begin);
        // If the newest ever is the node's, nothing that followed it can be gone, even if it is gone itself.
        if same_log && (self.has_known || id == self.last) {
            return Relation::Readable { epoch, start: Start::Continues, after: id };
        }
        let oldest = self
            .first
            .unwrap_or(EntryId { ms: self.last.ms, sequence: self.last.sequence.saturating_add(1) });
        match next {
            None if id < oldest => {
                let up_to = oldest.position().previous();
                Relation::Readable { epoch, start: Start::Gap { up_to }, after: id }
            }
            None => Relation::Lost,
            // It was found before that the newest part of that log is lost: read on where the next one begins.
            Some((next, begin)) if begin >= oldest => Relation::Readable {
                epoch: next,
                start: Start::Anew { after: begin.position().previous() },
                after: begin.previous(),
            },
            Some(_) => self.oldest_on(),
        }
    }

    fn oldest_on(&self) -> Relation {
        let (after, position, epoch) = match self.first {
            Some(first) => (first.previous(), first.position().previous(), self.epochs.of(first)),
            None => (self.last, self.last.position(), self.epochs.of(self.last)),
        };
        Relation::Readable { epoch, start: Start::Anew { after: position }, after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_800_000_000_000;
    const ONE: Epoch = Epoch(1);
    const TWO: Epoch = Epoch(2);

    fn id(at: u64) -> EntryId {
        EntryId { ms: MS + at, sequence: 0 }
    }

    fn known(epoch: Epoch, at: u64) -> Option<(Epoch, Position)> {
        Some((epoch, id(at).position()))
    }

    /// A stream with entries from `first` to `last`, whose epochs begin at `begins`.
    fn look(begins: &[u64], first: Option<u64>, last: u64, has_known: bool) -> Look {
        let epochs =
            begins.iter().enumerate().map(|(index, at)| (Epoch(1 + index as u64), id(*at))).collect();
        Look { epochs: Epochs(epochs), first: first.map(id), last: id(last), has_known }
    }

    fn anew(epoch: Epoch, at: u64) -> Relation {
        let start = Start::Anew { after: id(at).position().previous() };
        Relation::Readable { epoch, start, after: id(at).previous() }
    }

    fn continues(epoch: Epoch, at: u64) -> Relation {
        Relation::Readable { epoch, start: Start::Continues, after: id(at) }
    }

    #[test]
    fn a_node_reads_on_where_it_stood() {
        assert_eq!(look(&[1], Some(1), 9, true).relate(known(ONE, 5)), continues(ONE, 5));
        assert_eq!(look(&[1], None, 9, false).relate(known(ONE, 9)), continues(ONE, 9), "all is trimmed");
        assert_eq!(
            look(&[1], Some(1), 9, false).relate(known(ONE, 9)),
            continues(ONE, 9),
            "the last was deleted"
        );
    }

    #[test]
    fn a_new_node_copies_all_there_is() {
        assert_eq!(look(&[1], Some(3), 9, false).relate(None), anew(ONE, 3));
        assert_eq!(look(&[1, 5], Some(3), 9, false).relate(None), anew(ONE, 3));
        assert_eq!(look(&[1, 5], Some(6), 9, false).relate(None), anew(TWO, 6));
        assert_eq!(look(&[7], Some(3), 9, false).relate(None), anew(ONE, 3), "older than what is told");
        let Relation::Readable { start, after, .. } = look(&[1], None, 9, false).relate(None) else {
            panic!()
        };
        assert_eq!((start, after), (Start::Anew { after: id(9).position() }, id(9)));
    }

    #[test]
    fn what_was_trimmed_is_a_gap() {
        for (first, oldest) in [(Some(7), id(7)), (None, EntryId { ms: MS + 9, sequence: 1 })] {
            let relation = look(&[1], first, 9, false).relate(known(ONE, 5));
            let up_to = oldest.position().previous();
            assert_eq!(
                relation,
                Relation::Readable { epoch: ONE, start: Start::Gap { up_to }, after: id(5) }
            );
        }
    }

    #[test]
    fn a_lost_tail_is_found() {
        assert_eq!(look(&[1], Some(1), 9, false).relate(known(ONE, 12)), Relation::Lost, "beyond the end");
        assert_eq!(look(&[1], Some(1), 9, false).relate(known(ONE, 5)), Relation::Lost, "others wrote since");
        assert_eq!(look(&[1], None, 9, false).relate(known(ONE, 12)), Relation::Lost);
    }

    #[test]
    fn what_another_node_found_is_heeded() {
        // Epoch 2 began at 20, as the entries after 9 were lost.
        assert_eq!(look(&[1, 20], Some(1), 25, false).relate(known(ONE, 12)), anew(TWO, 20));
        assert_eq!(look(&[1, 20], Some(1), 25, true).relate(known(ONE, 5)), continues(ONE, 5));
        assert_eq!(look(&[1, 20], Some(22), 25, false).relate(known(ONE, 5)), anew(TWO, 22));
        assert_eq!(look(&[1, 20], Some(1), 25, true).relate(known(ONE, 20)), anew(TWO, 20), "no such log");
        assert_eq!(look(&[1, 20], Some(1), 25, true).relate(known(TWO, 20)), continues(TWO, 20));
    }

    #[test]
    fn another_log_is_copied_from_its_oldest() {
        assert_eq!(look(&[1], Some(1), 9, true).relate(known(Epoch(77), 5)), anew(ONE, 1));
    }

    #[test]
    fn epochs_are_read_as_they_are_written() {
        let epochs = look(&[1, 5, 7], None, 9, false).epochs;
        assert_eq!(Epochs::parse(&epochs.to_string()), Some(epochs));
        for text in ["", " ", "x:1-0", "1:", "1:1-0 "] {
            assert_eq!(Epochs::parse(text), None, "{text:?}");
        }
        let many: Vec<u64> = (0..100).collect();
        let kept = look(&many, None, 9, false).epochs.to_continue();
        assert_eq!((kept.0.len(), kept.0.last()), (KEPT - 1, Some(&(Epoch(100), id(99)))));
    }
}
