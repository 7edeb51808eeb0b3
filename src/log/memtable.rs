//! The events of one journal in memory, with what is needed to find them: the newest end of the log.

use super::journal::{Header, Journal};
use super::walk::Wanted;
use crate::event::{Channel, Event, Position};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// More channels than this are looked for by a scan, not by their lists.
const MOST_LISTS: usize = 64;

/// The events of a journal. One thread appends, any may read.
pub(super) struct Memtable {
    pub(super) header: Header,
    pub(super) created: Instant,
    last: AtomicU64,
    /// The files that hold it: more than one after a failed sync.
    files: Mutex<Vec<PathBuf>>,
    contents: RwLock<Contents>,
}

#[derive(Default)]
struct Contents {
    /// When something was added last.
    extended: Option<Instant>,
    events: Vec<Arc<Event>>,
    by_channel: HashMap<Channel, Vec<u32>, foldhash::fast::RandomState>,
    footprint: usize,
}

/// What a look at a stretch found.
pub(super) struct Chunk {
    /// Events of wanted channels, in the direction of the look.
    pub(super) events: Vec<Arc<Event>>,
    /// Up to where it looked, this position included.
    pub(super) reached: Position,
}

impl Memtable {
    pub(super) fn new(header: Header, files: Vec<PathBuf>) -> Self {
        Self {
            header,
            created: Instant::now(),
            last: AtomicU64::new(header.first.0),
            files: Mutex::new(files),
            contents: RwLock::default(),
        }
    }

    pub(super) fn last(&self) -> Position {
        Position(self.last.load(Ordering::Acquire))
    }

    pub(super) fn len(&self) -> usize {
        self.read().events.len()
    }

    /// About how many bytes it takes in memory.
    pub(super) fn footprint(&self) -> usize {
        self.read().footprint
    }

    /// For how long nothing was added.
    pub(super) fn idle(&self) -> Duration {
        self.read().extended.unwrap_or(self.created).elapsed()
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another file holds a part of it from now on.
    pub(super) fn add_file(&self, journal: &Journal) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push(journal.path().to_owned());
    }

    /// All events, in order.
    pub(super) fn events(&self) -> Vec<Arc<Event>> {
        self.read().events.clone()
    }

    /// Divides the events in (`after`, `up_to`] where something begins to hold that holds for all that follow:
    /// the last before, and the first for which it does.
    pub(super) fn split(
        &self,
        after: Position,
        up_to: Position,
        holds: impl Fn(&Event) -> bool,
    ) -> (Option<Position>, Option<Position>) {
        let contents = self.read();
        let events = &contents.events[..contents.index_after(up_to)];
        let events = &events[contents.index_after(after).min(events.len())..];
        let place = events.partition_point(|event| !holds(event));
        let position = |event: &Arc<Event>| event.position;
        (events[..place].last().map(position), events.get(place).map(position))
    }

    /// The newest event that stands at a position or before it.
    pub(super) fn newest_up_to(&self, up_to: Position) -> Option<Arc<Event>> {
        let contents = self.read();
        contents.events[..contents.index_after(up_to)].last().cloned()
    }

    /// The events after a position.
    pub(super) fn events_after(&self, after: Position) -> Vec<Arc<Event>> {
        let contents = self.read();
        contents.events[contents.index_after(after)..].to_vec()
    }

    /// When the oldest of its events was accepted.
    pub(super) fn first_time(&self) -> Option<u64> {
        self.read().events.first().map(|event| event.time)
    }

    /// Adds events whose positions follow.
    pub(super) fn extend<'a>(&self, events: impl Iterator<Item = &'a Arc<Event>>) {
        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        contents.extended = Some(Instant::now());
        for event in events {
            let index = contents.events.len() as u32;
            match contents.by_channel.get_mut(&event.channel) {
                Some(list) => list.push(index),
                None => {
                    contents.by_channel.insert(event.channel.clone(), vec![index]);
                }
            }
            contents.footprint += event.footprint() + 16;
            contents.events.push(event.clone());
            self.last.store(event.position.0, Ordering::Release);
        }
    }

    /// The newest `most` positions of a channel, newest first.
    pub(super) fn newest_of(&self, channel: &Channel, most: usize) -> Vec<Position> {
        let contents = self.read();
        let list = contents.by_channel.get(channel).map_or(&[][..], Vec::as_slice);
        list.iter().rev().take(most).map(|&index| contents.events[index as usize].position).collect()
    }

    /// Looks at no more than `most` events in `(after, up_to]`, in order.
    pub(super) fn forward(
        &self,
        wanted: &Wanted<'_>,
        after: Position,
        up_to: Position,
        most: usize,
    ) -> Chunk {
        let contents = self.read();
        let from = contents.index_after(after);
        let to = contents.index_after(up_to).max(from);
        let end = up_to.min(self.last());
        if let Some(lists) = contents.lists(wanted) {
            let mut found: Vec<u32> = Vec::new();
            for list in lists {
                let start = list.partition_point(|&index| (index as usize) < from);
                found.extend(list[start..].iter().take_while(|&&index| (index as usize) < to).take(most));
            }
            found.sort_unstable();
            let whole = found.len() < most;
            found.truncate(most);
            let events: Vec<_> = found.iter().map(|&index| contents.events[index as usize].clone()).collect();
            let reached = match events.last() {
                Some(event) if !whole => event.position,
                _ => end,
            };
            return Chunk { events, reached };
        }
        let stop = to.min(from + most);
        let reached = if stop == to { end } else { contents.events[stop - 1].position };
        let events = contents.events[from..stop].iter().filter(|event| wanted.channel(&event.channel));
        Chunk { events: events.cloned().collect(), reached }
    }

    /// Looks at no more than `most` events in `[down_to, before)`, newest first.
    pub(super) fn backward(
        &self,
        wanted: &Wanted<'_>,
        before: Position,
        down_to: Position,
        most: usize,
    ) -> Chunk {
        let contents = self.read();
        let to = contents.events.partition_point(|event| event.position < before);
        let from = contents.events.partition_point(|event| event.position < down_to).min(to);
        let end = down_to.max(self.header.first);
        if let Some(lists) = contents.lists(wanted) {
            let mut found: Vec<u32> = Vec::new();
            for list in lists {
                let stop = list.partition_point(|&index| (index as usize) < to);
                let kept = list[..stop].iter().rev().take_while(|&&index| (index as usize) >= from);
                found.extend(kept.take(most));
            }
            found.sort_unstable_by(|a, b| b.cmp(a));
            let whole = found.len() < most;
            found.truncate(most);
            let events: Vec<_> = found.iter().map(|&index| contents.events[index as usize].clone()).collect();
            let reached = match events.last() {
                Some(event) if !whole => event.position,
                _ => end,
            };
            return Chunk { events, reached };
        }
        let start = from.max(to.saturating_sub(most));
        let reached = if start == from { end } else { contents.events[start].position };
        let events = contents.events[start..to].iter().rev().filter(|event| wanted.channel(&event.channel));
        Chunk { events: events.cloned().collect(), reached }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn index_after(&self, after: Position) -> usize {
        self.events.partition_point(|event| event.position <= after)
    }

    /// The lists of the wanted channels, if these are few and named in full.
    fn lists(&self, wanted: &Wanted<'_>) -> Option<Vec<&[u32]>> {
        let interest = wanted
            .interest
            .filter(|interest| interest.patterns().is_empty() && interest.channels().len() <= MOST_LISTS)?;
        Some(
            interest
                .channels()
                .filter_map(|channel| self.by_channel.get(channel))
                .map(Vec::as_slice)
                .collect(),
        )
    }
}
