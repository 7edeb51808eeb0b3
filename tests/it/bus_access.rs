//! Who a node is on the bus: users, passwords, TLS; and that none of it is told to anybody.

use crate::servers::{Certificates, NatsServer, NatsSetup, RedisServer, RedisSetup};
use crate::support::{Setup, TestSidecar, bus_config_at, eventually};
use serde_json::json;
use std::sync::Arc;

/// Long and rare, so that it is found wherever it is told.
const PASSWORD: &str = "geheim-8461-passwort";

async fn works(sidecar: &mut TestSidecar) {
    sidecar.ready().await;
    sidecar.publish_until("published", "a").await;
    sidecar.still_healthy().await;
}

/// Looks everywhere a password might be told.
async fn keeps_its_secret(sidecar: &TestSidecar) {
    let config = sidecar.admin().get("/v1/config").await;
    assert_eq!(config.status(), 200, "{}", config.text());
    let ready = sidecar.admin().get("/readyz").await;
    let metrics = sidecar.admin().get("/metrics").await;
    for (place, text) in [
        ("/v1/config", config.text()),
        ("/readyz", ready.text()),
        ("/metrics", metrics.text()),
        ("the log", sidecar.log()),
    ] {
        assert!(!text.contains(PASSWORD), "{place} tells the password:\n{text}");
    }
}

fn with_user(url: &str) -> String {
    url.replace("://", &format!("://app:{PASSWORD}@"))
}

#[tokio::test]
async fn a_user_of_redis_with_no_more_rights_than_it_needs_is_enough() {
    let redis = RedisSetup::new().only_user("admin", "other").start().await;
    let secret = format!(">{PASSWORD}");
    let mut words = vec!["ACL", "SETUSER", "app", "on", &secret, "~sidewire:*", "&*", "-@all"];
    // As the documentation of `bus::redis` says.
    words.extend([
        "+xadd", "+xread", "+xrange", "+xtrim", "+xinfo", "+exists", "+get", "+set", "+eval", "+time",
    ]);
    words.extend(["+multi", "+exec", "+publish", "+psubscribe", "+subscribe", "+ping"]);
    redis.command::<()>(&words).await;
    for mode in ["stream", "pubsub"] {
        let mut sidecar =
            TestSidecar::with_config(&bus_config_at(&with_user(&redis.url()), mode, "", "")).await;
        works(&mut sidecar).await;
        keeps_its_secret(&sidecar).await;
    }
}

#[tokio::test]
async fn a_user_of_nats_gets_in() {
    let nats = NatsSetup::new().only_user("app", PASSWORD).start().await;
    for mode in ["jetstream", "core"] {
        let mut sidecar =
            TestSidecar::with_config(&bus_config_at(&with_user(&nats.url()), mode, "", "")).await;
        works(&mut sidecar).await;
        keeps_its_secret(&sidecar).await;
    }
}

#[tokio::test]
async fn a_password_comes_from_the_configuration_a_file_or_the_environment() {
    let redis = RedisSetup::new().only_user("app", PASSWORD).start().await;
    let key = format!("user = \"app\"\npassword = \"{PASSWORD}\"");
    let mut sidecar = TestSidecar::with_config(&bus_config_at(&redis.url(), "stream", &key, "")).await;
    works(&mut sidecar).await;
    keeps_its_secret(&sidecar).await;

    let file = sidecar.directory().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).expect("a file of the test");
    let key = format!("user = \"app\"\npassword_file = \"{}\"", file.display());
    let mut by_file = TestSidecar::with_config(&bus_config_at(&redis.url(), "stream", &key, "")).await;
    works(&mut by_file).await;
    keeps_its_secret(&by_file).await;

    let mut by_environment = Setup::new()
        .config(&bus_config_at(&redis.url(), "stream", "user = \"app\"", ""))
        .environment("SIDEWIRE_BUS__PASSWORD", PASSWORD)
        .start()
        .await;
    works(&mut by_environment).await;
    keeps_its_secret(&by_environment).await;
}

