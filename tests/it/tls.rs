//! TLS on every listener: certificates that are replaced under open connections, clients that must show one, and
//! peers that are no TLS clients at all.

use crate::support::{
    Address, Certificate, Connection, Setup, TestSidecar, Tokens, WebSocketClient, eventually, run_command,
    sidewire, within,
};
use serde_json::json;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

fn write(directory: &Path, certificate: &Certificate) {
    for (name, text) in
        [("ca.pem", &certificate.authority), ("cert.pem", &certificate.chain), ("key.pem", &certificate.key)]
    {
        std::fs::write(directory.join(name), text).expect("written");
    }
}

fn config(directory: &TempDir, client_ca: bool) -> String {
    let path = |name: &str| directory.path().join(name);
    let mut text = String::new();
    for section in ["app", "client", "admin"] {
        text += &format!(
            "[{section}]\ntls_cert_file = {:?}\ntls_key_file = {:?}\n",
            path("cert.pem"),
            path("key.pem")
        );
        if client_ca {
            text += &format!("tls_client_ca_file = {:?}\n", path("ca.pem"));
        }
    }
    text
}

/// Connects as a client that trusts `server`'s authority, and shows `own` if it has one.
async fn connect(
    address: &Address,
    server: &Certificate,
    own: Option<&Certificate>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(server.authority.as_bytes()).expect("PEM");
    roots.add(authority).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the default versions")
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(own.chain.as_bytes()).expect("PEM")],
                PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("PEM"),
            )
            .expect("they fit"),
    };
    let socket = TcpStream::connect(address.tcp()).await?;
    let name = ServerName::from(address.tcp().ip());
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().expect("shown")[0].to_vec()
}

fn der(certificate: &Certificate) -> Vec<u8> {
    CertificateDer::from_pem_slice(certificate.chain.as_bytes()).expect("PEM").to_vec()
}

async fn get(stream: TlsStream<TcpStream>, target: &str) -> io::Result<u16> {
    let mut connection = Connection::over(Box::new(stream));
    connection.write(format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes()).await?;
    Ok(within(target, connection.read_response()).await?.status())
}

#[tokio::test]
async fn every_listener_speaks_tls_and_certificates_change_under_open_connections() {
    let mut issuer = Tokens::new();
    let (first, second) = (issuer.certificate(1), issuer.certificate(2));
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &first);
    let sidecar = TestSidecar::with_config(&config(&directory, false)).await;
    let places = sidecar.whereabouts();
    for (address, target) in
        [(places.app(), "/v1/events"), (places.client(), "/v1/events"), (places.admin(), "/healthz")]
    {
        let stream = connect(&address, &first, None).await.expect("a handshake");
        assert_eq!(shown(&stream), der(&first));
        assert_eq!(get(stream, target).await.expect("answered"), 200, "{target}");
    }
    let stream = connect(&places.client(), &first, None).await.expect("a handshake");
    let opened = WebSocketClient::try_open_over(Box::new(stream), "127.0.0.1", "/v1/ws?channel=a", &[]).await;
    let mut client = opened.expect("a WebSocket");
    client.expect("welcome").await;
    client.expect("subscribed").await;

    write(directory.path(), &second);
    sidecar.signal(rustix::process::Signal::HUP);
    sidecar.wait_for_log(&["configuration reloaded"]).await;
    let stream = connect(&places.app(), &first, None).await.expect("a handshake");
    assert_eq!(shown(&stream), der(&second), "new connections get the new one");
    let body = json!({"channel": "a", "data": "x".repeat(900_000)}).to_string();
    let mut app = Connection::over(Box::new(stream));
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    app.write(head.as_bytes()).await.expect("written");
    app.write(body.as_bytes()).await.expect("written");
    assert_eq!(within("an answer", app.read_response()).await.expect("answered").status(), 200);
    let event = client.next_event().await;
    assert_eq!(event["data"].as_str().map(str::len), Some(900_000), "what was open goes on");

    // A mistake leaves the good one in force.
    std::fs::write(directory.path().join("key.pem"), "nothing").expect("written");
    sidecar.signal(rustix::process::Signal::HUP);
    sidecar.wait_for_log(&["not reloaded", "key.pem"]).await;
    let stream = connect(&places.admin(), &first, None).await.expect("a handshake");
    assert_eq!(get(stream, "/healthz").await.expect("answered"), 200);
    client.close().await;
    let said = Setup::new().config(&config(&directory, false)).refused().await;
    assert!(said.contains("key.pem") && said.contains("no private key"), "{said}");
    let half = "[client]\ntls_cert_file = \"a\"\n";
    assert!(Setup::new().config(half).refused().await.contains("client.tls_key_file"));
}

#[tokio::test]
async fn a_client_without_the_certificate_that_is_asked_for_gets_nothing() {
    let (mut issuer, mut stranger) = (Tokens::new(), Tokens::new());
    let (server, own, foreign) = (issuer.certificate(1), issuer.certificate(2), stranger.certificate(3));
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &server);
    let sidecar = TestSidecar::with_config(&config(&directory, true)).await;
    let address = sidecar.whereabouts().app();
    let stream = connect(&address, &server, Some(&own)).await.expect("a handshake");
    assert_eq!(get(stream, "/v1/events").await.expect("answered"), 200);
    for wrong in [None, Some(&foreign)] {
        // With TLS 1.3 the client learns of it with its first read.
        let answered = match connect(&address, &server, wrong).await {
            Ok(stream) => get(stream, "/v1/events").await,
            Err(error) => Err(error),
        };
        assert!(answered.is_err(), "{answered:?}");
    }
}

