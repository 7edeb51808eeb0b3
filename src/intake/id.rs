//! Ids that are not written in the event itself.

use super::error::{EntryError, IntakeError};
use crate::event::{EventId, MAX_ID_BYTES};
use hyper::HeaderMap;
use uuid::Uuid;

/// Ids that are too long to be kept become UUIDv5 of this namespace (any fixed value would do).
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_3c2e_8a54_4b7f_9d16_51de_317e_0001);

/// The id of one place in a batch that `id` names.
pub(super) fn of_part(id: &EventId, part: &str) -> EventId {
    joined(id.as_str(), '>', part)
        .expect("an id and a part without control characters, and never empty, make an id")
}

/// One id of two texts, as it is or, if it is too long, as a UUIDv5.
pub(super) fn joined(left: &str, separator: char, right: &str) -> Result<EventId, EntryError> {
    let mut text = String::with_capacity(left.len() + right.len() + 1);
    text.push_str(left);
    text.push(separator);
    text.push_str(right);
    Ok(if text.len() <= MAX_ID_BYTES { EventId::parse(&text)? } else { hashed(&text) })
}

/// The UUIDv5 of a text.
pub(super) fn hashed(text: &str) -> EventId {
    let mut buffer = Uuid::encode_buffer();
    let uuid = Uuid::new_v5(&NAMESPACE, text.as_bytes());
    EventId::parse(uuid.hyphenated().encode_lower(&mut buffer)).expect("a UUID is an id")
}

/// The `Idempotency-Key` header. It may be quoted, as the IETF draft has it.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<EventId>, IntakeError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes()).unwrap_or_default();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    EventId::parse(text).map(Some).map_err(|_| {
        EntryError::field(
            "invalid_id",
            "Idempotency-Key",
            format!(
                "`Idempotency-Key` must be 1 to {MAX_ID_BYTES} bytes of UTF-8 without control characters"
            ),
        )
    })
}
