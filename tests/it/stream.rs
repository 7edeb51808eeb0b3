//! `GET /v1/stream`: the events as NDJSON, endless.

use crate::support::{Connection, Subscription, TestSidecar, Transport, within};
use serde_json::{Value, json};

#[tokio::test]
async fn every_line_is_an_event_in_json() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    let cursor = sidecar.cursor_now().await;
    let mut connection = Connection::open(&address).await.expect("connected");
    let request =
        format!("GET /v1/stream?channel=a.>&cursor={cursor} HTTP/1.1\r\nHost: {}\r\n\r\n", address.host());
    connection.write(request.as_bytes()).await.expect("written");
    let head = within("the head", connection.read_head()).await.expect("a head");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("application/x-ndjson"));

    let answer = sidecar.publish(&json!({"channel": "a.b", "event": "saved", "data": "two\nlines"})).await;
    let mut text = Vec::new();
    let event = within("the event's line", async {
        loop {
            text.extend(connection.chunk().await.expect("open").expect("endless"));
            let lines = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
            let messages = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
            if let Some(event) = messages.into_iter().find(|message| message["type"] == "event") {
                return event;
            }
        }
    })
    .await;
    assert_eq!((&event["event"], &event["data"]), (&json!("saved"), &json!("two\nlines")));
    assert_eq!((&event["id"], &event["cursor"]), (&answer["id"], &answer["cursor"]));
}

#[tokio::test]
async fn it_may_be_messagepack_one_map_after_the_other() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    let cursor = sidecar.cursor_now().await;
    sidecar.publish_numbers("a", 0..3).await;
    let mut connection = Connection::open(&address).await.expect("connected");
    let target = format!("/v1/stream?channel=a&format=msgpack&cursor={cursor}");
    let request = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", address.host());
    connection.write(request.as_bytes()).await.expect("written");
    let head = within("the head", connection.read_head()).await.expect("a head");
    assert_eq!(head.header("content-type"), Some("application/msgpack"));
    let mut unread = Vec::new();
    let mut found = Vec::new();
    while found.len() < 3 {
        let mut rest = &unread[..];
        if let Ok(map) = rmpv::decode::read_value(&mut rest) {
            assert_eq!(map["type"].as_str(), Some("event"), "{map}");
            found.push(map["data"]["n"].as_u64());
            unread = rest.to_vec();
        } else {
            unread.extend(within("more", connection.chunk()).await.expect("open").expect("endless"));
        }
    }
    assert_eq!(found, [Some(0), Some(1), Some(2)]);
}

#[tokio::test]
async fn it_resumes_after_the_cursor_of_any_line() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    let begin = sidecar.cursor_now().await;
    sidecar.publish_numbers("a", 0..5).await;
    let mut stream = Subscription::open(Transport::Stream, &address, "channel=a", Some(&begin)).await;
    stream.next().await;
    let second = stream.next().await;
    drop(stream);
    let mut again = Subscription::open(Transport::Stream, &address, "channel=a", Some(&second.cursor)).await;
    assert_eq!(again.numbers(3).await, [2, 3, 4]);
    sidecar.publish_numbers("a", 5..6).await;
    assert_eq!(again.numbers(1).await, [5]);
}

#[tokio::test]
async fn a_client_that_goes_away_is_forgotten() {
    let sidecar = TestSidecar::start().await;
    let before = sidecar.connections().await;
    let stream =
        Subscription::open(Transport::Stream, &sidecar.whereabouts().client(), "channel=a", None).await;
    sidecar.wait_for_connections(before + 1).await;
    drop(stream);
    sidecar.wait_for_connections(before).await;
}
