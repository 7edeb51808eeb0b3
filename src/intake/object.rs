//! The fields of one event object, of JSON or MessagePack, and what they mean.

use super::collector::{Channels, Collector, Common};
use super::error::{EntryError, IntakeError};
use super::json::{elements, text_of};
use super::{IntakeLimits, ttl};
use crate::event::{ConnectionId, Data, EventId, EventName, Json, MAX_TAGS, Tags, Ttl};
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

/// The fields of an event object; all others are ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    Channel,
    Channels,
    Event,
    Data,
    Id,
    Tags,
    Ttl,
    Exclude,
}

impl Field {
    /// The field of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "channel" => Self::Channel,
            "channels" => Self::Channels,
            "event" => Self::Event,
            "data" => Self::Data,
            "id" => Self::Id,
            "tags" => Self::Tags,
            "ttl" => Self::Ttl,
            "exclude" => Self::Exclude,
            _ => return None,
        })
    }

    /// Its public name.
    pub(super) fn name(self) -> &'static str {
        ["channel", "channels", "event", "data", "id", "tags", "ttl", "exclude"][self as usize]
    }
}

/// The value of a field.
pub(super) enum Value<'a> {
    /// A JSON value within the body, of correct syntax.
    Raw(&'a RawValue),
    /// JSON that our own writer made of MessagePack.
    Made(String),
    /// MessagePack `bin`.
    Bytes(&'a [u8]),
}

impl Value<'_> {
    fn json(&self) -> &str {
        match self {
            Self::Raw(raw) => raw.get(),
            Self::Made(text) => text,
            // No field but `data` is bytes, and it is asked for by its own method: no string, no number.
            Self::Bytes(_) => "[]",
        }
    }
}

/// The fields of one event, unread.
#[derive(Default)]
pub(super) struct Object<'a> {
    values: [Option<Value<'a>>; 8],
    duplicate: Option<Field>,
}

impl<'a> Object<'a> {
    /// Sets a field.
    pub(super) fn put(&mut self, field: Field, value: Value<'a>) {
        if self.values[field as usize].replace(value).is_some() {
            self.duplicate = Some(field);
        }
    }

    /// Takes a field away.
    pub(super) fn remove(&mut self, field: Field) {
        self.values[field as usize] = None;
    }

    /// Reads the event into `collector`. `code` is the error for an object that says a thing twice.
    pub(super) fn read(&self, code: &'static str, collector: &mut Collector<'_>) -> Result<(), IntakeError> {
        if let Some(field) = self.duplicate {
            let name = field.name();
            // Two readers would take two different values.
            return collector.refuse(EntryError::field(code, name, format!("`{name}` is there twice")));
        }
        match self.channels(collector.limits) {
            Ok((channels, field)) => collector.add(channels, field.name(), self.common(collector.limits)),
            Err(error) => collector.refuse(error),
        }
    }

    /// The JSON of a field that is there and not null.
    fn get(&self, field: Field) -> Option<&str> {
        self.values[field as usize].as_ref().map(Value::json).filter(|json| *json != "null")
    }

    fn channels(&self, limits: &IntakeLimits) -> Result<(Channels<'_>, Field), EntryError> {
        let bad = |message| Err(EntryError::field("invalid_channel", "channel", message));
        let (json, field) = match (self.get(Field::Channel), self.get(Field::Channels)) {
            (Some(json), None) => (json, Field::Channel),
            (None, Some(json)) => (json, Field::Channels),
            (None, None) => return bad("name the `channel`, or several `channels`"),
            (Some(_), Some(_)) => return bad("send either `channel` or `channels`, not both"),
        };
        if let Some(text) = text_of(json) {
            return Ok((Channels::One(text), field));
        }
        let wrong = || {
            let name = field.name();
            EntryError::field("invalid_channel", name, format!("`{name}` must be a text or a list of texts"))
        };
        if !json.starts_with('[') {
            return Err(wrong());
        }
        let names = elements::<&RawValue>(json, limits)?
            .into_iter()
            .map(|raw| text_of(raw.get()))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(wrong)?;
        if names.is_empty() {
            return Err(wrong());
        }
        Ok((Channels::Several(names), field))
    }

