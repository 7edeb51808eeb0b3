//! What a client may take, and how one is cut off: by a limit that the operator set, by silence, or by the app.

use crate::support::{
    Connection, Setup, SseClient, TestSidecar, WebSocketClient, eventually, publish_until_taken,
    upgrade_request, within,
};
use serde_json::json;
use std::time::Duration;

/// Who is on this host is not counted: so clients of these tests come from elsewhere, by a proxy.
const PROXY: &str = "[client]\ntrusted_proxies = [\"127.0.0.1\"]\n";
const ELSEWHERE: (&str, &str) = ("X-Forwarded-For", "8.8.8.8");

async fn open(sidecar: &TestSidecar, target: &str) -> WebSocketClient {
    WebSocketClient::open(&sidecar.whereabouts().client(), target).await
}

/// What a further client is told.
async fn refused(sidecar: &TestSidecar, target: &str, headers: &str) -> u16 {
    let address = sidecar.whereabouts().client();
    let mut connection = Connection::open(&address).await.expect("connected");
    connection.write(&upgrade_request(&address, target, headers)).await.expect("written");
    let answer = within("an answer", connection.read_response()).await.expect("answered");
    assert!(answer.header("retry-after").is_some(), "{}: {}", answer.status(), answer.text());
    answer.refusal(answer.status());
    answer.status()
}

#[tokio::test]
async fn clients_beyond_the_limit_are_refused_and_a_free_place_is_taken_again() {
    let sidecar = TestSidecar::with_config("[limits]\nconnections = 3\n").await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(open(&sidecar, "/v1/ws?channel=a").await);
    }
    let stream = SseClient::open(&sidecar.whereabouts().client(), "/v1/sse?channel=a", &[]).await;
    assert_eq!(refused(&sidecar, "/v1/ws", "").await, 503);
    for client in &mut clients {
        client.expect("subscribed").await;
    }
    drop(stream);
    let address = sidecar.whereabouts().client();
    eventually("a place is free again", async || {
        WebSocketClient::try_open(&address, "/v1/ws", &[]).await.ok().map(drop)
    })
    .await;
}

#[tokio::test]
async fn one_address_takes_no_more_than_its_share() {
    let sidecar = TestSidecar::with_config(&format!("{PROXY}[limits]\nconnections_per_ip = 2\n")).await;
    let address = sidecar.whereabouts().client();
    let open_elsewhere = async || WebSocketClient::try_open(&address, "/v1/ws", &[ELSEWHERE]).await;
    let clients = [open_elsewhere().await.expect("let in"), open_elsewhere().await.expect("let in")];
    assert_eq!(refused(&sidecar, "/v1/ws", "X-Forwarded-For: 8.8.8.8\r\n").await, 429);
    let here: Vec<_> = futures_util::future::join_all((0..5).map(|_| open(&sidecar, "/v1/ws"))).await;
    drop((clients, here));
    sidecar.wait_for_connections(0).await;
    open_elsewhere().await.expect("let in again");
}

/// What holds where nothing is configured: bursts of 200 handshakes and 1,000 connections of one address, and no
/// such bound for this host.
#[tokio::test]
async fn by_default_one_address_cannot_take_everything() {
    let sidecar = TestSidecar::with_config(PROXY).await;
    let address = sidecar.whereabouts().client();
    let mut granted = Vec::new();
    while let Ok(client) = WebSocketClient::try_open(&address, "/v1/ws", &[ELSEWHERE]).await {
        granted.push(client);
        assert!(granted.len() <= 1_000, "nothing stops it");
    }
    assert!(granted.len() >= 200, "{}", granted.len());
    for _ in 0..granted.len() + 10 {
        granted.push(open(&sidecar, "/v1/ws").await);
    }
    let config = sidecar.admin().get("/v1/config").await.json();
    let limits = &config["limits"];
    assert_eq!((&limits["connections_per_ip"], &limits["handshakes_per_ip"]), (&json!(1000), &json!(100)));
}

