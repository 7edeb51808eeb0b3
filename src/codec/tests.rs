//! The wire forms as clients read them.

use super::*;
use crate::event::{
    Author, Channel, ConnectionId, Cursor, Data, Epoch, Event, EventId, EventName, Expiry, Json, Pattern,
    Position, Tags,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

const EPOCH: Epoch = Epoch(7);

fn event(data: Data, tags: &[(&str, &str)]) -> Event {
    Event {
        position: Position(5),
        id: EventId::parse("e-1").unwrap(),
        id_given: true,
        channel: Channel::parse("job.1").unwrap(),
        name: EventName::parse("done").unwrap(),
        data,
        time: 1_767_052_800_000,
        tags: Tags::from_pairs(tags.iter().map(|(name, value)| (name.to_string(), value.to_string())))
            .unwrap(),
        expiry: Expiry::Live,
        exclude: None,
        from: None,
        way: None,
    }
}

fn at_its_place(event: Event) -> Shown {
    let cursor = Cursor::at(EPOCH, event.position);
    Shown::new(event, &cursor)
}

fn shown(data: Data, tags: &[(&str, &str)]) -> Shown {
    at_its_place(event(data, tags))
}

fn object() -> Data {
    Data::Json(Json::parse("{\"a\": [1.50]}").unwrap())
}

#[test]
fn what_the_bus_has_not_ordered_has_no_cursor() {
    let shown = Shown::early(event(object(), &[("a", "b")]));
    let value: Value = serde_json::from_slice(shown.frame(Framing::JsonBody)).unwrap();
    assert!(value.get("cursor").is_none() && value["tags"]["a"] == "b");
    assert_eq!(shown.frame(Framing::JsonBody).len(), super::event::json_len(&shown.event, None));
    let value: Value = rmp_serde::from_slice(shown.frame(Framing::MessagePackBody)).unwrap();
    assert!(value.get("cursor").is_none() && value["tags"]["a"] == "b");
    assert!(text(shown.frame(Framing::Sse)).starts_with("event: done\ndata: {"));
}

const CURSOR: &str = "AQAAAAAAAAAHAAAAAAAAAAU";

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The payload of a server frame.
fn payload(frame: &[u8], opcode: u8) -> &[u8] {
    assert_eq!(frame[0], 0x80 | opcode);
    let (length, header) = match frame[1] {
        126 => (u64::from(u16::from_be_bytes([frame[2], frame[3]])), 4),
        127 => (u64::from_be_bytes(frame[2..10].try_into().unwrap()), 10),
        short => (u64::from(short), 2),
    };
    assert_eq!(frame.len() as u64, length + header as u64);
    &frame[header..]
}

#[test]
fn an_event_in_every_framing() {
    let json = format!(
        r#"{{"type":"event","channel":"job.1","event":"done","data":{{"a": [1.50]}},"id":"e-1","time":1767052800000,"cursor":"{CURSOR}","tags":{{"k":"v","z":"\"q\""}}}}"#
    );
    let shown = shown(object(), &[("z", "\"q\""), ("k", "v")]);
    assert_eq!(text(shown.frame(Framing::JsonBody)), json);
    assert_eq!(text(shown.frame(Framing::Lines)), format!("{json}\n"));
    assert_eq!(text(payload(shown.frame(Framing::WebSocketJson), 1)), json);
    assert_eq!(text(shown.frame(Framing::Sse)), format!("id: {CURSOR}\nevent: done\ndata: {json}\n\n"));
    assert_eq!(
        text(shown.frame(Framing::SseRaw)),
        format!("id: {CURSOR}\nevent: done\ndata: {{\"a\": [1.50]}}\n\n")
    );
    let msgpack: Value = rmp_serde::from_slice(shown.frame(Framing::MessagePackBody)).unwrap();
    assert_eq!(msgpack, serde_json::from_str::<Value>(&json).unwrap());
    assert_eq!(payload(shown.frame(Framing::WebSocketMessagePack), 2), shown.frame(Framing::MessagePackBody));
    assert_eq!(shown.frame_bytes(Framing::Lines), shown.frame(Framing::Lines));
}

#[test]
fn bytes_are_base64_in_json_and_bin_in_msgpack() {
    let shown = shown(Data::Bytes(Bytes::from_static(&[0, 1, 255])), &[]);
    let json: Value = serde_json::from_slice(shown.frame(Framing::JsonBody)).unwrap();
    assert_eq!(json["data"], json!({"$base64": "AAH/"}));
    assert!(text(shown.frame(Framing::SseRaw)).ends_with("data: {\"$base64\":\"AAH/\"}\n\n"));
    let bin = [0xa4, b'd', b'a', b't', b'a', 0xc4, 3, 0, 1, 255];
    assert!(shown.frame(Framing::MessagePackBody).windows(bin.len()).any(|window| window == bin));
}

#[test]
fn a_form_is_made_once_and_shared() {
    let shown = shown(object(), &[]);
    assert_eq!(shown.encoded_bytes(), 0);
    let body = shown.frame(Framing::JsonBody).as_ptr();
    let frame = shown.frame(Framing::WebSocketJson);
    assert_eq!(body, frame[4..].as_ptr());
    assert_eq!(shown.encoded_bytes(), frame.len() + 1);
}

#[test]
fn the_length_of_frames_goes_to_64_bits() {
    for size in [0, 1, 6 * 1024, 65_400, 65_535, 70_000, 1 << 20] {
        let shown = shown(Data::Bytes(vec![7; size].into()), &[]);
        let json: Value = serde_json::from_slice(payload(shown.frame(Framing::WebSocketJson), 1)).unwrap();
        assert_eq!(json["data"]["$base64"], STANDARD.encode(vec![7; size]));
        payload(shown.frame(Framing::WebSocketMessagePack), 2);
    }
}

#[test]
fn lists_for_poll_and_history() {
    let events = [Arc::new(shown(object(), &[])), Arc::new(shown(Data::Json(Json::null()), &[]))];
    let one: Value = serde_json::from_slice(events[0].frame(Framing::JsonBody)).unwrap();
    let two: Value = serde_json::from_slice(events[1].frame(Framing::JsonBody)).unwrap();
    for (end, name, value) in [
        (ListEnd::Resume(Resume::Expired), "resume", json!("expired")),
        (ListEnd::More(true), "more", json!(true)),
    ] {
        let mut expected = json!({"events": [one, two], "cursor": CURSOR});
        expected[name] = value;
        let body = list_body(Encoding::Json, &events, CURSOR, end);
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
        let body = list_body(Encoding::MessagePack, &events, CURSOR, end);
        assert_eq!(rmp_serde::from_slice::<Value>(&body).unwrap(), expected);
    }
    let empty = list_body(Encoding::Json, &[], CURSOR, ListEnd::Resume(Resume::None));
    assert_eq!(text(&empty), format!(r#"{{"events":[],"cursor":"{CURSOR}","resume":"none"}}"#));
}

#[test]
fn messages_of_the_server() {
    let Ok(ClientMessage::Ping { id }) = ClientMessage::parse_json(r#"{"type":"ping","id":"a\n"}"#) else {
        panic!("a ping");
    };
    let id = id.as_ref();
    let patterns = [Pattern::parse("a.>").unwrap(), Pattern::parse("b").unwrap()];
    let events = [Arc::new(shown(object(), &[]))];
    let event: Value = serde_json::from_slice(events[0].frame(Framing::JsonBody)).unwrap();
    for (message, expected) in [
        (
            ServerMessage::Welcome { connection: "c", node: "n", version: "1", heartbeat_ms: 25_000 },
            json!({"type": "welcome", "connection": "c", "node": "n", "version": "1", "heartbeat": 25_000}),
        ),
        (
            ServerMessage::Subscribed { id, channels: &patterns, cursor: CURSOR, resume: Resume::Ok },
            json!({"type": "subscribed", "id": "a\n", "channels": ["a.>", "b"], "cursor": CURSOR, "resume": "ok"}),
        ),
        (
            ServerMessage::Unsubscribed { id: None, channels: &patterns },
            json!({"type": "unsubscribed", "channels": ["a.>", "b"]}),
        ),
        (
            ServerMessage::History { id, events: &events, cursor: CURSOR, more: false },
            json!({"type": "history", "id": "a\n", "events": [event], "cursor": CURSOR, "more": false}),
        ),
        (ServerMessage::Pong { id: None }, json!({"type": "pong"})),
        (
            ServerMessage::Error { id, code: "unknown_type", message: "say \"ping\"\n" },
            json!({"type": "error", "id": "a\n", "code": "unknown_type", "message": "say \"ping\"\n"}),
        ),
        (
            ServerMessage::Bye { code: 4008, reason: "too slow", retry: true },
            json!({"type": "bye", "code": 4008, "reason": "too slow", "retry": true}),
        ),
    ] {
        let frame = message.encode(Encoding::Json);
        assert_eq!(serde_json::from_slice::<Value>(payload(&frame, 1)).unwrap(), expected);
        assert!(text(payload(&frame, 1)).starts_with("{\"type\":"));
        let frame = message.encode(Encoding::MessagePack);
        assert_eq!(rmp_serde::from_slice::<Value>(payload(&frame, 2)).unwrap(), expected);
    }
}

#[test]
fn messages_of_clients() {
    let cursor = Cursor::at(EPOCH, Position(5));
    let message = ClientMessage::parse_json(&format!(
        r#"{{"type":"subscribe","id":1,"channels":["a.*"],"cursor":"{CURSOR}","history":5,"last":true,"events":["x"],"tags":{{"k":"v"}},"new":1}}"#
    ));
    let Ok(ClientMessage::Subscribe(subscribe)) = message else { panic!("{message:?}") };
    assert_eq!(subscribe.id.as_ref().map(MessageId::as_json), Some("1"));
    assert_eq!(subscribe.channels, [Pattern::parse("a.*").unwrap()]);
    assert_eq!((subscribe.cursor, subscribe.history, subscribe.last), (Some(cursor.clone()), Some(5), true));
    assert_eq!(subscribe.filter.events, [EventName::parse("x").unwrap()]);
    assert_eq!(subscribe.filter.tags, [("k".into(), "v".into())]);

    let message = ClientMessage::parse_json(&format!(
        r#"{{"type":"history","channel":"a","after":"{CURSOR}","limit":10}}"#
    ));
    let channel = Pattern::parse("a").unwrap();
    assert_eq!(
        message,
        Ok(ClientMessage::History { id: None, channel, after: Some(cursor), limit: Some(10) })
    );
    let bytes = rmp_serde::to_vec(&json!({"type": "unsubscribe", "channels": "a"})).unwrap();
    let channels = vec![Pattern::parse("a").unwrap()];
    assert_eq!(ClientMessage::parse_msgpack(&bytes), Ok(ClientMessage::Unsubscribe { id: None, channels }));
    let text = r#"{"type":"publish","channel":"a","data":1,"echo":true}"#;
    let message = ClientMessage::Publish { id: None, message: text.into(), echo: true };
    assert_eq!(ClientMessage::parse_json(text), Ok(message));
    let message = ClientMessage::parse_json(r#"{"type":"auth","id":1,"token":"geheim"}"#).unwrap();
    assert!(matches!(&message, ClientMessage::Auth { token, .. } if token.expose() == "geheim"));
    assert!(!format!("{message:?}").contains("geheim"));
}

#[test]
fn messages_of_clients_that_are_refused() {
    for (text, code, id) in [
        ("", "invalid_json", None),
        ("[]", "invalid_json", None),
        ("1", "invalid_json", None),
        (r#"{"type":"ping","type":"ping"}"#, "invalid_json", None),
        (r#"{"id":7}"#, "unknown_type", Some("7")),
        (r#"{"id":"x","type":"fly"}"#, "unknown_type", Some("\"x\"")),
        (r#"{"id":"x","type":1}"#, "invalid_message", Some("\"x\"")),
        (r#"{"id":{},"type":"ping"}"#, "invalid_id", None),
        (r#"{"id":true,"type":"ping"}"#, "invalid_id", None),
        (r#"{"id":"\ud800","type":"ping"}"#, "invalid_id", None),
        (r#"{"type":"subscribe"}"#, "invalid_channel", None),
        (r#"{"type":"subscribe","channels":[]}"#, "invalid_channel", None),
        (r#"{"type":"subscribe","channels":[1]}"#, "invalid_channel", None),
        (r#"{"type":"subscribe","channels":["a b"]}"#, "invalid_channel", None),
        (r#"{"type":"subscribe","channels":["a"],"cursor":"?"}"#, "invalid_cursor", None),
        (r#"{"type":"subscribe","channels":["a"],"history":-1}"#, "invalid_message", None),
        (r#"{"type":"subscribe","channels":["a"],"last":2}"#, "invalid_message", None),
        (r#"{"type":"subscribe","channels":["a"],"events":["\n"]}"#, "invalid_event", None),
        (r#"{"type":"subscribe","channels":["a"],"tags":{"a":1}}"#, "invalid_tags", None),
        (r#"{"type":"history","channel":"a","after":5}"#, "invalid_cursor", None),
    ] {
        let error = ClientMessage::parse_json(text).unwrap_err();
        assert_eq!((error.code, error.id.as_ref().map(MessageId::as_json)), (code, id), "{text}");
    }
    assert_eq!(ClientMessage::parse_msgpack(&[0x91; 5000]).unwrap_err().code, "invalid_msgpack");
    assert_eq!(ClientMessage::parse_msgpack(&[0x80, 0x80]).unwrap_err().code, "invalid_msgpack");
}

/// A JSON value without the floats that `serde_json` does not read back to the last bit.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// Texts that break streams if they are not careful: line breaks, NUL, byte order mark, U+2028, quotes.
fn nasty_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        proptest::collection::vec(
            prop_oneof![
                Just("\r"),
                Just("\n"),
                Just("\0"),
                Just("\u{feff}"),
                Just("\u{2028}"),
                Just("\""),
                Just("\\"),
                Just("data: x"),
                Just("id: 1"),
                Just(" "),
                Just(":"),
            ],
            0..12
        )
        .prop_map(|parts| parts.concat()),
    ]
}

fn any_data() -> impl Strategy<Value = Data> {
    prop_oneof![
        any_json().prop_map(|value| Data::Json(Json::parse(&value.to_string()).unwrap())),
        nasty_text().prop_map(|text| Data::Json(Json::string(&text))),
        any::<Vec<u8>>().prop_map(|bytes| Data::Bytes(bytes.into())),
    ]
}

fn named(text: String) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(20).collect();
    if text.is_empty() { " ".to_owned() } else { text }
}

fn any_event() -> impl Strategy<Value = Event> {
    let tags = proptest::collection::vec((nasty_text().prop_map(named), nasty_text().prop_map(named)), 0..4);
    let from = proptest::option::of((proptest::option::of(nasty_text()), nasty_text()));
    let channel = "[!-)+-=?-~]{1,20}";
    (any::<u64>(), nasty_text(), nasty_text(), channel, any_data(), any::<u64>(), tags, from).prop_map(
        |(position, id, name, channel, data, time, tags, from)| Event {
            position: Position(position),
            id: EventId::parse(&named(id)).unwrap(),
            channel: Channel::parse(&channel).unwrap_or_else(|_| Channel::parse("c\"\\").unwrap()),
            name: EventName::parse(&named(name)).unwrap(),
            time,
            tags: Tags::from_pairs(tags).unwrap(),
            from: from.map(|(user, connection)| {
                let connection: String = named(connection).chars().take(10).collect();
                let connection = ConnectionId::parse(&connection).unwrap();
                Box::new(Author::new(user.map(named).as_deref(), connection).unwrap())
            }),
            ..self::event(data, &[])
        },
    )
}

/// What the wire says about an event.
fn expected(event: &Event, cursor: &str) -> Value {
    let data = match &event.data {
        Data::Json(json) => serde_json::from_str(json.as_str()).unwrap(),
        Data::Bytes(bytes) => json!({"$base64": STANDARD.encode(bytes)}),
    };
    let mut value = json!({
        "type": "event",
        "channel": event.channel.as_str(),
        "event": event.name.as_str(),
        "data": data,
        "id": event.id.as_str(),
        "time": event.time,
        "cursor": cursor,
    });
    if !event.tags.is_empty() {
        value["tags"] =
            event.tags.iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
    }
    if let Some(author) = &event.from {
        value["from"] = json!({"connection": author.connection.as_str()});
        if let Some(user) = &author.user {
            value["from"]["user"] = Value::from(&**user);
        }
    }
    value
}

/// A reader of SSE as WHATWG HTML 9.2.6 has it: (id, event, data) of each message.
fn read_sse(stream: &str) -> Vec<(String, String, String)> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream).replace("\r\n", "\n").replace('\r', "\n");
    let (mut messages, mut id, mut event, mut data) =
        (Vec::new(), String::new(), String::new(), String::new());
    for line in stream.split('\n') {
        if line.is_empty() {
            if !data.is_empty() {
                data.pop();
                messages.push((id.clone(), std::mem::take(&mut event), std::mem::take(&mut data)));
            }
            event.clear();
            continue;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => event = value.to_owned(),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => id = value.to_owned(),
            _ => {}
        }
    }
    messages
}

proptest! {
    #[test]
    fn json_is_read_back_to_the_same(event in any_event()) {
        let shown = at_its_place(event.clone());
        let body = shown.frame(Framing::JsonBody);
        prop_assert_eq!(body.len(), super::event::json_len(&event, shown.cursor()));
        prop_assert!(!body.contains(&b'\n') && !body.contains(&b'\r'));
        let value: Value = serde_json::from_slice(body).unwrap();
        prop_assert_eq!(value, expected(&event, shown.cursor().unwrap()));
        if let Data::Json(json) = &event.data {
            let member = format!(",\"data\":{},\"id\":", json.as_str());
            prop_assert!(text(body).contains(&member));
        }
    }

    #[test]
    fn msgpack_is_read_back_to_the_same(event in any_event()) {
        let shown = at_its_place(event.clone());
        let json = super::msgpack_reader::Reader::new(shown.frame(Framing::MessagePackBody)).json(1 << 20).unwrap();
        let value: Value = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&value, &expected(&event, shown.cursor().unwrap()));
        if matches!(event.data, Data::Json(_)) {
            let value: Value = rmp_serde::from_slice(shown.frame(Framing::MessagePackBody)).unwrap();
            prop_assert_eq!(value, expected(&event, shown.cursor().unwrap()));
        }
    }

    #[test]
    fn sse_forges_nothing(events in proptest::collection::vec(any_event(), 1..4)) {
        let shown: Vec<_> = events.iter().map(|event| at_its_place(event.clone())).collect();
        let stream: Vec<u8> = shown.iter().flat_map(|shown| shown.frame(Framing::Sse)).copied().collect();
        let messages = read_sse(text(&stream));
        prop_assert_eq!(messages.len(), events.len());
        for ((id, name, data), shown) in messages.iter().zip(&shown) {
            prop_assert_eq!(id, shown.cursor().unwrap());
            prop_assert_eq!(name, shown.event.name.as_str());
            prop_assert_eq!(data.as_bytes(), shown.frame(Framing::JsonBody));
            let raw = read_sse(text(shown.frame(Framing::SseRaw)));
            let value: Value = serde_json::from_str(&raw[0].2).unwrap();
            prop_assert_eq!(&value, &expected(&shown.event, shown.cursor().unwrap())["data"]);
        }
    }

    #[test]
    fn no_message_of_a_client_panics(text in "\\PC{0,60}", bytes: Vec<u8>) {
        let _ = ClientMessage::parse_json(&text);
        let _ = ClientMessage::parse_msgpack(&bytes);
    }
}
