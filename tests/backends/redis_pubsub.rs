//! Redis channels.

use crate::conformance::{Bus, as_message, conformance, is_event, numbered, open, send, take};
use crate::servers::{Redis, RedisCluster, RedisServer, RedisSetup};
use sidewire::bus::backend::{Backend as _, Content, LinkError, Start};
use sidewire::bus::redis::RedisPubSub;
use sidewire::config::{Config, Sources};
use sidewire::event::{Data, Event};
use sidewire::sidecar::redis_options;

/// The channels that a configuration of `[bus]` names.
fn channels(bus: &str) -> RedisPubSub {
    let config = Config::from_toml(&format!("[bus]\nmode = 'pubsub'\n{bus}"), Sources::default()).unwrap();
    let patterns: Vec<String> =
        config.bus.channels.iter().map(|channel| channel.as_str().to_owned()).collect();
    RedisPubSub::new(redis_options(&config.bus).unwrap(), &patterns)
}

/// The channels of a server.
struct OnChannels;

impl Bus for OnChannels {
    type Kind = Redis;
    type Backend = RedisPubSub;

    async fn start() -> RedisServer {
        RedisSetup::new().append_only().start().await
    }

    fn backend(server: &RedisServer, namespace: &str) -> RedisPubSub {
        channels(&format!("url = '{}'\nnamespace = '{namespace}'", server.url()))
    }

    async fn put(server: &RedisServer, fields: &[(&str, &str)]) {
        server.command::<redis::Value>(&["PUBLISH", "job.7", &as_message(fields)]).await;
    }
}

conformance!(OnChannels);

fn events(arrivals: Vec<sidewire::bus::backend::Arrival>) -> Vec<Event> {
    arrivals
        .into_iter()
        .map(|arrival| match arrival.content {
            Content::Event { event, .. } => *event,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn what_apps_publish_is_taken_once_for_all_patterns_that_fit() {
    let server = RedisServer::start().await;
    let backend =
        channels(&format!("url = '{}'\nchannels = ['cron.*', 'cron.>', 'user.[0-9]']", server.url()));
    let mut link = open(&backend, None).await;
    assert_eq!(link.start, Start::Now);
    for (channel, message) in [
        ("cron.1", r#"{"channel":"cron.one","event":"done","data":{"a":1}}"#),
        ("other", "1"),
        ("cron.a.b", "hello"),
        ("user.5", "[1, 2]"),
        ("user.x", "2"),
        ("user.6", "6"),
    ] {
        server.command::<redis::Value>(&["PUBLISH", channel, message]).await;
    }
    let events = events(take(&mut link, 4, is_event).await);
    let seen: Vec<(&str, &str)> = events
        .iter()
        .map(|event| match &event.data {
            Data::Json(json) => (event.channel.as_str(), json.as_str()),
            Data::Bytes(_) => panic!("{event:?}"),
        })
        .collect();
    assert_eq!(
        seen,
        [("cron.one", "{\"a\":1}"), ("cron.a.b", "\"hello\""), ("user.5", "[1, 2]"), ("user.6", "6")]
    );
    assert_eq!(events[0].name.as_str(), "done");
}

#[tokio::test]
async fn what_redis_itself_publishes_is_no_event() {
    let server = RedisServer::start().await;
    let mut link = open(&channels(&format!("url = '{}'", server.url())), None).await;
    server.command::<redis::Value>(&["CONFIG", "SET", "notify-keyspace-events", "KEA"]).await;
    server.command::<redis::Value>(&["SET", "a", "1"]).await;
    server.command::<redis::Value>(&["PUBLISH", "a", "1"]).await;
    let events = events(take(&mut link, 1, |_| true).await);
    assert_eq!(events[0].channel.as_str(), "a");
}

#[tokio::test]
async fn apps_can_read_what_nodes_publish() {
    let server = RedisServer::start().await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut app = client.get_async_pubsub().await.unwrap();
    app.subscribe("job.7").await.unwrap();
    let mut link = open(&channels(&format!("url = '{}'", server.url())), None).await;
    send(&mut link, &[numbered(1, 5)]).await;
    let message = futures_util::StreamExt::next(&mut app.on_message()).await.unwrap();
    let message: serde_json::Value = serde_json::from_slice(message.get_payload_bytes()).unwrap();
    assert_eq!((&message["channel"], &message["data"]), (&"job.7".into(), &5.into()));
}

#[tokio::test]
async fn nodes_of_a_cluster_pass_messages_on() {
    let cluster = RedisCluster::start().await;
    let mut link = open(&channels(&format!("url = '{}'", cluster.url())), None).await;
    for node in &cluster.masters {
        node.command::<redis::Value>(&["PUBLISH", "a", "1"]).await;
    }
    assert_eq!(events(take(&mut link, 3, is_event).await).len(), 3);
}

#[tokio::test]
async fn a_user_may_be_kept_to_some_channels() {
    let server = RedisSetup::new()
        .line("user node on >geheim ~* &job.* &sidewire.probe.default &sidewire.control.default +@all")
        .start()
        .await;
    let bus = format!("url = '{}'\nuser = 'node'\npassword = 'geheim'", server.url());
    let error = channels(&bus).open(None).await.map(|_| ()).unwrap_err();
    assert!(matches!(&error, LinkError::Refused(why) if why.contains("NOPERM")), "{error:?}");
    let mut link = open(&channels(&format!("{bus}\nchannels = ['job.*']")), None).await;
    send(&mut link, &[numbered(1, 1)]).await;
    assert_eq!(events(take(&mut link, 1, is_event).await).len(), 1);
}
