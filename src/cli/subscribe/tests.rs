use super::CredentialArgs;
use super::*;
use crate::event::{Epoch, Position};
use tokio::net::{UnixListener, UnixStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

const EVENT: &str = r#"{"type":"event","channel":"a","event":"e","data":1,"id":"i","time":0,"cursor":"C1"}"#;

#[test]
fn a_cursor_is_told_from_a_time() {
    let cursor = Cursor::at(Epoch(1), Position(2)).encode().to_string();
    assert_eq!(cursor.parse(), Ok(Since::Cursor(cursor.clone())));
    for text in ["10m", "1700000000000", "2024-01-01T00:00:00Z"] {
        assert!(matches!(text.parse(), Ok(Since::Time(_))), "{text}");
    }
}

/// A node on a unix socket, as far as a subscriber sees one.
struct Node {
    listener: UnixListener,
    directory: tempfile::TempDir,
}

impl Node {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { listener: UnixListener::bind(directory.path().join("node")).unwrap(), directory }
    }

    fn subscriber(&self) -> Subscriber {
        let args = SubscribeArgs {
            channels: vec!["a".into()],
            since: None,
            history: None,
            events: Vec::new(),
            json: true,
            client: None,
            credential: CredentialArgs::default(),
            trust: TrustArgs::default(),
            config: None,
        };
        let address = NodeAddress::Unix(self.directory.path().join("node"));
        Subscriber { args, address, token: None, place: Place::new(None), socket: None }
    }

    /// The next connection, and what it subscribed to.
    async fn accept(&self) -> (WebSocketStream<UnixStream>, String) {
        let (stream, _) = self.listener.accept().await.unwrap();
        #[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
        let callback = |request: &Request, mut response: Response| {
            let protocol = request.headers()["sec-websocket-protocol"].clone();
            response.headers_mut().insert("sec-websocket-protocol", protocol);
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, callback).await.unwrap();
        let subscribe = socket.next().await.unwrap().unwrap().into_text().unwrap().to_string();
        (socket, subscribe)
    }
}

async fn say(socket: &mut WebSocketStream<UnixStream>, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
}

#[tokio::test]
async fn a_lost_connection_is_resumed_after_the_last_event() {
    let node = Node::start();
    let mut subscriber = node.subscriber();
    let followed = tokio::spawn(async move { subscriber.follow().await });

    let (mut socket, subscribe) = node.accept().await;
    assert!(!subscribe.contains("cursor"), "{subscribe}");
    say(&mut socket, r#"{"type":"subscribed","id":"1","channels":["a"],"cursor":"C0","resume":"none"}"#)
        .await;
    say(&mut socket, EVENT).await;
    drop(socket);

    let (mut socket, subscribe) = node.accept().await;
    assert!(subscribe.contains(r#""cursor":"C1""#), "{subscribe}");
    say(&mut socket, r#"{"type":"subscribed","id":"1","channels":["a"],"cursor":"C9","resume":"ok"}"#).await;
    let going = CloseFrame { code: 1001.into(), reason: "going away".into() };
    socket.close(Some(going)).await.unwrap();

    let (mut socket, subscribe) = node.accept().await;
    assert!(subscribe.contains(r#""cursor":"C1""#), "{subscribe}");
    say(&mut socket, r#"{"type":"bye","code":4200,"reason":"done","retry":false}"#).await;
    drop(socket);
    followed.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_refusal_is_the_end() {
    let node = Node::start();
    let mut subscriber = node.subscriber();
    let followed = tokio::spawn(async move { subscriber.follow().await });
    let (mut socket, _) = node.accept().await;
    say(&mut socket, r#"{"type":"error","id":"1","code":"invalid_channel","message":"write another"}"#).await;
    let error = followed.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "invalid_channel: write another");
}

#[tokio::test]
async fn a_node_that_is_not_there_is_told_at_once() {
    let node = Node::start();
    let mut subscriber = node.subscriber();
    drop(node);
    let message = subscriber.follow().await.unwrap_err().to_string();
    assert!(message.contains("is the node running there?"), "{message}");
}
