//! The WebSocket protocol in JSON: what each message does, and what is answered.

use crate::support::frame::PING;
use crate::support::{Frame, TestSidecar, WebSocketClient, eventually};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

async fn open(sidecar: &TestSidecar, target: &str) -> WebSocketClient {
    WebSocketClient::open(&sidecar.whereabouts().client(), target).await
}

#[tokio::test]
async fn the_first_message_is_a_welcome() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    let (client, welcome) = WebSocketClient::open_with_welcome(&address, "/v1/ws", &[]).await;
    assert!(!welcome["connection"].as_str().expect("connection").is_empty(), "{welcome}");
    assert!(!welcome["node"].as_str().expect("node").is_empty(), "{welcome}");
    assert_eq!(welcome["version"], env!("CARGO_PKG_VERSION"));
    assert!(!welcome["heartbeat"].is_null(), "{welcome}");
    let (_, other) = WebSocketClient::open_with_welcome(&address, "/v1/ws", &[]).await;
    assert_ne!(welcome["connection"], other["connection"]);
    assert_eq!(welcome["node"], other["node"]);
    client.close().await;
}

#[tokio::test]
async fn the_subprotocol_is_json_unless_another_is_asked_for() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    for (asked, granted) in [
        (None, None),
        (Some("sidewire.v1.json"), Some("sidewire.v1.json")),
        (Some("other.v9, sidewire.v1.json"), Some("sidewire.v1.json")),
        (Some("sidewire.v1.msgpack"), Some("sidewire.v1.msgpack")),
    ] {
        let mut headers: Vec<_> = asked.iter().map(|asked| ("Sec-WebSocket-Protocol", *asked)).collect();
        headers.push(("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"));
        let (client, _) = WebSocketClient::open_with_welcome(&address, "/v1/ws", &headers).await;
        let answered =
            client.response.headers().get("sec-websocket-protocol").map(|v| v.to_str().expect("text"));
        assert_eq!(answered, granted, "asked for {asked:?}");
        // Compression is offered, and not taken: a small frame is not to become a large message.
        assert!(client.response.headers().get("sec-websocket-extensions").is_none());
    }
}

#[tokio::test]
async fn channels_in_the_url_are_subscribed_before_the_first_message() {
    let sidecar = TestSidecar::start().await;
    for target in ["/v1/ws?channel=a,b.c", "/v1/ws?channel=a&channel=b.c"] {
        let mut client = open(&sidecar, target).await;
        let subscribed = client.expect("subscribed").await;
        assert_eq!(sorted(&subscribed["channels"]), ["a", "b.c"], "{subscribed}");
        assert_eq!(subscribed["resume"], "none");
        assert!(subscribed["cursor"].is_string(), "{subscribed}");
        sidecar.publish_numbers("b.c", 0..2).await;
        assert_eq!(client.next_numbers(2).await, [0, 1], "{target}");
    }
}

