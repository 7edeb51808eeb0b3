//! What every backend must do. [`conformance!`] makes tests of it for one kind of bus.

mod ordered;

pub(crate) use ordered::{
    OrderedBus, a_lost_log_is_begun_anew_once, a_node_that_joins_gets_all_there_is,
    a_tail_continues_where_it_stood, ordered_conformance, positions_grow_and_are_the_same_for_all,
    what_was_trimmed_is_a_gap,
};

use crate::servers::wait::within;
use crate::servers::{Kind, Server};
use bytes::Bytes;
use sidewire::bus::backend::{
    Arrival, Backend, Content, LinkError, Opened, Origin, Parcel, SendError, Sender as _, Tail as _,
};
use sidewire::event::{
    Channel, ConnectionId, Data, Epoch, Event, EventId, EventName, Expiry, Json, Position, Tags,
};
use std::sync::Arc;
use std::time::Duration;

/// A way in which a kind of server is a bus.
pub(crate) trait Bus {
    /// The server, to which the suite may do anything.
    type Kind: Kind;
    /// What speaks to it.
    type Backend: Backend;

    /// Starts one that keeps what it confirmed over a restart.
    async fn start() -> Server<Self::Kind>;
    /// Speaks to it in a namespace.
    fn backend(server: &Server<Self::Kind>, namespace: &str) -> Self::Backend;
    /// Puts an entry on the bus as somebody else would, in namespace `default`.
    async fn put(server: &Server<Self::Kind>, fields: &[(&str, &str)]);
}

/// Fields for [`Bus::put`] as a bus that keeps nothing carries them: members of one object.
pub(crate) fn as_message(fields: &[(&str, &str)]) -> String {
    let members: serde_json::Map<_, _> = fields
        .iter()
        .map(|(name, text)| {
            let number = text.parse::<u64>().map(serde_json::Value::from);
            ((*name).to_owned(), number.unwrap_or_else(|_| (*text).into()))
        })
        .collect();
    serde_json::json!({ "sidewire": members }).to_string()
}

/// A parcel with an event whose data is a number.
pub(crate) fn numbered(origin: u64, number: u64) -> Parcel {
    let data = Data::Json(Json::parse(&number.to_string()).unwrap());
    Parcel::Event {
        event: Arc::new(event(&format!("e-{origin}-{number}"), data)),
        origin: Origin(origin),
        sequence: number,
    }
}

fn event(id: &str, data: Data) -> Event {
    Event {
        position: Position::ZERO,
        id: EventId::parse(id).unwrap(),
        id_given: false,
        channel: Channel::parse("job.7").unwrap(),
        name: EventName::default(),
        data,
        time: 1_800_000_000_000,
        tags: Tags::default(),
        expiry: Expiry::At(1_800_000_060_000),
        exclude: None,
        from: None,
        way: None,
    }
}

/// Opens a link, which must succeed.
pub(crate) async fn open<B: Backend>(backend: &B, known: Option<(Epoch, Position)>) -> Opened<B> {
    within("a link", backend.open(known)).await.unwrap_or_else(|error| panic!("{backend}: {error}"))
}

/// Sends parcels, which must succeed.
pub(crate) async fn send<B: Backend>(link: &mut Opened<B>, parcels: &[Parcel]) {
    within("a send", link.sender.send(parcels)).await.unwrap_or_else(|failure| panic!("{failure:?}"));
}

/// Reads until `count` arrivals that `wanted` takes came.
pub(crate) async fn take<B: Backend>(
    link: &mut Opened<B>,
    count: usize,
    wanted: impl Fn(&Content) -> bool,
) -> Vec<Arrival> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let arrivals = within("an arrival", link.tail.next(100)).await.unwrap();
        taken.extend(arrivals.into_iter().filter(|arrival| wanted(&arrival.content)));
    }
    taken
}

pub(crate) fn is_event(content: &Content) -> bool {
    matches!(content, Content::Event { .. })
}

