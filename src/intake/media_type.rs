//! Which form a body has, by its `Content-Type`.

use super::error::EntryError;

/// The forms of a publish body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BodyForm {
    Json,
    Lines,
    MessagePack,
    Form,
    CloudEvent,
    CloudEventBatch,
}

const TAKEN: &str = "application/json, application/x-ndjson, application/msgpack, \
    application/x-www-form-urlencoded, application/cloudevents+json, application/cloudevents-batch+json";

impl BodyForm {
    /// The form of `body`. Without a content type it is JSON. `curl -d '{..}'` calls its JSON a form: a form
    /// that begins like JSON is read as JSON, which no form of ours can begin like.
    pub(super) fn of(content_type: Option<&str>, body: &[u8]) -> Result<Self, EntryError> {
        let Some(content_type) = content_type else { return Ok(Self::Json) };
        let media_type = MediaType::parse(content_type)?;
        let form = match media_type.essence {
            essence if equal(essence, "application/json") => Self::Json,
            essence if equal(essence, "application/x-www-form-urlencoded") => {
                if matches!(first_byte(body), Some(b'{' | b'[')) { Self::Json } else { Self::Form }
            }
            essence
                if ["application/msgpack", "application/x-msgpack", "application/vnd.msgpack"]
                    .iter()
                    .any(|name| equal(essence, name)) =>
            {
                Self::MessagePack
            }
            essence
                if [
                    "application/x-ndjson",
                    "application/ndjson",
                    "application/jsonl",
                    "application/x-jsonl",
                ]
                .iter()
                .any(|name| equal(essence, name)) =>
            {
                Self::Lines
            }
            essence if equal(essence, "application/cloudevents+json") => Self::CloudEvent,
            essence if equal(essence, "application/cloudevents-batch+json") => Self::CloudEventBatch,
            _ if media_type.is_json() => Self::Json,
            _ => {
                // A browser sends text/plain to any origin without asking: it must never publish.
                return Err(EntryError::unsupported(format!("send one of {TAKEN}")));
            }
        };
        Ok(form)
    }
}

/// A content type without its parameters.
pub(super) struct MediaType<'a> {
    essence: &'a str,
}

impl<'a> MediaType<'a> {
    /// Reads a `Content-Type`; a charset other than UTF-8 is refused, other parameters do not matter.
    pub(super) fn parse(content_type: &'a str) -> Result<Self, EntryError> {
        let mut parts = content_type.split(';');
        let essence = parts.next().unwrap_or_default().trim();
        for parameter in parts {
            let Some((name, value)) = parameter.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            if equal(name.trim(), "charset")
                && !["utf-8", "utf8", "us-ascii"].iter().any(|name| equal(value, name))
            {
                return Err(EntryError::unsupported("the body must be UTF-8: send it with charset=utf-8"));
            }
        }
        Ok(Self { essence })
    }

    /// Whether it names a JSON format.
    pub(super) fn is_json(&self) -> bool {
        let (_, subtype) = self.essence.split_once('/').unwrap_or_default();
        let suffix = subtype.rsplit('+').next().unwrap_or_default();
        equal(suffix, "json")
    }

    /// Whether it names a kind of text.
    pub(super) fn is_text(&self) -> bool {
        self.essence.get(..5).is_some_and(|prefix| equal(prefix, "text/"))
    }

    /// The type and subtype as they came.
    pub(super) fn essence(&self) -> &'a str {
        self.essence
    }
}

/// Whether a content type is one of the structured CloudEvents formats.
pub(super) fn is_cloudevents(content_type: &str) -> bool {
    const PREFIX: &str = "application/cloudevents";
    content_type.trim_start().get(..PREFIX.len()).is_some_and(|prefix| equal(prefix, PREFIX))
}

fn equal(left: &str, right: &str) -> bool {
    left.eq_ignore_ascii_case(right)
}

/// The first byte that is not JSON white space.
pub(super) fn first_byte(body: &[u8]) -> Option<u8> {
    body.iter().copied().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_says_the_form() {
        use BodyForm::*;
        for (content_type, body, form) in [
            ("application/json", "", Json),
            ("Application/JSON; charset=UTF-8", "", Json),
            ("application/json;charset=\"utf-8\"", "", Json),
            ("application/vnd.api+json", "", Json),
            ("text/json", "", Json),
            ("application/x-ndjson", "", Lines),
            ("application/jsonl", "", Lines),
            ("application/vnd.msgpack", "", MessagePack),
            ("application/x-www-form-urlencoded", "channel=a", Form),
            ("application/x-www-form-urlencoded", " {\"channel\":\"a\"}", Json),
            ("application/cloudevents+json; charset=utf-8", "", CloudEvent),
            ("application/cloudevents-batch+json", "", CloudEventBatch),
        ] {
            assert_eq!(BodyForm::of(Some(content_type), body.as_bytes()), Ok(form), "{content_type}");
        }
        assert_eq!(BodyForm::of(None, b""), Ok(Json));
        for content_type in
            ["text/plain", "", ";", "json", "application/cloudevents+xml", "application/json; charset=latin1"]
        {
            let error = BodyForm::of(Some(content_type), b"{}").unwrap_err();
            assert_eq!((error.status, error.code), (415, "unsupported_media_type"), "{content_type}");
        }
    }
}
