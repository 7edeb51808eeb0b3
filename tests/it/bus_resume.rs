//! A client may come back to any node with its cursor.
//!
//! `SIDEWIRE_TEST_HOP_EVENTS` and `SIDEWIRE_TEST_HOP_RATE` (5000 a second over all nodes) make it the promise in
//! full, for a release build.

use crate::servers::Proxy;
use crate::support::{
    BusKind, Fleet, Hoppers, PATIENT, PublishReport, Publishers, RunningPublishers, Subscription,
    TestSidecar, Transport, number_from_environment, numbers, random_seed,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::{HashMap, HashSet};

pub(crate) const HOP: &str = "channel=hop.>";

/// Publishes on all of three nodes while clients hop between them.
pub(crate) async fn publish_while_clients_hop(
    fleet: &mut Fleet,
    what: &str,
    nodes_are_killed: bool,
) -> (PublishReport, Hoppers) {
    let wanted = number_from_environment("SIDEWIRE_TEST_HOP_EVENTS", 5_000);
    let rate = number_from_environment("SIDEWIRE_TEST_HOP_RATE", 600);
    let hoppers = Hoppers::start(&fleet.nodes, HOP, random_seed(what)).await;
    let per_second = rate / fleet.nodes.len() as u64;
    let publishers =
        Publishers { name: "hop".to_owned(), count: 8, per_second, node_is_killed: nodes_are_killed };
    let load = publishers.start_on_each(&fleet.nodes);
    if nodes_are_killed {
        for step in 0..4 {
            load[0].go_on_for(wanted / 15).await;
            fleet.nodes[step % 3].kill_and_start_again().await;
        }
    } else {
        load[0].go_on_for(wanted / 3).await;
    }
    (RunningPublishers::stop_all(load).await, hoppers)
}

async fn clients_hop_between_three_nodes(kind: BusKind, nodes_are_killed: bool) {
    // There is an order of all while the bus is there: what is shown early, in an outage, comes before its place. A
    // node that was killed shows events early while it comes back.
    let order_of_all = !nodes_are_killed;
    let bus = if order_of_all { PATIENT } else { "" };
    let mut fleet = Fleet::with_config(kind, 3, bus, "").await;
    let what = format!("hop on {kind:?}");
    let (published, hoppers) = publish_while_clients_hop(&mut fleet, &what, nodes_are_killed).await;
    let history = fleet.agree_on(HOP, published.total() as usize).await;
    let expected: Vec<&str> = history.iter().map(|event| event["id"].as_str().expect("an id")).collect();
    let mut next: HashMap<&str, u64> = HashMap::new();
    for event in &history {
        let channel = event["channel"].as_str().expect("a channel");
        let next = next.entry(channel).or_default();
        assert_eq!(event["data"]["n"], *next, "the order of {channel}");
        *next += 1;
    }
    for got in hoppers.get_exactly(&published).await {
        if order_of_all {
            assert_eq!(got, expected, "the order of all");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hops_on_redis_sees_each_event_once_and_in_the_order_of_all() {
    clients_hop_between_three_nodes(BusKind::RedisStream, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hops_on_jetstream_sees_each_event_once_and_in_the_order_of_all() {
    clients_hop_between_three_nodes(BusKind::JetStream, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_on_redis_while_nodes_are_killed() {
    clients_hop_between_three_nodes(BusKind::RedisStream, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_on_jetstream_while_nodes_are_killed() {
    clients_hop_between_three_nodes(BusKind::JetStream, true).await;
}

#[tokio::test]
async fn a_cursor_means_the_same_on_every_node() {
    for kind in BusKind::ORDERED {
        let fleet = Fleet::start(kind, 3).await;
        for n in 0..30 {
            fleet.nodes[n as usize % 3].publish_numbers("same", n..n + 1).await;
        }
        let history = fleet.agree_on("channel=same", 30).await;
        for (at, event) in history.iter().enumerate() {
            let cursor = event["cursor"].as_str().expect("a cursor");
            let mut rest = Vec::new();
            for node in &fleet.nodes {
                rest.push(numbers(&node.all_events(&format!("channel=same&after={cursor}")).await));
            }
            assert_eq!(rest[0].len(), 29 - at, "{kind:?}");
            assert!(rest[0] == rest[1] && rest[1] == rest[2], "{kind:?}: {rest:?}");
        }
    }
}

#[tokio::test]
async fn a_cursor_from_a_node_that_is_ahead_waits_for_this_one_and_misses_nothing() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::start(kind, 2).await;
        fleet.nodes[1].kill();
        fleet.nodes[0].publish_numbers("ahead", 0..10).await;
        let cursor = fleet.nodes[0].all_events("channel=ahead").await[9]["cursor"].clone();
        let cursor = cursor.as_str().expect("a cursor");
        // It has read nothing of that when it starts without the bus.
        fleet.proxy.cut().await;
        fleet.nodes[1].start_again().await;
        let address = fleet.nodes[1].whereabouts().client();
        let query = "channel=ahead";
        let opened = Subscription::try_open(Transport::WebSocket, &address, query, Some(cursor)).await;
        fleet.proxy.restore().await;
        fleet.ready().await;
        let mut subscription = match opened {
            Ok(subscription) if subscription.resume() == "ok" => subscription,
            // It may also say that it cannot tell now, never that the cursor is bad.
            Ok(subscription) => {
                assert_eq!(subscription.resume(), "unavailable", "{kind:?}");
                Subscription::open(Transport::WebSocket, &address, query, Some(cursor)).await
            }
            Err(lost) => {
                assert!(format!("{lost:?}").contains("unavailable"), "{kind:?}: {lost:?}");
                Subscription::open(Transport::WebSocket, &address, query, Some(cursor)).await
            }
        };
        fleet.nodes[0].publish_numbers("ahead", 10..15).await;
        assert_eq!(subscription.numbers(5).await, [10, 11, 12, 13, 14], "{kind:?}: nothing again, no hole");
        assert_eq!(subscription.resume(), "ok", "{kind:?}");
    }
}

#[tokio::test]
async fn a_node_that_does_not_know_yet_that_its_link_is_dead_calls_no_cursor_lost() {
    for kind in BusKind::ORDERED {
        let fleet = Fleet::start(kind, 1).await;
        let mut apart = Proxy::start(fleet.server.address()).await;
        let config = fleet.config().replace(&fleet.proxy.address().to_string(), &apart.address().to_string());
        // So seldom that it is for the resume to find out.
        let behind = TestSidecar::with_config(&config.replace("500ms", "30s")).await;
        behind.ready().await;
        apart.blackhole();
        fleet.nodes[0].publish_numbers("ahead", 0..10).await;
        let cursor = fleet.nodes[0].all_events("channel=ahead").await[9]["cursor"].clone();
        let cursor = cursor.as_str().expect("a cursor");
        let address = behind.whereabouts().client();
        let query = "channel=ahead";
        let mut subscription = Subscription::open(Transport::WebSocket, &address, query, Some(cursor)).await;
        assert_eq!(subscription.resume(), "ok", "{kind:?}");
        apart.restore().await;
        behind.wait_for_events(query, 10).await;
        fleet.nodes[0].publish_numbers("ahead", 10..15).await;
        assert_eq!(subscription.numbers(5).await, [10, 11, 12, 13, 14], "{kind:?}: nothing again, no hole");

        // One that nobody has given: with everything read there is no such position.
        let mut raw = URL_SAFE_NO_PAD.decode(cursor).expect("a cursor is base64");
        raw[10] = raw[10].wrapping_add(1);
        let invented = URL_SAFE_NO_PAD.encode(raw);
        assert_eq!(behind.resume_of(query, &invented).await, "reset", "{kind:?}");
    }
}

#[tokio::test]
async fn without_an_order_a_resume_is_approximate_misses_nothing_and_ids_tell_repeats() {
    for kind in BusKind::PLAIN {
        let fleet = Fleet::start(kind, 2).await;
        let begin = fleet.nodes[0].cursor_now().await;
        for n in 0..100 {
            fleet.nodes[n as usize % 2].publish_numbers("plain", n..n + 1).await;
        }
        for node in &fleet.nodes {
            node.wait_for_events("channel=plain", 100).await;
        }
        let home = fleet.nodes[0].whereabouts().client();
        let query = "channel=plain";
        let mut at_home = Subscription::open(Transport::WebSocket, &home, query, Some(&begin)).await;
        let mut cursor = String::new();
        let mut seen = HashSet::new();
        for _ in 0..40 {
            let delivery = at_home.next().await;
            seen.insert(delivery.number());
            cursor = delivery.cursor;
        }
        assert_eq!(at_home.resume(), "ok", "{kind:?}: the log of this node has an order");
        drop(at_home);
        let away = fleet.nodes[1].whereabouts().client();
        let mut elsewhere = Subscription::open(Transport::WebSocket, &away, query, Some(&cursor)).await;
        assert_eq!(elsewhere.resume(), "approximate", "{kind:?}");
        let mut ids = HashSet::new();
        while seen.len() < 100 {
            let delivery = elsewhere.next().await;
            assert!(ids.insert(delivery.event["id"].clone()), "{kind:?}: twice on one connection");
            seen.insert(delivery.number());
        }
        assert_eq!(seen, (0..100).collect(), "{kind:?}: nothing is missing");
    }
}