#[tokio::test]
async fn one_address_does_not_come_faster_than_it_may() {
    let sidecar = TestSidecar::with_config(&format!("{PROXY}[limits]\nhandshakes_per_ip = 2\n")).await;
    let address = sidecar.whereabouts().client();
    let mut granted = 0;
    while WebSocketClient::try_open(&address, "/v1/ws", &[ELSEWHERE]).await.is_ok() {
        granted += 1;
        assert!(granted < 50, "nothing stops it");
    }
    assert!(granted >= 2, "the first ones are within the limit: {granted}");
    for _ in 0..20 {
        open(&sidecar, "/v1/ws").await;
    }
    eventually("it may come again later", async || {
        WebSocketClient::try_open(&address, "/v1/ws", &[ELSEWHERE]).await.ok().map(drop)
    })
    .await;
}

#[tokio::test]
async fn who_sends_too_many_messages_is_cut_off_with_4010_and_others_are_not() {
    let sidecar = TestSidecar::with_config("[limits]\nmessages_per_second = 10\n").await;
    let mut calm = open(&sidecar, "/v1/ws?channel=a").await;
    calm.expect("subscribed").await;
    let mut flood = open(&sidecar, "/v1/ws").await;
    for _ in 0..100 {
        flood.send(&json!({"type": "ping"})).await;
    }
    assert_eq!(flood.closed().await, 4010);
    let bye = flood.bye.expect("a bye comes before the close");
    assert_eq!((&bye["code"], &bye["retry"]), (&json!(4010), &json!(true)), "{bye}");
    sidecar.publish_numbers("a", 0..1).await;
    assert_eq!(calm.next_numbers(1).await, [0]);
}

#[tokio::test]
async fn who_gives_no_sign_of_life_is_cut_off_with_4009_and_who_answers_pings_stays() {
    let config = "[client]\nheartbeat = \"200ms\"\nidle_timeout = \"1s\"\n";
    let sidecar = TestSidecar::with_config(config).await;
    let address = sidecar.whereabouts().client();
    let mut alive = open(&sidecar, "/v1/ws?channel=a").await;
    alive.expect("subscribed").await;
    let alive = tokio::spawn(async move {
        let numbers = alive.next_numbers(1).await;
        (numbers, alive.bye)
    });

    // Reads, and answers nothing.
    let mut connection = Connection::open(&address).await.expect("connected");
    connection.write(&upgrade_request(&address, "/v1/ws", "")).await.expect("written");
    assert_eq!(within("the upgrade", connection.read_head()).await.expect("a head").status, 101);
    let mut stream = connection.into_stream();
    let mut said = Vec::new();
    within("the end", tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut said)).await.expect("read");
    let close = [&[0x88][..], &4009_u16.to_be_bytes()].concat();
    let found = said.windows(4).any(|bytes| bytes[0] == close[0] && bytes[2..] == close[1..]);
    assert!(found, "a close frame with 4009: {}", String::from_utf8_lossy(&said));

    sidecar.publish_numbers("a", 0..1).await;
    let (numbers, bye) = alive.await.expect("still connected");
    assert_eq!((numbers, bye), (vec![0], None));
}

/// Long before the next heartbeat: time alone cuts it off.
#[tokio::test]
async fn who_takes_no_byte_for_too_long_is_cut_off() {
    let config = "[client]\nstall_timeout = \"1s\"\nheartbeat = \"1h\"\nsse_heartbeat = \"1h\"\nidle_timeout = \"0s\"\n";
    let sidecar = TestSidecar::with_config(config).await;
    let address = sidecar.whereabouts().client();
    let mut stalled = Vec::new();
    for transport in ["ws", "sse", "stream"] {
        let target = format!("/v1/{transport}?channel=a");
        let request = match transport {
            "ws" => upgrade_request(&address, &target, ""),
            _ => format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", address.host()).into_bytes(),
        };
        let mut connection = Connection::open(&address).await.expect("connected");
        connection.write(&request).await.expect("written");
        stalled.push(connection);
    }
    let mut reading = open(&sidecar, "/v1/ws?channel=a").await;
    reading.expect("subscribed").await;
    sidecar.wait_for_subscribers("a", 4).await;
    let reader = tokio::spawn(async move { (reading.next_numbers(400).await.len(), reading) });
    // More than the buffers of both ends and of the system hold.
    for n in 0..400 {
        sidecar.publish(&json!({"channel": "a", "data": {"n": n, "padding": "x".repeat(50_000)}})).await;
    }
    let (read, _reading) = reader.await.expect("read");
    assert_eq!(read, 400);
    // Who reads stays, however long nothing comes.
    sidecar.wait_for_connections(1).await;
    let metrics = sidecar.metrics().await;
    assert_eq!(metrics.sum("sidewire_closes_total", &[("code", "4008")]), 3.0);
    drop(stalled);
}

