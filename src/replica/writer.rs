//! The thread that appends.

use super::{Health, Refusal, Settler, Showing};
use crate::bus::{Arriving, Inflow, Outcome, Slot};
use crate::codec::Shown;
use crate::event::{Event, EventId, Position};
use crate::log::{AppendError, Log};
use crate::metrics::Metrics;
use crate::redact::Redactor;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Most events of one group; measured: larger ones gain nothing and make the first of them wait.
const GROUP_EVENTS: usize = 256;
/// How long a group waits for journals to be packed.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);
/// Between two attempts to append what must not be left out.
const INSISTENCE: Duration = Duration::from_millis(200);
/// About the most bytes of one group.
const GROUP_BYTES: usize = 256 << 10;

pub(super) struct Writer {
    pub(super) inflow: Arc<Inflow>,
    pub(super) log: Log,
    pub(super) settler: Arc<Settler>,
    pub(super) to_fan_out: mpsc::Sender<Showing>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<Health>,
    pub(super) refusal: Refusal,
    /// What the rules of this node strip from events that come from a bus: who put them there may know no rules,
    /// or others.
    pub(super) redactor: Redactor,
}

/// A group, sorted out.
#[derive(Default)]
struct Group {
    events: Vec<Arc<Event>>,
    slots: Vec<(Slot, Outcome)>,
    /// From a bus, but the log has them already under their ids.
    dropped: Vec<(Arc<Event>, Position)>,
    /// Shown after the events: they were sent later.
    early: Vec<(u64, Arc<Event>)>,
    probes: Vec<oneshot::Sender<()>>,
    accepted: Option<Instant>,
}

impl Writer {
    /// Runs until the inflow is closed and empty.
    pub(super) fn run(self) {
        let mut arriving = Vec::new();
        while self.inflow.take(GROUP_EVENTS, GROUP_BYTES, &mut arriving) {
            let group = self.sort_out(&mut arriving);
            self.append(group);
        }
        self.settler.close();
    }

    /// Drops what the log has already: a retry of an id that is known, here or earlier in this group.
    fn sort_out(&self, arriving: &mut Vec<Arriving>) -> Group {
        let mut group = Group::default();
        let mut given: HashMap<EventId, Position, foldhash::fast::RandomState> = HashMap::default();
        for arriving in arriving.drain(..) {
            let (mut event, slot, accepted) = match arriving {
                Arriving::Event { event, slot, accepted } => (event, slot, accepted),
                Arriving::Early { event, number } => {
                    // It was published elsewhere before, and came from there: it has its place already.
                    let known = event.id_given
                        && (given.contains_key(&event.id) || self.log.known_id(&event.id).is_some());
                    if !known {
                        group.early.push((number, event));
                    }
                    continue;
                }
                Arriving::Probe(returned) => {
                    group.probes.push(returned);
                    continue;
                }
            };
            let stripped = self.redactor.strip(&event.channel, &mut event.data);
            if stripped > 0 {
                self.metrics.redacted_fields.inc_by(stripped);
            }
            let earlier = if event.id_given {
                given.get(&event.id).copied().or_else(|| self.log.known_id(&event.id))
            } else {
                None
            };
            let outcome = match earlier {
                // It is answered after the sync that follows, which covers the original as well.
                Some(position) => {
                    self.metrics.duplicates.inc();
                    if event.sender().is_some() {
                        group.dropped.push((Arc::new(event), position));
                    }
                    Outcome::Duplicate(position)
                }
                None => {
                    if event.id_given {
                        given.insert(event.id.clone(), event.position);
                    }
                    group.accepted.get_or_insert(accepted);
                    let position = event.position;
                    group.events.push(Arc::new(event));
                    Outcome::Published(position)
                }
            };
            if let Some(slot) = slot {
                group.slots.push((slot, outcome));
            }
        }
        group
    }

    fn append(&self, group: Group) {
        let appended = !group.events.is_empty();
        if appended {
            let mut result = self.append_patiently(&group.events);
            self.report(&result);
            while self.refusal == Refusal::Insisted && result.is_err() && !self.inflow.is_closed() {
                std::thread::sleep(INSISTENCE);
                result = self.append_patiently(&group.events);
                self.report(&result);
            }
            match result {
                Ok(()) => {
                    let bytes: usize = group.events.iter().map(|event| event.data.len()).sum();
                    self.metrics.published_events.inc_by(group.events.len() as u64);
                    self.metrics.published_bytes.inc_by(bytes as u64);
                    self.show(group.events, group.accepted.unwrap_or_else(Instant::now));
                }
                Err(error) => {
                    let outcome = match error {
                        AppendError::Full => Outcome::NoRoom,
                        AppendError::Behind | AppendError::Io(_) => Outcome::Unavailable,
                    };
                    for (slot, _) in group.slots {
                        slot.settle(outcome);
                    }
                    // Its probes are dropped with it: they do not come back, which is the truth.
                    return;
                }
            }
        }
        if !appended && !group.probes.is_empty() && !self.health.is_writable() {
            // Nobody may publish while the node is not ready: then it is for the probes to find it mended.
            self.report(&self.log.try_out());
        }
        self.settler.add(group.slots, appended);
        for (event, position) in group.dropped {
            let _ = self.to_fan_out.blocking_send(Showing::Dropped { event, position });
        }
        for (number, event) in group.early {
            let shown = Arc::new(Shown::early(event));
            let _ = self.to_fan_out.blocking_send(Showing::Early { number, shown });
        }
        for returned in group.probes {
            // The channel closes only after this thread has ended.
            let _ = self.to_fan_out.blocking_send(Showing::Probe(returned));
        }
    }

    /// Waits a little while full journals are being packed: the queue before this thread has the bound, and a
    /// disk that is a moment behind is no reason to refuse anybody.
    fn append_patiently(&self, events: &[Arc<Event>]) -> Result<(), AppendError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.log.append(events) {
                Err(AppendError::Behind) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                result => return result,
            }
        }
    }

    fn show(&self, events: Vec<Arc<Event>>, accepted: Instant) {
        let cursors = self.log.cursors();
        let shown = |event: Arc<Event>| {
            let cursor = cursors.of_event(&event);
            Arc::new(Shown::new(event, &cursor))
        };
        let events = events.into_iter().map(shown).collect();
        let _ = self.to_fan_out.blocking_send(Showing::Group { events, accepted });
    }

    fn report(&self, result: &Result<(), AppendError>) {
        if !self.health.note(result.is_ok()) {
            return;
        }
        match result {
            Ok(()) => tracing::info!("the log takes events again"),
            Err(error) => {
                tracing::error!(%error, "the log refuses events: publishes are answered 503 until this is mended")
            }
        }
    }
}
