//! Is a file what it should be?

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::known::{Digest, hex};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 16;

/// What became of a look at a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The content is the known one.
    Right {
        /// Whether it is compressed.
        gzip: bool,
    },
    /// It is not: why, in a few words.
    Wrong(String),
}

/// Compares a file, compressed or not, with what it should hold. No more of it is read than that.
pub(super) fn check(path: &Path, digest: &Digest) -> io::Result<Verdict> {
    if !fs::metadata(path)?.is_file() {
        return Ok(Verdict::Wrong("is not a regular file".into()));
    }
    let mut file = BufReader::with_capacity(CHUNK, File::open(path)?);
    let start = file.fill_buf()?.to_vec();
    let gzip = start.starts_with(&[0x1f, 0x8b]);
    if let Some(why) = is_page(&start) {
        return Ok(Verdict::Wrong(why));
    }
    let mut nowhere = io::sink();
    let compared = match gzip {
        true => compare(&mut MultiGzDecoder::new(file), digest, &mut nowhere),
        false => compare(&mut file, digest, &mut nowhere),
    };
    match compared {
        Ok(None) => Ok(Verdict::Right { gzip }),
        Ok(Some(why)) => Ok(Verdict::Wrong(why)),
        Err(Failure::Reading(error)) => gzip_problem(error, gzip).map(Verdict::Wrong),
        Err(Failure::Writing(error)) => Err(error),
    }
}

/// Pages that say "not found" with status 200 are common.
fn is_page(start: &[u8]) -> Option<String> {
    let text: String = start.iter().take(200).map(|&b| (b as char).to_ascii_lowercase()).collect();
    let text = text.trim_start_matches(['\u{ef}', '\u{bb}', '\u{bf}']).trim_start();
    ["<!doctype html", "<html", "<?xml"].iter().any(|tag| text.starts_with(tag)).then(|| {
        let what = if text.starts_with("<?xml") { "XML" } else { "HTML" };
        format!("is a page of {what}, not the file")
    })
}

/// What a failing decompression says about the file; other errors are the system's.
fn gzip_problem(error: io::Error, gzip: bool) -> io::Result<String> {
    match error.kind() {
        ErrorKind::UnexpectedEof if gzip => Ok("is cut off (its gzip data end early)".into()),
        ErrorKind::InvalidData | ErrorKind::InvalidInput if gzip => {
            Ok(format!("holds damaged gzip data ({error})"))
        }
        _ => Err(error),
    }
}

enum Failure {
    Reading(io::Error),
    Writing(io::Error),
}

/// Copies at most one byte more than the digest says; gives why they are not the same, if so.
fn compare(content: &mut dyn Read, digest: &Digest, copy: &mut dyn Write) -> Result<Option<String>, Failure> {
    let mut hash = Sha256::new();
    let mut bytes = 0u64;
    let mut chunk = vec![0; CHUNK];
    loop {
        let most = usize::try_from(digest.bytes + 1 - bytes).map_or(CHUNK, |left| left.min(CHUNK));
        let n = match content.read(&mut chunk[..most]) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::Reading(error)),
        };
        bytes += n as u64;
        if bytes > digest.bytes {
            return Ok(Some(format!("holds more than {} bytes", digest.bytes)));
        }
        hash.update(&chunk[..n]);
        copy.write_all(&chunk[..n]).map_err(Failure::Writing)?;
    }
    if bytes < digest.bytes {
        return Ok(Some(format!("holds {bytes} bytes instead of {}", digest.bytes)));
    }
    let found = hex(&hash.finalize());
    Ok((found != digest.sha256).then(|| {
        format!("holds other bytes (SHA-256 {}..., not {}...)", &found[..12], start(&digest.sha256))
    }))
}

/// The first digits of a sum that a user may have given too short.
fn start(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

/// What an archive gave.
pub(super) enum Unpacked {
    /// Every member, verified, each as a temporary file that is to be moved to its place.
    All(Vec<Member>),
    /// The archive is not the known one: why.
    Wrong(String),
}

/// A member of an archive that lies in a temporary file.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) temporary: PathBuf,
}

/// Unpacks the wanted members of a tar.gz archive into temporary files of `folder`, and nothing else: other names, links and
/// folders are passed over. What is read is bounded by `longest`, what is written by the members' digests.
///
/// # Errors
/// The file that cannot be read or written.
pub(super) fn unpack(
    archive: &Path,
    inside: &str,
    members: &[(String, Digest)],
    longest: u64,
    folder: &Path,
) -> Result<Unpacked, (PathBuf, io::Error)> {
    let mut written: Vec<Member> = Vec::new();
    let result = unpack_into(archive, inside, members, longest, folder, &mut written);
    if let Ok(None) = result {
        return Ok(Unpacked::All(written));
    }
    for member in &written {
        let _ = fs::remove_file(&member.temporary);
    }
    result.map(|why| Unpacked::Wrong(why.unwrap_or_default()))
}