/// Reads that many events and gives their senders: origin and sequence.
pub(crate) async fn senders<B: Backend>(link: &mut Opened<B>, count: usize) -> Vec<(u64, u64)> {
    take(link, count, is_event).await.iter().map(|arrival| sender(&arrival.content)).collect()
}

fn sender(content: &Content) -> (u64, u64) {
    match content {
        Content::Event { sender: Some((origin, sequence)), .. } => (origin.0, *sequence),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn sends_arrive_in_order<B: Bus>() {
    let server = B::start().await;
    let backend = B::backend(&server, "default");
    let (mut one, mut two) = (open(&backend, None).await, open(&backend, None).await);
    for batch in 0..20 {
        let parcels: Vec<Parcel> = (0..25).map(|index| numbered(1, batch * 25 + index + 1)).collect();
        send(&mut one, &parcels).await;
    }
    let expected: Vec<(u64, u64)> = (1..=500).map(|number| (1, number)).collect();
    assert_eq!(senders(&mut one, 500).await, expected);
    assert_eq!(senders(&mut two, 500).await, expected);
}

pub(crate) async fn every_field_arrives<B: Bus>() {
    let server = B::start().await;
    let backend = B::backend(&server, "default");
    let mut link = open(&backend, None).await;
    let channel = Channel::parse("job.7").unwrap();
    let full = Event {
        id: EventId::parse("order ä 17").unwrap().on_channel(&channel),
        id_given: true,
        name: EventName::parse("done: ü").unwrap(),
        tags: Tags::from_pairs([("tenant".into(), "a\"\u{e9}b".into()), ("x".into(), String::new())])
            .unwrap(),
        exclude: Some(ConnectionId::parse("c-1").unwrap()),
        ..event("x", Data::Json(Json::parse("{\"a\": [1.50, \"\\u00e9\u{1F600}\"]}").unwrap()))
    };
    let sent = [
        full,
        Event { expiry: Expiry::Live, ..event("live", Data::Json(Json::null())) },
        event("bytes", Data::Bytes(Bytes::from((0..=255).collect::<Vec<u8>>()))),
        event("nothing", Data::Bytes(Bytes::new())),
    ];
    let parcels: Vec<Parcel> = sent
        .iter()
        .zip(1..)
        .map(|(event, sequence)| Parcel::Event {
            event: Arc::new(event.clone()),
            origin: Origin(u64::MAX),
            sequence,
        })
        .collect();
    send(&mut link, &parcels).await;
    let arrived = take(&mut link, sent.len(), is_event).await;
    for ((arrival, sent), number) in arrived.into_iter().zip(sent).zip(1..) {
        let Content::Event { event, sender } = arrival.content else { panic!() };
        assert_eq!((*event, sender), (sent, Some((Origin(u64::MAX), number))));
    }
}

pub(crate) async fn large_events_arrive<B: Bus>() {
    let server = B::start().await;
    let backend = B::backend(&server, "default");
    let mut link = open(&backend, None).await;
    let size = link.sender.max_event_bytes().min(900 << 10);
    for number in 1..=8 {
        let data = Data::Bytes(vec![number as u8; size].into());
        let event = Arc::new(event(&format!("large-{number}"), data));
        send(&mut link, &[Parcel::Event { event, origin: Origin(1), sequence: number }]).await;
    }
    for (arrival, number) in take(&mut link, 8, is_event).await.into_iter().zip(1u8..) {
        let Content::Event { event, .. } = arrival.content else { panic!() };
        assert_eq!(event.data, Data::Bytes(vec![number; size].into()));
    }
}

pub(crate) async fn probes_come_back<B: Bus>() {
    let server = B::start().await;
    let backend = B::backend(&server, "default");
    let (mut one, mut two) = (open(&backend, None).await, open(&backend, None).await);
    send(&mut one, &[Parcel::Probe { origin: Origin(5), number: 9 }]).await;
    for link in [&mut one, &mut two] {
        let probe = take(link, 1, |content| matches!(content, Content::Probe { .. })).await;
        assert!(matches!(probe[0].content, Content::Probe { origin: Origin(5), number: 9 }));
    }
}

pub(crate) async fn namespaces_are_apart<B: Bus>() {
    let server = B::start().await;
    let (mut one, mut two) =
        (open(&B::backend(&server, "default"), None).await, open(&B::backend(&server, "other"), None).await);
    send(&mut one, &[numbered(1, 1), Parcel::Probe { origin: Origin(1), number: 1 }]).await;
    send(&mut two, &[numbered(2, 1), Parcel::Probe { origin: Origin(2), number: 1 }]).await;
    send(&mut one, &[numbered(1, 2)]).await;
    send(&mut two, &[numbered(2, 2)]).await;
    let mine = |content: &Content| !matches!(content, Content::Epoch(_));
    let is_from = |content: &Content, from: u64| match content {
        Content::Event { sender: Some((origin, _)), .. } | Content::Probe { origin, .. } => origin.0 == from,
        _ => false,
    };
    assert!(take(&mut one, 3, mine).await.iter().all(|arrival| is_from(&arrival.content, 1)));
    assert!(take(&mut two, 3, mine).await.iter().all(|arrival| is_from(&arrival.content, 2)));
}

pub(crate) async fn what_cannot_be_read_is_told<B: Bus>() {
    let server = B::start().await;
    let backend = B::backend(&server, "default");
    let mut link = open(&backend, None).await;
    B::put(&server, &[("v", "2"), ("colour", "blue")]).await;
    B::put(&server, &[("v", "1"), ("id", "x")]).await;
    send(&mut link, &[numbered(1, 1)]).await;
    let arrivals = take(&mut link, 3, |content| !matches!(content, Content::Epoch(_))).await;
    assert!(matches!(arrivals[0].content, Content::Newer(2)), "{arrivals:?}");
    assert!(matches!(arrivals[1].content, Content::Malformed(_)), "{arrivals:?}");
    assert_eq!(sender(&arrivals[2].content), (1, 1));
}

pub(crate) async fn a_killed_server_is_noticed_at_once<B: Bus>() {
    let mut server = B::start().await;
    let backend = B::backend(&server, "default");
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    server.kill();
    let failure = within("a failure", link.sender.send(&[numbered(1, 2)])).await.unwrap_err();
    assert!(matches!(failure.error, SendError::Lost(_)) && failure.confirmed == 0, "{failure:?}");
    let error = loop {
        if let Err(error) = within("the end of the tail", link.tail.next(10)).await {
            break error;
        }
    };
    assert!(matches!(error, LinkError::Away(_)), "{error:?}");
    let began = std::time::Instant::now();
    let error = within("a refusal", backend.open(None)).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, LinkError::Away(_)), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    server.start_again().await;
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 2)]).await;
    while !senders(&mut link, 1).await.contains(&(1, 2)) {}
}

pub(crate) async fn a_frozen_server_is_noticed<B: Bus>() {
    let server = B::start().await;
    let backend = B::backend(&server, "default");
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    senders(&mut link, 1).await;
    server.freeze();
    let error = within("the end of the tail", async {
        loop {
            if let Err(error) = link.tail.next(10).await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(error, LinkError::Away(_)), "{error:?}");
    let error = within("a refusal", backend.open(None)).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, LinkError::Away(_)), "{error:?}");
    server.thaw();
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 2)]).await;
}

/// Tests of a bus that keeps no order.
macro_rules! conformance {
    ($bus:ty) => {
        $crate::conformance::conformance!(@tests $bus:
            sends_arrive_in_order, every_field_arrives, large_events_arrive, probes_come_back,
            namespaces_are_apart, what_cannot_be_read_is_told, a_killed_server_is_noticed_at_once,
            a_frozen_server_is_noticed);
    };
    (@tests $bus:ty: $($test:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $test() {
            $crate::conformance::$test::<$bus>().await;
        })*
    };
}
pub(crate) use conformance;
