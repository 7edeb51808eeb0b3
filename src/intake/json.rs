//! Events as a JSON object, as an array of them, and as lines of them.

use super::IntakeLimits;
use super::collector::{Collector, too_many};
use super::error::{EntryError, IntakeError};
use super::media_type::first_byte;
use super::object::{Field, Object, Value};
use crate::event::Draft;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

const CODE: &str = "invalid_json";

/// One object, or an array of them.
pub(super) fn read_body(body: &[u8], collector: &mut Collector<'_>) -> Result<(), IntakeError> {
    let text = utf8(body)?;
    match first_byte(text.as_bytes()) {
        None => Err(EntryError::bad(CODE, "the body is empty: send a JSON object or an array of them")),
        Some(b'[') => {
            let events = elements::<JsonEvent<'_>>(text, collector.limits)?;
            collector.begin_batch(events.len());
            events.into_iter().try_for_each(|event| event.read(collector))
        }
        Some(_) => {
            serde_json::from_str::<JsonEvent<'_>>(text).map_err(|error| not_json(&error))?.read(collector)
        }
    }
}

/// NDJSON: an object a line. A line that is no JSON is one bad entry; blank lines are none.
pub(super) fn read_lines(body: &[u8], collector: &mut Collector<'_>) -> Result<(), IntakeError> {
    collector.begin_batch(0);
    for line in body.split(|byte| *byte == b'\n').filter(|line| first_byte(line).is_some()) {
        let event = utf8(line)
            .and_then(|text| serde_json::from_str::<JsonEvent<'_>>(text).map_err(|error| not_json(&error)));
        match event {
            Ok(event) => event.read(collector)?,
            Err(error) => collector.refuse(error)?,
        }
    }
    Ok(())
}

/// The event in a `publish` message of a WebSocket client. Its `id` names the message, and what another client
/// gets is not for this one to say.
pub fn read_message(text: &str, limits: &IntakeLimits) -> Result<Draft, EntryError> {
    let mut collector = Collector::new(limits, None);
    let event = serde_json::from_str::<JsonEvent<'_>>(text).map_err(|error| not_json(&error))?;
    let JsonEvent::Object(mut object) = event else {
        return Err(EntryError::bad("invalid_event", "a message is a JSON object"));
    };
    for field in [Field::Id, Field::Exclude, Field::Channels] {
        object.remove(field);
    }
    object.read(CODE, &mut collector)?;
    let one = collector.finish()?.entries.pop();
    one.unwrap_or_else(|| Err(EntryError::bad("invalid_event", "there is no event in this message")))
}

/// The text of a body, without the byte order mark that some systems put first.
pub(super) fn utf8(body: &[u8]) -> Result<&str, EntryError> {
    let text = std::str::from_utf8(body).map_err(|_| EntryError::bad(CODE, "the body is not UTF-8"))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// A body that is no JSON.
pub(super) fn not_json(error: &serde_json::Error) -> EntryError {
    EntryError::bad(CODE, format!("not valid JSON: {error}"))
}

/// The text of a JSON string; none for any other value and for half a surrogate pair.
pub(super) fn text_of(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(json).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// The elements of a JSON array. Those above the limit are counted and never kept.
pub(super) fn elements<'a, T: Deserialize<'a>>(
    text: &'a str,
    limits: &IntakeLimits,
) -> Result<Vec<T>, EntryError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let visitor = ElementsVisitor { most: limits.entries, element: PhantomData };
    let elements = deserializer
        .deserialize_seq(visitor)
        .and_then(|elements| deserializer.end().map(|()| elements))
        .map_err(|error| not_json(&error))?;
    elements.ok_or_else(|| too_many(limits))
}

struct ElementsVisitor<T> {
    most: usize,
    element: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ElementsVisitor<T> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() < self.most {
            match list.next_element()? {
                Some(element) => elements.push(element),
                None => return Ok(Some(elements)),
            }
        }
        if list.next_element::<IgnoredAny>()?.is_none() {
            return Ok(Some(elements));
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// What stands where an event should. Whatever it is, it is read to its end, so that the next one is too.
enum JsonEvent<'a> {
    Object(Object<'a>),
    Other,
}

impl JsonEvent<'_> {
    fn read(&self, collector: &mut Collector<'_>) -> Result<(), IntakeError> {
        match self {
            Self::Object(object) => object.read(CODE, collector),
            Self::Other => collector
                .refuse(EntryError::bad("invalid_event", "an event is a JSON object with a `channel`")),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonEvent<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonEventVisitor(PhantomData))
    }
}

struct JsonEventVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for JsonEventVisitor<'a> {
    type Value = JsonEvent<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonEvent<'a>, A::Error> {
        let mut object = Object::default();
        while let Some(Key(field)) = map.next_key()? {
            match field {
                Some(field) => object.put(field, Value::Raw(map.next_value::<&'de RawValue>()?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(JsonEvent::Object(object))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<JsonEvent<'a>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(JsonEvent::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<JsonEvent<'a>, E> {
        Ok(JsonEvent::Other)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<JsonEvent<'a>, E> {
        Ok(JsonEvent::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<JsonEvent<'a>, E> {
        Ok(JsonEvent::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<JsonEvent<'a>, E> {
        Ok(JsonEvent::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<JsonEvent<'a>, E> {
        Ok(JsonEvent::Other)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<JsonEvent<'a>, E> {
        Ok(JsonEvent::Other)
    }
}

/// A key of an event object, without a copy.
struct Key(Option<Field>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
        Ok(Key(Field::named(name)))
    }
}
