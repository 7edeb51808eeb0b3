//! Long-poll: as soon as there is one event, or empty at the timeout.

use crate::support::{TestSidecar, from_msgpack, numbers, within};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn answer_numbers(answer: &Value) -> Vec<u64> {
    numbers(answer["events"].as_array().expect("events"))
}

#[tokio::test]
async fn a_poll_is_answered_as_soon_as_there_is_an_event() {
    let sidecar = TestSidecar::start().await;
    let cursor = sidecar.cursor_now().await;
    let mut client = sidecar.client();
    let target = format!("/v1/poll?channel=a&cursor={cursor}&timeout=25");
    let begin = Instant::now();
    let waiting = tokio::spawn(async move { client.get(&target).await.success() });
    sidecar.wait_for_subscribers("a", 1).await;
    sidecar.publish_numbers("a", 0..1).await;
    let answer = waiting.await.expect("answered");
    assert_eq!(answer_numbers(&answer), [0]);
    assert_eq!(answer["resume"], "ok", "{answer}");
    assert_eq!(answer["events"][0]["cursor"], answer["cursor"], "{answer}");
    assert!(begin.elapsed() < Duration::from_secs(20), "long before its timeout");
}

#[tokio::test]
async fn the_first_poll_without_a_cursor_answers_what_comes_from_now_on() {
    let sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("a", 0..3).await;
    let mut client = sidecar.client();
    let waiting = tokio::spawn(async move { client.get("/v1/poll?channel=a&timeout=25").await.success() });
    sidecar.wait_for_subscribers("a", 1).await;
    sidecar.publish_numbers("a", 3..4).await;
    let answer = waiting.await.expect("answered");
    assert_eq!(answer_numbers(&answer), [3], "nothing from before");
    assert_eq!(answer["resume"], "none", "{answer}");
}

#[tokio::test]
async fn a_timeout_of_0_never_waits_and_still_gives_a_cursor() {
    let sidecar = TestSidecar::start().await;
    let mut client = sidecar.client();
    let begin = Instant::now();
    let first = client.get("/v1/poll?channel=a&timeout=0").await.success();
    assert_eq!(answer_numbers(&first), [0; 0]);
    let cursor = first["cursor"].as_str().expect("cursor");
    let second = client.get(&format!("/v1/poll?channel=a&timeout=0&cursor={cursor}")).await.success();
    assert_eq!((&second["resume"], answer_numbers(&second)), (&json!("ok"), vec![]));
    assert!(begin.elapsed() < Duration::from_secs(5), "no poll has waited");
    sidecar.publish_numbers("a", 0..2).await;
    let third = client.get(&format!("/v1/poll?channel=a&timeout=0&cursor={cursor}")).await.success();
    assert_eq!(answer_numbers(&third), [0, 1]);
}

#[tokio::test]
async fn a_poll_that_sees_nothing_is_empty_at_its_timeout_and_its_cursor_goes_on() {
    let sidecar = TestSidecar::start().await;
    let mut client = sidecar.client();
    let begin = Instant::now();
    let empty = client.get("/v1/poll?channel=a&timeout=1").await.success();
    assert_eq!(answer_numbers(&empty), [0; 0]);
    assert!(begin.elapsed() >= Duration::from_millis(900), "it waited for {:?}", begin.elapsed());
    sidecar.publish_numbers("a", 0..1).await;
    let cursor = empty["cursor"].as_str().expect("cursor");
    let next = client.get(&format!("/v1/poll?channel=a&timeout=25&cursor={cursor}")).await.success();
    assert_eq!(answer_numbers(&next), [0], "what came between two polls is not lost");
}

