//! The outbox as a whole, on real files.

mod damage;
mod encryption;
mod full;
mod life;
mod model;
mod small_disk;

use super::*;
use crate::event::{Channel, Data, EventId, EventName, Expiry, Json, Position, Tags};
use std::path::PathBuf;

const LIMITS: Limits = Limits { max_bytes: 64 << 20, max_age: Duration::from_secs(3600) };

fn open(dir: &Path) -> Outbox {
    open_with(dir, &Keyring::none())
}

fn open_with(dir: &Path, keyring: &Keyring) -> Outbox {
    Outbox::open(&dir.join("outbox"), LIMITS, keyring).unwrap()
}

/// Without a key, and with one.
fn keyrings() -> [Keyring; 2] {
    [Keyring::none(), Keyring::for_tests(&[1])]
}

/// An event with a sequence number, and a payload of about so many bytes.
fn entry(sequence: u64, payload_bytes: usize) -> Entry {
    let data = match sequence % 2 {
        0 => Data::Json(
            Json::parse(&format!("{{\"n\":{sequence},\"x\":\"{}\"}}", "x".repeat(payload_bytes))).unwrap(),
        ),
        _ => Data::Bytes(vec![sequence as u8; payload_bytes].into()),
    };
    let event = Event {
        position: Position::ZERO,
        id: EventId::parse(&format!("id-{sequence}")).unwrap(),
        id_given: sequence.is_multiple_of(3),
        channel: Channel::parse("test.channel").unwrap(),
        name: EventName::default(),
        data,
        time: unix_ms(),
        tags: Tags::from_pairs([("tenant".to_owned(), "a".to_owned())]).unwrap(),
        expiry: if sequence.is_multiple_of(5) { Expiry::Live } else { Expiry::At(unix_ms() + 60_000) },
        exclude: None,
        from: None,
        way: None,
    };
    Entry { origin: Origin(7), sequence, event: Arc::new(event) }
}

fn entries(sequences: impl IntoIterator<Item = u64>) -> Vec<Entry> {
    sequences.into_iter().map(|sequence| entry(sequence, 20)).collect()
}

/// Everything that waits, in small steps.
fn read_all(outbox: &Outbox) -> Vec<(Number, Entry)> {
    let mut all: Vec<(Number, Entry)> = Vec::new();
    loop {
        let more = outbox.read(all.last().map(|(number, _)| *number), 7, 4096).unwrap();
        if more.is_empty() {
            return all;
        }
        all.extend(more);
    }
}

fn sequences(outbox: &Outbox) -> Vec<u64> {
    read_all(outbox).into_iter().map(|(_, entry)| entry.sequence).collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = directory::names(&dir.join("outbox"))
        .unwrap()
        .into_iter()
        .filter(|name| segment::number_in(name).is_some())
        .map(|name| dir.join("outbox").join(name))
        .collect();
    found.sort();
    found
}
