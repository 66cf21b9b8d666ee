//! The folder of a training run: `run.json`, `metrics.jsonl`, `model.safetensors`.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use kiln_data::{Features, Split, Targets, is_at};
use kiln_kernel::files::sync_folder_of;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::Failure;

/// Letters of a recipe's name that a folder is named by: systems allow 255 bytes in all.
const NAME: usize = 48;

/// A folder that has been shown to be writable, and that no other process trains in. One that is dropped before it was
/// [kept](RunFolder::keep) leaves nothing behind.
pub(crate) struct RunFolder {
    path: PathBuf,
    /// Held as long as this is.
    lock: File,
    /// True once something was learned that is worth keeping.
    is_kept: bool,
    /// Folders that were not there before, innermost first.
    made: Vec<PathBuf>,
}

impl RunFolder {
    /// Makes the folder, `runs/NAME-TIME` unless it is named.
    ///
    /// # Errors
    /// Where it cannot be made or written, or holds a run already.
    pub(crate) fn create(named: Option<&Path>, recipe: &str) -> Result<Self, Failure> {
        let (path, made) = match named {
            Some(path) => {
                if path.join("run.json").exists() {
                    return Err(Failure::Message(format!(
                        "{0} holds a run already; go on with it (kiln train --resume {0}), remove it, or name another \
                         folder with --out",
                        path.display()
                    )));
                }
                if let Some(name) = FILES.iter().find(|name| path.join(name).exists()) {
                    return Err(Failure::Message(format!(
                        "{} is there already, though no run.json beside it; remove it, or name another folder with --out",
                        path.join(name).display()
                    )));
                }
                let made = missing(path);
                fs::create_dir_all(path).map_err(|error| cannot(path, &error))?;
                (path.to_path_buf(), made)
            }
            None => {
                let runs = Path::new("runs");
                let mut made = missing(runs);
                fs::create_dir_all(runs).map_err(|error| cannot(runs, &error))?;
                let path = fresh(runs, recipe)?;
                made.insert(0, path.clone());
                (path, made)
            }
        };
        let lock = lock(&path)?;
        // the names of new folders must outlast a power cut as what is in them does
        made.iter().try_for_each(|folder| sync_folder_of(folder)).map_err(|error| cannot(&path, &error))?;
        Ok(Self { path, lock, is_kept: false, made })
    }

    /// The folder of a run that was interrupted. What a crash has left half written is removed.
    ///
    /// # Errors
    /// Where it cannot be written, or another process trains in it.
    pub(crate) fn reopen(path: &Path) -> Result<Self, Failure> {
        // the folder may come from anywhere: what is written in it must stay in it
        for name in FILES.iter().chain(&["run.json"]) {
            refuse_links(&path.join(name))?;
        }
        let lock = lock(path)?;
        for folder in [path.to_path_buf(), path.join("checkpoints")] {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            for left in entries.filter(|path| path.extension().is_some_and(|end| end == "tmp")) {
                // one that stays takes room and does no other harm
                let _ = fs::remove_file(left);
            }
        }
        Ok(Self { path: path.to_path_buf(), lock, is_kept: true, made: Vec::new() })
    }

