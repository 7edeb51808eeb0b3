//! Redis as the bus: [`RedisStream`], one stream that all nodes read in one order, or [`RedisPubSub`], plain
//! channels without order, for apps that speak them already. Nothing outside knows the `redis` crate.
//!
//! Whatever the topology, a link goes to one server: the only one, the master that the Sentinels name, or the
//! master of the cluster that has our keys, which all hash to one slot. When another server takes over, the
//! link breaks and is opened anew; the remote bus does that for every backend alike.
//!
//! Our keys have no time to live. A server that evicts keys when memory is short must spare them (`noeviction`,
//! or a `volatile` policy): without them the log begins anew, with a new epoch.
//!
//! A user of Redis with an ACL needs, on the keys `sidewire:*`: `XADD` `XREAD` `XRANGE` `XTRIM` `XINFO`
//! `EXISTS` `GET` `SET` `EVAL` `TIME` `MULTI` `EXEC`, and for `sidewire doctor` `INFO`; for Sentinel also `ROLE`, for Cluster `CLUSTER`; for
//! channels `PUBLISH` `PSUBSCRIBE` `SUBSCRIBE` `PING` on those it is for.

mod access;
mod entry_id;
mod epochs;
mod error;
mod glob;
mod pubsub;
mod sender;
mod server;
mod stream;
mod survey;
mod tail;

pub use pubsub::RedisPubSub;
pub use stream::RedisStream;
pub use survey::survey;

use crate::secret::SecretSource;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How a Redis is reached and used.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// Its servers.
    pub servers: RedisServers,
    /// Who we are there.
    pub login: RedisLogin,
    /// The number of the database; 0 in a cluster.
    pub database: u32,
    /// How connections are encrypted; `None` if they are not.
    pub tls: Option<RedisTls>,
    /// Part of every name we use: 1 to 64 ASCII letters, digits, `_`, `-`.
    pub namespace: String,
    /// How long a stream keeps its entries.
    pub retention: Duration,
    /// Which stream of several this is; none if there is only one.
    pub shard: Option<RedisShard>,
}

/// One of several streams of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RedisShard {
    /// Which: 0, 1 and so on.
    pub number: usize,
    /// How many there are. Part of the names: a fleet that is split in another way is another fleet.
    pub of: usize,
}

/// The servers of a Redis and how they stand to each other.
#[derive(Clone, Debug)]
pub enum RedisServers {
    /// One server.
    Single(RedisAddress),
    /// Sentinels know which server is the master.
    Sentinel {
        /// Some of the Sentinels.
        sentinels: Vec<RedisAddress>,
        /// The name they know the master by.
        master: String,
        /// Who we are to the Sentinels.
        login: RedisLogin,
    },
    /// Some nodes of a cluster; each knows the others.
    Cluster(Vec<RedisAddress>),
}

/// User and password.
#[derive(Clone, Default, Debug)]
pub struct RedisLogin {
    /// The user; the default user if there is none.
    pub user: Option<String>,
    /// The password.
    pub password: Option<SecretSource>,
}

/// Files for encrypted connections, in PEM, read anew at each connect.
#[derive(Clone, Default, Debug)]
pub struct RedisTls {
    /// Who vouches for the servers, instead of those whom the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Certificate and key that we show.
    pub identity: Option<RedisIdentity>,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct RedisIdentity {
    /// The certificate.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// A server.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RedisAddress {
    /// Name or IP address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Display for RedisServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, addresses) = match self {
            Self::Single(address) => ("redis", std::slice::from_ref(address)),
            Self::Sentinel { sentinels, .. } => ("redis+sentinel", sentinels.as_slice()),
            Self::Cluster(nodes) => ("redis+cluster", nodes.as_slice()),
        };
        write!(f, "{kind}://")?;
        for (index, address) in addresses.iter().enumerate() {
            write!(f, "{}{address}", if index == 0 { "" } else { "," })?;
        }
        match self {
            Self::Sentinel { master, .. } => write!(f, "/{master}"),
            Self::Single(_) | Self::Cluster(_) => Ok(()),
        }
    }
}

impl RedisOptions {
    /// The streams of a namespace that is split into so many.
    pub fn shards(&self, of: usize) -> Vec<Self> {
        let shard = |number| (of > 1).then_some(RedisShard { number, of });
        (0..of).map(|number| Self { shard: shard(number), ..self.clone() }).collect()
    }

    /// The key of the stream.
    fn events_key(&self) -> String {
        format!("sidewire:{{{}}}:events", self.hash_tag())
    }

    /// The key under which the stream's epochs stand.
    fn epochs_key(&self) -> String {
        format!("sidewire:{{{}}}:epoch", self.hash_tag())
    }

    /// What stands in the braces of a key decides its slot, and so its server in a cluster. No namespace has a
    /// slash.
    fn hash_tag(&self) -> String {
        match self.shard {
            None => self.namespace.clone(),
            Some(RedisShard { number, of }) => format!("{}/{number}/{of}", self.namespace),
        }
    }
}
