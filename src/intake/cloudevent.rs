//! CloudEvents 1.0 over HTTP: structured, batch and binary mode.
//!
//! `subject` is the channel and `type` the event's name. `source` and `id` together name a CloudEvent, so the
//! event's id is `source|id` (`|` cannot stand in a URI); if that is longer than an id may be, a UUIDv5 of it.
//! `source`, `time`, `dataschema` and every extension become tags under their own names, and so does
//! `datacontenttype` unless it is JSON.

use super::collector::{Channels, Collector, Common};
use super::error::{EntryError, IntakeError};
use super::json::{elements, not_json, utf8};
use super::media_type::{MediaType, is_cloudevents};
use super::object::scalar_text;
use super::{id, raw};
use crate::event::{Data, EventName, Json, MAX_TAGS, Tags, Ttl};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::HeaderMap;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

const CODE: &str = "invalid_cloudevent";

/// Whether the request is an event in binary mode. In structured mode there may be `ce-*` headers as well; the
/// body is then the truth.
pub(super) fn is_binary(content_type: Option<&str>, headers: &HeaderMap) -> bool {
    (headers.contains_key("ce-specversion") || headers.contains_key("ce-id"))
        && !content_type.is_some_and(is_cloudevents)
}

/// Binary mode: the attributes are `ce-*` headers, the body is the data.
pub(super) fn read_binary(
    content_type: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
    collector: &mut Collector<'_>,
) -> Result<(), IntakeError> {
    let event_bytes = collector.limits.event_bytes;
    let event = header_attributes(headers).and_then(|mut attributes| {
        if body.len() > event_bytes {
            return Err(EntryError::data_too_large(event_bytes));
        }
        let data = match content_type.map(MediaType::parse).transpose()? {
            _ if body.is_empty() => Data::Json(Json::null()),
            None => raw::guessed(body),
            Some(media_type) if media_type.is_json() => Data::Json(raw::strict_json(body)?),
            Some(media_type) => {
                attributes.put("datacontenttype", Cow::Borrowed(media_type.essence()))?;
                match std::str::from_utf8(body) {
                    Ok(text) if media_type.is_text() => Data::Json(Json::string(text)),
                    _ => raw::bytes(body),
                }
            }
        };
        attributes.finish(data)
    });
    add(event, collector)
}

/// Structured mode: one object with the attributes and the data.
pub(super) fn read_structured(body: &[u8], collector: &mut Collector<'_>) -> Result<(), IntakeError> {
    let members: &RawValue = serde_json::from_str(utf8(body)?).map_err(|error| not_json(&error))?;
    add(read_object(members.get(), collector.limits.event_bytes), collector)
}

/// Batch mode: an array of such objects.
pub(super) fn read_batch(body: &[u8], collector: &mut Collector<'_>) -> Result<(), IntakeError> {
    let events = elements::<&RawValue>(utf8(body)?, collector.limits)?;
    collector.begin_batch(events.len());
    let event_bytes = collector.limits.event_bytes;
    events.into_iter().try_for_each(|event| add(read_object(event.get(), event_bytes), collector))
}

type Read<'a> = (Channels<'a>, Common);

fn add(event: Result<Read<'_>, EntryError>, collector: &mut Collector<'_>) -> Result<(), IntakeError> {
    match event {
        Ok((subject, common)) => collector.add(subject, "subject", Ok(common)),
        Err(error) => collector.refuse(error),
    }
}

fn header_attributes(headers: &HeaderMap) -> Result<Attributes<'_>, EntryError> {
    let mut attributes = Attributes::default();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        // The content type says it in binary mode; a second word on it is forbidden.
        if name != "datacontenttype" {
            attributes.put(name, header_text(value.as_bytes())?)?;
        }
    }
    Ok(attributes)
}

/// HTTP binding 3.1.3.2: a quoted string is taken out of its quotes, then percent-decoded once.
fn header_text(value: &[u8]) -> Result<Cow<'_, str>, EntryError> {
    let unquoted = match value {
        [b'"', inner @ .., b'"'] => {
            let mut text = Vec::with_capacity(inner.len());
            let mut bytes = inner.iter();
            while let Some(byte) = bytes.next() {
                text.extend(if *byte == b'\\' { bytes.next() } else { Some(byte) });
            }
            Cow::Owned(text)
        }
        plain => Cow::Borrowed(plain),
    };
    let decoded: Cow<'_, [u8]> = match unquoted {
        Cow::Borrowed(bytes) => percent_encoding::percent_decode(bytes).into(),
        Cow::Owned(bytes) => Cow::Owned(percent_encoding::percent_decode(&bytes).collect()),
    };
    match decoded {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
    .ok_or_else(|| EntryError::bad(CODE, "a `ce-` header is not UTF-8 after percent-decoding"))
}

