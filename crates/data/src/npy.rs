//! NumPy's arrays: `.npy`, and `.npz`, which is a zip archive of them.
//!
//! Source: the NEP 1 and the module `numpy.lib.format` that follows it, versions 1.0 to 3.0.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, ErrorKind, Read},
    path::{Path, PathBuf},
};

use zip::{ZipArchive, result::ZipError};

use crate::{Array, DataError, Dataset, Elements, Idx, Split, Targets, array::ElementType};

/// Longest header that is read: NumPy itself refuses longer ones than 10,000 characters.
const MAX_HEADER: usize = 1 << 16;

/// Most dimensions: NumPy has no more.
const MAX_RANK: usize = 64;

/// Deflate cannot shrink data more than this many times.
const DEFLATE_RATIO: u64 = 1032;

/// Memory that is reserved before the first byte is decompressed.
const FIRST_RESERVE: u64 = 1 << 20;

/// Reads an array that `numpy.save` has written: whole or real numbers of any width, or truth values, in either byte
/// order, row by row or column by column.
///
/// Memory and time are bounded by the file: what the header promises is compared with what there is before anything is
/// reserved.
///
/// # Errors
/// [`DataError::Io`], [`DataError::NotAFile`], or [`DataError::File`] with what is wrong: objects, text and records are
/// refused by name.
pub fn read_npy(path: &Path) -> Result<Array, DataError> {
    let io = |source| DataError::Io { path: path.into(), source };
    let meta = std::fs::metadata(path).map_err(io)?;
    if !meta.is_file() {
        return Err(DataError::NotAFile { path: path.into() });
    }
    let file = BufReader::new(File::open(path).map_err(io)?);
    read(file, meta.len(), false).map_err(|failure| match failure {
        Failure::Io(source) => io(source),
        Failure::Problem(message) => DataError::File { path: path.into(), message },
    })
}

/// Reads an array from memory; `origin` names it in errors. See [`read_npy`].
///
/// # Errors
/// [`DataError::File`] with what is wrong.
///
/// ```
/// let mut npy = b"\x93NUMPY\x01\x00\x37\x00{'descr': '<i2', 'fortran_order': False, 'shape': (2,)}".to_vec();
/// npy.extend([7, 0, 255, 255]);
/// let array = kiln_data::parse_npy(&npy, "two.npy")?;
/// assert_eq!((array.shape, array.elements), (vec![2], kiln_data::Elements::Integers(vec![7, -1])));
/// # Ok::<(), kiln_data::DataError>(())
/// ```
pub fn parse_npy(data: &[u8], origin: impl Into<PathBuf>) -> Result<Array, DataError> {
    read(Cursor::new(data), data.len() as u64, false).map_err(|failure| {
        let message = match failure {
            Failure::Problem(message) => message,
            Failure::Io(error) => error.to_string(),
        };
        DataError::File { path: origin.into(), message }
    })
}

enum Failure {
    Io(io::Error),
    Problem(String),
}

impl From<String> for Failure {
    fn from(problem: String) -> Self {
        Self::Problem(problem)
    }
}

impl From<&str> for Failure {
    fn from(problem: &str) -> Self {
        Self::Problem(problem.into())
    }
}

