//! The queue between the bus and the replica: bounded by bytes and age, taken in groups of whatever is waiting.

use super::{Refused, Slot, Stamped};
use crate::event::{Event, POSITIONS_PER_MS, Position};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, oneshot};

/// What comes to the replica, in order.
pub enum Arriving {
    /// An event with its position.
    Event {
        /// The event.
        event: Event,
        /// Who waits for it, if anybody does.
        slot: Option<Slot>,
        /// When it was accepted.
        accepted: Instant,
    },
    /// An event that the bus has not ordered yet: it is shown, and comes again when the bus is back.
    Early {
        /// The event.
        event: Arc<Event>,
        /// Under which number this node sends it.
        number: u64,
    },
    /// A probe that goes back once it has been where events go.
    Probe(oneshot::Sender<()>),
}

impl Arriving {
    fn accepted(&self) -> Option<Instant> {
        match self {
            Self::Event { accepted, .. } => Some(*accepted),
            Self::Early { .. } | Self::Probe(_) => None,
        }
    }
}

/// The queue. Many may push; one thread takes.
pub struct Inflow {
    state: Mutex<State>,
    filled: Condvar,
    /// Wakes [`Inflow::keep_nudging`].
    pushed: Notify,
    /// Wakes whoever waits for room.
    drained: Notify,
    max_bytes: usize,
    max_age: Duration,
}

struct State {
    queue: VecDeque<Arriving>,
    bytes: usize,
    next: Position,
    taker_waits: bool,
    closed: bool,
}

/// Queued probes beyond this are refused; each is a few bytes.
const MAX_PROBES: usize = 16;
/// How long whoever waits for room sleeps at most.
const ROOM_CHECK: Duration = Duration::from_millis(20);

impl Inflow {
    /// An empty queue that numbers events from `next` on.
    pub fn new(max_bytes: usize, max_age: Duration, next: Position) -> Self {
        Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                bytes: 0,
                next,
                taker_waits: false,
                closed: false,
            }),
            filled: Condvar::new(),
            pushed: Notify::new(),
            drained: Notify::new(),
            max_bytes,
            max_age,
        }
    }

    /// Numbers events in the order of their arrival and takes them all, or none.
    pub fn push_numbered(&self, events: Vec<Stamped>) -> Result<Vec<Position>, Refused> {
        let accepted = Instant::now();
        let bytes: usize = events.iter().map(|stamped| stamped.event.footprint()).sum();
        let mut positions = Vec::with_capacity(events.len());
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        // An empty queue takes any request, so that one that is larger than the bound is not refused for ever.
        let oldest = state.queue.iter().find_map(Arriving::accepted);
        let late = oldest.is_some_and(|oldest| accepted.saturating_duration_since(oldest) > self.max_age);
        if late || (state.bytes + bytes > self.max_bytes && state.bytes > 0) {
            return Err(Refused::QueueFull);
        }
        state.bytes += bytes;
        for Stamped { mut event, slot } in events {
            event.position = state.next;
            positions.push(state.next);
            state.next = state.next.next();
            state.queue.push_back(Arriving::Event { event, slot, accepted });
        }
        self.wake(state);
        Ok(positions)
    }

    /// Takes an event from a bus: with its position, or, where the bus keeps no order, at the time of day. Waits
    /// while there is no room: then the bus is read no faster than the disk takes it. Says where it stands; none when
    /// the queue is closed.
    pub async fn push_from_bus(
        &self,
        mut event: Event,
        slot: Option<Slot>,
        accepted: Instant,
    ) -> Option<Position> {
        let mut state = self.room(event.footprint()).await?;
        if event.position == Position::ZERO {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            event.position = state.next.max(Position(now.saturating_mul(POSITIONS_PER_MS)));
            state.next = event.position.next();
        }
        let place = event.position;
        state.queue.push_back(Arriving::Event { event, slot, accepted });
        self.wake(state);
        Some(place)
    }

    /// Takes something else that goes the way of events, as soon as there is room. False when it is closed.
    pub async fn push_when_room(&self, arriving: Arriving) -> bool {
        let bytes = match &arriving {
            Arriving::Event { event, .. } => event.footprint(),
            Arriving::Early { event, .. } => event.footprint(),
            Arriving::Probe(_) => 0,
        };
        let Some(mut state) = self.room(bytes).await else { return false };
        state.queue.push_back(arriving);
        self.wake(state);
        true
    }

    /// Numbers what arrives from now on after a position.
    pub fn number_after(&self, position: Position) {
        let mut state = self.lock();
        state.next = state.next.max(position.next());
    }

    /// Waits for room and takes it up.
    async fn room(&self, bytes: usize) -> Option<MutexGuard<'_, State>> {
        loop {
            if let Some(state) = self.try_room(bytes)? {
                return Some(state);
            }
            // Two may wait, the tail and the carrier: who is woken in vain looks again before long.
            let _ = tokio::time::timeout(ROOM_CHECK, self.drained.notified()).await;
        }
    }

    /// The queue with so much room taken up; the inner `None` when there is not as much, the outer when it is
    /// closed.
    fn try_room(&self, bytes: usize) -> Option<Option<MutexGuard<'_, State>>> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        if state.bytes > 0 && state.bytes + bytes > self.max_bytes {
            return Some(None);
        }
        state.bytes += bytes;
        Some(Some(state))
    }

    /// Takes a probe.
    pub fn push_probe(&self, returned: oneshot::Sender<()>) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        let waiting = state.queue.iter().filter(|arriving| matches!(arriving, Arriving::Probe(_))).count();
        if waiting >= MAX_PROBES {
            return Err(Refused::QueueFull);
        }
        state.queue.push_back(Arriving::Probe(returned));
        self.wake(state);
        Ok(())
    }

    /// Waits until something is there and moves up to `most` entries or about `most_bytes` to `group`.
    /// False when the queue is closed and empty.
    pub fn take(&self, most: usize, most_bytes: usize, group: &mut Vec<Arriving>) -> bool {
        let mut state = self.lock();
        while state.queue.is_empty() {
            if state.closed {
                return false;
            }
            state.taker_waits = true;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.taker_waits = false;
        }
        let mut bytes = 0;
        while group.len() < most && bytes < most_bytes {
            let Some(arriving) = state.queue.pop_front() else { break };
            match &arriving {
                Arriving::Event { event, .. } => bytes += event.footprint(),
                Arriving::Early { event, .. } => bytes += event.footprint(),
                Arriving::Probe(_) => {}
            }
            group.push(arriving);
        }
        state.bytes -= bytes;
        if state.queue.is_empty() && state.queue.capacity() > 4096 {
            state.queue = VecDeque::new();
        }
        drop(state);
        self.drained.notify_one();
        true
    }

    /// Wakes the taker after pushes, once for all that the async threads push in one go. A wake-up for each
    /// push would cost a switch of threads for each: measured on one core, a third of a publish.
    pub async fn keep_nudging(&self) {
        loop {
            self.pushed.notified().await;
            // Comes back when the other tasks that are ready have run, with what they pushed.
            tokio::task::yield_now().await;
            let waits = self.lock().taker_waits;
            if waits {
                self.filled.notify_one();
            }
        }
    }

    /// Takes nothing more.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        drop(state);
        self.filled.notify_one();
    }

    /// Whether it takes nothing more.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// How many entries and bytes wait.
    pub fn depth(&self) -> (usize, usize) {
        let state = self.lock();
        (state.queue.len(), state.bytes)
    }

    fn wake(&self, state: MutexGuard<'_, State>) {
        let waits = state.taker_waits;
        drop(state);
        if waits {
            self.pushed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
