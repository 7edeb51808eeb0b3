//! When the log is forced to disk.

use super::quantity::{format_duration, parse_duration};
use super::setting::written_as_text;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// When what was appended to the log is forced to disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogSync {
    /// Before a publish is acknowledged.
    Always,
    /// At this interval: a power failure may take the events of the last one.
    Every(Duration),
    /// When the operating system likes.
    Never,
}

impl FromStr for LogSync {
    type Err = LogSyncError;

    fn from_str(text: &str) -> Result<Self, LogSyncError> {
        match text {
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => match parse_duration(text) {
                Ok(interval) if !interval.is_zero() => Ok(Self::Every(interval)),
                _ => Err(LogSyncError(text.into())),
            },
        }
    }
}

impl fmt::Display for LogSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Every(interval) => f.write_str(&format_duration(*interval)),
            Self::Never => f.write_str("never"),
        }
    }
}

/// The text says no time to sync.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSyncError(String);

impl fmt::Display for LogSyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not known; write \"always\", an interval such as \"50ms\", or \"never\"", self.0)
    }
}

impl std::error::Error for LogSyncError {}

written_as_text!(LogSync);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_ways_are_read() {
        for (text, sync) in [
            ("always", LogSync::Always),
            ("never", LogSync::Never),
            ("50ms", LogSync::Every(Duration::from_millis(50))),
        ] {
            assert_eq!(text.parse(), Ok(sync));
            assert_eq!(sync.to_string(), text);
        }
        for text in ["", "sometimes", "0ms", "50", "Always"] {
            assert!(text.parse::<LogSync>().is_err(), "{text:?}");
        }
    }
}
