//! From the configuration to what each part takes.

use crate::auth::{
    AuthError, AuthOptions, Authority, KeyError, Revocations, SharedToken, TokenRules, WebhookOptions,
    read_secret,
};
use crate::cipher::{KeyFileError, Keyring};
use crate::config::Config;
use crate::intake::IntakeLimits;
use crate::log::Rule;
use crate::redact::RedactRule;
use crate::server::{ConnectionLimits, OriginPolicy, PrivateRules, Settings, Tls, TlsError, TlsOptions};
use std::path::Path;
use std::sync::Arc;

/// Largest request head. Cookies and tokens may be long; 64 headers of a kilobyte fit.
const HEAD_BYTES: usize = 64 << 10;

/// What can change while a node runs.
pub(super) fn settings(config: &Config, keys: Keys) -> Settings {
    let names =
        |hosts: &[crate::config::HostName]| hosts.iter().map(|host| host.as_str().to_owned()).collect();
    let client = &config.client;
    let limits = &config.limits;
    Settings {
        app: PrivateRules {
            hosts: names(&config.app.allowed_hosts),
            uids: config.app.allowed_uids.clone(),
            token: keys.app_token,
        },
        admin: PrivateRules {
            hosts: names(&config.admin.allowed_hosts),
            uids: config.admin.allowed_uids.clone(),
            token: keys.admin_token,
        },
        credentials: config.takes_cookies() && !client.allowed_origins.is_empty(),
        proxies: client.trusted_proxies.clone(),
        origins: if client.allowed_origins.is_empty() {
            OriginPolicy::Default
        } else {
            OriginPolicy::Listed(client.allowed_origins.clone())
        },
        authority: keys.authority,
        auth_cookie: Some(config.auth.cookie.clone()).filter(|cookie| !cookie.is_empty()),
        auth_timeout: config.auth.timeout,
        rules: config.channels.clone(),
        routes: client.routes.clone(),
        heartbeat: client.heartbeat,
        sse_heartbeat: client.sse_heartbeat,
        stall_timeout: client.stall_timeout,
        idle_timeout: client.idle_timeout,
        intake: IntakeLimits {
            event_bytes: limits.event_bytes.0.min(limits.body_bytes.0) as usize,
            ..IntakeLimits::default()
        },
        body_bytes: limits.body_bytes.0 as usize,
        body_timeout: limits.body_timeout,
        subscriptions: limits.subscriptions,
        message_bytes: limits.message_bytes.0 as usize,
        connections: limits.connections.map_or(0, |most| most.get()),
        connections_per_ip: limits.connections_per_ip.map_or(0, |most| most.get()),
        handshakes_per_ip: limits.handshakes_per_ip.map_or(0, |most| most.get()),
        messages_per_second: limits.messages_per_second.map_or(0, |most| most.get()),
        bytes_per_second: u32::try_from(limits.bytes_per_second.0).unwrap_or(u32::MAX),
        offences_per_ip: limits.offences_per_ip.map_or(0, |most| most.get()),
        ban: limits.ban,
        probe_interval: config.bus.probe_interval,
    }
}

/// The keys of what is kept on disk.
pub(crate) fn keyring(config: &Config) -> Result<Keyring, KeyFileError> {
    let path = &config.log.encryption_key_file;
    if path.as_os_str().is_empty() { Ok(Keyring::none()) } else { Keyring::load(path) }
}

/// What is stripped from events.
pub(super) fn redact_rules(config: &Config) -> impl Iterator<Item = RedactRule> {
    config
        .channels
        .iter()
        .map(|rule| RedactRule { pattern: rule.pattern.clone(), paths: rule.redact.clone() })
}

/// What is kept of events: the rules of channels, as the log knows them.
pub(super) fn kept(config: &Config) -> Vec<Rule> {
    config
        .channels
        .iter()
        .map(|rule| Rule {
            pattern: rule.pattern.clone(),
            ttl: rule.ttl,
            max_events: rule.max_events.map(|most| most.get()),
            store: rule.store,
        })
        .collect()
}

