//! A bus that is split into shards: order within a channel, and a cursor that holds on every node.
//!
//! `SIDEWIRE_TEST_HOP_EVENTS` and `SIDEWIRE_TEST_HOP_RATE` make the load that of `bus_resume.rs`.

use crate::bus_resume::{HOP, publish_while_clients_hop};
use crate::support::shards::{
    ALL, FOUR, ON_EACH, SHARDS, agree_by_channel, by_channel, entries, fleet, id, publish_on_each,
};
use crate::support::{
    BusKind, DEFAULT_HEDGE, Fleet, Publishers, RunningPublishers, Subscription, Transport, Watcher, numbers,
};
use std::collections::{HashMap, HashSet};

async fn clients_hop_between_three_nodes(nodes_are_killed: bool) {
    let mut fleet = fleet(3).await;
    let (published, hoppers) =
        publish_while_clients_hop(&mut fleet, "hop between shards", nodes_are_killed).await;
    agree_by_channel(&fleet.nodes, HOP, published.total() as usize).await;
    hoppers.get_exactly(&published).await;
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
        for (_, fields) in entries(&fleet, shard).await {
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
    let bus = format!("{FOUR}\n{DEFAULT_HEDGE}");
    let mut fleet = Fleet::with_config(BusKind::RedisStream, 2, &bus, "").await;
    let watchers = Watcher::start_on_each(&fleet.nodes, "channel=out.%3E").await;
    let load = Publishers { name: "out".to_owned(), count: 8, per_second: 200, node_is_killed: false }
        .start_on_each(&fleet.nodes);
    load[0].go_on_for(50).await;
    fleet.proxy.cut().await;
    for (running, watcher) in load.iter().zip(&watchers) {
        running.go_on_for(300).await;
        watcher.keeps_up_with(running).await;
    }
    // Confirmations are lost while events are on their way.
    fleet.proxy.restore().await;
    load[1].go_on_for(100).await;
    fleet.proxy.reset();
    load[0].go_on_for(200).await;
    let published = RunningPublishers::stop_all(load).await;
    for watcher in &watchers {
        watcher.sees_exactly(&published.channels).await;
    }
    agree_by_channel(&fleet.nodes, "channel=out.%3E", published.total() as usize).await;
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
        assert_eq!(fleet.nodes[0].resume_of(ALL, &old).await, told, "of a bus that it is on again");
        fleet.nodes[0].publish_numbers(ON_EACH[0], count - 1..count).await;
        // What it had it keeps, and what it reads again on a bus that it was on before it does not take twice.
        let kept = fleet.nodes[0].wait_for_events(&format!("channel={}", ON_EACH[0]), count as usize).await;
        assert_eq!(numbers(&kept), (0..count).collect::<Vec<_>>());
    }
}
