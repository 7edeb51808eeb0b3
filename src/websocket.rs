//! The server side of RFC 6455: handshake, frames in, frames out, the closing handshake.
//!
//! Decoding does no IO and works on a borrowed buffer, so that a connection that waits holds nothing but
//! a [`Decoder`] of a few words. Frames out are plain bytes: an event is framed once and the same
//! bytes go to every client. No extension is negotiated: compression for each connection would cost ten
//! times all the rest of a delivery, and is a way in for decompression bombs.

mod close;
mod decoder;
pub mod echo;
mod frame;
mod handshake;
mod protocol_error;
mod read;

pub use close::finish;
pub use decoder::{Decoder, Incoming, Limits};
pub use frame::{
    ControlFrame, FrameHeader, Opcode, binary_frame, close_frame, close_reply, frame_header, ping_frame,
    pong_frame, text_frame,
};
pub use handshake::{Accept, HandshakeError, accept};
pub use protocol_error::{ProtocolError, Rule};
pub use read::read_shared;
