//! The wire forms of what goes to clients and comes from them: JSON, MessagePack and SSE.
//!
//! An event is encoded at most once for each form, whatever the number of clients ([`Shown`]). Nothing here
//! knows a socket: a frame is bytes.
//!
//! `time` is Unix milliseconds, `heartbeat` in `welcome` is milliseconds.

mod client_message;
mod event;
mod frame;
mod list;
pub(crate) mod msgpack_reader;
mod server_message;
mod shown;
mod text;
mod transcode;

#[cfg(test)]
pub(crate) mod tests;

pub use client_message::{ClientMessage, ClientMessageError, MessageId, Subscribe, Token};
pub use event::event_json;
pub use list::{ListEnd, list_body};
pub use server_message::{Resume, ServerMessage};
pub use shown::{Framing, Shown};

/// How a client wants what is sent to it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Encoding {
    /// JSON text.
    #[default]
    Json,
    /// MessagePack, in binary frames.
    MessagePack,
}
