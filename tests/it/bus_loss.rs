//! The bus loses what it has, or another server takes over: a new epoch, truthful answers, and service again.

use crate::servers::{NatsCluster, RedisCluster, RedisServer, Sentinels};
use crate::support::{
    BusKind, Fleet, Publishers, Subscription, TestSidecar, Transport, Watcher, bus_config_at, eventually,
};
use std::time::Duration;
use tokio::time::Instant;

/// How soon publishes are confirmed again after a failover or a move.
const BACK_WITHIN: Duration = Duration::from_secs(10);

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
            let address = node.whereabouts().client();
            let opened =
                Subscription::open(Transport::WebSocket, &address, "channel=lost", Some(old_cursor)).await;
            (opened.resume() == "reset").then_some(())
        })
        .await;
    }
    for n in 100..200 {
        fleet.nodes[n as usize % 2].publish_numbers("lost", n..n + 1).await;
    }
    let mut histories = Vec::new();
    for node in &fleet.nodes {
        let events = eventually("all that came after the loss", async || {
            let events = node.all_events("channel=lost").await;
            (crate::support::numbers(&events).iter().filter(|n| **n >= 100).count() >= 100).then_some(events)
        })
        .await;
        histories.push(crate::support::numbers(&events));
    }
    assert_eq!(histories[0], (0..200).collect::<Vec<_>>(), "{kind:?}: history stays, nothing is doubled");
    assert_eq!(histories[0], histories[1], "{kind:?}: nodes agree");
    for watcher in live {
        watcher.sees(200).await;
        watcher.check(&[("lost".to_owned(), 200)]);
    }
    // A cursor of the new log is good on both.
    let cursor = fleet.nodes[0].cursor_now().await;
    fleet.nodes[1].publish_numbers("lost", 200..205).await;
    for node in &fleet.nodes {
        let address = node.whereabouts().client();
        let mut client =
            Subscription::open(Transport::WebSocket, &address, "channel=lost", Some(&cursor)).await;
        assert_eq!(client.numbers(5).await, [200, 201, 202, 203, 204], "{kind:?}");
        assert_eq!(client.resume(), "ok", "{kind:?}");
    }
    for node in &mut fleet.nodes {
        node.still_healthy().await;
    }
}

/// A fleet of two with some history, a cursor in its log, and a client on each node.
async fn with_history(mut fleet: Fleet) -> (Fleet, String, Vec<Watcher>) {
    let mut live = Vec::new();
    for (at, node) in fleet.nodes.iter().enumerate() {
        live.push(
            Watcher::start(&format!("the client of node {at}"), node.whereabouts(), "channel=lost").await,
        );
    }
    fleet.nodes[0].publish_numbers("lost", 0..100).await;
    let history = fleet.agree_on("channel=lost", 100).await;
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

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
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
        let event = serde_json::json!({"channel": "lost", "data": {"n": n}});
        assert_eq!(fleet.nodes[0].publish(&event).await["status"], "queued");
    }
    fleet.server.redis().command::<()>(&["FLUSHALL"]).await;
    fleet.proxy.restore().await;
    fleet.agree_on("channel=lost", 150).await;
    for watcher in &live {
        watcher.sees(150).await;
        watcher.check(&[("lost".to_owned(), 150)]);
    }
    for node in &fleet.nodes {
        let address = node.whereabouts().client();
        let opened = Subscription::open(Transport::WebSocket, &address, "channel=lost", Some(&cursor)).await;
        assert_eq!(opened.resume(), "reset");
    }
}

/// F24: a purge of all that nodes have read makes no new log.
#[tokio::test]
async fn jetstream_is_purged_under_nodes_that_have_read_everything() {
    let (fleet, cursor, live) = with_history(Fleet::start(BusKind::JetStream, 2).await).await;
    let stream = fleet.server.nats().jetstream().await.get_stream("SIDEWIRE_default").await;
    stream.expect("it is there").purge().await.expect("it can be purged");
    fleet.nodes[1].publish_numbers("lost", 100..200).await;
    fleet.agree_on("channel=lost", 200).await;
    for watcher in &live {
        watcher.sees(200).await;
        watcher.check(&[("lost".to_owned(), 200)]);
    }
    for node in &fleet.nodes {
        let address = node.whereabouts().client();
        let mut client =
            Subscription::open(Transport::WebSocket, &address, "channel=lost", Some(&cursor)).await;
        assert_eq!(client.numbers(149).await, (51..200).collect::<Vec<_>>());
        assert_eq!(client.resume(), "ok");
    }
}

