//! Events that this node shows before the bus has ordered them, while the bus is away: one ring for all feeds,
//! in the order in which this node sends them, each with the number under which it does so.
//!
//! When such an event comes back from the bus it has its place in the log and is shown there like any other.
//! Whoever has got it early passes over it then: a client knows which stretch of this node's numbers it has, and
//! every event in the log says under which number it was sent.

use crate::codec::Shown;
use crate::event::{Channel, EarlyRange, Event, EventId, Origin, Position, Sender, shard_of};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Most bytes of early events that wait for slow clients; who is slower gets them when the bus is back.
const MOST_BYTES: usize = 16 << 20;

/// The early events of this node.
#[derive(Default)]
pub struct EarlyLane {
    run: OnceLock<Run>,
    /// The number of the newest one.
    head: AtomicU64,
    state: RwLock<State>,
}

/// Under which name this node sends.
struct Run {
    origin: Origin,
    shards: usize,
}

#[derive(Default)]
struct State {
    ring: VecDeque<Early>,
    bytes: usize,
    /// Every early event after this number that has not come back is in the ring.
    covered_from: u64,
    /// By shard of the bus, as each has an order of its own.
    shards: Vec<Returning>,
    /// Where the log stood when the last early event came back.
    returned_at: Position,
    /// Those in the ring whose ids were given by their publishers.
    ids: HashMap<EventId, u64, foldhash::fast::RandomState>,
}

/// What comes back over one shard, in the order of numbers.
#[derive(Default)]
struct Returning {
    /// Early events that have not come back, oldest first.
    outstanding: VecDeque<u64>,
    /// The newest number that has come back, whether it was early or not.
    newest: u64,
}

/// One early event.
struct Early {
    number: u64,
    /// The newest position that was shown when it was: whoever has not come to it reads that first.
    after: Position,
    /// Where the log stood when it had come back. The oldest in the ring has not.
    returned: Option<Position>,
    shown: Arc<Shown>,
}

/// What a client has of the events that this node sent: all in `(from, at]`, whether it got them early or with
/// their place.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct EarlySeen {
    from: u64,
    at: u64,
}

/// What a client finds.
pub enum EarlyTake {
    /// Events with their numbers, oldest first.
    Events(Vec<(u64, Arc<Shown>)>),
    /// Something was shown in order that comes before them: look there first.
    NotYet,
    /// Nothing for it.
    Nothing,
}

impl EarlySeen {
    /// What a client has that comes back and got these the last time.
    pub fn resumed(range: EarlyRange) -> Self {
        Self { from: range.from, at: range.to }
    }

    /// Whether the event of this number is among them, where they count after `after` only.
    pub fn has(&self, number: u64, after: u64) -> bool {
        self.from.max(after) < number && number <= self.at
    }

    /// Whether it has none that may still come back.
    pub fn is_empty(&self) -> bool {
        self.from >= self.at
    }

    /// All that it has got early has come back.
    pub fn forget(&mut self) {
        self.from = self.at;
    }

    /// Up to which number it has taken them.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The stretch of numbers after `after` and up to `to`, of those that it has.
    pub fn range(&self, origin: Origin, after: u64, to: u64) -> Option<EarlyRange> {
        let from = self.from.max(after);
        (from < to).then_some(EarlyRange { origin, from, to })
    }

    /// Goes back: everything after `number` is taken again. For what a socket did not take.
    pub fn rewind(&mut self, number: u64) {
        debug_assert!(self.from <= number && number <= self.at);
        self.at = number;
    }
}

impl EarlyLane {
    /// From now on events are sent as those of this run, over so many shards. Said once, before any is sent.
    pub fn begin_run(&self, origin: Origin, shards: usize) {
        self.run.get_or_init(|| Run { origin, shards: shards.max(1) });
        self.write().shards.resize_with(shards.max(1), Returning::default);
    }

