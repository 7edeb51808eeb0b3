//! What every backend must do whose bus keeps one order. [`ordered_conformance!`] makes tests of it, and of the rest,
//! for one kind of bus.

use super::{Bus, is_event, numbered, open, send, sender, senders, take};
use crate::servers::Server;
use crate::servers::wait::eventually;
use sidewire::bus::backend::{Arrival, Parcel, SendError, Sender as _, Start};
use sidewire::event::{Epoch, Position};

/// A bus that keeps one order.
pub(crate) trait OrderedBus: Bus {
    /// Empties it while it runs: the log is gone.
    async fn flush(server: &Server<Self::Kind>);
    /// Removes the oldest of the log in namespace `default`, until this many entries are left.
    async fn trim(server: &Server<Self::Kind>, left: usize);
}

pub(crate) async fn positions_grow_and_are_the_same_for_all<B: OrderedBus>() {
    let server = B::start().await;
    let backend = B::backend(&server, "default");
    let (mut one, mut two) = (open(&backend, None).await, open(&backend, None).await);
    assert_eq!(one.epoch, two.epoch);
    let batches = |origin: u64| {
        (0..20).map(move |batch| (1..=10).map(|n| numbered(origin, batch * 10 + n)).collect::<Vec<_>>())
    };
    let first = async {
        for batch in batches(1) {
            one.sender.send(&batch).await.unwrap();
        }
    };
    let second = async {
        for batch in batches(2) {
            two.sender.send(&batch).await.unwrap();
        }
    };
    tokio::join!(first, second);
    let seen = |arrivals: Vec<Arrival>| -> Vec<(Position, (u64, u64))> {
        arrivals.iter().map(|arrival| (arrival.position.unwrap(), sender(&arrival.content))).collect()
    };
    let by_one = seen(take(&mut one, 400, is_event).await);
    assert_eq!(by_one, seen(take(&mut two, 400, is_event).await));
    assert!(by_one.is_sorted_by(|a, b| a.0 < b.0), "positions grow");
    for origin in [1, 2] {
        let own: Vec<u64> =
            by_one.iter().filter(|(_, from)| from.0 == origin).map(|(_, from)| from.1).collect();
        assert_eq!(own, (1..=200).collect::<Vec<_>>());
    }
}

pub(crate) async fn a_tail_continues_where_it_stood<B: OrderedBus>() {
    let mut server = B::start().await;
    let backend = B::backend(&server, "default");
    let mut link = open(&backend, None).await;
    assert!(matches!(link.start, Start::Anew { .. } | Start::Now), "{:?}", link.start);
    let parcels: Vec<Parcel> = (1..=10).map(|number| numbered(1, number)).collect();
    send(&mut link, &parcels).await;
    let arrivals = take(&mut link, 10, is_event).await;
    for index in [0, 4, 9] {
        let known = (link.epoch, arrivals[index].position.unwrap());
        let mut again = open(&backend, Some(known)).await;
        assert_eq!((again.start, again.epoch), (Start::Continues, link.epoch));
        send(&mut again, &[numbered(2, index as u64 + 1)]).await;
        let next = take(&mut again, 1, is_event).await;
        assert!(next[0].position.unwrap() > known.1);
        if index < 9 {
            assert_eq!(sender(&next[0].content), (1, index as u64 + 2));
            assert_eq!(next[0].position, arrivals[index + 1].position);
        }
    }
    // And so it does after a restart of the server.
    server.kill();
    server.start_again().await;
    let known = (link.epoch, arrivals[4].position.unwrap());
    let mut again = open(&backend, Some(known)).await;
    assert_eq!((again.start, again.epoch), (Start::Continues, link.epoch));
    let next = take(&mut again, 1, is_event).await;
    assert_eq!(next[0].position, arrivals[5].position);
}

