//! Plain channels of Redis: no order, nothing kept, and open to apps that speak them already.

use super::access::{ANSWER, Access, To};
use super::error::{link_error, refusal, send_error};
use super::glob::Glob;
use super::{RedisAddress, RedisOptions, server};
use crate::bus::backend::{
    Arrival, Backend, Content, LinkError, Opened, Parcel, SendError, SendFailure, Sender, Start, Tail,
};
use crate::bus::plain;
use crate::event::{Epoch, Position};
use crate::publish::unix_ms;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, PushInfo, PushKind, Value};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long all of opening may take.
const OPEN: Duration = Duration::from_secs(6);
/// Between two looks whether a quiet server is still there.
const PING: Duration = Duration::from_secs(2);
/// What may wait here for the node, in messages and in bytes. Beyond, the link is given up: with the rest, which
/// Redis would drop as well.
const WAITING_MESSAGES: usize = 64 << 10;
const WAITING_BYTES: usize = 64 << 20;
/// Largest event; Redis would take more.
const MAX_EVENT_BYTES: usize = 64 << 20;

/// What the channels begin with on which nodes of a namespace tell each other something.
const PROBES: &str = "sidewire.probe.";
const CONTROLS: &str = "sidewire.control.";

/// Events as messages on channels of Redis.
#[derive(Clone, Debug)]
pub struct RedisPubSub {
    options: RedisOptions,
    patterns: Arc<[Glob]>,
    /// What each of our channels begins with there.
    prefix: Arc<str>,
    probes: Arc<str>,
    /// Where nodes are controlled: a channel of its own, so that who may write events need not have a right to it.
    controls: Arc<str>,
}

impl RedisPubSub {
    /// Channels that fit any of `patterns` (Redis patterns, or ours that end in `>`), all if there are none.
    /// Nothing is connected yet.
    pub fn new(options: RedisOptions, patterns: &[String]) -> Self {
        // What apps publish has no prefix, so the usual namespace has none either.
        let prefix = match options.namespace.as_str() {
            "default" => String::new(),
            name => format!("{name}."),
        };
        let patterns = if patterns.is_empty() {
            vec![Glob::new(&prefix, "*")]
        } else {
            patterns.iter().map(|pattern| Glob::new(&prefix, pattern)).collect()
        };
        let probes = format!("{PROBES}{}", options.namespace).into();
        let controls = format!("{CONTROLS}{}", options.namespace).into();
        Self { options, patterns: patterns.into(), prefix: prefix.into(), probes, controls }
    }

    async fn connect(&self) -> Result<Opened<Self>, LinkError> {
        let access = Access::read(&self.options).await?;
        let address = server::find(&self.options, &access).await?;
        let (waiting, arriving) = mpsc::channel(WAITING_MESSAGES);
        let bounds = Arc::new(Bounds::default());
        let sink = sink(waiting, bounds.clone());
        let (publishes, mut subscriptions) = tokio::try_join!(
            access.connect(&address, To::Data, ANSWER * 3),
            access.connect_for_pushes(&address, sink)
        )?;
        let patterns: Vec<&[u8]> = self.patterns.iter().map(Glob::as_bytes).collect();
        let subscribed = async {
            subscriptions.subscribe(&[&*self.probes, &*self.controls]).await?;
            subscriptions.psubscribe(patterns).await
        };
        subscribed.await.map_err(|error| link_error(&address, error))?;
        let bus = self.clone();
        Ok(Opened {
            sender: PubSubSender { connection: publishes, address: address.clone(), bus: bus.clone() },
            tail: PubSubTail { connection: subscriptions, address, bus, arriving, bounds },
            epoch: Epoch(0),
            start: Start::Now,
        })
    }

