//! Downloads of well-known data sets.
//!
//! A file is right if its content is the known one, compressed or not: nothing else is trusted, neither a mirror nor what
//! already lies in the folder.

mod known;
mod part;
mod proxy;
mod run;
mod transfer;
mod verify;

use std::{
    hash::{BuildHasher, Hasher},
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) use known::CIFAR10_INSIDE;
pub use known::{Content, Digest, Source};
pub use proxy::Proxies;

use self::run::Run;
use crate::{DataDir, DataError};

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

/// Unpacks an archive of known members (name, length, SHA-256) into a folder, as a download does; for fuzzing, which has no
/// mirror. Whether they all were there.
#[doc(hidden)]
pub fn unpack_known(
    archive: &Path,
    inside: &str,
    members: &[(&str, u64, &str)],
    folder: &Path,
) -> std::io::Result<bool> {
    let members: Vec<(String, Digest)> = members
        .iter()
        .map(|&(name, bytes, sha256)| (name.into(), Digest { bytes, sha256: sha256.into() }))
        .collect();
    let content = Content::TarGz { inside: inside.into(), members: members.clone() };
    let source = Source { file: String::new(), urls: Vec::new(), content };
    match verify::unpack(archive, inside, &members, source.longest(), folder) {
        Ok(verify::Unpacked::All(unpacked)) => {
            for member in unpacked {
                std::fs::rename(member.temporary, folder.join(member.name))?;
            }
            Ok(true)
        }
        Ok(verify::Unpacked::Wrong(_)) => Ok(false),
        Err((_, error)) => Err(error),
    }
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

/// Online unless `KILN_OFFLINE` is set to something other than `0`, `no`, `false` or `off`; mirrors from `KILN_MIRROR` if it is
/// set, with commas between several; proxies as [`Proxies::from_env`] says; certificates from
/// the file that `SSL_CERT_FILE` names, if it is set. 15 s to connect, 30 s without a byte, four attempts 1, 2 and 4 s apart.
impl Default for Fetch {
    fn default() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            offline: variable("KILN_OFFLINE").is_some_and(|value| {
                !["0", "no", "false", "off"].iter().any(|no| value.eq_ignore_ascii_case(no))
            }),
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

/// What happens during a download, in order. In addresses `***` stands for a user and password.
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
    /// Where it was downloaded from, for an archive's members where that was; `***` stands for a user and password in the
    /// address.
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
    /// file; [`DataError::Unwritable`] and [`DataError::Store`] if one cannot be written, before or after something has come; offline, [`DataError::Missing`] and [`DataError::Damaged`].
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
        let files = Run::new(self, name, folder, observer).files(sources)?;
        Ok(Fetched { name: name.into(), folder: folder.into(), files })
    }

    /// Whether an address can be a mirror: `http://HOST` or `https://HOST`, with a path or without.
    ///
    /// ```
    /// use kiln_data::Fetch;
    /// assert!(Fetch::check_mirror("https://example.org/sets").is_ok());
    /// assert!(Fetch::check_mirror("example.org/sets").is_err());
    /// ```
    ///
    /// # Errors
    /// What is wrong with it, in words, without the address.
    pub fn check_mirror(url: &str) -> Result<(), String> {
        let uri = url.parse::<ureq::http::Uri>().ok();
        let is_web = |uri: &ureq::http::Uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        };
        match uri.filter(is_web) {
            Some(uri) if uri.query().is_none() => Ok(()),
            Some(_) => Err("a mirror is a folder, whose address ends before a \"?\"".into()),
            None => Err("not an address of the form http://HOST/PLACE or https://HOST/PLACE".into()),
        }
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

/// An address without the user and password that it may hold.
fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}{}", &rest[end..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked() {
        for (url, want) in [
            ("https://me:secret@host:8/a@b?c=d", "https://***@host:8/a@b?c=d"),
            ("http://t@ken:s@host", "http://***@host"),
            ("https://token@host/a", "https://***@host/a"),
            ("https://host/a@b", "https://host/a@b"),
            ("no address", "no address"),
        ] {
            assert_eq!(masked(url), want);
        }
    }

    #[test]
    fn mirrors_are_addresses_of_the_web() {
        for url in ["http://h", "https://u:p@h:8443/a/b/", "http://127.0.0.1:9/"] {
            assert_eq!(Fetch::check_mirror(url), Ok(()), "{url}");
        }
        for url in [
            "",
            "h/a",
            "ftp://h/a",
            "http://",
            "https:///a",
            "file:///a",
            "http://h/a?b",
            "http://h /a",
            "http:/h",
        ] {
            assert!(Fetch::check_mirror(url).is_err(), "{url}");
        }
    }

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
