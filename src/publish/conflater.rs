//! Channels that carry a state (a cursor, a price, a progress bar): what comes faster than such a channel takes is
//! held back, and of what is held only the newest goes out, when its time has come.
//!
//! Nothing that was answered `published` is ever replaced: whoever publishes is answered when his event goes out, or
//! `conflated` when a newer one took its place.

use crate::bus::{Bus, Outcome, Refused, Stamped};
use crate::event::{Channel, Event, EventId, Position};
use crate::metrics::Metrics;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Channels that are paced at a time. Quiet ones are forgotten first; if none is quiet, a new one is refused.
const MAX_LANES: usize = 10_000;
/// Bytes of events that are held back.
const MAX_HELD_BYTES: usize = 16 << 20;
/// Ids that a channel remembers, so that a repetition is known before it is in the log.
const REMEMBERED_IDS: usize = 16;
/// Without anything due it is looked so often.
const IDLE: Duration = Duration::from_secs(60);

/// Holds back what comes too fast.
pub struct Conflater {
    bus: Arc<dyn Bus>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Something is due earlier than what was waited for.
    sooner: Notify,
}

#[derive(Default)]
struct State {
    lanes: HashMap<Channel, Lane, foldhash::fast::RandomState>,
    /// When what is held goes out. The number tells apart what is due at the same time.
    due: BTreeMap<(Instant, u64), Channel>,
    next_number: u64,
    held_bytes: usize,
}

/// One channel.
struct Lane {
    /// When the next event may go out.
    next: Instant,
    held: Option<Held>,
    /// The newest ids that were given, and whether their events went out.
    ids: VecDeque<(EventId, bool)>,
}

struct Held {
    stamped: Stamped,
    interval: Duration,
}

/// What became of an event so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Passed {
    /// It is on its way; with its position where the bus gives that at once.
    Sent(Option<Position>),
    /// It goes out later, unless a newer one comes before.
    Held,
    /// It was replaced before.
    Conflated,
    /// There is no room to hold it.
    Crowded,
}

/// An event, and between how much time its channel takes one; none for a channel that takes all.
pub(super) type Paced = (Stamped, Option<Duration>);

