//! The flow in: a valid draft gets its id, its time and its expiry, goes to the bus, and its publisher is
//! answered when it is as safe as the publisher asked.

mod conflater;

pub use conflater::Conflater;

use crate::bus::{Bus, Outcome, Receipt, Refused, Stamped};
use crate::control::Control;
use crate::event::{Channel, Draft, Event, EventId, Position, UnixMs};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::redact::{Opaque, Redactor};
use conflater::Passed;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How safe an event must be before its publisher is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ack {
    /// Accepted in memory.
    None,
    /// Safe on this node's disk, or confirmed by the bus.
    #[default]
    Log,
    /// Confirmed by the bus.
    Bus,
}

impl Ack {
    /// Reads the query parameter.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self::None),
            "log" => Some(Self::Log),
            "bus" => Some(Self::Bus),
            _ => None,
        }
    }
}

/// Where drafts enter.
pub struct Publisher {
    bus: Arc<dyn Bus>,
    log: Log,
    metrics: Arc<Metrics>,
    redactor: Redactor,
    timeout: Duration,
    conflater: Arc<Conflater>,
}

/// A draft, and how long its channel waits between two events; none for a channel that takes all as they come.
pub struct PacedDraft {
    /// The draft.
    pub draft: Draft,
    /// The time between two events. At most a second, as whoever publishes is not answered before.
    pub interval: Option<Duration>,
}

/// What became of one draft.
#[derive(Debug)]
pub struct Published {
    /// The event's id.
    pub id: EventId,
    /// Its channel.
    pub channel: Channel,
    /// What became of it.
    pub outcome: Outcome,
}

impl Publisher {
    /// A publisher that waits at most `timeout` for an answer.
    pub fn new(
        bus: Arc<dyn Bus>,
        log: Log,
        metrics: Arc<Metrics>,
        redactor: Redactor,
        timeout: Duration,
    ) -> Self {
        let conflater = Conflater::new(bus.clone(), metrics.clone());
        Self { bus, log, metrics, redactor, timeout, conflater }
    }

    /// What holds back events that come too fast for their channel.
    pub fn conflater(&self) -> &Arc<Conflater> {
        &self.conflater
    }

    /// Whether the fields that are to be stripped from a draft can be told. If not, nothing is left of its data
    /// when it is published all the same.
    pub fn check(&self, draft: &Draft) -> Result<(), Opaque> {
        self.redactor.check(&draft.channel, &draft.data)
    }

    /// Publishes drafts in order; one entry each comes back, in the same order. All of them are refused or
    /// none is: a refusal leaves no trace.
    pub async fn publish(&self, drafts: Vec<PacedDraft>, ack: Ack) -> Result<Vec<Published>, Refused> {
        Ok(self.begin(drafts, ack)?.published().await)
    }

