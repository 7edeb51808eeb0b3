//! Reading MessagePack that others wrote: every length is checked against what is there, nothing is allocated
//! for what is only declared, and nesting is bounded.

use super::event::write_base64;
use super::text::write_string;
use crate::event::MAX_JSON_DEPTH;
use rmp::Marker;
use std::fmt;

/// A position in MessagePack bytes.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// One marker with its scalar; for a container the number of what follows.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Token<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    /// Not known to be UTF-8.
    Text(&'a [u8]),
    Bin(&'a [u8]),
    Array(u32),
    Map(u32),
    Extension,
}

impl<'a> Token<'a> {
    /// The text, if it is one.
    pub(crate) fn text(self) -> Option<&'a str> {
        match self {
            Token::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

impl<'a> Reader<'a> {
    /// At the beginning.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Takes one marker and its scalar.
    pub(crate) fn token(&mut self) -> Result<Token<'a>, MsgpackError> {
        let [marker] = self.fixed()?;
        Ok(match Marker::from_u8(marker) {
            Marker::FixPos(number) => Token::Unsigned(u64::from(number)),
            Marker::FixNeg(number) => Token::Signed(i64::from(number)),
            Marker::FixMap(count) => Token::Map(u32::from(count)),
            Marker::FixArray(count) => Token::Array(u32::from(count)),
            Marker::FixStr(length) => Token::Text(self.take(usize::from(length))?),
            Marker::Null => Token::Nil,
            Marker::Reserved => return Err(MsgpackError::Reserved),
            Marker::False => Token::Bool(false),
            Marker::True => Token::Bool(true),
            Marker::Bin8 => Token::Bin(self.sized::<1>()?),
            Marker::Bin16 => Token::Bin(self.sized::<2>()?),
            Marker::Bin32 => Token::Bin(self.sized::<4>()?),
            Marker::Ext8 => self.extension::<1>()?,
            Marker::Ext16 => self.extension::<2>()?,
            Marker::Ext32 => self.extension::<4>()?,
            Marker::F32 => Token::Float(f64::from(f32::from_be_bytes(self.fixed()?))),
            Marker::F64 => Token::Float(f64::from_be_bytes(self.fixed()?)),
            Marker::U8 => Token::Unsigned(u64::from(u8::from_be_bytes(self.fixed()?))),
            Marker::U16 => Token::Unsigned(u64::from(u16::from_be_bytes(self.fixed()?))),
            Marker::U32 => Token::Unsigned(u64::from(u32::from_be_bytes(self.fixed()?))),
            Marker::U64 => Token::Unsigned(u64::from_be_bytes(self.fixed()?)),
            Marker::I8 => Token::Signed(i64::from(i8::from_be_bytes(self.fixed()?))),
            Marker::I16 => Token::Signed(i64::from(i16::from_be_bytes(self.fixed()?))),
            Marker::I32 => Token::Signed(i64::from(i32::from_be_bytes(self.fixed()?))),
            Marker::I64 => Token::Signed(i64::from_be_bytes(self.fixed()?)),
            Marker::FixExt1 => self.skip_extension(1)?,
            Marker::FixExt2 => self.skip_extension(2)?,
            Marker::FixExt4 => self.skip_extension(4)?,
            Marker::FixExt8 => self.skip_extension(8)?,
            Marker::FixExt16 => self.skip_extension(16)?,
            Marker::Str8 => Token::Text(self.sized::<1>()?),
            Marker::Str16 => Token::Text(self.sized::<2>()?),
            Marker::Str32 => Token::Text(self.sized::<4>()?),
            Marker::Array16 => Token::Array(self.length::<2>()?),
            Marker::Array32 => Token::Array(self.length::<4>()?),
            Marker::Map16 => Token::Map(self.length::<2>()?),
            Marker::Map32 => Token::Map(self.length::<4>()?),
        })
    }

    /// Takes one whole value, however deep, and returns its bytes.
    pub(crate) fn value(&mut self) -> Result<&'a [u8], MsgpackError> {
        let start = self.rest;
        let mut pending: u64 = 1;
        while pending > 0 {
            pending -= 1;
            // Each of these takes a byte at least, so what is declared and not there ends soon.
            pending += match self.token()? {
                Token::Array(count) => u64::from(count),
                Token::Map(count) => u64::from(count) * 2,
                _ => 0,
            };
        }
        Ok(&start[..start.len() - self.rest.len()])
    }

    /// Nothing may follow.
    pub(crate) fn end(&self) -> Result<(), MsgpackError> {
        if self.rest.is_empty() { Ok(()) } else { Err(MsgpackError::Trailing) }
    }

    /// Takes one value and writes it as JSON of at most `most_bytes`. Bytes become `{"$base64":".."}`, integer
    /// keys become texts.
    pub(crate) fn json(&mut self, most_bytes: usize) -> Result<String, MsgpackError> {
        let mut writer = JsonWriter { out: Vec::new(), most_bytes };
        writer.value(self, 0)?;
        Ok(String::from_utf8(writer.out).expect("only checked texts and ASCII are written"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], MsgpackError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(MsgpackError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], MsgpackError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(MsgpackError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn length<const N: usize>(&mut self) -> Result<u32, MsgpackError> {
        Ok(self.fixed::<N>()?.iter().fold(0, |length, byte| length << 8 | u32::from(*byte)))
    }

    fn sized<const N: usize>(&mut self) -> Result<&'a [u8], MsgpackError> {
        let length = self.length::<N>()?;
        self.take(length as usize)
    }

    fn extension<const N: usize>(&mut self) -> Result<Token<'a>, MsgpackError> {
        let length = self.length::<N>()?;
        self.skip_extension(length as usize)
    }

    fn skip_extension(&mut self, length: usize) -> Result<Token<'a>, MsgpackError> {
        self.take(1)?;
        self.take(length)?;
        Ok(Token::Extension)
    }
}

struct JsonWriter {
    out: Vec<u8>,
    most_bytes: usize,
}

impl JsonWriter {
    fn value(&mut self, reader: &mut Reader<'_>, depth: usize) -> Result<(), MsgpackError> {
        match reader.token()? {
            Token::Nil => self.out.extend_from_slice(b"null"),
            Token::Bool(flag) => self.out.extend_from_slice(if flag { b"true" } else { b"false" }),
            Token::Unsigned(number) => self.number(&number),
            Token::Signed(number) => self.number(&number),
            Token::Float(number) if number.is_finite() => self.number(&number),
            Token::Float(_) => return Err(MsgpackError::Float),
            Token::Text(bytes) => self.text(bytes)?,
            Token::Bin(bytes) => {
                self.check(bytes.len())?;
                write_base64(&mut self.out, bytes);
            }
            Token::Array(count) => {
                let depth = deeper(depth)?;
                self.out.push(b'[');
                for at in 0..count {
                    self.comma(at)?;
                    self.value(reader, depth)?;
                }
                self.out.push(b']');
            }
            Token::Map(count) => {
                let depth = deeper(depth)?;
                self.out.push(b'{');
                for at in 0..count {
                    self.comma(at)?;
                    self.key(reader.token()?)?;
                    self.out.push(b':');
                    self.value(reader, depth)?;
                }
                self.out.push(b'}');
            }
            Token::Extension => return Err(MsgpackError::Extension),
        }
        self.check(0)
    }

    fn key(&mut self, key: Token<'_>) -> Result<(), MsgpackError> {
        match key {
            Token::Text(bytes) => self.text(bytes),
            Token::Unsigned(number) => self.text(number.to_string().as_bytes()),
            Token::Signed(number) => self.text(number.to_string().as_bytes()),
            _ => Err(MsgpackError::Key),
        }
    }

    fn text(&mut self, bytes: &[u8]) -> Result<(), MsgpackError> {
        self.check(bytes.len())?;
        write_string(&mut self.out, std::str::from_utf8(bytes).map_err(|_| MsgpackError::Text)?);
        Ok(())
    }

    fn number(&mut self, number: &impl serde::Serialize) {
        serde_json::to_writer(&mut self.out, number).expect("a Vec takes every finite number");
    }

    fn comma(&mut self, at: u32) -> Result<(), MsgpackError> {
        if at > 0 {
            self.out.push(b',');
        }
        self.check(0)
    }

    /// JSON may take several times the room of MessagePack: it must end where the limit is.
    fn check(&self, more: usize) -> Result<(), MsgpackError> {
        if self.out.len() + more > self.most_bytes { Err(MsgpackError::TooLarge) } else { Ok(()) }
    }
}

fn deeper(depth: usize) -> Result<usize, MsgpackError> {
    if depth == MAX_JSON_DEPTH { Err(MsgpackError::TooDeep) } else { Ok(depth + 1) }
}

/// Why MessagePack is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MsgpackError {
    Truncated,
    Trailing,
    Reserved,
    Extension,
    Text,
    Float,
    Key,
    TooDeep,
    TooLarge,
}

