//! The configuration: refused early when wrong, taken in the order flag, environment, file, default, and read
//! again on SIGHUP.

use crate::support::{Key, Setup, TestSidecar, Tokens, WebSocketClient, eventually, run_command};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

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
    sidecar.wait_for_log(&["configuration reloaded"]).await;
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

/// A node whose listeners are where its file says, which a reload can change.
async fn listening_by_file(config: &str) -> TestSidecar {
    let setup = Setup::new().listen("app", "").listen("client", "").listen("admin", "");
    setup.config(config).start().await
}

/// Reloads with another file. Gives what is said of keys that wait for the next start.
async fn reload(sidecar: &mut TestSidecar, config: &str) -> Vec<String> {
    let known = sidecar.log().lines().count();
    sidecar.rewrite_config(config);
    sidecar.signal(Signal::HUP);
    let said = eventually("the end of the reload", async || {
        let said: Vec<String> = sidecar.log().lines().skip(known).map(str::to_owned).collect();
        said.iter().any(|line| line.contains("reloaded")).then_some(said)
    })
    .await;
    assert!(said.iter().any(|line| line.contains("configuration reloaded")), "{said:#?}");
    let told = said.iter().filter(|line| line.contains("at the next start"));
    // Without the time.
    told.filter_map(|line| line.split_once(" WARN ")).map(|(_, words)| words.to_owned()).collect()
}

/// The configuration in force, by keys such as `auth.webhook.url`; of `[[channels]]`, all of it.
async fn in_force(sidecar: &TestSidecar, token: &str) -> BTreeMap<String, Value> {
    let headers = [("Authorization", &*format!("Bearer {token}"))];
    let sections = sidecar.admin().request("GET", "/v1/config", &headers, b"").await.success();
    keys_of(&sections)
}

fn keys_of(config: &Value) -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    for (section, value) in config.as_object().expect("sections") {
        match value.as_object() {
            None => drop(keys.insert(section.clone(), value.clone())),
            Some(inner) => {
                for (key, value) in inner {
                    match value.as_object().filter(|_| key == "webhook") {
                        None => drop(keys.insert(format!("{section}.{key}"), value.clone())),
                        Some(inner) => keys.extend(
                            inner.iter().map(|(key, value)| (format!("auth.webhook.{key}"), value.clone())),
                        ),
                    }
                }
            }
        }
    }
    keys
}

/// Every key with another value than before, in several files, as some exclude each other.
fn every_key_otherwise(directory: &Path) -> [String; 3] {
    let mut tokens = Tokens::new();
    let certificate = tokens.certificate(1);
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("the directory can be written");
        format!("{path:?}")
    };
    let token = file("token", "a token for tests that nobody guesses");
    let chain = file("chain.pem", &certificate.chain);
    let key = file("key.pem", &certificate.key);
    let authority = file("authority.pem", &certificate.authority);
    let public = file("public.pem", &tokens.pem(Key::P256));
    let secret = file("secret", Tokens::SECRET);
    let listener = format!(
        "socket_mode = \"0600\"\nsocket_user = \"root\"\nsocket_group = \"root\"\n\
         tls_cert_file = {chain}\ntls_key_file = {key}\ntls_client_ca_file = {authority}\n"
    );
    let private =
        format!("{listener}allowed_hosts = [\"a.example\"]\nallowed_uids = [0]\ntoken_file = {token}\n");
    let all = format!(
        r#"
[app]
{private}
[client]
{listener}
allow_anonymous = true
trusted_proxies = ["10.0.0.0/8"]
proxy_protocol = true
allowed_origins = ["https://a.example"]
heartbeat = "20s"
sse_heartbeat = "10s"
stall_timeout = "1m"
idle_timeout = "80s"
drain = "1s"
[[client.routes]]
path = "/job/{{id}}"
channel = "job.{{id}}"
[admin]
{private}
[auth]
algorithms = ["HS256"]
secret = "{secret_text}"
issuer = ["i"]
audience = ["a"]
leeway = "1s"
require_exp = false
cookie = "session"
timeout = "5s"
default = {{"a"=["sub"]}}
anonymous = {{"b"=["sub"]}}
[auth.webhook]
url = "http://127.0.0.1:1/"
headers = ["authorization"]
timeout = "1s"
cache = "5s"
on_error = "cached"
[log]
ttl = "2h"
max_bytes = "2GiB"
sync = "never"
compress = false
encryption_key_file = "keys"
id_window = "2h"
id_limit = 5
[bus]
url = "nats://127.0.0.1:1"
mode = "core"
channels = ["a.>"]
namespace = "x"
retention = "2h"
user = "u"
password = "p"
sentinel_user = "u"
sentinel_password = "p"
token = "t"
credentials_file = "c"
nkey_file = "n"
tls_ca_file = "a"
tls_cert_file = "c"
tls_key_file = "k"
replicas = 3
storage = "memory"
max_bytes = "1GiB"
publish_timeout = "1s"
hedge = "10ms"
probe_interval = "1s"
[queue]
max_bytes = "1GiB"
max_age = "1h"
[limits]
connections = 5
connections_per_ip = 5
handshakes_per_ip = 5
subscriptions = 5
message_bytes = "1KiB"
messages_per_second = 5
bytes_per_second = "10KiB"
offences_per_ip = 5
ban = "5m"
body_bytes = "1MiB"
event_bytes = "1KiB"
header_timeout = "5s"
body_timeout = "5s"
[[channels]]
pattern = "a"
ttl = "1h"
max_events = 5
[[channels]]
pattern = "b"
store = false
[telemetry]
log_format = "json"
log_level = "info,sidewire=debug"
audit_file = "audit"
"#,
        secret_text = Tokens::SECRET,
    );
    let some = format!(
        "[auth]\nsecret_file = {secret}\n[bus]\nurl = \"redis://127.0.0.1:1\"\nshards = 2\n\
         password_file = \"p\"\nsentinel_password_file = \"p\"\n"
    );
    let rest = format!(
        "[auth]\npublic_key_file = {public}\njwks_url = \"http://127.0.0.1:1/keys\"\n\
         [bus]\nurl = \"nats://127.0.0.1:1\"\ntoken_file = \"t\"\n"
    );
    [all, some, rest]
}

