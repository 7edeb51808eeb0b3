//! How a written value becomes a typed one, and back for `GET /v1/config`.

use super::later;
use super::node::{Node, Table, Value, parse_json};
use super::problem::{Problem, Source};
use super::quantity::{ByteSize, format_duration, parse_duration};
use crate::event::{EventName, Pattern};
use crate::redact::RedactPath;
use serde_json::Value as Json;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

/// A type that a key can have.
pub(super) trait Setting: Sized {
    /// Whether it is written as a table; an environment variable then holds a list of them as JSON.
    const IS_TABLE: bool = false;

    /// Takes a written value, or says what is wrong with it.
    fn read(node: &Node) -> Result<Self, Vec<Problem>>;

    /// The value as an operator would write it, without secrets.
    fn show(&self) -> Json;
}

/// Types that are written as a string: they have `FromStr` and `Display`.
macro_rules! written_as_text {
    ($($type:ty),* $(,)?) => {
        $(impl $crate::config::setting::Setting for $type {
            fn read(node: &$crate::config::node::Node) -> Result<Self, Vec<$crate::config::problem::Problem>> {
                let text = $crate::config::setting::text(node)?;
                text.parse().map_err(|error| node.problem(error))
            }

            fn show(&self) -> serde_json::Value {
                self.to_string().into()
            }
        })*
    };
}
pub(super) use written_as_text;

/// The text of a node that must be a string.
pub(super) fn text(node: &Node) -> Result<&str, Vec<Problem>> {
    match &node.value {
        Value::Text(text) | Value::Untyped(text) => Ok(text),
        _ => Err(node.problem("must be a string; write it in quotes")),
    }
}

impl Setting for bool {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        match &node.value {
            Value::Boolean(boolean) => Ok(*boolean),
            Value::Untyped(text) if text == "true" => Ok(true),
            Value::Untyped(text) if text == "false" => Ok(false),
            _ => Err(node.problem("must be true or false, without quotes")),
        }
    }

    fn show(&self) -> Json {
        (*self).into()
    }
}

fn whole_number(node: &Node) -> Result<u64, Vec<Problem>> {
    let number = match &node.value {
        Value::Integer(integer) => u64::try_from(*integer).ok(),
        Value::Untyped(text) => text.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| node.problem("must be a whole number, 0 or more, without quotes"))
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {
        $(impl Setting for $type {
            fn read(node: &Node) -> Result<Self, Vec<Problem>> {
                let number = whole_number(node)?;
                Self::try_from(number).map_err(|_| node.problem(format!("is too large; write at most {}", Self::MAX)))
            }

            fn show(&self) -> Json {
                (*self).into()
            }
        })*
    };
}
whole_numbers!(u32, u64, usize);

/// Limits of which 0 is none at all.
macro_rules! limits {
    ($($type:ty as $number:ty),*) => {
        $(impl Setting for Option<$type> {
            fn read(node: &Node) -> Result<Self, Vec<Problem>> {
                <$number>::read(node).map(<$type>::new)
            }

            fn show(&self) -> Json {
                self.map_or(0, <$type>::get).into()
            }
        })*
    };
}
limits!(NonZeroU32 as u32, NonZeroU64 as u64, NonZeroUsize as usize);

impl Setting for Duration {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        let parsed = match &node.value {
            Value::Integer(integer) => parse_duration(&integer.to_string()),
            _ => parse_duration(text(node)?),
        };
        parsed.map_err(|error| node.problem(error))
    }

    fn show(&self) -> Json {
        format_duration(*self).into()
    }
}

/// A duration of which `"0s"` switches the thing off.
impl Setting for Option<Duration> {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        Duration::read(node).map(|duration| (!duration.is_zero()).then_some(duration))
    }

    fn show(&self) -> Json {
        self.unwrap_or(Duration::ZERO).show()
    }
}

impl Setting for ByteSize {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        match &node.value {
            Value::Integer(_) => whole_number(node).map(Self),
            _ => text(node)?.parse().map_err(|error| node.problem(error)),
        }
    }

    fn show(&self) -> Json {
        self.to_string().into()
    }
}

impl Setting for String {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        text(node).map(str::to_owned)
    }

    fn show(&self) -> Json {
        self.as_str().into()
    }
}

