//! One subscription on any transport, so that a promise that all transports share is tested on each by one test.

use super::address::Address;
use super::http::{Connection, HttpClient, request_bytes};
use super::sse::{SseClient, SseItem};
use super::wait::within;
use super::websocket::{Ended, WebSocketClient};
use serde_json::Value;
use std::collections::VecDeque;
use std::io;

/// How a client is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    WebSocket,
    WebSocketMessagePack,
    Sse,
    Poll,
    Stream,
}

impl Transport {
    pub(crate) const ALL: [Transport; 5] = [
        Transport::WebSocket,
        Transport::WebSocketMessagePack,
        Transport::Sse,
        Transport::Poll,
        Transport::Stream,
    ];

    /// Where it is asked for.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Transport::WebSocket | Transport::WebSocketMessagePack => "/v1/ws",
            Transport::Sse => "/v1/sse",
            Transport::Poll => "/v1/poll",
            Transport::Stream => "/v1/stream",
        }
    }
}

/// An event, and where to go on after it: at its cursor.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) event: Value,
    pub(crate) cursor: String,
}

impl Delivery {
    /// The number in its data.
    pub(crate) fn number(&self) -> u64 {
        self.event["data"]["n"].as_u64().unwrap_or_else(|| panic!("no number: {}", self.event))
    }
}

/// Why there is nothing more to come.
pub(crate) struct Lost {
    /// The close code, where the transport has one and the node sent it.
    pub(crate) code: Option<u16>,
    why: String,
}

impl std::fmt::Debug for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => write!(f, "close {code}: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self { code: None, why: error.to_string() }
    }
}

impl From<Ended> for Lost {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Closed { code, reason } => Self { code: Some(code), why: reason },
            Ended::Cut(why) => Self { code: None, why },
        }
    }
}

pub(crate) struct Subscription {
    inner: Inner,
    /// What the node said of the cursor that it was given.
    resume: Option<String>,
    /// Where to go on: at the newest cursor.
    place: String,
}

enum Inner {
    WebSocket(Box<WebSocketClient>),
    Sse(Box<SseClient>),
    Poll { client: HttpClient, target: String, cursor: Option<String>, ready: VecDeque<Delivery> },
    Stream { connection: Connection, unread: Vec<u8> },
}

impl Subscription {
    /// Subscribes with the parameters of `query` (at least a channel), after `cursor` where there is one.
    pub(crate) async fn try_open(
        transport: Transport,
        address: &Address,
        query: &str,
        cursor: Option<&str>,
    ) -> Result<Self, Lost> {
        let path = transport.path();
        let query = query.replace('>', "%3E");
        let target = match cursor {
            // A browser says it by a header.
            Some(cursor) if transport != Transport::Sse && transport != Transport::Poll => {
                format!("{path}?{query}&cursor={cursor}")
            }
            _ => format!("{path}?{query}"),
        };
        let mut resume = None;
        let inner = match transport {
            Transport::WebSocket | Transport::WebSocketMessagePack => {
                let protocol = match transport {
                    Transport::WebSocket => "sidewire.v1.json",
                    _ => "sidewire.v1.msgpack",
                };
                let headers = [("Sec-WebSocket-Protocol", protocol)];
                let mut client = WebSocketClient::try_open(address, &target, &headers)
                    .await
                    .map_err(|error| Lost { code: None, why: error.to_string() })?;
                loop {
                    let message = client.try_next().await?;
                    match message["type"].as_str() {
                        Some("welcome") => {}
                        Some("subscribed") => {
                            resume = message["resume"].as_str().map(str::to_owned);
                            break;
                        }
                        _ => return Err(Lost { code: None, why: message.to_string() }),
                    }
                }
                Inner::WebSocket(Box::new(client))
            }
            Transport::Sse => {
                let header = cursor.map(|cursor| ("Last-Event-ID", cursor));
                let client = SseClient::try_open(address, &target, header.as_slice()).await?;
                // It tells only of what is not in order.
                resume = Some(if cursor.is_some() { "ok" } else { "none" }.to_owned());
                Inner::Sse(Box::new(client))
            }
            Transport::Poll => Inner::Poll {
                client: HttpClient::new(address.clone()),
                target,
                cursor: cursor.map(str::to_owned),
                ready: VecDeque::new(),
            },
            Transport::Stream => {
                let mut connection = Connection::open(address).await?;
                connection.write(&request_bytes("GET", &target, &address.host(), &[], b"")).await?;
                let head = connection.read_head().await?;
                if head.status != 200 {
                    return Err(Lost { code: None, why: format!("status {}", head.status) });
                }
                resume = Some(if cursor.is_some() { "ok" } else { "none" }.to_owned());
                Inner::Stream { connection, unread: Vec::new() }
            }
        };
        Ok(Self { inner, resume, place: cursor.unwrap_or_default().to_owned() })
    }

