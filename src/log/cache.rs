//! What was read and unpacked lately, so that many readers of the same stretch share the work. Bounded by
//! bytes; what was not used since it was last passed over goes first.

use super::generation::Kind;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

/// Names a value: the number of its generation, its fold, its kind and its number there.
pub(super) type CacheKey = (u64, u64, Kind, u32);

/// A shared cache.
pub(super) struct Cache<T> {
    most_bytes: usize,
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    entries: HashMap<CacheKey, Entry<T>, foldhash::fast::RandomState>,
    queue: VecDeque<CacheKey>,
    bytes: usize,
}

struct Entry<T> {
    value: Arc<T>,
    bytes: usize,
    used: bool,
}

impl<T> Cache<T> {
    pub(super) fn new(most_bytes: usize) -> Self {
        let inner = Inner { entries: HashMap::default(), queue: VecDeque::new(), bytes: 0 };
        Self { most_bytes, inner: Mutex::new(inner) }
    }

    pub(super) fn get(&self, key: &CacheKey) -> Option<Arc<T>> {
        let mut inner = super::lock(&self.inner);
        let entry = inner.entries.get_mut(key)?;
        entry.used = true;
        Some(entry.value.clone())
    }

    /// Keeps a value, unless it alone is too large.
    pub(super) fn put(&self, key: CacheKey, value: Arc<T>, bytes: usize) {
        if bytes > self.most_bytes / 8 {
            return;
        }
        let mut inner = super::lock(&self.inner);
        match inner.entries.insert(key, Entry { value, bytes, used: false }) {
            Some(old) => inner.bytes -= old.bytes,
            None => inner.queue.push_back(key),
        }
        inner.bytes += bytes;
        while inner.bytes > self.most_bytes {
            let Some(key) = inner.queue.pop_front() else { break };
            match inner.entries.get_mut(&key) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    inner.queue.push_back(key);
                }
                _ => {
                    if let Some(entry) = inner.entries.remove(&key) {
                        inner.bytes -= entry.bytes;
                    }
                }
            }
        }
    }

    /// Drops everything of a generation.
    pub(super) fn forget(&self, generation: u64) {
        let mut inner = super::lock(&self.inner);
        let Inner { entries, queue, bytes } = &mut *inner;
        queue.retain(|key| key.0 != generation);
        entries.retain(|key, entry| {
            let stays = key.0 != generation;
            *bytes -= if stays { 0 } else { entry.bytes };
            stays
        });
    }

    /// Drops everything: nobody has read for a while.
    pub(super) fn clear(&self) {
        let mut inner = super::lock(&self.inner);
        *inner = Inner { entries: HashMap::default(), queue: VecDeque::new(), bytes: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_below_its_bound_and_keeps_what_is_used() {
        let cache = Cache::new(100);
        let key = |n| (n, 0, Kind::Block, 0);
        cache.put(key(0), Arc::new(0), 10);
        for n in 1..50 {
            assert_eq!(cache.get(&key(0)).as_deref(), Some(&0));
            cache.put(key(n), Arc::new(n), 10);
        }
        assert_eq!(super::super::lock(&cache.inner).bytes, 100);
        assert!(cache.get(&key(1)).is_none());
        cache.put(key(99), Arc::new(99), 50);
        assert!(cache.get(&key(99)).is_none());
        cache.forget(0);
        assert!(cache.get(&key(0)).is_none());
        assert_eq!(super::super::lock(&cache.inner).bytes, 90);
    }
}