#[tokio::test]
async fn a_backlog_comes_in_pages_of_the_limit() {
    let sidecar = TestSidecar::start().await;
    let mut cursor = sidecar.cursor_now().await;
    sidecar.publish_numbers("a", 0..25).await;
    let mut client = sidecar.client();
    let mut found = Vec::new();
    for expected in [10, 10, 5] {
        let target = format!("/v1/poll?channel=a&timeout=0&limit=10&cursor={cursor}");
        let answer = client.get(&target).await.success();
        let page = answer_numbers(&answer);
        assert_eq!(page.len(), expected, "{answer}");
        found.extend(page);
        cursor = answer["cursor"].as_str().expect("cursor").to_owned();
    }
    assert_eq!(found, (0..25).collect::<Vec<_>>());
}

#[tokio::test]
async fn many_jobs_are_one_request() {
    let sidecar = TestSidecar::start().await;
    let cursor = sidecar.cursor_now().await;
    for n in 0..6 {
        sidecar.publish_numbers(&format!("job.{n}"), n..n + 1).await;
    }
    let target = format!("/v1/poll?channel=job.1,job.3&channel=job.5&timeout=0&cursor={cursor}");
    let answer = sidecar.client().get(&target).await.success();
    assert_eq!(answer_numbers(&answer), [1, 3, 5]);
}

#[tokio::test]
async fn a_client_that_gives_up_a_poll_is_forgotten() {
    let sidecar = TestSidecar::start().await;
    let before = sidecar.connections().await;
    let mut client = sidecar.client();
    let waiting = tokio::spawn(async move { client.get("/v1/poll?channel=left&timeout=25").await });
    sidecar.wait_for_subscribers("left", 1).await;
    waiting.abort();
    sidecar.wait_for_subscribers("left", 0).await;
    sidecar.wait_for_connections(before).await;
}

#[tokio::test]
async fn bad_parameters_are_refused() {
    let sidecar = TestSidecar::start().await;
    let mut client = sidecar.client();
    for target in [
        "/v1/poll",
        "/v1/poll?channel=a&timeout=soon",
        "/v1/poll?channel=a&timeout=-1",
        "/v1/poll?channel=a&limit=none",
        "/v1/poll?channel=a&cursor=%00",
        "/v1/poll?channel=a%20b",
    ] {
        client.get(target).await.refusal(400);
    }
}

#[tokio::test]
async fn the_answer_may_be_messagepack() {
    let sidecar = TestSidecar::start().await;
    let cursor = sidecar.cursor_now().await;
    sidecar.app().post("/v1/channels/a", "application/octet-stream", &[0xff, 0]).await.success();
    sidecar.publish_numbers("a", 0..1).await;
    let target = format!("/v1/poll?channel=a&timeout=0&format=msgpack&cursor={cursor}");
    let answer = sidecar.client().get(&target).await;
    assert_eq!(answer.header("content-type"), Some("application/msgpack"));
    let answer = from_msgpack(&answer.body);
    assert_eq!(
        (&answer["resume"], &answer["events"][0]["data"]),
        (&json!("ok"), &json!({"$bin": "/wA="})),
        "{answer}"
    );
    assert_eq!(answer["events"][1]["data"], json!({"n": 0}), "{answer}");
}

#[tokio::test]
async fn poll_answers_may_not_be_cached() {
    let sidecar = TestSidecar::start().await;
    let answer = within("a poll", async { sidecar.client().get("/v1/poll?channel=a&timeout=0").await }).await;
    let caching = answer.header("cache-control").expect("Cache-Control");
    assert!(caching.contains("no-store") || caching.contains("no-cache"), "{caching}");
}

#[tokio::test]
async fn a_timeout_of_0_never_waits_for_channels_with_nothing_to_replay() {
    let sidecar = TestSidecar::start().await;
    let cursor = sidecar.cursor_now().await;
    sidecar.publish_numbers("busy", 0..300).await;
    let mut client = sidecar.client();
    // The log is read for nothing, which is where a wait could slip in.
    for _ in 0..20 {
        let target = format!("/v1/poll?channel=quiet&timeout=0&cursor={cursor}");
        let answer = within("an answer", client.get(&target)).await.success();
        assert_eq!((&answer["resume"], answer_numbers(&answer)), (&json!("ok"), vec![]));
    }
}
