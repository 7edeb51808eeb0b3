//! What the tests share. Nothing here sleeps in the hope that something has happened: see
//! [`servers::wait`](crate::servers::wait).

mod address;
mod browser;
mod bus;
mod callee;
pub(crate) mod frame;
mod hopper;
mod http;
mod load;
mod metrics;
mod process;
mod publishers;
mod publishing;
pub(crate) mod shards;
mod sidecar;
mod sse;
mod subscription;
mod tokens;
mod trouble;
mod watcher;
mod websocket;

use crate::servers::wait;
use tokio::task::JoinHandle;

pub(crate) use address::{Address, Duplex};
pub(crate) use browser::Browser;
pub(crate) use bus::{BusKind, BusServer, DEFAULT_HEDGE, Fleet, PATIENT, bus_config_at, two_nodes_at};
pub(crate) use callee::Callee;
pub(crate) use frame::Frame;
pub(crate) use hopper::Hoppers;
pub(crate) use http::{Connection, HttpClient, Response};
pub(crate) use load::{NumberedLoad, OrderCheck};
pub(crate) use process::{Finished, directory_bytes, run_command, sidewire};
pub(crate) use publishers::{PublishReport, Publishers, RunningPublishers};
pub(crate) use publishing::{numbers, publish_until_taken};
pub(crate) use sidecar::{Setup, TestSidecar, Whereabouts, free_fixed_port};
pub(crate) use sse::{SseClient, SseItem};
pub(crate) use subscription::{Lost, Subscription, Transport};
pub(crate) use tokens::{Certificate, Key, Tokens, in_seconds};
pub(crate) use trouble::Trouble;
pub(crate) use wait::{PATIENCE, eventually, within};
pub(crate) use watcher::Watcher;
pub(crate) use websocket::{WebSocketClient, from_msgpack, upgrade_request};

/// What a task of the test gives in the end; its panic is the test's own.
pub(crate) async fn joined<T>(task: JoinHandle<T>) -> T {
    task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// A number from the environment, for those who want a test to run longer than the suite does.
pub(crate) fn number_from_environment(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")),
        Err(_) => default,
    }
}

/// The seed of a randomised test: from `SIDEWIRE_TEST_SEED`, or a fresh one, printed so that a failure can be
/// played again.
pub(crate) fn random_seed(test: &str) -> u64 {
    let seed = number_from_environment("SIDEWIRE_TEST_SEED", fastrand::u64(..1 << 32));
    eprintln!("{test}: SIDEWIRE_TEST_SEED={seed}");
    seed
}
