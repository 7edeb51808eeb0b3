//! The app's own session instead of a token: what the app is asked, what its answers do, and what happens when it
//! is down.

use crate::support::{
    Callee, Connection, HttpClient, Response, Setup, TestSidecar, Tokens, WebSocketClient, eventually,
};
use serde_json::{Value, json};

fn config(app: &Callee, more: &str) -> String {
    format!("[auth.webhook]\nurl = {:?}\n{more}", app.url)
}

async fn poll(client: &mut HttpClient, query: &str, headers: &[(&str, &str)]) -> Response {
    client.request("GET", &format!("/v1/poll?{query}&timeout=0"), headers, b"").await
}

fn ann() -> String {
    json!({"user": "ann", "channels": {"user.{sub}.>": ["sub"]}, "expires_in": 600}).to_string()
}

#[tokio::test]
async fn the_app_is_shown_what_is_listed_and_its_answer_counts() {
    let app = Callee::start().await;
    app.answers(200, &ann());
    let sidecar = TestSidecar::with_config(&config(&app, "headers = [\"cookie\", \"x-session\"]\n")).await;
    let mut client = sidecar.client();
    let headers = [
        ("Cookie", "PHPSESSID=abc; theme=dark"),
        ("X-Session", "1"),
        ("X-Secret", "hidden"),
        ("X-Forwarded-Host", "evil.example"),
    ];
    assert_eq!(poll(&mut client, "channel=user.ann.a", &headers).await.status(), 200);
    assert_eq!(poll(&mut client, "channel=user.bob.a", &headers).await.refusal(403), "forbidden");
    let asked = app.requests().remove(0);
    let (head, body) = asked.split_once("\r\n\r\n").expect("a request");
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /asked http/1.1\r\n"), "{head}");
    assert!(head.contains("cookie: phpsessid=abc; theme=dark") && head.contains("x-session: 1"), "{head}");
    assert!(!head.contains("hidden") && !head.contains("evil.example"), "{head}");
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body, json!({"ip": "127.0.0.1", "path": "/v1/poll", "channels": ["user.ann.a"]}));

    let asked = app.asked();
    assert_eq!(poll(&mut client, "channel=user.ann.a", &headers).await.status(), 200);
    assert_eq!(app.asked(), asked, "the same question again within `cache`");
    let other = [("Cookie", "PHPSESSID=other")];
    app.answers(403, "");
    assert_eq!(poll(&mut client, "channel=user.ann.a", &other).await.refusal(401), "unauthorized");
    app.answers(401, "");
    assert_eq!(poll(&mut client, "channel=user.ann.b", &other).await.refusal(401), "unauthorized");
    // Without a session there is nothing to ask about.
    let asked = app.asked();
    assert_eq!(poll(&mut client, "channel=user.ann.a", &[]).await.refusal(401), "unauthorized");
    assert_eq!(app.asked(), asked);
    assert!(!sidecar.log().contains("PHPSESSID"));
}

#[tokio::test]
async fn a_session_ends_when_the_app_said() {
    let app = Callee::start().await;
    app.answers(200, &json!({"user": "ann", "channels": {"a": ["sub"]}, "expires_in": 1}).to_string());
    let sidecar = TestSidecar::with_config(&config(&app, "")).await;
    let headers = [("Cookie", "s=1")];
    let address = sidecar.whereabouts().client();
    let (mut client, _) = WebSocketClient::open_with_welcome(&address, "/v1/ws?channel=a", &headers).await;
    client.expect("subscribed").await;
    assert_eq!(client.closed().await, 4104);
}

#[tokio::test]
async fn an_app_that_is_down_lets_nobody_in_or_who_was_in_as_configured() {
    let headers = [("Cookie", "s=1")];
    for (policy, status) in [("refuse", 503), ("cached", 200)] {
        let app = Callee::start().await;
        app.answers(200, &ann());
        let more = format!("on_error = {policy:?}\ncache = \"0s\"\ntimeout = \"1s\"\n");
        let sidecar = TestSidecar::with_config(&config(&app, &more)).await;
        let mut client = sidecar.client();
        assert_eq!(poll(&mut client, "channel=user.ann.a", &headers).await.status(), 200);
        for failure in [
            "",
            "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\n[]",
        ] {
            app.answers_raw(failure);
            assert_eq!(
                poll(&mut client, "channel=user.ann.a", &headers).await.status(),
                status,
                "{policy}: {failure}"
            );
        }
        // Who never was in stays out, and an app that is down is left alone.
        for _ in 0..10 {
            let answer = poll(&mut client, "channel=user.ann.b", &headers).await;
            assert_eq!(answer.refusal(503), "unavailable");
        }
        assert!(app.asked() <= 6, "{} calls", app.asked());
        sidecar.wait_for_log(&["does not answer", "rest_ms"]).await;
        app.answers(200, &ann());
        eventually("the app is asked again", async || {
            (poll(&mut sidecar.client(), "channel=user.ann.b", &headers).await.status() == 200).then_some(())
        })
        .await;
        sidecar.wait_for_log(&["answers again"]).await;
    }
}

#[tokio::test]
async fn nothing_a_client_sends_steers_the_call() {
    let (app, other) = (Callee::start().await, Callee::start().await);
    app.answers_raw(&format!("HTTP/1.1 307 X\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", other.url));
    other.answers(200, &ann());
    let sidecar = TestSidecar::with_config(&config(&app, "")).await;
    let address = sidecar.whereabouts().client();
    let host = other.url.trim_start_matches("http://").trim_end_matches("/asked");
    for head in [
        "GET /v1/poll?channel=user.ann.a HTTP/1.1\r\nHost: HOST\r\nCookie: s=1".to_owned(),
        "GET http://HOST/v1/poll?channel=user.ann.a HTTP/1.1\r\nHost: HOST\r\nCookie: s=1".to_owned(),
        "GET /v1/poll?channel=user.ann.a&url=http://HOST/ HTTP/1.1\r\nHost: a\r\nForwarded: host=HOST\r\nCookie: s=2".to_owned(),
    ] {
        let mut connection = Connection::open(&address).await.expect("connected");
        connection.write(format!("{}\r\n\r\n", head.replace("HOST", host)).as_bytes()).await.expect("written");
        let answer = connection.read_response().await.expect("answered");
        assert_eq!(answer.status(), 503, "a redirect is a failure: {}", answer.text());
    }
    assert_eq!(other.asked(), 0);
    assert!(app.asked() > 0);
    for (more, key) in [
        ("headers = []\n", "headers"),
        ("headers = [\"host\"]\n", "headers"),
        ("on_error = \"allow\"\n", "on_error"),
    ] {
        let said = Setup::new().config(&config(&app, more)).refused().await;
        assert!(said.contains(key), "{more}: {said}");
    }
}

#[tokio::test]
async fn a_token_goes_before_a_session() {
    let mut tokens = Tokens::new();
    let app = Callee::start().await;
    app.answers(200, &ann());
    let sidecar = TestSidecar::with_config(&format!("{}{}", Tokens::config(), config(&app, ""))).await;
    let token = tokens.user("bob", &json!({"b": ["sub"]}));
    let mut client = sidecar.client();
    let headers = [("Cookie", "s=1")];
    assert_eq!(poll(&mut client, &format!("channel=b&token={token}"), &headers).await.status(), 200);
    assert_eq!(poll(&mut client, "channel=b&token=bad", &headers).await.refusal(401), "unauthorized");
    assert_eq!(app.asked(), 0);
    assert_eq!(poll(&mut client, "channel=user.ann.a", &headers).await.status(), 200);
}
