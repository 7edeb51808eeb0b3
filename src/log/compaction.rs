//! Rewriting a generation without its dead events, when these are most of it. The new directory replaces the
//! old one by its name: of several with the same first position the last counts, so a crash leaves one of them
//! whole at any time.

use super::Shared;
use super::deletions::Deletions;
use super::directory::{self, REMOVED, UNFINISHED};
use super::folds::{Fold, FoldsFile};
use super::generation::{self, Generation, Trouble};
use super::keeper::{Keeper, Setback, store};
use super::liveness::{Liveness, unix_ms};
use super::pack;
use super::packed::PackedFold;
use super::remains::Remains;
use super::view::{Hole, Source};
use crate::event::{Channel, Event, Position};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often there is a look for dead events, unless something was deleted.
const SWEEP: Duration = Duration::from_secs(10);
/// A generation is rewritten when this part of it is dead, in percent.
const MOSTLY_DEAD: u64 = 50;
/// A generation whose events had to be read to count the dead is not read again for so long.
const EXAMINE_AGAIN: Duration = Duration::from_secs(120);
/// The same after a deletion that may have touched it.
const EXAMINE_DELETED_AGAIN: Duration = Duration::from_secs(1);
/// With more deletions than this pending, generations are rewritten however little is dead, so that they can
/// be forgotten.
const MANY_DELETIONS: usize = super::deletions::MOST / 2;

/// What one fold holds.
struct Contents {
    events: Vec<Arc<Event>>,
    stubs: Vec<(Position, Channel)>,
    /// What is damaged.
    holes: Vec<Hole>,
}

