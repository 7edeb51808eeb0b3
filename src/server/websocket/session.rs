//! One WebSocket client: its socket, read and written, from the handshake to the close.

use super::conversation::{Subscribe, Work};
use super::publishing::Publish;
use crate::audit::Action;
use crate::codec::{ClientMessage, ClientMessageError, Encoding, Framing, ServerMessage, Shown};
use crate::event::EventName;
use crate::metrics::Transport;
use crate::publish::unix_ms;
use crate::server::access::{Access, Guest};
use crate::server::close::CloseReason;
use crate::server::node::Node;
use crate::server::outlet::{Halt, Outlet};
use crate::server::rate::Rate;
use crate::server::registry::{Admission, Registration};
use crate::server::request_subscription::Asked;
use crate::server::stream::Stream;
use crate::subscribe::{Opening, Subscription};
use crate::websocket::{Decoder, Incoming, Limits, close_frame, close_reply, finish, ping_frame, pong_frame};
use bytes::{Bytes, BytesMut};
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// One read; the buffer belongs to the thread.
const READ_BYTES: usize = 16 << 10;
/// Reads at one wake-up before other tasks get their turn.
const READS_AT_ONCE: usize = 8;
/// Answers that may wait for the socket; beyond that nothing more is read from this client.
pub(super) const WAITING_BYTES: usize = 64 << 10;
/// How often it is looked at whether a client is idle when no pings are sent.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// For the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A client's connection.
pub(super) struct Session {
    pub(super) node: Arc<Node>,
    pub(super) encoding: Encoding,
    outlet: Outlet,
    decoder: Decoder,
    pub(super) subscription: Subscription,
    pub(super) registration: Registration,
    pub(super) access: Access,
    /// When the access ends.
    until: Option<Pin<Box<Sleep>>>,
    /// What the URL asks for, until the client has said who it is.
    pub(super) asked: Option<Box<Asked>>,
    close_on: Arc<[EventName]>,
    /// Frames that are no events, in order.
    pub(super) waiting: VecDeque<Bytes>,
    pub(super) waiting_bytes: usize,
    /// Messages that came while an earlier one is still being worked on.
    pub(super) inbox: VecDeque<Result<ClientMessage, ClientMessageError>>,
    pub(super) work: Option<Box<Work>>,
    /// Publishes that wait for their time, while others go on.
    pub(super) held: Vec<Publish>,
    /// Events to be sent before the live ones.
    pub(super) first: Vec<Arc<Shown>>,
    rate: Rate,
    bytes: Rate,
    heard: Instant,
    admission: Admission,
}