#[tokio::test]
async fn a_wrong_password_is_named_kept_secret_and_can_be_mended_on_the_server() {
    let redis = RedisSetup::new().only_user("admin", "other").start().await;
    let url = with_user(&redis.url());
    let mut sidecar = TestSidecar::with_config(&bus_config_at(&url, "stream", "", "")).await;
    let reason = eventually("the reason", async || {
        let body = sidecar.admin().get("/readyz").await.json();
        let reason = body["checks"]["bus"].as_str().unwrap_or_default().to_lowercase();
        (reason.contains("password") || reason.contains("auth")).then_some(reason)
    })
    .await;
    assert!(!reason.contains(PASSWORD), "{reason}");
    let answer = sidecar.publish(&json!({"channel": "a", "data": 1})).await;
    assert_eq!(answer["status"], "queued", "{answer}");
    keeps_its_secret(&sidecar).await;
    redis.command::<()>(&["ACL", "SETUSER", "app", "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"]).await;
    works(&mut sidecar).await;
    keeps_its_secret(&sidecar).await;
}

#[tokio::test]
async fn tls_reaches_servers_whose_authority_is_named_and_no_others() {
    let certificates = Arc::new(Certificates::new());
    let redis: RedisServer = RedisSetup::new().tls(Arc::clone(&certificates)).start().await;
    let nats: NatsServer = NatsSetup::new().tls(Arc::clone(&certificates)).start().await;
    for (url, mode, client_certificate) in [
        (redis.url(), "stream", true),
        (redis.url(), "pubsub", true),
        (nats.url(), "jetstream", false),
        (nats.url(), "core", false),
    ] {
        let path = |name: &str| certificates.path(name).display().to_string();
        let mut keys = format!("tls_ca_file = \"{}\"\n", path("ca.pem"));
        // This Redis asks its clients for certificates.
        if client_certificate {
            keys += &format!(
                "tls_cert_file = \"{}\"\ntls_key_file = \"{}\"\n",
                path("client.pem"),
                path("client.key")
            );
        }
        let mut sidecar = TestSidecar::with_config(&bus_config_at(&url, mode, &keys, "")).await;
        works(&mut sidecar).await;

        let stranger = TestSidecar::with_config(&bus_config_at(&url, mode, "", "")).await;
        let reason = eventually("the reason", async || {
            let body = stranger.admin().get("/readyz").await.json();
            let reason = body["checks"]["bus"].as_str().unwrap_or_default().to_lowercase();
            (reason.contains("certificate") || reason.contains("tls")).then_some(reason)
        })
        .await;
        eprintln!("{url} {mode}: {reason}");
        assert_eq!(stranger.publish(&json!({"channel": "a", "data": 1})).await["status"], "queued", "{url}");
    }
}

/// Waits until the node is not ready because of the bus, with one of these words in its reason.
async fn not_ready_because(sidecar: &TestSidecar, words: &[&str]) -> String {
    eventually(&format!("a reason with one of {words:?}"), async || {
        let answer = sidecar.admin().get("/readyz").await;
        let reason = answer.json()["checks"]["bus"].as_str().unwrap_or_default().to_owned();
        let named = words.iter().any(|word| reason.to_lowercase().contains(word));
        (answer.status() == 503 && named).then_some(reason)
    })
    .await
}

#[tokio::test]
async fn rights_that_are_taken_away_meanwhile_are_named_and_nothing_is_lost() {
    let redis = RedisSetup::new().only_user("admin", "other").start().await;
    let secret = format!(">{PASSWORD}");
    redis.command::<()>(&["ACL", "SETUSER", "app", "on", &secret, "~*", "&*", "+@all"]).await;
    let config = bus_config_at(&with_user(&redis.url()), "stream", "", "");
    let mut nodes = [TestSidecar::with_config(&config).await, TestSidecar::with_config(&config).await];
    for node in &mut nodes {
        works(node).await;
    }
    let mut published = 0;
    for (right, back) in [("-xadd", "+xadd"), ("-xread", "+xread"), ("-@all", "+@all")] {
        // A node is ready before it has sent all that has waited.
        nodes[0].publish_until("published", "before").await;
        nodes[0].publish_numbers("rights", published..published + 5).await;
        redis.command::<()>(&["ACL", "SETUSER", "app", right]).await;
        for n in published + 5..published + 20 {
            let event = json!({"channel": "rights", "id": format!("rights-{n}"), "data": {"n": n}});
            let answer = nodes[0].app().post_json("/v1/publish", &event).await;
            assert!((200..300).contains(&answer.status()), "{right}: {}", answer.text());
        }
        published += 20;
        let reason = not_ready_because(&nodes[0], &["noperm", "permission"]).await;
        eprintln!("{right}: {reason}");
        assert!(!reason.contains(PASSWORD), "{reason}");
        redis.command::<()>(&["ACL", "SETUSER", "app", back]).await;
        for node in &nodes {
            node.ready().await;
            let kept = node.wait_for_events("channel=rights", published as usize).await;
            assert_eq!(crate::support::numbers(&kept), (0..published).collect::<Vec<_>>(), "{right}");
        }
    }
    for node in &mut nodes {
        works(node).await;
        keeps_its_secret(node).await;
    }
}

