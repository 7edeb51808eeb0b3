//! WebSocket frames as a node sends them, for tests that look below what a client's library shows.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _};

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The bit beside the opcode of a message's last frame.
pub(crate) const FINAL: u8 = 0x80;
/// The bit beside the length of a frame that is masked.
pub(crate) const MASKED: u8 = 0x80;

/// One frame.
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Reads the next one; an error when the connection ends instead.
    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut header = [0; 2];
        stream.read_exact(&mut header).await?;
        assert_eq!(header[0] & 0x70, 0, "no reserved bit: no extension was agreed on");
        assert_eq!(header[1] & MASKED, 0, "a server does not mask");
        let length = match header[1] {
            126 => u64::from(stream.read_u16().await?),
            127 => stream.read_u64().await?,
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).expect("a node sends what fits into memory")];
        stream.read_exact(&mut payload).await?;
        Ok(Self { opcode: header[0] & 15, payload })
    }

    /// The code of a close frame that has one.
    pub(crate) fn close_code(&self) -> Option<u16> {
        let code = self.payload.first_chunk()?;
        (self.opcode == CLOSE).then(|| u16::from_be_bytes(*code))
    }
}
