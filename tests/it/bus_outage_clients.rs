//! What clients of a node are shown of what it takes while the bus is away.

use crate::support::{
    BusKind, DEFAULT_HEDGE, Fleet, SseClient, SseItem, Subscription, Transport, WebSocketClient, eventually,
    within,
};
use serde_json::{Value, json};

#[tokio::test]
async fn what_is_queued_is_shown_once_on_every_transport_and_has_a_cursor() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::with_config(kind, 1, DEFAULT_HEDGE, "").await;
        let address = fleet.nodes[0].whereabouts().client();
        let mut json = WebSocketClient::open(&address, "/v1/ws?channel=q").await;
        let mut packed = WebSocketClient::open_msgpack(&address, "/v1/ws?channel=q").await;
        json.expect("subscribed").await;
        packed.expect("subscribed").await;
        let mut sse = SseClient::open(&address, "/v1/sse?channel=q", &[]).await;
        fleet.nodes[0].wait_for_subscribers("q", 3).await;
        fleet.proxy.cut().await;
        fleet.notices_that_the_bus_is_away().await;
        for n in 0..5 {
            let answer = fleet.nodes[0]
                .app()
                .post_json("/v1/publish", &json!({"channel": "q", "id": format!("q-{n}"), "data": {"n": n}}))
                .await;
            assert_eq!(answer.status(), 202, "{kind:?}: {}", answer.text());
            let said = answer.json();
            assert_eq!(said["status"], "queued", "{said}");
            assert!(said["cursor"].is_null(), "{kind:?}: it has no place yet: {said}");
        }
        for client in [&mut json, &mut packed] {
            for n in 0..5 {
                let event = client.next_event().await;
                assert_eq!(event["data"]["n"], n, "{kind:?}: {event}");
                assert!(event["cursor"].is_string(), "{kind:?}: {event}");
            }
        }
        let mut seen = Vec::new();
        while seen.len() < 5 {
            let item = within("an event on SSE", sse.try_next()).await.expect("connected");
            if let SseItem::Event { data, last_id, .. } = item {
                let event: Value = serde_json::from_str(&data).expect("data is JSON");
                assert_eq!(event["cursor"], last_id, "{kind:?}: {event}");
                seen.push(event["data"]["n"].clone());
            }
        }
        assert_eq!(seen, [0, 1, 2, 3, 4], "{kind:?}");

        fleet.proxy.restore().await;
        fleet.agree_on("channel=q", 5).await;
        let later = json!({"channel": "q", "id": "later", "data": {"n": 5}});
        eventually("the bus confirms again", async || {
            let answer = fleet.nodes[0].app().post_json("/v1/publish", &later).await;
            (answer.status() == 200).then_some(())
        })
        .await;
        for client in [&mut json, &mut packed] {
            let event = client.next_event().await;
            assert_eq!(event["id"], "later", "{kind:?}: what was shown early is not shown again");
        }
        let again = Subscription::open(Transport::Poll, &address, "channel=q&history=10", None)
            .await
            .numbers(6)
            .await;
        assert_eq!(again, [0, 1, 2, 3, 4, 5], "{kind:?}: who comes later finds it in the log");
    }
}

#[tokio::test]
async fn a_node_that_starts_while_the_bus_is_away_takes_publishes_and_shows_them() {
    for kind in BusKind::ORDERED {
        let mut fleet = Fleet::start(kind, 2).await;
        fleet.nodes[0].publish_numbers("early", 0..3).await;
        fleet.agree_on("channel=early", 3).await;
        fleet.proxy.cut().await;
        fleet.nodes[0].kill_and_start_again().await;
        let mut client =
            WebSocketClient::open(&fleet.nodes[0].whereabouts().client(), "/v1/ws?channel=early&history=10")
                .await;
        client.expect("subscribed").await;
        assert_eq!(client.next_numbers(3).await, [0, 1, 2], "{kind:?}: what it has is served");
        let answer = fleet.nodes[0].publish(&json!({"channel": "early", "data": {"n": 3}})).await;
        assert_eq!(answer["status"], "queued", "{kind:?}: {answer}");
        assert_eq!(client.next_numbers(1).await, [3], "{kind:?}");
        fleet.proxy.restore().await;
        fleet.agree_on("channel=early", 4).await;
    }
}