    /// What a message is to this node; none if it is not for it.
    fn read(&self, push: PushInfo) -> Option<Content> {
        let mut data = push.data.into_iter().map(|value| match value {
            Value::BulkString(bytes) => bytes,
            _ => Vec::new(),
        });
        let (pattern, channel, payload) = match push.kind {
            PushKind::Message => (None, data.next()?, data.next()?),
            PushKind::PMessage => (Some(data.next()?), data.next()?, data.next()?),
            _ => return None,
        };
        match pattern {
            // Only what nodes tell each other is subscribed to by name.
            None => {
                let controls = channel == self.controls.as_bytes();
                let content = plain::read("", &payload, unix_ms());
                let fits = match &content {
                    Content::Probe { .. } => !controls,
                    Content::Event { event, sender: Some(_) } => controls && event.channel.is_reserved(),
                    Content::Newer(_) => true,
                    _ => false,
                };
                return fits.then_some(content);
            }
            Some(pattern) => {
                // A message comes once for each pattern that fits it; the first of them counts.
                let first = self.patterns.iter().find(|glob| glob.fits(&channel))?;
                let own = channel.starts_with(b"__") && !first.as_bytes().starts_with(b"__");
                if first.as_bytes() != pattern || own || is_between_nodes(&channel) {
                    return None;
                }
            }
        }
        let channel = String::from_utf8_lossy(&channel);
        let channel = channel.strip_prefix(&*self.prefix)?;
        let content = plain::read(channel, &payload, unix_ms());
        match &content {
            // A node of another namespace: it has this channel under another name.
            Content::Event { event, sender: Some(_) } if event.channel.as_str() != channel => None,
            // Who may write events may not control nodes.
            Content::Event { event, .. } if event.channel.is_reserved() => None,
            _ => Some(content),
        }
    }
}

impl Backend for RedisPubSub {
    type Sender = PubSubSender;
    type Tail = PubSubTail;

    fn is_ordered(&self) -> bool {
        false
    }

    async fn open(&self, _known: Option<(Epoch, Position)>) -> Result<Opened<Self>, LinkError> {
        match tokio::time::timeout(OPEN, self.connect()).await {
            Ok(opened) => opened,
            Err(_) => Err(LinkError::Away(format!("{self} did not answer in {OPEN:?}"))),
        }
    }
}

impl fmt::Display for RedisPubSub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pubsub)", self.options.servers)
    }
}

/// Publishes parcels.
pub struct PubSubSender {
    connection: MultiplexedConnection,
    address: RedisAddress,
    bus: RedisPubSub,
}

impl PubSubSender {
    fn pipeline(&self, parcels: &[Parcel]) -> (Pipeline, Option<usize>) {
        let mut pipeline = Pipeline::with_capacity(parcels.len());
        for (index, parcel) in parcels.iter().enumerate() {
            let message = plain::write(parcel);
            if message.len() > MAX_EVENT_BYTES {
                return (pipeline, Some(index));
            }
            let command = pipeline.cmd("PUBLISH");
            match parcel {
                Parcel::Probe { .. } => command.arg(&*self.bus.probes),
                Parcel::Event { event, .. } if event.channel.is_reserved() => {
                    command.arg(&*self.bus.controls)
                }
                Parcel::Event { event, .. } => command.arg(format!("{}{}", self.bus.prefix, event.channel)),
            };
            command.arg(message);
        }
        (pipeline, None)
    }
}

impl Sender for PubSubSender {
    async fn send(&mut self, parcels: &[Parcel]) -> Result<(), SendFailure> {
        let (pipeline, unfit) = self.pipeline(parcels);
        if !pipeline.is_empty() {
            let answers = self.connection.send_packed_commands(&pipeline, 0, pipeline.len()).await;
            let answers = answers
                .map_err(|error| SendFailure { confirmed: 0, error: send_error(&self.address, error) })?;
            for (confirmed, answer) in answers.iter().enumerate() {
                if let Value::ServerError(error) = answer {
                    return Err(SendFailure { confirmed, error: refusal(&self.address, error) });
                }
            }
        }
        match unfit {
            None => Ok(()),
            Some(confirmed) => {
                let why = format!("a message on Redis has at most {MAX_EVENT_BYTES} bytes");
                Err(SendFailure { confirmed, error: SendError::Unfit(why) })
            }
        }
    }

    fn max_event_bytes(&self) -> usize {
        // Room for Base64 and all that stands around the payload.
        MAX_EVENT_BYTES / 2
    }
}

fn is_between_nodes(channel: &[u8]) -> bool {
    channel.starts_with(PROBES.as_bytes()) || channel.starts_with(CONTROLS.as_bytes())
}

/// What waits between the connection and the tail.
#[derive(Default)]
struct Bounds {
    bytes: AtomicUsize,
    is_exceeded: AtomicBool,
}

