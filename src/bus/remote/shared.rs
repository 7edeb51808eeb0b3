//! What the publishers, the carrier and the link of a remote bus share.

use crate::bus::backend::Origin;
use crate::bus::{Outcome, Refused, Slot, Stamped};
use crate::event::{Channel, shard_of};
use crate::metrics::Metrics;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot, watch};

/// Most bytes of events that are held in memory on their way to the bus or to the outbox.
const MOST_HELD_BYTES: usize = 64 << 20;
/// A publish that finds one waiting for so long is refused: the carrier does not keep up, or hangs.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Probes under way.
const MOST_PROBES: usize = 16;

pub(super) struct Shared {
    pub(super) origin: Origin,
    pub(super) metrics: Arc<Metrics>,
    intake: Mutex<Intake>,
    /// Wakes the carrier.
    pub(super) filled: Notify,
    held_bytes: AtomicUsize,
    /// Who waits for which of our events.
    waiting: Mutex<HashMap<u64, Waiting>>,
    /// By shard: all our events there up to this number have come back from the bus.
    returned_up_to: Box<[AtomicU64]>,
    probes: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    next_probe: AtomicU64,
    /// Wakes the link when the sender finds it broken, and why.
    pub(super) broken: Notify,
    broken_why: Mutex<Option<String>>,
    state: Mutex<State>,
    /// Set when all is sent or stored: then the link may end.
    pub(super) carried: watch::Sender<bool>,
    /// Whether everything that is on the bus has been read, as far as the last read showed.
    is_current: AtomicBool,
    /// When it was current last.
    current_at: Mutex<Instant>,
    max_event_bytes: AtomicUsize,
    outbox_refuses: AtomicBool,
    /// Why the bus takes no events over a link that stands.
    refused_why: Mutex<Option<String>>,
}

#[derive(Default)]
struct Intake {
    queue: VecDeque<Accepted>,
    probes: Vec<u64>,
    closed: bool,
}

/// A publish that was accepted.
pub(super) struct Accepted {
    pub(super) stamped: Stamped,
    pub(super) at: Instant,
}

/// Who waits for an event.
pub(super) struct Waiting {
    pub(super) slot: Option<Slot>,
    pub(super) accepted: Instant,
}

/// Whether there is a link, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// The first attempt is under way.
    Connecting,
    /// There is one.
    Connected,
    /// There is none: why not.
    Away(String),
}

