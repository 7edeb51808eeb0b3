//! One of several Redis streams of a namespace: it must do what one that is alone does.

use crate::conformance::{OrderedServer, Server, numbered, open, ordered_conformance, send, senders};
use crate::servers::{RedisCluster, RedisServer};
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

/// A server on which the suite speaks to one of several streams.
struct OneOfFour(RedisServer);

impl Server for OneOfFour {
    type Backend = RedisStream;

    async fn start() -> Self {
        Self(<RedisServer as Server>::start().await)
    }

    fn backend(&self, namespace: &str) -> RedisStream {
        streams(&format!("url = '{}'\nnamespace = '{namespace}'", self.0.url())).swap_remove(SHARD)
    }

    fn kill(&mut self) {
        self.0.kill();
    }

    async fn restart(&mut self) {
        self.0.start_again().await;
    }

    fn freeze(&self) {
        self.0.freeze();
    }

    fn thaw(&self) {
        self.0.thaw();
    }

    async fn put(&self, fields: &[(&str, &str)]) {
        let key = key(SHARD);
        let mut command = vec!["XADD", &key, "*"];
        command.extend(fields.iter().flat_map(|(name, text)| [*name, *text]));
        self.0.command::<()>(&command).await;
    }
}

impl OrderedServer for OneOfFour {
    async fn flush(&self) {
        self.0.command::<()>(&["FLUSHALL"]).await;
    }

    async fn trim(&self, left: usize) {
        self.0.command::<()>(&["XTRIM", &key(SHARD), "MAXLEN", &left.to_string()]).await;
    }
}

ordered_conformance!(OneOfFour);

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
