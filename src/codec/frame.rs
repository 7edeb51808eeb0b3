//! WebSocket frames as a server sends them: whole, unmasked, without extensions (RFC 6455, section 5.2).

use bytes::Bytes;

/// The longest frame header without a mask.
pub(super) const MAX_HEADER_BYTES: usize = 10;

/// The opcode of a data frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Opcode {
    Text = 1,
    Binary = 2,
}

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
    let (header, header_bytes) = header(opcode, length);
    let start = MAX_HEADER_BYTES - header_bytes;
    buffer[start..MAX_HEADER_BYTES].copy_from_slice(&header[..header_bytes]);
    // What is kept for a while should not keep what it did not use.
    Bytes::from(buffer.into_boxed_slice()).slice(start..)
}

/// The header of a frame with FIN set, and how many bytes of it count.
fn header(opcode: Opcode, length: usize) -> ([u8; MAX_HEADER_BYTES], usize) {
    let mut header = [0; MAX_HEADER_BYTES];
    header[0] = 0x80 | opcode as u8;
    if length < 126 {
        header[1] = length as u8;
        (header, 2)
    } else if let Ok(length) = u16::try_from(length) {
        header[1] = 126;
        header[2..4].copy_from_slice(&length.to_be_bytes());
        (header, 4)
    } else {
        header[1] = 127;
        header[2..].copy_from_slice(&(length as u64).to_be_bytes());
        (header, 10)
    }
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
