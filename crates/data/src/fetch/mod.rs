//! Downloads of well-known data sets.
//!
//! A file is right if its content is the known one, compressed or not: nothing else is trusted, neither a mirror nor what
//! already lies in the folder.

mod known;
mod part;
mod proxy;
mod transfer;
mod verify;

use std::{
    fs::{self, File, TryLockError},
    hash::{BuildHasher, Hasher},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

pub(crate) use known::CIFAR10_INSIDE;
pub use known::{Content, Digest, Source};
pub use proxy::Proxies;

use self::{
    part::{Part, sync_folder},
    transfer::{Client, Stop},
    verify::{Unpacked, Verdict, check, unpack},
};
use crate::{DataDir, DataError};

/// Time between two looks at a lock that another process holds.
const LOCK_PERIOD: Duration = Duration::from_millis(100);

/// A transfer that came this far before it broke off was worth its while: it does not count as an attempt.
const PROGRESS: u64 = 1 << 20;

/// Has the files of a set (`mnist`, `fashion-mnist`, `cifar10`) lie in its folder of `dir`: checks those that are there, and
/// downloads the others, with the settings of [`Fetch::default`].
///
/// This and the methods of [`Fetch`] are the only functions of Kiln that use the network; [`crate::Dataset::mnist`] and its
/// like only read files.
///
/// ```no_run
/// use kiln_data::{DataDir, Dataset, fetch};
/// let dir = DataDir::from_env();
/// fetch("mnist", &dir)?;
/// let data = Dataset::mnist(dir)?;
/// # Ok::<(), kiln_data::DataError>(())
/// ```
///
/// # Errors
/// [`DataError::Fetch`] if no mirror gives a file, with the reason for each, and where files from elsewhere can be put; and
/// see [`Fetch::fetch`].
pub fn fetch(name: &str, dir: &DataDir) -> Result<Fetched, DataError> {
    Fetch::default().fetch(name, dir)
}

/// How data sets are downloaded.
///
/// Every field may be set; [`Fetch::default`] reads the environment.
///
/// ```
/// use kiln_data::{DataDir, DataError, Fetch};
/// let offline = Fetch { offline: true, ..Fetch::default() };
/// let nowhere = DataDir::new("no/such/folder");
/// assert!(matches!(offline.fetch("mnist", &nowhere), Err(DataError::Missing { .. })));
/// ```
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Whether only what is there is checked, and the network not used.
    pub offline: bool,
    /// Addresses to use instead of the well-known mirrors: of `https://HOST/PLACE`, `https://HOST/PLACE/NAME/FILE` is asked
    /// for, so that a data folder that is served as it lies is a mirror.
    pub mirrors: Vec<String>,
    /// Longest time for finding a host and for its taking a connection, each.
    pub connect_timeout: Duration,
    /// Longest time without a byte.
    pub stall_timeout: Duration,
    /// How often a mirror is asked that may do better the next time: after a stall, a transfer that broke off, an answer
    /// 429 or 503.
    pub attempts: u32,
    /// Time before the second attempt; it doubles with each, and varies by a quarter, so that many programs do not come
    /// back at once.
    pub first_wait: Duration,
    /// Longest time between attempts. Of a server that asks for more (`Retry-After`), no more is wanted.
    pub longest_wait: Duration,
    /// Proxies.
    pub proxies: Proxies,
    /// A PEM file of the certificates to trust instead of those of Mozilla's list, which Kiln carries.
    pub certificates: Option<PathBuf>,
}

/// Online unless `KILN_OFFLINE` is set to something other than `0`; mirrors from `KILN_MIRROR` if it is set, with commas
/// between several; proxies as [`Proxies::from_env`] says; certificates from
/// the file that `SSL_CERT_FILE` names, if it is set. 15 s to connect, 30 s without a byte, four attempts 1, 2 and 4 s apart.
impl Default for Fetch {
    fn default() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            offline: variable("KILN_OFFLINE").is_some_and(|value| value != "0"),
            mirrors: std::env::var("KILN_MIRROR")
                .unwrap_or_default()
                .split(',')
                .map(str::trim)
                .filter(|mirror| !mirror.is_empty())
                .map(str::to_owned)
                .collect(),
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            attempts: 4,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(60),
            proxies: Proxies::from_env(),
            certificates: variable("SSL_CERT_FILE").map(PathBuf::from),
        }
    }
}

