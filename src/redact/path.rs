//! Which fields are stripped. One small language, read once:
//!
//! | path | strips |
//! | --- | --- |
//! | `password` | every field of that name, at any depth |
//! | `user.email` | the field `email` of every field `user`, at any depth |
//! | `$.card.number` | the field `number` of the field `card` of the data itself |
//! | `headers.*` | every field of a field `headers` |
//! | `user."e.mail"` | a name with characters that mean something here, as a JSON string |
//!
//! Arrays are passed through: the fields of an array's objects count as those of the field that holds it.

use std::fmt;
use std::str::FromStr;

/// Longest path, in bytes.
const MOST_BYTES: usize = 512;
/// Most names of a path.
const MOST_NAMES: usize = 16;

/// A path to fields of an event's data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedactPath {
    /// It begins with the data itself, instead of anywhere.
    from_root: bool,
    /// Never empty.
    names: Vec<Name>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Name {
    Any,
    Is(Box<str>),
}

impl RedactPath {
    /// Whether it names the field that stands below these names, from the outermost to its own.
    pub(super) fn names<T: AsRef<str>>(&self, place: &[T]) -> bool {
        let Some(above) = place.len().checked_sub(self.names.len()) else { return false };
        (above == 0 || !self.from_root)
            && self.names.iter().rev().zip(place.iter().rev()).all(|(name, found)| match name {
                Name::Any => true,
                Name::Is(name) => **name == *found.as_ref(),
            })
    }
}

impl FromStr for RedactPath {
    type Err = RedactPathError;

    fn from_str(text: &str) -> Result<Self, RedactPathError> {
        if text.len() > MOST_BYTES {
            return Err(RedactPathError::TooLong);
        }
        let (from_root, mut rest) = match text.strip_prefix('$') {
            Some(rest) => (true, rest.strip_prefix('.').ok_or(RedactPathError::Root)?),
            None => (false, text),
        };
        let mut names = Vec::new();
        loop {
            let (name, behind) = name(rest)?;
            names.push(name);
            if names.len() > MOST_NAMES {
                return Err(RedactPathError::TooLong);
            }
            match behind.strip_prefix('.') {
                Some(more) => rest = more,
                None if behind.is_empty() => return Ok(Self { from_root, names }),
                None => return Err(RedactPathError::Character(behind.chars().next().unwrap_or('"'))),
            }
        }
    }
}

/// The first name, and what follows it.
fn name(text: &str) -> Result<(Name, &str), RedactPathError> {
    if text.starts_with('"') {
        let mut strings = serde_json::Deserializer::from_str(text).into_iter::<Box<str>>();
        let Some(Ok(name)) = strings.next() else { return Err(RedactPathError::Quotes) };
        let end = strings.byte_offset();
        return Ok((Name::Is(name), &text[end..]));
    }
    let end = text.find('.').unwrap_or(text.len());
    let (name, behind) = text.split_at(end);
    let is_special = |c: char| {
        matches!(c, '"' | '\'' | '[' | ']' | '*' | '$' | '\\') || c.is_whitespace() || c.is_control()
    };
    match name {
        "" => Err(RedactPathError::Empty),
        "*" => Ok((Name::Any, behind)),
        name => match name.chars().find(|c| is_special(*c)) {
            Some(special) => Err(RedactPathError::Character(special)),
            None => Ok((Name::Is(name.into()), behind)),
        },
    }
}

impl fmt::Display for RedactPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut dot = if self.from_root { "$." } else { "" };
        for wanted in &self.names {
            f.write_str(dot)?;
            dot = ".";
            match wanted {
                Name::Any => f.write_str("*")?,
                Name::Is(text) => match name(text) {
                    Ok((Name::Is(_), "")) if !text.starts_with('"') => f.write_str(text)?,
                    _ => write!(f, "{}", serde_json::Value::from(&**text))?,
                },
            }
        }
        Ok(())
    }
}

