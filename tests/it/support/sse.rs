//! A client for server-sent events that reads the stream as the WHATWG standard says, byte for byte: what it
//! makes of a stream is what a browser makes of it.

use super::address::Address;
use super::http::{Connection, Head, request_bytes};
use super::wait::within;
use serde_json::Value;
use std::collections::VecDeque;
use std::io;

/// One thing in the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SseItem {
    /// An event as a page would get it.
    Event {
        name: String,
        data: String,
        /// What the browser would send as `Last-Event-ID` from now on.
        last_id: String,
    },
    /// A line that begins with a colon.
    Comment(String),
    /// The time in milliseconds after which a browser would come back.
    Retry(u64),
}

/// The parser of the standard.
#[derive(Default)]
struct Parser {
    /// Bytes of a line that has not ended.
    line: Vec<u8>,
    after_cr: bool,
    begun: bool,
    name: String,
    data: String,
    id: String,
}

impl Parser {
    fn push(&mut self, bytes: &[u8], items: &mut VecDeque<SseItem>) {
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\r' | b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.end_line(&line, items);
                }
                _ => self.line.push(byte),
            }
        }
    }

    fn end_line(&mut self, line: &[u8], items: &mut VecDeque<SseItem>) {
        let text = String::from_utf8_lossy(line);
        let mut text = &*text;
        if !std::mem::replace(&mut self.begun, true) {
            text = text.strip_prefix('\u{feff}').unwrap_or(text);
        }
        if text.is_empty() {
            return self.dispatch(items);
        }
        if let Some(comment) = text.strip_prefix(':') {
            return items.push_back(SseItem::Comment(comment.trim_start().to_owned()));
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id = value.to_owned(),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                items.push_back(SseItem::Retry(value.parse().expect("digits")));
            }
            _ => {}
        }
    }

    fn dispatch(&mut self, items: &mut VecDeque<SseItem>) {
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        if data.pop().is_some() {
            let name = if name.is_empty() { "message".to_owned() } else { name };
            items.push_back(SseItem::Event { name, data, last_id: self.id.clone() });
        }
    }
}

/// An open stream of events.
pub(crate) struct SseClient {
    connection: Connection,
    parser: Parser,
    items: VecDeque<SseItem>,
    pub(crate) head: Head,
}

impl SseClient {
    /// Opens the stream, which must be granted.
    pub(crate) async fn open(address: &Address, target: &str, headers: &[(&str, &str)]) -> Self {
        within("the head of an event stream", Self::try_open(address, target, headers))
            .await
            .unwrap_or_else(|error| panic!("{target}: {error}"))
    }

    pub(crate) async fn try_open(
        address: &Address,
        target: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Self> {
        let mut connection = Connection::open(address).await?;
        let mut all = vec![("Accept", "text/event-stream")];
        all.extend_from_slice(headers);
        connection.write(&request_bytes("GET", target, &address.host(), &all, b"")).await?;
        let head = connection.read_head().await?;
        if head.status != 200 {
            return Err(io::Error::other(format!("status {}", head.status)));
        }
        let kind = head.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        Ok(Self { connection, parser: Parser::default(), items: VecDeque::new(), head })
    }

    /// The next thing in the stream; an error when the stream has ended.
    pub(crate) async fn try_next(&mut self) -> io::Result<SseItem> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Ok(item);
            }
            let piece = self.connection.chunk().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            self.parser.push(&piece, &mut self.items);
        }
    }

    pub(crate) async fn next(&mut self) -> SseItem {
        within("something in the event stream", self.try_next()).await.expect("the stream is open")
    }

    /// The next event: its name, its data and the last event id.
    pub(crate) async fn next_event(&mut self) -> (String, String, String) {
        loop {
            if let SseItem::Event { name, data, last_id } = self.next().await {
                return (name, data, last_id);
            }
        }
    }

    /// The next event, whose data is JSON.
    pub(crate) async fn next_json(&mut self) -> Value {
        let (_, data, _) = self.next_event().await;
        serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {data}"))
    }

    /// Waits until the node ends the stream; gives what came before that.
    pub(crate) async fn rest(&mut self) -> Vec<SseItem> {
        let mut items = Vec::new();
        within("the end of the event stream", async {
            while let Ok(item) = self.try_next().await {
                items.push(item);
            }
        })
        .await;
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str, last_id: &str) -> SseItem {
        SseItem::Event { name: name.into(), data: data.into(), last_id: last_id.into() }
    }

    #[test]
    fn reads_a_stream_as_the_standard_says_however_it_is_cut() {
        let stream = "\u{feff}: hello\n\nid: 1\nevent: a\ndata: x\ndata:y\r\n\r\ndata\n\nid\rdata:  z\r\rretry: 30\n\
                      event: no data\n\nid: 4\0\ndata: last\n\ndata: cut off";
        let expected = [
            SseItem::Comment("hello".into()),
            event("a", "x\ny", "1"),
            event("message", "", "1"),
            event("message", " z", ""),
            SseItem::Retry(30),
            event("message", "last", ""),
        ];
        for size in 1..stream.len() {
            let (mut parser, mut items) = (Parser::default(), VecDeque::new());
            for piece in stream.as_bytes().chunks(size) {
                parser.push(piece, &mut items);
            }
            assert_eq!(items, expected, "in pieces of {size}");
        }
    }
}
