//! What is remembered of a connection whose last read ended within a frame or a message.

use super::header::{Frame, MAX_HEADER_BYTES};
use super::message::Message;
use super::{Incoming, ProtocolError, incoming};
use crate::websocket::frame::Opcode;

/// Exists only while a frame is cut or a message is in fragments.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) header: [u8; MAX_HEADER_BYTES],
    pub(super) header_bytes: usize,
    /// The frame whose payload is not complete.
    pub(super) frame: Option<Frame>,
    /// What has come of a control frame; apart from the message, between whose fragments it may stand.
    pub(super) control: Vec<u8>,
    pub(super) message: Option<Message>,
    /// What the last call handed out, so that the next one frees it.
    pub(super) delivered: Option<Opcode>,
}

impl Pending {
    /// Makes ready for the payload of `frame`.
    pub(super) fn begin(&mut self, frame: &Frame) {
        let message = match frame.opcode {
            Opcode::Text => Some(self.message.insert(Message::text())),
            Opcode::Binary => Some(self.message.insert(Message::binary())),
            Opcode::Continuation => self.message.as_mut(),
            Opcode::Close | Opcode::Ping | Opcode::Pong => None,
        };
        if let Some(message) = message {
            message.charge(frame.price);
        }
    }

    /// Keeps a piece of the payload of `frame`; no message grows beyond `most`.
    pub(super) fn push(&mut self, frame: &Frame, piece: &[u8], most: usize) -> Result<(), ProtocolError> {
        if frame.opcode.is_control() {
            self.control.extend_from_slice(piece);
        } else if let Some(message) = &mut self.message {
            // With the last frame it is known how long the message becomes: doubling need not overshoot.
            let most = if frame.last { message.charged() } else { most };
            message.push(piece, most)?;
        }
        Ok(())
    }

    /// What is whole now and is handed out.
    pub(super) fn whole(&self) -> Result<Incoming<'_>, ProtocolError> {
        match (self.delivered, &self.message) {
            (Some(opcode), _) if opcode.is_control() => incoming(opcode, &self.control),
            (_, Some(message)) => message.whole(),
            // A data frame is only accepted with a message to belong to.
            (_, None) => Ok(Incoming::Binary(&[])),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.header_bytes == 0 && self.frame.is_none() && self.message.is_none()
    }

    pub(super) fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.control.capacity() + self.message.as_ref().map_or(0, Message::held_bytes)
    }
}
