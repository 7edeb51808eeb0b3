//! Binding and accepting.

use super::capacity::{Capacity, Place};
use super::connection::{ConnectionLimits, Handler, Peer, serve};
use super::proxy_protocol;
use super::stream::{Socket as Connected, Stream};
use super::system_name::{SystemGroup, SystemUser};
use super::tls::Tls;
use crate::config::Network;
use crate::systemd::PassedSocket;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Connections that may wait to be accepted: a restart of a busy app must not be refused.
const BACKLOG: i32 = 4096;

/// Bytes that the kernel keeps unsent for one connection. More would sit in its memory for a slow client,
/// where our log has them already.
const UNSENT_BYTES: u32 = 128 << 10;

/// A peer that is gone without a word is noticed after about this, also while nothing is sent.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket, with the mode of its file.
    Unix {
        /// Its path.
        path: PathBuf,
        /// The mode of the file.
        mode: u32,
        /// Who owns the file; none for who runs this.
        user: Option<SystemUser>,
        /// Its group; none for that of who runs this.
        group: Option<SystemGroup>,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound socket.
pub struct Listener {
    socket: Bound,
    address: Address,
    tls: Option<Tls>,
    /// Whose connections begin with a PROXY header; others are not served then.
    proxies: Option<Arc<[Network]>>,
    /// How many connections it takes; none for as many as come.
    capacity: Option<Arc<Capacity>>,
}

enum Bound {
    Tcp(TcpListener),
    /// The file is ours to remove, unless the socket was passed to us.
    Unix {
        listener: UnixListener,
        _file: Option<UnixSocketFile>,
    },
}

/// Removes the file of a Unix socket when it is no longer listened on.
struct UnixSocketFile(PathBuf);

impl Drop for UnixSocketFile {
    fn drop(&mut self) {
        // It may be gone already; there is nothing to do about it.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    fn new(socket: Bound, address: Address) -> Self {
        Self { socket, address, tls: None, proxies: None, capacity: None }
    }

    /// Binds. The port 0 takes any free one.
    pub fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(wanted) => {
                let socket = Socket::new(Domain::for_address(*wanted), Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                socket.set_nonblocking(true)?;
                socket.bind(&(*wanted).into())?;
                socket.listen(BACKLOG)?;
                let listener = TcpListener::from_std(socket.into())?;
                let address = Address::Tcp(listener.local_addr()?);
                Ok(Self::new(Bound::Tcp(listener), address))
            }
            Address::Unix { path, mode, user, group } => {
                // Looked up before anything is made: a name that is none leaves nothing behind.
                let user = user.as_ref().map(SystemUser::id).transpose()?;
                let group = group.as_ref().map(SystemGroup::id).transpose()?;
                remove_stale(path)?;
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                socket.bind(&socket2::SockAddr::unix(path)?)?;
                let file = Some(UnixSocketFile(path.clone()));
                // Nobody can connect before `listen`, so owner and mode are in force for the first one.
                if user.is_some() || group.is_some() {
                    std::os::unix::fs::chown(path, user, group).map_err(|error| may_not_give(&error))?;
                }
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode))?;
                socket.listen(BACKLOG)?;
                let listener = UnixListener::from_std(socket.into())?;
                Ok(Self::new(Bound::Unix { listener, _file: file }, address.clone()))
            }
        }
    }

    /// Speaks TLS where it is TCP: who can open a Unix socket is on this host.
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// Takes connections of these proxies only, where it is TCP, each of which begins with a PROXY header.
    pub fn with_proxies(self, proxies: Option<Arc<[Network]>>) -> Self {
        Self { proxies, ..self }
    }

    /// Closes connections for which there is no room.
    pub fn with_capacity(self, capacity: Option<Arc<Capacity>>) -> Self {
        Self { capacity, ..self }
    }

    /// Takes over a socket that is listened on already.
    pub fn passed(socket: PassedSocket) -> io::Result<Self> {
        match socket {
            PassedSocket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let address = Address::Tcp(listener.local_addr()?);
                Ok(Self::new(Bound::Tcp(TcpListener::from_std(listener)?), address))
            }
            PassedSocket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let name = listener.local_addr()?;
                let path = name.as_pathname().unwrap_or(Path::new("(without a name)")).to_owned();
                let mode = std::fs::metadata(&path).map_or(0, |file| file.permissions().mode() & 0o7777);
                let listener = UnixListener::from_std(listener)?;
                let address = Address::Unix { path, mode, user: None, group: None };
                Ok(Self::new(Bound::Unix { listener, _file: None }, address))
            }
        }
    }

    /// Where it listens: with the port that was taken.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts and serves until `stopping`, then waits for the connections to end.
    pub async fn run<H: Handler>(
        self,
        handler: Arc<H>,
        limits: ConnectionLimits,
        mut stopping: watch::Receiver<bool>,
    ) {
        let mut connections = JoinSet::new();
        let mut pause = Duration::from_millis(5);
        let signal = stopping.clone();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                _ = stopping.wait_for(|stopping| *stopping) => break,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok(socket) => {
                    pause = Duration::from_millis(5);
                    let place = match &self.capacity {
                        Some(capacity) => match capacity.enter(remote_ip(&socket)) {
                            Some(place) => Some(place),
                            None => continue,
                        },
                        None => None,
                    };
                    let (handler, signal) = (handler.clone(), signal.clone());
                    match socket {
                        Connected::Tcp(socket) if self.tls.is_some() || self.proxies.is_some() => {
                            let front = Front { tls: self.tls.clone(), proxies: self.proxies.clone(), place };
                            connections.spawn(front.serve(socket, handler, limits, signal));
                        }
                        socket => {
                            let stream = Stream::new(socket, place);
                            let peer = Peer::of(&stream);
                            connections.spawn(serve(stream, peer, handler, limits, signal));
                        }
                    }
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    // Out of descriptors, most likely: connections that end make room.
                    tracing::warn!(%error, listener = %self.address, "cannot accept; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        }
        drop(self);
        while connections.join_next().await.is_some() {}
    }

    async fn accept(&self) -> io::Result<Connected> {
        match &self.socket {
            Bound::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                let socket = SockRef::from(&stream);
                // Each is an improvement that a kernel may not have.
                let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
                let keepalive =
                    socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
                let _ = socket.set_tcp_keepalive(&keepalive);
                Ok(Connected::Tcp(stream))
            }
            Bound::Unix { listener, .. } => Ok(Connected::Unix(listener.accept().await?.0)),
        }
    }
}

