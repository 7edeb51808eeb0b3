//! An id is published once, however often and however it is sent.

use crate::support::TestSidecar;
use serde_json::json;

#[tokio::test]
async fn a_repeated_id_is_a_duplicate_and_says_so_with_the_same_id() {
    let sidecar = TestSidecar::start().await;
    let body = json!({"channel": "once", "data": 1, "id": "order-17"});
    let first = sidecar.publish(&body).await;
    assert_eq!(first["status"], "published", "{first}");
    let second = sidecar.publish(&body).await;
    assert_eq!((&second["status"], &second["id"]), (&json!("duplicate"), &json!("order-17")), "{second}");
    assert_eq!(sidecar.all_events("channel=once").await.len(), 1);
}

#[tokio::test]
async fn an_id_that_repeats_within_one_request_is_published_once() {
    let sidecar = TestSidecar::start().await;
    let one = json!({"channel": "once", "data": 1, "id": "same"});
    let answer = sidecar.publish(&json!([one, one, one])).await;
    let statuses: Vec<_> =
        answer["results"].as_array().expect("results").iter().map(|e| &e["status"]).collect();
    assert_eq!(statuses, ["published", "duplicate", "duplicate"]);
    assert_eq!(sidecar.all_events("channel=once").await.len(), 1);
}

#[tokio::test]
async fn an_id_that_several_send_at_the_same_time_is_published_once() {
    let sidecar = TestSidecar::start().await;
    for round in 0..20 {
        let body = json!({"channel": "race", "data": round, "id": format!("race-{round}")});
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (mut app, body) = (sidecar.app(), body.clone());
                tokio::spawn(async move { app.post_json("/v1/publish", &body).await.success() })
            })
            .collect();
        let mut published = 0;
        for task in tasks {
            published += u32::from(task.await.expect("answered")["status"] == "published");
        }
        assert_eq!(published, 1, "round {round}");
    }
    assert_eq!(sidecar.all_events("channel=race").await.len(), 20);
}

#[tokio::test]
async fn ids_are_known_after_a_clean_restart_and_after_a_kill() {
    let mut sidecar = TestSidecar::start().await;
    let batch = json!(
        (0..300)
            .map(|n| json!({"channel": "kept", "data": {"n": n}, "id": format!("kept-{n}")}))
            .collect::<Vec<_>>()
    );
    sidecar.publish(&batch).await;
    for clean in [true, false] {
        if clean {
            assert!(sidecar.terminate().await.success());
            sidecar.start_again().await;
        } else {
            sidecar.kill_and_start_again().await;
        }
        let again = sidecar.publish(&batch).await;
        for entry in again["results"].as_array().expect("results") {
            assert_eq!(
                entry["status"],
                "duplicate",
                "after a {} end: {entry}",
                if clean { "clean" } else { "hard" }
            );
        }
    }
    assert_eq!(sidecar.all_events("channel=kept").await.len(), 300);
}

#[tokio::test]
async fn a_live_only_event_with_a_known_id_is_a_duplicate_too() {
    let sidecar = TestSidecar::start().await;
    let body = json!({"channel": "live", "data": 1, "id": "blink", "ttl": 0});
    assert_eq!(sidecar.publish(&body).await["status"], "published");
    assert_eq!(sidecar.publish(&body).await["status"], "duplicate");
}

#[tokio::test]
async fn an_id_outside_its_bounds_is_refused() {
    let sidecar = TestSidecar::start().await;
    let longest = "i".repeat(128);
    assert_eq!(sidecar.publish(&json!({"channel": "a", "data": 1, "id": longest})).await["id"], longest);
    for id in ["", &"i".repeat(129), "line\nbreak", "nul\u{0}"] {
        let answer =
            sidecar.app().post_json("/v1/publish", &json!({"channel": "a", "data": 1, "id": id})).await;
        assert_eq!(answer.refusal(400), "invalid_id");
        assert_eq!(answer.json()["field"], "id", "{}", answer.text());
    }
}
