//! Writing JSON text by hand: exact sizes first, then one pass into a buffer of that size.

/// How many bytes `text` takes as a JSON string, quotes included.
pub(super) fn string_len(text: &str) -> usize {
    let extra: usize = text
        .bytes()
        .map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
            0x00..=0x1f => 5,
            _ => 0,
        })
        .sum();
    text.len() + extra + 2
}

/// Writes `text` as a JSON string.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes every string");
}

/// How many digits `number` has.
pub(super) fn number_len(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |tens| tens as usize + 1)
}

/// Writes a number.
pub(super) fn write_number(out: &mut Vec<u8>, number: u64) {
    serde_json::to_writer(out, &number).expect("a Vec takes every number");
}

/// A JSON object in the making.
pub(super) struct ObjectWriter<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

impl<'o> ObjectWriter<'o> {
    /// Begins an object.
    pub(super) fn new(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// Writes the name of a member; its value is to follow. Names are ours: nothing in them needs an escape.
    pub(super) fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.empty, false) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A text.
    pub(super) fn text(&mut self, name: &str, text: &str) -> &mut Self {
        write_string(self.name(name), text);
        self
    }

    /// A number.
    pub(super) fn number(&mut self, name: &str, number: u64) -> &mut Self {
        write_number(self.name(name), number);
        self
    }

    /// A truth value.
    pub(super) fn flag(&mut self, name: &str, flag: bool) -> &mut Self {
        self.name(name).extend_from_slice(if flag { b"true" } else { b"false" });
        self
    }

    /// A value that is JSON already.
    pub(super) fn json(&mut self, name: &str, json: &str) -> &mut Self {
        self.name(name).extend_from_slice(json.as_bytes());
        self
    }

    /// A list of texts.
    pub(super) fn texts<'t>(&mut self, name: &str, texts: impl Iterator<Item = &'t str>) -> &mut Self {
        let out = self.name(name);
        write_list(out, texts, write_string);
        self
    }

    /// Ends the object.
    pub(super) fn end(&mut self) {
        self.out.push(b'}');
    }
}

/// Writes a JSON array.
pub(super) fn write_list<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lengths_are_exact(text: String, number: u64) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(out.len(), string_len(&text));
            out.clear();
            write_number(&mut out, number);
            prop_assert_eq!(out.len(), number_len(number));
        }
    }

    #[test]
    fn every_ascii_byte_is_counted() {
        for byte in 0..128u8 {
            let text = char::from(byte).to_string();
            let mut out = Vec::new();
            write_string(&mut out, &text);
            assert_eq!(out.len(), string_len(&text), "{byte:#x}");
        }
    }
}
