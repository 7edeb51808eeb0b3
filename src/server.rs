//! The edges: listeners, the three APIs, the transports. They talk to the flows and know neither the bus nor
//! the disk behind them.
//!
//! A connection begins in `connection`, where hyper parses its requests between the checks of `guard`. It is
//! answered by one of three handlers: [`App`], [`Client`] or [`Admin`]. A client that listens leaves hyper: its
//! socket goes to a small task of its own (`websocket`, `one_way`), which writes through an `outlet`.

mod access;
mod admin;
mod app;
mod capacity;
mod channel_rates;
mod client;
mod client_publish;
mod close;
mod connection;
mod control;
mod error;
mod forwarded;
mod guard;
mod history;
mod host;
mod listener;
mod node;
mod offenders;
mod one_way;
mod outlet;
mod poll;
mod proxy_protocol;
mod publish;
mod rate;
mod readiness;
mod refusal_log;
mod registry;
mod request;
mod request_subscription;
mod stream;
mod system_name;
mod tls;
mod trace;
mod websocket;

pub use admin::Admin;
pub use app::App;
pub use capacity::Capacity;
pub use client::Client;
pub use connection::ConnectionLimits;
pub use control::{Controls, keep_exchanging};
pub use host::{OriginPolicy, PrivateRules};
pub use listener::{Address, Listener};
pub use node::{Node, Settings};
pub use readiness::Readiness;
pub use registry::Registry;
pub use system_name::{SystemGroup, SystemUser};
pub use tls::{Tls, TlsError, TlsOptions};
