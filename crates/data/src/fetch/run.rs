//! One fetch: what is there, what is brought, from which mirror.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{
    Content, Digest, Fetch, FetchedFile, FileState, Observer, Progress, Source, masked,
    part::{Part, sync_folder},
    transfer::{Client, Stop},
    verify::{Unpacked, Verdict, check, unpack},
};
use crate::{DataError, NoMirror, is_at};

/// The file in a data set's folder by which processes keep out of each other's way.
const LOCK: &str = ".fetch.lock";

/// Time between two looks at a lock that another process holds.
const LOCK_PERIOD: Duration = Duration::from_millis(100);

/// A transfer that came this far before it broke off was worth its while: it does not count as an attempt.
const PROGRESS: u64 = 1 << 20;

/// What a look at the folder gave for one source.
enum Found {
    Right(Vec<FetchedFile>),
    /// Some are missing; these are there, but not right, and why.
    Not(Vec<(PathBuf, String)>),
}

/// One fetch of one set.
pub(super) struct Run<'a, 'o> {
    fetch: &'a Fetch,
    name: &'a str,
    folder: &'a Path,
    /// Made when it is first needed.
    client: Option<Client<'a>>,
    /// Place of the mirror that gave the last file.
    best: usize,
    observer: &'a mut Observer<'o>,
}

impl<'a, 'o> Run<'a, 'o> {
    pub(super) fn new(
        fetch: &'a Fetch,
        name: &'a str,
        folder: &'a Path,
        observer: &'a mut Observer<'o>,
    ) -> Self {
        Self { fetch, name, folder, client: None, best: 0, observer }
    }

    /// Has all sources lie in the folder.
    pub(super) fn files(mut self, sources: &[Source]) -> Result<Vec<FetchedFile>, DataError> {
        let mut files = Vec::new();
        let mut is_complete = true;
        for source in sources {
            match self.look(source)? {
                Found::Right(found) => files.extend(found),
                Found::Not(_) => is_complete = false,
            }
        }
        // what is complete is not written to: the folder may be read-only
        if is_complete {
            return Ok(files);
        }
        let archive_is_there = |source: &Source| {
            matches!(source.content, Content::TarGz { .. }) && self.folder.join(&source.file).exists()
        };
        if self.fetch.offline && !sources.iter().any(archive_is_there) {
            return Err(self.unavailable(sources)?);
        }
        self.complete(sources)
    }

    fn tell(&mut self, progress: &Progress<'_>) {
        (self.observer)(progress);
    }

    /// Compares what lies in the folder.
    fn look(&mut self, source: &Source) -> Result<Found, DataError> {
        let (mut right, mut wrong) = (Vec::new(), Vec::new());
        let mut is_complete = true;
        // the first that is there is the one that a reader takes
        let files: Vec<([PathBuf; 2], &Digest)> = match &source.content {
            Content::File(digest) => {
                let stem = self.folder.join(source.stem());
                vec![([stem.clone(), with_ending(&stem, "gz")], digest)]
            }
            Content::TarGz { inside, members } => members
                .iter()
                .map(|(name, digest)| ([self.folder.join(name), self.folder.join(inside).join(name)], digest))
                .collect(),
        };
        for (places, digest) in files {
            let Some(path) = places.into_iter().find(|path| path.exists()) else {
                is_complete = false;
                continue;
            };
            self.tell(&Progress::Checking { path: &path });
            let io = |source| DataError::Io { path: path.clone(), source };
            match check(&path, digest).map_err(io)? {
                Verdict::Right { .. } => {
                    let bytes = fs::metadata(&path).map_err(io)?.len();
                    right.push(FetchedFile {
                        path,
                        state: FileState::Present,
                        bytes,
                        from: None,
                        replaced: None,
                    });
                }
                Verdict::Wrong(why) => {
                    is_complete = false;
                    wrong.push((path, why));
                }
            }
        }
        Ok(if is_complete { Found::Right(right) } else { Found::Not(wrong) })
    }

    /// What is to be said where the network may not be used.
    fn unavailable(&mut self, sources: &[Source]) -> Result<DataError, DataError> {
        let mut missing = Vec::new();
        for source in sources {
            if let Found::Not(wrong) = self.look(source)? {
                if let Some((path, why)) = wrong.into_iter().next() {
                    return Ok(DataError::Damaged { name: self.name.into(), path, why });
                }
                missing.extend(source.wanted());
            }
        }
        missing.retain(|file| !self.folder.join(file).exists());
        Ok(self.missing(missing))
    }

    fn missing(&self, missing: Vec<String>) -> DataError {
        DataError::Missing {
            name: self.name.into(),
            dir: self.folder.into(),
            folder: self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            missing,
        }
    }

