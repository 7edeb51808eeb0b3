//! Another server of the bus takes over, with the end of the stream or without it: service again, and nodes that agree.

use crate::servers::{NatsCluster, RedisCluster, RedisServer, Sentinels};
use crate::support::{PublishReport, Publishers, RunningPublishers, TestSidecar, numbers, two_nodes_at};
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// How soon publishes are confirmed again after a failover or a move.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// Publishes all the time while `change` happens, which gives the moment from which its time counts.
async fn back_in_service(
    nodes: &[TestSidecar],
    what: &str,
    change: impl AsyncFnOnce() -> Instant,
) -> PublishReport {
    let load = Publishers { name: "load".to_owned(), count: 4, per_second: 100, node_is_killed: false }
        .start_on_each(nodes);
    for running in &load {
        running.go_on_for(20).await;
    }
    confirmed_again(nodes, what, change).await;
    let report = RunningPublishers::stop_all(load).await;
    eprintln!("{what}: {} queued meanwhile", report.queued);
    report
}

/// Waits until publishes to each node are confirmed after a change, which must not take long.
async fn confirmed_again(nodes: &[TestSidecar], what: &str, change: impl AsyncFnOnce() -> Instant) {
    let begin = change().await;
    for node in nodes {
        node.publish_until("published", "back").await;
    }
    let took = begin.elapsed();
    eprintln!("{what}: confirmed again after {took:?}");
    assert!(took < BACK_WITHIN, "{what}: it took {took:?}");
}

/// Kills the master, and waits until its replica is one. The time counts from the kill.
async fn kill_master(sentinels: &mut Sentinels) -> Instant {
    let begin = Instant::now();
    sentinels.servers[0].kill();
    sentinels.wait_for_master(1).await;
    begin
}

/// Every event on every node, in one order, whatever came between.
async fn nothing_is_missing(nodes: &[TestSidecar], published: &PublishReport) {
    let mut orders = Vec::new();
    for node in nodes {
        let events = node.wait_for_events("channel=load.%3E", published.total() as usize).await;
        for (channel, count) in &published.channels {
            let of_channel: Vec<_> =
                events.iter().filter(|event| event["channel"] == **channel).cloned().collect();
            assert_eq!(numbers(&of_channel), (0..*count).collect::<Vec<_>>(), "{channel}");
        }
        orders.push(events.iter().map(|event| event["id"].to_string()).collect::<Vec<_>>());
    }
    assert!(orders.windows(2).all(|pair| pair[0] == pair[1]), "nodes disagree about the order");
}

const TAIL: &str = "channel=tail";

/// Publishes on one node, waits until each has it, and gives the cursor behind it.
async fn publish_tail(nodes: &[TestSidecar], more: Range<u64>) -> String {
    let count = more.end as usize;
    nodes[0].publish_numbers("tail", more).await;
    for node in nodes {
        node.wait_for_events(TAIL, count).await;
    }
    nodes[0].cursor_now().await
}

/// After the loss of the newest of the 80 events that nodes have read, they agree on these and on what comes, and
/// the places that they gave are on a log that is gone.
async fn nodes_agree_again(nodes: &[TestSidecar], gone: [&str; 2]) {
    for n in 80..120 {
        nodes[n as usize % 2].publish_numbers("tail", n..n + 1).await;
    }
    for node in nodes {
        let kept = numbers(&node.wait_for_events(TAIL, 120).await);
        assert_eq!(kept, (0..120).collect::<Vec<_>>(), "what nodes have read they keep, once");
        for cursor in gone {
            assert_eq!(node.resume_of(TAIL, cursor).await, "reset");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_hand_over_to_a_replica_that_has_everything() {
    let sentinels = Sentinels::start().await;
    let nodes = two_nodes_at(&sentinels.url(), "stream", "").await;
    let published = back_in_service(&nodes, "Sentinel failover", async || {
        let begin = Instant::now();
        sentinels.sentinels[0].command::<()>(&["SENTINEL", "FAILOVER", "mymaster"]).await;
        sentinels.wait_for_master(1).await;
        begin
    })
    .await;
    nothing_is_missing(&nodes, &published).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_choose_another_master_when_it_is_killed() {
    let mut sentinels = Sentinels::start().await;
    let nodes = two_nodes_at(&sentinels.url(), "stream", "").await;
    confirmed_again(&nodes, "master killed", async || kill_master(&mut sentinels).await).await;
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
        let nodes = two_nodes_at(&redis.url(), "stream", "").await;
        let kept = publish_tail(&nodes, 0..50).await;
        redis.command::<()>(&["SAVE"]).await;
        let lost = publish_tail(&nodes, 50..80).await;
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
        nodes_agree_again(&nodes, [&kept, &lost]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_choose_a_replica_that_lacks_the_tail_and_nodes_agree_again() {
    let mut sentinels = Sentinels::start().await;
    let nodes = two_nodes_at(&sentinels.url(), "stream", "").await;
    let kept = publish_tail(&nodes, 0..50).await;
    sentinels.keep_replica_behind().await;
    let lost = publish_tail(&nodes, 50..80).await;
    confirmed_again(&nodes, "master killed, the tail lost", async || kill_master(&mut sentinels).await).await;
    nodes_agree_again(&nodes, [&kept, &lost]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_moves_the_slot_of_the_stream() {
    let cluster = RedisCluster::start().await;
    let nodes = two_nodes_at(&cluster.url(), "stream", "").await;
    let cursor = nodes[0].cursor_now().await;
    let slot = cluster.slot("sidewire:{default}:events").await;
    let to = (cluster.owner(slot).await + 1) % 3;
    let published = back_in_service(&nodes, "slot move", async || {
        let begin = Instant::now();
        cluster.move_slot(slot, to).await;
        begin
    })
    .await;
    nothing_is_missing(&nodes, &published).await;
    for node in &nodes {
        let told = node.resume_of("channel=load.>", &cursor).await;
        assert_eq!(told, "ok", "the log is the same on its new server");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nats_cluster_loses_the_leader_of_the_stream() {
    let mut cluster = NatsCluster::start().await;
    let nodes = two_nodes_at(&cluster.url(), "jetstream", "replicas = 3").await;
    let published = back_in_service(&nodes, "NATS leader killed", async || {
        let begin = Instant::now();
        cluster.kill_leader("SIDEWIRE_default").await;
        eprintln!("NATS leader killed: NATS has another one after {:?}", begin.elapsed());
        // Servers wait for 4 to 9 s before they choose, by themselves; a node is held against what comes then.
        Instant::now()
    })
    .await;
    nothing_is_missing(&nodes, &published).await;
}
