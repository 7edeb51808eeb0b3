//! From the configuration to what a backend of the bus takes.

use crate::bus::redis::{RedisAddress, RedisIdentity, RedisLogin, RedisOptions, RedisServers, RedisTls};
use crate::config::{BusConfig, BusUrl, HostPort, RedisTopology};

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
    })
}

fn redis_address(host: &HostPort) -> RedisAddress {
    RedisAddress { host: host.host.clone(), port: host.port }
}
