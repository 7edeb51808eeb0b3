//! `nats-server`: one, and a cluster of three, with JetStream.

use super::certificates::{Certificates, text};
use super::process::{ServerProcess, free_port};
use super::server::{Kind, Server};
use super::wait::{eventually, within};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// How long one request may take. A cluster between two leaders leaves some without an answer: who asks again gets on.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// `NATS_SERVER`, or what `make setup` has put into the cache, or one on the path.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("NATS_SERVER") {
        return named.into();
    }
    let cached = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/tools/nats/bin/nats-server");
    if cached.exists() { cached } else { "nats-server".into() }
}

/// How a server is started: with JetStream, open to all, unless lines say otherwise.
#[derive(Clone, Default)]
pub(crate) struct NatsSetup {
    lines: Vec<String>,
    login: Option<(String, String)>,
    certificates: Option<Arc<Certificates>>,
    name: Option<String>,
    keeps_nothing: bool,
    most_stored: Option<&'static str>,
}

impl NatsSetup {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A line of its configuration file.
    pub(crate) fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// It only passes messages on.
    pub(crate) fn without_jetstream(self) -> Self {
        Self { keeps_nothing: true, ..self }
    }

    /// Nobody may do anything but this user, who may do everything.
    pub(crate) fn only_user(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self.line(&format!("authorization {{ user: \"{user}\", password: \"{password}\" }}"))
    }

    /// TLS alone, with the certificates' server key.
    pub(crate) fn tls(mut self, certificates: Arc<Certificates>) -> Self {
        let line = format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\" }}",
            text(&certificates.path("server.pem")),
            text(&certificates.path("server.key")),
            text(&certificates.path("ca.pem")),
        );
        self.certificates = Some(certificates);
        self.line(&line)
    }

    /// How much JetStream stores, such as `1MB`.
    pub(crate) fn most_stored(mut self, bytes: &'static str) -> Self {
        self.most_stored = Some(bytes);
        self
    }

    /// Its name among others, which JetStream in a cluster wants.
    fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    pub(crate) async fn start(self) -> NatsServer {
        Server::start_on_free_port(|port| self.prepare(port)).await
    }

    fn prepare(&self, port: u16) -> NatsServer {
        let directory = TempDir::with_prefix("sidewire-test-nats-").expect("a temporary directory");
        let mut config = vec![format!("listen: \"127.0.0.1:{port}\"")];
        if !self.keeps_nothing {
            config.push(format!(
                "jetstream {{ store_dir: \"{}\", max_memory_store: 256MB, max_file_store: {} }}",
                text(directory.path()),
                self.most_stored.unwrap_or("1GB"),
            ));
        }
        if let Some(name) = &self.name {
            config.push(format!("server_name: {name}"));
        }
        config.extend(self.lines.iter().cloned());
        let file = directory.path().join("nats.conf");
        std::fs::write(&file, config.join("\n") + "\n").expect("the directory can be written");
        let words = vec!["--config".to_owned(), text(&file)];
        let process = ServerProcess::new(program(), words, directory.path(), port);
        let mut server = Server::new(process, directory);
        server.login.clone_from(&self.login);
        server.tls.clone_from(&self.certificates);
        server
    }
}

/// The kind of a `nats-server`.
pub(crate) enum Nats {}

impl Kind for Nats {
    /// What listens serves; JetStream in a cluster is waited for by [`NatsCluster::start`].
    async fn serves(_: &NatsServer) {}
}

/// One `nats-server`.
pub(crate) type NatsServer = Server<Nats>;

impl NatsServer {
    /// With JetStream, open to all.
    pub(crate) async fn start() -> Self {
        NatsSetup::new().start().await
    }

    /// As a node's `bus.url`, without any password.
    pub(crate) fn url(&self) -> String {
        match self.tls {
            None => format!("nats://{}", self.address()),
            Some(_) => format!("tls://localhost:{}", self.port()),
        }
    }

    /// Takes away what JetStream has stored, of a server that does not run.
    pub(crate) fn lose_storage(&mut self) {
        assert!(!self.runs(), "only a stopped server loses its storage");
        let stored = self.directory().join("jetstream");
        std::fs::remove_dir_all(stored).expect("JetStream has stored something");
    }

    /// A client of its own, for checks.
    pub(crate) async fn client(&self) -> async_nats::Client {
        assert!(self.tls.is_none(), "checks go to servers without TLS");
        let options = match &self.login {
            None => async_nats::ConnectOptions::new(),
            Some((user, password)) => {
                async_nats::ConnectOptions::with_user_and_password(user.clone(), password.clone())
            }
        };
        let options = options.request_timeout(Some(ANSWER_WITHIN));
        within("a connection to NATS", options.connect(format!("nats://{}", self.address())))
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", self.address()))
    }

    pub(crate) async fn jetstream(&self) -> async_nats::jetstream::Context {
        let mut context = async_nats::jetstream::new(self.client().await);
        context.set_timeout(ANSWER_WITHIN);
        context
    }
}

/// Three servers that know each other.
pub(crate) struct NatsCluster {
    pub(crate) servers: Vec<NatsServer>,
}

impl NatsCluster {
    pub(crate) async fn start() -> Self {
        let ports = [free_port(), free_port(), free_port()];
        let routes: Vec<String> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let mut servers = Vec::new();
        for (at, port) in ports.iter().enumerate() {
            let cluster =
                format!("cluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: {routes:?} }}");
            servers.push(NatsSetup::new().named(&format!("server-{at}")).line(&cluster).start().await);
        }
        let all = Self { servers };
        eventually("JetStream has a leader", async || {
            let info = all.servers[0].jetstream().await.query_account().await;
            info.is_ok().then_some(())
        })
        .await;
        all
    }

    /// As a node's `bus.url`.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> = self.servers.iter().map(|one| one.address().to_string()).collect();
        format!("nats://{}", hosts.join(","))
    }

    /// Which server leads a stream.
    pub(crate) async fn leader(&self, stream: &str) -> usize {
        eventually("a stream with a leader", async || self.try_leader(0, stream).await).await
    }

    /// Kills the server that leads a stream, and waits until another one does.
    pub(crate) async fn kill_leader(&mut self, stream: &str) {
        let killed = self.leader(stream).await;
        self.servers[killed].kill();
        let witness = (killed + 1) % self.servers.len();
        eventually("another leader", async || {
            (self.try_leader(witness, stream).await? != killed).then_some(())
        })
        .await;
    }

    /// Makes the leader of a stream step down, again if need be, until another one leads.
    pub(crate) async fn another_leader(&self, stream: &str) {
        let before = self.leader(stream).await;
        let client = self.servers[0].client().await;
        eventually("another leader", async || {
            let now = self.try_leader(0, stream).await?;
            if now != before {
                return Some(());
            }
            // The request, its answer and the election may each come to nothing: the next look tells.
            let _ = client.request(format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}"), "".into()).await;
            None
        })
        .await;
    }

    /// Which server leads a stream, as far as one of them knows.
    async fn try_leader(&self, witness: usize, stream: &str) -> Option<usize> {
        let stream = self.servers[witness].jetstream().await.get_stream(stream).await.ok()?;
        let leader = stream.cached_info().cluster.as_ref()?.leader.clone()?;
        Some(leader.strip_prefix("server-").and_then(|at| at.parse().ok()).expect("a name of ours"))
    }
}