/// What the connection calls for each message. It must not block, so what does not fit is dropped, and the link
/// with it.
fn sink(
    waiting: mpsc::Sender<(PushInfo, usize)>,
    bounds: Arc<Bounds>,
) -> impl Fn(PushInfo) -> Result<(), LinkError> + Send + Sync + 'static {
    move |push| {
        let bytes = push.data.iter().map(size).sum();
        let before = bounds.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > WAITING_BYTES && before > 0 || waiting.try_send((push, bytes)).is_err() {
            bounds.bytes.fetch_sub(bytes, Ordering::Relaxed);
            bounds.is_exceeded.store(true, Ordering::Relaxed);
            return Err(LinkError::Away("too much waits".into()));
        }
        Ok(())
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::BulkString(bytes) => bytes.len(),
        _ => 0,
    }
}

/// Takes messages as they come.
pub struct PubSubTail {
    connection: MultiplexedConnection,
    address: RedisAddress,
    bus: RedisPubSub,
    arriving: mpsc::Receiver<(PushInfo, usize)>,
    bounds: Arc<Bounds>,
}

impl PubSubTail {
    async fn one(&mut self) -> Result<(PushInfo, usize), LinkError> {
        loop {
            if let Ok(push) = self.arriving.try_recv() {
                return Ok(push);
            }
            if self.bounds.is_exceeded.load(Ordering::Relaxed) {
                return Err(LinkError::Away(format!(
                    "messages of Redis at {} came faster than this node takes them: some are lost",
                    self.address
                )));
            }
            match tokio::time::timeout(PING, self.arriving.recv()).await {
                Ok(Some(push)) => return Ok(push),
                Ok(None) => return Err(self.gone()),
                Err(_) => {
                    // The link's own bound on an answer applies.
                    let alive = self.connection.send_packed_command(&redis::cmd("PING")).await;
                    alive.map_err(|error| link_error(&self.address, error))?;
                }
            }
        }
    }

    fn gone(&self) -> LinkError {
        LinkError::Away(format!("Redis at {} closed the connection", self.address))
    }
}

impl Tail for PubSubTail {
    async fn next(&mut self, most: usize) -> Result<Vec<Arrival>, LinkError> {
        let mut arrivals = Vec::new();
        while arrivals.is_empty() {
            let mut push = Some(self.one().await?);
            while let Some((message, bytes)) = push.take() {
                self.bounds.bytes.fetch_sub(bytes, Ordering::Relaxed);
                if message.kind == PushKind::Disconnection {
                    // What came before it is delivered first; the channel is closed then, which tells it again.
                    if arrivals.is_empty() {
                        return Err(self.gone());
                    }
                    self.arriving.close();
                    break;
                }
                if let Some(content) = self.bus.read(message) {
                    arrivals.push(Arrival { position: None, content });
                }
                if arrivals.len() < most {
                    push = self.arriving.try_recv().ok();
                }
            }
        }
        Ok(arrivals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> PushInfo {
        PushInfo { kind: PushKind::PMessage, data: vec![Value::BulkString(vec![0; bytes])] }
    }

    #[test]
    fn what_waits_is_bounded_by_number() {
        let (waiting, mut arriving) = mpsc::channel(2);
        let bounds = Arc::new(Bounds::default());
        let sink = sink(waiting, bounds.clone());
        assert!(sink(message(1)).is_ok() && sink(message(1)).is_ok());
        assert!(!bounds.is_exceeded.load(Ordering::Relaxed));
        assert!(sink(message(1)).is_err() && bounds.is_exceeded.load(Ordering::Relaxed));
        assert!(arriving.try_recv().is_ok() && arriving.try_recv().is_ok() && arriving.try_recv().is_err());
        assert_eq!(bounds.bytes.load(Ordering::Relaxed), 2, "what was dropped does not count");
    }

    #[test]
    fn what_waits_is_bounded_by_bytes() {
        let (waiting, _arriving) = mpsc::channel(10);
        let bounds = Arc::new(Bounds::default());
        let sink = sink(waiting, bounds.clone());
        assert!(sink(message(WAITING_BYTES + 1)).is_ok(), "one message is always taken");
        assert!(sink(message(1)).is_err() && bounds.is_exceeded.load(Ordering::Relaxed));
    }
}
