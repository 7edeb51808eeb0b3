//! One of several Redis streams of a namespace: it must do what one that is alone does.

use crate::conformance::{Bus, OrderedBus, numbered, open, ordered_conformance, send, senders};
use crate::servers::{Redis, RedisCluster, RedisServer, RedisSetup};
use sidewire::bus::redis::RedisStream;
use sidewire::config::{Config, Sources};
use sidewire::sidecar::redis_options;
use std::collections::HashSet;

const SHARDS: usize = 4;
/// The one that the suite is about.
const SHARD: usize = 2;

fn key(shard: usize) -> String {
    format!("sidewire:{{default/{shard}/{SHARDS}}}:events")
}

/// The streams of a configuration of `[bus]`.
fn streams(bus: &str) -> Vec<RedisStream> {
    let config = Config::from_toml(&format!("[bus]\n{bus}"), Sources::default()).unwrap();
    redis_options(&config.bus).unwrap().shards(SHARDS).into_iter().map(RedisStream::new).collect()
}

/// One of several streams of a server.
struct OnOneOfFour;

impl Bus for OnOneOfFour {
    type Kind = Redis;
    type Backend = RedisStream;

    async fn start() -> RedisServer {
        RedisSetup::new().append_only().start().await
    }

    fn backend(server: &RedisServer, namespace: &str) -> RedisStream {
        streams(&format!("url = '{}'\nnamespace = '{namespace}'", server.url())).swap_remove(SHARD)
    }

    async fn put(server: &RedisServer, fields: &[(&str, &str)]) {
        let key = key(SHARD);
        let mut command = vec!["XADD", &key, "*"];
        command.extend(fields.iter().flat_map(|(name, text)| [*name, *text]));
        server.command::<()>(&command).await;
    }
}

impl OrderedBus for OnOneOfFour {
    async fn flush(server: &RedisServer) {
        server.command::<()>(&["FLUSHALL"]).await;
    }

    async fn trim(server: &RedisServer, left: usize) {
        server.command::<()>(&["XTRIM", &key(SHARD), "MAXLEN", &left.to_string()]).await;
    }
}

ordered_conformance!(OnOneOfFour);

#[tokio::test]
async fn the_streams_of_a_cluster_are_on_its_masters_and_each_is_its_own() {
    let cluster = RedisCluster::start().await;
    let streams = streams(&format!("url = '{}'", cluster.url()));
    let mut owners = HashSet::new();
    let mut epochs = HashSet::new();
    for (shard, stream) in (0..).zip(&streams) {
        let mut link = open(stream, None).await;
        send(&mut link, &[numbered(shard, 1), numbered(shard, 2)]).await;
        assert_eq!(senders(&mut link, 2).await, [(shard, 1), (shard, 2)], "nothing of another one");
        epochs.insert(link.epoch);
        owners.insert(cluster.owner(cluster.slot(&key(shard as usize)).await).await);
    }
    assert_eq!((epochs.len(), owners.len()), (SHARDS, 3));
}
