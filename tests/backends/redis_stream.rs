//! Redis streams.

use crate::conformance::{
    Bus, OrderedBus, is_event, numbered, open, ordered_conformance, send, senders, take,
};
use crate::servers::wait::{eventually, within};
use crate::servers::{Certificates, Flow, Proxy, Redis, RedisCluster, RedisServer, RedisSetup, Sentinels};
use sidewire::bus::backend::{
    Backend as _, Content, LinkError, Parcel, SendError, Sender as _, Start, Tail as _,
};
use sidewire::bus::redis::RedisStream;
use sidewire::config::{Config, Sources};
use sidewire::sidecar::redis_options;
use std::sync::Arc;
use std::time::{Duration, Instant};

const EVENTS: &str = "sidewire:{default}:events";

/// The stream that a configuration of `[bus]` names.
fn stream(bus: &str) -> RedisStream {
    let config = Config::from_toml(&format!("[bus]\n{bus}"), Sources::default()).unwrap();
    RedisStream::new(redis_options(&config.bus).unwrap())
}

/// The stream of a server.
struct OnStream;

impl Bus for OnStream {
    type Kind = Redis;
    type Backend = RedisStream;

    async fn start() -> RedisServer {
        RedisSetup::new().append_only().start().await
    }

    fn backend(server: &RedisServer, namespace: &str) -> RedisStream {
        stream(&format!("url = '{}'\nnamespace = '{namespace}'", server.url()))
    }

    async fn put(server: &RedisServer, fields: &[(&str, &str)]) {
        let mut command = vec!["XADD", EVENTS, "*"];
        command.extend(fields.iter().flat_map(|(name, text)| [*name, *text]));
        server.command::<()>(&command).await;
    }
}

impl OrderedBus for OnStream {
    async fn flush(server: &RedisServer) {
        server.command::<()>(&["FLUSHALL"]).await;
    }

    async fn trim(server: &RedisServer, left: usize) {
        server.command::<()>(&["XTRIM", EVENTS, "MAXLEN", &left.to_string()]).await;
    }
}

ordered_conformance!(OnStream);

#[tokio::test]
async fn a_tail_that_runs_learns_of_a_new_epoch() {
    let server = OnStream::start().await;
    let backend = OnStream::backend(&server, "default");
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    let last = take(&mut link, 1, is_event).await[0].position.unwrap();
    server.command::<()>(&["FLUSHALL"]).await;
    let mut other = open(&backend, Some((link.epoch, last))).await;
    send(&mut other, &[numbered(2, 1)]).await;
    let arrivals = take(&mut link, 2, |_| true).await;
    assert!(matches!(arrivals[0].content, Content::Epoch(epoch) if epoch == other.epoch), "{arrivals:?}");
    assert!(arrivals[0].position.unwrap() > last && is_event(&arrivals[1].content));
}