    /// Brings what is not right, while no other process does. Folders that were only made for it go again where nothing came.
    fn complete(&mut self, sources: &[Source]) -> Result<Vec<FetchedFile>, DataError> {
        let folder = self.folder;
        let named = folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty());
        let made: Vec<&Path> = named.take_while(|folder| !folder.exists()).collect();
        let lock = folder.join(LOCK);
        let _held =
            self.lock(&lock).map_err(|source| DataError::Unwritable { path: lock.clone(), source })?;
        let brought = self.bring(sources);
        let is_bare =
            || fs::read_dir(folder).is_ok_and(|mut files| files.all(|f| f.is_ok_and(|f| f.path() == lock)));
        if brought.is_err() && !made.is_empty() && is_bare() {
            // while the lock is held: who waits for it looks whether it is still there
            let _ = fs::remove_file(&lock);
            made.iter().all(|folder| fs::remove_dir(folder).is_ok());
        }
        brought
    }

    fn bring(&mut self, sources: &[Source]) -> Result<Vec<FetchedFile>, DataError> {
        let mut files = Vec::new();
        for source in sources {
            // another process may have brought it in the meantime
            let wrong = match self.look(source)? {
                Found::Right(found) => {
                    files.extend(found);
                    continue;
                }
                Found::Not(wrong) => wrong,
            };
            for (path, why) in &wrong {
                self.tell(&Progress::Damaged { path, why });
            }
            let brought = match &source.content {
                Content::File(digest) => self.file(source, digest, &wrong)?,
                Content::TarGz { inside, members } => self.archive(source, inside, members, &wrong)?,
            };
            for file in &brought {
                self.tell(&Progress::Ready(file));
            }
            files.extend(brought);
        }
        Ok(files)
    }

    /// The lock of the folder, which is made if it is not there; waits for it. Where the file system has none, there is nothing to
    /// wait for.
    fn lock(&mut self, path: &Path) -> io::Result<File> {
        let mut is_told = false;
        loop {
            fs::create_dir_all(self.folder)?;
            let file = match File::create(path) {
                // a fetch that failed has taken its folder along
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            self.wait(&file, &mut is_told)?;
            if is_at(&file, path) {
                return Ok(file);
            }
        }
    }

    fn wait(&mut self, file: &File, is_told: &mut bool) -> io::Result<()> {
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(is_told, true) {
                        self.tell(&Progress::Waiting { folder: self.folder });
                    }
                    thread::sleep(LOCK_PERIOD);
                }
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    return Ok(());
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Brings one file.
    fn file(
        &mut self,
        source: &Source,
        digest: &Digest,
        wrong: &[(PathBuf, String)],
    ) -> Result<Vec<FetchedFile>, DataError> {
        let stem = self.folder.join(source.stem());
        let packed = with_ending(&stem, "gz");
        let store = |path: &Path, source| DataError::Store { path: path.into(), source };
        // a damaged file may hide a right one
        if packed.exists()
            && wrong.iter().all(|(path, _)| *path != packed)
            && let Ok(Verdict::Right { .. }) = check(&packed, digest)
        {
            let replaced = set_aside(wrong)?;
            let bytes = fs::metadata(&packed).map_err(|e| store(&packed, e))?.len();
            let state = FileState::Present;
            return Ok(vec![FetchedFile { path: packed, state, bytes, from: None, replaced }]);
        }
        let part = Part::new(self.folder, &source.file);
        let mut gzip = false;
        let url = self.download(source, &part, &mut |path| {
            Ok(match check(path, digest).map_err(|e| store(path, e))? {
                Verdict::Right { gzip: is_gzip } => {
                    gzip = is_gzip;
                    None
                }
                Verdict::Wrong(why) => Some(why),
            })
        })?;
        let path = if gzip { packed } else { stem };
        let replaced = set_aside(wrong)?;
        part.install(&path).map_err(|e| store(&path, e))?;
        let bytes = fs::metadata(&path).map_err(|e| store(&path, e))?.len();
        Ok(vec![FetchedFile { path, state: FileState::Downloaded, bytes, from: Some(url), replaced }])
    }

    /// Brings the members of an archive: of one that was put into the folder, else of a mirror's.
    fn archive(
        &mut self,
        source: &Source,
        inside: &str,
        members: &[(String, Digest)],
        wrong: &[(PathBuf, String)],
    ) -> Result<Vec<FetchedFile>, DataError> {
        let (folder, longest) = (self.folder, source.longest());
        let store = |path: &Path, source| DataError::Store { path: path.into(), source };
        let mut unpacked = Vec::new();
        let mut open = |path: &Path| match unpack(path, inside, members, longest, folder) {
            Ok(Unpacked::All(all)) => {
                unpacked = all;
                Ok(None)
            }
            Ok(Unpacked::Wrong(why)) => Ok(Some(why)),
            Err((path, source)) => Err(DataError::Store { path, source }),
        };
        let archive = folder.join(&source.file);
        let mut from = None;
        let mut is_open = false;
        if archive.exists() {
            self.tell(&Progress::Unpacking { path: &archive });
            match open(&archive)? {
                None => is_open = true,
                Some(why) if self.fetch.offline => {
                    return Err(DataError::Damaged { name: self.name.into(), path: archive, why });
                }
                // it stays: nothing reads it once its members are here
                Some(why) => self.tell(&Progress::Damaged { path: &archive, why: &why }),
            }
        }
        if !is_open {
            let part = Part::new(folder, &source.file);
            from = Some(self.download(source, &part, &mut open)?);
            part.discard();
        }
        let state = if from.is_some() { FileState::Downloaded } else { FileState::Unpacked };
        let mut files = Vec::new();
        for member in unpacked {
            let path = folder.join(&member.name);
            let before: Vec<_> = wrong.iter().filter(|(wrong, _)| *wrong == path).cloned().collect();
            let replaced = set_aside(&before)?;
            fs::rename(&member.temporary, &path).map_err(|e| store(&path, e))?;
            let bytes = fs::metadata(&path).map_err(|e| store(&path, e))?.len();
            files.push(FetchedFile { path, state, bytes, from: from.clone(), replaced });
        }
        sync_folder(&archive);
        Ok(files)
    }

    /// Brings a file that `verify` finds right to `part`; gives the address that it came from.
    fn download(
        &mut self,
        source: &Source,
        part: &Part,
        verify: &mut dyn FnMut(&Path) -> Result<Option<String>, DataError>,
    ) -> Result<String, DataError> {
        if self.fetch.offline {
            return Err(self.missing(source.wanted()));
        }
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::new(self.fetch)?,
        };
        // the mirror that has begun the file, else the one that gave the last
        let mut order: Vec<usize> = (0..source.urls.len()).collect();
        let begun =
            part.origin().and_then(|origin| source.urls.iter().position(|url| masked(url) == origin.url));
        let first = begun.unwrap_or(self.best);
        order.sort_by_key(|&place| place != first);
        let mut failures = Vec::new();
        for place in order {
            let url = &source.urls[place];
            match self.ask_mirror(&client, source, url, part, verify) {
                Ok(()) => {
                    self.best = place;
                    self.client = Some(client);
                    return Ok(masked(url));
                }
                Err(Stop::Here(error)) => return Err(error),
                Err(Stop::Mirror(why) | Stop::Passing { why, .. }) => {
                    let url = masked(url);
                    self.tell(&Progress::Failed { file: &source.file, url: &url, why: &why });
                    failures.push((url, why));
                }
            }
        }
        Err(DataError::Fetch(Box::new(NoMirror {
            name: self.name.into(),
            file: source.file.clone(),
            folder: self.folder.into(),
            wanted: source.wanted(),
            failures,
        })))
    }

    /// Asks one mirror until it gives the file, or is not to be asked any more.
    fn ask_mirror(
        &mut self,
        client: &Client<'_>,
        source: &Source,
        url: &str,
        part: &Part,
        verify: &mut dyn FnMut(&Path) -> Result<Option<String>, DataError>,
    ) -> Result<(), Stop> {
        let (file, shown) = (source.file.as_str(), masked(url));
        let mut attempt = 0;
        // the most that was ever here of this mirror's: what is thrown away and comes again is no progress
        let mut most = 0;
        loop {
            attempt += 1;
            self.tell(&Progress::Asking { file, url: &shown });
            let before = part.origin().filter(|origin| origin.url == shown).map_or(0, |_| part.len());
            most = most.max(before);
            let observer = &mut *self.observer;
            let result = client.transfer(url, part, source.longest(), &mut |bytes, total| {
                observer(&Progress::Received { file, bytes, total });
            });
            let (why, after) = match result {
                Ok(_) => {
                    if matches!(source.content, Content::TarGz { .. }) {
                        self.tell(&Progress::Unpacking { path: &part.path });
                    }
                    match verify(&part.path).map_err(Stop::Here)? {
                        None => return Ok(()),
                        Some(why) => {
                            part.discard();
                            if before == 0 {
                                return Err(Stop::Mirror(format!("gives a file that {why}")));
                            }
                            // what lay here may be at fault
                            (format!("the file that was gone on with {why}"), None)
                        }
                    }
                }
                Err(Stop::Passing { why, after }) => (why, after),
                Err(stop) => return Err(stop),
            };
            if part.len() >= most + PROGRESS {
                attempt = 1;
            }
            most = most.max(part.len());
            if attempt >= self.fetch.attempts {
                return Err(Stop::Mirror(format!("{why} ({attempt} attempts)")));
            }
            if after.is_some_and(|after| after > self.fetch.longest_wait) {
                let seconds = after.unwrap_or_default().as_secs();
                return Err(Stop::Mirror(format!("{why} and wants to be asked again after {seconds} s")));
            }
            let wait = self.fetch.wait(attempt, after);
            self.tell(&Progress::Again { file, url: &shown, why: &why, wait });
            thread::sleep(wait);
        }
    }
}

/// Moves files that are not right out of the way, to `FILE.damaged`; gives where the first went.
fn set_aside(wrong: &[(PathBuf, String)]) -> Result<Option<PathBuf>, DataError> {
    let mut first = None;
    for (path, _) in wrong {
        let aside = with_ending(path, "damaged");
        fs::rename(path, &aside).map_err(|source| DataError::Store { path: path.clone(), source })?;
        first.get_or_insert(aside);
    }
    Ok(first)
}

/// `name` and `gz` to `name.gz`.
fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}
