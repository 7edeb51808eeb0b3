//! Where a running node answers.

use super::error::CliError;
use super::tls::{self, Trust, TrustArgs};
use crate::config::{Config, ListenAddress, Sources};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::rustls::pki_types::ServerName;

/// How long a node may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The address of one listener of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NodeAddress {
    /// `host:port`; the host may be a name.
    Tcp(String),
    /// The same over TLS.
    Tls {
        /// `host:port`.
        authority: String,
        /// Who is believed to be there.
        trust: Arc<Trust>,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// A connection to a node.
pub(super) trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

impl NodeAddress {
    /// What was typed, or else the first address that the configuration has for this listener.
    pub(super) fn resolve(
        typed: Option<Self>,
        trust: &TrustArgs,
        config: Option<PathBuf>,
        listener: Listener,
    ) -> Result<Self, CliError> {
        if let Some(address) = typed {
            return Ok(address.trusting(trust.of_typed()));
        }
        let config = Config::load(Sources::of_process(config))?;
        let (addresses, certificate) = listener.of(&config);
        let reached = addresses.iter().find_map(Self::reaching).map(|address| match address {
            Self::Tcp(authority) if !certificate.as_os_str().is_empty() => {
                Self::Tls { authority, trust: trust.of_configured(certificate).into() }
            }
            address => address,
        });
        reached.ok_or_else(|| {
            CliError::Input(
                "the configuration has no address for this listener; name it on the command line".into(),
            )
        })
    }

    /// The same address with another trust, where it is one over TLS.
    pub(super) fn trusting(self, trust: Trust) -> Self {
        match self {
            Self::Tls { authority, .. } => Self::Tls { authority, trust: trust.into() },
            address => address,
        }
    }

    /// What a request over this connection names as its host.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Tcp(authority) => authority,
            Self::Tls { authority, .. } => authority.strip_suffix(":443").unwrap_or(authority),
            Self::Unix(_) => "localhost",
        }
    }

    pub(super) async fn connect(&self) -> Result<Box<dyn Connection>, CliError> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, self.open()).await;
        opened
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| self.unreachable(error))
    }

    pub(super) fn unreachable(&self, reason: impl fmt::Display) -> CliError {
        CliError::Unreachable { address: self.clone(), reason: reason.to_string() }
    }

    async fn open(&self) -> io::Result<Box<dyn Connection>> {
        Ok(match self {
            Self::Tcp(authority) => Box::new(open_tcp(authority).await?),
            Self::Tls { authority, trust } => {
                let connector = tls::connector(trust)?;
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|_| {
                    io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "the host is no name that a certificate can have",
                    )
                })?;
                Box::new(connector.connect(name, open_tcp(authority).await?).await?)
            }
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    }

    /// How to reach a listener from its own host; `None` if it picks its port itself.
    fn reaching(listen: &ListenAddress) -> Option<Self> {
        match listen {
            ListenAddress::Unix(path) => Some(Self::Unix(path.clone())),
            ListenAddress::Tcp(address) if address.port() == 0 => None,
            ListenAddress::Tcp(address) => {
                let ip = match address.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                    ip => ip,
                };
                Some(Self::Tcp(SocketAddr::new(ip, address.port()).to_string()))
            }
        }
    }
}

async fn open_tcp(authority: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(authority).await?;
    // Small requests must not wait for one another.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A listener of the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) enum Listener {
    App,
    Client,
    Admin,
}

impl Listener {
    /// Where it listens, and its certificate; an empty path where it has none.
    fn of(self, config: &Config) -> (&[ListenAddress], &Path) {
        match self {
            Self::App => (&config.app.listen, &config.app.tls_cert_file),
            Self::Client => (&config.client.listen, &config.client.tls_cert_file),
            Self::Admin => (&config.admin.listen, &config.admin.tls_cert_file),
        }
    }
}

impl FromStr for NodeAddress {
    type Err = NodeAddressError;

    fn from_str(text: &str) -> Result<Self, NodeAddressError> {
        let error = || NodeAddressError(text.into());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(error()) } else { Ok(Self::Unix(path.into())) };
        }
        let over_tls = ["https://", "wss://"].into_iter().find_map(|scheme| text.strip_prefix(scheme));
        let plain = ["http://", "ws://"].into_iter().find_map(|scheme| text.strip_prefix(scheme));
        let is_url = over_tls.or(plain).is_some();
        let authority = over_tls.or(plain).unwrap_or(text);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let port = if over_tls.is_some() { 443 } else { 80 };
        let authority = match authority.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => authority.to_owned(),
            None if is_url && !authority.is_empty() => format!("{authority}:{port}"),
            _ => return Err(error()),
        };
        if authority.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'/' | b'?' | b'#' | b'@'))
        {
            return Err(error());
        }
        Ok(match over_tls {
            Some(_) => Self::Tls { authority, trust: Arc::default() },
            None => Self::Tcp(authority),
        })
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => f.write_str(authority),
            Self::Tls { authority, .. } => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The text is no address of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeAddressError(String);

impl fmt::Display for NodeAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an address; write host:port, http://host:port, https://host:port or unix:/path",
            self.0
        )
    }
}

impl std::error::Error for NodeAddressError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_form() {
        for (text, shown) in [
            ("localhost:7070", "localhost:7070"),
            ("http://node:7070", "node:7070"),
            ("http://node:7070/", "node:7070"),
            ("http://node", "node:80"),
            ("[::1]:7070", "[::1]:7070"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("ws://node:1", "node:1"),
            ("https://node", "https://node:443"),
            ("wss://node:8443/", "https://node:8443"),
            ("https://[::1]:1", "https://[::1]:1"),
        ] {
            assert_eq!(text.parse::<NodeAddress>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "node",
            ":7070",
            "unix:",
            "https://",
            "https://node:1/path",
            "ftp://node:1",
            "http://node:1/path",
            "node:x",
            "a b:1",
            "http://",
        ] {
            assert!(text.parse::<NodeAddress>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_listener_is_reached_from_its_own_host() {
        let reaching =
            |text: &str| NodeAddress::reaching(&text.parse().unwrap()).map(|address| address.to_string());
        assert_eq!(reaching("0.0.0.0:1").as_deref(), Some("127.0.0.1:1"));
        assert_eq!(reaching("[::]:1").as_deref(), Some("[::1]:1"));
        assert_eq!(reaching("10.0.0.1:1").as_deref(), Some("10.0.0.1:1"));
        assert_eq!(reaching("unix:/a").as_deref(), Some("unix:/a"));
        assert_eq!(reaching("127.0.0.1:0"), None);
        let public: NodeAddress = "https://node".parse().unwrap();
        assert_eq!(public.host(), "node");
    }
}
