//! What is published: channel, event, position, cursor. Everything here is valid once it exists.
//!
//! This module knows nothing of the rest of Sidewire: no HTTP, no log, no sockets, no clock source.

mod channel;
mod cursor;
mod interest;
mod json;
mod way;

pub use channel::{Channel, ChannelError, Pattern};
pub use cursor::{
    Cursor, CursorError, CursorText, EarlyRange, EarlyRanges, Epoch, POSITIONS_PER_MS, Place, Position,
};
pub use interest::{Filter, Interest};
pub use json::{Json, JsonError, MAX_JSON_DEPTH};
pub use way::{MAX_SHARDS, Marks, Origin, Sender, Way, shard_of};

use bytes::Bytes;
use std::fmt;

/// Milliseconds since the Unix epoch.
pub type UnixMs = u64;

/// Longest event id, in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// Longest event name, in bytes.
pub const MAX_NAME_BYTES: usize = 255;
/// Longest name of a user, in bytes.
pub const MAX_USER_BYTES: usize = 255;
/// Most tags on one event.
pub const MAX_TAGS: usize = 32;
/// Longest tag name, in bytes.
pub const MAX_TAG_NAME_BYTES: usize = 64;
/// Longest tag value, in bytes.
pub const MAX_TAG_VALUE_BYTES: usize = 512;

/// The unique id of an event: given by the publisher, or a UUIDv7 made here.
///
/// An event that is published to several channels at once has one id on all of them, and yet each of its copies
/// must be told from the others when the publish is repeated. So such an id has a second part, the channel,
/// which is kept but never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EventId(Box<str>);

impl EventId {
    /// Between an id and its channel: the unit separator, a control character that no publisher can send.
    pub(crate) const PART: char = '\u{1f}';

    /// Accepts 1 to [`MAX_ID_BYTES`] bytes of UTF-8 without control characters.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        plain(text, MAX_ID_BYTES, "id").map(|()| Self(text.into()))
    }

    /// A fresh UUIDv7.
    pub fn fresh() -> Self {
        let mut buffer = uuid::Uuid::encode_buffer();
        Self((&*uuid::Uuid::now_v7().hyphenated().encode_lower(&mut buffer)).into())
    }

    /// When it was made, if it is a UUIDv7.
    pub fn made_at(&self) -> Option<UnixMs> {
        let uuid = uuid::Uuid::try_parse(self.as_str()).ok()?;
        // Its first 48 bits (RFC 9562, section 5.7).
        (uuid.get_version_num() == 7).then(|| (uuid.as_u128() >> 80) as UnixMs)
    }

    /// The id of the copy of an event that goes to one of several channels.
    pub fn on_channel(&self, channel: &Channel) -> Self {
        Self(format!("{}{}{channel}", self.as_str(), Self::PART).into())
    }

    /// The id as publishers and clients know it.
    pub fn as_str(&self) -> &str {
        self.0.split_once(Self::PART).map_or(&self.0, |(id, _)| id)
    }

    /// What tells it from every other: the id, and the channel where it is one of several.
    pub(crate) fn key(&self) -> &str {
        &self.0
    }

    /// Takes a text that was a key before and was stored under a checksum.
    pub(crate) fn from_key(text: &str) -> Option<Self> {
        let (id, channel) = text.split_once(Self::PART).unwrap_or((text, "-"));
        (Self::parse(id).is_ok() && Channel::parse(channel).is_ok()).then(|| Self(text.into()))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of an event (`message` unless the publisher says otherwise).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EventName(Box<str>);

impl EventName {
    /// Accepts 1 to [`MAX_NAME_BYTES`] bytes of UTF-8 without control characters: a line break in a
    /// name could forge lines of an SSE stream.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        plain(text, MAX_NAME_BYTES, "event").map(|()| Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for EventName {
    fn default() -> Self {
        Self("message".into())
    }
}

impl fmt::Debug for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The payload of an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Data {
    /// A JSON value, kept as the text it came in.
    Json(Json),
    /// Bytes that are not JSON. MessagePack clients get `bin`, JSON clients `{"$base64": ".."}`.
    Bytes(Bytes),
}

impl Data {
    /// Size of the payload in bytes, as kept.
    pub fn len(&self) -> usize {
        match self {
            Data::Json(json) => json.as_str().len(),
            Data::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether the payload has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Tags of an event, sorted by name, each name once.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Tags(Box<[(Box<str>, Box<str>)]>);

impl Tags {
    /// Sorts and checks the pairs; a later pair with the same name replaces an earlier one.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, FieldError> {
        let mut sorted = std::collections::BTreeMap::new();
        for (name, value) in pairs {
            plain(&name, MAX_TAG_NAME_BYTES, "tags")?;
            if value.len() > MAX_TAG_VALUE_BYTES || value.chars().any(char::is_control) {
                return Err(FieldError {
                    field: "tags",
                    message: format!(
                        "the value of tag `{name}` must be at most {MAX_TAG_VALUE_BYTES} bytes without control characters"
                    ),
                });
            }
            sorted.insert(name.into_boxed_str(), value.into_boxed_str());
        }
        if sorted.len() > MAX_TAGS {
            return Err(FieldError {
                field: "tags",
                message: format!("an event takes at most {MAX_TAGS} tags"),
            });
        }
        Ok(Self(sorted.into_iter().collect()))
    }

    /// The value of one tag.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.binary_search_by(|(key, _)| (**key).cmp(name)).ok().map(|at| &*self.0[at].1)
    }

    /// All pairs, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// When an event ceases to be kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Expiry {
    /// Live only: it passes through and is never stored (`ttl = 0`, or a rule with `store = false`).
    Live,
    /// Kept until this time.
    At(UnixMs),
}

/// What a publisher asked for about keeping an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ttl {
    /// As the channel's rule and the log's configuration say.
    #[default]
    Default,
    /// Live only, never stored.
    Live,
    /// Kept for this many milliseconds (never longer than the log keeps anything).
    Ms(u64),
}

/// The client that published an event. Set by the node that took it, never by what the client sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Author {
    /// Its user; none for a client without one.
    pub user: Option<Box<str>>,
    /// Its connection.
    pub connection: ConnectionId,
}

