use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use kiln_kernel::files::sync_folder_of;

use super::{CallbackState, state_of, values};
use crate::NnError;

/// A file that only grows while a fit goes on, and that a fit which goes on from a checkpoint first cuts back to its
/// length there: what was logged after the checkpoint is logged once more.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    open: Option<Open>,
    /// The length that a checkpoint has kept, until the fit begins.
    kept: Option<u64>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

impl LogFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, open: None, kept: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// What a checkpoint keeps of a callback that is just this file.
    pub(super) fn state(&self) -> Result<CallbackState, NnError> {
        state_of(&self.synced()?)
    }

    /// [`LogFile::restore`] of what [`LogFile::state`] gave.
    pub(super) fn take_up(&mut self, name: &str, state: &CallbackState) -> Result<(), NnError> {
        self.restore(values(name, state)?);
        Ok(())
    }

    /// Whether [`LogFile::begin`] is going to cut it.
    pub(super) fn has_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// To be cut to this length by [`LogFile::begin`].
    pub(super) fn restore(&mut self, bytes: u64) {
        (self.kept, self.open) = (Some(bytes), None);
    }

    /// Makes the file ready: cut back after [`LogFile::restore`]; as it is where a fit goes on from one before; else
    /// empty.
    pub(super) fn begin(&mut self, goes_on: bool) -> Result<(), NnError> {
        match self.kept.take() {
            Some(kept) => self.cut(kept),
            None if goes_on && self.is_open() => Ok(()),
            None => self.create(goes_on),
        }
    }

    /// Adds whole lines or records, which a reader can see at once.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), NnError> {
        let Some(open) = &mut self.open else {
            return Err(NnError::file(&self.path, "is logged to before the fit has begun"));
        };
        open.file.write_all(bytes).map_err(|error| cannot_write(&self.path, &error))?;
        open.bytes += bytes.len() as u64;
        Ok(())
    }

    /// The length, all of which is on the disk: a power cut after the checkpoint leaves at least that. 0 if the file is
    /// not there yet.
    pub(super) fn synced(&self) -> Result<u64, NnError> {
        let Some(open) = &self.open else {
            return Ok(self.kept.unwrap_or(0));
        };
        open.file.sync_data().map_err(|error| cannot_write(&self.path, &error))?;
        Ok(open.bytes)
    }

    /// What the file holds.
    pub(super) fn contents(&mut self) -> Result<Vec<u8>, NnError> {
        let mut text = Vec::new();
        if let Some(Open { file, bytes }) = &mut self.open {
            file.seek(SeekFrom::Start(0))
                .and_then(|_| file.read_to_end(&mut text))
                .and_then(|_| file.seek(SeekFrom::Start(*bytes)))
                .map_err(|error| NnError::file(&self.path, format!("cannot be read: {error}")))?;
        }
        Ok(text)
    }

    fn create(&mut self, keep: bool) -> Result<(), NnError> {
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|error| cannot_write(folder, &error))?;
        }
        let open = || {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(!keep).open(&self.path)?;
            let bytes = file.seek(SeekFrom::End(0))?;
            Ok(Open { file, bytes })
        };
        let is_new = !self.path.exists();
        self.open = Some(open().map_err(|error| cannot_write(&self.path, &error))?);
        if is_new {
            sync_folder_of(&self.path).map_err(|error| cannot_write(&self.path, &error))?;
        }
        Ok(())
    }

    fn cut(&mut self, bytes: u64) -> Result<(), NnError> {
        let has = match fs::metadata(&self.path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(NnError::file(&self.path, format!("cannot be read: {error}"))),
        };
        if has < bytes {
            return Err(NnError::file(
                &self.path,
                format!(
                    "has {has} bytes, but had {bytes} when the checkpoint was made that the fit goes on from; put the \
                     log of that run back, or fit from the beginning"
                ),
            ));
        }
        self.create(true)?;
        if let Some(open) = &mut self.open {
            let cut = open.file.set_len(bytes).and_then(|()| open.file.seek(SeekFrom::Start(bytes)));
            open.bytes = cut.map_err(|error| cannot_write(&self.path, &error))?;
        }
        Ok(())
    }
}

pub(super) fn cannot_write(path: &Path, error: &std::io::Error) -> NnError {
    NnError::file(path, format!("cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_back_to_its_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/log.txt");
        let read = || fs::read_to_string(&path).unwrap();

        let mut log = LogFile::new(path.clone());
        assert!(log.append(b"early").is_err(), "the fit has not begun");
        log.begin(false).unwrap();
        log.append(b"one\n").unwrap();
        let kept = log.synced().unwrap();
        log.append(b"two, of which the check").unwrap();
        drop(log);

        let mut log = LogFile::new(path.clone());
        log.restore(kept);
        assert_eq!(
            log.synced().unwrap(),
            4,
            "a checkpoint before the first step keeps what it was made from"
        );
        log.begin(true).unwrap();
        assert_eq!(read(), "one\n");
        log.append(b"two\n").unwrap();
        assert_eq!(log.contents().unwrap(), b"one\ntwo\n");
        log.append(b"three\n").unwrap();
        log.begin(true).unwrap();
        assert_eq!(read(), "one\ntwo\nthree\n", "the next fit of one that has ended goes on");

        LogFile::new(path.clone()).begin(true).unwrap();
        assert_eq!(read(), "one\ntwo\nthree\n", "and so does one from a later epoch");
        log.begin(false).unwrap();
        assert_eq!(read(), "", "a fit from its beginning starts anew");
    }

    #[test]
    fn a_log_that_was_lost_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.txt");
        fs::write(&path, "123").unwrap();
        let mut log = LogFile::new(path.clone());
        log.restore(4);
        let message = log.begin(true).unwrap_err().to_string();
        assert!(message.contains("log.txt: has 3 bytes, but had 4"), "{message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "123", "it is left alone");

        let mut log = LogFile::new(path.join("below a file"));
        let message = log.begin(false).unwrap_err().to_string();
        assert!(message.contains("log.txt") && message.contains("cannot be written"), "{message}");
    }
}
