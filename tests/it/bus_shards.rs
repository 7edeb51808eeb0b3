//! A bus that is split into shards: order within a channel, a cursor that holds on every node, and what happens when
//! one of the shards is lost.
//!
//! `SIDEWIRE_TEST_HOP_EVENTS` and `SIDEWIRE_TEST_HOP_RATE` make the load that of `bus_resume.rs`.

use crate::bus_resume::{CHANNELS, load};
use crate::servers::RedisCluster;
use crate::support::{
    BusKind, Fleet, Hopper, Publishers, Subscription, TestSidecar, Transport, Watcher, bus_config_at,
    check_ids, eventually, number_from_environment, numbers, random_seed,
};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const SHARDS: usize = 4;
const FOUR: &str = "shards = 4";

/// The channels that tests publish on here: they are on all four shards.
const ON_EACH: [&str; 4] = ["shard.0", "shard.1", "shard.4", "shard.5"];
const ALL: &str = "channel=shard.>";

fn key(shard: usize) -> String {
    format!("sidewire:{{default/{shard}/{SHARDS}}}:events")
}

async fn fleet(count: usize) -> Fleet {
    Fleet::with_config(BusKind::RedisStream, count, FOUR, "").await
}

fn id(event: &Value) -> &str {
    event["id"].as_str().expect("an id")
}

/// The numbers of each channel, in the order in which events stand.
fn by_channel<'a>(events: impl IntoIterator<Item = &'a Value>) -> HashMap<String, Vec<u64>> {
    let mut found: HashMap<String, Vec<u64>> = HashMap::new();
    for event in events {
        let channel = event["channel"].as_str().expect("a channel").to_owned();
        found.entry(channel).or_default().push(event["data"]["n"].as_u64().expect("a number"));
    }
    found
}

