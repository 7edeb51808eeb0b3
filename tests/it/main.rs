//! Black-box tests: every one starts the real binary on free ports with a directory of its own, and speaks to
//! it over real sockets, as an app, a client or an operator would.
//!
//! Where a new test goes:

/// Real servers of a bus, and what happens to them and to the network before them.
#[path = "../servers/mod.rs"]
mod servers;
/// The node under test, clients for every transport, load, and waiting with a deadline.
mod support;

/// Channels of which only the newest event counts.
mod conflation;

/// The three CloudEvents modes.
mod cloud_events;
/// What a publish answers when it is sent again, also after a restart.
mod idempotency;
/// What an app sends: every body form, ids, ttl, tags, acknowledgement levels, the Unix socket.
mod publish;

/// Fields that are stripped from events, whatever way these come.
mod redaction;

/// Long-poll.
mod poll;
/// Paths that the operator names, and closing when a job is done, on every transport.
mod routes;
/// Server-sent events.
mod sse;
/// The endless NDJSON stream.
mod stream;
/// What every transport must agree on: patterns, filters, `last`, `history`, resume words.
mod subscribing;
/// The WebSocket protocol: subscribe, filters, resume, errors.
mod websocket;
/// WebSocket in MessagePack.
mod websocket_msgpack;

/// Queries over what is kept: `GET /v1/events`, `last`, channels, `DELETE`.
mod history;
/// How what is kept goes away: by age, by rule, by bytes.
mod retention;

/// Who did what, in a file of its own.
mod audit;
/// The keys that an issuer publishes: fetched, rotated, out of reach.
mod auth_issuer;
/// What a token allows, on every transport, and how it ends.
mod auth_permissions;
/// The app and admin listeners, and the commands around tokens.
mod auth_private;
/// Clients that publish.
mod auth_publish;
/// The app's own session instead of a token.
mod auth_session;
/// Tokens: every way to sign and to give one, and every way to forge one.
mod auth_tokens;
/// TLS on every listener: certificates that are replaced, and clients that must show one.
mod tls;

/// A wall clock that jumps.
mod clock;
/// What was acknowledged survives `kill -9` and a full disk.
mod durability;
/// What is kept on disk says nothing to who has not the key.
mod encryption;
/// Each event once and in order, whatever breaks.
mod exactness;
/// What a client may take, and how one is cut off.
mod limits;
/// Who takes too much, by address, by bytes and by channel, also behind a proxy.
mod limits_by_whom;
/// More connections than there is room for, and half of them silent.
mod overload;
/// Many replays, many channels: what they cost.
mod scale;
/// Clients that do not read.
mod slow_clients;

/// Attacks on the whole: bombs of patterns, forged cursors, what could be learnt from logs and metrics.
mod attacks;
/// A disk that hangs, or fails once.
mod bad_disk;
/// WebSocket frames that break RFC 6455 or a limit.
mod bad_frames;
/// Requests that break HTTP itself.
mod bad_http;
/// Bodies and parameters that break a rule: answered with 4xx, never with 500, never with a crash.
mod bad_input;
/// Clients that are slow on purpose, or claim more than they send.
mod bad_peers;

/// Users, passwords and TLS on the bus, and that nobody is told of them.
mod bus_access;
/// A node that was off reads on; one that comes too late says so.
mod bus_catch_up;
/// Who is cut off or revoked on one node is so on every node.
mod bus_control;
/// Each event once and in one order, whatever the bus does with it.
mod bus_exactly_once;
/// Another server of the bus takes over: Sentinels, a cluster, another leader.
mod bus_failover;
/// The bus has no room: named, and publishes wait.
mod bus_full;
/// JetStream while many publish: consumers, leaders and servers that go and come.
mod bus_jetstream;
/// The bus loses what it has: a new epoch, and old cursors are told.
mod bus_loss;
/// Apps that speak Redis or NATS themselves, other fleets, newer nodes, nonsense.
mod bus_neighbours;
/// The bus is gone, frozen or slow under load: apps and clients notice nothing, and nothing is lost.
mod bus_outage;
/// What clients are shown of what a node takes while the bus is away.
mod bus_outage_clients;
/// What a publish is answered while the bus is away, and when the outbox is full.
mod bus_outage_publish;
/// Clients that come back during an outage of the bus and after it, to the same node and to others.
mod bus_outage_resume;
/// Buses that keep nothing, with two nodes on them.
mod bus_plain;
/// A bus that takes publishes and gives nothing back is noticed and left; what is measured and logged of it.
mod bus_probe;
/// A client comes back to any node.
mod bus_resume;
/// A bus that is split into shards: order in a channel, and a cursor for all nodes.
mod bus_shards;
/// A bus that is split into shards, of which one or all lose what they had.
mod bus_shards_loss;
/// A node moves from one bus to another.
mod bus_switch;

/// A real browser: `EventSource` and `WebSocket` from a page of another origin, across a restart.
mod browser;
/// Which names the node answers to, and which browsers it serves.
mod browser_safety;
/// The example apps, used by a real browser: sign in, receive, sign out.
mod examples;

/// The sub-commands that an operator types.
mod command_line;
/// The configuration: unknown keys, order of sources, `check-config`, reload.
mod configuration;
/// The documentation, where it speaks of the tests.
mod documentation;
/// `status`, `doctor`, `tail`.
mod looking_inside;
/// Probes, metrics, signals, logs, refusal to start.
mod operations;
/// Ready, reloading, stopping and the watchdog as systemd hears them; sockets that it passes.
mod systemd;
/// What became of one event: `/v1/trace`, and the command.
mod trace;
/// What older versions left behind.
mod upgrade;
