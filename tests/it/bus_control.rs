//! Who is cut off or revoked on one node is so on every node of the bus, also where the bus or a node was away.

use crate::bus_neighbours::publish_raw;
use crate::support::{BusKind, Fleet, TestSidecar, Tokens, WebSocketClient, eventually, in_seconds};
use serde_json::{Value, json};

const ALL: [BusKind; 4] = [BusKind::RedisStream, BusKind::RedisPubSub, BusKind::JetStream, BusKind::NatsCore];

async fn fleet(kind: BusKind, count: usize) -> Fleet {
    Fleet::with_config(kind, count, "", &Tokens::config()).await
}

fn token(tokens: &mut Tokens, user: &str, id: &str) -> String {
    tokens.token(&json!({"sub": user, "jti": id, "channels": {">": ["sub", "pub", "history"]}}))
}

async fn client(node: &TestSidecar, token: &str) -> (WebSocketClient, Value) {
    let target = format!("/v1/ws?channel=%3E&token={token}");
    let (mut client, welcome) =
        WebSocketClient::open_with_welcome(&node.whereabouts().client(), &target, &[]).await;
    client.expect("subscribed").await;
    (client, welcome)
}

async fn disconnect(node: &TestSidecar, body: Value) -> Value {
    node.app().post_json("/v1/disconnect", &body).await.success()
}

async fn status(node: &TestSidecar, token: &str) -> u16 {
    node.client().get(&format!("/v1/poll?channel=a&timeout=0&token={token}")).await.status()
}

#[tokio::test]
async fn who_is_cut_off_on_one_node_is_so_on_all() {
    let mut tokens = Tokens::new();
    let (ann, bob, eve) =
        (token(&mut tokens, "ann", "a"), token(&mut tokens, "bob", "b"), token(&mut tokens, "eve", "e"));
    for kind in ALL {
        let fleet = fleet(kind, 3).await;
        let (mut anns, mut bobs, mut eves) = (Vec::new(), Vec::new(), Vec::new());
        for node in &fleet.nodes {
            anns.push(client(node, &ann).await.0);
            bobs.push(client(node, &bob).await);
            eves.push(client(node, &eve).await.0);
        }
        let told = disconnect(&fleet.nodes[0], json!({"user": "ann"})).await;
        assert_eq!(told, json!({"disconnected": 1, "status": "published"}), "{kind:?}");
        for client in &mut anns {
            assert_eq!(client.closed().await, 4100, "{kind:?}: by user");
        }
        let (mut there, welcome) = bobs.pop().expect("three were opened");
        let told = disconnect(&fleet.nodes[0], json!({"connection": welcome["connection"]})).await;
        assert_eq!(told["disconnected"], 0, "{kind:?}: it is on another node");
        assert_eq!(there.closed().await, 4100, "{kind:?}: by connection");
        let body = json!({"jti": "e", "exp": in_seconds(3600)});
        assert_eq!(disconnect(&fleet.nodes[1], body).await["disconnected"], 1, "{kind:?}");
        for (node, client) in fleet.nodes.iter().zip(&mut eves) {
            assert_eq!(client.closed().await, 4101, "{kind:?}: by token");
            assert_eq!(status(node, &eve).await, 401, "{kind:?}");
            assert_eq!(status(node, &ann).await, 200, "{kind:?}: a user may come back");
        }

        // Who stayed has seen nothing of all this, and nothing of it is kept.
        fleet.nodes[0].publish(&json!({"channel": "after", "data": 7})).await;
        for (client, _) in &mut bobs {
            let event = client.next_event().await;
            assert_eq!((&event["channel"], &event["data"]), (&json!("after"), &json!(7)), "{kind:?}");
        }
        for node in &fleet.nodes {
            node.wait_for_events("channel=%3E", 1).await;
            let channels =
                node.app().get("/v1/channels").await.text() + &node.admin().get("/metrics").await.text();
            assert!(!channels.contains("$sidewire"), "{kind:?}: {channels}");
            let named = node.app().get("/v1/events?channel=%24sidewire.control").await;
            assert_eq!(named.refusal(400), "invalid_channel", "{kind:?}");
        }
        let body = json!({"channel": "$sidewire.control", "data": {"disconnect": []}});
        let refused = fleet.nodes[0].app().post_json("/v1/publish", &body).await;
        assert_eq!(refused.refusal(400), "invalid_channel", "{kind:?}");
    }
}

#[tokio::test]
async fn a_node_that_was_off_learns_what_was_revoked() {
    let mut tokens = Tokens::new();
    let (ann, bob) = (token(&mut tokens, "ann", "a"), token(&mut tokens, "bob", "b"));
    for kind in ALL {
        let mut fleet = fleet(kind, 3).await;
        assert_eq!(status(&fleet.nodes[2], &ann).await, 200, "{kind:?}");
        fleet.nodes[2].kill();
        disconnect(&fleet.nodes[0], json!({"jti": "a", "exp": in_seconds(3600)})).await;
        // Events behind it: where the log goes on says nothing of what was said before.
        fleet.nodes[0].publish(&json!({"channel": "after", "data": 7})).await;
        fleet.nodes[2].start_again().await;
        fleet.nodes[2].ready().await;
        eventually("a token that is refused by a node that was off", async || {
            (status(&fleet.nodes[2], &ann).await == 401).then_some(())
        })
        .await;
        assert_eq!(status(&fleet.nodes[2], &bob).await, 200, "{kind:?}");
        // It is kept there: the node needs nobody to remember it.
        fleet.nodes[0].kill();
        fleet.nodes[1].kill();
        fleet.nodes[2].kill_and_start_again().await;
        assert_eq!(status(&fleet.nodes[2], &ann).await, 401, "{kind:?}");
    }
}

