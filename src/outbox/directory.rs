//! The outbox's directory. It lies in the log's, whose lock keeps other processes out.

use super::error::OpenError;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Names that begin so are half-made, and are removed at the next start.
pub(super) const UNFINISHED: &str = "t-";

/// Makes the directory if there is none, and removes what an earlier process left half-made.
pub(super) fn prepare(path: &Path) -> Result<(), OpenError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(OpenError::NotADirectory(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| OpenError::io(path, error))?;
            // Events in a directory that a power cut takes away were never safe.
            if let Some(parent) = path.parent() {
                sync(parent).map_err(|error| OpenError::io(parent, error))?;
            }
        }
        Err(error) => return Err(OpenError::io(path, error)),
    }
    for name in names(path).map_err(|error| OpenError::io(path, error))? {
        if name.starts_with(UNFINISHED) {
            let unfinished = path.join(name);
            fs::remove_file(&unfinished).map_err(|error| OpenError::io(&unfinished, error))?;
        }
    }
    Ok(())
}

/// What lies in it, by name.
pub(super) fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Opens or makes a file that only its owner may read, and never through a symlink.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Makes the names in a directory durable.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
