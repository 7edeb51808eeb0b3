//! What a token allows, on every transport, and how it ends.

use crate::support::{
    PATIENCE, SseClient, SseItem, Subscription, TestSidecar, Tokens, Transport, WebSocketClient, eventually,
    in_seconds, within,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn sidecar() -> TestSidecar {
    TestSidecar::with_config(&Tokens::config()).await
}

/// What the URL of a transport is answered.
async fn status(sidecar: &TestSidecar, transport: Transport, query: &str) -> u16 {
    let address = sidecar.whereabouts().client();
    let query = query.replace('>', "%3E");
    if matches!(transport, Transport::WebSocket | Transport::WebSocketMessagePack) {
        use tokio_tungstenite::tungstenite::Error;
        let opened = WebSocketClient::try_open(&address, &format!("/v1/ws?{query}"), &[]).await;
        return match opened {
            Ok(_) => 101,
            Err(Error::Http(answer)) => answer.status().as_u16(),
            Err(error) => panic!("{error}"),
        };
    }
    let target = format!("{}?{query}&timeout=0", transport.path());
    let mut connection = crate::support::Connection::open(&address).await.expect("connected");
    let request = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", address.host());
    connection.write(request.as_bytes()).await.expect("written");
    within(&target, connection.read_head()).await.expect("answered").status
}

#[tokio::test]
async fn each_transport_gives_what_the_token_allows_and_no_more() {
    let mut tokens = Tokens::new();
    let token = tokens.user("ann", &json!({"user.{sub}.>": ["sub", "history"], "news.*": ["sub"]}));
    let sidecar = sidecar().await;
    sidecar.publish_numbers("user.bob.private", 0..3).await;
    for transport in Transport::ALL {
        for channel in ["user.ann.a", "user.ann.>", "user.ann.*", "news.eu", "news.*", "news.eu,user.ann.x"] {
            let query = format!("channel={channel}&token={token}");
            assert!(
                matches!(status(&sidecar, transport, &query).await, 101 | 200),
                "{channel} on {transport:?}"
            );
        }
        for channel in [
            "user.bob.private",
            "user.>",
            "user.*.private",
            "*.ann.a",
            ">",
            "news.>",
            "news",
            "user.ann",
            "USER.ann.a",
            "user%2Ebob%2Eprivate",
            "user.ann.a&channel=user.bob.private",
            "nothing.here",
        ] {
            let query = format!("channel={channel}&token={token}");
            assert_eq!(status(&sidecar, transport, &query).await, 403, "{channel} on {transport:?}");
        }
        for channel in ["$SYS", "user..bob", "user.ann/../bob", "us%D0%B5r.bob.private", "user.ann.%00"] {
            let query = format!("channel={channel}&token={token}");
            assert!(
                matches!(status(&sidecar, transport, &query).await, 400 | 403),
                "{channel} on {transport:?}"
            );
        }
        // What is kept needs its own right.
        assert_eq!(
            status(&sidecar, transport, &format!("channel=news.eu&history=5&token={token}")).await,
            403
        );
        assert_eq!(status(&sidecar, transport, &format!("channel=news.eu&last=1&token={token}")).await, 403);
    }
}

#[tokio::test]
async fn a_resume_is_filtered_by_the_present_token() {
    let mut tokens = Tokens::new();
    let token = tokens.user("ann", &json!({"a": ["sub"]}));
    let sidecar = sidecar().await;
    let first = sidecar.publish(&json!({"channel": "secret", "data": 0})).await;
    let cursor = first["cursor"].as_str().expect("a cursor");
    for n in 0..4 {
        let channel = if n % 2 == 0 { "a" } else { "secret" };
        sidecar.publish(&json!({"channel": channel, "data": {"n": n}})).await;
    }
    let address = sidecar.whereabouts().client();
    for transport in Transport::ALL {
        for channel in ["secret", ">", "a,secret"] {
            let query = format!("channel={channel}&cursor={cursor}&token={token}");
            assert_eq!(status(&sidecar, transport, &query).await, 403, "{channel} on {transport:?}");
        }
        let query = format!("channel=a&token={token}");
        let mut client =
            Subscription::try_open(transport, &address, &query, Some(cursor)).await.expect("opened");
        for expected in [0, 2] {
            assert_eq!(within("an event", client.next()).await.number(), expected, "{transport:?}");
        }
    }
    let mut client = WebSocketClient::open(&address, &format!("/v1/ws?token={token}")).await;
    for message in [
        json!({"type": "subscribe", "id": 7, "channels": ["a", "secret"], "cursor": cursor}),
        json!({"type": "subscribe", "id": 7, "channels": [">"]}),
        json!({"type": "subscribe", "id": 7, "channels": ["a"], "history": 1}),
        json!({"type": "subscribe", "id": 7, "channels": ["a"], "last": true}),
        json!({"type": "history", "id": 7, "channel": "a"}),
        json!({"type": "history", "id": 7, "channel": ">"}),
    ] {
        client.send(&message).await;
        let answer = client.expect("error").await;
        assert_eq!((&answer["code"], &answer["id"]), (&json!("forbidden"), &json!(7)), "{message}");
    }
    client.subscribe(&["a"], json!({})).await;
}

#[tokio::test]
async fn queries_show_what_may_be_read_and_refuse_all_else_alike() {
    let mut tokens = Tokens::new();
    let sidecar = sidecar().await;
    for channel in ["a.1", "a.2", "b.1"] {
        sidecar.publish(&json!({"channel": channel, "data": channel})).await;
    }
    let token = tokens.user("ann", &json!({"a.*": ["history"], "b.1": ["sub"]}));
    let mut client = sidecar.client();
    let all = client.get(&format!("/v1/events?token={token}")).await.success();
    let channels: Vec<&Value> =
        all["events"].as_array().expect("events").iter().map(|e| &e["channel"]).collect();
    assert_eq!(channels, ["a.1", "a.2"]);
    let last = client.get(&format!("/v1/channels/a.1/last?token={token}")).await.success();
    assert_eq!(last["data"], "a.1");
    assert_eq!(client.get(&format!("/v1/channels/a.9/last?token={token}")).await.refusal(404), "not_found");
    let mut told = Vec::new();
    for target in
        ["/v1/channels/b.1/last", "/v1/channels/b.9/last", "/v1/events?channel=b.1", "/v1/events?channel=b.9"]
    {
        let and = if target.contains('?') { '&' } else { '?' };
        let answer = client.get(&format!("{target}{and}token={token}")).await;
        assert_eq!(answer.refusal(403), "forbidden", "{target}");
        told.push(answer.text());
    }
    told.dedup();
    assert_eq!(told.len(), 1, "the same words for what exists and what does not: {told:?}");
    sidecar.wait_for_log(&["not allowed", "`history` on b.9"]).await;

    let nothing = tokens.user("bob", &json!({}));
    assert_eq!(client.get(&format!("/v1/events?token={nothing}")).await.refusal(403), "forbidden");
    let admin = tokens.token(&json!({"admin": true}));
    let all = client.get(&format!("/v1/events?token={admin}")).await.success();
    assert_eq!(all["events"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn everybody_may_do_what_the_configuration_grants() {
    let mut tokens = Tokens::new();
    let config = format!(
        "{}anonymous = {{ \"news.>\" = [\"sub\"] }}\ndefault = {{ \"user.{{sub}}\" = [\"sub\"] }}\n\
         [[client.routes]]\npath = \"/ws/job/{{id}}\"\nchannel = \"job.{{id}}\"\n",
        Tokens::config()
    );
    let sidecar = TestSidecar::with_config(&config).await;
    for transport in Transport::ALL {
        assert!(matches!(status(&sidecar, transport, "channel=news.a").await, 101 | 200), "{transport:?}");
        assert_eq!(status(&sidecar, transport, "channel=user.ann").await, 403, "{transport:?}");
    }
    let token = tokens.user("ann", &json!({"job.7": ["sub"]}));
    let mut client = sidecar.client();
    let poll = |path: &str| format!("{path}?timeout=0&token={token}");
    client.get(&format!("/v1/poll?channel=user.ann&timeout=0&token={token}")).await.success();
    client.get(&poll("/ws/job/7")).await.success();
    assert_eq!(client.get(&poll("/ws/job/8")).await.refusal(403), "forbidden");
    // A token that is no good is not taken for nobody.
    assert_eq!(client.get("/v1/poll?channel=news.a&timeout=0&token=x").await.refusal(401), "unauthorized");
}

#[tokio::test]
async fn an_expired_token_ends_every_transport_and_nothing_comes_after_it() {
    let mut tokens = Tokens::new();
    let sidecar = sidecar().await;
    let address = sidecar.whereabouts().client();
    let claims = json!({"sub": "ann", "exp": in_seconds(3), "channels": {"a": ["sub"]}});
    let token = tokens.token(&claims);
    let target = |path: &str| format!("{path}?channel=a&token={token}");
    let mut socket = WebSocketClient::open(&address, &target("/v1/ws")).await;
    socket.expect("subscribed").await;
    let mut renewed = WebSocketClient::open(&address, &target("/v1/ws")).await;
    renewed.expect("subscribed").await;
    let mut events = SseClient::open(&address, &target("/v1/sse"), &[]).await;
    let begin = Instant::now();
    let poll = tokio::spawn({
        let (mut client, target) = (sidecar.client(), target("/v1/poll"));
        async move { client.get(&format!("{target}&timeout=60")).await }
    });
    let fresh = tokens.user("ann", &json!({"a": ["sub"]}));
    renewed.send(&json!({"type": "auth", "token": fresh})).await;

    assert_eq!(socket.closed().await, 4104);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    let bye = socket.bye.expect("said before the close");
    assert_eq!((&bye["code"], &bye["retry"]), (&json!(4104), &json!(false)));
    let rest = events.rest().await;
    assert!(
        rest.iter().any(|item| matches!(item, SseItem::Event { name, data, .. } if name == "sidewire.bye" && data.contains("4104"))),
        "{rest:?}"
    );
    let answer = tokio::time::timeout(PATIENCE, poll).await.expect("ended with the token").expect("no panic");
    assert_eq!(answer.success()["events"], json!([]));
    for transport in Transport::ALL {
        let query = format!("channel=a&token={token}");
        // Within the leeway a token still opens, for what is left of it.
        eventually(&format!("{transport:?} refuses a token that has ended"), async || {
            (status(&sidecar, transport, &query).await == 401).then_some(())
        })
        .await;
    }
    sidecar.publish(&json!({"channel": "a", "data": 1})).await;
    assert_eq!(renewed.next_event().await["data"], 1, "with a fresh token it goes on");
}

#[tokio::test]
async fn a_new_token_changes_what_is_allowed_on_the_open_connection() {
    let mut tokens = Tokens::new();
    let sidecar = sidecar().await;
    let token = tokens.user("ann", &json!({"a": ["sub"], "b.*": ["sub"]}));
    let address = sidecar.whereabouts().client();
    let mut client = WebSocketClient::open(&address, &format!("/v1/ws?channel=a,b.*&token={token}")).await;
    client.expect("subscribed").await;
    let narrower = tokens.user("ann", &json!({"a": ["sub"], "b.1": ["sub"]}));
    client.send(&json!({"type": "auth", "id": "n", "token": narrower})).await;
    let left = client.expect("unsubscribed").await;
    assert_eq!(left["channels"], json!(["b.*"]));
    client.expect("authenticated").await;
    sidecar.publish(&json!({"channel": "b.1", "data": 1})).await;
    sidecar.publish(&json!({"channel": "a", "data": 2})).await;
    assert_eq!(client.next_event().await["channel"], "a");
    client.subscribe(&["b.1"], json!({})).await;

    let other = tokens.user("bob", &json!({"a": ["sub"], "c": ["sub"]}));
    client.send(&json!({"type": "auth", "id": 1, "token": other})).await;
    assert_eq!(client.expect("error").await["code"], "forbidden", "a connection stays with its user");
    client.send(&json!({"type": "auth", "id": 2, "token": "x.y.z"})).await;
    assert_eq!(client.expect("error").await["code"], "unauthorized");
    sidecar.publish(&json!({"channel": "a", "data": 3})).await;
    assert_eq!(client.next_event().await["data"], 3, "the good token still counts");

    let mut late = WebSocketClient::open(&address, "/v1/ws?channel=c").await;
    late.send(&json!({"type": "auth", "token": token})).await;
    assert_eq!(late.expect("error").await["code"], "forbidden");
    assert_eq!(late.closed().await, 4103);
}

#[tokio::test]
async fn the_app_cuts_off_a_user_and_revokes_a_token() {
    let mut tokens = Tokens::new();
    let sidecar = sidecar().await;
    let address = sidecar.whereabouts().client();
    let channels = json!({"a": ["sub"]});
    let first = tokens.token(&json!({"sub": "ann", "jti": "t1", "channels": channels}));
    let second = tokens.token(&json!({"sub": "ann", "jti": "t2", "channels": channels}));
    let target = |token: &str| format!("/v1/ws?channel=a&token={token}");
    let mut one = WebSocketClient::open(&address, &target(&first)).await;
    let mut two = WebSocketClient::open(&address, &target(&second)).await;
    let mut events = SseClient::open(&address, &format!("/v1/sse?channel=a&token={first}"), &[]).await;
    let disconnect = async |body: Value| sidecar.app().post_json("/v1/disconnect", &body).await;
    assert_eq!(disconnect(json!({"user": "bob"})).await.success()["disconnected"], 0);
    let revoked = disconnect(json!({"jti": "t1", "exp": in_seconds(3600)})).await.success();
    assert_eq!(revoked["disconnected"], 2);
    assert_eq!(one.closed().await, 4101);
    let rest = events.rest().await;
    assert!(
        rest.iter().any(|item| matches!(item, SseItem::Event { data, .. } if data.contains("4101"))),
        "{rest:?}"
    );
    assert_eq!(status(&sidecar, Transport::Poll, &format!("channel=a&token={first}")).await, 401);
    two.expect("subscribed").await;
    assert_eq!(disconnect(json!({"user": "ann"})).await.success()["disconnected"], 1);
    assert_eq!(two.closed().await, 4100);
    WebSocketClient::open(&address, &target(&second)).await.expect("subscribed").await;
    assert_eq!(disconnect(json!({"jti": "a\nb"})).await.refusal(400), "invalid_parameter");
    assert_eq!(disconnect(json!({})).await.refusal(400), "invalid_parameter");
    assert_eq!(disconnect(json!({"user": "a", "jti": "b"})).await.refusal(400), "invalid_parameter");
    let mut sidecar = sidecar;
    sidecar.kill_and_start_again().await;
    assert_eq!(
        status(&sidecar, Transport::Poll, &format!("channel=a&token={first}")).await,
        401,
        "still revoked"
    );
    assert_eq!(status(&sidecar, Transport::Poll, &format!("channel=a&token={second}")).await, 200);
}
