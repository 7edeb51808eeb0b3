//! `GET /v1/trace/{id}` and `sidewire trace`: what became of one event, on every node that is asked.

use crate::servers::{NatsSetup, Proxy};
use crate::support::{
    BusKind, Fleet, HttpClient, Setup, SseClient, TestSidecar, WebSocketClient, bus_config_at, eventually,
    run_command,
};
use serde_json::{Value, json};

/// What a node tells of an id; it must know it.
async fn trace(node: &TestSidecar, id: &str) -> Value {
    node.admin().get(&format!("/v1/trace/{id}")).await.success()
}

/// The only copy of an event.
async fn only(node: &TestSidecar, id: &str) -> Value {
    let trace = trace(node, id).await;
    assert_eq!(trace["id"], id, "{trace}");
    let copies = trace["copies"].as_array().expect("copies");
    assert_eq!(copies.len(), 1, "{trace}");
    copies[0].clone()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is a text")).to_owned()
}

#[tokio::test]
async fn an_event_is_followed_to_its_clients() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    let mut one = WebSocketClient::open(&address, "/v1/ws?channel=orders.1").await;
    let mut two = WebSocketClient::open(&address, "/v1/ws?channel=orders.*,news").await;
    let sse = SseClient::open(&address, "/v1/sse?channel=orders.1&event=other", &[]).await;
    one.expect("subscribed").await;
    two.expect("subscribed").await;
    sidecar.wait_for_subscribers("orders.1", 2).await;
    sidecar.wait_for_subscribers("orders.*", 1).await;

    let event = json!({"channel": "orders.1", "event": "paid", "data": {"n": 1}, "ttl": "1h"});
    let answer = sidecar.publish(&event).await;
    for client in [&mut one, &mut two] {
        client.next_event().await;
    }
    let copy = only(&sidecar, &text(&answer["id"])).await;
    assert_eq!(copy["state"], "logged", "{copy}");
    assert_eq!((&copy["channel"], &copy["event"]), (&json!("orders.1"), &json!("paid")), "{copy}");
    assert_eq!(copy["bus"]["state"], "confirmed", "{copy}");
    assert_eq!(copy["log"]["cursor"], answer["cursor"], "{copy}");
    assert_eq!(copy["log"]["bytes"], 7, "{copy}");
    let (accepted, expires) = (copy["accepted"]["time"].as_u64(), copy["log"]["expires"].as_u64());
    assert_eq!(accepted.map(|time| time + 3_600_000), expires, "{copy}");
    assert_eq!(copy["accepted"]["by"], json!({"listener": "app"}), "{copy}");
    // The client of SSE is there, although its filter leaves the event out.
    assert_eq!(copy["shown"]["subscriptions"], 3, "{copy}");

    // Nobody listens; a client that comes later is not counted.
    let quiet = sidecar.publish(&json!({"channel": "quiet", "data": 1, "id": "quiet-1"})).await;
    let copy = only(&sidecar, &text(&quiet["id"])).await;
    assert_eq!(copy["shown"], json!({"subscriptions": 0, "behind": 0}), "{copy}");

    // An id on several channels.
    let several = json!({"channels": ["news", "orders.2", "nowhere"], "data": 1, "id": "several"});
    sidecar.app().post_json("/v1/publish", &several).await.success();
    let found = trace(&sidecar, "several").await;
    let shown = |copy: &Value| (text(&copy["channel"]), copy["shown"]["subscriptions"].clone());
    let copies: Vec<_> = found["copies"].as_array().expect("copies").iter().map(shown).collect();
    let wanted = [("news", 1), ("orders.2", 1), ("nowhere", 0)];
    assert_eq!(copies, wanted.map(|(channel, count)| (channel.to_owned(), json!(count))), "{found}");
    drop(sse);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_told_from_one_that_does() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    let mut quick = WebSocketClient::open(&address, "/v1/ws?channel=a").await;
    let mut slow = WebSocketClient::open(&address, "/v1/ws?channel=*").await;
    quick.expect("subscribed").await;
    slow.expect("subscribed").await;
    eventually("both are at the end", async || {
        let id = text(&sidecar.publish(&json!({"channel": "a", "data": 1})).await["id"]);
        quick.next_event().await;
        slow.next_event().await;
        (only(&sidecar, &id).await["shown"] == json!({"subscriptions": 2, "behind": 0})).then_some(())
    })
    .await;
    // More than sockets hold.
    let large = "x".repeat(900_000);
    eventually("one is behind", async || {
        let id = text(&sidecar.publish(&json!({"channel": "a", "data": large})).await["id"]);
        quick.next_event().await;
        (only(&sidecar, &id).await["shown"] == json!({"subscriptions": 2, "behind": 1})).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_client_published_has_its_name() {
    let config = "[auth]\nanonymous = { \"chat\" = [\"pub\", \"sub\"] }\nsecret = \"0123456789abcdef0123456789abcdef\"\n";
    let sidecar = TestSidecar::with_config(config).await;
    let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws?channel=chat").await;
    client.expect("subscribed").await;
    client.send(&json!({"type": "publish", "id": "1", "channel": "chat", "data": 1})).await;
    let published = client.expect("published").await;
    let copy = only(&sidecar, &text(&published["event_id"])).await;
    assert_eq!(copy["accepted"]["by"]["listener"], "client", "{copy}");
    assert!(copy["accepted"]["by"]["connection"].is_string(), "{copy}");
}

#[tokio::test]
async fn counts_end_with_the_run_and_the_event_is_found_still() {
    let mut sidecar = TestSidecar::start().await;
    let fresh = text(&sidecar.publish(&json!({"channel": "a", "data": 1})).await["id"]);
    sidecar.publish(&json!({"channel": "a", "data": 1, "id": "given"})).await;
    sidecar.kill_and_start_again().await;
    for id in [fresh.as_str(), "given"] {
        let copy = only(&sidecar, id).await;
        assert_eq!(copy["state"], "logged", "{copy}");
        assert!(copy["shown"].is_null(), "{copy}");
    }
}

#[tokio::test]
async fn what_is_gone_is_told_from_what_never_was() {
    let sidecar = TestSidecar::start().await;
    let short = json!({"channel": "a", "data": 1, "id": "short", "ttl": 1});
    sidecar.publish(&short).await;
    let fresh = text(&sidecar.publish(&json!({"channel": "a", "data": 1, "ttl": 1})).await["id"]);
    sidecar.publish(&json!({"channel": "a", "data": 1, "id": "live", "ttl": 0})).await;
    for id in ["short", "live"] {
        let copy = eventually("the event is gone", async || {
            let copy = only(&sidecar, id).await;
            (copy["state"] == "gone").then_some(copy)
        })
        .await;
        assert!(copy["log"]["cursor"].is_string() && copy["channel"].is_null(), "{copy}");
        assert_eq!(copy["shown"]["subscriptions"], 0, "{copy}");
    }
    let answer = eventually("an event of which only the time in its id is known", async || {
        let answer = sidecar.admin().get(&format!("/v1/trace/{fresh}")).await;
        (answer.status() == 404).then_some(answer)
    })
    .await;
    assert_eq!(answer.refusal(404), "not_found");
    assert!(answer.text().contains("it is no longer kept"), "{}", answer.text());
    let answer = sidecar.admin().get("/v1/trace/never").await;
    assert_eq!(answer.refusal(404), "not_found");
    assert!(answer.text().contains("this node knows no event `never`"), "{}", answer.text());
}

#[tokio::test]
async fn nonsense_for_an_id_is_refused() {
    let mut sidecar = TestSidecar::start().await;
    let long = "x".repeat(129);
    for id in ["", "%00", "%ff", "%0a", "a%1fb", long.as_str()] {
        let answer = sidecar.admin().get(&format!("/v1/trace/{id}")).await;
        assert_eq!(answer.refusal(400), "invalid_id", "{id:?}");
    }
    // The last moment that a UUIDv7 can name; a path; what would be code elsewhere.
    for id in [
        "ffffffff-ffff-7fff-bfff-ffffffffffff",
        "00000000-0000-7000-8000-000000000000",
        "..%2f..%2fetc%2fpasswd",
        "%27%3B%20DROP%20TABLE%20events%3B",
        "%E2%80%AE",
        "a/b",
    ] {
        let answer = sidecar.admin().get(&format!("/v1/trace/{id}")).await;
        assert_eq!(answer.refusal(404), "not_found", "{id}");
    }
    assert_eq!(
        sidecar.admin().post("/v1/trace/a", "text/plain", b"").await.refusal(405),
        "method_not_allowed"
    );
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn the_admin_token_is_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, "a shared token\n").expect("written");
    let sidecar = TestSidecar::with_config(&format!("[admin]\ntoken_file = {file:?}\n")).await;
    sidecar.publish(&json!({"channel": "a", "data": 1, "id": "secret"})).await;
    assert_eq!(sidecar.admin().get("/v1/trace/secret").await.refusal(401), "unauthorized");
    let mut admin: HttpClient = sidecar.admin();
    let shown = [("Authorization", "Bearer a shared token")];
    assert_eq!(admin.request("GET", "/v1/trace/secret", &shown, b"").await.status(), 200);
}

#[tokio::test]
async fn every_node_on_a_bus_tells_its_part_and_an_outage_is_seen() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 2, "hedge = \"50ms\"", "").await;
        let address = fleet.nodes[1].whereabouts().client();
        let mut client = WebSocketClient::open(&address, "/v1/ws?channel=a").await;
        client.expect("subscribed").await;
        let answer = fleet.nodes[0].publish_until("published", "a").await;
        let id = text(&answer["id"]);
        client.next_event().await;
        eventually("the event on both nodes", async || {
            let there = fleet.nodes[0].admin().get(&format!("/v1/trace/{id}")).await;
            (there.status() == 200).then_some(())
        })
        .await;
        let (here, there) = (only(&fleet.nodes[0], &id).await, only(&fleet.nodes[1], &id).await);
        for copy in [&here, &there] {
            assert_eq!(copy["state"], "logged", "{kind:?}: {copy}");
            assert_eq!(copy["log"]["cursor"], here["log"]["cursor"], "{kind:?}: {copy}");
        }
        assert_eq!(here["shown"]["subscriptions"], 0, "{kind:?}: {here}");
        assert_eq!(there["shown"]["subscriptions"], 1, "{kind:?}: {there}");

        // While the bus is away an event waits where it was published, and the other node knows nothing of it.
        let address = fleet.nodes[0].whereabouts().client();
        let mut own = WebSocketClient::open(&address, "/v1/ws?channel=a").await;
        own.expect("subscribed").await;
        fleet.proxy.cut().await;
        fleet.notices_that_the_bus_is_away().await;
        for n in 0..3 {
            let event = json!({"channel": "a", "data": {"n": n}, "id": format!("waits-{n}")});
            assert_eq!(fleet.nodes[0].publish(&event).await["status"], "queued", "{kind:?}");
        }
        own.next_numbers(3).await;
        let copy = only(&fleet.nodes[0], "waits-2").await;
        assert_eq!(copy["state"], "queued", "{kind:?}: {copy}");
        assert_eq!((&copy["bus"]["state"], &copy["bus"]["before"]), (&json!("waiting"), &json!(2)), "{copy}");
        assert!(copy["bus"]["waited_ms"].is_u64() && copy["log"].is_null(), "{kind:?}: {copy}");
        assert_eq!(
            copy["shown"],
            json!({"subscriptions": 1, "behind": 0, "early": true}),
            "{kind:?}: {copy}"
        );
        let other = fleet.nodes[1].admin().get("/v1/trace/waits-2").await;
        assert_eq!(other.refusal(404), "not_found", "{kind:?}");

        // The command: a block for each node, or an object.
        let admins: Vec<_> = fleet.nodes.iter().map(|node| node.whereabouts().admin().to_string()).collect();
        let words = ["trace", "waits-2", "--admin", &admins[0], "--admin", &admins[1]];
        let said = run_command(fleet.nodes[0].directory(), &words, "").await.output();
        assert!(said.contains("a  message  queued\n") && said.contains("with 2 events before it"), "{said}");
        assert!(said.contains(&format!("\n\n{}: not_found: ", admins[1])), "{said}");
        let words = [&words[..], &["--json"]].concat();
        let said = run_command(fleet.nodes[0].directory(), &words, "").await.output();
        let objects: Vec<Value> =
            said.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
        assert_eq!(objects[0]["trace"]["copies"][0]["state"], "queued", "{said}");
        assert!(objects[1]["error"].is_string(), "{said}");
        let words = ["trace", "never", "--admin", &admins[0], "--admin", &admins[1]];
        let finished = run_command(fleet.nodes[0].directory(), &words, "").await;
        assert!(finished.failure().contains("no node that was asked knows the event"));

        fleet.proxy.restore().await;
        for node in &fleet.nodes {
            eventually("the event is on the bus", async || {
                let answer = node.admin().get("/v1/trace/waits-2").await;
                (answer.status() == 200 && answer.json()["copies"][0]["state"] == "logged").then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn what_the_bus_refuses_is_told_with_the_reason() {
    let server = NatsSetup::new().line("max_payload: 131072").start().await;
    let mut proxy = Proxy::start(server.address()).await;
    // Before the node has spoken with the server, it cannot know how little that takes.
    proxy.cut().await;
    let config = bus_config_at(&format!("nats://{}", proxy.address()), "jetstream", "hedge = \"50ms\"", "");
    let sidecar = Setup::new().config(&config).start().await;
    let large = json!({"channel": "large", "event": "e", "data": "x".repeat(300_000), "id": "large-1"});
    let answer = sidecar.app().post_json("/v1/publish", &large).await;
    assert_eq!(answer.status(), 202, "{}", answer.text());
    proxy.restore().await;
    let copy = eventually("the bus refuses the event", async || {
        let copy = only(&sidecar, "large-1").await;
        (copy["state"] == "refused").then_some(copy)
    })
    .await;
    assert_eq!((&copy["channel"], &copy["event"]), (&json!("large"), &json!("e")), "{copy}");
    assert_eq!(copy["bus"]["state"], "refused", "{copy}");
    assert!(text(&copy["bus"]["why"]).contains("131072"), "{copy}");
    assert!(copy["accepted"]["time"].is_u64() && copy["log"].is_null(), "{copy}");
}
