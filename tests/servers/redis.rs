//! `redis-server`: one, a master with a replica and three Sentinels, and a Cluster of three masters.

#[path = "redis/cluster.rs"]
mod cluster;
#[path = "redis/sentinels.rs"]
mod sentinels;

pub(crate) use cluster::RedisCluster;
pub(crate) use sentinels::Sentinels;

use super::certificates::{Certificates, text};
use super::process::{ServerProcess, free_port};
use super::wait::{eventually, within};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// How often a start is tried, each time on another port.
const TRIES: usize = 5;

/// How a server is started: without persistence, unless lines say otherwise.
#[derive(Clone, Default)]
pub(crate) struct RedisSetup {
    lines: Vec<String>,
    login: Option<(String, String)>,
    certificates: Option<Arc<Certificates>>,
    sentinel: bool,
}

impl RedisSetup {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A line of its configuration file.
    pub(crate) fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// What it has survives a restart, and `kill -9` up to what was confirmed.
    pub(crate) fn append_only(self) -> Self {
        self.line("appendonly yes").line("appendfsync always")
    }

    /// Nobody may do anything but this user, who may do everything (a user with less is made by a `line`).
    pub(crate) fn only_user(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self.line("user default off").line(&format!("user {user} on >{password} ~* &* +@all"))
    }

    /// TLS alone, with the certificates' server key.
    pub(crate) fn tls(mut self, certificates: Arc<Certificates>) -> Self {
        self.certificates = Some(certificates);
        self
    }

    /// A Sentinel, not a server of data.
    fn sentinel(mut self) -> Self {
        self.sentinel = true;
        self
    }

    pub(crate) async fn start(self) -> RedisServer {
        for _ in 0..TRIES {
            let mut server = self.prepare(free_port());
            if server.process.try_start().await {
                server.serves().await;
                return server;
            }
            eprintln!("{}", server.process.output());
        }
        panic!("redis-server does not start on any of {TRIES} ports");
    }

    fn prepare(&self, port: u16) -> RedisServer {
        let directory = TempDir::with_prefix("sidewire-test-redis-").expect("a temporary directory");
        let mut config = vec![
            "bind 127.0.0.1".to_owned(),
            "daemonize no".to_owned(),
            format!("dir {}", text(directory.path())),
            "save \"\"".to_owned(),
        ];
        match &self.certificates {
            None => config.push(format!("port {port}")),
            Some(certificates) => config.extend([
                "port 0".to_owned(),
                format!("tls-port {port}"),
                format!("tls-ca-cert-file {}", text(&certificates.path("ca.pem"))),
                format!("tls-cert-file {}", text(&certificates.path("server.pem"))),
                format!("tls-key-file {}", text(&certificates.path("server.key"))),
            ]),
        }
        config.extend(self.lines.iter().cloned());
        // Redis rewrites the file of a Sentinel or a replica, so that it is the server's own.
        let file = directory.path().join("redis.conf");
        std::fs::write(&file, config.join("\n") + "\n").expect("the directory can be written");
        let mut words = vec![text(&file)];
        if self.sentinel {
            words.push("--sentinel".to_owned());
        }
        let process = ServerProcess::new("redis-server".into(), words, directory.path(), port);
        RedisServer { process, directory, login: self.login.clone(), tls: self.certificates.clone() }
    }
}

/// One `redis-server`.
pub(crate) struct RedisServer {
    process: ServerProcess,
    directory: TempDir,
    login: Option<(String, String)>,
    tls: Option<Arc<Certificates>>,
}

impl RedisServer {
    /// Without persistence, open to all.
    pub(crate) async fn start() -> Self {
        RedisSetup::new().start().await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.process.address()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address().port()
    }

    /// As a node's `bus.url`, without any password.
    pub(crate) fn url(&self) -> String {
        match self.tls {
            None => format!("redis://{}/0", self.address()),
            Some(_) => format!("rediss://localhost:{}/0", self.port()),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) async fn stop(&mut self) {
        self.process.stop().await;
    }

    pub(crate) fn freeze(&self) {
        self.process.freeze();
    }

    pub(crate) fn thaw(&self) {
        self.process.thaw();
    }

    /// Starts it again on its port and directory.
    pub(crate) async fn start_again(&mut self) {
        self.process.start().await;
        self.serves().await;
    }

    /// A connection of its own, for checks.
    pub(crate) async fn connection(&self) -> redis::aio::MultiplexedConnection {
        within("a connection to Redis", self.client().get_multiplexed_async_connection())
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", self.address()))
    }

    /// A client of the library, for what needs more than a connection.
    pub(crate) fn client(&self) -> redis::Client {
        let url = match &self.login {
            None => format!("redis://{}/0?protocol=resp3", self.address()),
            Some((user, password)) => {
                format!("redis://{user}:{password}@{}/0?protocol=resp3", self.address())
            }
        };
        assert!(self.tls.is_none(), "checks go to servers without TLS");
        redis::Client::open(url).expect("a URL of ours is right")
    }

    /// Sends a command and gives what it answers.
    pub(crate) async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub(crate) async fn try_command<T: redis::FromRedisValue>(
        &self,
        words: &[&str],
    ) -> Result<T, redis::RedisError> {
        let mut connection = self.client().get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words.first().expect("a command has a name"));
        for word in &words[1..] {
            command.arg(*word);
        }
        within("an answer of Redis", command.query_async(&mut connection)).await
    }

    /// Waits until it answers commands, which it does a moment after it listens. With TLS the port has to do.
    async fn serves(&self) {
        if self.tls.is_none() {
            eventually("Redis answers", async || self.try_command::<String>(&["PING"]).await.ok()).await;
        }
    }
}
