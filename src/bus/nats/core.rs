//! Plain subjects: no order, nothing kept, readable and writable by any NATS client.
//!
//! The subject of an event is its channel, behind `<namespace>.` unless the namespace is `default`; the message
//! is JSON as [`plain`] has it. Probes are on `sidewire.probe.<namespace>`, and nodes are controlled on
//! `sidewire.control.<namespace>`.

use super::link::{Link, not_sent};
use super::options::NatsOptions;
use super::subjects::Subjects;
use crate::bus::backend::{
    Arrival, Backend, Content, LinkError, Opened, Parcel, SendError, SendFailure, Sender, Start, Tail,
};
use crate::bus::plain;
use crate::event::{Epoch, Pattern, Position, UnixMs};
use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::stream::{BoxStream, SelectAll, select_all};
use futures_util::{FutureExt as _, StreamExt as _};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// For connecting and subscribing, together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(8);
/// Room for what is around the event in JSON, and for what its texts grow by when they are escaped.
const ENVELOPE_BYTES: usize = 24 << 10;

/// Plain subjects of NATS.
#[derive(Debug)]
pub struct Core {
    options: NatsOptions,
    subjects: Subjects,
}

impl Core {
    /// The channels of these patterns, or all if there are none.
    pub fn new(options: NatsOptions, patterns: &[Pattern]) -> Self {
        let subjects = Subjects::new(&options.namespace, patterns);
        Self { options, subjects }
    }

    async fn connect(&self) -> Result<Opened<Self>, LinkError> {
        let link = Link::connect(&self.options).await?;
        let mut subscriptions = Vec::new();
        for (number, subject) in self.subjects.subscribed().into_iter().enumerate() {
            let messages = subscribe(&link, subject).await?;
            subscriptions.push(messages.map(move |message| (By::Events(number), message)).boxed());
        }
        let probes = subscribe(&link, self.subjects.probes().to_owned()).await?;
        subscriptions.push(probes.map(|message| (By::Probes, message)).boxed());
        let controls = subscribe(&link, self.subjects.controls().to_owned()).await?;
        subscriptions.push(controls.map(|message| (By::Controls, message)).boxed());
        let mut sender = CoreSender::begin(link.clone(), self.subjects.clone()).await?;
        // Once this has come back the server knows all subscriptions.
        sender.confirm().await?;
        let tail = CoreTail { link, subjects: self.subjects.clone(), messages: select_all(subscriptions) };
        Ok(Opened { sender, tail, epoch: Epoch(0), start: Start::Now })
    }
}

impl Backend for Core {
    type Sender = CoreSender;
    type Tail = CoreTail;

    fn is_ordered(&self) -> bool {
        false
    }

    async fn open(&self, _known: Option<(Epoch, Position)>) -> Result<Opened<Self>, LinkError> {
        let opened = tokio::time::timeout(OPEN_TIMEOUT, Box::pin(self.connect())).await;
        opened.unwrap_or_else(|_| {
            Err(LinkError::Away(format!("NATS was not ready within {} s", OPEN_TIMEOUT.as_secs())))
        })
    }
}

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (core)", self.options)
    }
}

async fn subscribe(link: &Link, subject: String) -> Result<Subscriber, LinkError> {
    let subscribed = link.client().subscribe(subject.clone()).await;
    subscribed.map_err(|error| LinkError::Refused(format!("cannot subscribe to {subject:?}: {error}")))
}

/// Publishes to plain subjects.
pub struct CoreSender {
    link: Link,
    subjects: Subjects,
    inbox: String,
    echoes: Subscriber,
    /// How many echoes were asked for.
    asked: u64,
}

impl CoreSender {
    async fn begin(link: Link, subjects: Subjects) -> Result<Self, LinkError> {
        let inbox = link.client().new_inbox();
        let echoes = subscribe(&link, inbox.clone()).await?;
        Ok(Self { link, subjects, inbox, echoes, asked: 0 })
    }

    /// Waits until the server has handled all that was published: it works in order, so it has once a message to
    /// ourselves comes back.
    async fn confirm(&mut self) -> Result<(), LinkError> {
        self.asked += 1;
        let word = self.asked.to_string();
        let asked = self.link.client().publish(self.inbox.clone(), word.clone().into()).await;
        if asked.is_err() {
            return Err(self.link.broken().await);
        }
        loop {
            let echo = tokio::select! {
                biased;
                reason = self.link.broken() => return Err(reason),
                echo = self.echoes.next() => echo,
            };
            match echo {
                Some(echo) if echo.payload == word => return self.link.check(),
                Some(_) => {}
                None => return Err(self.link.broken().await),
            }
        }
    }

