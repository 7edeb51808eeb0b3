//! What a bus costs: publishes a second through one node that the bus has confirmed, beside what the bus's own
//! tools reach with the same payload, and how long an event takes from one node to a client of another.
//!
//! `cargo bench --bench bus`, after `cargo build --release` and `tests/setup.sh --bench`. Real servers, started here.
//! Words behind `--` name the rows that are wanted.

#![allow(clippy::unwrap_used, dead_code, missing_docs)]

#[path = "../tests/servers/mod.rs"]
mod servers;

use futures_util::StreamExt as _;
use servers::NatsServer;
use servers::{RedisCluster, RedisServer};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Bytes of JSON in each event.
const PAYLOAD: usize = 128;
/// Publishers, each with one request under way.
const PUBLISHERS: usize = 256;
/// How long each figure is measured.
const MEASURED: Duration = Duration::from_secs(5);
/// Runs of each figure, of which the median counts.
const RUNS: usize = 3;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        println!("{PAYLOAD}-byte JSON, {PUBLISHERS} publishers with one request under way each, medians of {RUNS}\n");
        println!("| bus | its own tool /s | one node, ack=bus /s | ratio | node to node p50 ms | p99 ms |");
        println!("| --- | --- | --- | --- | --- | --- |");
        let redis = RedisServer::start().await;
        row("Redis stream", &redis.url(), 1, async || Some(redis_benchmark(redis.port()))).await;
        row("Redis stream, 4 shards", &redis.url(), 4, async || Some(redis_benchmark(redis.port()))).await;
        drop(redis);
        let cluster = RedisCluster::start().await;
        row("Cluster of 3", &cluster.url(), 1, async || None).await;
        row("Cluster of 3, 4 shards", &cluster.url(), 4, async || None).await;
        drop(cluster);
        let nats = NatsServer::start().await;
        row("JetStream", &nats.url(), 1, async || Some(nats_bench(&nats).await)).await;
    });
}

/// Measures a bus, unless others are named on the command line.
async fn row(name: &str, url: &str, shards: u32, raw: impl AsyncFn() -> Option<f64>) {
    let named: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if !named.is_empty() && !named.iter().any(|word| name.contains(word)) {
        return;
    }
    let (mut reference, mut through, mut p50, mut p99) = (vec![], vec![], vec![], vec![]);
    for run in 0..RUNS {
        reference.extend(raw().await);
        let namespace = format!("bench{shards}-{run}");
        // One node alone: on two cores another that reads along takes a share of what there is.
        let node = Node::start(url, &namespace, shards).await;
        through.push(publish_rate(&node).await);
        drop(node);
        // Elsewhere, so that they have nothing to catch up with.
        let namespace = format!("{namespace}-delay");
        let nodes = [Node::start(url, &namespace, shards).await, Node::start(url, &namespace, shards).await];
        let (half, most) = node_to_node(&nodes).await;
        p50.push(half);
        p99.push(most);
    }
    let through = median(through);
    let (tool, ratio) = match reference.is_empty() {
        true => ("–".to_owned(), "–".to_owned()),
        false => {
            let reference = median(reference);
            (format!("{reference:.0}"), format!("{:.2}", through / reference))
        }
    };
    println!("| {name} | {tool} | {through:.0} | {ratio} | {:.2} | {:.2} |", median(p50), median(p99));
}

