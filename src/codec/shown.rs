//! An event on its way to clients.

use super::event::{data_len, json_len, msgpack_len, sse, write_data, write_json, write_msgpack};
use super::frame::{self, Opcode};
use crate::event::{Cursor, CursorText, Event};
use bytes::Bytes;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// How an event is put on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Framing {
    /// A WebSocket text frame with JSON.
    WebSocketJson,
    /// A WebSocket binary frame with MessagePack.
    WebSocketMessagePack,
    /// An SSE message: `id` is the cursor, `event` the name, `data` the event as JSON.
    Sse,
    /// The same, but `data` is the event's data alone, as JSON text: a text keeps its quotes, bytes are
    /// `{"$base64":".."}`. So every value is read back as it was published.
    SseRaw,
    /// JSON and a line break: NDJSON.
    Lines,
    /// JSON, to be part of a body.
    JsonBody,
    /// MessagePack, to be part of a body.
    MessagePackBody,
}

/// An event with its place in the log, encoded at most once for each form. The framings of one encoding share
/// its bytes: `{header}{JSON}{line break}` is the WebSocket frame, the line and the body at once.
pub struct Shown {
    /// The event.
    pub event: Arc<Event>,
    /// None while the bus has not ordered it.
    cursor: Option<CursorText>,
    json: OnceLock<Bytes>,
    msgpack: OnceLock<Bytes>,
    sse: OnceLock<Bytes>,
    sse_raw: OnceLock<Bytes>,
    /// The same with other cursors, the newest first.
    others: Mutex<Vec<(Cursor, Arc<Shown>)>>,
}

/// Cursors under which an event is kept encoded, besides its own. Nearly all clients that need another one need
/// the same.
const MOST_OTHERS: usize = 3;

impl Shown {
    /// An event, and the cursor of a client that has everything up to it.
    pub fn new(event: impl Into<Arc<Event>>, cursor: &Cursor) -> Self {
        Self::with(event.into(), Some(cursor.encode()))
    }

    /// An event that has no place in the log yet, and so no cursor of its own: each client has another.
    pub fn early(event: impl Into<Arc<Event>>) -> Self {
        Self::with(event.into(), None)
    }

    fn with(event: Arc<Event>, cursor: Option<CursorText>) -> Self {
        Self {
            event,
            cursor,
            json: OnceLock::new(),
            msgpack: OnceLock::new(),
            sse: OnceLock::new(),
            sse_raw: OnceLock::new(),
            others: Mutex::default(),
        }
    }

    /// The same for clients whose cursor says more than the event's own, and encoded once for all of them.
    pub fn with_cursor(&self, cursor: &Cursor) -> Arc<Self> {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, shown)) = others.iter().find(|(other, _)| other == cursor) {
            return shown.clone();
        }
        let shown = Arc::new(Self::new(self.event.clone(), cursor));
        others.truncate(MOST_OTHERS - 1);
        others.insert(0, (cursor.clone(), shown.clone()));
        shown
    }

    /// The cursor of a client that has everything up to this event.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_ref().map(CursorText::as_str)
    }

    /// The event as it is written to a client.
    pub fn frame(&self, framing: Framing) -> &[u8] {
        let (bytes, start, end) = self.part(framing);
        &bytes[start..end]
    }

    /// The same with a share in the memory, for what must outlive `self` (no copy).
    pub fn frame_bytes(&self, framing: Framing) -> Bytes {
        let (bytes, start, end) = self.part(framing);
        bytes.slice(start..end)
    }

    /// How many bytes the forms take that were made so far.
    pub fn encoded_bytes(&self) -> usize {
        [&self.json, &self.msgpack, &self.sse, &self.sse_raw]
            .into_iter()
            .filter_map(OnceLock::get)
            .map(Bytes::len)
            .sum()
    }

    fn part(&self, framing: Framing) -> (&Bytes, usize, usize) {
        let bytes = match framing {
            Framing::WebSocketJson | Framing::Lines | Framing::JsonBody => {
                self.json.get_or_init(|| self.encode_json())
            }
            Framing::WebSocketMessagePack | Framing::MessagePackBody => {
                self.msgpack.get_or_init(|| self.encode_msgpack())
            }
            Framing::Sse => self.sse.get_or_init(|| {
                let write = |out: &mut Vec<u8>| write_json(out, &self.event, self.cursor());
                sse(&self.event, self.cursor(), json_len(&self.event, self.cursor()), write).into()
            }),
            Framing::SseRaw => self.sse_raw.get_or_init(|| {
                let data = &self.event.data;
                sse(&self.event, self.cursor(), data_len(data), |out| write_data(out, data)).into()
            }),
        };
        let end = bytes.len();
        match framing {
            Framing::WebSocketJson => (bytes, 0, end - 1),
            Framing::Lines => (bytes, frame::header_bytes(bytes), end),
            Framing::JsonBody => (bytes, frame::header_bytes(bytes), end - 1),
            Framing::MessagePackBody => (bytes, frame::header_bytes(bytes), end),
            Framing::WebSocketMessagePack | Framing::Sse | Framing::SseRaw => (bytes, 0, end),
        }
    }

    fn encode_json(&self) -> Bytes {
        let length = json_len(&self.event, self.cursor());
        let mut buffer = Vec::with_capacity(frame::MAX_HEADER_BYTES + length + 1);
        buffer.resize(frame::MAX_HEADER_BYTES, 0);
        write_json(&mut buffer, &self.event, self.cursor());
        debug_assert_eq!(buffer.len(), frame::MAX_HEADER_BYTES + length);
        let length = buffer.len() - frame::MAX_HEADER_BYTES;
        buffer.push(b'\n');
        frame::seal(buffer, Opcode::Text, length)
    }

    fn encode_msgpack(&self) -> Bytes {
        frame::whole(Opcode::Binary, msgpack_len(&self.event), |out| {
            write_msgpack(out, &self.event, self.cursor());
        })
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").field("event", &self.event).finish_non_exhaustive()
    }
}