/// `at_most` bounds what there is to read, header included; what is compressed may turn out to be less.
fn read(mut data: impl Read, at_most: u64, compressed: bool) -> Result<Array, Failure> {
    let fail = |error: io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => Failure::from("truncated: ends inside the header or the elements"),
        ErrorKind::InvalidData | ErrorKind::InvalidInput if compressed => {
            Failure::Problem(format!("damaged compressed data ({error})"))
        }
        _ => Failure::Io(error),
    };
    let mut start = [0; 8];
    data.read_exact(&mut start).map_err(fail)?;
    if &start[..6] != b"\x93NUMPY" {
        return Err("not a NumPy array: it does not start with \\x93NUMPY".into());
    }
    let (header_len, before) = match start[6] {
        1 => {
            let mut len = [0; 2];
            data.read_exact(&mut len).map_err(fail)?;
            (usize::from(u16::from_le_bytes(len)), 10)
        }
        2 | 3 => {
            let mut len = [0; 4];
            data.read_exact(&mut len).map_err(fail)?;
            (u32::from_le_bytes(len) as usize, 12)
        }
        version => return Err(format!("format version {version}, of which 1 to 3 are read").into()),
    };
    if header_len > MAX_HEADER {
        return Err(format!("a header of {header_len} bytes; those over {MAX_HEADER} are not read").into());
    }
    let mut header = vec![0; header_len];
    data.read_exact(&mut header).map_err(fail)?;
    let Header { kind, big_endian, fortran, shape } = Header::parse(&header)?;

    if shape.len() > MAX_RANK {
        return Err(format!("{} dimensions; those over {MAX_RANK} are not read", shape.len()).into());
    }
    let promised = shape
        .iter()
        .try_fold(kind.size() as u64, |product, &size| product.checked_mul(size as u64))
        .filter(|&product| isize::try_from(product).is_ok())
        .ok_or_else(|| format!("dimensions {shape:?} are too large"))?;
    let available = at_most.saturating_sub(before + header_len as u64);
    if promised > available {
        return Err(
            format!("truncated: the header promises {promised} bytes, the file holds {available}").into()
        );
    }
    // what little compressed data may become has a bound of its own, as it has in IDX files
    let in_memory = (promised / kind.size() as u64).saturating_mul(kind.size_in_memory()).max(promised);
    if compressed && in_memory > Idx::MAX_UNPACKED {
        let most = Idx::MAX_UNPACKED;
        let message = format!("{in_memory} bytes when unpacked, over {most}; save it uncompressed, as .npy");
        return Err(message.into());
    }
    let mut bytes = Vec::new();
    let reserve = if compressed { promised.min(FIRST_RESERVE) } else { promised };
    bytes
        .try_reserve_exact(reserve as usize)
        .map_err(|_| format!("not enough memory for {reserve} bytes"))?;
    // one byte more shows what is behind, and has checksums looked at
    data.take(promised + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 != promised {
        let found = bytes.len();
        return Err(match (found as u64) < promised {
            true => format!("truncated: the header promises {promised} bytes, the file holds {found}"),
            false => format!("trailing bytes: the header promises {promised} bytes, the file holds more"),
        }
        .into());
    }
    let elements = kind.read(bytes, big_endian)?;
    let elements = if fortran { row_major(elements, &shape) } else { elements };
    Ok(Array { shape, elements })
}

/// From the first axis fastest to the last axis fastest.
fn row_major(elements: Elements, shape: &[usize]) -> Elements {
    fn turn<T: Copy>(values: Vec<T>, shape: &[usize]) -> Vec<T> {
        if shape.len() < 2 || values.is_empty() {
            return values;
        }
        let mut strides = vec![1; shape.len()];
        for axis in 1..shape.len() {
            strides[axis] = strides[axis - 1] * shape[axis - 1];
        }
        let mut at = vec![0; shape.len()];
        let mut turned = Vec::with_capacity(values.len());
        for _ in 0..values.len() {
            turned.push(values[at.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>()]);
            for axis in (0..shape.len()).rev() {
                at[axis] += 1;
                if at[axis] < shape[axis] {
                    break;
                }
                at[axis] = 0;
            }
        }
        turned
    }
    match elements {
        Elements::Bytes(v) => Elements::Bytes(turn(v, shape)),
        Elements::Integers(v) => Elements::Integers(turn(v, shape)),
        Elements::Real(v) => Elements::Real(turn(v, shape)),
    }
}

/// What a header says: a dictionary as Python writes it.
struct Header {
    kind: ElementType,
    big_endian: bool,
    fortran: bool,
    shape: Vec<usize>,
}

/// A value of the dictionary.
enum Value {
    Text(String),
    Truth(bool),
    Sizes(Vec<usize>),
}

