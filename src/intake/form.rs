//! Events as `application/x-www-form-urlencoded`, and the query of a raw publish.
//!
//! `channel` may repeat, as may PHP's `channel[]` and `channels[0]`; tags are `tag.NAME`, or PHP's `tags[NAME]`.
//! `data` that parses as JSON is taken as JSON, else as a text.

use super::collector::{Channels, Collector, Common};
use super::error::{EntryError, IntakeError};
use super::{IntakeLimits, ttl};
use crate::event::{ConnectionId, Data, EventId, EventName, Json, MAX_TAGS, Tags};
use std::borrow::Cow;

/// One event.
pub(super) fn read_body(body: &[u8], collector: &mut Collector<'_>) -> Result<(), IntakeError> {
    let mut fields = match FormFields::parse(body, collector.limits) {
        Ok(fields) => fields,
        Err(error) => return collector.refuse(error),
    };
    let channels = match fields.channels.len() {
        0 => {
            let message = "name the `channel`";
            return collector.refuse(EntryError::field("invalid_channel", "channel", message));
        }
        1 => Channels::One(fields.channels.remove(0)),
        _ => Channels::Several(std::mem::take(&mut fields.channels)),
    };
    let data = match fields.data.take() {
        Some(data) if data.len() > collector.limits.event_bytes => {
            return collector.refuse(EntryError::data_too_large(collector.limits.event_bytes));
        }
        Some(data) => Data::Json(Json::parse(&data).unwrap_or_else(|_| Json::string(&data))),
        None => Data::Json(Json::null()),
    };
    let common = fields.into_common(data);
    collector.add(channels, "channel", common)
}

/// The fields of a form.
#[derive(Default)]
pub(super) struct FormFields<'a> {
    channels: Vec<Cow<'a, str>>,
    event: Option<Cow<'a, str>>,
    data: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    ttl: Option<Cow<'a, str>>,
    exclude: Option<Cow<'a, str>>,
    tags: Vec<(String, String)>,
}

impl<'a> FormFields<'a> {
    /// Reads `name=value&name=value`; fields that are not ours are ignored.
    pub(super) fn parse(form: &'a [u8], limits: &IntakeLimits) -> Result<Self, EntryError> {
        let mut fields = Self::default();
        for pair in form.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let name = decoded(&pair[..equals])?;
            // Decoding makes nothing longer, so what is too long is refused before it is copied.
            let value = decoded(pair.get(equals + 1..).unwrap_or_default())?;
            let slot = match &*name {
                "channel" | "channels" => {
                    fields.add_channel(value, limits)?;
                    continue;
                }
                "event" => (&mut fields.event, "event"),
                "data" => (&mut fields.data, "data"),
                "id" => (&mut fields.id, "id"),
                "ttl" => (&mut fields.ttl, "ttl"),
                "exclude" => (&mut fields.exclude, "exclude"),
                other => {
                    if let Some(tag) = other.strip_prefix("tag.").or_else(|| bracketed(other, "tags")) {
                        fields.add_tag(tag, value)?;
                    } else if bracketed(other, "channel").or_else(|| bracketed(other, "channels")).is_some() {
                        fields.add_channel(value, limits)?;
                    }
                    continue;
                }
            };
            if slot.0.replace(value).is_some() {
                return Err(EntryError::field(
                    "invalid_form",
                    slot.1,
                    format!("`{}` is there twice", slot.1),
                ));
            }
        }
        Ok(fields)
    }

    /// The event, but for its channel.
    pub(super) fn into_common(self, data: Data) -> Result<Common, EntryError> {
        Ok(Common {
            id: self.id.as_deref().map(EventId::parse).transpose()?,
            name: self.event.as_deref().map(EventName::parse).transpose()?.unwrap_or_default(),
            data,
            tags: Tags::from_pairs(self.tags)?,
            ttl: self.ttl.as_deref().map(ttl::from_text).transpose()?.unwrap_or_default(),
            exclude: self.exclude.as_deref().map(ConnectionId::parse).transpose()?,
        })
    }

    fn add_channel(&mut self, name: Cow<'a, str>, limits: &IntakeLimits) -> Result<(), EntryError> {
        if self.channels.len() == limits.entries {
            return Err(super::collector::too_many(limits));
        }
        self.channels.push(name);
        Ok(())
    }

    fn add_tag(&mut self, name: &str, value: Cow<'a, str>) -> Result<(), EntryError> {
        if self.tags.iter().any(|(known, _)| known == name) {
            return Err(EntryError::field("invalid_tags", "tags", "a tag is there twice"));
        }
        if self.tags.len() == MAX_TAGS {
            let message = format!("an event takes at most {MAX_TAGS} tags");
            return Err(EntryError::field("invalid_tags", "tags", message));
        }
        self.tags.push((name.to_owned(), value.into_owned()));
        Ok(())
    }
}

/// `NAME` of `prefix[NAME]`.
fn bracketed<'n>(name: &'n str, prefix: &str) -> Option<&'n str> {
    name.strip_prefix(prefix)?.strip_prefix('[')?.strip_suffix(']')
}

/// Percent-decoded, with `+` for a space. Strict: a text that is not UTF-8 must not be changed silently.
fn decoded(text: &[u8]) -> Result<Cow<'_, str>, EntryError> {
    let bad = || EntryError::bad("invalid_form", "a field is not UTF-8 after percent-decoding");
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return std::str::from_utf8(text).map(Cow::Borrowed).map_err(|_| bad());
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let bytes: Vec<u8> = percent_encoding::percent_decode(&spaced).collect();
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| bad())
}
