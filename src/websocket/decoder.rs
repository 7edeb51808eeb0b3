//! Frames in: what a client sent, checked and put together.

mod header;
mod mask;
mod message;
mod pending;
#[cfg(test)]
mod tests;
mod text;

use super::frame::Opcode;
use super::{ProtocolError, Rule};
use header::{Frame, MAX_HEADER_BYTES};
use mask::apply_mask;
use pending::Pending;
use std::mem;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest message, whatever the number of its fragments.
    pub message_bytes: usize,
}

/// Something whole that a client sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Incoming<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// To be answered by a pong with the same payload.
    Ping(&'a [u8]),
    /// The answer to a ping, or a heartbeat nobody asked for.
    Pong(&'a [u8]),
    /// The client begins, or answers, the closing handshake. Nothing comes after it.
    Close(Option<(u16, &'a str)>),
}

/// Decodes what one client sends. It does no IO, and between messages it holds no memory of its own.
///
/// Each read is handed to [`next`](Self::next) until that has nothing more:
///
/// ```
/// # use sidewire::websocket::{Decoder, Incoming, Limits};
/// let mut decoder = Decoder::new(Limits { message_bytes: 64 * 1024 });
/// let mut read = *b"\x81\x82\x00\x00\x00\x00hi";
/// let mut input = &mut read[..];
/// while let Some(incoming) = decoder.next(&mut input)? {
///     assert_eq!(incoming, Incoming::Text("hi"));
/// }
/// # Ok::<_, sidewire::websocket::ProtocolError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// What must be remembered from one read to the next; `None` for an idle connection.
    pending: Option<Box<Pending>>,
    over: Option<Over>,
}

impl Decoder {
    /// A decoder for a fresh connection.
    pub fn new(limits: Limits) -> Self {
        Self { limits, pending: None, over: None }
    }

    /// The next whole thing in `input`, which is unmasked in place and shortened by what was used.
    ///
    /// What came whole is borrowed from `input` and never copied. `None` says that all of `input` is used up
    /// and more has to be read. What follows a close is thrown away; after an error the same error
    /// comes again.
    pub fn next<'a, 'input: 'a>(
        &'a mut self,
        input: &mut &'input mut [u8],
    ) -> Result<Option<Incoming<'a>>, ProtocolError> {
        match self.over {
            Some(Over(outcome)) => {
                self.pending = None;
                *input = &mut [];
                return outcome.map(|()| None);
            }
            None => self.forget_delivered(),
        }
        let found = match self.find(input) {
            Ok(found) => found,
            Err(error) => {
                self.over = Some(Over(Err(error)));
                self.pending = None;
                return Err(error);
            }
        };
        let incoming = match found {
            Found::Nothing => None,
            Found::InInput(incoming) => Some(incoming),
            // It has been checked, so it is there.
            Found::InPending => self.pending.as_deref().and_then(|pending| pending.whole().ok()),
        };
        if let Some(Incoming::Close(_)) = incoming {
            self.over = Some(Over(Ok(())));
        }
        Ok(incoming)
    }

    /// Whether nothing more can come: the client has sent its close, or broken the protocol.
    pub fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// How much memory is held for what has come in part.
    pub fn held_bytes(&self) -> usize {
        self.pending.as_deref().map_or(0, Pending::held_bytes)
    }

    /// Reads on in `input`, up to the end of something whole.
    fn find<'input>(&mut self, input: &mut &'input mut [u8]) -> Result<Found<'input>, ProtocolError> {
        loop {
            let begun = self.pending.as_mut().and_then(|pending| pending.frame.take());
            let mut frame = match begun {
                Some(frame) => frame,
                None => {
                    let Some(frame) = self.read_header(input)? else { return Ok(Found::Nothing) };
                    if frame.stands_alone() && frame.missing <= input.len() {
                        let payload = take(input, frame.missing);
                        apply_mask(payload, frame.mask);
                        return Ok(Found::InInput(incoming(frame.opcode, payload)?));
                    }
                    self.pending.get_or_insert_default().begin(&frame);
                    frame
                }
            };

            let piece = take(input, frame.missing.min(input.len()));
            apply_mask(piece, frame.mask);
            frame.mask.rotate_left(piece.len() % 4);
            frame.missing -= piece.len();
            let pending = self.pending.get_or_insert_default();
            pending.push(&frame, piece, self.limits.message_bytes)?;
            if frame.missing > 0 {
                pending.frame = Some(frame);
                return Ok(Found::Nothing);
            }
            if frame.last {
                pending.delivered = Some(frame.opcode);
                pending.whole()?;
                return Ok(Found::InPending);
            }
        }
    }

    /// Reads the header of the next frame, which the end of a read may have cut.
    fn read_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Frame>, ProtocolError> {
        let message = self.pending.as_ref().and_then(|pending| pending.message.as_ref());
        let most = self.limits.message_bytes;
        let kept = self.pending.as_ref().map_or(0, |pending| pending.header_bytes);
        if kept == 0 {
            if let Some((frame, header_bytes)) = Frame::parse(input, message, most)? {
                take(input, header_bytes);
                return Ok(Some(frame));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }

        let pending = self.pending.get_or_insert_default();
        let available = input.len().min(MAX_HEADER_BYTES - kept);
        pending.header[kept..kept + available].copy_from_slice(&input[..available]);
        let known = &pending.header[..kept + available];
        let Some((frame, header_bytes)) = Frame::parse(known, pending.message.as_ref(), most)? else {
            take(input, available);
            pending.header_bytes = kept + available;
            return Ok(None);
        };
        take(input, header_bytes - kept);
        pending.header_bytes = 0;
        Ok(Some(frame))
    }

    /// Frees what the last call handed out.
    fn forget_delivered(&mut self) {
        let Some(pending) = &mut self.pending else { return };
        match pending.delivered.take() {
            Some(opcode) if opcode.is_control() => pending.control = Vec::new(),
            Some(_) => pending.message = None,
            None => {}
        }
        if pending.is_empty() {
            self.pending = None;
        }
    }
}

/// Nothing more is read, after a close or an error.
#[derive(Clone, Copy, Debug)]
struct Over(Result<(), ProtocolError>);

/// Where something whole stands.
enum Found<'input> {
    /// The input ends before there is any.
    Nothing,
    /// In the input.
    InInput(Incoming<'input>),
    /// In what was kept of earlier reads, and right.
    InPending,
}

/// What a whole frame says.
fn incoming(opcode: Opcode, payload: &[u8]) -> Result<Incoming<'_>, ProtocolError> {
    Ok(match opcode {
        Opcode::Text => Incoming::Text(utf8(payload)?),
        Opcode::Binary | Opcode::Continuation => Incoming::Binary(payload),
        Opcode::Ping => Incoming::Ping(payload),
        Opcode::Pong => Incoming::Pong(payload),
        Opcode::Close => Incoming::Close(match payload {
            [] => None,
            [_] => return Err(Rule::CloseTooShort.into()),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !CloseCode::from(code).is_allowed() {
                    return Err(Rule::CloseCode.into());
                }
                Some((code, utf8(reason)?))
            }
        }),
    })
}

fn utf8(bytes: &[u8]) -> Result<&str, ProtocolError> {
    std::str::from_utf8(bytes).map_err(|_| ProtocolError::NotUtf8)
}

/// Splits the first `count` bytes off `input`.
fn take<'input>(input: &mut &'input mut [u8], count: usize) -> &'input mut [u8] {
    let (taken, rest) = mem::take(input).split_at_mut(count);
    *input = rest;
    taken
}
