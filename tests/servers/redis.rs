//! Redis servers of a test's own: each on a free port, with its own directory, gone with the test.

use crate::wait::{PATIENCE, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// One `redis-server`.
pub(crate) struct RedisServer {
    child: Option<Child>,
    directory: TempDir,
    port: u16,
    options: Vec<String>,
    scheme: &'static str,
    password: Option<String>,
}

/// What a server is told.
pub(crate) struct RedisSetup {
    options: Vec<String>,
    tls: bool,
    password: Option<String>,
}

impl RedisSetup {
    /// A server that keeps what it is given on disk at once, so that it has it after a kill.
    pub(crate) fn durable() -> Self {
        Self::bare().option("appendonly", "yes").option("appendfsync", "always")
    }

    /// A server that forgets everything when it ends.
    pub(crate) fn bare() -> Self {
        Self { options: Vec::new(), tls: false, password: None }.option("save", "")
    }

    /// Another option of its configuration.
    pub(crate) fn option(mut self, name: &str, value: &str) -> Self {
        self.options.extend([format!("--{name}"), value.to_owned()]);
        self
    }

    /// It asks everybody for this password.
    pub(crate) fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.option("requirepass", password)
    }

    /// It speaks TLS only, and asks for a certificate of the same authority.
    pub(crate) fn tls(mut self, certificates: &Certificates) -> Self {
        self.tls = true;
        let file = |name: &str| certificates.file(name).display().to_string();
        self.option("tls-cert-file", &file("server.pem"))
            .option("tls-key-file", &file("server.key"))
            .option("tls-ca-cert-file", &file("ca.pem"))
    }

    /// Starts it and waits until it answers.
    pub(crate) async fn start(self) -> RedisServer {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut server = RedisServer {
            child: None,
            directory,
            port: free_port(),
            options: self.options,
            scheme: if self.tls { "rediss" } else { "redis" },
            password: self.password,
        };
        server.restart().await;
        server
    }
}

