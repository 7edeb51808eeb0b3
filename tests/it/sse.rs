//! Server-sent events, as a browser's `EventSource` reads them.

use crate::support::{SseClient, SseItem, TestSidecar, within};
use serde_json::{Value, json};

async fn open(sidecar: &TestSidecar, target: &str, last_event_id: Option<&str>) -> SseClient {
    let headers: Vec<_> = last_event_id.iter().map(|id| ("Last-Event-ID", *id)).collect();
    SseClient::open(&sidecar.whereabouts().client(), target, &headers).await
}

#[tokio::test]
async fn the_head_forbids_caching_and_buffering() {
    let sidecar = TestSidecar::start().await;
    let stream = open(&sidecar, "/v1/sse?channel=a", None).await;
    let caching = stream.head.header("cache-control").expect("Cache-Control");
    assert!(caching.contains("no-cache") || caching.contains("no-store"), "{caching}");
    // nginx would otherwise keep events back until its buffer is full.
    assert_eq!(stream.head.header("x-accel-buffering"), Some("no"));
}

#[tokio::test]
async fn an_event_has_its_cursor_as_id_its_name_and_the_event_as_json() {
    let sidecar = TestSidecar::start().await;
    let mut stream = open(&sidecar, "/v1/sse?channel=a.*", None).await;
    let answer = sidecar.publish(&json!({"channel": "a.b", "event": "saved", "data": {"x": [1, "ü"]}})).await;
    let (name, data, last_id) = stream.next_event().await;
    assert_eq!(name, "saved");
    assert_eq!(last_id, answer["cursor"]);
    let event: Value = serde_json::from_str(&data).expect("JSON");
    assert_eq!(event["type"], "event");
    assert_eq!((&event["channel"], &event["data"]), (&json!("a.b"), &json!({"x": [1, "ü"]})));
    assert_eq!((&event["id"], &event["cursor"]), (&answer["id"], &answer["cursor"]));
}

#[tokio::test]
async fn raw_data_is_the_data_alone() {
    let sidecar = TestSidecar::start().await;
    let mut stream = open(&sidecar, "/v1/sse?channel=a&data=raw", None).await;
    let awkward = "first\nsecond\r\nthird\rfourth\u{0}\u{feff}: no comment\u{2028}data: no field";
    for data in [json!({"n": 1}), json!("plain"), json!(awkward), json!(17), json!("")] {
        sidecar.publish(&json!({"channel": "a", "data": data})).await;
        let (name, received, _) = stream.next_event().await;
        assert_eq!(name, "message");
        let value: Value =
            serde_json::from_str(&received).unwrap_or_else(|error| panic!("{error}: {received}"));
        assert_eq!(value, data);
    }
    // White space between the tokens may be gone, and must not end a line.
    let pretty = b"{\"channel\": \"a\",\r\n\"data\": {\r\n\n\"n\":\r7\n}\n}";
    sidecar.publish_as("application/json", "", pretty).await.success();
    let (_, received, _) = stream.next_event().await;
    assert_eq!(serde_json::from_str::<Value>(&received).expect("JSON"), json!({"n": 7}));
}

#[tokio::test]
async fn nothing_in_an_event_can_forge_a_field() {
    let sidecar = TestSidecar::start().await;
    let mut stream = open(&sidecar, "/v1/sse?channel=a", None).await;
    let awkward =
        "x\n\nevent: forged\ndata: forged\n\nid: forged\r\rretry: 1\r\n\u{feff}\u{0}\u{2028}\u{2029}";
    let answer =
        sidecar.publish(&json!({"channel": "a", "id": "ü:1", "event": "na: me", "data": awkward})).await;
    let (name, data, last_id) = stream.next_event().await;
    assert_eq!(name, "na: me");
    assert_eq!(last_id, answer["cursor"]);
    assert_eq!(serde_json::from_str::<Value>(&data).expect("JSON")["data"], awkward);
    sidecar.publish_numbers("a", 1..2).await;
    assert_eq!(stream.next_json().await["data"]["n"], 1, "nothing came between");
}

#[tokio::test]
async fn last_event_id_resumes_over_many_channels() {
    let sidecar = TestSidecar::start().await;
    let target = "/v1/sse?channel=orders.*,alerts&channel=user.5";
    let mut stream = open(&sidecar, target, None).await;
    let channels = ["orders.1", "alerts", "user.5", "other", "orders.2"];
    for n in 0..10 {
        sidecar.publish_numbers(channels[n as usize % 5], n..n + 1).await;
    }
    let mut last_id = String::new();
    for expected in [0, 1, 2] {
        let (_, data, id) = stream.next_event().await;
        assert_eq!(serde_json::from_str::<Value>(&data).expect("JSON")["data"]["n"], expected);
        last_id = id;
    }
    drop(stream);
    for by in ["header", "cursor=", "last_event_id="] {
        let mut again = match by {
            "header" => open(&sidecar, target, Some(&last_id)).await,
            parameter => open(&sidecar, &format!("{target}&{parameter}{last_id}"), None).await,
        };
        for expected in [4, 5, 6, 7, 9] {
            let (name, data, _) = again.next_event().await;
            assert_eq!(name, "message", "a resume that is ok says nothing");
            assert_eq!(serde_json::from_str::<Value>(&data).expect("JSON")["data"]["n"], expected, "by {by}");
        }
    }
}