/// Why a session ends.
enum End {
    /// We close it.
    Close(CloseReason),
    /// The client broke the protocol.
    Protocol { code: u16, reason: &'static str },
    /// The client closed.
    Closed(Option<u16>),
    /// The socket is gone.
    Broken,
}

impl Session {
    /// A session over a socket that was taken over; `head` answers the handshake.
    pub(super) fn new(
        node: Arc<Node>,
        encoding: Encoding,
        asked: Asked,
        opening: Option<Opening>,
        guest: Guest,
        stream: Stream,
        mut head: Vec<u8>,
    ) -> Self {
        let settings = node.settings();
        let Guest { access, admission } = guest;
        let registration = node.register(access.identity());
        node.audit_client(Action::Connected, &registration, access.user(), admission.ip(), None);
        let id = registration.id();
        head.extend_from_slice(
            &ServerMessage::Welcome {
                connection: id.as_str(),
                node: node.registry.node(),
                version: env!("CARGO_PKG_VERSION"),
                heartbeat_ms: settings.heartbeat.unwrap_or_default().as_millis() as u64,
            }
            .encode(encoding),
        );
        let framing = match encoding {
            Encoding::Json => Framing::WebSocketJson,
            Encoding::MessagePack => Framing::WebSocketMessagePack,
        };
        let outlet = Outlet::new(stream, framing, Transport::WebSocket, node.metrics.clone(), head.into());
        let mut subscription = Subscription::new(node.source.clone(), Some(id));
        if !asked.close_on.is_empty() {
            subscription.one_by_one();
        }
        let mut session = Self {
            encoding,
            outlet,
            decoder: Decoder::new(Limits { message_bytes: settings.message_bytes }),
            subscription,
            registration,
            until: None,
            asked: None,
            close_on: asked.close_on.clone(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            inbox: VecDeque::new(),
            work: None,
            held: Vec::new(),
            first: Vec::new(),
            rate: Rate::new(settings.messages_per_second, std::time::Instant::now()),
            bytes: Rate::new(settings.bytes_per_second, std::time::Instant::now()),
            heard: Instant::now(),
            node,
            access: Access::Pending,
            admission,
        };
        session.admit(access);
        if let Some(opening) = opening {
            let asked = Subscribe { id: None, patterns: asked.patterns, filter: asked.filter };
            session.begin_subscription(opening, asked);
        } else if !asked.patterns.is_empty() {
            session.asked = Some(Box::new(asked));
        }
        session
    }

    /// Puts an access in force, and sets the clock for its end.
    pub(super) fn admit(&mut self, access: Access) {
        let lasts = match access {
            Access::Pending => Some(self.node.settings().auth_timeout),
            _ => access.lasts(unix_ms()),
        };
        self.until = lasts.map(|left| Box::pin(tokio::time::sleep(left)));
        self.access = access;
    }

    /// Runs to the end of the connection. `unread` is what the client sent along with its handshake.
    pub(super) async fn run(mut self, unread: Bytes) {
        // Kept no longer: it would hold on to a read buffer of hyper's for the life of the connection.
        let end = self.hear(&mut BytesMut::from(unread)).err();
        let end = match end {
            Some(end) => end,
            None => {
                let heartbeat = tokio::time::sleep(self.node.settings().heartbeat.unwrap_or(CHECK_INTERVAL));
                let mut heartbeat = std::pin::pin!(heartbeat);
                poll_fn(|context| self.poll(heartbeat.as_mut(), context)).await
            }
        };
        // On the heap, so that the sockets that are open do not carry the room for their end.
        Box::pin(self.close(end)).await;
    }

    async fn close(self, end: End) {
        self.node.metrics.subscriptions.sub(self.subscription.len() as i64);
        let code = match &end {
            End::Close(reason) => Some(reason.code()),
            End::Protocol { code, .. } => Some(*code),
            End::Closed(code) => *code,
            End::Broken => None,
        };
        let (user, ip) = (self.access.user(), self.admission.ip());
        self.node.audit_client(Action::Closed, &self.registration, user, ip, code);
        let mut last = Vec::new();
        let bye = |code: u16, reason: &'static str, retry: bool| {
            let mut last = ServerMessage::Bye { code, reason, retry }.encode(self.encoding).to_vec();
            last.extend_from_slice(&close_frame(code, reason));
            last
        };
        match end {
            End::Broken => return,
            End::Closed(code) => last.extend_from_slice(&close_reply(code)),
            End::Close(reason) => {
                if reason == CloseReason::RateLimited {
                    self.admission.offend();
                }
                self.node.metrics.closed(reason.code());
                last = bye(reason.code(), reason.reason(), reason.retry());
            }
            End::Protocol { code, reason } => {
                self.node.metrics.closed(code);
                last = bye(code, reason, false);
            }
        }
        let Self { outlet, mut decoder, subscription, waiting, .. } = self;
        // Before the wait for the peer: a client that does not answer is on no channel any more.
        drop(subscription);
        let (mut stream, rest) = outlet.into_parts();
        let mut all = rest.to_vec();
        for frame in waiting {
            all.extend_from_slice(&frame);
        }
        all.extend_from_slice(&last);
        finish(&mut stream, &mut decoder, &all, CLOSE_TIMEOUT).await;
    }

