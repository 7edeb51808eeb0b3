//! Who takes too much: by address, also behind a proxy, by bytes, and by channel.

use crate::support::{HttpClient, Response, TestSidecar, Tokens, WebSocketClient, eventually};
use serde_json::json;

async fn handshake(sidecar: &TestSidecar, forwarded: &str) -> Result<WebSocketClient, u16> {
    use tokio_tungstenite::tungstenite::Error;
    let address = sidecar.whereabouts().client();
    let headers = [("X-Forwarded-For", forwarded)];
    let headers = if forwarded.is_empty() { &[][..] } else { &headers };
    match WebSocketClient::try_open(&address, "/v1/ws", headers).await {
        Ok(client) => Ok(client),
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_share() {
    let limits = "[limits]\nconnections_per_ip = 1\n";
    let trusting =
        TestSidecar::with_config(&format!("[client]\ntrusted_proxies = [\"127.0.0.0/8\"]\n{limits}")).await;
    let first = handshake(&trusting, "6.6.6.6, 1.2.3.4").await.expect("let in");
    assert_eq!(
        handshake(&trusting, "7.7.7.7, 1.2.3.4").await.err(),
        Some(429),
        "what the client wrote is not believed"
    );
    let second = handshake(&trusting, "1.2.3.5").await.expect("another client");
    drop((first, second));

    let plain = TestSidecar::with_config(limits).await;
    let only = handshake(&plain, "1.2.3.4").await.expect("let in");
    assert_eq!(handshake(&plain, "1.2.3.5").await.err(), Some(429), "nobody is believed who is not trusted");
    drop(only);
}

#[tokio::test]
async fn an_address_that_is_refused_again_and_again_is_cut_off_for_a_while() {
    let mut tokens = Tokens::new();
    let config = format!(
        "{}[client]\ntrusted_proxies = [\"127.0.0.1\"]\n[limits]\noffences_per_ip = 3\nban = \"1s\"\n",
        Tokens::config()
    );
    let sidecar = TestSidecar::with_config(&config).await;
    let good = tokens.user("ann", &json!({"a": ["history"]}));
    let get = async |client: &mut HttpClient, from: &str, token: &str| -> Response {
        let target = format!("/v1/events?channel=a&token={token}");
        client.request("GET", &target, &[("X-Forwarded-For", from)], b"").await
    };
    let mut client = sidecar.client();
    for _ in 0..4 {
        assert_eq!(get(&mut client, "1.2.3.4", "bad").await.refusal(401), "unauthorized");
    }
    let refused = get(&mut client, "1.2.3.4", &good).await;
    assert_eq!(refused.refusal(429), "rate_limited");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(get(&mut client, "1.2.3.5", &good).await.status(), 200, "others are not");
    eventually("it is listened to again", async || {
        (get(&mut sidecar.client(), "1.2.3.4", &good).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_sends_too_many_bytes_is_cut_off() {
    let config = "[limits]\nbytes_per_second = \"64KiB\"\nmessages_per_second = 0\n";
    let sidecar = TestSidecar::with_config(config).await;
    let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws").await;
    let message = json!({"type": "ping", "padding": "x".repeat(30_000)});
    for _ in 0..2 {
        client.send(&message).await;
        client.expect("pong").await;
    }
    for _ in 0..20 {
        // It may be over already, which is what is wanted.
        client.send_if_open(&message).await;
    }
    assert_eq!(client.closed().await, 4010);
}

#[tokio::test]
async fn a_channel_takes_no_more_than_its_rule_allows() {
    let mut tokens = Tokens::new();
    let rules = "[[channels]]\npattern = \"slow.*\"\nrate = \"2/s\"\n";
    let sidecar = TestSidecar::with_config(&format!("{}{rules}", Tokens::config())).await;
    let batch: Vec<_> = (0..6).map(|n| json!({"channel": "slow.a", "data": n})).collect();
    let answer = sidecar.publish(&json!(batch)).await;
    let codes: Vec<_> =
        answer["results"].as_array().expect("results").iter().map(|entry| entry["code"].as_str()).collect();
    assert_eq!(codes[..4], [None; 4]);
    assert_eq!(codes[4..], [Some("rate_limited"); 2]);
    let refused = sidecar.app().post_json("/v1/publish", &json!({"channel": "slow.a"})).await;
    assert_eq!(refused.refusal(429), "rate_limited");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(
        sidecar.publish(&json!({"channel": "slow.b"})).await["status"],
        "published",
        "each has its own"
    );
    for _ in 0..50 {
        assert_eq!(sidecar.publish(&json!({"channel": "fast"})).await["status"], "published");
    }
    let token = tokens.user("ann", &json!({"slow.*": ["pub"]}));
    let mut client =
        WebSocketClient::open(&sidecar.whereabouts().client(), &format!("/v1/ws?token={token}")).await;
    let mut refused = 0;
    for _ in 0..8 {
        client.send(&json!({"type": "publish", "channel": "slow.c", "data": 1})).await;
        let answer = client.next().await;
        refused += usize::from(answer["code"] == "rate_limited");
    }
    assert!(refused >= 2, "{refused} of 8");
    let metrics = sidecar.metrics().await;
    assert!(metrics.sum("sidewire_errors_total", &[("code", "rate_limited")]) >= 4.0);
}