#[tokio::test]
async fn the_app_may_disconnect_a_client() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    let (mut unwanted, welcome) = WebSocketClient::open_with_welcome(&address, "/v1/ws?channel=a", &[]).await;
    let mut other = open(&sidecar, "/v1/ws?channel=a").await;
    other.expect("subscribed").await;
    let answer =
        sidecar.app().post_json("/v1/disconnect", &json!({"connection": welcome["connection"]})).await;
    answer.success();
    let code = unwanted.closed().await;
    assert!((4100..4200).contains(&code), "it shall not come back: {code}");
    assert_eq!(unwanted.bye.expect("a bye comes before the close")["retry"], false);
    sidecar.publish_numbers("a", 0..1).await;
    assert_eq!(other.next_numbers(1).await, [0]);

    sidecar.app().post_json("/v1/disconnect", &json!({"connection": "nobody"})).await.success();
    for bad in [json!({}), json!({"connection": 7}), json!([])] {
        sidecar.app().post_json("/v1/disconnect", &bad).await.refusal(400);
    }
    let by_a_client = sidecar.client().post_json("/v1/disconnect", &json!({"connection": "nobody"})).await;
    assert!(matches!(by_a_client.status(), 403..=405), "{}", by_a_client.text());
}

#[tokio::test]
async fn a_slow_body_is_told_why_it_was_given_up() {
    let sidecar = TestSidecar::with_config("[limits]\nbody_timeout = \"500ms\"\n").await;
    let address = sidecar.whereabouts().app();
    let mut connection = Connection::open(&address).await.expect("connected");
    let head = "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{";
    connection.write(head.as_bytes()).await.expect("written");
    let answer = within("an answer", connection.read_response()).await.expect("answered");
    assert_eq!(answer.refusal(408), "timeout");
}

/// A thousand clients come back at the same moment, each with its cursor, and the publisher does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_that_comes_back_after_a_restart_is_served() {
    let clients = crate::support::number_from_environment("SIDEWIRE_TEST_HERD", 1_000);
    let mut sidecar = Setup::new().config("[client]\ndrain = \"100ms\"\n").start().await;
    let begin = sidecar.cursor_now().await;
    sidecar.publish_numbers("herd", 0..20).await;
    sidecar.kill_and_start_again().await;
    let herd: Vec<_> = (0..clients)
        .map(|_| {
            let (address, begin) = (sidecar.whereabouts().client(), begin.clone());
            tokio::spawn(async move {
                let target = format!("/v1/ws?channel=herd&cursor={begin}");
                let mut client = WebSocketClient::open(&address, &target).await;
                assert_eq!(client.expect("subscribed").await["resume"], "ok");
                client.next_numbers(30).await
            })
        })
        .collect();
    let mut app = sidecar.app();
    let mut slowest = Duration::ZERO;
    for n in 20..30 {
        let begin = std::time::Instant::now();
        let event = json!({"channel": "herd", "id": n.to_string(), "data": {"n": n}});
        publish_until_taken(&mut app, &[event]).await;
        slowest = slowest.max(begin.elapsed());
    }
    for client in herd {
        assert_eq!(client.await.expect("served"), (0..30).collect::<Vec<_>>());
    }
    eprintln!("{clients} clients came back; the slowest publish meanwhile took {slowest:?}");
    sidecar.still_healthy().await;
}
