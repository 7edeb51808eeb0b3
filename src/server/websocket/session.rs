//! One WebSocket client: what it says, what it is told, and its events.

use crate::codec::{
    self, ClientMessage, ClientMessageError, Encoding, Framing, MessageId, Resume, ServerMessage, Shown,
};
use crate::event::{EventName, Filter, Interest, Pattern, Position};
use crate::log::{Order, Query, QueryPage};
use crate::metrics::Transport;
use crate::server::close::CloseReason;
use crate::server::history::blocking;
use crate::server::node::Node;
use crate::server::outlet::{Halt, Outlet};
use crate::server::rate::Rate;
use crate::server::registry::{Admission, Registration};
use crate::server::request_subscription::Asked;
use crate::server::stream::Stream;
use crate::subscribe::{LogReader, MAX_HISTORY, Opening, Request, Subscription, open};
use crate::websocket::{Decoder, Incoming, Limits, close_frame, close_reply, finish, ping_frame, pong_frame};
use bytes::{Bytes, BytesMut};
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
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
const WAITING_BYTES: usize = 64 << 10;
/// How often a client is looked at when no pings are sent.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// For the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Events of one `history` answer, unless the client says.
const HISTORY_LIMIT: usize = 100;

/// A client's connection.
pub(super) struct Session {
    node: Arc<Node>,
    encoding: Encoding,
    outlet: Outlet,
    decoder: Decoder,
    subscription: Subscription,
    registration: Registration,
    close_on: Arc<[EventName]>,
    /// Frames that are no events, in order.
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    /// Messages that came while an earlier one is still being worked on.
    inbox: VecDeque<Result<ClientMessage, ClientMessageError>>,
    work: Option<Box<Work>>,
    /// Events to be sent before the live ones.
    first: Vec<Arc<Shown>>,
    rate: Rate,
    heard: Instant,
    _admission: Admission,
}

