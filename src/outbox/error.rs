//! What can go wrong, split by what the caller can do about it.

use crate::cipher::MissingKey;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why an outbox could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// A newer version of Sidewire wrote a part of it.
    Newer {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: u32,
    },
    /// A part of it is encrypted with a key that is not known. Nothing was changed.
    KeyMissing {
        /// The file.
        path: PathBuf,
        /// Which key, and which ones are known.
        error: MissingKey,
    },
    /// Something else than a directory is there, or a link to one.
    NotADirectory(PathBuf),
    /// The system said no.
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer { path, found } => write!(
                f,
                "{} holds events for the bus in format {found}, which this version cannot read: run the newer \
                 sidewire until its outbox is empty, or move the file away and lose these events",
                path.display()
            ),
            Self::KeyMissing { path, error } => write!(f, "{} {error}", path.display()),
            Self::NotADirectory(path) => {
                write!(f, "the outbox {} is not a directory: move away what is there", path.display())
            }
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Why events were not taken. None of the group was.
#[derive(Debug)]
pub enum AppendError {
    /// As many bytes as allowed are waiting, or the oldest event has waited as long as allowed: the bus must
    /// take some first.
    Full,
    /// The disk is full.
    NoRoom,
    /// The system said no.
    Io(io::Error),
}

impl From<io::Error> for AppendError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A file-size limit is a disk that is full for us.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::NoRoom
            }
            _ => Self::Io(error),
        }
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the outbox is full: the bus has been away for too long"),
            Self::NoRoom => f.write_str("the disk of the outbox is full"),
            Self::Io(error) => write!(f, "the outbox cannot be written: {error}"),
        }
    }
}

impl std::error::Error for AppendError {}

/// Why events could not be read or set aside now. They are still there: try again.
#[derive(Debug)]
pub enum ReadError {
    /// The system said no.
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the outbox cannot be read: {error}"),
        }
    }
}

impl std::error::Error for ReadError {}
