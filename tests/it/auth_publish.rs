//! Clients that publish: where they may, and in nobody's name but their own.

use crate::support::{TestSidecar, Tokens, WebSocketClient};
use serde_json::{Value, json};

const RULES: &str = "[[channels]]\npattern = \"fixed.>\"\npublish = false\n";

async fn sidecar() -> TestSidecar {
    TestSidecar::with_config(&format!("{}{RULES}", Tokens::config())).await
}

#[tokio::test]
async fn a_client_publishes_where_it_may_and_signs_what_it_sends() {
    let mut tokens = Tokens::new();
    let sidecar = sidecar().await;
    let address = sidecar.whereabouts().client();
    let ann = tokens.user("ann", &json!({"room.*": ["sub", "pub"], "fixed.a": ["pub"], "read": ["sub"]}));
    let bob = tokens.user("bob", &json!({"room.*": ["sub", "pub"]}));
    let target = |token: &str| format!("/v1/ws?channel=room.1&token={token}");
    let (mut sender, welcome) = WebSocketClient::open_with_welcome(&address, &target(&ann), &[]).await;
    sender.expect("subscribed").await;
    let mut reader = WebSocketClient::open(&address, &target(&bob)).await;
    reader.expect("subscribed").await;

    let forged = json!({
        "type": "publish", "id": 5, "channel": "room.1", "event": "said", "data": {"text": "hi"},
        "from": {"user": "root", "connection": "x"}, "exclude": "nobody", "tags": {"k": "v"},
    });
    sender.send(&forged).await;
    let answer = sender.expect("published").await;
    assert_eq!((&answer["id"], &answer["status"]), (&json!(5), &json!("published")));
    let event = reader.next_event().await;
    assert_eq!(event["id"], answer["event_id"]);
    assert_eq!((&event["event"], &event["data"]), (&json!("said"), &json!({"text": "hi"})));
    assert_eq!(event["from"], json!({"user": "ann", "connection": welcome["connection"]}));
    sender.expect_nothing().await;

    sender.send(&json!({"type": "publish", "channel": "room.1", "data": 2, "echo": true, "ttl": 0})).await;
    let (one, other) = (sender.next().await, sender.next().await);
    let kinds = [&one["type"], &other["type"]];
    assert!(kinds.contains(&&json!("published")) && kinds.contains(&&json!("event")), "{kinds:?}");
    assert_eq!(reader.next_event().await["data"], 2);

    for (channel, code) in [
        ("read", "forbidden"),
        ("fixed.a", "forbidden"),
        ("room.1.2", "forbidden"),
        ("a..b", "invalid_channel"),
        ("room.*", "invalid_channel"),
    ] {
        sender.send(&json!({"type": "publish", "id": channel, "channel": channel, "data": 1})).await;
        let answer = sender.expect("error").await;
        assert_eq!((&answer["code"], &answer["id"]), (&json!(code), &json!(channel)));
    }
    for message in [
        json!({"type": "publish", "data": 1}),
        json!({"type": "publish", "channels": ["room.1", "room.2"], "data": 1}),
        json!({"type": "publish", "channel": "room.1", "data": 1, "ttl": "soon"}),
    ] {
        sender.send(&message).await;
        sender.expect("error").await;
    }
    // Kept with its sender, and shown with it, also after a restart.
    let mut sidecar = sidecar;
    sidecar.kill_and_start_again().await;
    let kept = sidecar.events("channel=room.1").await;
    let events = kept["events"].as_array().expect("events");
    assert_eq!(events.len(), 1, "{kept}");
    assert_eq!(events[0]["from"]["user"], "ann");
}

#[tokio::test]
async fn message_pack_carries_the_same() {
    let mut tokens = Tokens::new();
    let sidecar = sidecar().await;
    let address = sidecar.whereabouts().client();
    let ann = tokens.user("ann", &json!({"a": ["sub", "pub"]}));
    let mut client = WebSocketClient::open_msgpack(&address, &format!("/v1/ws?channel=a&token={ann}")).await;
    client.expect("subscribed").await;
    client
        .send_msgpack(&json!({"type": "publish", "id": 1, "channel": "a", "data": [1, "x"], "echo": true}))
        .await;
    let mut seen = vec![client.next().await, client.next().await];
    seen.sort_by_key(|message| message["type"].as_str().map(str::to_owned));
    assert_eq!(seen[0]["from"]["user"], "ann", "{seen:?}");
    assert_eq!(seen[0]["data"], json!([1, "x"]));
    assert_eq!(seen[1]["status"], "published");
}

#[tokio::test]
async fn a_post_publishes_as_the_apps_does_within_what_is_allowed() {
    let mut tokens = Tokens::new();
    let sidecar = sidecar().await;
    let ann = tokens.user("ann", &json!({"room.*": ["pub"]}));
    let mut client = sidecar.client();
    let target = format!("/v1/publish?token={ann}");
    let answer = client
        .post_json(&target, &json!({"channel": "room.1", "id": "x", "data": 1, "from": {"user": "eve"}}))
        .await;
    assert_eq!(answer.success()["status"], "published");
    let again =
        client.post_json(&target, &json!({"channel": "room.1", "id": "x", "data": 1})).await.success();
    assert_eq!(again["status"], "duplicate");
    // An id that a client has taken is still free for the app.
    assert_eq!(sidecar.publish(&json!({"channel": "jobs", "id": "x"})).await["status"], "published");

    let batch = json!([{"channel": "room.2", "data": 1}, {"channel": "jobs", "data": 2}, {"channel": "room.3", "data": 3}]);
    let answer = client.post_json(&target, &batch).await.success();
    let words: Vec<&Value> = answer["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|entry| entry.get("status").unwrap_or(&entry["code"]))
        .collect();
    assert_eq!(words, ["published", "forbidden", "published"]);
    let kept = sidecar.events("channel=room.>").await;
    assert!(
        kept["events"].as_array().expect("events").iter().all(|event| event["from"]["user"] == "ann"),
        "{kept}"
    );

    for (body, status) in [
        (json!({"channel": "jobs", "data": 1}), 403),
        (json!({"channel": "fixed.a", "data": 1}), 403),
        (json!({"channel": "room.1", "exclude": "someone-1"}), 403),
    ] {
        assert_eq!(client.post_json(&target, &body).await.refusal(status), "forbidden", "{body}");
    }
    assert_eq!(
        client.post_json("/v1/publish", &json!({"channel": "room.1"})).await.refusal(401),
        "unauthorized"
    );
    assert_eq!(client.get(&target).await.refusal(405), "method_not_allowed");
    let large = json!({"channel": "room.1", "data": "x".repeat(100_000)});
    assert_eq!(client.post_json(&target, &large).await.refusal(413), "too_large");
}

#[tokio::test]
async fn without_authentication_clients_publish_only_where_a_rule_says_so() {
    let rules = "[[channels]]\npattern = \"open\"\npublish = true\n";
    let sidecar = TestSidecar::with_config(rules).await;
    let mut client = sidecar.client();
    assert_eq!(client.post_json("/v1/publish", &json!({"channel": "a"})).await.refusal(403), "forbidden");
    let answer = client.post_json("/v1/publish", &json!({"channel": "open", "data": 1})).await;
    assert_eq!(answer.success()["status"], "published");
    let event = sidecar.last("open").await.expect("kept");
    assert!(event["from"]["connection"].is_string() && event["from"].get("user").is_none(), "{event}");
    let mut socket = WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws").await;
    socket.send(&json!({"type": "publish", "channel": "a", "data": 1})).await;
    assert_eq!(socket.expect("error").await["code"], "forbidden");
}
