//! SSE and the NDJSON stream: a client that only listens. The socket was taken out of hyper; the answer's
//! head is written here and its body ends with the connection (RFC 9112, section 6.3, rule 8).

use super::access::Guest;
use super::close::CloseReason;
use super::connection::Takeover;
use super::host::Origin;
use super::node::Node;
use super::outlet::{Halt, Outlet};
use super::registry::{Admission, Registration};
use super::request_subscription::{Asked, Format};
use super::stream::Stream;
use crate::audit::Action;
use crate::codec::{Framing, Resume, Shown};
use crate::event::{Cursor, EventName, Pattern};
use crate::metrics::Transport;
use crate::publish::unix_ms;
use crate::subscribe::{Opening, Subscription, open};
use bytes::Bytes;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep};

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Server-sent events, the event as JSON in `data:`.
    Sse,
    /// Server-sent events with the data alone in `data:`.
    SseRaw,
    /// One JSON object a line.
    Lines,
    /// MessagePack maps one after the other.
    MessagePack,
}

impl Kind {
    /// For an endless stream in this format.
    pub(super) fn stream(format: Format) -> Self {
        match format {
            Format::Json => Self::Lines,
            Format::MessagePack => Self::MessagePack,
        }
    }

    fn framing(self) -> Framing {
        match self {
            Self::Sse => Framing::Sse,
            Self::SseRaw => Framing::SseRaw,
            Self::Lines => Framing::Lines,
            Self::MessagePack => Framing::MessagePackBody,
        }
    }

    fn transport(self) -> Transport {
        match self {
            Self::Sse | Self::SseRaw => Transport::Sse,
            Self::Lines | Self::MessagePack => Transport::Stream,
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Sse | Self::SseRaw => "text/event-stream",
            Self::Lines => "application/x-ndjson",
            Self::MessagePack => "application/msgpack",
        }
    }

    /// A note to the client that is no event.
    fn note(self, note: Note, cursor: &Cursor) -> Bytes {
        let cursor = cursor.encode();
        let text = match (self, note) {
            (Self::Sse | Self::SseRaw, Note::Begin) => format!(": sidewire\nid: {cursor}\n\n"),
            (Self::Sse | Self::SseRaw, Note::Heartbeat) => format!(":\nid: {cursor}\n\n"),
            (Self::Sse | Self::SseRaw, Note::Resume(status)) => format!(
                "id: {cursor}\nevent: sidewire.resume\ndata: {{\"resume\":\"{}\",\"cursor\":\"{cursor}\"}}\n\n",
                status.as_str()
            ),
            (Self::Sse | Self::SseRaw, Note::Bye(reason)) => format!(
                "event: sidewire.bye\ndata: {{\"code\":{},\"reason\":\"{}\",\"retry\":{}}}\n\n",
                reason.code(),
                reason.reason(),
                reason.retry()
            ),
            (Self::Lines | Self::MessagePack, note) => {
                let map = match note {
                    Note::Begin => return Bytes::new(),
                    Note::Heartbeat => serde_json::json!({"type": "heartbeat", "cursor": cursor}),
                    Note::Resume(status) => {
                        serde_json::json!({"type": "resume", "resume": status.as_str(), "cursor": cursor})
                    }
                    Note::Bye(reason) => serde_json::json!({
                        "type": "bye", "code": reason.code(), "reason": reason.reason(), "retry": reason.retry()
                    }),
                };
                if self == Self::MessagePack {
                    return rmp_serde::to_vec_named(&map).unwrap_or_default().into();
                }
                format!("{map}\n")
            }
        };
        text.into()
    }
}

/// What is said besides events.
#[derive(Clone, Copy)]
enum Note {
    Begin,
    Heartbeat,
    Resume(Resume),
    Bye(CloseReason),
}

/// Begins a stream: decides where it starts, then takes the socket.
pub(super) async fn begin(
    node: Arc<Node>,
    kind: Kind,
    asked: Asked,
    guest: Guest,
    origin: Origin,
) -> Takeover {
    let opening = open(&node.source, &asked.request()).await;
    Box::new(move |stream, _unread| {
        let client = Client::new(node, kind, asked, guest, opening, origin, stream);
        tokio::spawn(client.run());
    })
}

struct Client {
    node: Arc<Node>,
    kind: Kind,
    outlet: Outlet,
    subscription: Subscription,
    registration: Registration,
    close_on: Arc<[EventName]>,
    /// Sent before anything else.
    first: Vec<Arc<Shown>>,
    bye: Option<CloseReason>,
    /// When its token ends.
    until: Option<Pin<Box<Sleep>>>,
    admission: Admission,
}

