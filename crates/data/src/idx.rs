//! IDX: the file format of MNIST, of all its types.
//!
//! Two zero bytes, the element type, the rank, the dimensions as big-endian `u32`, then the elements in
//! row-major order. Source: <http://yann.lecun.com/exdb/mnist>, "The IDX file format".

use std::{
    fs::File,
    io::{self, BufReader, Cursor, ErrorKind, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

use crate::{Array, DataError, IdxProblem, array::ElementType};

/// Deflate cannot shrink data more than this many times (258 bytes in two bits), so a compressed file of
/// `n` bytes holds at most `n` times as much.
const DEFLATE_RATIO: u64 = 1032;

/// Memory that is reserved before the first byte is decompressed; it doubles with each step.
const FIRST_STEP: u64 = 1 << 20;

/// An array of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// Sizes of the axes, outermost first.
    pub shape: Vec<usize>,
    /// Elements in row-major order.
    pub bytes: Vec<u8>,
}

impl Idx {
    /// Most bytes of elements that are read of a compressed file: 4 GiB. Files that are not compressed are bounded by what
    /// they hold.
    pub const MAX_UNPACKED: u64 = 4 << 30;
}

/// Reads an IDX file of unsigned bytes, plain or gzip (told by the content, not the name), of any rank.
///
/// Memory and time are bounded by the file: the header's promise is compared with what a file of this
/// length can hold before anything is reserved, and at most one byte more than promised is read. Of a compressed file,
/// which can hold 1,032 times its length, at most [`Idx::MAX_UNPACKED`], and memory is taken as it comes.
///
/// # Errors
/// [`DataError::Io`], [`DataError::NotAFile`], or [`DataError::Idx`] with what is wrong.
pub fn read_idx(path: &Path) -> Result<Idx, DataError> {
    let (_, shape, bytes) = read_file(path, Accepts::Bytes)?;
    Ok(Idx { shape, bytes })
}

/// Reads an IDX file of any of the format's types: unsigned or signed bytes, 16- or 32-bit integers, 32- or 64-bit floats.
/// Otherwise as [`read_idx`].
///
/// # Errors
/// As [`read_idx`].
pub fn read_idx_array(path: &Path) -> Result<Array, DataError> {
    let (kind, shape, bytes) = read_file(path, Accepts::All)?;
    array(kind, shape, bytes).map_err(|problem| DataError::Idx { path: path.into(), problem })
}

/// Reads an IDX array of any of the format's types from memory, plain or gzip. See [`read_idx_array`].
///
/// ```
/// let array = kiln_data::parse_idx_array(&[0, 0, 0x0B, 1, 0, 0, 0, 2, 0, 7, 255, 255])?;
/// assert_eq!((array.shape, array.elements), (vec![2], kiln_data::Elements::Integers(vec![7, -1])));
/// # Ok::<(), kiln_data::IdxProblem>(())
/// ```
///
/// # Errors
/// What is wrong with the data.
pub fn parse_idx_array(data: &[u8]) -> Result<Array, IdxProblem> {
    let (kind, shape, bytes) = parse(data, Accepts::All)?;
    array(kind, shape, bytes)
}

fn array(kind: ElementType, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Array, IdxProblem> {
    // none of the types has elements that are refused
    let elements = kind.read(bytes, true).map_err(IdxProblem::ElementType)?;
    Ok(Array { shape, elements })
}

/// Which types of elements are read.
#[derive(Clone, Copy, PartialEq)]
enum Accepts {
    Bytes,
    All,
}

/// Type, dimensions and bytes of the elements.
type Raw = (ElementType, Vec<usize>, Vec<u8>);

fn read_file(path: &Path, accepts: Accepts) -> Result<Raw, DataError> {
    read_with(path, |file, len| read(file, len, accepts))
}

/// The dimensions of a file of unsigned bytes: what its header says, compared with what a file of its length can hold. No
/// element is read.
pub(crate) fn read_idx_shape(path: &Path) -> Result<Vec<usize>, DataError> {
    read_with(path, |file, len| {
        let (mut data, bounds) = open(file, len)?;
        Ok(read_header(&mut data, &bounds, Accepts::Bytes)?.shape)
    })
}

fn read_with<T>(
    path: &Path,
    read: impl FnOnce(BufReader<File>, u64) -> Result<T, Failure>,
) -> Result<T, DataError> {
    let io = |source| DataError::Io { path: path.into(), source };
    let meta = std::fs::metadata(path).map_err(io)?;
    if !meta.is_file() {
        return Err(DataError::NotAFile { path: path.into() });
    }
    let file = File::open(path).map_err(io)?;
    read(BufReader::with_capacity(1 << 16, file), meta.len()).map_err(|failure| match failure {
        Failure::Io(source) => DataError::Io { path: path.into(), source },
        Failure::Problem(problem) => DataError::Idx { path: path.into(), problem },
    })
}

/// Reads an IDX array from memory, plain or gzip. See [`read_idx`].
///
/// ```
/// let idx = kiln_data::parse_idx(&[0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9])?;
/// assert_eq!((idx.shape, idx.bytes), (vec![3], vec![7, 8, 9]));
/// # Ok::<(), kiln_data::IdxProblem>(())
/// ```
///
/// # Errors
/// What is wrong with the data.
pub fn parse_idx(data: &[u8]) -> Result<Idx, IdxProblem> {
    let (_, shape, bytes) = parse(data, Accepts::Bytes)?;
    Ok(Idx { shape, bytes })
}

fn parse(data: &[u8], accepts: Accepts) -> Result<Raw, IdxProblem> {
    read(Cursor::new(data), data.len() as u64, accepts).map_err(|failure| match failure {
        Failure::Problem(problem) => problem,
        // Reading from memory does not fail otherwise; say what it says if it ever does.
        Failure::Io(error) => IdxProblem::GzipCorrupt(error.to_string()),
    })
}

enum Failure {
    Io(io::Error),
    Problem(IdxProblem),
}

impl From<IdxProblem> for Failure {
    fn from(problem: IdxProblem) -> Self {
        Self::Problem(problem)
    }
}

/// What a file can hold, header included, and whether it is compressed.
struct Bounds {
    at_most: u64,
    gzip: bool,
}

impl Bounds {
    /// What an error of reading says about the file, or that it is the system's.
    fn fail(&self, error: io::Error) -> Failure {
        match error.kind() {
            ErrorKind::UnexpectedEof if self.gzip => IdxProblem::GzipTruncated.into(),
            ErrorKind::InvalidData | ErrorKind::InvalidInput if self.gzip => {
                IdxProblem::GzipCorrupt(error.to_string()).into()
            }
            _ => Failure::Io(error),
        }
    }
}

/// What a header says.
struct Header {
    kind: ElementType,
    shape: Vec<usize>,
    /// Bytes of all elements.
    promised: u64,
}

/// The content, unpacked; `len` is the length of the file as it lies there.
fn open<'a>(mut file: impl io::BufRead + 'a, len: u64) -> Result<(Box<dyn Read + 'a>, Bounds), Failure> {
    let start = file.fill_buf().map_err(Failure::Io)?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        let bounds = Bounds { at_most: len.saturating_mul(DEFLATE_RATIO), gzip: true };
        (Box::new(MultiGzDecoder::new(file)), bounds)
    } else {
        (Box::new(file), Bounds { at_most: len, gzip: false })
    })
}

