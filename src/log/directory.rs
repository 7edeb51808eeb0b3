//! The log's directory: who owns it, who locks it, and how files in it are replaced so that a crash leaves
//! either the old or the new one.

use super::error::OpenError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Names that begin so are half-made, and are removed at the next start.
pub(super) const UNFINISHED: &str = "t-";
/// Names that begin so are half-removed, and are removed at the next start.
pub(super) const REMOVED: &str = "x-";

/// The directory of events that wait for the bus: it lies here to be under the same lock, and is left alone.
pub(super) const OUTBOX: &str = "outbox";

/// The directory, locked for this process until it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the directory if there is none, checks that nobody else can write to it, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        if !path.exists() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| OpenError::io(path, error))?;
        }
        check_owner(path)?;
        let lock_path = path.join("LOCK");
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&lock_path)
            .map_err(|error| OpenError::io(&lock_path, error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::Locked(path.to_owned())),
            Err(error) => return Err(OpenError::io(&lock_path, error.into())),
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What lies in it, by name, sorted.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        names(&self.path)
    }

    /// Removes what an earlier process left half-made or half-removed.
    pub(super) fn sweep(&self) -> io::Result<()> {
        for name in self.names()? {
            if name.starts_with(UNFINISHED) || name.starts_with(REMOVED) {
                remove(&self.path.join(name))?;
            }
        }
        Ok(())
    }
}

/// What lies in a directory, by name, sorted.
pub(super) fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Removes a file or a directory with all that is in it; one that is gone already is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let outcome = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes a small file in whole: a crash leaves the old one or the new one, never a half.
pub(super) fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = directory.join(format!("{UNFINISHED}{name}"));
    let mut file = create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, directory.join(name))?;
    sync_directory(directory)
}

/// Writes so many bytes at `offset` of a file that is removed again, through to the disk.
pub(super) fn try_out(directory: &Path, offset: u64, bytes: usize) -> io::Result<()> {
    let path = directory.join(format!("{UNFINISHED}trial"));
    let file = create(&path)?;
    // No zeros: a file system may store these as nothing.
    let written = file.write_all_at(&vec![0xa5; bytes], offset).and_then(|()| file.sync_all());
    remove(&path)?;
    written
}

/// Creates or empties a file that only its owner may read, and never through a symlink.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Bytes that a file or a tree really takes on the disk.
pub(super) fn disk_use(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let own = meta.blocks() * 512;
    if !meta.is_dir() {
        return own;
    }
    let Ok(entries) = fs::read_dir(path) else { return own };
    own + entries.flatten().map(|entry| disk_use(&entry.path())).sum::<u64>()
}

/// Bytes of some files.
pub(super) fn total_size(files: &[PathBuf]) -> u64 {
    files.iter().filter_map(|file| fs::metadata(file).ok()).map(|meta| meta.len()).sum()
}

/// A name in a directory that is not taken yet.
pub(super) fn free_name(directory: &Path, name: &str) -> PathBuf {
    let mut path = directory.join(name);
    let mut again = 0;
    while path.exists() {
        again += 1;
        path = directory.join(format!("{name}.{again}"));
    }
    path
}

/// Someone else who can write here can forge or destroy the log (A22), so the start is refused.
fn check_owner(path: &Path) -> Result<(), OpenError> {
    let meta = fs::symlink_metadata(path).map_err(|error| OpenError::io(path, error))?;
    let refuse = |why: &'static str| OpenError::Unsafe { dir: path.to_owned(), why };
    if meta.file_type().is_symlink() {
        return Err(refuse("it is a symlink: give the real directory"));
    }
    if !meta.is_dir() {
        return Err(refuse("it is not a directory"));
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(refuse(
            "another user owns it: `chown` it to the user that runs sidewire, or choose another",
        ));
    }
    if meta.mode() & 0o002 != 0 {
        return Err(refuse("every user can write to it: `chmod 700` it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_process_is_told_and_the_first_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::open(dir.path()).unwrap();
        assert!(matches!(Directory::open(dir.path()), Err(OpenError::Locked(_))));
        drop(first);
        Directory::open(dir.path()).unwrap();
    }

    #[test]
    fn unsafe_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open_to_all = dir.path().join("open");
        fs::create_dir(&open_to_all).unwrap();
        fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Directory::open(&open_to_all), Err(OpenError::Unsafe { .. })));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(matches!(Directory::open(&link), Err(OpenError::Unsafe { .. })));
        let fresh = dir.path().join("fresh");
        drop(Directory::open(&fresh).unwrap());
        assert_eq!(fs::metadata(&fresh).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn half_made_files_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("t-generation")).unwrap();
        fs::write(dir.path().join("t-generation/db"), "half").unwrap();
        fs::write(dir.path().join("x-journal"), "half").unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        directory.sweep().unwrap();
        assert_eq!(directory.names().unwrap(), ["LOCK"]);
    }
}
