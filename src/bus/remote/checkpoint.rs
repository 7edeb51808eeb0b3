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
const VERSION: u32 = 1;

/// What is kept.
#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    pub(super) epoch: Epoch,
    pub(super) position: Position,
    pub(super) seen: Seen,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
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
        let seen = stored
            .seen
            .into_iter()
            .filter_map(|(origin, ranges)| Some((Origin(u64::from_str_radix(&origin, 16).ok()?), ranges)));
        Some(Self {
            epoch: Epoch(stored.epoch),
            position: Position(stored.position),
            seen: Seen::restore(seen),
        })
    }

    /// Stores it, without waiting for the disk: one that is older, or none, only means to read more again.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let seen = self.seen.ranges().map(|(origin, ranges)| (origin.to_string(), ranges.to_vec())).collect();
        let stored = Stored { version: VERSION, epoch: self.epoch.0, position: self.position.0, seen };
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
        let checkpoint = Checkpoint { epoch: Epoch(5), position: Position(77), seen };
        checkpoint.write(dir.path()).unwrap();
        let mut read = Checkpoint::read(dir.path()).unwrap();
        assert_eq!((read.epoch, read.position), (Epoch(5), Position(77)));
        assert!(!read.seen.insert(Origin(9), 3) && read.seen.insert(Origin(9), 4));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Checkpoint::read(dir.path()).is_none());
    }
}
