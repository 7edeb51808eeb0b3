//! Rules for channels: what is kept of them, and for how long.

use super::node::Node;
use super::problem::Problem;
use super::rate::PerSecond;
use super::setting::{Setting, TableReader, written_as_text};
use crate::event::Pattern;
use crate::redact::RedactPath;
use serde_json::Value as Json;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

/// Most paths of one rule: each is looked for at every field of an event.
const MOST_REDACTED: usize = 64;

/// One `[[channels]]`. Of all rules the first whose pattern fits a channel counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelRule {
    /// The channels it is for.
    pub pattern: Pattern,
    /// How long events are kept, instead of `log.ttl`.
    pub ttl: Option<Duration>,
    /// How many events of one channel are kept at most.
    pub max_events: Option<NonZeroU64>,
    /// Whether events are kept at all; otherwise they are live only.
    pub store: bool,
    /// Whether clients may publish here. Nothing said: where their token allows it.
    pub publish: Option<bool>,
    /// How many events a second go to one channel.
    pub rate: Option<PerSecond>,
    /// What becomes of more.
    pub when_over: WhenOver,
    /// Fields that are stripped from the data before anything else happens to it.
    pub redact: Vec<RedactPath>,
}

/// What becomes of events that come faster than the rate of their channel.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum WhenOver {
    /// Bursts of twice as many are taken; more are refused.
    #[default]
    Refuse,
    /// They come evenly, and only the newest of what has to wait.
    Latest,
}

impl FromStr for WhenOver {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "latest" => Ok(Self::Latest),
            _ => Err("must be \"refuse\" or \"latest\""),
        }
    }
}

impl fmt::Display for WhenOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::Latest => "latest",
        })
    }
}

written_as_text!(WhenOver);

impl ChannelRule {
    const KEYS: [&'static str; 8] =
        ["pattern", "ttl", "max_events", "store", "publish", "rate", "when_over", "redact"];
}

impl Setting for ChannelRule {
    const IS_TABLE: bool = true;

    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        let mut table = TableReader::new(node, "channels", &Self::KEYS)?;
        let pattern: Option<Pattern> = table.required("pattern");
        let ttl: Option<Duration> = table.optional("ttl");
        let max_events: Option<u64> = table.optional("max_events");
        let publish = table.optional("publish");
        let rate: Option<PerSecond> = table.optional("rate");
        let when_over: Option<WhenOver> = table.optional("when_over");
        if when_over.is_some() && rate.is_none() {
            table.refuse(
                "when_over",
                "says what becomes of events beyond the `rate`; set that too, such as \"10/s\"",
            );
        }
        let when_over = when_over.unwrap_or_default();
        let redact: Vec<RedactPath> = table.optional("redact").unwrap_or_default();
        let store = table.optional("store").unwrap_or(true);
        if ttl.is_some_and(|ttl| ttl.is_zero()) {
            table.refuse("ttl", "keeps nothing; write store = false, or leave it out for log.ttl");
        }
        if max_events == Some(0) {
            table.refuse("max_events", "keeps nothing; write store = false, or leave it out for no limit");
        }
        if !store && (ttl.is_some() || max_events.is_some()) {
            table.refuse("store", "is false, so nothing is kept; remove ttl and max_events, or store");
        }
        if redact.len() > MOST_REDACTED {
            table.refuse("redact", &format!("has too many paths; write at most {MOST_REDACTED}"));
        }
        let max_events = max_events.and_then(NonZeroU64::new);
        table.finish(pattern.map(|pattern| Self {
            pattern,
            ttl,
            max_events,
            store,
            publish,
            rate,
            when_over,
            redact,
        }))
    }

    fn show(&self) -> Json {
        let mut shown = serde_json::Map::new();
        shown.insert("pattern".into(), self.pattern.show());
        if let Some(ttl) = &self.ttl {
            shown.insert("ttl".into(), ttl.show());
        }
        if let Some(max_events) = self.max_events {
            shown.insert("max_events".into(), max_events.get().into());
        }
        shown.insert("store".into(), self.store.into());
        if let Some(publish) = self.publish {
            shown.insert("publish".into(), publish.into());
        }
        if let Some(rate) = &self.rate {
            shown.insert("rate".into(), rate.show());
            shown.insert("when_over".into(), self.when_over.show());
        }
        if !self.redact.is_empty() {
            shown.insert("redact".into(), self.redact.show());
        }
        shown.into()
    }
}
