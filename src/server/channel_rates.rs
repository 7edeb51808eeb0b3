//! How often may be published to a channel, where its rule says so.

use super::node::Settings;
use super::rate::Rate;
use crate::config::WhenOver;
use crate::event::{Channel, Draft};
use crate::intake::EntryError;
use crate::publish::PacedDraft;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Most channels whose publishes are counted. Beyond it the quiet ones are forgotten, and if none is quiet all are.
const MAX_CHANNELS: usize = 10_000;

/// The publishes of late, channel by channel.
#[derive(Default)]
pub(super) struct ChannelRates(Mutex<HashMap<Channel, Rate, foldhash::fast::RandomState>>);

impl ChannelRates {
    /// Refuses a draft that comes too soon, or says how its channel is paced.
    pub(super) fn pace(&self, settings: &Settings, draft: Draft) -> Result<PacedDraft, EntryError> {
        let free = |draft| Ok(PacedDraft { draft, interval: None });
        if !settings.rules.iter().any(|rule| rule.rate.is_some()) {
            return free(draft);
        }
        let rule = settings.rules.iter().find(|rule| rule.pattern.matches(&draft.channel));
        let Some((rule, rate)) = rule.and_then(|rule| Some((rule, rule.rate?))) else { return free(draft) };
        match rule.when_over {
            WhenOver::Latest => return Ok(PacedDraft { draft, interval: Some(rate.interval()) }),
            WhenOver::Refuse if self.take(&draft.channel, rate.0.get(), Instant::now()) => {
                return free(draft);
            }
            WhenOver::Refuse => {}
        }
        Err(EntryError {
            status: 429,
            code: "rate_limited",
            message: format!(
                "at most {rate} events go to this channel: send fewer, or raise the `rate` of its rule"
            ),
            field: None,
        })
    }

    fn take(&self, channel: &Channel, per_second: u32, now: Instant) -> bool {
        let mut rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.len() >= MAX_CHANNELS && !rates.contains_key(channel) {
            rates.retain(|_, rate| !rate.is_full(now));
            if rates.len() >= MAX_CHANNELS {
                rates.clear();
            }
        }
        rates.entry(channel.clone()).or_insert_with(|| Rate::new(per_second, now)).take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_has_its_own_and_a_flood_of_channels_takes_no_memory() {
        let rates = ChannelRates::default();
        let now = Instant::now();
        let channel = |text: &str| Channel::parse(text).unwrap();
        let taken = |name: &str| (0..50).filter(|_| rates.take(&channel(name), 5, now)).count();
        assert_eq!((taken("a"), taken("b"), taken("a")), (10, 10, 0));
        for number in 0..3 * MAX_CHANNELS {
            rates.take(&channel(&format!("c.{number}")), 5, now);
        }
        assert!(rates.0.lock().unwrap().len() <= MAX_CHANNELS);
    }
}
