//! Where the servers are, who we are there, and how a connect is prepared.

use crate::bus::backend::LinkError;
use crate::secret::{Secret, SecretSource};
use async_nats::{ConnectOptions, ServerAddr, rustls};
use std::fmt;
use std::path::PathBuf;

/// How NATS is reached, and which part of it is ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NatsOptions {
    /// Some servers; any of them will do.
    pub servers: Vec<NatsAddress>,
    /// Whether connections must be encrypted. They are as well if the server asks for it.
    pub encrypted: bool,
    /// Who we are.
    pub identity: NatsIdentity,
    /// Whom we believe to be the server, instead of whom the system believes.
    pub ca_file: Option<PathBuf>,
    /// The certificate that we show, and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// What tells our names from those of others on the same servers: letters, digits, `_` and `-`.
    pub namespace: String,
}

/// A server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NatsAddress {
    /// Its name, or its IP address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Who we are. What stands in a file is read at each connect, so that it can be rotated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NatsIdentity {
    /// Nobody in particular.
    Anonymous,
    /// A user with a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: SecretSource,
    },
    /// Whoever has this token.
    Token(SecretSource),
    /// A JWT and its seed, as `nsc generate creds` writes them.
    Credentials(SecretSource),
    /// The seed of an nkey.
    Nkey(SecretSource),
}

impl NatsOptions {
    pub(super) fn addresses(&self) -> Result<Vec<ServerAddr>, LinkError> {
        let scheme = self.scheme();
        let parse = |address: &NatsAddress| {
            format!("{scheme}://{address}").parse().map_err(|error| {
                LinkError::Refused(format!("{address} in bus.url is no host that NATS can use: {error}"))
            })
        };
        self.servers.iter().map(parse).collect()
    }

    fn scheme(&self) -> &'static str {
        if self.encrypted { "tls" } else { "nats" }
    }

    /// For a connect now.
    pub(super) async fn for_connect(&self) -> Result<ConnectOptions, LinkError> {
        // The client takes the provider of the process, and panics where there is none. If there is one already,
        // it stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut options = ConnectOptions::new().require_tls(self.encrypted);
        if let Some(file) = &self.ca_file {
            options = options.add_root_certificates(file.clone());
        }
        if let Some((certificate, key)) = &self.certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        Ok(match &self.identity {
            NatsIdentity::Anonymous => options,
            NatsIdentity::Password { user, password } => {
                options.user_and_password(user.clone(), read(password).await?.expose().to_owned())
            }
            NatsIdentity::Token(token) => options.token(read(token).await?.expose().to_owned()),
            NatsIdentity::Nkey(seed) => options.nkey(read(seed).await?.expose().trim().to_owned()),
            NatsIdentity::Credentials(source) => {
                // The client wants the last line ended, and a secret is read without its last line break.
                let text = format!("{}\n", read(source).await?.expose());
                options.credentials(&text).map_err(|_| {
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
impl fmt::Display for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme())?;
        for (index, server) in self.servers.iter().enumerate() {
            write!(f, "{}{server}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for NatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

async fn read(source: &SecretSource) -> Result<Secret, LinkError> {
    let source = source.clone();
    let secret = tokio::task::spawn_blocking(move || source.read()).await;
    secret
        .map_err(|_| LinkError::Away("this node is stopping".into()))?
        .map_err(|error| LinkError::Refused(error.to_string()))
}
