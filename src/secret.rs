//! Passwords and tokens: kept so that nothing shows them by accident.

use std::fmt;
use std::io::{self, Read as _};
use std::path::PathBuf;

/// Longest secret that is read from a file. A file that goes on is something else.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// A text that no log line, error or answer shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes a text that must not be shown from here on.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whoever must send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a secret comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SecretSource {
    /// It was written down.
    Given(Secret),
    /// It stands in this file, which is read each time it is needed: what was rotated there counts at the next
    /// connect.
    File(PathBuf),
}

impl SecretSource {
    /// The secret. A line break at the end of a file, which editors leave there, is no part of it.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let path = match self {
            Self::Given(secret) => return Ok(secret.clone()),
            Self::File(path) => path,
        };
        let mut text = String::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text));
        match read {
            Err(error) => Err(SecretError::Unreadable { path: path.clone(), kind: error.kind() }),
            Ok(length) if length as u64 > MAX_FILE_BYTES => Err(SecretError::TooLong(path.clone())),
            Ok(_) => match text.trim_end_matches(['\r', '\n']) {
                "" => Err(SecretError::Empty(path.clone())),
                secret => Ok(Secret::new(secret)),
            },
        }
    }
}

/// Why a file gives no secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SecretError {
    /// It cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        kind: io::ErrorKind,
    },
    /// It is longer than any secret.
    TooLong(PathBuf),
    /// Nothing is in it.
    Empty(PathBuf),
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, kind } => {
                write!(f, "{} cannot be read: {kind}; let this process read it", path.display())
            }
            Self::TooLong(path) => {
                write!(f, "{} is longer than {MAX_FILE_BYTES} bytes, no secret is", path.display())
            }
            Self::Empty(path) => write!(f, "{} is empty; write the secret into it", path.display()),
        }
    }
}

impl std::error::Error for SecretError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let source = SecretSource::Given(Secret::new("geheim"));
        assert_eq!(format!("{source:?} {}", Secret::new("geheim")), "Given(***) ***");
        assert_eq!(source.read().unwrap().expose(), "geheim");
    }

    #[test]
    fn a_file_is_read_each_time_without_its_last_line_break() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let source = SecretSource::File(path.clone());
        assert!(matches!(source.read(), Err(SecretError::Unreadable { .. })));
        for (content, secret) in [("geheim\n", "geheim"), (" x\r\n", " x"), ("y", "y")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(source.read().unwrap().expose(), secret);
        }
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(source.read(), Err(SecretError::Empty(path.clone())));
        std::fs::write(&path, "x".repeat(70_000)).unwrap();
        assert_eq!(source.read(), Err(SecretError::TooLong(path)));
    }
}
