//! How a node is let in: users, tokens, nkeys, credentials, TLS, several servers.

use crate::conformance::{numbered, open, send, senders};
use crate::nats_servers::{Certificates, NatsServer, NatsSetup, core, free_port, jetstream};
use crate::servers::wait::within;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use sidewire::bus::backend::{Backend as _, LinkError};
use std::path::Path;
use std::sync::Arc;

/// Sends and reads an event with this configuration.
async fn works(bus: &str) {
    let mut link = open(&jetstream(bus), None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    assert_eq!(senders(&mut link, 1).await, [(1, 1)]);
}

/// What the refusal of this configuration says.
async fn refusal(bus: &str) -> String {
    match within("a refusal", jetstream(bus).open(None)).await.map(|_| ()) {
        Err(LinkError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_user_with_a_password() {
    let server = NatsSetup::new().only_user("node", "ge:h@im").start().await;
    let (url, port) = (server.url(), server.port());
    works(&format!("url = '{url}'\nuser = 'node'\npassword = 'ge:h@im'")).await;
    let again = jetstream(&format!("url = 'nats://node:ge%3ah%40im@127.0.0.1:{port}'"));
    open(&again, None).await;
    assert!(!again.to_string().contains("im@"), "{again}");
    let why = refusal(&format!("url = '{url}'\nuser = 'node'\npassword = 'falsch'")).await;
    assert!(why.contains("credentials") && !why.contains("falsch"), "{why}");
    refusal(&format!("url = '{url}'")).await;
}

#[tokio::test]
async fn a_missing_right_is_told() {
    let server = NatsSetup::new()
        .line("authorization { users: [ { user: a, password: b, permissions: { publish: { deny: \"$JS.API.STREAM.CREATE.>\" } } } ] }")
        .start()
        .await;
    let began = std::time::Instant::now();
    let why = refusal(&format!("url = '{}'\nuser = 'a'\npassword = 'b'", server.url())).await;
    assert!(why.contains("STREAM.CREATE.SIDEWIRE_default"), "{why}");
    // It does not wait for an answer that does not come.
    assert!(began.elapsed() < std::time::Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_token_from_a_file_that_is_rotated() {
    let server = NatsSetup::new().line("authorization { token: geheim }").start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let bus = format!("url = '{}'\ntoken_file = '{}'", server.url(), file.display());
    let backend = jetstream(&bus);
    let error = within("a refusal", backend.open(None)).await.map(|_| ()).unwrap_err();
    assert!(matches!(&error, LinkError::Refused(why) if why.contains("token")), "{error:?}");
    std::fs::write(&file, "falsch\n").unwrap();
    assert!(within("a refusal", backend.open(None)).await.is_err());
    std::fs::write(&file, "geheim\n").unwrap();
    open(&backend, None).await;
    works(&format!("url = 'nats://geheim@{}'", server.address())).await;
}

#[tokio::test]
async fn an_nkey() {
    let key = KeyPair::new_user();
    let line = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", key.public_key());
    let server = NatsSetup::new().line(&line).start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nkey");
    let bus = format!("url = '{}'\nnkey_file = '{}'", server.url(), file.display());
    std::fs::write(&file, key.seed().unwrap() + "\n").unwrap();
    works(&bus).await;
    std::fs::write(&file, KeyPair::new_user().seed().unwrap()).unwrap();
    refusal(&bus).await;
    std::fs::write(&file, "no seed").unwrap();
    let why = refusal(&bus).await;
    assert!(why.contains("nkey") && !why.contains("no seed"), "{why}");
}

/// A JWT as NATS has them.
fn jwt(issuer: &KeyPair, subject: &str, name: &str, nats: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "jti": name, "iat": 1, "iss": issuer.public_key(), "name": name, "sub": subject, "nats": nats });
    let text = format!("{}.{}", encode(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), encode(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(text.as_bytes()).unwrap());
    format!("{text}.{signature}")
}

fn write_credentials(file: &Path, jwt: &str, seed: &str) {
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    std::fs::write(file, text).unwrap();
}

#[tokio::test]
async fn a_credentials_file() {
    let (operator, system, account, user) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_user());
    let unlimited = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
        "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1
    });
    let of_account = |name: &str, key: &KeyPair, limits: &Value| {
        let nats = json!({ "limits": limits, "type": "account", "version": 2 });
        jwt(&operator, &key.public_key(), name, &nats)
    };
    let no_jetstream = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1, "leaf": -1 });
    let server = NatsSetup::new()
        .line(&format!(
            "operator: {}",
            jwt(&operator, &operator.public_key(), "operator", &json!({ "type": "operator", "version": 2 }))
        ))
        .line(&format!("system_account: {}", system.public_key()))
        .line("resolver: MEMORY")
        .line(&format!(
            "resolver_preload {{ {}: \"{}\", {}: \"{}\" }}",
            system.public_key(),
            of_account("system", &system, &no_jetstream),
            account.public_key(),
            of_account("account", &account, &unlimited)
        ))
        .start()
        .await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("node.creds");
    let nats = json!({ "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2 });
    let bus = format!("url = '{}'\ncredentials_file = '{}'", server.url(), file.display());
    write_credentials(&file, &jwt(&account, &user.public_key(), "node", &nats), &user.seed().unwrap());
    works(&bus).await;
    // A user of an account that the server does not know.
    let stranger = jwt(&KeyPair::new_account(), &user.public_key(), "node", &nats);
    write_credentials(&file, &stranger, &user.seed().unwrap());
    refusal(&bus).await;
    std::fs::write(&file, "nothing of the kind").unwrap();
    assert!(refusal(&bus).await.contains("credentials file"));
}

#[tokio::test]
async fn tls_with_an_authority_of_ones_own() {
    let certificates = Arc::new(Certificates::new());
    let server = NatsSetup::new().tls(Arc::clone(&certificates)).start().await;
    let authority = format!("tls_ca_file = '{}'", certificates.path("ca.pem").display());
    works(&format!("url = '{}'\n{authority}", server.url())).await;
    // The server asks for TLS, so `nats://` is encrypted as well.
    works(&format!("url = 'nats://localhost:{}'\nnamespace = 'other'\n{authority}", server.port())).await;
    let strange = Certificates::new();
    let why =
        refusal(&format!("url = '{}'\ntls_ca_file = '{}'", server.url(), strange.path("ca.pem").display()))
            .await;
    assert!(why.contains("bus.tls_ca_file"), "{why}");
    refusal(&format!("url = '{}'\ntls_ca_file = '/nowhere/ca.pem'", server.url())).await;
}

#[tokio::test]
async fn tls_with_a_certificate_of_the_node() {
    let certificates = Certificates::new();
    let file = |name: &str| certificates.path(name).display().to_string();
    let line = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    );
    let server = NatsSetup::new().line(&line).start().await;
    let bus = format!("url = 'tls://localhost:{}'\ntls_ca_file = '{}'", server.port(), file("ca.pem"));
    works(&format!(
        "{bus}\ntls_cert_file = '{}'\ntls_key_file = '{}'",
        file("client.pem"),
        file("client.key")
    ))
    .await;
    assert!(within("a refusal", jetstream(&bus).open(None)).await.is_err());
}

#[tokio::test]
async fn the_server_that_runs_is_found_among_those_that_do_not() {
    let server = NatsServer::start().await;
    let hosts = format!("nats://127.0.0.1:{},127.0.0.1:{},{}", free_port(), free_port(), server.address());
    for _ in 0..5 {
        open(&jetstream(&format!("url = '{hosts}'")), None).await;
    }
    let mut link = open(&core(&format!("url = '{hosts}'\nmode = 'core'")), None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    assert_eq!(senders(&mut link, 1).await, [(1, 1)]);
}