/// Waits until the history of each node has `count` events, and checks that each channel has all its numbers in
/// order everywhere.
async fn agree_by_channel(nodes: &[TestSidecar], query: &str, count: usize) -> Vec<Value> {
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
async fn publish_on_each(nodes: &[TestSidecar], numbers: std::ops::Range<u64>) {
    for n in numbers {
        for (at, channel) in ON_EACH.iter().enumerate() {
            nodes[(n as usize + at) % nodes.len()].publish_numbers(channel, n..n + 1).await;
        }
    }
}

async fn clients_hop_between_three_nodes(nodes_are_killed: bool) {
    let seed = random_seed("hop between shards");
    let wanted = number_from_environment("SIDEWIRE_TEST_HOP_EVENTS", 5_000);
    let mut fleet = fleet(3).await;
    let begin = fleet.nodes[0].cursor_now().await;
    let total = Arc::new(AtomicU64::new(0));
    let hoppers: Vec<_> = Transport::ALL
        .into_iter()
        .zip(seed..)
        .map(|(transport, seed)| {
            let nodes = fleet.nodes.iter().map(|node| node.whereabouts()).collect();
            let hopper = Hopper { seed, transport, nodes, channels: CHANNELS, total: Arc::clone(&total) };
            tokio::spawn(hopper.run(begin.clone()))
        })
        .collect();
    let load = load(&fleet, nodes_are_killed);
    if nodes_are_killed {
        for step in 0..4 {
            load[0].go_on_for(wanted / 15).await;
            fleet.nodes[step % 3].kill_and_start_again().await;
        }
    } else {
        load[0].go_on_for(wanted / 3).await;
    }
    let (mut channels, mut again) = (Vec::new(), HashSet::new());
    for running in load {
        let report = running.stop().await;
        channels.extend(report.channels);
        again.extend(report.again);
    }
    let count: u64 = channels.iter().map(|(_, count)| count).sum();
    total.store(count, Ordering::Relaxed);
    agree_by_channel(&fleet.nodes, CHANNELS, count as usize).await;
    for hopper in hoppers {
        let got = hopper.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        check_ids("a client that hops", &got, &channels, &again);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hops_sees_each_event_once_and_each_channel_in_order() {
    clients_hop_between_three_nodes(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_while_nodes_are_killed() {
    clients_hop_between_three_nodes(true).await;
}

#[tokio::test]
async fn events_are_spread_over_the_shards_and_a_channel_stays_on_its_own() {
    let fleet = fleet(2).await;
    publish_on_each(&fleet.nodes, 0..50).await;
    agree_by_channel(&fleet.nodes, ALL, 200).await;
    let mut found: HashMap<String, HashSet<usize>> = HashMap::new();
    for shard in 0..SHARDS {
        let entries: Vec<(String, Vec<String>)> =
            fleet.server.redis().command(&["XRANGE", &key(shard), "-", "+"]).await;
        for (_, fields) in entries {
            let channel = fields.chunks(2).find(|field| field[0] == "channel").map(|field| field[1].clone());
            found.entry(channel.unwrap_or_default()).or_default().insert(shard);
        }
    }
    for channel in ON_EACH {
        assert_eq!(found[channel].len(), 1, "{channel}: {found:?}");
    }
    let used: HashSet<_> = ON_EACH.iter().flat_map(|channel| &found[*channel]).collect();
    assert_eq!(used.len(), SHARDS, "{found:?}");
    let one: i64 = fleet.server.redis().command(&["EXISTS", "sidewire:{default}:events"]).await;
    assert_eq!(one, 0, "the stream of a fleet with one shard is not touched");
}

#[tokio::test]
async fn a_cursor_means_the_same_on_every_node() {
    let fleet = fleet(3).await;
    publish_on_each(&fleet.nodes, 0..15).await;
    for node in &fleet.nodes {
        // Each node has its own order between the shards; the cursor of any event is good on all.
        let history = node.wait_for_events(ALL, 60).await;
        for (at, event) in history.iter().enumerate().step_by(7) {
            let cursor = event["cursor"].as_str().expect("a cursor");
            assert!(cursor.len() <= 200, "{cursor}");
            let had: HashSet<&str> = history[..=at].iter().map(id).collect();
            for other in &fleet.nodes {
                let address = other.whereabouts().client();
                for transport in Transport::ALL {
                    let mut client = Subscription::open(transport, &address, ALL, Some(cursor)).await;
                    let mut rest = Vec::new();
                    while rest.len() < 59 - at {
                        rest.push(client.next().await.event);
                    }
                    assert!(at == 59 || client.resume() == "ok", "{transport:?}: {}", client.resume());
                    let got: HashSet<&str> = rest.iter().map(id).collect();
                    assert_eq!(got.len(), rest.len(), "{transport:?}: nothing twice");
                    assert!(got.is_disjoint(&had), "{transport:?}: nothing again");
                }
                // A page of history is of what comes after, or before.
                let after = other.all_events(&format!("{ALL}&after={cursor}")).await;
                let after: HashSet<&str> = after.iter().map(id).collect();
                assert!(after.len() == 59 - at && after.is_disjoint(&had), "{} after {at}", after.len());
                let before = other.events(&format!("{ALL}&before={cursor}&order=desc&limit=1000")).await;
                let before = before["events"].as_array().expect("events").clone();
                let found: HashSet<&str> = before.iter().map(id).collect();
                // Another node cannot tell which of the newest events of the shards is the cursor's own.
                let expected = if std::ptr::eq(node, other) { at..=at } else { at..=at + 1 };
                assert!(
                    expected.contains(&found.len()) && found.is_subset(&had),
                    "{} before {at}",
                    found.len()
                );
            }
        }
    }
}

#[tokio::test]
async fn an_outage_with_publishes_on_two_nodes_loses_and_doubles_nothing() {
    let mut fleet = Fleet::with_config(BusKind::RedisStream, 2, "shards = 4\nhedge = \"50ms\"", "").await;
    let mut watchers = Vec::new();
    for (at, node) in fleet.nodes.iter().enumerate() {
        let who = format!("the client of node {at}");
        watchers.push(Watcher::start(&who, node.whereabouts(), "channel=out.%3E").await);
    }
    let load: Vec<_> = (0..)
        .zip(&fleet.nodes)
        .map(|(at, node)| {
            let name = format!("out.{at}");
            Publishers { name, count: 8, per_second: 200, node_is_killed: false }.start(node.whereabouts())
        })
        .collect();
    load[0].go_on_for(50).await;
    fleet.proxy.cut().await;
    for (running, watcher) in load.iter().zip(&watchers) {
        running.go_on_for(300).await;
        let published = running.acknowledged();
        eventually("clients of the same node see what it takes", async || {
            (watcher.count() as u64 >= published).then_some(())
        })
        .await;
    }
    // Confirmations are lost while events are on their way.
    fleet.proxy.restore().await;
    load[1].go_on_for(100).await;
    fleet.proxy.reset();
    load[0].go_on_for(200).await;
    let mut channels = Vec::new();
    for running in load {
        channels.extend(running.stop().await.channels);
    }
    let total: u64 = channels.iter().map(|(_, count)| count).sum();
    for watcher in &watchers {
        watcher.sees(total as usize).await;
        watcher.check(&channels);
    }
    agree_by_channel(&fleet.nodes, "channel=out.%3E", total as usize).await;
    for node in &mut fleet.nodes {
        node.still_healthy().await;
    }
}

#[tokio::test]
async fn a_node_that_was_off_reads_on_each_shard_where_it_stood() {
    let mut fleet = fleet(2).await;
    publish_on_each(&fleet.nodes, 0..25).await;
    agree_by_channel(&fleet.nodes, ALL, 100).await;
    let cursor = fleet.nodes[1].cursor_now().await;
    for (round, clean) in (0..).zip([true, false, false]) {
        if clean {
            assert!(fleet.nodes[1].terminate().await.success());
        } else {
            fleet.nodes[1].kill();
        }
        let begin = 25 + round * 200;
        for channel in ON_EACH {
            fleet.nodes[0].publish_numbers(channel, begin..begin + 200).await;
        }
        fleet.nodes[1].start_again().await;
        agree_by_channel(&fleet.nodes, ALL, 4 * (begin as usize + 200)).await;
    }
    let address = fleet.nodes[1].whereabouts().client();
    let mut client = Subscription::open(Transport::Sse, &address, ALL, Some(&cursor)).await;
    let mut got = Vec::new();
    for _ in 0..2_400 {
        got.push(client.next().await.event);
    }
    for (channel, found) in by_channel(&got) {
        assert_eq!(found, (25..625).collect::<Vec<_>>(), "{channel}");
    }
    fleet.nodes[1].ready().await;
    let metrics = fleet.nodes[1].metrics().await;
    assert_eq!(metrics.sum("sidewire_bus_gaps_total", &[]), 0., "there is no hole");
}

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
            let entries: Vec<(String, Vec<String>)> =
                fleet.server.redis().command(&["XRANGE", &key(shard), "-", "+"]).await;
            if entries.iter().any(|(_, fields)| fields.iter().any(|field| field == ON_EACH[0])) {
                return Some(shard);
            }
        }
        None
    })
    .await;
    fleet.server.redis().command::<i64>(&["XTRIM", &key(trimmed), "MAXLEN", "=", "5"]).await;
    fleet.nodes[1].start_again().await;
    fleet.nodes[1].ready().await;
    let last = format!("channel={}", ON_EACH[3]);
    fleet.nodes[1].wait_for_events(&last, 220).await;
    assert!(fleet.nodes[1].all_events(&format!("channel={}", ON_EACH[0])).await.len() < 40);

    let address = fleet.nodes[1].whereabouts().client();
    let late = Subscription::open(Transport::WebSocket, &address, ALL, Some(&before)).await;
    assert_eq!(late.resume(), "expired");
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
            let address = node.whereabouts().client();
            let opened = Subscription::open(Transport::WebSocket, &address, ALL, Some(old)).await;
            (opened.resume() == "reset").then_some(())
        })
        .await;
    }
    publish_on_each(nodes, 25..50).await;
    agree_by_channel(nodes, ALL, 200).await;
    let channels = ON_EACH.map(|channel| (channel.to_owned(), 50));
    for watcher in live {
        watcher.sees(200).await;
        watcher.check(&channels);
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
    let mut live = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        live.push(
            Watcher::start(&format!("the client of node {at}"), node.whereabouts(), "channel=shard.%3E")
                .await,
        );
    }
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
    fleet.server.redis().command::<()>(&["DEL", &key(2)]).await;
    nodes_begin_anew(&mut fleet.nodes, &old, &live).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_loses_the_master_of_a_shard_and_what_it_had() {
    let mut cluster = RedisCluster::start().await;
    let config = bus_config_at(&cluster.url(), "stream", FOUR, "");
    let mut nodes = Vec::new();
    for _ in 0..2 {
        nodes.push(TestSidecar::with_config(&config).await);
    }
    for node in &nodes {
        node.ready().await;
    }
    let mut owners = HashSet::new();
    for shard in 0..SHARDS {
        owners.insert(cluster.owner(cluster.slot(&key(shard)).await).await);
    }
    assert_eq!(owners.len(), 3, "the shards are spread over the masters");
    let (old, live) = history(&nodes).await;
    let lost = cluster.owner(cluster.slot(&key(3)).await).await;
    cluster.masters[lost].kill();
    for node in &nodes {
        node.publish_until("queued", "other").await;
    }
    // Without persistence it comes back with nothing but its slots.
    cluster.masters[lost].start_again().await;
    nodes_begin_anew(&mut nodes, &old, &live).await;
}