fn read_header(data: &mut dyn Read, bounds: &Bounds, accepts: Accepts) -> Result<Header, Failure> {
    let mut header = Vec::with_capacity(4);
    let header_bytes = |header: &mut Vec<u8>, n: usize, data: &mut dyn Read| {
        header.clear();
        data.take(n as u64).read_to_end(header).map_err(|error| bounds.fail(error))?;
        if header.len() < n { Err(Failure::from(IdxProblem::HeaderTruncated)) } else { Ok(()) }
    };

    let first = header_bytes(&mut header, 4, data);
    if header.len() >= 2 && header[..2] != [0, 0] {
        return Err(IdxProblem::Magic([header[0], header[1]]).into());
    }
    first?;
    let kind = match (header[2], accepts) {
        (0x08, _) => ElementType::U8,
        (0x09, Accepts::All) => ElementType::I8,
        (0x0B, Accepts::All) => ElementType::I16,
        (0x0C, Accepts::All) => ElementType::I32,
        (0x0D, Accepts::All) => ElementType::F32,
        (0x0E, Accepts::All) => ElementType::F64,
        (other, _) => return Err(IdxProblem::ElementType(type_name(other)).into()),
    };
    let rank = usize::from(header[3]);
    header_bytes(&mut header, 4 * rank, data)?;
    let shape: Vec<usize> =
        header.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();

    let promised = shape
        .iter()
        .try_fold(kind.size() as u64, |product, &size| product.checked_mul(size as u64))
        .filter(|&product| isize::try_from(product).is_ok())
        .ok_or_else(|| IdxProblem::Overflow(shape.clone()))?;
    let available = bounds.at_most.saturating_sub(4 + 4 * rank as u64);
    let in_memory = (promised / kind.size() as u64).saturating_mul(kind.size_in_memory()).max(promised);
    Err(match bounds.gzip {
        _ if promised <= available && (!bounds.gzip || in_memory <= Idx::MAX_UNPACKED) => {
            return Ok(Header { kind, shape, promised });
        }
        true if promised > available => IdxProblem::GzipPromise { promised, at_most: available },
        true => IdxProblem::GzipLarge { promised: in_memory, most: Idx::MAX_UNPACKED },
        false => IdxProblem::Truncated { promised, found: available },
    }
    .into())
}

