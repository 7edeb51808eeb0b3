//! Real servers that a test starts, kills, freezes and cuts off: each on free ports, in a directory of its own,
//! gone with the test.
//!
//! Several test crates use it, each by `#[path = "../servers/mod.rs"] mod servers;`.

#![allow(dead_code, unused_imports, reason = "each test crate uses a part of it")]

mod certificates;
mod nats;
mod process;
mod proxy;
mod redis;
mod server;
pub(crate) mod wait;

pub(crate) use self::redis::{Redis, RedisCluster, RedisServer, RedisSetup, Sentinels};
pub(crate) use certificates::Certificates;
pub(crate) use nats::{Nats, NatsCluster, NatsServer, NatsSetup};
pub(crate) use process::{ServerProcess, free_port};
pub(crate) use proxy::{Flow, Proxy, Towards};
pub(crate) use server::{Kind, Server};