#[tokio::test]
async fn the_header_of_a_reconnect_goes_before_the_cursor_that_the_page_put_into_the_url() {
    let sidecar = TestSidecar::start().await;
    let begin = sidecar.cursor_now().await;
    sidecar.publish_numbers("a", 0..3).await;
    let last_id = sidecar.last("a").await.expect("kept")["cursor"].as_str().expect("cursor").to_owned();
    // A browser repeats the URL as it was, and adds what it has seen since.
    let mut again = open(&sidecar, &format!("/v1/sse?channel=a&cursor={begin}"), Some(&last_id)).await;
    sidecar.publish_numbers("a", 3..4).await;
    assert_eq!(again.next_json().await["data"]["n"], 3);
}

#[tokio::test]
async fn two_reconnects_in_a_row_without_new_events_repeat_nothing() {
    let sidecar = TestSidecar::start().await;
    let mut stream = open(&sidecar, "/v1/sse?channel=a", None).await;
    sidecar.publish_numbers("a", 0..3).await;
    let mut last_id = String::new();
    for _ in 0..3 {
        last_id = stream.next_event().await.2;
    }
    for _ in 0..2 {
        drop(open(&sidecar, "/v1/sse?channel=a", Some(&last_id)).await);
    }
    let mut stream = open(&sidecar, "/v1/sse?channel=a", Some(&last_id)).await;
    sidecar.publish_numbers("a", 3..4).await;
    assert_eq!(stream.next_json().await["data"]["n"], 3);
}

#[tokio::test]
async fn a_resume_that_is_not_ok_says_so_first() {
    let sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("a", 0..2).await;
    // A cursor of the same form, from a log that this node never had.
    let other = TestSidecar::start().await;
    other.publish_numbers("a", 0..5).await;
    let foreign = other.last("a").await.expect("kept")["cursor"].as_str().expect("cursor").to_owned();

    let mut stream = open(&sidecar, "/v1/sse?channel=a", Some(&foreign)).await;
    let (name, data, _) = stream.next_event().await;
    assert_eq!(name, "sidewire.resume");
    assert_eq!(serde_json::from_str::<Value>(&data).expect("JSON")["resume"], "reset", "{data}");
    sidecar.publish_numbers("a", 2..3).await;
    assert_eq!(stream.next_json().await["data"]["n"], 2, "a reset starts now");
}

#[tokio::test]
async fn a_silent_stream_carries_comments() {
    let sidecar = TestSidecar::with_config("[client]\nsse_heartbeat = \"200ms\"\n").await;
    let mut stream = open(&sidecar, "/v1/sse?channel=a", None).await;
    let mut comments = 0;
    within("two heartbeat comments", async {
        while comments < 2 {
            match stream.next().await {
                SseItem::Comment(_) => comments += 1,
                SseItem::Event { name, .. } => panic!("no event was published: {name}"),
                SseItem::Retry(_) => {}
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_without_a_channel_or_with_a_bad_parameter_is_refused() {
    let mut sidecar = TestSidecar::start().await;
    for (target, code) in [
        ("/v1/sse", "invalid_channel"),
        ("/v1/sse?channel=", "invalid_channel"),
        ("/v1/sse?channel=a%20b", "invalid_channel"),
        ("/v1/sse?channel=a&cursor=nonsense", "invalid_cursor"),
    ] {
        let answer = sidecar.client().get(target).await;
        assert_eq!(answer.refusal(400), code, "{target}");
    }
    let (long, much_longer) = ("A".repeat(8_000), "A".repeat(1 << 20));
    for id in ["-1", "18446744073709551616", "%00%ff", "../../etc/passwd", "\u{ff}\u{fe}", &*long] {
        let headers = [("Last-Event-ID", id)];
        let answer = sidecar.client().request("GET", "/v1/sse?channel=a", &headers, b"").await;
        assert_eq!(answer.refusal(400), "invalid_cursor", "{id:.40}");
    }
    // More than any head may have: refused, or cut off in the middle of it.
    let headers = [("Last-Event-ID", &*much_longer)];
    let answer = sidecar.client().try_request("GET", "/v1/sse?channel=a", &headers, b"").await;
    assert!(answer.as_ref().map_or(true, |answer| matches!(answer.status(), 400 | 431)), "{answer:?}");
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn a_client_that_goes_away_is_forgotten() {
    let sidecar = TestSidecar::start().await;
    let before = sidecar.connections().await;
    let streams =
        [open(&sidecar, "/v1/sse?channel=a", None).await, open(&sidecar, "/v1/sse?channel=a", None).await];
    sidecar.wait_for_connections(before + 2).await;
    drop(streams);
    sidecar.wait_for_connections(before).await;
}
