//! A message that did not arrive in one piece.

use super::text::{NotUtf8, Text};
use super::{Incoming, ProtocolError};

/// What has come of a message whose end has not been read yet.
#[derive(Debug)]
pub(super) struct Message {
    content: Content,
    /// What its frames count against the limit.
    charged: usize,
}

#[derive(Debug)]
enum Content {
    Text(Text),
    Binary(Vec<u8>),
}

impl Message {
    pub(super) fn text() -> Self {
        Self { content: Content::Text(Text::default()), charged: 0 }
    }

    pub(super) fn binary() -> Self {
        Self { content: Content::Binary(Vec::new()), charged: 0 }
    }

    /// Counts a frame that begins.
    pub(super) fn charge(&mut self, price: usize) {
        self.charged += price;
    }

    /// Appends a piece of the frame that began last; `most` is the longest that the message may become.
    pub(super) fn push(&mut self, piece: &[u8], most: usize) -> Result<(), ProtocolError> {
        match &mut self.content {
            Content::Text(text) => Ok(text.push(piece, most)?),
            Content::Binary(bytes) => {
                bytes.reserve_exact(growth(bytes.len(), bytes.capacity(), piece.len(), most));
                bytes.extend_from_slice(piece);
                Ok(())
            }
        }
    }

    /// The whole message.
    pub(super) fn whole(&self) -> Result<Incoming<'_>, ProtocolError> {
        Ok(match &self.content {
            Content::Text(text) => Incoming::Text(text.whole()?),
            Content::Binary(bytes) => Incoming::Binary(bytes),
        })
    }

    /// What is counted against the limit so far.
    pub(super) fn charged(&self) -> usize {
        self.charged
    }

    /// How much memory it holds.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.content {
            Content::Text(text) => text.held_bytes(),
            Content::Binary(bytes) => bytes.capacity(),
        }
    }
}

impl From<NotUtf8> for ProtocolError {
    fn from(_: NotUtf8) -> Self {
        Self::NotUtf8
    }
}

/// How much more a buffer of `len` and `capacity` reserves to take `more` bytes: it doubles, so that small
/// pieces are cheap, but never beyond `most`, nor ahead of what was really received: a length that a
/// header declares costs nothing.
pub(super) fn growth(len: usize, capacity: usize, more: usize, most: usize) -> usize {
    let needed = len + more;
    if needed <= capacity {
        return 0;
    }
    needed.max(capacity.saturating_mul(2).min(most)) - len
}
