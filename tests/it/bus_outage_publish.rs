//! What a publish is answered while the bus is away, for every acknowledgement level, and when the outbox is full.

use crate::support::{BusKind, DEFAULT_HEDGE, Fleet, HttpClient, eventually, numbers};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test]
async fn each_acknowledgement_says_what_it_means_while_the_bus_is_away() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 2, DEFAULT_HEDGE, "").await;
        let event = |n: u64| json!({"channel": "ack", "id": format!("ack-{n}"), "data": {"n": n}});
        let send = async |app: &mut HttpClient, ack: &str, n| {
            app.post_json(&format!("/v1/publish?ack={ack}"), &event(n)).await
        };
        let mut app = fleet.nodes[0].app();
        let answer = send(&mut app, "bus", 0).await;
        assert_eq!(answer.success()["status"], "published", "{kind:?}");
        fleet.proxy.cut().await;
        fleet.notices_that_the_bus_is_away().await;
        let begin = Instant::now();
        let answer = send(&mut app, "bus", 1).await;
        assert_eq!(answer.refusal(504), "bus_timeout", "{kind:?}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{kind:?}: {:?}", begin.elapsed());
        let answer = send(&mut app, "log", 2).await;
        assert_eq!((answer.status(), &answer.json()["status"]), (202, &json!("queued")), "{kind:?}");
        let answer = send(&mut app, "none", 3).await;
        assert!((200..300).contains(&answer.status()), "{kind:?}: {}", answer.text());
        // Who asks again under the same id is told that it is on its way, not that it failed.
        let answer = send(&mut app, "log", 2).await;
        assert!((200..300).contains(&answer.status()), "{kind:?}: {}", answer.text());

        fleet.proxy.restore().await;
        fleet.nodes[0].wait_for_events("channel=ack", 4).await;
        let answer = send(&mut app, "bus", 1).await;
        assert!((200..300).contains(&answer.status()), "{kind:?}: what timed out can be asked for again");
        let kept = fleet.agree_on("channel=ack", 4).await;
        assert_eq!(numbers(&kept), [0, 1, 2, 3], "{kind:?}");
    }
}

#[tokio::test]
async fn the_outbox_is_bounded_and_drops_nothing_at_its_bound() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 2, "", "[queue]\nmax_bytes = \"256KiB\"\n").await;
        fleet.proxy.cut().await;
        fleet.notices_that_the_bus_is_away().await;
        let mut app = fleet.nodes[0].app();
        let mut taken = 0_u64;
        let refused = eventually("a publish that finds the outbox full", async || {
            let event =
                json!({"channel": "full", "id": format!("full-{taken}"), "data": {"n": taken, "x": "y".repeat(5_000)}});
            let answer = app.post_json("/v1/publish", &event).await;
            if answer.status() != 202 {
                return Some(answer);
            }
            taken += 1;
            None
        })
        .await;
        assert_eq!(refused.refusal(503), "queue_full", "{kind:?}");
        assert!(refused.header("retry-after").is_some(), "{kind:?}: a 503 says when to come back");
        assert!((10..60).contains(&taken), "{kind:?}: {taken} events of 5 kB in 256 KiB");
        let ready = fleet.nodes[0].admin().get("/readyz").await;
        assert_eq!(ready.status(), 503, "{}", ready.text());
        let metrics = fleet.nodes[0].metrics().await;
        let held = metrics.sum("sidewire_outbox_events", &[]);
        assert_eq!(held, taken as f64, "{kind:?}");
        assert!(metrics.sum("sidewire_outbox_bytes", &[]) <= 300_000., "{kind:?}");

        fleet.proxy.restore().await;
        let kept = fleet.agree_on("channel=full", taken as usize).await;
        assert_eq!(numbers(&kept), (0..taken).collect::<Vec<_>>(), "{kind:?}");
        fleet.nodes[0].publish_until("published", "after").await;
        eventually("the outbox is empty", async || {
            let metrics = fleet.nodes[0].metrics().await;
            (metrics.sum("sidewire_outbox_events", &[]) == 0.).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_outbox_is_bounded_in_age_too() {
    let kind = BusKind::RedisStream;
    let mut fleet = Fleet::with_config(kind, 1, "", "[queue]\nmax_age = \"2s\"\n").await;
    fleet.proxy.cut().await;
    fleet.notices_that_the_bus_is_away().await;
    let mut app = fleet.nodes[0].app();
    let first = app.post_json("/v1/publish", &json!({"channel": "old", "data": {"n": 0}})).await;
    assert_eq!(first.status(), 202, "{}", first.text());
    let mut taken = 1_u64;
    let refused = eventually("a publish that finds the oldest too old", async || {
        let answer = app.post_json("/v1/publish", &json!({"channel": "old", "data": {"n": taken}})).await;
        if answer.status() == 202 {
            taken += 1;
            return None;
        }
        Some(answer)
    })
    .await;
    assert_eq!(refused.refusal(503), "queue_full");
    fleet.proxy.restore().await;
    let kept = fleet.agree_on("channel=old", taken as usize).await;
    assert_eq!(numbers(&kept), (0..taken).collect::<Vec<_>>());
}
