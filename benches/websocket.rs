//! What does a frame cost in and out, beside tungstenite over the same bytes?
//!
//!     cargo bench --bench websocket
//!
//! Sockets are replaced by memory, so that the kernel's price, the same for all, does not hide ours.

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt};
use sidewire::websocket::{Decoder, Incoming, Limits, frame_header, text_frame};
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

const ROUNDS: usize = 15;
const READ_BYTES: usize = 16 * 1024;
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

fn main() {
    // `cargo test --benches` passes no `--bench`: one short round then shows that it still runs.
    let budget = if std::env::args().any(|argument| argument == "--bench") { 16 << 20 } else { 1 << 16 };
    println!(
        "{:<44}{:>12}{:>12}{:>8}",
        "nanoseconds each, best of rounds", "sidewire", "tungstenite", "ratio"
    );
    for message_bytes in [64, 1024, 16 * 1024] {
        let count = (budget / message_bytes).clamp(4, 100_000);
        let stream = client_stream(message_bytes, count);
        compare(
            &format!("read a text message of {message_bytes} bytes"),
            count,
            || read_own(&stream, count),
            || read_tungstenite(&stream, count),
        );
    }
    for connections in [1, 1000, 10_000] {
        let count = (budget / 128 / connections).max(1) * connections;
        let mut own = vec![Sink::default(); connections];
        let mut tungstenite: Vec<_> = (0..connections).map(|_| tungstenite_stream()).collect();
        let text = "x".repeat(128);
        let frame = text_frame(&text);
        let message = Message::Text(Utf8Bytes::from(text.as_str()));
        compare(
            &format!("send 128 bytes, {connections} connections in turn"),
            count,
            || write_own(&mut own, &frame, count),
            || write_tungstenite(&mut tungstenite, &message, count),
        );
    }
    println!("bytes of a connection, without its buffers: {} and {}", size_of::<Decoder>(), {
        size_of::<WebSocketStream<Sink>>() - size_of::<Sink>()
    });
}

fn compare(what: &str, count: usize, mut own: impl FnMut(), mut other: impl FnMut()) {
    let (mut best_own, mut best_other) = (Duration::MAX, Duration::MAX);
    // In turn, so that a noisy moment meets both.
    for _ in 0..ROUNDS {
        best_own = best_own.min(time(&mut own));
        best_other = best_other.min(time(&mut other));
    }
    let each = |time: Duration| time.as_nanos() as f64 / count as f64;
    let ratio = each(best_other) / each(best_own);
    println!("{what:<44}{:>12.1}{:>12.1}{ratio:>8.1}", each(best_own), each(best_other));
}

fn time(run: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// What a client sends: `count` masked text messages.
fn client_stream(message_bytes: usize, count: usize) -> Vec<u8> {
    let mut frame = frame_header(sidewire::websocket::Opcode::Text, message_bytes).to_vec();
    frame[1] |= 0x80;
    frame.extend(MASK);
    frame.extend(MASK.iter().cycle().map(|key| key ^ b'x').take(message_bytes));
    frame.repeat(count)
}

fn read_own(stream: &[u8], count: usize) {
    let mut decoder = Decoder::new(Limits { message_bytes: 1 << 20 });
    let mut buffer = vec![0; READ_BYTES];
    let mut seen = 0;
    for read in stream.chunks(READ_BYTES) {
        let buffer = &mut buffer[..read.len()];
        buffer.copy_from_slice(read);
        let mut input = buffer;
        while let Some(incoming) = decoder.next(&mut input).expect("the stream keeps the protocol") {
            black_box(&incoming);
            seen += usize::from(matches!(incoming, Incoming::Text(_)));
        }
    }
    assert_eq!(seen, count);
}

fn read_tungstenite(stream: &[u8], count: usize) {
    let config = WebSocketConfig::default().read_buffer_size(READ_BYTES);
    let mut socket = WebSocket::from_raw_socket(Source(stream), Role::Server, Some(config));
    for _ in 0..count {
        let message = socket.read().expect("the stream keeps the protocol");
        assert!(black_box(message).is_text());
    }
}

fn write_own(sinks: &mut [Sink], frame: &Bytes, count: usize) {
    let connections = sinks.len();
    for at in 0..count {
        let sink = &mut sinks[at % connections];
        // As a connection does it: a share of the frame, written to the end.
        let frame = frame.clone();
        sink.write_all(&frame).now_or_never().expect("a sink is ready").expect("a sink takes all");
    }
    black_box(sinks);
}

fn write_tungstenite(sockets: &mut [WebSocketStream<Sink>], message: &Message, count: usize) {
    let connections = sockets.len();
    for at in 0..count {
        let socket = &mut sockets[at % connections];
        socket.send(message.clone()).now_or_never().expect("a sink is ready").expect("a sink takes all");
    }
}

fn tungstenite_stream() -> WebSocketStream<Sink> {
    // Its own defaults, 128 KiB each, would take gigabytes here.
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(4096);
    WebSocketStream::from_raw_socket(Sink::default(), Role::Server, Some(config))
        .now_or_never()
        .expect("no handshake is waited for")
}

/// A socket that has everything to read at once.
struct Source<'a>(&'a [u8]);

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Source<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket that takes everything and has nothing to read.
#[derive(Clone, Default)]
struct Sink {
    taken: usize,
}

impl AsyncRead for Sink {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Sink {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.taken += black_box(bytes).len();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