/// What stands before HTTP on a connection.
struct Front {
    tls: Option<Tls>,
    proxies: Option<Arc<[Network]>>,
    place: Option<Arc<Place>>,
}

/// Where a connection comes from, as far as the socket knows.
fn remote_ip(socket: &Connected) -> Option<IpAddr> {
    match socket {
        Connected::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip().to_canonical()),
        Connected::Unix(_) | Connected::Tls { .. } => None,
    }
}

impl Front {
    /// Reads who comes, shakes hands, then serves what comes out of TLS while it is carried.
    async fn serve<H: Handler>(
        self,
        mut socket: TcpStream,
        handler: Arc<H>,
        limits: ConnectionLimits,
        stopping: watch::Receiver<bool>,
    ) {
        let source = match tokio::time::timeout(limits.header_timeout, self.source(&mut socket)).await {
            Ok(Ok(source)) => source,
            Ok(Err(error)) => return tracing::debug!(%error, "not served"),
            Err(_) => return tracing::debug!("no PROXY header in time"),
        };
        let Some(tls) = &self.tls else {
            let stream = Stream::new(Connected::Tcp(socket), self.place);
            let peer = Self::peer(&stream, source);
            return Box::pin(serve(stream, peer, handler, limits, stopping)).await;
        };
        // Boxed, as both are over long before a client that stays is.
        match Box::pin(tls.accept(socket, limits.header_timeout)).await {
            Ok((socket, carried)) => {
                let stream = Stream::new(socket, self.place);
                let peer = Self::peer(&stream, source);
                tokio::join!(Box::pin(serve(stream, peer, handler, limits, stopping)), Box::pin(carried));
            }
            Err(error) => tracing::debug!(%error, "no TLS handshake"),
        }
    }

    /// The address that a proxy tells; none where none is asked.
    async fn source(&self, socket: &mut TcpStream) -> io::Result<Option<IpAddr>> {
        let Some(proxies) = &self.proxies else { return Ok(None) };
        let proxy = socket.peer_addr()?.ip();
        if !proxies.iter().any(|network| network.contains(proxy)) {
            return Err(io::Error::other(
                "it is none of `client.trusted_proxies`, which alone may tell an address",
            ));
        }
        proxy_protocol::read(socket).await
    }

    fn peer(stream: &Stream, source: Option<IpAddr>) -> Peer {
        let peer = Peer::of(stream);
        Peer { peer_ip: source.or(peer.peer_ip), ..peer }
    }
}

fn may_not_give(error: &io::Error) -> io::Error {
    let advice = "only root gives a socket to another user, and others only to a group that they are in; run it so, or leave `socket_user` and `socket_group` out";
    io::Error::new(error.kind(), format!("the socket cannot be given to its owner ({error}): {advice}"))
}

/// Removes the socket of a process that is gone; a live one, or anything that is no socket, is left alone.
fn remove_stale(path: &Path) -> io::Result<()> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let in_use = |message: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, message.to_owned()));
    if !kind.is_socket() {
        return in_use("something that is no socket is at this path: remove it or choose another");
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => in_use("another process listens on this socket"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// Errors of one connection that was gone before it was accepted (accept(2)).
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
