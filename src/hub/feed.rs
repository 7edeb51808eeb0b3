//! One channel's or pattern's ring, and who waits on it.

use super::{Audience, Batch};
use crate::event::{Pattern, Position};
use slab::Slab;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// Most batches handed over at once: as many as one vectored write takes.
pub(crate) const BATCHES_AT_ONCE: usize = 16;

/// Wake-ups under one hold of the lock. Small, so that the first clients woken on other cores do not queue
/// up on the lock while the last ones are still being woken.
const WAKE_CHUNK: usize = 128;

/// The live end of one channel or pattern.
pub struct Feed {
    pattern: Pattern,
    users: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    ring: VecDeque<Arc<Batch>>,
    bytes: usize,
    /// Every event of this feed after this position is in the ring.
    covered_from: Position,
    waiters: Slab<Waiter>,
}

/// How one connection waits on this feed.
enum Waiter {
    /// It has no other feed; the waker is there while it sleeps.
    Alone { waker: Option<Waker>, asleep: bool },
    /// It has several feeds and learns through its signal which of them have something.
    Among { signal: Arc<Signal>, member: u32 },
}

/// A connection's place among the waiters of a feed.
#[derive(Clone, Copy, Debug)]
pub struct Ticket(usize);

/// What a reader finds in a ring.
pub enum Take {
    /// Batches with something after its position, oldest first. The reader is armed: it will be woken by what
    /// comes after them.
    Batches(SmallVec<[Arc<Batch>; BATCHES_AT_ONCE]>),
    /// The same, and there is more: call again before sleeping.
    More(SmallVec<[Arc<Batch>; BATCHES_AT_ONCE]>),
    /// Nothing yet; the reader is armed.
    Nothing,
    /// The ring no longer reaches back to its position: it must read the log.
    Behind,
}

impl Feed {
    pub(super) fn new(pattern: Pattern, head: Position) -> Arc<Self> {
        Arc::new(Self {
            pattern,
            users: AtomicUsize::new(0),
            state: Mutex::new(State {
                ring: VecDeque::new(),
                bytes: 0,
                covered_from: head,
                waiters: Slab::new(),
            }),
        })
    }

    /// What it is the feed of.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// How many subscriptions use it.
    pub fn users(&self) -> usize {
        self.users.load(Ordering::Relaxed)
    }

