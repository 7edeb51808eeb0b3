//! Fields that rules strip from events, whatever way these come: nobody sees them afterwards, not the clients, not the
//! bus, not the disk.

use crate::support::{
    BusKind, BusServer, Fleet, HttpClient, Subscription, TestSidecar, Transport, WebSocketClient, eventually,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::Path;

const MARK: &str = "stripped-4711";

const RULES: &str = "
[[channels]]
pattern = \"open.>\"
publish = true

[[channels]]
pattern = \"shut.>\"
publish = true
redact = [\"password\", \"card.number\", \"$.trace.*\"]
";

fn secret() -> Value {
    json!({
        "password": MARK, "n": 1, "items": [{"password": {"deep": MARK}, "card": {"number": MARK, "name": "a"}}],
        "trace": {"a": MARK, "b": [MARK]}, "inner": {"trace": {"a": 1}},
    })
}

fn rest() -> Value {
    json!({"n": 1, "items": [{"card": {"name": "a"}}], "trace": {}, "inner": {"trace": {"a": 1}}})
}

fn shows(directory: &Path) -> bool {
    std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()).any(
        |path| {
            if path.is_dir() {
                return shows(&path);
            }
            let bytes = std::fs::read(&path).expect("a file");
            bytes.windows(MARK.len()).any(|part| part == MARK.as_bytes())
        },
    )
}

#[tokio::test]
async fn fields_are_stripped_from_every_form_of_publish() {
    let config = format!("[log]\ncompress = false\n{RULES}");
    let mut sidecar = TestSidecar::with_config(&config).await;
    let address = sidecar.whereabouts().client();
    let mut client = WebSocketClient::open(&address, "/v1/ws?channel=shut.%3E").await;
    client.expect("subscribed").await;
    let event = json!({"channel": "shut.a", "id": "one", "data": secret()});
    let mut app: HttpClient = sidecar.app();
    let msgpack = rmp_serde::to_vec(&event).expect("it is a value");
    let escaped = event.to_string().replace("\"password\"", "\"pass\\u0077ord\"");
    let form = format!("channel=shut.a&data={}", percent(&secret().to_string()));
    let cloud = json!({
        "specversion": "1.0", "type": "t", "source": "s", "id": "cloud", "subject": "shut.a", "data": secret(),
    });
    let mut count = 0;
    for (target, content_type, body) in [
        ("/v1/publish", "application/json", event.to_string()),
        ("/v1/publish", "application/json", escaped.replace("\"one\"", "\"two\"")),
        ("/v1/publish", "application/x-ndjson", event.to_string().replace("\"one\"", "\"three\"")),
        ("/v1/publish", "application/x-www-form-urlencoded", form),
        ("/v1/publish?channel=shut.a", "application/cloudevents+json", cloud.to_string()),
        ("/v1/channels/shut.a", "application/json", secret().to_string()),
        ("/v1/channels/shut.a", "text/plain", serde_json::to_string_pretty(&secret()).expect("JSON")),
    ] {
        let answer = app.post(target, content_type, body.as_bytes()).await;
        assert_eq!(answer.status(), 200, "{target} {content_type}: {}", answer.text());
        assert_eq!(client.next_event().await["data"], rest(), "{target} {content_type}");
        count += 1;
    }
    let answer = app.post("/v1/publish", "application/msgpack", &msgpack).await;
    assert_eq!(answer.success()["status"], "duplicate", "ids are as they were");
    let other = rmp_serde::to_vec(&json!({"channel": "shut.a", "data": secret()})).expect("it is a value");
    app.post("/v1/publish", "application/msgpack", &other).await.success();
    assert_eq!(client.next_event().await["data"], rest());
    let message = json!({"type": "publish", "channel": "shut.b", "data": secret(), "echo": true});
    client.send(&message).await;
    let (one, two) = (client.next().await, client.next().await);
    let echoed = if one["type"] == "event" { one } else { two };
    assert_eq!(echoed["data"], rest());
    count += 2;
    let answer =
        sidecar.client().post_json("/v1/publish", &json!({"channel": "shut.b", "data": secret()})).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(client.next_event().await["data"], rest());
    count += 1;
    let kept = sidecar.all_events("channel=shut.%3E").await;
    assert_eq!(kept.len(), count);
    assert!(kept.iter().all(|event| event["data"] == rest()));
    // Five fields of each: the duplicate was stripped, too.
    let stripped = sidecar.metrics().await.sum("sidewire_redacted_fields_total", &[]);
    assert_eq!(stripped as usize, (count + 1) * 5);
    assert!(!sidecar.log().contains(MARK));
    sidecar.kill();
    assert!(!shows(sidecar.data()), "on the disk");
    // Without a rule it stays as it came.
    sidecar.start_again().await;
    sidecar.publish(&json!({"channel": "open.a", "data": secret()})).await;
    assert_eq!(sidecar.last("open.a").await.expect("it was kept")["data"], secret());
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn data_in_which_no_field_can_be_seen_is_refused() {
    let sidecar = TestSidecar::with_config(RULES).await;
    let mut app = sidecar.app();
    for (content_type, body) in [
        ("application/octet-stream", &[0xff, 0xfe][..]),
        // No JSON that clients can read, and therefore a text.
        ("text/plain", b"{\"password\": \"x\", \"a\": \"\\ud800\"}"),
        ("text/plain", b" [{\"password\": 1}"),
    ] {
        let answer = app.post("/v1/channels/shut.a", content_type, body).await;
        assert_eq!(answer.refusal(400), "opaque_data");
        assert_eq!(app.post("/v1/channels/open.a", content_type, body).await.status(), 200);
    }
    let both = json!([{"channel": "shut.a", "data": "{"}, {"channel": "shut.a", "data": "fine"}]);
    let answer = app.post_json("/v1/publish", &both).await.success();
    assert_eq!(answer["results"][0]["code"], "opaque_data");
    assert_eq!(answer["results"][1]["status"], "published");
    assert_eq!(sidecar.all_events("channel=shut.a").await.len(), 1);
}

#[tokio::test]
async fn what_others_put_on_the_bus_is_stripped_on_arrival_and_nothing_goes_there() {
    let kind = BusKind::RedisPubSub;
    let fleet = Fleet::with_config(kind, 2, "", RULES).await;
    let mut clients = Vec::new();
    for node in &fleet.nodes {
        let address = node.whereabouts().client();
        clients.push(Subscription::open(Transport::WebSocket, &address, "channel=shut.%3E", None).await);
    }
    let BusServer::Redis(redis) = &fleet.server else { panic!("it is Redis") };
    let mut observer = redis.client().get_async_pubsub().await.expect("Redis answers");
    observer.psubscribe("*").await.expect("Redis takes it");
    let mut connection = redis.connection().await;
    for payload in [secret().to_string().into_bytes(), vec![0xff, 0xfe]] {
        let mut command = redis::cmd("PUBLISH");
        command.arg("shut.a").arg(payload);
        command.query_async::<i64>(&mut connection).await.expect("Redis takes it");
    }
    for client in &mut clients {
        assert_eq!(client.next().await.event["data"], rest());
        assert_eq!(client.next().await.event["data"], Value::Null, "bytes hide what is in them");
    }
    fleet.nodes[0].publish(&json!({"channel": "shut.own", "data": secret()})).await;
    for client in &mut clients {
        assert_eq!(client.next().await.event["data"], rest());
    }
    let seen = own_message(&mut observer).await;
    assert!(!seen.contains(MARK) && seen.contains("\"name\""), "{seen}");
}

/// What a node put on the bus in `shut.own`, as anybody there sees it.
async fn own_message(observer: &mut redis::aio::PubSub) -> String {
    use futures_util::StreamExt as _;
    let mut messages = observer.on_message();
    loop {
        let message = messages.next().await.expect("the bus stays");
        let text: Vec<u8> = message.get_payload().expect("bytes");
        let text = String::from_utf8_lossy(&text).into_owned();
        if text.contains("shut.own") {
            return text;
        }
    }
}

#[tokio::test]
async fn rules_change_while_it_runs() {
    let mut sidecar = TestSidecar::with_config("").await;
    let publish = json!({"channel": "later", "data": secret()});
    sidecar.publish(&publish).await;
    assert_eq!(sidecar.last("later").await.expect("it was kept")["data"], secret());
    sidecar.rewrite_config(&RULES.replace("shut.>", ">").replace("open.>", "open"));
    sidecar.signal(Signal::HUP);
    eventually("the new rules", async || {
        sidecar.publish(&publish).await;
        (sidecar.last("later").await.expect("it was kept")["data"] == rest()).then_some(())
    })
    .await;
}