#[tokio::test]
async fn what_is_asked_for_while_the_bus_is_away_is_done_when_it_is_back() {
    let mut tokens = Tokens::new();
    let (ann, bob) = (token(&mut tokens, "ann", "a"), token(&mut tokens, "bob", "b"));
    for kind in ALL {
        let mut fleet = fleet(kind, 2).await;
        let mut far = client(&fleet.nodes[1], &ann).await.0;
        let mut near = client(&fleet.nodes[0], &ann).await.0;
        let mut other = client(&fleet.nodes[0], &bob).await.0;
        fleet.proxy.cut().await;
        fleet.notices_that_the_bus_is_away().await;
        let told = fleet.nodes[0].app().post_json("/v1/disconnect", &json!({"user": "ann"})).await;
        assert_eq!(told.status(), 202, "{kind:?}: {}", told.text());
        assert_eq!(told.json(), json!({"disconnected": 1, "status": "queued"}), "{kind:?}");
        assert_eq!(near.closed().await, 4100, "{kind:?}: here at once");
        disconnect(&fleet.nodes[0], json!({"jti": "b", "exp": in_seconds(3600)})).await;
        assert_eq!(other.closed().await, 4101, "{kind:?}");
        far.expect_nothing().await;
        assert_eq!(status(&fleet.nodes[1], &bob).await, 200, "{kind:?}: it cannot know yet");
        // The words wait on the disk, also over a restart.
        fleet.nodes[0].kill_and_start_again().await;
        fleet.proxy.restore().await;
        assert_eq!(far.closed().await, 4100, "{kind:?}: there when the bus is back");
        eventually("a token that is refused elsewhere", async || {
            (status(&fleet.nodes[1], &bob).await == 401).then_some(())
        })
        .await;
    }
}

/// Who may write events on a plain bus, but not where nodes are controlled, cuts nobody off.
#[tokio::test]
async fn an_event_on_a_plain_bus_is_no_control() {
    let mut tokens = Tokens::new();
    let ann = token(&mut tokens, "ann", "a");
    for kind in BusKind::PLAIN {
        let fleet = fleet(kind, 1).await;
        let mut ann = client(&fleet.nodes[0], &ann).await.0;
        let cut = json!({"disconnect": [{"whom": {"user": "ann"}, "at": in_seconds(60) * 1000}]});
        let word = json!({
            "channel": "$sidewire.control", "event": "message", "data": cut,
            "id": "x", "time": 1, "sidewire": {"v": 1, "origin": "ab", "seq": 1},
        })
        .to_string();
        let bare = cut.to_string();
        let mut places = vec!["a", "sidewire.probe.default"];
        if kind == BusKind::RedisPubSub {
            places.push("$sidewire.control");
        }
        for place in places {
            for payload in [&word, &bare] {
                publish_raw(&fleet.server, place, payload.as_bytes()).await;
            }
        }
        publish_raw(&fleet.server, "sidewire.control.default", bare.as_bytes()).await;
        publish_raw(&fleet.server, "end", b"1").await;
        while ann.next_event().await["channel"] != "end" {}
        // The same word where nodes listen for it: the test above would else prove nothing.
        publish_raw(&fleet.server, "sidewire.control.default", word.as_bytes()).await;
        assert_eq!(ann.closed().await, 4100, "{kind:?}");
    }
}

/// The author of what a client publishes travels with it.
#[tokio::test]
async fn what_a_client_publishes_is_signed_on_every_node() {
    let mut tokens = Tokens::new();
    let (ann, bob) = (token(&mut tokens, "ann", "a"), token(&mut tokens, "bob", "b"));
    for kind in ALL {
        let fleet = fleet(kind, 2).await;
        let (mut sender, welcome) = client(&fleet.nodes[0], &ann).await;
        let mut reader = client(&fleet.nodes[1], &bob).await.0;
        sender.send(&json!({"type": "publish", "id": 1, "channel": "room", "data": 1})).await;
        assert_eq!(sender.expect("published").await["status"], "published", "{kind:?}");
        let from = json!({"user": "ann", "connection": welcome["connection"]});
        assert_eq!(reader.next_event().await["from"], from, "{kind:?}");
    }
}

/// Of several shards only one carries what nodes are told to do; all read all of them.
#[tokio::test]
async fn a_bus_of_several_shards_carries_it_too() {
    let mut tokens = Tokens::new();
    let (ann, bob) = (token(&mut tokens, "ann", "a"), token(&mut tokens, "bob", "b"));
    let mut fleet = Fleet::with_config(BusKind::RedisStream, 2, "shards = 3", &Tokens::config()).await;
    let mut far = client(&fleet.nodes[1], &ann).await.0;
    assert_eq!(disconnect(&fleet.nodes[0], json!({"user": "ann"})).await["status"], "published");
    assert_eq!(far.closed().await, 4100);
    fleet.nodes[1].kill();
    disconnect(&fleet.nodes[0], json!({"jti": "b", "exp": in_seconds(3600)})).await;
    for number in 0..9 {
        fleet.nodes[0].publish(&json!({"channel": format!("after.{number}"), "data": 7})).await;
    }
    fleet.nodes[1].start_again().await;
    fleet.nodes[1].ready().await;
    eventually("a token that is refused by a node that was off", async || {
        (status(&fleet.nodes[1], &bob).await == 401).then_some(())
    })
    .await;
    fleet.nodes[1].wait_for_events("channel=%3E", 9).await;
}