impl Conflater {
    pub(super) fn new(bus: Arc<dyn Bus>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { bus, metrics, state: Mutex::default(), sooner: Notify::new() })
    }

    /// Sends what may go at once, in order, and holds the rest. If the bus refuses, nothing is held either.
    /// `is_known` says whether an event with this id is in the log: it goes on, to be found a repetition there.
    pub(super) fn pass(
        &self,
        events: Vec<Paced>,
        now: Instant,
        is_known: impl Fn(&EventId) -> bool,
    ) -> Result<Vec<Passed>, Refused> {
        let mut state = self.lock();
        let mut passed = Vec::with_capacity(events.len());
        let (mut sent, mut held, mut begun) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (stamped, interval)) in events.into_iter().enumerate() {
            let Some(interval) = interval else {
                passed.push(Passed::Sent(None));
                sent.push(stamped);
                continue;
            };
            match state.verdict(&stamped.event, interval, now, &is_known) {
                Verdict::Free => {
                    begun.push((stamped.event.channel.clone(), given_id(&stamped.event)));
                    passed.push(Passed::Sent(None));
                    sent.push(stamped);
                }
                Verdict::Repetition => {
                    passed.push(Passed::Sent(None));
                    sent.push(stamped);
                }
                Verdict::Busy => {
                    passed.push(Passed::Held);
                    held.push((index, Held { stamped, interval }));
                }
                Verdict::Replaced => {
                    passed.push(Passed::Conflated);
                    settle(stamped, Outcome::Conflated);
                }
                Verdict::Crowded => {
                    passed.push(Passed::Crowded);
                    settle(stamped, Outcome::Crowded);
                }
            }
        }
        let positions = match sent.is_empty() {
            true => Ok(Vec::new()),
            false => self.bus.publish(sent),
        };
        let mut positions = match positions {
            Ok(positions) => positions.into_iter(),
            Err(refused) => {
                for (channel, _) in begun {
                    state.free(&channel, now);
                }
                return Err(refused);
            }
        };
        for place in passed.iter_mut().filter(|passed| matches!(passed, Passed::Sent(_))) {
            *place = Passed::Sent(positions.next());
        }
        for (channel, id) in begun {
            state.remember(&channel, id, true);
        }
        for (index, one) in held {
            if !self.hold(&mut state, one) {
                passed[index] = Passed::Crowded;
            }
        }
        self.metrics.held_events.set(state.due.len() as i64);
        Ok(passed)
    }

    /// Puts an event in the place of what its channel holds; false when there is no room for it.
    fn hold(&self, state: &mut State, held: Held) -> bool {
        let bytes = held.stamped.event.footprint();
        let channel = held.stamped.event.channel.clone();
        let Some(lane) = state.lanes.get_mut(&channel) else {
            settle(held.stamped, Outcome::Crowded);
            return false;
        };
        let freed = lane.held.as_ref().map_or(0, |held| held.stamped.event.footprint());
        if state.held_bytes - freed + bytes > MAX_HELD_BYTES {
            settle(held.stamped, Outcome::Crowded);
            return false;
        }
        state.held_bytes = state.held_bytes - freed + bytes;
        let (next, id) = (lane.next, held.stamped.event.id.clone());
        match lane.held.replace(held) {
            Some(older) => {
                // What is sent twice is not replaced by something else.
                if older.stamped.event.id != id {
                    lane.remember(given_id(&older.stamped.event), false);
                }
                settle(older.stamped, Outcome::Conflated);
                self.metrics.conflated_events.inc();
            }
            None => self.schedule(state, next, channel),
        }
        true
    }

    fn schedule(&self, state: &mut State, at: Instant, channel: Channel) {
        let is_first = state.due.first_key_value().is_none_or(|((first, _), _)| at < *first);
        state.next_number += 1;
        state.due.insert((at, state.next_number), channel);
        if is_first {
            self.sooner.notify_one();
        }
    }

    /// Lets out what is due, for ever.
    pub async fn run(&self) {
        loop {
            let first = self.lock().due.first_key_value().map(|((at, _), _)| *at);
            let until = first.unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => self.release(Instant::now()),
                () = self.sooner.notified() => {}
            }
        }
    }

    /// Lets out all that is held: there is no time to wait for.
    pub fn flush(&self) {
        let last = self.lock().due.last_key_value().map(|((at, _), _)| *at);
        if let Some(last) = last {
            self.release(last);
        }
    }

    fn release(&self, now: Instant) {
        let mut state = self.lock();
        while let Some(first) = state.due.first_entry().filter(|first| first.key().0 <= now) {
            let channel = first.remove();
            let Some(lane) = state.lanes.get_mut(&channel) else { continue };
            let Some(Held { stamped, interval }) = lane.held.take() else { continue };
            let (next, bytes) = (now + interval, stamped.event.footprint());
            lane.next = next;
            // Who waits is told by the slot that the bus refuses it. Who was answered already is owed another attempt.
            let again = stamped.slot.is_none().then(|| stamped.event.clone());
            let id = given_id(&stamped.event);
            match (self.bus.publish(vec![stamped]), again) {
                (Err(Refused::QueueFull), Some(event)) => {
                    lane.held = Some(Held { stamped: Stamped { event, slot: None }, interval });
                    self.schedule(&mut state, next, channel);
                    continue;
                }
                (Ok(_), _) => lane.remember(id, true),
                (Err(refused), _) => {
                    tracing::debug!(?refused, "an event that was held back is not taken by the bus");
                }
            }
            state.held_bytes -= bytes;
        }
        self.metrics.held_events.set(state.due.len() as i64);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to become of an event.
enum Verdict {
    /// It may go, and the next one not before its time.
    Free,
    /// Its id went out before: whoever finds repetitions will find it.
    Repetition,
    /// It has to wait.
    Busy,
    /// An event with its id was replaced before.
    Replaced,
    /// Its channel is one too many.
    Crowded,
}

impl State {
    fn verdict(
        &mut self,
        event: &Event,
        interval: Duration,
        now: Instant,
        is_known: impl Fn(&EventId) -> bool,
    ) -> Verdict {
        let lane = self.lanes.get_mut(&event.channel);
        if event.id_given {
            let known = lane.as_ref().and_then(|lane| lane.ids.iter().find(|(id, _)| *id == event.id));
            match known {
                Some((_, true)) => return Verdict::Repetition,
                Some((_, false)) => return Verdict::Replaced,
                None if is_known(&event.id) => return Verdict::Repetition,
                None => {}
            }
        }
        match lane {
            Some(lane) if lane.is_free(now) => lane.next = now + interval,
            Some(_) => return Verdict::Busy,
            None => {
                if self.lanes.len() >= MAX_LANES {
                    self.lanes.retain(|_, lane| !lane.is_free(now));
                }
                if self.lanes.len() >= MAX_LANES {
                    return Verdict::Crowded;
                }
                let lane = Lane { next: now + interval, held: None, ids: VecDeque::new() };
                self.lanes.insert(event.channel.clone(), lane);
            }
        }
        Verdict::Free
    }

    fn free(&mut self, channel: &Channel, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(channel) {
            lane.next = now;
        }
    }

    fn remember(&mut self, channel: &Channel, id: Option<EventId>, went_out: bool) {
        if let Some(lane) = self.lanes.get_mut(channel) {
            lane.remember(id, went_out);
        }
    }
}

impl Lane {
    fn is_free(&self, now: Instant) -> bool {
        self.held.is_none() && self.next <= now
    }

    fn remember(&mut self, id: Option<EventId>, went_out: bool) {
        let Some(id) = id else { return };
        if self.ids.len() >= REMEMBERED_IDS {
            self.ids.pop_front();
        }
        self.ids.push_back((id, went_out));
    }
}

fn given_id(event: &Event) -> Option<EventId> {
    event.id_given.then(|| event.id.clone())
}

fn settle(stamped: Stamped, outcome: Outcome) {
    if let Some(slot) = stamped.slot {
        slot.settle(outcome);
    }
}

#[cfg(test)]
mod tests;
