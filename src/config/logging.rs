//! How this program's own log lines look, and which of them are written.

use super::setting::written_as_text;
use std::fmt;
use std::str::FromStr;
use tracing_subscriber::EnvFilter;

/// The form of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

impl FromStr for LogFormat {
    type Err = LogFormatError;

    fn from_str(text: &str) -> Result<Self, LogFormatError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogFormatError(text.into())),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// The text names no form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogFormatError(String);

impl fmt::Display for LogFormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not known; write \"text\" or \"json\"", self.0)
    }
}

impl std::error::Error for LogFormatError {}

/// Which log lines are written: a level, or directives such as `info,sidewire::log=debug`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogFilter(String);

impl LogFilter {
    /// The directives; every [`EnvFilter`] reads them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LogFilter {
    type Err = LogFilterError;

    fn from_str(text: &str) -> Result<Self, LogFilterError> {
        let error = || LogFilterError(text.into());
        // A lone word that is no level would be taken for the name of a module, and switch all else off.
        let lone_word = text.bytes().all(|byte| byte.is_ascii_alphabetic());
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        if lone_word && !levels.iter().any(|level| level.eq_ignore_ascii_case(text)) {
            return Err(error());
        }
        EnvFilter::try_new(text).map_err(|_| error())?;
        Ok(Self(text.into()))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no filter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogFilterError(String);

impl fmt::Display for LogFilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a log level; write \"error\", \"warn\", \"info\", \"debug\" or \"trace\", or directives such as \"info,sidewire::log=debug\"",
            self.0
        )
    }
}

impl std::error::Error for LogFilterError {}

written_as_text!(LogFormat, LogFilter);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_filters() {
        for text in ["info", "WARN", "off", "info,sidewire::log=debug", "sidewire=trace"] {
            assert_eq!(text.parse::<LogFilter>().unwrap().as_str(), text);
        }
        for text in ["", "verbose", "infoo", "info,sidewire=loud"] {
            assert!(text.parse::<LogFilter>().is_err(), "{text:?}");
        }
    }
}
