//! A connected socket, TCP or Unix, behind one type.

use super::capacity::Place;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected socket, with the place that it takes.
pub struct Stream {
    socket: Socket,
    place: Option<Arc<Place>>,
}

/// What is connected.
pub(super) enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TCP with TLS, which ended before: the near end of a local pair.
    Tls {
        /// That end.
        stream: UnixStream,
        /// The address at this end of the connection.
        local_ip: IpAddr,
        /// The address at its other end.
        peer_ip: IpAddr,
    },
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self {
            Socket::Tcp($stream) => $call,
            Socket::Unix($stream) | Socket::Tls { stream: $stream, .. } => $call,
        }
    };
}

impl Stream {
    /// A socket that has this place, where places are counted.
    pub(super) fn new(socket: Socket, place: Option<Arc<Place>>) -> Self {
        Self { socket, place }
    }

    /// Its place.
    pub(super) fn place(&self) -> Option<&Arc<Place>> {
        self.place.as_ref()
    }

    /// Waits until reading may bring something.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&self.socket, stream => stream.poll_read_ready(context))
    }

    /// Waits until writing may take something.
    pub fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&self.socket, stream => stream.poll_write_ready(context))
    }

    /// Reads what is there.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        each!(&self.socket, stream => stream.try_read(buffer))
    }

    /// Writes what the socket takes now.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        each!(&self.socket, stream => stream.try_write(bytes))
    }

    /// Writes what the socket takes now of several pieces.
    pub fn try_write_vectored(&self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        each!(&self.socket, stream => stream.try_write_vectored(pieces))
    }

    /// The system user at the other end of a Unix socket.
    pub fn peer_uid(&self) -> Option<u32> {
        match &self.socket {
            Socket::Tcp(_) | Socket::Tls { .. } => None,
            Socket::Unix(stream) => stream.peer_cred().ok().map(|credentials| credentials.uid()),
        }
    }

    /// The address at this end; none for a Unix socket.
    pub fn local_ip(&self) -> Option<IpAddr> {
        match &self.socket {
            Socket::Tcp(stream) => stream.local_addr().ok().map(|address| address.ip().to_canonical()),
            Socket::Tls { local_ip, .. } => Some(*local_ip),
            Socket::Unix(_) => None,
        }
    }

    /// The address at the other end; none for a Unix socket.
    pub fn peer_ip(&self) -> Option<IpAddr> {
        match &self.socket {
            Socket::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip().to_canonical()),
            Socket::Tls { peer_ip, .. } => Some(*peer_ip),
            Socket::Unix(_) => None,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(&mut self.get_mut().socket, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(&mut self.get_mut().socket, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.get_mut().socket, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.get_mut().socket, stream => Pin::new(stream).poll_shutdown(context))
    }
}
