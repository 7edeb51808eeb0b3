//! Each event once and in one order, whatever the bus does with it and however many publish at the same time.

use crate::support::{
    BusKind, Fleet, PATIENT, Publishers, RunningPublishers, Subscription, Transport, Watcher, eventually,
    number_from_environment, numbers,
};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Many publish on two nodes as fast as they are answered: nothing is lost, doubled or out of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_publishers_at_full_speed_keep_their_order() {
    let wanted = number_from_environment("SIDEWIRE_TEST_BUS_EVENTS", 4_000);
    for kind in BusKind::ORDERED {
        let fleet = Fleet::with_config(kind, 2, PATIENT, "").await;
        let watchers = Watcher::start_on_each(&fleet.nodes, "channel=fast.%3E").await;
        // Far more than can be had: nobody waits.
        let load =
            Publishers { name: "fast".to_owned(), count: 16, per_second: 1_000_000, node_is_killed: false }
                .start_on_each(&fleet.nodes);
        let begin = tokio::time::Instant::now();
        load[0].go_on_for(wanted / 2).await;
        let took = begin.elapsed();
        let published = RunningPublishers::stop_all(load).await;
        let total = published.total();
        eprintln!("{kind:?}: {total} events, {:.0} a second", total as f64 / took.as_secs_f64());
        for watcher in &watchers {
            watcher.sees_exactly(&published.channels).await;
        }
        fleet.agree_on("channel=fast.%3E", total as usize).await;
        let order = |watcher: &Watcher| -> Vec<String> {
            watcher.shown().into_iter().map(|shown| shown.id).collect()
        };
        assert!(order(&watchers[0]) == order(&watchers[1]), "{kind:?}: one order for all");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_published_on_two_nodes_at_once_is_shown_once() {
    for kind in BusKind::ORDERED {
        let fleet = Fleet::start(kind, 2).await;
        let watchers = Watcher::start_on_each(&fleet.nodes, "channel=twice").await;
        for n in 0..40 {
            let event = json!({"channel": "twice", "id": format!("twice-{n}"), "data": {"n": n}});
            let (mut first, mut second) = (fleet.nodes[0].app(), fleet.nodes[1].app());
            let (first, second) =
                tokio::join!(first.post_json("/v1/publish", &event), second.post_json("/v1/publish", &event));
            for answer in [first.success(), second.success()] {
                let status = answer["status"].as_str().unwrap_or_default();
                assert!(matches!(status, "published" | "duplicate" | "queued"), "{kind:?}: {answer}");
                assert_eq!(answer["id"], format!("twice-{n}"), "{kind:?}");
            }
        }
        let kept = fleet.agree_on("channel=twice", 40).await;
        assert_eq!(numbers(&kept), (0..40).collect::<Vec<_>>(), "{kind:?}");
        for watcher in &watchers {
            watcher.sees_exactly(&[("twice".to_owned(), 40)]).await;
        }
        let again = json!({"channel": "twice", "id": "twice-0", "data": {"n": 0}});
        for node in &fleet.nodes {
            assert_eq!(node.publish(&again).await["status"], "duplicate", "{kind:?}: known everywhere");
        }
    }
}

/// F5: the bus has stored an event, and the answer is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_confirmation_is_lost_is_there_once() {
    for (kind, request) in [(BusKind::RedisStream, "XADD"), (BusKind::JetStream, "HPUB")] {
        let fleet = Fleet::start(kind, 2).await;
        let watchers = Watcher::start_on_each(&fleet.nodes, "channel=lost").await;
        let rounds = 12;
        for n in 0..rounds {
            fleet.nodes[0].publish_until("published", "between").await;
            fleet.proxy.lose_next_reply(request);
            let event = json!({"channel": "lost", "id": format!("lost-{n}"), "data": {"n": n}});
            let answer = fleet.nodes[0].publish(&event).await;
            let status = answer["status"].as_str().unwrap_or_default();
            assert!(matches!(status, "published" | "queued"), "{kind:?}: {answer}");
            eventually("the confirmation is lost", async || (!fleet.proxy.will_lose_a_reply()).then_some(()))
                .await;
        }
        let kept = fleet.agree_on("channel=lost", rounds as usize).await;
        assert_eq!(numbers(&kept), (0..rounds).collect::<Vec<_>>(), "{kind:?}");
        for watcher in &watchers {
            watcher.sees_exactly(&[("lost".to_owned(), rounds)]).await;
        }
    }
}

/// Two nodes that have 20 events, and a client of one of them.
async fn with_some_events(kind: BusKind) -> (Fleet, Watcher) {
    let fleet = Fleet::start(kind, 2).await;
    let watcher = Watcher::start("a client", fleet.nodes[1].whereabouts(), "channel=again").await;
    fleet.nodes[0].publish_numbers("again", 0..20).await;
    fleet.agree_on("channel=again", 20).await;
    (fleet, watcher)
}

/// Checks that a bus that has so many of its events twice shows each once.
async fn repeats_are_dropped_and_counted(fleet: &Fleet, watcher: &Watcher, repeated: u64) {
    assert_eq!(repeated, 20, "each of them");
    fleet.nodes[0].publish_numbers("again", 20..25).await;
    let kept = fleet.agree_on("channel=again", 25).await;
    assert_eq!(numbers(&kept), (0..25).collect::<Vec<_>>());
    watcher.sees_exactly(&[("again".to_owned(), 25)]).await;
    for node in &fleet.nodes {
        assert_eq!(node.metrics().await.sum("sidewire_bus_duplicates_dropped_total", &[]), 20.);
    }
}

/// F25: entries come again on the bus, as from a sender that did not know, late and among others.
#[tokio::test]
async fn entries_that_come_again_are_dropped_and_counted() {
    let (fleet, watcher) = with_some_events(BusKind::RedisStream).await;
    let redis = fleet.server.redis();
    let key = "sidewire:{default}:events";
    let entries: Vec<(String, Vec<String>)> = redis.command(&["XRANGE", key, "-", "+"]).await;
    let mut repeated = 0;
    for (_, fields) in entries.iter().rev() {
        let fields: HashMap<&str, &str> = fields.chunks(2).map(|pair| (&*pair[0], &*pair[1])).collect();
        if fields.get("channel") != Some(&"again") {
            continue;
        }
        let mut words = vec!["XADD", key, "*"];
        for (name, value) in fields {
            words.extend([name, value]);
        }
        redis.command::<String>(&words).await;
        repeated += 1;
    }
    repeats_are_dropped_and_counted(&fleet, &watcher, repeated).await;
}

/// As from a sender that did not know, after the server itself has forgotten what it has.
#[tokio::test]
async fn messages_that_come_again_are_dropped_and_counted() {
    let (fleet, watcher) = with_some_events(BusKind::JetStream).await;
    let jetstream = fleet.server.nats().jetstream().await;
    let stream = jetstream.get_stream("SIDEWIRE_default").await.expect("it is there");
    let last = stream.cached_info().state.last_sequence;
    let mut repeated = 0;
    for sequence in (1..=last).rev() {
        let Ok(message) = stream.get_raw_message(sequence).await else { continue };
        if !message.subject.ends_with(".ev.again") {
            continue;
        }
        let mut headers = message.headers.clone();
        headers.insert("Nats-Msg-Id", format!("again-{sequence}"));
        let sent = jetstream.publish_with_headers(message.subject, headers, message.payload).await;
        sent.expect("it is sent").await.expect("it is stored once more");
        repeated += 1;
    }
    repeats_are_dropped_and_counted(&fleet, &watcher, repeated).await;
}

/// What a publisher gives is what every node gives, byte for byte.
#[tokio::test]
async fn every_part_of_an_event_is_the_same_on_another_node() {
    for kind in [BusKind::ORDERED, BusKind::PLAIN].concat() {
        let fleet = Fleet::start(kind, 2).await;
        let address = fleet.nodes[1].whereabouts().client();
        let mut client = Subscription::open(Transport::WebSocket, &address, "channel=whole.>", None).await;
        let data = json!({"text": "a\"b\\c\u{0}\u{7f}é\u{2028}😀\r\n", "number": 1e300, "deep": [[[]], null, true], "empty": ""});
        let event = json!({"channel": "whole.a", "event": "Ünï", "id": "id:1/2", "data": data, "tags": {"k": "v\"", "leer": ""}});
        let answer = fleet.nodes[0].app().post_json("/v1/publish", &event).await;
        let event = if answer.status() == 400 {
            // Names may be narrower than that.
            let mut plainer = event.clone();
            plainer["event"] = json!("name");
            fleet.nodes[0].publish(&plainer).await;
            plainer
        } else {
            answer.success();
            event
        };
        let shown = client.next().await.event;
        for key in ["channel", "event", "id", "data", "tags"] {
            assert_eq!(shown[key], event[key], "{kind:?}: {key}");
        }
        let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        let answer =
            fleet.nodes[0].app().post("/v1/channels/whole.b", "application/octet-stream", &bytes).await;
        answer.success();
        let shown = client.next().await.event;
        let text =
            shown["data"]["$base64"].as_str().unwrap_or_else(|| panic!("{kind:?}: bytes: {}", shown["id"]));
        let back = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).expect("Base64");
        assert!(back == bytes, "{kind:?}: bytes come as they went");
        let several = json!({"channels": ["whole.c", "whole.d"], "id": "copies", "data": 1});
        fleet.nodes[0].publish(&several).await;
        let mut channels: Vec<Value> = Vec::new();
        for _ in 0..2 {
            let shown = client.next().await.event;
            assert_eq!(shown["id"], "copies", "{kind:?}");
            channels.push(shown["channel"].clone());
        }
        assert_eq!(channels, ["whole.c", "whole.d"], "{kind:?}");
        // Live only: shown, and kept nowhere.
        fleet.nodes[0].publish(&json!({"channel": "whole.e", "data": 5, "ttl": 0})).await;
        assert_eq!(client.next().await.event["data"], 5, "{kind:?}");
        for node in &fleet.nodes {
            assert!(node.all_events("channel=whole.e").await.is_empty(), "{kind:?}");
        }
    }
}