impl Header {
    fn parse(header: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(header).map_err(|_| "the header is not UTF-8")?;
        let mut rest = text.trim_start();
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        let unclear = || "the header is no dictionary of descr, fortran_order and shape".to_string();
        rest = rest.strip_prefix('{').ok_or_else(unclear)?.trim_start();
        while !rest.starts_with('}') {
            let Value::Text(key) = value(&mut rest)? else { return Err(unclear()) };
            rest = rest.trim_start().strip_prefix(':').ok_or_else(unclear)?.trim_start();
            if key == "descr" && rest.starts_with('[') {
                return Err("elements are records (a structured dtype), of which nothing can be learned; save its columns \
                            as arrays of their own"
                    .into());
            }
            match (key.as_str(), value(&mut rest)?) {
                ("descr", Value::Text(text)) => descr = Some(text),
                ("fortran_order", Value::Truth(truth)) => fortran = Some(truth),
                ("shape", Value::Sizes(sizes)) => shape = Some(sizes),
                _ => return Err(unclear()),
            }
            rest = rest.trim_start();
            match rest.strip_prefix(',') {
                Some(more) => rest = more.trim_start(),
                None if rest.starts_with('}') => {}
                None => return Err(unclear()),
            }
        }
        if !rest[1..].trim().is_empty() {
            return Err(unclear());
        }
        let (Some(descr), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
            return Err(unclear());
        };
        let (kind, big_endian) = element_type(&descr)?;
        Ok(Self { kind, big_endian, fortran, shape })
    }
}

/// Takes a value from the beginning of a text.
fn value(rest: &mut &str) -> Result<Value, String> {
    let begin = *rest;
    let unclear = || {
        let near: Vec<&str> = begin.split_whitespace().take(3).collect();
        format!("the header is not understood at \"{}\"", near.join(" ").chars().take(20).collect::<String>())
    };
    if let Some(quote @ ('\'' | '"')) = rest.chars().next() {
        let (text, after) = rest[1..].split_once(quote).ok_or_else(unclear)?;
        let text = text.to_string();
        *rest = after;
        return Ok(Value::Text(text));
    }
    for (name, truth) in [("True", true), ("False", false)] {
        if let Some(after) = rest.strip_prefix(name) {
            *rest = after;
            return Ok(Value::Truth(truth));
        }
    }
    let (list, after) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(unclear)?;
    let mut sizes = Vec::new();
    // Python writes a comma behind the only size, and older ones an L behind each
    for size in list.trim().trim_end_matches(',').split(',').filter(|_| !list.trim().is_empty()) {
        sizes.push(size.trim().trim_end_matches('L').parse().map_err(|_| unclear())?);
    }
    *rest = after;
    Ok(Value::Sizes(sizes))
}

/// The type of `<f4`, and whether the largest part of a number comes first.
fn element_type(descr: &str) -> Result<(ElementType, bool), String> {
    use ElementType as E;
    let (order, name) = match descr.chars().next() {
        Some(order @ ('<' | '>' | '|' | '=')) => (order, &descr[1..]),
        _ => ('|', descr),
    };
    let big_endian = order == '>' || (order == '=' && cfg!(target_endian = "big"));
    let kind = match name {
        "b1" | "?" => E::Bool,
        "u1" => E::U8,
        "u2" => E::U16,
        "u4" => E::U32,
        "u8" => E::U64,
        "i1" => E::I8,
        "i2" => E::I16,
        "i4" => E::I32,
        "i8" => E::I64,
        "f2" => E::F16,
        "f4" => E::F32,
        "f8" => E::F64,
        _ => {
            let what = match name.chars().next() {
                Some('O') => "Python objects",
                Some('S' | 'U' | 'a') => "text",
                Some('c') => "complex numbers",
                Some('M' | 'm') => "dates or times",
                Some('V') => "records",
                Some('f') => "numbers of another width than 16, 32 and 64 bits",
                _ => "unknown",
            };
            return Err(format!(
                "elements are {what} (dtype {descr}); whole and real numbers and truth values are read, as astype(\"float32\") \
                 makes them"
            ));
        }
    };
    Ok((kind, big_endian))
}

/// An archive of arrays that `numpy.savez` or `numpy.savez_compressed` has written.
pub struct Npz {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
}

