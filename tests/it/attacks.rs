//! Attacks that belong to no single part: what they cost, and what can be learnt by them. `docs/security.md` has the
//! list, with the test of each.

use crate::support::{HttpClient, Setup, TestSidecar, Tokens, WebSocketClient, upgrade_request};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// As many tokens as a channel can have.
const TOKENS: usize = 125;

#[tokio::test]
async fn ten_thousand_subscriptions_and_bombs_of_patterns_on_one_socket_slow_nobody_down() {
    let limits = "[limits]\nsubscriptions = 11000\nmessages_per_second = 0\nbytes_per_second = 0\n";
    let sidecar = TestSidecar::with_config(limits).await;
    let address = sidecar.whereabouts().client();
    let mut calm = WebSocketClient::open(&address, "/v1/ws?channel=a.1.x").await;
    calm.expect("subscribed").await;
    let mut greedy = WebSocketClient::open(&address, "/v1/ws").await;
    let bomb = "*.".repeat(TOKENS - 1);
    let patterns: Vec<String> = (0..10_000)
        .map(|n| match n % 10 {
            0 => format!("{bomb}{n}"),
            1..=4 => format!("*.{n}.>"),
            _ => format!("c.{n}"),
        })
        .collect();
    for some in patterns.chunks(200) {
        greedy.send(&json!({"type": "subscribe", "channels": some})).await;
        greedy.expect("subscribed").await;
    }
    greedy.subscribe(&["*.1.>", "a.*.x", "a.1.*"], json!({})).await;
    let deep = "a.".repeat(TOKENS - 1) + "nothing";
    let mut slowest = Duration::ZERO;
    for number in 0..100 {
        let begin = Instant::now();
        sidecar.publish(&json!({"channel": deep, "data": number})).await;
        sidecar.publish(&json!({"channel": "a.1.x", "data": number})).await;
        assert_eq!(calm.next_event().await["data"], number);
        slowest = slowest.max(begin.elapsed());
        assert_eq!(greedy.next_event().await["data"], number, "once, however many patterns fit");
    }
    eprintln!(
        "10,000 subscriptions on one socket: the slowest of 100 publishes reached others in {slowest:?}"
    );
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(sidecar.resident_kib() < 200 * 1024, "{} KiB", sidecar.resident_kib());
    drop(greedy);
    sidecar.wait_for_connections(1).await;
}

/// Whatever is done to a cursor, it gives nothing that the token does not allow, and harms nobody.
#[tokio::test]
async fn a_cursor_that_was_tampered_with_reads_nothing_that_is_not_allowed() {
    let mut tokens = Tokens::new();
    let sidecar = TestSidecar::with_config(&Tokens::config()).await;
    let token = tokens.user("ann", &json!({"a": ["sub", "history"]}));
    for number in 0..5 {
        sidecar.publish(&json!({"channel": "secret", "data": number})).await;
        sidecar.publish(&json!({"channel": "a", "data": number})).await;
    }
    let events = sidecar.all_events("channel=a").await;
    let cursor = events[2]["cursor"].as_str().expect("a cursor").to_owned();
    let mut client = sidecar.client();
    let mut answered = 0;
    for place in 0..cursor.len() {
        for other in ['A', '_', '7'] {
            let mut forged: Vec<char> = cursor.chars().collect();
            forged[place] = other;
            let forged: String = forged.into_iter().collect();
            let ask = async |client: &mut HttpClient, channel: &str| {
                let target = format!("/v1/poll?channel={channel}&timeout=0&cursor={forged}&token={token}");
                client.get(&target).await
            };
            let answer = ask(&mut client, "a").await;
            match answer.status() {
                200 => {
                    answered += 1;
                    for event in answer.json()["events"].as_array().expect("events") {
                        assert_eq!(event["channel"], "a", "{forged}");
                    }
                }
                _ => assert_eq!(answer.refusal(400), "invalid_cursor", "{forged}"),
            }
            assert!(matches!(ask(&mut client, "secret").await.status(), 400 | 403), "{forged}");
        }
    }
    assert!(answered > 0, "the cursor itself is among them");
    for odd in ["", "%00", "AAAA", &"A".repeat(200), &"A".repeat(201), "..%2f..%2f"] {
        let answer = client.get(&format!("/v1/poll?channel=a&timeout=0&cursor={odd}&token={token}")).await;
        assert!(matches!(answer.status(), 200 | 400), "{odd}: {}", answer.text());
    }
}

