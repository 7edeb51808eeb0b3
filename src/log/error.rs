//! What can go wrong, split by what the caller can do about it.

use crate::cipher::MissingKey;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a log could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it open.
    Locked(PathBuf),
    /// Others could tamper with the directory.
    Unsafe {
        /// The directory.
        dir: PathBuf,
        /// What is wrong, and what to do.
        why: &'static str,
    },
    /// A newer version of Sidewire wrote it.
    Newer {
        /// The directory.
        dir: PathBuf,
        /// The format it has.
        found: u32,
    },
    /// A part of it is encrypted with a key that is not known. Nothing was changed.
    KeyMissing {
        /// The first such part.
        path: PathBuf,
        /// How many others are.
        more: usize,
        /// Which key, and which ones are known.
        error: MissingKey,
    },
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
            Self::Locked(dir) => write!(
                f,
                "the log directory {} is in use by another sidewire: stop it, or give this one its own `log.dir`",
                dir.display()
            ),
            Self::Unsafe { dir, why } => write!(f, "the log directory {} is not safe: {why}", dir.display()),
            Self::Newer { dir, found } => write!(
                f,
                "the log in {} has format {found}, which this version cannot read: run the newer sidewire, or give \
                 this one an empty `log.dir`",
                dir.display()
            ),
            Self::KeyMissing { path, more: 0, error } => write!(f, "{} {error}", path.display()),
            Self::KeyMissing { path, more, error } => {
                write!(f, "{}, with {more} others, {error}", path.display())
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

/// Why a group was not appended. Nothing of it is visible; it may be tried again.
#[derive(Debug)]
pub enum AppendError {
    /// The disk is full.
    Full,
    /// Too much waits to be packed: the disk is slower than the publishers.
    Behind,
    /// The system said no.
    Io(io::Error),
}

impl From<io::Error> for AppendError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A file-size limit is a disk that is full for us.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full
            }
            _ => Self::Io(error),
        }
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the disk of the log is full"),
            Self::Behind => f.write_str("the log cannot keep up: too many journals wait to be packed"),
            Self::Io(error) => write!(f, "the log cannot be written: {error}"),
        }
    }
}

impl std::error::Error for AppendError {}

/// Why events could not be read now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// A part of the log cannot be read at the moment: try again.
    Unavailable,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the log cannot be read now; try again")
    }
}

impl std::error::Error for ReadError {}

/// Why events were not deleted.
#[derive(Debug)]
pub enum DeleteError {
    /// Too many deletions wait to be carried out on disk: try again later, or delete by fewer, wider patterns.
    Busy,
    /// The events to delete could not be counted now: try again.
    Unavailable,
    /// The deletion could not be made durable.
    Io(io::Error),
}

impl fmt::Display for DeleteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => {
                f.write_str("too many deletions are under way: try again later, or use wider patterns")
            }
            Self::Unavailable => f.write_str("the log cannot be read now; try again"),
            Self::Io(error) => write!(f, "the deletion cannot be written: {error}"),
        }
    }
}

impl std::error::Error for DeleteError {}