impl Npz {
    /// Opens an archive and reads its list of arrays.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::NotAFile`], or [`DataError::File`] where it is no zip archive.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let io = |source| DataError::Io { path: path.into(), source };
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(DataError::NotAFile { path: path.into() });
        }
        let archive =
            ZipArchive::new(BufReader::new(File::open(path).map_err(io)?)).map_err(|error| match error {
                ZipError::Io(error) if error.kind() != ErrorKind::UnexpectedEof => io(error),
                error => {
                    DataError::File { path: path.into(), message: format!("not an .npz archive ({error})") }
                }
            })?;
        Ok(Self { path: path.into(), archive })
    }

    /// The arrays' names, sorted.
    pub fn names(&self) -> Vec<String> {
        // what has a name that cannot be told cannot be asked for either
        let names = self.archive.file_names().filter_map(Result::ok);
        let mut names: Vec<String> =
            names.map(|name| name.strip_suffix(".npy").unwrap_or(&name).to_string()).collect();
        names.sort();
        names
    }

    /// Reads an array. Memory is bounded by what a compressed part of its length can hold, and grows with what comes out.
    ///
    /// # Errors
    /// [`DataError::File`] where there is none of that name, with those that there are; otherwise as [`read_npy`].
    pub fn read(&mut self, name: &str) -> Result<Array, DataError> {
        let names = self.names();
        let path = self.path.clone();
        let fail = |message: String| DataError::File { path: path.clone(), message };
        let member = format!("{name}.npy");
        let index = self.archive.index_for_name(&member).or_else(|| self.archive.index_for_name(name));
        let Some(index) = index else {
            return Err(fail(format!("holds no array {name}; there are {}", names.join(", "))));
        };
        let member = self.archive.by_index(index).map_err(|error| fail(format!("array {name}: {error}")))?;
        let at_most = member.compressed_size().saturating_mul(DEFLATE_RATIO).min(member.size());
        read(member, at_most, true).map_err(|failure| match failure {
            Failure::Problem(message) => fail(format!("array {name}: {message}")),
            Failure::Io(source) => DataError::Io { path: path.clone(), source },
        })
    }
}

impl Dataset {
    /// A data set of one archive with the arrays `x_train`, `y_train`, `x_test` and `y_test`, as Keras' `mnist.npz`. Whole
    /// numbers as targets are class labels, as many classes as they count to. See [`Array::into_features`].
    ///
    /// # Errors
    /// As [`Npz::read`] and [`Dataset::new`].
    pub fn npz(path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        let mut file = Npz::open(path)?;
        let origin = |name: &str| format!("{}: {name}", path.display());
        let (y_train, y_test) = (file.read("y_train")?, file.read("y_test")?);
        // the test rows may lack the last class
        let classes_of = |array: &Array, name: &str| match array.clone().into_targets(None, &origin(name))? {
            Targets::Classes { classes, .. } => Ok(Some(classes)),
            Targets::Real { .. } | Targets::Input => Ok::<_, DataError>(None),
        };
        let classes = classes_of(&y_train, "y_train")?.max(classes_of(&y_test, "y_test")?);
        let train = Split::from_arrays(file.read("x_train")?, y_train, classes, &origin("x_train"))?;
        let test = Split::from_arrays(file.read("x_test")?, y_test, classes, &origin("x_test"))?;
        let names = (0..classes.unwrap_or(0)).map(|class| class.to_string()).collect();
        Self::new(path.file_stem().unwrap_or_default().to_string_lossy(), train, test, names)
    }
}

impl Split {
    /// Rows and targets of two `.npy` files; see [`Array::into_features`] and [`Array::into_targets`].
    ///
    /// # Errors
    /// As [`read_npy`] and [`Split::from_arrays`].
    pub fn from_npy(rows: &Path, targets: &Path) -> Result<Self, DataError> {
        let origin = format!("{} and {}", rows.display(), targets.display());
        Self::from_arrays(read_npy(rows)?, read_npy(targets)?, None, &origin)
    }
}

#[cfg(test)]
#[path = "npy_tests.rs"]
mod tests;
