//! Bodies with many events: long-poll and history.

use super::text::{ObjectWriter, write_list};
use super::transcode::{write_array_len, write_bool, write_map_len, write_text};
use super::{Encoding, Framing, Resume, Shown};
use bytes::Bytes;
use std::sync::Arc;

/// What stands after the events and the cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListEnd {
    /// How the resume went (long-poll).
    Resume(Resume),
    /// Whether there is more to ask for (history).
    More(bool),
}

/// `{"events":[..],"cursor":"..","resume":".."}` or `{"events":[..],"cursor":"..","more":true}`, as the body of
/// an HTTP answer. The events are those that are encoded already.
pub fn list_body(encoding: Encoding, events: &[Arc<Shown>], cursor: &str, end: ListEnd) -> Bytes {
    match encoding {
        Encoding::Json => {
            let length: usize = events.iter().map(|event| event.frame(Framing::JsonBody).len() + 1).sum();
            let mut out = Vec::with_capacity(length + cursor.len() + 64);
            let mut object = ObjectWriter::new(&mut out);
            write_events(object.name("events"), events);
            object.text("cursor", cursor);
            match end {
                ListEnd::Resume(resume) => object.text("resume", resume.as_str()),
                ListEnd::More(more) => object.flag("more", more),
            }
            .end();
            out.into()
        }
        Encoding::MessagePack => {
            let length: usize = events.iter().map(|event| event.frame(Framing::MessagePackBody).len()).sum();
            let mut out = Vec::with_capacity(length + cursor.len() + 64);
            write_map_len(&mut out, 3);
            write_text(&mut out, "events");
            write_array_len(&mut out, events.len());
            for event in events {
                out.extend_from_slice(event.frame(Framing::MessagePackBody));
            }
            write_text(&mut out, "cursor");
            write_text(&mut out, cursor);
            match end {
                ListEnd::Resume(resume) => {
                    write_text(&mut out, "resume");
                    write_text(&mut out, resume.as_str());
                }
                ListEnd::More(more) => {
                    write_text(&mut out, "more");
                    write_bool(&mut out, more);
                }
            }
            out.into()
        }
    }
}

/// Writes events as a JSON array.
pub(super) fn write_events(out: &mut Vec<u8>, events: &[Arc<Shown>]) {
    write_list(out, events.iter(), |out, event| super::event_json(event, out));
}
