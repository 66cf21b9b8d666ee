//! What tuning has found for a device, and the file in which it is remembered.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use kiln_kernel::{
    Kernel,
    files::{read_bounded, write_whole},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Largest file that is read or written.
const MAX_BYTES: u64 = 4 << 20;

/// The format that this Kiln writes.
const FORMAT: u32 = 1;

/// All that the choice between a kernel's variants may depend on beside the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TuningKey {
    /// Kiln's version.
    pub kiln: String,
    /// The adapter's name.
    pub adapter: String,
    /// `Vulkan`, `Metal`, `Dx12`.
    pub backend: String,
    /// The PCI vendor.
    pub vendor: u32,
    /// The PCI device.
    pub device: u32,
    /// The driver's name and version.
    pub driver: String,
    /// Whether shaders are compiled with run-time checks.
    pub checked: bool,
    /// Whether kernels are chosen as for a GPU of which nothing is known.
    pub portable: bool,
}

/// Variants that were found best on a device, by [`kernel_text`].
///
/// A kernel whose usual variant was found best is in it, too, so that it need not be tuned again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    key: TuningKey,
    /// The variant of each kernel.
    pub choices: BTreeMap<String, String>,
}

/// What became of remembered choices. See [`crate::Device::adopt`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Kernels for which something was remembered.
    pub found: usize,
    /// Kernels of the device that now run another variant than the usual one.
    pub used: usize,
    /// Kernels, by [`kernel_text`], with variants that they do not have on this device: such a choice is not
    /// used.
    pub stale: Vec<(String, String)>,
}

/// What lies in a folder for a device. See [`Tuning::read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// No file.
    Nothing,
    /// Choices that were made for this very device, driver and version.
    Tuned(Tuning),
    /// A file that is of no use, and why.
    Ignored(String),
}

