//! One HTTP connection: hyper parses and answers its requests until one of them becomes a stream. Then the
//! socket is taken out of hyper, whose buffers and state are freed, and given to a small task of its own.

use super::capacity::Place;
use super::error::ApiError;
use super::guard::{GuardState, Guarded, Owes, raw_error};
use super::stream::Stream;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;

/// The answer to a request.
pub enum Reply {
    /// An ordinary one.
    Http(Response<Full<Bytes>>),
    /// The socket becomes a stream: this takes it, with what the client has sent already.
    Takeover(Takeover),
}

/// Takes over a socket. Called within the runtime; spawns what it needs.
pub(super) type Takeover = Box<dyn FnOnce(Stream, Bytes) + Send>;

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        Self::Http(error.into_response())
    }
}

/// What answers the requests of a listener.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Never fails: an error is an answer too.
    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Reply> + Send + 'static;
}

/// A future on the heap.
pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The address at this end; none for a Unix socket.
    pub local_ip: Option<std::net::IpAddr>,
    /// The address at the other end; none for a Unix socket.
    pub peer_ip: Option<std::net::IpAddr>,
    /// The system user at the other end of a Unix socket.
    pub peer_uid: Option<u32>,
}

impl Peer {
    /// Who is at the other end of a stream.
    pub(super) fn of(stream: &Stream) -> Self {
        Self { local_ip: stream.local_ip(), peer_ip: stream.peer_ip(), peer_uid: stream.peer_uid() }
    }
}

/// Bounds on a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// For the whole head of a request, from its first byte, and for the first byte of the first one.
    pub header_timeout: Duration,
    /// Largest head.
    pub head_bytes: usize,
}

/// How long a kept-alive connection may wait for its next request. Above what common clients keep an idle
/// connection, so that they close first and never meet a connection that is being closed.
const KEEP_ALIVE: Duration = Duration::from_secs(300);

/// How often within the time-out of a head a connection is looked at: so much of it is the most that a client
/// gets on top.
const CHECKS: u32 = 4;

/// How long what a client still sends is read and thrown away after a last answer, so that the answer is not
/// destroyed by a reset.
const LINGER: Duration = Duration::from_secs(1);

/// How long a connection that waits for a request, be it the first or the next, is still served when the listener
/// stops: that request may be on its way, and would otherwise be lost. Its answer says `Connection: close`.
const RETIREMENT: Duration = Duration::from_millis(500);

type Slot = Arc<Mutex<Option<Takeover>>>;

/// Serves one connection to its end.
pub(super) async fn serve<H: Handler>(
    stream: Stream,
    peer: Peer,
    handler: Arc<H>,
    limits: ConnectionLimits,
    mut stopping: watch::Receiver<bool>,
) {
    let state = Arc::<GuardState>::default();
    let slot = Slot::default();
    let place = stream.place().cloned();
    let service = RequestService { handler, peer, state: state.clone(), slot: slot.clone(), place };
    let mut connection = http1::Builder::new()
        .max_buf_size(limits.head_bytes)
        .max_headers(64)
        .serve_connection(TokioIo::new(Guarded::new(stream, state.clone())), service);
    let mut seen = (state.owes(), Instant::now());
    let mut check = pin!(tokio::time::sleep(limits.header_timeout / CHECKS));
    let mut stop = pin!(stopping.wait_for(|stopping| *stopping));
    let mut retired = pin!(tokio::time::sleep(Duration::MAX));
    let (mut leaving, mut shut) = (false, false);
    let end = poll_fn(|context| {
        let served = connection.poll_without_shutdown(context);
        if let Some(takeover) = slot.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Poll::Ready(End::Takeover(takeover));
        }
        if served.is_ready() {
            return Poll::Ready(End::Served);
        }
        while check.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let owed = state.owes();
            if owed != seen.0 {
                seen = (owed, now);
            }
            let waited = now - seen.1;
            match owed.0 {
                Owes::Head if waited >= limits.header_timeout => return Poll::Ready(End::TimedOut),
                Owes::NextRequest if waited >= KEEP_ALIVE => return Poll::Ready(End::Idle),
                _ => check.as_mut().reset(now + limits.header_timeout / CHECKS),
            }
        }
        if !leaving && stop.as_mut().poll(context).is_ready() {
            leaving = true;
            state.retire();
            retired.as_mut().reset(Instant::now() + RETIREMENT);
        }
        let in_request = state.owes().0 == Owes::Nothing;
        if leaving && !shut && (in_request || retired.as_mut().poll(context).is_ready()) {
            shut = true;
            // Answers what is in flight, then closes; a connection without a request closes at once.
            Pin::new(&mut connection).graceful_shutdown();
            context.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner().into_stream();
    match end {
        End::Takeover(takeover) => takeover(stream, parts.read_buf),
        End::Idle => {}
        End::TimedOut => {
            let answer =
                raw_error("408 Request Timeout", "timeout", "the request head did not arrive in time");
            let _ = tokio::time::timeout(LINGER, stream.write_all(&answer)).await;
        }
        End::Served => linger(stream).await,
    }
}

async fn linger(mut stream: Stream) {
    let _ = tokio::time::timeout(LINGER, async {
        stream.shutdown().await?;
        let mut discarded = [0; 4096];
        while stream.read(&mut discarded).await? > 0 {}
        std::io::Result::Ok(())
    })
    .await;
}

enum End {
    Served,
    Idle,
    TimedOut,
    Takeover(Takeover),
}

struct RequestService<H> {
    handler: Arc<H>,
    peer: Peer,
    state: Arc<GuardState>,
    slot: Slot,
    place: Option<Arc<Place>>,
}

impl<H: Handler> Service<Request<Incoming>> for RequestService<H> {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.state.request_begins();
        if let Some(place) = &self.place {
            place.settle();
        }
        let (state, slot) = (self.state.clone(), self.slot.clone());
        if let Some(coding) = request.headers().get(header::TRANSFER_ENCODING)
            && !coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        {
            // Where one reader sees a chunked body another may see none: the connection cannot be trusted.
            let refused = ApiError::new(
                StatusCode::BAD_REQUEST,
                "invalid_request",
                "`Transfer-Encoding` may only be `chunked`",
            );
            let refused = refused.with_header(header::CONNECTION, HeaderValue::from_static("close"));
            return Box::pin(async { Ok(refused.into_response()) });
        }
        let reply = self.handler.clone().handle(request, self.peer);
        Box::pin(async move {
            let reply = reply.await;
            state.request_ends();
            match reply {
                Reply::Http(mut response) => {
                    if state.is_retired() {
                        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok(response)
                }
                Reply::Takeover(takeover) => {
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(takeover);
                    // The connection is taken apart at its next look at the slot, right after this poll.
                    std::future::pending().await
                }
            }
        })
    }
}
