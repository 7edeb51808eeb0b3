//! An event as named fields, for buses that have them: the fields of a Redis stream entry, the headers of a
//! NATS message. Readable with `redis-cli` and `nats`; the payload stands apart, as it came.
//!
//! | field | meaning |
//! | --- | --- |
//! | `v` | version of this form, `1` |
//! | `id`, `channel`, `event` | as in the public interface |
//! | `copy` | `1` if the event went to several channels, each of which has a copy under the same id |
//! | `given` | `1` if the publisher gave the id |
//! | `time` | when it was accepted, Unix ms |
//! | `expires` | until when it is kept, Unix ms; missing for events that are live only |
//! | `type` | `json` or `bytes`: what the payload is |
//! | `tags` | a JSON object; missing without tags |
//! | `exclude` | the connection that does not get it |
//! | `origin`, `seq` | the run of the node that sent it (16 hex digits), and which of its events it is |
//! | `probe` | instead of all but `v` and `origin`: the number of a probe |
//! | `epoch` | instead of all but `v`: from here on it is the log of this epoch (16 hex digits) |

use super::backend::{Content, Origin, Parcel};
use crate::event::{
    Author, Channel, ConnectionId, Data, Epoch, Event, EventId, EventName, Expiry, Json, Position, Tags,
};
use bytes::Bytes;
use std::borrow::Cow;

/// The version that is written.
pub const VERSION: u32 = 1;

/// A field: its name and its text.
pub type Field<'a> = (&'static str, Cow<'a, str>);

/// The fields of a parcel, and its payload: none for a probe.
pub fn fields(parcel: &Parcel) -> (Vec<Field<'_>>, Option<&[u8]>) {
    let mut fields: Vec<Field<'_>> = Vec::with_capacity(12);
    fields.push(("v", "1".into()));
    match parcel {
        Parcel::Probe { origin, number } => {
            fields.push(("origin", origin.to_string().into()));
            fields.push(("probe", number.to_string().into()));
            (fields, None)
        }
        Parcel::Event { event, origin, sequence } => {
            let key = event.id.key();
            // A key with a channel in it holds a control character, which a header cannot carry.
            match key.split_once(EventId::PART) {
                Some((id, _)) => fields.extend([("id", id.into()), ("copy", "1".into())]),
                None => fields.push(("id", key.into())),
            }
            fields.push(("channel", event.channel.as_str().into()));
            fields.push(("event", event.name.as_str().into()));
            fields.push(("time", event.time.to_string().into()));
            if let Expiry::At(end) = event.expiry {
                fields.push(("expires", end.to_string().into()));
            }
            if event.id_given {
                fields.push(("given", "1".into()));
            }
            if !event.tags.is_empty() {
                let tags: serde_json::Map<_, _> =
                    event.tags.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
                fields.push(("tags", serde_json::Value::Object(tags).to_string().into()));
            }
            if let Some(exclude) = &event.exclude {
                fields.push(("exclude", exclude.as_str().into()));
            }
            if let Some(author) = &event.from {
                fields.push(("from", author.connection.as_str().into()));
                if let Some(user) = &author.user {
                    fields.push(("user", (&**user).into()));
                }
            }
            fields.push(("origin", origin.to_string().into()));
            fields.push(("seq", sequence.to_string().into()));
            let (kind, payload) = match &event.data {
                Data::Json(json) => ("json", json.as_str().as_bytes()),
                Data::Bytes(bytes) => ("bytes", bytes.as_ref()),
            };
            fields.push(("type", kind.into()));
            (fields, Some(payload))
        }
    }
}

/// The fields that begin a new epoch on the bus.
pub fn epoch_fields(epoch: Epoch) -> Vec<Field<'static>> {
    vec![("v", "1".into()), ("epoch", epoch.to_string().into())]
}

/// Reads fields, which `get` looks up by name, and the payload. What is no entry of ours is `Malformed`; the
/// caller decides what else it may be.
pub fn content<'a>(get: impl Fn(&str) -> Option<&'a str>, payload: Option<Bytes>) -> Content {
    match get("v").map(str::parse::<u32>) {
        Some(Ok(VERSION)) => {}
        Some(Ok(newer)) if newer > VERSION => return Content::Newer(newer),
        Some(_) => return Content::Malformed("its version is no number"),
        None => return Content::Malformed("it has no version"),
    }
    read(&get, payload).unwrap_or_else(Content::Malformed)
}

