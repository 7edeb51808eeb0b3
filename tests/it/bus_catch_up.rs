//! A node that was off reads on from where it stood; one that comes too late says so.

use crate::support::{BusKind, Fleet, Subscription, TestSidecar, Transport, eventually};
use serde_json::Value;

#[tokio::test]
async fn a_node_that_was_off_reads_on_and_its_history_is_complete() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::start(kind, 2).await;
        fleet.nodes[0].publish_numbers("kept", 0..100).await;
        fleet.agree_on("channel=kept", 100).await;
        let cursor = fleet.nodes[1].cursor_now().await;
        for (round, clean) in (0..).zip([true, false]) {
            if clean {
                assert!(fleet.nodes[1].terminate().await.success());
            } else {
                fleet.nodes[1].kill();
            }
            let begin = 100 + round * 2_000;
            fleet.nodes[0].publish_numbers("kept", begin..begin + 2_000).await;
            fleet.nodes[1].start_again().await;
            fleet.agree_on("channel=kept", begin as usize + 2_000).await;
        }
        let address = fleet.nodes[1].whereabouts().client();
        let mut client =
            Subscription::open(Transport::WebSocket, &address, "channel=kept", Some(&cursor)).await;
        assert_eq!(client.resume(), "ok", "{kind:?}");
        assert_eq!(client.numbers(4_000).await, (100..4_100).collect::<Vec<_>>(), "{kind:?}");
        fleet.nodes[1].ready().await;
        let metrics = fleet.nodes[1].metrics().await;
        assert_eq!(metrics.sum("sidewire_bus_gaps_total", &[]), 0., "{kind:?}: there is no hole");
    }
}

#[tokio::test]
async fn a_new_node_takes_what_the_bus_still_has() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::start(kind, 1).await;
        fleet.nodes[0].publish_numbers("kept", 0..500).await;
        let third = TestSidecar::with_config(&fleet.config()).await;
        fleet.nodes.push(third);
        fleet.agree_on("channel=kept", 500).await;
    }
}

/// Takes away from the bus what it has, up to the newest few events, as its retention does.
async fn trim(fleet: &Fleet) {
    match fleet.kind {
        BusKind::RedisStream => {
            let key = "sidewire:{default}:events";
            fleet.server.redis().command::<i64>(&["XTRIM", key, "MAXLEN", "=", "5"]).await;
        }
        _ => {
            let jetstream = fleet.server.nats().jetstream().await;
            let stream = jetstream.get_stream("SIDEWIRE_default").await.expect("the stream is there");
            stream.purge().keep(5).await.expect("it can be purged");
        }
    }
}

#[tokio::test]
async fn a_node_that_comes_too_late_marks_the_hole_and_clients_are_told() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::start(kind, 2).await;
        fleet.nodes[0].publish_numbers("late", 0..50).await;
        fleet.agree_on("channel=late", 50).await;
        let before = fleet.nodes[1].all_events("channel=late").await;
        let cursor = before[40]["cursor"].as_str().expect("a cursor").to_owned();
        fleet.nodes[1].kill();
        fleet.nodes[0].publish_numbers("late", 50..500).await;
        trim(&fleet).await;
        fleet.nodes[0].publish_numbers("late", 500..520).await;
        fleet.nodes[1].start_again().await;
        fleet.nodes[1].ready().await;

        let address = fleet.nodes[1].whereabouts().client();
        let kept = eventually("it has read on", async || {
            let numbers = crate::support::numbers(&fleet.nodes[1].all_events("channel=late").await);
            (numbers.last() == Some(&519)).then_some(numbers)
        })
        .await;
        assert!(kept.windows(2).all(|pair| pair[0] < pair[1]), "{kind:?}: {kept:?}");
        assert_eq!(kept[..50], (0..50).collect::<Vec<_>>(), "{kind:?}: what it had it keeps");
        assert!(kept.len() < 100, "{kind:?}: the bus had lost most of it");
        let mut client =
            Subscription::open(Transport::WebSocket, &address, "channel=late", Some(&cursor)).await;
        assert_eq!(client.resume(), "expired", "{kind:?}: there is a hole behind that cursor");
        let numbers: Vec<u64> = kept.iter().copied().filter(|n| *n > 40).collect();
        assert_eq!(client.numbers(numbers.len()).await, numbers, "{kind:?}: and what is left comes");
        let metrics = fleet.nodes[1].metrics().await;
        assert!(metrics.sum("sidewire_bus_gaps_total", &[]) >= 1., "{kind:?}: it is counted");
        fleet.nodes[1].wait_for_log(&["WARN"]).await;

        // A node that was there has no hole, whatever the bus has dropped.
        let address = fleet.nodes[0].whereabouts().client();
        let mut client =
            Subscription::open(Transport::WebSocket, &address, "channel=late", Some(&cursor)).await;
        assert_eq!(client.resume(), "ok", "{kind:?}");
        assert_eq!(client.numbers(479).await, (41..520).collect::<Vec<_>>(), "{kind:?}");
    }
}

/// F24: what the bus drops under nodes that have read it is no loss.
#[tokio::test]
async fn trimming_under_nodes_that_are_up_to_date_is_not_noticed() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::start(kind, 2).await;
        fleet.nodes[0].publish_numbers("trim", 0..100).await;
        fleet.agree_on("channel=trim", 100).await;
        trim(&fleet).await;
        fleet.nodes[1].publish_numbers("trim", 100..200).await;
        fleet.proxy.reset();
        fleet.nodes[0].publish_until("published", "other").await;
        let kept: Vec<Value> = fleet.agree_on("channel=trim", 200).await;
        assert_eq!(crate::support::numbers(&kept), (0..200).collect::<Vec<_>>(), "{kind:?}");
        for node in &mut fleet.nodes {
            assert_eq!(node.metrics().await.sum("sidewire_bus_gaps_total", &[]), 0., "{kind:?}");
            node.still_healthy().await;
        }
    }
}
