//! `POST /v1/channels/{channel}`: the body as it is becomes the data.

use super::error::EntryError;
use super::form::FormFields;
use super::media_type::MediaType;
use super::{IntakeLimits, id};
use crate::event::{Channel, Data, Draft, Json};
use bytes::Bytes;
use hyper::HeaderMap;

/// Reads a raw publish. `channel` is percent-decoded, `query` is what stands after `?`: `event`, `id`, `ttl`,
/// `exclude` and `tag.NAME` count, the rest is for others.
///
/// The data is JSON if the content type says so (and then it must parse) or if it parses; else a text if it is
/// UTF-8 (an empty body is the empty text); else bytes.
pub fn parse_raw(
    channel: &str,
    query: &str,
    content_type: Option<&str>,
    headers: &HeaderMap,
    body: &Bytes,
    limits: &IntakeLimits,
) -> Result<Draft, EntryError> {
    let channel = Channel::parse(channel).map_err(|error| EntryError::channel("channel", error))?;
    let fields = FormFields::parse(query.as_bytes(), limits)?;
    if body.len() > limits.event_bytes {
        return Err(EntryError::data_too_large(limits.event_bytes));
    }
    let media_type = content_type.map(MediaType::parse).transpose()?;
    let data = if media_type.is_some_and(|media_type| media_type.is_json()) {
        Data::Json(strict_json(body)?)
    } else {
        guessed(body)
    };
    let mut common = fields.into_common(data)?;
    if common.id.is_none() {
        common.id = id::idempotency_key(headers)?;
    }
    Ok(common.for_channel(channel))
}

/// A body that is said to be JSON.
pub(super) fn strict_json(body: &[u8]) -> Result<Json, EntryError> {
    Json::parse(super::json::utf8(body)?).map_err(|error| EntryError::data(&error))
}

/// A body of which nothing is said.
pub(super) fn guessed(body: &[u8]) -> Data {
    match std::str::from_utf8(body) {
        Ok(text) => Data::Json(Json::parse(text).unwrap_or_else(|_| Json::string(text))),
        Err(_) => bytes(body),
    }
}

/// A body that is kept as it is. A slice of a connection's read buffer would keep all of that in memory.
pub(super) fn bytes(body: &[u8]) -> Data {
    Data::Bytes(Bytes::copy_from_slice(body))
}