fn read<'a>(get: &impl Fn(&str) -> Option<&'a str>, payload: Option<Bytes>) -> Result<Content, &'static str> {
    let hex = |name| get(name).and_then(|text| u64::from_str_radix(text, 16).ok());
    let number = |name| get(name).and_then(|text| text.parse::<u64>().ok());
    if get("epoch").is_some() {
        return Ok(Content::Epoch(Epoch(hex("epoch").ok_or("its epoch is not hexadecimal")?)));
    }
    let origin = Origin(hex("origin").ok_or("it has no origin")?);
    if get("probe").is_some() {
        return Ok(Content::Probe { origin, number: number("probe").ok_or("its probe is no number")? });
    }
    let channel = get("channel").and_then(|text| Channel::from_node(text).ok()).ok_or("it has no channel")?;
    let id = get("id").and_then(|text| EventId::parse(text).ok()).ok_or("it has no id")?;
    let id = if get("copy").is_some() { id.on_channel(&channel) } else { id };
    let payload = payload.ok_or("it has no payload")?;
    let data = match get("type") {
        Some("json") => {
            let text = std::str::from_utf8(&payload).map_err(|_| "its payload is not UTF-8")?;
            Data::Json(Json::parse(text).map_err(|_| "its payload is not JSON")?)
        }
        Some("bytes") => Data::Bytes(payload),
        _ => return Err("it does not say what its payload is"),
    };
    let tags = match get("tags") {
        None => Tags::default(),
        Some(text) => {
            let map: std::collections::BTreeMap<String, String> =
                serde_json::from_str(text).map_err(|_| "its tags are no JSON object of texts")?;
            Tags::from_pairs(map).map_err(|_| "its tags are too many or too long")?
        }
    };
    let from = match get("from") {
        None => None,
        Some(text) => {
            let connection = ConnectionId::parse(text).map_err(|_| "its sender has no connection")?;
            let author = Author::new(get("user"), connection).map_err(|_| "its sender has no user name")?;
            Some(Box::new(author))
        }
    };
    let event = Event {
        position: Position::ZERO,
        id,
        id_given: get("given").is_some(),
        name: get("event").and_then(|text| EventName::parse(text).ok()).ok_or("it has no name")?,
        channel,
        data,
        time: number("time").ok_or("it has no time")?,
        tags,
        expiry: match get("expires") {
            None => Expiry::Live,
            Some(_) => Expiry::At(number("expires").ok_or("its expiry is no number")?),
        },
        exclude: get("exclude").and_then(|text| ConnectionId::parse(text).ok()),
        from,
        way: None,
    };
    let sequence = number("seq").ok_or("it has no sequence number")?;
    Ok(Content::Event { event: Box::new(event), sender: Some((origin, sequence)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn event(data: Data) -> Event {
        let channel = Channel::parse("job.7").unwrap();
        Event {
            position: Position::ZERO,
            id: EventId::parse("order-17").unwrap().on_channel(&channel),
            id_given: true,
            channel,
            name: EventName::parse("done").unwrap(),
            data,
            time: 1_800_000_000_000,
            tags: Tags::from_pairs([("tenant".into(), "a\"b".into())]).unwrap(),
            expiry: Expiry::At(1_800_000_060_000),
            exclude: Some(ConnectionId::parse("c-1").unwrap()),
            from: Some(Box::new(Author::new(Some("ann"), ConnectionId::parse("c-2").unwrap()).unwrap())),
            way: None,
        }
    }

    fn round(parcel: &Parcel) -> Content {
        let (fields, payload) = fields(parcel);
        content(
            |name| fields.iter().find(|(known, _)| *known == name).map(|(_, text)| &**text),
            payload.map(Bytes::copy_from_slice),
        )
    }

    #[test]
    fn every_field_comes_back() {
        for data in
            [Data::Json(Json::parse("{\"a\": 1.0}").unwrap()), Data::Bytes(Bytes::from_static(&[0, 255]))]
        {
            for live in [false, true] {
                let mut sent = event(data.clone());
                if live {
                    sent.expiry = Expiry::Live;
                    sent.exclude = None;
                    sent.from = None;
                    sent.tags = Tags::default();
                    sent.id = EventId::parse("plain").unwrap();
                }
                let parcel =
                    Parcel::Event { event: Arc::new(sent.clone()), origin: Origin(0xabc), sequence: 9 };
                let Content::Event { event, sender } = round(&parcel) else { panic!() };
                assert_eq!((*event, sender), (sent, Some((Origin(0xabc), 9))));
            }
        }
    }

    #[test]
    fn a_control_comes_back_and_no_other_reserved_channel() {
        let sent = Event { channel: Channel::control(), ..event(Data::Json(Json::null())) };
        let sent = Event { id: EventId::parse("c").unwrap(), ..sent };
        let parcel = Parcel::Event { event: Arc::new(sent.clone()), origin: Origin(1), sequence: 2 };
        let Content::Event { event, .. } = round(&parcel) else { panic!() };
        assert_eq!(*event, sent);
        let (fields, _) = fields(&parcel);
        let other = content(
            |name| match name {
                "channel" => Some("$sidewire.other"),
                _ => fields.iter().find(|(known, _)| *known == name).map(|(_, text)| &**text),
            },
            Some(Bytes::from_static(b"null")),
        );
        assert!(matches!(other, Content::Malformed(_)));
    }

    #[test]
    fn probes_and_epochs_come_back_and_what_is_not_ours_is_told() {
        let probe = Parcel::Probe { origin: Origin(7), number: 3 };
        assert!(matches!(round(&probe), Content::Probe { origin: Origin(7), number: 3 }));
        let epoch = epoch_fields(Epoch(77));
        let get = |name: &str| epoch.iter().find(|(known, _)| *known == name).map(|(_, text)| &**text);
        assert!(matches!(content(get, None), Content::Epoch(Epoch(77))));
        assert!(matches!(content(|name| (name == "v").then_some("2"), None), Content::Newer(2)));
        assert!(matches!(content(|_| None, None), Content::Malformed(_)));
        assert!(matches!(content(|name| (name == "v").then_some("1"), None), Content::Malformed(_)));
    }
}