/// `len` is the length of the file as it lies there.
fn read(file: impl io::BufRead, len: u64, accepts: Accepts) -> Result<Raw, Failure> {
    let (mut data, bounds) = open(file, len)?;
    let Header { kind, shape, promised } = read_header(&mut data, &bounds, accepts)?;
    // One byte more than promised: it shows trailing data, and makes the decoder check the gzip trailer.
    let wanted = promised + 1;
    let mut bytes = Vec::new();
    // A plain file has been shown to be long enough. A compressed one has not: its memory grows with what
    // really comes out.
    let mut step = if bounds.gzip { wanted.min(FIRST_STEP) } else { wanted };
    loop {
        let before = bytes.len() as u64;
        bytes.try_reserve_exact(step as usize).map_err(|_| IdxProblem::Memory(before + step))?;
        data.by_ref().take(step).read_to_end(&mut bytes).map_err(|error| match error.kind() {
            ErrorKind::OutOfMemory => IdxProblem::Memory(before + step).into(),
            _ => bounds.fail(error),
        })?;
        let now = bytes.len() as u64;
        if now == wanted || now < before + step {
            break;
        }
        step = now.min(wanted - now);
    }
    match (bytes.len() as u64).cmp(&promised) {
        std::cmp::Ordering::Less => Err(IdxProblem::Truncated { promised, found: bytes.len() as u64 }.into()),
        std::cmp::Ordering::Equal => Ok((kind, shape, bytes)),
        std::cmp::Ordering::Greater => Err(IdxProblem::Trailing { promised }.into()),
    }
}

