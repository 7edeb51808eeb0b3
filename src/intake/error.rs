//! Why an event, or a whole request, is refused.

use crate::event::{ChannelError, FieldError, JsonError};
use std::fmt;

/// One event refused: the HTTP status it has alone, and what its entry says in a list of results.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryError {
    /// HTTP status: 400, 413 or 415.
    pub status: u16,
    /// For programs.
    pub code: &'static str,
    /// For people: what is wrong and what to do.
    pub message: String,
    /// The field to blame, by its public name.
    pub field: Option<&'static str>,
}

/// A whole request refused: it has the same form.
pub type IntakeError = EntryError;

impl EntryError {
    /// Something the publisher has to write differently (400).
    pub(super) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, code, message: message.into(), field: None }
    }

    /// A field the publisher has to write differently (400).
    pub(super) fn field(code: &'static str, field: &'static str, message: impl Into<String>) -> Self {
        Self { field: Some(field), ..Self::bad(code, message) }
    }

    /// Too much of something (413).
    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self { status: 413, ..Self::bad("too_large", message) }
    }

    /// The data of one event is above the limit (413).
    pub(super) fn data_too_large(event_bytes: usize) -> Self {
        Self {
            field: Some("data"),
            ..Self::too_large(format!(
                "`data` may have at most {event_bytes} bytes (`limits.event_bytes`): send less, or a link to it"
            ))
        }
    }

    /// A body of a kind that is not taken (415).
    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self { status: 415, ..Self::bad("unsupported_media_type", message) }
    }

    /// A text that is no channel.
    pub(super) fn channel(field: &'static str, error: ChannelError) -> Self {
        Self::field("invalid_channel", field, format!("`{field}`: {error}"))
    }

    /// Data that is not JSON that every client can read.
    pub(super) fn data(error: &JsonError) -> Self {
        Self::field("invalid_json", "data", format!("`data`: {error}"))
    }
}

impl From<FieldError> for EntryError {
    fn from(error: FieldError) -> Self {
        let code = match error.field {
            "id" => "invalid_id",
            "tags" => "invalid_tags",
            "exclude" => "invalid_exclude",
            _ => "invalid_event",
        };
        Self::field(code, error.field, error.message)
    }
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EntryError {}
