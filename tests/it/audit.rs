//! Who did what, in a file of its own.

use crate::support::{Setup, SseClient, TestSidecar, Tokens, WebSocketClient, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::Path;

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

async fn wait_for(path: &Path, what: &str, found: impl Fn(&Value) -> bool) -> Value {
    eventually(what, async || lines(path).into_iter().find(|line| found(line))).await
}

#[tokio::test]
async fn the_file_tells_who_did_what_and_never_what_was_said() {
    let mut tokens = Tokens::new();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("audit.jsonl");
    let config = format!("{}[telemetry]\naudit_file = {path:?}\n", Tokens::config());
    let mut sidecar: TestSidecar = TestSidecar::with_config(&config).await;
    let address = sidecar.whereabouts().client();
    let token = tokens.token(&json!({"sub": "ann", "jti": "t1", "channels": {"a.*": ["sub", "pub"]}}));
    let target = format!("/v1/ws?channel=a.1&token={token}");
    let (mut client, welcome) = WebSocketClient::open_with_welcome(&address, &target, &[]).await;
    client.expect("subscribed").await;
    client.send(&json!({"type": "publish", "channel": "a.2", "data": "geheim"})).await;
    client.expect("published").await;
    client.send(&json!({"type": "subscribe", "channels": ["b"]})).await;
    client.expect("error").await;
    let events = SseClient::open(&address, &format!("/v1/sse?channel=a.3&token={token}"), &[]).await;
    drop(events);
    assert_eq!(sidecar.client().get("/v1/poll?channel=a&token=bad").await.status(), 401);
    sidecar.app().post_json("/v1/disconnect", &json!({"jti": "t1"})).await.success();
    assert_eq!(client.closed().await, 4101);

    let mine = |line: &Value| line["connection"] == welcome["connection"];
    let connected = wait_for(&path, "connected", |line| line["action"] == "connected" && mine(line)).await;
    assert_eq!((&connected["user"], &connected["ip"]), (&json!("ann"), &json!("127.0.0.1")));
    let subscribed = wait_for(&path, "subscribed", |line| line["action"] == "subscribed" && mine(line)).await;
    assert_eq!(subscribed["channels"], json!(["a.1"]));
    wait_for(&path, "published", |line| line["action"] == "published" && line["channels"] == json!(["a.2"]))
        .await;
    wait_for(&path, "refused", |line| line["action"] == "refused" && line["reason"] == "`sub` on b").await;
    wait_for(&path, "a bad token", |line| {
        line["action"] == "refused" && line["reason"] == "the token is malformed"
    })
    .await;
    wait_for(&path, "revoked", |line| line["action"] == "revoked").await;
    let closed = wait_for(&path, "closed", |line| line["action"] == "closed" && mine(line)).await;
    assert_eq!(closed["code"], 4101);

    let old = directory.path().join("audit.old");
    std::fs::rename(&path, &old).expect("moved");
    sidecar.signal(Signal::HUP);
    sidecar.wait_for_log(&["configuration reloaded"]).await;
    assert_eq!(sidecar.client().get("/v1/poll?channel=a").await.status(), 401);
    assert!(sidecar.terminate().await.success());
    assert!(
        lines(&path).iter().any(|line| line["reason"] == "there is no token"),
        "all is written at the end"
    );
    let text = std::fs::read_to_string(&old).expect("read");
    assert!(!text.contains("geheim") && !text.contains(&token), "{text}");
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_refused_at_the_start() {
    let said = Setup::new().config("[telemetry]\naudit_file = \"/nowhere/audit\"\n").refused().await;
    assert!(said.contains("telemetry.audit_file"), "{said}");
}
