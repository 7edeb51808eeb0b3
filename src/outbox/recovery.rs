//! Starting: what earlier runs left on the disk.

use super::directory;
use super::error::OpenError;
use super::index::Index;
use super::record;
use super::segment::{self, Begin, HEADER_BYTES, Header, Segment};
use crate::cipher::{KeyId, Keyring, LOCK_BYTES};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// How the names of files begin of which nothing could be read.
const DAMAGED: &str = "damaged-";

/// What a start found.
pub(super) struct Found {
    pub(super) index: Index,
    /// No number up to this may be given again.
    pub(super) last: u64,
}

/// Reads all segments of a directory of which everything up to `settled` is on the bus.
pub(super) fn recover(dir: &Path, settled: u64, keyring: &Keyring) -> Result<Found, OpenError> {
    let begun = begins(dir)?;
    for (_, path, _) in &begun {
        let key = key_of(path).map_err(|error| OpenError::io(path, error))?;
        if let Some(key) = key.filter(|key| !keyring.has(*key)) {
            return Err(OpenError::KeyMissing { path: path.clone(), error: keyring.missing(key) });
        }
    }
    let mut index = Index::new(settled, keyring);
    let mut last = settled;
    let mut cut = 0;
    let mut damaged = 0;
    for (at, (first, path, _)) in begun.iter().enumerate() {
        last = last.max(first.saturating_sub(1));
        let bytes = fs::read(path).map_err(|error| OpenError::io(path, error))?;
        let accepted = begun.get(at + 1).and_then(|(_, _, next)| *next).map_or(u64::MAX, |next| next.follows);
        let floor = index.segments.back().map_or(0, |before| before.last);
        let found =
            Segment::scan(path.clone(), &bytes, |head| head.number > floor && head.number <= accepted);
        if found.records == 0 {
            set_aside(dir, path, &bytes).map_err(|error| OpenError::io(path, error))?;
            continue;
        }
        damaged += found.damaged_bytes() + if found.header.is_none() { HEADER_BYTES as u64 } else { 0 };
        let torn = (bytes.len() as u64).saturating_sub(found.bytes);
        if torn > 0 {
            cut += torn;
            let shortened = File::options().write(true).open(path).and_then(|file| file.set_len(found.bytes));
            shortened.map_err(|error| OpenError::io(path, error))?;
        }
        last = last.max(found.last);
        index.segments.push_back(found);
    }
    index.trim(true);
    if damaged > 0 {
        tracing::error!(
            dir = %dir.display(), damaged_bytes = damaged,
            "the outbox is damaged: events in the damaged parts are lost, all others are kept"
        );
    }
    if cut > 0 {
        tracing::warn!(
            dir = %dir.display(), bytes = cut,
            "what was not wholly written to the outbox when sidewire ended is cut off"
        );
    }
    if index.events() > 0 {
        tracing::info!(dir = %dir.display(), events = index.events(), bytes = index.bytes(), "events wait in the outbox");
    }
    Ok(Found { index, last })
}

/// All segments with the number in their name, in its order, and their headers where they are whole.
fn begins(dir: &Path) -> Result<Vec<(u64, PathBuf, Option<Header>)>, OpenError> {
    let mut begun = Vec::new();
    for name in directory::names(dir).map_err(|error| OpenError::io(dir, error))? {
        let Some(first) = segment::number_in(&name) else { continue };
        let path = dir.join(name);
        let mut header = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut header));
        read.map_err(|error| OpenError::io(&path, error))?;
        match Header::parse(&header) {
            Begin::Ours(header) => begun.push((first, path, Some(header))),
            Begin::Damaged => begun.push((first, path, None)),
            Begin::Newer(found) => return Err(OpenError::Newer { path, found }),
        }
    }
    begun.sort_by_key(|(first, ..)| *first);
    Ok(begun)
}

/// The key that a segment is encrypted with: that of its first record, as all have the same.
pub(super) fn key_of(path: &Path) -> io::Result<Option<KeyId>> {
    let mut begin = Vec::new();
    let most = HEADER_BYTES + record::HEAD_BYTES + LOCK_BYTES;
    File::open(path)?.take(most as u64).read_to_end(&mut begin)?;
    Ok(begin.get(HEADER_BYTES..).and_then(record::key_of))
}

/// Removes a segment without a record; one that had some is kept for an operator to look at.
fn set_aside(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let is_blank = bytes.iter().all(|&byte| byte == 0);
    let is_begun = bytes.len() <= HEADER_BYTES;
    if is_blank
        || is_begun
        || matches!(Header::parse(bytes), Begin::Ours(_)) && is_only_unaccepted(path, bytes)
    {
        return fs::remove_file(path);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = dir.join(format!("{DAMAGED}{name}"));
    tracing::error!(
        path = %aside.display(), bytes = bytes.len(),
        "nothing of a part of the outbox can be read: it is kept under this name until you remove it"
    );
    fs::rename(path, aside)
}

/// Whether a segment holds whole records, none of which was wanted.
fn is_only_unaccepted(path: &Path, bytes: &[u8]) -> bool {
    let all = Segment::scan(path.to_owned(), bytes, |_| true);
    all.records > 0 && all.damaged_bytes() == 0
}