#[tokio::test]
async fn another_number_of_shards_is_another_bus() {
    let mut fleet = fleet(1).await;
    publish_on_each(&fleet.nodes, 0..10).await;
    agree_by_channel(&fleet.nodes, ALL, 40).await;
    let old = fleet.nodes[0].cursor_now().await;
    let four = std::fs::read_to_string(fleet.nodes[0].config_file()).expect("its configuration");
    for (config, count, told) in [(four.replace(FOUR, "shards = 1"), 11, "reset"), (four, 12, "ok")] {
        assert!(fleet.nodes[0].terminate().await.success());
        fleet.nodes[0].rewrite_config(&config);
        fleet.nodes[0].start_again().await;
        fleet.nodes[0].ready().await;
        fleet.nodes[0].wait_for_log(&["bus.shards has changed"]).await;
        let address = fleet.nodes[0].whereabouts().client();
        let opened = Subscription::open(Transport::WebSocket, &address, ALL, Some(&old)).await;
        assert_eq!(opened.resume(), told, "of a bus that it is on again");
        fleet.nodes[0].publish_numbers(ON_EACH[0], count - 1..count).await;
        // What it had it keeps, and what it reads again on a bus that it was on before it does not take twice.
        let kept = fleet.nodes[0].wait_for_events(&format!("channel={}", ON_EACH[0]), count as usize).await;
        assert_eq!(numbers(&kept), (0..count).collect::<Vec<_>>());
    }
}
