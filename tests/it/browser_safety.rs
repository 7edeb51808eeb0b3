//! Which names the node answers to, and which browsers it serves: a web page must not reach the API on localhost,
//! neither by DNS rebinding nor by a request across sites.

use crate::support::{
    Address, Connection, HttpClient, Response, TestSidecar, WebSocketClient, upgrade_request, within,
};
use serde_json::json;

/// Sends a request line and headers as they are.
async fn raw(address: &Address, head: &str) -> Response {
    let mut connection = Connection::open(address).await.expect("connected");
    connection.write(format!("{head}\r\n\r\n").as_bytes()).await.expect("written");
    within(head, connection.read_response()).await.unwrap_or_else(|error| panic!("{head}: {error}"))
}

#[tokio::test]
async fn a_foreign_host_is_421_on_every_path_of_app_and_admin() {
    let mut sidecar = TestSidecar::start().await;
    let targets = [
        ("app", "/v1/publish"),
        ("app", "/v1/events"),
        ("app", "/nowhere"),
        ("admin", "/metrics"),
        ("admin", "/healthz"),
        ("admin", "/readyz"),
        ("admin", "/v1/config"),
    ];
    for (listener, target) in targets {
        let address = sidecar.whereabouts().all(listener)[0].clone();
        let port = address.tcp().port();
        for host in [
            "evil.example",
            &format!("evil.example:{port}"),
            "evil.example.",
            "EVIL.EXAMPLE",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "0.0.0.0",
            &format!("0.0.0.0:{port}"),
            "192.168.0.1",
            "[::ffff:192.168.0.1]",
            "localhostx",
            "xn--localhost-",
        ] {
            let answer = raw(&address, &format!("GET {target} HTTP/1.1\r\nHost: {host}")).await;
            assert!(matches!(answer.status(), 400 | 421), "{host} on {target}: {}", answer.status());
            if host.to_ascii_lowercase().contains("evil") && !host.contains('@') {
                assert_eq!(answer.refusal(421), "wrong_host", "{host} on {target}");
            }
        }
        for (what, head) in [
            ("an absolute target", format!("GET http://evil.example{target} HTTP/1.1\r\nHost: localhost")),
            (
                "an absolute target that agrees",
                format!("GET http://evil.example{target} HTTP/1.1\r\nHost: evil.example"),
            ),
            ("two hosts", format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nHost: evil.example")),
            (
                "two hosts, the other way",
                format!("GET {target} HTTP/1.1\r\nHost: evil.example\r\nHost: localhost"),
            ),
            ("no host", format!("GET {target} HTTP/1.1\r\nAccept: */*")),
            ("an empty host", format!("GET {target} HTTP/1.1\r\nHost:")),
        ] {
            let answer = raw(&address, &head).await;
            assert!(matches!(answer.status(), 400 | 421), "{what} on {target}: {}", answer.status());
        }
    }
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn a_foreign_host_is_refused_before_its_body_is_read() {
    let sidecar = TestSidecar::start().await;
    let head = "POST /v1/publish HTTP/1.1\r\nHost: evil.example\r\nContent-Type: application/json\r\nContent-Length: 1000";
    let answer = raw(&sidecar.whereabouts().app(), head).await;
    assert_eq!(answer.refusal(421), "wrong_host");
}

#[tokio::test]
async fn loopback_names_and_the_listeners_own_address_are_answered() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().app();
    let port = address.tcp().port();
    for host in [
        "localhost",
        "LocalHost",
        "localhost.",
        "127.0.0.1",
        "127.1.2.3",
        "[::1]",
        &format!("localhost:{port}"),
        &format!("127.0.0.1:{port}"),
        &format!("[::1]:{port}"),
        // A port that was forwarded here.
        "localhost:8080",
    ] {
        let answer = raw(&address, &format!("GET /v1/events?channel=a HTTP/1.1\r\nHost: {host}")).await;
        assert_eq!(answer.status(), 200, "{host}: {}", answer.text());
    }
    let absolute =
        format!("GET http://localhost:{port}/v1/events?channel=a HTTP/1.1\r\nHost: localhost:{port}");
    assert_eq!(raw(&address, &absolute).await.status(), 200);
}

#[tokio::test]
async fn the_operator_may_add_names() {
    let config = "[app]\nallowed_hosts = [\"sidewire.internal\"]\n";
    let sidecar = TestSidecar::with_config(config).await;
    let address = sidecar.whereabouts().app();
    for (host, status) in [
        ("sidewire.internal", 200),
        ("SIDEWIRE.internal:7070", 200),
        ("localhost", 200),
        ("other.internal", 421),
        ("sidewire.internal.evil.example", 421),
    ] {
        let answer = raw(&address, &format!("GET /v1/events?channel=a HTTP/1.1\r\nHost: {host}")).await;
        assert_eq!(answer.status(), status, "{host}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_page_of_another_site_cannot_use_the_app_or_admin_listener() {
    let sidecar = TestSidecar::start().await;
    let body = br#"{"channel":"csrf","data":1}"#;
    for headers in [
        &[("Origin", "https://evil.example")][..],
        &[("Origin", "null")],
        &[("Origin", "http://localhost:3000"), ("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Origin", "https://evil.example"), ("Sec-Fetch-Site", "none")],
    ] {
        for kind in ["application/json", "text/plain", "application/x-www-form-urlencoded"] {
            let mut all = vec![("Content-Type", kind)];
            all.extend_from_slice(headers);
            let answer = sidecar.app().request("POST", "/v1/publish", &all, body).await;
            assert_eq!(answer.refusal(403), "forbidden", "{all:?}");
            assert!(answer.header("access-control-allow-origin").is_none(), "{all:?}");
        }
        for (client, target) in [(sidecar.admin(), "/metrics"), (sidecar.app(), "/v1/events?channel=a")] {
            let mut client: HttpClient = client;
            let answer = client.request("GET", target, headers, b"").await;
            assert_eq!(answer.refusal(403), "forbidden", "{target} {headers:?}");
        }
    }
    let preflight = [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "POST")];
    let answer = sidecar.app().request("OPTIONS", "/v1/publish", &preflight, b"").await;
    assert!(answer.status() >= 400, "{}", answer.status());
    assert!(answer.header("access-control-allow-origin").is_none());
    assert!(sidecar.last("csrf").await.is_none(), "nothing was published");

    // Programs send neither header; a page of the listener's own, such as a dashboard, sends these.
    let own = format!("http://{}", sidecar.whereabouts().admin());
    for headers in
        [&[("Sec-Fetch-Site", "none")][..], &[("Origin", &*own), ("Sec-Fetch-Site", "same-origin")]]
    {
        assert_eq!(
            sidecar.admin().request("GET", "/healthz", headers, b"").await.status(),
            200,
            "{headers:?}"
        );
    }
}

/// What a page of that origin gets: from a plain request, a preflight and a WebSocket.
async fn served(sidecar: &TestSidecar, origin: &str) -> bool {
    let address = sidecar.whereabouts().client();
    let answer =
        sidecar.client().request("GET", "/v1/poll?channel=a&timeout=0", &[("Origin", origin)], b"").await;
    let allowed = answer.header("access-control-allow-origin").map(str::to_owned);
    if let Some(allowed) = &allowed {
        assert_eq!((answer.status(), &**allowed), (200, origin));
        let varies = answer.header("vary").unwrap_or_default().to_ascii_lowercase();
        assert!(varies.contains("origin"), "a cache must not mix origins: Vary: {varies:?}");
    }

    let headers = [
        ("Origin", origin),
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "last-event-id, authorization"),
    ];
    let preflight = sidecar.client().request("OPTIONS", "/v1/sse?channel=a", &headers, b"").await;
    let preflight_allowed = preflight.header("access-control-allow-origin") == Some(origin);
    if preflight_allowed {
        assert!(matches!(preflight.status(), 200 | 204), "{}", preflight.status());
        let methods = preflight.header("access-control-allow-methods").unwrap_or_default();
        assert!(methods.contains("GET"), "{methods}");
        let allowed =
            preflight.header("access-control-allow-headers").unwrap_or_default().to_ascii_lowercase();
        assert!(allowed.contains("last-event-id") && allowed.contains("authorization"), "{allowed}");
    }

    let mut connection = Connection::open(&address).await.expect("connected");
    let request = upgrade_request(&address, "/v1/ws", &format!("Origin: {origin}\r\n"));
    connection.write(&request).await.expect("written");
    let head = within("an answer to the upgrade", connection.read_head()).await.expect("a head");
    let upgraded = head.status == 101;
    if !upgraded {
        assert_eq!(head.status, 403, "a WebSocket of {origin}");
    }

    assert_eq!((allowed.is_some(), preflight_allowed), (upgraded, upgraded), "all ways agree on {origin}");
    upgraded
}

#[tokio::test]
async fn without_a_list_the_own_origin_and_loopback_pages_are_served() {
    let sidecar = TestSidecar::start().await;
    let own = format!("http://{}", sidecar.whereabouts().client());
    for origin in
        [&*own, "http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:5173", "https://localhost"]
    {
        assert!(served(&sidecar, origin).await, "{origin}");
    }
    for origin in [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://notlocalhost",
        "http://192.168.0.1",
        "file://",
    ] {
        assert!(!served(&sidecar, origin).await, "{origin}");
    }
}

#[tokio::test]
async fn with_a_list_just_those_origins_are_served() {
    let config =
        "[client]\nallowed_origins = [\"https://app.example.com\", \"http://dev.example.com:8080\"]\n";
    let sidecar = TestSidecar::with_config(config).await;
    for origin in ["https://app.example.com", "http://dev.example.com:8080"] {
        assert!(served(&sidecar, origin).await, "{origin}");
    }
    for origin in [
        "https://app.example.com.evil.example",
        "https://evil-app.example.com",
        "https://app.example.com:8443",
        "http://app.example.com",
        "http://dev.example.com",
        "http://localhost:3000",
        "null",
    ] {
        assert!(!served(&sidecar, origin).await, "{origin}");
    }
}

#[tokio::test]
async fn who_sends_no_origin_is_no_browser_and_is_served() {
    let sidecar =
        TestSidecar::with_config("[client]\nallowed_origins = [\"https://app.example.com\"]\n").await;
    let answer = sidecar.client().get("/v1/poll?channel=a&timeout=0").await;
    assert_eq!(answer.status(), 200);
    assert!(answer.header("access-control-allow-origin").is_none());
    WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws").await;
    // It may come by any name: the client listener is the public one.
    let address = sidecar.whereabouts().client();
    let head = "GET /v1/poll?channel=a&timeout=0 HTTP/1.1\r\nHost: live.example.com";
    assert_eq!(raw(&address, head).await.status(), 200);
}

#[tokio::test]
async fn an_error_can_be_read_by_the_page_that_caused_it() {
    let sidecar = TestSidecar::start().await;
    let headers = [("Origin", "http://localhost:3000")];
    let answer = sidecar.client().request("GET", "/v1/poll?channel=a%20b", &headers, b"").await;
    assert_eq!(answer.refusal(400), "invalid_channel");
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:3000"));
}

#[tokio::test]
async fn clients_publish_only_with_a_right_to() {
    let sidecar = TestSidecar::start().await;
    let answer = sidecar.client().post_json("/v1/publish", &json!({"channel": "a", "data": 1})).await;
    assert!(matches!(answer.status(), 401 | 403), "{}", answer.text());
    assert!(sidecar.last("a").await.is_none());
}
