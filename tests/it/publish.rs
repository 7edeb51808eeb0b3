//! What an app sends: every body form, several channels, ids, ttl, tags, acknowledgement levels.

use crate::support::{Address, HttpClient, Setup, Subscription, TestSidecar, Transport, WebSocketClient};
use base64::Engine as _;
use serde_json::{Value, json};

#[tokio::test]
async fn an_object_is_answered_with_id_channel_status_and_cursor_and_reaches_a_client() {
    let sidecar = TestSidecar::start().await;
    let mut client =
        WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws?channel=cron.execution.5").await;
    client.expect("subscribed").await;

    let answer = sidecar
        .publish(&json!({
            "channel": "cron.execution.5",
            "event": "execution-update",
            "data": {"progress": 45},
            "tags": {"host": "web-2"},
        }))
        .await;

    assert_eq!(answer["status"], "published", "{answer}");
    assert_eq!(answer["channel"], "cron.execution.5");
    assert_eq!(answer["id"].as_str().expect("id").len(), 36, "a UUIDv7: {answer}");
    let event = client.next_event().await;
    assert_eq!(event["id"], answer["id"]);
    assert_eq!(event["cursor"], answer["cursor"]);
    assert_eq!(event["channel"], "cron.execution.5");
    assert_eq!(event["event"], "execution-update");
    assert_eq!(event["data"], json!({"progress": 45}));
    assert_eq!(event["tags"], json!({"host": "web-2"}));
    assert!(event["time"].as_u64().expect("time") > 1_700_000_000_000, "Unix ms: {event}");
}

#[tokio::test]
async fn the_least_is_a_channel_and_the_event_is_then_a_message() {
    let sidecar = TestSidecar::start().await;
    sidecar.publish(&json!({"channel": "a", "data": "x"})).await;
    let event = sidecar.last("a").await.expect("kept");
    assert_eq!(event["event"], "message");
    assert!(event.get("tags").is_none(), "tags only if there are any: {event}");
}

#[tokio::test]
async fn one_publish_reaches_several_channels() {
    let sidecar = TestSidecar::start().await;
    let body = json!({"channels": ["cron.execution.5", "cron.execution.global"], "data": 1, "id": "both"});
    let answer = sidecar.publish(&body).await;
    let channels: Vec<&Value> =
        answer["results"].as_array().expect("results").iter().map(|e| &e["channel"]).collect();
    assert_eq!(channels, ["cron.execution.5", "cron.execution.global"]);
    for channel in ["cron.execution.5", "cron.execution.global"] {
        assert_eq!(sidecar.last(channel).await.expect("kept")["data"], 1);
    }

    let again = sidecar.publish(&body).await;
    for entry in again["results"].as_array().expect("results") {
        assert_eq!(entry["status"], "duplicate", "{again}");
    }
    assert_eq!(sidecar.all_events("channel=cron.execution.*").await.len(), 2);
}

#[tokio::test]
async fn one_bad_entry_of_an_array_spoils_none_of_the_others() {
    let sidecar = TestSidecar::start().await;
    let answer = sidecar
        .publish(&json!([
            {"channel": "batch", "data": {"n": 0}},
            {"channel": "bad channel", "data": {"n": 1}},
            {"data": {"n": 2}},
            17,
            {"channel": "batch", "data": {"n": 4}, "ttl": "soon"},
            {"channel": "batch", "data": {"n": 5}},
        ]))
        .await;
    let results = answer["results"].as_array().expect("results");
    assert_eq!(results.len(), 6, "{answer}");
    for (at, entry) in results.iter().enumerate() {
        if matches!(at, 0 | 5) {
            assert_eq!(entry["status"], "published", "{at}: {entry}");
        } else {
            assert!(entry["code"].is_string() && entry["message"].is_string(), "{at}: {entry}");
        }
    }
    assert_eq!(results[1]["code"], "invalid_channel");
    let kept = sidecar.all_events("channel=batch").await;
    assert_eq!(crate::support::numbers(&kept), [0, 5]);
}