impl Client {
    fn new(
        node: Arc<Node>,
        kind: Kind,
        asked: Asked,
        guest: Guest,
        opening: Opening,
        origin: Origin,
        stream: Stream,
    ) -> Self {
        let mut begin = head(kind, &origin, node.settings().credentials);
        let cursor = opening.cursor(&node.source);
        begin.extend_from_slice(&kind.note(Note::Begin, &cursor));
        node.metrics.resumed(opening.resume.as_str());
        if !matches!(opening.resume, Resume::None | Resume::Ok) {
            begin.extend_from_slice(&kind.note(Note::Resume(opening.resume), &cursor));
        }
        let registration = node.register(guest.access.identity());
        let (user, ip) = (guest.access.user(), guest.admission.ip());
        node.audit_client(Action::Connected, &registration, user, ip, None);
        if node.audit.is_on() {
            let channels: Vec<&str> = asked.patterns.iter().map(Pattern::as_str).collect();
            node.audit_channels(Action::Subscribed, &registration, &guest.access, &channels);
        }
        let until = guest.access.lasts(unix_ms()).map(|left| Box::pin(tokio::time::sleep(left)));
        let mut subscription = Subscription::new(node.source.clone(), Some(registration.id()));
        for pattern in &asked.patterns {
            subscription.join(pattern, asked.filter.clone());
        }
        subscription.begin(&opening);
        if !asked.close_on.is_empty() {
            subscription.one_by_one();
        }
        node.metrics.subscriptions.add(subscription.len() as i64);
        let outlet =
            Outlet::new(stream, kind.framing(), kind.transport(), node.metrics.clone(), begin.into());
        Self {
            node,
            kind,
            outlet,
            subscription,
            registration,
            close_on: asked.close_on,
            first: opening.first,
            bye: None,
            until,
            admission: guest.admission,
        }
    }

    async fn run(mut self) {
        let interval = self.node.settings().sse_heartbeat;
        let heartbeat = tokio::time::sleep(interval);
        let mut heartbeat = std::pin::pin!(heartbeat);
        poll_fn(|context| self.poll(heartbeat.as_mut(), context)).await;
    }

    /// Ready when the connection has ended.
    fn poll(&mut self, mut heartbeat: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<()> {
        if self.is_gone(context) {
            return Poll::Ready(());
        }
        if self.bye.is_none()
            && let Poll::Ready(reason) = self.registration.handle().poll_closed(context)
        {
            self.bye = Some(reason);
        }
        if self.bye.is_none()
            && let Some(until) = &mut self.until
            && until.as_mut().poll(context).is_ready()
        {
            self.bye = Some(CloseReason::TokenExpired);
        }
        loop {
            while heartbeat.as_mut().poll(context).is_ready() {
                heartbeat.as_mut().reset(Instant::now() + self.node.settings().sse_heartbeat);
                if self.outlet.is_flushed() {
                    let at = self.subscription.settle();
                    self.outlet.send(self.kind.note(Note::Heartbeat, &self.subscription.cursor_at(at)));
                }
            }
            let Poll::Ready(halt) = self.poll_write(context) else {
                ready!(self.outlet.poll_stalled(|| self.node.settings().stall_timeout, context));
                self.node.metrics.closed(CloseReason::TooSlow.code());
                return Poll::Ready(());
            };
            match halt {
                Halt::Lost => {
                    let cursor = self.subscription.cursor_at(self.subscription.position());
                    self.outlet.send(self.kind.note(Note::Resume(Resume::Expired), &cursor));
                }
                Halt::Done => self.bye = Some(CloseReason::Done),
                Halt::Failed => self.bye = Some(CloseReason::LogUnavailable),
                Halt::Broken => return Poll::Ready(()),
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Halt> {
        if ready!(self.outlet.poll_flush(context)).is_err() {
            return Poll::Ready(Halt::Broken);
        }
        if let Some(reason) = self.bye {
            // Said once; then the connection ends.
            self.node.metrics.closed(reason.code());
            let cursor = self.subscription.cursor_at(self.subscription.position());
            self.outlet.send(self.kind.note(Note::Bye(reason), &cursor));
            let _ = self.outlet.poll_flush(context);
            return Poll::Ready(Halt::Broken);
        }
        if !self.first.is_empty()
            && let Err(halt) = ready!(self.outlet.poll_events(&mut self.first, &self.close_on, context))
        {
            return Poll::Ready(halt);
        }
        self.outlet.poll_deliver(&mut self.subscription, &self.close_on, context)
    }

    /// Whether the client has closed. What it sends is thrown away: it has nothing to say.
    fn is_gone(&self, context: &mut Context<'_>) -> bool {
        let mut discarded = [0; 512];
        for _ in 0..16 {
            match self.outlet.stream().poll_read_ready(context) {
                Poll::Pending => return false,
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(())) => {}
            }
            match self.outlet.stream().try_read(&mut discarded) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return true,
            }
        }
        // It keeps sending: others first.
        context.waker().wake_by_ref();
        false
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.node.metrics.subscriptions.sub(self.subscription.len() as i64);
        let code = self.bye.map(CloseReason::code);
        self.node.audit_client(Action::Closed, &self.registration, None, self.admission.ip(), code);
    }
}

fn head(kind: Kind, origin: &Origin, credentials: bool) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\nConnection: close\r\nVary: Origin\r\n",
        kind.media_type()
    )
    .into_bytes();
    if let Origin::Allowed(origin) = origin {
        // A header value that came in as one cannot break the head.
        head.extend_from_slice(b"Access-Control-Allow-Origin: ");
        head.extend_from_slice(origin.as_bytes());
        head.extend_from_slice(b"\r\n");
        if credentials {
            head.extend_from_slice(b"Access-Control-Allow-Credentials: true\r\n");
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}
