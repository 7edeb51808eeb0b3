//! The keys that an issuer publishes: fetched, rotated, out of reach.

use crate::support::{Callee, HttpClient, Key, Response, Setup, TestSidecar, Tokens};
use serde_json::{Value, json};

fn publish(issuer: &Callee, keys: &[Value]) {
    issuer.answers(200, &json!({"keys": keys}).to_string());
}

fn config(issuer: &Callee) -> String {
    format!("[auth]\njwks_url = {:?}\n", issuer.url)
}

async fn events(client: &mut HttpClient, token: &str) -> Response {
    let bearer = format!("Bearer {token}");
    client.request("GET", "/v1/events?channel=a", &[("Authorization", &bearer)], b"").await
}

fn claims() -> Value {
    json!({"sub": "ann", "channels": {"a": ["history"]}})
}

#[tokio::test]
async fn keys_are_fetched_once_and_again_for_a_new_name_and_survive_the_issuer() {
    let mut tokens = Tokens::new();
    let issuer = Callee::start().await;
    publish(&issuer, &[tokens.jwk(Key::Rsa, "one")]);
    let sidecar = TestSidecar::with_config(&config(&issuer)).await;
    let mut client = sidecar.client();
    let one = tokens.signed(Key::Rsa, "RS256", &json!({"kid": "one"}), &claims());
    let two = tokens.signed(Key::P256, "ES256", &json!({"kid": "two"}), &claims());
    for _ in 0..3 {
        assert_eq!(events(&mut client, &one).await.status(), 200);
    }
    assert_eq!(issuer.asked(), 1);

    publish(&issuer, &[tokens.jwk(Key::P256, "two")]);
    assert_eq!(events(&mut client, &two).await.status(), 200);
    assert_eq!(issuer.asked(), 2, "one fetch for a new name");
    assert_eq!(events(&mut client, &one).await.refusal(401), "unauthorized", "it was rotated out");

    issuer.answers(500, "");
    for number in 0..50 {
        let made_up = tokens.signed(Key::OtherRsa, "RS256", &json!({"kid": format!("x{number}")}), &claims());
        assert_eq!(events(&mut client, &made_up).await.refusal(401), "unauthorized");
    }
    assert!(issuer.asked() <= 6, "{} fetches for made-up names", issuer.asked());
    drop(issuer);
    assert_eq!(events(&mut client, &two).await.status(), 200, "what is known goes on counting");
}

#[tokio::test]
async fn an_issuer_that_is_away_or_sends_elsewhere_brings_no_keys() {
    let mut tokens = Tokens::new();
    let token = tokens.signed(Key::Rsa, "RS256", &json!({"kid": "one"}), &claims());
    let good = Callee::start().await;
    publish(&good, &[tokens.jwk(Key::Rsa, "one")]);
    let keys = json!({"keys": [tokens.jwk(Key::Rsa, "one")], "padding": "x".repeat(2 << 20)}).to_string();
    for answer in [
        "".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]".to_owned(),
        format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", good.url),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{keys}", keys.len()),
    ] {
        let issuer = Callee::start().await;
        issuer.answers_raw(&answer);
        let sidecar = TestSidecar::with_config(&config(&issuer)).await;
        let refused = events(&mut sidecar.client(), &token).await;
        assert_eq!(refused.refusal(503), "unavailable");
        assert!(refused.header("retry-after").is_some());
        sidecar.wait_for_log(&["keys of the issuer cannot be fetched"]).await;
    }
    assert_eq!(good.asked(), 0, "no redirect is followed");
}

#[tokio::test]
async fn an_address_that_only_looks_like_a_host_is_refused_at_the_start() {
    for url in [
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/keys",
        "http://2130706433/keys",
        "http://0x7f.1/keys",
        "https://user:password@issuer.example/keys",
        "file:///etc/passwd",
        "http://issuer.example/keys",
    ] {
        let said = Setup::new().config(&format!("[auth]\njwks_url = {url:?}\n")).refused().await;
        assert!(said.contains("auth.jwks_url") && !said.contains("password@"), "{url}: {said}");
    }
    // Addresses where clouds keep their secrets are not called, with TLS or without.
    let mut tokens = Tokens::new();
    let token = tokens.signed(Key::Rsa, "RS256", &json!({"kid": "one"}), &claims());
    for url in
        ["https://169.254.169.254/keys", "https://[::ffff:169.254.169.254]/keys", "https://[fe80::1]/keys"]
    {
        let sidecar = TestSidecar::with_config(&format!("[auth]\njwks_url = {url:?}\n")).await;
        assert_eq!(events(&mut sidecar.client(), &token).await.refusal(503), "unavailable", "{url}");
        sidecar.wait_for_log(&["is not called"]).await;
    }
}
