//! How the bus is used: its mode, what is taken from it, its name, and who we are there.

use super::bus_url::{BusUrl, Login};
use super::node::Node;
use super::problem::Problem;
use super::reader::Reader;
use super::sections::BusConfig;
use super::setting::{Setting, text, written_as_text};
use crate::event::{MAX_SHARDS, Pattern};
use crate::secret::{Secret, SecretSource};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What the bus promises, of the ways in which its servers can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BusMode {
    /// Redis Streams: one order, exact resume.
    Stream,
    /// Redis `PUBLISH` and `PSUBSCRIBE`: no order, nothing kept.
    PubSub,
    /// NATS JetStream: one order, exact resume.
    JetStream,
    /// Plain NATS subjects: no order, nothing kept.
    Core,
}

impl BusMode {
    const ALL: [(&str, Self); 4] = [
        ("stream", Self::Stream),
        ("pubsub", Self::PubSub),
        ("jetstream", Self::JetStream),
        ("core", Self::Core),
    ];
}

impl fmt::Display for BusMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "stream",
            Self::PubSub => "pubsub",
            Self::JetStream => "jetstream",
            Self::Core => "core",
        })
    }
}

/// The mode, or as the bus has it by default (`""`).
impl Setting for Option<BusMode> {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        match text(node)? {
            "" => Ok(None),
            name => match BusMode::ALL.iter().find(|(known, _)| *known == name) {
                Some((_, mode)) => Ok(Some(*mode)),
                None => Err(node.problem(format!(
                    "{name:?} is no mode; write \"stream\" or \"pubsub\" for Redis, \"jetstream\" or \"core\" for NATS"
                ))),
            },
        }
    }

    fn show(&self) -> serde_json::Value {
        self.map_or(String::new(), |mode| mode.to_string()).into()
    }
}

/// Which events are taken from the bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BusChannel {
    /// Those of a channel or pattern.
    Pattern(Pattern),
    /// Those of channels that fit a pattern of Redis that is none of ours, such as `cron[0-9].*`.
    Glob(String),
}

impl BusChannel {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pattern(pattern) => pattern.as_str(),
            Self::Glob(glob) => glob,
        }
    }
}

impl FromStr for BusChannel {
    type Err = BusChannelError;

    fn from_str(text: &str) -> Result<Self, BusChannelError> {
        let printable =
            !text.is_empty() && text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_graphic());
        match Pattern::parse(text) {
            Ok(pattern) => Ok(Self::Pattern(pattern)),
            Err(_) if printable => Ok(Self::Glob(text.into())),
            Err(_) => Err(BusChannelError(text.into())),
        }
    }
}

impl fmt::Display for BusChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no pattern, not even one of Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BusChannelError(String);

impl fmt::Display for BusChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no pattern; write 1 to 255 bytes of printable ASCII, such as \"cron.>\"", self.0)
    }
}

impl std::error::Error for BusChannelError {}

/// What tells a fleet from others on the same servers: it is part of every name there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Namespace(String);

impl Namespace {
    /// The name: 1 to 64 ASCII letters, digits, `_` and `-`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Namespace {
    type Err = NamespaceError;

    fn from_str(text: &str) -> Result<Self, NamespaceError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.into()))
        } else {
            Err(NamespaceError(text.into()))
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamespaceError(String);

impl fmt::Display for NamespaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no namespace; write 1 to 64 letters, digits, \"_\" or \"-\"", self.0)
    }
}

impl std::error::Error for NamespaceError {}

/// Where JetStream keeps its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BusStorage {
    /// On disk.
    File,
    /// In memory: gone when its servers are.
    Memory,
}

impl FromStr for BusStorage {
    type Err = BusStorageError;

    fn from_str(text: &str) -> Result<Self, BusStorageError> {
        match text {
            "file" => Ok(Self::File),
            "memory" => Ok(Self::Memory),
            _ => Err(BusStorageError(text.into())),
        }
    }
}

