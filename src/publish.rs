//! The flow in: a valid draft gets its id, its time and its expiry, goes to the bus, and its publisher is
//! answered when it is as safe as the publisher asked.

use crate::bus::{Bus, Outcome, Receipt, Refused, Stamped};
use crate::control::Control;
use crate::event::{Channel, Draft, Event, EventId, Position, UnixMs};
use crate::log::Log;
use crate::metrics::Metrics;
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
    timeout: Duration,
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
    pub fn new(bus: Arc<dyn Bus>, log: Log, metrics: Arc<Metrics>, timeout: Duration) -> Self {
        Self { bus, log, metrics, timeout }
    }

    /// Publishes drafts in order; one entry each comes back, in the same order. All of them are refused or
    /// none is: a refusal leaves no trace.
    pub async fn publish(&self, drafts: Vec<Draft>, ack: Ack) -> Result<Vec<Published>, Refused> {
        let started = Instant::now();
        let now = unix_ms();
        let receipt = (ack != Ack::None).then(|| Receipt::new(drafts.len()));
        let mut names = Vec::with_capacity(drafts.len());
        let mut stamped = Vec::with_capacity(drafts.len());
        // For `ack=none`, whose publisher does not wait until the replica has looked at the ids.
        let mut known: Vec<Option<Position>> = Vec::new();
        for (index, draft) in drafts.into_iter().enumerate() {
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
            stamped.push(Stamped { event, slot });
        }
        let positions = self.bus.publish(stamped)?;
        let outcomes = match receipt {
            None => known
                .into_iter()
                .zip(positions.into_iter().map(Some).chain(std::iter::repeat(None)))
                .map(|(known, position)| match (known, position) {
                    (Some(position), _) => Outcome::Duplicate(position),
                    (None, Some(position)) => Outcome::Published(position),
                    // Accepted, and on its way to a bus that is elsewhere.
                    (None, None) => Outcome::Queued,
                })
                .collect(),
            Some(receipt) => receipt.outcomes(self.timeout).await,
        };
        self.metrics.publish_seconds.observe(started.elapsed().as_secs_f64());
        Ok(names
            .into_iter()
            .zip(outcomes)
            .map(|((id, channel), outcome)| Published { id, channel, outcome })
            .collect())
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
