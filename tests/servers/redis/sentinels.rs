//! A master with a replica, and three Sentinels that watch them.

use super::super::wait::eventually;
use super::{RedisServer, RedisSetup};

/// The name under which the Sentinels know the master.
const NAME: &str = "mymaster";

/// How long a master may be silent before they think it is down, ms.
const DOWN_AFTER: u64 = 1_000;

/// The user, and its password, as whom a replica follows a master that is open to all.
const FOLLOWER: &str = "follower";

pub(crate) struct Sentinels {
    /// The master of the start, and its replica.
    pub(crate) servers: [RedisServer; 2],
    pub(crate) sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// Open to all. The replica follows as a user of its own, so that it can be kept from that.
    pub(crate) async fn start() -> Self {
        let servers = RedisSetup::new()
            .line(&format!("user {FOLLOWER} on >{FOLLOWER} ~* &* +@all"))
            .line(&format!("masteruser {FOLLOWER}"))
            .line(&format!("masterauth {FOLLOWER}"));
        Self::start_from(servers, RedisSetup::new(), &[]).await
    }

    /// From now on the replica of [`Sentinels::start`] gets nothing more from its master.
    pub(crate) async fn keep_replica_behind(&self) {
        let [master, replica] = &self.servers;
        master.command::<()>(&["ACL", "SETUSER", FOLLOWER, "off"]).await;
        eventually("the replica is cut off", async || {
            master.command::<i64>(&["CLIENT", "KILL", "TYPE", "REPLICA"]).await;
            let told: String = replica.command(&["INFO", "replication"]).await;
            told.contains("master_link_status:down").then_some(())
        })
        .await;
    }

    /// The servers serve one user alone, the Sentinels another: each a name and a password.
    pub(crate) async fn start_for_users(of_servers: (&str, &str), of_sentinels: (&str, &str)) -> Self {
        let (user, password) = of_servers;
        let servers = RedisSetup::new()
            .only_user(user, password)
            .line(&format!("masteruser {user}"))
            .line(&format!("masterauth {password}"));
        let logins =
            [format!("sentinel auth-user {NAME} {user}"), format!("sentinel auth-pass {NAME} {password}")];
        let (user, password) = of_sentinels;
        let sentinels = RedisSetup::new()
            .only_user(user, password)
            .line(&format!("sentinel sentinel-user {user}"))
            .line(&format!("sentinel sentinel-pass {password}"));
        Self::start_from(servers, sentinels, &logins).await
    }

    /// `logins` are lines of a Sentinel that must come after it knows the master.
    async fn start_from(of_servers: RedisSetup, of_sentinels: RedisSetup, logins: &[String]) -> Self {
        let master = of_servers.clone().start().await;
        let replica = of_servers.line(&format!("replicaof 127.0.0.1 {}", master.port())).start().await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let port = master.port();
            let setup = of_sentinels
                .clone()
                .line(&format!("sentinel monitor {NAME} 127.0.0.1 {port} 2"))
                .line(&format!("sentinel down-after-milliseconds {NAME} {DOWN_AFTER}"))
                .line(&format!("sentinel failover-timeout {NAME} 5000"));
            let setup = logins.iter().fold(setup, |setup, line| setup.line(line));
            sentinels.push(setup.sentinel().start().await);
        }
        let all = Self { servers: [master, replica], sentinels };
        eventually("the replica follows its master", async || {
            let told: String = all.servers[1].command(&["INFO", "replication"]).await;
            told.contains("master_link_status:up").then_some(())
        })
        .await;
        eventually("the Sentinels know each other and the replica", async || {
            for sentinel in &all.sentinels {
                let told: String = sentinel.command(&["INFO", "sentinel"]).await;
                if !told.contains("slaves=1,sentinels=3") {
                    return None;
                }
            }
            Some(())
        })
        .await;
        all
    }

    /// As a node's `bus.url`.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|one| one.address().to_string()).collect();
        format!("redis+sentinel://{}/{NAME}", hosts.join(","))
    }

    /// Waits until most Sentinels name that server as the master and it serves as one.
    pub(crate) async fn wait_for_master(&self, which: usize) {
        let port = self.servers[which].port().to_string();
        eventually("a failover", async || {
            let mut say_so = 0;
            for sentinel in &self.sentinels {
                let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
                if let Ok(told) = sentinel.try_command::<Vec<String>>(&ask).await {
                    say_so += usize::from(told.get(1) == Some(&port));
                }
            }
            // Sentinels cut the connections of a server that they promote.
            let told = self.servers[which].try_command::<String>(&["INFO", "replication"]).await;
            let role = told.unwrap_or_default();
            (say_so >= 2 && role.contains("role:master")).then_some(())
        })
        .await;
    }
}
