//! Between the socket and hyper: refuses request heads that two parsers could read differently, and gives the
//! answers that hyper makes by itself (to a head that it cannot parse) the body that all our errors have.

use super::stream::Stream;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the connection's driver and its requests know of the socket. No clock: the driver looks from time to
/// time and sees what has not changed.
#[derive(Default)]
pub(super) struct GuardState {
    /// A request is being handled: what comes in is its body.
    in_request: AtomicBool,
    /// Some of a request head has come.
    in_head: AtomicBool,
    requests: AtomicU64,
    /// The listener stops: the next answer is the last.
    retired: AtomicBool,
}

impl GuardState {
    /// A head was read; what follows is its body.
    pub(super) fn request_begins(&self) {
        self.in_request.store(true, Ordering::Relaxed);
        self.in_head.store(false, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// The body was read and the answer is ready; what follows is the next head.
    pub(super) fn request_ends(&self) {
        self.in_request.store(false, Ordering::Relaxed);
    }

    /// From now on every answer asks to close the connection.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether the next answer is the last.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// What the client owes, and how many requests it has made: two equal answers mean that nothing happened.
    pub(super) fn owes(&self) -> (Owes, u64) {
        let requests = self.requests.load(Ordering::Relaxed);
        let owes = if self.in_request.load(Ordering::Relaxed) {
            Owes::Nothing
        } else if requests == 0 || self.in_head.load(Ordering::Relaxed) {
            Owes::Head
        } else {
            Owes::NextRequest
        };
        (owes, requests)
    }
}

/// What a client owes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owes {
    /// It waits for us.
    Nothing,
    /// The rest of a request head, or its first one.
    Head,
    /// Another request, if it wants to keep the connection.
    NextRequest,
}

/// The socket as hyper sees it.
pub(super) struct Guarded {
    stream: Stream,
    state: Arc<GuardState>,
    scanner: HeadScanner,
    /// How many requests came before the head that the scanner looks at.
    scanned: u64,
    /// Bytes that were read and rewritten, and not yet handed on.
    rewritten: VecDeque<u8>,
    /// An answer that replaces one of hyper's.
    replaced: Vec<u8>,
}

impl Guarded {
    /// Guards a socket.
    pub(super) fn new(stream: Stream, state: Arc<GuardState>) -> Self {
        Self {
            stream,
            state,
            scanner: HeadScanner::default(),
            scanned: 0,
            rewritten: VecDeque::new(),
            replaced: Vec::new(),
        }
    }

    /// The socket itself.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Percent-encodes what RFC 3986 does not allow in a request line and people type all the same: a pattern
    /// such as `channel=a.>`.
    fn rewrite(&mut self, line_length: usize, bytes: &[u8]) {
        let (line, rest) = bytes.split_at(line_length);
        for byte in line {
            match byte {
                b'>' => self.rewritten.extend(b"%3E"),
                b'<' => self.rewritten.extend(b"%3C"),
                byte => self.rewritten.push_back(*byte),
            }
        }
        self.rewritten.extend(rest);
    }

    fn hand_on(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = self.rewritten.len().min(buffer.remaining());
        for byte in self.rewritten.drain(..length) {
            buffer.put_slice(&[byte]);
        }
        if self.rewritten.is_empty() {
            self.rewritten = VecDeque::new();
        }
    }