    /// Ready when the connection is to end.
    fn poll(&mut self, mut heartbeat: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<End> {
        if let Poll::Ready(reason) = self.registration.handle().poll_closed(context) {
            return Poll::Ready(End::Close(reason));
        }
        while heartbeat.as_mut().poll(context).is_ready() {
            let settings = self.node.settings();
            // A client that does not read gets no ping either, and is cut off for its stall.
            let quiet = settings.idle_timeout.is_some_and(|most| self.heard.elapsed() >= most);
            if quiet && !self.outlet.is_stalled() {
                return Poll::Ready(End::Close(CloseReason::Idle));
            }
            heartbeat.as_mut().reset(Instant::now() + settings.heartbeat.unwrap_or(CHECK_INTERVAL));
            if settings.heartbeat.is_some() && self.outlet.is_flushed() && self.waiting.is_empty() {
                self.push(Bytes::copy_from_slice(&ping_frame(b"")));
            }
        }
        loop {
            // Within the loop, as a message may have set another clock.
            if let Some(until) = &mut self.until
                && until.as_mut().poll(context).is_ready()
            {
                return Poll::Ready(End::Close(match self.access {
                    Access::Pending => CloseReason::Unauthorized,
                    _ => CloseReason::TokenExpired,
                }));
            }
            if let Err(end) = self.poll_read(context) {
                return Poll::Ready(end);
            }
            let mut progress = self.work_on_messages();
            match self.poll_write(context) {
                Poll::Ready(Halt::Broken) => return Poll::Ready(End::Broken),
                Poll::Ready(Halt::Done) => return Poll::Ready(End::Close(CloseReason::Done)),
                Poll::Ready(Halt::Failed) => return Poll::Ready(End::Close(CloseReason::LogUnavailable)),
                Poll::Ready(Halt::Lost) => {
                    self.tell_lost(self.subscription.position());
                    continue;
                }
                Poll::Pending => {}
            }
            // Flushed is not enough: while a page of the log is being read there is nothing to write, but the
            // client does not have everything yet.
            let idle = self.outlet.is_flushed()
                && self.waiting.is_empty()
                && self.first.is_empty()
                && !self.subscription.is_reading_log();
            progress |= self.poll_work(idle, context);
            progress |= self.poll_held(context);
            if !progress {
                ready!(self.outlet.poll_stalled(|| self.node.settings().stall_timeout, context));
                return Poll::Ready(End::Close(CloseReason::TooSlow));
            }
        }
    }

    /// Reads what has come, unless earlier messages or answers still wait.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        thread_local!(static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });
        for _ in 0..READS_AT_ONCE {
            if !self.inbox.is_empty() || self.work.is_some() || self.waiting_bytes > WAITING_BYTES {
                return Ok(());
            }
            match self.outlet.stream().poll_read_ready(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => return Err(End::Broken),
                Poll::Ready(Ok(())) => {}
            }
            let mut buffer = BUFFER.take();
            buffer.resize(READ_BYTES, 0);
            let result = match self.outlet.stream().try_read(&mut buffer) {
                Ok(0) => Err(End::Broken),
                Ok(length) => self.hear(&mut buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    Ok(())
                }
                Err(_) => Err(End::Broken),
            };
            BUFFER.set(buffer);
            result?;
        }
        context.waker().wake_by_ref();
        Ok(())
    }

    /// Takes in what a client sent.
    fn hear(&mut self, mut input: &mut [u8]) -> Result<(), End> {
        self.heard = Instant::now();
        let now = self.heard.into_std();
        // One read is far below a second's worth of any sensible limit.
        if !self.bytes.take_many(input.len() as u32, now) {
            return Err(End::Close(CloseReason::RateLimited));
        }
        loop {
            let incoming = match self.decoder.next(&mut input) {
                Ok(Some(incoming)) => incoming,
                Ok(None) => return Ok(()),
                Err(error) => return Err(End::Protocol { code: error.close_code(), reason: error.reason() }),
            };
            let message = match incoming {
                Incoming::Text(text) => ClientMessage::parse_json(text),
                Incoming::Binary(bytes) => ClientMessage::parse_msgpack(bytes),
                Incoming::Ping(payload) => {
                    let pong = Bytes::copy_from_slice(&pong_frame(payload));
                    self.waiting_bytes += pong.len();
                    self.waiting.push_back(pong);
                    if !self.rate.take(now) {
                        return Err(End::Close(CloseReason::RateLimited));
                    }
                    continue;
                }
                Incoming::Pong(_) => continue,
                Incoming::Close(close) => return Err(End::Closed(close.map(|(code, _)| code))),
            };
            if !self.rate.take(now) {
                return Err(End::Close(CloseReason::RateLimited));
            }
            self.inbox.push_back(message);
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Halt> {
        loop {
            if ready!(self.outlet.poll_flush(context)).is_err() {
                return Poll::Ready(Halt::Broken);
            }
            if let Some(frame) = self.waiting.pop_front() {
                self.waiting_bytes -= frame.len();
                self.outlet.send(frame);
                continue;
            }
            if self.waiting.capacity() > 0 {
                self.waiting = VecDeque::new();
            }
            if !self.first.is_empty() {
                if let Err(halt) = ready!(self.outlet.poll_events(&mut self.first, &self.close_on, context)) {
                    return Poll::Ready(halt);
                }
                self.first = Vec::new();
                continue;
            }
            if matches!(self.work.as_deref(), Some(Work::Replaying { .. })) {
                return Poll::Pending;
            }
            return self.outlet.poll_deliver(&mut self.subscription, &self.close_on, context);
        }
    }
}
