//! Whether the addresses of the configuration can be listened on.

use super::Finding;
use crate::config::{Config, ListenAddress};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// Tries each address; what is taken is taken by the node, if it runs.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    let listeners =
        [("app", &config.app.listen), ("client", &config.client.listen), ("admin", &config.admin.listen)];
    let each = listeners.into_iter().flat_map(|(name, addresses)| {
        addresses.iter().map(move |address| {
            let result = match address {
                ListenAddress::Tcp(address) => port(*address),
                ListenAddress::Unix(path) => socket(path),
            };
            let told = |words: String| format!("{address} ({name}) {words}");
            Finding::new("port", result.map(told).map_err(told))
        })
    });
    each.collect()
}

fn port(address: SocketAddr) -> Result<String, String> {
    match TcpListener::bind(address) {
        Ok(_) => Ok("is free".into()),
        Err(error) => match error.kind() {
            ErrorKind::AddrInUse => Ok("is in use, by the node if it runs".into()),
            ErrorKind::PermissionDenied => {
                Err("needs a right that this user lacks: choose a port above 1023".into())
            }
            ErrorKind::AddrNotAvailable => Err("is no address of this host".into()),
            _ => Err(format!("cannot be listened on: {error}")),
        },
    }
}

fn socket(path: &Path) -> Result<String, String> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.exists() {
        return Ok("is there, made by the node if it runs".into());
    }
    match std::fs::metadata(directory) {
        Ok(found) if found.is_dir() => Ok("will be made".into()),
        Ok(_) => Err(format!("cannot be made: {} is no directory", directory.display())),
        Err(error) => Err(format!("cannot be made: {}: {error}", directory.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_listened_on_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert!(port(address).unwrap().contains("in use"));
        drop(taken);
        assert_eq!(port(address).unwrap(), "is free");
        // TEST-NET-1, which nobody has (RFC 5737).
        assert!(port("192.0.2.1:7070".parse().unwrap()).unwrap_err().contains("no address of this host"));
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(socket(&directory.path().join("a.sock")).unwrap(), "will be made");
        assert!(socket(directory.path()).unwrap().contains("is there"));
        assert!(socket(&directory.path().join("none/a.sock")).unwrap_err().contains("none"));
    }
}
