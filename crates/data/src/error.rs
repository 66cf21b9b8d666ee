use std::{
    io,
    path::{Path, PathBuf},
};

use crate::Fetch;

/// What can go wrong with data. Each message names the file or data set and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Files of a data set are not there.
    #[error(
        "data set \"{name}\" is incomplete: {} lacks {}{}; {}put the files there, or name the folder that holds \
         \"{folder}\" with --data DIR or the KILN_DATA variable",
        dir.display(), missing.join(", "), plain_or_packed(missing), command(name)
    )]
    Missing {
        /// The data set.
        name: String,
        /// The folder that was searched.
        dir: PathBuf,
        /// Its name inside the data folder.
        folder: String,
        /// The files that are not there.
        missing: Vec<String>,
    },
    /// A set that Kiln knows no download of.
    #[error("data set \"{name}\" is none that is downloaded; there are {known}")]
    UnknownDownload {
        /// The name that was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// No mirror gave a file.
    #[error("{0}")]
    Fetch(Box<NoMirror>),
    /// A file that is not the known one, and must not be replaced because the network may not be used.
    #[error("{} {why}: it is not the file of data set \"{name}\"; {}it anew", path.display(), fetch_word(name))]
    Damaged {
        /// The data set.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A folder that files are to come to cannot be written to. Nothing has come yet.
    #[error(
        "{}: cannot be written ({source}); --data DIR or the KILN_DATA variable names another folder", path.display()
    )]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is downloaded cannot be written. What has come so far is kept where that can be.
    #[error(
        "{}: cannot be written ({source}); what has come so far is kept, and the next fetch goes on from there; --data DIR \
         or the KILN_DATA variable names another folder", path.display()
    )]
    Store {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file could not be opened or read.
    #[error("{}: {}", path.display(), said(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not a regular file: a folder, a device, a pipe.
    #[error("{}: {}", path.display(), no_file(path))]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file that is not a sound IDX file of bytes.
    #[error("{}: {problem}", path.display())]
    Idx {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: IdxProblem,
    },
    /// A file whose length is no number of rows.
    #[error(
        "{}: holds {bytes} bytes, which is no multiple of {row} (a row): it is cut off, or not a file of CIFAR-10's binary \
         version; `kiln data fetch cifar10` checks it, and brings it anew", path.display()
    )]
    Rows {
        /// The file.
        path: PathBuf,
        /// How many bytes it holds.
        bytes: u64,
        /// How many a row has.
        row: usize,
    },
    /// The number of images is not the number of labels.
    #[error("{} holds {images} images, but {} holds {labels} labels", images_file.display(), labels_file.display())]
    Counts {
        /// The file of images.
        images_file: PathBuf,
        /// How many it holds.
        images: usize,
        /// The file of labels.
        labels_file: PathBuf,
        /// How many it holds.
        labels: usize,
    },
    /// A label that names no class.
    #[error("{origin}: label {label} of item {item} is out of range, there are {classes} classes (0 to {})", classes.saturating_sub(1))]
    Label {
        /// The file, or what the labels are of.
        origin: String,
        /// The first item with such a label.
        item: usize,
        /// Its label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A number that is not finite.
    #[error("{origin}: value {item} is not a finite number")]
    NotFinite {
        /// The file, or what the values are of.
        origin: String,
        /// The first such value.
        item: usize,
    },
    /// Lengths or shapes that do not fit each other.
    #[error("{origin}: {message}")]
    Shape {
        /// The data set or file.
        origin: String,
        /// What does not fit, both sides named.
        message: String,
    },
    /// A file that is not what it must be.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A table that cannot be read.
    #[error(
        "{}{}{}: {message}", path.display(), line.map(|l| format!(", line {l}")).unwrap_or_default(),
        column.as_ref().map(|c| format!(", column \"{c}\"")).unwrap_or_default()
    )]
    Table {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: Option<u64>,
        /// The name of the column.
        column: Option<String>,
        /// What is wrong there.
        message: String,
    },
    /// A folder that is not laid out as it must be.
    #[error("{}: {message}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong, and what is expected.
        message: String,
    },
    /// Images of a folder that cannot be read.
    #[error(
        "{count} of {all} images cannot be read: {}{}; repair or remove them, or go on without them by unreadable = \"skip\"", first.join("; "), if *count > first.len() { "; ..." } else { "" }
    )]
    Unreadable {
        /// How many.
        count: usize,
        /// Of how many.
        all: usize,
        /// The first of them, each with what is wrong.
        first: Vec<String>,
    },
    /// A row that could not be read.
    #[error("row {row}: {source}")]
    Row {
        /// Its number in the [`crate::Rows`] that it was read from.
        row: usize,
        /// What is wrong with it.
        source: Box<DataError>,
    },
    /// What a reader of the user's own says; see [`DataError::other`].
    #[error("{0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
    /// An image that cannot be decoded, or is too large.
    #[error("{}: {message}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

