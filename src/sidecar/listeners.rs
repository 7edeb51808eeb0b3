//! The sockets of a node: bound first, answered last.

use super::error::StartError;
use super::settings::{self, Certificates};
use crate::config::{Config, ListenAddress, SocketMode};
use crate::server::{Address, Admin, App, Capacity, Client, Listener, Node, SystemGroup, SystemUser};
use crate::systemd::PassedSockets;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Descriptors besides those of clients: listeners, the app's connections, the log.
pub(crate) const OTHER_DESCRIPTORS: u64 = 256;

/// Tells listeners to stop: those of clients first.
#[derive(Default)]
pub(super) struct Stopping {
    pub(super) clients: watch::Sender<bool>,
    pub(super) others: watch::Sender<bool>,
}

/// Sockets, each with the listener that it is for.
pub(super) type Bound = Vec<(&'static str, Listener)>;

/// Binds all addresses; a listener for which sockets were passed has those instead.
pub(super) fn bind(config: &Config, passed: PassedSockets) -> Result<Bound, StartError> {
    let mut bound = Vec::new();
    for (listener, socket) in passed {
        let refused = |reason| StartError::Passed { listener, reason };
        let socket = Listener::passed(socket).map_err(|error| refused(error.to_string()))?;
        if let Address::Tcp(address) = socket.address()
            && listener == "client"
            && let Some(refusal) = config.refuses_clients_at(&ListenAddress::Tcp(*address))
        {
            return Err(refused(refusal));
        }
        bound.push((listener, socket));
    }
    let was_passed: Vec<&str> = bound.iter().map(|(listener, _)| *listener).collect();
    let (app, client, admin) = (&config.app, &config.client, &config.admin);
    let sections = [
        ("app", addresses(&app.listen, app.socket_mode, &app.socket_user, &app.socket_group)),
        ("client", addresses(&client.listen, client.socket_mode, &client.socket_user, &client.socket_group)),
        ("admin", addresses(&admin.listen, admin.socket_mode, &admin.socket_user, &admin.socket_group)),
    ];
    for (listener, addresses) in sections {
        if was_passed.contains(&listener) {
            continue;
        }
        for address in addresses {
            match Listener::bind(&address) {
                Ok(socket) => bound.push((listener, socket)),
                Err(error) => return Err(StartError::Listen { listener, address, error }),
            }
        }
    }
    Ok(bound)
}

/// The addresses of a listener; the owner and the mode are those of Unix sockets.
fn addresses(listen: &[ListenAddress], mode: SocketMode, user: &str, group: &str) -> Vec<Address> {
    let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    let address = |address: &ListenAddress| match address {
        ListenAddress::Tcp(address) => Address::Tcp(*address),
        ListenAddress::Unix(path) => Address::Unix {
            path: path.clone(),
            mode: mode.0,
            user: named(user).map(SystemUser),
            group: named(group).map(SystemGroup),
        },
    };
    listen.iter().map(address).collect()
}

/// Begins to answer.
pub(super) fn serve(
    bound: Bound,
    node: &Arc<Node>,
    config: &Config,
    certificates: &Certificates,
    stopping: &Stopping,
) -> JoinSet<()> {
    let limits = settings::connection_limits(config);
    let (app, client, admin) = (App::new(node.clone()), Client::new(node.clone()), Admin::new(node.clone()));
    let capacity = Capacity::new(
        most_client_sockets(certificates.client.is_some()),
        config.client.trusted_proxies.clone(),
        node.metrics.clone(),
    );
    let mut listeners = JoinSet::new();
    for (listener, socket) in bound {
        let tls = match listener {
            "app" => certificates.app.clone(),
            "client" => certificates.client.clone(),
            _ => certificates.admin.clone(),
        };
        let proxies = (listener == "client" && config.client.proxy_protocol)
            .then(|| config.client.trusted_proxies.clone().into());
        let capacity = (listener == "client").then(|| capacity.clone());
        let socket = socket.with_tls(tls).with_proxies(proxies).with_capacity(capacity);
        tracing::info!(listener, address = %socket.address(), "listening");
        let stopping = if listener == "client" { &stopping.clients } else { &stopping.others }.subscribe();
        match listener {
            "app" => listeners.spawn(socket.run(app.clone(), limits, stopping)),
            "client" => listeners.spawn(socket.run(client.clone(), limits, stopping)),
            _ => listeners.spawn(socket.run(admin.clone(), limits, stopping)),
        };
    }
    listeners
}

/// How many clients there are descriptors for, when enough are left for the app and the disk.
fn most_client_sockets(with_tls: bool) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let Some(limit) = limit else { return usize::MAX };
    let left = limit.saturating_sub((limit / 8).max(OTHER_DESCRIPTORS)).max(limit / 2);
    // TLS ends beside the socket, over a pair of local ones.
    let most = if with_tls { left / 3 } else { left };
    usize::try_from(most).unwrap_or(usize::MAX)
}