impl Shared {
    pub(super) fn new(origin: Origin, shards: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            origin,
            metrics,
            intake: Mutex::default(),
            filled: Notify::new(),
            held_bytes: AtomicUsize::new(0),
            waiting: Mutex::default(),
            returned_up_to: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            probes: Mutex::default(),
            next_probe: AtomicU64::new(1),
            broken: Notify::new(),
            broken_why: Mutex::default(),
            state: Mutex::new(State::Connecting),
            carried: watch::Sender::new(false),
            is_current: AtomicBool::new(false),
            current_at: Mutex::new(Instant::now()),
            max_event_bytes: AtomicUsize::new(usize::MAX),
            outbox_refuses: AtomicBool::new(false),
            refused_why: Mutex::default(),
        }
    }

    /// Takes publishes in order, all or none.
    pub(super) fn accept(&self, events: Vec<Stamped>) -> Result<(), Refused> {
        let at = Instant::now();
        let most = self.max_event_bytes.load(Ordering::Relaxed);
        if events.iter().any(|stamped| stamped.event.footprint() > most) {
            return Err(Refused::TooLarge);
        }
        let bytes: usize = events.iter().map(|stamped| stamped.event.footprint()).sum();
        let mut intake = lock(&self.intake);
        if intake.closed {
            return Err(Refused::Closed);
        }
        let held = self.held_bytes.load(Ordering::Relaxed);
        let late = intake.queue.front().is_some_and(|oldest| oldest.at.elapsed() > LONGEST_WAIT);
        if late || (held > 0 && held + bytes > MOST_HELD_BYTES) {
            return Err(Refused::QueueFull);
        }
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        let was_empty = intake.queue.is_empty();
        intake.queue.extend(events.into_iter().map(|stamped| Accepted { stamped, at }));
        drop(intake);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// What was accepted since the last call, and the probes to send. The flag says that nothing more comes.
    pub(super) fn take_accepted(&self) -> (VecDeque<Accepted>, Vec<u64>, bool) {
        let mut intake = lock(&self.intake);
        (std::mem::take(&mut intake.queue), std::mem::take(&mut intake.probes), intake.closed)
    }

    pub(super) fn close(&self) {
        lock(&self.intake).closed = true;
        self.filled.notify_one();
    }

    /// The carrier no longer holds an event of this size.
    pub(super) fn release(&self, bytes: usize) {
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Events and bytes in memory on their way.
    pub(super) fn held(&self) -> (usize, usize) {
        (lock(&self.waiting).len(), self.held_bytes.load(Ordering::Relaxed))
    }

    pub(super) fn await_return(&self, number: u64, waiting: Waiting) {
        lock(&self.waiting).insert(number, waiting);
    }

    /// Who waits for an event that has come back, or that is not to be waited for any more.
    pub(super) fn take_waiting(&self, number: u64) -> Option<Waiting> {
        lock(&self.waiting).remove(&number)
    }

    /// Settles whoever waits for an event, unless that was done. With `unless_bus`, not whoever insists on the
    /// bus.
    pub(super) fn settle(&self, number: u64, outcome: Outcome, unless_bus: bool) {
        let mut waiting = lock(&self.waiting);
        let insists = waiting
            .get(&number)
            .is_some_and(|waiting| waiting.slot.as_ref().is_some_and(Slot::insists_on_bus));
        if unless_bus && insists {
            return;
        }
        let found = waiting.remove(&number);
        drop(waiting);
        if let Some(slot) = found.and_then(|found| found.slot) {
            slot.settle(outcome);
        }
    }

    /// How many shards the bus has.
    pub(super) fn shards(&self) -> usize {
        self.returned_up_to.len()
    }

    /// The shard of the events of a channel.
    pub(super) fn shard_of(&self, channel: &Channel) -> usize {
        shard_of(channel, self.returned_up_to.len())
    }

    /// One of our events has come back on a shard, and so have all before it there.
    pub(super) fn note_return(&self, shard: usize, number: u64) {
        self.returned_up_to[shard].fetch_max(number, Ordering::AcqRel);
    }

    /// Whether an event on a shard has come back.
    pub(super) fn has_returned(&self, shard: usize, number: u64) -> bool {
        number <= self.returned_up_to[shard].load(Ordering::Acquire)
    }

    /// Asks for a probe to be sent.
    pub(super) fn probe(&self, returned: oneshot::Sender<()>) -> Result<(), Refused> {
        let number = self.next_probe.fetch_add(1, Ordering::Relaxed);
        let mut probes = lock(&self.probes);
        probes.retain(|_, returned| !returned.is_closed());
        if probes.len() >= MOST_PROBES {
            return Err(Refused::QueueFull);
        }
        probes.insert(number, returned);
        drop(probes);
        let mut intake = lock(&self.intake);
        if intake.closed {
            return Err(Refused::Closed);
        }
        // One is as good as many, if they could not be sent.
        intake.probes.clear();
        intake.probes.push(number);
        drop(intake);
        self.filled.notify_one();
        Ok(())
    }

    /// The probes that somebody still waits for, oldest first.
    pub(super) fn outstanding_probes(&self) -> Vec<u64> {
        let mut probes = lock(&self.probes);
        probes.retain(|_, returned| !returned.is_closed());
        let mut numbers: Vec<_> = probes.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// Who waits for a probe that has come back, or for one before it: it says as much.
    pub(super) fn take_probes(&self, number: u64) -> Vec<oneshot::Sender<()>> {
        lock(&self.probes).extract_if(|waiting, _| *waiting <= number).map(|(_, returned)| returned).collect()
    }

    pub(super) fn report_broken(&self, why: String) {
        *lock(&self.broken_why) = Some(why);
        self.broken.notify_one();
    }

    pub(super) fn take_broken_why(&self) -> Option<String> {
        lock(&self.broken_why).take()
    }

    /// The state; true if that is news.
    pub(super) fn set_state(&self, state: State) -> bool {
        let mut current = lock(&self.state);
        let news = std::mem::discriminant(&*current) != std::mem::discriminant(&state);
        self.metrics.bus.connected.set(i64::from(state == State::Connected));
        self.metrics.bus.breaker_open.set(i64::from(matches!(state, State::Away(_))));
        *current = state;
        news
    }

    pub(super) fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// The breaker is open: nothing is tried on behalf of a publish.
    pub(super) fn is_away(&self) -> bool {
        matches!(*lock(&self.state), State::Away(_))
    }

    /// Notes whether everything that is on the bus has been read.
    pub(super) fn set_current(&self, current: bool) {
        if current || self.is_current.load(Ordering::Relaxed) {
            *lock(&self.current_at) = Instant::now();
        }
        self.is_current.store(current, Ordering::Relaxed);
    }

    /// For how long not everything that is on the bus has been read.
    pub(super) fn lag(&self) -> Duration {
        match self.is_current.load(Ordering::Relaxed) {
            true => Duration::ZERO,
            false => lock(&self.current_at).elapsed(),
        }
    }

    /// Notes whether the outbox takes events; true if that is news.
    pub(super) fn note_outbox(&self, takes: bool) -> bool {
        self.outbox_refuses.swap(!takes, Ordering::Relaxed) == takes
    }

    /// Whether the outbox took the last events that it was given.
    pub(super) fn outbox_takes(&self) -> bool {
        !self.outbox_refuses.load(Ordering::Relaxed)
    }

    /// Notes why the bus refuses events over a link that stands, or that it takes them; true if that is news.
    pub(super) fn note_refusing(&self, why: Option<String>) -> bool {
        let mut refused_why = lock(&self.refused_why);
        let news = refused_why.is_some() != why.is_some();
        *refused_why = why;
        news
    }

    /// Why the bus takes no events over a link that stands, if so.
    pub(super) fn refused_why(&self) -> Option<String> {
        lock(&self.refused_why).clone()
    }

    pub(super) fn set_max_event_bytes(&self, most: usize) {
        self.max_event_bytes.store(most, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