#[tokio::test]
async fn a_lost_end_of_the_log_begins_an_epoch_after_what_is_left() {
    let server = OnStream::start().await;
    let backend = OnStream::backend(&server, "default");
    let mut link = open(&backend, None).await;
    let parcels: Vec<Parcel> = (1..=6).map(|number| numbered(1, number)).collect();
    for parcel in parcels {
        send(&mut link, &[parcel]).await;
    }
    let positions: Vec<_> =
        take(&mut link, 6, is_event).await.iter().map(|arrival| arrival.position.unwrap()).collect();
    // As a replica that lacks the end would have it, when it takes over: XDEL leaves the last id as it was, so
    // the stream is copied without its end.
    for script in ["local all = redis.call('XRANGE', KEYS[1], '-', '+') redis.call('DEL', KEYS[1])
         for at = 1, #all - 3 do redis.call('XADD', KEYS[1], all[at][1], unpack(all[at][2])) end return #all"]
    {
        server.command::<()>(&["EVAL", script, "1", EVENTS]).await;
    }
    // Who stands within what is left notices nothing.
    let behind = open(&backend, Some((link.epoch, positions[1]))).await;
    assert_eq!((behind.start, behind.epoch), (Start::Continues, link.epoch));
    // Two who have more notice at once.
    let known = Some((link.epoch, positions[5]));
    let (mut one, mut two) =
        tokio::join!(open(&backend, known), open(&backend, Some((link.epoch, positions[4]))));
    assert_ne!(one.epoch, link.epoch);
    assert_eq!((one.epoch, one.start), (two.epoch, two.start));
    let Start::Anew { after } = one.start else { panic!("{:?}", one.start) };
    assert!(after >= positions[5], "no position is used twice");
    for link in [&mut one, &mut two] {
        let first = within("an arrival", link.tail.next(1)).await.unwrap();
        assert!(matches!(first[0].content, Content::Epoch(epoch) if epoch == link.epoch), "{first:?}");
        assert!(first[0].position.unwrap() > after);
    }
    // Who stood within what is left reads on into the new epoch.
    let mut behind = open(&backend, Some((link.epoch, positions[1]))).await;
    assert_eq!(behind.start, Start::Continues);
    let arrivals = take(&mut behind, 2, |_| true).await;
    assert!(
        is_event(&arrivals[0].content) && matches!(arrivals[1].content, Content::Epoch(_)),
        "{arrivals:?}"
    );
}

#[tokio::test]
async fn a_reader_that_was_overtaken_by_trimming_is_told() {
    let server = OnStream::start().await;
    let backend = OnStream::backend(&server, "default");
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    senders(&mut link, 1).await;
    let parcels: Vec<Parcel> = (2..=400).map(|number| numbered(1, number)).collect();
    send(&mut link, &parcels).await;
    OnStream::trim(&server, 200).await;
    let error = within("a refusal", link.tail.next(100)).await.unwrap_err();
    assert!(error.to_string().contains("trimmed"), "{error}");
}

#[tokio::test]
async fn old_entries_are_trimmed_by_the_time_of_the_server() {
    let server = OnStream::start().await;
    let backend = stream(&format!("url = '{}'\nretention = '1s'", server.url()));
    let mut link = open(&backend, None).await;
    let old: Vec<Parcel> = (1..=500).map(|number| numbered(1, number)).collect();
    send(&mut link, &old).await;
    let mut number = 500;
    eventually("what is old is gone", async || {
        number += 1;
        send(&mut link, &[numbered(1, number)]).await;
        (server.command::<usize>(&["XLEN", EVENTS]).await < 300).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_that_takes_nothing_refuses_all_of_a_batch() {
    let server = OnStream::start().await;
    let backend = OnStream::backend(&server, "default");
    let mut link = open(&backend, None).await;
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let failure = link.sender.send(&[numbered(1, 1), numbered(1, 2)]).await.unwrap_err();
    assert!(matches!(failure.error, SendError::Refused(_)) && failure.confirmed == 0, "{failure:?}");
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    send(&mut link, &[numbered(1, 1)]).await;
    assert_eq!(senders(&mut link, 1).await, [(1, 1)]);
    server.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let failure = link.sender.send(&[numbered(1, 2)]).await.unwrap_err();
    assert!(matches!(failure.error, SendError::Lost(_)), "{failure:?}");
}

#[tokio::test]
async fn a_key_that_is_something_else_is_refused() {
    let server = OnStream::start().await;
    server.command::<()>(&["SET", EVENTS, "x"]).await;
    let error = OnStream::backend(&server, "default").open(None).await.map(|_| ()).unwrap_err();
    assert!(matches!(&error, LinkError::Refused(why) if why.contains("WRONGTYPE")), "{error:?}");
}

#[tokio::test]
async fn a_password_is_needed_and_never_told() {
    // The rights that the documentation of the backend names.
    let node = "user node on >geheim2 ~sidewire:* -@all +xadd +xread +xrange +xtrim +xinfo +exists +get +set \
                +eval +time +multi +exec";
    let server = RedisSetup::new().line(node).start().await;
    server.command::<()>(&["CONFIG", "SET", "requirepass", "geheim"]).await;
    let url = server.url();
    for bus in [format!("url = '{url}'"), format!("url = '{url}'\npassword = 'falsch'")] {
        let error = stream(&bus).open(None).await.map(|_| ()).unwrap_err();
        assert!(matches!(&error, LinkError::Refused(_)), "{error:?}");
        assert!(!error.to_string().contains("falsch"), "{error}");
    }
    let mut link = open(&stream(&format!("url = '{url}'\npassword = 'geheim'")), None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    let backend = stream(&format!("url = '{url}'\nuser = 'node'\npassword_file = '{}'", file.display()));
    let error = backend.open(None).await.map(|_| ()).unwrap_err();
    assert!(matches!(&error, LinkError::Refused(why) if why.contains("cannot be read")), "{error:?}");
    std::fs::write(&file, "geheim2\n").unwrap();
    let mut link = open(&backend, None).await;
    assert_eq!(senders(&mut link, 1).await, [(1, 1)]);
}

#[tokio::test]
async fn connections_are_encrypted_both_ways() {
    let certificates = Arc::new(Certificates::new());
    let server = RedisSetup::new().tls(certificates.clone()).start().await;
    let url = server.url();
    let file = |name: &str| certificates.path(name).display().to_string();
    let ca = format!("url = '{url}'\ntls_ca_file = '{}'", file("ca.pem"));
    let whole =
        format!("{ca}\ntls_cert_file = '{}'\ntls_key_file = '{}'", file("client.pem"), file("client.key"));
    let mut link = open(&stream(&whole), None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    assert_eq!(senders(&mut link, 1).await, [(1, 1)]);
    // Without a certificate of ours, or for another authority, there is no link.
    assert!(stream(&ca).open(None).await.is_err());
    let others = Certificates::new();
    let wrong = format!("url = '{url}'\ntls_ca_file = '{}'", others.path("ca.pem").display());
    let error = stream(&wrong).open(None).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, LinkError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn sentinels_name_the_master_and_its_successor() {
    let mut all = Sentinels::start_for_users(("node", "geheim"), ("guest", "geheim2")).await;
    let bus = format!(
        "url = '{}'\nuser = 'node'\npassword = 'geheim'\nsentinel_user = 'guest'\nsentinel_password = 'geheim2'",
        all.url()
    );
    let backend = stream(&bus);
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    let last = take(&mut link, 1, is_event).await[0].position.unwrap();
    eventually("the replica has it", async || {
        let [master, replica] = &all.servers;
        let lengths: [usize; 2] =
            [master.command(&["XLEN", EVENTS]).await, replica.command(&["XLEN", EVENTS]).await];
        (lengths[0] == lengths[1]).then_some(())
    })
    .await;
    let killed = Instant::now();
    all.servers[0].kill();
    let mut link = eventually("another master", async || {
        let mut link = backend.open(Some((link.epoch, last))).await.ok()?;
        link.sender.send(&[numbered(1, 2)]).await.ok()?;
        Some(link)
    })
    .await;
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    assert_eq!(link.start, Start::Continues);
    assert_eq!(senders(&mut link, 1).await, [(1, 2)]);
    assert_eq!(all.servers[1].command::<usize>(&["XLEN", EVENTS]).await, 3);
    let nobody = bus.replace("/mymaster", "/nobody");
    let error = stream(&nobody).open(None).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, LinkError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn a_cluster_is_followed_when_the_slot_moves() {
    let cluster = RedisCluster::start().await;
    let backend = stream(&format!("url = '{}'", cluster.url()));
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    let last = take(&mut link, 1, is_event).await[0].position.unwrap();
    let slot = cluster.slot(EVENTS).await;
    let other = (cluster.owner(slot).await + 1) % 3;
    cluster.move_slot(slot, other).await;
    let failure = link.sender.send(&[numbered(1, 2)]).await.unwrap_err();
    assert!(matches!(failure.error, SendError::Lost(_)), "{failure:?}");
    let mut link =
        eventually("the new owner", async || backend.open(Some((link.epoch, last))).await.ok()).await;
    assert_eq!(link.start, Start::Continues);
    send(&mut link, &[numbered(1, 2)]).await;
    assert_eq!(senders(&mut link, 1).await, [(1, 2)]);
    assert_eq!(cluster.owner(slot).await, other);
}

#[tokio::test]
async fn a_frozen_read_is_noticed_while_sends_go_on() {
    let server = OnStream::start().await;
    let proxy = Proxy::start(server.address()).await;
    let mut link = open(&stream(&format!("url = 'redis://{}'", proxy.address())), None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    senders(&mut link, 1).await;
    proxy.set_for_kind(&["XREAD"], Flow { frozen: true, ..Flow::default() });
    send(&mut link, &[numbered(1, 2)]).await;
    let error = within("the end of the tail", link.tail.next(10)).await.unwrap_err();
    assert!(matches!(error, LinkError::Away(_)), "{error:?}");
    send(&mut link, &[numbered(1, 3)]).await;
}

#[tokio::test]
async fn a_confirmation_that_is_lost_leaves_the_fate_open() {
    let server = OnStream::start().await;
    let proxy = Proxy::start(server.address()).await;
    let backend = stream(&format!("url = 'redis://{}'", proxy.address()));
    let mut link = open(&backend, None).await;
    let batch = [numbered(1, 1), numbered(1, 2)];
    proxy.lose_next_reply("EXEC");
    let failure = within("a failure", link.sender.send(&batch)).await.unwrap_err();
    assert!(matches!(failure.error, SendError::Lost(_)) && failure.confirmed == 0, "{failure:?}");
    let mut link = open(&backend, None).await;
    send(&mut link, &batch).await;
    assert_eq!(senders(&mut link, 4).await, [(1, 1), (1, 2), (1, 1), (1, 2)], "all of a batch or nothing");
}

#[tokio::test]
async fn positions_grow_whatever_ids_there_are() {
    let server = OnStream::start().await;
    let backend = OnStream::backend(&server, "default");
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    // From the year 2255, and from the end of time.
    for id in ["9000000000000-0", "9000000000000-1", "18446744073709551615-18446744073709551614"] {
        server.command::<()>(&["XADD", EVENTS, id, "v", "2"]).await;
    }
    let arrivals = take(&mut link, 4, |content| !matches!(content, Content::Epoch(_))).await;
    assert!(arrivals.is_sorted_by(|one, two| one.position < two.position), "{arrivals:?}");
    server.command::<()>(&["XADD", EVENTS, "18446744073709551615-18446744073709551615", "v", "2"]).await;
    OnStream::trim(&server, 0).await;
    let known = (link.epoch, arrivals[3].position.unwrap());
    open(&backend, Some(known)).await;
    open(&backend, None).await;
}
