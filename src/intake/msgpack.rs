//! Events as a MessagePack map, and as an array of them.

use super::collector::Collector;
use super::error::{EntryError, IntakeError};
use super::object::{Field, Object, Value};
use crate::codec::msgpack_reader::{MsgpackError, Reader, Token};

const CODE: &str = "invalid_msgpack";

/// One map, or an array of them.
pub(super) fn read_body(body: &[u8], collector: &mut Collector<'_>) -> Result<(), IntakeError> {
    let whole = |error: MsgpackError| EntryError::bad(CODE, format!("not valid MessagePack: {error}"));
    let mut reader = Reader::new(body);
    let mut ahead = reader.clone();
    if let Token::Array(count) = ahead.token().map_err(whole)? {
        collector.begin_batch(0);
        for _ in 0..count {
            let event = ahead.value().map_err(whole)?;
            read_event(event, collector)?;
        }
        return ahead.end().map_err(whole);
    }
    let event = reader.value().map_err(whole)?;
    reader.end().map_err(whole)?;
    read_event(event, collector)
}

/// One event, of which it is known that it is complete.
fn read_event(bytes: &[u8], collector: &mut Collector<'_>) -> Result<(), IntakeError> {
    match read_object(bytes, collector.limits.event_bytes) {
        Ok(Some(object)) => object.read(CODE, collector),
        Ok(None) => collector.refuse(EntryError::bad("invalid_event", "an event is a map with a `channel`")),
        Err(MsgpackError::TooLarge) => {
            collector.refuse(EntryError::data_too_large(collector.limits.event_bytes))
        }
        Err(error) => collector.refuse(EntryError::bad(CODE, error.to_string())),
    }
}

fn read_object(bytes: &[u8], most_bytes: usize) -> Result<Option<Object<'_>>, MsgpackError> {
    let mut reader = Reader::new(bytes);
    let Token::Map(count) = reader.token()? else { return Ok(None) };
    let mut object = Object::default();
    for _ in 0..count {
        let key = Reader::new(reader.value()?).token()?;
        let value = reader.value()?;
        let Some(field) = key.text().and_then(Field::named) else { continue };
        object.put(
            field,
            match Reader::new(value).token()? {
                Token::Bin(bytes) if field == Field::Data => Value::Bytes(bytes),
                _ => Value::Made(Reader::new(value).json(most_bytes)?),
            },
        );
    }
    Ok(Some(object))
}
