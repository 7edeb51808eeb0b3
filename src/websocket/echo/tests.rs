use super::*;
use futures_util::{SinkExt, StreamExt};
use std::net::SocketAddr;
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const HANDSHAKE: &str = "GET /any HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

async fn start(patience: Patience) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, patience));
    address
}

/// Sends `request` and reads until the server closes.
async fn exchange(patience: Patience, request: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(start(patience).await).await.unwrap();
    socket.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn an_independent_client_gets_its_messages_back() {
    let url = format!("ws://{}/", start(PATIENCE).await);
    let (mut socket, response) = tokio_tungstenite::connect_async(url).await.unwrap();
    assert!(response.headers().get("sec-websocket-extensions").is_none());
    for message in [
        Message::text("hällo"),
        Message::binary(vec![]),
        Message::binary(vec![7; 100_000]),
        Message::text("x".repeat(3_000_000)),
    ] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.send(Message::Ping("p".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("p".into()));
    let close = CloseFrame { code: CloseCode::Library(4200), reason: "".into() };
    socket.close(Some(close.clone())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Close(Some(close)));
    assert!(socket.next().await.is_none());
}

#[tokio::test]
async fn frames_sent_with_the_handshake_are_not_lost() {
    let request = [HANDSHAKE.as_bytes(), b"\x81\x82\0\0\0\0hi\x88\x80\0\0\0\0"].concat();
    let answer = exchange(PATIENCE, &request).await;
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", answer.escape_ascii());
    assert!(answer.ends_with(b"\r\n\r\n\x81\x02hi\x88\x00"), "{}", answer.escape_ascii());
}

#[tokio::test]
async fn a_broken_rule_is_told_even_while_the_client_goes_on_sending() {
    let huge = [HANDSHAKE.as_bytes(), b"\x82\xff\x7f\0\0\0\0\0\0\0\0\0\0\0", &[0; 300_000]].concat();
    let answer = exchange(PATIENCE, &huge).await;
    assert!(answer.ends_with(b"\x88\x11\x03\xf1message too big"), "{}", answer.escape_ascii());
}

#[tokio::test]
async fn a_plain_request_is_told_what_to_do() {
    let answer = exchange(PATIENCE, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    assert!(answer.contains("upgrade: websocket\r\n"), "{answer}");
    assert!(answer.contains("sec-websocket-version: 13\r\n"), "{answer}");
}

#[tokio::test]
async fn a_client_that_never_finishes_its_handshake_is_left() {
    let hasty = Patience { handshake: Duration::from_millis(50), ..PATIENCE };
    for begun in ["", "GET / HT", &HANDSHAKE[..HANDSHAKE.len() - 2]] {
        let answer = exchange(hasty, begun.as_bytes()).await;
        assert!(!answer.starts_with(b"HTTP/1.1 101"), "{}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_left() {
    let hasty = Patience { write: Duration::from_millis(50), ..PATIENCE };
    let mut socket = TcpStream::connect(start(hasty).await).await.unwrap();
    socket.write_all(HANDSHAKE.as_bytes()).await.unwrap();
    let mut message = b"\x82\xff\0\0\0\0\0\x01\0\0\0\0\0\0".to_vec();
    message.resize(message.len() + 0x10000, 7);
    // The server stops reading once its answers are stuck, and then leaves: writing ends in an error.
    while socket.write_all(&message).await.is_ok() {}
}
