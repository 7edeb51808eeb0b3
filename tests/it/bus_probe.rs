//! Proof of delivery: a bus that takes publishes and gives nothing back is noticed, named, and left for a new link.

use crate::servers::Flow;
use crate::support::{BusKind, Fleet, TestSidecar, bus_config_at, eventually};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

const FROZEN: Flow = Flow { frozen: true, delay: Duration::ZERO, bytes_per_second: None };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_subscriber_connection_is_noticed_and_left() {
    // NATS has one connection for both ways; what its subscription loses is the next test.
    for kind in [BusKind::RedisStream, BusKind::RedisPubSub] {
        let interval = Duration::from_secs(1);
        let mut fleet = Fleet::with_config(kind, 1, "", "").await;
        // With probes every second, two intervals are longer than a busy machine's pause.
        let slower = fleet.config().replace("\"500ms\"", "\"1s\"");
        fleet.nodes[0].rewrite_config(&slower);
        assert!(fleet.nodes[0].terminate().await.success());
        fleet.proxy.set_for_kind(kind.reads(), Flow::default());
        fleet.nodes[0].start_again().await;
        fleet.ready().await;
        fleet.nodes[0].publish_until("published", "before").await;
        let accepted = fleet.proxy.accepted();

        fleet.proxy.set_for_kind(kind.reads(), FROZEN);
        let frozen = Instant::now();
        let body = eventually("readiness is off", async || {
            let answer = fleet.nodes[0].admin().get("/readyz").await;
            (answer.status() == 503).then(|| answer.json())
        })
        .await;
        let took = frozen.elapsed();
        // The last probe that came back may be as old as an interval.
        assert!(took < interval * 2 + Duration::from_millis(500), "{kind:?}: noticed after {took:?}");
        let reason = body["checks"]["bus"].as_str().unwrap_or_default().to_owned();
        assert!(reason != "ok" && !reason.is_empty(), "{kind:?}: it names the bus: {body}");
        assert_eq!(body["checks"]["log"], "ok", "{kind:?}: and nothing else: {body}");
        let answer = fleet.nodes[0].app().post_json("/v1/publish", &json!({"channel": "a", "data": 1})).await;
        assert!((200..300).contains(&answer.status()), "{kind:?}: publishes are taken: {}", answer.text());

        // Only what is new may pass: the frozen connection stays as it is until the node leaves it.
        eventually("a new link is tried", async || (fleet.proxy.accepted() > accepted).then_some(())).await;
        fleet.proxy.restore().await;
        fleet.ready().await;
        fleet.nodes[0].publish_until("published", "after").await;
        let metrics = fleet.nodes[0].metrics().await;
        assert!(metrics.sum("sidewire_bus_reconnects_total", &[]) >= 1., "{kind:?}");
        assert!(fleet.nodes[0].runs(), "{kind:?}: without a restart");
        eprintln!("{kind:?}: noticed after {took:?}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_is_taken_away_from_jetstream_comes_back() {
    let mut fleet = Fleet::start(BusKind::JetStream, 2).await;
    fleet.nodes[0].publish_numbers("a", 0..10).await;
    fleet.agree_on("channel=a", 10).await;
    let jetstream = fleet.server.nats().jetstream().await;
    let stream = jetstream.get_stream("SIDEWIRE_default").await.expect("the stream is there");
    let mut removed = 0;
    {
        use futures_util::StreamExt as _;
        let names: Vec<_> = stream.consumer_names().collect().await;
        for name in names.into_iter().flatten() {
            stream.delete_consumer(&name).await.expect("it can be deleted");
            removed += 1;
        }
    }
    assert!(removed >= 2, "each node had one: {removed}");
    for n in 10..40 {
        let event = json!({"channel": "a", "data": {"n": n}});
        let answer = fleet.nodes[n as usize % 2].app().post_json("/v1/publish", &event).await;
        assert!((200..300).contains(&answer.status()), "{}", answer.text());
    }
    fleet.agree_on("channel=a", 40).await;
    for node in &mut fleet.nodes {
        node.still_healthy().await;
    }
}

#[tokio::test]
async fn a_bus_that_was_never_there_is_named_with_its_reason_and_found_when_it_comes() {
    for (url, mode) in [("redis://127.0.0.1:9", "stream"), ("nats://127.0.0.1:9", "jetstream")] {
        let sidecar = TestSidecar::with_config(&bus_config_at(url, mode, "", "")).await;
        eventually("a reason", async || {
            let answer = sidecar.admin().get("/readyz").await;
            let body = answer.json();
            let reason = body["checks"]["bus"].as_str().unwrap_or_default().to_owned();
            // At first it says that it is connecting.
            let names_it = reason.contains("127.0.0.1:9") && reason.to_lowercase().contains("refused");
            (answer.status() == 503 && names_it).then_some(())
        })
        .await;
        let answer = sidecar.publish(&json!({"channel": "a", "data": 1})).await;
        assert_eq!(answer["status"], "queued", "{url}: {answer}");
        assert_eq!(sidecar.admin().get("/healthz").await.status(), 200, "{url}: it is alive");
    }
}

#[tokio::test]
async fn the_metrics_tell_how_the_bus_is() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::start(kind, 1).await;
        fleet.nodes[0].publish_numbers("a", 0..10).await;
        let metrics = fleet.nodes[0].metrics().await;
        for name in [
            "sidewire_bus_connected",
            "sidewire_bus_breaker_open",
            "sidewire_bus_reconnects_total",
            "sidewire_bus_duplicates_dropped_total",
            "sidewire_bus_gaps_total",
            "sidewire_bus_malformed_total",
            "sidewire_bus_lag_seconds",
            "sidewire_outbox_events",
            "sidewire_outbox_bytes",
            "sidewire_outbox_oldest_seconds",
        ] {
            assert!(metrics.has(name), "{kind:?}: {name} is missing among {:?}", metrics.kinds.keys());
        }
        let round_trips: Vec<_> = metrics
            .kinds
            .iter()
            .filter(|(name, _)| name.contains("round_trip") || name.contains("probe"))
            .collect();
        assert!(!round_trips.is_empty(), "{kind:?}: how long a probe takes is measured: {:?}", metrics.kinds);
        assert_eq!(metrics.sum("sidewire_bus_connected", &[]), 1., "{kind:?}");
        assert_eq!(metrics.sum("sidewire_bus_breaker_open", &[]), 0., "{kind:?}");

        fleet.proxy.cut().await;
        fleet.notices_that_the_bus_is_away().await;
        for n in 0..5 {
            fleet.nodes[0].publish(&json!({"channel": "a", "data": {"n": n}})).await;
        }
        eventually("an outbox that grows old", async || {
            let metrics = fleet.nodes[0].metrics().await;
            let sum = |name: &str| metrics.sum(name, &[]);
            (sum("sidewire_bus_connected") == 0.
                && sum("sidewire_bus_breaker_open") == 1.
                && sum("sidewire_outbox_events") == 5.
                && sum("sidewire_outbox_bytes") > 100.
                && sum("sidewire_outbox_oldest_seconds") > 0.2)
                .then_some(())
        })
        .await;
        fleet.proxy.restore().await;
        eventually("an outbox that is empty", async || {
            let metrics = fleet.nodes[0].metrics().await;
            let sum = |name: &str| metrics.sum(name, &[]);
            (sum("sidewire_bus_connected") == 1.
                && sum("sidewire_outbox_events") == 0.
                && sum("sidewire_outbox_oldest_seconds") == 0.
                && sum("sidewire_bus_reconnects_total") >= 1.)
                .then_some(())
        })
        .await;
    }
}

/// One line for each change of state, not one for each try: an outage of hours must not fill the disk.
#[tokio::test]
async fn an_outage_is_logged_when_it_begins_and_when_it_ends() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::start(kind, 1).await;
        let before = fleet.nodes[0].log().lines().count();
        fleet.proxy.cut().await;
        fleet.notices_that_the_bus_is_away().await;
        let begin = Instant::now();
        let mut published = 0;
        while begin.elapsed() < Duration::from_secs(3) {
            fleet.nodes[0].publish(&json!({"channel": "a", "data": 1})).await;
            published += 1;
        }
        fleet.proxy.restore().await;
        fleet.ready().await;
        fleet.nodes[0].publish_until("published", "a").await;
        let log = fleet.nodes[0].log();
        let lines: Vec<&str> = log.lines().skip(before).collect();
        assert!(published > 20, "{kind:?}: {published}");
        assert!((2..=12).contains(&lines.len()), "{kind:?}: {} lines:\n{}", lines.len(), lines.join("\n"));
    }
}
