//! Plain NATS subjects.

use crate::conformance::{Bus, as_message, conformance, is_event, numbered, open, send, senders, take};
use crate::nats_servers::{Nats, NatsServer, NatsSetup, core, settle};
use crate::servers::wait::within;
use futures_util::StreamExt as _;
use sidewire::bus::backend::{Content, LinkError, Tail as _};
use sidewire::bus::nats::Core;
use sidewire::event::{Channel, Data, Event};

struct OnCore;

impl Bus for OnCore {
    type Kind = Nats;
    type Backend = Core;

    async fn start() -> NatsServer {
        NatsServer::start().await
    }

    fn backend(server: &NatsServer, namespace: &str) -> Core {
        core(&format!("url = '{}'\nmode = 'core'\nnamespace = '{namespace}'", server.url()))
    }

    async fn put(server: &NatsServer, fields: &[(&str, &str)]) {
        put(server, "job.7", &as_message(fields)).await;
    }
}

conformance!(OnCore);

/// Publishes as an app would, and waits until the server has it.
async fn put(server: &NatsServer, subject: &str, text: &str) {
    let client = server.client().await;
    client.publish(subject.to_owned(), text.to_owned().into()).await.unwrap();
    settle(&client).await;
}

fn text(event: &Event) -> (&str, &str, &str) {
    let Data::Json(json) = &event.data else { panic!("{event:?}") };
    (event.channel.as_str(), event.name.as_str(), json.as_str())
}

#[tokio::test]
async fn apps_that_speak_nats_read_and_write_events() {
    let server = NatsServer::start().await;
    let mut link = open(&core(&format!("url = '{}'\nmode = 'core'", server.url())), None).await;
    let client = server.client().await;
    let mut seen = client.subscribe("job.>").await.unwrap();
    settle(&client).await;
    put(&server, "cron.daily", "{\"event\":\"done\",\"data\":[1]}").await;
    put(&server, "job.1", "just text").await;
    send(&mut link, &[numbered(1, 7)]).await;
    let arrivals = take(&mut link, 3, is_event).await;
    let events: Vec<&Event> = arrivals
        .iter()
        .map(|arrival| match &arrival.content {
            Content::Event { event, .. } => &**event,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(text(events[0]), ("cron.daily", "done", "[1]"));
    assert_eq!(text(events[1]), ("job.1", "message", "\"just text\""));
    assert!(arrivals.iter().all(|arrival| arrival.position.is_none()));
    let first = within("a message", seen.next()).await.unwrap();
    assert_eq!(first.payload, "just text");
    let ours = within("a message", seen.next()).await.unwrap();
    let value: serde_json::Value = serde_json::from_slice(&ours.payload).unwrap();
    assert_eq!((&*ours.subject, &value["channel"], &value["data"]), ("job.7", &"job.7".into(), &7.into()));
}

#[tokio::test]
async fn only_the_channels_that_are_wanted_come_and_each_event_once() {
    let server = NatsServer::start().await;
    let backend =
        core(&format!("url = '{}'\nmode = 'core'\nchannels = ['job.*', '*.7', 'job.7']", server.url()));
    let mut link = open(&backend, None).await;
    for (subject, data) in [("other.1", "1"), ("job.7", "2"), ("user.7", "3"), ("job.1", "4")] {
        put(&server, subject, data).await;
    }
    let mut channels: Vec<Channel> = take(&mut link, 3, is_event)
        .await
        .into_iter()
        .map(|arrival| match arrival.content {
            Content::Event { event, .. } => event.channel,
            other => panic!("{other:?}"),
        })
        .collect();
    // Those of different patterns come in any order.
    channels.sort();
    assert_eq!(channels.iter().map(Channel::as_str).collect::<Vec<_>>(), ["job.1", "job.7", "user.7"]);
    send(&mut link, &[numbered(1, 1)]).await;
    assert_eq!(senders(&mut link, 1).await, [(1, 1)]);
}

#[tokio::test]
async fn what_came_faster_than_it_was_taken_is_told() {
    let server = NatsServer::start().await;
    let backend = core(&format!("url = '{}'\nmode = 'core'", server.url()));
    let mut link = open(&backend, None).await;
    let flood: Vec<_> = (1..=20_000).map(|number| numbered(1, number)).collect();
    let mut other = open(&core(&format!("url = '{}'\nmode = 'core'", server.url())), None).await;
    // The other link reads while it sends, so it is well.
    let reading = tokio::spawn(async move { while other.tail.next(1000).await.is_ok() {} });
    let mut sender = link.sender;
    for part in flood.chunks(1000) {
        // It ends when the link breaks, as it has the same connection.
        if within("a send", sidewire::bus::backend::Sender::send(&mut sender, part)).await.is_err() {
            break;
        }
    }
    let error = within("the end of the tail", async {
        loop {
            if let Err(error) = link.tail.next(1000).await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(&error, LinkError::Away(why) if why.contains("faster")), "{error:?}");
    reading.abort();
}

#[tokio::test]
async fn a_missing_right_is_told() {
    let server = NatsSetup::new()
        .line("authorization { users: [ { user: \"a\", password: \"geheim\", permissions: { publish: [\"_INBOX.>\"] } } ] }")
        .start()
        .await;
    let url = server.url().replace("nats://", "nats://a:geheim@");
    let mut link = open(&core(&format!("url = '{url}'\nmode = 'core'")), None).await;
    let sent =
        within("a send", sidewire::bus::backend::Sender::send(&mut link.sender, &[numbered(1, 1)])).await;
    let error = within("the end of the tail", link.tail.next(1)).await.unwrap_err();
    assert!(matches!(&error, LinkError::Refused(why) if why.contains("job.7")), "{error:?} {sent:?}");
}
