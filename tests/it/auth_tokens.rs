//! Tokens: every way to sign and to give one, and every way to forge one.

use crate::support::{
    Connection, HttpClient, Key, Response, Setup, TestSidecar, Tokens, WebSocketClient, in_seconds,
    upgrade_request, within,
};
use serde_json::{Value, json};

fn claims() -> Value {
    json!({"sub": "ann", "channels": {"a": ["sub", "history"]}})
}

async fn events(client: &mut HttpClient, token: &str) -> Response {
    let bearer = format!("Bearer {token}");
    client.request("GET", "/v1/events?channel=a", &[("Authorization", &bearer)], b"").await
}

/// A handshake's answer, with headers of the client's choice.
async fn handshake(sidecar: &TestSidecar, target: &str, headers: &str) -> u16 {
    let address = sidecar.whereabouts().client();
    let mut connection = Connection::open(&address).await.expect("connected");
    connection.write(&upgrade_request(&address, target, headers)).await.expect("written");
    within("the head of an answer", connection.read_head()).await.expect("answered").status
}

#[tokio::test]
async fn every_algorithm_of_another_implementation_is_understood_and_none_that_does_not_fit_the_key() {
    let mut tokens = Tokens::new();
    for (key, algorithms, other) in [
        (Key::Secret, &["HS256", "HS384", "HS512"][..], Key::Rsa),
        (Key::Rsa, &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"], Key::OtherRsa),
        (Key::P256, &["ES256"], Key::P384),
        (Key::P384, &["ES384"], Key::P256),
        (Key::Ed25519, &["EdDSA"], Key::P256),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let config = if key == Key::Secret {
            // By a file, with the line break that editors put there.
            let path = directory.path().join("secret");
            std::fs::write(&path, format!("{}\n", Tokens::SECRET)).expect("written");
            format!("[auth]\nsecret_file = {path:?}\n")
        } else {
            let path = directory.path().join("key.pem");
            std::fs::write(&path, tokens.pem(key)).expect("written");
            format!("[auth]\npublic_key_file = {path:?}\n")
        };
        let sidecar = TestSidecar::with_config(&config).await;
        let mut client = sidecar.client();
        for algorithm in algorithms {
            let token = tokens.signed(key, algorithm, &json!({}), &claims());
            assert_eq!(events(&mut client, &token).await.status(), 200, "{algorithm}");
        }
        let algorithm = match other {
            Key::Rsa | Key::OtherRsa => "RS256",
            Key::P384 => "ES384",
            _ => "ES256",
        };
        let token = tokens.signed(other, algorithm, &json!({}), &claims());
        assert_eq!(events(&mut client, &token).await.refusal(401), "unauthorized", "{other:?} for {key:?}");
    }
}

#[tokio::test]
async fn forged_and_stale_tokens_are_401_and_the_log_alone_says_why() {
    let mut tokens = Tokens::new();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key.pem");
    let pem = tokens.pem(Key::Rsa);
    std::fs::write(&path, &pem).expect("written");
    let config = format!("[auth]\npublic_key_file = {path:?}\naudience = \"sidewire\"\nissuer = [\"me\"]\n");
    let sidecar = TestSidecar::with_config(&config).await;
    let mut client = sidecar.client();
    let claims = |more: Value| {
        let mut claims = claims();
        claims["iss"] = "me".into();
        claims["aud"] = "sidewire".into();
        claims["exp"] = in_seconds(600).into();
        for (name, value) in more.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        claims
    };
    let good = claims(json!({}));
    let none = json!({});
    let mut signed = |headers: &Value, claims: &Value| tokens.signed(Key::Rsa, "RS256", headers, claims);
    let taken = [
        signed(&none, &good),
        signed(&json!({"kid": "../../../dev/null"}), &good),
        signed(&json!({"kid": "' OR 1=1 --", "jku": "http://169.254.169.254/keys"}), &good),
        signed(&none, &claims(json!({"aud": ["other", "sidewire"]}))),
    ];
    for (what, token) in taken.iter().enumerate() {
        assert_eq!(events(&mut client, token).await.status(), 200, "good token {what}");
    }
    let mut refused = vec![
        signed(&none, &claims(json!({"exp": in_seconds(-30)}))),
        signed(&none, &claims(json!({"exp": in_seconds(600).to_string()}))),
        signed(&none, &claims(json!({"exp": null}))),
        signed(&none, &claims(json!({"nbf": in_seconds(600)}))),
        signed(&none, &claims(json!({"aud": "another"}))),
        signed(&none, &claims(json!({"aud": null}))),
        signed(&none, &claims(json!({"iss": "you"}))),
        signed(&none, &claims(json!({"channels": {"a": ["root"]}}))),
        signed(&none, &claims(json!({"channels": {"user.{sub}": ["sub"]}, "sub": "a.>"}))),
        signed(&json!({"crit": ["exp"]}), &good),
    ];
    // The key that a token brings along is its own business.
    let jwk = tokens.jwk(Key::OtherRsa, "mine");
    refused.push(tokens.signed(Key::OtherRsa, "RS256", &json!({"jwk": jwk, "kid": "mine"}), &good));
    refused.push(tokens.forged(&json!({"alg": "none"}), &good, None));
    refused.push(tokens.forged(&json!({"alg": "nOnE"}), &good, None));
    refused.push(tokens.forged(&json!({"alg": "HS256", "typ": "JWT"}), &good, Some(&pem)));
    refused.push(tokens.forged(&json!({"alg": "HS256", "typ": "JWT"}), &good, Some("")));
    let (message, _) = taken[0].rsplit_once('.').expect("three parts");
    refused.extend([message.to_owned(), format!("{message}."), format!("{}x", taken[0]), String::new()]);
    refused.extend(["..".to_owned(), "x".repeat(30_000)]);
    let mut told = Vec::new();
    for (what, token) in refused.iter().enumerate() {
        let answer = events(&mut client, token).await;
        assert_eq!(answer.refusal(401), "unauthorized", "bad token {what}: {token}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        told.push(answer.text());
    }
    told.push(client.get("/v1/events?channel=a").await.text());
    told.dedup();
    assert_eq!(told.len(), 1, "the same words for all: {told:?}");
    sidecar.wait_for_log(&["refused", "expired"]).await;
    let log = sidecar.log();
    assert!(refused.iter().filter(|token| token.len() > 20).all(|token| !log.contains(token)), "{log}");
}

#[tokio::test]
async fn a_token_may_come_by_header_cookie_parameter_subprotocol_and_first_message() {
    let mut tokens = Tokens::new();
    let token = tokens.token(&claims());
    let config = format!("{}cookie = \"session\"\ntimeout = \"500ms\"\n", Tokens::config());
    let sidecar = TestSidecar::with_config(&config).await;
    let address = sidecar.whereabouts().client();
    let target = "/v1/ws?channel=a";
    for (header, value) in [
        ("Authorization", format!("Bearer {token}")),
        ("Cookie", format!("theme=dark; session={token}")),
        ("Sec-WebSocket-Protocol", format!("sidewire.v1.json, sidewire.token.{token}")),
    ] {
        let (mut client, _) = WebSocketClient::open_with_welcome(&address, target, &[(header, &value)]).await;
        client.expect("subscribed").await;
        let chosen = client.response.headers().get("sec-websocket-protocol");
        assert!(chosen.is_none_or(|chosen| chosen == "sidewire.v1.json"), "{chosen:?}");
    }
    WebSocketClient::open(&address, &format!("{target}&token={token}")).await.expect("subscribed").await;

    let mut late = WebSocketClient::open(&address, target).await;
    late.send(&json!({"type": "subscribe", "id": 1, "channels": ["a"]})).await;
    assert_eq!(late.expect("error").await["code"], "unauthorized");
    late.send(&json!({"type": "auth", "id": 2, "token": token})).await;
    let answer = late.expect("authenticated").await;
    assert_eq!((&answer["id"], &answer["user"]), (&json!(2), &json!("ann")));
    assert_eq!(late.expect("subscribed").await["channels"], json!(["a"]), "what the URL asked for");

    let mut silent = WebSocketClient::open(&address, target).await;
    assert_eq!(silent.closed().await, 4101);
    let mut wrong = WebSocketClient::open(&address, target).await;
    wrong.send(&json!({"type": "auth", "token": format!("{token}x")})).await;
    assert_eq!(wrong.expect("error").await["code"], "unauthorized");
    assert_eq!(wrong.closed().await, 4101);

    let bad = format!("Authorization: Bearer {token}x\r\n");
    assert_eq!(handshake(&sidecar, target, &bad).await, 401);
    for target in ["/v1/sse?channel=a", "/v1/stream?channel=a", "/v1/poll?channel=a&timeout=0", "/v1/events"]
    {
        assert_eq!(sidecar.client().get(target).await.refusal(401), "unauthorized", "{target}");
    }
}

#[tokio::test]
async fn a_cookie_counts_only_for_pages_that_may_come() {
    let mut tokens = Tokens::new();
    let token = tokens.token(&claims());
    let config = format!(
        "[client]\nallowed_origins = [\"https://app.example.com\"]\n{}cookie = \"session\"\n",
        Tokens::config()
    );
    let sidecar = TestSidecar::with_config(&config).await;
    let with = |origin: &str| format!("Origin: {origin}\r\nCookie: session={token}\r\n");
    assert_eq!(handshake(&sidecar, "/v1/ws?channel=a", &with("https://app.example.com")).await, 101);
    for origin in
        ["https://evil.example", "null", "https://app.example.com.evil.com", "http://app.example.com", ""]
    {
        assert_eq!(handshake(&sidecar, "/v1/ws?channel=a", &with(origin)).await, 403, "{origin:?}");
    }
    for target in ["/v1/poll?channel=a&timeout=0", "/v1/sse?channel=a"] {
        let mut connection = Connection::open(&sidecar.whereabouts().client()).await.expect("connected");
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{}\r\n", with("https://app.example.com"));
        connection.write(request.as_bytes()).await.expect("written");
        let head = within(target, connection.read_head()).await.expect("answered");
        assert_eq!(
            (head.status, head.header("access-control-allow-credentials")),
            (200, Some("true")),
            "{target}"
        );
    }
    // Who sends no origin is no browser, and needs a token like everybody.
    let bare = format!("Cookie: session={token}\r\n");
    assert_eq!(handshake(&sidecar, "/v1/ws?channel=a", &bare).await, 101);
    assert_eq!(handshake(&sidecar, "/v1/ws?channel=a", "Cookie: session=x\r\n").await, 401);
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_refused_at_the_start_and_a_reload_keeps_the_old_ones() {
    for (config, words) in [
        ("[auth]\nsecret_file = \"/nowhere/secret\"\n", "auth.secret_file"),
        ("[auth]\npublic_key_file = \"config.toml\"\n", "auth.public_key_file"),
        ("[auth]\nsecret = \"abc\"\nalgorithms = [\"RS256\"]\n", "auth.algorithms"),
    ] {
        let said = Setup::new().config(config).refused().await;
        assert!(said.contains(words), "{words}: {said}");
    }
    let mut tokens = Tokens::new();
    let token = tokens.token(&claims());
    let mut sidecar = TestSidecar::with_config(&Tokens::config()).await;
    sidecar.rewrite_config("[auth]\nsecret_file = \"/nowhere/secret\"\n");
    sidecar.signal(rustix::process::Signal::HUP);
    sidecar.wait_for_log(&["not reloaded", "/nowhere/secret"]).await;
    assert_eq!(events(&mut sidecar.client(), &token).await.status(), 200);
    sidecar.rewrite_config("[auth]\nsecret = \"another secret, which is long enough for HS256\"\n");
    sidecar.signal(rustix::process::Signal::HUP);
    sidecar.wait_for_log(&["configuration reloaded"]).await;
    assert_eq!(events(&mut sidecar.client(), &token).await.status(), 401);
    let shown = sidecar.admin().get("/v1/config").await.text();
    assert!(!shown.contains("another secret"), "{shown}");
}