/// Publishes all the time while `change` happens, and measures how long publishes were only queued.
async fn back_in_service(
    nodes: &[TestSidecar],
    what: &str,
    change: impl AsyncFnOnce(),
) -> Vec<(String, u64)> {
    let load: Vec<_> = nodes
        .iter()
        .enumerate()
        .map(|(at, node)| {
            let name = format!("load.{at}");
            let publishers = Publishers { name, count: 4, per_second: 100, node_is_killed: false };
            publishers.start(node.whereabouts())
        })
        .collect();
    for running in &load {
        running.go_on_for(20).await;
    }
    let begin = Instant::now();
    change().await;
    for node in nodes {
        node.publish_until("published", "back").await;
    }
    let took = begin.elapsed();
    let mut channels = Vec::new();
    let mut queued = 0;
    for running in load {
        let report = running.stop().await;
        queued += report.queued;
        channels.extend(report.channels);
    }
    eprintln!("{what}: confirmed again after {took:?}, {queued} queued meanwhile");
    assert!(took < BACK_WITHIN, "{what}: it took {took:?}");
    channels
}

async fn nodes_at(url: &str, mode: &str) -> Vec<TestSidecar> {
    let config = bus_config_at(url, mode, "", "");
    let mut nodes = Vec::new();
    for _ in 0..2 {
        nodes.push(TestSidecar::with_config(&config).await);
    }
    for node in &nodes {
        node.ready().await;
        node.publish_until("published", "ready").await;
    }
    nodes
}

