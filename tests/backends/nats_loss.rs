//! JetStream streams that are trimmed, purged, deleted and made anew under a node.

use crate::conformance::{is_event, numbered, open, send, senders, take};
use crate::nats_jetstream::STREAM;
use crate::nats_servers::{NatsServer, jetstream};
use crate::servers::wait::within;
use sidewire::bus::backend::{
    Backend, Content, LinkError, Opened, Parcel, SendError, Sender as _, Start, Tail as _,
};
use sidewire::bus::nats::JetStream;
use sidewire::event::Position;

fn backend(server: &NatsServer) -> JetStream {
    jetstream(&format!("url = '{}'", server.url()))
}

/// Reads until the tail ends, and says why it did.
async fn end<B: Backend>(link: &mut Opened<B>) -> (Vec<Content>, LinkError) {
    let mut contents = Vec::new();
    let error = within("the end of the tail", async {
        loop {
            match link.tail.next(100).await {
                Ok(arrivals) => contents.extend(arrivals.into_iter().map(|arrival| arrival.content)),
                Err(error) => return error,
            }
        }
    })
    .await;
    (contents, error)
}

#[tokio::test]
async fn a_stream_that_is_made_anew_under_a_link_ends_it() {
    let server = NatsServer::start().await;
    let backend = backend(&server);
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 1), numbered(1, 2)]).await;
    let last = take(&mut link, 2, is_event).await[1].position.unwrap();
    server.jetstream().await.delete_stream(STREAM).await.unwrap();
    let mut other = open(&backend, None).await;
    send(&mut other, &[numbered(2, 1)]).await;
    // Were it not noticed, this would count as sent to a log that the node does not read.
    let failure = within("a failure", link.sender.send(&[numbered(1, 3)])).await.unwrap_err();
    assert!(matches!(failure.error, SendError::Gone(_)), "{failure:?}");
    let (contents, error) = end(&mut link).await;
    assert!(contents.is_empty() && matches!(error, LinkError::Away(_)), "{contents:?} {error:?}");
    let mut again = open(&backend, Some((link.epoch, last))).await;
    assert_eq!((again.epoch, again.start), (other.epoch, Start::Anew { after: Position::ZERO }));
    assert_eq!(senders(&mut again, 2).await, [(2, 1), (1, 3)]);
}

#[tokio::test]
async fn a_reader_that_is_overtaken_by_a_purge_is_told_the_gap() {
    let server = NatsServer::start().await;
    let backend = backend(&server);
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    take(&mut link, 1, is_event).await;
    let parcels: Vec<Parcel> = (2..=9000).map(|number| numbered(1, number)).collect();
    send(&mut link, &parcels).await;
    server.jetstream().await.get_stream(STREAM).await.unwrap().purge().keep(10).await.unwrap();
    // Some were on their way already; then the tail ends.
    let mut known = Position(1);
    let error = within("the end of the tail", async {
        loop {
            match link.tail.next(100).await {
                Ok(arrivals) => known = arrivals.last().unwrap().position.unwrap(),
                Err(error) => return error,
            }
        }
    })
    .await;
    assert!(error.to_string().contains("trimmed") && known < Position(8990), "{error} {known:?}");
    let mut again = open(&backend, Some((link.epoch, known))).await;
    assert_eq!((again.epoch, again.start), (link.epoch, Start::Gap { up_to: Position(8990) }));
    assert_eq!(senders(&mut again, 10).await[0], (1, 8991));
}

#[tokio::test]
async fn single_events_that_were_deleted_are_no_gap() {
    let server = NatsServer::start().await;
    let backend = backend(&server);
    let mut link = open(&backend, None).await;
    let parcels: Vec<Parcel> = (1..=5).map(|number| numbered(1, number)).collect();
    send(&mut link, &parcels).await;
    server.jetstream().await.get_stream(STREAM).await.unwrap().delete_message(3).await.unwrap();
    let mut again = open(&backend, Some((link.epoch, Position(1)))).await;
    assert_eq!(again.start, Start::Continues);
    assert_eq!(senders(&mut again, 3).await, [(1, 2), (1, 4), (1, 5)]);
}

#[tokio::test]
async fn a_server_that_lost_its_storage_has_another_log() {
    let mut server = NatsServer::start().await;
    let backend = backend(&server);
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    let last = take(&mut link, 1, is_event).await[0].position.unwrap();
    server.kill();
    server.lose_storage();
    server.start_again().await;
    let mut again = open(&backend, Some((link.epoch, last))).await;
    assert_ne!(again.epoch, link.epoch);
    assert_eq!(again.start, Start::Anew { after: Position::ZERO });
    send(&mut again, &[numbered(1, 1)]).await;
    assert_eq!(senders(&mut again, 1).await, [(1, 1)]);
}

#[tokio::test]
async fn memory_that_is_lost_in_a_restart_is_another_log() {
    let mut server = NatsServer::start().await;
    let backend = jetstream(&format!("url = '{}'\nstorage = 'memory'", server.url()));
    let mut link = open(&backend, None).await;
    send(&mut link, &[numbered(1, 1), numbered(1, 2)]).await;
    let behind = take(&mut link, 2, is_event).await[0].position.unwrap();
    server.kill();
    server.start_again().await;
    let again = open(&backend, Some((link.epoch, behind))).await;
    assert_ne!(again.epoch, link.epoch);
    assert_eq!(again.start, Start::Anew { after: Position::ZERO });
}

/// Puts the stream back as it was when it had nothing, as a backup would: its epoch is the same.
async fn lose_the_end(server: &NatsServer) {
    let context = server.jetstream().await;
    let config = context.get_stream(STREAM).await.unwrap().cached_info().config.clone();
    context.delete_stream(STREAM).await.unwrap();
    context.create_stream(config).await.unwrap();
}

#[tokio::test]
async fn nodes_agree_on_the_epoch_after_a_loss_of_the_end() {
    let server = NatsServer::start().await;
    let backend = backend(&server);
    let mut link = open(&backend, None).await;
    let parcels: Vec<Parcel> = (1..=5).map(|number| numbered(1, number)).collect();
    send(&mut link, &parcels).await;
    lose_the_end(&server).await;
    let known = |position| Some((link.epoch, Position(position)));
    // Who has nothing of what is lost notices nothing, until it is told.
    let mut behind = open(&backend, known(0)).await;
    assert_eq!((behind.start, behind.epoch), (Start::Continues, link.epoch));
    let (one, two) = tokio::join!(open(&backend, known(5)), open(&backend, known(4)));
    assert_ne!(one.epoch, link.epoch);
    let (contents, error) = end(&mut behind).await;
    assert!(matches!(contents[..], [Content::Epoch(epoch)] if epoch != link.epoch), "{contents:?} {error}");
    let (mut one_again, mut two_again) = (
        open(&backend, Some((one.epoch, Position(0)))).await,
        open(&backend, Some((two.epoch, Position(0)))).await,
    );
    assert_eq!(one_again.epoch, two_again.epoch);
    send(&mut one_again, &[numbered(1, 6)]).await;
    assert_eq!(senders(&mut one_again, 1).await, [(1, 6)]);
    assert_eq!(senders(&mut two_again, 1).await, [(1, 6)]);
}
