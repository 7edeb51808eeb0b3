//! The id of a stream entry, and the position that it is to the rest of Sidewire.

use crate::event::Position;
use std::fmt;

/// The time of an entry counts from here in a position, Unix ms: 2004. Earlier ids are no server's clock.
const FIRST_MS: u64 = 1 << 40;
/// Bits of a position for the entries of one millisecond. The 42 above them last until 2144.
const SEQUENCE_BITS: u32 = 22;
const MAX_SEQUENCE: u64 = (1 << SEQUENCE_BITS) - 1;
const LAST_MS: u64 = FIRST_MS + (u64::MAX >> SEQUENCE_BITS);

/// `1800000000000-0`: the server's time in milliseconds, and a number within it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct EntryId {
    pub(super) ms: u64,
    pub(super) sequence: u64,
}

impl EntryId {
    /// Before every entry.
    pub(super) const ZERO: Self = Self { ms: 0, sequence: 0 };

    /// Reads it as Redis writes it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (ms, sequence) = text.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, sequence: sequence.parse().ok()? })
    }

    /// The entry at a position.
    pub(super) fn at(position: Position) -> Self {
        Self { ms: FIRST_MS + (position.0 >> SEQUENCE_BITS), sequence: position.0 & MAX_SEQUENCE }
    }

    /// Its position. Ids that no server gives by itself (from before 2004, or after four million others in one
    /// millisecond) get the nearest one.
    pub(super) fn position(self) -> Position {
        if self.ms < FIRST_MS {
            return Position::ZERO;
        }
        if self.ms > LAST_MS {
            return Position::MAX;
        }
        Position((self.ms - FIRST_MS) << SEQUENCE_BITS | self.sequence.min(MAX_SEQUENCE))
    }

    /// The id before it: reading after that one begins with this one.
    pub(super) fn previous(self) -> Self {
        match (self.ms, self.sequence) {
            (0, 0) => Self::ZERO,
            (ms, 0) => Self { ms: ms - 1, sequence: u64::MAX },
            (ms, sequence) => Self { ms, sequence: sequence - 1 },
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64, sequence: u64) -> EntryId {
        EntryId { ms, sequence }
    }

    #[test]
    fn ids_and_positions_are_one() {
        for id in
            [id(FIRST_MS, 1), id(1_800_000_000_000, 0), id(1_800_000_000_000, MAX_SEQUENCE), id(LAST_MS, 7)]
        {
            assert_eq!(EntryId::at(id.position()), id);
            assert_eq!(EntryId::parse(&id.to_string()), Some(id));
        }
        assert!(id(1_800_000_000_000, 5).position() < id(1_800_000_000_000, 6).position());
        assert!(id(1_800_000_000_000, MAX_SEQUENCE).position() < id(1_800_000_000_001, 0).position());
    }

    #[test]
    fn ids_that_no_server_gives_have_the_nearest_position() {
        assert_eq!(id(5, 0).position(), Position::ZERO);
        assert_eq!(id(u64::MAX, 0).position(), Position::MAX);
        assert_eq!(id(FIRST_MS, u64::MAX).position(), Position(MAX_SEQUENCE));
    }

    #[test]
    fn what_is_no_id_is_not_read() {
        for text in ["", "5", "-", "5-", "a-0", "1-2-3", "99999999999999999999-0"] {
            assert_eq!(EntryId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn one_id_stands_before_each() {
        assert_eq!(id(5, 3).previous(), id(5, 2));
        assert_eq!(id(5, 0).previous(), id(4, u64::MAX));
        assert_eq!(id(0, 0).previous(), EntryId::ZERO);
    }
}
