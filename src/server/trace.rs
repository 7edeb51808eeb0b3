//! `GET /v1/trace/{id}`: what became of an event, as far as this node knows.

use super::error::{ApiError, json};
use super::node::Node;
use crate::bus::OffBus;
use crate::event::{Author, Event, EventId, Expiry, Position, UnixMs};
use crate::hub::Audience;
use crate::log;
use crate::outbox::{Refused, Waiting};
use crate::publish::{time_text, unix_ms};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Searches at a time: each may read the disk for a second or two.
const SEARCHES: usize = 2;

/// Lets a bounded number of searches run.
pub(super) struct Tracer(Semaphore);

impl Default for Tracer {
    fn default() -> Self {
        Self(Semaphore::new(SEARCHES))
    }
}

/// What became of an event.
#[derive(Serialize)]
struct Trace<'a> {
    id: &'a str,
    /// The node that tells this.
    node: &'a str,
    /// One for each channel.
    copies: Vec<Copy>,
}

/// The event on one of its channels.
#[derive(Serialize)]
struct Copy {
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<Accepted>,
    bus: OnBus,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Logged>,
    /// Null where that is no longer counted.
    shown: Option<Seen>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// On the bus and in the log of this node.
    Logged,
    /// Safe on the disk, waiting for the bus.
    Queued,
    /// The bus will never take it.
    Refused,
    /// It was on the bus, and is no longer kept, or never was to be.
    Gone,
}

#[derive(Serialize)]
struct Accepted {
    time: UnixMs,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<By>,
}

#[derive(Serialize)]
struct By {
    listener: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum OnBus {
    Confirmed,
    Waiting { waited_ms: u64, before: u64 },
    Refused { why: String },
}

#[derive(Serialize)]
struct Logged {
    /// A text, as it is more than a number in JSON can hold.
    position: String,
    cursor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<UnixMs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
}

#[derive(Serialize)]
struct Seen {
    subscriptions: u32,
    behind: u32,
    /// It was shown before the bus has ordered it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    early: bool,
}

impl Tracer {
    /// Answers for the id in a path.
    pub(super) async fn trace(
        &self,
        node: &Arc<Node>,
        segment: &str,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let id = path_id(segment)?;
        let Ok(_searching) = self.0.try_acquire() else {
            return Err(ApiError::unavailable(
                "unavailable",
                "as many events are being looked for as may be at a time: try again",
            ));
        };
        let (asked, sought) = (node.clone(), id.clone());
        let search = move || {
            // First what waits: an event that goes out meanwhile is found in the log.
            let off_bus = asked.bus.seek(&sought).map_err(|error| error.to_string())?;
            let logged = asked.source.log.seek(&sought).map_err(|error| error.to_string())?;
            Ok::<_, String>((off_bus, logged))
        };
        let (off_bus, logged) = match tokio::task::spawn_blocking(search).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::debug!(error, "an event could not be looked for");
                return Err(unreadable());
            }
            Err(_) => return Err(unreadable()),
        };
        let copies = copies(node, &off_bus, &logged);
        if copies.is_empty() {
            return Err(ApiError::not_found(unknown(&id, &off_bus, &logged)));
        }
        let trace = Trace { id: id.as_str(), node: node.registry.node(), copies };
        Ok(json(StatusCode::OK, serde_json::to_string(&trace).expect("texts and numbers always serialize")))
    }
}

/// All that is known, by channel; what is in the log does not wait any more.
fn copies(node: &Node, off_bus: &OffBus, logged: &log::Sought) -> Vec<Copy> {
    // What nodes tell each other is nobody's event.
    let events = logged.events.iter().filter(|event| !event.channel.is_reserved());
    let mut copies: Vec<Copy> = events.map(|event| kept(node, event)).collect();
    copies.extend(logged.gone.map(|position| gone(node, position)));
    let mut add = |copy: Copy| {
        if !copies.iter().any(|known| known.channel == copy.channel) {
            copies.push(copy);
        }
    };
    for waiting in off_bus.sought.waiting.iter().filter(|waiting| !waiting.entry.event.channel.is_reserved())
    {
        add(queued(node, off_bus, waiting));
    }
    // What is set aside before a restart is set aside again after it: the last word counts.
    for refused in off_bus.sought.refused.iter().rev() {
        add(set_aside(refused));
    }
    copies
}

