//! Requests as publishers send them.

use super::*;
use crate::event::{Data, Ttl};
use proptest::prelude::*;
use serde_json::json;

const LIMITS: IntakeLimits = IntakeLimits { event_bytes: 1000, entries: 20, total_bytes: 4000 };

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn take(content_type: &str, body: impl AsRef<[u8]>) -> Result<Intake, IntakeError> {
    parse(Some(content_type), &HeaderMap::new(), &Bytes::copy_from_slice(body.as_ref()), &LIMITS)
}

fn take_json(body: &str) -> Result<Intake, IntakeError> {
    take("application/json", body)
}

/// The one draft of a request with one event.
fn one(intake: Result<Intake, IntakeError>) -> Draft {
    let mut intake = intake.unwrap();
    assert!(intake.single);
    assert_eq!(intake.entries.len(), 1);
    intake.entries.remove(0).unwrap()
}

/// The code and field of the one error of a request with one event, wherever it stands.
fn refused(intake: Result<Intake, IntakeError>) -> (u16, &'static str, Option<&'static str>) {
    let error = match intake {
        Ok(mut intake) => {
            assert!(intake.single);
            intake.entries.remove(0).unwrap_err()
        }
        Err(error) => error,
    };
    (error.status, error.code, error.field)
}

fn json_of(draft: &Draft) -> &str {
    match &draft.data {
        Data::Json(json) => json.as_str(),
        Data::Bytes(_) => panic!("bytes"),
    }
}

fn codes(intake: Result<Intake, IntakeError>) -> Vec<String> {
    let intake = intake.unwrap();
    assert!(!intake.single);
    let code = |entry: Result<Draft, EntryError>| match entry {
        Ok(draft) => draft.channel.as_str().to_owned(),
        Err(error) => error.code.to_owned(),
    };
    intake.entries.into_iter().map(code).collect()
}

fn ids(intake: Result<Intake, IntakeError>) -> Vec<String> {
    intake.unwrap().entries.into_iter().map(|entry| entry.unwrap().id.unwrap().as_str().to_owned()).collect()
}

#[test]
fn all_fields_of_an_object() {
    let draft = one(take_json(
        r#" {"channel":"a.b","event":"x","data":{"n": 1.50},"id":17,"tags":{"t":"v","n":1.5,"b":true},
            "ttl":0.5,"exclude":"c-1","unknown":[[[]]]}"#,
    ));
    assert_eq!((draft.channel.as_str(), draft.name.as_str(), json_of(&draft)), ("a.b", "x", "{\"n\": 1.50}"));
    assert_eq!(draft.id.as_ref().map(|id| id.as_str()), Some("17"));
    assert_eq!(draft.tags.iter().collect::<Vec<_>>(), [("b", "true"), ("n", "1.5"), ("t", "v")]);
    assert_eq!(draft.ttl, Ttl::Ms(500));
    assert_eq!(draft.exclude.as_ref().map(|id| id.as_str()), Some("c-1"));
}

#[test]
fn what_is_left_out_has_a_default() {
    for body in [
        r#"{"channel":"a"}"#,
        "\u{feff}{\"channel\":\"a\"}",
        r#"{"channel":"a","event":null,"data":null,"id":null,"tags":null,"ttl":null,"exclude":null}"#,
        r#"{"channels":["a"],"tags":[]}"#,
        r#"{"\u0063hannel":"\u0061"}"#,
    ] {
        let draft = one(take_json(body));
        assert_eq!((draft.channel.as_str(), draft.name.as_str(), json_of(&draft)), ("a", "message", "null"));
        assert!(draft.id.is_none() && draft.tags.is_empty() && draft.exclude.is_none());
        assert_eq!(draft.ttl, Ttl::Default);
    }
}

