//! Fields cut out of JSON: what is left is JSON that has none of them, and a second time nothing is left to do. The
//! first line of the input is a path, the rest the data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire::event::Json;
use sidewire::redact::{RedactPath, strip};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some((path, data)) = text.split_once('\n') else { return };
    let Ok(path) = path.parse::<RedactPath>() else { return };
    assert_eq!(path.to_string().parse().as_ref(), Ok(&path));
    let Ok(json) = Json::parse(data) else { return };
    let paths = [path];
    let Some((left, fields)) = strip(&json, &paths) else { return };
    assert!(fields > 0 && left.as_str().len() < json.as_str().len());
    assert_eq!(Json::parse(left.as_str()).as_ref(), Ok(&left));
    assert_eq!(strip(&left, &paths), None);
});