    fn common(&self, limits: &IntakeLimits) -> Result<Common, EntryError> {
        Ok(Common {
            id: self.get(Field::Id).map(read_id).transpose()?,
            name: match self.get(Field::Event) {
                Some(json) => {
                    EventName::parse(&text_of(json).ok_or_else(|| must_be_text("invalid_event", "event"))?)?
                }
                None => EventName::default(),
            },
            tags: match self.get(Field::Tags) {
                Some(json) => read_tags(json)?,
                None => Tags::default(),
            },
            ttl: self.get(Field::Ttl).map(read_ttl).transpose()?.unwrap_or_default(),
            exclude: match self.get(Field::Exclude) {
                Some(json) => Some(ConnectionId::parse(
                    &text_of(json).ok_or_else(|| must_be_text("invalid_exclude", "exclude"))?,
                )?),
                None => None,
            },
            data: self.data(limits)?,
        })
    }

    fn data(&self, limits: &IntakeLimits) -> Result<Data, EntryError> {
        let Some(value) = &self.values[Field::Data as usize] else { return Ok(Data::Json(Json::null())) };
        let bytes = match value {
            Value::Bytes(bytes) => bytes.len(),
            _ => value.json().len(),
        };
        if bytes > limits.event_bytes {
            return Err(EntryError::data_too_large(limits.event_bytes));
        }
        Ok(match value {
            Value::Raw(raw) => Data::Json(Json::from_raw(raw).map_err(|error| EntryError::data(&error))?),
            Value::Made(text) => Data::Json(Json::trusted(text.as_str().into())),
            // A slice would keep the body of the whole request in memory.
            Value::Bytes(bytes) => Data::Bytes(Bytes::copy_from_slice(bytes)),
        })
    }
}

fn must_be_text(code: &'static str, field: &'static str) -> EntryError {
    EntryError::field(code, field, format!("`{field}` must be a text"))
}

fn read_id(json: &str) -> Result<EventId, EntryError> {
    let text = match text_of(json) {
        Some(text) => text,
        None if is_integer(json) => Cow::Borrowed(json),
        None => return Err(EntryError::field("invalid_id", "id", "`id` must be a text or an integer")),
    };
    Ok(EventId::parse(&text)?)
}

fn is_integer(json: &str) -> bool {
    let digits = json.strip_prefix('-').unwrap_or(json);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_number(json: &str) -> bool {
    json.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

fn read_ttl(json: &str) -> Result<Ttl, EntryError> {
    match text_of(json) {
        Some(text) => ttl::from_text(&text),
        None => ttl::from_seconds(if is_number(json) { json.parse().unwrap_or(f64::NAN) } else { f64::NAN }),
    }
}

fn read_tags(json: &str) -> Result<Tags, EntryError> {
    let NamedTexts(pairs) = serde_json::from_str(json)
        .map_err(|error| EntryError::field("invalid_tags", "tags", format!("`tags`: {error}")))?;
    Ok(Tags::from_pairs(pairs)?)
}

/// The text of a tag: a string as it is, a number or a truth value as it is written.
pub(super) fn scalar_text(json: &str) -> Option<Cow<'_, str>> {
    text_of(json)
        .or_else(|| (is_number(json) || matches!(json, "true" | "false")).then_some(Cow::Borrowed(json)))
}

struct NamedTexts(Vec<(String, String)>);

impl<'de> Deserialize<'de> for NamedTexts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamedTextsVisitor)
    }
}

struct NamedTextsVisitor;

impl<'de> Visitor<'de> for NamedTextsVisitor {
    type Value = NamedTexts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NamedTexts, A::Error> {
        let mut pairs = Vec::new();
        let mut names = HashSet::new();
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            if pairs.len() == MAX_TAGS {
                return Err(A::Error::custom(format_args!("an event takes at most {MAX_TAGS} tags")));
            }
            let text = scalar_text(value.get())
                .ok_or_else(|| A::Error::custom("a tag is a text, a number or a truth value"))?
                .into_owned();
            if !names.insert(name.clone()) {
                return Err(A::Error::custom("a tag is there twice"));
            }
            pairs.push((name, text));
        }
        Ok(NamedTexts(pairs))
    }

    /// PHP writes an empty map as `[]`.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<NamedTexts, A::Error> {
        match list.next_element::<&RawValue>()? {
            None => Ok(NamedTexts(Vec::new())),
            Some(_) => Err(A::Error::custom("tags are an object, not a list")),
        }
    }
}
