//! Publish requests of every form: what comes out is valid, within its limits, and can be shown to clients.
#![no_main]

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use libfuzzer_sys::fuzz_target;
use sidewire::codec::{Framing, Shown};
use sidewire::event::{Cursor, Data, Draft, Epoch, Event, EventId, Expiry, Json, Position};
use sidewire::intake::{EntryError, IntakeLimits, parse, parse_raw};

const TYPES: [Option<&str>; 8] = [
    None,
    Some("application/json"),
    Some("application/x-ndjson"),
    Some("application/msgpack"),
    Some("application/x-www-form-urlencoded"),
    Some("application/cloudevents+json"),
    Some("application/cloudevents-batch+json"),
    Some("text/plain"),
];
const LIMITS: IntakeLimits = IntakeLimits { event_bytes: 4096, entries: 100, total_bytes: 65_536 };

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let content_type = TYPES[usize::from(choice & 7)];
    let mut headers = HeaderMap::new();
    let mut body = rest;
    if choice & 8 != 0 {
        // The first line is a header of a CloudEvent in binary mode, or an idempotency key.
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let Ok(value) = HeaderValue::from_bytes(&rest[..end]) else { return };
        body = rest.get(end + 1..).unwrap_or_default();
        if choice & 16 != 0 {
            headers.insert("idempotency-key", value);
        } else {
            for name in ["ce-id", "ce-source", "ce-type", "ce-subject", "ce-extension"] {
                headers.insert(name, value.clone());
            }
            headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
        }
    }
    let body = Bytes::copy_from_slice(body);
    if choice & 32 != 0 {
        let query = String::from_utf8_lossy(&body);
        check(parse_raw("a.b", &query, content_type, &headers, &body, &LIMITS));
        return;
    }
    let Ok(intake) = parse(content_type, &headers, &body, &LIMITS) else { return };
    assert!(!intake.entries.is_empty() && intake.entries.len() <= LIMITS.entries);
    assert!(!intake.single || intake.entries.len() == 1);
    intake.entries.into_iter().for_each(check);
});

fn check(entry: Result<Draft, EntryError>) {
    let draft = match entry {
        Ok(draft) => draft,
        Err(error) => {
            assert!(matches!(error.status, 400 | 413 | 415) && !error.message.is_empty());
            return;
        }
    };
    if let Data::Json(json) = &draft.data {
        assert_eq!(Json::parse(json.as_str()).as_ref(), Ok(json));
    }
    let event = Event {
        position: Position(1),
        id: draft.id.unwrap_or_else(EventId::fresh),
        id_given: true,
        channel: draft.channel,
        name: draft.name,
        data: draft.data,
        time: 1,
        tags: draft.tags,
        expiry: Expiry::Live,
        exclude: draft.exclude,
        from: None,
        way: None,
    };
    let shown = Shown::new(event, &Cursor::at(Epoch(1), Position::ZERO));
    let line = shown.frame(Framing::Lines);
    assert_eq!(line.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count(), 1);
    assert_eq!(shown.frame(Framing::Sse).iter().filter(|byte| **byte == b'\n').count(), 4);
    assert!(!shown.frame(Framing::WebSocketMessagePack).is_empty());
    let text = std::str::from_utf8(shown.frame(Framing::JsonBody)).expect("JSON is UTF-8");
    // The event's own object is one level around the data.
    assert!(!matches!(Json::parse(text), Err(error) if error != sidewire::event::JsonError::TooDeep));
}