pub(crate) async fn a_node_that_joins_gets_all_there_is<B: OrderedBus>() {
    let server = B::start().await;
    let backend = B::backend(&server, "default");
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 1), numbered(1, 2)]).await;
    let mut joining = open(&backend, None).await;
    let Start::Anew { after } = joining.start else { panic!("{:?}", joining.start) };
    let arrivals = take(&mut joining, 2, is_event).await;
    assert_eq!(sender(&arrivals[0].content), (1, 1));
    assert!(arrivals[0].position.unwrap() > after);
    let stranger = open(&backend, Some((Epoch(12345), arrivals[0].position.unwrap()))).await;
    assert_eq!((stranger.start, stranger.epoch), (Start::Anew { after }, link.epoch));
}

pub(crate) async fn what_was_trimmed_is_a_gap<B: OrderedBus>() {
    let server = B::start().await;
    let backend = B::backend(&server, "default");
    let mut link = open(&backend, None).await;
    let parcels: Vec<Parcel> = (1..=10).map(|number| numbered(1, number)).collect();
    send(&mut link, &parcels).await;
    let positions: Vec<Position> =
        take(&mut link, 10, is_event).await.iter().map(|arrival| arrival.position.unwrap()).collect();
    B::trim(&server, 3).await;
    let mut late = open(&backend, Some((link.epoch, positions[2]))).await;
    let Start::Gap { up_to } = late.start else { panic!("{:?}", late.start) };
    assert!(up_to >= positions[6] && up_to < positions[7], "{up_to:?} {positions:?}");
    assert_eq!(late.epoch, link.epoch);
    let rest = take(&mut late, 3, is_event).await;
    assert_eq!(rest.iter().map(|arrival| arrival.position.unwrap()).collect::<Vec<_>>(), positions[7..]);
    let there = open(&backend, Some((link.epoch, positions[8]))).await;
    assert_eq!(there.start, Start::Continues);
    B::trim(&server, 0).await;
    let all = open(&backend, Some((link.epoch, positions[9]))).await;
    assert_eq!(all.start, Start::Continues, "nothing followed that is gone");
    let late = open(&backend, Some((link.epoch, positions[2]))).await;
    assert!(matches!(late.start, Start::Gap { up_to } if up_to >= positions[9]), "{:?}", late.start);
}

pub(crate) async fn a_lost_log_is_begun_anew_once<B: OrderedBus>() {
    let server = B::start().await;
    let backend = B::backend(&server, "default");
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 1), numbered(1, 2)]).await;
    let last = take(&mut link, 2, is_event).await[1].position.unwrap();
    B::flush(&server).await;
    let gone =
        eventually("the loss is noticed", async || link.sender.send(&[numbered(1, 3)]).await.err()).await;
    assert!(matches!(gone.error, SendError::Gone(_)), "{gone:?}");
    let known = Some((link.epoch, last));
    let (one, two) = tokio::join!(open(&backend, known), open(&backend, known));
    for opened in [one, two] {
        assert_ne!(opened.epoch, link.epoch);
        assert!(matches!(opened.start, Start::Anew { .. }), "{:?}", opened.start);
    }
    let (mut one, mut two) = (open(&backend, known).await, open(&backend, known).await);
    assert_eq!(one.epoch, two.epoch);
    send(&mut one, &[numbered(1, 3)]).await;
    send(&mut two, &[numbered(2, 1)]).await;
    assert_eq!(senders(&mut one, 2).await, [(1, 3), (2, 1)]);
    assert_eq!(senders(&mut two, 2).await, [(1, 3), (2, 1)]);
}

/// Tests of a bus that keeps one order.
macro_rules! ordered_conformance {
    ($bus:ty) => {
        $crate::conformance::conformance!($bus);
        $crate::conformance::conformance!(@tests $bus:
            positions_grow_and_are_the_same_for_all, a_tail_continues_where_it_stood,
            a_node_that_joins_gets_all_there_is, what_was_trimmed_is_a_gap, a_lost_log_is_begun_anew_once);
    };
}
pub(crate) use ordered_conformance;
