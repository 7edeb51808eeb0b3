//! What the operator decides, read once and valid from then on.
//!
//! A flag counts before the environment, the environment before the file, the file before the default. Nothing
//! here opens a socket or makes a file: reading the configuration file is all it does.

mod bus;
mod bus_url;
mod channel_rule;
mod check_auth;
mod grants;
mod later;
mod listen;
mod logging;
mod network;
mod node;
mod problem;
mod quantity;
mod rate;
mod reader;
mod route;
mod sections;
mod setting;
mod sync;
mod web;
mod webhook;

pub use bus::{BusChannel, BusMode, BusStorage, Namespace};
pub use bus_url::{BusUrl, HostPort, Login, NatsUrl, RedisTopology, RedisUrl};
pub use channel_rule::{ChannelRule, WhenOver};
pub use grants::Grants;
pub use listen::{ListenAddress, SocketMode};
pub use logging::{LogFilter, LogFormat};
pub use network::Network;
pub use problem::{ConfigError, Fault, Problem, Source, environment_name};
pub use quantity::{ByteSize, QuantityError, format_duration, parse_duration};
pub use rate::PerSecond;
pub use route::Route;
pub use sections::{
    AdminConfig, AppConfig, AuthConfig, BusConfig, ClientConfig, LimitsConfig, LogConfig, QueueConfig,
    TelemetryConfig, WebhookConfig,
};
pub use sync::LogSync;
pub use web::{AllowedOrigin, HostName};
pub use webhook::{SessionHeader, SessionOnError};

use crate::event::Channel;
use reader::Reader;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The least that RFC 7518 (section 3.2) asks of a secret for HS256.
const MIN_SECRET_BYTES: usize = 32;

/// The configuration of one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `[app]`
    pub app: AppConfig,
    /// `[client]`
    pub client: ClientConfig,
    /// `[admin]`
    pub admin: AdminConfig,
    /// `[auth]`
    pub auth: AuthConfig,
    /// `[auth.webhook]`
    pub webhook: WebhookConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[bus]`
    pub bus: BusConfig,
    /// `[queue]`
    pub queue: QueueConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[[channels]]`, in the order they were written.
    pub channels: Vec<ChannelRule>,
    /// `[telemetry]`
    pub telemetry: TelemetryConfig,
}

/// Where a configuration comes from, but for the defaults.
#[derive(Clone, Default, Debug)]
pub struct Sources {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// All environment variables. Besides those named `SIDEWIRE_..`, `STATE_DIRECTORY`, `XDG_STATE_HOME` and
    /// `HOME` count, for where the log is kept.
    pub environment: BTreeMap<String, String>,
    /// What the command line sets.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// A file, perhaps, and the environment of this process.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        // Text that is not UTF-8 is spoilt here and refused where it is read.
        let environment = std::env::vars_os()
            .map(|(name, text)| (name.to_string_lossy().into_owned(), text.to_string_lossy().into_owned()))
            .collect();
        Self { file, environment, flags: Vec::new() }
    }
}

/// A key that is set on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The key, such as `bus.url`.
    pub key: &'static str,
    /// The flag as the operator typed it, such as `--bus`.
    pub name: &'static str,
    /// Its values; none if it was not given.
    pub values: Vec<String>,
}

