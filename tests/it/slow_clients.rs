//! Clients that do not read: they cost no memory, delay nobody, and get everything when they wake.

use crate::support::frame::CLOSE;
use crate::support::{
    Connection, Frame, NumberedLoad, OrderCheck, Subscription, TestSidecar, Transport, joined,
    number_from_environment, upgrade_request, within,
};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

const EVENT_BYTES: usize = 4_096;

/// A client that has subscribed and reads nothing more. Its own buffer is small, so that what it does not read
/// stays the node's affair.
async fn sleeper(sidecar: &TestSidecar, transport: Transport) -> TcpStream {
    let address = sidecar.whereabouts().client();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_recv_buffer_size(8 * 1024).expect("a small buffer");
    socket.connect(&address.tcp().into()).expect("connected");
    socket.set_nonblocking(true).expect("non-blocking");
    let mut stream = TcpStream::from_std(socket.into()).expect("a socket of the runtime");
    let request = match transport {
        Transport::WebSocket => upgrade_request(&address, "/v1/ws?channel=slow.*", ""),
        _ => format!("GET /v1/sse?channel=slow.* HTTP/1.1\r\nHost: {}\r\n\r\n", address.host()).into_bytes(),
    };
    stream.write_all(&request).await.expect("written");
    // It is subscribed when its answer begins.
    within("the begin of an answer", stream.readable()).await.expect("open");
    stream
}

/// Reads everything that waits for a sleeper, to the last event.
async fn wake(stream: TcpStream, transport: Transport, total: u64) {
    let mut order = OrderCheck::new(format!("a waking {transport:?}"));
    let mut stream = BufReader::with_capacity(256 * 1024, stream);
    skip_head(&mut stream).await;
    let mut payload = Vec::new();
    while order.next() < total {
        match transport {
            Transport::WebSocket => {
                let frame = Frame::read(&mut stream).await.expect("a frame");
                let at = order.next();
                assert_ne!(frame.opcode, CLOSE, "closed at {at}: {:?}", frame.close_code());
                payload = frame.payload;
            }
            _ => {
                payload.clear();
                tokio::io::AsyncBufReadExt::read_until(&mut stream, b'\n', &mut payload)
                    .await
                    .expect("a line");
                assert!(!payload.is_empty(), "ended at {}", order.next());
                match payload.strip_prefix(b"data:") {
                    Some(data) => payload = data.to_vec(),
                    None => continue,
                }
            }
        }
        if let Ok(message) = serde_json::from_slice::<Value>(&payload)
            && message["type"] == "event"
        {
            order.saw(message["data"]["n"].as_u64().expect("a number"));
        }
    }
}

async fn skip_head(stream: &mut BufReader<TcpStream>) {
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        tokio::io::AsyncBufReadExt::read_line(stream, &mut line).await.expect("a line of the head");
    }
}

