//! JetStream: what every backend must do, and what is on it.

use crate::conformance::{
    Bus, OrderedBus, is_event, numbered, open, ordered_conformance, send, senders, take,
};
use crate::nats_servers::{Nats, NatsCluster, NatsServer, NatsSetup, free_port, jetstream, settle};
use crate::servers::wait::{eventually, within};
use futures_util::StreamExt as _;
use sidewire::bus::backend::{
    Backend as _, Content, LinkError, Origin, Parcel, SendError, Sender as _, Start,
};
use sidewire::bus::nats::JetStream;
use sidewire::event::{Channel, Data, Event, EventId, EventName, Expiry, Position, Tags};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(crate) const STREAM: &str = "SIDEWIRE_default";

struct OnJetStream;

impl Bus for OnJetStream {
    type Kind = Nats;
    type Backend = JetStream;

    async fn start() -> NatsServer {
        NatsServer::start().await
    }

    fn backend(server: &NatsServer, namespace: &str) -> JetStream {
        jetstream(&format!("url = '{}'\nnamespace = '{namespace}'", server.url()))
    }

    async fn put(server: &NatsServer, fields: &[(&str, &str)]) {
        let mut headers = async_nats::HeaderMap::new();
        for (name, text) in fields {
            let (first, rest) = name.split_at(1);
            headers.insert(format!("Sidewire-{}{rest}", first.to_uppercase()), *text);
        }
        let context = server.jetstream().await;
        let sent = context.publish_with_headers("sidewire.default.ev.job.7", headers, "".into()).await;
        sent.unwrap().await.unwrap();
    }
}

impl OrderedBus for OnJetStream {
    async fn flush(server: &NatsServer) {
        server.jetstream().await.delete_stream(STREAM).await.unwrap();
    }

    async fn trim(server: &NatsServer, left: usize) {
        let stream = server.jetstream().await.get_stream(STREAM).await.unwrap();
        match left {
            0 => stream.purge().await.unwrap(),
            left => stream.purge().keep(left as u64).await.unwrap(),
        };
    }
}

ordered_conformance!(OnJetStream);

fn backend(server: &NatsServer) -> JetStream {
    jetstream(&format!("url = '{}'", server.url()))
}

#[tokio::test]
async fn other_clients_read_what_is_there() {
    let server = NatsServer::start().await;
    let mut link = open(&backend(&server), None).await;
    let client = server.client().await;
    let mut seen = client.subscribe("sidewire.default.>").await.unwrap();
    settle(&client).await;
    send(&mut link, &[numbered(1, 7), Parcel::Probe { origin: Origin(1), number: 3 }]).await;
    let event = within("a message", seen.next()).await.unwrap();
    assert_eq!((&*event.subject, &event.payload[..]), ("sidewire.default.ev.job.7", &b"7"[..]));
    let headers = event.headers.unwrap();
    for (name, text) in [
        ("Nats-Msg-Id", "0000000000000001-7"),
        ("Sidewire-V", "1"),
        ("Sidewire-Id", "e-1-7"),
        ("Sidewire-Channel", "job.7"),
        ("Sidewire-Event", "message"),
        ("Sidewire-Time", "1800000000000"),
        ("Sidewire-Expires", "1800000060000"),
        ("Sidewire-Type", "json"),
        ("Sidewire-Origin", "0000000000000001"),
        ("Sidewire-Seq", "7"),
    ] {
        assert_eq!(headers.get(name).unwrap_or_else(|| panic!("{name}")).as_str(), text);
    }
    let probe = within("a message", seen.next()).await.unwrap();
    assert_eq!(&*probe.subject, "sidewire.default.sys");
    assert_eq!(probe.headers.unwrap().get("Sidewire-Probe").unwrap().as_str(), "3");
    let info = server.jetstream().await.get_stream(STREAM).await.unwrap().cached_info().clone();
    assert_eq!(info.config.metadata["sidewire-epoch"], link.epoch.to_string());
}

#[tokio::test]
async fn what_is_sent_again_is_stored_once() {
    let server = NatsServer::start().await;
    let backend = backend(&server);
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 1), numbered(1, 2)]).await;
    send(&mut link, &[numbered(1, 2), numbered(1, 3)]).await;
    let mut again = open(&backend, None).await;
    send(&mut again, &[numbered(1, 1), numbered(1, 2), numbered(1, 3), numbered(1, 4)]).await;
    assert_eq!(senders(&mut again, 4).await, [(1, 1), (1, 2), (1, 3), (1, 4)]);
    let stream = server.jetstream().await.get_stream(STREAM).await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 4);
}

fn event_of(data: Data, tags: Tags, number: u64) -> Parcel {
    let event = Event {
        position: Position::ZERO,
        id: EventId::parse(&format!(" {} ", "\"".repeat(100))).unwrap(),
        id_given: true,
        channel: Channel::parse(&"c".repeat(255)).unwrap(),
        name: EventName::parse(&"\"".repeat(255)).unwrap(),
        data,
        time: 1,
        tags,
        expiry: Expiry::At(u64::MAX),
        exclude: None,
        from: None,
        way: None,
    };
    Parcel::Event { event: Arc::new(event), origin: Origin(1), sequence: number }
}