#[tokio::test]
async fn ndjson_is_one_event_a_line() {
    let sidecar = TestSidecar::start().await;
    let lines = "{\"channel\":\"lines\",\"data\":{\"n\":0}}\n{\"channel\":\"lines\",\n\n\
                 {\"channel\":\"lines\",\"data\":{\"n\":1}}\r\n{\"channel\":\"lines\",\"data\":{\"n\":2}}";
    let answer = sidecar.publish_as("application/x-ndjson", "", lines.as_bytes()).await.success();
    let results = answer["results"].as_array().expect("results");
    assert_eq!(results.len(), 4, "empty lines are none: {answer}");
    assert_eq!(results[1]["code"], "invalid_json", "{answer}");
    assert_eq!(crate::support::numbers(&sidecar.all_events("channel=lines").await), [0, 1, 2]);
}

#[tokio::test]
async fn messagepack_has_the_same_shape_and_carries_bytes() {
    let sidecar = TestSidecar::start().await;
    let one = rmpv::Value::Map(vec![
        ("channel".into(), "packed".into()),
        ("data".into(), rmpv::Value::Binary(vec![0, 255, 128])),
        ("event".into(), "raw".into()),
    ]);
    let mut body = Vec::new();
    rmpv::encode::write_value(&mut body, &one).expect("a vector takes everything");
    let answer = sidecar.publish_as("application/msgpack", "", &body).await.success();
    assert_eq!(answer["status"], "published", "{answer}");
    let event = sidecar.last("packed").await.expect("kept");
    let text = base64::engine::general_purpose::STANDARD.encode([0, 255, 128]);
    assert_eq!(event["data"], json!({"$base64": text}));

    let several =
        json!([{"channel": "packed", "data": {"n": 1.5, "t": "ü", "a": [null, true, -3]}}, {"channel": 7}]);
    let body = rmp_serde::to_vec_named(&several).expect("JSON fits into MessagePack");
    let answer = sidecar.publish_as("application/msgpack", "", &body).await.success();
    assert_eq!(answer["results"][0]["status"], "published", "{answer}");
    assert!(answer["results"][1]["code"].is_string(), "{answer}");
    assert_eq!(sidecar.last("packed").await.expect("kept")["data"], several[0]["data"]);
}

#[tokio::test]
async fn a_form_is_what_php_sends_without_an_sdk() {
    let sidecar = TestSidecar::start().await;
    for (data, expected) in [
        ("%7B%22id%22%3A5%7D", json!({"id": 5})),
        ("hello+world", json!("hello world")),
        ("17", json!(17)),
        ("%22text%22", json!("text")),
        ("%C3%BC%20%26%20%7B", json!("ü & {")),
    ] {
        let form = format!("channel=form.one&event=saved&data={data}");
        let answer =
            sidecar.publish_as("application/x-www-form-urlencoded", "", form.as_bytes()).await.success();
        assert_eq!(answer["status"], "published", "{answer}");
        let event = sidecar.last("form.one").await.expect("kept");
        assert_eq!((&event["event"], &event["data"]), (&json!("saved"), &expected));
    }
    let typed = sidecar
        .publish_as("application/x-www-form-urlencoded; charset=UTF-8", "", b"channel=form.two&data=1")
        .await;
    assert_eq!(typed.success()["status"], "published");
}

#[tokio::test]
async fn the_channel_may_be_in_the_path_and_the_body_is_then_the_data() {
    let sidecar = TestSidecar::start().await;
    let bytes = [0x00, 0xff, 0xfe];
    let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
    for (content_type, body, expected) in [
        ("application/json", &b"{\"a\": 1}"[..], json!({"a": 1})),
        ("application/vnd.api+json", b"[1]", json!([1])),
        ("text/plain", b"[1, 2]", json!([1, 2])),
        ("text/plain", "grüße".as_bytes(), json!("grüße")),
        ("application/octet-stream", b"plain", json!("plain")),
        ("application/octet-stream", &bytes, json!({"$base64": base64})),
    ] {
        let answer = sidecar.app().post("/v1/channels/raw.body", content_type, body).await.success();
        assert_eq!(answer["channel"], "raw.body", "{answer}");
        assert_eq!(sidecar.last("raw.body").await.expect("kept")["data"], expected, "{content_type}");
    }
    let bad = sidecar.app().post("/v1/channels/raw.body", "application/json", b"{\"a\": ").await;
    assert_eq!(bad.refusal(400), "invalid_json");

    let target = "/v1/channels/raw.query?event=saved&id=only-once&ttl=60&ack=log";
    let first = sidecar.app().post(target, "text/plain", b"x").await.success();
    assert_eq!((&first["id"], &first["status"]), (&json!("only-once"), &json!("published")));
    assert_eq!(sidecar.app().post(target, "text/plain", b"x").await.success()["status"], "duplicate");
    assert_eq!(sidecar.last("raw.query").await.expect("kept")["event"], "saved");
}

