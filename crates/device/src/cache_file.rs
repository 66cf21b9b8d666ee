//! Files in a cache folder: read with a bound, written whole or not at all.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
};

/// A regular file of at most `most` bytes, also if it grows meanwhile.
pub(crate) fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let about = fs::metadata(path)?;
    if !about.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// Writes a file in a folder that is made if it is not there; a crash leaves the old file or the new one.
pub(crate) fn write_whole(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // a new name must outlast a loss of power too
        if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
    };
    write().inspect_err(|_| {
        // the first error is the one to tell
        let _ = fs::remove_file(&temporary);
    })
}
