//! What was deleted on request: remembered durably and enforced on every read until the events are gone from
//! the disk.

use super::directory;
use super::meta::{sealed, unsealed};
use super::wire::{Damaged, Reader, put_bytes, put_varint};
use crate::cipher::{KeyId, Keyring, LOCK_BYTES, Lock, Part};
use crate::event::{Event, Interest, Pattern, Position, UnixMs};
use std::fs;
use std::io;
use std::path::Path;

/// Where they are kept.
pub(super) const FILE: &str = "deletions";
/// How the file begins where it is encrypted: the names of channels are in it. No number begins so.
const SEALED: [u8; 12] = [0xff; 12];
/// More deletions than this are not remembered at once: each costs time on every read.
pub(super) const MOST: usize = 256;

/// One deletion.
#[derive(Clone, Debug)]
pub(super) struct Deletion {
    /// Counts deletions up; a generation knows up to which it was rewritten.
    pub(super) number: u64,
    /// Only events up to here: later ones came after the deletion.
    pub(super) up_to: Position,
    /// Only events accepted before this time.
    pub(super) older_than: Option<UnixMs>,
    /// Only these channels.
    pub(super) interest: Option<Interest>,
}

impl Deletion {
    /// Whether it deletes `event`.
    pub(super) fn covers(&self, event: &Event) -> bool {
        event.position <= self.up_to
            && self.older_than.is_none_or(|time| event.time < time)
            && self.interest.as_ref().is_none_or(|interest| interest.matches(&event.channel))
    }

    /// Whether it may delete something among events from `first` on that were accepted from `time` on.
    pub(super) fn may_touch(&self, first: Position, time: UnixMs) -> bool {
        first <= self.up_to && self.older_than.is_none_or(|older_than| time < older_than)
    }

    /// Whether it makes an earlier deletion superfluous.
    fn includes(&self, other: &Deletion) -> bool {
        self.interest.is_none()
            && other.up_to <= self.up_to
            && match (self.older_than, other.older_than) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(own), Some(other)) => other <= own,
            }
    }
}

/// All deletions that still matter, oldest first.
#[derive(Clone, Default, Debug)]
pub(super) struct Deletions {
    pub(super) list: Vec<Deletion>,
    /// The number of the next.
    pub(super) next: u64,
}

impl Deletions {
    /// The stored ones. A damaged file must not bring deleted events back silently, so it is said loudly.
    pub(super) fn read(dir: &Path, keyring: &Keyring) -> Self {
        match fs::read(dir.join(FILE)) {
            Ok(bytes) => Self::parse(&bytes, keyring).unwrap_or_else(|Damaged| {
                tracing::error!("the log's file of deletions is damaged: repeat recent deletions");
                Self::default()
            }),
            Err(_) => Self::default(),
        }
    }

    /// Stores them durably.
    pub(super) fn write(&self, dir: &Path, keyring: &Keyring) -> io::Result<()> {
        let mut out = Vec::new();
        put_varint(&mut out, self.next);
        put_varint(&mut out, self.list.len() as u64);
        for deletion in &self.list {
            put_varint(&mut out, deletion.number);
            put_varint(&mut out, deletion.up_to.0);
            put_varint(&mut out, deletion.older_than.map_or(0, |time| time.saturating_add(1)));
            let patterns: Vec<&str> = deletion.interest.iter().flat_map(texts).collect();
            put_varint(&mut out, deletion.interest.as_ref().map_or(0, |_| patterns.len() as u64 + 1));
            for pattern in patterns {
                put_bytes(&mut out, pattern.as_bytes());
            }
        }
        if let Some(encrypted) = keyring.seal_whole(Part::Deletions, &SEALED, &out)? {
            out = SEALED.to_vec();
            out.extend_from_slice(&encrypted);
        }
        directory::replace(dir, FILE, &sealed(out))
    }

    /// Adds one, and leaves out what it includes.
    pub(super) fn with(&self, deletion: Deletion) -> Self {
        let mut list: Vec<_> = self.list.iter().filter(|old| !deletion.includes(old)).cloned().collect();
        let next = deletion.number + 1;
        list.push(deletion);
        Self { list, next }
    }

    /// Whether an event is deleted.
    pub(super) fn cover(&self, event: &Event) -> bool {
        self.list.iter().any(|deletion| deletion.covers(event))
    }

    fn parse(bytes: &[u8], keyring: &Keyring) -> Result<Self, Damaged> {
        let bytes = unsealed(bytes)?;
        let opened = match bytes.strip_prefix(&SEALED) {
            None => None,
            Some(encrypted) => {
                let opened = keyring.open_whole(Part::Deletions, &SEALED, encrypted);
                Some(opened.map_err(|_| Damaged)?.ok_or(Damaged)?)
            }
        };
        let mut reader = Reader::new(opened.as_deref().unwrap_or(bytes));
        let next = reader.varint()?;
        let mut list = Vec::new();
        for _ in 0..reader.size()? {
            let number = reader.varint()?;
            let up_to = Position(reader.varint()?);
            let older_than = reader.varint()?.checked_sub(1);
            let interest = match reader.size()?.checked_sub(1) {
                None => None,
                Some(patterns) => {
                    let mut interest = Interest::default();
                    for _ in 0..patterns {
                        interest.insert(Pattern::parse(reader.text()?).map_err(|_| Damaged)?);
                    }
                    Some(interest)
                }
            };
            list.push(Deletion { number, up_to, older_than, interest });
        }
        Ok(Self { list, next })
    }
}

/// The key that the stored ones are encrypted with.
pub(super) fn key_of(dir: &Path) -> Option<KeyId> {
    let bytes = fs::read(dir.join(FILE)).ok()?;
    let lock = unsealed(&bytes).ok()?.strip_prefix(&SEALED)?.first_chunk::<LOCK_BYTES>()?;
    Some(Lock::from_bytes(lock).key)
}

fn texts(interest: &Interest) -> impl Iterator<Item = &str> {
    interest.channels().map(|channel| channel.as_str()).chain(interest.patterns().iter().map(Pattern::as_str))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{event, interest};
    use super::*;

    #[test]
    fn deletions_come_back_and_cover_what_they_say() {
        let dir = tempfile::tempdir().unwrap();
        let narrow = Deletion {
            number: 0,
            up_to: Position(10),
            older_than: Some(1000),
            interest: Some(interest(&["a.*", "b"])),
        };
        let keyring = Keyring::for_tests(&[1]);
        for keyring in [&keyring, &Keyring::none()] {
            Deletions::default().with(narrow.clone()).write(dir.path(), keyring).unwrap();
            assert_eq!(key_of(dir.path()), keyring.current());
            let bytes = fs::read(dir.path().join(FILE)).unwrap();
            assert_eq!(bytes.windows(3).any(|bytes| bytes == b"a.*"), keyring.current().is_none());
        }
        Deletions::default().with(narrow).write(dir.path(), &keyring).unwrap();
        let read = Deletions::read(dir.path(), &keyring);
        assert_eq!(read.next, 1);
        assert!(read.cover(&event(10).channel("a.x").time(999).build()));
        assert!(read.cover(&event(10).channel("b").time(999).build()));
        assert!(!read.cover(&event(11).channel("b").time(999).build()));
        assert!(!read.cover(&event(10).channel("b").time(1000).build()));
        assert!(!read.cover(&event(10).channel("c").time(999).build()));
        let wide = Deletion { number: 1, up_to: Position(10), older_than: None, interest: None };
        assert_eq!(read.with(wide).list.len(), 1);
    }
}