impl Keeper {
    /// Rewrites at most one generation, if one is worth it.
    pub(super) fn compact(&mut self, shared: &Arc<Shared>) -> Result<(), Setback> {
        let asked = shared.sweep_asked.swap(false, Ordering::AcqRel);
        let many = shared.deletions().list.len() > MANY_DELETIONS;
        if many {
            // Also the newest events must be rewritten before deletions can be forgotten.
            shared.seal_active();
            self.finish_current();
        }
        if !asked && !many && self.last_sweep.is_some_and(|last| last.elapsed() < SWEEP) {
            return Ok(());
        }
        self.last_sweep = Some(Instant::now());
        shared.forget_deletions();
        for generation in shared.view().generations.clone() {
            if self.is_current(&generation) || shared.is_closing() {
                continue;
            }
            match shared.is_mostly_dead(&generation) {
                Ok(false) => {}
                Ok(true) => {
                    shared.rewrite(&generation)?;
                    shared.forget_deletions();
                    // The next one follows soon, after journals had their turn.
                    shared.sweep_asked.store(true, Ordering::Release);
                    return Ok(());
                }
                Err(Trouble::Broken) => shared.put_aside(&generation),
                Err(trouble) => return Err(trouble.into()),
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Whether so much of a generation is dead that rewriting it pays.
    fn is_mostly_dead(&self, generation: &Arc<Generation>) -> Result<bool, Trouble> {
        let view = self.view();
        let folds: Vec<_> = view.folds_of(generation).cloned().collect();
        let events: u64 = folds.iter().map(|packed| packed.fold.events).sum();
        if events == 0 {
            return Ok(false);
        }
        let now = unix_ms();
        let expired: u64 =
            folds.iter().map(|packed| packed.fold.events * packed.fold.expired_percent(now) / 100).sum();
        if expired * 100 >= events * MOSTLY_DEAD {
            return Ok(true);
        }
        let deletions = self.deletions();
        let swept = generation.swept.load(Ordering::Acquire);
        let is_touched = deletions.list.iter().any(|deletion| {
            deletion.number >= swept
                && folds.iter().any(|packed| deletion.may_touch(packed.fold.first, packed.fold.min_time))
        });
        let is_limited = self.options.rules.iter().any(|rule| rule.max_events.is_some());
        if !is_touched && (!is_limited || !generation.may_examine(EXAMINE_AGAIN)) {
            return Ok(false);
        }
        if is_touched && !generation.may_examine(EXAMINE_DELETED_AGAIN) {
            return Ok(false);
        }
        let (dead, total) = self.count_dead(&folds)?;
        if dead == 0 {
            // Nothing of the deletions so far is left in it.
            generation.swept.fetch_max(deletions.next, Ordering::AcqRel);
        }
        Ok(dead * 100 >= total.max(1) * MOSTLY_DEAD
            || (is_touched && dead > 0 && deletions.list.len() > MANY_DELETIONS))
    }

    fn count_dead(&self, folds: &[Arc<PackedFold>]) -> Result<(u64, u64), Trouble> {
        let mut alive = Liveness::now(self, self.view());
        let (mut dead, mut total) = (0, 0);
        for packed in folds {
            for event in self.contents_of(packed)?.events {
                let bytes = event.data.len() as u64 + 64;
                total += bytes;
                dead += if alive.is_alive(&event) { 0 } else { bytes };
            }
        }
        Ok((dead, total))
    }

    /// Reads a fold in whole.
    fn contents_of(&self, packed: &PackedFold) -> Result<Contents, Trouble> {
        let mut contents = Contents { events: Vec::new(), stubs: Vec::new(), holes: Vec::new() };
        let hole = |first: Position, last: Position| Hole { after: first.previous(), up_to: last };
        let Some(directory) = self.directory_of(packed)? else {
            contents.holes.push(hole(packed.fold.first, packed.fold.last));
            return Ok(contents);
        };
        for (number, about) in directory.blocks.iter().enumerate() {
            let Some(block) = self.block_of(packed, &directory, number)? else {
                contents.holes.push(hole(about.first, about.last));
                continue;
            };
            for entry in &block.entries {
                if entry.head.is_stub() {
                    let channel = block.channels[entry.channel as usize].clone();
                    contents.stubs.push((entry.position(), channel));
                } else if let Ok(event) = block.event(entry) {
                    contents.events.push(Arc::new(event));
                } else {
                    contents.holes.push(hole(entry.position(), entry.position()));
                }
            }
        }
        Ok(contents)
    }

    fn rewrite(&self, old: &Arc<Generation>) -> Result<(), Setback> {
        let dir = self.directory.path();
        let swept = self.deletions().next;
        let path = next_name(old.path());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let unfinished = dir.join(format!("{UNFINISHED}{name}"));
        directory::remove(&unfinished)?;
        let written = self.write_remains(old, &unfinished, swept);
        let folds = match written {
            Ok(folds) => folds,
            Err(setback) => {
                let _ = directory::remove(&unfinished);
                return Err(setback);
            }
        };
        fs::rename(&unfinished, &path)?;
        directory::sync_directory(dir)?;
        let new = Arc::new(Generation::new(path, swept));
        let before = old.measure();
        if self.replace_in_view(old, &new, folds) {
            self.retire(old)?;
        } else {
            // It was put aside meanwhile; what is left of it must not come back either.
            new.mark_gone();
            directory::remove(new.path())?;
        }
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        self.counters.reclaimed_bytes.fetch_add(before.saturating_sub(new.disk_bytes()), Ordering::Relaxed);
        tracing::info!(path = %new.path().display(), before, after = new.disk_bytes(), "a generation was rewritten without its dead events");
        Ok(())
    }

    fn write_remains(
        &self,
        old: &Arc<Generation>,
        unfinished: &Path,
        swept: u64,
    ) -> Result<Vec<PackedFold>, Setback> {
        Generation::create(unfinished)?;
        let mut list = FoldsFile::create(unfinished, swept)?;
        let new = Arc::new(Generation::new(unfinished.to_owned(), swept));
        let view = self.view();
        let folds: Vec<_> = view.folds_of(old).cloned().collect();
        let mut written = Vec::new();
        let mut pending: Vec<Arc<PackedFold>> = Vec::new();
        let mut bytes = 0;
        for packed in folds {
            // Several folds become one as long as all of them, dead or alive, fit in memory.
            if !pending.is_empty() && bytes + packed.fold.raw_bytes > 2 * self.options.fold_bytes() {
                written.push(self.merge(&pending, &new, &mut list)?);
                pending.clear();
                bytes = 0;
            }
            bytes += packed.fold.raw_bytes;
            pending.push(packed);
        }
        if !pending.is_empty() {
            written.push(self.merge(&pending, &new, &mut list)?);
        }
        new.close();
        directory::sync_directory(unfinished)?;
        Ok(written)
    }

    /// Packs the remains of neighbouring folds as one.
    fn merge(
        &self,
        folds: &[Arc<PackedFold>],
        new: &Arc<Generation>,
        list: &mut FoldsFile,
    ) -> Result<PackedFold, Setback> {
        let mut events = Vec::new();
        let mut stubs = Vec::new();
        let mut cover = Fold::default();
        let mut given = Vec::new();
        for (place, packed) in folds.iter().enumerate() {
            let fold = &packed.fold;
            if place == 0 {
                cover.first = fold.first;
                cover.previous_stored = fold.previous_stored;
            } else if fold.previous_stored > cover.last {
                cover.holes.push(Hole { after: cover.last, up_to: fold.previous_stored });
            }
            cover.last = fold.last;
            cover.holes.extend(&fold.holes);
            let contents = self.contents_of(packed)?;
            events.extend(contents.events);
            stubs.extend(contents.stubs);
            cover.holes.extend(contents.holes);
            given.extend(packed.ids().and_then(Result::ok).unwrap_or_default());
        }
        let remains = Remains::of(self, &events, &stubs);
        drop(events);
        let packed = pack::pack(&remains.items(), cover, self.options.compress);
        let packed = packed.seal(&self.options.keyring)?;
        if !given.is_empty() {
            let name = super::ids::file_name(packed.fold.first);
            let bytes = super::ids::encode(&given);
            let bytes = pack::seal_ids(packed.cipher.as_ref(), &packed.fold, bytes)?;
            directory::replace(new.path(), &name, &bytes)?;
        }
        store(new, list, packed)
    }

    /// Readers go on in the new generation. False if the old one is no longer there.
    fn replace_in_view(&self, old: &Arc<Generation>, new: &Arc<Generation>, folds: Vec<PackedFold>) -> bool {
        let mut replaced = false;
        self.change_view(|view| {
            let Some(place) = view.generations.iter().position(|other| Arc::ptr_eq(other, old)) else { return };
            view.generations[place] = new.clone();
            let is_old = |source: &Source| matches!(source, Source::Packed(packed) if Arc::ptr_eq(&packed.generation, old));
            let start = view.sources.iter().position(is_old).unwrap_or(0);
            view.sources.retain(|source| !is_old(source));
            for hole in folds.iter().flat_map(|packed| &packed.fold.holes) {
                if !view.holes.contains(hole) {
                    view.holes.push(*hole);
                }
            }
            // They were written before the generation had its name.
            let packed = folds
                .into_iter()
                .map(|packed| Source::Packed(Arc::new(PackedFold { generation: new.clone(), ..packed })));
            view.sources.splice(start..start, packed);
            replaced = true;
        });
        replaced
    }

    /// Removes a generation that another stands for now.
    fn retire(&self, old: &Generation) -> Result<(), Setback> {
        old.mark_gone();
        self.blocks.forget(old.number);
        self.pages.forget(old.number);
        self.directories.forget(old.number);
        let name = old.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let removed = directory::free_name(self.directory.path(), &format!("{REMOVED}{name}"));
        fs::rename(old.path(), &removed)?;
        directory::sync_directory(self.directory.path())?;
        directory::remove(&removed)?;
        Ok(())
    }

    /// Forgets deletions that are carried out everywhere.
    fn forget_deletions(&self) {
        let _one_at_a_time = super::lock(&self.deleting);
        let deletions = self.deletions();
        let view = self.view();
        let is_needed = |number: u64, up_to: Position| {
            view.tables().any(|table| table.header.first <= up_to)
                || view.generations.iter().any(|generation| {
                    let first = view.folds_of(generation).next().map(|packed| packed.fold.first);
                    generation.swept.load(Ordering::Acquire) <= number
                        && first.is_some_and(|first| first <= up_to)
                })
        };
        let list: Vec<_> = deletions
            .list
            .iter()
            .filter(|deletion| is_needed(deletion.number, deletion.up_to))
            .cloned()
            .collect();
        if list.len() == deletions.list.len() {
            return;
        }
        let left = Deletions { list, next: deletions.next };
        match left.write(self.directory.path(), &self.options.keyring) {
            Ok(()) => self.set_deletions(left),
            Err(error) => tracing::warn!(%error, "deletions that are carried out cannot be forgotten yet"),
        }
    }
}

/// The name that counts over the one that a generation has.
fn next_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (base, version) = split_name(&name);
    path.with_file_name(format!("{base}.{:06}", version + 1))
}

/// A generation's name without its version, and that.
fn split_name(name: &str) -> (&str, u64) {
    match name.split_once('.') {
        Some((base, version)) => (base, version.parse().unwrap_or(0)),
        None => (name, 0),
    }
}

/// Of the sorted names of generations, those that a rewrite replaced.
pub(super) fn superseded(names: &[String]) -> Vec<&str> {
    let names: Vec<_> = names.iter().filter(|name| name.starts_with(generation::PREFIX)).collect();
    names
        .windows(2)
        .filter(|pair| split_name(pair[0]).0 == split_name(pair[1]).0)
        .map(|pair| pair[0].as_str())
        .collect()
}
