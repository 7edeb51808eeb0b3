//! The test servers themselves: what they say they do to a connection, they do. A proxy that cuts nothing would let
//! every test of an outage pass.

#[path = "../servers/mod.rs"]
mod servers;

use servers::{
    Flow, NatsCluster, NatsServer, Proxy, RedisCluster, RedisServer, RedisSetup, Sentinels, Towards,
};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// Long enough for what must come, short enough for what must not.
const MOMENT: Duration = Duration::from_millis(150);

/// A server that answers every byte with the same byte, and its proxy.
async fn echo() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let proxy = Proxy::start(listener.local_addr().expect("bound")).await;
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = socket.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    proxy
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.expect("the proxy listens")
}

/// Sends a text and waits for it to come back.
async fn echoes(socket: &mut TcpStream, text: &str) {
    socket.write_all(text.as_bytes()).await.expect("connected");
    let mut back = vec![0; text.len()];
    timeout(Duration::from_secs(10), socket.read_exact(&mut back))
        .await
        .expect("in time")
        .expect("connected");
    assert_eq!(back, text.as_bytes());
}

async fn is_silent(socket: &mut TcpStream) {
    let mut byte = [0];
    assert!(timeout(MOMENT, socket.read(&mut byte)).await.is_err(), "nothing may come");
}

async fn is_reset(socket: &mut TcpStream) {
    let mut byte = [0];
    let read = timeout(Duration::from_secs(10), socket.read(&mut byte)).await.expect("in time");
    assert_eq!(read.expect_err("it is reset").kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_cut_resets_and_refuses_and_is_restored_on_the_same_port() {
    let mut proxy = echo().await;
    let mut socket = connect(&proxy).await;
    echoes(&mut socket, "before").await;
    proxy.cut().await;
    is_reset(&mut socket).await;
    let refused = TcpStream::connect(proxy.address()).await.expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    proxy.restore().await;
    echoes(&mut connect(&proxy).await, "after").await;
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn a_black_hole_swallows_until_it_is_gone() {
    let mut proxy = echo().await;
    let mut socket = connect(&proxy).await;
    proxy.blackhole();
    socket.write_all(b"later").await.expect("connected");
    is_silent(&mut socket).await;
    proxy.restore().await;
    let mut back = [0; 5];
    socket.read_exact(&mut back).await.expect("connected");
    assert_eq!(&back, b"later");
}

#[tokio::test]
async fn a_half_close_ends_one_direction_only() {
    let proxy = echo().await;
    let mut socket = connect(&proxy).await;
    echoes(&mut socket, "before").await;
    proxy.half_close();
    assert_eq!(socket.read(&mut [0]).await.expect("not reset"), 0, "the end of the stream");
    socket.write_all(b"still taken").await.expect("the other direction is open");
    echoes(&mut connect(&proxy).await, "new connections are whole").await;
}

#[tokio::test]
async fn delays_and_bandwidth_hold_per_direction() {
    let proxy = echo().await;
    let mut socket = connect(&proxy).await;
    proxy.set(Towards::Client, Flow { delay: MOMENT, ..Flow::default() });
    let begin = Instant::now();
    echoes(&mut socket, "slow").await;
    assert!(begin.elapsed() >= MOMENT);
    proxy.set(Towards::Client, Flow::default());
    proxy.set(Towards::Server, Flow { bytes_per_second: Some(100_000), ..Flow::default() });
    let begin = Instant::now();
    echoes(&mut socket, &"x".repeat(30_000)).await;
    assert!(begin.elapsed() >= Duration::from_millis(290), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn one_kind_of_connection_freezes_alone_and_only_towards_the_client() {
    let proxy = echo().await;
    let mut subscriber = connect(&proxy).await;
    let mut publisher = connect(&proxy).await;
    proxy.set_for_kind(&["XREAD"], Flow::default());
    echoes(&mut subscriber, "XREAD BLOCK").await;
    echoes(&mut publisher, "XADD").await;
    proxy.set_for_kind(&["XREAD"], Flow { frozen: true, ..Flow::default() });
    subscriber.write_all(b"again").await.expect("connected");
    is_silent(&mut subscriber).await;
    echoes(&mut publisher, "XADD").await;
}

#[tokio::test]
async fn a_reply_is_lost_after_the_request_was_taken() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.address()).await;
    let mut socket = connect(&proxy).await;
    proxy.lose_next_reply("INCR");
    assert!(proxy.will_lose_a_reply());
    socket.write_all(b"PING\r\n").await.expect("connected");
    let mut pong = [0; 7];
    socket.read_exact(&mut pong).await.expect("connected");
    socket.write_all(b"INCR lost\r\n").await.expect("connected");
    is_reset(&mut socket).await;
    assert!(!proxy.will_lose_a_reply());
    assert_eq!(redis.command::<String>(&["GET", "lost"]).await, "1", "it was done all the same");
}

#[tokio::test]
async fn redis_is_killed_frozen_and_started_again() {
    let mut kept = RedisSetup::new().append_only().start().await;
    kept.command::<()>(&["SET", "a", "1"]).await;
    kept.kill();
    kept.start_again().await;
    assert_eq!(kept.command::<String>(&["GET", "a"]).await, "1");
    kept.freeze();
    assert!(timeout(MOMENT, kept.try_command::<String>(&["PING"])).await.is_err(), "frozen");
    kept.thaw();
    kept.command::<String>(&["PING"]).await;

    let mut empty = RedisServer::start().await;
    empty.command::<()>(&["SET", "a", "1"]).await;
    empty.stop().await;
    empty.start_again().await;
    assert_eq!(empty.command::<Option<String>>(&["GET", "a"]).await, None);
}

#[tokio::test]
async fn sentinels_choose_the_replica_when_the_master_is_gone() {
    let mut sentinels = Sentinels::start().await;
    sentinels.wait_for_master(0).await;
    sentinels.servers[0].kill();
    sentinels.wait_for_master(1).await;
}

#[tokio::test]
async fn a_slot_moves_with_its_keys() {
    let cluster = RedisCluster::start().await;
    let slot = cluster.slot("{x}").await;
    let (from, to) = (cluster.owner(slot).await, (cluster.owner(slot).await + 1) % 3);
    cluster.masters[from].command::<()>(&["SET", "{x}", "1"]).await;
    cluster.move_slot(slot, to).await;
    assert_eq!(cluster.owner(slot).await, to);
    assert_eq!(cluster.masters[to].command::<String>(&["GET", "{x}"]).await, "1");
}

#[tokio::test]
async fn nats_keeps_its_streams_unless_its_storage_is_lost() {
    let mut server = NatsServer::start().await;
    let config = async_nats::jetstream::stream::Config {
        name: "KEPT".into(),
        subjects: vec!["kept".into()],
        ..Default::default()
    };
    server.jetstream().await.create_stream(config).await.expect("JetStream takes a stream");
    server.kill();
    server.start_again().await;
    server.jetstream().await.get_stream("KEPT").await.expect("it is still there");
    server.stop().await;
    server.lose_storage();
    server.start_again().await;
    assert!(server.jetstream().await.get_stream("KEPT").await.is_err());
}

#[tokio::test]
async fn a_nats_cluster_has_a_leader_for_every_stream() {
    let cluster = NatsCluster::start().await;
    let config = async_nats::jetstream::stream::Config {
        name: "THREE".into(),
        subjects: vec!["three".into()],
        num_replicas: 3,
        ..Default::default()
    };
    cluster.servers[0].jetstream().await.create_stream(config).await.expect("three servers hold it");
    assert!(cluster.leader("THREE").await < 3);
}
