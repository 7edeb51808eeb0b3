//! What WebSocket clients say.

use super::msgpack_reader::Reader;
use crate::event::{Cursor, EventName, Filter, Json, MAX_TAGS, Pattern};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

/// Longest `id` of a message, in bytes of JSON: it comes back in the answer.
const MAX_ID_BYTES: usize = 256;
/// Most channels of one `subscribe`: how many a connection may have in all is for its limits to say.
const MAX_CHANNELS: usize = 10_000;

/// A message from a WebSocket client. `id` is whatever the client wants back in the answer.
#[derive(Clone, PartialEq, Debug)]
pub enum ClientMessage {
    /// Wants events.
    Subscribe(Subscribe),
    /// Wants them no longer.
    Unsubscribe {
        /// Comes back.
        id: Option<MessageId>,
        /// As they were subscribed.
        channels: Vec<Pattern>,
    },
    /// Wants past events.
    History {
        /// Comes back.
        id: Option<MessageId>,
        /// Of these channels.
        channel: Pattern,
        /// After this cursor; without one from the oldest on.
        after: Option<Cursor>,
        /// Most events of the answer.
        limit: Option<usize>,
    },
    /// Says who it is, or says it again.
    Auth {
        /// Comes back.
        id: Option<MessageId>,
        /// Its token.
        token: Token,
    },
    /// Wants to publish.
    Publish {
        /// Comes back.
        id: Option<MessageId>,
        /// The whole message, whose fields are those of a publish.
        message: Box<str>,
        /// Whether its own connection gets the event too.
        echo: bool,
    },
    /// Wants a `pong`.
    Ping {
        /// Comes back.
        id: Option<MessageId>,
    },
    /// A type of message that the protocol knows and this version does not serve.
    Unavailable {
        /// Comes back.
        id: Option<MessageId>,
        /// The type.
        kind: &'static str,
    },
}

/// A token: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// What `subscribe` asks for.
#[derive(Clone, PartialEq, Debug)]
pub struct Subscribe {
    /// Comes back.
    pub id: Option<MessageId>,
    /// Channels and patterns, at least one.
    pub channels: Vec<Pattern>,
    /// Everything after this first.
    pub cursor: Option<Cursor>,
    /// The last so many events first.
    pub history: Option<usize>,
    /// The newest event of each channel first.
    pub last: bool,
    /// `events` and `tags`.
    pub filter: Filter,
}

impl ClientMessage {
    /// Reads a text message.
    pub fn parse_json(text: &str) -> Result<Self, ClientMessageError> {
        let fields: Fields<'_> = serde_json::from_str(text).map_err(|error| {
            ClientMessageError::new("invalid_json", format!("send a JSON object with a `type`: {error}"))
        })?;
        let id = fields.id.map(MessageId::read).transpose()?;
        fields.read(text, id.clone()).map_err(|error| ClientMessageError { id, ..error })
    }

    /// Reads a binary message: MessagePack of the same shape.
    pub fn parse_msgpack(bytes: &[u8]) -> Result<Self, ClientMessageError> {
        let invalid =
            |error| ClientMessageError::new("invalid_msgpack", format!("not valid MessagePack: {error}"));
        let mut reader = Reader::new(bytes);
        // As JSON a message grows several times at most; a limit on messages is the connection's business.
        let json = reader.json(bytes.len().saturating_mul(8).saturating_add(64)).map_err(invalid)?;
        reader.end().map_err(invalid)?;
        Self::parse_json(&json)
    }
}

/// The `id` of a message: a text or a number, as JSON.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageId(Json);

impl MessageId {
    /// The id as JSON.
    pub fn as_json(&self) -> &str {
        self.0.as_str()
    }

    fn read(raw: &RawValue) -> Result<Self, ClientMessageError> {
        let json = raw.get();
        let scalar = json.starts_with(|first: char| matches!(first, '"' | '-' | '0'..='9'));
        if !scalar || json.len() > MAX_ID_BYTES {
            let message = format!("`id` must be a text or a number of at most {MAX_ID_BYTES} bytes");
            return Err(ClientMessageError::new("invalid_id", message));
        }
        Json::from_raw(raw)
            .map(Self)
            .map_err(|error| ClientMessageError::new("invalid_id", format!("`id`: {error}")))
    }
}

/// A message that cannot be understood. The connection stays open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientMessageError {
    /// The message's `id`, if that much could be read.
    pub id: Option<MessageId>,
    /// For programs.
    pub code: &'static str,
    /// For people: what is wrong and what to do.
    pub message: String,
}

impl ClientMessageError {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { id: None, code, message: message.into() }
    }
}

impl fmt::Display for ClientMessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ClientMessageError {}

/// The fields of all types of messages, unread. A field that is there twice is an error, others are ignored.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    channels: Option<&'a RawValue>,
    channel: Option<&'a RawValue>,
    cursor: Option<&'a RawValue>,
    history: Option<&'a RawValue>,
    last: Option<&'a RawValue>,
    events: Option<&'a RawValue>,
    tags: Option<&'a RawValue>,
    after: Option<&'a RawValue>,
    limit: Option<&'a RawValue>,
    token: Option<&'a RawValue>,
    echo: Option<&'a RawValue>,
}