fn read_object(object: &str, event_bytes: usize) -> Result<Read<'_>, EntryError> {
    let Members(members) = serde_json::from_str(object).map_err(|error| {
        EntryError::bad(CODE, format!("a CloudEvent is a JSON object of attributes and `data`: {error}"))
    })?;
    let mut attributes = Attributes::default();
    let (mut json, mut base64) = (None, None);
    for (name, value) in &members {
        let slot = match &**name {
            "data" => &mut json,
            "data_base64" => &mut base64,
            // An attribute that is null is not there.
            _ if value.get() == "null" => continue,
            name => {
                let text = scalar_text(value.get()).ok_or_else(|| {
                    EntryError::bad(CODE, "a CloudEvents attribute is a text, a number or a truth value")
                })?;
                attributes.put(name, text)?;
                continue;
            }
        };
        if slot.replace(*value).is_some() {
            return Err(twice());
        }
    }
    let data = match (json, base64) {
        (Some(_), Some(_)) => {
            return Err(EntryError::bad(CODE, "send either `data` or `data_base64`, not both"));
        }
        (None, None) => Data::Json(Json::null()),
        (Some(json), None) => {
            if json.get().len() > event_bytes {
                return Err(EntryError::data_too_large(event_bytes));
            }
            Data::Json(Json::from_raw(json).map_err(|error| EntryError::data(&error))?)
        }
        (None, Some(base64)) => {
            let bytes = scalar_text(base64.get())
                .and_then(|text| STANDARD.decode(&*text).ok())
                .ok_or_else(|| EntryError::field(CODE, "data_base64", "`data_base64` must be base64"))?;
            if bytes.len() > event_bytes {
                return Err(EntryError::data_too_large(event_bytes));
            }
            Data::Bytes(Bytes::from(bytes))
        }
    };
    attributes.finish(data)
}

fn twice() -> EntryError {
    EntryError::bad(CODE, "a CloudEvents attribute is there twice")
}

/// The context attributes of one CloudEvent.
#[derive(Default)]
struct Attributes<'a> {
    specversion: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    tags: Vec<(String, String)>,
}

impl<'a> Attributes<'a> {
    fn put(&mut self, name: &str, value: Cow<'a, str>) -> Result<(), EntryError> {
        let slot = match name {
            "specversion" => &mut self.specversion,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "subject" => &mut self.subject,
            name => return self.put_tag(name, value),
        };
        if slot.replace(value).is_some() { Err(twice()) } else { Ok(()) }
    }

    fn put_tag(&mut self, name: &str, value: Cow<'a, str>) -> Result<(), EntryError> {
        if name == "datacontenttype" && MediaType::parse(&value).is_ok_and(|media_type| media_type.is_json())
        {
            return Ok(());
        }
        if self.tags.iter().any(|(known, _)| known == name) {
            return Err(twice());
        }
        if self.tags.len() == MAX_TAGS {
            let message =
                format!("`source` and the extensions become tags, of which there are at most {MAX_TAGS}");
            return Err(EntryError::field("invalid_tags", "tags", message));
        }
        self.tags.push((name.to_owned(), value.into_owned()));
        Ok(())
    }

    fn finish(mut self, data: Data) -> Result<Read<'a>, EntryError> {
        let required = |value: Option<Cow<'a, str>>, name: &'static str| {
            value
                .filter(|value| !value.is_empty())
                .ok_or_else(|| EntryError::field(CODE, name, format!("the attribute `{name}` is missing")))
        };
        let specversion = required(self.specversion.take(), "specversion")?;
        if !specversion.starts_with("1.") {
            return Err(EntryError::field(CODE, "specversion", "`specversion` must be 1.0"));
        }
        let id = required(self.id.take(), "id")?;
        let source = required(self.source.take(), "source")?;
        let kind = required(self.kind.take(), "type")?;
        let subject = self.subject.take().filter(|subject| !subject.is_empty()).ok_or_else(|| {
            EntryError::field(CODE, "subject", "`subject` is missing: it names the channel to publish to")
        })?;
        let event_id = if source.contains('|') {
            // Not a URI; only a hash keeps two such pairs apart.
            id::hashed(&format!("{source}\0{id}"))
        } else {
            id::joined(&source, '|', &id)?
        };
        let name = EventName::parse(&kind).map_err(|error| {
            EntryError::field("invalid_event", "type", format!("`type` is the event: {error}"))
        })?;
        self.tags.push(("source".to_owned(), source.into_owned()));
        let tags = Tags::from_pairs(self.tags)?;
        let common = Common { id: Some(event_id), name, data, tags, ttl: Ttl::Default, exclude: None };
        Ok((Channels::One(subject), common))
    }
}

/// Most members of one CloudEvent: the tags, the attributes that are none, and some that are null.
const MAX_MEMBERS: usize = MAX_TAGS + 32;

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor).map(Members)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            if members.len() == MAX_MEMBERS {
                return Err(A::Error::custom(format_args!("it has more than {MAX_MEMBERS} members")));
            }
            members.push(member);
        }
        Ok(members)
    }
}
