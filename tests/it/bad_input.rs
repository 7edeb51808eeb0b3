//! Requests that break a rule: answered with the right 4xx and the contract's body, never with 500, never with
//! a crash, and nothing of them is published.

use crate::support::{Response, TestSidecar};
use serde_json::json;

const JSON: &str = "application/json";

/// Publishes a body that must be refused, and gives the code.
async fn refused(sidecar: &TestSidecar, content_type: &str, body: &[u8], status: u16) -> (String, Response) {
    let answer = sidecar.publish_as(content_type, "", body).await;
    assert_eq!(
        answer.status(),
        status,
        "{}: {}",
        String::from_utf8_lossy(&body[..body.len().min(80)]),
        answer.text()
    );
    (answer.refusal(status), answer)
}

/// Nothing was published by what was refused, and the node is well.
pub(crate) async fn unharmed(sidecar: &mut TestSidecar) {
    assert!(sidecar.all_events("channel=%3E").await.is_empty());
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn a_body_that_is_no_json_is_refused() {
    let mut sidecar = TestSidecar::start().await;
    let deep_data = format!("{{\"channel\":\"a\",\"data\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_maps =
        format!("{{\"channel\":\"a\",\"data\":{}1{}}}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    for body in [
        &b""[..],
        b" ",
        b"nope",
        b"{",
        b"{\"channel\":\"a\",\"data\":",
        b"{\"channel\":\"a\",\"data\":1",
        b"{\"channel\":\"a\",\"data\":1}}",
        b"{\"channel\":\"a\",\"data\":1} trailing",
        b"{\"channel\":\"a\",\"data\":NaN}",
        b"{\"channel\":\"a\",\"data\":01}",
        b"{'channel':'a','data':1}",
        b"{\"channel\":\"a\",\"data\":\"\xff\xfe\"}",
        b"{\"channel\":\"a\",\"data\":\"\xed\xa0\x80\"}",
        b"{\"channel\":\"a\",\"data\":\"\x00\"}",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b"\xff\xff\xff\xff",
        deep_data.as_bytes(),
        deep_maps.as_bytes(),
    ] {
        let (code, _) = refused(&sidecar, JSON, body, 400).await;
        assert!(
            code.starts_with("invalid_"),
            "{code}: {}",
            String::from_utf8_lossy(&body[..body.len().min(80)])
        );
    }
    unharmed(&mut sidecar).await;
}

#[tokio::test]
async fn odd_json_is_passed_on_as_it_is_or_refused() {
    let mut sidecar = TestSidecar::start().await;
    for data in
        ["1e400", "-1e400", "1e-400", r#""\ud800""#, "123456789012345678901234567890", r#"{"a":1,"a":2}"#]
    {
        let body = format!("{{\"channel\":\"odd\",\"data\":{data}}}");
        let answer = sidecar.publish_as(JSON, "", body.as_bytes()).await;
        if answer.status() == 200 {
            let page = sidecar.app().get("/v1/channels/odd/last").await;
            assert!(page.text().contains(data), "{data} became {}", page.text());
        } else {
            answer.refusal(400);
        }
    }
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn a_field_of_the_wrong_type_or_value_is_named() {
    let mut sidecar = TestSidecar::start().await;
    let long = "x".repeat(300);
    let many_tags: serde_json::Map<_, _> = (0..1_000).map(|n| (format!("t{n}"), json!("v"))).collect();
    for (body, field) in [
        (json!({"data": 1}), "channel"),
        (json!({"channel": 7, "data": 1}), "channel"),
        (json!({"channel": null, "data": 1}), "channel"),
        (json!({"channels": {"a": 1}, "data": 1}), "channels"),
        (json!({"channels": [], "data": 1}), "channels"),
        (json!({"channels": [7], "data": 1}), "channels"),
        (json!({"channel": "a", "event": 7, "data": 1}), "event"),
        (json!({"channel": "a", "event": "", "data": 1}), "event"),
        (json!({"channel": "a", "event": long, "data": 1}), "event"),
        (json!({"channel": "a", "event": "a\nb", "data": 1}), "event"),
        (json!({"channel": "a", "id": [7], "data": 1}), "id"),
        (json!({"channel": "a", "tags": 7, "data": 1}), "tags"),
        (json!({"channel": "a", "tags": {"a": {"b": 1}}, "data": 1}), "tags"),
        (json!({"channel": "a", "tags": {"a": "x\u{0}"}, "data": 1}), "tags"),
        (json!({"channel": "a", "tags": many_tags, "data": 1}), "tags"),
        (json!({"channel": "a", "ttl": -1, "data": 1}), "ttl"),
        (json!({"channel": "a", "ttl": "soon", "data": 1}), "ttl"),
        (json!({"channel": "a", "ttl": {}, "data": 1}), "ttl"),
        (json!({"channel": "a", "exclude": 7, "data": 1}), "exclude"),
    ] {
        let (code, answer) = refused(&sidecar, JSON, body.to_string().as_bytes(), 400).await;
        assert!(code.starts_with("invalid_"), "{body}: {code}");
        assert_eq!(answer.json()["field"], field, "{body}: {}", answer.text());
    }
    for body in ["17", "null", "\"text\"", "true"] {
        refused(&sidecar, JSON, body.as_bytes(), 400).await;
    }
    unharmed(&mut sidecar).await;
}

#[tokio::test]
async fn a_name_that_is_no_channel_is_refused_wherever_it_stands() {
    let mut sidecar = TestSidecar::start().await;
    let long = "a".repeat(256);
    for channel in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a\tb",
        "a\nb",
        "a*",
        "*",
        ">",
        "a.*",
        "a.>",
        "ü",
        "a\u{7f}",
        "a\u{0}",
        "$sys",
        "$",
        "\u{202e}a",
        "аdmin",
        &long,
    ] {
        let body = json!({"channel": channel, "data": 1}).to_string();
        let (code, answer) = refused(&sidecar, JSON, body.as_bytes(), 400).await;
        assert_eq!((&*code, &answer.json()["field"]), ("invalid_channel", &json!("channel")), "{channel:?}");
        let encoded = encode(channel);
        let form = format!("channel={encoded}&data=1");
        refused(&sidecar, "application/x-www-form-urlencoded", form.as_bytes(), 400).await;
        if !channel.is_empty() {
            let raw = sidecar.app().post(&format!("/v1/channels/{encoded}"), JSON, b"1").await;
            assert!(matches!(raw.status(), 400 | 404), "{channel:?} in the path: {}", raw.text());
        }
    }
    let longest = "a".repeat(255);
    assert_eq!(sidecar.publish(&json!({"channel": longest, "data": 1})).await["status"], "published");
    sidecar.still_healthy().await;
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn a_body_of_another_type_is_refused_before_it_is_looked_at() {
    let mut sidecar = TestSidecar::start().await;
    let body = br#"{"channel":"a","data":1}"#;
    for kind in [
        "text/plain",
        "text/html",
        "multipart/form-data; boundary=x",
        "image/png",
        "application/xml",
        "x",
        ";",
    ] {
        let (code, _) = refused(&sidecar, kind, body, 415).await;
        assert_eq!(code, "unsupported_media_type", "{kind}");
    }
    let headers = [("Content-Type", JSON), ("Content-Encoding", "gzip")];
    let answer = sidecar.app().request("POST", "/v1/publish", &headers, b"\x1f\x8b\x08").await;
    assert!(matches!(answer.status(), 400 | 415), "{}", answer.text());
    unharmed(&mut sidecar).await;
}

#[tokio::test]
async fn malformed_messagepack_forms_and_lines_are_refused() {
    let mut sidecar = TestSidecar::start().await;
    for body in [
        &b""[..],
        b"\xc1",
        b"\x81\xa7channel",
        b"\x81\x01\x02",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x82\xa7channel\xa1a\xa4data\x01\x00",
        b"\x82\xa7channel\xa2\xff\xfe\xa4data\x01",
        &[0x91; 200_000],
        &[0x81; 200_000],
    ] {
        let (code, _) = refused(&sidecar, "application/msgpack", body, 400).await;
        assert!(code.starts_with("invalid_"), "{code}");
    }
    for form in [&b""[..], b"data=1", b"channel=a%20b&data=1", b"channel", b"%ff%fe=1&channel=%00", b"&&&&="]
    {
        refused(&sidecar, "application/x-www-form-urlencoded", form, 400).await;
    }
    for lines in [&b""[..], b"\n\n\n"] {
        refused(&sidecar, "application/x-ndjson", lines, 400).await;
    }
    unharmed(&mut sidecar).await;
}

#[tokio::test]
async fn a_query_that_is_no_text_or_too_long_is_refused() {
    let mut sidecar = TestSidecar::start().await;
    for target in [
        "/v1/poll?channel=%FF",
        "/v1/poll?channel=%00",
        "/v1/poll?channel=a&event=%0A",
        "/v1/poll?channel=a&history=99999999999999999999",
        "/v1/poll?channel=a&history=-1",
        "/v1/poll?channel=a&last=maybe",
        "/v1/poll?channel=a&format=xml",
        &format!("/v1/poll?channel={}", "a".repeat(10_000)),
        &format!("/v1/poll?channel={}", "*.".repeat(5_000)),
    ] {
        let answer = sidecar.client().get(&format!("{target}&timeout=0")).await;
        assert!(
            matches!(answer.status(), 400 | 414 | 431),
            "{target}: {}: {}",
            answer.status(),
            answer.text()
        );
    }
    unharmed(&mut sidecar).await;
}
