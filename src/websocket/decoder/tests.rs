use super::*;
use crate::websocket::frame_header;
use proptest::prelude::*;

const LIMITS: Limits = Limits { message_bytes: 1000 };

/// What a decoder has yielded, owned.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Incoming<'_>> for Got {
    fn from(incoming: Incoming<'_>) -> Self {
        match incoming {
            Incoming::Text(text) => Self::Text(text.into()),
            Incoming::Binary(payload) => Self::Binary(payload.into()),
            Incoming::Ping(payload) => Self::Ping(payload.into()),
            Incoming::Pong(payload) => Self::Pong(payload.into()),
            Incoming::Close(close) => Self::Close(close.map(|(code, reason)| (code, reason.into()))),
        }
    }
}

/// A frame as a client sends it.
fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = frame_header(Opcode::Text, payload.len()).to_vec();
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, [0x12, 0x34, 0x56, 0x78])
}

/// Decodes reads until the first error.
fn decode<'a>(
    decoder: &mut Decoder,
    reads: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Got>, Option<ProtocolError>) {
    let mut got = Vec::new();
    for read in reads {
        let mut read = read.to_vec();
        let mut input = &mut read[..];
        loop {
            match decoder.next(&mut input) {
                Ok(Some(incoming)) => got.push(incoming.into()),
                Ok(None) => break,
                Err(error) => return (got, Some(error)),
            }
        }
        assert!(input.is_empty(), "all of a read is used up");
    }
    (got, None)
}

/// What comes of these frames, in one read and bytewise.
fn outcome(frames: &[Vec<u8>]) -> Result<Vec<Got>, ProtocolError> {
    let bytes = frames.concat();
    let at_once = decode(&mut Decoder::new(LIMITS), [&bytes[..]]);
    let bytewise = decode(&mut Decoder::new(LIMITS), bytes.chunks(1));
    assert_eq!(at_once, bytewise);
    match at_once.1 {
        None => Ok(at_once.0),
        Some(error) => Err(error),
    }
}

fn broken(rule: Rule) -> Result<Vec<Got>, ProtocolError> {
    Err(ProtocolError::Broken(rule))
}

#[test]
fn reserved_bits_are_refused() {
    for bit in [0x40, 0x20, 0x10] {
        assert_eq!(outcome(&[masked(0x81 | bit, b"x")]), broken(Rule::ReservedBits));
        assert_eq!(outcome(&[masked(0x89 | bit, b"")]), broken(Rule::ReservedBits));
    }
}

#[test]
fn reserved_opcodes_are_refused() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(outcome(&[masked(0x80 | opcode, b"")]), broken(Rule::ReservedOpcode));
    }
}

#[test]
fn a_frame_without_mask_is_refused() {
    assert_eq!(outcome(&[b"\x81\x01x".to_vec()]), broken(Rule::Unmasked));
    assert_eq!(outcome(&[b"\x89\x00".to_vec()]), broken(Rule::Unmasked));
}

#[test]
fn lengths_must_have_their_shortest_form() {
    let long = |head: &[u8], payload: usize| [head, &[0; 4], &vec![b'x'; payload]].concat();
    for bytes in [
        long(b"\x81\xfe\x00\x7d", 125),
        long(b"\x81\xff\x00\x00\x00\x00\x00\x00\x00\x01", 1),
        long(b"\x81\xff\x00\x00\x00\x00\x00\x00\x00\x7e", 126),
        long(b"\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff", 0),
    ] {
        assert_eq!(outcome(&[bytes]), broken(Rule::LengthNotMinimal));
    }
    assert_eq!(outcome(&[masked(0x82, &[7; 126])]), Ok(vec![Got::Binary(vec![7; 126])]));
}

