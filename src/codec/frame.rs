//! WebSocket frames as a server sends them: whole, unmasked, without extensions (RFC 6455, section 5.2).

use crate::websocket::frame_header;
use bytes::Bytes;

pub(super) use crate::websocket::Opcode;

/// The longest frame header without a mask.
pub(super) const MAX_HEADER_BYTES: usize = 10;

/// A frame whose payload `write` appends to the buffer. The header is put before it afterwards, when its length
/// is known: there is room for the longest one, and the shorter ones are cut.
pub(super) fn whole(opcode: Opcode, payload_bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut buffer = Vec::with_capacity(MAX_HEADER_BYTES + payload_bytes);
    buffer.resize(MAX_HEADER_BYTES, 0);
    write(&mut buffer);
    let length = buffer.len() - MAX_HEADER_BYTES;
    seal(buffer, opcode, length)
}

/// Puts the header of a frame right before its payload of `length` bytes, which begins after
/// [`MAX_HEADER_BYTES`] and may be followed by other bytes.
pub(super) fn seal(mut buffer: Vec<u8>, opcode: Opcode, length: usize) -> Bytes {
    let header = frame_header(opcode, length);
    let start = MAX_HEADER_BYTES - header.len();
    buffer[start..MAX_HEADER_BYTES].copy_from_slice(&header);
    // What is kept for a while should not keep what it did not use.
    Bytes::from(buffer.into_boxed_slice()).slice(start..)
}

/// How long the header is that a frame begins with.
pub(super) fn header_bytes(frame: &[u8]) -> usize {
    match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_takes_as_few_bytes_as_it_can() {
        for (length, expected) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = whole(Opcode::Text, length, |out| out.resize(out.len() + length, b'x'));
            assert_eq!(&frame[..expected.len()], expected);
            assert_eq!(header_bytes(&frame), expected.len());
            assert_eq!(frame.len(), expected.len() + length);
        }
        assert_eq!(whole(Opcode::Binary, 1, |out| out.push(7)), [0x82, 1, 7].as_slice());
    }
}
