//! Files that mean harm. Every reader is given its corpus, and for some seconds changes of it drawn from a seed: it may refuse
//! them, but neither panic nor take long. Below that, attacks that were thought of.
//!
//! `KILN_CORPUS=DIR cargo test --test hostile corpus` writes the corpus for the fuzz targets instead (scripts/fuzz does).
//! `KILN_HOSTILE_SECONDS=600` and `KILN_HOSTILE_SEED=7` try longer and elsewhere: scripts/test gives each reader a minute, from a
//! seed that each commit has for itself.

#[path = "hostile/attacks.rs"]
mod attacks;
#[path = "common/program.rs"]
#[allow(dead_code)]
mod program;
#[path = "../fuzz/readers/mod.rs"]
#[allow(dead_code)]
mod readers;
#[path = "hostile/seeds.rs"]
mod seeds;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Once,
    time::{Duration, Instant},
};

use kiln::kernel::random::Stream;
use readers::READERS;

/// Longest that one input may take, on a machine that has other things to do.
const LONGEST: Duration = Duration::from_secs(10);

/// What goes into numbers' places.
const NUMBERS: [&str; 22] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "100",
    "255",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "1000000000000000000",
    "9223372036854775807",
    "18446744073709551615",
    "1e308",
    "-1e308",
    "1e-320",
    "nan",
    "inf",
];

/// A draw of numbers, for one input.
struct Draw {
    stream: Stream,
    at: u32,
}

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.at += 1;
        self.stream.below(self.at, n.clamp(1, u32::MAX as usize) as u32) as usize
    }
}

/// Changes an input a little, in the ways that parsers trip over.
fn changed(input: &[u8], other: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut data = input.to_vec();
    for _ in 0..1 + draw.below(4) {
        let at = draw.below(data.len() + 1);
        match draw.below(11) {
            0 if at < data.len() => data[at] ^= 1 << draw.below(8),
            1 if at < data.len() => data[at] = [0, 1, 0x7f, 0x80, 0xff][draw.below(5)],
            2 => data.truncate(at),
            3 => {
                let end = (at + 1 + draw.below(16)).min(data.len());
                data.drain(at.min(end)..end);
            }
            4 => {
                let end = (at + 1 + draw.below(64)).min(data.len());
                let part = data[at.min(end)..end].to_vec();
                let to = draw.below(data.len() + 1);
                data.splice(to..to, part);
            }
            5 => {
                let from = draw.below(other.len() + 1);
                let end = (from + 1 + draw.below(64)).min(other.len());
                data.splice(at..at, other[from.min(end)..end].iter().copied());
            }
            6 => {
                let nested = ["[", "{\"a\":", "[[", "(", "a.", "{", "-", "\"", "\n\n", ","][draw.below(10)];
                let times = [1, 2, 200, 5000][draw.below(4)];
                data.splice(at..at, nested.repeat(times).into_bytes());
            }
            7 => {
                for byte in data.iter_mut().skip(at).take(4) {
                    *byte = [0, 0xff, 0x7f][draw.below(3)];
                }
            }
            // a number that stands there as text becomes another: most of what recipes and descriptions say
            _ => {
                let is_digit = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
                let Some(first) = data.iter().skip(at).position(is_digit).map(|n| at + n) else { continue };
                let len = data[first..].iter().take_while(|byte| is_digit(byte)).count();
                let number = NUMBERS[draw.below(NUMBERS.len())];
                data.splice(first..first + len, number.bytes());
            }
        }
    }
    data
}

/// A model file whose header has another length now still says so.
fn with_header_length(mut data: Vec<u8>) -> Vec<u8> {
    let end = data.iter().rposition(|&byte| byte == b'}').map_or(0, |at| at + 1);
    if end > 8 {
        data[..8].copy_from_slice(&((end - 8) as u64).to_le_bytes());
    }
    data
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn torment(name: &str) {
    let seconds = variable("KILN_HOSTILE_SECONDS").unwrap_or(4);
    let seed = variable("KILN_HOSTILE_SEED").unwrap_or(1);
    let (_, reader) = READERS.iter().find(|(reader, _)| *reader == name).expect("a reader of this name");
    let corpus = seeds::corpus(name);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    // readers of files are given some dozen times as many where these lie in memory
    static IN_MEMORY: Once = Once::new();
    IN_MEMORY.call_once(|| {
        let memory = Path::new("/dev/shm");
        if std::env::var_os("TMPDIR").is_none() && tempfile::tempdir_in(memory).is_ok() {
            let _ = tempfile::env::override_temp_dir(memory);
        }
    });
    let mut failures = Vec::new();
    let mut taken = 0;
    let mut run = |what: String, data: &[u8]| {
        let started = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(|| reader(data)));
        let took = started.elapsed();
        if ended.is_err() || took > LONGEST {
            let path = std::env::temp_dir().join(format!("kiln-hostile-{name}-{}", failures.len()));
            let _ = std::fs::write(&path, data);
            let how = if ended.is_err() { "panics" } else { "takes too long" };
            failures.push(format!("{name}, {what}: {how} after {took:?}; the input is {}", path.display()));
        }
        taken += u32::from(ended.is_ok_and(|is_taken| is_taken));
        failures.len() < 20
    };
    for (file, data) in &corpus {
        run(file.clone(), data);
    }
    let (started, mut tried) = (Instant::now(), 0u32);
    while started.elapsed() < Duration::from_secs(seconds) {
        let mut draw = Draw { stream: Stream { seed, stream: 0x4057, step: tried }, at: 0 };
        let (_, data) = &corpus[draw.below(corpus.len())];
        let (_, other) = &corpus[draw.below(corpus.len())];
        let mut data = changed(data, other, &mut draw);
        if name == "model" && draw.below(3) > 0 {
            data = with_header_length(data);
        }
        tried += 1;
        if !run(format!("seed {seed}, input {tried}"), &data) {
            break;
        }
    }
    println!(
        "{name}: {} files, {tried} changed ones in {:.1} s from seed {seed}, {taken} of all taken",
        corpus.len(),
        started.elapsed().as_secs_f64()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // or it would be noise that is refused by its first byte
    assert!(taken > tried / 1000, "{name}: {taken} of {tried} were taken");
}

/// A test for each reader.
macro_rules! read_or_refused {
    ($($name:ident)*) => {
        mod read_or_refused {
            $(
                #[test]
                fn $name() {
                    super::torment(stringify!($name));
                }
            )*

            #[test]
            fn no_reader_is_left_out() {
                let tested = [$(stringify!($name)),*];
                assert_eq!(tested, super::READERS.map(|(name, _)| name));
            }
        }
    };
}

read_or_refused!(idx npy npz csv image archive cifar recipe model checkpoint bundle run_json report compare cache);

/// Writes the corpus where fuzzers look for it, if they ask.
#[test]
fn corpus_is_written_for_the_fuzz_targets() {
    let wanted = std::env::var_os("KILN_CORPUS").map(PathBuf::from);
    for (name, _) in READERS {
        let corpus = seeds::corpus(name);
        assert!(corpus.iter().all(|(_, data)| data.len() < 1 << 16), "{name}: seeds are small");
        let Some(folder) = wanted.as_ref().map(|folder| folder.join(name)) else { continue };
        std::fs::create_dir_all(&folder).unwrap();
        for (file, data) in corpus {
            std::fs::write(folder.join(file), data).unwrap();
        }
    }
}