/// The text under which a kernel's choice is remembered: its name and sizes for people, and a SHA-256 of all
/// that it is.
pub fn kernel_text(kernel: &Kernel) -> String {
    let name = match kernel {
        Kernel::Pair(pair) => format!("{} | {}", pair.first.name(), pair.second.name()),
        kernel => kernel.name().to_owned(),
    };
    // what is printed for debugging holds every field, and numbers to the bit
    format!("{name} {} #{}", kernel.shapes(), hex(format!("{kernel:?}").as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file.
#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    key: TuningKey,
    choices: BTreeMap<String, String>,
    /// Of key and choices.
    sha256: String,
}

/// SHA-256 of what a file says.
fn checksum(key: &TuningKey, choices: &BTreeMap<String, String>) -> io::Result<String> {
    Ok(hex(&serde_json::to_vec(&(key, choices))?))
}

impl Tuning {
    pub(crate) fn new(key: TuningKey) -> Self {
        Self { key, choices: BTreeMap::new() }
    }

    /// What it is for.
    pub fn key(&self) -> &TuningKey {
        &self.key
    }

    /// Its file in a folder: one for each key.
    pub fn path(&self, folder: &Path) -> PathBuf {
        let digest = hex(format!("{:?}", self.key).as_bytes());
        folder.join(format!("tiles-{}.json", &digest[..16]))
    }

    /// What a folder remembers under this key. A file that is damaged, of another device, driver or version,
    /// or not to be read is no error: it is ignored, and why is said.
    pub fn read(&self, folder: &Path) -> Remembered {
        let path = self.path(folder);
        let bytes = match read_bounded(&path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Remembered::Nothing,
            Err(error) => return Remembered::Ignored(format!("cannot be read: {error}")),
        };
        let file: File = match serde_json::from_slice(&bytes) {
            Ok(file) => file,
            Err(error) => return Remembered::Ignored(format!("damaged: {error}")),
        };
        if file.format != FORMAT {
            return Remembered::Ignored(format!("of format {}, this Kiln reads {FORMAT}", file.format));
        }
        if checksum(&file.key, &file.choices).ok().as_deref() != Some(&*file.sha256) {
            return Remembered::Ignored("damaged: its checksum is not that of its content".to_owned());
        }
        if file.key != self.key {
            let TuningKey { kiln, adapter, driver, .. } = &file.key;
            return Remembered::Ignored(format!("made for {adapter} ({driver}) by Kiln {kiln}"));
        }
        Remembered::Tuned(Self { key: file.key, choices: file.choices })
    }

    /// Writes the choices to the folder's file, with those for other kernels that it holds already; a crash
    /// leaves the old file or the new one. A file that [`Tuning::read`] ignores is replaced.
    ///
    /// # Errors
    /// If the folder cannot be written, or the file would be larger than 4 MiB.
    pub fn save(&self, folder: &Path) -> io::Result<PathBuf> {
        let path = self.path(folder);
        let mut choices = match self.read(folder) {
            Remembered::Tuned(known) => known.choices,
            Remembered::Nothing | Remembered::Ignored(_) => BTreeMap::new(),
        };
        choices.extend(self.choices.clone());
        let sha256 = checksum(&self.key, &choices)?;
        let file = File { format: FORMAT, key: self.key.clone(), choices, sha256 };
        let bytes = serde_json::to_vec_pretty(&file)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(io::Error::other(format!("would be larger than {MAX_BYTES} bytes; delete it")));
        }
        fs::create_dir_all(folder)?;
        write_whole(&path, &bytes, |_| Ok(()))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tuning(driver: &str) -> Tuning {
        let mut tuning = Tuning::new(TuningKey {
            kiln: "0.1.0".into(),
            adapter: "Card \"A\"".into(),
            backend: "Vulkan".into(),
            vendor: 0x10de,
            device: 7,
            driver: driver.into(),
            checked: false,
            portable: false,
        });
        tuning.choices.insert("matmul 1x2x3 #ab".into(), "tiled 16x16x16 of 2x2".into());
        tuning
    }

    fn why(found: Remembered) -> String {
        match found {
            Remembered::Ignored(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_saved_is_read_and_merged() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().join("deep/in");
        let mut one = tuning("1");
        assert_eq!(one.read(&here), Remembered::Nothing);
        let path = one.save(&here).unwrap();
        assert_eq!(one.read(&here), Remembered::Tuned(one.clone()));
        // another driver's lie beside it
        assert_eq!(tuning("2").read(&here), Remembered::Nothing);
        let mut more = tuning("1");
        more.choices = BTreeMap::from([("conv2d 4 #cd".to_string(), "x".to_string())]);
        assert_eq!(more.save(&here).unwrap(), path);
        one.choices.extend(more.choices.clone());
        assert_eq!(more.read(&here), Remembered::Tuned(one));
        assert_eq!(fs::read_dir(&here).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn damage_is_noticed_wherever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        let whole = tuning("1");
        let path = whole.save(here).unwrap();
        let bytes = fs::read(&path).unwrap();
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 1;
            fs::write(&path, &damaged).unwrap();
            match whole.read(here) {
                Remembered::Ignored(_) => {}
                // white space between the values holds nothing
                Remembered::Tuned(found) => assert!(found == whole && bytes[i].is_ascii_whitespace(), "{i}"),
                Remembered::Nothing => panic!("{i}"),
            }
        }
        for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..len]).unwrap();
            assert!(why(whole.read(here)).starts_with("damaged"), "{len}");
        }
        // it is replaced by the next that is saved
        whole.save(here).unwrap();
        assert_eq!(whole.read(here), Remembered::Tuned(whole.clone()));
    }

    #[test]
    fn what_is_foreign_or_too_large_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        let (own, other) = (tuning("1"), tuning("2"));
        let path = other.save(here).unwrap();
        fs::rename(&path, own.path(here)).unwrap();
        assert_eq!(why(own.read(here)), "made for Card \"A\" (2) by Kiln 0.1.0");
        fs::write(own.path(here), vec![b' '; 5 << 20]).unwrap();
        assert!(why(own.read(here)).contains("more than 4194304 bytes"));
        fs::remove_file(own.path(here)).unwrap();
        fs::create_dir(own.path(here)).unwrap();
        assert!(why(own.read(here)).contains("a folder, not a file"));
        let mut large = tuning("3");
        large.choices.extend((0..70_000).map(|i| (format!("{i} {}", "x".repeat(60)), "y".to_string())));
        assert!(large.save(here).unwrap_err().to_string().contains("larger"));
        assert!(!large.path(here).exists());
    }
}
