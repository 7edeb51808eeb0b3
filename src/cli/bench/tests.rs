use super::*;
use futures_util::SinkExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

#[test]
fn the_report_counts_what_was_lost() {
    let mut report = Report {
        clients: 2,
        publishing: Duration::from_secs(2),
        delivering: Duration::from_secs(2),
        ..Report::default()
    };
    (0..10).for_each(|_| report.publish.record(Duration::from_millis(1)));
    (0..18).for_each(|_| report.delivery.record(Duration::from_millis(2)));
    let lines = report.lines();
    assert_eq!(lines[0], "published  10 events, 5/s, 0 refused");
    assert_eq!(lines[1], "delivered  18 of 20, 9/s to 2 clients");
    assert!(lines[2].starts_with("publish    p50 1.0"), "{}", lines[2]);
    assert_eq!(lines[4], "lost       2");
    assert_eq!(lines.len(), 5);
}

/// Answers publishes on one connection, and hands their bodies on.
async fn serve_app(stream: UnixStream, events: broadcast::Sender<String>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        events.send(String::from_utf8(body).unwrap()).ok()?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.ok()?;
    }
}

/// Sends one client every event.
async fn serve_client(stream: UnixStream, mut events: broadcast::Receiver<String>) -> Option<()> {
    #[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
    let callback = |request: &Request, mut response: Response| {
        let protocol = request.headers()["sec-websocket-protocol"].clone();
        response.headers_mut().insert("sec-websocket-protocol", protocol);
        assert!(request.uri().query().unwrap().starts_with("channel=bench."));
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, callback).await.ok()?;
    for text in [r#"{"type":"welcome"}"#, r#"{"type":"subscribed"}"#] {
        socket.send(Message::text(text)).await.ok()?;
    }
    loop {
        socket.send(Message::text(events.recv().await.ok()?)).await.ok()?;
    }
}

#[tokio::test]
async fn every_publish_is_counted_with_every_client() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (app, client) =
        (UnixListener::bind(path("app")).unwrap(), UnixListener::bind(path("client")).unwrap());
    let (events, _) = broadcast::channel(1000);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Ok((stream, _)) = app.accept() => drop(tokio::spawn(serve_app(stream, events.clone()))),
                Ok((stream, _)) = client.accept() => drop(tokio::spawn(serve_client(stream, events.subscribe()))),
            }
        }
    });
    let report = measure(BenchArgs {
        clients: 3,
        rate: 40,
        seconds: 1,
        size: 10,
        publishers: 2,
        ack: "log".into(),
        app: Some(NodeAddress::Unix(path("app"))),
        client: Some(NodeAddress::Unix(path("client"))),
        trust: TrustArgs::default(),
        config: None,
    })
    .await
    .unwrap();
    // A machine under load may miss the last few that were due.
    assert!((20..=40).contains(&report.publish.total()), "{:?}", report.lines());
    assert_eq!(report.delivery.total(), report.publish.total() * 3);
    assert_eq!((report.refused, report.cut_off), (0, 0));
}
