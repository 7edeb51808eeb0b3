//! A WebSocket client that speaks the node's protocol, in JSON or MessagePack.

use super::address::{Address, Duplex};
use super::wait::within;
use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::{HeaderName, HeaderValue, Response};

/// How the connection ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// By a close frame.
    Closed { code: u16, reason: String },
    /// Without one.
    Cut(String),
}

pub(crate) struct WebSocketClient {
    stream: WebSocketStream<Box<dyn Duplex>>,
    /// What the node answered to the upgrade.
    pub(crate) response: Response<Option<Vec<u8>>>,
    /// The last `bye` that came.
    pub(crate) bye: Option<Value>,
}

impl WebSocketClient {
    /// Connects, which must be granted, and reads the `welcome`.
    pub(crate) async fn open(address: &Address, target: &str) -> Self {
        let (client, _) = Self::open_with_welcome(address, target, &[]).await;
        client
    }

    /// The same with MessagePack.
    pub(crate) async fn open_msgpack(address: &Address, target: &str) -> Self {
        let headers = [("Sec-WebSocket-Protocol", "sidewire.v1.msgpack")];
        let (client, _) = Self::open_with_welcome(address, target, &headers).await;
        client
    }

    pub(crate) async fn open_with_welcome(
        address: &Address,
        target: &str,
        headers: &[(&str, &str)],
    ) -> (Self, Value) {
        let mut client = within("a WebSocket handshake", Self::try_open(address, target, headers))
            .await
            .unwrap_or_else(|error| panic!("{target}: {error}"));
        let welcome = client.next().await;
        assert_eq!(welcome["type"], "welcome", "the first message: {welcome}");
        (client, welcome)
    }

    /// Connects; an error holds the refusal. The `welcome` is still to come.
    pub(crate) async fn try_open(
        address: &Address,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, tungstenite::Error> {
        Self::try_open_over(address.connect().await?, &address.host(), target, headers).await
    }

    /// The same over a stream that is there.
    pub(crate) async fn try_open_over(
        stream: Box<dyn Duplex>,
        host: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, tungstenite::Error> {
        let mut request = format!("ws://{host}{target}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(
                HeaderName::from_bytes(name.as_bytes()).expect("a header name"),
                HeaderValue::from_str(value).expect("a header value"),
            );
        }
        let (stream, response) = client_async(request, stream).await?;
        Ok(Self { stream, response, bye: None })
    }

    /// Sends a message as text.
    pub(crate) async fn send(&mut self, message: &Value) {
        self.send_raw(Message::text(message.to_string())).await;
    }

    /// Sends a message as MessagePack.
    pub(crate) async fn send_msgpack(&mut self, message: &Value) {
        let bytes = rmp_serde::to_vec_named(message).expect("JSON fits into MessagePack");
        self.send_raw(Message::binary(bytes)).await;
    }

    pub(crate) async fn send_raw(&mut self, message: Message) {
        self.stream.send(message).await.expect("the connection is open");
    }

    /// Sends a message to a node that may have closed.
    pub(crate) async fn send_if_open(&mut self, message: &Value) {
        let _ = self.stream.send(Message::text(message.to_string())).await;
    }

    /// The next message of the protocol; pings and pongs of the framing are not told.
    pub(crate) async fn try_next(&mut self) -> Result<Value, Ended> {
        loop {
            let message = match self.stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(Ended::Cut(error.to_string())),
                None => return Err(Ended::Cut("the end of the stream".into())),
            };
            let value = match message {
                Message::Text(text) => serde_json::from_str(&text).expect("a text frame is JSON"),
                Message::Binary(bytes) => from_msgpack(&bytes),
                Message::Close(Some(frame)) => {
                    return Err(Ended::Closed { code: frame.code.into(), reason: frame.reason.to_string() });
                }
                Message::Close(None) => return Err(Ended::Closed { code: 1005, reason: String::new() }),
                _ => continue,
            };
            if value["type"] == "bye" {
                self.bye = Some(value.clone());
            }
            return Ok(value);
        }
    }

    pub(crate) async fn next(&mut self) -> Value {
        within("a WebSocket message", self.try_next())
            .await
            .unwrap_or_else(|ended| panic!("a message was expected, not {ended:?}"))
    }

    /// The next message, which must be of that type.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    pub(crate) async fn next_event(&mut self) -> Value {
        self.expect("event").await
    }

    /// The next events' `n`.
    pub(crate) async fn next_numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            numbers.push(self.next_event().await["data"]["n"].as_u64().expect("a number"));
        }
        numbers
    }

    /// Subscribes and gives the answer.
    pub(crate) async fn subscribe(&mut self, channels: &[&str], more: Value) -> Value {
        let mut message = json!({"type": "subscribe", "id": "s", "channels": channels});
        for (key, value) in more.as_object().expect("an object") {
            message[key] = value.clone();
        }
        self.send(&message).await;
        let answer = self.expect("subscribed").await;
        assert_eq!(answer["id"], "s", "{answer}");
        answer
    }

    /// Checks that nothing has come: a ping is answered next.
    pub(crate) async fn expect_nothing(&mut self) {
        self.send(&json!({"type": "ping", "id": "nothing"})).await;
        let answer = self.next().await;
        assert_eq!(answer["type"], "pong", "nothing was to come: {answer}");
    }

    /// Reads until the node closes, and gives the close code.
    pub(crate) async fn closed(&mut self) -> u16 {
        within("a close frame", async {
            loop {
                match self.try_next().await {
                    Ok(_) => {}
                    Err(Ended::Closed { code, .. }) => return code,
                    Err(Ended::Cut(how)) => panic!("a close frame was expected, not {how}"),
                }
            }
        })
        .await
    }

    /// Closes from this side, politely.
    pub(crate) async fn close(mut self) {
        // The node may have gone already.
        let _ = self.stream.close(None).await;
    }
}

/// MessagePack as the JSON that it means; `bin`, which JSON has not, becomes `{"$bin": base64}`.
pub(crate) fn from_msgpack(bytes: &[u8]) -> Value {
    let mut rest = bytes;
    let value = rmpv::decode::read_value(&mut rest).expect("a binary frame is MessagePack");
    assert!(rest.is_empty(), "{} bytes after a MessagePack value", rest.len());
    to_json(value)
}

fn to_json(value: rmpv::Value) -> Value {
    match value {
        rmpv::Value::Binary(bytes) => {
            json!({"$bin": base64::engine::general_purpose::STANDARD.encode(bytes)})
        }
        rmpv::Value::Map(pairs) => Value::Object(
            pairs
                .into_iter()
                .map(|(key, value)| (key.as_str().expect("keys are text").to_owned(), to_json(value)))
                .collect(),
        ),
        rmpv::Value::Array(values) => Value::Array(values.into_iter().map(to_json).collect()),
        rmpv::Value::Nil => Value::Null,
        rmpv::Value::Boolean(value) => value.into(),
        rmpv::Value::Integer(value) => match value.as_u64() {
            Some(value) => value.into(),
            None => value.as_i64().expect("an integer has 64 bits").into(),
        },
        rmpv::Value::F32(value) => value.into(),
        rmpv::Value::F64(value) => value.into(),
        rmpv::Value::String(text) => text.as_str().expect("text is UTF-8").into(),
        rmpv::Value::Ext(kind, _) => panic!("an extension of type {kind} is nothing that the contract knows"),
    }
}

/// An upgrade request as bytes, for tests that go on with frames of their own.
pub(crate) fn upgrade_request(address: &Address, target: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n",
        address.host()
    )
    .into_bytes()
}