    /// A file in the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// From now on the folder stays.
    pub(crate) fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Writes `run.json`, whole or not at all.
    ///
    /// # Errors
    /// Where the disk is full or the folder has gone.
    pub(crate) fn describe(&self, run: &impl Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_vec_pretty(run)
            .map_err(|error| Failure::Message(format!("the run cannot be written as JSON: {error}")))?;
        text.push(b'\n');
        Ok(kiln_nn::write_atomically(&self.file("run.json"), &text)?)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Removed while it is locked, so that nobody else's is removed; some systems keep a locked file, which changes nothing.
        let _ = fs::remove_file(self.file(LOCK));
        let _ = self.lock.unlock();
        // a defect is no reason to lose what was learned
        if self.is_kept || std::thread::panicking() {
            return;
        }
        // None of these was there before. Why there is no run is being told already.
        for name in FILES {
            let path = self.file(name);
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
        let _ = fs::remove_file(self.file("run.json"));
        for folder in &self.made {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// What a run writes beside `run.json`.
const FILES: [&str; 8] = [
    "metrics.jsonl",
    "metrics.csv",
    "tensorboard",
    "model.safetensors",
    "checkpoints",
    "nonfinite",
    "loss.png",
    "accuracy.png",
];

/// The file that a process holds a lock on while it trains.
const LOCK: &str = ".lock";

/// Longest text about a lock's owner that is read.
const MOST_OWNER: u64 = 64;

/// Refuses a symbolic link, which may lead out of the folder. A folder that is one itself is the user's to name.
///
/// # Errors
/// Where it is one.
pub(crate) fn refuse_link(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Ok(about) if about.is_symlink() => Err(Failure::Message(format!(
            "{}: is a symbolic link, which may lead out of the folder of the run; put what it leads to in its place",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Refuses symbolic links anywhere in a file or folder.
///
/// # Errors
/// Where there is one, or a folder cannot be read.
fn refuse_links(path: &Path) -> Result<(), Failure> {
    refuse_link(path)?;
    if !path.is_dir() {
        return Ok(());
    }
    let cannot = |error| Failure::Message(format!("{}: cannot be read: {error}", path.display()));
    for entry in fs::read_dir(path).map_err(cannot)? {
        refuse_links(&entry.map_err(cannot)?.path())?;
    }
    Ok(())
}

/// Takes the lock of a folder, which ends with the process however that ends.
fn lock(folder: &Path) -> Result<File, Failure> {
    loop {
        let file = lock_once(folder)?;
        // the process that held it before may have removed the file after it was opened here: then the next locks another
        if is_at(&file, &folder.join(LOCK)) {
            return Ok(file);
        }
    }
}

fn lock_once(folder: &Path) -> Result<File, Failure> {
    let path = folder.join(LOCK);
    // opening one would empty what it leads to
    refuse_link(&path)?;
    // opening a pipe would wait for its other end
    if fs::metadata(&path).is_ok_and(|about| !about.is_file()) {
        return Err(Failure::Message(format!("{}: is there and no regular file; remove it", path.display())));
    }
    // what another process has written there is kept until the lock is ours
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&path).map_err(|error| cannot(&path, &error))?;
    match file.try_lock() {
        Ok(()) => {
            let owner = format!("process {}", std::process::id());
            // only words for whoever comes second
            let _ = file.set_len(0).and_then(|()| file.write_all(owner.as_bytes()));
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            // some systems let nobody read a locked file
            let read = file.take(MOST_OWNER).read_to_string(&mut owner).is_ok();
            let known =
                read && !owner.is_empty() && owner.chars().all(|c| c.is_ascii_alphanumeric() || c == ' ');
            let who = if known { format!(" ({owner})") } else { String::new() };
            Err(Failure::Message(format!(
                "{}: another kiln{who} is training in this folder; wait for it or end it, or train in another one",
                folder.display()
            )))
        }
        // a file system without locks: nothing can be said
        Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Which of a folder and those around it are not there yet, innermost first.
fn missing(path: &Path) -> Vec<PathBuf> {
    let named = path.ancestors().take_while(|folder| !folder.as_os_str().is_empty());
    named.take_while(|folder| !folder.exists()).map(Path::to_path_buf).collect()
}

/// `runs/NAME-TIME`, with a number behind it where a run began in the same second.
fn fresh(runs: &Path, recipe: &str) -> Result<PathBuf, Failure> {
    // The name comes from a file: it must not lead out of the folder.
    let name: String = recipe
        .chars()
        .map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' })
        .take(NAME)
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let base = format!("{name}-{}", timestamp(now));
    for attempt in 1..=100 {
        let path = runs.join(if attempt == 1 { base.clone() } else { format!("{base}-{attempt}") });
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(cannot(&path, &error)),
        }
    }
    Err(Failure::Message(format!("{}: 100 runs began in this second; name one with --out", runs.display())))
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    Failure::Message(format!(
        "cannot write {}: {error}; make it writable, or name another folder for a new run with --out",
        path.display()
    ))
}

/// `20260131-235959` in UTC, from seconds since 1970.
///
/// Source: Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn timestamp(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// SHA-256 of a file's contents.
pub(crate) fn hash_bytes(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a model file and of its tensors' bytes alone, without the header that describes them.
///
/// # Errors
/// Where the file cannot be read.
pub(crate) fn hash_model(path: &Path) -> Result<(String, String), Failure> {
    let bytes = kiln_nn::read_regular(path, 8 << 30, "a model file")?;
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    let header = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    Ok((hash_bytes(&bytes), hash_bytes(&rest[header.min(rest.len())..])))
}

/// SHA-256 of a split's targets: labels, or numbers as little-endian bytes.
pub(crate) fn hash_targets(split: &Split) -> String {
    let mut hasher = Sha256::new();
    add_targets(split, &mut hasher);
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn add_targets(split: &Split, hasher: &mut Sha256) {
    match split.targets() {
        Targets::Classes { labels, .. } => labels.iter().for_each(|l| hasher.update(l.to_le_bytes())),
        Targets::Real { values, .. } => values.iter().for_each(|v| hasher.update(v.to_le_bytes())),
        Targets::Input => {}
    }
}

/// Rows that are read at once to be hashed.
const HASHED_ROWS: usize = 256;

/// What is to be said of a run's model file that is not the one that the run has written, whose SHA-256 was `wanted`.
///
/// # Errors
/// Where it is there and cannot be read.
pub(crate) fn changed_model(folder: &Path, wanted: &str) -> Result<Option<String>, Failure> {
    let path = folder.join("model.safetensors");
    if !path.exists() {
        return Ok(Some(format!("{}: not there any more, though the run is over", path.display())));
    }
    let is = hash_bytes(&kiln_nn::read_regular(&path, 8 << 30, "a model file")?);
    Ok((is != wanted).then(|| {
        format!("{}: not the file that the run has written: damaged, or changed since", path.display())
    }))
}

/// SHA-256 of a split's rows and targets, numbers as little-endian bytes. Of rows that are read when they are needed and
/// can be told by other means, those means and which of them there are.
///
/// # Errors
/// Where a row cannot be read.
pub(crate) fn hash(split: &Split) -> Result<String, Failure> {
    let mut hasher = Sha256::new();
    let real =
        |values: &[f32], hasher: &mut Sha256| values.iter().for_each(|v| hasher.update(v.to_le_bytes()));
    match split.features() {
        Features::Bytes(bytes) => hasher.update(bytes),
        Features::Real(values) => real(values, &mut hasher),
        Features::OnDemand(rows) => match rows.rows().identity() {
            Some(identity) => {
                hasher.update(identity);
                (0..rows.len()).for_each(|row| hasher.update((rows.index(row) as u64).to_le_bytes()));
            }
            None => {
                for rows in (0..split.len() as u32).collect::<Vec<_>>().chunks(HASHED_ROWS) {
                    match split.load(rows)?.features() {
                        Features::Bytes(bytes) => hasher.update(bytes),
                        Features::Real(values) => real(values, &mut hasher),
                        Features::OnDemand(_) => unreachable!("they were just read"),
                    }
                }
            }
        },
    }
    add_targets(split, &mut hasher);
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        for (seconds, want) in [
            (0, "19700101-000000"),
            (951_782_400, "20000229-000000"),
            (1_704_067_199, "20231231-235959"),
            (1_709_210_096, "20240229-123456"),
            (4_107_542_400, "21000301-000000"),
        ] {
            assert_eq!(timestamp(seconds), want);
        }
    }

    #[test]
    fn folders_hold_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunFolder::create(Some(&dir.path().join("a/b")), "xor").unwrap();
        run.describe(&[7]).unwrap();
        assert_eq!(fs::read_to_string(run.file("run.json")).unwrap(), "[\n  7\n]\n");

        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let message = RunFolder::create(Some(&file.join("x")), "xor").err().unwrap().to_string();
        assert!(message.contains("cannot write") && message.contains("--out"), "{message}");
    }

    #[test]
    fn what_was_never_used_is_removed_and_what_was_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (outer, inner) = (dir.path().join("a"), dir.path().join("a/b"));
        let run = RunFolder::create(Some(&inner), "xor").unwrap();
        run.describe(&[7]).unwrap();
        drop(run);
        assert!(!outer.exists(), "no folder is left");

        fs::create_dir(&outer).unwrap();
        fs::write(outer.join("mine"), "").unwrap();
        drop(RunFolder::create(Some(&outer), "xor").unwrap());
        assert_eq!(fs::read_dir(&outer).unwrap().count(), 1, "only what was there before");

        let mut run = RunFolder::create(Some(&inner), "xor").unwrap();
        run.keep();
        run.describe(&[7]).unwrap();
        let message = RunFolder::reopen(&inner).err().unwrap().to_string();
        let owner = if cfg!(windows) { String::new() } else { format!(" (process {})", std::process::id()) };
        assert!(message.contains(&format!("another kiln{owner} is training")), "{message}");
        drop(run);
        let message = RunFolder::create(Some(&inner), "xor").err().unwrap().to_string();
        assert!(message.contains("holds a run already") && message.contains("--resume"), "{message}");

        fs::create_dir(inner.join("checkpoints")).unwrap();
        for left in ["model.safetensors.77.tmp", "checkpoints/step-1.safetensors.77.tmp"] {
            fs::write(inner.join(left), "").unwrap();
        }
        drop(RunFolder::reopen(&inner).unwrap());
        let mut names: Vec<_> = fs::read_dir(&inner).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["checkpoints", "run.json"]);
        assert_eq!(fs::read_dir(inner.join("checkpoints")).unwrap().count(), 0);
    }

    #[test]
    fn a_models_weights_are_hashed_without_the_header() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        for (header, want) in [("{}", "\x01\x02"), ("{ }  ", "\x01\x02")] {
            let bytes =
                [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), want.as_bytes()].concat();
            fs::write(&path, &bytes).unwrap();
            assert_eq!(hash_model(&path).unwrap(), (hash_bytes(&bytes), hash_bytes(want.as_bytes())));
        }
        // cut short, or with a length that is none
        for bytes in [&b"abc"[..], &[0xff; 20]] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(hash_model(&path).unwrap(), (hash_bytes(bytes), hash_bytes(b"")));
        }
    }

    #[test]
    fn hashes_tell_data_apart() {
        let a = kiln_data::Dataset::linear(1).unwrap();
        let b = kiln_data::Dataset::linear(2).unwrap();
        assert_eq!(hash(&a.train).unwrap(), hash(&a.train.clone()).unwrap());
        assert_ne!(hash(&a.train).unwrap(), hash(&b.train).unwrap());
        assert_eq!(hash(&a.train).unwrap().len(), 64);
        assert_ne!(hash_targets(&a.train), hash_targets(&b.train));
    }
}
