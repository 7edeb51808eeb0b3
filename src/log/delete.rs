//! Deleting on request: counted, noted durably, and from then on enforced on every read.

use super::deletions::{self, Deletion, Deletions};
use super::error::{DeleteError, ReadError};
use super::walk::{Walk, Wanted};
use super::{Shared, lock, read_lock};
use crate::event::{Filter, Interest, Position, UnixMs};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

impl Shared {
    /// See [`super::Log::delete`].
    pub(super) fn delete(
        &self,
        older_than: Option<UnixMs>,
        interest: Option<&Interest>,
    ) -> Result<u64, DeleteError> {
        let _one_at_a_time = lock(&self.deleting);
        let up_to = self.head();
        let count = self
            .count(interest, older_than, up_to)
            .map_err(|ReadError::Unavailable| DeleteError::Unavailable)?;
        let deletions = self.deletions();
        let next = deletions.with(Deletion {
            number: deletions.next,
            up_to,
            older_than,
            interest: interest.cloned(),
        });
        if count == 0 {
            return Ok(0);
        }
        if next.list.len() > deletions::MOST {
            self.ask_for_sweep();
            return Err(DeleteError::Busy);
        }
        let write = || next.write(self.directory.path(), &self.options.keyring);
        self.reserve.with_room(write).map_err(DeleteError::Io)?;
        self.set_deletions(next);
        self.ask_for_sweep();
        Ok(count)
    }

    /// Living events of some channels before a time.
    fn count(
        &self,
        interest: Option<&Interest>,
        before: Option<UnixMs>,
        up_to: Position,
    ) -> Result<u64, ReadError> {
        let filter = Filter::default();
        let mut wanted = Wanted::new(interest, &filter);
        wanted.until = before;
        let mut walk = Walk::new(self, wanted);
        let (mut at, mut count) = (Position::ZERO, 0);
        while let Some(step) = walk.forward(at, up_to)? {
            count += step.events.len() as u64;
            at = step.reached;
        }
        Ok(count)
    }

    fn ask_for_sweep(&self) {
        self.sweep_asked.store(true, Ordering::Release);
        self.wake_keeper();
    }

    /// The deletions that are not carried out everywhere yet.
    pub(super) fn deletions(&self) -> Arc<Deletions> {
        read_lock(&self.deletions).clone()
    }

    /// Enforces these from now on.
    pub(super) fn set_deletions(&self, deletions: Deletions) {
        *self.deletions.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(deletions);
    }
}
