//! Cutting fields out of JSON text: one pass, no tree, no recursion. What is left is byte for byte what it was.

use super::RedactPath;
use crate::event::Json;
use std::borrow::Cow;
use std::ops::Range;

/// The value without the fields that any of the paths names, and how many were cut out; none if it has none of
/// them. A name counts as it reads, however it is escaped, and as often as it is there.
pub fn strip(json: &Json, paths: &[RedactPath]) -> Option<(Json, u64)> {
    let text = json.as_str();
    let left = cuts(text, paths).and_then(|(cuts, fields)| Some((without(text, &cuts)?, fields)));
    match left {
        Some((_, 0)) => None,
        Some((left, fields)) => Some((Json::trusted(left.into()), fields)),
        // No text that was ever checked comes here; if one did, nothing of it may pass.
        None => Some((Json::null(), 1)),
    }
}

/// The text without some stretches.
fn without(text: &str, cuts: &[Range<usize>]) -> Option<String> {
    let mut left = String::with_capacity(if cuts.is_empty() { 0 } else { text.len() });
    let mut at = 0;
    for cut in cuts {
        left.push_str(text.get(at..cut.start)?);
        at = cut.end;
    }
    if at > 0 {
        left.push_str(text.get(at..)?);
    }
    Some(left)
}

/// An object or array that the scan is in.
struct Level {
    is_object: bool,
    /// A field that stays came before.
    has_kept: bool,
}

/// What is to be read next.
enum Next {
    /// A value.
    Value,
    /// The first field of an object, or none: the brace stands here. Or the next one: the comma does.
    Field(usize),
    /// What follows a value.
    After,
}

/// Where to cut, in order, and how many fields that is. None if the text is no JSON.
fn cuts(text: &str, paths: &[RedactPath]) -> Option<(Vec<Range<usize>>, u64)> {
    let bytes = text.as_bytes();
    let (mut cuts, mut fields) = (Vec::new(), 0);
    let mut levels: Vec<Level> = Vec::new();
    // The names of the fields that the scan is in: one for each object, but for those whose fields are cut.
    let mut place: Vec<Cow<'_, str>> = Vec::new();
    let (mut at, mut next) = (0, Next::Value);
    loop {
        match next {
            Next::Value => {
                at = space_end(bytes, at);
                match bytes.get(at)? {
                    b'{' => {
                        levels.push(Level { is_object: true, has_kept: false });
                        next = Next::Field(at);
                    }
                    b'[' => {
                        levels.push(Level { is_object: false, has_kept: true });
                        at += 1;
                        let first = space_end(bytes, at);
                        if bytes.get(first)? == &b']' {
                            levels.pop();
                            (at, next) = (first + 1, Next::After);
                        }
                    }
                    _ => (at, next) = (value_end(bytes, at)?, Next::After),
                }
            }
            Next::Field(delimiter) => {
                at = space_end(bytes, delimiter + 1);
                if bytes.get(at)? == &b'}' {
                    levels.pop();
                    (at, next) = (at + 1, Next::After);
                    continue;
                }
                let name_end = value_end(bytes, at)?;
                place.push(name(text.get(at..name_end)?)?);
                let colon = space_end(bytes, name_end);
                if bytes.get(colon)? != &b':' {
                    return None;
                }
                let level = levels.last_mut()?;
                if !paths.iter().any(|path| path.names(&place)) {
                    level.has_kept = true;
                    (at, next) = (colon + 1, Next::Value);
                    continue;
                }
                place.pop();
                fields += 1;
                let end = space_end(bytes, value_end(bytes, space_end(bytes, colon + 1))?);
                let is_last = bytes.get(end)? == &b'}';
                cuts.push(match (level.has_kept, is_last) {
                    // With the comma before it.
                    (true, _) => delimiter..end,
                    (false, true) => delimiter + 1..end,
                    // With the one after it.
                    (false, false) => delimiter + 1..end + 1,
                });
                next = Next::Field(end);
                if is_last {
                    levels.pop();
                    (at, next) = (end + 1, Next::After);
                }
            }
            Next::After => {
                at = space_end(bytes, at);
                let Some(level) = levels.last() else {
                    return (at == bytes.len()).then_some((cuts, fields));
                };
                if level.is_object {
                    place.pop();
                }
                match (level.is_object, bytes.get(at)?) {
                    (true, b',') => next = Next::Field(at),
                    (false, b',') => (at, next) = (at + 1, Next::Value),
                    (true, b'}') | (false, b']') => {
                        levels.pop();
                        at += 1;
                    }
                    _ => return None,
                }
            }
        }
    }
}