/// What a message began that cannot be done at once. Messages are worked on one by one, in order.
enum Work {
    Opening {
        future: BoxFuture<Opening>,
        asked: Subscribe,
    },
    /// Waits until the client has everything up to now.
    Opened {
        opening: Opening,
        asked: Subscribe,
    },
    /// Events that only the new channels missed; what is live waits.
    Replaying {
        reader: LogReader,
        asked: Subscribe,
        told_lost: Position,
    },
    History {
        future: BoxFuture<Option<QueryPage>>,
        id: Option<MessageId>,
    },
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A `subscribe` in work.
struct Subscribe {
    id: Option<MessageId>,
    patterns: Vec<Pattern>,
    filter: Option<Arc<Filter>>,
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
        admission: Admission,
        stream: Stream,
        mut head: Vec<u8>,
    ) -> Self {
        let settings = node.settings();
        let registration = node.registry.register();
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
            close_on: asked.close_on.clone(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            inbox: VecDeque::new(),
            work: None,
            first: Vec::new(),
            rate: Rate::new(settings.messages_per_second, std::time::Instant::now()),
            heard: Instant::now(),
            node,
            _admission: admission,
        };
        if let Some(opening) = opening {
            let asked = Subscribe { id: None, patterns: asked.patterns, filter: asked.filter };
            session.begin_subscription(opening, asked);
        }
        session
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
            if self.outlet.stalled_for() >= settings.stall_timeout {
                return Poll::Ready(End::Close(CloseReason::TooSlow));
            }
            // A client that does not read gets no ping either, and is told apart by the stall above.
            let quiet = settings.idle_timeout.is_some_and(|most| self.heard.elapsed() >= most);
            if quiet && self.outlet.stalled_for().is_zero() {
                return Poll::Ready(End::Close(CloseReason::Idle));
            }
            heartbeat.as_mut().reset(Instant::now() + settings.heartbeat.unwrap_or(CHECK_INTERVAL));
            if settings.heartbeat.is_some() && self.outlet.is_flushed() && self.waiting.is_empty() {
                self.push(Bytes::copy_from_slice(&ping_frame(b"")));
            }
        }
        loop {
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
            if !progress {
                return Poll::Pending;
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

    /// Works on messages until one begins something longer; true if there was any.
    fn work_on_messages(&mut self) -> bool {
        let mut progress = false;
        while self.work.is_none() && self.waiting_bytes <= WAITING_BYTES {
            let Some(message) = self.inbox.pop_front() else { break };
            progress = true;
            match message {
                Ok(message) => self.answer(message),
                Err(error) => self.refuse(error.id, error.code, &error.message),
            }
        }
        if self.inbox.is_empty() && self.inbox.capacity() > 0 {
            self.inbox = VecDeque::new();
        }
        progress
    }

    fn answer(&mut self, message: ClientMessage) {
        match message {
            ClientMessage::Ping { id } => self.say(&ServerMessage::Pong { id: id.as_ref() }),
            ClientMessage::Subscribe(asked) => {
                let codec::Subscribe { id, channels, cursor, history, last, filter } = asked;
                let most = self.node.settings().subscriptions;
                if self.subscription.len() + channels.len() > most {
                    let message = format!("a connection takes at most {most} channels and patterns");
                    return self.refuse(id, "too_many_channels", &message);
                }
                let filter = (!filter.is_open()).then(|| Arc::new(filter));
                let request = Request {
                    interest: Interest::new(channels.iter().cloned()),
                    filter: filter.clone(),
                    cursor,
                    history: history.unwrap_or(0),
                    last,
                };
                let node = self.node.clone();
                let future: BoxFuture<_> = Box::pin(async move { open(&node.source, &request).await });
                let asked = Subscribe { id, patterns: channels, filter };
                self.work = Some(Box::new(Work::Opening { future, asked }));
            }
            ClientMessage::Unsubscribe { id, channels } => {
                let left: Vec<_> =
                    channels.iter().filter(|pattern| self.subscription.leave(pattern)).collect();
                self.node.metrics.subscriptions.sub(left.len() as i64);
                let channels: Vec<_> = left.into_iter().cloned().collect();
                self.say(&ServerMessage::Unsubscribed { id: id.as_ref(), channels: &channels });
            }
            ClientMessage::History { id, channel, after, limit } => {
                let log = self.node.source.log.clone();
                let head = self.node.source.hub.head();
                if after.is_some_and(|after| after.epoch != log.epoch() || after.position > head) {
                    return self.refuse(id, "reset", "the log of this cursor is gone: ask without it");
                }
                if limit.is_some_and(|limit| limit > MAX_HISTORY) {
                    let message =
                        format!("`limit` is at most {MAX_HISTORY}: ask for the next page by its cursor");
                    return self.refuse(id, "invalid_parameter", &message);
                }
                let query = Query {
                    interest: Interest::new([channel]),
                    filter: Filter::default(),
                    since: None,
                    until: None,
                    after: after.map_or(Position::ZERO, |after| after.position),
                    before: None,
                    limit: limit.unwrap_or(HISTORY_LIMIT),
                    offset: 0,
                    order: Order::Ascending,
                };
                let future: BoxFuture<_> =
                    Box::pin(async move { blocking(move || log.query(&query)).await.ok() });
                self.work = Some(Box::new(Work::History { future, id }));
            }
            ClientMessage::Unavailable { id, kind } => {
                let message = format!("`{kind}` is not available in this version");
                self.refuse(id, "forbidden", &message);
            }
        }
    }

    /// Moves what a message began; true if it got further.
    fn poll_work(&mut self, idle: bool, context: &mut Context<'_>) -> bool {
        let Some(mut work) = self.work.take() else { return false };
        match &mut *work {
            Work::Opening { future, .. } => {
                let Poll::Ready(opening) = future.as_mut().poll(context) else {
                    self.work = Some(work);
                    return false;
                };
                let Work::Opening { asked, .. } = *work else { unreachable!("matched above") };
                self.work = Some(Box::new(Work::Opened { opening, asked }));
                true
            }
            Work::Opened { .. } if !idle && !self.subscription.is_empty() => {
                self.work = Some(work);
                false
            }
            Work::Opened { .. } => {
                let Work::Opened { opening, asked } = *work else { unreachable!("matched above") };
                self.begin_subscription(opening, asked);
                true
            }
            Work::Replaying { reader, told_lost, .. } => {
                if !idle {
                    self.work = Some(work);
                    return false;
                }
                if reader.is_done() {
                    let Work::Replaying { asked, .. } = *work else { unreachable!("matched above") };
                    self.join(&asked);
                    return true;
                }
                let Poll::Ready(page) = reader.poll_page(context) else {
                    self.work = Some(work);
                    return false;
                };
                match page {
                    Some(page) => {
                        let lost = page.lost && page.after >= *told_lost;
                        *told_lost = if lost { Position::MAX } else { *told_lost };
                        self.first = page.events;
                        self.work = Some(work);
                        if lost {
                            self.tell_lost(page.after);
                        }
                    }
                    None => {
                        let Work::Replaying { asked, .. } = *work else { unreachable!("matched above") };
                        self.refuse(asked.id, "unavailable", "the log cannot be read now: subscribe again");
                    }
                }
                true
            }
            Work::History { future, .. } => {
                let Poll::Ready(page) = future.as_mut().poll(context) else {
                    self.work = Some(work);
                    return false;
                };
                let Work::History { id, .. } = *work else { unreachable!("matched above") };
                self.tell_history(id, page);
                true
            }
        }
    }

    /// Tells where a subscription begins, and begins it.
    fn begin_subscription(&mut self, opening: Opening, asked: Subscribe) {
        self.node.metrics.resumed(opening.resume.as_str());
        if opening.resume == Resume::Unavailable {
            return self.refuse(asked.id, "unavailable", "the log cannot be read now: subscribe again");
        }
        self.tell_subscribed(asked.id.as_ref(), &asked.patterns, opening.start, opening.resume);
        self.first = opening.first;
        if self.subscription.is_empty() {
            self.subscription.start(opening.start, opening.told_lost);
            self.join(&asked);
            return;
        }
        // The other channels stand at `at`. What the new ones missed before it comes first, by itself.
        let at = self.subscription.settle();
        if opening.start < at {
            let interest = Interest::new(asked.patterns.iter().cloned());
            let reader =
                LogReader::new(self.node.source.clone(), interest, asked.filter.clone(), opening.start, at);
            self.work = Some(Box::new(Work::Replaying { reader, asked, told_lost: opening.told_lost }));
        } else {
            self.join(&asked);
        }
    }

    fn join(&mut self, asked: &Subscribe) {
        let before = self.subscription.len();
        for pattern in &asked.patterns {
            self.subscription.join(pattern, asked.filter.clone());
        }
        self.node.metrics.subscriptions.add((self.subscription.len() - before) as i64);
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

    fn tell_subscribed(
        &mut self,
        id: Option<&MessageId>,
        patterns: &[Pattern],
        start: Position,
        resume: Resume,
    ) {
        let cursor = self.node.source.cursor(start).encode();
        self.say(&ServerMessage::Subscribed { id, channels: patterns, cursor: cursor.as_str(), resume });
    }

    /// Something after `at` is no longer kept; what is left follows.
    fn tell_lost(&mut self, at: Position) {
        let patterns = self.subscription.patterns();
        self.tell_subscribed(None, &patterns, at, Resume::Expired);
    }

    fn tell_history(&mut self, id: Option<MessageId>, page: Option<QueryPage>) {
        let Some(page) = page else {
            return self.refuse(id, "unavailable", "the log cannot be read now: try again");
        };
        let epoch = self.node.source.log.epoch();
        let events: Vec<_> =
            page.events.into_iter().map(|event| Arc::new(Shown::new(event, epoch))).collect();
        let cursor = self.node.source.cursor(page.reached).encode();
        self.say(&ServerMessage::History {
            id: id.as_ref(),
            events: &events,
            cursor: cursor.as_str(),
            more: page.more,
        });
    }

    fn refuse(&mut self, id: Option<MessageId>, code: &'static str, message: &str) {
        self.node.metrics.error(code);
        self.say(&ServerMessage::Error { id: id.as_ref(), code, message });
    }

    fn say(&mut self, message: &ServerMessage<'_>) {
        self.push(message.encode(self.encoding));
    }

    fn push(&mut self, frame: Bytes) {
        self.waiting_bytes += frame.len();
        self.waiting.push_back(frame);
    }
}
