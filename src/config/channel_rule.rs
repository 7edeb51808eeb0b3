//! Rules for channels: what is kept of them, and for how long.

use super::node::Node;
use super::problem::Problem;
use super::rate::PerSecond;
use super::setting::{Setting, TableReader};
use crate::event::Pattern;
use crate::redact::RedactPath;
use serde_json::Value as Json;
use std::num::NonZeroU64;
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
    /// How many events a second go to one channel, with bursts of twice as many; more are refused.
    pub rate: Option<PerSecond>,
    /// Fields that are stripped from the data before anything else happens to it.
    pub redact: Vec<RedactPath>,
}

impl ChannelRule {
    const KEYS: [&'static str; 7] = ["pattern", "ttl", "max_events", "store", "publish", "rate", "redact"];
}

impl Setting for ChannelRule {
    const IS_TABLE: bool = true;

    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        let mut table = TableReader::new(node, "channels", &Self::KEYS)?;
        let pattern: Option<Pattern> = table.required("pattern");
        let ttl: Option<Duration> = table.optional("ttl");
        let max_events: Option<u64> = table.optional("max_events");
        let publish = table.optional("publish");
        let rate = table.optional("rate");
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
        table.finish(pattern.map(|pattern| Self { pattern, ttl, max_events, store, publish, rate, redact }))
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
        }
        if !self.redact.is_empty() {
            shown.insert("redact".into(), self.redact.show());
        }
        shown.into()
    }
}
