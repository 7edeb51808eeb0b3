//! Sidewire: a message-broker sidecar.
//!
//! An app POSTs to localhost; every event gets a place in one log, is kept on disk for a while, and reaches
//! clients over WebSocket, SSE, long-poll or NDJSON, live and again after they were away. The modules stand
//! in the order in which an event passes them: it comes in through [`server`], is read by [`intake`], goes
//! through [`publish`] to the [`bus`], which gives it its position; [`replica`] appends it to the [`log`] and
//! shows it to the [`hub`]; a client's [`subscribe`] reads it there (or in the log, when it is behind), in
//! the form that [`codec`] gave it once for all, and [`server`] writes it to the socket.
//! `docs/architecture.md` tells the rest.

// The words: what is published, and how it is named.
pub mod event;

// The flow in, and how a publish is read.
pub mod intake;
pub mod publish;
pub mod redact;

// Who may do what, and what nodes tell each other about it.
pub mod auth;
pub mod control;

// The parts: who orders events, who keeps them, who fans them out. None knows another, but for the outbox,
// which keeps what the bus has not taken.
pub mod bus;
pub mod hub;
pub mod log;
pub mod outbox;

// The flows that join the parts: from the bus to log and hub, and from there to one client.
pub mod replica;
pub mod subscribe;

// The wire: forms of events and messages, WebSocket framing, listeners and transports.
pub mod codec;
pub mod server;
pub mod websocket;

// Around it: what it is told, what it counts, how it is put together.
pub mod audit;
pub mod cipher;
pub mod cli;
pub mod config;
pub mod metrics;
pub mod secret;
pub mod sidecar;
pub mod systemd;
