//! Probes, metrics, signals and logs: what an operator relies on.

use crate::support::{
    Setup, SseClient, Subscription, TestSidecar, Transport, WebSocketClient, eventually, within,
};
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn it_runs_without_any_configuration_and_says_where_it_listens() {
    let mut sidecar = TestSidecar::start().await;
    for listener in ["app", "client", "admin"] {
        let address = sidecar.whereabouts().all(listener)[0].tcp();
        assert!(address.ip().is_loopback() && address.port() != 0, "{listener}: {address}");
    }
    assert!(sidecar.started_in() < Duration::from_secs(5), "{:?}", sidecar.started_in());
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn healthz_tells_that_it_is_alive() {
    let sidecar = TestSidecar::start().await;
    let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws?channel=a").await;
    client.expect("subscribed").await;
    let health = sidecar.admin().get("/healthz").await.success();
    assert_eq!((&health["status"], &health["connections"]), (&json!("ok"), &json!(1)), "{health}");
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert!(health["uptime_s"].is_number(), "{health}");
}

#[tokio::test]
async fn readyz_is_on_once_a_probe_has_come_back() {
    let sidecar = TestSidecar::with_config("[bus]\nprobe_interval = \"100ms\"\n").await;
    let ready = eventually("readiness", async || {
        let answer = sidecar.admin().get("/readyz").await;
        (answer.status() == 200).then_some(answer)
    })
    .await;
    assert!(ready.json().is_object());
}

#[tokio::test]
async fn metrics_are_prometheus_text_and_tell_what_has_happened() {
    let sidecar = TestSidecar::start().await;
    let address = sidecar.whereabouts().client();
    let cursor = sidecar.cursor_now().await;
    sidecar.publish_numbers("a", 0..5).await;
    let page = sidecar.client().get(&format!("/v1/poll?channel=a&timeout=0&cursor={cursor}")).await;
    assert_eq!(page.json()["events"].as_array().map(Vec::len), Some(5));
    let mut live = Vec::new();
    for transport in [Transport::WebSocket, Transport::Sse, Transport::Stream] {
        let mut subscription = Subscription::open(transport, &address, "channel=a", Some(&cursor)).await;
        assert_eq!(subscription.numbers(5).await, [0, 1, 2, 3, 4]);
        live.push(subscription);
    }
    sidecar.publish_numbers("a", 5..7).await;
    for subscription in &mut live {
        assert_eq!(subscription.numbers(2).await, [5, 6]);
    }
    sidecar.app().post_json("/v1/publish", &json!({"channel": "bad channel"})).await.refusal(400);

    let page = sidecar.admin().get("/metrics").await;
    let kind = page.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "{kind}");
    let metrics = eventually("metrics of what was delivered", async || {
        let metrics = sidecar.metrics().await;
        (metrics.sum("sidewire_delivered_events_total", &[]) >= 26.0).then_some(metrics)
    })
    .await;
    for sample in &metrics.samples {
        assert!(sample.name.starts_with("sidewire_"), "{sample:?}");
        assert!(!sample.value.is_nan(), "{sample:?}");
    }
    for name in metrics.kinds.keys() {
        assert!(name.starts_with("sidewire_"), "{name}");
    }
    for transport in ["websocket", "sse", "stream"] {
        assert_eq!(metrics.sum("sidewire_connections", &[("transport", transport)]), 1.0, "{transport}");
    }
    assert_eq!(metrics.sum("sidewire_published_events_total", &[]), 7.0);
    assert_eq!(metrics.sum("sidewire_subscriptions", &[]), 3.0);
    assert_eq!(metrics.sum("sidewire_channels", &[]), 1.0);
    for transport in ["websocket", "sse", "stream", "poll"] {
        assert_eq!(metrics.sum("sidewire_replayed_events_total", &[("transport", transport)]), 5.0);
    }
    assert!(metrics.sum("sidewire_errors_total", &[("code", "invalid_channel")]) >= 1.0);
    for name in [
        "sidewire_published_bytes_total",
        "sidewire_delivered_bytes_total",
        "sidewire_replayed_bytes_total",
        "sidewire_log_disk_bytes",
        "sidewire_log_sync_duration_seconds",
        "sidewire_log_sync_events",
        "sidewire_log_oldest_event_timestamp_seconds",
        "sidewire_log_reclaimed_bytes",
        "sidewire_slow_client_falls_total",
    ] {
        assert!(metrics.has(name), "{name} is missing among {:?}", metrics.kinds.keys());
    }
    for name in ["sidewire_publish_duration_seconds", "sidewire_delivery_duration_seconds"] {
        assert_eq!(metrics.kinds[name], "histogram", "{name}");
        let all = metrics.sum(&format!("{name}_bucket"), &[("le", "+Inf")]);
        assert_eq!(all, metrics.sum(&format!("{name}_count"), &[]), "{name}");
        // Deliveries are measured by samples, of which there may be none yet.
        assert!(all > 0.0 || name.contains("delivery"), "{name} has counted");
    }
}

