//! How far this node has read the bus, and whose parcels it has seen by then: read at the start, so that what
//! is sent again after a restart is seen to be a repetition.

use super::seen::Seen;
use crate::bus::backend::Origin;
use crate::event::{Epoch, Position};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

const FILE: &str = "bus-checkpoint.json";
const VERSION: u32 = 2;

/// What is kept.
#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    /// The position in the log of this node that everything up to here had come to.
    pub(super) landed: Position,
    /// The shards of the bus, by their numbers.
    pub(super) shards: Vec<ShardCheckpoint>,
}

/// How far a shard has been read.
#[derive(Clone, Debug)]
pub(super) struct ShardCheckpoint {
    pub(super) epoch: Epoch,
    pub(super) position: Position,
    pub(super) seen: Seen,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    landed: u64,
    shards: Vec<StoredShard>,
}

#[derive(Serialize, Deserialize)]
struct StoredShard {
    epoch: u64,
    position: u64,
    seen: BTreeMap<String, Vec<(u64, u64)>>,
}

impl Checkpoint {
    /// The stored one. Without one, or with one that cannot be read, reading begins where the log ends, and of
    /// what came before nothing is known.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(&std::fs::read(dir.join(FILE)).ok()?).ok()?;
        if stored.version != VERSION {
            return None;
        }
        let shard = |StoredShard { epoch, position, seen }: StoredShard| {
            let seen = seen.into_iter().filter_map(|(origin, ranges)| {
                Some((Origin(u64::from_str_radix(&origin, 16).ok()?), ranges))
            });
            ShardCheckpoint { epoch: Epoch(epoch), position: Position(position), seen: Seen::restore(seen) }
        };
        let shards = stored.shards.into_iter().map(shard).collect();
        Some(Self { landed: Position(stored.landed), shards })
    }

    /// Stores it, without waiting for the disk: one that is older, or none, only means to read more again.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let shard = |shard: &ShardCheckpoint| StoredShard {
            epoch: shard.epoch.0,
            position: shard.position.0,
            seen: shard.seen.ranges().map(|(origin, ranges)| (origin.to_string(), ranges.to_vec())).collect(),
        };
        let shards = self.shards.iter().map(shard).collect();
        let stored = Stored { version: VERSION, landed: self.landed.0, shards };
        let new = dir.join(format!("{FILE}.new"));
        std::fs::write(&new, serde_json::to_vec(&stored)?)?;
        std::fs::rename(new, dir.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_damage_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Checkpoint::read(dir.path()).is_none());
        let mut seen = Seen::default();
        for number in [1, 2, 3, 7] {
            seen.insert(Origin(9), number);
        }
        let shard =
            |epoch| ShardCheckpoint { epoch: Epoch(epoch), position: Position(77), seen: seen.clone() };
        let checkpoint = Checkpoint { landed: Position(50), shards: vec![shard(5), shard(6)] };
        checkpoint.write(dir.path()).unwrap();
        let mut read = Checkpoint::read(dir.path()).unwrap();
        assert_eq!((read.landed, read.shards.len()), (Position(50), 2));
        let shard = &mut read.shards[1];
        assert_eq!((shard.epoch, shard.position), (Epoch(6), Position(77)));
        assert!(!shard.seen.insert(Origin(9), 3) && shard.seen.insert(Origin(9), 4));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Checkpoint::read(dir.path()).is_none());
    }
}
