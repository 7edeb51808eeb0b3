//! Text that arrives in pieces, checked as it comes.

use super::message::growth;
use std::str::from_utf8;

/// Collects UTF-8 whose characters may be cut by frame and read boundaries.
///
/// What has been checked is kept as a `String`, so no byte is checked again when the message is whole,
/// and the first byte that cannot be UTF-8 is noticed at once, not at the end of a long message.
#[derive(Debug, Default)]
pub(super) struct Text {
    checked: String,
    /// The beginning of a character whose other bytes are still to come.
    cut: [u8; 4],
    cut_bytes: usize,
}

impl Text {
    /// Appends a piece; `most` is the longest that the text may become.
    pub(super) fn push(&mut self, mut piece: &[u8], most: usize) -> Result<(), NotUtf8> {
        self.checked.reserve_exact(growth(
            self.checked.len(),
            self.checked.capacity(),
            self.cut_bytes + piece.len(),
            most,
        ));
        while self.cut_bytes > 0
            && let Some((&byte, rest)) = piece.split_first()
        {
            piece = rest;
            self.complete_cut(byte)?;
        }
        match from_utf8(piece) {
            Ok(text) => self.checked.push_str(text),
            Err(error) if error.error_len().is_some() => return Err(NotUtf8),
            Err(error) => {
                let (whole, cut) = piece.split_at(error.valid_up_to());
                self.checked.push_str(from_utf8(whole).map_err(|_| NotUtf8)?);
                self.cut[..cut.len()].copy_from_slice(cut);
                self.cut_bytes = cut.len();
            }
        }
        Ok(())
    }

    /// The text, if it does not end within a character.
    pub(super) fn whole(&self) -> Result<&str, NotUtf8> {
        if self.cut_bytes == 0 { Ok(&self.checked) } else { Err(NotUtf8) }
    }

    /// How much memory it holds.
    pub(super) fn held_bytes(&self) -> usize {
        self.checked.capacity()
    }

    fn complete_cut(&mut self, byte: u8) -> Result<(), NotUtf8> {
        // A character has at most four bytes, and with four `from_utf8` never asks for more.
        let Some(place) = self.cut.get_mut(self.cut_bytes) else { return Err(NotUtf8) };
        *place = byte;
        self.cut_bytes += 1;
        match from_utf8(&self.cut[..self.cut_bytes]) {
            Ok(character) => {
                self.checked.push_str(character);
                self.cut_bytes = 0;
                Ok(())
            }
            Err(error) if error.error_len().is_none() => Ok(()),
            Err(_) => Err(NotUtf8),
        }
    }
}

/// A byte that no UTF-8 can have there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NotUtf8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn push_bytewise(bytes: &[u8]) -> Result<Text, usize> {
        let mut text = Text::default();
        for (at, byte) in bytes.iter().enumerate() {
            text.push(&[*byte], bytes.len()).map_err(|_| at)?;
        }
        Ok(text)
    }

    #[test]
    fn the_first_impossible_byte_is_refused() {
        for (bytes, at) in [
            (&b"ab\xff"[..], 2),
            (b"\xc0\xaf", 0),
            (b"\xed\xa0\x80", 1),
            (b"\xf4\x90\x80\x80", 1),
            (b"\xf5", 0),
            (b"\xe2\x82a", 2),
            (b"\xf0\x9f\x98\x80\x80", 4),
        ] {
            assert_eq!(push_bytewise(bytes).map(|_| ()), Err(at), "{bytes:x?}");
        }
    }

    #[test]
    fn a_text_must_not_end_within_a_character() {
        let text = push_bytewise(b"a\xf0\x9f\x98").unwrap();
        assert_eq!(text.whole(), Err(NotUtf8));
    }

    proptest! {
        #[test]
        fn pieces_make_the_same_verdict_as_the_whole(
            pieces in prop::collection::vec(
                prop_oneof![
                    ".{0,8}".prop_map(String::into_bytes),
                    prop::collection::vec(any::<u8>(), 0..4),
                    Just(b"\xf0\x9f".to_vec()),
                    Just(b"\x98\x80".to_vec()),
                ],
                0..8,
            ),
        ) {
            let bytes = pieces.concat();
            let mut text = Text::default();
            let pushed = pieces.iter().try_for_each(|piece| text.push(piece, bytes.len()));
            let verdict = pushed.and_then(|()| text.whole());
            prop_assert_eq!(verdict, from_utf8(&bytes).map_err(|_| NotUtf8));
            prop_assert!(text.held_bytes() <= bytes.len());
        }
    }
}
