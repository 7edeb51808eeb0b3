//! Where the servers are, and who we are there.

use crate::bus::backend::LinkError;
use crate::config::{BusConfig, NatsUrl};
use crate::secret::{Secret, SecretSource};
use async_nats::{ConnectOptions, ServerAddr, rustls};
use std::fmt;
use std::path::PathBuf;

/// Servers, and how to be let in.
#[derive(Clone, Debug)]
pub struct Access {
    servers: Vec<ServerAddr>,
    encrypted: bool,
    identity: Identity,
    files: TlsFiles,
}

/// Who we are. What stands in a file is read at each connect, so that it can be rotated.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Identity {
    Anonymous,
    Password {
        user: String,
        password: SecretSource,
    },
    Token(SecretSource),
    /// A file with a JWT and its seed.
    Credentials(SecretSource),
    /// The seed of an nkey.
    Nkey(SecretSource),
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct TlsFiles {
    authority: Option<PathBuf>,
    certificate_and_key: Option<(PathBuf, PathBuf)>,
}

impl Access {
    /// As the configuration says. Of several ways to say who we are the strongest counts: credentials file, nkey,
    /// token, password.
    pub fn configured(url: &NatsUrl, config: &BusConfig) -> Result<Self, LinkError> {
        let scheme = if url.tls { "tls" } else { "nats" };
        let servers = url
            .hosts
            .iter()
            .map(|host| format!("{scheme}://{host}").parse())
            .collect::<Result<_, _>>()
            .map_err(|error| {
                LinkError::Refused(format!("bus.url has a host that NATS cannot use: {error}"))
            })?;
        let file = |path: &Option<PathBuf>| path.clone().map(SecretSource::File);
        let identity = if let Some(source) = file(&config.credentials_file) {
            Identity::Credentials(source)
        } else if let Some(source) = file(&config.nkey_file) {
            Identity::Nkey(source)
        } else if let Some(source) = config.token() {
            Identity::Token(source)
        } else {
            match (config.user(), config.password()) {
                (Some(user), Some(password)) => Identity::Password { user: user.to_owned(), password },
                // `nats://token@host`, as NATS itself has it.
                (Some(token), None) => Identity::Token(SecretSource::Given(Secret::new(token))),
                _ => Identity::Anonymous,
            }
        };
        let files = TlsFiles {
            authority: config.tls_ca_file.clone(),
            certificate_and_key: config.tls_cert_file.clone().zip(config.tls_key_file.clone()),
        };
        Ok(Self { servers, encrypted: url.tls, identity, files })
    }

    pub(super) fn servers(&self) -> &[ServerAddr] {
        &self.servers
    }

    /// For a connect now.
    pub(super) async fn options(&self) -> Result<ConnectOptions, LinkError> {
        // The client takes the provider of the process, and panics where there is none. If there is one already,
        // it stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut options = ConnectOptions::new().require_tls(self.encrypted);
        if let Some(authority) = &self.files.authority {
            options = options.add_root_certificates(authority.clone());
        }
        if let Some((certificate, key)) = &self.files.certificate_and_key {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        Ok(match &self.identity {
            Identity::Anonymous => options,
            Identity::Password { user, password } => {
                options.user_and_password(user.clone(), read(password).await?.expose().to_owned())
            }
            Identity::Token(token) => options.token(read(token).await?.expose().to_owned()),
            Identity::Nkey(seed) => options.nkey(read(seed).await?.expose().trim().to_owned()),
            Identity::Credentials(source) => {
                options.credentials(read(source).await?.expose()).map_err(|_| {
                    LinkError::Refused(
                        "bus.credentials_file is no NATS credentials file; write one with `nsc generate creds`"
                            .into(),
                    )
                })?
            }
        })
    }
}

/// The servers, without any secret.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.encrypted { "tls://" } else { "nats://" })?;
        for (index, server) in self.servers.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let host = server.host();
            if host.contains(':') {
                write!(f, "{comma}[{host}]:{}", server.port())?;
            } else {
                write!(f, "{comma}{host}:{}", server.port())?;
            }
        }
        Ok(())
    }
}

async fn read(source: &SecretSource) -> Result<Secret, LinkError> {
    let source = source.clone();
    let secret = tokio::task::spawn_blocking(move || source.read()).await;
    secret
        .map_err(|_| LinkError::Away("this node is stopping".into()))?
        .map_err(|error| LinkError::Refused(error.to_string()))
}
