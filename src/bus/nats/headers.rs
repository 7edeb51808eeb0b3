//! The fields of an envelope as NATS headers: `Sidewire-` and the name of the field.

use crate::bus::backend::Content;
use crate::bus::envelope::{self, Field};
use async_nats::header::{HeaderName, HeaderValue};
use async_nats::{HeaderMap, Message};
use std::borrow::Cow;
use std::str::FromStr;

/// Names of fields, and of their headers.
const NAMES: [(&str, HeaderName); 17] = [
    ("v", HeaderName::from_static("Sidewire-V")),
    ("id", HeaderName::from_static("Sidewire-Id")),
    ("copy", HeaderName::from_static("Sidewire-Copy")),
    ("channel", HeaderName::from_static("Sidewire-Channel")),
    ("event", HeaderName::from_static("Sidewire-Event")),
    ("given", HeaderName::from_static("Sidewire-Given")),
    ("time", HeaderName::from_static("Sidewire-Time")),
    ("expires", HeaderName::from_static("Sidewire-Expires")),
    ("type", HeaderName::from_static("Sidewire-Type")),
    ("tags", HeaderName::from_static("Sidewire-Tags")),
    ("exclude", HeaderName::from_static("Sidewire-Exclude")),
    ("from", HeaderName::from_static("Sidewire-From")),
    ("user", HeaderName::from_static("Sidewire-User")),
    ("origin", HeaderName::from_static("Sidewire-Origin")),
    ("seq", HeaderName::from_static("Sidewire-Seq")),
    ("probe", HeaderName::from_static("Sidewire-Probe")),
    ("epoch", HeaderName::from_static("Sidewire-Epoch")),
];

fn header(field: &str) -> Option<HeaderName> {
    NAMES.iter().find(|(name, _)| *name == field).map(|(_, header)| header.clone())
}

fn field(header: &str) -> Option<&'static str> {
    NAMES.iter().find(|(_, name)| AsRef::<str>::as_ref(name) == header).map(|(field, _)| *field)
}

/// The headers of an entry; none if a field cannot be one.
pub(super) fn written(fields: Vec<Field<'_>>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, text) in fields {
        headers.insert(header(name)?, HeaderValue::from_str(&quoted(text)).ok()?);
    }
    Some(headers)
}

/// How many bytes headers take on the wire.
pub(super) fn bytes(headers: &HeaderMap) -> usize {
    const VERSION_AND_END: usize = "NATS/1.0\r\n\r\n".len();
    const PUNCTUATION: usize = ": \r\n".len();
    let lines = headers.iter().flat_map(|(name, values)| {
        values.iter().map(|value| AsRef::<str>::as_ref(name).len() + value.as_str().len() + PUNCTUATION)
    });
    VERSION_AND_END + lines.sum::<usize>()
}

/// Reads a message.
pub(super) fn content(message: &Message) -> Content {
    let Some(headers) = &message.headers else {
        return Content::Malformed("it has no headers");
    };
    // The other way round, a look-up for each name, would hash each of them for each message.
    let mut texts: Vec<(&str, Cow<'_, str>)> = Vec::with_capacity(NAMES.len());
    texts.extend(
        headers
            .iter()
            .filter_map(|(name, values)| Some((field(name.as_ref())?, unquoted(values.first()?.as_str())))),
    );
    let get = |name: &str| texts.iter().find(|(known, _)| *known == name).map(|(_, text)| &**text);
    envelope::content(get, Some(message.payload.clone()))
}

/// Clients cut white space at the ends of a header off: a text that has some, or looks as if quoted, is quoted
/// as in JSON.
fn quoted(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.trim().len() == text.len() && !text.starts_with('"') {
        return text;
    }
    serde_json::Value::from(text).to_string().into()
}

/// A quoted text that is none of ours stays as it is: it is then refused by whoever reads the field.
fn unquoted(text: &str) -> Cow<'_, str> {
    if text.starts_with('"')
        && let Ok(inner) = serde_json::from_str::<String>(text)
    {
        return inner.into();
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::backend::{Origin, Parcel};
    use crate::event::{
        Author, Channel, ConnectionId, Data, Event, EventId, EventName, Expiry, Json, Position, Tags,
    };
    use std::sync::Arc;

    #[test]
    fn every_header_has_a_field_and_every_field_a_header() {
        for (field, header) in NAMES {
            let text: &str = header.as_ref();
            assert_eq!(text.strip_prefix("Sidewire-").unwrap().to_ascii_lowercase(), field);
        }
    }

    #[test]
    fn texts_that_a_header_would_bend_come_back() {
        for text in ["plain", " a", "a ", "\u{3000}", "\"", "\"a\"", "\" ", "ä\\", "a: b", "50%"] {
            let written = quoted(text.into()).into_owned();
            assert_eq!(written.trim(), written);
            assert_eq!(unquoted(&written), text);
        }
        assert_eq!(quoted("a \"b\" c".into()), "a \"b\" c");
    }

    #[test]
    fn an_event_comes_back_from_its_headers() {
        let event = Event {
            position: Position::ZERO,
            id: EventId::parse(" 17").unwrap(),
            id_given: true,
            channel: Channel::parse("job.7").unwrap(),
            name: EventName::parse("fertig! ").unwrap(),
            data: Data::Json(Json::parse("[1.0]").unwrap()),
            time: 1,
            tags: Tags::from_pairs([("größe".into(), "\"\\".into())]).unwrap(),
            expiry: Expiry::At(9),
            exclude: Some(ConnectionId::parse("\"c").unwrap()),
            from: Some(Box::new(Author::new(Some("ann"), ConnectionId::parse("c-2").unwrap()).unwrap())),
            way: None,
        };
        let parcel = Parcel::Event { event: Arc::new(event.clone()), origin: Origin(1), sequence: 2 };
        let (fields, payload) = envelope::fields(&parcel);
        let headers = written(fields).unwrap();
        let message = Message {
            subject: "a".into(),
            reply: None,
            payload: payload.unwrap().to_vec().into(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        };
        let Content::Event { event: read, sender } = content(&message) else { panic!() };
        assert_eq!((*read, sender), (event, Some((Origin(1), 2))));
    }
}