fn kept(node: &Node, event: &Event) -> Copy {
    Copy {
        state: State::Logged,
        channel: Some(event.channel.as_str().to_owned()),
        event: Some(event.name.as_str().to_owned()),
        accepted: Some(accepted(event)),
        bus: OnBus::Confirmed,
        log: Some(Logged {
            expires: match event.expiry {
                Expiry::At(time) => Some(time),
                Expiry::Live => None,
            },
            bytes: Some(event.data.len()),
            ..place(node, event.position)
        }),
        shown: node.source.hub.audience(event.position).map(|audience| seen(audience, false)),
    }
}

fn gone(node: &Node, position: Position) -> Copy {
    Copy {
        state: State::Gone,
        channel: None,
        event: None,
        accepted: None,
        bus: OnBus::Confirmed,
        log: Some(place(node, position)),
        shown: node.source.hub.audience(position).map(|audience| seen(audience, false)),
    }
}

fn queued(node: &Node, off_bus: &OffBus, waiting: &Waiting) -> Copy {
    let Waiting { entry, before } = waiting;
    let is_of_this_run = off_bus.origin == Some(entry.origin);
    let audience = is_of_this_run.then(|| node.source.hub.early_audience(entry.sequence)).flatten();
    Copy {
        state: State::Queued,
        channel: Some(entry.event.channel.as_str().to_owned()),
        event: Some(entry.event.name.as_str().to_owned()),
        accepted: Some(accepted(&entry.event)),
        bus: OnBus::Waiting { waited_ms: unix_ms().saturating_sub(entry.event.time), before: *before },
        log: None,
        shown: audience.map(|audience| seen(audience, true)),
    }
}

fn set_aside(refused: &Refused) -> Copy {
    Copy {
        state: State::Refused,
        channel: refused.channel.as_ref().map(|channel| channel.as_str().to_owned()),
        event: refused.name.as_ref().map(|name| name.as_str().to_owned()),
        accepted: refused.time.map(|time| Accepted { time, by: None }),
        bus: OnBus::Refused { why: refused.why.clone() },
        log: None,
        shown: None,
    }
}

fn place(node: &Node, position: Position) -> Logged {
    let cursor = node.source.cursor(position).encode().as_str().to_owned();
    Logged { position: position.0.to_string(), cursor, expires: None, bytes: None }
}

fn accepted(event: &Event) -> Accepted {
    let by = match event.from.as_deref() {
        None => By { listener: "app", user: None, connection: None },
        Some(Author { user, connection }) => By {
            listener: "client",
            user: user.as_deref().map(str::to_owned),
            connection: Some(connection.as_str().to_owned()),
        },
    };
    Accepted { time: event.time, by: Some(by) }
}

fn seen(audience: Audience, early: bool) -> Seen {
    Seen { subscriptions: audience.subscriptions, behind: audience.behind, early }
}

/// Where was looked, so that nobody takes "not found" for more than it is.
fn unknown(id: &EventId, off_bus: &OffBus, logged: &log::Sought) -> String {
    let mut words = format!("this node knows no event `{}`", id.as_str());
    if let Some(made) = id.made_at() {
        words.push_str(&format!(
            "; the id was made at {}: if the event was accepted then, it is no longer kept",
            time_text(made)
        ));
    } else if let Some(time) = logged.looked_back_to {
        words.push_str(&format!("; the search had to stop at what was accepted at {}", time_text(time)));
    }
    if let Some(time) = off_bus.sought.looked_on_to {
        words.push_str(&format!(
            "; of what waits for the bus only what came before {} was looked at",
            time_text(time)
        ));
    }
    words
}

fn path_id(segment: &str) -> Result<EventId, ApiError> {
    let text = percent_encoding::percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| ApiError::parameter("invalid_id", "id", "the path is not UTF-8"))?;
    EventId::parse(&text).map_err(|error| ApiError::parameter("invalid_id", "id", error.to_string()))
}

fn unreadable() -> ApiError {
    ApiError::unavailable("unavailable", "the disk cannot be read now: try again")
}