/// `SIDEWIRE_TEST_SLOW_CLIENTS`, `SIDEWIRE_TEST_SLOW_MIB` and `SIDEWIRE_TEST_SLOW_WAKING` make it larger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_never_read_cost_no_memory_delay_nobody_and_get_everything_on_waking() {
    let clients = number_from_environment("SIDEWIRE_TEST_SLOW_CLIENTS", 200);
    let total = (number_from_environment("SIDEWIRE_TEST_SLOW_MIB", 20) << 20) / EVENT_BYTES as u64;
    let waking = number_from_environment("SIDEWIRE_TEST_SLOW_WAKING", 10);
    let config = "[limits]\nconnections = 100000\nconnections_per_ip = 100000\n";
    let mut sidecar = TestSidecar::with_config(config).await;
    let begin = sidecar.cursor_now().await;
    let mut sleepers = Vec::new();
    for at in 0..clients {
        let transport = if at % 2 == 0 { Transport::WebSocket } else { Transport::Sse };
        sleepers.push((transport, sleeper(&sidecar, transport).await));
    }
    sidecar.wait_for_connections(clients).await;

    let address = sidecar.whereabouts().client();
    let awake = tokio::spawn(async move {
        let mut subscription =
            Subscription::open(Transport::WebSocket, &address, "channel=slow.*", Some(&begin)).await;
        let mut order = OrderCheck::new("the one that is awake");
        let mut delays = Vec::new();
        while order.next() < total {
            let delivery = subscription.next().await;
            order.saw(delivery.number());
            let sent = delivery.event["time"].as_u64().expect("time");
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
            delays.push(u64::try_from(now).expect("64 bits last").saturating_sub(sent));
        }
        delays.sort_unstable();
        delays
    });

    let memory_before = sidecar.resident_kib();
    let load = NumberedLoad {
        channels: (0..5).map(|at| format!("slow.{at}")).collect(),
        run: "slow".into(),
        total,
        batch: 8,
        per_second: 2_000,
        padding: EVENT_BYTES,
    };
    load.start(sidecar.whereabouts()).done().await;
    let delays = joined(awake).await;
    let memory_after = sidecar.resident_kib();
    let grown = memory_after.saturating_sub(memory_before) / 1024;
    let late = delays[delays.len() * 99 / 100];
    eprintln!("memory grew by {grown} MiB; delay of the one that is awake: p99 {late} ms");
    assert!(grown < 64, "memory grew from {memory_before} to {memory_after} KiB");
    assert!(late < 1_000, "p99 of the delay is {late} ms");

    // Some of them wake, and at the same time the others hang up.
    let rest = sleepers.split_off(usize::try_from(waking).expect("few").min(sleepers.len()));
    drop(rest);
    let begin = Instant::now();
    for (transport, stream) in sleepers {
        tokio::time::timeout(Duration::from_secs(120), wake(stream, transport, total))
            .await
            .unwrap_or_else(|_| panic!("a waking {transport:?} did not get everything in time"));
    }
    eprintln!("{waking} of {clients} woke and read {total} events each in {:?}", begin.elapsed());
    sidecar.wait_for_connections(0).await;
    sidecar.still_healthy().await;
}

#[tokio::test]
async fn a_client_whose_backlog_is_no_longer_kept_is_told_and_not_left_with_a_silent_gap() {
    let config = "[log]\nmax_bytes = \"4MiB\"\ncompress = false\n";
    let sidecar = TestSidecar::with_config(config).await;
    let address = sidecar.whereabouts().client();
    let mut connection = Connection::open(&address).await.expect("connected");
    connection.write(&upgrade_request(&address, "/v1/ws?channel=slow.*", "")).await.expect("written");
    assert_eq!(within("the head", connection.read_head()).await.expect("a head").status, 101);
    let total = (40 << 20) / EVENT_BYTES as u64;
    let load = NumberedLoad {
        channels: vec!["slow.0".into()],
        run: "gone".into(),
        total,
        batch: 25,
        per_second: 100_000,
        padding: EVENT_BYTES,
    };
    load.start(sidecar.whereabouts()).done().await;

    // It wakes: first comes what was under way, then it is told that something is missing, one way or another.
    let mut stream = connection.into_stream();
    let (mut next, mut told) = (0, None);
    while next < total && told.is_none() {
        let frame = within("a frame", Frame::read(&mut stream)).await.expect("a frame");
        if let Some(code) = frame.close_code() {
            told = Some(format!("close {code}"));
        } else if let Ok(message) = serde_json::from_slice::<Value>(&frame.payload) {
            match message["type"].as_str() {
                Some("event") => {
                    let n = message["data"]["n"].as_u64().expect("a number");
                    assert_eq!(n, next, "a silent gap");
                    next = n + 1;
                }
                Some("subscribed") if message["resume"] != "none" => told = Some(message.to_string()),
                Some("error" | "bye") => told = Some(message.to_string()),
                _ => {}
            }
        }
    }
    let told =
        told.unwrap_or_else(|| panic!("all {total} events came, though the log keeps a tenth of them"));
    eprintln!("after {next} of {total} events: {told}");
    assert!(told.contains("expired") || told.contains("4008"), "{told}");
}