#[tokio::test]
async fn tokens_secrets_and_payloads_are_told_nowhere() {
    let mut tokens = Tokens::new();
    let directory = tempfile::tempdir().expect("a directory");
    let (file, audit) = (directory.path().join("token"), directory.path().join("audit.jsonl"));
    std::fs::write(&file, "the-token-of-the-app\n").expect("written");
    let config = format!(
        "{}cookie = \"session\"\n[app]\ntoken_file = {file:?}\n[telemetry]\nlog_level = \"trace\"\naudit_file = {audit:?}\n",
        Tokens::config()
    );
    let sidecar = Setup::new().config(&config).start().await;
    let address = sidecar.whereabouts().client();
    let good =
        tokens.token(&json!({"sub": "ann", "jti": "t1", "channels": {"a": ["sub", "pub", "history"]}}));
    let bad = tokens.forged(&json!({"alg": "HS256"}), &json!({"sub": "eve"}), Some("another-secret-of-eve"));
    for token in [&good, &bad] {
        let bearer = format!("Bearer {token}");
        let (cookie, protocol) =
            (format!("session={token}"), format!("sidewire.v1.json, sidewire.token.{token}"));
        for headers in [
            &[("Authorization", bearer.as_str())][..],
            &[("Cookie", &cookie)],
            &[("Sec-WebSocket-Protocol", &protocol)],
            &[],
        ] {
            let query = if headers.is_empty() { format!("&token={token}") } else { String::new() };
            let _ = WebSocketClient::try_open(&address, &format!("/v1/ws?channel=a{query}"), headers).await;
        }
        let mut late = WebSocketClient::open(&address, "/v1/ws").await;
        late.send(&json!({"type": "auth", "id": 1, "token": token})).await;
        late.next().await;
    }
    let mut client = WebSocketClient::open(&address, &format!("/v1/ws?channel=a&token={good}")).await;
    client.expect("subscribed").await;
    client.send(&json!({"type": "publish", "channel": "a", "data": "what-was-said"})).await;
    client.expect("published").await;
    let mut app = sidecar.app();
    for (token, status) in [("the-token-of-the-app", 200), ("the-token-of-another", 401)] {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let body = json!({"channel": "a", "data": {"card": "what-was-said"}}).to_string();
        let answer = app.request("POST", "/v1/publish", &headers, body.as_bytes()).await;
        assert_eq!(answer.status(), status);
        let body = json!({"jti": "t1"}).to_string();
        app.request("POST", "/v1/disconnect", &headers, body.as_bytes()).await;
    }
    assert_eq!(client.closed().await, 4101);
    let mut told = sidecar.log();
    for path in ["/metrics", "/v1/config", "/readyz", "/healthz"] {
        told += &sidecar.admin().get(path).await.text();
    }
    told += &crate::support::eventually("all of the audit log", async || {
        std::fs::read_to_string(&audit).ok().filter(|text| text.contains("\"revoked\""))
    })
    .await;
    assert!(told.contains("refused: ") && told.contains("revoked"), "{told}");
    let signature = |token: &str| token.rsplit_once('.').expect("three parts").1.to_owned();
    let (good, bad) = (signature(&good), signature(&bad));
    for secret in [&*good, &*bad, Tokens::SECRET, "the-token-of", "another-secret-of-eve", "what-was-said"] {
        assert!(!told.contains(secret), "{secret} is told: {told}");
    }
}

/// Nothing that a caller makes up becomes a label: the number of series does not depend on what is sent.
#[tokio::test]
async fn made_up_names_make_no_series() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    let attack = async |round: usize| {
        let mut client = WebSocketClient::open(&address, &format!("/v1/ws?channel=r{round}.%3E")).await;
        client.expect("subscribed").await;
        for number in 0..50 {
            let made_up = format!("made-up-{round}-{number}");
            let event = json!({"channel": format!("r{round}.{made_up}"), "event": made_up, "tags": {made_up.clone(): made_up}});
            sidecar.publish(&event).await;
            sidecar.client().get(&format!("/v1/{made_up}")).await;
            sidecar.client().get(&format!("/v1/poll?channel=..{made_up}&{made_up}=1")).await;
            client.send(&json!({"type": made_up})).await;
        }
        let request = upgrade_request(&address, "/v1/ws", &format!("X-Made-Up-{round}: 1\r\n"));
        crate::support::Connection::open(&address)
            .await
            .expect("connected")
            .write(&request)
            .await
            .expect("sent");
        let text = sidecar.admin().get("/metrics").await.text();
        assert!(!text.contains("made-up"), "{text}");
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    let first = attack(1).await;
    assert_eq!(first, attack(2).await);
    let closes: Value = sidecar.admin().get("/healthz").await.json();
    assert_eq!(closes["status"], "ok");
}