fn unpack_into(
    archive: &Path,
    inside: &str,
    members: &[(String, Digest)],
    longest: u64,
    folder: &Path,
    written: &mut Vec<Member>,
) -> Result<Option<String>, (PathBuf, io::Error)> {
    let reading = |error: io::Error| -> Result<Option<String>, (PathBuf, io::Error)> {
        gzip_problem(error, true).map(Some).or_else(|error| match error.kind() {
            // what tar says of a header that is none
            ErrorKind::Other => Ok(Some(format!("is no sound tar archive ({error})"))),
            _ => Err((archive.to_path_buf(), error)),
        })
    };
    let mut file = match File::open(archive) {
        Ok(file) => BufReader::with_capacity(CHUNK, file),
        Err(error) => return Err((archive.to_path_buf(), error)),
    };
    let start = file.fill_buf().map_err(|error| (archive.to_path_buf(), error))?;
    if !start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Some(is_page(start).unwrap_or_else(|| "is no gzip file".into())));
    }
    // a bomb ends here, as an archive that is cut off
    let mut tar = tar::Archive::new(MultiGzDecoder::new(file).take(longest));
    // as they stand: long names and the like, of which known archives have none, would be read into memory whole
    let entries = match tar.entries() {
        Ok(entries) => entries.raw(true),
        Err(error) => return reading(error),
    };
    for entry in entries {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => return reading(error),
        };
        let path = entry.path_bytes().into_owned();
        let path = String::from_utf8_lossy(&path);
        let path = path.strip_prefix("./").unwrap_or(&path);
        let name = path.strip_prefix(inside).and_then(|rest| rest.strip_prefix('/')).unwrap_or(path);
        let Some((name, digest)) = members.iter().find(|(known, _)| known == name) else { continue };
        if !entry.header().entry_type().is_file() || written.iter().any(|member| &member.name == name) {
            continue;
        }
        let temporary = folder.join(format!("{name}.part"));
        let writing = |error| (temporary.clone(), error);
        let mut copy = File::create(&temporary).map_err(writing)?;
        written.push(Member { name: name.clone(), temporary: temporary.clone() });
        match compare(&mut entry, digest, &mut copy) {
            Ok(None) => copy.sync_all().map_err(writing)?,
            Ok(Some(why)) => return Ok(Some(format!("is not the known archive: its {name} {why}"))),
            Err(Failure::Reading(error)) => return reading(error),
            Err(Failure::Writing(error)) => return Err(writing(error)),
        }
        if written.len() == members.len() {
            return Ok(None);
        }
    }
    let missing = members.iter().map(|(name, _)| name).find(|name| !written.iter().any(|m| &&m.name == name));
    Ok(missing.map(|name| format!("is an archive without {inside}/{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn right_is_right_however_it_is_packed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let content: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        let digest = Digest::of(&content);
        let mut flipped = content.clone();
        flipped[70_000] ^= 1;
        let cut = gzip(&content);
        let cut = cut[..cut.len() - 20].to_vec();
        let cases: [(Vec<u8>, Result<bool, &str>); 9] = [
            (content.clone(), Ok(false)),
            (gzip(&content), Ok(true)),
            (flipped.clone(), Err("other bytes")),
            (gzip(&flipped), Err("other bytes")),
            (cut, Err("cut off")),
            (content[..9].to_vec(), Err("holds 9 bytes instead of 200000")),
            ([&content[..], b"!"].concat(), Err("more than 200000")),
            (gzip(&vec![0; 50_000_000]), Err("more than 200000")),
            (b"\xef\xbb\xbf \n<!DOCTYPE HTML><title>404</title>".to_vec(), Err("page of HTML")),
        ];
        for (data, want) in cases {
            fs::write(&path, data).unwrap();
            match (check(&path, &digest).unwrap(), want) {
                (Verdict::Right { gzip }, Ok(want)) => assert_eq!(gzip, want),
                (Verdict::Wrong(why), Err(want)) => assert!(why.contains(want), "{why} lacks {want}"),
                (got, want) => panic!("{got:?}, but {want:?}"),
            }
        }
        assert_eq!(check(dir.path(), &digest).unwrap(), Verdict::Wrong("is not a regular file".into()));
    }
}