#[test]
fn control_frames_are_short_and_in_one_piece() {
    for opcode in [8, 9, 10] {
        assert_eq!(outcome(&[masked(opcode, b"")]), broken(Rule::ControlFragmented));
        assert_eq!(outcome(&[masked(0x80 | opcode, &[b'x'; 126])]), broken(Rule::ControlTooLong));
    }
    assert_eq!(outcome(&[masked(0x89, &[1; 125])]), Ok(vec![Got::Ping(vec![1; 125])]));
}

#[test]
fn fragments_belong_to_one_message() {
    assert_eq!(outcome(&[masked(0x80, b"x")]), broken(Rule::NothingToContinue));
    assert_eq!(outcome(&[masked(0x00, b"x")]), broken(Rule::NothingToContinue));
    assert_eq!(outcome(&[masked(0x01, b"x"), masked(0x81, b"y")]), broken(Rule::MessageUnfinished));
    assert_eq!(outcome(&[masked(0x02, b""), masked(0x02, b"y")]), broken(Rule::MessageUnfinished));
    let after_the_end = [masked(0x01, b"x"), masked(0x80, b"y"), masked(0x80, b"z")];
    assert_eq!(outcome(&after_the_end), broken(Rule::NothingToContinue));
}

#[test]
fn control_frames_may_stand_between_fragments() {
    let frames = [
        masked(0x01, b"a"),
        masked(0x89, b"ping"),
        masked(0x00, b""),
        masked(0x8a, b""),
        masked(0x80, b"b"),
        masked(0x88, b"\x03\xe8bye"),
    ];
    assert_eq!(
        outcome(&frames),
        Ok(vec![
            Got::Ping(b"ping".to_vec()),
            Got::Pong(vec![]),
            Got::Text("ab".into()),
            Got::Close(Some((1000, "bye".into()))),
        ])
    );
}

#[test]
fn text_is_utf8_across_fragments() {
    let smile = "😀".as_bytes();
    assert_eq!(
        outcome(&[masked(0x01, &smile[..1]), masked(0x00, &smile[1..3]), masked(0x80, &smile[3..])]),
        Ok(vec![Got::Text("😀".into())])
    );
    assert_eq!(outcome(&[masked(0x81, &smile[..3])]), Err(ProtocolError::NotUtf8));
    assert_eq!(outcome(&[masked(0x01, &smile[..3]), masked(0x80, b"")]), Err(ProtocolError::NotUtf8));
    assert_eq!(outcome(&[masked(0x81, b"\xed\xa0\x80")]), Err(ProtocolError::NotUtf8));
}

#[test]
fn impossible_text_is_refused_before_its_frame_or_message_ends() {
    let mut first_fragment = Decoder::new(LIMITS);
    let fragment = masked(0x01, b"a\xf4\x90");
    assert_eq!(decode(&mut first_fragment, [&fragment[..]]).1, Some(ProtocolError::NotUtf8));
    let mut within_a_frame = Decoder::new(LIMITS);
    let frame = masked(0x81, b"a\xffbcdef");
    assert_eq!(decode(&mut within_a_frame, [&frame[..8]]).1, Some(ProtocolError::NotUtf8));
}

#[test]
fn close_codes_that_must_not_be_sent_are_refused() {
    let close = |code: u16| outcome(&[masked(0x88, &code.to_be_bytes())]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999] {
        assert_eq!(close(code), Ok(vec![Got::Close(Some((code, String::new())))]));
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        assert_eq!(close(code), broken(Rule::CloseCode), "{code}");
    }
}

#[test]
fn a_close_has_no_payload_or_a_code_and_utf8() {
    assert_eq!(outcome(&[masked(0x88, b"")]), Ok(vec![Got::Close(None)]));
    assert_eq!(outcome(&[masked(0x88, b"\x03")]), broken(Rule::CloseTooShort));
    assert_eq!(outcome(&[masked(0x88, b"\x03\xe8\xff")]), Err(ProtocolError::NotUtf8));
    let longest = [&b"\x03\xe8"[..], &[b'x'; 123]].concat();
    assert_eq!(outcome(&[masked(0x88, &longest)]), Ok(vec![Got::Close(Some((1000, "x".repeat(123))))]));
}