#[tokio::test]
async fn sigterm_turns_readiness_off_tells_clients_and_ends_with_0() {
    let mut sidecar = TestSidecar::with_config("[client]\ndrain = \"1s\"\n").await;
    let address = sidecar.whereabouts().client();
    let mut sockets = Vec::new();
    for _ in 0..5 {
        let mut client = WebSocketClient::open(&address, "/v1/ws?channel=a").await;
        client.expect("subscribed").await;
        sockets.push(client);
    }
    let mut stream = SseClient::open(&address, "/v1/sse?channel=a", &[]).await;
    let mut poll = sidecar.client();
    let poll = tokio::spawn(async move { poll.get("/v1/poll?channel=a&timeout=60").await });
    sidecar.wait_for_subscribers("a", 7).await;
    sidecar.publish_numbers("a", 0..3).await;

    let begin = Instant::now();
    sidecar.signal(Signal::TERM);
    for client in &mut sockets {
        assert_eq!(client.next_numbers(3).await, [0, 1, 2], "what was published is delivered first");
        assert_eq!(client.closed().await, 1001);
        let bye = client.bye.as_ref().expect("a bye comes before the close");
        assert_eq!(bye["code"], 1001, "{bye}");
        assert!(bye["reason"].is_string() && !bye["retry"].is_null(), "{bye}");
    }
    let events = stream.rest().await;
    assert!(!events.is_empty(), "what was published was delivered first");
    assert_eq!(poll.await.expect("answered").status(), 200, "a waiting poll is answered");
    let status = sidecar.ended().await;
    assert_eq!(status.code(), Some(0), "{}", sidecar.log());
    assert!(begin.elapsed() < Duration::from_secs(15), "it took {:?}", begin.elapsed());
}

#[tokio::test]
async fn while_it_drains_it_is_not_ready_and_what_it_has_accepted_is_kept() {
    let mut sidecar = TestSidecar::with_config("[client]\ndrain = \"1s\"\n").await;
    let mut admin = sidecar.admin();
    let mut app = sidecar.app();
    assert_eq!(admin.get("/healthz").await.status(), 200);
    let mut accepted = 0;
    app.post_json("/v1/publish", &json!({"channel": "a", "data": {"n": 0}})).await.success();
    // Someone who is connected keeps the drain going for a moment.
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws?channel=b").await);
    }
    sidecar.signal(Signal::TERM);
    let mut was_off = false;
    loop {
        if !was_off && let Ok(answer) = admin.try_request("GET", "/readyz", &[], b"").await {
            was_off = answer.status() == 503;
        }
        let body = json!({"channel": "a", "data": {"n": accepted + 1}}).to_string();
        let headers = [("Content-Type", "application/json")];
        match within("an answer", app.try_request("POST", "/v1/publish?ack=none", &headers, body.as_bytes()))
            .await
        {
            Ok(answer) if answer.status() == 200 => accepted += 1,
            _ => break,
        }
    }
    assert!(was_off, "readiness goes off before the node does");
    assert_eq!(sidecar.ended().await.code(), Some(0), "{}", sidecar.log());
    sidecar.start_again().await;
    let kept = crate::support::numbers(&sidecar.all_events("channel=a").await);
    assert!(kept.len() as u64 > accepted, "{accepted} accepted with ack=none, kept {kept:?}");
}

#[tokio::test]
async fn sigint_ends_it_too() {
    let mut sidecar = TestSidecar::start().await;
    sidecar.signal(Signal::INT);
    assert_eq!(sidecar.ended().await.code(), Some(0), "{}", sidecar.log());
}

