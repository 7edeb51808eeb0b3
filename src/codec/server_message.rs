//! What the server says to WebSocket clients, besides events.

use super::frame::{self, Opcode};
use super::list::write_events;
use super::text::ObjectWriter;
use super::transcode::json_to_msgpack;
use super::{Encoding, MessageId, Shown};
use crate::event::Pattern;
use bytes::Bytes;
use std::sync::Arc;

/// How a resume went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resume {
    /// No cursor was given.
    None,
    /// Everything after the cursor is replayed: nothing missing, nothing twice.
    Ok,
    /// Some of it is no longer kept: the replay starts at the oldest that is.
    Expired,
    /// The log of that cursor is gone: it starts now.
    Reset,
    /// The bus keeps no order: a replay by time with an overlap.
    Approximate,
    /// The log cannot be read now.
    Unavailable,
}

impl Resume {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ok => "ok",
            Self::Expired => "expired",
            Self::Reset => "reset",
            Self::Approximate => "approximate",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A message to one WebSocket client. `id` is the one of the request that is answered.
#[derive(Clone, Copy, Debug)]
pub enum ServerMessage<'a> {
    /// The first message.
    Welcome {
        /// The id of this connection, for `exclude`.
        connection: &'a str,
        /// The name of this node.
        node: &'a str,
        /// The version of this node.
        version: &'a str,
        /// Milliseconds between two signs of life; a client that hears nothing for twice as long reconnects.
        heartbeat_ms: u64,
    },
    /// Channels are subscribed.
    Subscribed {
        /// Of the request; none for channels in the URL.
        id: Option<&'a MessageId>,
        /// What was subscribed.
        channels: &'a [Pattern],
        /// From where on events follow.
        cursor: &'a str,
        /// How the resume went.
        resume: Resume,
    },
    /// Channels are no longer subscribed.
    Unsubscribed {
        /// Of the request.
        id: Option<&'a MessageId>,
        /// What was unsubscribed.
        channels: &'a [Pattern],
    },
    /// The client's token was taken. Told to those only who gave an `id`.
    Authenticated {
        /// Of the request.
        id: Option<&'a MessageId>,
        /// Who it is now.
        user: Option<&'a str>,
        /// Until when, in Unix milliseconds.
        expires: Option<u64>,
    },
    /// An event was published.
    Published {
        /// Of the request.
        id: Option<&'a MessageId>,
        /// The event's id.
        event_id: &'a str,
        /// What became of it.
        status: &'a str,
    },
    /// Past events.
    History {
        /// Of the request.
        id: Option<&'a MessageId>,
        /// The events, oldest first.
        events: &'a [Arc<Shown>],
        /// Where the next page begins.
        cursor: &'a str,
        /// Whether there is one.
        more: bool,
    },
    /// The answer to `ping`.
    Pong {
        /// Of the request.
        id: Option<&'a MessageId>,
    },
    /// Something the client asked for was refused.
    Error {
        /// Of the request, if it could be read.
        id: Option<&'a MessageId>,
        /// For programs.
        code: &'a str,
        /// For people.
        message: &'a str,
    },
    /// The server is about to close.
    Bye {
        /// The close code that follows.
        code: u16,
        /// Why.
        reason: &'a str,
        /// Whether the client should come back.
        retry: bool,
    },
}

impl ServerMessage<'_> {
    /// The message as a whole WebSocket frame.
    pub fn encode(&self, encoding: Encoding) -> Bytes {
        match encoding {
            Encoding::Json => frame::whole(Opcode::Text, 256, |out| self.write_json(out)),
            Encoding::MessagePack => {
                let mut json = Vec::with_capacity(256);
                self.write_json(&mut json);
                let json = String::from_utf8(json).expect("JSON is written of texts alone");
                frame::whole(Opcode::Binary, json.len(), |out| json_to_msgpack(&json, out))
            }
        }
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        let mut object = ObjectWriter::new(out);
        object.text("type", self.kind());
        if let Some(id) = self.id() {
            object.json("id", id.as_json());
        }
        match *self {
            Self::Welcome { connection, node, version, heartbeat_ms } => object
                .text("connection", connection)
                .text("node", node)
                .text("version", version)
                .number("heartbeat", heartbeat_ms),
            Self::Subscribed { channels, cursor, resume, .. } => object
                .texts("channels", channels.iter().map(Pattern::as_str))
                .text("cursor", cursor)
                .text("resume", resume.as_str()),
            Self::Unsubscribed { channels, .. } => {
                object.texts("channels", channels.iter().map(Pattern::as_str))
            }
            Self::Authenticated { user, expires, .. } => {
                if let Some(user) = user {
                    object.text("user", user);
                }
                match expires {
                    Some(expires) => object.number("expires", expires),
                    None => &mut object,
                }
            }
            Self::Published { event_id, status, .. } => {
                object.text("event_id", event_id).text("status", status)
            }
            Self::History { events, cursor, more, .. } => {
                write_events(object.name("events"), events);
                object.text("cursor", cursor).flag("more", more)
            }
            Self::Pong { .. } => &mut object,
            Self::Error { code, message, .. } => object.text("code", code).text("message", message),
            Self::Bye { code, reason, retry } => {
                object.number("code", u64::from(code)).text("reason", reason).flag("retry", retry)
            }
        }
        .end();
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Welcome { .. } => "welcome",
            Self::Subscribed { .. } => "subscribed",
            Self::Unsubscribed { .. } => "unsubscribed",
            Self::Authenticated { .. } => "authenticated",
            Self::Published { .. } => "published",
            Self::History { .. } => "history",
            Self::Pong { .. } => "pong",
            Self::Error { .. } => "error",
            Self::Bye { .. } => "bye",
        }
    }

    fn id(&self) -> Option<&MessageId> {
        match self {
            Self::Welcome { .. } | Self::Bye { .. } => None,
            Self::Subscribed { id, .. }
            | Self::Unsubscribed { id, .. }
            | Self::Authenticated { id, .. }
            | Self::Published { id, .. }
            | Self::History { id, .. }
            | Self::Pong { id }
            | Self::Error { id, .. } => *id,
        }
    }
}