impl Fields<'_> {
    fn read(&self, text: &str, id: Option<MessageId>) -> Result<ClientMessage, ClientMessageError> {
        let kind: String = read(self.kind, "type", "invalid_message", "a text")?.ok_or_else(|| {
            ClientMessageError::new("unknown_type", "`type` is missing: send one, such as \"ping\"")
        })?;
        let unavailable = |kind| Ok(ClientMessage::Unavailable { id: id.clone(), kind });
        match kind.as_str() {
            "subscribe" => Ok(ClientMessage::Subscribe(Subscribe {
                channels: self.channels()?,
                cursor: cursor(self.cursor, "cursor")?,
                history: read(self.history, "history", "invalid_message", "a number of events")?,
                last: flag(self.last, "last")?,
                filter: self.filter()?,
                id,
            })),
            "unsubscribe" => Ok(ClientMessage::Unsubscribe { channels: self.channels()?, id }),
            "history" => Ok(ClientMessage::History {
                channel: match read::<String>(self.channel, "channel", "invalid_channel", "a text")? {
                    Some(text) => pattern(&text)?,
                    None => return Err(ClientMessageError::new("invalid_channel", "name the `channel`")),
                },
                after: cursor(self.after, "after")?,
                limit: read(self.limit, "limit", "invalid_message", "a number of events")?,
                id,
            }),
            "ping" => Ok(ClientMessage::Ping { id }),
            "auth" => match read::<Box<str>>(self.token, "token", "invalid_message", "a text")? {
                Some(token) => Ok(ClientMessage::Auth { id, token: Token(token) }),
                None => Err(ClientMessageError::new("invalid_message", "send the `token`")),
            },
            "publish" => {
                let echo = flag(self.echo, "echo")?;
                Ok(ClientMessage::Publish { id, message: text.into(), echo })
            }
            "presence" => unavailable("presence"),
            "state" => unavailable("state"),
            _ => Err(ClientMessageError::new(
                "unknown_type",
                "`type` must be one of auth, subscribe, unsubscribe, publish, history, ping",
            )),
        }
    }

    /// A list, or for convenience one text.
    fn channels(&self) -> Result<Vec<Pattern>, ClientMessageError> {
        let missing = || ClientMessageError::new("invalid_channel", "name at least one of `channels`");
        let raw = self.channels.ok_or_else(missing)?;
        if let Ok(text) = serde_json::from_str::<String>(raw.get()) {
            return Ok(vec![pattern(&text)?]);
        }
        let texts: Vec<String> =
            read(Some(raw), "channels", "invalid_channel", "a list of texts")?.ok_or_else(missing)?;
        if texts.is_empty() {
            return Err(missing());
        }
        if texts.len() > MAX_CHANNELS {
            let message = format!("`channels` takes at most {MAX_CHANNELS} at once");
            return Err(ClientMessageError::new("invalid_channel", message));
        }
        texts.iter().map(|text| pattern(text)).collect()
    }

    fn filter(&self) -> Result<Filter, ClientMessageError> {
        let names: Vec<String> =
            read(self.events, "events", "invalid_event", "a list of texts")?.unwrap_or_default();
        let events = names
            .iter()
            .map(|name| EventName::parse(name))
            .collect::<Result<_, _>>()
            .map_err(|error| ClientMessageError::new("invalid_event", error.message))?;
        let tags: BTreeMap<Box<str>, Box<str>> =
            read(self.tags, "tags", "invalid_tags", "an object of texts")?.unwrap_or_default();
        if tags.len() > MAX_TAGS {
            let message = format!("`tags` takes at most {MAX_TAGS}");
            return Err(ClientMessageError::new("invalid_tags", message));
        }
        Ok(Filter { events, tags: tags.into_iter().collect() })
    }
}

fn read<'a, T: Deserialize<'a>>(
    raw: Option<&'a RawValue>,
    name: &str,
    code: &'static str,
    what: &str,
) -> Result<Option<T>, ClientMessageError> {
    raw.map(|raw| serde_json::from_str(raw.get()))
        .transpose()
        .map_err(|_| ClientMessageError::new(code, format!("`{name}` must be {what}")))
}

fn flag(raw: Option<&RawValue>, name: &str) -> Result<bool, ClientMessageError> {
    match raw.map(RawValue::get) {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(_) => Err(ClientMessageError::new("invalid_message", format!("`{name}` must be true or false"))),
    }
}

fn cursor(raw: Option<&RawValue>, name: &str) -> Result<Option<Cursor>, ClientMessageError> {
    read::<String>(raw, name, "invalid_cursor", "a text")?
        .map(|text| Cursor::parse(&text))
        .transpose()
        .map_err(|error| ClientMessageError::new("invalid_cursor", format!("`{name}`: {error}")))
}

fn pattern(text: &str) -> Result<Pattern, ClientMessageError> {
    Pattern::parse(text).map_err(|error| ClientMessageError::new("invalid_channel", error.to_string()))
}