fn sorted(channels: &Value) -> Vec<&str> {
    let mut names: Vec<_> =
        channels.as_array().expect("channels").iter().map(|name| name.as_str().expect("text")).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn subscribe_and_unsubscribe_are_answered_under_their_id() {
    let sidecar = TestSidecar::start().await;
    let mut client = open(&sidecar, "/v1/ws").await;
    let answer = client.subscribe(&["one", "two.*"], json!({})).await;
    assert_eq!(sorted(&answer["channels"]), ["one", "two.*"], "{answer}");

    sidecar.publish_numbers("one", 0..1).await;
    sidecar.publish_numbers("two.x", 1..2).await;
    sidecar.publish_numbers("three", 2..3).await;
    assert_eq!(client.next_numbers(2).await, [0, 1]);

    client.send(&json!({"type": "unsubscribe", "id": 7, "channels": ["two.*"]})).await;
    let answer = client.expect("unsubscribed").await;
    assert_eq!(answer["id"], 7, "an id is echoed as it came: {answer}");
    sidecar.publish_numbers("two.x", 3..4).await;
    sidecar.publish_numbers("one", 4..5).await;
    assert_eq!(client.next_numbers(1).await, [4]);
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_channel_that_several_patterns_match_is_delivered_once() {
    let sidecar = TestSidecar::start().await;
    let mut client = open(&sidecar, "/v1/ws?channel=a.b&channel=a.*&channel=a.%3E").await;
    client.expect("subscribed").await;
    client.subscribe(&["a.b", "a.>"], json!({})).await;
    sidecar.publish_numbers("a.b", 0..3).await;
    assert_eq!(client.next_numbers(3).await, [0, 1, 2]);
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_ping_is_answered_under_its_id() {
    let sidecar = TestSidecar::start().await;
    let mut client = open(&sidecar, "/v1/ws").await;
    client.send(&json!({"type": "ping", "id": "p-1"})).await;
    assert_eq!(client.expect("pong").await["id"], "p-1");
    client.send(&json!({"type": "ping"})).await;
    client.expect("pong").await;
}

#[tokio::test]
async fn history_on_the_connection_comes_in_pages() {
    let sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("past", 0..25).await;
    let mut client = open(&sidecar, "/v1/ws").await;
    let mut found = Vec::new();
    let mut after = Value::Null;
    loop {
        client
            .send(&json!({"type": "history", "id": "h", "channel": "past", "after": after, "limit": 10}))
            .await;
        let page = client.expect("history").await;
        assert_eq!(page["id"], "h", "{page}");
        let events = page["events"].as_array().expect("events");
        found.extend(crate::support::numbers(events));
        if page["more"] == false {
            break;
        }
        assert_eq!(events.len(), 10, "{page}");
        after = page["cursor"].clone();
    }
    assert_eq!(found, (0..25).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_subscription_with_a_cursor_replays_and_goes_on_live() {
    let sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("replayed", 0..10).await;
    let cursor = sidecar.events("channel=replayed&order=asc&limit=4").await["cursor"].clone();
    let mut client = open(&sidecar, "/v1/ws").await;
    let answer = client.subscribe(&["replayed"], json!({"cursor": cursor})).await;
    assert_eq!(answer["resume"], "ok", "{answer}");
    assert_eq!(client.next_numbers(6).await, [4, 5, 6, 7, 8, 9]);
    sidecar.publish_numbers("replayed", 10..12).await;
    assert_eq!(client.next_numbers(2).await, [10, 11]);
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_second_subscription_with_a_cursor_does_not_repeat_what_the_first_delivers() {
    let sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("early", 0..3).await;
    sidecar.publish_numbers("late", 10..13).await;
    let mut client = open(&sidecar, "/v1/ws?channel=early&history=3").await;
    client.expect("subscribed").await;
    assert_eq!(client.next_numbers(3).await, [0, 1, 2]);
    let answer = client.subscribe(&["late"], json!({"history": 2})).await;
    assert_eq!(sorted(&answer["channels"]), ["late"], "{answer}");
    assert_eq!(client.next_numbers(2).await, [11, 12]);
    sidecar.publish_numbers("early", 3..4).await;
    sidecar.publish_numbers("late", 13..14).await;
    assert_eq!(client.next_numbers(2).await, [3, 13]);
    client.expect_nothing().await;
}

#[tokio::test]
async fn filters_of_a_subscribe_message_hold() {
    let sidecar = TestSidecar::start().await;
    let mut client = open(&sidecar, "/v1/ws").await;
    client.subscribe(&["jobs"], json!({"events": ["done", "failed"], "tags": {"team": "blue"}})).await;
    for (n, event, team) in
        [(0, "done", "blue"), (1, "step", "blue"), (2, "done", "red"), (3, "failed", "blue")]
    {
        sidecar
            .publish(&json!({"channel": "jobs", "event": event, "tags": {"team": team}, "data": {"n": n}}))
            .await;
    }
    assert_eq!(client.next_numbers(2).await, [0, 3]);
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_bad_message_gets_an_error_and_the_connection_goes_on() {
    let sidecar = TestSidecar::start().await;
    let mut client = open(&sidecar, "/v1/ws?channel=a").await;
    client.expect("subscribed").await;
    for (text, echoed) in [
        ("not json", None),
        ("[]", None),
        ("{}", None),
        (r#"{"type":"dance","id":1}"#, Some(json!(1))),
        (r#"{"type":17,"id":2}"#, Some(json!(2))),
        (r#"{"type":"subscribe","id":"s"}"#, Some(json!("s"))),
        (r#"{"type":"subscribe","id":"s","channels":[]}"#, Some(json!("s"))),
        (r#"{"type":"subscribe","id":"s","channels":7}"#, Some(json!("s"))),
        (r#"{"type":"subscribe","id":"s","channels":["a b"]}"#, Some(json!("s"))),
        (r#"{"type":"subscribe","id":"s","channels":["$secret"]}"#, Some(json!("s"))),
        (r#"{"type":"subscribe","id":"s","channels":["b"],"cursor":"nonsense"}"#, Some(json!("s"))),
        (r#"{"type":"subscribe","id":"s","channels":["b"],"history":-1}"#, Some(json!("s"))),
        (r#"{"type":"subscribe","id":"s","channels":["b"],"tags":7}"#, Some(json!("s"))),
        (r#"{"type":"history","id":"h"}"#, Some(json!("h"))),
        (r#"{"type":"history","id":"h","channel":"a","limit":"many"}"#, Some(json!("h"))),
        ("\"\\ud800\"", None),
    ] {
        client.send_raw(Message::text(text)).await;
        let error = client.expect("error").await;
        assert!(error["code"].is_string() && error["message"].is_string(), "{text}: {error}");
        if let Some(id) = echoed {
            assert_eq!(error["id"], id, "{text}: {error}");
        }
    }
    sidecar.publish_numbers("a", 0..1).await;
    assert_eq!(client.next_numbers(1).await, [0], "it goes on");
    assert!(client.bye.is_none());
}

#[tokio::test]
async fn what_clients_may_not_do_is_answered_and_the_connection_goes_on() {
    let sidecar = TestSidecar::start().await;
    let mut client = open(&sidecar, "/v1/ws?channel=a").await;
    client.expect("subscribed").await;
    for kind in ["publish", "presence", "state"] {
        client.send(&json!({"type": kind, "id": kind, "channel": "a", "data": 1, "token": "t"})).await;
        let error = client.expect("error").await;
        assert_eq!((&error["id"], &error["code"]), (&json!(kind), &json!("forbidden")), "{error}");
    }
    sidecar.publish_numbers("a", 0..1).await;
    assert_eq!(client.next_numbers(1).await, [0]);
}

#[tokio::test]
async fn deep_nesting_in_a_message_is_an_error_and_no_crash() {
    let mut sidecar = TestSidecar::start().await;
    let mut client = open(&sidecar, "/v1/ws").await;
    let deep = format!(r#"{{"type":"ping","id":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    client.send_raw(Message::text(deep)).await;
    client.expect("error").await;
    client.expect_nothing().await;
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn a_connection_that_ends_is_forgotten() {
    let sidecar = TestSidecar::start().await;
    let before = sidecar.connections().await;
    let mut open_ones = Vec::new();
    for at in 0..10 {
        let mut client = open(&sidecar, "/v1/ws?channel=gone").await;
        client.expect("subscribed").await;
        open_ones.push((at, client));
    }
    sidecar.wait_for_connections(before + 10).await;
    sidecar.wait_for_subscribers("gone", 10).await;
    for (at, client) in open_ones {
        // Half of them say goodbye, half just vanish.
        if at % 2 == 0 {
            client.close().await;
        }
    }
    sidecar.wait_for_connections(before).await;
    eventually("an idle channel is no longer listed", async || {
        let answer = sidecar.app().get("/v1/channels?prefix=gone").await.success();
        answer["channels"].as_array().expect("channels").is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_node_pings_a_silent_client() {
    let sidecar = TestSidecar::with_config("[client]\nheartbeat = \"200ms\"\n").await;
    let address = sidecar.whereabouts().client();
    let mut connection = crate::support::Connection::open(&address).await.expect("connected");
    let request = crate::support::upgrade_request(&address, "/v1/ws", "");
    connection.write(&request).await.expect("written");
    let head = crate::support::within("the upgrade", connection.read_head()).await.expect("a head");
    assert_eq!(head.status, 101);
    let mut stream = connection.into_stream();
    crate::support::within("a ping frame", async {
        while Frame::read(&mut stream).await.expect("a frame").opcode != PING {}
    })
    .await;
}

#[tokio::test]
async fn a_channel_joined_while_another_is_replayed_begins_where_it_was_asked_to() {
    let sidecar = TestSidecar::start().await;
    let begin = sidecar.cursor_now().await;
    for round in 0..20 {
        sidecar.publish_numbers("long", round * 100..round * 100 + 100).await;
        sidecar.publish_numbers("late", round * 100..round * 100 + 100).await;
    }
    let mut client = open(&sidecar, "/v1/ws").await;
    client.send(&json!({"type": "subscribe", "channels": ["long"], "cursor": begin})).await;
    client.send(&json!({"type": "subscribe", "channels": ["late"]})).await;
    let (mut long, mut late_begun) = (Vec::new(), false);
    while long.len() < 2_000 || !late_begun {
        let message = client.next().await;
        match message["type"].as_str() {
            Some("event") => {
                assert_eq!(message["channel"], "long", "the other one begins now: {message}");
                long.push(message["data"]["n"].as_u64().expect("a number"));
            }
            Some("subscribed") => late_begun |= message["channels"] == json!(["late"]),
            _ => {}
        }
    }
    assert_eq!(long, (0..2_000).collect::<Vec<_>>());
    client.expect_nothing().await;
    sidecar.publish_numbers("late", 7..8).await;
    assert_eq!(client.next_numbers(1).await, [7]);
}

#[tokio::test]
async fn history_on_the_connection_has_a_limit() {
    let sidecar = TestSidecar::start().await;
    let mut client = open(&sidecar, "/v1/ws").await;
    client.send(&json!({"type": "history", "id": "h", "channel": "a", "limit": 1_001})).await;
    assert_eq!(client.expect("error").await["code"], "invalid_parameter");
}
