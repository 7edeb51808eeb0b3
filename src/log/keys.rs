//! Which keys the parts of a log are encrypted with. Looked at before anything else is at a start: with a key that
//! is missing, nothing is touched.

use super::error::OpenError;
use super::view::{Source, View};
use super::{Shared, compaction, deletions, folds, generation, journal};
use crate::cipher::{KeyId, Keyring};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

/// What a key is needed for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyUse {
    /// The key; none for what is not encrypted.
    pub key: Option<KeyId>,
    /// The names of the files and directories, sorted.
    pub parts: Vec<String>,
}

/// What each key is needed for. Parts that cannot be read are left out: they are damaged, whatever the key.
pub(super) fn in_use(dir: &Path, names: &[String]) -> io::Result<Vec<KeyUse>> {
    let mut uses: BTreeMap<Option<KeyId>, BTreeSet<&String>> = BTreeMap::new();
    let superseded = compaction::superseded(names);
    for name in names {
        let path = dir.join(name);
        if name.starts_with(generation::PREFIX) && !superseded.contains(&name.as_str()) {
            let Ok(Ok(list)) = folds::read(&path) else { continue };
            for fold in list.folds {
                uses.entry(fold.key()).or_default().insert(name);
            }
        } else if name.starts_with(journal::PREFIX) {
            match journal::key_of(&path) {
                Ok(key) => drop(uses.entry(key).or_default().insert(name)),
                // Packed and removed meanwhile, by a node that runs.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        } else if name == deletions::FILE
            && let Some(key) = deletions::key_of(dir)
        {
            uses.entry(Some(key)).or_default().insert(name);
        }
    }
    let uses = uses.into_iter();
    Ok(uses.map(|(key, parts)| KeyUse { key, parts: parts.into_iter().cloned().collect() }).collect())
}

/// Refuses a log of which a part cannot be decrypted.
pub(super) fn check(dir: &Path, names: &[String], keyring: &Keyring) -> Result<(), OpenError> {
    for KeyUse { key, parts } in in_use(dir, names).map_err(|error| OpenError::io(dir, error))? {
        if let (Some(key), Some(first)) = (key.filter(|key| !keyring.has(*key)), parts.first()) {
            let error = keyring.missing(key);
            return Err(OpenError::KeyMissing { path: dir.join(first), more: parts.len() - 1, error });
        }
    }
    Ok(())
}

impl Shared {
    /// See [`super::Log::packed_with`].
    pub(super) fn packed_with(&self, key: KeyId) -> usize {
        let view: &View = &self.view();
        let needs = |source: &&Source| match source {
            Source::Packed(packed) => packed.fold.key() == Some(key),
            Source::Memory(_) => false,
        };
        view.sources.iter().filter(needs).count()
    }
}
