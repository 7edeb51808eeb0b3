//! Sidewire: a message-broker sidecar.
//!
//! An app POSTs to localhost; every event gets a place in one log, is kept on disk for a while, and reaches
//! clients over WebSocket, SSE, long-poll or NDJSON, live and again after they were away.

// The words: what is published, and how it is named.
pub mod event;

// What the operator decides.
pub mod config;

// What the operator types.
pub mod cli;
