//! How often, in the configuration.

use super::setting::written_as_text;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// So many a second: `"10/s"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PerSecond(pub NonZeroU32);

impl PerSecond {
    /// The time between two, if they come evenly.
    pub fn interval(self) -> Duration {
        Duration::from_secs(1) / self.0.get()
    }
}

impl FromStr for PerSecond {
    type Err = PerSecondError;

    fn from_str(text: &str) -> Result<Self, PerSecondError> {
        let number = text.strip_suffix("/s").and_then(|number| number.parse().ok());
        number.map(Self).ok_or_else(|| PerSecondError(text.into()))
    }
}

impl fmt::Display for PerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// The text is no rate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PerSecondError(String);

impl fmt::Display for PerSecondError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no rate; write a number a second, 1 or more, such as \"10/s\"", self.0)
    }
}

impl std::error::Error for PerSecondError {}

written_as_text!(PerSecond);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_a_number_a_second() {
        assert_eq!("10/s".parse::<PerSecond>().unwrap().to_string(), "10/s");
        for text in ["", "10", "0/s", "-1/s", "1.5/s", "10/m", "/s"] {
            assert!(text.parse::<PerSecond>().is_err(), "{text}");
        }
    }
}
