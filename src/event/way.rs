//! How an event came here over a bus that several nodes share.

use super::{Channel, Position};
use std::fmt;

/// Most shards of a bus.
pub const MAX_SHARDS: usize = 16;

/// One run of one node. Its numbers say which of its events came already.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Origin(pub u64);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The run of the node that sent an event, and which of its events it is: 1, 2, 3 and so on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Sender {
    /// The run.
    pub origin: Origin,
    /// Which of its events.
    pub number: u64,
}

/// How an event came here.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Way {
    /// Who sent it; none if it was put on the bus by something else than Sidewire.
    pub sender: Option<Sender>,
    /// How far each shard of the bus had been read here, this event included; none on a bus of one shard.
    pub marks: Option<Marks>,
}

/// A position for each shard of a bus: how far something has come there.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Marks(Box<[Position]>);

impl Marks {
    /// Accepts 2 to [`MAX_SHARDS`] positions; one alone is a plain position.
    pub fn new(positions: impl Into<Box<[Position]>>) -> Option<Self> {
        let positions = positions.into();
        (2..=MAX_SHARDS).contains(&positions.len()).then_some(Self(positions))
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.0.len()
    }

    /// The positions, by shard.
    pub fn positions(&self) -> &[Position] {
        &self.0
    }

    /// The position in the shard of a channel.
    pub fn of(&self, channel: &Channel) -> Position {
        self.0[shard_of(channel, self.0.len())]
    }

    /// Whether all that these have passed the others have passed as well. False for a bus of another number of
    /// shards.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(own, other)| own <= other)
    }

    /// The later position in each shard. Marks of another number of shards add nothing.
    #[must_use]
    pub fn later(&self, other: &Self) -> Self {
        if self.0.len() != other.0.len() {
            return self.clone();
        }
        Self(self.0.iter().zip(&other.0).map(|(own, other)| *own.max(other)).collect())
    }
}

/// The shard of a channel, from 0: the CRC-32 (IEEE 802.3, as in zlib) of its bytes, modulo the number of shards.
/// Fixed for ever: all nodes must agree, whatever their version.
pub fn shard_of(channel: &Channel, shards: usize) -> usize {
    crc32fast::hash(channel.as_str().as_bytes()) as usize % shards.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(positions: &[u64]) -> Marks {
        Marks::new(positions.iter().copied().map(Position).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_shard_of_a_channel_is_the_same_for_ever() {
        // The check value of CRC-32: 0xcbf43926.
        let check = Channel::parse("123456789").unwrap();
        assert_eq!(shard_of(&check, 1 << 32), 0xcbf4_3926);
        let shards = |channel: &str| {
            let channel = Channel::parse(channel).unwrap();
            [1, 2, 4, 7, 16].map(|shards| shard_of(&channel, shards))
        };
        assert_eq!(shards("123456789"), [0, 0, 2, 5, 6]);
        assert_eq!(shards("orders.42"), [0, 1, 1, 6, 9]);
    }

    #[test]
    fn marks_are_compared_shard_by_shard() {
        let (early, late, aside) = (marks(&[1, 5]), marks(&[2, 5]), marks(&[3, 4]));
        assert!(early.is_within(&late) && !late.is_within(&early));
        assert!(!late.is_within(&aside) && !aside.is_within(&late));
        assert_eq!(late.later(&aside), marks(&[3, 5]));
        assert!(!early.is_within(&marks(&[9, 9, 9])));
        assert_eq!(Marks::new([Position(1)]), None);
        assert_eq!(Marks::new([Position(1); MAX_SHARDS + 1]), None);
    }
}
