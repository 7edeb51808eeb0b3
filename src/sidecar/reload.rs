//! What a changed configuration changes while a node runs, and what of it waits for the next start.

use super::{Sidecar, settings};
use crate::auth::AuthError;
use crate::cipher::KeyFileError;
use crate::config::{
    AdminConfig, AppConfig, AuthConfig, BusConfig, ChannelRule, ClientConfig, Config, LimitsConfig,
    ListenAddress, LogConfig, QueueConfig, TelemetryConfig, WebhookConfig,
};
use crate::event::Pattern;
use crate::server::{Address, TlsError};
use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

/// Why the configuration that was in force stays.
#[derive(Debug)]
pub enum ReloadError {
    /// The keys of tokens cannot be used.
    Auth(AuthError),
    /// The certificates of the listeners cannot be used.
    Tls(TlsError),
    /// The keys of the log cannot be read.
    Keys(KeyFileError),
    /// A client listener would be open to everybody: it stays where it is until the next start.
    Exposed(String),
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auth(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Keys(error) => write!(f, "log.encryption_key_file: {error}"),
            Self::Exposed(refusal) => {
                write!(f, "client.listen, which stays as it is until the next start: {refusal}")
            }
        }
    }
}

impl std::error::Error for ReloadError {}

impl Sidecar {
    /// Puts what can change while it runs in force: limits, origins, routes, heartbeats, keys, what is stripped from
    /// events. Clients stay. Of the rest it says key by key that it waits, each time that it finds it changed.
    pub fn reload(&mut self, mut config: Config) -> Result<(), ReloadError> {
        let before = self.node.settings().authority.clone();
        let keys =
            settings::keys(&config, &self.node.revocations, before.as_deref()).map_err(ReloadError::Auth)?;
        let certificates = settings::certificates(&config).map_err(ReloadError::Tls)?;
        if let Some(refusal) =
            self.client_addresses.iter().find_map(|address| config.refuses_clients_at(address))
        {
            return Err(ReloadError::Exposed(refusal));
        }
        if self.keyring.reload().map_err(ReloadError::Keys)? {
            self.tell_of_keys();
        }
        // From here on nothing can fail.
        self.certificates.replace_by(&certificates);
        self.redactor.replace(settings::redact_rules(&config));
        for key in hold_back(&mut config, &self.config) {
            tracing::warn!(key, "a changed setting takes effect at the next start");
        }
        for key in kept_otherwise(&config.channels, &self.started_with.channels) {
            tracing::warn!(key, "a changed setting takes effect at the next start");
        }
        if config.client.trusted_proxies != self.started_with.client.trusted_proxies {
            let key = "client.trusted_proxies";
            // The PROXY protocol, and how many of one address may say nothing, are matters of the listener.
            tracing::warn!(key, "a changed setting takes full effect at the next start");
        }
        let known = self.config.warnings();
        for warning in config.warnings().iter().filter(|warning| !known.contains(warning)) {
            tracing::warn!("{warning}");
        }
        self.node.audit.reopen();
        self.node.reload(settings::settings(&config, keys), config.to_json());
        self.config = config;
        tracing::info!("configuration reloaded");
        Ok(())
    }

    /// Says what the keys of the log are now.
    fn tell_of_keys(&self) {
        match self.keyring.current() {
            Some(key) => tracing::info!(%key, "what is written from now on is encrypted with this key"),
            None => tracing::info!("what is written from now on is not encrypted"),
        }
        for key in self.keyring.removed() {
            let parts = self.log.packed_with(key);
            if parts > 0 {
                tracing::warn!(
                    %key, parts,
                    "a key that is gone from log.encryption_key_file is still needed: without it the next start is refused"
                );
            }
        }
    }
}

/// The addresses of client listeners that others than this host may reach.
pub(super) fn client_addresses(bound: &super::listeners::Bound) -> Vec<ListenAddress> {
    let of_clients = bound.iter().filter(|(listener, _)| *listener == "client");
    let reached = of_clients.filter_map(|(_, socket)| match socket.address() {
        Address::Tcp(address) => Some(ListenAddress::Tcp(*address)),
        Address::Unix { .. } => None,
    });
    reached.collect()
}

