//! The note up to where everything is on the bus: one small file, written in place and not synced, so that a
//! `kill -9` keeps it and a power cut at worst sets it back, which repeats a few events.

use super::directory;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const FILE: &str = "settled";
const NOTE_BYTES: usize = 12;

/// The note's file.
#[derive(Debug)]
pub(super) struct Note {
    path: PathBuf,
    /// None until it could be made: a full disk must not keep the outbox from being opened and drained.
    file: Option<File>,
    failing: bool,
}

impl Note {
    /// Reads the note: 0 where there is none, or a damaged one.
    pub(super) fn open(dir: &Path) -> (Self, u64) {
        let path = dir.join(FILE);
        let mut note = Self { path, file: None, failing: false };
        let mut bytes = [0; NOTE_BYTES];
        let read = note.file().and_then(|file| {
            if file.metadata()?.len() == 0 {
                return Ok(0);
            }
            file.read_exact_at(&mut bytes, 0)?;
            let (number, crc) = bytes.split_at(8);
            if crc32fast::hash(number).to_le_bytes() != crc {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "its checksum is wrong"));
            }
            Ok(u64::from_le_bytes(number.try_into().map_err(io::Error::other)?))
        });
        let number = read.unwrap_or_else(|error| {
            tracing::warn!(
                path = %note.path.display(), %error,
                "what the bus has taken of the outbox is not known: events may be sent again, and are dropped by \
                 their readers"
            );
            0
        });
        (note, number)
    }

    /// Notes a number. If that fails, the events before it may be sent again after a restart.
    pub(super) fn write(&mut self, number: u64) {
        let number = number.to_le_bytes();
        let mut bytes = [0; NOTE_BYTES];
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(&crc32fast::hash(&number).to_le_bytes());
        let written = self.file().and_then(|file| file.write_all_at(&bytes, 0));
        match written {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(path = %self.path.display(), %error, "what the bus has taken cannot be noted");
            }
            Err(_) => {}
        }
    }

    /// Makes the note durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file()?.sync_all()
    }

    fn file(&mut self) -> io::Result<&File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => directory::open_file(&self.path)?,
        };
        Ok(self.file.insert(file))
    }
}
