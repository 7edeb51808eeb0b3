//! Position, epoch, and the opaque cursor that clients keep.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;

/// Where an event stands in the log. It grows within an epoch and is never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Position(pub u64);

/// Positions that a node which numbers events itself has for each millisecond of the clock: more than it can give
/// in one.
pub const POSITIONS_PER_MS: u64 = 1 << 20;

impl Position {
    /// Before every event.
    pub const ZERO: Position = Position(0);
    /// After every event.
    pub const MAX: Position = Position(u64::MAX);

    /// The next one.
    pub fn next(self) -> Position {
        Position(self.0 + 1)
    }

    /// The one before; `ZERO` stays.
    pub fn previous(self) -> Position {
        Position(self.0.saturating_sub(1))
    }
}

/// Which log a position belongs to. A log that was lost and begun anew has another epoch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Epoch(pub u64);

impl Epoch {
    /// One that never was.
    pub fn fresh() -> Self {
        // The lower half of each UUID holds 62 random bits; the second fills the two fixed ones of the first.
        let random = || uuid::Uuid::now_v7().as_u64_pair().1;
        Self(random().rotate_left(2) ^ random().rotate_left(33))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// "I have everything up to here": a position and the log it belongs to. On the wire it is an opaque,
/// URL-safe string of [`Cursor::TEXT_BYTES`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cursor {
    /// The log.
    pub epoch: Epoch,
    /// The last position that the client has.
    pub position: Position,
}

/// The first byte of a cursor. A later form (a position for each of several shards) takes another.
const VERSION: u8 = 1;
const RAW_BYTES: usize = 17;

impl Cursor {
    /// Length of the text form.
    pub const TEXT_BYTES: usize = 23;

    /// The text form, without an allocation.
    pub fn encode(self) -> CursorText {
        let mut raw = [0; RAW_BYTES];
        raw[0] = VERSION;
        raw[1..9].copy_from_slice(&self.epoch.0.to_be_bytes());
        raw[9..].copy_from_slice(&self.position.0.to_be_bytes());
        let mut text = [0; Self::TEXT_BYTES];
        URL_SAFE_NO_PAD.encode_slice(raw, &mut text).expect("17 bytes are 23 characters of unpadded base64");
        CursorText(text)
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        if text.len() != Self::TEXT_BYTES {
            return Err(CursorError);
        }
        // The decoder wants room for its estimate, which is a little above the true length.
        let mut raw = [0; RAW_BYTES + 1];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut raw).map_err(|_| CursorError)?;
        if length != RAW_BYTES || raw[0] != VERSION {
            return Err(CursorError);
        }
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&raw[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        Ok(Self { epoch: Epoch(word(1)), position: Position(word(9)) })
    }
}

/// The text of a cursor.
#[derive(Clone, Copy)]
pub struct CursorText([u8; Cursor::TEXT_BYTES]);

impl CursorText {
    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64 is ASCII")
    }
}

impl fmt::Display for CursorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for CursorText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The text is no cursor of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CursorError;

impl fmt::Display for CursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a cursor: send one exactly as Sidewire gave it, or none to start from now")
    }
}

impl std::error::Error for CursorError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_cursor_survives_its_text_form(epoch: u64, position: u64) {
            let cursor = Cursor { epoch: Epoch(epoch), position: Position(position) };
            prop_assert_eq!(Cursor::parse(cursor.encode().as_str()), Ok(cursor));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,40}") {
            if let Ok(cursor) = Cursor::parse(&text) {
                let encoded = cursor.encode();
                prop_assert_eq!(encoded.as_str(), text.as_str());
            }
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "-1", "18446744073709551616", "AQ", &"A".repeat(1 << 20)] {
            assert_eq!(Cursor::parse(text), Err(CursorError));
        }
    }
}
