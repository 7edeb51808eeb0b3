//! The sections, typed. A field's name is its key; its default and what it is for stand in
//! `config.toml.example`, which is compiled in.

use super::bus::{BusChannel, BusMode, BusStorage, Namespace};
use super::bus_url::BusUrl;
use super::grants::Grants;
use super::listen::{ListenAddress, SocketMode};
use super::logging::{LogFilter, LogFormat};
use super::network::Network;
use super::quantity::ByteSize;
use super::reader::Reader;
use super::route::Route;
use super::setting::Setting;
use super::sync::LogSync;
use super::web::{AllowedOrigin, HostName};
use super::webhook::{SessionHeader, SessionOnError};
use crate::auth::{Algorithm, CallUrl};
use crate::secret::Secret;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

/// Makes a section of its name and its keys: the struct, the list of keys, and the way in and out.
macro_rules! section {
    ($(#[$about:meta])* $name:ident = $section:literal { $($(#[$doc:meta])* $key:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $name {
            $($(#[$doc])* pub $key: $type,)*
        }

        impl $name {
            /// The keys, each with its section.
            pub(super) const KEYS: &'static [&'static str] = &[$(concat!($section, ".", stringify!($key))),*];

            pub(super) fn read(reader: &mut Reader) -> Self {
                Self { $($key: reader.get(concat!($section, ".", stringify!($key))),)* }
            }

            pub(super) fn show(&self) -> serde_json::Value {
                let mut shown = serde_json::Map::new();
                $(shown.insert(stringify!($key).into(), self.$key.show());)*
                shown.into()
            }
        }
    };
}

section! {
    /// The listener of the app: publish, history, control.
    AppConfig = "app" {
        /// Where it listens; nowhere if empty.
        listen: Vec<ListenAddress>,
        /// Host names it answers to besides loopback names and its own address.
        allowed_hosts: Vec<HostName>,
        /// Who may open it where it is a unix socket.
        socket_mode: SocketMode,
        /// The system user to whom that socket belongs, by name or number; whoever runs this if empty.
        socket_user: String,
        /// Its group.
        socket_group: String,
        /// Its certificate, with those that it was signed with; no TLS if empty.
        tls_cert_file: PathBuf,
        /// The key of its certificate.
        tls_key_file: PathBuf,
        /// Who signs the certificates that callers must show; they need none if empty.
        tls_client_ca_file: PathBuf,
        /// The system users (by number) that are served where it is a unix socket; none for all that may open it.
        allowed_uids: Vec<u32>,
        /// The file with the token that everybody must show; none if empty.
        token_file: PathBuf,
    }
}

section! {
    /// Who may do what on the client listener.
    AuthConfig = "auth" {
        /// The algorithms that tokens may be signed with; none for all that fit a configured key.
        algorithms: Vec<Algorithm>,
        /// A secret that is shared with the issuer.
        secret: Option<Secret>,
        /// The same in a file.
        secret_file: PathBuf,
        /// A public key of the issuer, in PEM.
        public_key_file: PathBuf,
        /// Where the issuer publishes its keys.
        jwks_url: Option<CallUrl>,
        /// The issuers that tokens may be of; none for any.
        issuer: Vec<String>,
        /// The audiences that tokens may be for; none for tokens that name none.
        audience: Vec<String>,
        /// How much the clocks of issuer and node may differ.
        leeway: Duration,
        /// Whether a token must end.
        require_exp: bool,
        /// The cookie that may hold a token; none if empty.
        cookie: String,
        /// How long a WebSocket client without a token may take to send one.
        timeout: Duration,
        /// What everybody with a token may do, besides what it says.
        default: Grants,
        /// What everybody without a token may do.
        anonymous: Grants,
    }
}

section! {
    /// The app, asked who a client is.
    WebhookConfig = "auth.webhook" {
        /// Where it is asked; nowhere if empty.
        url: Option<CallUrl>,
        /// The headers of the client that it is shown.
        headers: Vec<SessionHeader>,
        /// How long it may take to answer.
        timeout: Duration,
        /// How long its answer counts for the same question.
        cache: Duration,
        /// What happens when it does not answer.
        on_error: SessionOnError,
    }
}

section! {
    /// The listener of browsers and devices.
    ClientConfig = "client" {
        /// Where it listens; nowhere if empty.
        listen: Vec<ListenAddress>,
        /// Who may open it where it is a unix socket.
        socket_mode: SocketMode,
        /// The system user to whom that socket belongs, by name or number; whoever runs this if empty.
        socket_user: String,
        /// Its group.
        socket_group: String,
        /// Its certificate, with those that it was signed with; no TLS if empty.
        tls_cert_file: PathBuf,
        /// The key of its certificate.
        tls_key_file: PathBuf,
        /// Who signs the certificates that callers must show; they need none if empty.
        tls_client_ca_file: PathBuf,
        /// Whether clients that nobody has identified are served from beyond this host.
        allow_anonymous: bool,
        /// The proxies whose word on where a client is counts.
        trusted_proxies: Vec<Network>,
        /// Whether each connection begins with a PROXY header of one of them.
        proxy_protocol: bool,
        /// Whose pages may connect. Empty: the listener's own, and loopback ones while it listens on loopback.
        allowed_origins: Vec<AllowedOrigin>,
        /// Between two pings to a WebSocket client; `None` sends none.
        heartbeat: Option<Duration>,
        /// Between two comments in a quiet SSE stream.
        sse_heartbeat: Duration,
        /// How long a client may take no byte before it is cut off with 4008.
        stall_timeout: Duration,
        /// How long a WebSocket client may send nothing, not even a pong, before it is cut off with 4009;
        /// `None` is for ever.
        idle_timeout: Option<Duration>,
        /// Over how long clients are told 1001 on shutdown, so that they do not all come back at once.
        drain: Duration,
        /// URLs of the app's own choice.
        routes: Vec<Route>,
    }
}

section! {
    /// The listener of probes, Prometheus and the operator.
    AdminConfig = "admin" {
        /// Where it listens; nowhere if empty.
        listen: Vec<ListenAddress>,
        /// Host names it answers to besides loopback names and its own address.
        allowed_hosts: Vec<HostName>,
        /// Who may open it where it is a unix socket.
        socket_mode: SocketMode,
        /// The system user to whom that socket belongs, by name or number; whoever runs this if empty.
        socket_user: String,
        /// Its group.
        socket_group: String,
        /// Its certificate, with those that it was signed with; no TLS if empty.
        tls_cert_file: PathBuf,
        /// The key of its certificate.
        tls_key_file: PathBuf,
        /// Who signs the certificates that callers must show; they need none if empty.
        tls_client_ca_file: PathBuf,
        /// The system users (by number) that are served where it is a unix socket; none for all that may open it.
        allowed_uids: Vec<u32>,
        /// The file with the token that must be shown for all but the probes; none if empty.
        token_file: PathBuf,
    }
}

section! {
    /// The event log on disk.
    LogConfig = "log" {
        /// Its directory. Never empty in a loaded configuration.
        dir: PathBuf,
        /// How long an event is kept, unless its publisher or a channel rule says otherwise.
        ttl: Duration,
        /// How much disk the log takes at most; the oldest events go first.
        max_bytes: ByteSize,
        /// When it is forced to disk.
        sync: LogSync,
        /// Whether events are compressed.
        compress: bool,
        /// The file with the keys that events are encrypted with; empty for none.
        encryption_key_file: PathBuf,
        /// How long an id given by a publisher is remembered, so that its repetition is a duplicate.
        id_window: Duration,
        /// How many such ids are remembered at most.
        id_limit: usize,
    }
}

section! {
    /// The bus that carries events between nodes.
    BusConfig = "bus" {
        /// Which bus.
        url: BusUrl,
        /// What it promises; `None` is the default of the URL.
        mode: Option<BusMode>,
        /// Which channels are taken from it; all if empty.
        channels: Vec<BusChannel>,
        /// Which fleet this node belongs to.
        namespace: Namespace,
        /// Into how many logs its events are split.
        shards: u32,
        /// How long it keeps events for nodes that were away.
        retention: Duration,
        /// Who we are there, unless the URL says so.
        user: Option<String>,
        /// The password, unless the URL or a file has it.
        password: Option<Secret>,
        /// A file with the password.
        password_file: Option<PathBuf>,
        /// Who we are with the Sentinels.
        sentinel_user: Option<String>,
        /// The password there.
        sentinel_password: Option<Secret>,
        /// A file with the password there.
        sentinel_password_file: Option<PathBuf>,
        /// A token for NATS.
        token: Option<Secret>,
        /// A file with the token.
        token_file: Option<PathBuf>,
        /// A NATS credentials file.
        credentials_file: Option<PathBuf>,
        /// A file with a NATS nkey seed.
        nkey_file: Option<PathBuf>,
        /// Whom we believe to be the server, instead of whom the system believes.
        tls_ca_file: Option<PathBuf>,
        /// The certificate that we show.
        tls_cert_file: Option<PathBuf>,
        /// Its key.
        tls_key_file: Option<PathBuf>,
        /// How many servers keep the stream of JetStream.
        replicas: u32,
        /// Where they keep it.
        storage: BusStorage,
        /// How many bytes JetStream keeps at most; 0 is no bound.
        max_bytes: ByteSize,
        /// How long a publish waits for the bus to confirm it.
        publish_timeout: Duration,
        /// How long a publish waits for the bus before it is put on disk.
        hedge: Duration,
        /// Between two probes that readiness rests on.
        probe_interval: Duration,
    }
}

section! {
    /// The outbox: accepted publishes that wait on disk for the bus.
    QueueConfig = "queue" {
        /// How much disk they take at most; beyond it a publish is answered 503 `queue_full`.
        max_bytes: ByteSize,
        /// How long the oldest of them may wait; beyond it the same.
        max_age: Duration,
    }
}

section! {
    /// What callers may take at most.
    LimitsConfig = "limits" {
        /// Client connections in all; `None` is no limit.
        connections: Option<NonZeroUsize>,
        /// Client connections from one IP address; `None` is no limit.
        connections_per_ip: Option<NonZeroUsize>,
        /// New client connections a second from one IP address, with bursts of twice as many; `None` is no limit.
        handshakes_per_ip: Option<NonZeroU32>,
        /// Subscriptions of one connection.
        subscriptions: usize,
        /// A message from a WebSocket client.
        message_bytes: ByteSize,
        /// Messages of one WebSocket client, with bursts of twice as many; `None` is no limit.
        messages_per_second: Option<NonZeroU32>,
        /// Bytes of one WebSocket client a second, with bursts of twice as many; zero is no limit.
        bytes_per_second: ByteSize,
        /// Refusals of one IP address within a minute after which it is cut off; `None` is never.
        offences_per_ip: Option<NonZeroU32>,
        /// For how long it is.
        ban: Duration,
        /// The body of one request.
        body_bytes: ByteSize,
        /// One published event.
        event_bytes: ByteSize,
        /// How long a request may take to send its head.
        header_timeout: Duration,
        /// How long a request may take to send its body.
        body_timeout: Duration,
    }
}

section! {
    /// What this program tells about itself.
    TelemetryConfig = "telemetry" {
        /// The form of its log lines.
        log_format: LogFormat,
        /// Which log lines it writes.
        log_level: LogFilter,
        /// The file of who did what; none if empty.
        audit_file: PathBuf,
    }
}
