//! Who else is on the bus: apps that speak Redis or NATS themselves, other fleets, newer nodes, and nonsense.

use crate::support::{BusKind, BusServer, Fleet, Subscription, TestSidecar, Transport, eventually, within};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

/// Publishes on the server itself, as an app would that knows nothing of nodes.
pub(crate) async fn publish_raw(server: &BusServer, channel: &str, payload: &[u8]) {
    match server {
        BusServer::Redis(redis) => {
            let mut connection = redis.connection().await;
            let mut command = redis::cmd("PUBLISH");
            command.arg(channel).arg(payload);
            command.query_async::<i64>(&mut connection).await.expect("Redis takes it");
        }
        BusServer::Nats(nats) => {
            let client = nats.client().await;
            client.publish(channel.to_owned(), payload.to_vec().into()).await.expect("NATS takes it");
            client.flush().await.expect("NATS has it");
        }
    }
}

#[tokio::test]
async fn what_apps_write_into_redis_or_nats_themselves_reaches_clients() {
    for kind in BusKind::PLAIN {
        let fleet = Fleet::start(kind, 2).await;
        let mut clients = Vec::new();
        for node in &fleet.nodes {
            let address = node.whereabouts().client();
            clients.push(
                Subscription::open(Transport::WebSocket, &address, "channel=cron.>,user.>", None).await,
            );
        }
        let message = br#"{"channel": "user.7", "event": "renamed", "data": {"name": "x"}}"#;
        let cases: [(&str, &[u8], Value); 6] = [
            ("user.7", message, json!({"channel": "user.7", "event": "renamed", "data": {"name": "x"}})),
            (
                "cron.a",
                br#"{"event": "tick", "data": 1}"#,
                json!({"channel": "cron.a", "event": "tick", "data": 1}),
            ),
            ("cron.a", br#"[1, 2]"#, json!({"channel": "cron.a", "event": "message", "data": [1, 2]})),
            (
                "cron.a",
                br#"{"any": "thing"}"#,
                json!({"channel": "cron.a", "event": "message", "data": {"any": "thing"}}),
            ),
            ("cron.b", b"plain text", json!({"channel": "cron.b", "event": "message", "data": "plain text"})),
            (
                "cron.b",
                &[0xff, 0xfe],
                json!({"channel": "cron.b", "event": "message", "data": {"$base64": "//4="}}),
            ),
        ];
        for (channel, payload, expected) in &cases {
            publish_raw(&fleet.server, channel, payload).await;
            for client in &mut clients {
                let event = client.next().await.event;
                for key in ["channel", "event", "data"] {
                    assert_eq!(event[key], expected[key], "{kind:?}: {key} of {event}");
                }
                assert!(event["id"].is_string() && event["time"].is_number(), "{kind:?}: {event}");
            }
        }
        for node in &fleet.nodes {
            assert_eq!(node.all_events("channel=cron.%3E").await.len(), 5, "{kind:?}: they are kept");
        }
    }
}

#[tokio::test]
async fn nonsense_on_a_plain_bus_harms_nobody() {
    for kind in BusKind::PLAIN {
        let mut fleet = Fleet::start(kind, 1).await;
        let address = fleet.nodes[0].whereabouts().client();
        let mut client = Subscription::open(Transport::WebSocket, &address, "channel=ok", None).await;
        let deep = "[".repeat(100_000);
        let large = format!("{{\"data\":\"{}\"}}", "x".repeat(900_000));
        let payloads: [&[u8]; 12] = [
            b"",
            b"{",
            b"\"\\ud800\"",
            b"{\"sidewire\":{\"v\":99,\"origin\":\"00\",\"seq\":1}}",
            b"{\"sidewire\":{\"v\":1}}",
            b"{\"sidewire\":7}",
            b"{\"channel\":\"a b\",\"event\":\"\\n\",\"data\":1e999}",
            b"{\"channel\":\"$reserved\",\"data\":1}",
            b"{\"channel\":7,\"event\":[],\"data\":{},\"id\":{},\"tags\":3}",
            b"{\"id\":\"\",\"tags\":{\"a\":1},\"time\":-5,\"data\":1}",
            deep.as_bytes(),
            large.as_bytes(),
        ];
        for payload in payloads {
            publish_raw(&fleet.server, "nonsense", payload).await;
        }
        publish_raw(&fleet.server, "ok", b"1").await;
        assert_eq!(client.next().await.event["data"], 1, "{kind:?}");
        fleet.nodes[0].still_healthy().await;
    }
}

#[tokio::test]
async fn others_that_subscribe_to_redis_or_nats_read_what_we_publish() {
    for kind in BusKind::PLAIN {
        let fleet = Fleet::start(kind, 1).await;
        let event = json!({"channel": "user.7", "event": "renamed", "id": "r-1", "data": {"name": "x"}});
        let payload = match &fleet.server {
            BusServer::Redis(redis) => {
                let mut others = redis.client().get_async_pubsub().await.expect("Redis lets us in");
                others.subscribe("user.7").await.expect("Redis lets us subscribe");
                fleet.nodes[0].publish(&event).await;
                let message = within("a message", others.on_message().next()).await.expect("connected");
                message.get_payload_bytes().to_vec()
            }
            BusServer::Nats(nats) => {
                let client = nats.client().await;
                let mut others = client.subscribe("user.*").await.expect("NATS lets us subscribe");
                client.flush().await.expect("NATS knows");
                fleet.nodes[0].publish(&event).await;
                let message = within("a message", others.next()).await.expect("connected");
                assert_eq!(&*message.subject, "user.7");
                message.payload.to_vec()
            }
        };
        let read: Value = serde_json::from_slice(&payload).expect("it is JSON");
        for key in ["channel", "event", "id", "data"] {
            assert_eq!(read[key], event[key], "{kind:?}: {key} of {read}");
        }
    }
}

#[tokio::test]
async fn what_is_on_an_ordered_bus_can_be_read_with_its_own_tools() {
    let data = json!({"name": "x"});
    let event =
        json!({"channel": "user.7", "event": "renamed", "id": "r-1", "data": data, "tags": {"k": "v"}});
    let fleet = Fleet::start(BusKind::RedisStream, 1).await;
    fleet.nodes[0].publish(&event).await;
    let key = "sidewire:{default}:events";
    let entries: Vec<(String, Vec<String>)> = fleet.server.redis().command(&["XRANGE", key, "-", "+"]).await;
    let has = |fields: &Vec<String>, name: &str, value: &str| {
        fields.chunks(2).any(|pair| pair[0] == name && pair[1] == value)
    };
    let found = entries.iter().find(|(_, fields)| has(fields, "id", "r-1")).expect("the entry");
    for (name, value) in
        [("channel", "user.7"), ("event", "renamed"), ("data", r#"{"name":"x"}"#), ("tags", r#"{"k":"v"}"#)]
    {
        assert!(has(&found.1, name, value), "{name}: {found:?}");
    }

    let fleet = Fleet::start(BusKind::JetStream, 1).await;
    fleet.nodes[0].publish(&event).await;
    let jetstream = fleet.server.nats().jetstream().await;
    let stream = jetstream.get_stream("SIDEWIRE_default").await.expect("the stream");
    let subject = "sidewire.default.ev.user.7";
    let message = stream.get_last_raw_message_by_subject(subject).await.expect("the message");
    assert_eq!(&message.payload[..], data.to_string().as_bytes());
    for (name, value) in [("Sidewire-Id", "r-1"), ("Sidewire-Event", "renamed")] {
        let header = message.headers.get(name).unwrap_or_else(|| panic!("{name}: {:?}", message.headers));
        assert_eq!(header.as_str(), value);
    }
}

#[tokio::test]
async fn patterns_say_what_a_node_takes_from_the_bus() {
    for kind in [BusKind::ORDERED, BusKind::PLAIN].concat() {
        let fleet = Fleet::with_config(kind, 2, "channels = [\"cron.*\", \"user.*\"]", "").await;
        for channel in ["cron.a", "other.b", "user.c", "also.d"] {
            let answer = fleet.nodes[0].publish(&json!({"channel": channel, "data": 1})).await;
            assert!(matches!(answer["status"].as_str(), Some("published" | "queued")), "{kind:?}: {answer}");
        }
        fleet.nodes[0].publish(&json!({"channel": "user.last", "data": 1})).await;
        for node in &fleet.nodes {
            node.wait_for_events("channel=user.last", 1).await;
            let kept = node.all_events("channel=%3E").await;
            let mut channels: Vec<_> =
                kept.iter().map(|event| event["channel"].as_str().expect("one")).collect();
            channels.sort_unstable();
            assert_eq!(channels, ["cron.a", "user.c", "user.last"], "{kind:?}");
        }
    }
}

#[tokio::test]
async fn namespaces_keep_fleets_apart() {
    for kind in [BusKind::ORDERED, BusKind::PLAIN].concat() {
        let fleet = Fleet::start(kind, 1).await;
        let other = fleet.config().replace("[bus]", "[bus]\nnamespace = \"other\"");
        let other = TestSidecar::with_config(&other).await;
        other.ready().await;
        let address = other.whereabouts().client();
        let mut client = Subscription::open(Transport::WebSocket, &address, "channel=>", None).await;
        for (round, own) in (1..).zip([77, 78]) {
            fleet.nodes[0].publish_numbers("a", 0..10).await;
            fleet.nodes[0].wait_for_events("channel=a", 10 * round).await;
            other.publish(&json!({"channel": "a", "data": {"n": own}})).await;
            assert_eq!(client.next().await.number(), own, "{kind:?}: nothing of the others comes before");
        }
        assert_eq!(fleet.nodes[0].all_events("channel=a").await.len(), 20, "{kind:?}");
    }
}

/// Adds an entry with these fields and this payload to the ordered bus, as another version might.
async fn add_raw(fleet: &Fleet, fields: &[(&str, &str)], payload: &str) {
    match &fleet.server {
        BusServer::Redis(redis) => {
            let mut words = vec!["XADD", "sidewire:{default}:events", "*"];
            for (name, value) in fields {
                words.extend([name, value]);
            }
            words.extend(["data", payload]);
            redis.command::<String>(&words).await;
        }
        BusServer::Nats(nats) => {
            let mut headers = async_nats::HeaderMap::new();
            for (name, value) in fields {
                let name = name[..1].to_uppercase() + &name[1..];
                headers.insert(format!("Sidewire-{name}"), *value);
            }
            let jetstream = nats.jetstream().await;
            let subject = "sidewire.default.ev.raw";
            let sent = jetstream.publish_with_headers(subject, headers, payload.to_owned().into()).await;
            sent.expect("JetStream takes it").await.expect("JetStream has it");
        }
    }
}

#[tokio::test]
async fn entries_of_a_newer_version_are_told_and_do_not_stop_the_node() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::start(kind, 1).await;
        fleet.nodes[0].publish_numbers("a", 0..5).await;
        for _ in 0..3 {
            add_raw(&fleet, &[("v", "2"), ("id", "x"), ("channel", "a"), ("shape", "new")], "{}").await;
        }
        fleet.nodes[0].publish_numbers("a", 5..10).await;
        fleet.agree_on("channel=a", 10).await;
        let line = fleet.nodes[0].wait_for_log(&["ERROR", "version"]).await;
        assert!(line.contains('2'), "{kind:?}: it names the version: {line}");
        fleet.nodes[0].still_healthy().await;
    }
}

/// A19: what no node can have written.
#[tokio::test]
async fn entries_that_nobody_can_read_are_counted_and_passed_over() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::start(kind, 2).await;
        fleet.nodes[0].publish_numbers("a", 0..5).await;
        let whole = [
            ("v", "1"),
            ("id", "raw-1"),
            ("channel", "a"),
            ("event", "message"),
            ("time", "1800000000000"),
            ("expires", "99999999999999"),
            ("origin", "00000000000000ab"),
            ("seq", "1"),
            ("type", "json"),
        ];
        for broken in [
            ("v", "one"),
            ("id", ""),
            ("channel", "a b"),
            ("channel", "$sys"),
            ("time", "-1"),
            ("time", "99999999999999999999999"),
            ("origin", "xyz"),
            ("seq", "1.5"),
            ("type", "yaml"),
        ] {
            let fields: Vec<_> = whole
                .iter()
                .map(|(name, value)| (*name, if *name == broken.0 { broken.1 } else { *value }))
                .collect();
            // A header cannot be empty everywhere; a field that is not there is as good.
            let fields: Vec<_> = fields.into_iter().filter(|(_, value)| !value.is_empty()).collect();
            add_raw(&fleet, &fields, "{\"n\": 1000}").await;
        }
        add_raw(&fleet, &whole, "{not json").await;
        add_raw(&fleet, &[("unknown", "field")], "").await;
        fleet.nodes[0].publish_numbers("a", 5..10).await;
        let kept = fleet.agree_on("channel=a", 10).await;
        assert_eq!(crate::support::numbers(&kept), (0..10).collect::<Vec<_>>(), "{kind:?}");
        for node in &mut fleet.nodes {
            let malformed = node.metrics().await.sum("sidewire_bus_malformed_total", &[]);
            assert!(malformed >= 11., "{kind:?}: {malformed}");
            node.still_healthy().await;
        }
    }
}

/// An event that the bus can never take must not keep the others waiting.
#[tokio::test]
async fn an_event_that_is_too_large_for_the_bus_is_refused_alone() {
    let fleet = Fleet::start(BusKind::JetStream, 1).await;
    let config = fleet.config() + "[limits]\nevent_bytes = \"4MiB\"\nbody_bytes = \"8MiB\"\n";
    let mut sidecar = TestSidecar::with_config(&config).await;
    sidecar.ready().await;
    let large = json!({"channel": "a", "data": "x".repeat(2_000_000)});
    let answer = sidecar.app().post_json("/v1/publish", &large).await;
    assert!(matches!(answer.status(), 202 | 413), "{}", answer.text());
    eventually("others pass", async || {
        let answer = sidecar.publish(&json!({"channel": "b", "data": 1})).await;
        (answer["status"] == "published").then_some(())
    })
    .await;
    sidecar.still_healthy().await;
}