impl fmt::Display for BusStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Memory => "memory",
        })
    }
}

/// The text names no storage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BusStorageError(String);

impl fmt::Display for BusStorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not known; write \"file\" or \"memory\"", self.0)
    }
}

impl std::error::Error for BusStorageError {}

written_as_text!(BusChannel, Namespace, BusStorage);

/// A name; `""` is none.
impl Setting for Option<String> {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        text(node).map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()))
    }

    fn show(&self) -> serde_json::Value {
        self.as_deref().unwrap_or_default().into()
    }
}

/// A secret; `""` is none.
impl Setting for Option<Secret> {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        text(node).map(|text| Some(text).filter(|text| !text.is_empty()).map(Secret::new))
    }

    fn show(&self) -> serde_json::Value {
        self.as_ref().map_or(String::new(), ToString::to_string).into()
    }
}

/// A file; `""` is none.
impl Setting for Option<PathBuf> {
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        text(node).map(|text| Some(text).filter(|text| !text.is_empty()).map(PathBuf::from))
    }

    fn show(&self) -> serde_json::Value {
        self.clone().unwrap_or_default().show()
    }
}

impl BusConfig {
    /// The user, from its key or the URL.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref().or(self.login().and_then(|login| login.user.as_deref()))
    }

    /// Where the password comes from: its keys or the URL.
    pub fn password(&self) -> Option<SecretSource> {
        let in_url = || self.login().and_then(|login| login.password.clone()).map(SecretSource::Given);
        source(&self.password, &self.password_file).or_else(in_url)
    }

    /// Where the token comes from.
    pub fn token(&self) -> Option<SecretSource> {
        source(&self.token, &self.token_file)
    }

    /// Where the password for the Sentinels comes from.
    pub fn sentinel_password(&self) -> Option<SecretSource> {
        source(&self.sentinel_password, &self.sentinel_password_file)
    }

    /// The mode in force; none on the `memory:` bus.
    pub fn mode(&self) -> Option<BusMode> {
        match self.url {
            BusUrl::Memory => None,
            BusUrl::Redis(_) => Some(self.mode.unwrap_or(BusMode::Stream)),
            BusUrl::Nats(_) => Some(self.mode.unwrap_or(BusMode::JetStream)),
        }
    }

    fn login(&self) -> Option<&Login> {
        match &self.url {
            BusUrl::Memory => None,
            BusUrl::Redis(redis) => Some(&redis.login),
            BusUrl::Nats(nats) => Some(&nats.login),
        }
    }

    /// What no key of the section can tell by itself.
    pub(super) fn check(&self, reader: &mut Reader) {
        self.check_mode(reader);
        self.check_credentials(reader);
        let tls_files = [
            ("bus.tls_ca_file", &self.tls_ca_file),
            ("bus.tls_cert_file", &self.tls_cert_file),
            ("bus.tls_key_file", &self.tls_key_file),
        ];
        if matches!(&self.url, BusUrl::Redis(redis) if !redis.tls) {
            for (key, _) in tls_files.iter().filter(|(_, file)| file.is_some()) {
                reader
                    .refuse(key, "is for encrypted connections, and bus.url asks for none; write rediss://");
            }
        }
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(_), None) => reader.refuse("bus.tls_cert_file", "needs bus.tls_key_file beside it"),
            (None, Some(_)) => reader.refuse("bus.tls_key_file", "needs bus.tls_cert_file beside it"),
            _ => {}
        }
        self.check_shards(reader);
        if matches!(self.url, BusUrl::Redis(_)) && self.max_bytes.0 != 0 {
            reader.refuse(
                "bus.max_bytes",
                "is for JetStream; on Redis bus.retention bounds the stream, and maxmemory the server",
            );
        }
        if !(1..=5).contains(&self.replicas) {
            reader.refuse("bus.replicas", "is not what JetStream takes; write 1 to 5");
        }
    }

    fn check_shards(&self, reader: &mut Reader) {
        let is_possible = (1..=MAX_SHARDS as u32).contains(&self.shards);
        if !is_possible {
            reader.refuse("bus.shards", format!("is no number of shards; write 1 to {MAX_SHARDS}"));
        }
        let clash = match self.mode() {
            _ if self.shards == 1 || !is_possible => None,
            Some(BusMode::Stream) => None,
            Some(BusMode::PubSub) => {
                Some("is for bus.mode = \"stream\": plain channels are not split; write 1")
            }
            Some(BusMode::JetStream | BusMode::Core) => {
                Some("is for Redis Streams; on NATS split by bus.namespace, and write 1 here")
            }
            None => Some("is for a bus between nodes, and bus.url is \"memory:\"; write 1"),
        };
        if let Some(message) = clash {
            reader.refuse("bus.shards", message);
        }
    }

    fn check_mode(&self, reader: &mut Reader) {
        let clash = match (&self.url, self.mode) {
            (_, None)
            | (BusUrl::Redis(_), Some(BusMode::Stream | BusMode::PubSub))
            | (BusUrl::Nats(_), Some(BusMode::JetStream | BusMode::Core)) => None,
            (BusUrl::Memory, Some(_)) => {
                Some("is for a bus between nodes, and bus.url is \"memory:\"; remove it")
            }
            (BusUrl::Redis(_), Some(_)) => Some("is none of Redis; write \"stream\" or \"pubsub\""),
            (BusUrl::Nats(_), Some(_)) => Some("is none of NATS; write \"jetstream\" or \"core\""),
        };
        if let Some(message) = clash {
            reader.refuse("bus.mode", message);
        }
        if self.mode() != Some(BusMode::PubSub)
            && let Some(glob) = self.channels.iter().find(|channel| matches!(channel, BusChannel::Glob(_)))
        {
            reader.refuse(
                "bus.channels",
                format!("{glob:?} is no pattern: `*` must be a whole token and `>` the whole last one; Redis patterns are for bus.mode = \"pubsub\"", glob = glob.as_str()),
            );
        }
    }

    fn check_credentials(&self, reader: &mut Reader) {
        for (key, text, file, other) in [
            ("bus.password_file", &self.password, &self.password_file, "bus.password"),
            ("bus.token_file", &self.token, &self.token_file, "bus.token"),
            (
                "bus.sentinel_password_file",
                &self.sentinel_password,
                &self.sentinel_password_file,
                "bus.sentinel_password",
            ),
        ] {
            if text.is_some() && file.is_some() {
                reader.refuse(key, format!("says the same as {other}; remove one of them"));
            }
        }
        let login = self.login().cloned().unwrap_or_default();
        if login.user.is_some() && self.user.is_some() {
            reader.refuse("bus.user", "is in bus.url as well; remove one of them");
        }
        if login.password.is_some() && (self.password.is_some() || self.password_file.is_some()) {
            let key = if self.password.is_some() { "bus.password" } else { "bus.password_file" };
            reader.refuse(key, "is in bus.url as well; remove one of them");
        }
        if matches!(self.url, BusUrl::Redis(_)) {
            for (key, is_set) in [
                ("bus.token", self.token.is_some()),
                ("bus.token_file", self.token_file.is_some()),
                ("bus.credentials_file", self.credentials_file.is_some()),
                ("bus.nkey_file", self.nkey_file.is_some()),
            ] {
                if is_set {
                    reader.refuse(key, "is for NATS; Redis takes bus.user and bus.password");
                }
            }
        }
    }
}

fn source(secret: &Option<Secret>, file: &Option<PathBuf>) -> Option<SecretSource> {
    secret.clone().map(SecretSource::Given).or_else(|| file.clone().map(SecretSource::File))
}

#[cfg(test)]
mod tests;
