//! One event as JSON, as MessagePack and as an SSE message.

use super::text::{number_len, string_len, write_number, write_string};
use super::transcode::{json_to_msgpack, write_bytes, write_map_len, write_text, write_uint};
use super::{Framing, Shown};
use crate::event::{Data, Event};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Appends the event as a JSON object.
pub fn event_json(shown: &Shown, out: &mut Vec<u8>) {
    out.extend_from_slice(shown.frame(Framing::JsonBody));
}

const BASE64_START: &str = "{\"$base64\":\"";
const BASE64_END: &str = "\"}";

/// The exact length of [`write_json`].
pub(super) fn json_len(event: &Event, cursor: Option<&str>) -> usize {
    let fixed = r#"{"type":"event","channel":,"event":,"data":,"id":,"time":}"#.len();
    let mut length = fixed
        + string_len(event.channel.as_str())
        + string_len(event.name.as_str())
        + data_len(&event.data)
        + string_len(event.id.as_str())
        + number_len(event.time)
        + cursor.map_or(0, |cursor| r#","cursor":"""#.len() + cursor.len());
    if !event.tags.is_empty() {
        // Each pair has a colon, and all but the last a comma.
        length += r#","tags":{}"#.len() - 1;
        length +=
            event.tags.iter().map(|(name, value)| string_len(name) + string_len(value) + 2).sum::<usize>();
    }
    if let Some(author) = &event.from {
        length += r#","from":{"connection":}"#.len() + string_len(author.connection.as_str());
        length += author.user.as_deref().map_or(0, |user| r#""user":,"#.len() + string_len(user));
    }
    length
}

/// Writes the event as JSON, without a line break.
pub(super) fn write_json(out: &mut Vec<u8>, event: &Event, cursor: Option<&str>) {
    out.extend_from_slice(br#"{"type":"event","channel":"#);
    write_string(out, event.channel.as_str());
    out.extend_from_slice(br#","event":"#);
    write_string(out, event.name.as_str());
    out.extend_from_slice(br#","data":"#);
    write_data(out, &event.data);
    out.extend_from_slice(br#","id":"#);
    write_string(out, event.id.as_str());
    out.extend_from_slice(br#","time":"#);
    write_number(out, event.time);
    if let Some(cursor) = cursor {
        out.extend_from_slice(br#","cursor":""#);
        out.extend_from_slice(cursor.as_bytes());
        out.push(b'"');
    }
    for (at, (name, value)) in event.tags.iter().enumerate() {
        out.extend_from_slice(if at == 0 { br#","tags":{"# } else { b"," });
        write_string(out, name);
        out.push(b':');
        write_string(out, value);
    }
    if !event.tags.is_empty() {
        out.push(b'}');
    }
    if let Some(author) = &event.from {
        out.extend_from_slice(br#","from":{"#);
        if let Some(user) = &author.user {
            out.extend_from_slice(br#""user":"#);
            write_string(out, user);
            out.push(b',');
        }
        out.extend_from_slice(br#""connection":"#);
        write_string(out, author.connection.as_str());
        out.push(b'}');
    }
    out.push(b'}');
}

/// How many bytes [`write_data`] writes.
pub(super) fn data_len(data: &Data) -> usize {
    match data {
        Data::Json(json) => json.as_str().len(),
        Data::Bytes(bytes) => BASE64_START.len() + bytes.len().div_ceil(3) * 4 + BASE64_END.len(),
    }
}

/// Writes the data alone, as JSON.
pub(super) fn write_data(out: &mut Vec<u8>, data: &Data) {
    match data {
        Data::Json(json) => out.extend_from_slice(json.as_str().as_bytes()),
        Data::Bytes(bytes) => write_base64(out, bytes),
    }
}

/// Writes bytes as JSON has them.
pub(super) fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(BASE64_START.as_bytes());
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    STANDARD
        .encode_slice(bytes, &mut out[start..])
        .expect("padded base64 has four characters for three bytes");
    out.extend_from_slice(BASE64_END.as_bytes());
}

/// About how long [`write_msgpack`] gets, and seldom less than that.
pub(super) fn msgpack_len(event: &Event) -> usize {
    let tags: usize = event.tags.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
    110 + event.channel.as_str().len()
        + event.name.as_str().len()
        + event.data.len()
        + event.id.as_str().len()
        + tags
}

/// Writes the event as a MessagePack map with the members of the JSON object.
pub(super) fn write_msgpack(out: &mut Vec<u8>, event: &Event, cursor: Option<&str>) {
    let optional = [cursor.is_some(), !event.tags.is_empty(), event.from.is_some()];
    write_map_len(out, 6 + optional.into_iter().filter(|there| *there).count());
    for (name, text) in
        [("type", "event"), ("channel", event.channel.as_str()), ("event", event.name.as_str())]
    {
        write_text(out, name);
        write_text(out, text);
    }
    write_text(out, "data");
    match &event.data {
        Data::Json(json) => json_to_msgpack(json.as_str(), out),
        Data::Bytes(bytes) => write_bytes(out, bytes),
    }
    write_text(out, "id");
    write_text(out, event.id.as_str());
    write_text(out, "time");
    write_uint(out, event.time);
    if let Some(cursor) = cursor {
        write_text(out, "cursor");
        write_text(out, cursor);
    }
    if !event.tags.is_empty() {
        write_text(out, "tags");
        write_map_len(out, event.tags.iter().len());
        for (name, value) in event.tags.iter() {
            write_text(out, name);
            write_text(out, value);
        }
    }
    if let Some(author) = &event.from {
        write_text(out, "from");
        write_map_len(out, 1 + usize::from(author.user.is_some()));
        for (name, text) in
            [("user", author.user.as_deref()), ("connection", Some(author.connection.as_str()))]
        {
            if let Some(text) = text {
                write_text(out, name);
                write_text(out, text);
            }
        }
    }
}

/// Writes an SSE message (WHATWG HTML, section 9.2.6) whose data is `length` bytes that `write` appends.
///
/// No field can forge another: a cursor is base64, names have no control characters by construction, and JSON
/// has no raw line breaks by construction. U+2028 is no line break in SSE. Without an `id` the browser keeps the
/// last one that it got.
pub(super) fn sse(
    event: &Event,
    cursor: Option<&str>,
    length: usize,
    write: impl FnOnce(&mut Vec<u8>),
) -> Vec<u8> {
    let (id, name) = (cursor.unwrap_or_default(), event.name.as_str());
    let mut out = Vec::with_capacity("id: \nevent: \ndata: \n\n".len() + id.len() + name.len() + length);
    if cursor.is_some() {
        for part in ["id: ", id, "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    for part in ["event: ", name, "\ndata: "] {
        out.extend_from_slice(part.as_bytes());
    }
    write(&mut out);
    out.extend_from_slice(b"\n\n");
    out
}
