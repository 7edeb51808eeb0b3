//! The backends of the bus against real servers, which the tests start, stop, freeze and empty.
//!
//! `conformance.rs` holds what every backend must do; a backend's own file starts its server, runs the suite and
//! adds what only it does.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod conformance;
mod nats_access;
mod nats_core;
mod nats_jetstream;
mod nats_loss;
mod nats_servers;
mod redis_pubsub;
mod redis_shards;
mod redis_stream;
#[path = "../servers/mod.rs"]
mod servers;
