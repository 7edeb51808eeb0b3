//! TLS on a listener. It ends in a task of its own, and what it carried goes on over a pair of local sockets: all
//! that is behind it sees a plain socket, with its readiness, its partial writes and its bounded buffers.

use super::stream::Socket;
use socket2::SockRef;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_buf, split};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// Bytes that may wait between the two halves: what a client does not take shall wait in the log.
const PAIR_BYTES: usize = 32 << 10;
/// One read of what a client sends, and one write of what it gets.
const COPY_BYTES: usize = 8 << 10;
/// How long a client may take to say that it has closed, once we have.
const LINGER: Duration = Duration::from_secs(3);

/// Where the certificates of a listener are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsOptions {
    /// The certificate, then those that it was signed with.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// Who signs the certificates that clients must show; empty where they need none.
    pub client_ca_file: PathBuf,
}

/// Why there is no TLS with these files.
#[derive(Debug)]
pub struct TlsError {
    path: PathBuf,
    reason: String,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for TlsError {}

/// The certificates of a listener, which can be replaced while it listens.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    /// Reads the files.
    pub fn load(options: &TlsOptions) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(read(options)?))))
    }

    /// Takes the certificates of another: for connections from now on, those that are open stay as they are.
    pub fn replace_by(&self, other: &Self) {
        let fresh = other.current();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    fn current(&self) -> Arc<ServerConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shakes hands within `timeout`. What comes of it is a plain stream, and the work of carrying bytes between
    /// that and the client.
    pub(super) async fn accept(
        &self,
        socket: TcpStream,
        timeout: Duration,
    ) -> io::Result<(Socket, impl Future<Output = ()> + Send + use<>)> {
        let (local, peer) = (socket.local_addr()?, socket.peer_addr()?);
        let handshake = TlsAcceptor::from(self.current()).accept(socket);
        let tls = tokio::time::timeout(timeout, handshake).await??;
        let (near, far) = UnixStream::pair()?;
        for end in [&near, &far] {
            SockRef::from(end).set_send_buffer_size(PAIR_BYTES)?;
        }
        let (local_ip, peer_ip) = (local.ip().to_canonical(), peer.ip().to_canonical());
        Ok((Socket::Tls { stream: near, local_ip, peer_ip }, carry(tls, far)))
    }
}

/// Carries bytes both ways until both sides have ended, or ours has and the client does not follow.
async fn carry(tls: TlsStream<TcpStream>, plain: UnixStream) {
    let (from_client, mut to_client) = split(tls);
    let (from_node, mut to_node) = plain.into_split();
    let inbound = async {
        let mut from_client = tokio::io::BufReader::with_capacity(COPY_BYTES, from_client);
        // Whichever side broke, the other one is to see an end.
        let _ = copy_buf(&mut from_client, &mut to_node).await;
        let _ = to_node.shutdown().await;
        from_client
    };
    let outbound = async {
        let mut from_node = tokio::io::BufReader::with_capacity(COPY_BYTES, from_node);
        let _ = copy_buf(&mut from_node, &mut to_client).await;
        let _ = tokio::time::timeout(LINGER, to_client.shutdown()).await;
    };
    let mut inbound = std::pin::pin!(inbound);
    let mut outbound = std::pin::pin!(outbound);
    tokio::select! {
        _ = &mut inbound => outbound.await,
        () = &mut outbound => {
            // What it still sends is taken, so that a reset does not destroy what it has not read.
            let _ = tokio::time::timeout(LINGER, async {
                let mut rest = inbound.await;
                let mut discarded = [0; 1024];
                while rest.read(&mut discarded).await.is_ok_and(|count| count > 0) {}
            }).await;
        }
    }
}

fn read(options: &TlsOptions) -> Result<Arc<ServerConfig>, TlsError> {
    let failed =
        |path: &Path, reason: &dyn fmt::Display| TlsError { path: path.into(), reason: reason.to_string() };
    let chain = certificates(&options.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&options.key_file)
        .map_err(|error| failed(&options.key_file, &format_args!("holds no private key in PEM: {error}")))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&options.cert_file, &error))?;
    let builder = if options.client_ca_file.as_os_str().is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&options.client_ca_file)? {
            roots.add(certificate).map_err(|error| failed(&options.client_ca_file, &error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| failed(&options.client_ca_file, &error))?;
        builder.with_client_cert_verifier(verifier)
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| failed(&options.cert_file, &format_args!("does not fit its key: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason: &dyn fmt::Display| TlsError { path: path.into(), reason: reason.to_string() };
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))?.collect();
    let all = all.map_err(|error| failed(&error))?;
    if all.is_empty() { Err(failed(&"holds no certificate in PEM")) } else { Ok(all) }
}
