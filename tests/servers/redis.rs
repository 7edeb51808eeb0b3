//! `redis-server`: one, a master with a replica and three Sentinels, and a Cluster of three masters.

#[path = "redis/cluster.rs"]
mod cluster;
#[path = "redis/sentinels.rs"]
mod sentinels;

pub(crate) use cluster::RedisCluster;
pub(crate) use sentinels::Sentinels;

use super::certificates::{Certificates, text};
use super::process::ServerProcess;
use super::server::{Kind, Server};
use super::wait::{eventually, within};
use std::sync::Arc;
use tempfile::TempDir;

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
        Server::start_on_free_port(|port| self.prepare(port)).await
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
        let mut server = Server::new(process, directory);
        server.login.clone_from(&self.login);
        server.tls.clone_from(&self.certificates);
        server
    }
}

/// The kind of a `redis-server`.
pub(crate) enum Redis {}

impl Kind for Redis {
    /// It answers commands a moment after it listens. With TLS the port has to do.
    async fn serves(server: &RedisServer) {
        if server.tls.is_none() {
            eventually("Redis answers", async || server.try_command::<String>(&["PING"]).await.ok()).await;
        }
    }
}

/// One `redis-server`.
pub(crate) type RedisServer = Server<Redis>;

impl RedisServer {
    /// Without persistence, open to all.
    pub(crate) async fn start() -> Self {
        RedisSetup::new().start().await
    }

    /// As a node's `bus.url`, without any password.
    pub(crate) fn url(&self) -> String {
        match self.tls {
            None => format!("redis://{}/0", self.address()),
            Some(_) => format!("rediss://localhost:{}/0", self.port()),
        }
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
}
