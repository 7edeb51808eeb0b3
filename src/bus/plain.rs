//! An event as JSON text, for buses that keep no order: what apps that speak plain Redis or NATS write there,
//! and can read of ours.
//!
//! ```json
//! {"channel": "job.7", "event": "done", "data": {"a": 1}, "id": "..", "time": 1800000000000, "tags": {"k": "v"},
//!  "sidewire": {"v": 1, "origin": "00000000000000ab", "seq": 9, "expires": 1800000060000}}
//! ```
//!
//! `sidewire` is what nodes tell each other, as in [`envelope`](super::envelope): `v`, `origin`, `seq`, and where it
//! applies `expires`, `given`, `copy`, `exclude`, `bytes` (`data` is Base64). A probe is `sidewire` alone, with `probe`.
//!
//! A message without it was written by something else and is taken as it comes: a JSON object with `channel`,
//! `event` or `data` is read as above; any other JSON is data, text is a JSON string, the rest bytes.

use super::backend::{Content, Origin, Parcel};
use crate::event::{
    Author, Channel, ConnectionId, Data, Event, EventId, EventName, Expiry, Json, Position, Tags, UnixMs,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The version that is written.
const VERSION: u32 = 1;

/// What nodes tell each other.
#[derive(Serialize, Deserialize)]
struct Ours<'a> {
    v: u32,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    origin: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<UnixMs>,
    #[serde(default, skip_serializing_if = "is_false")]
    given: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    copy: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exclude: Option<Cow<'a, str>>,
    /// The connection and the user of the client that published it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_false")]
    bytes: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    probe: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Ours<'_> {
    fn of(origin: Origin) -> Self {
        Self {
            v: VERSION,
            origin: origin.to_string().into(),
            seq: None,
            expires: None,
            given: false,
            copy: false,
            exclude: None,
            from: None,
            user: None,
            bytes: false,
            probe: None,
        }
    }
}

/// What is written.
#[derive(Serialize)]
struct Message<'a> {
    channel: &'a str,
    event: &'a str,
    data: &'a RawValue,
    id: &'a str,
    time: UnixMs,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<&'a str, &'a str>,
    sidewire: Ours<'a>,
}

#[derive(Serialize)]
struct ProbeMessage<'a> {
    sidewire: Ours<'a>,
}

/// The text of a parcel.
pub fn write(parcel: &Parcel) -> Vec<u8> {
    match parcel {
        Parcel::Probe { origin, number } => {
            let sidewire = Ours { probe: Some(*number), ..Ours::of(*origin) };
            serialize(&ProbeMessage { sidewire })
        }
        Parcel::Event { event, origin, sequence } => {
            let (data, bytes) = match &event.data {
                Data::Json(json) => (raw(json.as_str().to_owned()), false),
                Data::Bytes(bytes) => (raw(format!("\"{}\"", STANDARD.encode(bytes))), true),
            };
            serialize(&Message {
                channel: event.channel.as_str(),
                event: event.name.as_str(),
                data: &data,
                id: event.id.as_str(),
                time: event.time,
                tags: event.tags.iter().collect(),
                sidewire: Ours {
                    seq: Some(*sequence),
                    expires: match event.expiry {
                        Expiry::At(end) => Some(end),
                        Expiry::Live => None,
                    },
                    given: event.id_given,
                    copy: event.id.key() != event.id.as_str(),
                    exclude: event.exclude.as_ref().map(|id| id.as_str().into()),
                    from: event.from.as_ref().map(|author| author.connection.as_str().into()),
                    user: event.from.as_ref().and_then(|author| author.user.as_deref()).map(Cow::from),
                    bytes,
                    ..Ours::of(*origin)
                },
            })
        }
    }
}

fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).expect("a payload that was accepted is JSON, and so is Base64 in quotes")
}

fn serialize(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("texts, numbers and JSON always serialize")
}

/// What is read. Every member may be missing, or be something else than is meant by its name.
#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow, default)]
    channel: Option<&'a RawValue>,
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    // A field of type `Option` would take `null` for nothing, and `null` is data.
    #[serde(borrow, default, deserialize_with = "some")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    time: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tags: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sidewire: Option<&'a RawValue>,
}