/// Every event on every node, in one order, whatever came between.
async fn nothing_is_missing(nodes: &[TestSidecar], channels: &[(String, u64)]) {
    let total: u64 = channels.iter().map(|(_, count)| count).sum();
    let mut orders = Vec::new();
    for node in nodes {
        let events = node.wait_for_events("channel=load.%3E", total as usize).await;
        for (channel, count) in channels {
            let of_channel: Vec<_> =
                events.iter().filter(|event| event["channel"] == **channel).cloned().collect();
            assert_eq!(crate::support::numbers(&of_channel), (0..*count).collect::<Vec<_>>(), "{channel}");
        }
        orders.push(events.iter().map(|event| event["id"].to_string()).collect::<Vec<_>>());
    }
    assert!(orders.windows(2).all(|pair| pair[0] == pair[1]), "nodes disagree about the order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_hand_over_to_a_replica_that_has_everything() {
    let sentinels = Sentinels::start().await;
    let nodes = nodes_at(&sentinels.url(), "stream").await;
    let channels = back_in_service(&nodes, "Sentinel failover", async || {
        sentinels.sentinels[0].command::<()>(&["SENTINEL", "FAILOVER", "mymaster"]).await;
        sentinels.wait_for_master(1).await;
    })
    .await;
    nothing_is_missing(&nodes, &channels).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_choose_another_master_when_it_is_killed() {
    let mut sentinels = Sentinels::start().await;
    let nodes = nodes_at(&sentinels.url(), "stream").await;
    let begin = Instant::now();
    sentinels.servers[0].kill();
    sentinels.wait_for_master(1).await;
    for node in &nodes {
        node.publish_until("published", "back").await;
    }
    eprintln!("master killed: confirmed again after {:?}", begin.elapsed());
    assert!(begin.elapsed() < BACK_WITHIN, "{:?}", begin.elapsed());
    nodes[0].publish_numbers("after", 0..20).await;
    for node in &nodes {
        node.wait_for_events("channel=after", 20).await;
    }
}

/// What a failover to a replica that lacks the tail does: the log on the bus ends earlier than nodes have read.
#[tokio::test]
async fn redis_comes_back_without_the_tail_and_nodes_agree_again() {
    for others_are_quicker in [false, true] {
        let mut redis = RedisServer::start().await;
        let nodes = nodes_at(&redis.url(), "stream").await;
        nodes[0].publish_numbers("tail", 0..50).await;
        for node in &nodes {
            node.wait_for_events("channel=tail", 50).await;
        }
        redis.command::<()>(&["SAVE"]).await;
        let kept = nodes[0].cursor_now().await;
        nodes[0].publish_numbers("tail", 50..80).await;
        for node in &nodes {
            node.wait_for_events("channel=tail", 80).await;
        }
        let lost = nodes[0].cursor_now().await;
        redis.kill();
        if others_are_quicker {
            // Entries with later ids are there before a node looks: the end of the log says nothing.
            for node in &nodes {
                node.publish_until("queued", "other").await;
            }
        }
        redis.start_again().await;
        for node in &nodes {
            node.publish_until("published", "back").await;
        }
        for n in 80..120 {
            nodes[n as usize % 2].publish_numbers("tail", n..n + 1).await;
        }
        for node in &nodes {
            let numbers = crate::support::numbers(&node.wait_for_events("channel=tail", 120).await);
            assert_eq!(numbers, (0..120).collect::<Vec<_>>(), "what nodes have read they keep, once");
            let address = node.whereabouts().client();
            for cursor in [&kept, &lost] {
                let opened =
                    Subscription::open(Transport::WebSocket, &address, "channel=tail", Some(cursor)).await;
                assert_eq!(opened.resume(), "reset", "those places are on a log that is gone");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_choose_a_replica_that_lacks_the_tail_and_nodes_agree_again() {
    let mut sentinels = Sentinels::start().await;
    let nodes = nodes_at(&sentinels.url(), "stream").await;
    nodes[0].publish_numbers("tail", 0..50).await;
    for node in &nodes {
        node.wait_for_events("channel=tail", 50).await;
    }
    let kept = nodes[0].cursor_now().await;
    sentinels.keep_replica_behind().await;
    nodes[0].publish_numbers("tail", 50..80).await;
    for node in &nodes {
        node.wait_for_events("channel=tail", 80).await;
    }
    let lost = nodes[1].cursor_now().await;
    let begin = Instant::now();
    sentinels.servers[0].kill();
    sentinels.wait_for_master(1).await;
    for node in &nodes {
        node.publish_until("published", "back").await;
    }
    eprintln!("master killed, the tail lost: confirmed again after {:?}", begin.elapsed());
    assert!(begin.elapsed() < BACK_WITHIN, "{:?}", begin.elapsed());
    for n in 80..120 {
        nodes[n as usize % 2].publish_numbers("tail", n..n + 1).await;
    }
    for node in &nodes {
        let numbers = crate::support::numbers(&node.wait_for_events("channel=tail", 120).await);
        assert_eq!(numbers, (0..120).collect::<Vec<_>>(), "what nodes have read they keep, once");
        let address = node.whereabouts().client();
        for cursor in [&kept, &lost] {
            let opened =
                Subscription::open(Transport::WebSocket, &address, "channel=tail", Some(cursor)).await;
            assert_eq!(opened.resume(), "reset", "those places are on a log that is gone");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_moves_the_slot_of_the_stream() {
    let cluster = RedisCluster::start().await;
    let nodes = nodes_at(&cluster.url(), "stream").await;
    let cursor = nodes[0].cursor_now().await;
    let slot = cluster.slot("sidewire:{default}:events").await;
    let to = (cluster.owner(slot).await + 1) % 3;
    let channels = back_in_service(&nodes, "slot move", async || cluster.move_slot(slot, to).await).await;
    nothing_is_missing(&nodes, &channels).await;
    for node in &nodes {
        let address = node.whereabouts().client();
        let opened =
            Subscription::open(Transport::WebSocket, &address, "channel=load.>", Some(&cursor)).await;
        assert_eq!(opened.resume(), "ok", "the log is the same on its new server");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nats_cluster_loses_the_leader_of_the_stream() {
    let mut cluster = NatsCluster::start().await;
    let config = bus_config_at(&cluster.url(), "jetstream", "replicas = 3", "");
    let mut nodes = Vec::new();
    for _ in 0..2 {
        nodes.push(TestSidecar::with_config(&config).await);
    }
    for node in &nodes {
        node.publish_until("published", "ready").await;
    }
    let leader = cluster.leader("SIDEWIRE_default").await;
    let lost = &mut cluster.servers[leader];
    let channels = back_in_service(&nodes, "NATS leader killed", async || lost.kill()).await;
    nothing_is_missing(&nodes, &channels).await;
}

#[tokio::test]
async fn redis_without_memory_is_named_and_publishes_wait_until_there_is_some() {
    let fleet = Fleet::start(BusKind::RedisStream, 2).await;
    fleet.nodes[0].publish_numbers("full", 0..5).await;
    let accepted = fleet.proxy.accepted();
    let redis: &RedisServer = fleet.server.redis();
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for n in 5..30 {
        let event = serde_json::json!({"channel": "full", "data": {"n": n}});
        let answer = fleet.nodes[0].publish(&event).await;
        assert_eq!(answer["status"], "queued", "{answer}");
    }
    for node in &fleet.nodes {
        eventually("readiness says why", async || {
            let answer = node.admin().get("/readyz").await;
            let reason = answer.json()["checks"]["bus"].as_str().unwrap_or_default().to_owned();
            (answer.status() == 503 && reason.contains("maxmemory")).then_some(())
        })
        .await;
        // For longer than it takes to give up a link on which nothing comes back.
        node.wait_for_log(&["takes no events now"]).await;
    }
    let begin = Instant::now();
    eventually("some seconds", async || (begin.elapsed() > Duration::from_secs(3)).then_some(())).await;
    assert_eq!(fleet.proxy.accepted(), accepted, "the link stands: another would be refused as well");
    for node in &fleet.nodes {
        let told = node.log().lines().filter(|line| line.contains("WARN")).count();
        assert_eq!(told, 1, "one line for one change:\n{}", node.log());
    }
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    fleet.ready().await;
    let kept = fleet.agree_on("channel=full", 30).await;
    assert_eq!(crate::support::numbers(&kept), (0..30).collect::<Vec<_>>());
    for node in &fleet.nodes {
        node.wait_for_log(&["takes events again"]).await;
        node.publish_until("published", "after").await;
    }
}
