//! A publisher that never gives up: numbered events, in order, each acknowledged before the next batch.

use super::http::HttpClient;
use super::joined;
use super::sidecar::Whereabouts;
use super::wait::PATIENCE;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// What to publish.
#[derive(Clone)]
pub(crate) struct NumberedLoad {
    /// Event `n` goes to the channel at `n` modulo their number.
    pub(crate) channels: Vec<String>,
    /// In front of the number in every id.
    pub(crate) run: String,
    pub(crate) total: u64,
    /// Events in one request.
    pub(crate) batch: u64,
    pub(crate) per_second: u64,
    /// Bytes of padding in each event.
    pub(crate) padding: usize,
}

/// A load under way.
pub(crate) struct RunningLoad {
    task: JoinHandle<()>,
    acknowledged: Arc<AtomicU64>,
}

impl NumberedLoad {
    /// Publishes events 0 to `total`, at most so many a second, wherever the node is. A batch whose fate is
    /// unknown is sent again under the same ids.
    pub(crate) fn start(self, whereabouts: Whereabouts) -> RunningLoad {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(self.publish(whereabouts, Arc::clone(&acknowledged)));
        RunningLoad { task, acknowledged }
    }

    async fn publish(self, whereabouts: Whereabouts, acknowledged: Arc<AtomicU64>) {
        let begin = Instant::now();
        let mut client: Option<HttpClient> = None;
        let mut next = 0;
        while next < self.total {
            let end = (next + self.batch).min(self.total);
            let body = self.body(next..end);
            let deadline = Instant::now() + PATIENCE;
            loop {
                let mut fresh = client.take().unwrap_or_else(|| HttpClient::new(whereabouts.app()));
                let headers = [("Content-Type", "application/json")];
                match fresh.try_request("POST", "/v1/publish?ack=log", &headers, &body).await {
                    Ok(response) if response.status() == 200 => {
                        client = Some(fresh);
                        if all_taken(&response.json()) {
                            break;
                        }
                    }
                    // A node that is going away says so, and drops what it has not begun.
                    Ok(response) => assert_eq!(response.status(), 503, "{}", response.text()),
                    Err(_) => {}
                }
                assert!(Instant::now() < deadline, "no publish was acknowledged for {PATIENCE:?}");
                sleep(Duration::from_millis(5)).await;
            }
            acknowledged.store(end, Ordering::Relaxed);
            next = end;
            let due = begin + Duration::from_secs_f64(next as f64 / self.per_second as f64);
            tokio::time::sleep_until(due).await;
        }
    }

    fn body(&self, numbers: std::ops::Range<u64>) -> Vec<u8> {
        let padding = "x".repeat(self.padding);
        let batch: Vec<Value> = numbers
            .map(|n| {
                let channel = &self.channels[n as usize % self.channels.len()];
                json!({"channel": channel, "id": format!("{}-{n}", self.run), "data": {"n": n, "padding": padding}})
            })
            .collect();
        Value::Array(batch).to_string().into_bytes()
    }
}

/// Whether every entry is in the log: by this request, or by an earlier one whose answer was lost. If not, the log
/// has said "later" from some entry on, and to all that follow it: what is sent again is then still in order.
fn all_taken(answer: &Value) -> bool {
    let later = |entry: &Value| entry["code"] == "unavailable" || entry["code"] == "queue_full";
    let entries = answer["results"].as_array().expect("results");
    let taken = entries.iter().take_while(|entry| !later(entry)).count();
    for entry in &entries[..taken] {
        assert!(entry["status"] == "published" || entry["status"] == "duplicate", "{entry}");
    }
    assert!(entries[taken..].iter().all(later), "taken after one that was refused: {answer}");
    taken == entries.len()
}

impl RunningLoad {
    /// How many events were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many are acknowledged.
    pub(crate) async fn reaches(&self, count: u64) {
        super::wait::eventually(&format!("{count} acknowledged events"), async || {
            (self.acknowledged() >= count || self.task.is_finished()).then_some(())
        })
        .await;
    }

    /// Waits for the end.
    pub(crate) async fn done(self) {
        joined(self.task).await;
    }
}

/// Checks that numbers come one after the other.
pub(crate) struct OrderCheck {
    who: String,
    next: u64,
}

impl OrderCheck {
    pub(crate) fn new(who: impl Into<String>) -> Self {
        Self { who: who.into(), next: 0 }
    }

    pub(crate) fn saw(&mut self, number: u64) {
        let Self { who, next } = self;
        assert!(number >= *next, "{who}: {number} came again (or late): {next} was next");
        assert!(number == *next, "{who}: a gap: {number} came where {next} was next");
        *next += 1;
    }

    /// The number that is to come.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }
}