#[tokio::test]
async fn the_idempotency_key_is_the_id_of_a_single_event() {
    let sidecar = TestSidecar::start().await;
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "order-17")];
    let body = br#"{"channel": "orders", "data": 1}"#;
    let mut app = sidecar.app();
    let first = app.request("POST", "/v1/publish", &headers, body).await.success();
    assert_eq!((&first["id"], &first["status"]), (&json!("order-17"), &json!("published")));
    let second = app.request("POST", "/v1/publish", &headers, body).await.success();
    assert_eq!((&second["id"], &second["status"]), (&json!("order-17"), &json!("duplicate")));
}

#[tokio::test]
async fn an_event_with_ttl_0_is_delivered_live_and_not_kept() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    let mut live = Vec::new();
    for transport in Transport::ALL {
        let cursor = sidecar.cursor_now().await;
        live.push((transport, Subscription::open(transport, &address, "channel=live", Some(&cursor)).await));
    }
    // A poll and a stream are subscribed when they wait; the others when they are open.
    let waiting = live.into_iter().map(|(transport, mut subscription)| {
        tokio::spawn(async move { (transport, subscription.next().await) })
    });
    let waiting: Vec<_> = waiting.collect();
    sidecar.wait_for_subscribers("live", Transport::ALL.len() as u64).await;
    for ttl in [json!(0), json!("0s")] {
        let answer = sidecar.publish(&json!({"channel": "live", "data": {"n": 1}, "ttl": ttl})).await;
        assert_eq!(answer["status"], "published", "{answer}");
    }
    for task in waiting {
        let (transport, delivery) = task.await.expect("delivered");
        assert_eq!(delivery.number(), 1, "{transport:?}");
    }
    assert!(sidecar.last("live").await.is_none(), "it is not kept");
    assert!(sidecar.all_events("channel=live").await.is_empty());
}

#[tokio::test]
async fn the_excluded_connection_does_not_get_the_event_and_others_do() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    let (mut author, welcome) =
        WebSocketClient::open_with_welcome(&address, "/v1/ws?channel=room", &[]).await;
    author.expect("subscribed").await;
    let mut other = WebSocketClient::open(&address, "/v1/ws?channel=room").await;
    other.expect("subscribed").await;

    let exclude = &welcome["connection"];
    sidecar.publish(&json!({"channel": "room", "data": {"n": 1}, "exclude": exclude})).await;
    sidecar.publish(&json!({"channel": "room", "data": {"n": 2}})).await;

    assert_eq!(other.next_numbers(2).await, [1, 2]);
    assert_eq!(author.next_numbers(1).await, [2]);
    author.expect_nothing().await;
}

#[tokio::test]
async fn every_acknowledgement_level_is_answered() {
    let sidecar = TestSidecar::start().await;
    for (at, ack) in ["none", "log", "bus"].iter().enumerate() {
        let body = json!({"channel": "acknowledged", "data": {"n": at}});
        let answer = sidecar.app().post_json(&format!("/v1/publish?ack={ack}"), &body).await.success();
        assert_eq!(answer["status"], "published", "{ack}: {answer}");
        assert!(answer["id"].is_string(), "{ack}: {answer}");
    }
    let mut subscription = Subscription::open(
        Transport::WebSocket,
        &sidecar.whereabouts().client(),
        "channel=acknowledged&history=3",
        None,
    )
    .await;
    assert_eq!(subscription.numbers(3).await, [0, 1, 2]);
    let odd = sidecar.app().post_json("/v1/publish?ack=maybe", &json!({"channel": "a", "data": 1})).await;
    odd.refusal(400);
}

#[tokio::test]
async fn data_comes_back_as_it_was_sent() {
    let sidecar = TestSidecar::start().await;
    let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws?channel=exact").await;
    client.expect("subscribed").await;
    for data in [
        json!(null),
        json!(""),
        json!(false),
        json!(-0.5),
        json!(u64::MAX),
        json!("line\nbreak \u{2028} \u{0} quote \" backslash \\ ü 🦀"),
        json!({"": {"a": [[], {}]}}),
    ] {
        sidecar.publish(&json!({"channel": "exact", "data": data})).await;
        assert_eq!(client.next_event().await["data"], data);
        assert_eq!(sidecar.last("exact").await.expect("kept")["data"], data);
    }
}