#[test]
fn nothing_is_read_after_a_close_or_an_error() {
    let frames = [masked(0x88, b""), masked(0x81, b"late"), b"garbage".to_vec()];
    assert_eq!(outcome(&frames), Ok(vec![Got::Close(None)]));

    let mut failed = Decoder::new(LIMITS);
    let error = Some(ProtocolError::Broken(Rule::NothingToContinue));
    assert_eq!(decode(&mut failed, [&masked(0x80, b"")[..]]).1, error);
    assert!(failed.is_over());
    assert_eq!(failed.held_bytes(), 0);
    assert_eq!(decode(&mut failed, [&masked(0x81, b"late")[..]]), (vec![], error));
}

#[test]
fn a_message_may_have_as_many_bytes_as_allowed_in_any_number_of_fragments() {
    let most = LIMITS.message_bytes;
    assert_eq!(outcome(&[masked(0x82, &vec![1; most])]), Ok(vec![Got::Binary(vec![1; most])]));
    assert_eq!(outcome(&[masked(0x82, &vec![1; most + 1])]), Err(ProtocolError::TooBig));
    let halves = |second: usize| {
        outcome(&[masked(0x02, &vec![1; most / 2]), masked(0x00, &vec![1; second]), masked(0x80, b"")])
    };
    assert_eq!(halves(most / 2), Ok(vec![Got::Binary(vec![1; most])]));
    assert_eq!(halves(most / 2 + 1), Err(ProtocolError::TooBig));
}

#[test]
fn control_frames_do_not_count_as_their_message() {
    let most = LIMITS.message_bytes;
    let frames = [masked(0x02, &vec![1; most - 1]), masked(0x89, &[2; 125]), masked(0x80, &[1])];
    assert_eq!(outcome(&frames), Ok(vec![Got::Ping(vec![2; 125]), Got::Binary(vec![1; most])]));
}

#[test]
fn a_declared_length_costs_no_memory() {
    for declared in [1001, 1 << 32, 1 << 63, u64::MAX] {
        let mut decoder = Decoder::new(LIMITS);
        let header = [&b"\x82\xff"[..], &u64::to_be_bytes(declared), &[0; 4]].concat();
        let (got, error) = decode(&mut decoder, [&header[..]]);
        let expected = if declared > 0xffff { ProtocolError::TooBig } else { Rule::LengthNotMinimal.into() };
        assert_eq!((got, error), (vec![], Some(expected)));
        assert_eq!(decoder.held_bytes(), 0);
    }
    let mut allowed = Decoder::new(Limits { message_bytes: 1 << 30 });
    let header = b"\x82\xff\0\0\0\0\x20\0\0\0\0\0\0\0x";
    assert_eq!(decode(&mut allowed, [&header[..]]), (vec![], None));
    assert!(allowed.held_bytes() < 300, "{}", allowed.held_bytes());
}

#[test]
fn endless_fragments_are_stopped() {
    for payload in [&b""[..], b"x"] {
        let mut decoder = Decoder::new(LIMITS);
        let first = masked(0x01, payload);
        let next = masked(0x00, payload);
        let mut frames = 1;
        let (mut got, mut error) = decode(&mut decoder, [&first[..]]);
        while error.is_none() {
            (got, error) = decode(&mut decoder, [&next[..]]);
            frames += 1;
            assert!(decoder.held_bytes() < LIMITS.message_bytes + 300);
        }
        assert_eq!((got, error), (vec![], Some(ProtocolError::TooBig)));
        assert_eq!(frames, LIMITS.message_bytes + 1);
    }
}