/// Sorts the keys of a section by when a change of them counts, and puts back those that only a start changes. A key
/// that stands nowhere here does not compile.
macro_rules! sort_keys {
    ($waiting:ident, $fresh:expr, $in_force:expr, $section:ident = $name:literal {
        at_once: [$($now:ident),* $(,)?],
        at_start: [$($start:ident),* $(,)?],
    }) => {
        let $section { $($now: _,)* $($start,)* } = $fresh;
        $(if *$start != $in_force.$start {
            $waiting.push(concat!($name, ".", stringify!($start)));
            $start.clone_from(&$in_force.$start);
        })*
    };
}

/// A listener speaks TLS or does not until it is bound anew; which certificate it shows is a matter of the moment.
macro_rules! hold_tls_back {
    ($waiting:ident, $fresh:expr, $in_force:expr, $name:literal) => {
        if $fresh.tls_cert_file.as_os_str().is_empty() != $in_force.tls_cert_file.as_os_str().is_empty() {
            hold_tls_back!($waiting, $fresh, $in_force, $name: tls_cert_file, tls_key_file, tls_client_ca_file);
        }
    };
    ($waiting:ident, $fresh:expr, $in_force:expr, $name:literal: $($key:ident),*) => {
        $(if $fresh.$key != $in_force.$key {
            $waiting.push(concat!($name, ".", stringify!($key)));
            $fresh.$key.clone_from(&$in_force.$key);
        })*
    };
}

/// Puts back what only a start changes, so that a configuration is what is in force. Gives the keys that were changed.
fn hold_back(fresh: &mut Config, in_force: &Config) -> Vec<&'static str> {
    let mut waiting = Vec::new();
    let Config {
        app,
        client,
        admin,
        auth,
        webhook,
        log,
        bus,
        queue,
        limits,
        // What rules say of keeping events waits, and cannot be told apart from the rest: `kept_otherwise`.
        channels: _,
        telemetry,
    } = fresh;
    hold_tls_back!(waiting, app, in_force.app, "app");
    hold_tls_back!(waiting, client, in_force.client, "client");
    hold_tls_back!(waiting, admin, in_force.admin, "admin");
    sort_keys!(waiting, app, in_force.app, AppConfig = "app" {
        at_once: [
            allowed_hosts, allowed_uids, token_file, tls_cert_file, tls_key_file, tls_client_ca_file,
        ],
        at_start: [listen, socket_mode, socket_user, socket_group],
    });
    sort_keys!(waiting, client, in_force.client, ClientConfig = "client" {
        at_once: [
            allow_anonymous, trusted_proxies, allowed_origins, heartbeat, sse_heartbeat, stall_timeout,
            idle_timeout, drain, routes, tls_cert_file, tls_key_file, tls_client_ca_file,
        ],
        at_start: [listen, socket_mode, socket_user, socket_group, proxy_protocol],
    });
    sort_keys!(waiting, admin, in_force.admin, AdminConfig = "admin" {
        at_once: [
            allowed_hosts, allowed_uids, token_file, tls_cert_file, tls_key_file, tls_client_ca_file,
        ],
        at_start: [listen, socket_mode, socket_user, socket_group],
    });
    sort_keys!(waiting, auth, in_force.auth, AuthConfig = "auth" {
        at_once: [
            algorithms, secret, secret_file, public_key_file, jwks_url, issuer, audience, leeway, require_exp,
            cookie, timeout, default, anonymous,
        ],
        at_start: [],
    });
    sort_keys!(waiting, webhook, in_force.webhook, WebhookConfig = "auth.webhook" {
        at_once: [url, headers, timeout, cache, on_error],
        at_start: [],
    });
    sort_keys!(waiting, log, in_force.log, LogConfig = "log" {
        at_once: [],
        at_start: [dir, ttl, max_bytes, sync, compress, encryption_key_file, id_window, id_limit],
    });
    sort_keys!(waiting, bus, in_force.bus, BusConfig = "bus" {
        at_once: [],
        at_start: [
            url, mode, channels, namespace, shards, retention, user, password, password_file, sentinel_user,
            sentinel_password, sentinel_password_file, token, token_file, credentials_file, nkey_file,
            tls_ca_file, tls_cert_file, tls_key_file, replicas, storage, max_bytes, publish_timeout, hedge,
            probe_interval,
        ],
    });
    sort_keys!(waiting, queue, in_force.queue, QueueConfig = "queue" {
        at_once: [],
        at_start: [max_bytes, max_age],
    });
    sort_keys!(waiting, limits, in_force.limits, LimitsConfig = "limits" {
        at_once: [
            connections, connections_per_ip, handshakes_per_ip, subscriptions, message_bytes,
            messages_per_second, bytes_per_second, offences_per_ip, ban, body_bytes, event_bytes, body_timeout,
        ],
        at_start: [header_timeout],
    });
    sort_keys!(waiting, telemetry, in_force.telemetry, TelemetryConfig = "telemetry" {
        at_once: [log_level],
        at_start: [log_format, audit_file],
    });
    waiting
}

