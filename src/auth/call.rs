//! Calls to the two hosts that the operator names: the issuer of tokens and the app. Nothing that a client sends
//! has a say in where they go, no redirect is followed, and size and time are bounded.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Largest answer.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The address of a host to call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallUrl {
    uri: Uri,
    host: Box<str>,
    port: u16,
    tls: bool,
}

/// How far a call without TLS may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Plain {
    /// To this host.
    Loopback,
    /// To this network too: other containers, other pods.
    PrivateNetwork,
}

impl FromStr for CallUrl {
    type Err = CallUrlError;

    fn from_str(text: &str) -> Result<Self, CallUrlError> {
        let uri: Uri = text.parse().map_err(|_| CallUrlError)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(CallUrlError),
        };
        let authority = uri.authority().ok_or(CallUrlError)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        // A resolver would take `2130706433`, `0x7f.1` and `127.1` for addresses, a reader for names.
        let last_label = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        let looks_numeric = last_label.starts_with(|first: char| first.is_ascii_digit());
        let is_address = host.parse::<IpAddr>().is_ok();
        if host.is_empty() || authority.as_str().contains('@') || (looks_numeric && !is_address) {
            return Err(CallUrlError);
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { host: host.into(), port, tls, uri })
    }
}

impl CallUrl {
    /// Whether what is sent can be read on the way.
    pub fn is_plain(&self) -> bool {
        !self.tls
    }

    /// Whether it names this host.
    pub fn is_loopback(&self) -> bool {
        &*self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

impl fmt::Display for CallUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

/// The text is no URL that can be called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallUrlError;

impl fmt::Display for CallUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "is not the URL of a host to call; write scheme, host and path, without user or password, such as \"https://issuer.example.com/keys.json\"",
        )
    }
}

impl std::error::Error for CallUrlError {}

/// A call that brought no answer. For the log: who calls can only try again later.
#[derive(Debug)]
pub(super) struct CallError(String);

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<hyper::Error> for CallError {
    fn from(error: hyper::Error) -> Self {
        Self(error.to_string())
    }
}

/// Calls one URL, each time over a connection of its own.
pub(super) struct Caller {
    url: CallUrl,
    plain: Plain,
    timeout: Duration,
}

impl Caller {
    pub(super) fn new(url: CallUrl, plain: Plain, timeout: Duration) -> Self {
        Self { url, plain, timeout }
    }

    pub(super) fn url(&self) -> &CallUrl {
        &self.url
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn call(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), CallError> {
        match tokio::time::timeout(self.timeout, self.call_now(method, headers, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError(format!("no answer within {:?}", self.timeout))),
        }
    }

    async fn call_now(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let socket = self.connect().await?;
        let path = self.url.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder().method(method).uri(path);
        if let Some(all) = request.headers_mut() {
            *all = headers;
            if let Some(host) =
                self.url.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok())
            {
                all.insert(HOST, host);
            }
            all.insert(USER_AGENT, HeaderValue::from_static(concat!("sidewire/", env!("CARGO_PKG_VERSION"))));
        }
        let request = request.body(Full::new(body)).map_err(|error| CallError(error.to_string()))?;
        if !self.url.tls {
            return exchange(socket, request).await;
        }
        let name = ServerName::try_from(self.url.host.to_string())
            .map_err(|_| CallError("the host is no name that a certificate can have".into()))?;
        exchange(connector()?.connect(name, socket).await?, request).await
    }

