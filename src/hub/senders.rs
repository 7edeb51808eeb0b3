//! How far the senders on the bus have been shown: then clients need no longer remember what they have of them.

use crate::codec::Shown;
use crate::event::{EarlyRange, Origin, Sender};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Senders that are known; beyond it any is forgotten, and its clients remember for longer.
const MOST_SENDERS: usize = 4096;

/// The newest number of each sender that has been shown, by shard of the bus: each has an order of its own.
#[derive(Default)]
pub(super) struct Senders(Mutex<HashMap<Origin, SmallVec<[u64; 1]>, foldhash::fast::RandomState>>);

impl Senders {
    /// Takes note of a group. Called after it has been shown.
    pub(super) fn note_group(&self, group: &[Arc<Shown>]) {
        let mut newest: SmallVec<[(Sender, usize, usize); 4]> = SmallVec::new();
        for event in group.iter().map(|shown| &shown.event) {
            let Some(sender) = event.sender() else { continue };
            let (shards, shard) = match event.marks() {
                None => (1, 0),
                Some(marks) => (marks.shards(), crate::event::shard_of(&event.channel, marks.shards())),
            };
            let same =
                |(other, _, at): &&mut (Sender, usize, usize)| other.origin == sender.origin && *at == shard;
            match newest.iter_mut().find(same) {
                Some((other, ..)) => other.number = other.number.max(sender.number),
                None => newest.push((sender, shards, shard)),
            }
        }
        if newest.is_empty() {
            return;
        }
        let mut known = self.lock();
        for (sender, shards, shard) in newest {
            if known.len() >= MOST_SENDERS && !known.contains_key(&sender.origin) {
                let any = known.keys().next().copied();
                any.and_then(|any| known.remove(&any));
            }
            let numbers = known.entry(sender.origin).or_default();
            if numbers.len() < shards {
                numbers.resize(shards, 0);
            }
            numbers[shard] = numbers[shard].max(sender.number);
        }
    }

    /// Takes note of what was shown on a shard, or stands in the log, before this node began.
    pub(super) fn note(&self, sender: Sender, shard: usize) {
        let mut known = self.lock();
        if known.len() < MOST_SENDERS || known.contains_key(&sender.origin) {
            let numbers = known.entry(sender.origin).or_default();
            if numbers.len() <= shard {
                numbers.resize(shard + 1, 0);
            }
            numbers[shard] = numbers[shard].max(sender.number);
        }
    }

    /// Whether all events of some stretches have been shown.
    pub(super) fn have_shown(&self, ranges: &[EarlyRange]) -> bool {
        let known = self.lock();
        ranges.iter().all(|range| {
            known.get(&range.origin).is_some_and(|numbers| numbers.iter().all(|number| *number >= range.to))
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, SmallVec<[u64; 1]>, foldhash::fast::RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
