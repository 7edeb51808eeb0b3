//! Reads the stream in order, and notices when something of it was passed over.

use super::headers;
use super::link::Link;
use super::stream::refused;
use crate::bus::backend::{Arrival, Content, LinkError, Tail};
use crate::event::{Epoch, Position};
use async_nats::jetstream::consumer::pull::{self, MessagesError};
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{ConsumerErrorKind, Info};
use async_nats::jetstream::{Context, Message};
use futures_util::{FutureExt as _, StreamExt as _};
use std::time::Duration;

/// Messages on their way at most, so that a backlog comes without waiting for the network.
const BATCH: usize = 2000;
/// Bytes on their way at most. A message that is larger would never come, so it is at least twice what the
/// server takes.
const BATCH_BYTES: usize = 8 << 20;
/// A server that is silent for twice as long is given up.
const HEARTBEAT: Duration = Duration::from_secs(2);
const REQUEST_LASTS: Duration = Duration::from_secs(30);
/// When the server forgets a reader that does not come back.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// For asking once for a reader, and how often one asks.
const MAKE_TIMEOUT: Duration = Duration::from_secs(1);
const TRIES: usize = 4;

/// Reads a stream.
pub struct StreamTail {
    link: Link,
    context: Context,
    stream: String,
    /// The subject on which nodes are controlled.
    controls: String,
    messages: pull::Stream,
    epoch: Epoch,
    /// The last place that was taken when the link was opened.
    opened_at: u64,
    /// The place that comes next; none before the first where anything may have gone before it.
    next: Option<u64>,
    /// The next message of this reader: each message that the server sends it has a number.
    next_delivery: u64,
    ended: Option<LinkError>,
}

/// Where and what to read.
pub(super) struct Reading {
    pub(super) stream: String,
    /// The subject on which nodes are controlled.
    pub(super) controls: String,
    pub(super) epoch: Epoch,
    /// The last place that is taken.
    pub(super) last: u64,
    /// The first to be read.
    pub(super) from: u64,
    /// Whether the node has what stands before `from`, so that nothing after it may be missing.
    pub(super) exactly: bool,
}

impl StreamTail {
    pub(super) async fn begin(link: Link, context: Context, reading: Reading) -> Result<Self, LinkError> {
        let config = pull::Config {
            // A name makes it the same reader when it is asked for again.
            name: Some(format!("sidewire-{}", uuid::Uuid::now_v7().simple())),
            description: Some("a node of Sidewire".into()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: reading.from },
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            inactive_threshold: FORGOTTEN_AFTER,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = make(&context, config, &reading.stream).await?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(BATCH)
            .max_bytes_per_batch(BATCH_BYTES.max(2 * link.client().max_payload()))
            .expires(REQUEST_LASTS)
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|error| LinkError::Away(format!("cannot read the NATS stream: {error}")))?;
        Ok(Self {
            link,
            context,
            stream: reading.stream,
            controls: reading.controls,
            messages,
            epoch: reading.epoch,
            opened_at: reading.last,
            next: reading.exactly.then_some(reading.from),
            next_delivery: 1,
            ended: None,
        })
    }

    async fn first(&mut self) -> Result<Option<Arrival>, LinkError> {
        let message = tokio::select! {
            biased;
            message = self.messages.next() => message,
            reason = self.link.broken() => return Err(reason),
        };
        match message {
            Some(message) => self.take(message).await,
            None => Err(self.link.broken().await),
        }
    }