#[tokio::test]
async fn a_second_node_on_the_same_data_directory_is_refused_and_the_first_unharmed() {
    let mut sidecar = TestSidecar::start().await;
    sidecar.publish_numbers("a", 0..10).await;
    let said = Setup::new().data_directory(sidecar.data()).refused().await;
    assert!(said.contains(&*sidecar.data().to_string_lossy()), "it names the directory: {said}");
    sidecar.publish_numbers("a", 10..20).await;
    assert_eq!(sidecar.all_events("channel=a").await.len(), 20);
    sidecar.still_healthy().await;
    // A node that was killed leaves nothing behind that keeps out the next one.
    sidecar.kill_and_start_again().await;
    assert_eq!(sidecar.all_events("channel=a").await.len(), 20);
}

#[tokio::test]
async fn an_address_that_is_taken_is_refused_with_its_name() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let said = Setup::new().listen("client", &address).refused().await;
    assert!(said.contains(&address), "{said}");
}

#[tokio::test]
async fn a_unix_socket_takes_the_place_of_nothing_but_a_socket_that_nobody_listens_on() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("file"), "precious").expect("the directory can be written");
    std::os::unix::fs::symlink(at("file"), at("link")).expect("the directory can be written");
    let listening = std::os::unix::net::UnixListener::bind(at("live")).expect("a free path");
    std::os::unix::fs::symlink(at("live"), at("link-to-live")).expect("the directory can be written");
    for name in ["file", "link", "live", "link-to-live"] {
        let path = at(name).display().to_string();
        let said = Setup::new().listen("app", &format!("unix:{path}")).refused().await;
        assert!(said.contains(&path), "{name}: {said}");
        assert!(at(name).symlink_metadata().is_ok(), "{name} is left alone");
    }
    assert_eq!(std::fs::read_to_string(at("file")).expect("it is there"), "precious");
    // What a process that was killed has left behind.
    drop(listening);
    let mut sidecar = Setup::new().listen("app", &format!("unix:{}", at("live").display())).start().await;
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn clients_from_elsewhere_need_authentication_or_a_clear_word() {
    let said = Setup::new().listen("client", "0.0.0.0:0").refused().await;
    assert!(said.contains("allow_anonymous"), "it says what to do: {said}");
    let config = "[client]\nallow_anonymous = true\n";
    Setup::new().listen("client", "0.0.0.0:0").config(config).start().await.still_healthy().await;
}

#[tokio::test]
async fn the_log_can_be_json_one_object_a_line() {
    let mut sidecar = TestSidecar::with_config("[telemetry]\nlog_format = \"json\"\n").await;
    sidecar.publish_numbers("a", 0..1).await;
    assert!(sidecar.terminate().await.success());
    let log = sidecar.log();
    assert!(log.lines().count() >= 3, "{log}");
    for line in log.lines() {
        let entry: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(entry["level"].is_string() && entry["timestamp"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn nobody_writes_lines_into_the_log() {
    let sidecar = TestSidecar::with_config("[telemetry]\nlog_level = \"debug\"\n").await;
    let forged = "a\n2026-01-01T00:00:00Z ERROR forged";
    sidecar
        .app()
        .post_json("/v1/publish", &json!({"channel": forged, "event": forged, "data": 1}))
        .await
        .refusal(400);
    sidecar.client().get("/v1/poll?channel=a%0A2026-01-01T00:00:00Z%20ERROR%20forged").await.refusal(400);
    let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws").await;
    client.send(&json!({"type": forged, "id": forged})).await;
    client.expect("error").await;
    assert!(
        !sidecar.log().lines().any(|line| line.starts_with("2026-01-01T00:00:00Z ERROR forged")),
        "{}",
        sidecar.log()
    );
}

#[tokio::test]
async fn an_idle_node_uses_no_cpu() {
    let sidecar = TestSidecar::start().await;
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", sidecar.pid())).expect("the node runs");
        let fields: Vec<u64> = stat[stat.rfind(')').expect("a name") + 2..]
            .split(' ')
            .filter_map(|field| field.parse().ok())
            .collect();
        // utime and stime: the state, which is no number, has fallen out.
        fields[10] + fields[11]
    };
    // Its start is over when it is ready.
    sidecar.ready().await;
    let (mut since, mut before) = (Instant::now(), ticks());
    eventually("three seconds in a row in which it uses at most 30 ms", async || {
        let now = ticks();
        if now - before > 3 {
            (since, before) = (Instant::now(), now);
        }
        (since.elapsed() >= Duration::from_secs(3)).then_some(())
    })
    .await;
}