impl Author {
    /// Accepts users of 1 to 255 bytes without control characters.
    pub fn new(user: Option<&str>, connection: ConnectionId) -> Result<Self, FieldError> {
        if let Some(user) = user {
            plain(user, MAX_USER_BYTES, "from")?;
        }
        Ok(Self { user: user.map(Box::from), connection })
    }
}

/// A valid event that has no place in the log yet.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Given by the publisher; its repetition is then a duplicate. Without one, a fresh id is made.
    pub id: Option<EventId>,
    /// Where it goes.
    pub channel: Channel,
    /// Its name.
    pub name: EventName,
    /// Its payload.
    pub data: Data,
    /// Its tags.
    pub tags: Tags,
    /// How long it is kept.
    pub ttl: Ttl,
    /// The connection that does not get it.
    pub exclude: Option<ConnectionId>,
    /// The client that published it; none for the app. Boxed: it is seldom there.
    pub from: Option<Box<Author>>,
}

/// The id of one client connection, as told in `welcome`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ConnectionId(Box<str>);

impl ConnectionId {
    /// Accepts 1 to 64 bytes without control characters.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        plain(text, 64, "exclude").map(|()| Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An event with its place in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Where it stands in the log.
    pub position: Position,
    /// Its unique id.
    pub id: EventId,
    /// Whether the publisher gave the id (only such ids can be repeated, so only they are remembered).
    pub id_given: bool,
    /// Where it was published.
    pub channel: Channel,
    /// Its name.
    pub name: EventName,
    /// Its payload.
    pub data: Data,
    /// When it was accepted.
    pub time: UnixMs,
    /// Its tags.
    pub tags: Tags,
    /// When it ceases to be kept.
    pub expiry: Expiry,
    /// The connection that does not get it.
    pub exclude: Option<ConnectionId>,
    /// The client that published it; none for the app.
    pub from: Option<Box<Author>>,
    /// How it came here over a bus; none on a node that is alone.
    pub way: Option<Box<Way>>,
}

impl Event {
    /// Who sent it over a bus.
    pub fn sender(&self) -> Option<Sender> {
        self.way.as_ref()?.sender
    }

    /// How far each shard of the bus had been read when it came, on a bus of several.
    pub fn marks(&self) -> Option<&Marks> {
        self.way.as_ref()?.marks.as_ref()
    }

    /// Whether the log keeps it at all.
    pub fn is_stored(&self) -> bool {
        self.expiry != Expiry::Live
    }

    /// Whether it has ceased to be kept at `now`.
    pub fn is_expired(&self, now: UnixMs) -> bool {
        match self.expiry {
            Expiry::Live => true,
            Expiry::At(end) => end <= now,
        }
    }

    /// About how many bytes it takes in memory: what bounds count.
    pub fn footprint(&self) -> usize {
        let tags: usize = self.tags.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        size_of::<Self>()
            + self.id.0.len()
            + self.channel.as_str().len()
            + self.name.0.len()
            + self.data.len()
            + tags
            + self.from.as_ref().map_or(0, |_| size_of::<Author>() + MAX_USER_BYTES)
            + self.way.as_ref().map_or(0, |way| {
                size_of::<Way>() + way.marks.as_ref().map_or(0, |marks| size_of_val(marks.positions()))
            })
    }
}

/// A field of a draft that is not as it must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldError {
    /// The field's name in the public interface.
    pub field: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for FieldError {}

fn plain(text: &str, most: usize, field: &'static str) -> Result<(), FieldError> {
    if text.is_empty() || text.len() > most || text.chars().any(char::is_control) {
        return Err(FieldError {
            field,
            message: format!("`{field}` must be 1 to {most} bytes without control characters"),
        });
    }
    Ok(())
}
