//! The header of a frame, and the rules it must keep.

use super::message::Message;
use crate::websocket::frame::{MAX_CONTROL_BYTES, Opcode};
use crate::websocket::{ProtocolError, Rule};
use std::io::Cursor;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

/// The longest header of a client's frame: two bytes, eight of length, four of mask.
pub(super) const MAX_HEADER_BYTES: usize = 14;

/// A frame whose header has been read and keeps every rule.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    /// It ends its message.
    pub(super) last: bool,
    /// Turned so that it begins with the key of the next byte.
    pub(super) mask: [u8; 4],
    /// How many bytes of its payload have not come yet.
    pub(super) missing: usize,
    /// What it counts against the limit of a message.
    pub(super) price: usize,
}

impl Frame {
    /// Reads a header; `None` if `bytes` end within it. `message` is what the frames before have left open.
    ///
    /// Every rule is held here, before anything is kept of the frame: a length is only a claim, and the one
    /// who claims 2^63 bytes gets no memory for it.
    pub(super) fn parse(
        bytes: &[u8],
        message: Option<&Message>,
        most: usize,
    ) -> Result<Option<(Self, usize)>, ProtocolError> {
        let mut cursor = Cursor::new(bytes);
        // Reading from a slice cannot fail, so the opcode is all that an error can be about.
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Rule::ReservedOpcode)?;
        let Some((header, length)) = parsed else { return Ok(None) };
        let header_bytes = cursor.position() as usize;

        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Rule::ReservedBits.into());
        }
        let Some(mask) = header.mask else { return Err(Rule::Unmasked.into()) };
        if header_bytes != header.len(length) {
            return Err(Rule::LengthNotMinimal.into());
        }
        let Some(opcode) = Opcode::known(header.opcode) else { return Err(Rule::ReservedOpcode.into()) };
        let last = header.is_final;
        let room = match (opcode, message) {
            _ if opcode.is_control() && !last => return Err(Rule::ControlFragmented.into()),
            _ if opcode.is_control() && length > MAX_CONTROL_BYTES as u64 => {
                return Err(Rule::ControlTooLong.into());
            }
            _ if opcode.is_control() => MAX_CONTROL_BYTES,
            (Opcode::Continuation, None) => return Err(Rule::NothingToContinue.into()),
            (Opcode::Continuation, Some(message)) => most.saturating_sub(message.charged()),
            (_, Some(_)) => return Err(Rule::MessageUnfinished.into()),
            (_, None) => most,
        };
        let missing = usize::try_from(length).map_err(|_| ProtocolError::TooBig)?;
        // An empty fragment that is not the last counts as one byte: it takes no memory, but if it were free
        // a client could send them for ever.
        let price = if last { missing } else { missing.max(1) };
        if price > room {
            return Err(ProtocolError::TooBig);
        }
        Ok(Some((Self { opcode, last, mask, missing, price }, header_bytes)))
    }

    /// Whether it needs nothing of the frames around it: once all of it is here, it need not be copied.
    pub(super) fn stands_alone(&self) -> bool {
        self.last && self.opcode != Opcode::Continuation
    }
}
