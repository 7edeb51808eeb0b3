//! Points in time as they are typed.

use crate::config::parse_duration;
use std::convert::Infallible;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time: RFC 3339, Unix milliseconds, or how long ago (`10m`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum TimeArgument {
    /// So long before now.
    Ago(Duration),
    /// As the node reads it; it says what is wrong with it, if anything.
    Given(String),
}

impl TimeArgument {
    /// As a query wants it.
    pub(super) fn to_query(&self, now: SystemTime) -> String {
        match self {
            Self::Ago(duration) => {
                let time = now.checked_sub(*duration).unwrap_or(UNIX_EPOCH);
                time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis().to_string()
            }
            Self::Given(text) => text.clone(),
        }
    }
}

impl FromStr for TimeArgument {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(parse_duration(text).map_or_else(|_| Self::Given(text.into()), Self::Ago))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_so_long_ago() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let query = |text: &str| text.parse::<TimeArgument>().unwrap().to_query(now);
        assert_eq!(query("10m"), "400000");
        assert_eq!(query("1d"), "0");
        assert_eq!(query("1700000000000"), "1700000000000");
        assert_eq!(query("2024-01-01T00:00:00Z"), "2024-01-01T00:00:00Z");
    }
}