/// What a name in quotes reads.
fn name(quoted: &str) -> Option<Cow<'_, str>> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(quoted).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

fn space_end(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Where the value ends that begins at `at`, whatever is in it.
fn value_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        match bytes.get(at)? {
            b'"' => at = string_end(bytes, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth > 0 => {
                at += 1;
                continue;
            }
            _ => {
                let begin = at;
                let is_end =
                    |byte: &u8| matches!(byte, b',' | b':' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
                while bytes.get(at).is_some_and(|byte| !is_end(byte)) {
                    at += 1;
                }
                if at == begin {
                    return None;
                }
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Where the string ends that begins at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += 1;
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn stripped(text: &str, paths: &[&str]) -> Option<(String, u64)> {
        let paths: Vec<RedactPath> = paths.iter().map(|path| path.parse().unwrap()).collect();
        let (left, fields) = strip(&Json::parse(text).unwrap(), &paths)?;
        Some((left.as_str().to_owned(), fields))
    }

    #[test]
    fn fields_go_with_one_comma_and_everything_else_stays() {
        for (text, left, fields) in [
            (r#"{"x":1}"#, "{}", 1),
            (r#"{ "x" : 1 }"#, "{}", 1),
            (r#"{"x":1,"a":2}"#, r#"{"a":2}"#, 1),
            (r#"{"a":2,"x":1}"#, r#"{"a":2}"#, 1),
            (r#"{ "a" : 2 , "x" : [1, {"x":"}"}] , "b" : 1e2 }"#, r#"{ "a" : 2 , "b" : 1e2 }"#, 1),
            (r#"{"x":1,"x":2,"a":3,"x":4,"x":"\"","b":4,"x":5}"#, r#"{"a":3,"b":4}"#, 5),
            (r#"{"x":1,"x":2}"#, "{}", 2),
            (r#"[{"x":1},[{"a":{"x":null}}],"x",{}]"#, r#"[{},[{"a":{}}],"x",{}]"#, 2),
            (r#"{"\u0078":1,"a":"\u0078"}"#, r#"{"a":"\u0078"}"#, 1),
            (r#"{"a":[],"b":{},"c":[ ],"d":{ },"x":true}"#, r#"{"a":[],"b":{},"c":[ ],"d":{ }}"#, 1),
            (r#"{"":{"x":-1.5,"y":"ü"}}"#, r#"{"":{"y":"ü"}}"#, 1),
        ] {
            assert_eq!(stripped(text, &["x"]), Some((left.to_owned(), fields)), "{text}");
            assert_eq!(stripped(left, &["x"]), None, "a second time nothing is left to do");
        }
        for text in ["1", "\"x\"", "null", "[]", "{}", "[1,[2]]", r#"{"a":"x","b":["x"],"xx":1}"#] {
            assert_eq!(stripped(text, &["x"]), None, "{text}");
        }
    }

    #[test]
    fn places_are_told_apart() {
        let text = r#"{"u":{"e":1,"n":2,"c":[{"u":{"e":3}}]},"e":4,"h":{"a":1,"b":{"e":5}}}"#;
        for (path, left) in [
            ("e", r#"{"u":{"n":2,"c":[{"u":{}}]},"h":{"a":1,"b":{}}}"#),
            ("u.e", r#"{"u":{"n":2,"c":[{"u":{}}]},"e":4,"h":{"a":1,"b":{"e":5}}}"#),
            ("$.u.e", r#"{"u":{"n":2,"c":[{"u":{"e":3}}]},"e":4,"h":{"a":1,"b":{"e":5}}}"#),
            ("$.u.c.u.e", r#"{"u":{"e":1,"n":2,"c":[{"u":{}}]},"e":4,"h":{"a":1,"b":{"e":5}}}"#),
            ("h.*", r#"{"u":{"e":1,"n":2,"c":[{"u":{"e":3}}]},"e":4,"h":{}}"#),
            ("$.*.e", r#"{"u":{"n":2,"c":[{"u":{"e":3}}]},"e":4,"h":{"a":1,"b":{"e":5}}}"#),
            ("*", "{}"),
        ] {
            assert_eq!(stripped(text, &[path]).map(|(left, _)| left).as_deref(), Some(left), "{path}");
        }
        assert_eq!(stripped(text, &["$.u", "h", "e"]), Some(("{}".to_owned(), 3)));
    }

    #[test]
    fn the_deepest_and_widest_are_done_in_one_pass() {
        let deep = format!("{}{{\"x\":1}}{}", "[".repeat(127), "]".repeat(127));
        assert_eq!(stripped(&deep, &["x"]).unwrap().1, 1);
        let wide = format!("{{{}\"a\":1}}", "\"x\":[1,2,{\"y\":3}],".repeat(50_000));
        assert_eq!(stripped(&wide, &["x"]), Some((r#"{"a":1}"#.to_owned(), 50_000)));
    }

    /// The same on a tree, by the definition.
    fn by_tree(value: Value, place: &mut Vec<String>, paths: &[RedactPath]) -> Value {
        match value {
            Value::Object(fields) => {
                let mut left = serde_json::Map::new();
                for (name, value) in fields {
                    place.push(name.clone());
                    if !paths.iter().any(|path| path.names(place)) {
                        left.insert(name, by_tree(value, place, paths));
                    }
                    place.pop();
                }
                left.into()
            }
            Value::Array(items) => items.into_iter().map(|item| by_tree(item, place, paths)).collect(),
            other => other,
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let names = "[abx\"\\\\é. ]{0,2}";
        let leaf =
            prop_oneof![Just(Value::Null), any::<i32>().prop_map(Value::from), names.prop_map(Value::from)];
        leaf.prop_recursive(6, 64, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((names, inner), 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn paths() -> impl Strategy<Value = Vec<RedactPath>> {
        let path = ("(\\$\\.)?", prop::collection::vec("[abx*]|\"é\"|\"a\\.\"", 1..4));
        prop::collection::vec(path.prop_map(|(root, names)| format!("{root}{}", names.join("."))), 1..4)
            .prop_map(|texts| texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    proptest! {
        #[test]
        fn it_does_what_a_tree_would(value in values(), paths in paths(), pretty: bool) {
            let text = match pretty {
                true => serde_json::to_string_pretty(&value).unwrap(),
                false => value.to_string(),
            };
            let json = Json::parse(&text).unwrap();
            let expected = by_tree(value.clone(), &mut Vec::new(), &paths);
            match strip(&json, &paths) {
                None => prop_assert_eq!(expected, value),
                Some((left, _)) => {
                    prop_assert_eq!(serde_json::from_str::<Value>(left.as_str()).unwrap(), expected.clone());
                    if !pretty {
                        // Nothing else was touched.
                        prop_assert_eq!(left.as_str(), expected.to_string());
                    }
                    prop_assert_eq!(strip(&left, &paths), None);
                }
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}\":,\\\\u0-9ax \\n]{0,60}") {
            let paths: Vec<RedactPath> = vec!["a".parse().unwrap(), "$.x".parse().unwrap()];
            let _ = strip(&Json::trusted(text.clone().into()), &paths);
            if let Ok(json) = Json::parse(&text)
                && let Some((left, _)) = strip(&json, &paths)
            {
                prop_assert!(Json::parse(left.as_str()).is_ok(), "{} of {}", left.as_str(), text);
            }
        }
    }
}