#[tokio::test]
async fn after_a_reload_every_changed_key_is_in_force_or_told_to_wait() {
    const TOKEN: &str = "a token for tests that nobody guesses";
    let own = "[app]\nlisten = \"127.0.0.1:0\"\n[client]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let mut sidecar = listening_by_file(own).await;
    let before = in_force(&sidecar, TOKEN).await;
    let handbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let handbook = std::fs::read_to_string(handbook).expect("it is there");
    let (_, waits) = handbook.split_once("**At the next start**").expect("the paragraph is there");
    let (waits, _) = waits.split_once("\n\n").expect("it ends");

    // By a flag, which no file changes.
    let mut decided = BTreeSet::from(["log.dir".to_owned()]);
    let directory = tempfile::tempdir().expect("a directory");
    for config in every_key_otherwise(directory.path()) {
        let told = reload(&mut sidecar, &config).await;
        let after = in_force(&sidecar, TOKEN).await;
        let written: Value = toml::from_str(&config).expect("TOML");
        // They are in none of the files: back to the default.
        let listen = ["app.listen", "client.listen", "admin.listen"].map(str::to_owned);
        for key in keys_of(&written).into_keys().chain(listen) {
            let waiting = told
                .iter()
                .any(|line| line.contains(&format!("key=\"{key}\"")) && line.contains("takes effect"));
            let is_changed = after[&key] != before[&key];
            if key != "channels" {
                assert!(is_changed != waiting, "{key}: in force {}, and told: {told:#?}", after[&key]);
            }
            if waiting {
                let (section, name) = key.split_once('.').expect("a section and a key");
                let names = [format!("`{key}`"), format!("`[{section}]`"), format!("`{name}`")];
                assert!(
                    names.iter().any(|name| waits.contains(name.as_str())) || name.starts_with("tls_"),
                    "{key}"
                );
            }
            decided.insert(key);
        }
        if config.contains("store") {
            for key in ["channels.ttl", "channels.max_events", "channels.store", "client.trusted_proxies"] {
                assert!(told.iter().any(|line| line.contains(key)), "{key}: {told:#?}");
            }
            assert_eq!(reload(&mut sidecar, &config).await, told, "it is told until the next start");
        }
    }
    let all: BTreeSet<String> = before.keys().cloned().collect();
    assert_eq!(decided, all, "every key is changed by one of the files");
    assert_eq!(reload(&mut sidecar, own).await, Vec::<String>::new(), "all is as it was");
    assert_eq!(in_force(&sidecar, TOKEN).await, before);
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn no_reload_opens_a_listener_to_everybody() {
    let open = "[client]\nlisten = \"0.0.0.0:0\"\n[app]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let with_key = format!("{open}{}", Tokens::config());
    let mut sidecar = listening_by_file(&with_key).await;
    sidecar.client().get("/v1/poll?channel=a&timeout=0").await.refusal(401);
    // It would do for a start, which would listen elsewhere.
    sidecar.rewrite_config(&open.replace("0.0.0.0", "127.0.0.1"));
    sidecar.signal(Signal::HUP);
    sidecar.wait_for_log(&["not reloaded", "client.listen", "until the next start"]).await;
    sidecar.client().get("/v1/poll?channel=a&timeout=0").await.refusal(401);
    sidecar.still_healthy().await;
}
