//! WebSocket frames that break RFC 6455 or a limit: closed with the code that says why, in bounded memory.

use crate::support::frame::{BINARY, CLOSE, CONTINUATION, FINAL, MASKED, PING, PONG, TEXT};
use crate::support::{Connection, Frame, TestSidecar, upgrade_request, within};
use serde_json::Value;
use tokio::io::{AsyncWriteExt as _, BufReader};

/// A masked frame as a client must send it. `first` is the opcode with the bits above it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(MASKED | short as u8),
        medium @ 126..65_536 => {
            bytes.push(MASKED | 126);
            bytes.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            bytes.push(MASKED | 127);
            bytes.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A connection after its upgrade, in frames.
struct Raw {
    stream: BufReader<Box<dyn crate::support::Duplex>>,
}

impl Raw {
    async fn open(sidecar: &TestSidecar) -> Self {
        let address = sidecar.whereabouts().client();
        let mut connection = Connection::open(&address).await.expect("connected");
        connection.write(&upgrade_request(&address, "/v1/ws", "")).await.expect("written");
        let head = within("the upgrade", connection.read_head()).await.expect("a head");
        assert_eq!(head.status, 101);
        assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let mut raw = Self { stream: connection.into_stream() };
        let (opcode, welcome) = raw.next().await.expect("a welcome");
        assert_eq!((opcode, welcome.contains("welcome")), (TEXT, true), "{welcome}");
        raw
    }

    async fn write(&mut self, bytes: &[u8]) {
        // It may be closed before all is written: what it says is read all the same.
        let _ = self.stream.get_mut().write_all(bytes).await;
        let _ = self.stream.get_mut().flush().await;
    }

    /// The next frame: opcode and payload; `None` when the connection has ended.
    async fn next(&mut self) -> Option<(u8, String)> {
        within("a frame or the end", async {
            let frame = Frame::read(&mut self.stream).await.ok()?;
            let text = match frame.close_code() {
                Some(code) => code.to_string(),
                None => String::from_utf8_lossy(&frame.payload).into_owned(),
            };
            Some((frame.opcode, text))
        })
        .await
    }

    /// Reads until the close frame, and gives its code; the connection must then end.
    async fn closed(&mut self) -> String {
        loop {
            match self.next().await {
                Some((CLOSE, code)) => {
                    within("the end after a close", async { while self.next().await.is_some() {} }).await;
                    return code;
                }
                Some(_) => {}
                None => return "none".to_owned(),
            }
        }
    }

    async fn next_json(&mut self) -> Value {
        let (opcode, text) = self.next().await.expect("a message");
        assert_eq!(opcode, TEXT, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }
}

const PING_MESSAGE: &[u8] = br#"{"type":"ping","id":"p"}"#;

#[tokio::test]
async fn a_frame_that_breaks_the_protocol_closes_with_the_code_that_says_why() {
    let mut sidecar = TestSidecar::start().await;
    let mut unmasked = vec![FINAL | TEXT, PING_MESSAGE.len() as u8];
    unmasked.extend_from_slice(PING_MESSAGE);
    let mut huge = vec![FINAL | TEXT, MASKED | 127];
    huge.extend_from_slice(&(1_u64 << 62).to_be_bytes());
    huge.extend_from_slice(&[0; 4]);
    let mut beyond = vec![FINAL | TEXT, MASKED | 127];
    beyond.extend_from_slice(&u64::MAX.to_be_bytes());
    beyond.extend_from_slice(&[0; 4]);
    for (what, bytes, codes) in [
        ("an unmasked frame", unmasked, &["1002"][..]),
        ("a reserved bit", frame(FINAL | 0x40 | TEXT, PING_MESSAGE), &["1002"]),
        ("an unknown opcode", frame(FINAL | 3, b"x"), &["1002"]),
        ("an unknown control opcode", frame(FINAL | 11, b"x"), &["1002"]),
        ("a fragmented ping", frame(PING, b"x"), &["1002"]),
        ("a long ping", frame(FINAL | PING, &[0; 126]), &["1002"]),
        ("a continuation of nothing", frame(FINAL | CONTINUATION, b"x"), &["1002"]),
        ("a text within a text", [frame(TEXT, b"{"), frame(FINAL | TEXT, b"}")].concat(), &["1002"]),
        ("invalid UTF-8", frame(FINAL | TEXT, b"\"\xff\""), &["1007"]),
        ("invalid UTF-8 over two frames", [frame(TEXT, b"\"\xc3"), frame(FINAL, b"\"")].concat(), &["1007"]),
        ("a close code that nobody may send", frame(FINAL | CLOSE, &1005_u16.to_be_bytes()), &["1002"]),
        ("a close code of one byte", frame(FINAL | CLOSE, b"x"), &["1002"]),
        ("a close reason in invalid UTF-8", frame(FINAL | CLOSE, b"\x03\xe8\xff"), &["1007"]),
        ("a declared length of 2^62", huge, &["1009"]),
        ("a declared length of 2^64 - 1", beyond, &["1002", "1009"]),
    ] {
        let mut raw = Raw::open(&sidecar).await;
        raw.write(&bytes).await;
        let code = raw.closed().await;
        assert!(codes.contains(&&*code), "{what}: closed with {code}");
    }
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn a_proper_close_is_answered_with_its_code() {
    let sidecar = TestSidecar::start().await;
    for (payload, code) in [(&b"\x03\xe8bye"[..], "1000"), (b"\x0f\xa0", "4000")] {
        let mut raw = Raw::open(&sidecar).await;
        raw.write(&frame(FINAL | CLOSE, payload)).await;
        assert_eq!(raw.closed().await, code);
    }
    let mut raw = Raw::open(&sidecar).await;
    raw.write(&frame(FINAL | CLOSE, b"")).await;
    let (opcode, _) = raw.next().await.expect("a close frame");
    assert_eq!(opcode, CLOSE);
}

#[tokio::test]
async fn a_message_may_come_in_pieces_with_a_ping_between_and_byte_by_byte() {
    let sidecar = TestSidecar::start().await;
    let mut raw = Raw::open(&sidecar).await;
    let pieces = [
        frame(TEXT, &PING_MESSAGE[..5]),
        frame(CONTINUATION, b""),
        frame(FINAL | PING, b"between"),
        frame(FINAL | CONTINUATION, &PING_MESSAGE[5..]),
    ]
    .concat();
    raw.write(&pieces).await;
    assert_eq!(raw.next().await, Some((PONG, "between".to_owned())));
    assert_eq!(raw.next_json().await["type"], "pong");
    for byte in &pieces {
        raw.write(&[*byte]).await;
    }
    assert_eq!(raw.next().await, Some((PONG, "between".to_owned())));
    assert_eq!(raw.next_json().await["type"], "pong");
    // An unasked pong is nothing.
    raw.write(&frame(FINAL | PONG, b"unasked")).await;
    raw.write(&frame(FINAL | TEXT, PING_MESSAGE)).await;
    assert_eq!(raw.next_json().await["type"], "pong");
}

#[tokio::test]
async fn a_message_beyond_the_limit_closes_with_1009_whole_or_in_pieces() {
    let mut sidecar = TestSidecar::with_config("[limits]\nmessage_bytes = 10000\n").await;
    let fitting = format!("{{\"type\":\"ping\",\"id\":\"{}\"}}", "x".repeat(100));
    let mut raw = Raw::open(&sidecar).await;
    raw.write(&frame(FINAL | TEXT, fitting.as_bytes())).await;
    assert_eq!(raw.next_json().await["type"], "pong");
    raw.write(&frame(FINAL | TEXT, &[b' '; 10_001])).await;
    assert_eq!(raw.closed().await, "1009");

    let mut raw = Raw::open(&sidecar).await;
    raw.write(&frame(TEXT, &[b' '; 6_000])).await;
    raw.write(&frame(FINAL | CONTINUATION, &[b' '; 6_000])).await;
    assert_eq!(raw.closed().await, "1009");

    let mut raw = Raw::open(&sidecar).await;
    raw.write(&frame(TEXT, b"")).await;
    for _ in 0..2_000 {
        raw.write(&frame(CONTINUATION, &[b' '; 10])).await;
    }
    assert_eq!(raw.closed().await, "1009", "many small pieces are one large message");
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn empty_fragments_and_pings_without_end_cost_no_memory() {
    let mut sidecar = TestSidecar::start().await;
    let mut raw = Raw::open(&sidecar).await;
    let before = sidecar.resident_kib();
    raw.write(&frame(TEXT, b"")).await;
    let empty = frame(CONTINUATION, b"").repeat(10_000);
    for _ in 0..30 {
        raw.write(&empty).await;
    }
    // It may be cut off for it, or go on; it may not grow.
    drop(raw);
    let mut raw = Raw::open(&sidecar).await;
    let pings = frame(FINAL | PING, &[b'p'; 100]).repeat(2_000);
    for _ in 0..20 {
        // The answers are not read: they may fill the buffers of the system, and not those of the node.
        let write = tokio::time::timeout(std::time::Duration::from_millis(500), raw.write(&pings));
        if write.await.is_err() {
            break;
        }
    }
    let after = sidecar.resident_kib();
    assert!(after < before + 16 * 1024, "memory grew from {before} to {after} KiB");
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn frames_of_the_other_kind_are_answered_with_an_error() {
    let sidecar = TestSidecar::start().await;
    let mut raw = Raw::open(&sidecar).await;
    raw.write(&frame(FINAL | BINARY, PING_MESSAGE)).await;
    // JSON in a binary frame is understood, refused with an error, or closed with 1003: never dropped silently.
    match raw.next().await {
        Some((CLOSE, code)) => assert_eq!(code, "1003"),
        Some((_, text)) => assert!(text.contains("error") || text.contains("pong"), "{text}"),
        None => panic!("cut off without a word"),
    }
}

#[tokio::test]
async fn an_upgrade_that_is_not_one_is_refused() {
    let mut sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    let host = address.host();
    let good = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (what, headers) in [
        ("no key", good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "")),
        ("a short key", good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short")),
        ("an old version", good.replace(": 13", ": 8")),
        ("no version", good.replace("Sec-WebSocket-Version: 13\r\n", "")),
        ("another upgrade", good.replace(": websocket", ": h2c")),
        ("no connection", good.replace("Connection: Upgrade", "Connection: keep-alive")),
    ] {
        let mut connection = Connection::open(&address).await.expect("connected");
        let request = format!("GET /v1/ws HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
        connection.write(request.as_bytes()).await.expect("written");
        let answer = within(what, connection.read_response()).await.expect("answered");
        assert!(matches!(answer.status(), 400 | 426), "{what}: {} {}", answer.status(), answer.text());
        if what == "an old version" {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"), "it says which one it speaks");
        }
    }
    sidecar.still_healthy().await;
}