#[test]
fn each_error_names_its_field() {
    for (body, code, field) in [
        ("", "invalid_json", None),
        ("{", "invalid_json", None),
        ("{} {}", "invalid_json", None),
        ("1", "invalid_event", None),
        ("\"a\"", "invalid_event", None),
        ("[]", "invalid_event", None),
        ("{}", "invalid_channel", Some("channel")),
        (r#"{"channel":1}"#, "invalid_channel", Some("channel")),
        (r#"{"channel":""}"#, "invalid_channel", Some("channel")),
        (r#"{"channel":"a\nb"}"#, "invalid_channel", Some("channel")),
        (r#"{"channel":"a.*"}"#, "invalid_channel", Some("channel")),
        (r#"{"channel":"\ud800"}"#, "invalid_channel", Some("channel")),
        (r#"{"channels":[]}"#, "invalid_channel", Some("channels")),
        (r#"{"channels":[1]}"#, "invalid_channel", Some("channels")),
        (r#"{"channels":{}}"#, "invalid_channel", Some("channels")),
        (r#"{"channel":"a","channels":["b"]}"#, "invalid_channel", Some("channel")),
        (r#"{"channel":"a","channel":"b"}"#, "invalid_json", Some("channel")),
        (r#"{"channel":"a","data":null,"data":1}"#, "invalid_json", Some("data")),
        (r#"{"channel":"a","data":1e400}"#, "invalid_json", Some("data")),
        (r#"{"channel":"a","data":"\udc00"}"#, "invalid_json", Some("data")),
        (r#"{"channel":"a","data":NaN}"#, "invalid_json", None),
        (r#"{"channel":"a","event":""}"#, "invalid_event", Some("event")),
        (r#"{"channel":"a","event":"a\r\nid: 1"}"#, "invalid_event", Some("event")),
        (r#"{"channel":"a","event":1}"#, "invalid_event", Some("event")),
        (r#"{"channel":"a","id":""}"#, "invalid_id", Some("id")),
        (r#"{"channel":"a","id":1.5}"#, "invalid_id", Some("id")),
        (r#"{"channel":"a","id":"\u0000"}"#, "invalid_id", Some("id")),
        (r#"{"channel":"a","tags":{"a":null}}"#, "invalid_tags", Some("tags")),
        (r#"{"channel":"a","tags":{"a":1,"a":2}}"#, "invalid_tags", Some("tags")),
        (r#"{"channel":"a","tags":["a"]}"#, "invalid_tags", Some("tags")),
        (r#"{"channel":"a","tags":"a"}"#, "invalid_tags", Some("tags")),
        (r#"{"channel":"a","ttl":-1}"#, "invalid_ttl", Some("ttl")),
        (r#"{"channel":"a","ttl":"soon"}"#, "invalid_ttl", Some("ttl")),
        (r#"{"channel":"a","ttl":1e999}"#, "invalid_ttl", Some("ttl")),
        (r#"{"channel":"a","ttl":true}"#, "invalid_ttl", Some("ttl")),
        (r#"{"channel":"a","exclude":1}"#, "invalid_exclude", Some("exclude")),
    ] {
        assert_eq!(refused(take_json(body)), (400, code, field), "{body}");
    }
    assert_eq!(refused(take("application/json", b"{\"channel\":\"\xff\"}")), (400, "invalid_json", None));
    let tags: serde_json::Map<_, _> = (0..33).map(|n| (n.to_string(), json!("v"))).collect();
    let body = json!({"channel": "a", "tags": tags}).to_string();
    assert_eq!(refused(take_json(&body)), (400, "invalid_tags", Some("tags")));
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let body = |depth| format!(r#"{{"channel":"a","data":{}}}"#, nested(depth));
    assert!(take_json(&body(128)).unwrap().entries[0].is_ok());
    assert_eq!(refused(take_json(&body(129))), (400, "invalid_json", Some("data")));
    assert_eq!(refused(take_json(&body(100_000))).0, 413);
    assert_eq!(refused(take_json(&"[".repeat(100_000))).1, "invalid_json");
    assert_eq!(codes(take_json(&nested(100_000))), ["invalid_event"]);
    assert_eq!(refused(take_json(&"{\"a\":".repeat(100_000))).1, "invalid_json");
    assert_eq!(refused(take("application/msgpack", [0x91; 100_000])).1, "invalid_msgpack");
}

#[test]
fn one_bad_entry_spoils_none_of_the_others() {
    let body = r#"[{"channel":"a"},1,null,[],"s",{},{"channel":"b","channel":"c"},{"channel":"d"}]"#;
    let expected = [
        "a",
        "invalid_event",
        "invalid_event",
        "invalid_event",
        "invalid_event",
        "invalid_channel",
        "invalid_json",
        "d",
    ];
    assert_eq!(codes(take_json(body)), expected);
    assert_eq!(codes(take_json(r#"[{"channel":"a"}]"#)), ["a"]);
    let lines =
        b"{\"channel\":\"a\"}\r\n\n  \n{\"channel\":\n[1]\n{\"channel\":\"\xff\"}\n{\"channel\":\"d\"}";
    let expected = ["a", "invalid_json", "invalid_event", "invalid_json", "d"];
    assert_eq!(codes(take("application/x-ndjson", lines)), expected);
    assert_eq!(codes(take("application/jsonl", "{\"channel\":\"a\"}")), ["a"]);
    assert_eq!(refused(take("application/x-ndjson", "\n\n")), (400, "invalid_event", None));
}

#[test]
fn several_channels_are_several_entries() {
    let body = r#"{"channels":["a","b b","c"],"id":"i"}"#;
    assert_eq!(codes(take_json(body)), ["a", "invalid_channel", "c"]);
    // In whatever order they are named, a retry has the same ids.
    assert_eq!(ids(take_json(r#"{"channels":["a","c"],"id":"i"}"#)), ["i", "i"]);
    let keys = |body| {
        let entries = take_json(body).unwrap().entries;
        entries.into_iter().map(|entry| entry.unwrap().id).collect::<Vec<_>>()
    };
    let (there, back) =
        (keys(r#"{"channels":["a","c"],"id":"i"}"#), keys(r#"{"channels":["c","a"],"id":"i"}"#));
    assert_ne!(there[0], there[1], "each channel's copy is told from the others");
    assert_eq!((&there[0], &there[1]), (&back[1], &back[0]), "in whatever order");
    assert_eq!(ids(take_json(r#"{"channels":["a"],"id":"i"}"#)), ["i"]);
    let long = json!({"channels": ["a", "c"], "id": "i".repeat(127)}).to_string();
    let hashed = ids(take_json(&long));
    assert_eq!(hashed, ["i".repeat(127), "i".repeat(127)]);
    // What is wrong with all of it is wrong once alone, and once for each channel in a list.
    let body = r#"{"channels":["a","c"],"ttl":-1}"#;
    assert_eq!(refused(take_json(body)), (400, "invalid_ttl", Some("ttl")));
    let list = format!("[{body},{{\"channel\":\"d\"}}]");
    assert_eq!(codes(take_json(&list)), ["invalid_ttl", "invalid_ttl", "d"]);
}

#[test]
fn the_idempotency_key_is_the_id_of_what_has_none() {
    let with_key = |key: &str, body: &'static str| {
        parse(None, &headers(&[("idempotency-key", key)]), &Bytes::from_static(body.as_bytes()), &LIMITS)
    };
    assert_eq!(ids(with_key("k", r#"{"channel":"a"}"#)), ["k"]);
    assert_eq!(ids(with_key("\"k\"", r#"{"channel":"a"}"#)), ["k"]);
    assert_eq!(ids(with_key("k", r#"{"channel":"a","id":"i"}"#)), ["i"]);
    assert_eq!(ids(with_key("k", r#"{"channels":["a","b"]}"#)), ["k", "k"]);
    assert_eq!(
        ids(with_key("k", r#"[{"channel":"a"},{"channel":"a","id":"i"},{"channels":["a","b"]}]"#)),
        ["k>0", "i", "k>2", "k>2"]
    );
    let long = "k".repeat(129);
    for key in ["", "\"\"", &long] {
        assert_eq!(
            refused(with_key(key, r#"{"channel":"a"}"#)),
            (400, "invalid_id", Some("Idempotency-Key"))
        );
    }
}

#[test]
fn limits_hold() {
    let sized = |size: usize| json!({"channel": "a", "data": "x".repeat(size - 2)}).to_string();
    assert!(take_json(&sized(1000)).unwrap().entries[0].is_ok());
    assert_eq!(refused(take_json(&sized(1001))), (413, "too_large", Some("data")));
    let list = format!("[{},{},{}]", sized(10), sized(1001), sized(10));
    assert_eq!(codes(take_json(&list)), ["a", "too_large", "a"]);
    let many = |count: usize| serde_json::to_string(&vec![json!({"channel": "a"}); count]).unwrap();
    assert_eq!(take_json(&many(20)).unwrap().entries.len(), 20);
    assert_eq!(refused(take_json(&many(21))), (413, "too_large", None));
    let lines = "{\"channel\":\"a\"}\n".repeat(21);
    assert_eq!(refused(take("application/x-ndjson", lines)), (413, "too_large", None));
    let fan = |count: usize| json!({"channels": vec!["a"; count], "data": "x".repeat(900)}).to_string();
    assert_eq!(take_json(&fan(4)).unwrap().entries.len(), 4);
    assert_eq!(refused(take_json(&fan(5))), (413, "too_large", None));
    assert_eq!(refused(take_json(&fan(21))), (413, "too_large", None));
    let msgpack = rmp_serde::to_vec(&vec![json!({"channel": "a"}); 21]).unwrap();
    assert_eq!(refused(take("application/msgpack", msgpack)), (413, "too_large", None));
    // 600 bytes of MessagePack that are more than 1,000 of JSON.
    let data = rmp_serde::to_vec(&json!({"channel": "a", "data": vec![false; 600]})).unwrap();
    assert_eq!(refused(take("application/msgpack", data)), (413, "too_large", Some("data")));
}

#[test]
fn messagepack_has_the_same_shape() {
    let value = json!({"channel": "a", "event": "x", "data": {"k": [1, -1, 1.5, "é"]}, "id": 7, "ttl": "1h",
        "tags": {"t": 1}, "exclude": "c", "more": null});
    for content_type in ["application/msgpack", "application/x-msgpack"] {
        let draft = one(take(content_type, rmp_serde::to_vec(&value).unwrap()));
        assert_eq!((draft.name.as_str(), json_of(&draft)), ("x", "{\"k\":[1,-1,1.5,\"é\"]}"));
        assert_eq!(draft.id.as_ref().map(|id| id.as_str()), Some("7"));
        assert_eq!((draft.ttl, draft.tags.get("t")), (Ttl::Ms(3_600_000), Some("1")));
    }
    let channel = b"\xa7channel\xa1a\xa4data";
    let map = |data: &[u8]| [b"\x82".as_slice(), channel, data].concat();
    assert_eq!(
        one(take("application/msgpack", map(&[0xc4, 2, 0, 255]))).data,
        Data::Bytes(vec![0, 255].into())
    );
    let nested = one(take("application/msgpack", map(&[0x91, 0xc4, 2, 0, 255])));
    assert_eq!(json_of(&nested), "[{\"$base64\":\"AP8=\"}]");
    for data in [&[0xd4, 1, 0][..], &[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0], &[0x81, 0xc0, 0], &[0xc4, 9, 1]] {
        assert_eq!(refused(take("application/msgpack", map(data))), (400, "invalid_msgpack", None));
    }
    let twice = [b"\x83".as_slice(), channel, b"\x01\xa4data\x01"].concat();
    assert_eq!(refused(take("application/msgpack", twice)), (400, "invalid_msgpack", Some("data")));
    let list = [b"\x94".as_slice(), &map(&[1]), &[7], &map(&[0xd4, 1, 0]), &map(&[2])].concat();
    assert_eq!(codes(take("application/msgpack", list)), ["a", "invalid_event", "invalid_msgpack", "a"]);
}

#[test]
fn forms() {
    const FORM: &str = "application/x-www-form-urlencoded";
    let draft = one(take(
        FORM,
        "channel=a.b&event=x+y&data=%7B%22n%22%3A1%7D&id=i&ttl=60&exclude=c&tag.t=v%26&tags[u]=w&other=1",
    ));
    assert_eq!((draft.channel.as_str(), draft.name.as_str(), json_of(&draft)), ("a.b", "x y", "{\"n\":1}"));
    assert_eq!(draft.tags.iter().collect::<Vec<_>>(), [("t", "v&"), ("u", "w")]);
    assert_eq!(draft.ttl, Ttl::Ms(60_000));
    assert_eq!(json_of(&one(take(FORM, "channel=a&data=hello%0Aworld"))), "\"hello\\nworld\"");
    assert_eq!(json_of(&one(take(FORM, "channel=a&data="))), "\"\"");
    assert_eq!(json_of(&one(take(FORM, "channel=a&data=12"))), "12");
    assert_eq!(json_of(&one(take(FORM, "channel=a"))), "null");
    assert_eq!(codes(take(FORM, "channel=a&channel=b")), ["a", "b"]);
    assert_eq!(codes(take(FORM, "channel%5B0%5D=a&channels[]=b")), ["a", "b"]);
    assert_eq!(json_of(&one(take(FORM, "\n{\"channel\":\"a\",\"data\":\"=&\"}"))), "\"=&\"");
    for (body, code, field) in [
        ("", "invalid_channel", Some("channel")),
        ("data=1", "invalid_channel", Some("channel")),
        ("channel=a&data=1&data=2", "invalid_form", Some("data")),
        ("channel=a&data=%ff", "invalid_form", None),
        ("channel=a&tag.x=1&tag.x=2", "invalid_tags", Some("tags")),
        ("channel=a&ttl=-1", "invalid_ttl", Some("ttl")),
        ("channel=a&event=%0D%0Aid:1", "invalid_event", Some("event")),
        ("channel=a%00", "invalid_channel", Some("channel")),
    ] {
        assert_eq!(refused(take(FORM, body)), (400, code, field), "{body}");
    }
}

#[test]
fn cloudevents_in_structured_and_batch_mode() {
    const ONE: &str = "application/cloudevents+json; charset=utf-8";
    let event = json!({"specversion": "1.0", "id": "7", "source": "/orders", "type": "com.x.paid",
        "subject": "order.7", "time": "2026-01-01T00:00:00Z", "datacontenttype": "application/json",
        "tenant": "t", "sampled": true, "dataschema": null, "data": {"a": 1}});
    let draft = one(take(ONE, event.to_string()));
    assert_eq!((draft.channel.as_str(), draft.name.as_str()), ("order.7", "com.x.paid"));
    assert_eq!((draft.id.as_ref().map(|id| id.as_str()), json_of(&draft)), (Some("/orders|7"), "{\"a\":1}"));
    assert_eq!(
        draft.tags.iter().collect::<Vec<_>>(),
        [("sampled", "true"), ("source", "/orders"), ("tenant", "t"), ("time", "2026-01-01T00:00:00Z")]
    );
    let with = |name: &str, value: serde_json::Value| {
        let mut event = event.clone();
        event[name] = value;
        event.to_string()
    };
    let long = one(take(ONE, with("source", json!("s".repeat(200)))));
    assert_eq!(long.id.unwrap().as_str().len(), 36);
    for name in ["specversion", "id", "source", "type", "subject"] {
        let (status, code, field) = refused(take(ONE, with(name, json!(null))));
        assert_eq!((status, code, field.unwrap()), (400, "invalid_cloudevent", name));
    }
    for (name, value, code) in [
        ("specversion", json!("0.3"), "invalid_cloudevent"),
        ("subject", json!("a b"), "invalid_channel"),
        ("type", json!("a\nb"), "invalid_event"),
        ("tenant", json!({}), "invalid_cloudevent"),
        ("data_base64", json!("AA=="), "invalid_cloudevent"),
        ("tenant", json!("x".repeat(600)), "invalid_tags"),
        ("data", json!("x".repeat(1000)), "too_large"),
    ] {
        assert_eq!(refused(take(ONE, with(name, value))).1, code, "{name}");
    }
    assert_eq!(refused(take(ONE, "{")).1, "invalid_json");
    assert_eq!(refused(take(ONE, "[1]")).1, "invalid_cloudevent");
    let base64 = json!({"specversion": "1.0", "id": "8", "source": "s", "type": "t", "subject": "a",
        "datacontenttype": "image/png", "data_base64": "AP8="});
    let draft = one(take(ONE, base64.to_string()));
    assert_eq!(draft.data, Data::Bytes(vec![0, 255].into()));
    assert_eq!(draft.tags.get("datacontenttype"), Some("image/png"));
    let batch = json!([event, 1, base64]).to_string();
    let batch = take("application/cloudevents-batch+json", batch);
    assert_eq!(codes(batch), ["order.7", "invalid_cloudevent", "a"]);
    assert_eq!(refused(take("application/cloudevents-batch+json", "[]")).1, "invalid_event");
}

#[test]
fn cloudevents_in_binary_mode() {
    let base = [("ce-specversion", "1.0"), ("ce-id", "7"), ("ce-source", "/s"), ("ce-type", "t")];
    let send = |more: &[(&'static str, &str)], content_type: Option<&str>, body: &'static [u8]| {
        let pairs: Vec<_> = base.iter().chain(more).copied().collect();
        parse(content_type, &headers(&pairs), &Bytes::from_static(body), &LIMITS)
    };
    let subject = ("ce-subject", "a");
    let draft = one(send(&[subject, ("ce-who", "Eur%C3%B6 %25")], Some("application/json"), b"{\"a\": 1}"));
    assert_eq!(
        (draft.name.as_str(), json_of(&draft), draft.tags.get("who")),
        ("t", "{\"a\": 1}", Some("Eurö %"))
    );
    assert_eq!(draft.id.as_ref().map(|id| id.as_str()), Some("/s|7"));
    let draft = one(send(&[("ce-subject", "\"a\\b\"")], Some("text/plain"), b"12"));
    assert_eq!((draft.channel.as_str(), json_of(&draft)), ("ab", "\"12\""));
    assert_eq!(draft.tags.get("datacontenttype"), Some("text/plain"));
    let draft = one(send(&[subject], Some("application/octet-stream"), b"12"));
    assert_eq!(draft.data, Data::Bytes(Bytes::from_static(b"12")));
    assert_eq!(json_of(&one(send(&[subject], None, b"12"))), "12");
    assert_eq!(json_of(&one(send(&[subject], Some("application/json"), b""))), "null");
    assert_eq!(refused(send(&[], None, b"1")), (400, "invalid_cloudevent", Some("subject")));
    assert_eq!(refused(send(&[subject], Some("application/json"), b"{")).1, "invalid_json");
    assert_eq!(refused(send(&[subject, ("ce-x", "%ff")], None, b"1")).1, "invalid_cloudevent");
    assert_eq!(refused(send(&[("ce-subject", "a%0Ab")], None, b"1")).1, "invalid_channel");
    assert_eq!(refused(send(&[subject, ("ce-type", "u")], None, b"1")).1, "invalid_cloudevent");
}

#[test]
fn a_raw_body_is_the_data() {
    let raw = |query: &str, content_type: Option<&str>, body: &'static [u8]| {
        parse_raw("a.b", query, content_type, &HeaderMap::new(), &Bytes::from_static(body), &LIMITS)
    };
    let draft = raw("event=x%20y&id=i&ttl=0&ack=none&tag.k=v", None, b"{\"a\":\n1}").unwrap();
    assert_eq!((draft.channel.as_str(), draft.name.as_str(), json_of(&draft)), ("a.b", "x y", "{\"a\":1}"));
    assert_eq!((draft.ttl, draft.tags.get("k")), (Ttl::Live, Some("v")));
    for (content_type, body, json) in [
        (None, &b"12"[..], "12"),
        (Some("text/plain"), b"hello\r\n", "\"hello\\r\\n\""),
        (Some("application/x-www-form-urlencoded"), b"a=1", "\"a=1\""),
        (None, b"\xef\xbb\xbf{}", "\"\u{feff}{}\""),
        (None, b"1e400", "\"1e400\""),
        (None, b"", "\"\""),
        (Some("application/vnd.api+json"), b" [1] ", "[1]"),
    ] {
        assert_eq!(json_of(&raw("", content_type, body).unwrap()), json);
    }
    assert_eq!(raw("", None, b"\xff\0").unwrap().data, Data::Bytes(Bytes::from_static(b"\xff\0")));
    for (query, content_type, body, code) in [
        ("", Some("application/json"), &b"{"[..], "invalid_json"),
        ("", Some("application/json"), b"", "invalid_json"),
        ("", Some("application/json"), b"\xff", "invalid_json"),
        ("event=", None, b"", "invalid_event"),
        ("id=a&id=b", None, b"", "invalid_form"),
        ("ttl=x", None, b"", "invalid_ttl"),
        ("", None, &[b'x'; 1001], "too_large"),
    ] {
        assert_eq!(raw(query, content_type, body).unwrap_err().code, code);
    }
    assert_eq!(raw("", None, &[b'x'; 1000]).unwrap().data.len(), 1002);
    let key = headers(&[("idempotency-key", "k")]);
    let keyed = |query: &str| parse_raw("a", query, None, &key, &Bytes::new(), &LIMITS).unwrap().id.unwrap();
    assert_eq!((keyed("").as_str(), keyed("id=i").as_str()), ("k", "i"));
    assert_eq!(parse_raw("a b", "", None, &key, &Bytes::new(), &LIMITS).unwrap_err().code, "invalid_channel");
}

#[test]
fn what_a_browser_sends_without_asking_is_refused() {
    let (status, code, _) = refused(take("text/plain", r#"{"channel":"a"}"#));
    assert_eq!((status, code), (415, "unsupported_media_type"));
}

const TYPES: [&str; 7] = [
    "application/json",
    "application/x-ndjson",
    "application/msgpack",
    "application/x-www-form-urlencoded",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "multipart/form-data",
];

proptest! {
    #[test]
    fn no_body_panics(which in 0..TYPES.len(), body: Vec<u8>, text in "[\\[\\]{}\":,\\\\a-e0-9 \\n%&=+]{0,80}") {
        let _ = take(TYPES[which], &body);
        let _ = take(TYPES[which], &text);
        let body = Bytes::from(body);
        let ce = headers(&[("ce-specversion", "1.0")]);
        let _ = parse(Some(&text), &ce, &body, &LIMITS);
        let _ = parse_raw(&text, &text, Some(&text), &ce, &body, &LIMITS);
    }

    #[test]
    fn json_and_msgpack_say_the_same(data in crate::codec::tests::any_json()) {
        prop_assume!(data.to_string().len() <= LIMITS.event_bytes);
        let value = json!({"channel": "a", "data": data});
        let from_json = one(take_json(&value.to_string()));
        let from_msgpack = one(take("application/msgpack", rmp_serde::to_vec(&value).unwrap()));
        prop_assert_eq!(from_json.data, from_msgpack.data);
    }
}
