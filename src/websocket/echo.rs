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

/// The longest request head.
const MAX_REQUEST_BYTES: usize = 16 * 1024;

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
    // Boxed, as is `finish`: a task is as large as the largest thing it ever awaits, for as long as it lives.
    let handshake = Box::pin(handshake(socket, patience.handshake));
    let Some((mut socket, first)) = timeout(patience.handshake, handshake).await?? else { return Ok(()) };
    let mut decoder = Decoder::new(LIMITS);
    // `first` is gone after this: it is a part of hyper's read buffer, and would keep all of that.
    let mut replies = Replies::to(&mut decoder, &mut Vec::from(first));
    loop {
        if !replies.bytes.is_empty() {
            timeout(patience.write, socket.write_all(&replies.bytes)).await??;
        }
        if let Some(close) = replies.close {
            Box::pin(finish(&mut socket, &mut decoder, &close, patience.close)).await;
            return Ok(());
        }
        // The replies are gone before the wait begins, so that an idle connection holds no buffer.
        drop(replies);
        let read =
            read_shared(&mut socket, |bytes| (!bytes.is_empty()).then(|| Replies::to(&mut decoder, bytes)));
        match read.await? {
            Some(next) => replies = next,
            None => return Ok(()),
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
        .max_buf_size(MAX_REQUEST_BYTES)
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
#[derive(Default)]
struct Replies {
    bytes: Vec<u8>,
    /// The close frame after which nothing is written.
    close: Option<Box<ControlFrame>>,
}

impl Replies {
    fn to(decoder: &mut Decoder, mut input: &mut [u8]) -> Self {
        let mut replies = Self::default();
        loop {
            match decoder.next(&mut input) {
                Ok(Some(Incoming::Text(text))) => replies.message(Opcode::Text, text.as_bytes()),
                Ok(Some(Incoming::Binary(payload))) => replies.message(Opcode::Binary, payload),
                Ok(Some(Incoming::Ping(payload))) => replies.bytes.extend_from_slice(&pong_frame(payload)),
                Ok(Some(Incoming::Pong(_))) => {}
                Ok(Some(Incoming::Close(close))) => {
                    replies.close = Some(close_reply(close.map(|(code, _)| code)).into());
                }
                Ok(None) => return replies,
                Err(error) => {
                    replies.close = Some(close_frame(error.close_code(), error.reason()).into());
                    return replies;
                }
            }
        }
    }

    fn message(&mut self, opcode: Opcode, payload: &[u8]) {
        self.bytes.extend_from_slice(&frame_header(opcode, payload.len()));
        self.bytes.extend_from_slice(payload);
    }
}