/// What rules for channels say of keeping events, where that is not what the log was opened with.
fn kept_otherwise(fresh: &[ChannelRule], started: &[ChannelRule]) -> Vec<&'static str> {
    let [fresh, started] = [fresh, started].map(|rules| rules.iter().map(Kept::of).collect::<Vec<_>>());
    let differ = [
        ("channels.ttl", said(&fresh, |kept| kept.ttl) != said(&started, |kept| kept.ttl)),
        ("channels.max_events", said(&fresh, |kept| kept.most) != said(&started, |kept| kept.most)),
        ("channels.store", said(&fresh, |kept| kept.nothing) != said(&started, |kept| kept.nothing)),
    ];
    differ.into_iter().filter_map(|(key, is_other)| is_other.then_some(key)).collect()
}

/// What a rule says of keeping events, none where it says nothing.
struct Kept<'a> {
    pattern: &'a Pattern,
    ttl: Option<Duration>,
    most: Option<NonZeroU64>,
    nothing: Option<()>,
}

impl<'a> Kept<'a> {
    fn of(rule: &'a ChannelRule) -> Self {
        // The rest of a rule counts at once.
        let ChannelRule { pattern, ttl, max_events, store, publish: _, rate: _, when_over: _, redact: _ } =
            rule;
        Self { pattern, ttl: *ttl, most: *max_events, nothing: (!store).then_some(()) }
    }
}

/// Which rules say what. Behind the last that says something, none changes what is kept.
fn said<'a, T>(
    rules: &'a [Kept<'_>],
    what: impl Fn(&Kept<'_>) -> Option<T>,
) -> Vec<(&'a Pattern, Option<T>)> {
    let mut said: Vec<_> = rules.iter().map(|kept| (kept.pattern, what(kept))).collect();
    while said.last().is_some_and(|(_, said)| said.is_none()) {
        said.pop();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn rules(text: &str) -> Vec<ChannelRule> {
        Config::from_toml(text, Sources::default()).unwrap().channels
    }

    #[test]
    fn a_rule_waits_only_for_what_it_says_of_keeping_events() {
        let [none, a, b] = ["", "[[channels]]\npattern = \"a\"\n", "[[channels]]\npattern = \"b\"\n"];
        let differ = |one: &str, other: &str| kept_otherwise(&rules(one), &rules(other));
        assert!(differ(none, &format!("{a}rate = \"1/s\"\npublish = true\nredact = [\"x\"]\n")).is_empty());
        assert!(differ(&format!("{a}ttl = \"1h\"\n"), &format!("{a}ttl = \"1h\"\n{b}")).is_empty());
        assert_eq!(differ(none, &format!("{a}ttl = \"1h\"\n")), ["channels.ttl"]);
        assert_eq!(differ(&format!("{a}max_events = 1\n"), a), ["channels.max_events"]);
        assert_eq!(differ(a, &format!("{b}store = false\n")), ["channels.store"]);
        // The first that fits counts: it takes channels away from those behind it.
        assert_eq!(differ(&format!("{a}ttl = \"1h\"\n"), &format!("{b}{a}ttl = \"1h\"\n")), ["channels.ttl"]);
    }
}
