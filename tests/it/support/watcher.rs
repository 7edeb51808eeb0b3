//! A client that stays, comes back when it is cut off, and remembers all that it was shown.

use super::publishers::RunningPublishers;
use super::sidecar::{TestSidecar, Whereabouts};
use super::wait::{PATIENCE, eventually};
use super::websocket::{Ended, WebSocketClient};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// An event as a client was shown it.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) channel: String,
    pub(crate) id: String,
    pub(crate) number: u64,
    pub(crate) cursor: String,
    /// Which of the client's connections it was, from 0 on.
    pub(crate) connection: usize,
}

#[derive(Default)]
struct Memory {
    shown: Vec<Shown>,
    /// What it was told about its cursor at each connection.
    resumes: Vec<String>,
    /// Ids of what was shown, once each.
    distinct: HashSet<String>,
    /// How many of them each channel has.
    of_channel: HashMap<String, u64>,
}

/// The client. Dropping it hangs up.
pub(crate) struct Watcher {
    who: String,
    memory: Arc<Mutex<Memory>>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Watches from now on; subscribed when this returns.
    pub(crate) async fn start(who: &str, whereabouts: Whereabouts, query: &str) -> Self {
        Self::start_after(who, whereabouts, query, None).await
    }

    /// One at each node.
    pub(crate) async fn start_on_each(nodes: &[TestSidecar], query: &str) -> Vec<Self> {
        let mut watchers = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            let who = format!("the client of node {at}");
            watchers.push(Self::start(&who, node.whereabouts(), query).await);
        }
        watchers
    }

    /// Watches from a cursor on.
    pub(crate) async fn start_after(
        who: &str,
        whereabouts: Whereabouts,
        query: &str,
        cursor: Option<String>,
    ) -> Self {
        let memory = Arc::<Mutex<Memory>>::default();
        let task = tokio::spawn(watch(whereabouts, query.to_owned(), cursor, Arc::clone(&memory)));
        let watcher = Self { who: who.to_owned(), memory, task };
        eventually("a subscription", async || (!watcher.resumes().is_empty()).then_some(())).await;
        watcher
    }

    pub(crate) fn shown(&self) -> Vec<Shown> {
        self.memory.lock().expect("no panic inside").shown.clone()
    }

    /// What it was told about its cursor at each connection.
    pub(crate) fn resumes(&self) -> Vec<String> {
        self.memory.lock().expect("no panic inside").resumes.clone()
    }

    /// How many different events it was shown.
    pub(crate) fn count(&self) -> usize {
        self.memory.lock().expect("no panic inside").distinct.len()
    }

    /// Waits until it was shown as much of these publishers as is acknowledged to them now.
    pub(crate) async fn keeps_up_with(&self, publishers: &RunningPublishers) {
        let acknowledged = publishers.acknowledged();
        let prefix = format!("{}.", publishers.name());
        eventually(&format!("{} sees what is published on {prefix}>", self.who), async || {
            let memory = self.memory.lock().expect("no panic inside");
            let of_these = memory.of_channel.iter().filter(|(channel, _)| channel.starts_with(&prefix));
            (of_these.map(|(_, count)| count).sum::<u64>() >= acknowledged).then_some(())
        })
        .await;
    }

    /// Waits until it was shown so many different events.
    pub(crate) async fn sees(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.count() < count {
            if self.task.is_finished() || Instant::now() > deadline {
                panic!("{}: {} events of {count}, {:?}", self.who, self.count(), self.resumes());
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until it was shown as many as the channels have, and checks that it was these: see [`Self::check`].
    pub(crate) async fn sees_exactly(&self, channels: &[(String, u64)]) {
        let total: u64 = channels.iter().map(|(_, count)| count).sum();
        self.sees(total as usize).await;
        self.check(channels);
    }

    /// Checks that of each channel it was shown exactly 0, 1, 2 … up to the count, in this order, and each once.
    pub(crate) fn check(&self, channels: &[(String, u64)]) {
        self.check_but(channels, &HashSet::new());
    }

    /// The same, where some ids were published twice, as the node was killed before it answered: these may be
    /// shown twice.
    pub(crate) fn check_but(&self, channels: &[(String, u64)], again: &HashSet<String>) {
        self.check_order(again);
        for (channel, count) in channels {
            let shown = self.numbers_of(channel);
            assert!(
                shown == (0..*count).collect::<Vec<_>>(),
                "{}: {channel}: {shown:?} of {count}",
                self.who
            );
        }
    }

    /// The same for a bus that keeps nothing: numbers may be missing, but none comes twice or before a lower one.
    fn check_order(&self, again: &HashSet<String>) {
        let shown = self.shown();
        let mut last: HashMap<&str, u64> = HashMap::new();
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (at, event) in shown.iter().enumerate() {
            if let Some(before) = seen.insert(&event.id, at) {
                assert!(
                    again.contains(&event.id),
                    "{}: {} was shown again, as number {at} after number {before}; around these: {:?} and {:?}",
                    self.who,
                    event.id,
                    &shown[before.saturating_sub(2)..=before + 1],
                    &shown[at - 2..=(at + 1).min(shown.len() - 1)],
                );
                continue;
            }
            let before = last.insert(&event.channel, event.number);
            assert!(
                before.is_none_or(|before| before < event.number),
                "{}: {} comes after {before:?}",
                self.who,
                event.id
            );
        }
    }

    /// The numbers of a channel as they were shown first.
    pub(crate) fn numbers_of(&self, channel: &str) -> Vec<u64> {
        let mut seen = HashSet::new();
        let of_channel = self.shown().into_iter().filter(|event| event.channel == channel);
        of_channel.filter(|event| seen.insert(event.id.clone())).map(|event| event.number).collect()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(
    whereabouts: Whereabouts,
    query: String,
    mut cursor: Option<String>,
    memory: Arc<Mutex<Memory>>,
) {
    let mut connection = 0;
    loop {
        let target = match &cursor {
            Some(cursor) => format!("/v1/ws?{query}&cursor={cursor}"),
            None => format!("/v1/ws?{query}"),
        };
        let opened = WebSocketClient::try_open(&whereabouts.client(), &target, &[]).await;
        let Ok(mut client) = opened else {
            // The node is down, or on its way up: it is asked again for as long as the test watches.
            sleep(Duration::from_millis(5)).await;
            continue;
        };
        let ended = loop {
            let message = match client.try_next().await {
                Ok(message) => message,
                Err(ended) => break ended,
            };
            let mut memory = memory.lock().expect("no panic inside");
            match message["type"].as_str() {
                Some("subscribed") => {
                    // Whoever has seen nothing yet still has a place to go on from.
                    let told = message["cursor"].as_str().expect("a subscription has a cursor");
                    cursor.get_or_insert_with(|| told.to_owned());
                    memory.resumes.push(message["resume"].as_str().expect("told of its cursor").to_owned());
                }
                Some("event") => {
                    let shown = read(&message, connection);
                    cursor = Some(shown.cursor.clone());
                    if memory.distinct.insert(shown.id.clone()) {
                        *memory.of_channel.entry(shown.channel.clone()).or_default() += 1;
                    }
                    memory.shown.push(shown);
                }
                _ => {}
            }
        };
        if let Ended::Closed { code, .. } = ended {
            assert!(code < 4100, "it may come back: {ended:?}");
        }
        connection += 1;
    }
}

fn read(event: &Value, connection: usize) -> Shown {
    let text = |key: &str| event[key].as_str().unwrap_or_else(|| panic!("no {key}: {event}")).to_owned();
    Shown {
        channel: text("channel"),
        id: text("id"),
        number: event["data"]["n"].as_u64().unwrap_or_default(),
        cursor: text("cursor"),
        connection,
    }
}