    /// The same, which must succeed.
    pub(crate) async fn open(
        transport: Transport,
        address: &Address,
        query: &str,
        cursor: Option<&str>,
    ) -> Self {
        within("a subscription", Self::try_open(transport, address, query, cursor))
            .await
            .unwrap_or_else(|lost| panic!("{transport:?} {query}: {lost:?}"))
    }

    /// What the node said of the cursor. A poll says it with its answer, SSE and stream before the first event.
    pub(crate) fn resume(&self) -> &str {
        self.resume.as_deref().unwrap_or("nothing yet")
    }

    /// The next event, or why there is none.
    pub(crate) async fn try_next(&mut self) -> Result<Delivery, Lost> {
        let (resume, place) = (&mut self.resume, &mut self.place);
        match &mut self.inner {
            Inner::WebSocket(client) => loop {
                let message = client.try_next().await?;
                if message["type"] == "event" {
                    return Ok(delivery(message, place));
                }
            },
            Inner::Sse(client) => loop {
                let SseItem::Event { name, data, last_id } = client.try_next().await? else { continue };
                let event: Value = serde_json::from_str(&data).expect("data is JSON");
                if name == "sidewire.resume" {
                    *resume = event["resume"].as_str().map(str::to_owned);
                } else if event["type"] == "event" {
                    let delivery = delivery(event, place);
                    assert_eq!(
                        delivery.cursor, last_id,
                        "the id of an event is its cursor: {}",
                        delivery.event
                    );
                    return Ok(delivery);
                }
            },
            Inner::Poll { client, target, cursor, ready } => loop {
                if let Some(delivery) = ready.pop_front() {
                    return Ok(delivery);
                }
                let target = match &cursor {
                    Some(cursor) => format!("{target}&cursor={cursor}"),
                    None => target.clone(),
                };
                let response = client.try_request("GET", &target, &[], b"").await?;
                if response.status() != 200 {
                    return Err(Lost { code: None, why: response.text() });
                }
                let answer = response.json();
                // The first answer tells of the cursor that was given; later ones of cursors made here.
                let told = answer["resume"].as_str().expect("a poll tells of its cursor").to_owned();
                resume.get_or_insert(told);
                *cursor = Some(answer["cursor"].as_str().expect("a poll gives a cursor").to_owned());
                let events = answer["events"].as_array().expect("events");
                ready.extend(events.iter().map(|event| delivery(event.clone(), place)));
            },
            Inner::Stream { connection, unread } => loop {
                while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = unread.drain(..=end).collect();
                    if line.trim_ascii().is_empty() {
                        continue;
                    }
                    let message: Value = serde_json::from_slice(&line).expect("a line is JSON");
                    if message["type"] == "event" {
                        return Ok(delivery(message, place));
                    }
                    if let Some(told) = message["resume"].as_str() {
                        *resume = Some(told.to_owned());
                    }
                }
                let piece = connection.chunk().await?.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
                unread.extend_from_slice(&piece);
            },
        }
    }

    /// The next event, which must come.
    pub(crate) async fn next(&mut self) -> Delivery {
        within("an event", self.try_next()).await.unwrap_or_else(|lost| panic!("an event, not {lost:?}"))
    }

    /// The next events' numbers.
    pub(crate) async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            numbers.push(self.next().await.number());
        }
        numbers
    }
}

fn delivery(event: Value, place: &mut String) -> Delivery {
    event["cursor"].as_str().expect("every event has a cursor").clone_into(place);
    Delivery { event, cursor: place.clone() }
}