/// What happens during a download, in order.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Another process fetches the same set: it is waited for.
    Waiting {
        /// The set's folder.
        folder: &'a Path,
    },
    /// A file that is there is read and compared.
    Checking {
        /// The file.
        path: &'a Path,
    },
    /// A file that is there is not what it should be. It is replaced, and kept as `FILE.damaged`.
    Damaged {
        /// The file.
        path: &'a Path,
        /// What is wrong with it.
        why: &'a str,
    },
    /// A mirror is asked for a file.
    Asking {
        /// The file.
        file: &'a str,
        /// Its address.
        url: &'a str,
    },
    /// So many bytes of a file are here.
    Received {
        /// The file.
        file: &'a str,
        /// Bytes, with those of an earlier transfer that was gone on with.
        bytes: u64,
        /// Its length, where the server says so.
        total: Option<u64>,
    },
    /// A transfer failed, and is tried again.
    Again {
        /// The file.
        file: &'a str,
        /// Its address.
        url: &'a str,
        /// What went wrong.
        why: &'a str,
        /// Time until then.
        wait: Duration,
    },
    /// A mirror does not give the file.
    Failed {
        /// The file.
        file: &'a str,
        /// Its address.
        url: &'a str,
        /// Why not.
        why: &'a str,
    },
    /// An archive is unpacked.
    Unpacking {
        /// The archive.
        path: &'a Path,
    },
    /// A file is in its place.
    Ready(&'a FetchedFile),
}

/// What became of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The set.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Its files, all of them right.
    pub files: Vec<FetchedFile>,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedFile {
    /// Where it lies.
    pub path: PathBuf,
    /// How it came there.
    pub state: FileState,
    /// Its length as it lies there.
    pub bytes: u64,
    /// Where it was downloaded from, for an archive's members where that was.
    pub from: Option<String>,
    /// Where what lay there before was moved to, if it was not right.
    pub replaced: Option<PathBuf>,
}

/// How a file came to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileState {
    /// It was there, and right.
    Present,
    /// It was downloaded now.
    Downloaded,
    /// It was unpacked now from an archive that was there.
    Unpacked,
}

/// What a look at the folder gave for one source.
enum Found {
    Right(Vec<FetchedFile>),
    /// Some are missing; these are there, but not right, and why.
    Not(Vec<(PathBuf, String)>),
}

/// Hears what happens.
type Observer<'a> = dyn FnMut(&Progress<'_>) + 'a;

impl Fetch {
    /// Names of the sets that can be downloaded.
    pub const SETS: [&'static str; 3] = known::SETS;

    /// [`Fetch::fetch_with`] without an observer.
    ///
    /// # Errors
    /// As there.
    pub fn fetch(&self, name: &str, dir: &DataDir) -> Result<Fetched, DataError> {
        self.fetch_with(name, dir, &mut |_| {})
    }

    /// Has the files of a set lie in its folder of `dir`, and tells `observer` what happens.
    ///
    /// Files that are there are compared with the known content. One that is wrong is named, downloaded anew, and kept as
    /// `FILE.damaged`. A transfer goes to `FILE.part`; one that broke off is gone on with, the next time too, if the server
    /// still has the same file. Only what has been verified gets its name, in one step. Another process that fetches the
    /// same set is waited for.
    ///
    /// # Errors
    /// [`DataError::UnknownDownload`] for a name that is none of [`Fetch::SETS`]; [`DataError::Fetch`] if no mirror gives a
    /// file; [`DataError::Store`] if one cannot be written; offline, [`DataError::Missing`] and [`DataError::Damaged`].
    pub fn fetch_with(
        &self,
        name: &str,
        dir: &DataDir,
        observer: &mut Observer<'_>,
    ) -> Result<Fetched, DataError> {
        let sources = known::sources(name, &self.mirrors)
            .ok_or_else(|| DataError::UnknownDownload { name: name.into(), known: Self::SETS.join(", ") })?;
        self.fetch_sources(name, &dir.folder(name), &sources, observer)
    }

    /// [`Fetch::fetch_with`] for any files that are known by their content: data sets of one's own.
    ///
    /// ```no_run
    /// use kiln_data::{Content, Digest, Fetch, Source};
    /// let source = Source {
    ///     file: "kmnist-labels.gz".into(),
    ///     urls: vec!["https://example.org/kmnist-labels.gz".into()],
    ///     content: Content::File(Digest { bytes: 60_008, sha256: "65a5...".into() }),
    /// };
    /// let folder = std::path::Path::new("data/kmnist");
    /// Fetch::default().fetch_sources("kmnist", folder, &[source], &mut |_| {})?;
    /// # Ok::<(), kiln_data::DataError>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn fetch_sources(
        &self,
        name: &str,
        folder: &Path,
        sources: &[Source],
        observer: &mut Observer<'_>,
    ) -> Result<Fetched, DataError> {
        let mut run = Run { fetch: self, name, folder, client: None, best: 0, observer };
        let mut files = Vec::new();
        let mut is_complete = true;
        for source in sources {
            match run.look(source)? {
                Found::Right(found) => files.extend(found),
                Found::Not(_) => is_complete = false,
            }
        }
        if !is_complete {
            let archive_is_there = |source: &Source| {
                matches!(source.content, Content::TarGz { .. }) && folder.join(&source.file).exists()
            };
            if self.offline && !sources.iter().any(archive_is_there) {
                return Err(run.unavailable(sources)?);
            }
            files = run.complete(sources)?;
        }
        Ok(Fetched { name: name.into(), folder: folder.into(), files })
    }

