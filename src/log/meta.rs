//! Two small files beside the events: `meta` says which log this is, `head` how far it had come. A log that
//! is behind its own `head` (restored from a backup, lost in part) is another log: it gets a new epoch.

use super::directory;
use super::error::OpenError;
use super::wire::{Damaged, Reader};
use crate::event::{Epoch, Position};
use std::fs;
use std::io;
use std::path::Path;

const META: &str = "meta";
/// Where a [`Watermark`] is kept.
pub(super) const HEAD: &str = "head";
const META_MAGIC: &[u8; 8] = b"sidewire";
/// The format of everything in the directory.
pub(super) const FORMAT: u32 = 1;

/// Which log this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Meta {
    pub(super) epoch: Epoch,
    /// Keys the hash of remembered ids, so that nobody can make ids that collide.
    pub(super) seed: u64,
}

impl Meta {
    /// A log that never was.
    pub(super) fn fresh() -> Self {
        Self { epoch: Epoch(random()), seed: random() }
    }

    /// The stored one; none if there is none or it cannot be read.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = dir.join(META);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::io(&path, error)),
        };
        match Self::parse(&bytes) {
            Ok((format, meta)) if format == FORMAT => Ok(Some(meta)),
            Ok((format, _)) => Err(OpenError::Newer { dir: dir.to_owned(), found: format }),
            Err(Damaged) => {
                tracing::error!(path = %path.display(), "the log's meta file is damaged: a new epoch begins");
                Ok(None)
            }
        }
    }

    /// Stores it durably.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let mut bytes = META_MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.0.to_le_bytes());
        bytes.extend_from_slice(&self.seed.to_le_bytes());
        directory::replace(dir, META, &sealed(bytes))
    }

    fn parse(bytes: &[u8]) -> Result<(u32, Self), Damaged> {
        let mut reader = Reader::new(unsealed(bytes)?);
        if reader.take(8)? != META_MAGIC {
            return Err(Damaged);
        }
        let format = reader.u32()?;
        Ok((format, Self { epoch: Epoch(reader.u64()?), seed: reader.u64()? }))
    }
}

/// How far the log had come when this was written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Watermark {
    /// The newest position that was given.
    pub(super) head: Position,
    /// The newest stored position that was durable.
    pub(super) stored: Position,
    /// Everything up to here was removed on purpose.
    pub(super) floor: Position,
    /// Whether the log was closed in order.
    pub(super) clean: bool,
}

impl Watermark {
    /// The stored one. Without one, or with a damaged one, nothing is known.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let bytes = fs::read(dir.join(HEAD)).ok()?;
        Self::parse(&bytes).ok()
    }

    /// Stores it durably.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let mut bytes = Vec::new();
        for position in [self.head, self.stored, self.floor] {
            bytes.extend_from_slice(&position.0.to_le_bytes());
        }
        bytes.push(u8::from(self.clean));
        directory::replace(dir, HEAD, &sealed(bytes))
    }

    fn parse(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader::new(unsealed(bytes)?);
        Ok(Self {
            head: Position(reader.u64()?),
            stored: Position(reader.u64()?),
            floor: Position(reader.u64()?),
            clean: reader.byte()? != 0,
        })
    }
}

/// Bytes with their checksum at the end.
pub(super) fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// The bytes, if the checksum at their end is right.
pub(super) fn unsealed(bytes: &[u8]) -> Result<&[u8], Damaged> {
    let (bytes, crc) = bytes.split_last_chunk::<4>().ok_or(Damaged)?;
    if crc32fast::hash(bytes).to_le_bytes() == *crc { Ok(bytes) } else { Err(Damaged) }
}

/// 64 bits that nobody can guess and that no other log has.
fn random() -> u64 {
    let (high, low) = uuid::Uuid::now_v7().as_u64_pair();
    // The lower half holds 62 random bits; a second UUID fills its two fixed ones.
    let (_, more) = uuid::Uuid::now_v7().as_u64_pair();
    low.rotate_left(2) ^ (more >> 3) ^ high.rotate_left(40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_come_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Meta::read(dir.path()).unwrap(), None);
        let meta = Meta::fresh();
        meta.write(dir.path()).unwrap();
        assert_eq!(Meta::read(dir.path()).unwrap(), Some(meta));
        let mark = Watermark { head: Position(9), stored: Position(7), floor: Position(3), clean: true };
        mark.write(dir.path()).unwrap();
        assert_eq!(Watermark::read(dir.path()), Some(mark));
    }

    #[test]
    fn damage_is_seen_and_a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Meta::fresh().write(dir.path()).unwrap();
        let good = fs::read(dir.path().join(META)).unwrap();
        let mut flipped = good.clone();
        flipped[20] ^= 1;
        fs::write(dir.path().join(META), &flipped).unwrap();
        assert_eq!(Meta::read(dir.path()).unwrap(), None);
        let mut newer = unsealed(&good).unwrap().to_vec();
        newer[8] = 99;
        fs::write(dir.path().join(META), sealed(newer)).unwrap();
        assert!(matches!(Meta::read(dir.path()), Err(OpenError::Newer { found: 99, .. })));
    }
}