/// Why a text is no path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RedactPathError {
    /// A name is missing.
    Empty,
    /// `$` is not followed by a dot and a name.
    Root,
    /// A name in quotes is no JSON string.
    Quotes,
    /// A character that no name without quotes has.
    Character(char),
    /// Longer, or of more names, than any path.
    TooLong,
}

impl fmt::Display for RedactPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => {
                f.write_str("a name is missing; write a field such as password, user.email or $.card.number")
            }
            Self::Root => f.write_str("`$` is the data itself; write $.NAME for a field of it"),
            Self::Quotes => f.write_str("a name in quotes must be a JSON string, such as user.\"e.mail\""),
            Self::Character('[' | ']') => {
                f.write_str("arrays are passed through; leave `[` and `]` out, or put the name in quotes")
            }
            Self::Character('*') => {
                f.write_str("`*` stands for a whole name; put the name in quotes if it has one")
            }
            Self::Character(c) => write!(f, "{c:?} is in no name; put the name in quotes if it is"),
            Self::TooLong => {
                write!(f, "is too long; write at most {MOST_NAMES} names and {MOST_BYTES} bytes")
            }
        }
    }
}

impl std::error::Error for RedactPathError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RedactPath {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_path_names_what_it_says() {
        for (text, names, others) in [
            ("a", &["a", "b.a", "b.c.a"][..], &["b", "a.b", "aa"][..]),
            ("u.e", &["u.e", "x.u.e"], &["e", "u", "u.x.e", "e.u"]),
            ("$.u.e", &["u.e"], &["x.u.e", "e"]),
            ("$.a", &["a"], &["b.a"]),
            ("h.*", &["h.a", "x.h.b"], &["h", "a"]),
            ("*.a", &["x.a", "y.x.a"], &["a"]),
            ("$.*.a", &["x.a"], &["a", "y.x.a"]),
        ] {
            let path = path(text);
            assert_eq!(path.to_string(), text);
            let named = |place: &&str| path.names(&place.split('.').collect::<Vec<_>>());
            assert!(names.iter().all(named), "{text}");
            assert!(!others.iter().any(named), "{text}");
        }
    }

    #[test]
    fn any_name_can_be_written_in_quotes() {
        for name in ["e.mail", "", "*", "$", "a b", "[0]", "\"", "\u{e9}\u{1f600}", "\n"] {
            let text = format!("user.{}", serde_json::Value::from(name));
            let path = path(&text);
            assert!(path.names(&["user", name]), "{text}");
            assert_eq!(path.to_string().parse(), Ok(path), "{text}");
        }
        assert!(path("naïve-name_1@x").names(&["naïve-name_1@x"]));
    }

    #[test]
    fn what_is_no_path_is_refused_with_advice() {
        for (text, error) in [
            ("", RedactPathError::Empty),
            ("a..b", RedactPathError::Empty),
            (".a", RedactPathError::Empty),
            ("a.", RedactPathError::Empty),
            ("$", RedactPathError::Root),
            ("$a", RedactPathError::Root),
            ("$.", RedactPathError::Empty),
            ("$..a", RedactPathError::Empty),
            ("a[0].b", RedactPathError::Character('[')),
            ("a b", RedactPathError::Character(' ')),
            ("a*", RedactPathError::Character('*')),
            ("\"a", RedactPathError::Quotes),
            ("\"a\"b", RedactPathError::Character('b')),
            ("a\"b\"", RedactPathError::Character('"')),
        ] {
            let refusal = text.parse::<RedactPath>().unwrap_err();
            assert_eq!(refusal, error, "{text}");
            assert!(!refusal.to_string().is_empty());
        }
        assert_eq!("a.".repeat(16).parse::<RedactPath>(), Err(RedactPathError::Empty));
        assert_eq!(format!("{}a", "a.".repeat(16)).parse::<RedactPath>(), Err(RedactPathError::TooLong));
        assert_eq!("a".repeat(513).parse::<RedactPath>(), Err(RedactPathError::TooLong));
    }
}