    /// Resolves, looks at what came out, and connects to that and nothing else: a name that means another host a
    /// moment later changes nothing.
    async fn connect(&self) -> Result<TcpStream, CallError> {
        let mut last = None;
        for address in tokio::net::lookup_host((&*self.url.host, self.url.port)).await? {
            if !self.may_call(address.ip()) {
                let what = if self.url.tls {
                    "a link-local or special address"
                } else {
                    "an address beyond what is private"
                };
                last = Some(CallError(format!("{} is {what}, which is not called", address.ip())));
                continue;
            }
            match connect(address).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = Some(CallError(format!("{address}: {error}"))),
            }
        }
        Err(last.unwrap_or_else(|| CallError("the host has no address".into())))
    }

    fn may_call(&self, ip: IpAddr) -> bool {
        match (class(ip), self.url.tls, self.plain) {
            (Class::Special, _, _) => false,
            (Class::Loopback, _, _) | (_, true, _) => true,
            (Class::Private, false, plain) => plain == Plain::PrivateNetwork,
            (Class::Public, false, _) => false,
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

async fn exchange<S>(socket: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    // It ends with the sender, at the latest when the call times out.
    let driver = tokio::spawn(connection);
    let answer = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let (mut body, mut all) = (answer.into_body(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                if all.len() + data.len() > MAX_ANSWER_BYTES {
                    return Err(CallError(format!("the answer is larger than {MAX_ANSWER_BYTES} bytes")));
                }
                all.extend_from_slice(&data);
            }
        }
        Ok((status, all.freeze()))
    }
    .await;
    driver.abort();
    answer
}

/// The certificates that this system trusts; `SSL_CERT_FILE` names others. None if there are none.
pub(crate) fn system_roots() -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    (added > 0).then_some(roots)
}

fn connector() -> Result<TlsConnector, CallError> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone().into());
    }
    let roots = system_roots().ok_or_else(|| {
        CallError(
            "this system trusts no certificates; install ca-certificates, or name a file by SSL_CERT_FILE"
                .into(),
        )
    })?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| CallError(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(CONFIG.get_or_init(|| Arc::new(config)).clone().into())
}

/// Kinds of addresses, as calls go.
#[derive(PartialEq, Eq, Debug)]
enum Class {
    Loopback,
    Private,
    Public,
    /// Link-local, where clouds keep the secrets of their machines, and what is no host at all.
    Special,
}

fn class(ip: IpAddr) -> Class {
    match ip.to_canonical() {
        IpAddr::V4(ip) => class_4(ip),
        IpAddr::V6(ip) => {
            let segments = ip.segments();
            // Translated to IPv4 on the way (RFC 6052).
            if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
                let [.., a, b, c, d] = ip.octets();
                return class_4(Ipv4Addr::new(a, b, c, d));
            }
            let metadata = segments == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];
            if ip.is_loopback() {
                Class::Loopback
            } else if metadata || ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() {
                Class::Special
            } else if ip.is_unique_local() {
                Class::Private
            } else {
                Class::Public
            }
        }
    }
}

fn class_4(ip: Ipv4Addr) -> Class {
    if ip.is_loopback() {
        Class::Loopback
    } else if ip.is_link_local() || ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0 {
        Class::Special
    } else if ip.is_private() {
        Class::Private
    } else {
        Class::Public
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_looks_like_a_host_is_refused() {
        for text in
            ["https://issuer.example/keys", "http://127.0.0.1:8000/a?b", "http://[::1]:8000/", "https://app"]
        {
            assert_eq!(
                text.parse::<CallUrl>().unwrap().to_string().trim_end_matches('/'),
                text.trim_end_matches('/')
            );
        }
        for text in [
            "",
            "issuer.example",
            "/keys",
            "ftp://a/",
            "file:///etc/passwd",
            "https://",
            "https://user:password@a/",
            "https://127.0.0.1@evil.example/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://a.1./",
        ] {
            assert!(text.parse::<CallUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_that_hold_secrets_are_not_called() {
        let may = |url: &str, plain, ip: &str| {
            let caller = Caller::new(url.parse().unwrap(), plain, Duration::from_secs(1));
            caller.may_call(ip.parse().unwrap())
        };
        for ip in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fd00:ec2::254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            assert!(!may("https://a/", Plain::PrivateNetwork, ip), "{ip}");
            assert!(!may("http://a/", Plain::PrivateNetwork, ip), "{ip}");
        }
        for (ip, loopback, private) in [
            ("127.0.0.1", true, true),
            ("::1", true, true),
            ("10.0.0.1", false, true),
            ("fd00::1", false, true),
            ("8.8.8.8", false, false),
        ] {
            assert!(may("https://a/", Plain::Loopback, ip));
            assert_eq!(may("http://a/", Plain::Loopback, ip), loopback, "{ip}");
            assert_eq!(may("http://a/", Plain::PrivateNetwork, ip), private, "{ip}");
        }
    }
}
