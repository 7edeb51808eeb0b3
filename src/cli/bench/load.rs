//! The two sides of the load: publishers and subscribers.

use super::histogram::Histogram;
use crate::cli::address::NodeAddress;
use crate::cli::error::CliError;
use crate::cli::http::{HttpClient, target};
use crate::cli::websocket::{self, Socket};
use crate::cli::wire::ServerMessage;
use bytes::Bytes;
use futures_util::StreamExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

/// What stands before the time of sending in the data of an event.
const SENT_US: &str = "\"sent_us\":";

/// Events of a bench go soon after it, so as not to crowd out what an app wants kept.
const TTL_SECONDS: u32 = 600;

/// The clock of one run, and what all subscribers have got so far.
pub(super) struct Watch {
    origin: Instant,
    /// Events that subscribers have got.
    pub(super) delivered: AtomicU64,
    last_delivery_us: AtomicU64,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), delivered: AtomicU64::new(0), last_delivery_us: AtomicU64::new(0) }
    }

    pub(super) fn since_origin(&self, time: Instant) -> Duration {
        time.saturating_duration_since(self.origin)
    }

    /// When the last event was delivered, since the origin.
    pub(super) fn last_delivery(&self) -> Duration {
        Duration::from_micros(self.last_delivery_us.load(Ordering::Relaxed))
    }

    fn note_delivery(&self, now: Duration) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
        self.last_delivery_us.fetch_max(now.as_micros() as u64, Ordering::Relaxed);
    }
}

/// When a publisher publishes.
pub(super) struct Pace {
    next: Instant,
    /// Between two publishes of this publisher; `None` goes on as soon as one is answered.
    interval: Option<Duration>,
}

impl Pace {
    /// The share of one of `publishers` in `rate` events a second, evenly between those of the others.
    pub(super) fn new(start: Instant, rate: u32, index: u32, publishers: u32) -> Self {
        let interval = (rate > 0).then(|| Duration::from_secs_f64(f64::from(publishers) / f64::from(rate)));
        let offset = interval.unwrap_or_default().mul_f64(f64::from(index) / f64::from(publishers));
        Self { next: start + offset, interval }
    }

    /// Waits until it is time; the time from which latency counts. A publisher that is behind does not wait,
    /// and its latency counts from when it should have published, or a node that stalls would look fast.
    async fn tick(&mut self) -> Instant {
        let Some(due) = self.next_due() else { return Instant::now() };
        tokio::time::sleep_until(due.into()).await;
        due
    }

    fn next_due(&mut self) -> Option<Instant> {
        let due = self.next;
        self.next += self.interval?;
        Some(due)
    }
}

/// One connection that publishes.
pub(super) struct Publisher {
    node: HttpClient,
    target: String,
    channel: String,
    padding: String,
}

/// What a publisher saw.
#[derive(Default)]
pub(super) struct Published {
    /// From when it was time to publish until the node's answer.
    pub(super) latencies: Histogram,
    pub(super) refused: u64,
    /// The first refusal.
    pub(super) error: Option<CliError>,
}

impl Publisher {
    pub(super) fn new(app: NodeAddress, channel: &str, ack: &str, size: usize) -> Self {
        Self {
            node: HttpClient::new(app),
            target: target("/v1/publish", [("ack", ack)]),
            channel: channel.to_owned(),
            padding: "x".repeat(size),
        }
    }

    pub(super) async fn run(mut self, watch: Arc<Watch>, mut pace: Pace, end: Instant) -> Published {
        let mut published = Published::default();
        loop {
            let due = pace.tick().await;
            if Instant::now() >= end {
                return published;
            }
            let body = self.body(watch.since_origin(due));
            let answer = self.node.post(&self.target, "application/json", body).await;
            match answer.and_then(|answer| answer.success()) {
                Ok(_) => published.latencies.record(due.elapsed()),
                Err(error) => {
                    published.refused += 1;
                    published.error.get_or_insert(error);
                    // Neither a node that is gone nor one that is full is helped by asking without a pause.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    fn body(&self, due: Duration) -> Bytes {
        let Self { channel, padding, .. } = self;
        let sent_us = due.as_micros();
        format!(
            r#"{{"channel":"{channel}","event":"bench","ttl":{TTL_SECONDS},"data":{{{SENT_US}{sent_us},"padding":"{padding}"}}}}"#
        )
        .into()
    }
}

/// One WebSocket that is subscribed.
pub(super) struct Subscriber {
    socket: Socket,
}

/// What a subscriber saw.
pub(super) struct Delivered {
    /// From when it was time to publish until the event was here.
    pub(super) latencies: Histogram,
    /// Whether the node closed the connection.
    pub(super) cut_off: bool,
}

impl Subscriber {
    /// Connects, and waits until the node says that it is subscribed: what is published after that must come.
    pub(super) async fn connect(client: NodeAddress, channel: String) -> Result<Self, CliError> {
        let mut socket =
            websocket::open(&client, &target("/v1/ws", [("channel", channel.as_str())]), None).await?;
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => match ServerMessage::parse(&text)? {
                    ServerMessage::Subscribed(_) => return Ok(Self { socket }),
                    ServerMessage::Error(error) => {
                        return Err(CliError::Refused {
                            status: None,
                            code: error.code,
                            message: error.message,
                        });
                    }
                    _ => {}
                },
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(client.unreachable(error)),
                None => return Err(client.unreachable("closed before it was subscribed")),
            }
        }
    }

    pub(super) async fn run(mut self, watch: Arc<Watch>, mut stopped: watch::Receiver<bool>) -> Delivered {
        let mut latencies = Histogram::default();
        loop {
            let message = tokio::select! {
                biased;
                message = self.socket.next() => message,
                _ = stopped.changed() => return Delivered { latencies, cut_off: false },
            };
            match message {
                Some(Ok(Message::Text(text))) => {
                    if let Some(due) = due(&text) {
                        let now = watch.since_origin(Instant::now());
                        latencies.record(now.saturating_sub(due));
                        watch.note_delivery(now);
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Delivered { latencies, cut_off: true },
            }
        }
    }
}

/// When the event was to be published. The message is searched rather than parsed: what this
/// process spends on it is taken from the node that it measures.
fn due(message: &str) -> Option<Duration> {
    let (_, rest) = message.split_once(SENT_US)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_sending_comes_back_with_the_event() {
        let publisher = Publisher::new(NodeAddress::Unix("/a".into()), "bench.x", "log", 3);
        let body = publisher.body(Duration::from_micros(1234));
        let body = std::str::from_utf8(&body).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(parsed["data"]["padding"], "xxx");
        assert_eq!(parsed["channel"], "bench.x");
        assert_eq!(due(body), Some(Duration::from_micros(1234)));
        assert_eq!(due(r#"{"type":"welcome"}"#), None);
    }

    #[test]
    fn publishers_share_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 100, 1, 4);
        assert_eq!(pace.next_due().map(|due| due - start), Some(Duration::from_millis(10)));
        assert_eq!(pace.next_due().map(|due| due - start), Some(Duration::from_millis(50)));
        assert_eq!(Pace::new(start, 0, 1, 4).next_due(), None);
    }
}
