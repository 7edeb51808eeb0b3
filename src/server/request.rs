//! Reading requests: parameters and bodies, each with its bounds.

use super::error::ApiError;
use crate::event::{Channel, Cursor, EventName, Filter, Pattern, UnixMs};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use std::borrow::Cow;
use std::time::Duration;

/// The parameters of a request, percent-decoded, in order.
pub(super) struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// Most parameters of a request.
const MAX_PARAMETERS: usize = 4096;

impl<'a> Parameters<'a> {
    /// Reads a query string.
    pub(super) fn parse(query: Option<&'a str>) -> Result<Self, ApiError> {
        let pairs: Vec<_> =
            form_urlencoded::parse(query.unwrap_or("").as_bytes()).take(MAX_PARAMETERS + 1).collect();
        if pairs.len() > MAX_PARAMETERS {
            return Err(ApiError::parameter("invalid_request", "query", "too many parameters"));
        }
        Ok(Self(pairs))
    }

    /// The last value of a parameter; an empty one counts as none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| &**value)
            .filter(|value| !value.is_empty())
    }

    /// The same, with an empty one counted as one.
    pub(super) fn raw(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// All values of a parameter, with comma lists taken apart.
    pub(super) fn list<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .flat_map(|(_, value)| value.split(','))
            .filter(|value| !value.is_empty())
    }

    /// A whole number between 0 and `most`.
    pub(super) fn number(&self, name: &str, most: u64) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(number) if number <= most => Ok(Some(number)),
            _ => Err(ApiError::parameter(
                "invalid_parameter",
                name,
                format!("`{name}` must be a whole number from 0 to {most}"),
            )),
        }
    }

    /// `1`, `true` or nothing at all mean yes.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| &**value) {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true" | "") => Ok(true),
            Some(_) => {
                Err(ApiError::parameter("invalid_parameter", name, format!("`{name}` must be 1 or 0")))
            }
        }
    }

    /// The channels and patterns of `channel=`, in order, at most `most`.
    pub(super) fn patterns(&self, most: usize) -> Result<Vec<Pattern>, ApiError> {
        let mut patterns = Vec::new();
        for text in self.list("channel").chain(self.list("channels")) {
            let pattern = Pattern::parse(text)
                .map_err(|error| ApiError::parameter("invalid_channel", "channel", error.to_string()))?;
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
            if patterns.len() > most {
                return Err(ApiError::parameter(
                    "too_many_channels",
                    "channel",
                    format!("at most {most} channels and patterns at once"),
                ));
            }
        }
        Ok(patterns)
    }

    /// The cursor in a parameter.
    pub(super) fn cursor(&self, name: &str) -> Result<Option<Cursor>, ApiError> {
        self.get(name).map(|text| parse_cursor(text, name)).transpose()
    }

    /// The filter of `event=` and `tag.NAME=`.
    pub(super) fn filter(&self) -> Result<Filter, ApiError> {
        let mut filter = Filter::default();
        for name in self.list("event") {
            filter.events.push(
                EventName::parse(name)
                    .map_err(|error| ApiError::parameter("invalid_event", "event", error.message))?,
            );
        }
        for (key, value) in &self.0 {
            if let Some(name) = key.strip_prefix("tag.") {
                filter.tags.push((name.into(), (&**value).into()));
            }
        }
        if filter.events.len() + filter.tags.len() > 256 {
            return Err(ApiError::parameter(
                "invalid_parameter",
                "event",
                "at most 256 event names and tags",
            ));
        }
        Ok(filter)
    }

    /// A time: RFC 3339 or Unix ms.
    pub(super) fn time(&self, name: &str) -> Result<Option<UnixMs>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        if let Ok(ms) = text.parse::<u64>() {
            return Ok(Some(ms));
        }
        // `+` in a query string is a space; RFC 3339 has no space before an offset.
        let repaired = text.replace(' ', "+");
        parse_rfc3339(&repaired).map(Some).ok_or_else(|| {
            ApiError::parameter(
                "invalid_time",
                name,
                format!("`{name}` must be RFC 3339 (2026-01-31T12:00:00Z) or milliseconds since 1970"),
            )
        })
    }
}

/// Reads a cursor.
pub(super) fn parse_cursor(text: &str, field: &str) -> Result<Cursor, ApiError> {
    Cursor::parse(text).map_err(|error| ApiError::parameter("invalid_cursor", field, error.to_string()))
}

