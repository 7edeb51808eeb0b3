//! `sidewire echo`: sends every message back, over the code that serves clients, for conformance suites.

#[cfg(test)]
mod tests;

use super::{ControlFrame, Decoder, Incoming, Limits, Opcode};
use super::{accept, close_frame, close_reply, finish, frame_header, pong_frame, read_shared};
use bytes::Bytes;
use hyper::body;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Conformance suites send messages of 16 MiB.
const LIMITS: Limits = Limits { message_bytes: 64 * 1024 * 1024 };
/// How much memory for replies a connection keeps from one read to the next.
const KEPT_REPLY_BYTES: usize = 64 * 1024;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// To send its handshake and take the answer.
    handshake: Duration,
    /// To take a reply.
    write: Duration,
    /// To answer a close.
    close: Duration,
}

const PATIENCE: Patience = Patience {
    handshake: Duration::from_secs(10),
    write: Duration::from_secs(60),
    close: Duration::from_secs(5),
};

/// Serves connections until the future is dropped.
pub async fn echo(listener: TcpListener) {
    serve(listener, PATIENCE).await;
}

async fn serve(listener: TcpListener, patience: Patience) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                tokio::spawn(async move {
                    if let Err(error) = connection(socket, patience).await {
                        tracing::debug!(%peer, %error, "connection lost");
                    }
                });
            }
            Err(error) => {
                // Mostly for want of file descriptors, which trying again at once does not free.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, patience: Patience) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let Some((mut socket, first)) =
        timeout(patience.handshake, handshake(socket, patience.handshake)).await??
    else {
        return Ok(());
    };
    let mut decoder = Decoder::new(LIMITS);
    let mut replies = Replies { bytes: Vec::new(), last: None };
    replies.answer(&mut decoder, &mut first.to_vec());
    loop {
        timeout(patience.write, socket.write_all(&replies.bytes)).await??;
        if let Some(close) = replies.last {
            finish(&mut socket, &mut decoder, &close, patience.close).await;
            return Ok(());
        }
        replies.bytes.clear();
        replies.bytes.shrink_to(KEPT_REPLY_BYTES);
        let read = read_shared(&mut socket, |bytes| {
            replies.answer(&mut decoder, bytes);
            bytes.len()
        });
        if read.await? == 0 {
            return Ok(());
        }
    }
}

/// Does the opening handshake and takes the socket over, with what the client has sent after it; `None` if
/// the client was refused.
async fn handshake(socket: TcpStream, patience: Duration) -> io::Result<Option<(TcpStream, Bytes)>> {
    let upgrade = Mutex::new(None);
    let service = service_fn(|request| {
        let (response, accepted) = answer_handshake(request);
        if let Ok(mut upgrade) = upgrade.lock() {
            *upgrade = accepted;
        }
        async { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades()
        .await
        .map_err(io::Error::other)?;

    let Some(upgrade) = upgrade.into_inner().unwrap_or(None) else { return Ok(None) };
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    // The socket itself, without hyper around it: its buffers would stay with every idle connection.
    let parts = upgraded
        .downcast::<TokioIo<TcpStream>>()
        .map_err(|_| io::Error::other("the connection is not the one that was served"))?;
    Ok(Some((parts.io.into_inner(), parts.read_buf)))
}

fn answer_handshake(mut request: Request<body::Incoming>) -> (Response<String>, Option<OnUpgrade>) {
    match accept(request.headers(), request.method(), request.version()) {
        Ok(accepted) => (accepted.response(None), Some(hyper::upgrade::on(&mut request))),
        Err(error) => {
            let mut response = Response::new(format!("{error}\n"));
            *response.status_mut() = error.status();
            *response.headers_mut() = error.headers();
            response.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
            (response, None)
        }
    }
}

/// What is to be written before the next read. As one read holds 16 KiB at most, so do the pongs for it:
/// a flood of pings is slowed by its own answers.
struct Replies {
    bytes: Vec<u8>,
    /// The close frame after which nothing is written.
    last: Option<ControlFrame>,
}

impl Replies {
    fn answer(&mut self, decoder: &mut Decoder, mut input: &mut [u8]) {
        loop {
            match decoder.next(&mut input) {
                Ok(Some(Incoming::Text(text))) => self.message(Opcode::Text, text.as_bytes()),
                Ok(Some(Incoming::Binary(payload))) => self.message(Opcode::Binary, payload),
                Ok(Some(Incoming::Ping(payload))) => self.bytes.extend_from_slice(&pong_frame(payload)),
                Ok(Some(Incoming::Pong(_))) => {}
                Ok(Some(Incoming::Close(close))) => {
                    self.last = Some(close_reply(close.map(|(code, _)| code)))
                }
                Ok(None) => return,
                Err(error) => {
                    self.last = Some(close_frame(error.close_code(), error.reason()));
                    return;
                }
            }
        }
    }

    fn message(&mut self, opcode: Opcode, payload: &[u8]) {
        self.bytes.extend_from_slice(&frame_header(opcode, payload.len()));
        self.bytes.extend_from_slice(payload);
    }
}
