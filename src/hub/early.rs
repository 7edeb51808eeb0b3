//! Events that this node shows before the bus has ordered them, while the bus is away: one ring for all feeds,
//! in the order in which this node sends them, each with the number under which it does so.
//!
//! When such an event comes back from the bus it has its place in the log and is shown there like any other.
//! Whoever has got it early passes over it then: a client knows up to which number it has taken early events,
//! and [`EarlyLane::number_at`] tells the number of an event by its position.

use crate::codec::Shown;
use crate::event::Position;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// Most bytes of early events that wait for slow clients; who is slower gets them when the bus is back.
const MOST_BYTES: usize = 16 << 20;
/// Most events of which is known that they were shown early. Beyond that a client that is very far behind may
/// get one twice, under the same id.
const MOST_RETURNED: usize = 1 << 20;
/// So long after the last of them has come back, nobody who is still behind is told any more.
const MEMORY: Duration = Duration::from_secs(300);

/// The early events of this node.
#[derive(Default)]
pub struct EarlyLane {
    /// The number of the newest one.
    head: AtomicU64,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    ring: VecDeque<Early>,
    bytes: usize,
    /// Every early event after this number is in the ring.
    covered_from: u64,
    /// The current run began after this number. Between two runs all that was early has come back, and events
    /// were shown in order only.
    run_from: u64,
    /// Where those that came back stand in the log, oldest first.
    returned: VecDeque<(Position, u64)>,
    /// Everything up to this number has come back, whether it was early or not.
    returned_up_to: u64,
    last_return: Option<Instant>,
}

/// One early event.
#[derive(Clone)]
struct Early {
    number: u64,
    /// The newest position that was shown when it was: whoever has not come to it reads that first.
    after: Position,
    shown: Arc<Shown>,
}

/// What a client has taken of the early events: all in `(from, at]`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct EarlySeen {
    from: u64,
    at: u64,
    /// It was too slow: until a new run begins after this number it takes none.
    paused_until: u64,
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
    /// Whether it has taken the event of this number.
    fn has(&self, number: u64) -> bool {
        self.from < number && number <= self.at
    }

    /// Whether it has taken none that may still come back.
    pub fn is_empty(&self) -> bool {
        self.from == self.at
    }

    /// All that it took has come back.
    pub fn forget(&mut self) {
        self.from = self.at;
    }

    /// Goes back: everything after `number` is taken again. For what a socket did not take.
    pub fn rewind(&mut self, number: u64) {
        debug_assert!(self.from <= number && number <= self.at);
        self.at = number;
    }
}

impl EarlyLane {
    /// What a client that begins now has taken: none, and it gets those to come.
    pub fn begin(&self) -> EarlySeen {
        let head = self.head.load(Ordering::Acquire);
        EarlySeen { from: head, at: head, paused_until: 0 }
    }

    /// The number of the newest one.
    pub(super) fn newest(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Adds an event, unless it was added before or has come back already; says whether it did. `after` is the
    /// newest position that is shown. Numbers grow from call to call.
    pub(super) fn push(&self, number: u64, shown: Arc<Shown>, after: Position) -> bool {
        let mut state = self.write();
        let head = self.head.load(Ordering::Acquire);
        if number <= head.max(state.returned_up_to) {
            return false;
        }
        // Numbers between were shown in order, or refused. What was early before may still be to come back even
        // so: then clients must remember that they took it.
        if number > head + 1 && state.returned_up_to >= head {
            state.run_from = number - 1;
        }
        state.bytes += shown.event.footprint();
        state.ring.push_back(Early { number, after, shown });
        while state.bytes > MOST_BYTES && state.ring.len() > 1 {
            state.evict_oldest();
        }
        self.head.store(number, Ordering::Release);
        true
    }

    /// Notes where an own event stands in the log, before it is shown there.
    pub fn note_return(&self, number: u64, position: Position) {
        let mut state = self.write();
        state.returned_up_to = state.returned_up_to.max(number);
        if number > self.head.load(Ordering::Acquire) {
            return;
        }
        state.last_return = Some(Instant::now());
        state.returned.push_back((position, number));
        if state.returned.len() > MOST_RETURNED {
            state.returned.pop_front();
        }
        while state.ring.front().is_some_and(|early| early.number <= number) {
            state.evict_oldest();
        }
    }

    /// Forgets what came back long ago.
    pub(super) fn trim(&self, now: Instant) {
        let over = |state: &State| {
            state.last_return.is_some_and(|last| now.saturating_duration_since(last) > MEMORY)
        };
        if over(&self.read()) {
            let mut state = self.write();
            state.returned = VecDeque::new();
            state.last_return = None;
            state.run_from = state.run_from.max(state.returned_up_to);
        }
    }

    /// Whether a client that has taken early events passes over the event at a position.
    pub fn has_seen(&self, seen: &EarlySeen, position: Position) -> bool {
        let state = self.read();
        let place = state.returned.partition_point(|(at, _)| *at < position);
        state.returned.get(place).is_some_and(|(at, number)| *at == position && seen.has(*number))
    }

    /// Whether a client need not ask any more: all that it took has come back at or before `position`.
    pub fn is_over(&self, seen: &EarlySeen, position: Position) -> bool {
        let state = self.read();
        match state.returned.back() {
            Some((newest, number)) => *number >= seen.at && *newest <= position,
            None => state.run_from >= seen.at,
        }
    }

    /// What a client that has come to `up_to` in order finds next; `seen` moves on.
    pub fn take(&self, seen: &mut EarlySeen, up_to: Position, most: usize) -> EarlyTake {
        // Nearly always there is nothing: one look without a lock.
        if self.head.load(Ordering::Acquire) == seen.at {
            return EarlyTake::Nothing;
        }
        let state = self.read();
        let head = self.head.load(Ordering::Acquire);
        if state.run_from > seen.at && state.run_from >= seen.paused_until {
            *seen = EarlySeen { from: state.run_from, at: state.run_from, paused_until: 0 };
        }
        if seen.paused_until > 0 {
            return EarlyTake::Nothing;
        }
        let start = state.ring.partition_point(|early| early.number <= seen.at);
        if state.covered_from > seen.at
            && let Some(next) = state.ring.get(start)
        {
            if next.after > up_to {
                // What is missing between may have come back and be shown.
                return EarlyTake::NotYet;
            }
            if !seen.is_empty() || state.covered_from > state.returned_up_to {
                // What it missed comes in order when the bus is back; so does all after it.
                seen.paused_until = head;
                return EarlyTake::Nothing;
            }
            // It took none so far, and those before have come back.
            (seen.from, seen.at) = (state.covered_from, state.covered_from);
        }
        let mut events = Vec::new();
        for early in state.ring.range(start..).take(most) {
            if early.after > up_to {
                return if events.is_empty() { EarlyTake::NotYet } else { EarlyTake::Events(events) };
            }
            seen.at = early.number;
            events.push((early.number, early.shown.clone()));
        }
        if events.is_empty() {
            // All of them have come back meanwhile.
            return EarlyTake::Nothing;
        }
        EarlyTake::Events(events)
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
        if let Some(early) = self.ring.pop_front() {
            self.bytes -= early.shown.event.footprint();
            self.covered_from = early.number;
        }
        if self.ring.is_empty() {
            self.ring = VecDeque::new();
        }
    }
}