impl RedisServer {
    /// A server with [`RedisSetup::durable`].
    pub(crate) async fn start() -> Self {
        RedisSetup::durable().start().await
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, as `bus.url` takes it, without a password.
    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}/0", self.scheme, self.port)
    }

    /// Starts it again, on the same port and directory.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let tls = self.scheme == "rediss";
        let port = self.port.to_string();
        let ports =
            if tls { ["--port", "0", "--tls-port", &port] } else { ["--port", &port, "--tls-port", "0"] };
        let log = self.directory.path().join("log");
        let mut command = Command::new("redis-server");
        // The file of its configuration comes first: Sentinels need one to write to.
        if self.directory.path().join("conf").exists() {
            command.arg("conf").arg("--sentinel");
        }
        command.args(ports).args(["--bind", "127.0.0.1", "--logfile", "log"]).args(&self.options);
        command
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.child = Some(command.spawn().expect("redis-server is installed"));
        if tls {
            // Its readiness cannot be asked without certificates, so its log is.
            eventually("redis-server is ready", async || {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                (text.matches("Ready to accept connections").count() > 0).then_some(())
            })
            .await;
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        while self.try_command(&["PING"]).await.is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "redis-server: {ended:?} {}", said());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it without ending it: connections stay open, nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = Pid::from_child(child);
        kill_process(pid, signal).expect("it is ours");
    }

    /// Sends a command, which must succeed.
    pub(crate) async fn command(&self, arguments: &[&str]) -> redis::Value {
        self.try_command(arguments).await.unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    /// Sends a command.
    pub(crate) async fn try_command(&self, arguments: &[&str]) -> redis::RedisResult<redis::Value> {
        let at_password = self.password.as_ref().map_or(String::new(), |password| format!(":{password}@"));
        let client = redis::Client::open(format!("redis://{at_password}127.0.0.1:{}/0", self.port))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(arguments[0]);
        command.arg(&arguments[1..]);
        command.query_async(&mut connection).await
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A master, its replica, and three Sentinels that watch them.
pub(crate) struct SentinelTrio {
    pub(crate) master: RedisServer,
    pub(crate) replica: RedisServer,
    sentinels: Vec<RedisServer>,
}

impl SentinelTrio {
    /// Starts all and waits until every Sentinel knows all others. `password` is that of the data servers, the
    /// Sentinels have `sentinel_password`.
    pub(crate) async fn start(password: &str, sentinel_password: &str) -> Self {
        let setup = || RedisSetup::bare().password(password).option("masterauth", password);
        let master = setup().start().await;
        let port = master.port().to_string();
        let replica = setup().option("replicaof", &format!("127.0.0.1 {port}")).start().await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let conf = format!(
                "sentinel monitor mymaster 127.0.0.1 {port} 2\nsentinel auth-pass mymaster {password}\n\
                 sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 3000\n\
                 sentinel sentinel-pass {sentinel_password}\nrequirepass {sentinel_password}\n"
            );
            std::fs::write(directory.path().join("conf"), conf).expect("written");
            let mut sentinel = RedisServer {
                child: None,
                directory,
                port: free_port(),
                options: Vec::new(),
                scheme: "redis",
                password: Some(sentinel_password.to_owned()),
            };
            sentinel.restart().await;
            sentinels.push(sentinel);
        }
        let trio = Self { master, replica, sentinels };
        for sentinel in &trio.sentinels {
            eventually("the Sentinels know each other and the replica", async || {
                let others = sentinel.command(&["SENTINEL", "SENTINELS", "mymaster"]).await;
                let replicas = sentinel.command(&["SENTINEL", "REPLICAS", "mymaster"]).await;
                (length(&others) == 2 && length(&replicas) == 1).then_some(())
            })
            .await;
        }
        eventually("the replica follows", async || {
            let info = trio.master.command(&["INFO", "replication"]).await;
            format!("{info:?}").contains("state=online").then_some(())
        })
        .await;
        trio
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        format!("redis+sentinel://{}/mymaster", hosts.join(","))
    }
}

fn length(value: &redis::Value) -> usize {
    match value {
        redis::Value::Array(items) => items.len(),
        _ => 0,
    }
}

/// Three masters that share the slots.
pub(crate) struct RedisCluster {
    pub(crate) nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts all and waits until the cluster is whole.
    pub(crate) async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let bus_port = free_port().to_string();
            let setup = RedisSetup::bare().option("cluster-enabled", "yes").option("cluster-port", &bus_port);
            nodes.push((setup.start().await, bus_port));
        }
        let ranges = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
        for ((node, _), (first, last)) in nodes.iter().zip(ranges) {
            node.command(&["CLUSTER", "ADDSLOTSRANGE", first, last]).await;
        }
        let (first, others) = nodes.split_first().expect("there are three");
        for (other, bus_port) in others {
            first.0.command(&["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string(), bus_port]).await;
        }
        let cluster = Self { nodes: nodes.into_iter().map(|(node, _)| node).collect() };
        for node in &cluster.nodes {
            eventually("the cluster is whole", async || {
                let info = format!("{:?}", node.command(&["CLUSTER", "INFO"]).await);
                (info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")).then_some(())
            })
            .await;
        }
        cluster
    }

    /// Its URL, which names two of its nodes.
    pub(crate) fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", self.nodes[0].port(), self.nodes[1].port())
    }

    /// The index of the node that has a key.
    pub(crate) async fn owner(&self, key: &str) -> usize {
        for (index, node) in self.nodes.iter().enumerate() {
            if node.try_command(&["EXISTS", key]).await.is_ok() {
                return index;
            }
        }
        panic!("no node has the slot of {key}");
    }

    /// Gives the slot of a key, with what is in it, to another node.
    pub(crate) async fn move_slot(&self, key: &str, from: usize, to: usize) {
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let slot = match source.command(&["CLUSTER", "KEYSLOT", key]).await {
            redis::Value::Int(slot) => slot.to_string(),
            other => panic!("{other:?}"),
        };
        let (source_id, target_id) = (id(source).await, id(target).await);
        target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]).await;
        source.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]).await;
        let port = target.port().to_string();
        loop {
            let keys = match source.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await {
                redis::Value::Array(keys) if keys.is_empty() => break,
                redis::Value::Array(keys) => keys,
                other => panic!("{other:?}"),
            };
            for key in keys {
                let redis::Value::BulkString(key) = key else { panic!("{key:?}") };
                let key = String::from_utf8(key).expect("our keys are text");
                source.command(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]).await;
            }
        }
        for node in [target, source, &self.nodes[3 - from - to]] {
            node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]).await;
        }
    }
}

async fn id(node: &RedisServer) -> String {
    match node.command(&["CLUSTER", "MYID"]).await {
        redis::Value::BulkString(id) => String::from_utf8(id).expect("an id is text"),
        other => panic!("{other:?}"),
    }
}

/// An authority of the test's own, and certificates that it signed: `ca.pem`, `server.pem`, `server.key`,
/// `client.pem`, `client.key`.
pub(crate) struct Certificates {
    directory: TempDir,
}

impl Certificates {
    /// Makes all of them, for 127.0.0.1.
    pub(crate) fn make() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        openssl(
            path,
            &["req", "-x509"],
            &key,
            &["-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca"],
        );
        for name in ["server", "client"] {
            let (key_file, request, certificate) =
                (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
            let subject = format!("/CN={name}");
            openssl(
                path,
                &["req", "-new"],
                &key,
                &["-keyout", &key_file, "-out", &request, "-subj", &subject],
            );
            std::fs::write(path.join("san"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").expect("written");
            let signing =
                ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san"];
            openssl(path, &["x509", "-req"], &signing, &["-in", &request, "-out", &certificate]);
        }
        Self { directory }
    }

    /// One of the files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn openssl(directory: &Path, command: &[&str], common: &[&str], rest: &[&str]) {
    let output = Command::new("openssl")
        .args(command)
        .args(common)
        .args(rest)
        .current_dir(directory)
        .output()
        .expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
