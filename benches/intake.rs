//! What one publish costs before and after the log: parsing a typical event, and encoding it for clients.
//!
//! `cargo bench --bench intake`

use bytes::Bytes;
use hyper::HeaderMap;
use sidewire::codec::{Framing, Shown};
use sidewire::event::{Cursor, Draft, Epoch, Event, EventId, Expiry, Position};
use sidewire::intake::{IntakeLimits, parse};
use std::hint::black_box;
use std::time::{Duration, Instant};

fn cursor() -> Cursor {
    Cursor::at(Epoch(1), Position(1))
}
const EVENT: &str = r#"{"channel":"cron.execution.5","event":"execution-update","data":{"job_id":5,"execution_id":8123,"status":"running","progress":45,"duration_ms":12500,"memory_mb":14.2,"timestamp":1767052800}}"#;

fn main() {
    let limits = IntakeLimits::default();
    let headers = HeaderMap::new();
    let bodies = [
        ("json", "application/json", EVENT.as_bytes().to_vec()),
        ("json array of 100", "application/json", format!("[{}]", vec![EVENT; 100].join(",")).into_bytes()),
        ("ndjson of 100", "application/x-ndjson", vec![EVENT; 100].join("\n").into_bytes()),
        ("msgpack", "application/msgpack", {
            let value: serde_json::Value = serde_json::from_str(EVENT).expect("the event is JSON");
            rmp_serde::to_vec(&value).expect("JSON has a form in MessagePack")
        }),
        (
            "form",
            "application/x-www-form-urlencoded",
            b"channel=cron.execution.5&event=x&data=%7B%22a%22%3A1%7D".to_vec(),
        ),
    ];
    for (name, content_type, body) in bodies {
        let body = Bytes::from(body);
        let events = if name.ends_with("100") { 100 } else { 1 };
        measure(&format!("parse {name}"), events, || {
            black_box(parse(Some(content_type), &headers, black_box(&body), &limits)).is_ok()
        });
    }
    let event = event();
    for framing in [Framing::WebSocketJson, Framing::WebSocketMessagePack, Framing::Sse, Framing::SseRaw] {
        measure(&format!("encode {framing:?}, with a copy of the event"), 1, || {
            let shown = Shown::new(event.clone(), &cursor());
            !black_box(shown.frame(framing)).is_empty()
        });
    }
    measure("copy of the event alone", 1, || {
        black_box(Shown::new(event.clone(), &cursor())).event.position == Position(1)
    });
}

fn event() -> Event {
    let body = Bytes::from_static(EVENT.as_bytes());
    let intake = parse(None, &HeaderMap::new(), &body, &IntakeLimits::default()).expect("the event is valid");
    let draft = intake.entries.into_iter().next().and_then(Result::ok).expect("the event is valid");
    let Draft { channel, name, data, tags, .. } = draft;
    Event {
        position: Position(1),
        id: EventId::fresh(),
        id_given: false,
        channel,
        name,
        data,
        time: 1_767_052_800_000,
        tags,
        expiry: Expiry::Live,
        exclude: None,
        from: None,
        way: None,
    }
}

/// Prints the best of several rounds: the one that was disturbed least.
fn measure(name: &str, events: u32, mut run: impl FnMut() -> bool) {
    let rounds = 20_000 / events;
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        for _ in 0..rounds {
            assert!(run());
        }
        best = best.min(start.elapsed());
    }
    println!("{name}: {:.0} ns an event", best.as_nanos() as f64 / f64::from(rounds * events));
}