/// A bus with TLS: its server, and what a node needs to reach it.
enum Encrypted {
    Redis(RedisServer),
    Nats(NatsServer),
}

impl Encrypted {
    async fn redis(certificates: &Arc<Certificates>) -> Self {
        Self::Redis(RedisSetup::new().append_only().tls(Arc::clone(certificates)).start().await)
    }

    async fn nats(certificates: &Arc<Certificates>) -> Self {
        Self::Nats(NatsSetup::new().tls(Arc::clone(certificates)).start().await)
    }

    fn config(&self, certificates: &Certificates) -> String {
        let path = |name: &str| certificates.path(name).display().to_string();
        let authority = format!("tls_ca_file = \"{}\"\n", path("ca.pem"));
        match self {
            Self::Redis(server) => {
                // This Redis asks its clients for certificates.
                let (chain, key) = (path("client.pem"), path("client.key"));
                let own = format!("{authority}tls_cert_file = \"{chain}\"\ntls_key_file = \"{key}\"\n");
                bus_config_at(&server.url(), "stream", &own, "")
            }
            Self::Nats(server) => bus_config_at(&server.url(), "jetstream", &authority, ""),
        }
    }

    async fn start_again(&mut self) {
        match self {
            Self::Redis(server) => {
                server.kill();
                server.start_again().await;
            }
            Self::Nats(server) => {
                server.kill();
                server.start_again().await;
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_of_the_bus_that_has_ended_is_named_and_a_new_one_is_taken_without_a_restart() {
    for is_redis in [true, false] {
        let certificates = Arc::new(Certificates::new());
        let mut bus = match is_redis {
            true => Encrypted::redis(&certificates).await,
            false => Encrypted::nats(&certificates).await,
        };
        let mut sidecar = TestSidecar::with_config(&bus.config(&certificates)).await;
        works(&mut sidecar).await;
        certificates.expire();
        bus.start_again().await;
        let reason = not_ready_because(&sidecar, &["expired"]).await;
        eprintln!("{reason}");
        let answer = sidecar.publish(&json!({"channel": "kept", "data": {"n": 0}})).await;
        assert_eq!(answer["status"], "queued", "{answer}");
        // Of another authority: the node reads its files again at each connect.
        certificates.renew();
        bus.start_again().await;
        works(&mut sidecar).await;
        sidecar.wait_for_events("channel=kept", 1).await;
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_at_the_start() {
    for (keys, named) in [
        ("url = \"redis://127.0.0.1:1\"\nmode = \"jetstream\"\n", "mode"),
        ("url = \"nats://127.0.0.1:1\"\nmode = \"pubsub\"\n", "mode"),
        ("url = \"redis://127.0.0.1:1\"\nnamespace = \"a b\"\n", "namespace"),
        ("url = \"redis://127.0.0.1:1\"\nshards = 0\n", "shards"),
        ("url = \"redis://\"\n", "url"),
        ("url = \"redis+sentinel://127.0.0.1:1\"\n", "url"),
        ("url = \"nats://127.0.0.1:1\"\nreplicas = 9\n", "replicas"),
        ("url = \"nats://127.0.0.1:1\"\nstorage = \"tape\"\n", "storage"),
        ("url = \"redis://127.0.0.1:1\"\nhedge = \"soon\"\n", "hedge"),
    ] {
        let said = Setup::new().config(&format!("[bus]\n{keys}")).refused().await;
        assert!(said.contains(named), "{keys}: {said}");
    }
    let wrong = format!("[bus]\nurl = \"redis://app:{PASSWORD}@host:port/x\"\n");
    let said = Setup::new().config(&wrong).refused().await;
    assert!(!said.contains(PASSWORD), "a wrong URL is told without its password: {said}");
}
