//! From the configuration to what a backend of the bus takes.

use crate::bus::nats::{Kept, NatsAddress, NatsIdentity, NatsOptions, Storage};
use crate::bus::redis::{RedisAddress, RedisIdentity, RedisLogin, RedisOptions, RedisServers, RedisTls};
use crate::config::{BusChannel, BusConfig, BusStorage, BusUrl, HostPort, RedisTopology};
use crate::event::Pattern;
use crate::secret::{Secret, SecretSource};

/// How the Redis is reached that the configuration names, if it names one.
pub fn redis_options(bus: &BusConfig) -> Option<RedisOptions> {
    let BusUrl::Redis(url) = &bus.url else { return None };
    let addresses = || url.hosts.iter().map(redis_address).collect();
    let servers = match &url.topology {
        RedisTopology::Single => RedisServers::Single(redis_address(url.hosts.first()?)),
        RedisTopology::Cluster => RedisServers::Cluster(addresses()),
        RedisTopology::Sentinel { master } => RedisServers::Sentinel {
            sentinels: addresses(),
            master: master.clone(),
            login: RedisLogin { user: bus.sentinel_user.clone(), password: bus.sentinel_password() },
        },
    };
    let identity = bus.tls_cert_file.clone().zip(bus.tls_key_file.clone());
    Some(RedisOptions {
        servers,
        login: RedisLogin { user: bus.user().map(str::to_owned), password: bus.password() },
        database: url.database,
        tls: url.tls.then(|| RedisTls {
            ca_file: bus.tls_ca_file.clone(),
            identity: identity.map(|(cert_file, key_file)| RedisIdentity { cert_file, key_file }),
        }),
        namespace: bus.namespace.as_str().to_owned(),
        retention: bus.retention,
        shard: None,
    })
}

fn redis_address(host: &HostPort) -> RedisAddress {
    RedisAddress { host: host.host.clone(), port: host.port }
}

/// How the NATS is reached that the configuration names, if it names one.
pub fn nats_options(bus: &BusConfig) -> Option<NatsOptions> {
    let BusUrl::Nats(url) = &bus.url else { return None };
    let address = |host: &HostPort| NatsAddress { host: host.host.clone(), port: host.port };
    Some(NatsOptions {
        servers: url.hosts.iter().map(address).collect(),
        encrypted: url.tls,
        identity: nats_identity(bus),
        ca_file: bus.tls_ca_file.clone(),
        certificate: bus.tls_cert_file.clone().zip(bus.tls_key_file.clone()),
        namespace: bus.namespace.as_str().to_owned(),
    })
}

/// Of several ways to say who we are the strongest counts.
fn nats_identity(bus: &BusConfig) -> NatsIdentity {
    if let Some(file) = bus.credentials_file.clone() {
        return NatsIdentity::Credentials(SecretSource::File(file));
    }
    if let Some(file) = bus.nkey_file.clone() {
        return NatsIdentity::Nkey(SecretSource::File(file));
    }
    if let Some(token) = bus.token() {
        return NatsIdentity::Token(token);
    }
    match (bus.user(), bus.password()) {
        (Some(user), Some(password)) => NatsIdentity::Password { user: user.to_owned(), password },
        // `nats://token@host`, as NATS itself has it.
        (Some(token), None) => NatsIdentity::Token(SecretSource::Given(Secret::new(token))),
        (None, _) => NatsIdentity::Anonymous,
    }
}

/// How JetStream keeps events.
pub fn nats_kept(bus: &BusConfig) -> Kept {
    Kept {
        storage: match bus.storage {
            BusStorage::File => Storage::File,
            BusStorage::Memory => Storage::Memory,
        },
        replicas: bus.replicas as usize,
        retention: bus.retention,
        max_bytes: Some(bus.max_bytes.0).filter(|bytes| *bytes > 0),
    }
}

/// The patterns of the channels that are taken from a bus of plain subjects.
pub fn nats_patterns(bus: &BusConfig) -> Vec<Pattern> {
    let pattern = |channel: &BusChannel| match channel {
        BusChannel::Pattern(pattern) => Some(pattern.clone()),
        // Those of Redis are refused when the configuration is read.
        BusChannel::Glob(_) => None,
    };
    bus.channels.iter().filter_map(pattern).collect()
}
