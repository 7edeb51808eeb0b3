//! Cursors: whatever is taken is exactly what would be given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire::event::Cursor;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(cursor) = Cursor::parse(text) {
        assert_eq!(cursor.encode().as_str(), text);
    }
});
