//! The configuration: refused early when wrong, taken in the order flag, environment, file, default, and read
//! again on SIGHUP.

use crate::support::{Setup, TestSidecar, WebSocketClient, eventually, run_command};
use rustix::process::Signal;
use serde_json::json;

#[tokio::test]
async fn an_unknown_key_is_refused_and_the_nearest_one_named() {
    for (config, wrong, nearest) in [
        ("[log]\nmax_byte = \"1GiB\"\n", "max_byte", "max_bytes"),
        ("[client]\nallow_origins = []\n", "allow_origins", "allowed_origins"),
        ("[lmits]\nconnections = 5\n", "lmits", "limits"),
        ("[[channels]]\npatern = \"a.>\"\n", "patern", "pattern"),
        ("[[client.routes]]\npath = \"/a\"\nchanel = \"a\"\n", "chanel", "channel"),
    ] {
        let said = Setup::new().config(config).refused().await;
        assert!(said.contains(wrong) && said.contains(nearest), "{wrong}: {said}");
    }
}

#[tokio::test]
async fn a_value_that_makes_no_sense_is_refused_with_its_key() {
    for (config, key) in [
        ("[log]\nttl = \"soon\"\n", "ttl"),
        ("[log]\nmax_bytes = \"many\"\n", "max_bytes"),
        ("[log]\nsync = \"sometimes\"\n", "sync"),
        ("[bus]\nurl = \"carrier-pigeon://loft\"\n", "url"),
        ("[telemetry]\nlog_level = \"loud\"\n", "log_level"),
        ("[[channels]]\npattern = \"a..b\"\n", "pattern"),
        ("[[client.routes]]\npath = \"no-slash\"\nchannel = \"a\"\n", "path"),
        ("[[client.routes]]\npath = \"/ws/{id}\"\nchannel = \"job.{other}\"\n", "other"),
        ("[limits]\nconnections = -1\n", "connections"),
        ("[app]\nallowed_hosts = [\"http://a.example/\"]\n", "allowed_hosts"),
    ] {
        eprintln!("{config}");
        let said = Setup::new().config(config).refused().await;
        assert!(said.contains(key), "{key}: {said}");
    }
    Setup::new().config("this is = not [ toml").refused().await;
}

#[tokio::test]
async fn the_environment_goes_before_the_file_and_a_flag_before_both() {
    let config = "[limits]\nevent_bytes = 1000\nbody_bytes = 1000\n[telemetry]\nlog_level = \"warn\"\n[app]\nlisten = \"127.0.0.1:1\"\n";
    let sidecar = Setup::new()
        .config(config)
        .environment("SIDEWIRE_LIMITS__EVENT_BYTES", "5000")
        .environment("SIDEWIRE_LIMITS__BODY_BYTES", "5000")
        .environment("SIDEWIRE_TELEMETRY__LOG_LEVEL", "info")
        .environment("SIDEWIRE_APP__LISTEN", "127.0.0.1:2")
        .start()
        .await;
    let data = "x".repeat(3_000);
    assert_eq!(sidecar.publish(&json!({"channel": "a", "data": data})).await["status"], "published");
    let data = "x".repeat(6_000);
    sidecar.app().post_json("/v1/publish", &json!({"channel": "a", "data": data})).await.refusal(413);

    let said = Setup::new().environment("SIDEWIRE_LOG__MAX_BYTE", "1GiB").refused().await;
    assert!(said.contains("SIDEWIRE_LOG__MAX_BYTE"), "{said}");
}

#[tokio::test]
async fn the_configuration_in_force_can_be_read() {
    let sidecar = TestSidecar::with_config("[log]\nttl = \"36h\"\n").await;
    let answer = sidecar.admin().get("/v1/config").await;
    let text = answer.text();
    answer.success();
    assert!(text.contains("36h") || text.contains("1day 12h") || text.contains("129600"), "{text}");
}

#[tokio::test]
async fn check_config_says_whether_a_file_would_do() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let good = directory.path().join("good.toml");
    let bad = directory.path().join("bad.toml");
    std::fs::write(&good, "[log]\nttl = \"7d\"\n").expect("written");
    std::fs::write(&bad, "[log]\ntll = \"7d\"\n").expect("written");
    run_command(directory.path(), &["check-config".as_ref(), good.as_os_str()], "").await.output();
    let said = run_command(directory.path(), &["check-config".as_ref(), bad.as_os_str()], "").await.failure();
    assert!(said.contains("tll") && said.contains("ttl"), "{said}");
    run_command(directory.path(), &["check-config", "/nowhere.toml"], "").await.failure();
    let left: Vec<_> =
        std::fs::read_dir(directory.path()).expect("there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 2, "it only looks: {left:?}");
}

#[tokio::test]
async fn sighup_takes_new_limits_and_the_log_level_and_keeps_clients() {
    let mut sidecar = TestSidecar::with_config("[limits]\nevent_bytes = 1000\nbody_bytes = 1000\n").await;
    let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws?channel=a").await;
    client.expect("subscribed").await;
    let large = json!({"channel": "a", "data": {"n": 1, "text": "x".repeat(3_000)}});
    sidecar.app().post_json("/v1/publish", &large).await.refusal(413);

    sidecar.rewrite_config(
        "[limits]\nevent_bytes = 10000\nbody_bytes = 10000\n[telemetry]\nlog_level = \"error\"\n",
    );
    sidecar.signal(Signal::HUP);
    eventually("the new limit", async || {
        (sidecar.app().post_json("/v1/publish", &large).await.status() == 200).then_some(())
    })
    .await;
    assert_eq!(client.next_numbers(1).await, [1], "a connected client stays");
    sidecar.still_healthy().await;
    let known = sidecar.log().lines().count();
    assert!(sidecar.terminate().await.success());
    let after: Vec<String> = sidecar.log().lines().skip(known).map(str::to_owned).collect();
    assert!(after.is_empty(), "an end is no error: {after:?}");
}

#[tokio::test]
async fn a_reload_with_a_bad_file_keeps_the_old_state() {
    let mut sidecar = TestSidecar::with_config("[limits]\nevent_bytes = 1000\nbody_bytes = 1000\n").await;
    let mut client = WebSocketClient::open(&sidecar.whereabouts().client(), "/v1/ws?channel=a").await;
    client.expect("subscribed").await;
    sidecar.rewrite_config("[limits]\nbody_byte = 10000\n");
    sidecar.signal(Signal::HUP);
    sidecar.wait_for_log(&["body_byte"]).await;
    let large = json!({"channel": "a", "data": "x".repeat(3_000)});
    sidecar.app().post_json("/v1/publish", &large).await.refusal(413);
    sidecar.publish_numbers("a", 0..1).await;
    assert_eq!(client.next_numbers(1).await, [0]);
    sidecar.still_healthy().await;
}
