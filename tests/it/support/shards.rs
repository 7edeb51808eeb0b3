//! A bus that is split into shards: channels on each of them, and what nodes must agree on without one order of all.

use super::bus::{BusKind, Fleet};
use super::sidecar::TestSidecar;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

pub(crate) const SHARDS: usize = 4;
/// The key of the section `[bus]` that makes so many.
pub(crate) const FOUR: &str = "shards = 4";

/// The channels that tests publish on here: they are on all four shards.
pub(crate) const ON_EACH: [&str; 4] = ["shard.0", "shard.1", "shard.4", "shard.5"];
pub(crate) const ALL: &str = "channel=shard.>";

/// The stream of a shard.
pub(crate) fn stream_key(shard: usize) -> String {
    format!("sidewire:{{default/{shard}/{SHARDS}}}:events")
}

pub(crate) async fn fleet(count: usize) -> Fleet {
    Fleet::with_config(BusKind::RedisStream, count, FOUR, "").await
}

pub(crate) fn id(event: &Value) -> &str {
    event["id"].as_str().expect("an id")
}

/// The numbers of each channel, in the order in which events stand.
pub(crate) fn by_channel<'a>(events: impl IntoIterator<Item = &'a Value>) -> HashMap<String, Vec<u64>> {
    let mut found: HashMap<String, Vec<u64>> = HashMap::new();
    for event in events {
        let channel = event["channel"].as_str().expect("a channel").to_owned();
        found.entry(channel).or_default().push(event["data"]["n"].as_u64().expect("a number"));
    }
    found
}

/// Waits until the history of each node has `count` events, and checks that each channel has all its numbers in
/// order everywhere. Gives the history of the first node.
pub(crate) async fn agree_by_channel(nodes: &[TestSidecar], query: &str, count: usize) -> Vec<Value> {
    let mut histories = Vec::new();
    for node in nodes {
        let history = node.wait_for_events(query, count).await;
        let distinct: HashSet<&str> = history.iter().map(id).collect();
        assert_eq!(distinct.len(), count, "each event once");
        for (channel, found) in by_channel(&history) {
            assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "the order of {channel}");
        }
        histories.push(history);
    }
    histories.swap_remove(0)
}

/// Publishes `numbers` on each of the channels, in turn on each node.
pub(crate) async fn publish_on_each(nodes: &[TestSidecar], numbers: std::ops::Range<u64>) {
    for n in numbers {
        for (at, channel) in ON_EACH.iter().enumerate() {
            nodes[(n as usize + at) % nodes.len()].publish_numbers(channel, n..n + 1).await;
        }
    }
}

/// The entries of the stream of a shard, each with its fields: a name, its value, the next name and so on.
pub(crate) async fn entries(fleet: &Fleet, shard: usize) -> Vec<(String, Vec<String>)> {
    fleet.server.redis().command(&["XRANGE", &stream_key(shard), "-", "+"]).await
}