/// What those who come are asked for.
pub(super) struct Keys {
    authority: Option<Arc<Authority>>,
    app_token: Option<SharedToken>,
    admin_token: Option<SharedToken>,
}

/// Reads all keys and tokens.
pub(super) fn keys(
    config: &Config,
    revocations: &Arc<Revocations>,
    before: Option<&Authority>,
) -> Result<Keys, AuthError> {
    Ok(Keys {
        authority: authority(config, revocations, before)?,
        app_token: shared_token("app.token_file", &config.app.token_file)?,
        admin_token: shared_token("admin.token_file", &config.admin.token_file)?,
    })
}

fn shared_token(key: &'static str, path: &Path) -> Result<Option<SharedToken>, AuthError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    match SharedToken::new(&read_secret(key, path)?) {
        Some(token) => Ok(Some(token)),
        None => Err(AuthError::Key { key, error: KeyError::EmptySecret }),
    }
}

/// What clients are asked; none where nothing is configured.
pub(super) fn authority(
    config: &Config,
    revocations: &Arc<Revocations>,
    before: Option<&Authority>,
) -> Result<Option<Arc<Authority>>, AuthError> {
    if !config.asks_who_comes() {
        return Ok(None);
    }
    let auth = &config.auth;
    let options = AuthOptions {
        secret: auth.secret.as_ref().map(|secret| secret.expose().to_owned()).unwrap_or_default(),
        secret_file: auth.secret_file.clone(),
        public_key_file: auth.public_key_file.clone(),
        jwks_url: auth.jwks_url.clone(),
        webhook: config.webhook.url.clone().map(|url| WebhookOptions {
            url,
            headers: config.webhook.headers.iter().map(|header| header.0.clone()).collect(),
            timeout: config.webhook.timeout,
            cache: config.webhook.cache,
            on_error: config.webhook.on_error.0,
        }),
        algorithms: auth.algorithms.clone(),
        rules: TokenRules {
            issuers: auth.issuer.clone(),
            audiences: auth.audience.clone(),
            leeway: auth.leeway,
            require_exp: auth.require_exp,
        },
        default: auth.default.0.clone(),
        anonymous: auth.anonymous.0.clone(),
    };
    Authority::new(&options, revocations.clone(), before).map(|authority| Some(Arc::new(authority)))
}

/// Bounds on every connection.
pub(super) fn connection_limits(config: &Config) -> ConnectionLimits {
    ConnectionLimits { header_timeout: config.limits.header_timeout, head_bytes: HEAD_BYTES }
}

/// The certificates of the listeners; none where a listener speaks plainly.
#[derive(Clone, Default)]
pub(super) struct Certificates {
    pub(super) app: Option<Tls>,
    pub(super) client: Option<Tls>,
    pub(super) admin: Option<Tls>,
}

/// Reads all certificates.
pub(super) fn certificates(config: &Config) -> Result<Certificates, TlsError> {
    let load = |cert: &Path, key: &Path, client_ca: &Path| {
        let options =
            TlsOptions { cert_file: cert.into(), key_file: key.into(), client_ca_file: client_ca.into() };
        (!cert.as_os_str().is_empty()).then(|| Tls::load(&options)).transpose()
    };
    let (app, client, admin) = (&config.app, &config.client, &config.admin);
    Ok(Certificates {
        app: load(&app.tls_cert_file, &app.tls_key_file, &app.tls_client_ca_file)?,
        client: load(&client.tls_cert_file, &client.tls_key_file, &client.tls_client_ca_file)?,
        admin: load(&admin.tls_cert_file, &admin.tls_key_file, &admin.tls_client_ca_file)?,
    })
}

impl Certificates {
    /// Puts other certificates in force. Whether a listener speaks TLS at all stays as it is.
    pub(super) fn replace_by(&self, other: &Self) {
        let pairs = [(&self.app, &other.app), (&self.client, &other.client), (&self.admin, &other.admin)];
        for (mine, fresh) in pairs {
            if let (Some(mine), Some(fresh)) = (mine, fresh) {
                mine.replace_by(fresh);
            }
        }
    }
}
