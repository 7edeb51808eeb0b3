//! How many connections of clients are taken: a flood of them must leave room for those that are connected, for the
//! app and for the disk. Under overload new ones are refused first, and as cheaply as can be: they are closed.

use crate::config::Network;
use crate::metrics::Metrics;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections that have not sent a whole request yet. Each may hold a buffer and a task for `limits.header_timeout`.
const MOST_NEWCOMERS: usize = 4_096;
/// Of one address: whoever begins many and ends none keeps others out no longer than that.
const MOST_NEWCOMERS_OF_ONE: u32 = 512;

/// The room of the client listeners.
pub struct Capacity {
    open: AtomicUsize,
    /// Most sockets, so that descriptors are left for all else.
    most: usize,
    newcomers: Mutex<HashMap<IpAddr, u32, foldhash::fast::RandomState>>,
    newcomers_in_all: AtomicUsize,
    is_full: AtomicBool,
    /// Whose connections are those of many.
    proxies: Vec<Network>,
    metrics: Arc<Metrics>,
}

impl Capacity {
    /// Room for so many sockets, some of which come from these proxies.
    pub fn new(most: usize, proxies: Vec<Network>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            most,
            newcomers: Mutex::default(),
            newcomers_in_all: AtomicUsize::new(0),
            is_full: AtomicBool::new(false),
            proxies,
            metrics,
        })
    }

    /// A place for a connection from this address (none for a Unix socket), unless there is no room for it.
    pub(super) fn enter(self: &Arc<Self>, ip: Option<IpAddr>) -> Option<Arc<Place>> {
        let open = self.open.load(Ordering::Relaxed);
        let newcomers = self.newcomers_in_all.load(Ordering::Relaxed);
        let is_full = open >= self.most || newcomers >= MOST_NEWCOMERS;
        if is_full {
            self.note_full(open);
        } else if self.is_full.load(Ordering::Relaxed)
            && open < self.most - self.most / 8
            && newcomers < MOST_NEWCOMERS / 2
            && self.is_full.swap(false, Ordering::Relaxed)
        {
            tracing::info!("new clients are taken again");
        }
        // Who is on this host shares one address with all others there.
        let is_one = |ip: &IpAddr| !ip.is_loopback() && !self.proxies.iter().any(|proxy| proxy.contains(*ip));
        let counted = ip.filter(is_one);
        if is_full || !counted.is_none_or(|ip| self.begin(ip)) {
            self.metrics.refused_connections.inc();
            return None;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        self.newcomers_in_all.fetch_add(1, Ordering::Relaxed);
        Some(Arc::new(Place { capacity: self.clone(), ip: counted, is_new: AtomicBool::new(true) }))
    }

    fn note_full(&self, open: usize) {
        if !self.is_full.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                open,
                most = self.most,
                "new clients are closed at once: too many are open for the limit of open files, or have connected and said nothing"
            );
        }
    }

    fn begin(&self, ip: IpAddr) -> bool {
        let mut newcomers = self.lock();
        let count = newcomers.entry(ip).or_insert(0);
        let fits = *count < MOST_NEWCOMERS_OF_ONE;
        *count += u32::from(fits);
        fits
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32, foldhash::fast::RandomState>> {
        self.newcomers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, until it is dropped.
pub(super) struct Place {
    capacity: Arc<Capacity>,
    ip: Option<IpAddr>,
    is_new: AtomicBool,
}

impl Place {
    /// It has sent a whole request.
    pub(super) fn settle(&self) {
        if !self.is_new.swap(false, Ordering::Relaxed) {
            return;
        }
        self.capacity.newcomers_in_all.fetch_sub(1, Ordering::Relaxed);
        let Some(ip) = self.ip else { return };
        let mut newcomers = self.capacity.lock();
        if let Some(count) = newcomers.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                newcomers.remove(&ip);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.settle();
        self.capacity.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_again_when_they_have_gone() {
        let capacity = Capacity::new(3, Vec::new(), Arc::default());
        let mut places: Vec<_> = (0..3).map(|_| capacity.enter(None).unwrap()).collect();
        assert!(capacity.enter(None).is_none());
        places.pop();
        assert!(capacity.enter(None).is_some());
        assert_eq!(capacity.metrics.refused_connections.get(), 1);
        drop(places);
        assert_eq!(capacity.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_says_nothing_keeps_out_nobody_else() {
        let capacity = Capacity::new(usize::MAX, vec!["9.9.9.9".parse().unwrap()], Arc::default());
        let ip = |number: u8| Some(IpAddr::from([8, 8, 8, number]));
        let silent: Vec<_> = (0..MOST_NEWCOMERS_OF_ONE).map(|_| capacity.enter(ip(1)).unwrap()).collect();
        assert!(capacity.enter(ip(1)).is_none());
        let other = capacity.enter(ip(2)).unwrap();
        silent[0].settle();
        silent[0].settle();
        let one_more = capacity.enter(ip(1)).unwrap();
        assert!(capacity.enter(ip(1)).is_none());
        drop((silent, other, one_more));
        assert!(capacity.lock().is_empty());
        assert_eq!(capacity.newcomers_in_all.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn this_host_and_a_trusted_proxy_are_no_single_client() {
        let capacity = Capacity::new(usize::MAX, vec!["9.9.9.9".parse().unwrap()], Arc::default());
        let here = [[127, 0, 0, 1], [9, 9, 9, 9]].map(IpAddr::from);
        let silent: Vec<_> =
            (0..MOST_NEWCOMERS).map(|number| capacity.enter(Some(here[number % 2])).unwrap()).collect();
        assert!(capacity.enter(Some(here[0])).is_none() && capacity.enter(None).is_none());
        silent[0].settle();
        assert!(capacity.enter(None).is_some());
    }
}