#[test]
fn between_messages_nothing_is_held() {
    let mut decoder = Decoder::new(LIMITS);
    assert!(size_of::<Decoder>() <= 24);
    let message = [masked(0x01, b"fragment"), masked(0x80, b"ed")].concat();
    for read in [&message[..], &message[..3]] {
        decode(&mut decoder, [read]);
    }
    assert!(decoder.held_bytes() > 0);
    let (got, error) = decode(&mut decoder, [&message[3..]]);
    assert_eq!((got, error), (vec![Got::Text("fragmented".into())], None));
    assert_eq!(decoder.held_bytes(), 0);
    let ping = masked(0x89, b"cut");
    decode(&mut decoder, [&ping[..7], &ping[7..]]);
    assert_eq!(decoder.held_bytes(), 0);
}

/// A message with the fragments that it is sent in.
#[derive(Clone, Debug)]
struct Sent {
    got: Got,
    frames: Vec<Vec<u8>>,
}

fn control() -> impl Strategy<Value = Sent> {
    let payload = prop::collection::vec(any::<u8>(), 0..=125);
    (any::<bool>(), payload, any::<[u8; 4]>()).prop_map(|(ping, payload, mask)| {
        let frames = vec![frame(if ping { 0x89 } else { 0x8a }, &payload, mask)];
        Sent { got: if ping { Got::Ping(payload) } else { Got::Pong(payload) }, frames }
    })
}

fn message() -> impl Strategy<Value = Sent> {
    let content = prop_oneof![
        ".{0,60}".prop_map(Got::Text),
        prop::collection::vec(any::<u8>(), 0..900).prop_map(Got::Binary),
    ];
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    (content, cuts, any::<[u8; 4]>()).prop_map(|(got, cuts, mask)| {
        let (opcode, payload) = match &got {
            Got::Text(text) => (1, text.as_bytes()),
            Got::Binary(payload) => (2, &payload[..]),
            other => unreachable!("no message: {other:?}"),
        };
        let pieces = split(payload, &cuts);
        let frames = pieces.iter().enumerate().map(|(at, piece)| {
            let last = if at + 1 == pieces.len() { 0x80 } else { 0 };
            frame(last | if at == 0 { opcode } else { 0 }, piece, mask)
        });
        Sent { frames: frames.collect(), got }
    })
}

fn split<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// Messages with control frames between their fragments: the bytes, and what they are to yield.
fn conversation() -> impl Strategy<Value = (Vec<u8>, Vec<Got>)> {
    prop::collection::vec((message(), prop::option::of(control())), 0..6).prop_map(|sent| {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (message, control) in sent {
            let (first, rest) = message.frames.split_at(1);
            bytes.extend(first.concat());
            let before = if rest.is_empty() { expected.len() + 1 } else { expected.len() };
            expected.push(message.got);
            if let Some(control) = control {
                bytes.extend(control.frames.concat());
                expected.insert(before, control.got);
            }
            bytes.extend(rest.concat());
        }
        (bytes, expected)
    })
}

proptest! {
    #[test]
    fn reads_may_end_anywhere(
        (bytes, expected) in conversation(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut decoder = Decoder::new(LIMITS);
        let (got, error) = decode(&mut decoder, split(&bytes, &cuts));
        prop_assert_eq!(error, None);
        prop_assert_eq!(got, expected);
        prop_assert_eq!(decoder.held_bytes(), 0);
    }

    #[test]
    fn no_bytes_panic_or_take_more_memory_than_allowed(
        (mut bytes, _) in conversation(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        tail in prop::collection::vec(any::<u8>(), 0..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        bytes.extend(tail);
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let mut decoder = Decoder::new(LIMITS);
        let mut one_by_one = Vec::new();
        let mut failed = None;
        for read in split(&bytes, &cuts) {
            let (got, error) = decode(&mut decoder, [read]);
            one_by_one.extend(got);
            prop_assert!(decoder.held_bytes() <= LIMITS.message_bytes + 125 + 300);
            failed = error;
            if failed.is_some() {
                break;
            }
        }
        // Where a text is wrong, how early that is noticed depends on where the reads end; what was yielded
        // before does not.
        let at_once = decode(&mut Decoder::new(LIMITS), [&bytes[..]]);
        prop_assert_eq!((one_by_one, failed), at_once);
    }
}
