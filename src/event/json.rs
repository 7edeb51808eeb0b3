//! A JSON value kept as text: what a publisher sent is what a client gets, byte for byte but for line breaks.

use std::fmt;

/// Deepest nesting of arrays and objects that is taken: what common parsers of clients read.
pub const MAX_JSON_DEPTH: usize = 128;

/// One valid JSON value as text, without line breaks, so that it fits a line of NDJSON or SSE as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Box<str>);

impl Json {
    /// Checks that `text` is one JSON value (RFC 8259) that any client can read: nested at most
    /// [`MAX_JSON_DEPTH`] deep, no lone surrogate escapes, no number beyond a double.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        let raw: &serde_json::value::RawValue =
            serde_json::from_str(text).map_err(|error| JsonError::Syntax(error.to_string()))?;
        Self::from_raw(raw)
    }

    /// The same for a value whose syntax was checked already.
    pub fn from_raw(raw: &serde_json::value::RawValue) -> Result<Self, JsonError> {
        let text = raw.get();
        let line_breaks = scan(text)?;
        Ok(Self(if line_breaks {
            // Valid JSON has raw line breaks between its tokens only, never inside a string.
            text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect::<String>().into_boxed_str()
        } else {
            text.into()
        }))
    }

    /// Takes text that was a [`Json`] before and was stored under a checksum, or was written by our own serializer.
    pub(crate) fn trusted(text: Box<str>) -> Self {
        Self(text)
    }

    /// A JSON string with this text.
    pub fn string(text: &str) -> Self {
        Self(serde_json::to_string(text).expect("a string always serializes").into_boxed_str())
    }

    /// The JSON `null`.
    pub fn null() -> Self {
        Self("null".into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One pass over syntactically valid JSON; says whether it holds raw line breaks.
fn scan(text: &str) -> Result<bool, JsonError> {
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut line_breaks) = (0, 0usize, false);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = string_end(bytes, at + 1)?,
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_JSON_DEPTH {
                    return Err(JsonError::TooDeep);
                }
                at += 1;
            }
            b']' | b'}' => {
                depth -= 1;
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let start = at;
                while at < bytes.len() && matches!(bytes[at], b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
                {
                    at += 1;
                }
                // Only an exponent or hundreds of digits can leave the range of a double.
                let number = &text[start..at];
                if (number.len() > 300 || number.contains(['e', 'E']))
                    && !number.parse::<f64>().is_ok_and(f64::is_finite)
                {
                    return Err(JsonError::NumberRange);
                }
            }
            byte => {
                line_breaks |= matches!(byte, b'\n' | b'\r');
                at += 1;
            }
        }
    }
    Ok(line_breaks)
}

/// The index after the closing quote of a string that begins at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> Result<usize, JsonError> {
    let unit = |at: usize| {
        std::str::from_utf8(&bytes[at..at + 4])
            .ok()
            .and_then(|hex| u16::from_str_radix(hex, 16).ok())
            .ok_or(JsonError::Surrogate)
    };
    loop {
        match bytes[at] {
            b'"' => return Ok(at + 1),
            b'\\' if bytes[at + 1] == b'u' => {
                match unit(at + 2)? {
                    0xD800..=0xDBFF => {
                        let paired = bytes.get(at + 6..at + 8) == Some(b"\\u")
                            && matches!(unit(at + 8)?, 0xDC00..=0xDFFF);
                        if !paired {
                            return Err(JsonError::Surrogate);
                        }
                        at += 12;
                    }
                    0xDC00..=0xDFFF => return Err(JsonError::Surrogate),
                    _ => at += 6,
                };
            }
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Why a text is not taken as JSON.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JsonError {
    /// Not JSON at all; the parser's words.
    Syntax(String),
    /// Nested deeper than [`MAX_JSON_DEPTH`].
    TooDeep,
    /// A `\u` escape that is half of a pair.
    Surrogate,
    /// A number that no double can hold.
    NumberRange,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(words) => write!(f, "not valid JSON: {words}"),
            Self::TooDeep => write!(f, "JSON may be nested at most {MAX_JSON_DEPTH} deep"),
            Self::Surrogate => f.write_str("a \\u escape is half of a surrogate pair"),
            Self::NumberRange => f.write_str("a number is beyond the range of a double"),
        }
    }
}

impl std::error::Error for JsonError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_kept_as_it_came() {
        for text in [
            "null",
            "-0",
            "1.50",
            "1e2",
            "\"\\u00e9\\ud83d\\ude00\\n\"",
            "{\"a\": [1,  2]}",
            "\"\u{2028}\"",
            "12345678901234567890123",
        ] {
            assert_eq!(Json::parse(text).unwrap().as_str(), text);
        }
        assert_eq!(Json::parse("{\r\n \"a\":\n1}").unwrap().as_str(), "{ \"a\":1}");
    }

    #[test]
    fn what_clients_cannot_read_is_refused() {
        assert_eq!(Json::parse("\"\\ud800\""), Err(JsonError::Surrogate));
        assert_eq!(Json::parse("\"\\ud800\\n\""), Err(JsonError::Surrogate));
        assert_eq!(Json::parse("\"\\udc00\""), Err(JsonError::Surrogate));
        assert_eq!(Json::parse("1e400"), Err(JsonError::NumberRange));
        assert_eq!(Json::parse(&"9".repeat(400)), Err(JsonError::NumberRange));
        assert_eq!(Json::parse(&format!("{}{}", "[".repeat(129), "]".repeat(129))), Err(JsonError::TooDeep));
        assert!(Json::parse(&format!("{}{}", "[".repeat(128), "]".repeat(128))).is_ok());
        assert!(Json::parse(&"[".repeat(100_000)).is_err());
        for text in ["", "NaN", "{", "1 2", "\"\n\"", "tru"] {
            assert!(matches!(Json::parse(text), Err(JsonError::Syntax(_))), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[\\[\\]{}\":,\\\\u0-9a-fdDeE+.\\- \\n\"]{0,60}") {
            if let Ok(json) = Json::parse(&text) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(json.as_str()).is_ok());
            }
        }
    }
}