    fn message(&self, parcel: &Parcel) -> Result<(String, Bytes), SendError> {
        let subject = match parcel {
            Parcel::Event { event, .. } => self.subjects.of(&event.channel),
            Parcel::Probe { .. } => self.subjects.probes().to_owned(),
        };
        let text = plain::write(parcel);
        let most = self.link.client().max_payload();
        if text.len() > most {
            return Err(SendError::Unfit(format!(
                "the event is a message of {} bytes, and the NATS server takes {most}; raise its max_payload",
                text.len()
            )));
        }
        Ok((subject, text.into()))
    }

    /// Publishes until one is unfit, and says which.
    async fn put(&mut self, parcels: &[Parcel]) -> Result<(), SendFailure> {
        for (index, parcel) in parcels.iter().enumerate() {
            let (subject, text) =
                self.message(parcel).map_err(|error| SendFailure { confirmed: index, error })?;
            if self.link.client().publish(subject, text).await.is_err() {
                return Err(SendFailure { confirmed: 0, error: self.link.lost().await });
            }
        }
        Ok(())
    }
}

impl Sender for CoreSender {
    async fn send(&mut self, parcels: &[Parcel]) -> Result<(), SendFailure> {
        let put = self.put(parcels).await;
        self.confirm().await.map_err(|reason| SendFailure { confirmed: 0, error: not_sent(reason) })?;
        put
    }

    fn max_event_bytes(&self) -> usize {
        let most = self.link.client().max_payload();
        // Bytes become Base64, which is longer by a third.
        (most - ENVELOPE_BYTES.min(most / 2)) / 4 * 3
    }
}

/// Reads plain subjects.
pub struct CoreTail {
    link: Link,
    subjects: Subjects,
    messages: SelectAll<BoxStream<'static, (By, Message)>>,
}

/// Which subscription a message came by.
#[derive(Clone, Copy, Debug)]
enum By {
    /// That of events with this number.
    Events(usize),
    /// That of probes.
    Probes,
    /// That of what nodes are told to do.
    Controls,
}

impl CoreTail {
    fn arrival(&self, (by, message): (By, Message), now: UnixMs) -> Option<Arrival> {
        let content = match by {
            By::Probes => match plain::read(self.subjects.probes(), &message.payload, now) {
                Content::Event { .. } => Content::Malformed("it is no probe"),
                content => content,
            },
            By::Controls => match plain::read("", &message.payload, now) {
                Content::Event { event, .. } if !event.channel.is_reserved() => {
                    Content::Malformed("it controls no node")
                }
                content => content,
            },
            By::Events(number) => {
                let channel = self.subjects.channel(&message.subject, number)?;
                let content = plain::read(channel, &message.payload, now);
                if let Content::Event { event, sender } = &content {
                    // An event of another namespace: there its subject is longer than its channel.
                    let other = sender.is_some() && event.channel.as_str() != channel;
                    // Who may write events may not control nodes.
                    if other || event.channel.is_reserved() {
                        return None;
                    }
                }
                content
            }
        };
        Some(Arrival { position: None, content })
    }
}

impl Tail for CoreTail {
    async fn next(&mut self, most: usize) -> Result<Vec<Arrival>, LinkError> {
        let mut arrivals = Vec::new();
        while arrivals.is_empty() {
            // What came before the link broke comes no other time, so it is taken first.
            let message = tokio::select! {
                biased;
                message = self.messages.next() => message,
                reason = self.link.broken() => return Err(reason),
            };
            match message {
                Some(message) => arrivals.extend(self.arrival(message, now())),
                None => return Err(self.link.broken().await),
            }
        }
        let now = now();
        while arrivals.len() < most {
            // Without a budget, which would end each batch after some hundred messages.
            let waiting = tokio::task::coop::unconstrained(self.messages.next()).now_or_never();
            let Some(Some(message)) = waiting else { break };
            arrivals.extend(self.arrival(message, now));
        }
        Ok(arrivals)
    }
}

fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs::try_from(since.as_millis()).unwrap_or(UnixMs::MAX)
}