    /// The same in two steps: when it returns the drafts are on their way, and the outcome can be waited for.
    pub fn begin(&self, drafts: Vec<PacedDraft>, ack: Ack) -> Result<Publishing, Refused> {
        let started = Instant::now();
        let now = unix_ms();
        let receipt = (ack != Ack::None).then(|| Receipt::new(drafts.len()));
        let mut names = Vec::with_capacity(drafts.len());
        let mut stamped = Vec::with_capacity(drafts.len());
        // For `ack=none`, whose publisher does not wait until the replica has looked at the ids.
        let mut known: Vec<Option<Position>> = Vec::new();
        let mut longest: Option<Duration> = None;
        for (index, PacedDraft { mut draft, interval }) in drafts.into_iter().enumerate() {
            longest = longest.max(interval);
            // Before anybody else sees it: the bus, the disk, clients.
            let stripped = self.redactor.strip(&draft.channel, &mut draft.data);
            if stripped > 0 {
                self.metrics.redacted_fields.inc_by(stripped);
            }
            let id_given = draft.id.is_some();
            let id = draft.id.unwrap_or_else(EventId::fresh);
            names.push((id.clone(), draft.channel.clone()));
            if receipt.is_none() {
                known.push(if id_given { self.log.known_id(&id) } else { None });
            }
            let event = Event {
                position: Position::ZERO,
                expiry: self.log.expiry(&draft.channel, draft.ttl, now),
                id,
                id_given,
                channel: draft.channel,
                name: draft.name,
                data: draft.data,
                time: now,
                tags: draft.tags,
                exclude: draft.exclude,
                from: draft.from,
                way: None,
            };
            let slot = receipt.as_ref().map(|receipt| match ack {
                Ack::Bus => receipt.slot(index).insisting_on_bus(),
                Ack::None | Ack::Log => receipt.slot(index),
            });
            stamped.push((Stamped { event, slot }, interval));
        }
        let passed = match longest {
            Some(_) => self.conflater.pass(stamped, started, |id| self.log.known_id(id).is_some())?,
            None => {
                let positions =
                    self.bus.publish(stamped.into_iter().map(|(stamped, _)| stamped).collect())?;
                let positions = positions.into_iter().map(Some).chain(std::iter::repeat(None));
                positions.take(names.len()).map(Passed::Sent).collect()
            }
        };
        let outcome = match receipt {
            Some(receipt) => Awaited::Receipt(receipt, self.timeout + longest.unwrap_or_default()),
            None => Awaited::Nothing(
                known.into_iter().zip(passed).map(|(known, passed)| unawaited(known, passed)).collect(),
            ),
        };
        Ok(Publishing { names, outcome, started, metrics: self.metrics.clone() })
    }
}

/// What a publisher is told who does not wait.
fn unawaited(known: Option<Position>, passed: Passed) -> Outcome {
    match (known, passed) {
        (_, Passed::Conflated) => Outcome::Conflated,
        (_, Passed::Crowded) => Outcome::Crowded,
        (Some(position), Passed::Sent(_)) => Outcome::Duplicate(position),
        (None, Passed::Sent(Some(position))) => Outcome::Published(position),
        // Accepted, and held back or on its way to a bus that is elsewhere.
        (None, Passed::Sent(None)) | (_, Passed::Held) => Outcome::Queued,
    }
}

/// Drafts that are on their way.
pub struct Publishing {
    names: Vec<(EventId, Channel)>,
    outcome: Awaited,
    started: Instant,
    metrics: Arc<Metrics>,
}

/// What is waited for before the publisher is told.
enum Awaited {
    Receipt(Receipt, Duration),
    Nothing(Vec<Outcome>),
}

impl Publishing {
    /// Waits for what became of them; one entry each, in their order.
    pub async fn published(self) -> Vec<Published> {
        let outcomes = match self.outcome {
            Awaited::Receipt(receipt, timeout) => receipt.outcomes(timeout).await,
            Awaited::Nothing(outcomes) => outcomes,
        };
        self.metrics.publish_seconds.observe(self.started.elapsed().as_secs_f64());
        self.names
            .into_iter()
            .zip(outcomes)
            .map(|((id, channel), outcome)| Published { id, channel, outcome })
            .collect()
    }
}

impl Publisher {
    /// Tells all other nodes of the bus something; what became of it, as of a publish. Where this node is alone there is
    /// nobody to be told.
    pub async fn tell_nodes(&self, control: &Control) -> Result<Outcome, Refused> {
        if !self.bus.is_shared() {
            return Ok(Outcome::Confirmed);
        }
        let receipt = Receipt::new(1);
        let stamped = Stamped { event: control.to_event(unix_ms()), slot: Some(receipt.slot(0)) };
        self.bus.publish(vec![stamped])?;
        Ok(receipt.outcomes(self.timeout).await.pop().unwrap_or(Outcome::TimedOut))
    }
}

/// The time of day.
pub fn unix_ms() -> UnixMs {
    // A clock before 1970 is treated as 1970: order and resume do not depend on it.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as UnixMs
}

/// A time as RFC 3339 has it.
pub fn time_text(time: UnixMs) -> String {
    // Beyond the year 9999 the formatter gives up.
    let time = UNIX_EPOCH + Duration::from_millis(time.min(253_402_300_799_999));
    humantime::format_rfc3339_millis(time).to_string()
}
