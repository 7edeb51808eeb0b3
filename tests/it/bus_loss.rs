//! The bus loses what it has: a new epoch, truthful answers to old cursors, and nodes that agree again.

use crate::support::{BusKind, Fleet, Subscription, Transport, Watcher, eventually, numbers};
use serde_json::json;
use std::path::{Path, PathBuf};

const LOST: &str = "channel=lost";

fn lost(count: u64) -> [(String, u64); 1] {
    [("lost".to_owned(), count)]
}

/// After the bus has lost what it had: cursors of before are `reset`, nodes agree on all that comes, and nothing is
/// shown twice.
async fn nodes_begin_anew(fleet: &mut Fleet, old_cursor: &str, live: &[Watcher]) {
    let kind = fleet.kind;
    for node in &fleet.nodes {
        node.publish_until("published", "probe").await;
    }
    fleet.ready().await;
    for node in &fleet.nodes {
        eventually("the cursor of the lost log is reset", async || {
            (node.resume_of(LOST, old_cursor).await == "reset").then_some(())
        })
        .await;
    }
    for n in 100..200 {
        fleet.nodes[n as usize % 2].publish_numbers("lost", n..n + 1).await;
    }
    let mut histories = Vec::new();
    for node in &fleet.nodes {
        let history = eventually("all that came after the loss", async || {
            let found = numbers(&node.all_events(LOST).await);
            (found.iter().filter(|n| **n >= 100).count() >= 100).then_some(found)
        })
        .await;
        histories.push(history);
    }
    assert_eq!(histories[0], (0..200).collect::<Vec<_>>(), "{kind:?}: history stays, nothing is doubled");
    assert_eq!(histories[0], histories[1], "{kind:?}: nodes agree");
    for watcher in live {
        watcher.sees_exactly(&lost(200)).await;
    }
    // A cursor of the new log is good on both.
    let cursor = fleet.nodes[0].cursor_now().await;
    fleet.nodes[1].publish_numbers("lost", 200..205).await;
    for node in &fleet.nodes {
        let address = node.whereabouts().client();
        let mut client = Subscription::open(Transport::WebSocket, &address, LOST, Some(&cursor)).await;
        assert_eq!(client.numbers(5).await, [200, 201, 202, 203, 204], "{kind:?}");
        assert_eq!(client.resume(), "ok", "{kind:?}");
    }
    for node in &mut fleet.nodes {
        node.still_healthy().await;
    }
}

/// A fleet of two with some history, a cursor in its log, and a client on each node.
async fn with_history(mut fleet: Fleet) -> (Fleet, String, Vec<Watcher>) {
    let live = Watcher::start_on_each(&fleet.nodes, LOST).await;
    fleet.nodes[0].publish_numbers("lost", 0..100).await;
    let history = fleet.agree_on(LOST, 100).await;
    let cursor = history[50]["cursor"].as_str().expect("a cursor").to_owned();
    for node in &mut fleet.nodes {
        node.still_healthy().await;
    }
    (fleet, cursor, live)
}

#[tokio::test]
async fn redis_is_flushed() {
    let (mut fleet, cursor, live) = with_history(Fleet::start(BusKind::RedisStream, 2).await).await;
    fleet.server.redis().command::<()>(&["FLUSHALL"]).await;
    nodes_begin_anew(&mut fleet, &cursor, &live).await;
}

#[tokio::test]
async fn the_stream_alone_is_deleted_from_redis() {
    let (mut fleet, cursor, live) = with_history(Fleet::start(BusKind::RedisStream, 2).await).await;
    fleet.server.redis().command::<()>(&["DEL", "sidewire:{default}:events"]).await;
    nodes_begin_anew(&mut fleet, &cursor, &live).await;
}

#[tokio::test]
async fn redis_starts_again_without_what_it_had() {
    let (mut fleet, cursor, live) = with_history(Fleet::start(BusKind::RedisStream, 2).await).await;
    fleet.server.redis().command::<()>(&["CONFIG", "SET", "appendonly", "no"]).await;
    fleet.server.kill();
    for found in walk(fleet.server.redis().directory()) {
        if found.file_name().is_some_and(|name| name.to_string_lossy().contains("aof")) {
            // A directory of such files is emptied file by file.
            let _ = std::fs::remove_file(found);
        }
    }
    fleet.server.start_again().await;
    nodes_begin_anew(&mut fleet, &cursor, &live).await;
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the directory of the server");
    entries
        .flatten()
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() { walk(&path) } else { vec![path] }
        })
        .collect()
}

#[tokio::test]
async fn the_stream_is_deleted_from_jetstream() {
    let (mut fleet, cursor, live) = with_history(Fleet::start(BusKind::JetStream, 2).await).await;
    let jetstream = fleet.server.nats().jetstream().await;
    jetstream.delete_stream("SIDEWIRE_default").await.expect("it can be deleted");
    nodes_begin_anew(&mut fleet, &cursor, &live).await;
}

#[tokio::test]
async fn what_is_queued_when_the_bus_loses_everything_is_on_the_new_log_once() {
    let (mut fleet, cursor, live) = with_history(Fleet::start(BusKind::RedisStream, 2).await).await;
    fleet.proxy.cut().await;
    fleet.notices_that_the_bus_is_away().await;
    for n in 100..150 {
        let event = json!({"channel": "lost", "data": {"n": n}});
        assert_eq!(fleet.nodes[0].publish(&event).await["status"], "queued");
    }
    fleet.server.redis().command::<()>(&["FLUSHALL"]).await;
    fleet.proxy.restore().await;
    fleet.agree_on(LOST, 150).await;
    for watcher in &live {
        watcher.sees_exactly(&lost(150)).await;
    }
    for node in &fleet.nodes {
        assert_eq!(node.resume_of(LOST, &cursor).await, "reset");
    }
}

/// F24: a purge of all that nodes have read makes no new log.
#[tokio::test]
async fn jetstream_is_purged_under_nodes_that_have_read_everything() {
    let (fleet, cursor, live) = with_history(Fleet::start(BusKind::JetStream, 2).await).await;
    let stream = fleet.server.nats().jetstream().await.get_stream("SIDEWIRE_default").await;
    stream.expect("it is there").purge().await.expect("it can be purged");
    fleet.nodes[1].publish_numbers("lost", 100..200).await;
    fleet.agree_on(LOST, 200).await;
    for watcher in &live {
        watcher.sees_exactly(&lost(200)).await;
    }
    for node in &fleet.nodes {
        let address = node.whereabouts().client();
        let mut client = Subscription::open(Transport::WebSocket, &address, LOST, Some(&cursor)).await;
        assert_eq!(client.numbers(149).await, (51..200).collect::<Vec<_>>());
        assert_eq!(client.resume(), "ok");
    }
}
