//! The open client connections, so that they can be closed one by one or all together, and counted.

use super::close::CloseReason;
use super::offenders::Offenders;
use super::rate::Rate;
use crate::auth::Identity;
use crate::event::{ConnectionId, UnixMs};
use crate::publish::unix_ms;
use futures_util::task::AtomicWaker;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// All open client connections of this node.
pub struct Registry {
    /// Tells nodes and runs apart, so that an `exclude` of an earlier run fits nobody.
    node: String,
    serial: AtomicU64,
    handles: Mutex<HashMap<u64, Arc<Handle>, foldhash::fast::RandomState>>,
    by_ip: Mutex<HashMap<IpAddr, usize, foldhash::fast::RandomState>>,
    handshakes: Mutex<HashMap<IpAddr, Rate, foldhash::fast::RandomState>>,
    offenders: Offenders,
    open: AtomicUsize,
}

/// How one connection is told to close.
pub struct Handle {
    reason: AtomicU8,
    waker: AtomicWaker,
    opened: UnixMs,
    /// Who is at the other end; a WebSocket client may become somebody.
    identity: Mutex<Option<Arc<Identity>>>,
}

impl Handle {
    fn new() -> Self {
        Self {
            reason: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            opened: unix_ms(),
            identity: Mutex::default(),
        }
    }

    /// Whether it was told to close.
    #[cfg(test)]
    pub(super) fn is_closed(&self) -> bool {
        self.reason.load(Ordering::Acquire) != 0
    }

    /// Tells the connection to close; the first reason counts. False when it was told before.
    pub fn close(&self, reason: CloseReason) -> bool {
        let told = self.reason.compare_exchange(0, reason.index(), Ordering::AcqRel, Ordering::Relaxed);
        self.waker.wake();
        told.is_ok()
    }

    /// Notes who is at the other end.
    pub fn identify(&self, identity: Arc<Identity>) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }

    fn is(&self, whom: Whom<'_>) -> bool {
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(identity) = &*identity else { return false };
        match whom {
            Whom::User(user) => identity.user.as_deref() == Some(user),
            Whom::Token(id) => identity.token_id.as_deref() == Some(id),
        }
    }

    /// Ready when it was told to close.
    pub fn poll_closed(&self, context: &Context<'_>) -> Poll<CloseReason> {
        self.waker.register(context.waker());
        match CloseReason::from_index(self.reason.load(Ordering::Acquire)) {
            Some(reason) => Poll::Ready(reason),
            None => Poll::Pending,
        }
    }
}

/// A connection's entry; leaving the registry with it.
pub struct Registration {
    registry: Arc<Registry>,
    serial: u64,
    handle: Arc<Handle>,
}

impl Registration {
    /// The id as told in `welcome`.
    pub fn id(&self) -> ConnectionId {
        ConnectionId::parse(&format!("{}-{:x}", self.registry.node, self.serial))
            .expect("two short hexadecimal numbers are a valid connection id")
    }

    /// How this connection is told to close.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.handles().remove(&self.serial);
    }
}

/// Several connections at once.
#[derive(Clone, Copy, Debug)]
pub enum Whom<'a> {
    /// All of a user.
    User(&'a str),
    /// All that came with the token of this id.
    Token(&'a str),
}

/// A place among the connections that are allowed at a time.
pub struct Admission {
    registry: Arc<Registry>,
    ip: Option<IpAddr>,
    /// The address whose share this takes.
    counted: Option<IpAddr>,
}

impl Admission {
    /// Where the client is.
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// Notes that the client has misbehaved.
    pub fn offend(&self) {
        if let Some(ip) = self.ip {
            self.registry.offenders.note(ip, Instant::now());
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.registry.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(ip) = self.counted {
            let mut by_ip = self.registry.by_ip();
            if let Some(count) = by_ip.get_mut(&ip) {
                *count -= 1;
                if *count == 0 {
                    by_ip.remove(&ip);
                }
            }
        }
    }
}

/// Most addresses whose handshakes are counted. Beyond it the quiet ones are forgotten, and if none is quiet
/// all are: a flood from many addresses must not take memory.
const MAX_ADDRESSES: usize = 10_000;

/// What admits connections; 0 stands for no limit.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionLimits {
    /// Connections in all.
    pub total: usize,
    /// Connections from one address.
    pub per_ip: usize,
    /// New ones a second from one address.
    pub handshakes_per_ip: u32,
}

/// Why a connection is not admitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The node has all it takes.
    Full,
    /// The address has all it may have.
    AddressFull,
    /// The address connects too often.
    TooOften,
}

