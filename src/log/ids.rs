//! The publisher-given ids of the last while: what makes a repeated publish one event.

use super::meta::{sealed, unsealed};
use super::wire::{Damaged, Reader, put_signed, put_varint};
use crate::event::{EventId, Position, UnixMs};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Publisher-given ids as 64-bit hashes, bounded by age and number. The hash is keyed with a secret of the
/// log, so that two ids of an honest publisher are taken for one about once in 2^44 for a full window.
pub(super) struct Ids {
    seed: u64,
    window: Duration,
    limit: usize,
    /// Ages are told from here: the wall clock may jump (F18).
    start: Instant,
    positions: HashMap<u64, Position, foldhash::fast::RandomState>,
    /// In order of age: when (seconds since the start, from `BEFORE` on) and which.
    queue: VecDeque<(u32, u64)>,
}

/// Ids from before the start have times below this.
const BEFORE: u32 = u32::MAX / 2;

impl Ids {
    pub(super) fn new(seed: u64, window: Duration, limit: usize) -> Self {
        Self {
            seed,
            window,
            limit,
            start: Instant::now(),
            positions: HashMap::default(),
            queue: VecDeque::new(),
        }
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }

    /// How long ids are remembered.
    pub(super) fn window(&self) -> Duration {
        self.window
    }

    /// The hash that stands for an id.
    pub(super) fn hash(&self, id: &EventId) -> u64 {
        hash(self.seed, id.key().as_bytes())
    }

    /// Where the event with this id stands.
    pub(super) fn position(&self, id: &EventId) -> Option<Position> {
        self.positions.get(&self.hash(id)).copied()
    }

    /// Remembers an id that was just used.
    pub(super) fn remember(&mut self, id: &EventId, position: Position) {
        let now = BEFORE + self.start.elapsed().as_secs() as u32;
        self.insert(now, self.hash(id), position);
    }

    /// Remembers an id from before the start, oldest first.
    pub(super) fn recall(&mut self, hash: u64, age: Duration, position: Position) {
        if age < self.window {
            self.insert(BEFORE.saturating_sub(age.as_secs() as u32), hash, position);
        }
    }

    fn insert(&mut self, when: u32, hash: u64, position: Position) {
        if self.limit == 0 {
            return;
        }
        if self.positions.insert(hash, position).is_none() {
            self.queue.push_back((when, hash));
        }
        let oldest = when.saturating_sub(self.window.as_secs().min(u64::from(BEFORE)) as u32);
        while let Some(&(when, hash)) = self.queue.front() {
            if self.queue.len() <= self.limit && when >= oldest {
                break;
            }
            self.queue.pop_front();
            self.positions.remove(&hash);
        }
    }
}

/// How the names of the files begin that tell the ids of a fold.
pub(super) const PREFIX: &str = "ids-";

/// The file of a fold's ids.
pub(super) fn file_name(fold: Position) -> String {
    format!("{PREFIX}{:020}", fold.0)
}

/// What such a file tells: hash, position and time of each event.
pub(super) type Given = Vec<(u64, Position, UnixMs)>;

/// The contents of such a file.
pub(super) fn encode(given: &[(u64, Position, UnixMs)]) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut last_position, mut last_time) = (0, 0);
    for (hash, position, time) in given {
        out.extend_from_slice(&hash.to_le_bytes());
        put_varint(&mut out, position.0 - last_position);
        put_signed(&mut out, time.wrapping_sub(last_time) as i64);
        (last_position, last_time) = (position.0, *time);
    }
    sealed(out)
}

/// Reads the contents of such a file.
pub(super) fn parse(bytes: &[u8]) -> Result<Given, Damaged> {
    let mut reader = Reader::new(unsealed(bytes)?);
    let mut given = Vec::new();
    let (mut position, mut time) = (0u64, 0u64);
    while !reader.is_at_end() {
        let hash = reader.u64()?;
        position = position.checked_add(reader.varint()?).ok_or(Damaged)?;
        time = time.wrapping_add(reader.signed()? as u64);
        given.push((hash, Position(position), time));
    }
    Ok(given)
}

/// A keyed 64-bit hash (folded multiplication) that stays the same from version to version, as it is stored.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        (product as u64) ^ (product >> 64) as u64
    };
    let mut state = fold(seed ^ 0x9e37_79b9_7f4a_7c15, bytes.len() as u64 ^ 0xa076_1d64_78bd_642f);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = fold(state ^ u64::from_le_bytes(word), seed | 0xe703_7ed1_a0b4_28db);
    }
    fold(state ^ seed, 0x8ebc_6af0_9c88_c6e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_forgotten_by_number_and_age() {
        let id = |n: u64| EventId::parse(&format!("id-{n}")).unwrap();
        let mut ids = Ids::new(1, Duration::from_secs(60), 3);
        ids.recall(ids.hash(&id(0)), Duration::from_secs(61), Position(1));
        assert_eq!(ids.position(&id(0)), None);
        ids.recall(ids.hash(&id(1)), Duration::from_secs(59), Position(2));
        for n in 2..=3 {
            ids.remember(&id(n), Position(n + 1));
        }
        assert_eq!(ids.position(&id(1)), Some(Position(2)));
        ids.remember(&id(4), Position(5));
        assert_eq!(ids.position(&id(1)), None);
        assert_eq!(ids.position(&id(4)), Some(Position(5)));
        assert_eq!(ids.len(), 3);
    }

    #[test]
    fn hashes_of_like_ids_differ() {
        let mut seen = std::collections::HashSet::new();
        for n in 0..200_000u32 {
            assert!(seen.insert(hash(7, format!("order-{n}").as_bytes())));
        }
    }
}