#[tokio::test]
async fn an_event_of_the_largest_size_fits_whatever_is_in_it() {
    let server = NatsSetup::new().line("max_payload: 131072").start().await;
    let mut link = open(&backend(&server), None).await;
    let tags = Tags::from_pairs((0..32).map(|index| (format!("{:\"<64}", index), "\\".repeat(512)))).unwrap();
    let beside = 102 + 255 + 255 + 32 * (64 + 512);
    let data = vec![b'1'; link.sender.max_event_bytes() - beside];
    let largest = event_of(Data::Bytes(data.into()), tags, 1);
    send(&mut link, std::slice::from_ref(&largest)).await;
    let arrived = take(&mut link, 1, is_event).await;
    let (Content::Event { event, .. }, Parcel::Event { event: sent, .. }) = (&arrived[0].content, &largest)
    else {
        panic!()
    };
    assert_eq!(**event, **sent);
    // One that is larger is told from those around it.
    let larger = event_of(Data::Bytes(vec![b'1'; 131_072].into()), Tags::default(), 3);
    let failure =
        within("a send", link.sender.send(&[numbered(1, 2), larger, numbered(1, 4)])).await.unwrap_err();
    assert!(failure.confirmed == 1 && matches!(failure.error, SendError::Unfit(_)), "{failure:?}");
    send(&mut link, &[numbered(1, 4)]).await;
    assert_eq!(senders(&mut link, 2).await, [(1, 2), (1, 4)]);
}

#[tokio::test]
async fn a_large_backlog_comes_whole() {
    let server = NatsServer::start().await;
    let backend = backend(&server);
    let mut link = open(&backend, None).await;
    let all: Vec<Parcel> = (1..=12_000).map(|number| numbered(1, number)).collect();
    send(&mut link, &all).await;
    let mut late = open(&backend, None).await;
    let expected: Vec<(u64, u64)> = (1..=12_000).map(|number| (1, number)).collect();
    assert_eq!(senders(&mut late, 12_000).await, expected);
    assert_eq!(senders(&mut link, 12_000).await, expected);
}

#[tokio::test]
async fn settings_that_changed_are_updated_and_those_that_clash_refused() {
    let server = NatsServer::start().await;
    let epoch = open(&backend(&server), None).await.epoch;
    let shorter = jetstream(&format!("url = '{}'\nretention = '60s'\nmax_bytes = '1MiB'", server.url()));
    assert_eq!(open(&shorter, None).await.epoch, epoch);
    let info = server.jetstream().await.get_stream(STREAM).await.unwrap().cached_info().clone();
    assert_eq!((info.config.max_age, info.config.max_bytes), (Duration::from_secs(60), 1 << 20));
    for (setting, word) in [("storage = 'memory'", "bus.storage"), ("replicas = 3", "bus.replicas")] {
        let other = jetstream(&format!("url = '{}'\n{setting}", server.url()));
        let error = within("a refusal", other.open(None)).await.map(|_| ()).unwrap_err();
        assert!(matches!(&error, LinkError::Refused(why) if why.contains(word)), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_without_jetstream_is_told() {
    let server =
        NatsSetup::new().line("accounts { A: { users: [ { user: a, password: b } ] } }").start().await;
    let url = server.url().replace("nats://", "nats://a:b@");
    let error = within("a refusal", jetstream(&format!("url = '{url}'")).open(None)).await.map(|_| ());
    let error = error.unwrap_err();
    assert!(matches!(&error, LinkError::Refused(why) if why.contains("bus.mode")), "{error:?}");
}

/// How many clients the server has, by its monitoring port.
async fn connections(port: u16) -> Option<u64> {
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    socket.write_all(b"GET /varz HTTP/1.0\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str::<serde_json::Value>(body).ok()?["connections"].as_u64()
}

#[tokio::test]
async fn a_link_that_is_dropped_is_closed() {
    let port = free_port();
    let server = NatsSetup::new().line(&format!("http: \"127.0.0.1:{port}\"")).start().await;
    let mut link = open(&backend(&server), None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    senders(&mut link, 1).await;
    assert_eq!(connections(port).await, Some(1));
    drop(link.sender);
    drop(link.tail);
    eventually("the end of the connection", async || connections(port).await.filter(|number| *number == 0))
        .await;
}

#[tokio::test]
async fn a_cluster_goes_on_without_its_leader() {
    let mut cluster = NatsCluster::start().await;
    let backend = jetstream(&format!("url = '{}'\nreplicas = 3", cluster.url()));
    let mut link = eventually("a stream of three", async || backend.open(None).await.ok()).await;
    let parcels: Vec<Parcel> = (1..=50).map(|number| numbered(1, number)).collect();
    send(&mut link, &parcels).await;
    let arrivals = take(&mut link, 50, is_event).await;
    let known = Some((link.epoch, arrivals[49].position.unwrap()));
    let leader = cluster.leader(STREAM).await;
    cluster.servers[leader].kill();
    let began = std::time::Instant::now();
    let next = [numbered(1, 51)];
    let mut link = eventually("a link again, and a send", async || {
        let mut opened = backend.open(known).await.ok()?;
        let sent = tokio::time::timeout(Duration::from_secs(2), opened.sender.send(&next));
        sent.await.ok()?.ok()?;
        Some(opened)
    })
    .await;
    eprintln!("a killed leader: writable again after {:?}", began.elapsed());
    assert_eq!((link.start, Some(link.epoch)), (Start::Continues, known.map(|known| known.0)));
    assert_eq!(senders(&mut link, 1).await, [(1, 51)]);
}
