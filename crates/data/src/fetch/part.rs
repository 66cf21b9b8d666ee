//! A file that has not come whole yet, and where it comes from.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

/// Longest note of an origin that is read: an address and a validator.
const LONGEST_NOTE: u64 = 1 << 16;

/// `FILE.part` beside the file that it becomes, and `FILE.part.from`, which says where it comes from.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    note: PathBuf,
}

/// Where a partial file comes from. The address is as [`super::masked`] has it: notes hold no passwords.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) url: String,
    /// A strong ETag, or the date of the last change: what says on a resume that the file is still the same.
    pub(super) validator: Option<String>,
    /// Length of the whole, where the server said so.
    pub(super) total: Option<u64>,
}

impl Part {
    /// That of `folder/file`.
    pub(super) fn new(folder: &Path, file: &str) -> Self {
        Self { path: folder.join(format!("{file}.part")), note: folder.join(format!("{file}.part.from")) }
    }

    /// Bytes that are there.
    pub(super) fn len(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |meta| meta.len())
    }

    /// Where what is there comes from; none if nothing is there, or nobody knows.
    pub(super) fn origin(&self) -> Option<Origin> {
        if fs::metadata(&self.note).ok()?.len() > LONGEST_NOTE || self.len() == 0 {
            return None;
        }
        let text = fs::read_to_string(&self.note).ok()?;
        let mut lines = text.split('\n');
        let url = lines.next()?.to_owned();
        let validator = Some(lines.next()?.to_owned()).filter(|line| !line.is_empty());
        let total = lines.next()?.parse().ok();
        Some(Origin { url, validator, total })
    }

    /// An empty file from `origin`.
    pub(super) fn begin(&self, origin: &Origin) -> io::Result<File> {
        // first of all, so that no note stands beside bytes of another origin
        let file = File::create(&self.path)?;
        let line = |text: &str| text.replace(['\n', '\r'], " ");
        let total = origin.total.map_or_else(String::new, |total| total.to_string());
        let validator = origin.validator.as_deref().unwrap_or_default();
        fs::write(&self.note, format!("{}\n{}\n{total}\n", line(&origin.url), line(validator)))?;
        Ok(file)
    }

    /// The file as it is, to be written on at its end.
    pub(super) fn go_on(&self) -> io::Result<File> {
        OpenOptions::new().append(true).open(&self.path)
    }

    /// Moves it to its place once it lies on the disk.
    pub(super) fn install(&self, target: &Path) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        fs::rename(&self.path, target)?;
        let _ = fs::remove_file(&self.note);
        sync_folder(target);
        Ok(())
    }

    /// Removes it.
    pub(super) fn discard(&self) {
        // what cannot be removed is overwritten the next time
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.note);
    }
}

/// Has the system write the names of a file's folder; where it cannot, a crash may bring the old ones back, no harm.
pub(super) fn sync_folder(file: &Path) {
    if let Some(folder) = file.parent().and_then(|folder| File::open(folder).ok()) {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn origins_are_kept_with_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let part = Part::new(dir.path(), "a.gz");
        assert_eq!((part.origin(), part.len()), (None, 0));
        for (validator, total) in [(Some("\"x\""), Some(9)), (None, None)] {
            let origin = Origin { url: "http://h/a.gz".into(), validator: validator.map(Into::into), total };
            part.begin(&origin).unwrap().write_all(b"abc").unwrap();
            part.go_on().unwrap().write_all(b"de").unwrap();
            assert_eq!((part.origin(), part.len()), (Some(origin), 5));
        }
        fs::remove_file(&part.note).unwrap();
        assert_eq!(part.origin(), None);
        part.install(&dir.path().join("a.gz")).unwrap();
        assert_eq!(fs::read(dir.path().join("a.gz")).unwrap(), b"abcde");
        part.discard();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
