//! Durations (`"250ms"`, `"24h"`) and sizes (`"64MiB"`), as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Longest duration that is taken: a hundred years. Adding more to a clock may overflow it.
const MAX_DURATION_MS: u64 = 100 * 365 * 24 * 60 * 60 * 1000;

/// Units of time in milliseconds, smallest first.
const TIME_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60 * 1000), ("h", 60 * 60 * 1000), ("d", 24 * 60 * 60 * 1000)];

/// Units of size in bytes. The binary ones come first: sizes are shown in them where that is exact.
const SIZE_UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("kB", 1000),
    ("B", 1),
];

/// Reads a duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`. A bare `0` is zero.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let (number, unit) = split(text).ok_or_else(|| QuantityError::NoDuration(text.into()))?;
    if unit.is_empty() {
        return if number == 0 {
            Ok(Duration::ZERO)
        } else {
            Err(QuantityError::NoTimeUnit { number, text: text.into() })
        };
    }
    let &(_, unit_ms) = TIME_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| QuantityError::TimeUnit { unit: unit.into(), text: text.into() })?;
    match number.checked_mul(unit_ms) {
        Some(ms) if ms <= MAX_DURATION_MS => Ok(Duration::from_millis(ms)),
        _ => Err(QuantityError::TooLong(text.into())),
    }
}

/// Writes a duration so that [`parse_duration`] reads it back, to the millisecond.
pub fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".into();
    }
    // A day is as good as 24 hours, but "24h" is what people write.
    let largest = TIME_UNITS.iter().rev().find(|(name, unit_ms)| {
        let unit_ms = u128::from(*unit_ms);
        ms.is_multiple_of(unit_ms) && (*name != "d" || ms > unit_ms)
    });
    match largest {
        Some((name, unit_ms)) => format!("{}{name}", ms / u128::from(*unit_ms)),
        None => format!("{ms}ms"),
    }
}

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// As a length in memory; more than the machine can address becomes the most it can.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split(text).ok_or_else(|| QuantityError::NoSize(text.into()))?;
        let unit = if unit.is_empty() { "B" } else { unit };
        let &(_, unit_bytes) = SIZE_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| QuantityError::SizeUnit { unit: unit.into(), text: text.into() })?;
        // TOML and JSON carry such a number as a signed 64-bit one.
        match number.checked_mul(unit_bytes) {
            Some(bytes) if i64::try_from(bytes).is_ok() => Ok(Self(bytes)),
            _ => Err(QuantityError::TooLarge(text.into())),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZE_UNITS.iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit_bytes)) => write!(f, "{}{name}", self.0 / unit_bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// Splits `"64MiB"` into 64 and `MiB`. `None` without a leading whole number that fits 64 bits.
fn split(text: &str) -> Option<(u64, &str)> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    if unit.starts_with(['.', ',']) {
        return None;
    }
    Some((digits.parse().ok()?, unit))
}

/// Why a text is no duration, or no size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QuantityError {
    /// No whole number at its start.
    NoDuration(String),
    /// A number alone: seconds to one reader, milliseconds to another.
    NoTimeUnit {
        /// The number.
        number: u64,
        /// All of it.
        text: String,
    },
    /// A unit of time that is not known.
    TimeUnit {
        /// The unit.
        unit: String,
        /// All of it.
        text: String,
    },
    /// More than a hundred years.
    TooLong(String),
    /// No whole number at its start.
    NoSize(String),
    /// A unit of size that is not known.
    SizeUnit {
        /// The unit.
        unit: String,
        /// All of it.
        text: String,
    },
    /// More bytes than 63 bits can count.
    TooLarge(String),
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDuration(text) => write!(
                f,
                "{text:?} is not a duration; write a whole number and a unit, such as \"250ms\", \"30s\" or \"24h\""
            ),
            Self::NoTimeUnit { number, text } => write!(
                f,
                "{text:?} has no unit; write \"{number}s\", \"{number}m\", \"{number}h\" or \"{number}d\""
            ),
            Self::TimeUnit { unit, text } => write!(
                f,
                "{text:?} has the unknown unit {unit:?}; write one number with \"ms\", \"s\", \"m\", \"h\" or \"d\""
            ),
            Self::TooLong(text) => {
                write!(f, "{text:?} is longer than a hundred years; write at most \"36500d\"")
            }
            Self::NoSize(text) => write!(
                f,
                "{text:?} is not a size; write a whole number of bytes, or one with a unit, such as \"64MiB\" or \"1GiB\""
            ),
            Self::SizeUnit { unit, text } => write!(
                f,
                "{text:?} has the unknown unit {unit:?}; write \"KiB\", \"MiB\", \"GiB\" (powers of 1024) or \"KB\", \"MB\", \"GB\" (powers of 1000)"
            ),
            Self::TooLarge(text) => write!(f, "{text:?} is more bytes than can be counted; write less"),
        }
    }
}

impl std::error::Error for QuantityError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_in_every_unit() {
        for (text, ms) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("30d", 2_592_000_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn a_bad_duration_says_what_to_write() {
        let message = |text: &str| parse_duration(text).unwrap_err().to_string();
        assert_eq!(message("24"), r#""24" has no unit; write "24s", "24m", "24h" or "24d""#);
        for text in ["", "s", "-1s", "1.5s", " 1s", "99999999999999999999s"] {
            assert!(message(text).contains("is not a duration"), "{text:?}");
        }
        for text in ["1 s", "1w", "1h30m", "1S", "1sec", "1ä"] {
            assert!(message(text).contains("unknown unit"), "{text:?}");
        }
        assert!(message("36501d").contains("hundred years"));
        assert!(message("18446744073709551615d").contains("hundred years"));
    }

    #[test]
    fn sizes_are_read_in_every_unit() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("64MiB", 64 << 20), ("1GiB", 1 << 30), ("10MB", 10_000_000)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        let message = |text: &str| text.parse::<ByteSize>().unwrap_err().to_string();
        assert!(message("1.5GiB").contains("is not a size"));
        assert!(message("64M").contains("unknown unit"));
        assert!(message("9999999999TiB").contains("more bytes"));
        assert_eq!("9223372036854775807".parse(), Ok(ByteSize(i64::MAX as u64)));
        assert!(message("9223372036854775808").contains("more bytes"));
    }

    #[test]
    fn what_is_shown_is_what_people_write() {
        assert_eq!(format_duration(Duration::from_secs(86_400)), "24h");
        assert_eq!(format_duration(Duration::from_secs(30 * 86_400)), "30d");
        assert_eq!(format_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(format_duration(Duration::ZERO), "0s");
        assert_eq!(ByteSize(64 << 20).to_string(), "64MiB");
        assert_eq!(ByteSize(10_000_000).to_string(), "10MB");
        assert_eq!(ByteSize(0).to_string(), "0B");
    }

    proptest! {
        #[test]
        fn a_duration_survives_its_text_form(ms in 0..=MAX_DURATION_MS) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn a_size_survives_its_text_form(bytes in 0..=i64::MAX as u64) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9]{0,22}[a-zA-Zé. ]{0,3}") {
            let _ = parse_duration(&text);
            let _ = text.parse::<ByteSize>();
        }
    }
}
