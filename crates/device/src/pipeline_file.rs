//! Compiled pipelines in a file, where an interface lets programs keep them (Vulkan): a driver without a cache of its own
//! need not compile them in every process.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use kiln_kernel::files::{read_bounded, write_whole};
use sha2::{Digest, Sha256};

use crate::trusted;

/// Largest file that is read or written.
const MAX_BYTES: u64 = 256 << 20;

/// How a file begins; a hash of all that follows is next.
const MAGIC: &[u8; 8] = b"kilnpip1";

/// The pipelines of a device, and their file.
pub(crate) struct PipelineFile {
    pub(crate) cache: wgpu::PipelineCache,
    folder: PathBuf,
    path: PathBuf,
    /// What it is for: hashed with the data, so that a file under another's name is not taken.
    key: String,
    /// The hash of what lies in the file.
    written: Mutex<Option<[u8; 32]>>,
}

impl fmt::Debug for PipelineFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Hash of what a file holds.
pub(crate) fn digest(key: &str, data: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update((key.len() as u64).to_le_bytes())
        .chain_update(key)
        .chain_update(data)
        .finalize()
        .into()
}

/// What a file holds, of data and their hash.
pub(crate) fn whole(hash: &[u8; 32], data: &[u8]) -> Vec<u8> {
    [&MAGIC[..], &hash[..], data].concat()
}

/// The data of a file that was written under this key; else why it is of no use.
pub(crate) fn parse<'a>(key: &str, bytes: &'a [u8]) -> Result<&'a [u8], String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("not one of Kiln's, or of another version")?;
    let (hash, data) = rest.split_at_checked(32).ok_or("damaged: cut short")?;
    if *hash != digest(key, data) {
        return Err("damaged, or made for another device or driver".into());
    }
    Ok(data)
}

impl PipelineFile {
    /// Begins with what lies in the folder under a key. Where a file is of no use, that is said, and the cache is empty.
    pub(crate) fn open(device: &wgpu::Device, folder: &Path, key: String) -> (Self, Option<String>) {
        let name: String = digest(&key, &[]).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let path = folder.join(format!("pipelines-{name}.bin"));
        let read = match read_bounded(&path, MAX_BYTES) {
            Ok(bytes) => parse(&key, &bytes).map(|data| Some(data.to_vec())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        let (data, ignored) = match read {
            Ok(data) => (data, None),
            Err(why) => (None, Some(format!("{}: {why}; ignored", path.display()))),
        };
        let written = data.as_ref().map(|data| digest(&key, data));
        let cache = trusted::create_pipeline_cache(device, data.as_deref());
        (Self { cache, folder: folder.to_path_buf(), path, key, written: Mutex::new(written) }, ignored)
    }

    /// Writes what was compiled, unless the file holds it already.
    pub(crate) fn save(&self) -> io::Result<()> {
        let Some(data) = self.cache.get_data().filter(|data| data.len() as u64 <= MAX_BYTES - 40) else {
            return Ok(());
        };
        let hash = digest(&self.key, &data);
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written != Some(hash) {
            fs::create_dir_all(&self.folder)?;
            write_whole(&self.path, &whole(&hash, &data), |_| Ok(()))?;
            *written = Some(hash);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_is_taken() {
        let data = [1u8, 2, 3, 4];
        let file = whole(&digest("this", &data), &data);
        assert_eq!(parse("this", &file), Ok(&data[..]));
        for (key, bytes, want) in [
            ("that", file.clone(), "another device"),
            ("this", file[..43].to_vec(), "damaged"),
            ("this", file[..20].to_vec(), "cut short"),
            ("this", file[1..].to_vec(), "not one of Kiln's"),
            ("this", Vec::new(), "not one of Kiln's"),
        ] {
            assert!(parse(key, &bytes).unwrap_err().contains(want), "{want}");
        }
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 4;
            assert!(parse("this", &flipped).is_err(), "byte {at}");
        }
    }
}
