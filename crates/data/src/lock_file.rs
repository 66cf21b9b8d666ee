//! Files that are locked and may be removed.

use std::{fs::File, path::Path};

/// Whether an open file is still what is found at its path: who has waited for the lock of a file that its holder then removed
/// holds a lock that keeps nobody out.
#[cfg(unix)]
pub fn is_at(file: &File, path: &Path) -> bool {
    use std::{fs, io, os::unix::fs::MetadataExt};
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        (_, Err(error)) => error.kind() != io::ErrorKind::NotFound,
        _ => true,
    }
}

/// A file that is open is not removed here.
#[cfg(not(unix))]
pub fn is_at(_: &File, _: &Path) -> bool {
    true
}
