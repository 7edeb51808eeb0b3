//! Short forms of what nearly every test does: publish, and ask what is kept.

use super::http::{HttpClient, Response};
use super::sidecar::TestSidecar;
use super::subscription::{Subscription, Transport};
use super::wait::eventually;
use serde_json::{Value, json};

impl TestSidecar {
    /// Publishes, which must succeed; gives the body of the answer.
    pub(crate) async fn publish(&self, body: &Value) -> Value {
        self.app().post_json("/v1/publish", body).await.success()
    }

    /// Publishes `{"n": first}`, `{"n": first + 1}`, .. to a channel, as one request.
    pub(crate) async fn publish_numbers(&self, channel: &str, numbers: std::ops::Range<u64>) {
        for some in numbers.collect::<Vec<_>>().chunks(500) {
            let batch: Vec<Value> =
                some.iter().map(|n| json!({"channel": channel, "data": {"n": n}})).collect();
            let answer = self.publish(&Value::Array(batch)).await;
            for entry in answer["results"].as_array().expect("results") {
                assert_eq!(entry["status"], "published", "{entry}");
            }
        }
    }

    /// Publishes a body of any type.
    pub(crate) async fn publish_as(&self, content_type: &str, query: &str, body: &[u8]) -> Response {
        self.app().post(&format!("/v1/publish{query}"), content_type, body).await
    }

    /// One page of `GET /v1/events`, which must succeed.
    pub(crate) async fn events(&self, query: &str) -> Value {
        self.app().get(&format!("/v1/events?{query}")).await.success()
    }

    /// Every kept event that `query` finds, oldest first, page by page.
    pub(crate) async fn all_events(&self, query: &str) -> Vec<Value> {
        let mut client = self.app();
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let target = format!("/v1/events?{query}&order=asc&limit=1000{after}");
            let page = client.get(&target).await.success();
            let events = page["events"].as_array().expect("events");
            found.extend(events.iter().cloned());
            if page["more"] == false {
                return found;
            }
            after = format!("&after={}", page["cursor"].as_str().expect("cursor"));
        }
    }

    /// The newest event of a channel, if any is kept.
    pub(crate) async fn last(&self, channel: &str) -> Option<Value> {
        let answer = self.app().get(&format!("/v1/channels/{channel}/last")).await;
        match answer.status() {
            404 => {
                assert_eq!(answer.refusal(404), "not_found");
                None
            }
            _ => Some(answer.success()),
        }
    }

    /// A cursor that says "I have everything up to now".
    pub(crate) async fn cursor_now(&self) -> String {
        let answer = self.client().get("/v1/poll?channel=any&timeout=0").await.success();
        answer["cursor"].as_str().expect("cursor").to_owned()
    }

    /// What a client that comes with a cursor is told about it.
    pub(crate) async fn resume_of(&self, query: &str, cursor: &str) -> String {
        let address = self.whereabouts().client();
        let opened = Subscription::open(Transport::WebSocket, &address, query, Some(cursor)).await;
        opened.resume().to_owned()
    }

    /// How many connections the node says it has.
    pub(crate) async fn connections(&self) -> u64 {
        self.admin().get("/healthz").await.success()["connections"].as_u64().expect("connections")
    }

    /// Waits until the node counts so many connections.
    pub(crate) async fn wait_for_connections(&self, count: u64) {
        eventually(&format!("{count} connections"), async || {
            (self.connections().await == count).then_some(())
        })
        .await;
    }

    /// Waits until `channel` has so many subscribers.
    pub(crate) async fn wait_for_subscribers(&self, channel: &str, count: u64) {
        eventually(&format!("{count} subscribers of {channel}"), async || {
            let answer = self.app().get(&format!("/v1/channels?prefix={channel}")).await.success();
            let found = answer["channels"]
                .as_array()
                .expect("channels")
                .iter()
                .find(|e| e["channel"] == channel)
                .and_then(|entry| entry["subscribers"].as_u64())
                .unwrap_or(0);
            (found == count).then_some(())
        })
        .await;
    }

    /// Waits until the node is ready.
    pub(crate) async fn ready(&self) {
        eventually("readiness", async || (self.admin().get("/readyz").await.status() == 200).then_some(()))
            .await;
    }

    /// Checks that the node is none the worse: alive, ready, and carrying events.
    pub(crate) async fn still_healthy(&mut self) {
        assert!(self.runs(), "the node has ended:\n{}", self.log());
        assert_eq!(self.admin().get("/healthz").await.status(), 200);
        self.ready().await;
        // A bus that answers late for a moment, as on a busy machine, is no harm.
        self.publish_until("published", "still.healthy").await;
        assert!(!self.log().contains("panicked"), "{}", self.log());
    }
}

/// The `n` of every event, in the order in which they stand.
pub(crate) fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["data"]["n"].as_u64().expect("a number")).collect()
}

/// Publishes a batch of events that have ids, again and again until the log has taken every one: a log that is
/// busy may say "later".
pub(crate) async fn publish_until_taken(app: &mut HttpClient, batch: &[Value]) {
    let later = |code: &Value| code == "unavailable" || code == "queue_full";
    eventually("the log takes a batch", async || {
        let answer = app.post_json("/v1/publish", &json!(batch)).await;
        if answer.status() == 503 {
            assert!(later(&answer.json()["code"]), "{}", answer.text());
            return None;
        }
        let answer = answer.success();
        let entries = answer["results"].as_array().expect("results");
        for entry in entries {
            let taken = entry["status"] == "published" || entry["status"] == "duplicate";
            assert!(taken || later(&entry["code"]), "{entry}");
        }
        entries.iter().all(|entry| entry["code"].is_null()).then_some(())
    })
    .await;
}
