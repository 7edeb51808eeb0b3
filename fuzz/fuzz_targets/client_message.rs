//! Messages of WebSocket clients: read or refused, and what is echoed can be written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire::codec::{ClientMessage, ClientMessageError, Encoding, MessageId, ServerMessage};

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    if choice & 1 == 0 {
        check(ClientMessage::parse_msgpack(rest));
    } else if let Ok(text) = std::str::from_utf8(rest) {
        check(ClientMessage::parse_json(text));
    }
});

fn check(message: Result<ClientMessage, ClientMessageError>) {
    let encode = |id: &Option<MessageId>, code, text: &str| {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let message = ServerMessage::Error { id: id.as_ref(), code, message: text };
            assert!(!message.encode(encoding).is_empty());
        }
    };
    match message {
        Ok(ClientMessage::Subscribe(subscribe)) => {
            assert!(!subscribe.channels.is_empty());
            encode(&subscribe.id, "", "");
        }
        Ok(ClientMessage::Unsubscribe { id, channels }) => {
            assert!(!channels.is_empty());
            encode(&id, "", "");
        }
        Ok(
            ClientMessage::History { id, .. }
            | ClientMessage::Ping { id }
            | ClientMessage::Unavailable { id, .. },
        ) => encode(&id, "", ""),
        Err(error) => {
            assert!(!error.message.is_empty());
            encode(&error.id, error.code, &error.message);
        }
    }
}