impl DataError {
    /// An error of any type, or a message, for readers of the user's own.
    ///
    /// ```
    /// let error = kiln_data::DataError::other("the database is down");
    /// assert_eq!(error.to_string(), "the database is down");
    /// ```
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}

/// A file that no mirror gave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "data set \"{name}\": no mirror gives {file}: {}; put {}{} into {} by other means, or name the folder that holds \
     \"{name}\" with --data DIR or the KILN_DATA variable",
    failures.iter().map(|(url, why)| format!("{url} {why}")).collect::<Vec<_>>().join("; "),
    wanted.join(", "), plain_or_packed(wanted), folder.display()
)]
pub struct NoMirror {
    /// The data set.
    pub name: String,
    /// The file.
    pub file: String,
    /// The folder that it should come to.
    pub folder: PathBuf,
    /// The files that would do instead.
    pub wanted: Vec<String>,
    /// Each address, with `***` for a user and password, and why it did not give the file.
    pub failures: Vec<(String, String)>,
}

/// Files that are read compressed too, which a dot in the name tells from those that are not.
fn plain_or_packed(files: &[String]) -> &'static str {
    if files.iter().all(|file| file.contains('.')) { "" } else { " (plain or with .gz)" }
}

/// The command that brings a set, if there is one.
fn command(name: &str) -> String {
    match Fetch::SETS.contains(&name) {
        true => format!(
            "`kiln data fetch {name}` brings them where nothing says --offline or KILN_OFFLINE; else "
        ),
        false => String::new(),
    }
}

/// As [`command`], for one file.
fn fetch_word(name: &str) -> String {
    match Fetch::SETS.contains(&name) {
        true => format!("without --offline, `kiln data fetch {name}` brings "),
        false => "without the offline setting, a fetch brings ".into(),
    }
}

/// What is wrong with an IDX file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdxProblem {
    /// The first two bytes are not zero.
    #[error("not an IDX file: it starts with {0:02x?}, expected 00 00")]
    Magic([u8; 2]),
    /// Elements of a type that is not wanted or unknown.
    #[error("elements are {0}, but only unsigned bytes (type 08) are read here")]
    ElementType(String),
    /// Another number of dimensions than the data set has.
    #[error("{found} dimensions {shape:?}, expected {expected}")]
    Rank {
        /// How many the header says.
        found: usize,
        /// How many there must be.
        expected: usize,
        /// The dimensions.
        shape: Vec<usize>,
    },
    /// The dimensions multiply to more than can be counted.
    #[error("dimensions {0:?} are too large")]
    Overflow(Vec<usize>),
    /// The file ends inside the header.
    #[error("truncated: ends inside the header")]
    HeaderTruncated,
    /// The file ends before the last element.
    #[error("truncated: the header promises {promised} bytes, the file holds {found}")]
    Truncated {
        /// Bytes that the dimensions multiply to.
        promised: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// A compressed file that is too short for what its header says.
    #[error(
        "truncated: the header promises {promised} bytes, a compressed file of this length can hold at most {at_most}"
    )]
    GzipPromise {
        /// Bytes that the dimensions multiply to.
        promised: u64,
        /// The most that can be there.
        at_most: u64,
    },
    /// A compressed file of more than is unpacked in memory.
    #[error(
        "the header promises {promised} bytes in memory, and of compressed files at most {most} are read; unpack it with gunzip"
    )]
    GzipLarge {
        /// Bytes that the elements take in memory.
        promised: u64,
        /// Those that are read at most: [`crate::Idx::MAX_UNPACKED`].
        most: u64,
    },
    /// Bytes behind the last element.
    #[error("trailing bytes: the header promises {promised} bytes, the file holds more")]
    Trailing {
        /// Bytes that the dimensions multiply to.
        promised: u64,
    },
    /// The compressed data ends early.
    #[error("truncated gzip data; fetch the file again (`kiln data fetch` does for sets of its own)")]
    GzipTruncated,
    /// The compressed data is damaged.
    #[error("corrupt gzip data ({0}); fetch the file again (`kiln data fetch` does for sets of its own)")]
    GzipCorrupt(String),
    /// The memory for the elements is not to be had.
    #[error("not enough memory for {0} bytes")]
    Memory(u64),
}

/// What a path names instead of a file.
fn no_file(path: &Path) -> &'static str {
    if path.is_dir() { "a folder, not a file" } else { "not a regular file" }
}

/// What the system says of a file, in words.
fn said(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        _ => source.to_string(),
    }
}
