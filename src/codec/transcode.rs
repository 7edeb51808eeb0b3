//! JSON text to MessagePack, without a tree in between and without recursion.
//!
//! MessagePack wants the number of elements before the elements. One pass counts them for each array and object
//! in the order in which these begin; a second pass writes. Integers stay exact within 64 bits, other
//! numbers become doubles. `{"$base64": ".."}` is how JSON has bytes: it becomes `bin` again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

const VEC: &str = "a Vec takes every byte";

/// Appends the MessagePack of a JSON value. The text must be valid, as a [`Json`](crate::event::Json) is or what
/// our own writers made.
pub(super) fn json_to_msgpack(json: &str, out: &mut Vec<u8>) {
    let mut counts = Vec::new();
    count_elements(json.as_bytes(), &mut counts);
    let mut counts = counts.into_iter();
    let bytes = json.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' => {
                let count = counts.next().unwrap_or(0);
                if count == 1
                    && let Some((binary, length)) = binary(&json[at..])
                {
                    write_bytes(out, &binary);
                    at += length;
                } else {
                    write_map_len(out, count);
                    at += 1;
                }
            }
            b'[' => {
                let count = u32::try_from(counts.next().unwrap_or(0)).unwrap_or(u32::MAX);
                rmp::encode::write_array_len(out, count).expect(VEC);
                at += 1;
            }
            b'"' => {
                let end = string_end(bytes, at);
                write_text(out, &unescaped(&json[at..end]));
                at = end;
            }
            b'-' | b'0'..=b'9' => {
                let end = number_end(bytes, at);
                write_number(out, &json[at..end]);
                at = end;
            }
            b't' => {
                rmp::encode::write_bool(out, true).expect(VEC);
                at += "true".len();
            }
            b'f' => {
                rmp::encode::write_bool(out, false).expect(VEC);
                at += "false".len();
            }
            b'n' => {
                rmp::encode::write_nil(out).expect(VEC);
                at += "null".len();
            }
            _ => at += 1,
        }
    }
}

/// Writes a text.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    rmp::encode::write_str(out, text).expect(VEC);
}

/// Writes bytes.
pub(super) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    rmp::encode::write_bin(out, bytes).expect(VEC);
}

/// Writes an integer.
pub(super) fn write_uint(out: &mut Vec<u8>, number: u64) {
    rmp::encode::write_uint(out, number).expect(VEC);
}

/// Begins an array.
pub(super) fn write_array_len(out: &mut Vec<u8>, count: usize) {
    rmp::encode::write_array_len(out, u32::try_from(count).unwrap_or(u32::MAX)).expect(VEC);
}

/// Begins a map.
pub(super) fn write_map_len(out: &mut Vec<u8>, count: usize) {
    rmp::encode::write_map_len(out, u32::try_from(count).unwrap_or(u32::MAX)).expect(VEC);
}

/// Writes a truth value.
pub(super) fn write_bool(out: &mut Vec<u8>, flag: bool) {
    rmp::encode::write_bool(out, flag).expect(VEC);
}

fn write_number(out: &mut Vec<u8>, number: &str) {
    // An integer has no negative zero, a double has.
    if number != "-0" {
        if let Ok(number) = number.parse::<u64>() {
            return write_uint(out, number);
        }
        if let Ok(number) = number.parse::<i64>() {
            rmp::encode::write_sint(out, number).expect(VEC);
            return;
        }
    }
    rmp::encode::write_f64(out, number.parse().unwrap_or(f64::NAN)).expect(VEC);
}

fn count_elements(bytes: &[u8], counts: &mut Vec<usize>) {
    let mut open = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'{' | b'[' => {
                let first = bytes[at + 1..].iter().find(|byte| !byte.is_ascii_whitespace());
                open.push(counts.len());
                counts.push(usize::from(!matches!(first, Some(b'}' | b']'))));
            }
            b'}' | b']' => drop(open.pop()),
            b',' => {
                if let Some(innermost) = open.last() {
                    counts[*innermost] += 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// The bytes that an object with the one member `$base64` stands for, and the length of its text. An object that
/// only looks like it stays an object.
fn binary(object: &str) -> Option<(Vec<u8>, usize)> {
    let rest = object.strip_prefix('{')?.trim_start();
    let rest = rest.strip_prefix("\"$base64\"")?.trim_start();
    let rest = rest.strip_prefix(':')?.trim_start();
    let text = rest.strip_prefix('"')?;
    let end = text.find('"')?;
    let after = text[end + 1..].trim_start().strip_prefix('}')?;
    // An escape within the text is no base64 and fails here.
    Some((STANDARD.decode(&text[..end]).ok()?, object.len() - after.len()))
}

/// The index after the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn number_end(bytes: &[u8], at: usize) -> usize {
    let length =
        bytes[at..].iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
    at + length.count()
}

fn unescaped(string: &str) -> Cow<'_, str> {
    if string.contains('\\') {
        return Cow::Owned(serde_json::from_str(string).expect("the JSON was valid"));
    }
    Cow::Borrowed(string.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Json;
    use proptest::prelude::*;
    use serde_json::Value;

    fn transcoded(json: &str) -> Vec<u8> {
        let mut out = Vec::new();
        json_to_msgpack(Json::parse(json).unwrap().as_str(), &mut out);
        out
    }

    #[test]
    fn golden() {
        for (json, expected) in [
            ("null", &[0xc0][..]),
            (" true ", &[0xc3]),
            ("-0", &[0xcb, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            ("18446744073709551615", &[0xcf, 255, 255, 255, 255, 255, 255, 255, 255]),
            ("18446744073709551616", &[0xcb, 0x43, 0xf0, 0, 0, 0, 0, 0, 0]),
            ("-33", &[0xd0, 0xdf]),
            ("[ ]", &[0x90]),
            ("{ }", &[0x80]),
            ("[[],{\"a\":[1,\"],\"]}]", &[0x92, 0x90, 0x81, 0xa1, b'a', 0x92, 1, 0xa2, b']', b',']),
            ("\"\\\"\\u00e9\"", &[0xa3, b'"', 0xc3, 0xa9]),
            ("{\"$base64\":\"AAE=\"}", &[0xc4, 2, 0, 1]),
            ("{ \"$base64\" : \"\" }", &[0xc4, 0]),
            ("[{\"$base64\":\"AAE=\"},1]", &[0x92, 0xc4, 2, 0, 1, 1]),
            ("{\"$base64\":\"?\"}", &[0x81, 0xa7, b'$', b'b', b'a', b's', b'e', b'6', b'4', 0xa1, b'?']),
            ("{\"$base64\":[{}]}", &[0x81, 0xa7, b'$', b'b', b'a', b's', b'e', b'6', b'4', 0x91, 0x80]),
        ] {
            assert_eq!(transcoded(json), expected, "{json}");
        }
    }

    proptest! {
        #[test]
        fn decodes_to_the_same_value(value in crate::codec::tests::any_json()) {
            let decoded: Value = rmp_serde::from_slice(&transcoded(&value.to_string())).unwrap();
            prop_assert_eq!(decoded, value);
        }
    }
}