    pub(super) fn add_user(&self) {
        self.users.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many are left.
    pub(super) fn remove_user(&self) -> usize {
        self.users.fetch_sub(1, Ordering::Relaxed) - 1
    }

    /// Joins as a connection with this feed only.
    pub fn join_alone(&self) -> Ticket {
        Ticket(self.lock().waiters.insert(Waiter::Alone { waker: None, asleep: false }))
    }

    /// Joins as one of several feeds of a connection, which calls it `member`.
    pub fn join_among(&self, signal: Arc<Signal>, member: u32) -> Ticket {
        Ticket(self.lock().waiters.insert(Waiter::Among { signal, member }))
    }

    /// Leaves.
    pub fn leave(&self, ticket: Ticket) {
        let mut state = self.lock();
        state.waiters.remove(ticket.0);
        if state.waiters.is_empty() {
            state.waiters = Slab::new();
        }
    }

    /// What a connection with this feed only finds after `position`; arms its waker unless there is more.
    pub fn take(&self, ticket: Ticket, position: Position, context: &Context<'_>) -> Take {
        let mut state = self.lock();
        if state.covered_from > position {
            return Take::Behind;
        }
        // Nearly always the reader is close to the end, so the search begins there.
        let fresh = state.ring.iter().rev().take_while(|batch| batch.last() > position).count();
        let start = state.ring.len() - fresh;
        if fresh > BATCHES_AT_ONCE {
            return Take::More(state.ring.range(start..start + BATCHES_AT_ONCE).cloned().collect());
        }
        let batches = state.ring.range(start..).cloned().collect();
        if let Waiter::Alone { waker, asleep } = &mut state.waiters[ticket.0] {
            match waker {
                Some(waker) if waker.will_wake(context.waker()) => {}
                _ => *waker = Some(context.waker().clone()),
            }
            *asleep = true;
        }
        if fresh == 0 { Take::Nothing } else { Take::Batches(batches) }
    }

    /// What a connection with several feeds finds in this one after `after` and up to `up_to`: calls `each`
    /// for every batch that may hold such events. `None` when the ring no longer reaches back that far.
    pub fn peek(&self, after: Position, up_to: Position, mut each: impl FnMut(&Arc<Batch>)) -> Option<Peek> {
        let state = self.lock();
        if state.covered_from > after {
            return None;
        }
        let fresh = state.ring.iter().rev().take_while(|batch| batch.last() > after).count();
        let start = state.ring.len() - fresh;
        for batch in state.ring.range(start..).take_while(|batch| batch.first() <= up_to) {
            each(batch);
        }
        Some(Peek { beyond: state.ring.back().is_some_and(|batch| batch.last() > up_to) })
    }

    /// Lets go of everything: who has not come to `position` reads the log.
    pub(super) fn cover_from(&self, position: Position) {
        let mut state = self.lock();
        state.ring = VecDeque::new();
        state.bytes = 0;
        state.covered_from = state.covered_from.max(position);
    }

    pub(super) fn push(&self, batch: Arc<Batch>, most_bytes: usize) {
        let mut state = self.lock();
        state.bytes += batch.footprint();
        state.ring.push_back(batch);
        while state.bytes > most_bytes && state.ring.len() > 1 {
            state.evict_oldest();
        }
    }

    /// Lets go of everything up to `position`.
    pub(super) fn evict(&self, position: Position) {
        let mut state = self.lock();
        while state.ring.front().is_some_and(|batch| batch.last() <= position) {
            state.evict_oldest();
        }
        if state.ring.is_empty() {
            state.ring = VecDeque::new();
        }
    }

    /// Tells connections with several feeds that this one has something, before any of them is woken. Returns who
    /// waits here.
    pub(super) fn mark(&self) -> Audience {
        let state = self.lock();
        let mut audience = Audience::default();
        for (_, waiter) in &state.waiters {
            let asleep = match waiter {
                Waiter::Alone { asleep, .. } => *asleep,
                Waiter::Among { signal, member } => signal.mark(*member),
            };
            audience.add(!asleep);
        }
        audience
    }

    /// Who waits here.
    pub(super) fn audience(&self) -> Audience {
        let state = self.lock();
        let mut audience = Audience::default();
        for (_, waiter) in &state.waiters {
            let asleep = match waiter {
                Waiter::Alone { asleep, .. } => *asleep,
                Waiter::Among { signal, .. } => signal.is_asleep(),
            };
            audience.add(!asleep);
        }
        audience
    }

    /// Wakes everybody who waits, and says how many that were.
    pub(super) fn wake(&self) -> usize {
        let (mut from, mut woken) = (0, 0);
        loop {
            let mut state = self.lock();
            // Slots that are added meanwhile belong to readers that look at the ring themselves.
            let end = (from + WAKE_CHUNK).min(state.waiters.capacity());
            for key in from..end {
                match state.waiters.get_mut(key) {
                    Some(Waiter::Alone { waker: Some(waker), asleep }) if *asleep => {
                        *asleep = false;
                        waker.wake_by_ref();
                        woken += 1;
                    }
                    Some(Waiter::Among { signal, .. }) => woken += usize::from(signal.wake()),
                    _ => {}
                }
            }
            if end >= state.waiters.capacity() {
                return woken;
            }
            from = end;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`Feed::peek`] saw beyond what was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Peek {
    /// The ring has events after the upper bound: look again.
    pub beyond: bool,
}

impl State {
    fn evict_oldest(&mut self) {
        if let Some(batch) = self.ring.pop_front() {
            self.bytes -= batch.footprint();
            self.covered_from = self.covered_from.max(batch.last());
        }
    }
}

/// How a connection with several feeds learns which of them have something.
#[derive(Default)]
pub struct Signal {
    state: Mutex<SignalState>,
}

#[derive(Default)]
struct SignalState {
    /// Feeds that have something, each once.
    ready: Vec<u32>,
    /// Which feeds are in `ready`.
    marked: Vec<bool>,
    waker: Option<Waker>,
    asleep: bool,
}

impl Signal {
    /// Notes that a feed has something. Returns whether the connection sleeps.
    pub fn mark(&self, member: u32) -> bool {
        let mut state = self.lock();
        let index = member as usize;
        if index >= state.marked.len() {
            state.marked.resize(index + 1, false);
        }
        if !std::mem::replace(&mut state.marked[index], true) {
            state.ready.push(member);
        }
        state.asleep
    }

    /// Whether the connection sleeps.
    fn is_asleep(&self) -> bool {
        self.lock().asleep
    }

    /// Takes the feeds that have something; arms the waker when there are none.
    pub fn take(&self, context: &Context<'_>) -> Vec<u32> {
        let mut state = self.lock();
        if state.ready.is_empty() {
            match &state.waker {
                Some(waker) if waker.will_wake(context.waker()) => {}
                _ => state.waker = Some(context.waker().clone()),
            }
            state.asleep = true;
        }
        state.clear()
    }

    /// Whether some feed has something.
    pub fn is_marked(&self) -> bool {
        !self.lock().ready.is_empty()
    }

    /// Forgets all marks: the reader is about to look at every feed.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// True if the connection slept.
    fn wake(&self) -> bool {
        let mut state = self.lock();
        let slept = std::mem::take(&mut state.asleep);
        if let (true, Some(waker)) = (slept, &state.waker) {
            waker.wake_by_ref();
        }
        slept
    }

    fn lock(&self) -> MutexGuard<'_, SignalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SignalState {
    fn clear(&mut self) -> Vec<u32> {
        let ready = std::mem::take(&mut self.ready);
        for member in &ready {
            self.marked[*member as usize] = false;
        }
        ready
    }
}
