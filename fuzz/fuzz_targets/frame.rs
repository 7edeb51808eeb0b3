//! What a WebSocket client sends: however reads cut it, the same messages come out of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidewire::websocket::{Decoder, Incoming, Limits, ProtocolError};

/// None, within one byte of length, within two, and beyond.
const MESSAGE_BYTES: [usize; 4] = [0, 100, 1000, 100_000];
/// Longest header of a client's frame.
const HEADER_BYTES: usize = 14;
/// Longest payload of a control frame, which may stand between the fragments of a message.
const CONTROL_BYTES: usize = 125;
/// What a decoder notes of a message that was cut: the header, and where it stands.
const NOTES_BYTES: usize = HEADER_BYTES + 256;

/// What a decoder has yielded, owned.
#[derive(PartialEq, Debug)]
enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

// The first byte chooses the limit and how many cuts there are; the cuts follow, each as the length of a read;
// the rest is what the client sends.
fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let limits = Limits { message_bytes: MESSAGE_BYTES[usize::from(choice & 3)] };
    let Some((cuts, sent)) = rest.split_at_checked(usize::from(choice >> 2)) else { return };

    let at_once = decode(limits, [sent]);
    assert_eq!(decode(limits, reads(cuts, sent)), at_once);
    assert_eq!(decode(limits, sent.chunks(1)), at_once);
});

/// Cuts `sent` into reads of these lengths, and a last one of all the rest.
fn reads<'a>(cuts: &[u8], mut sent: &'a [u8]) -> Vec<&'a [u8]> {
    let mut reads = Vec::new();
    for length in cuts {
        let (read, rest) = sent.split_at(sent.len().min(usize::from(*length)));
        reads.push(read);
        sent = rest;
    }
    reads.push(sent);
    reads
}

fn decode<'a>(
    limits: Limits,
    reads: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Got>, Result<(), ProtocolError>) {
    let mut decoder = Decoder::new(limits);
    let mut got = Vec::new();
    let mut sent_bytes = 0;
    for read in reads {
        sent_bytes += read.len();
        // Buffers double: what comes in small pieces takes twice its length at most, and no message more than
        // the limit.
        let most_held = limits.message_bytes.min(2 * sent_bytes) + 2 * CONTROL_BYTES + NOTES_BYTES;
        let mut read = read.to_vec();
        let mut input = &mut read[..];
        loop {
            let unread = input.len();
            match decoder.next(&mut input) {
                Ok(Some(incoming)) => {
                    assert!(!is_closed(&got), "nothing comes after a close");
                    got.push(owned(incoming, limits));
                }
                Ok(None) => break,
                Err(error) => {
                    check_over(&mut decoder, Err(error));
                    return (got, Err(error));
                }
            }
            assert!(input.len() < unread, "whatever comes takes bytes of this read");
            assert!(decoder.held_bytes() <= most_held);
        }
        assert!(input.is_empty(), "all of a read is used up");
        assert!(decoder.held_bytes() <= most_held);
        assert_eq!(decoder.is_over(), is_closed(&got));
    }
    if decoder.is_over() {
        check_over(&mut decoder, Ok(()));
    }
    (got, Ok(()))
}

fn is_closed(got: &[Got]) -> bool {
    matches!(got.last(), Some(Got::Close(_)))
}

/// After a close, or an error, whatever is sent has the same outcome and takes no memory.
fn check_over(decoder: &mut Decoder, outcome: Result<(), ProtocolError>) {
    for mut more in [*b"\x81\x81\0\0\0\0x", *b"\x88\x80\0\0\0\0\x01", *b"\x02\xff\0\0\0\0\0"] {
        let mut input = &mut more[..];
        assert!(decoder.is_over());
        assert_eq!(decoder.next(&mut input), outcome.map(|()| None));
        assert!(input.is_empty());
        assert_eq!(decoder.held_bytes(), 0);
    }
}

fn owned(incoming: Incoming<'_>, limits: Limits) -> Got {
    match incoming {
        Incoming::Text(text) => {
            assert!(text.len() <= limits.message_bytes);
            Got::Text(text.into())
        }
        Incoming::Binary(payload) => {
            assert!(payload.len() <= limits.message_bytes);
            Got::Binary(payload.into())
        }
        Incoming::Ping(payload) => {
            assert!(payload.len() <= CONTROL_BYTES);
            Got::Ping(payload.into())
        }
        Incoming::Pong(payload) => {
            assert!(payload.len() <= CONTROL_BYTES);
            Got::Pong(payload.into())
        }
        Incoming::Close(close) => Got::Close(close.map(|(code, reason)| (code, reason.into()))),
    }
}