    fn poll_replaced(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.replaced.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.replaced))?;
            self.replaced.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.rewritten.is_empty() {
            this.hand_on(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        if this.state.in_request.load(Ordering::Relaxed) {
            this.scanner = HeadScanner::default();
        } else {
            let requests = this.state.requests.load(Ordering::Relaxed);
            if std::mem::replace(&mut this.scanned, requests) != requests {
                this.scanner = HeadScanner::default();
            }
            let fresh = &mut buffer.filled_mut()[before..];
            if !fresh.is_empty() {
                this.state.in_head.store(true, Ordering::Relaxed);
            }
            let target = this.scanner.request_line(fresh);
            let rewrite = target.contains(&b'>') || target.contains(&b'<');
            let length = target.len();
            this.scanner.scan(fresh);
            if rewrite {
                this.rewrite(length, buffer.filled_mut().split_at(before).1);
                buffer.set_filled(before);
                this.hand_on(buffer);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_replaced(context))?;
        if let Some(answer) = with_body(bytes) {
            this.replaced = answer;
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_replaced(context))?;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_replaced(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

/// The answer that replaces one that hyper made by itself: those alone are 4xx without a body.
fn with_body(bytes: &[u8]) -> Option<Vec<u8>> {
    let status = bytes.strip_prefix(b"HTTP/1.1 4")?;
    let empty = b"content-length: 0\r\n";
    if !bytes.windows(empty.len()).any(|window| window.eq_ignore_ascii_case(empty)) {
        return None;
    }
    Some(match status.get(..2) {
        Some(b"31") => raw_error(
            "431 Request Header Fields Too Large",
            "headers_too_large",
            "the request head is too large: send fewer or shorter headers",
        ),
        Some(b"14") => raw_error(
            "414 URI Too Long",
            "uri_too_long",
            "the request target is too long: use fewer parameters, or POST",
        ),
        _ => raw_error("400 Bad Request", "invalid_request", "this is not a well-formed HTTP/1.1 request"),
    })
}

/// An error as a whole answer, for when there is no request to answer by the usual way.
pub(super) fn raw_error(status: &str, code: &str, message: &str) -> Vec<u8> {
    let body = format!("{{\"code\":\"{code}\",\"message\":\"{message}\"}}");
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Looks for what makes request smuggling possible (RFC 9112, section 11.2): a line that ends in a bare line
/// feed, a second `Content-Length` or `Transfer-Encoding`, and both of them together. What it finds it
/// overwrites with a NUL, which no parser takes.
#[derive(Default)]
struct HeadScanner {
    line: [u8; 18],
    line_length: usize,
    last: u8,
    content_length: bool,
    transfer_encoding: bool,
    /// The request line has ended.
    headers: bool,
    done: bool,
}

impl HeadScanner {
    /// What of the request line is in the bytes that come next.
    fn request_line<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        if self.headers || self.done {
            return &[];
        }
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        &bytes[..end]
    }

    fn scan(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.done {
                return;
            }
            let current = *byte;
            if current == b'\n' {
                if self.last != b'\r' {
                    *byte = 0;
                    self.done = true;
                    return;
                }
                // Empty lines before a request line are skipped by every parser.
                self.done = self.line_length == 1 && self.headers;
                self.headers |= self.line_length > 1;
                self.line_length = 0;
            } else {
                if let Some(place) = self.line.get_mut(self.line_length) {
                    *place = current.to_ascii_lowercase();
                }
                self.line_length += 1;
                if current == b':' && self.is_ambiguous() {
                    *byte = 0;
                    self.done = true;
                    return;
                }
            }
            self.last = current;
        }
    }

    /// At the colon of a header: whether, with those before, it leaves open how long the body is.
    fn is_ambiguous(&mut self) -> bool {
        match self.line.get(..self.line_length) {
            Some(b"content-length:") => {
                let again = std::mem::replace(&mut self.content_length, true);
                again || self.transfer_encoding
            }
            Some(b"transfer-encoding:") => {
                let again = std::mem::replace(&mut self.transfer_encoding, true);
                again || self.content_length
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(parts: &[&str]) -> Vec<u8> {
        let mut scanner = HeadScanner::default();
        let mut all = Vec::new();
        for part in parts {
            let mut bytes = part.as_bytes().to_vec();
            scanner.scan(&mut bytes);
            all.extend(bytes);
        }
        all
    }

    #[test]
    fn a_plain_head_and_its_body_pass() {
        let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na\nb";
        for split in 0..request.len() {
            let (left, right) = request.split_at(split);
            assert_eq!(scanned(&[left, right]), request.as_bytes());
        }
    }

    #[test]
    fn ambiguous_heads_are_spoiled() {
        for head in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nCONTENT-LENGTH: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        ] {
            for split in 0..head.len() {
                let (left, right) = head.split_at(split);
                assert!(scanned(&[left, right]).contains(&0), "{head:?} split at {split}");
            }
        }
    }
}