/// A node on the bus, killed when it is dropped.
struct Node {
    child: Child,
    app: SocketAddr,
    client: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Node {
    async fn start(url: &str, namespace: &str, shards: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [app, client, admin] = std::array::from_fn(|_| servers::free_port());
        let binary =
            std::env::var("SIDEWIRE_TEST_BINARY").unwrap_or_else(|_| "target/release/sidewire".into());
        let child = Command::new(binary)
            .args(["run", "--bus", url, "--data-dir"])
            .arg(directory.path().join("log"))
            .args(["--app", &format!("127.0.0.1:{app}")])
            .args(["--client", &format!("127.0.0.1:{client}")])
            .args(["--admin", &format!("127.0.0.1:{admin}")])
            .env("SIDEWIRE_BUS__NAMESPACE", namespace)
            .env("SIDEWIRE_BUS__SHARDS", shards.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("cargo build --release comes first");
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let node = Self { child, app: address(app), client: address(client), _directory: directory };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !ready(address(admin)).await {
            assert!(Instant::now() < deadline, "the node does not get ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        node
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn ready(admin: SocketAddr) -> bool {
    let Ok(mut connection) = Connection::open(admin).await else { return false };
    connection
        .exchange(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .is_ok_and(|status| status == 200)
}

/// One HTTP connection with one request at a time.
struct Connection(BufReader<TcpStream>);

impl Connection {
    async fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request and reads the response; returns its status.
    async fn exchange(&mut self, request: &[u8]) -> std::io::Result<u16> {
        self.0.get_mut().write_all(request).await?;
        let (mut line, mut status, mut length) = (String::new(), 0, 0);
        loop {
            line.clear();
            self.0.read_line(&mut line).await?;
            if status == 0 {
                status = line.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(1);
            } else if line == "\r\n" {
                break;
            } else if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        Ok(status)
    }
}

fn request(channel: usize, query: &str, data: &str) -> Vec<u8> {
    let body = format!("{{\"channel\":\"bench.{channel}\",\"event\":\"tick\",\"data\":{data}}}");
    format!(
        "POST /v1/publish{query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn payload() -> String {
    format!("{{\"text\":\"{}\"}}", "x".repeat(PAYLOAD - 11))
}

/// Publishes a second through one node, each confirmed by the bus.
async fn publish_rate(node: &Node) -> f64 {
    let begin = Instant::now();
    let tasks: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            // A channel for each: they are on all shards.
            let (request, app) = (request(publisher, "?ack=bus", &payload()), node.app);
            tokio::spawn(async move {
                let mut connection = Connection::open(app).await.unwrap();
                let mut count = 0_u64;
                while begin.elapsed() < MEASURED {
                    assert_eq!(connection.exchange(&request).await.unwrap(), 200);
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    count as f64 / begin.elapsed().as_secs_f64()
}

/// From a publish on one node to a client of another, at 1,000 events a second: median and 99th percentile in ms.
async fn node_to_node(nodes: &[Node; 2]) -> (f64, f64) {
    let url = format!("ws://{}/v1/ws?channel=bench.*", nodes[1].client);
    let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let (_, mut messages) = socket.split();
    let begin = Instant::now();
    let reader = tokio::spawn(async move {
        let mut delays = Vec::new();
        while let Some(Ok(message)) = messages.next().await {
            let now = begin.elapsed().as_nanos() as u64;
            let event: serde_json::Value = serde_json::from_slice(&message.into_data()).unwrap_or_default();
            match event["data"].as_u64() {
                Some(0) => break,
                Some(sent) => delays.push(now - sent),
                None => {}
            }
        }
        delays
    });
    // Several connections, so that a slow answer does not hold back the next publish.
    let (jobs, work) = tokio::sync::mpsc::channel::<u64>(1024);
    let work = std::sync::Arc::new(tokio::sync::Mutex::new(work));
    let publishers: Vec<_> = (0..16)
        .map(|_| {
            let (work, app) = (work.clone(), nodes[0].app);
            tokio::spawn(async move {
                let mut connection = Connection::open(app).await.unwrap();
                loop {
                    let Some(sent) = work.lock().await.recv().await else { return };
                    let status = connection
                        .exchange(&request(sent as usize % 64, "", &sent.to_string()))
                        .await
                        .unwrap();
                    assert!(status == 200 || status == 202);
                }
            })
        })
        .collect();
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    while begin.elapsed() < MEASURED {
        tick.tick().await;
        jobs.send(begin.elapsed().as_nanos() as u64).await.unwrap();
    }
    drop(jobs);
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let mut last = Connection::open(nodes[0].app).await.unwrap();
    // Behind all others, whichever shard they are on.
    tokio::time::sleep(Duration::from_millis(500)).await;
    last.exchange(&request(1, "", "0")).await.unwrap();
    let mut delays = tokio::time::timeout(Duration::from_secs(10), reader).await.unwrap().unwrap();
    delays.sort_unstable();
    let at = |share: f64| delays[(delays.len() as f64 * share) as usize] as f64 / 1e6;
    (at(0.5), at(0.99))
}

/// What `redis-benchmark` reaches with `XADD` of the same payload, pipelined by 16 on 64 connections.
fn redis_benchmark(port: u16) -> f64 {
    let output = Command::new("redis-benchmark")
        .args(["-p", &port.to_string(), "-q", "--csv", "-n", "200000", "-c", "64", "-P", "16"])
        .args(["XADD", "bench", "*", "data", &payload()])
        .output()
        .expect("redis-tools are installed by tests/setup.sh");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().last().unwrap_or_default();
    let rate = line.rsplit("\",\"").find_map(|_| line.split("\",\"").nth(1)).unwrap_or_default();
    rate.trim_matches('"').parse().unwrap_or_else(|_| panic!("redis-benchmark said: {text}"))
}

/// What the official Go client reaches with the same payload, the way `nats bench js pub async` does it: 16 clients
/// with batches of 500 (`benches/nats`).
async fn nats_bench(nats: &NatsServer) -> f64 {
    let jetstream = nats.jetstream().await;
    let config = async_nats::jetstream::stream::Config {
        name: "RAW".into(),
        subjects: vec!["raw.>".into()],
        ..Default::default()
    };
    let _ = jetstream.delete_stream("RAW").await;
    jetstream.create_stream(config).await.unwrap();
    let cached = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/tools/bin/nats-publish");
    let program = if cached.exists() { cached } else { "nats-publish".into() };
    let output = Command::new(program)
        .args(["-url", &nats.url(), "-subject", "raw.bench", "-size", &PAYLOAD.to_string()])
        .args(["-clients", "16", "-batch", "500", "-for", &format!("{}s", MEASURED.as_secs())])
        .output()
        .expect("tests/setup.sh --bench builds nats-publish");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    text.trim().parse().unwrap_or_else(|_| panic!("nats-publish said: {text}{why}"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