#[tokio::test]
async fn payloads_of_every_size_up_to_the_limit_are_kept_whole_and_larger_ones_refused() {
    let sidecar = TestSidecar::with_config("[limits]\nevent_bytes = 262144\nbody_bytes = 262144\n").await;
    for size in [0, 1, 100, 6_143, 6_144, 6_145, 8_192, 65_535, 65_536, 131_072, 250_000] {
        let text: String = (0..size).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
        sidecar.publish(&json!({"channel": "sizes", "data": text})).await;
        let event = sidecar.last("sizes").await.expect("kept");
        assert!(event["data"] == text.as_str(), "{size} bytes did not come back whole");
    }
    let large = json!({"channel": "sizes", "data": "x".repeat(300_000)});
    assert_eq!(sidecar.app().post_json("/v1/publish", &large).await.refusal(413), "too_large");
}

#[tokio::test]
async fn the_app_may_come_over_a_unix_socket_beside_tcp() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = format!("unix:{}", directory.path().join("app.sock").display());
    let config = format!("[app]\nlisten = [\"127.0.0.1:0\", \"{socket}\"]\n");
    let sidecar = Setup::new().listen("app", "").config(&config).start().await;
    let addresses = sidecar.whereabouts().all("app");
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    for (n, address) in addresses.into_iter().enumerate() {
        let over = address.to_string();
        let answer = HttpClient::new(address)
            .post_json("/v1/publish", &json!({"channel": "socket", "data": {"n": n}}))
            .await;
        assert_eq!(answer.success()["status"], "published", "{over}");
    }
    assert_eq!(crate::support::numbers(&sidecar.all_events("channel=socket").await), [0, 1]);
}

#[tokio::test]
async fn every_listener_may_be_a_unix_socket() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut setup = Setup::new();
    for listener in ["app", "client", "admin"] {
        let path = directory.path().join(format!("{listener}.sock"));
        setup = setup.listen(listener, &format!("unix:{}", path.display()));
    }
    let mut sidecar = setup.start().await;
    assert!(matches!(sidecar.whereabouts().client(), Address::Unix(_)));
    let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws?channel=socket").await;
    client.expect("subscribed").await;
    sidecar.publish_numbers("socket", 0..3).await;
    assert_eq!(client.next_numbers(3).await, [0, 1, 2]);
    // The socket of a node that was killed is no obstacle to the next one.
    sidecar.kill_and_start_again().await;
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn a_unix_socket_belongs_to_whom_the_configuration_names() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("app.sock");
    let setup = |owner: &str| {
        let config = format!("[app]\nsocket_mode = \"0640\"\n{owner}\n");
        Setup::new().listen("app", &format!("unix:{}", path.display())).config(&config)
    };
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    // By name if this is root, who alone may give a socket away; else by number, to itself.
    let (owner, expected) = match user {
        0 => ("socket_user = \"nobody\"\nsocket_group = \"daemon\"".to_owned(), None),
        _ => (format!("socket_user = \"{user}\"\nsocket_group = \"{group}\""), Some((user, group))),
    };
    let sidecar = setup(&owner).start().await;
    let file = std::fs::metadata(&path).expect("the socket");
    assert_eq!(file.permissions().mode() & 0o777, 0o640);
    let number = |path: &str, name: &str| {
        let text = std::fs::read_to_string(path).expect("a file of the system");
        let line =
            text.lines().find(|line| line.starts_with(&format!("{name}:"))).expect("its line").to_owned();
        line.split(':').nth(2).expect("a number").parse::<u32>().expect("a number")
    };
    let expected =
        expected.unwrap_or_else(|| (number("/etc/passwd", "nobody"), number("/etc/group", "daemon")));
    assert_eq!((file.uid(), file.gid()), expected);
    drop(sidecar);

    for (owner, word) in [
        ("socket_user = \"no-such-user\"", "no-such-user"),
        ("socket_group = \"no-such-group\"", "no-such-group"),
    ] {
        let said = setup(owner).refused().await;
        assert!(said.contains(word) && said.contains("/etc/"), "{said}");
    }
}