impl fmt::Display for MsgpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("it ends too early"),
            Self::Trailing => f.write_str("something follows the value"),
            Self::Reserved => f.write_str("the byte 0xc1 is never used"),
            Self::Extension => f.write_str("extension types have no form in JSON: send a text or a number"),
            Self::Text => f.write_str("a `str` must be UTF-8: send bytes as `bin`"),
            Self::Float => f.write_str("NaN and infinite numbers have no form in JSON"),
            Self::Key => f.write_str("the keys of a map must be texts or integers"),
            Self::TooDeep => write!(f, "values may be nested at most {MAX_JSON_DEPTH} deep"),
            Self::TooLarge => f.write_str("it is too large as JSON"),
        }
    }
}

impl std::error::Error for MsgpackError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn json(bytes: &[u8]) -> Result<String, MsgpackError> {
        Reader::new(bytes).json(1 << 20)
    }

    #[test]
    fn values_become_json() {
        for (bytes, expected) in [
            (&[0xc0][..], "null"),
            (&[0xff], "-1"),
            (&[0xcf, 255, 255, 255, 255, 255, 255, 255, 255], "18446744073709551615"),
            (&[0xca, 0x3f, 0x80, 0, 0], "1.0"),
            (&[0x82, 0xa1, b'a', 0xc4, 2, 0, 1, 5, 0xc3], "{\"a\":{\"$base64\":\"AAE=\"},\"5\":true}"),
            (&[0x92, 0xa1, b'\n', 0x90], "[\"\\n\",[]]"),
        ] {
            assert_eq!(json(bytes).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_json_cannot_have_is_refused() {
        use MsgpackError::*;
        for (bytes, error) in [
            (&[][..], Truncated),
            (&[0xc1], Reserved),
            (&[0xdd, 255, 255, 255, 255], Truncated),
            (&[0xc6, 255, 255, 255, 255, 1], Truncated),
            (&[0xca, 0x7f, 0xc0, 0, 0], Float),
            (&[0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0], Float),
            (&[0xd4, 1, 0], Extension),
            (&[0xa1, 0xff], Text),
            (&[0x81, 0xc0, 0], Key),
        ] {
            assert_eq!(json(bytes), Err(error), "{bytes:x?}");
        }
        assert_eq!(json(&[0x91; 100_000]), Err(TooDeep));
        assert!(Reader::new(&[0x91; 100_000]).value().is_err());
        let nulls = [&[0xdc, 1, 0][..], &[0xc0; 256]].concat();
        assert_eq!(Reader::new(&nulls).json(100), Err(TooLarge));
    }

    proptest! {
        #[test]
        fn both_directions_agree(value in crate::codec::tests::any_json()) {
            let bytes = rmp_serde::to_vec(&value).unwrap();
            let text = json(&bytes).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }

        #[test]
        fn nothing_panics(bytes: Vec<u8>) {
            let _ = Reader::new(&bytes).value();
            if let Ok(text) = json(&bytes) {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
            }
        }
    }
}
