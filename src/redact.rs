//! Fields that never leave the node that they came to: stripped from the data of an event before anything is
//! stored, sent on or shown (`redact` in a rule of `[[channels]]`).

mod path;
mod strip;

pub use path::{RedactPath, RedactPathError};
pub use strip::strip;

use crate::event::{Channel, Data, Json, Pattern};
use std::sync::{Arc, PoisonError, RwLock};

/// What is stripped from the events of which channels. Clones are the same, also when it changes.
#[derive(Clone, Default, Debug)]
pub struct Redactor(Arc<RwLock<Arc<[RedactRule]>>>);

/// What is stripped from the events of some channels. Of several rules the first that fits counts.
#[derive(Clone, Debug)]
pub struct RedactRule {
    /// The channels.
    pub pattern: Pattern,
    /// The fields; none for a rule that leaves events as they are.
    pub paths: Vec<RedactPath>,
}

/// The data of an event in which no field can be told from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opaque;

impl Redactor {
    /// With these rules.
    pub fn new(rules: impl IntoIterator<Item = RedactRule>) -> Self {
        let redactor = Self::default();
        redactor.replace(rules);
        redactor
    }

    /// Puts other rules in force, for what comes from now on.
    pub fn replace(&self, rules: impl IntoIterator<Item = RedactRule>) {
        let mut rules: Vec<_> = rules.into_iter().collect();
        if rules.iter().all(|rule| rule.paths.is_empty()) {
            // So that it costs nothing where nothing is to be done.
            rules.clear();
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = rules.into();
    }

    /// Whether data may be published to a channel: where fields are stripped, it must be possible to see them.
    pub fn check(&self, channel: &Channel, data: &Data) -> Result<(), Opaque> {
        if is_opaque(data) && self.with_paths(channel, |_| ()).is_some() { Err(Opaque) } else { Ok(()) }
    }

    /// Strips what is to be stripped, and says how many fields that was. Data in which no field can be told from
    /// another becomes `null`. What was stripped before stays as it is.
    pub fn strip(&self, channel: &Channel, data: &mut Data) -> u64 {
        let stripped = self.with_paths(channel, |paths| match &*data {
            Data::Json(json) if !is_opaque(data) => strip(json, paths),
            _ => Some((Json::null(), 1)),
        });
        let Some(Some((json, fields))) = stripped else { return 0 };
        *data = Data::Json(json);
        fields
    }

    /// Does something with the paths of a channel, if it has any.
    fn with_paths<T>(&self, channel: &Channel, work: impl FnOnce(&[RedactPath]) -> T) -> Option<T> {
        let rules = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let rule = rules.iter().find(|rule| rule.pattern.matches(channel))?;
        (!rule.paths.is_empty()).then(|| work(&rule.paths))
    }
}

/// Bytes, and a text that was to be an object or a list: what is no JSON for clients is published as a text, and
/// would carry all its fields along.
fn is_opaque(data: &Data) -> bool {
    let Data::Json(json) = data else { return true };
    let Some(text) = json.as_str().strip_prefix('"') else { return false };
    let mut text = text.trim_start();
    while let Some(rest) = ["\\n", "\\r", "\\t"].iter().find_map(|space| text.strip_prefix(space)) {
        text = rest.trim_start();
    }
    text.starts_with(['{', '['])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, paths: &[&str]) -> RedactRule {
        let paths = paths.iter().map(|path| path.parse().unwrap()).collect();
        RedactRule { pattern: Pattern::parse(pattern).unwrap(), paths }
    }

    fn json(text: &str) -> Data {
        Data::Json(Json::parse(text).unwrap())
    }

    #[test]
    fn the_first_rule_that_fits_counts_and_can_be_replaced() {
        let redactor = Redactor::new([rule("open.>", &[]), rule(">", &["secret"])]);
        let channel = |text: &str| Channel::parse(text).unwrap();
        let stripped = |name: &str| {
            let mut data = json(r#"{"secret":1,"b":2}"#);
            (redactor.strip(&channel(name), &mut data), data)
        };
        assert_eq!(stripped("open.a"), (0, json(r#"{"secret":1,"b":2}"#)));
        assert_eq!(stripped("a"), (1, json(r#"{"b":2}"#)));
        redactor.clone().replace([rule("a", &[])]);
        assert_eq!(stripped("a").0, 0);
    }

    #[test]
    fn where_fields_cannot_be_seen_nothing_passes() {
        let redactor = Redactor::new([rule("a", &["secret"])]);
        let (a, b) = (Channel::parse("a").unwrap(), Channel::parse("b").unwrap());
        let text = |text: &str| Data::Json(Json::string(text));
        for opaque in
            [Data::Bytes(vec![1].into()), text("{\"secret\":1"), text(" \n[{"), text("\t\r\n {\"secret\"")]
        {
            assert_eq!(redactor.check(&a, &opaque), Err(Opaque), "{opaque:?}");
            assert_eq!(redactor.check(&b, &opaque), Ok(()));
            let mut data = opaque.clone();
            assert_eq!((redactor.strip(&a, &mut data), &data), (1, &json("null")));
            let mut data = opaque.clone();
            assert_eq!((redactor.strip(&b, &mut data), &data), (0, &opaque));
        }
        for clear in [text("secret"), json("1"), json("null"), json("[1]"), text("")] {
            assert_eq!(redactor.check(&a, &clear), Ok(()), "{clear:?}");
            let mut data = clear.clone();
            assert_eq!((redactor.strip(&a, &mut data), &data), (0, &clear));
        }
    }
}
