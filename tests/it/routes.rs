//! `[[client.routes]]`: an app's own URLs on every transport, and closing when a job is done.

use crate::support::{SseClient, TestSidecar, WebSocketClient, within};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[[client.routes]]
path = "/ws/job/{id}"
channel = "job.{id}"
close_on = ["job_completed", "job_failed"]

[[client.routes]]
path = "/live/{kind}/{id}"
channel = "editor.{kind}.{id}"
"#;

#[tokio::test]
async fn the_path_names_the_channel_and_the_last_event_of_a_job_closes_the_connection() {
    let sidecar = TestSidecar::with_config(CONFIG).await;
    let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), "/ws/job/17").await;
    let subscribed = client.expect("subscribed").await;
    assert_eq!(subscribed["channels"], json!(["job.17"]), "{subscribed}");
    sidecar.publish(&json!({"channel": "job.18", "event": "job_completed", "data": 0})).await;
    sidecar.publish(&json!({"channel": "job.17", "event": "progress", "data": 1})).await;
    sidecar.publish(&json!({"channel": "job.17", "event": "job_completed", "data": 2})).await;
    assert_eq!(client.next_event().await["data"], 1);
    assert_eq!(client.next_event().await["data"], 2, "what closes is delivered first");
    assert_eq!(client.closed().await, 4200);
    let bye = client.bye.expect("a bye comes before a close by the node");
    assert_eq!(bye["code"], 4200, "{bye}");
}

#[tokio::test]
async fn a_last_event_that_no_socket_takes_in_one_piece_closes_too() {
    let sidecar = TestSidecar::with_config(CONFIG).await;
    let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), "/ws/job/17").await;
    client.expect("subscribed").await;
    // The client reads nothing meanwhile, so these fill what the kernel takes, and the last one is cut.
    let text = "x".repeat(900_000);
    for n in 0..16 {
        sidecar
            .publish(&json!({"channel": "job.17", "event": "progress", "data": {"n": n, "text": text}}))
            .await;
    }
    let done = json!({"channel": "job.17", "event": "job_completed", "data": {"n": 16, "text": text}});
    sidecar.publish(&done).await;
    assert_eq!(client.next_numbers(17).await, (0..17).collect::<Vec<_>>());
    assert_eq!(client.closed().await, 4200);
}

#[tokio::test]
async fn the_current_state_comes_at_once_with_last() {
    let sidecar = TestSidecar::with_config(CONFIG).await;
    for n in 0..3 {
        sidecar.publish(&json!({"channel": "job.5", "event": "progress", "data": {"n": n}})).await;
    }
    let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), "/ws/job/5?last=1").await;
    client.expect("subscribed").await;
    assert_eq!(client.next_numbers(1).await, [2]);
    sidecar.publish(&json!({"channel": "job.5", "event": "job_failed", "data": {"n": 3}})).await;
    assert_eq!(client.next_numbers(1).await, [3]);
    assert_eq!(client.closed().await, 4200);
}

#[tokio::test]
async fn a_job_that_is_done_already_is_told_and_closed_at_once() {
    let sidecar = TestSidecar::with_config(CONFIG).await;
    sidecar.publish(&json!({"channel": "job.6", "event": "job_completed", "data": {"n": 9}})).await;
    let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), "/ws/job/6?last=1").await;
    client.expect("subscribed").await;
    assert_eq!(client.next_numbers(1).await, [9]);
    assert_eq!(client.closed().await, 4200);
}

#[tokio::test]
async fn server_sent_events_are_served_on_the_same_path_and_end_with_the_job() {
    let sidecar = TestSidecar::with_config(CONFIG).await;
    let address = sidecar.whereabouts().client();
    let mut stream = SseClient::open(&address, "/ws/job/17", &[]).await;
    sidecar.publish(&json!({"channel": "job.17", "event": "progress", "data": 1})).await;
    let (name, ..) = stream.next_event().await;
    assert_eq!(name, "progress");
    sidecar.publish(&json!({"channel": "job.17", "event": "job_completed", "data": 2})).await;
    let (name, _, last_id) = stream.next_event().await;
    assert_eq!(name, "job_completed");
    stream.rest().await;

    // An EventSource comes back by itself, with its last id: 204 is what tells it to stop.
    let headers = [("Accept", "text/event-stream"), ("Last-Event-ID", &*last_id)];
    let answer = sidecar.client().request("GET", "/ws/job/17", &headers, b"").await;
    assert_eq!(answer.status(), 204, "{}", answer.text());
}

#[tokio::test]
async fn a_plain_get_is_the_polling_fallback() {
    let sidecar = TestSidecar::with_config(CONFIG).await;
    sidecar.publish(&json!({"channel": "editor.page.3", "data": {"n": 0}})).await;
    let answer = sidecar.client().get("/live/page/3?last=1&timeout=0").await.success();
    assert_eq!(answer["events"][0]["data"]["n"], 0, "{answer}");
    let cursor = answer["cursor"].as_str().expect("cursor").to_owned();
    sidecar.publish(&json!({"channel": "editor.page.3", "data": {"n": 1}})).await;
    let next: Value =
        within("a poll", async { sidecar.client().get(&format!("/live/page/3?cursor={cursor}")).await })
            .await
            .success();
    assert_eq!(next["events"][0]["data"]["n"], 1, "{next}");
}

#[tokio::test]
async fn a_path_that_makes_no_channel_is_refused_and_an_unknown_one_not_found() {
    let sidecar = TestSidecar::with_config(CONFIG).await;
    let mut client = sidecar.client();
    for target in ["/ws/job/", "/ws/job", "/ws/other/1", "/ws/job/1/2", "/live/page"] {
        assert_eq!(client.get(target).await.refusal(404), "not_found", "{target}");
    }
    // A placeholder is one token of a channel: nobody reaches another channel, or a pattern, through it.
    for target in ["/ws/job/%3E", "/ws/job/*", "/ws/job/a%20b", "/ws/job/1.2", "/ws/job/%2e", "/ws/job/%00"] {
        let status = client.get(target).await.status();
        assert!(matches!(status, 400 | 404), "{target}: {status}");
    }
}