    /// Takes what came. None for what no node has to know.
    async fn take(&mut self, message: Result<Message, MessagesError>) -> Result<Option<Arrival>, LinkError> {
        let message = message
            .map_err(|error| LinkError::Away(format!("the NATS stream cannot be read on: {error}")))?;
        let (place, delivery) = match message.info() {
            Ok(info) => (info.stream_sequence, info.consumer_sequence),
            Err(error) => {
                return Err(LinkError::Away(format!("the NATS server sent what is of no stream: {error}")));
            }
        };
        if delivery != self.next_delivery {
            return Err(LinkError::Away("messages of the NATS stream got lost on the way".into()));
        }
        self.next_delivery += 1;
        match self.next {
            Some(next) if place < next => {
                return Err(LinkError::Away("the NATS stream went back, it may have been made anew".into()));
            }
            Some(next) if place > next => self.explain_gap(next).await?,
            _ => {}
        }
        self.next = Some(place + 1);
        let content = match headers::content(&message) {
            // Rights on NATS are given by subject: who may write events elsewhere may not control nodes.
            Content::Event { event, .. }
                if event.channel.is_reserved() && *message.subject != *self.controls =>
            {
                Content::Malformed("it controls nodes on a subject that is not for that")
            }
            content => content,
        };
        if let Content::Epoch(epoch) = content {
            // A note that was there already when the link was opened, or that says what is known.
            if place <= self.opened_at || epoch == self.epoch {
                return Ok(None);
            }
            self.ended =
                Some(LinkError::Away(format!("another node began epoch {epoch} on the NATS stream")));
        }
        Ok(Some(Arrival { position: Some(Position(place)), content }))
    }

    /// Single messages may have been deleted. But what was trimmed before this node read it is a gap, which
    /// it is told when it opens the link anew.
    async fn explain_gap(&self, next: u64) -> Result<(), LinkError> {
        let info: Result<Response<Info>, _> =
            self.context.request(format!("STREAM.INFO.{}", self.stream), &()).await;
        match info {
            Ok(Response::Ok(info)) if info.state.first_sequence <= next => Ok(()),
            Ok(Response::Ok(info)) => Err(LinkError::Away(format!(
                "the NATS stream begins at {} now and this node had read up to {}: events were trimmed or purged before it could read them",
                info.state.first_sequence,
                next - 1
            ))),
            Ok(Response::Err { error }) => Err(LinkError::Away(format!("the NATS stream is gone: {error}"))),
            Err(error) => Err(LinkError::Away(format!("JetStream cannot be asked: {error}"))),
        }
    }
}

/// Makes the reader on the server. Without a leader nobody answers, and not later either, so it is soon asked
/// for again.
async fn make(
    context: &Context,
    config: pull::Config,
    stream: &str,
) -> Result<Consumer<pull::Config>, LinkError> {
    let mut impatient = context.clone();
    impatient.set_timeout(MAKE_TIMEOUT);
    let mut tries = 1;
    loop {
        let error = match impatient.create_consumer_on_stream(config.clone(), stream).await {
            Ok(consumer) => return Ok(consumer),
            Err(error) => error,
        };
        match error.kind() {
            ConsumerErrorKind::TimedOut if tries < TRIES => tries += 1,
            ConsumerErrorKind::JetStream(error) => return Err(refused(&error, "read", stream)),
            _ => return Err(LinkError::Away(format!("the NATS stream {stream} cannot be read: {error}"))),
        }
    }
}

impl Tail for StreamTail {
    async fn next(&mut self, most: usize) -> Result<Vec<Arrival>, LinkError> {
        let mut arrivals = Vec::new();
        while self.ended.is_none() && arrivals.is_empty() {
            arrivals.extend(self.first().await?);
        }
        while self.ended.is_none() && arrivals.len() < most {
            // Without a budget, which would end each batch after some hundred messages.
            let waiting = tokio::task::coop::unconstrained(self.messages.next()).now_or_never();
            let Some(Some(message)) = waiting else { break };
            match self.take(message).await {
                Ok(arrival) => arrivals.extend(arrival),
                Err(error) => self.ended = Some(error),
            }
        }
        match self.ended.take() {
            Some(error) if arrivals.is_empty() => Err(error),
            ended => {
                self.ended = ended;
                Ok(arrivals)
            }
        }
    }
}