impl Config {
    /// Reads all sources, or says everything that is wrong with them.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(Self::keys().collect());
        if let Some(path) = &sources.file {
            let name = path.display().to_string();
            match std::fs::read_to_string(path) {
                Ok(text) => reader.file(&text, &name),
                Err(error) => reader.unreadable(&name, &error),
            }
        }
        Self::finish(reader, sources)
    }

    /// The same with the text of the file at hand; `sources.file` gives its name.
    pub fn from_toml(text: &str, sources: Sources) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(Self::keys().collect());
        let name = sources.file.as_deref().unwrap_or(Path::new("config.toml"));
        reader.file(text, &name.display().to_string());
        Self::finish(reader, sources)
    }

    /// Every key there is, such as `log.ttl`.
    pub fn keys() -> impl Iterator<Item = &'static str> {
        let sections = [
            AppConfig::KEYS,
            ClientConfig::KEYS,
            AdminConfig::KEYS,
            AuthConfig::KEYS,
            WebhookConfig::KEYS,
            LogConfig::KEYS,
            BusConfig::KEYS,
            QueueConfig::KEYS,
            LimitsConfig::KEYS,
            TelemetryConfig::KEYS,
        ];
        sections.into_iter().flatten().copied().chain(["channels"])
    }

    /// The rule for a channel: the first that fits.
    pub fn rule_for(&self, channel: &Channel) -> Option<&ChannelRule> {
        self.channels.iter().find(|rule| rule.pattern.matches(channel))
    }

    /// The configuration as in force, as an operator would write it, its secrets masked.
    pub fn to_json(&self) -> serde_json::Value {
        use setting::Setting as _;
        let mut auth = self.auth.show();
        auth["webhook"] = self.webhook.show();
        serde_json::json!({
            "app": self.app.show(),
            "client": self.client.show(),
            "admin": self.admin.show(),
            "auth": auth,
            "log": self.log.show(),
            "bus": self.bus.show(),
            "queue": self.queue.show(),
            "limits": self.limits.show(),
            "channels": self.channels.show(),
            "telemetry": self.telemetry.show(),
        })
    }

    /// Whether the client listener asks who comes.
    pub fn asks_who_comes(&self) -> bool {
        let Self { auth, .. } = self;
        self.identifies() || !auth.anonymous.0.is_empty() || !auth.default.0.is_empty()
    }

    /// Whether a client can show who it is.
    fn identifies(&self) -> bool {
        let Self { auth, .. } = self;
        auth.secret.is_some()
            || !auth.secret_file.as_os_str().is_empty()
            || !auth.public_key_file.as_os_str().is_empty()
            || auth.jwks_url.is_some()
            || self.webhook.url.is_some()
    }

    /// Whether a cookie can say who a client is.
    pub fn takes_cookies(&self) -> bool {
        let shown = |header: &SessionHeader| header.0 == hyper::header::COOKIE;
        !self.auth.cookie.is_empty() || (self.webhook.url.is_some() && self.webhook.headers.iter().any(shown))
    }

    /// What is allowed and yet worth a second thought.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (key, listen, reach) in [
            ("app.listen", &self.app.listen, "publish and read every event"),
            ("admin.listen", &self.admin.listen, "read metrics and configuration"),
        ] {
            for address in listen.iter().filter(|address| !address.is_local()) {
                warnings.push(format!(
                    "{key}: everybody who can reach {address} can {reach}; keep it within the pod or behind a firewall"
                ));
            }
        }
        let open = |address: &&ListenAddress| !address.is_local() && !self.asks_who_comes();
        for address in self.client.listen.iter().filter(open) {
            warnings.push(format!("client.listen: everybody who can reach {address} can read every channel"));
        }
        if let Some(url) = self.webhook.url.as_ref().filter(|url| url.is_plain() && !url.is_loopback()) {
            warnings.push(format!(
                "auth.webhook.url: the sessions of clients go to {url} without TLS; they are sent to private addresses only"
            ));
        }
        if self.auth.secret.as_ref().is_some_and(|secret| secret.expose().len() < MIN_SECRET_BYTES) {
            warnings.push(format!(
                "auth.secret: is shorter than {MIN_SECRET_BYTES} bytes, so whoever has a token can find it by trying; write random ones, such as `openssl rand -hex 32` prints"
            ));
        }
        if self.log.sync == LogSync::Never {
            warnings.push("log.sync: \"never\" may lose acknowledged events when the power fails".into());
        }
        warnings
    }

    /// Why clients are not served at an address, be it configured or that of a socket passed to this process:
    /// strangers can reach it, and nobody is asked who they are.
    pub fn refuses_clients_at(&self, address: &ListenAddress) -> Option<String> {
        (!address.is_local() && !self.client.allow_anonymous && !self.identifies()).then(|| {
            format!(
                "{address} can be reached from other hosts, and no authentication is configured; give a key under [auth], listen on \"127.0.0.1:7080\", or set client.allow_anonymous = true to serve everybody who connects"
            )
        })
    }

    fn finish(mut reader: Reader, sources: Sources) -> Result<Self, ConfigError> {
        reader.environment(&sources.environment);
        reader.flags(sources.flags);
        let mut config = Self {
            app: AppConfig::read(&mut reader),
            client: ClientConfig::read(&mut reader),
            admin: AdminConfig::read(&mut reader),
            auth: AuthConfig::read(&mut reader),
            webhook: WebhookConfig::read(&mut reader),
            log: LogConfig::read(&mut reader),
            bus: BusConfig::read(&mut reader),
            queue: QueueConfig::read(&mut reader),
            limits: LimitsConfig::read(&mut reader),
            channels: reader.get("channels"),
            telemetry: TelemetryConfig::read(&mut reader),
        };
        if config.log.dir.as_os_str().is_empty() {
            config.log.dir = state_directory(&sources.environment);
        }
        config.check(&mut reader);
        if reader.is_clean() { Ok(config) } else { Err(ConfigError { problems: reader.into_problems() }) }
    }

    /// What no key can tell by itself.
    fn check(&self, reader: &mut Reader) {
        self.check_listeners(reader);
        self.bus.check(reader);
        self.check_auth(reader);
        self.check_tls(reader);
        if self.client.proxy_protocol && self.client.trusted_proxies.is_empty() {
            reader.refuse(
                "client.proxy_protocol",
                "needs client.trusted_proxies; write who may tell addresses",
            );
        }
        for (index, route) in self.client.routes.iter().enumerate() {
            if self.client.routes[..index].iter().any(|earlier| earlier.same_paths_as(route)) {
                reader.refuse(
                    "client.routes",
                    format!("two routes have the paths of {}; remove one", route.path()),
                );
            }
        }
        match (self.client.heartbeat, self.client.idle_timeout) {
            (None, Some(_)) => reader.refuse(
                "client.idle_timeout",
                "would cut off clients that only listen, as client.heartbeat = \"0s\" asks them for no sign of life; write \"0s\"",
            ),
            (Some(heartbeat), Some(idle)) if idle < heartbeat * 2 => reader.refuse(
                "client.idle_timeout",
                format!("is shorter than two heartbeats; write at least {:?}", format_duration(heartbeat * 2)),
            ),
            _ => {}
        }
        for (key, duration) in [
            ("client.sse_heartbeat", self.client.sse_heartbeat),
            ("client.stall_timeout", self.client.stall_timeout),
            ("log.ttl", self.log.ttl),
            ("bus.retention", self.bus.retention),
            ("bus.publish_timeout", self.bus.publish_timeout),
            ("bus.probe_interval", self.bus.probe_interval),
            ("queue.max_age", self.queue.max_age),
            ("limits.header_timeout", self.limits.header_timeout),
            ("limits.body_timeout", self.limits.body_timeout),
        ] {
            if duration.is_zero() {
                reader.refuse(key, "cannot be zero; write a duration such as \"10s\"");
            }
        }
        for (key, size) in [
            ("log.max_bytes", self.log.max_bytes),
            ("queue.max_bytes", self.queue.max_bytes),
            ("limits.message_bytes", self.limits.message_bytes),
            ("limits.event_bytes", self.limits.event_bytes),
            ("limits.body_bytes", self.limits.body_bytes),
        ] {
            if size.0 == 0 {
                reader.refuse(key, "cannot be zero; write a size such as \"1MiB\"");
            }
        }
        let bytes = self.limits.bytes_per_second.0;
        if bytes > 0 && bytes < self.limits.message_bytes.0 {
            reader.refuse(
                "limits.bytes_per_second",
                format!("is less than one message; write at least {}", self.limits.message_bytes),
            );
        }
        if self.limits.subscriptions == 0 {
            reader.refuse("limits.subscriptions", "leaves clients nothing to subscribe to; write at least 1");
        }
    }

    fn check_listeners(&self, reader: &mut Reader) {
        let exposed = self.client.listen.iter().find(|address| !address.is_local());
        if let Some(refusal) = exposed.and_then(|address| self.refuses_clients_at(address)) {
            reader.refuse("client.listen", refusal);
        }
        let listeners = [
            ("app.listen", &self.app.listen),
            ("client.listen", &self.client.listen),
            ("admin.listen", &self.admin.listen),
        ];
        let mut taken: Vec<(&str, &ListenAddress)> = Vec::new();
        for (key, addresses) in listeners {
            for address in addresses {
                if let Some((other, _)) = taken.iter().find(|(_, earlier)| earlier.clashes_with(address)) {
                    reader
                        .refuse(key, format!("{address} is taken by {other}; give it another port or path"));
                }
                taken.push((key, address));
            }
        }
    }
}

impl Default for Config {
    /// The defaults, as `config.toml.example` has them.
    fn default() -> Self {
        Self::load(Sources::default()).expect("the defaults are valid: a test loads them")
    }
}

/// Where the log is kept if nobody says: what systemd made for us, or what the XDG rules name, or here.
fn state_directory(environment: &BTreeMap<String, String>) -> PathBuf {
    let absolute = |path: &str| Path::new(path).is_absolute().then(|| PathBuf::from(path));
    let variable = |name: &str| environment.get(name).map(String::as_str).unwrap_or_default();
    // systemd splits several state directories by colons. That of a dynamic user is a link of its making, and the
    // log takes no links, as it cannot tell who made one.
    let resolved = |path: PathBuf| path.canonicalize().unwrap_or(path);
    variable("STATE_DIRECTORY")
        .split(':')
        .find_map(absolute)
        .map(resolved)
        .or_else(|| absolute(variable("XDG_STATE_HOME")).map(|state| state.join("sidewire")))
        .or_else(|| absolute(variable("HOME")).map(|home| home.join(".local/state/sidewire")))
        .unwrap_or_else(|| PathBuf::from("sidewire-data"))
}

#[cfg(test)]
mod tests;