impl Setting for PathBuf {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        text(node).map(Self::from)
    }

    fn show(&self) -> Json {
        self.to_string_lossy().into()
    }
}

impl Setting for Pattern {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        let text = text(node)?;
        Self::parse(text).map_err(|error| node.problem(format!("{text:?} is no pattern: {error}")))
    }

    fn show(&self) -> Json {
        self.as_str().into()
    }
}

impl Setting for EventName {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        Self::parse(text(node)?).map_err(|error| node.problem(error))
    }

    fn show(&self) -> Json {
        self.as_str().into()
    }
}

impl Setting for RedactPath {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        let text = text(node)?;
        text.parse().map_err(|error| node.problem(format!("{text:?} is no path to fields: {error}")))
    }

    fn show(&self) -> Json {
        self.to_string().into()
    }
}

/// A list; a single value is a list of one, and a variable or flag splits at commas.
impl<T: Setting> Setting for Vec<T> {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        match &node.value {
            Value::List(items) => read_all(items),
            Value::Untyped(text) if T::IS_TABLE => match parse_json(text, &node.source) {
                Ok(Node { value: Value::List(items), .. }) => read_all(&items),
                Ok(_) => Err(node.problem("must be a JSON list of objects")),
                Err(error) => Err(node.problem(format!("must be a JSON list of objects: {error}"))),
            },
            Value::Untyped(text) => {
                let items: Vec<Node> = text
                    .split(',')
                    .map(|item| Node::untyped(item.trim().to_owned(), node.source.clone()))
                    .collect();
                read_all(&items)
            }
            Value::Table(_) if T::IS_TABLE => {
                Err(node.problem("is a list of tables; write its name in double brackets, [[ and ]]"))
            }
            _ => T::read(node).map(|item| vec![item]),
        }
    }

    fn show(&self) -> Json {
        self.iter().map(T::show).collect()
    }
}

fn read_all<T: Setting>(items: &[Node]) -> Result<Vec<T>, Vec<Problem>> {
    let (mut values, mut problems) = (Vec::new(), Vec::new());
    for (index, item) in items.iter().enumerate() {
        match T::read(item) {
            Ok(value) => values.push(value),
            Err(found) => {
                problems.extend(found.into_iter().map(|problem| problem.under(&format!("[{index}]"))))
            }
        }
    }
    if problems.is_empty() { Ok(values) } else { Err(problems) }
}

/// Reads the keys of one table of a list, such as one `[[channels]]`, and gathers what is wrong.
pub(super) struct TableReader<'a> {
    table: &'a Table,
    source: &'a Source,
    problems: Vec<Problem>,
}

impl<'a> TableReader<'a> {
    /// Refuses a node that is no table, and notes keys that are not among `known`. `name` is the list's key.
    pub(super) fn new(node: &'a Node, name: &str, known: &[&str]) -> Result<Self, Vec<Problem>> {
        let Value::Table(table) = &node.value else {
            return Err(node.problem(format!("must be a table with the keys {}", known.join(", "))));
        };
        let problems = table
            .iter()
            .filter(|(key, _)| !known.contains(&key.as_str()))
            .map(|(key, field)| {
                let later = later::is_later(&format!("{name}.{key}"));
                Problem::key(key, &field.source, later, known.iter().copied())
            })
            .collect();
        Ok(Self { table, source: &node.source, problems })
    }

    /// A key that may be left out.
    pub(super) fn optional<T: Setting>(&mut self, key: &str) -> Option<T> {
        let node = self.table.get(key)?;
        T::read(node)
            .map_err(|found| self.problems.extend(found.into_iter().map(|problem| problem.under(key))))
            .ok()
    }

    /// A key that must be there. `None` is never the end: the problem is noted.
    pub(super) fn required<T: Setting>(&mut self, key: &str) -> Option<T> {
        if !self.table.contains_key(key) {
            self.refuse(key, "is missing; add it");
        }
        self.optional(key)
    }

    /// Notes that a key's value cannot be taken.
    pub(super) fn refuse(&mut self, key: &str, message: &str) {
        let source = self.table.get(key).map_or(self.source, |node| &node.source);
        self.problems.push(Problem::value(source, message).under(key));
    }

    /// What was read, unless something was wrong.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Vec<Problem>> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(self.problems),
        }
    }
}
