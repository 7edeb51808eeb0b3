//! Black-box tests: every one starts the real binary on free ports with a directory of its own, and speaks to
//! it over real sockets, as an app, a client or an operator would.
//!
//! Where a new test goes:

/// The node under test, clients for every transport, load, and waiting with a deadline.
mod support;

/// What an app sends: every body form, ids, ttl, tags, acknowledgement levels, the Unix socket.
mod publish;
/// The three CloudEvents modes.
mod cloud_events;
/// What a publish answers when it is sent again, also after a restart.
mod idempotency;

/// The WebSocket protocol: subscribe, filters, resume, errors.
mod websocket;
/// WebSocket in MessagePack.
mod websocket_msgpack;
/// Server-sent events.
mod sse;
/// Long-poll.
mod poll;
/// The endless NDJSON stream.
mod stream;
/// Paths that the operator names, and closing when a job is done, on every transport.
mod routes;
/// What every transport must agree on: patterns, filters, `last`, `history`, resume words.
mod subscribing;

/// Queries over what is kept: `GET /v1/events`, `last`, channels, `DELETE`.
mod history;
/// How what is kept goes away: by age, by rule, by bytes.
mod retention;

/// Each event once and in order, whatever breaks.
mod exactness;
/// What was acknowledged survives `kill -9` and a full disk.
mod durability;
/// Clients that do not read.
mod slow_clients;

/// Requests and frames that break a rule: answered with 4xx, never with 500, never with a crash.
mod bad_input;
/// Clients that are slow on purpose, or claim more than they send.
mod bad_peers;
/// WebSocket frames that break RFC 6455 or a limit.
mod bad_frames;
/// Which names the node answers to, and which browsers it serves.
mod browser_safety;
/// A real browser: `EventSource` and `WebSocket` from a page of another origin, across a restart.
mod browser;

/// Probes, metrics, signals, logs, refusal to start.
mod operations;
/// The configuration: unknown keys, order of sources, `check-config`, reload.
mod configuration;
/// The sub-commands that an operator types.
mod command_line;
