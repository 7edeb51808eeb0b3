//! Connecting to a server of Redis: who we are, encryption, time limits.

use super::error::link_error;
use super::{RedisAddress, RedisLogin, RedisOptions, RedisServers};
use crate::bus::backend::LinkError;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    ProtocolVersion, RedisConnectionInfo, RedisResult, TlsCertificates,
};
use std::path::Path;
use std::time::Duration;

/// How long a connect may take, with encryption and login.
const CONNECT: Duration = Duration::from_secs(2);
/// How long an answer may take unless a connection is for something longer.
pub(super) const ANSWER: Duration = Duration::from_secs(3);

/// What connecting takes, read from files for each link, as they may have been rotated since the last.
pub(super) struct Access {
    data: RedisConnectionInfo,
    sentinel: RedisConnectionInfo,
    tls: Option<TlsCertificates>,
}

/// To which kind of server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum To {
    Data,
    Sentinel,
}

impl Access {
    /// Reads what the options name.
    pub(super) async fn read(options: &RedisOptions) -> Result<Self, LinkError> {
        let options = options.clone();
        let read = tokio::task::spawn_blocking(move || Self::read_files(&options));
        read.await.map_err(|_| LinkError::Away("the thread that reads files ended".into()))?
    }

    fn read_files(options: &RedisOptions) -> Result<Self, LinkError> {
        let sentinel = match &options.servers {
            RedisServers::Sentinel { login, .. } => info(login)?,
            RedisServers::Single(_) | RedisServers::Cluster(_) => RedisConnectionInfo::default(),
        };
        let tls = match &options.tls {
            None => None,
            Some(tls) => {
                let identity = |identity: &super::RedisIdentity| {
                    Ok(ClientTlsConfig {
                        client_cert: file(&identity.cert_file)?,
                        client_key: file(&identity.key_file)?,
                    })
                };
                Some(TlsCertificates {
                    client_tls: tls.identity.as_ref().map(identity).transpose()?,
                    root_cert: tls.ca_file.as_deref().map(file).transpose()?,
                })
            }
        };
        if tls.is_some() {
            // Several libraries may each bring a provider of cryptography; the TLS library then takes none by
            // itself, and panics. It fails only if there is one already.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        Ok(Self { data: info(&options.login)?.set_db(i64::from(options.database)), sentinel, tls })
    }

    /// A connection on which an answer may take `answer`.
    pub(super) async fn connect(
        &self,
        address: &RedisAddress,
        to: To,
        answer: Duration,
    ) -> Result<MultiplexedConnection, LinkError> {
        self.connect_with(address, to, config(answer), ProtocolVersion::RESP2).await
    }

    /// A connection that hands everything that the server sends unasked to `sink`, which must not block.
    pub(super) async fn connect_for_pushes(
        &self,
        address: &RedisAddress,
        sink: impl redis::aio::AsyncPushSender,
    ) -> Result<MultiplexedConnection, LinkError> {
        self.connect_with(address, To::Data, config(ANSWER).set_push_sender(sink), ProtocolVersion::RESP3)
            .await
    }

    async fn connect_with(
        &self,
        address: &RedisAddress,
        to: To,
        config: AsyncConnectionConfig,
        protocol: ProtocolVersion,
    ) -> Result<MultiplexedConnection, LinkError> {
        let connecting = async {
            self.client(address, to, protocol)?.get_multiplexed_async_connection_with_config(&config).await
        };
        match tokio::time::timeout(CONNECT, connecting).await {
            Ok(connected) => connected.map_err(|error| link_error(address, error)),
            Err(_) => {
                Err(LinkError::Away(format!("Redis at {address} did not answer a connect in {CONNECT:?}")))
            }
        }
    }

    fn client(&self, address: &RedisAddress, to: To, protocol: ProtocolVersion) -> RedisResult<Client> {
        let (host, port) = (address.host.clone(), address.port);
        let server = match self.tls {
            None => ConnectionAddr::Tcp(host, port),
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        };
        let login = match to {
            To::Data => &self.data,
            To::Sentinel => &self.sentinel,
        };
        let info: ConnectionInfo = server
            .into_connection_info()?
            .set_redis_settings(login.clone().set_protocol(protocol))
            .set_tcp_settings(tcp_settings());
        match &self.tls {
            None => Client::open(info),
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
        }
    }
}

fn config(answer: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(answer))
}

/// A server whose host is gone sends nothing any more, not even that it is gone.
fn tcp_settings() -> TcpSettings {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(2))
        .with_retries(3);
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive)
}

fn info(login: &RedisLogin) -> Result<RedisConnectionInfo, LinkError> {
    let mut info = RedisConnectionInfo::default().set_lib_name("sidewire", env!("CARGO_PKG_VERSION"));
    if let Some(user) = &login.user {
        info = info.set_username(user);
    }
    if let Some(source) = &login.password {
        let password =
            source.read().map_err(|error| LinkError::Refused(format!("the password for Redis: {error}")))?;
        info = info.set_password(password.expose());
    }
    Ok(info)
}

fn file(path: &Path) -> Result<Vec<u8>, LinkError> {
    std::fs::read(path)
        .map_err(|error| LinkError::Refused(format!("{} cannot be read: {error}", path.display())))
}