fn type_name(code: u8) -> String {
    let name = match code {
        0x09 => "signed bytes",
        0x0B => "16-bit integers",
        0x0C => "32-bit integers",
        0x0D => "32-bit floats",
        0x0E => "64-bit floats",
        _ => "of an unknown type",
    };
    format!("{name} (type {code:02x})")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn idx(kind: u8, shape: &[u32], elements: &[u8]) -> Vec<u8> {
        let mut data = vec![0, 0, kind, shape.len() as u8];
        for size in shape {
            data.extend(size.to_be_bytes());
        }
        data.extend(elements);
        data
    }

    #[test]
    fn reads_any_rank_plain_and_gzip() {
        let long: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let cases: [(&[u32], &[u8]); 5] = [
            (&[], &[5]),
            (&[4], &[1, 2, 3, 4]),
            (&[1, 2, 1, 2], &[9, 8, 7, 6]),
            (&[0, 28], &[]),
            (&[3, 1000, 1000], &long),
        ];
        for (shape, elements) in cases {
            let plain = idx(8, shape, elements);
            let want = Idx { shape: shape.iter().map(|&s| s as usize).collect(), bytes: elements.to_vec() };
            assert_eq!(parse_idx(&plain).unwrap(), want);
            assert_eq!(parse_idx(&gzip(&plain)).unwrap(), want);
        }
        // Two gzip members in one file are one stream.
        let whole = idx(8, &[4], &[1, 2, 3, 4]);
        let mut halves = gzip(&whole[..6]);
        halves.extend(gzip(&whole[6..]));
        assert_eq!(parse_idx(&halves).unwrap().bytes, [1, 2, 3, 4]);
    }

    #[test]
    fn bad_files_are_told_apart() {
        use IdxProblem as P;
        let good = idx(8, &[4], &[1, 2, 3, 4]);
        let mut damaged = gzip(&idx(8, &[4096], &(0..4096).map(|i| (i * 7 % 251) as u8).collect::<Vec<_>>()));
        let crc = damaged.len() - 8;
        damaged[crc] ^= 0xff;
        let mut scrambled = gzip(&good);
        scrambled[10] = 0xff;
        let mut garbage_behind = gzip(&good);
        garbage_behind.extend(b"garbage behind the last member");
        let compressed = gzip(&good);
        let bomb = gzip(&{
            let mut data = idx(8, &[4], &[]);
            data.resize(50_000_000, 0);
            data
        });
        let promise = gzip(&idx(8, &[1 << 16, 1 << 15], &[0; 100]));
        // 6 MB, which could hold 6 GB
        let large = [gzip(&idx(8, &[5 << 10, 1 << 20], &[])), vec![0; 6 << 20]].concat();
        type Check = fn(&P) -> bool;
        let cases: Vec<(&str, Vec<u8>, Check)> = vec![
            ("empty", vec![], |p| *p == P::HeaderTruncated),
            ("one byte", vec![0], |p| *p == P::HeaderTruncated),
            ("text", b"<html>".to_vec(), |p| *p == P::Magic(*b"<h")),
            ("short text", b"hi".to_vec(), |p| *p == P::Magic(*b"hi")),
            ("header cut", good[..6].to_vec(), |p| *p == P::HeaderTruncated),
            ("signed", idx(9, &[1], &[0]), |p| matches!(p, P::ElementType(t) if t.contains("signed bytes"))),
            (
                "float",
                idx(0x0d, &[1], &[0; 4]),
                |p| matches!(p, P::ElementType(t) if t.contains("32-bit floats")),
            ),
            ("unknown", idx(0x77, &[1], &[0]), |p| matches!(p, P::ElementType(t) if t.contains("77"))),
            ("overflow", idx(8, &[u32::MAX; 3], &[]), |p| matches!(p, P::Overflow(_))),
            ("overflow isize", idx(8, &[u32::MAX, u32::MAX], &[]), |p| matches!(p, P::Overflow(_))),
            ("huge", idx(8, &[u32::MAX], &[1]), |p| *p == P::Truncated { promised: 4_294_967_295, found: 1 }),
            ("cut", good[..good.len() - 1].to_vec(), |p| *p == P::Truncated { promised: 4, found: 3 }),
            ("trailing", [&good[..], &[0]].concat(), |p| *p == P::Trailing { promised: 4 }),
            ("gzip header only", compressed[..5].to_vec(), |p| *p == P::GzipTruncated),
            ("gzip cut", compressed[..compressed.len() - 9].to_vec(), |p| *p == P::GzipTruncated),
            ("gzip trailer cut", compressed[..compressed.len() - 3].to_vec(), |p| *p == P::GzipTruncated),
            ("gzip checksum", damaged, |p| matches!(p, P::GzipCorrupt(_))),
            ("gzip scrambled", scrambled, |p| matches!(p, P::GzipCorrupt(_))),
            ("gzip then garbage", garbage_behind, |p| matches!(p, P::GzipCorrupt(_))),
            ("gzip bomb", bomb, |p| *p == P::Trailing { promised: 4 }),
            ("gzip trailing", gzip(&[&good[..], &[0]].concat()), |p| *p == P::Trailing { promised: 4 }),
            ("gzip promise", promise, |p| {
                matches!(p, P::GzipPromise { promised: 2_147_483_648, .. })
                    && p.to_string().contains("can hold at most ")
            }),
            ("gzip of too much", large, |p| *p == P::GzipLarge { promised: 5 << 30, most: 4 << 30 }),
            ("gzip of text", gzip(b"hello there"), |p| *p == P::Magic(*b"he")),
            ("gzip of nothing", gzip(b""), |p| *p == P::HeaderTruncated),
        ];
        for (name, data, check) in cases {
            let problem = parse_idx(&data).expect_err(name);
            assert!(check(&problem), "{name}: {problem:?}");
            assert!(!problem.to_string().contains('\n'), "{name}");
        }
    }

    #[test]
    fn no_prefix_or_flipped_bit_panics() {
        let good = gzip(&idx(8, &[2, 3], &[1, 2, 3, 4, 5, 6]));
        for end in 0..good.len() {
            assert!(parse_idx(&good[..end]).is_err(), "prefix of {end}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // Flags and times in the gzip header may change without harm; elements may not.
            if let Ok(read) = parse_idx(&bad) {
                assert_eq!(read.bytes, [1, 2, 3, 4, 5, 6], "bit {bit}");
            }
        }
    }

    #[test]
    fn every_type_is_read() {
        use crate::Elements as E;
        let cases: [(u8, &[u8], E); 6] = [
            (0x08, &[0, 200], E::Bytes(vec![0, 200])),
            (0x09, &[1, 0xff], E::Integers(vec![1, -1])),
            (0x0B, &[1, 2, 0xff, 0xfe], E::Integers(vec![258, -2])),
            (0x0C, &[0, 0, 1, 0, 0xff, 0xff, 0xff, 0xfd], E::Integers(vec![256, -3])),
            (0x0D, &[0x3f, 0xc0, 0, 0, 0xc0, 0, 0, 0], E::Real(vec![1.5, -2.0])),
            (0x0E, &[0x3f, 0xf8, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0], E::Real(vec![1.5, -2.0])),
        ];
        for (kind, bytes, want) in cases {
            for file in [idx(kind, &[1, 2], bytes), gzip(&idx(kind, &[1, 2], bytes))] {
                let array = parse_idx_array(&file).unwrap();
                assert_eq!((array.shape, array.elements), (vec![1, 2], want.clone()), "{kind:x}");
            }
            let cut = parse_idx_array(&idx(kind, &[1, 3], bytes)).unwrap_err();
            assert!(matches!(cut, IdxProblem::Truncated { .. }), "{cut}");
        }
        assert!(matches!(parse_idx_array(&idx(0x0A, &[1], &[0])), Err(IdxProblem::ElementType(_))));
        // as large in bytes as can be, and eight times as large
        let large = parse_idx_array(&idx(0x0E, &[1 << 31, 1 << 30], &[])).unwrap_err();
        assert!(matches!(large, IdxProblem::Overflow(_)), "{large}");
    }

    #[test]
    fn files_are_named_in_errors() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("images");
        std::fs::write(&file, idx(8, &[9], &[1])).unwrap();
        let message = read_idx(&file).unwrap_err().to_string();
        assert_eq!(
            message,
            format!("{}: truncated: the header promises 9 bytes, the file holds 1", file.display())
        );
        assert!(matches!(read_idx(dir.path()), Err(DataError::NotAFile { .. })));
        assert!(matches!(read_idx(&dir.path().join("absent")), Err(DataError::Io { .. })));
    }
}
