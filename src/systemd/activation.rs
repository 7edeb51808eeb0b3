//! Socket activation (sd_listen_fds(3)): listening sockets that outlive this process. While it is away, as in
//! a restart, connections wait in them.

use listenfd::ListenFd;
use socket2::SockRef;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

/// Sockets that are taken at most. There are three listeners; each may have several addresses.
const MOST_SOCKETS: usize = 64;

/// The listeners, by the names that sockets are passed under.
const LISTENERS: [&str; 3] = ["app", "client", "admin"];

/// A listening socket that was opened by the service manager.
#[derive(Debug)]
pub enum PassedSocket {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket. Its file belongs to who opened it.
    Unix(UnixListener),
}

/// The passed sockets, each with the listener that it is for.
pub type PassedSockets = Vec<(&'static str, PassedSocket)>;

/// Why passed sockets cannot be used. All of these are mended in the socket unit.
#[derive(Debug)]
pub enum ActivationError {
    /// A name is not one of a listener.
    UnknownName(String),
    /// There is not one name for each socket.
    Names {
        /// How many sockets were passed.
        sockets: usize,
        /// How many names.
        names: usize,
    },
    /// More than anybody needs: most likely not meant for us.
    TooMany(usize),
    /// It is no stream socket that is listened on.
    NotListening {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        reason: io::Error,
    },
}

impl fmt::Display for ActivationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownName(name) => write!(
                f,
                "a socket was passed under the name {name:?}; write FileDescriptorName=app, client or admin in its socket unit"
            ),
            Self::Names { sockets, names } => write!(
                f,
                "{sockets} sockets were passed with {names} names (LISTEN_FDNAMES); write FileDescriptorName=app, client or admin in each socket unit"
            ),
            Self::TooMany(sockets) => {
                write!(f, "{sockets} sockets were passed (LISTEN_FDS); at most {MOST_SOCKETS} are taken")
            }
            Self::NotListening { name, reason } => write!(
                f,
                "the socket passed under the name {name:?} cannot be listened on: {reason}; use ListenStream= and Accept=no in its socket unit"
            ),
        }
    }
}

impl std::error::Error for ActivationError {}

/// Takes the sockets that were passed to this process, if any were. To be called once, before there are
/// threads: what names the sockets is removed from the environment.
pub fn take_passed_sockets() -> Result<PassedSockets, ActivationError> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    if let Some(sockets) = number("LISTEN_FDS").filter(|sockets| *sockets > MOST_SOCKETS) {
        return Err(ActivationError::TooMany(sockets));
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut descriptors = ListenFd::from_env();
    let listeners = listeners(&names, descriptors.len())?;
    let taken = listeners.into_iter().enumerate().map(|(place, name)| {
        let socket =
            take(&mut descriptors, place).map_err(|reason| ActivationError::NotListening { name, reason })?;
        Ok((name, socket))
    });
    taken.collect()
}

/// The listener that each of the sockets is for.
fn listeners(names: &str, sockets: usize) -> Result<Vec<&'static str>, ActivationError> {
    if sockets == 0 {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = names.split(':').filter(|name| !name.is_empty()).collect();
    if names.len() != sockets {
        return Err(ActivationError::Names { sockets, names: names.len() });
    }
    let known = |name: &str| {
        LISTENERS
            .into_iter()
            .find(|known| *known == name)
            .ok_or_else(|| ActivationError::UnknownName(name.into()))
    };
    names.into_iter().map(known).collect()
}

fn take(descriptors: &mut ListenFd, place: usize) -> io::Result<PassedSocket> {
    let socket = match descriptors.take_unix_listener(place) {
        Ok(socket) => socket.map(PassedSocket::Unix),
        Err(_) => descriptors.take_tcp_listener(place)?.map(PassedSocket::Tcp),
    };
    let socket = socket.ok_or_else(|| io::Error::other("it was taken before"))?;
    let listens = match &socket {
        PassedSocket::Tcp(listener) => SockRef::from(listener).is_listener()?,
        PassedSocket::Unix(listener) => SockRef::from(listener).is_listener()?,
    };
    if listens { Ok(socket) } else { Err(io::Error::other("it is a connection")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_has_the_name_of_a_listener() {
        assert_eq!(listeners("", 0).unwrap(), Vec::<&str>::new());
        assert_eq!(listeners("app:client:app", 3).unwrap(), ["app", "client", "app"]);
        for (names, sockets) in [("", 1), ("app", 2), ("app:client", 1), ("sidewire.socket", 1), ("App", 1)] {
            let error = listeners(names, sockets).unwrap_err();
            assert!(error.to_string().contains("FileDescriptorName=app, client or admin"), "{error}");
        }
    }
}
