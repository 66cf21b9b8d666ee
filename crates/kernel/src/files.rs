//! Files that are read with a bound, and written so that a crash leaves the old one or the new one.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// The bytes of a regular file of at most `most` bytes, also if it grows meanwhile; a pipe or a device might never end.
///
/// # Errors
/// If it cannot be read, is no regular file, or has more.
pub fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let about = fs::metadata(path)?;
    if !about.is_file() {
        let what = if about.is_dir() { "a folder, not a file" } else { "not a regular file" };
        return Err(io::Error::other(what));
    }
    let mut bytes = Vec::new();
    // more than it has now is read only where it grows
    bytes.try_reserve_exact(usize::try_from(about.len().min(most)).unwrap_or(usize::MAX))?;
    fs::File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// Writes a file so that a crash leaves the old one or the new one, never a part: a temporary file beside it,
/// `NAME.PROCESS-COUNT.tmp`, flushed to disk, which `check` may look at, then renamed, and the folder flushed too.
///
/// # Errors
/// If the folder cannot be written, something that is no regular file has the name, or `check` finds fault.
pub fn write_whole(path: &Path, bytes: &[u8], check: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    // two threads may write the same file
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // a rename would put a file in the place of a device
    if fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return Err(io::Error::other("cannot be written: it is there and no regular file"));
    }
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        check(&temporary)?;
        fs::rename(&temporary, path)?;
        sync_folder_of(path)
    };
    write().inspect_err(|_| {
        // the first error is the one to tell; a leftover that cannot be removed either changes nothing
        let _ = fs::remove_file(&temporary);
    })
}

/// Flushes the folder that a file or folder lies in: a new name must outlast a loss of power too. Systems that cannot open a
/// folder flush it themselves.
///
/// # Errors
/// If the folder cannot be opened or flushed.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder }) {
        Some(folder) if cfg!(unix) => fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_that_write_one_file_leave_the_whole_of_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::thread::scope(|threads| {
            for byte in 0..8 {
                let path = &path;
                threads.spawn(move || {
                    for _ in 0..20 {
                        write_whole(path, &[byte; 10_000], |_| Ok(())).unwrap();
                    }
                });
            }
        });
        let bytes = read_bounded(&path, 10_000).unwrap();
        assert!(bytes.len() == 10_000 && bytes.iter().all(|byte| *byte == bytes[0]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_at_fault_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_whole(&path, b"old", |_| Ok(())).unwrap();
        let refused = write_whole(&path, b"new", |_| Err(io::Error::other("not sound")));
        assert_eq!(refused.unwrap_err().to_string(), "not sound");
        assert_eq!(read_bounded(&path, 3).unwrap(), b"old");
        assert_eq!(read_bounded(&path, 2).unwrap_err().to_string(), "it has more than 2 bytes");
        assert_eq!(read_bounded(folder.path(), 3).unwrap_err().to_string(), "a folder, not a file");
        let refused = write_whole(folder.path(), b"new", |_| Ok(())).unwrap_err().to_string();
        assert!(refused.contains("no regular file"), "{refused}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
