//! Coming back: from where, when, and whether at all.

use crate::cli::error::CliError;
use serde::Serialize;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The first pause before another attempt.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// The longest pause.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// How far the subscriber has come.
#[derive(Default, Debug)]
pub(super) struct Place {
    cursor: Option<String>,
    /// How many past events to begin with, while none has come.
    history: Option<u32>,
}

impl Place {
    /// At the end of the log, but for this many events before it.
    pub(super) fn new(history: Option<u32>) -> Self {
        Self { cursor: None, history }
    }

    /// After everything up to this cursor.
    pub(super) fn at(cursor: String) -> Self {
        Self { cursor: Some(cursor), history: None }
    }

    /// An event has come.
    pub(super) fn passed(&mut self, cursor: Option<String>) {
        if cursor.is_some() {
            *self = Self { cursor, history: None };
        }
    }

    /// A subscription has begun.
    pub(super) fn subscribed(&mut self, resume: &str, cursor: Option<String>) {
        // The node's cursor may stand behind the replay that follows. It counts only where nothing is replayed;
        // otherwise a connection lost before the first event would skip all of it.
        let replays = self.history.is_some() || matches!(resume, "ok" | "expired" | "approximate");
        if !replays {
            self.passed(cursor);
        }
    }

    /// The message that asks for everything from here on.
    pub(super) fn subscribe(&self, channels: &[String], events: &[String]) -> String {
        #[derive(Serialize)]
        struct Subscribe<'a> {
            #[serde(rename = "type")]
            kind: &'static str,
            id: &'static str,
            channels: &'a [String],
            #[serde(skip_serializing_if = "Option::is_none")]
            cursor: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            history: Option<u32>,
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            events: &'a [String],
        }
        let message = Subscribe {
            kind: "subscribe",
            id: "subscribe",
            channels,
            cursor: self.cursor.as_deref(),
            history: self.history,
            events,
        };
        serde_json::to_string(&message).expect("strings and numbers always serialize")
    }
}

/// What the reader of the output should know about a resume, if anything.
pub(super) fn notice(resume: &str) -> Option<&'static str> {
    match resume {
        "expired" => Some("some events since then are no longer kept; going on with the oldest that are"),
        "reset" => Some("the log of that cursor is gone; going on with what comes from now on"),
        "approximate" => Some("the bus keeps no order; events around the reconnect may come twice"),
        _ => None,
    }
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// The node has nothing more to tell.
    Done,
    /// The node said not to come back.
    Final(CliError),
    /// The node goes away: come back at once, perhaps to another.
    Moved,
    /// Anything else: come back after a pause.
    Lost(String),
}

impl Ending {
    /// As the close code says.
    pub(super) fn of(code: u16, reason: &str) -> Self {
        let told =
            || if reason.is_empty() { format!("closed with {code}") } else { format!("{reason} ({code})") };
        match code {
            4200 => Self::Done,
            1001 => Self::Moved,
            // Ours to stop at, and the ones that say that we broke the protocol: we would again.
            4100..=4199 | 1002 | 1003 | 1007..=1010 => {
                Self::Final(CliError::Refused { status: None, code: code.to_string(), message: told() })
            }
            _ => Self::Lost(told()),
        }
    }
}

/// Pauses that grow while nothing works, and differ from one client to the next: a thousand that lost
/// the same node must not come back as one.
#[derive(Default, Debug)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after a failure.
    pub(super) fn next_delay(&mut self) -> Duration {
        let longest = FIRST_DELAY.saturating_mul(1 << self.failures.min(10)).min(MAX_DELAY);
        self.failures += 1;
        longest.mul_f64(0.5 + 0.5 * chance())
    }

    /// The pause before going where the node's successor is. It grows too, lest a node that always
    /// sends its clients away be asked without end.
    pub(super) fn moved(&mut self) -> Duration {
        self.failures += 1;
        if self.failures == 1 { FIRST_DELAY.mul_f64(chance()) } else { self.next_delay() }
    }

    /// It works again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A number in `0.0..1.0`. The keys of a hasher are random, which is all that is needed here.
fn chance() -> f64 {
    f64::from(RandomState::new().hash_one(0) as u32) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(place: &Place) -> String {
        place.subscribe(&["a".into()], &[])
    }

    #[test]
    fn a_subscription_says_where_it_begins() {
        let place = Place::new(None);
        assert_eq!(asks(&place), r#"{"type":"subscribe","id":"subscribe","channels":["a"]}"#);
        let place = Place::at("C".into());
        assert_eq!(
            place.subscribe(&["a".into()], &["x".into()]),
            r#"{"type":"subscribe","id":"subscribe","channels":["a"],"cursor":"C","events":["x"]}"#
        );
    }

    #[test]
    fn a_live_subscription_resumes_where_it_began() {
        let mut place = Place::new(None);
        place.subscribed("none", Some("NOW".into()));
        assert!(asks(&place).contains(r#""cursor":"NOW""#));
        place.passed(Some("C".into()));
        place.passed(None);
        assert!(asks(&place).contains(r#""cursor":"C""#));
    }

    #[test]
    fn a_replay_that_was_cut_short_is_asked_for_again() {
        let mut place = Place::new(Some(5));
        place.subscribed("none", Some("NOW".into()));
        assert!(asks(&place).contains(r#""history":5"#) && !asks(&place).contains("cursor"));
        place.passed(Some("C".into()));
        assert!(asks(&place).contains(r#""cursor":"C""#) && !asks(&place).contains("history"));

        let mut place = Place::at("OLD".into());
        place.subscribed("ok", Some("NOW".into()));
        assert!(asks(&place).contains("OLD"));
        place.subscribed("reset", Some("NEW".into()));
        assert!(asks(&place).contains("NEW"));
    }

    #[test]
    fn the_close_code_says_whether_to_come_back() {
        assert!(matches!(Ending::of(4200, ""), Ending::Done));
        assert!(matches!(Ending::of(1001, ""), Ending::Moved));
        for code in [4100, 4101, 4199, 1002, 1008, 1009] {
            assert!(matches!(Ending::of(code, ""), Ending::Final(_)), "{code}");
        }
        for code in [1000, 1005, 1006, 1011, 1013, 4000, 4008, 4099, 4300] {
            assert!(matches!(Ending::of(code, ""), Ending::Lost(_)), "{code}");
        }
    }

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..40).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] <= FIRST_DELAY && delays[0] >= FIRST_DELAY / 2);
        assert!(delays.iter().all(|delay| *delay <= MAX_DELAY));
        assert!(delays[20..].iter().all(|delay| *delay >= MAX_DELAY / 2));
        assert!(delays[20..].windows(2).any(|pair| pair[0] != pair[1]));
        backoff.reset();
        assert!(backoff.moved() < FIRST_DELAY);
        assert!(backoff.moved() >= FIRST_DELAY / 2);
    }
}
