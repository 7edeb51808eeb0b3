//! A bus that is split into shards, of which one or all lose what they had.

use crate::servers::RedisCluster;
use crate::support::shards::{
    ALL, FOUR, ON_EACH, SHARDS, agree_by_channel, entries, fleet, publish_on_each, stream_key,
};
use crate::support::{Subscription, TestSidecar, Transport, Watcher, eventually, two_nodes_at};
use std::collections::HashSet;

#[tokio::test]
async fn what_one_shard_no_longer_has_is_told_to_who_has_not_got_it() {
    let mut fleet = fleet(2).await;
    publish_on_each(&fleet.nodes, 0..20).await;
    agree_by_channel(&fleet.nodes, ALL, 80).await;
    let before = fleet.nodes[0].cursor_now().await;
    fleet.nodes[1].kill();
    for channel in ON_EACH {
        fleet.nodes[0].publish_numbers(channel, 20..220).await;
    }
    let after = fleet.nodes[0].cursor_now().await;
    let trimmed = eventually("the shard of the first channel", async || {
        for shard in 0..SHARDS {
            let entries = entries(&fleet, shard).await;
            if entries.iter().any(|(_, fields)| fields.iter().any(|field| field == ON_EACH[0])) {
                return Some(shard);
            }
        }
        None
    })
    .await;
    fleet.server.redis().command::<i64>(&["XTRIM", &stream_key(trimmed), "MAXLEN", "=", "5"]).await;
    fleet.nodes[1].start_again().await;
    fleet.nodes[1].ready().await;
    let last = format!("channel={}", ON_EACH[3]);
    fleet.nodes[1].wait_for_events(&last, 220).await;
    assert!(fleet.nodes[1].all_events(&format!("channel={}", ON_EACH[0])).await.len() < 40);

    let address = fleet.nodes[1].whereabouts().client();
    assert_eq!(fleet.nodes[1].resume_of(ALL, &before).await, "expired");
    let mut good = Subscription::open(Transport::WebSocket, &address, ALL, Some(&after)).await;
    fleet.nodes[0].publish_numbers(ON_EACH[1], 220..225).await;
    assert_eq!(good.numbers(5).await, (220..225).collect::<Vec<_>>());
    assert_eq!(good.resume(), "ok", "it has got what is missing here");
    let address = fleet.nodes[0].whereabouts().client();
    let mut there = Subscription::open(Transport::WebSocket, &address, ALL, Some(&before)).await;
    let got = there.numbers(805).await;
    assert_eq!((there.resume(), got.len()), ("ok", 805), "a node that was there has no hole");
    assert!(fleet.nodes[1].metrics().await.sum("sidewire_bus_gaps_total", &[]) >= 1.);
}

/// After the loss of a shard or of all of them: cursors of before are `reset`, and nodes agree on all that comes.
async fn nodes_begin_anew(nodes: &mut [TestSidecar], old: &str, live: &[Watcher]) {
    for node in nodes.iter() {
        node.publish_until("published", "probe").await;
        node.ready().await;
    }
    for node in nodes.iter() {
        eventually("the cursor of the lost log is reset", async || {
            (node.resume_of(ALL, old).await == "reset").then_some(())
        })
        .await;
    }
    publish_on_each(nodes, 25..50).await;
    agree_by_channel(nodes, ALL, 200).await;
    let channels = ON_EACH.map(|channel| (channel.to_owned(), 50));
    for watcher in live {
        watcher.sees_exactly(&channels).await;
    }
    let cursor = nodes[0].cursor_now().await;
    publish_on_each(nodes, 50..55).await;
    for node in nodes.iter() {
        let address = node.whereabouts().client();
        let mut client = Subscription::open(Transport::WebSocket, &address, ALL, Some(&cursor)).await;
        assert_eq!(client.numbers(20).await.len(), 20);
        assert_eq!(client.resume(), "ok");
    }
    for node in nodes {
        node.still_healthy().await;
    }
}

/// Two nodes with some history, a cursor in their log, and a client on each.
async fn history(nodes: &[TestSidecar]) -> (String, Vec<Watcher>) {
    let live = Watcher::start_on_each(nodes, "channel=shard.%3E").await;
    publish_on_each(nodes, 0..25).await;
    let history = agree_by_channel(nodes, ALL, 100).await;
    (history[50]["cursor"].as_str().expect("a cursor").to_owned(), live)
}

#[tokio::test]
async fn redis_is_flushed() {
    let mut fleet = fleet(2).await;
    let (old, live) = history(&fleet.nodes).await;
    fleet.server.redis().command::<()>(&["FLUSHALL"]).await;
    nodes_begin_anew(&mut fleet.nodes, &old, &live).await;
}

#[tokio::test]
async fn the_stream_of_one_shard_is_deleted() {
    let mut fleet = fleet(2).await;
    let (old, live) = history(&fleet.nodes).await;
    fleet.server.redis().command::<()>(&["DEL", &stream_key(2)]).await;
    nodes_begin_anew(&mut fleet.nodes, &old, &live).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_loses_the_master_of_a_shard_and_what_it_had() {
    let mut cluster = RedisCluster::start().await;
    let mut nodes = two_nodes_at(&cluster.url(), "stream", FOUR).await;
    let mut owners = HashSet::new();
    for shard in 0..SHARDS {
        owners.insert(cluster.owner(cluster.slot(&stream_key(shard)).await).await);
    }
    assert_eq!(owners.len(), 3, "the shards are spread over the masters");
    let (old, live) = history(&nodes).await;
    let lost = cluster.owner(cluster.slot(&stream_key(3)).await).await;
    cluster.masters[lost].kill();
    for node in &nodes {
        node.publish_until("queued", "other").await;
    }
    // Without persistence it comes back with nothing but its slots.
    cluster.masters[lost].start_again().await;
    nodes_begin_anew(&mut nodes, &old, &live).await;
}
