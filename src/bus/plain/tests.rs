use super::*;
use proptest::prelude::*;
use std::sync::Arc;

const NOW: UnixMs = 1_800_000_000_000;

fn event(data: Data) -> Event {
    let channel = Channel::parse("job.7").unwrap();
    Event {
        position: Position::ZERO,
        id: EventId::parse("order-17").unwrap().on_channel(&channel),
        id_given: true,
        channel,
        name: EventName::parse("done").unwrap(),
        data,
        time: NOW,
        tags: Tags::from_pairs([("tenant".into(), "a\"b".into())]).unwrap(),
        expiry: Expiry::At(NOW + 60_000),
        exclude: Some(ConnectionId::parse("c-1").unwrap()),
        from: None,
        way: None,
    }
}

fn foreign_event(channel: &str, payload: &[u8]) -> Event {
    match read(channel, payload, NOW) {
        Content::Event { event, sender: None } => *event,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_field_comes_back() {
    for data in [
        Data::Json(Json::parse("{\"a\": 1.0, \"data\": \"\\u00e9\"}").unwrap()),
        Data::Json(Json::null()),
        Data::Bytes(Bytes::from_static(&[0, 255])),
        Data::Bytes(Bytes::new()),
    ] {
        for plain in [false, true] {
            let mut sent = event(data.clone());
            if plain {
                sent.expiry = Expiry::Live;
                sent.exclude = None;
                sent.tags = Tags::default();
                sent.id = EventId::parse("plain").unwrap();
                sent.id_given = false;
            }
            let parcel = Parcel::Event { event: Arc::new(sent.clone()), origin: Origin(0xabc), sequence: 9 };
            let Content::Event { event, sender } = read("elsewhere", &write(&parcel), 0) else { panic!() };
            assert_eq!((*event, sender), (sent, Some((Origin(0xabc), 9))));
        }
    }
}

#[test]
fn what_is_written_is_what_apps_expect() {
    let parcel = Parcel::Event {
        event: Arc::new(event(Data::Json(Json::parse("[1]").unwrap()))),
        origin: Origin(1),
        sequence: 2,
    };
    let value: serde_json::Value = serde_json::from_slice(&write(&parcel)).unwrap();
    assert_eq!(value["channel"], "job.7");
    assert_eq!(value["event"], "done");
    assert_eq!(value["data"], serde_json::json!([1]));
    assert_eq!(value["id"], "order-17");
    assert_eq!(value["tags"]["tenant"], "a\"b");
    assert_eq!(value["sidewire"]["v"], 1);
}

#[test]
fn probes_come_back() {
    let probe = write(&Parcel::Probe { origin: Origin(7), number: 3 });
    assert!(matches!(read("x", &probe, NOW), Content::Probe { origin: Origin(7), number: 3 }));
}

#[test]
fn messages_of_others_are_taken_as_they_come() {
    let event =
        foreign_event("cron.1", br#"{"channel":"user.1","event":"seen","data":[1 ,2],"id":"x","time":5}"#);
    assert_eq!((event.channel.as_str(), event.name.as_str()), ("user.1", "seen"));
    assert_eq!(event.data, Data::Json(Json::parse("[1 ,2]").unwrap()));
    assert_eq!((event.id.as_str(), event.id_given, event.time), ("x", true, 5));
    for (payload, data) in [
        (&b"42"[..], "42"),
        (b"{\"a\":1}", "{\"a\":1}"),
        (b"{\"data\":null}", "null"),
        (b"{\"event\":\"e\"}", "null"),
        (b"{\"channel\":7,\"data\":1}", "1"),
        (b"hello", "\"hello\""),
        (b"{\"a\":", "\"{\\\"a\\\":\""),
        (b"1e999", "\"1e999\""),
        (b"", "\"\""),
    ] {
        let event = foreign_event("cron.1", payload);
        assert_eq!(event.data, Data::Json(Json::parse(data).unwrap()), "{payload:?}");
        assert_eq!((event.channel.as_str(), event.time), ("cron.1", NOW));
        assert!(!event.id_given);
    }
    assert_eq!(foreign_event("a", &[0xff, 0]).data, Data::Bytes(Bytes::from_static(&[0xff, 0])));
    assert_eq!(foreign_event("not a channel", br#"{"channel":"a","data":1}"#).channel.as_str(), "a");
    assert!(matches!(read("not a channel", b"1", NOW), Content::Malformed(_)));
}

#[test]
fn what_a_node_wrote_must_be_whole() {
    for (payload, words) in [
        (r#"{"sidewire":{"v":1}}"#, "origin"),
        (r#"{"sidewire":{"v":1,"origin":"a"}}"#, "channel"),
        (r#"{"channel":"a","sidewire":{"v":1,"origin":"a"}}"#, "id"),
        (r#"{"channel":"a","id":"b","sidewire":{"v":1,"origin":"a"}}"#, "payload"),
        (r#"{"channel":"a","id":"b","data":1,"sidewire":{"v":1,"origin":"a","bytes":true}}"#, "Base64"),
        (
            r#"{"channel":"a","id":"b","data":1,"event":"c","time":1,"sidewire":{"v":1,"origin":"a"}}"#,
            "sequence",
        ),
        (r#"{"sidewire":{"v":0}}"#, "version"),
        (r#"{"sidewire":7}"#, "version"),
        (r#"{"sidewire":{"v":1,"origin":5}}"#, "of itself"),
    ] {
        match read("a", payload.as_bytes(), NOW) {
            Content::Malformed(why) => assert!(why.contains(words), "{payload}: {why}"),
            other => panic!("{payload}: {other:?}"),
        }
    }
    assert!(matches!(read("a", br#"{"sidewire":{"v":2,"origin":[]}}"#, NOW), Content::Newer(2)));
}

proptest! {
    #[test]
    fn nothing_panics(payload in prop::collection::vec(any::<u8>(), 0..60)) {
        read("a", &payload, NOW);
    }

    #[test]
    fn no_object_panics(text in r#"\{("(channel|data|id|time|tags|sidewire|v)":[\[\]{}0-9a-z",:]{0,12},?){0,5}\}"#) {
        read("a", text.as_bytes(), NOW);
    }
}
