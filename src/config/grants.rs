//! What is granted without a token's say: `auth.default` and `auth.anonymous`.

use super::node::{Node, Value, parse_json};
use super::problem::Problem;
use super::setting::{Setting, text, written_as_text};
use crate::auth::{Algorithm, CallUrl, GrantTemplate};
use serde_json::Value as Json;

/// Patterns, each with its rights.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Grants(pub Vec<GrantTemplate>);

impl Setting for Grants {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        let parsed;
        let table = match &node.value {
            Value::Table(table) => table,
            Value::Untyped(text) => {
                parsed = parse_json(text, &node.source)
                    .map_err(|error| node.problem(format!("must be a JSON object: {error}")))?;
                match &parsed.value {
                    Value::Table(table) => table,
                    _ => return Err(node.problem("must be a JSON object of patterns with their rights")),
                }
            }
            _ => {
                return Err(node.problem(
                    "must be a table of patterns with their rights, such as { \"news.>\" = [\"sub\"] }",
                ));
            }
        };
        let grant = |(pattern, rights): (&String, &Node)| {
            let rights = match &rights.value {
                Value::List(items) => items.iter().map(text).collect::<Result<Vec<_>, _>>()?,
                _ => return Err(rights.problem("must be a list of rights, such as [\"sub\", \"history\"]")),
            };
            GrantTemplate::parse(pattern, rights).map_err(|error| node.problem(error))
        };
        table.iter().map(grant).collect::<Result<_, _>>().map(Self)
    }

    fn show(&self) -> Json {
        let shown = self.0.iter().map(|grant| {
            let rights: Vec<Json> = grant.rights().iter().map(|right| right.as_str().into()).collect();
            (grant.pattern().to_owned(), rights.into())
        });
        Json::Object(shown.collect())
    }
}

written_as_text!(Algorithm, CallUrl);

/// An address that may be left out: empty for none.
impl Setting for Option<CallUrl> {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        if text(node)?.is_empty() { Ok(None) } else { CallUrl::read(node).map(Some) }
    }

    fn show(&self) -> Json {
        self.as_ref().map_or_else(|| "".into(), CallUrl::show)
    }
}
