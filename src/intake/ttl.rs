//! How long an event is kept, as publishers write it.

use super::error::EntryError;
use crate::event::Ttl;

/// Seconds, maybe with a fraction; 0 is live only.
pub(super) fn from_seconds(seconds: f64) -> Result<Ttl, EntryError> {
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(invalid());
    }
    if seconds == 0.0 {
        return Ok(Ttl::Live);
    }
    // A float that is too large becomes the largest integer. The least fraction still keeps the event.
    Ok(Ttl::Ms((seconds * 1000.0).ceil() as u64))
}

/// A number of seconds, or `24h`, `30m`, `1h 30m`.
pub(super) fn from_text(text: &str) -> Result<Ttl, EntryError> {
    if let Ok(seconds) = text.trim().parse() {
        return from_seconds(seconds);
    }
    let duration = humantime::parse_duration(text).map_err(|_| invalid())?;
    if duration.is_zero() {
        return Ok(Ttl::Live);
    }
    Ok(Ttl::Ms(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)))
}

fn invalid() -> EntryError {
    EntryError::field(
        "invalid_ttl",
        "ttl",
        "`ttl` must be a number of seconds, 0 or more, or a text such as \"24h\"; 0 is live only",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_publishers_write() {
        for (text, ttl) in [
            ("0", Ttl::Live),
            ("0s", Ttl::Live),
            ("-0", Ttl::Live),
            ("60", Ttl::Ms(60_000)),
            ("0.5", Ttl::Ms(500)),
            ("0.0001", Ttl::Ms(1)),
            ("10us", Ttl::Ms(1)),
            ("24h", Ttl::Ms(86_400_000)),
            ("1h 30m", Ttl::Ms(5_400_000)),
            ("1e300", Ttl::Ms(u64::MAX)),
        ] {
            assert_eq!(from_text(text), Ok(ttl), "{text}");
        }
        for text in ["", "-1", "nan", "inf", "soon", "1 parsec", "99999999999999999999y"] {
            assert_eq!(from_text(text).unwrap_err().code, "invalid_ttl", "{text}");
        }
    }
}