    /// Time before the attempt after the `n`-th, which was the last.
    fn wait(&self, n: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.first_wait.saturating_mul(1 << n.saturating_sub(1).min(16));
        // seeded by the system, so that processes differ; nothing that is computed depends on it
        let random = std::hash::RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        let wait = doubled.min(self.longest_wait).mul_f64(0.75 + 0.5 * random);
        asked.map_or(wait, |asked| asked.max(wait.min(self.first_wait)))
    }
}

/// One fetch of one set.
struct Run<'a, 'o> {
    fetch: &'a Fetch,
    name: &'a str,
    folder: &'a Path,
    /// Made when it is first needed.
    client: Option<Client<'a>>,
    /// Place of the mirror that gave the last file.
    best: usize,
    observer: &'a mut Observer<'o>,
}

impl Run<'_, '_> {
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

    /// Brings what is not right, while no other process does.
    fn complete(&mut self, sources: &[Source]) -> Result<Vec<FetchedFile>, DataError> {
        let store = |path: &Path| {
            let path = path.to_path_buf();
            move |source| DataError::Store { path, source }
        };
        fs::create_dir_all(self.folder).map_err(store(self.folder))?;
        let lock_path = self.folder.join(".fetch.lock");
        let lock = File::create(&lock_path).map_err(store(&lock_path))?;
        self.lock(&lock).map_err(store(&lock_path))?;
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

    /// Waits for the lock. Where the file system has none, there is nothing to wait for.
    fn lock(&mut self, file: &File) -> io::Result<()> {
        let mut is_told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut is_told, true) {
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
        if packed.exists() && wrong.iter().all(|(path, _)| *path != packed) {
            if let Ok(Verdict::Right { .. }) = check(&packed, digest) {
                let replaced = set_aside(wrong)?;
                let bytes = fs::metadata(&packed).map_err(|e| store(&packed, e))?.len();
                let state = FileState::Present;
                return Ok(vec![FetchedFile { path: packed, state, bytes, from: None, replaced }]);
            }
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
        let begun = part.origin().and_then(|origin| source.urls.iter().position(|url| *url == origin.url));
        let first = begun.unwrap_or(self.best);
        order.sort_by_key(|&place| place != first);
        let mut failures = Vec::new();
        for place in order {
            let url = &source.urls[place];
            match self.from_mirror(&client, source, url, part, verify) {
                Ok(()) => {
                    self.best = place;
                    self.client = Some(client);
                    return Ok(url.clone());
                }
                Err(Stop::Here(error)) => return Err(error),
                Err(Stop::Mirror(why) | Stop::Passing { why, .. }) => {
                    self.tell(&Progress::Failed { file: &source.file, url, why: &why });
                    failures.push((url.clone(), why));
                }
            }
        }
        Err(DataError::Fetch {
            name: self.name.into(),
            file: source.file.clone(),
            folder: self.folder.into(),
            wanted: source.wanted(),
            failures,
        })
    }

    /// Asks one mirror until it gives the file, or is not to be asked any more.
    fn from_mirror(
        &mut self,
        client: &Client<'_>,
        source: &Source,
        url: &str,
        part: &Part,
        verify: &mut dyn FnMut(&Path) -> Result<Option<String>, DataError>,
    ) -> Result<(), Stop> {
        let file = source.file.as_str();
        let mut attempt = 0;
        loop {
            attempt += 1;
            self.tell(&Progress::Asking { file, url });
            let before = part.origin().filter(|origin| origin.url == url).map_or(0, |_| part.len());
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
            if part.len() >= before + PROGRESS {
                attempt = 1;
            }
            if attempt >= self.fetch.attempts {
                return Err(Stop::Mirror(format!("{why} ({attempt} attempts)")));
            }
            if after.is_some_and(|after| after > self.fetch.longest_wait) {
                let seconds = after.unwrap_or_default().as_secs();
                return Err(Stop::Mirror(format!("{why} and wants to be asked again after {seconds} s")));
            }
            let wait = self.fetch.wait(attempt, after);
            self.tell(&Progress::Again { file, url, why: &why, wait });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        let fetch = Fetch::default();
        for (n, least, most) in [(1, 0.75, 1.25), (3, 3.0, 5.0), (20, 45.0, 75.0)] {
            let wait = fetch.wait(n, None).as_secs_f64();
            assert!((least..=most).contains(&wait), "{n}: {wait}");
        }
        assert_eq!(fetch.wait(1, Some(Duration::from_secs(7))).as_secs(), 7);
    }
}