/// Reads a channel name out of a path.
pub(super) fn path_channel(segment: &str) -> Result<Channel, ApiError> {
    let text = percent_encoding::percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| ApiError::parameter("invalid_channel", "channel", "the path is not UTF-8"))?;
    Channel::parse(&text)
        .map_err(|error| ApiError::parameter("invalid_channel", "channel", error.to_string()))
}

/// RFC 3339, section 5.6, as Unix ms; nothing before 1970.
fn parse_rfc3339(text: &str) -> Option<UnixMs> {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = bytes.get(range)?;
        part.iter()
            .all(u8::is_ascii_digit)
            .then(|| part.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0')))
    };
    let literal = |at: usize, of: &[u8]| bytes.get(at).is_some_and(|byte| of.contains(byte));
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    let shaped =
        literal(4, b"-") && literal(7, b"-") && literal(10, b"Tt ") && literal(13, b":") && literal(16, b":");
    let month_days = match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let ranged = (1..=12).contains(&month)
        && (1..=month_days).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !shaped || !ranged {
        return None;
    }
    let mut at = 19;
    let mut ms = 0;
    if literal(at, b".") {
        let start = at + 1;
        at = start + bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if at == start {
            return None;
        }
        ms = (start..start + 3)
            .fold(0, |ms, place| ms * 10 + if place < at { i64::from(bytes[place] - b'0') } else { 0 });
    }
    let offset_minutes = match bytes.get(at)? {
        b'Z' | b'z' if at + 1 == bytes.len() => 0,
        sign @ (b'+' | b'-') if at + 6 == bytes.len() && literal(at + 3, b":") => {
            let minutes = digits(at + 1..at + 3)? * 60 + digits(at + 4..at + 6)?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    // Days since 1970-01-01 of a Gregorian date, counting years from March.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * shifted_year + shifted_year.div_euclid(4) - shifted_year.div_euclid(100)
        + shifted_year.div_euclid(400)
        + (153 * shifted_month + 2) / 5
        + day
        - 1
        - 719_468;
    let seconds = days * 86_400 + hour * 3600 + (minute - offset_minutes) * 60 + second;
    u64::try_from(seconds * 1000 + ms).ok()
}

/// Reads a whole body of at most `most` bytes, within `timeout`.
pub(super) async fn read_body(mut body: Incoming, most: usize, timeout: Duration) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > most as u64 {
        return Err(too_large(most));
    }
    // Nearly always the body came with the head: then there is nothing to wait for, and no timer to set.
    let first = std::pin::pin!(next_data(&mut body)).await_ready();
    let first = match first {
        Some(first) => first?,
        None => tokio::time::timeout(timeout, next_data(&mut body)).await.map_err(|_| timed_out())??,
    };
    let Some(first) = first else { return Ok(Bytes::new()) };
    if first.len() > most {
        return Err(too_large(most));
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    let rest = async {
        let mut all = BytesMut::from(first);
        while let Some(data) = next_data(&mut body).await? {
            if all.len() + data.len() > most {
                return Err(too_large(most));
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    };
    tokio::time::timeout(timeout, rest).await.map_err(|_| timed_out())?
}

async fn next_data(body: &mut Incoming) -> Result<Option<Bytes>, ApiError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            ApiError::new(
                StatusCode::BAD_REQUEST,
                "invalid_request",
                "the body broke off or is not framed as HTTP/1.1 says",
            )
        })?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn too_large(most: usize) -> ApiError {
    ApiError::too_large(format!(
        "a request body may have at most {most} bytes: send less at once, or raise `limits.body_bytes`"
    ))
}

fn timed_out() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time")
}

/// Asks a future once.
trait AwaitReady: Future {
    fn await_ready(self) -> Option<Self::Output>;
}

impl<F: Future> AwaitReady for std::pin::Pin<&mut F> {
    fn await_ready(self) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match self.poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_as_rfc_3339_says() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-01-31T12:00:00Z", Some(1_769_860_800_000)),
            ("2026-01-31t13:30:00.25+01:30", Some(1_769_860_800_250)),
            ("2024-02-29T23:59:59.999999Z", Some(1_709_251_199_999)),
            ("2023-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-01-01", None),
            ("2026-01-01T00:00:00", None),
            ("1969-12-31T23:59:59Z", None),
            ("now", None),
        ] {
            assert_eq!(parse_rfc3339(text), ms, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}", close in "[0-9TZ:.+ -]{0,32}") {
            let _ = parse_rfc3339(&text);
            let _ = parse_rfc3339(&close);
        }
    }
}
