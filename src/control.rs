//! What one node tells all others about who is let in: whom to cut off, and which tokens count no longer.
//!
//! It travels as an event on a channel that nodes keep for themselves. So it takes the way of every event: in order, by
//! the outbox while the bus is away, and read later by a node that was off. But no node shows it, or keeps it in its log.

use crate::auth::Revocation;
use crate::event::{Channel, Data, Event, EventId, EventName, Expiry, Json, Position, Tags, UnixMs};
use serde::{Deserialize, Serialize};

/// How long a word to all nodes may wait in an outbox: as long as any event.
const KEPT_FOR: UnixMs = 30 * 24 * 3_600_000;
/// Longest name of whom it is about.
const MAX_NAME_BYTES: usize = 4096;
/// Most tokens in one word: it must fit every bus.
pub const REVOCATIONS_AT_ONCE: usize = 500;
/// Most disconnects in one word, for the same reason.
pub const DISCONNECTS_AT_ONCE: usize = 50;

/// A word to all nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// Close connections.
    Disconnect(Vec<Disconnect>),
    /// Let nobody in with these tokens, and close what came with them.
    Revoke(Vec<Revocation>),
    /// Say again which tokens are revoked, and who was cut off of late: the node that asks may have missed it.
    Ask,
}

/// Somebody to be cut off.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Disconnect {
    /// Who.
    pub whom: Whom,
    /// When that was asked for: who comes after it stays.
    pub at: UnixMs,
}

/// Whom a disconnect is about.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whom {
    /// All connections of a user.
    User(Name),
    /// One connection.
    Connection(Name),
}

/// The name of a user or a connection: 1 to 4,096 bytes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "Box<str>", into = "Box<str>")]
pub struct Name(Box<str>);

impl Name {
    /// Reads a name.
    pub fn parse(text: &str) -> Option<Self> {
        (1..=MAX_NAME_BYTES).contains(&text.len()).then(|| Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<Box<str>> for Name {
    type Error = &'static str;

    fn try_from(text: Box<str>) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a name has 1 to 4096 bytes")
    }
}

impl From<Name> for Box<str> {
    fn from(name: Name) -> Self {
        name.0
    }
}

/// Does what nodes tell each other.
pub trait Controlled: Send + Sync + 'static {
    /// Does what another node asked for. Waits for the disk.
    fn apply(&self, control: Control);

    /// Something may have been missed.
    fn note_missed(&self);
}

impl Control {
    /// As an event of `now`.
    pub fn to_event(&self, now: UnixMs) -> Event {
        let text = serde_json::to_string(self).expect("texts and numbers always serialize");
        Event {
            position: Position::ZERO,
            id: EventId::fresh(),
            id_given: false,
            channel: Channel::control(),
            name: EventName::default(),
            data: Data::Json(Json::trusted(text.into())),
            time: now,
            tags: Tags::default(),
            expiry: Expiry::At(now.saturating_add(KEPT_FOR)),
            exclude: None,
            from: None,
            way: None,
        }
    }

    /// Reads an event of the reserved channel; none if it says nothing that this version knows.
    pub fn read(event: &Event) -> Option<Self> {
        match &event.data {
            Data::Json(json) if event.channel == Channel::control() => {
                serde_json::from_str(json.as_str()).ok()
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_comes_back_and_what_is_none_is_passed_over() {
        let name = |text| Name::parse(text).unwrap();
        let words = [
            Control::Disconnect(vec![
                Disconnect { whom: Whom::User(name("ann \"x\"\n")), at: 5 },
                Disconnect { whom: Whom::Connection(name("c-1")), at: 0 },
            ]),
            Control::Revoke(vec![Revocation::new("t1", 7).unwrap()]),
            Control::Ask,
        ];
        for word in words {
            assert_eq!(Control::read(&word.to_event(5)), Some(word));
        }
        for text in [
            "null",
            "\"more\"",
            "{\"disconnect\":[{\"whom\":{\"user\":\"\"},\"at\":1}]}",
            "{\"disconnect\":[{\"whom\":{\"tenant\":\"a\"},\"at\":1}]}",
            "{\"revoke\":[[\"a\\nb\",1]]}",
            "{\"revoke\":[[\"a\",-1]]}",
        ] {
            let event = Event { data: Data::Json(Json::parse(text).unwrap()), ..Control::Ask.to_event(0) };
            assert_eq!(Control::read(&event), None, "{text}");
        }
        let elsewhere = Event { channel: Channel::parse("a").unwrap(), ..Control::Ask.to_event(0) };
        assert_eq!(Control::read(&elsewhere), None);
    }

    #[test]
    fn the_largest_word_fits_every_bus() {
        let revocation = Revocation::new(&"\"".repeat(255), UnixMs::MAX).unwrap();
        let word = Control::Revoke(vec![revocation; REVOCATIONS_AT_ONCE]);
        assert!(word.to_event(0).footprint() < 512 << 10);
        let name = Name::parse(&"\"".repeat(MAX_NAME_BYTES)).unwrap();
        let word = vec![Disconnect { whom: Whom::User(name), at: UnixMs::MAX }; DISCONNECTS_AT_ONCE];
        assert!(Control::Disconnect(word).to_event(0).footprint() < 512 << 10);
    }
}