#[tokio::test]
async fn peers_that_speak_no_tls_or_nothing_are_let_go_and_clients_that_end_are_forgotten() {
    let mut issuer = Tokens::new();
    let server = issuer.certificate(1);
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &server);
    let text = format!("{}[limits]\nheader_timeout = \"300ms\"\n", config(&directory, false));
    let sidecar = TestSidecar::with_config(&text).await;
    let address = sidecar.whereabouts().client();
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(address.tcp()).await.expect("connected"));
    }
    let mut plain = TcpStream::connect(address.tcp()).await.expect("connected");
    plain.write_all(b"GET /v1/events HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    within("the end", plain.read_to_end(&mut answer)).await.ok();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    for mut socket in silent {
        let mut rest = Vec::new();
        within("the end of one who says nothing", socket.read_to_end(&mut rest)).await.ok();
    }
    for polite in [true, false] {
        let stream = connect(&address, &server, None).await.expect("a handshake");
        let opened =
            WebSocketClient::try_open_over(Box::new(stream), "127.0.0.1", "/v1/ws?channel=a", &[]).await;
        let mut client = opened.expect("a WebSocket");
        client.expect("welcome").await;
        if polite {
            client.close().await;
        } else {
            drop(client);
        }
    }
    let admin = sidecar.whereabouts().admin();
    eventually("no client is left", async || {
        let stream = connect(&admin, &server, None).await.ok()?;
        let mut connection = Connection::over(Box::new(stream));
        connection.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await.ok()?;
        let health = connection.read_response().await.ok()?.json();
        (health["connections"] == 0).then_some(())
    })
    .await;
}

/// The commands, with an address over TLS and what belongs to it.
#[tokio::test]
async fn every_command_reaches_a_node_over_tls() {
    let mut issuer = Tokens::new();
    let (server, other) = (issuer.certificate(1), issuer.certificate(2));
    for shows_one in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        write(path, &server);
        std::fs::write(path.join("other.pem"), &other.chain).expect("written");
        let sidecar = TestSidecar::with_config(&config(&directory, shows_one)).await;
        let at = |address: Address| format!("https://{}", address.tcp());
        let whereabouts = sidecar.whereabouts();
        let (app, client, admin) = (at(whereabouts.app()), at(whereabouts.client()), at(whereabouts.admin()));
        let run = async |arguments: &[&str], trust: &[&str]| {
            run_command(path, &[arguments, trust].concat(), "").await
        };
        let trust: &[&str] = match shows_one {
            false => &["--ca-file", "ca.pem"],
            true => &["--ca-file", "ca.pem", "--cert-file", "cert.pem", "--key-file", "key.pem"],
        };
        let published = run(&["publish", "a", "7", "--app", &app, "--id", "one"], trust).await.output();
        assert!(published.contains("published"), "{published}");
        let public = client.replace("https", "wss");
        for (command, word) in [
            (&["health", "--admin", &admin][..], "ready"),
            (&["status", "--admin", &admin, "--json"], "version"),
            (&["history", "a", "--app", &app, "--json"], "one"),
            (&["trace", "one", "--admin", &admin], "logged"),
            (&["bench", "--seconds", "1", "--clients", "2", "--app", &app, "--client", &client], "delivery"),
            (
                &["doctor", "--round-trip", "--app", &app, "--client", &client, "--proxy", &client],
                "a stream through https://",
            ),
            (&["doctor", "--app", &app, "--client", &public, "--admin", &admin], "round trip: published"),
        ] {
            let said = run(command, trust).await;
            assert!((said.stdout.clone() + &said.stderr).contains(word), "{command:?}: {said:?}");
            assert!(said.status.success() || command[0] == "doctor", "{command:?}: {said:?}");
        }
        for command in ["subscribe", "tail"] {
            let mut child = sidewire(path);
            let watch =
                [&[command, "a", "--json", "--history", "1", "--client", &client][..], trust].concat();
            let mut child = child.args(watch).stdout(Stdio::piped()).spawn().expect("it starts");
            let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
            let line = tokio::task::spawn_blocking(move || lines.next()).await.expect("read");
            assert!(line.expect("a line").expect("text").contains("\"one\""));
            child.kill().expect("it ran");
            child.wait().expect("it ended");
        }

        // Nobody is believed because he answers, and nobody is let in who must show something and does not.
        let refused = run(&["health", "--admin", &admin], &[]).await.failure();
        assert!(refused.contains("certificate"), "{refused}");
        let plain = admin.replace("https", "http");
        run(&["health", "--admin", &plain], &[]).await.failure();
        if shows_one {
            run(&["health", "--admin", &admin], &["--ca-file", "ca.pem"]).await.failure();
        }

        // The node of a configuration is known by its certificate, whatever address it is reached at.
        let own = if shows_one { &trust[2..] } else { &[] };
        for (certificate, is_it) in [("cert.pem", true), ("other.pem", false)] {
            let text = format!(
                "[admin]\nlisten = \"{}\"\ntls_cert_file = {:?}\ntls_key_file = {:?}\n",
                whereabouts.admin().tcp(),
                path.join(certificate),
                path.join("key.pem")
            );
            std::fs::write(path.join("sidewire.toml"), text).expect("written");
            let said = run(&["health", "--config", "sidewire.toml"], own).await;
            assert_eq!(said.status.success(), is_it, "{certificate}: {said:?}");
        }
    }
}