    /// As which run this node sends.
    pub fn origin(&self) -> Option<Origin> {
        self.run.get().map(|run| run.origin)
    }

    /// What a client that begins now has: none, and it gets those to come.
    pub fn begin(&self) -> EarlySeen {
        let head = self.head.load(Ordering::Acquire);
        EarlySeen { from: head, at: head }
    }

    /// The number of the newest one.
    pub(super) fn newest(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// The newest one of a channel that may still come back.
    pub fn newest_of(&self, channel: &Channel) -> Option<(Sender, Arc<Shown>)> {
        let origin = self.origin()?;
        let state = self.read();
        let newest = state.ring.iter().rev().find(|early| early.shown.event.channel == *channel)?;
        Some((Sender { origin, number: newest.number }, newest.shown.clone()))
    }

    /// Adds an event, unless it was added before or has come back already; says whether it did. `after` is the
    /// newest position that is shown. Numbers grow from call to call.
    pub(super) fn push(&self, number: u64, shown: Arc<Shown>, after: Position) -> bool {
        let Some(run) = self.run.get() else { return false };
        let mut state = self.write();
        let state = &mut *state;
        let returning = &mut state.shards[shard_of(&shown.event.channel, run.shards)];
        if number <= self.head.load(Ordering::Acquire)
            || number <= returning.newest
            || shown.event.id_given && state.ids.contains_key(&shown.event.id)
        {
            return false;
        }
        returning.outstanding.push_back(number);
        state.bytes += shown.event.footprint();
        if shown.event.id_given {
            state.ids.insert(shown.event.id.clone(), number);
        }
        state.ring.push_back(Early { number, after, returned: None, shown });
        while state.bytes > MOST_BYTES && state.ring.len() > 1 {
            state.evict_oldest();
        }
        self.head.store(number, Ordering::Release);
        true
    }

    /// The early events for which others stand that are in a group of the log: under the same ids, but from
    /// elsewhere. With their positions.
    pub(super) fn twins_in(&self, group: &[Arc<Shown>]) -> Vec<(Position, Sender)> {
        let Some(origin) = self.origin() else { return Vec::new() };
        if self.head.load(Ordering::Acquire) == 0 || self.read().ids.is_empty() {
            return Vec::new();
        }
        let state = self.read();
        let events = group.iter().map(|shown| &shown.event);
        let foreign = events
            .filter(|event| event.id_given && event.sender().is_none_or(|sender| sender.origin != origin));
        foreign
            .filter_map(|event| {
                let number = *state.ids.get(&event.id)?;
                Some((event.position, Sender { origin, number }))
            })
            .collect()
    }

    /// Takes note of a group in which own events may have come back, or others that stand for some. Called after
    /// it has been shown: whoever knows of a return can read it.
    pub(super) fn note_returns(&self, group: &[Arc<Shown>], twins: impl Iterator<Item = Sender>) {
        let (Some(run), Some(last)) = (self.run.get(), group.last()) else { return };
        let position = last.event.position;
        let own = |sender: &Sender| sender.origin == run.origin;
        let mut twins = twins.filter(own).peekable();
        let mut events = group.iter().map(|shown| &shown.event);
        if twins.peek().is_none() && !events.clone().any(|event| event.sender().as_ref().is_some_and(own)) {
            return;
        }
        let mut state = self.write();
        for twin in twins {
            state.note_return_of_twin(twin.number, run.shards, position);
        }
        for event in &mut events {
            if let Some(sender) = event.sender().filter(own) {
                state.note_return(sender.number, shard_of(&event.channel, run.shards), position);
            }
        }
        state.evict_returned();
    }

    /// The same for one that the log had already under its id, and does not show again.
    pub(super) fn note_dropped(&self, event: &Event, position: Position) {
        let (Some(run), Some(sender)) = (self.run.get(), event.sender()) else { return };
        if sender.origin == run.origin {
            let mut state = self.write();
            state.note_return(sender.number, shard_of(&event.channel, run.shards), position);
            state.evict_returned();
        }
    }

    /// Whether a client that has come to `position` need not ask any more: all that it has got early has come
    /// back at or before it.
    pub fn is_over(&self, seen: &EarlySeen, position: Position) -> bool {
        let state = self.read();
        state.returned_at <= position && state.returned_up_to() >= seen.at
    }

    /// What a client that has come to `up_to` in order finds next; `seen` moves on.
    pub fn take(&self, seen: &mut EarlySeen, up_to: Position, most: usize) -> EarlyTake {
        // Nearly always there is nothing: one look without a lock.
        if self.head.load(Ordering::Acquire) == seen.at {
            return EarlyTake::Nothing;
        }
        let state = self.read();
        if state.covered_from > seen.at {
            if state.returned_up_to() < state.covered_from {
                // It was too slow. What it missed comes in order when the bus is back; so does all after it.
                return EarlyTake::Nothing;
            }
            if state.returned_at > up_to {
                return EarlyTake::NotYet;
            }
            // It has those in between with their place.
            if seen.is_empty() {
                seen.from = state.covered_from;
            }
            seen.at = state.covered_from;
        }
        // Numbers between two in the ring were shown in order before the later one, or refused.
        let mut events = Vec::new();
        let start = state.ring.partition_point(|early| early.number <= seen.at);
        for early in state.ring.range(start..).take(most) {
            if early.after > up_to || early.returned.is_some_and(|returned| returned > up_to) {
                return if events.is_empty() { EarlyTake::NotYet } else { EarlyTake::Events(events) };
            }
            seen.at = early.number;
            if early.returned.is_none() {
                events.push((early.number, early.shown.clone()));
            }
        }
        if events.is_empty() { EarlyTake::Nothing } else { EarlyTake::Events(events) }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn evict_oldest(&mut self) {
        if let Some(Early { number, shown, .. }) = self.ring.pop_front() {
            self.bytes -= shown.event.footprint();
            self.covered_from = number;
            if shown.event.id_given {
                self.ids.remove(&shown.event.id);
            }
        }
        if self.ring.is_empty() {
            self.ring = VecDeque::new();
        }
    }

    fn evict_returned(&mut self) {
        while self.ring.front().is_some_and(|early| early.returned.is_some()) {
            self.evict_oldest();
        }
    }

    /// What stands for an early event has come; itself it is still to come, and will be dropped.
    fn note_return_of_twin(&mut self, number: u64, shards: usize, position: Position) {
        let place = self.ring.partition_point(|early| early.number < number);
        let Some(early) = self.ring.get_mut(place).filter(|early| early.number == number) else { return };
        early.returned = Some(position);
        self.returned_at = position;
        let outstanding = &mut self.shards[shard_of(&early.shown.event.channel, shards)].outstanding;
        if let Ok(at) = outstanding.binary_search(&number) {
            outstanding.remove(at);
        }
    }

    fn note_return(&mut self, number: u64, shard: usize, position: Position) {
        let returning = &mut self.shards[shard];
        returning.newest = returning.newest.max(number);
        while returning.outstanding.front().is_some_and(|oldest| *oldest <= number) {
            // One before this number that has not come back was refused.
            let Some(back) = returning.outstanding.pop_front() else { break };
            self.returned_at = position;
            let place = self.ring.partition_point(|early| early.number < back);
            if let Some(early) = self.ring.get_mut(place).filter(|early| early.number == back) {
                early.returned = Some(position);
            }
        }
        if returning.outstanding.is_empty() {
            returning.outstanding = VecDeque::new();
        }
    }

    /// All early events up to this number have come back.
    fn returned_up_to(&self) -> u64 {
        let oldest = self.shards.iter().filter_map(|returning| returning.outstanding.front()).min();
        oldest.map_or(u64::MAX, |oldest| oldest - 1)
    }
}