fn some<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads a message that came on the bus' own `channel` at `now`. An event that something else than Sidewire
/// wrote has no expiry of its own: it is kept as long as the log keeps anything ([`UnixMs::MAX`]).
pub fn read(channel: &str, payload: &[u8], now: UnixMs) -> Content {
    let Ok(text) = std::str::from_utf8(payload) else {
        return foreign(channel, Data::Bytes(Bytes::copy_from_slice(payload)), &Read::NONE, now);
    };
    let read = match text.trim_ascii_start().starts_with('{') {
        true => serde_json::from_str::<Read<'_>>(text).unwrap_or(Read::NONE),
        false => Read::NONE,
    };
    if let Some(ours) = read.sidewire {
        return match serde_json::from_str::<Version>(ours.get()) {
            Ok(Version { v: VERSION }) => from_node(&read, ours.get()).unwrap_or_else(Content::Malformed),
            Ok(Version { v }) if v > VERSION => Content::Newer(v),
            _ => Content::Malformed("its version is no number"),
        };
    }
    let data = match read.data {
        Some(data) => Json::from_raw(data).map(Data::Json),
        None if read.channel.is_some() || read.event.is_some() => Ok(Data::Json(Json::null())),
        None => Json::parse(text).map(Data::Json),
    };
    // What is no JSON that every client can read is still text.
    let data = data.unwrap_or_else(|_| Data::Json(Json::string(text)));
    foreign(channel, data, &read, now)
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

impl Read<'_> {
    const NONE: Self =
        Self { channel: None, event: None, data: None, id: None, time: None, tags: None, sidewire: None };

    fn channel(&self) -> Option<Channel> {
        Channel::parse(&text(self.channel)?).ok()
    }

    fn id(&self) -> Option<EventId> {
        EventId::parse(&text(self.id)?).ok()
    }

    fn name(&self) -> Option<EventName> {
        EventName::parse(&text(self.event)?).ok()
    }

    fn time(&self) -> Option<UnixMs> {
        serde_json::from_str(self.time?.get()).ok()
    }

    fn tags(&self) -> Option<Tags> {
        let pairs: BTreeMap<String, String> = serde_json::from_str(self.tags?.get()).ok()?;
        Tags::from_pairs(pairs).ok()
    }
}

fn text(value: Option<&RawValue>) -> Option<Cow<'_, str>> {
    serde_json::from_str(value?.get()).ok()
}

fn from_node(read: &Read<'_>, ours: &str) -> Result<Content, &'static str> {
    let ours: Ours<'_> = serde_json::from_str(ours).map_err(|_| "what it says of itself cannot be read")?;
    let origin = u64::from_str_radix(&ours.origin, 16).map(Origin).map_err(|_| "it has no origin")?;
    if let Some(number) = ours.probe {
        return Ok(Content::Probe { origin, number });
    }
    let channel = text(read.channel).and_then(|text| Channel::from_node(&text).ok());
    let channel = channel.ok_or("it has no channel")?;
    let id = read.id().ok_or("it has no id")?;
    let data = read.data.ok_or("it has no payload")?;
    let data = if ours.bytes {
        let text = text(Some(data)).and_then(|text| STANDARD.decode(&*text).ok());
        Data::Bytes(text.ok_or("its payload is not Base64")?.into())
    } else {
        Data::Json(Json::from_raw(data).map_err(|_| "its payload is JSON that not every client can read")?)
    };
    let event = Event {
        position: Position::ZERO,
        id: if ours.copy { id.on_channel(&channel) } else { id },
        id_given: ours.given,
        channel,
        name: read.name().ok_or("it has no name")?,
        data,
        time: read.time().ok_or("it has no time")?,
        tags: match read.tags {
            None => Tags::default(),
            Some(_) => read.tags().ok_or("its tags are no object of texts")?,
        },
        expiry: ours.expires.map_or(Expiry::Live, Expiry::At),
        exclude: ours.exclude.and_then(|text| ConnectionId::parse(&text).ok()),
        from: match ours.from {
            None => None,
            Some(connection) => {
                let connection =
                    ConnectionId::parse(&connection).map_err(|_| "its sender has no connection")?;
                let author = Author::new(ours.user.as_deref(), connection);
                Some(Box::new(author.map_err(|_| "its sender has no user name")?))
            }
        },
        way: None,
    };
    let sequence = ours.seq.ok_or("it has no sequence number")?;
    Ok(Content::Event { event: Box::new(event), sender: Some((origin, sequence)) })
}

fn foreign(channel: &str, data: Data, read: &Read<'_>, now: UnixMs) -> Content {
    let Some(channel) = read.channel().or_else(|| Channel::parse(channel).ok()) else {
        return Content::Malformed("its channel is none that clients can subscribe to");
    };
    let id = read.id();
    let event = Event {
        position: Position::ZERO,
        id_given: id.is_some(),
        id: id.unwrap_or_else(EventId::fresh),
        channel,
        name: read.name().unwrap_or_default(),
        data,
        time: read.time().unwrap_or(now),
        tags: read.tags().unwrap_or_default(),
        expiry: Expiry::At(UnixMs::MAX),
        exclude: None,
        from: None,
        way: None,
    };
    Content::Event { event: Box::new(event), sender: None }
}

#[cfg(test)]
mod tests;