impl Registry {
    /// The registry of a node with this name.
    pub fn new(node: String) -> Arc<Self> {
        Arc::new(Self {
            node,
            serial: AtomicU64::new(1),
            handles: Mutex::default(),
            by_ip: Mutex::default(),
            handshakes: Mutex::default(),
            offenders: Offenders::default(),
            open: AtomicUsize::new(0),
        })
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Who has misbehaved of late.
    pub(super) fn offenders(&self) -> &Offenders {
        &self.offenders
    }

    /// Admits a connection within the limits.
    pub fn admit(
        self: &Arc<Self>,
        ip: Option<IpAddr>,
        limits: AdmissionLimits,
    ) -> Result<Admission, Refused> {
        if limits.total > 0 && self.open.load(Ordering::Relaxed) >= limits.total {
            return Err(Refused::Full);
        }
        // Who is on this host shares one address with everybody there, such as all that a local proxy passes on.
        let counted = ip.filter(|ip| !ip.is_loopback());
        if let Some(ip) = counted {
            if limits.handshakes_per_ip > 0 && !self.may_connect(ip, limits.handshakes_per_ip) {
                self.offenders.note(ip, Instant::now());
                return Err(Refused::TooOften);
            }
            let mut by_ip = self.by_ip();
            let count = by_ip.entry(ip).or_insert(0);
            if limits.per_ip > 0 && *count >= limits.per_ip {
                return Err(Refused::AddressFull);
            }
            *count += 1;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Admission { registry: self.clone(), ip, counted })
    }

    fn may_connect(&self, ip: IpAddr, per_second: u32) -> bool {
        let now = Instant::now();
        let mut handshakes = self.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        if handshakes.len() >= MAX_ADDRESSES && !handshakes.contains_key(&ip) {
            handshakes.retain(|_, rate| !rate.is_full(now));
            if handshakes.len() >= MAX_ADDRESSES {
                handshakes.clear();
            }
        }
        handshakes.entry(ip).or_insert_with(|| Rate::new(per_second, now)).take(now)
    }

    /// Enters a client.
    pub fn register(self: &Arc<Self>) -> Registration {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let handle = Arc::new(Handle::new());
        self.handles().insert(serial, handle.clone());
        Registration { registry: self.clone(), serial, handle }
    }

    /// Closes one connection; false when this node has none with that id.
    pub fn disconnect(&self, id: &str) -> bool {
        let serial = id
            .strip_prefix(&self.node)
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|serial| u64::from_str_radix(serial, 16).ok());
        let handle = serial.and_then(|serial| self.handles().get(&serial).cloned());
        match handle {
            Some(handle) => {
                handle.close(CloseReason::Disconnected);
                true
            }
            None => false,
        }
    }

    /// Closes all connections of somebody that were open at `opened_by`; how many those were.
    pub fn disconnect_all(&self, whom: Whom<'_>, reason: CloseReason, opened_by: UnixMs) -> usize {
        let is_meant = |handle: &&Arc<Handle>| handle.opened <= opened_by && handle.is(whom);
        // Told after the lock is released: a connection that ends takes it.
        let handles: Vec<_> = self.handles().values().filter(is_meant).cloned().collect();
        handles.iter().filter(|handle| handle.close(reason)).count()
    }

    /// Tells all clients to go elsewhere, evenly over `spread`, so that they do not come back all at once;
    /// waits until they have gone, at most as long again.
    pub async fn drain(&self, spread: Duration) {
        let handles: Vec<_> = self.handles().values().cloned().collect();
        let steps = handles.len().clamp(1, 100);
        for chunk in handles.chunks(handles.len().div_ceil(steps).max(1)) {
            for handle in chunk {
                handle.close(CloseReason::GoingAway);
            }
            let pause = tokio::time::Instant::now() + spread / steps as u32;
            // The last of them may be gone before their time is over.
            while !self.handles().is_empty() && tokio::time::Instant::now() < pause {
                tokio::time::sleep((spread / steps as u32).min(Duration::from_millis(10))).await;
            }
        }
        let patience = tokio::time::Instant::now() + spread.max(Duration::from_secs(1));
        while !self.handles().is_empty() && tokio::time::Instant::now() < patience {
            // Who came while the others were told is told now.
            for handle in self.handles().values() {
                handle.close(CloseReason::GoingAway);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<u64, Arc<Handle>, foldhash::fast::RandomState>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn by_ip(&self) -> MutexGuard<'_, HashMap<IpAddr, usize, foldhash::fast::RandomState>> {
        self.by_ip.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
