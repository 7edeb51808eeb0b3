//! A value that was written somewhere, before it has a type of ours: the common form of the file, the
//! environment and the flags.

use super::problem::{Problem, Source};
use std::collections::BTreeMap;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) source: Source,
}

/// What was written.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A string of the file.
    Text(String),
    /// Text of a flag or an environment variable: what it is depends on who reads it.
    Untyped(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
    /// What no key takes: a date, a fraction, a number beyond 64 bits.
    Other,
}

/// Values by key.
pub(super) type Table = BTreeMap<String, Node>;

impl Node {
    /// A value from a flag or an environment variable.
    pub(super) fn untyped(text: String, source: Source) -> Self {
        Self { value: Value::Untyped(text), source }
    }

    /// A problem with this value.
    pub(super) fn problem(&self, message: impl std::fmt::Display) -> Vec<Problem> {
        vec![Problem::value(&self.source, message)]
    }
}

/// Reads a TOML document. The error has the line and what is wrong there.
pub(super) fn parse_toml(text: &str, name: &str) -> Result<Table, (usize, String)> {
    let lines = Lines { name: name.into(), text };
    match DeTable::parse(text) {
        Ok(document) => Ok(lines.table(document.get_ref())),
        Err(error) => {
            let line = error.span().map_or(1, |span| lines.line(span.start));
            Err((line, error.message().to_owned()))
        }
    }
}

/// Reads the JSON value of an environment variable.
pub(super) fn parse_json(text: &str, source: &Source) -> Result<Node, serde_json::Error> {
    serde_json::from_str(text).map(|value| from_json(value, source))
}

/// The document, to tell the line of a place in it.
struct Lines<'a> {
    name: Arc<str>,
    text: &'a str,
}

impl Lines<'_> {
    fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        // The line of a value is that of its key: a list or a table may go on for many.
        table
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), self.node(value.get_ref(), key.span().start)))
            .collect()
    }

    fn node(&self, value: &DeValue<'_>, offset: usize) -> Node {
        let item = |item: &Spanned<DeValue<'_>>| self.node(item.get_ref(), item.span().start);
        let value = match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).map_or(Value::Other, Value::Integer)
            }
            DeValue::Boolean(boolean) => Value::Boolean(*boolean),
            DeValue::Array(items) => Value::List(items.iter().map(item).collect()),
            DeValue::Table(table) => Value::Table(self.table(table)),
            DeValue::Float(_) | DeValue::Datetime(_) => Value::Other,
        };
        Node { value, source: Source::File { name: self.name.clone(), line: self.line(offset) } }
    }
}

fn from_json(value: serde_json::Value, source: &Source) -> Node {
    use serde_json::Value as Json;
    let value = match value {
        Json::String(text) => Value::Text(text),
        Json::Bool(boolean) => Value::Boolean(boolean),
        Json::Number(number) => number.as_i64().map_or(Value::Other, Value::Integer),
        Json::Array(items) => Value::List(items.into_iter().map(|item| from_json(item, source)).collect()),
        Json::Object(fields) => {
            Value::Table(fields.into_iter().map(|(key, field)| (key, from_json(field, source))).collect())
        }
        Json::Null => Value::Other,
    };
    Node { value, source: source.clone() }
}
