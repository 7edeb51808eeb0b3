//! Requests that break HTTP itself, or that two readers would read differently: refused with the contract's body,
//! and the connection closed.

use crate::bad_input::unharmed;
use crate::support::{Address, Connection, HttpClient, Response, TestSidecar, within};
use serde_json::json;

#[tokio::test]
async fn other_methods_and_paths_are_405_and_404() {
    let mut sidecar = TestSidecar::start().await;
    for (method, target, status, code) in [
        ("GET", "/v1/publish", 405, "method_not_allowed"),
        ("PUT", "/v1/publish", 405, "method_not_allowed"),
        ("DELETE", "/v1/publish", 405, "method_not_allowed"),
        ("POST", "/v1/events", 405, "method_not_allowed"),
        ("PATCH", "/v1/channels/a", 405, "method_not_allowed"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/v2/publish", 404, "not_found"),
        ("POST", "/v1/publish/", 404, "not_found"),
        ("GET", "/v1/channels/a/first", 404, "not_found"),
        ("GET", "/%2e%2e/etc/passwd", 404, "not_found"),
        ("GET", "/../../etc/passwd", 404, "not_found"),
    ] {
        let answer = sidecar.app().request(method, target, &[], b"").await;
        assert_eq!(answer.refusal(status), code, "{method} {target}");
        if status == 405 {
            assert!(answer.header("allow").is_some(), "a 405 says what is allowed: {method} {target}");
        }
    }
    for (address, target) in [
        (sidecar.whereabouts().client(), "/v1/ws"),
        (sidecar.whereabouts().client(), "/v1/sse"),
        (sidecar.whereabouts().client(), "/v1/poll"),
        (sidecar.whereabouts().admin(), "/healthz"),
        (sidecar.whereabouts().admin(), "/metrics"),
    ] {
        let answer = HttpClient::new(address).request("PUT", target, &[], b"").await;
        answer.refusal(405);
    }
    let plain = sidecar.client().get("/v1/ws?channel=a").await;
    assert!(matches!(plain.status(), 400 | 426), "no upgrade: {}", plain.text());
    unharmed(&mut sidecar).await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_before_it_is_read() {
    let config = "[limits]\nevent_bytes = 65536\nbody_bytes = 65536\n";
    let mut sidecar = TestSidecar::with_config(config).await;
    let address = sidecar.whereabouts().app();
    let head = |framing: &str| {
        format!(
            "POST /v1/publish HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{framing}\r\n\r\n",
            address.host()
        )
    };
    // Declared: answered without waiting for it.
    for length in ["70000", "10000000000", "9223372036854775807"] {
        let answer = exchange(&address, head(&format!("Content-Length: {length}")).as_bytes()).await;
        assert_eq!(answer.refusal(413), "too_large");
    }
    // Not declared: stopped when it has become too much.
    let mut endless = head("Transfer-Encoding: chunked").into_bytes();
    for _ in 0..20_000 {
        endless.extend_from_slice(b"400\r\n");
        endless.extend_from_slice(&[b' '; 1_024]);
        endless.extend_from_slice(b"\r\n");
    }
    let mut connection = Connection::open(&address).await.expect("connected");
    // The node may answer and close before all is written.
    let _ = connection.write(&endless).await;
    if let Ok(answer) = within("an answer", connection.read_response()).await {
        assert_eq!(answer.refusal(413), "too_large");
    }
    assert!(sidecar.resident_kib() < 200 * 1024, "{} KiB", sidecar.resident_kib());
    unharmed(&mut sidecar).await;
}

#[tokio::test]
async fn a_request_that_two_readers_would_read_differently_is_refused_and_the_connection_closed() {
    let mut sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().app();
    let host = address.host();
    let hidden = format!(
        "POST /v1/channels/smuggled HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n1"
    );
    let start = format!("POST /v1/publish HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n");
    for (what, framing) in [
        ("a length and chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("chunks and a length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        ("two lengths", "Content-Length: 0\r\nContent-Length: 5\r\n\r\n"),
        ("a list of lengths", "Content-Length: 0, 5\r\n\r\n"),
        ("a negative length", "Content-Length: -1\r\n\r\n"),
        ("a signed length", "Content-Length: +0\r\n\r\n"),
        ("a length in hex", "Content-Length: 0x0\r\n\r\n"),
        ("a space in the name", "Content-Length : 0\r\n\r\n"),
        ("an unknown coding", "Transfer-Encoding: gzip, chunked, identity\r\n\r\n0\r\n\r\n"),
        ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        ("a hidden coding", "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
        ("a bad chunk size", "Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n"),
        ("a chunk size beyond 64 bits", "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n"),
        ("a folded header", "X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n"),
        ("a NUL", "X-A: b\0c\r\nContent-Length: 0\r\n\r\n"),
        ("a bare CR", "X-A: b\rContent-Length: 5\r\n\r\n"),
    ] {
        let mut connection = Connection::open(&address).await.expect("connected");
        connection.write(format!("{start}{framing}{hidden}").as_bytes()).await.expect("written");
        let answer = within(what, connection.read_response()).await;
        if let Ok(answer) = &answer {
            assert!((400..500).contains(&answer.status()), "{what}: {} {}", answer.status(), answer.text());
            answer.refusal(answer.status());
        }
        within(what, connection.read_until_closed()).await;
        assert!(sidecar.last("smuggled").await.is_none(), "{what}: the hidden request was taken");
    }
    unharmed(&mut sidecar).await;
}

#[tokio::test]
async fn what_is_no_http_1_1_request_is_refused_or_cut_off() {
    // Some of it is the begin of a request that never goes on.
    let mut sidecar = TestSidecar::with_config("[limits]\nheader_timeout = \"500ms\"\n").await;
    let long_line = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(1 << 20));
    let long_header =
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: {}\r\n\r\n", "a".repeat(1 << 20));
    let many_headers =
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X-A: b\r\n".repeat(50_000));
    for listener in ["app", "client", "admin"] {
        let address = sidecar.whereabouts().all(listener)[0].clone();
        for bytes in [
            &b"\r\n\r\n\r\n"[..],
            b"GET\r\n\r\n",
            b"GET /healthz\r\n\r\n",
            b"GET /healthz HTTP/9.9\r\n\r\n",
            b"GET  /healthz  HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /\x80\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
            b"GET / HTTP/1.1\r\n: x\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\x00\x01\x02\x03\x04\x05\x06\x07\n\n\n\n",
            long_line.as_bytes(),
            long_header.as_bytes(),
            many_headers.as_bytes(),
        ] {
            let mut connection = Connection::open(&address).await.expect("connected");
            // It may be cut off while it is written.
            let _ = connection.write(bytes).await;
            let what = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
            if let Ok(answer) = within(&what, connection.read_response()).await {
                assert!((400..500).contains(&answer.status()), "{what:?} on {listener}: {}", answer.status());
                answer.refusal(answer.status());
            }
        }
    }
    unharmed(&mut sidecar).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().app();
    let mut connection = Connection::open(&address).await.expect("connected");
    let mut bytes = Vec::new();
    for n in 0..5 {
        let body = json!({"channel": "pipe", "data": {"n": n}}).to_string();
        let kind = "Content-Type: application/json";
        bytes.extend_from_slice(
            format!(
                "POST /v1/publish HTTP/1.1\r\nHost: {}\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}",
                address.host(),
                body.len()
            )
            .as_bytes(),
        );
    }
    connection.write(&bytes).await.expect("written");
    for _ in 0..5 {
        let answer = within("an answer", connection.read_response()).await.expect("answered");
        assert_eq!(answer.success()["status"], "published");
    }
    assert_eq!(crate::support::numbers(&sidecar.all_events("channel=pipe").await), [0, 1, 2, 3, 4]);
}

async fn exchange(address: &Address, bytes: &[u8]) -> Response {
    let mut connection = Connection::open(address).await.expect("connected");
    connection.write(bytes).await.expect("written");
    within("an answer", connection.read_response()).await.expect("answered")
}

#[tokio::test]
async fn later_requests_of_a_connection_are_looked_at_as_closely_as_the_first() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().app();
    let host = address.host();
    for (what, framing) in [
        ("a length and chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("two lengths", "Content-Length: 0\r\nContent-Length: 0\r\n\r\n"),
        ("a bare line feed", "X-A: b\nContent-Length: 0\r\n\r\n"),
    ] {
        let mut connection = Connection::open(&address).await.expect("connected");
        let good = format!("GET /v1/channels HTTP/1.1\r\nHost: {host}\r\n\r\n");
        connection.write(good.as_bytes()).await.expect("written");
        let answer = within(what, connection.read_response()).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{what}");
        let bad = format!("POST /v1/publish HTTP/1.1\r\nHost: {host}\r\n{framing}");
        connection.write(bad.as_bytes()).await.expect("written");
        let answer = within(what, connection.read_response()).await.expect("an answer");
        assert_eq!(answer.refusal(400), "invalid_request", "{what}");
        within(what, connection.read_until_closed()).await;
    }
}
