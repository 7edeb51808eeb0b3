//! Frames out: a server's frames are never masked, so they can be made once and sent to many.

use bytes::{BufMut, Bytes, BytesMut};
use std::ops::Deref;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The longest payload of a control frame (RFC 6455 section 5.5).
pub(super) const MAX_CONTROL_BYTES: usize = 125;

/// What a frame is (RFC 6455 section 5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    /// A further fragment of a message.
    Continuation = 0,
    /// A text message, or its first fragment.
    Text = 1,
    /// A binary message, or its first fragment.
    Binary = 2,
    /// The closing handshake.
    Close = 8,
    /// Asks for a pong.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

impl Opcode {
    /// `None` for the reserved ones.
    pub(super) fn known(opcode: OpCode) -> Option<Self> {
        Some(match opcode {
            OpCode::Data(Data::Continue) => Self::Continuation,
            OpCode::Data(Data::Text) => Self::Text,
            OpCode::Data(Data::Binary) => Self::Binary,
            OpCode::Control(Control::Close) => Self::Close,
            OpCode::Control(Control::Ping) => Self::Ping,
            OpCode::Control(Control::Pong) => Self::Pong,
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => return None,
        })
    }

    /// Whether it may stand between the fragments of a message.
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of an unfragmented frame whose payload is written after it.
pub fn frame_header(opcode: Opcode, payload_bytes: usize) -> FrameHeader {
    let mut bytes = [0; 10];
    bytes[0] = 0x80 | opcode as u8;
    let header_bytes = match payload_bytes {
        0..=125 => {
            bytes[1] = payload_bytes as u8;
            2
        }
        126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            10
        }
    };
    FrameHeader { bytes, header_bytes }
}

/// A frame's header, as bytes.
#[derive(Clone, Copy, Debug)]
pub struct FrameHeader {
    bytes: [u8; 10],
    header_bytes: u8,
}

impl Deref for FrameHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.header_bytes)]
    }
}

/// A whole text message, ready for any number of sockets.
pub fn text_frame(text: &str) -> Bytes {
    data_frame(Opcode::Text, text.as_bytes())
}

/// A whole binary message, ready for any number of sockets.
pub fn binary_frame(payload: &[u8]) -> Bytes {
    data_frame(Opcode::Binary, payload)
}

fn data_frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let header = frame_header(opcode, payload.len());
    let mut frame = BytesMut::with_capacity(header.len() + payload.len());
    frame.put_slice(&header);
    frame.put_slice(payload);
    frame.freeze()
}

/// A close frame. A reason too long for it is cut, between two characters.
pub fn close_frame(code: u16, reason: &str) -> ControlFrame {
    let [high, low] = code.to_be_bytes();
    let mut end = reason.len().min(MAX_CONTROL_BYTES - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = &reason[..end];
    ControlFrame::new(Opcode::Close, [high, low].into_iter().chain(reason.bytes()))
}

/// The answer to a client's close: its own code comes back (RFC 6455 section 5.5.1).
pub fn close_reply(code: Option<u16>) -> ControlFrame {
    ControlFrame::new(Opcode::Close, code.map(u16::to_be_bytes).into_iter().flatten())
}

/// A ping. Only the first 125 bytes of the payload fit.
pub fn ping_frame(payload: &[u8]) -> ControlFrame {
    ControlFrame::new(Opcode::Ping, payload.iter().copied())
}

/// The answer to a ping with this payload.
pub fn pong_frame(payload: &[u8]) -> ControlFrame {
    ControlFrame::new(Opcode::Pong, payload.iter().copied())
}

/// A whole control frame, as bytes. It is short enough to need no memory of its own.
#[derive(Clone, Copy, Debug)]
pub struct ControlFrame {
    bytes: [u8; 2 + MAX_CONTROL_BYTES],
    payload_bytes: u8,
}

impl ControlFrame {
    fn new(opcode: Opcode, payload: impl Iterator<Item = u8>) -> Self {
        let mut bytes = [0; 2 + MAX_CONTROL_BYTES];
        let mut payload_bytes = 0;
        for (place, byte) in bytes[2..].iter_mut().zip(payload) {
            *place = byte;
            payload_bytes += 1;
        }
        bytes[0] = 0x80 | opcode as u8;
        bytes[1] = payload_bytes;
        Self { bytes, payload_bytes }
    }
}

impl Deref for ControlFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..2 + usize::from(self.payload_bytes)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;
    use tokio_tungstenite::tungstenite::protocol::frame;

    #[test]
    fn lengths_take_their_shortest_form() {
        assert_eq!(*frame_header(Opcode::Text, 125), [0x81, 125]);
        assert_eq!(*frame_header(Opcode::Text, 126), [0x81, 126, 0, 126]);
        assert_eq!(*frame_header(Opcode::Binary, 0xffff), [0x82, 126, 0xff, 0xff]);
        assert_eq!(*frame_header(Opcode::Binary, 0x10000), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close_frame(1002, &"ä".repeat(100));
        assert_eq!(frame[..4], [0x88, 124, 3, 234]);
        assert_eq!(std::str::from_utf8(&frame[4..]), Ok(&*"ä".repeat(61)));
    }

    #[test]
    fn a_close_without_a_code_is_answered_without_one() {
        assert_eq!(*close_reply(None), [0x88, 0]);
        assert_eq!(*close_reply(Some(1000)), [0x88, 2, 3, 232]);
    }

    #[test]
    fn control_frames_never_exceed_what_is_allowed() {
        assert_eq!(pong_frame(&[7; 125])[..2], [0x8a, 125]);
        assert_eq!(ping_frame(&[7; 126]).len(), 127);
    }

    proptest! {
        #[test]
        fn another_parser_reads_the_same_header(payload_bytes in any::<u32>(), binary in any::<bool>()) {
            let opcode = if binary { Opcode::Binary } else { Opcode::Text };
            let bytes = frame_header(opcode, payload_bytes as usize);
            let mut cursor = Cursor::new(&*bytes);
            let (header, length) = frame::FrameHeader::parse(&mut cursor).unwrap().unwrap();
            prop_assert_eq!(length, u64::from(payload_bytes));
            prop_assert_eq!(Opcode::known(header.opcode), Some(opcode));
            prop_assert!(header.is_final && header.mask.is_none());
            prop_assert_eq!(cursor.position() as usize, bytes.len());
        }
    }
}
