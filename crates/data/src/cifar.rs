//! CIFAR-10 in its binary version.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use kiln_kernel::Shape;

use crate::{
    DataDir, DataError, Dataset, Features, Split, Targets, dataset::check_labels, fetch::CIFAR10_INSIDE,
};

const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Values of an image: 32 rows of 32, red, then green, then blue.
const IMAGE: usize = 3 * 32 * 32;

/// A row: the label, then the image.
const ROW: usize = 1 + IMAGE;

/// Longest file that is read, a hundred times as long as those of the set.
const MAX_BYTES: u64 = 100 * 10_000 * ROW as u64;

const TRAIN: [&str; 5] =
    ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
const TEST: [&str; 1] = ["test_batch.bin"];

impl Dataset {
    /// CIFAR-10: 50,000 and 10,000 photographs, [3, 32, 32], red, green and blue, ten classes from `airplane` to `truck`.
    ///
    /// Reads `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin` from the folder `cifar10` of `dir`, or from
    /// `cifar-10-batches-bin` in it, as the published archive unpacks. Files may hold any number of rows: a label of
    /// one byte, then 3,072 values each.
    ///
    /// Never uses the network: [`crate::fetch`] downloads the files.
    ///
    /// # Errors
    /// [`DataError::Missing`] with the files to put where; otherwise which file is wrong in what.
    ///
    /// Source: Krizhevsky (2009), "Learning Multiple Layers of Features from Tiny Images"; Keras'
    /// `datasets.cifar10.load_data`.
    pub fn cifar10(dir: impl Into<DataDir>) -> Result<Self, DataError> {
        let folder = dir.into().folder("cifar10");
        let place = |file: &str| {
            [folder.join(file), folder.join(CIFAR10_INSIDE).join(file)].into_iter().find(|path| path.exists())
        };
        let wanted: Vec<&str> = TRAIN.into_iter().chain(TEST).collect();
        let missing: Vec<String> =
            wanted.iter().filter(|file| place(file).is_none()).map(|file| (*file).into()).collect();
        if !missing.is_empty() {
            let name = String::from("cifar10");
            return Err(DataError::Missing { name: name.clone(), dir: folder, folder: name, missing });
        }
        let split = |files: &[&str]| read(&files.iter().filter_map(|file| place(file)).collect::<Vec<_>>());
        Self::new("cifar10", split(&TRAIN)?, split(&TEST)?, CLASSES.map(String::from).to_vec())
    }
}

/// The rows of all these files.
fn read(files: &[PathBuf]) -> Result<Split, DataError> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for path in files {
        let rows = bytes(path)?;
        if rows.is_empty() || rows.len() % ROW != 0 {
            return Err(DataError::Rows { path: path.clone(), bytes: rows.len() as u64, row: ROW });
        }
        let own: Vec<u32> = rows.chunks_exact(ROW).map(|row| u32::from(row[0])).collect();
        check_labels(&path.display().to_string(), &own, CLASSES.len())?;
        labels.extend(own);
        pixels.reserve_exact(rows.len() / ROW * IMAGE);
        rows.chunks_exact(ROW).for_each(|row| pixels.extend(&row[1..]));
    }
    let targets = Targets::Classes { labels, classes: CLASSES.len() };
    Split::new(Features::Bytes(pixels), Shape::image(3, 32, 32), targets)
}

/// All of a file; of one that is too long, or grows, no more than it may have.
fn bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    let io = |source| DataError::Io { path: path.into(), source };
    let meta = std::fs::metadata(path).map_err(io)?;
    if !meta.is_file() {
        return Err(DataError::NotAFile { path: path.into() });
    }
    let too_long = |bytes: u64| DataError::Shape {
        origin: path.display().to_string(),
        message: format!("holds {bytes} bytes, but at most {MAX_BYTES} are read"),
    };
    if meta.len() > MAX_BYTES {
        return Err(too_long(meta.len()));
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize + 1);
    File::open(path).map_err(io)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_BYTES { Err(too_long(bytes.len() as u64)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Rows whose label is that of the first, one higher each, and whose values are all `value`.
    fn rows(n: usize, first: u8, value: u8) -> Vec<u8> {
        (0..n)
            .flat_map(|i| std::iter::once(first + i as u8).chain(std::iter::repeat_n(value, IMAGE)))
            .collect()
    }

    /// A tiny set, one file of it replaced or left out.
    fn load(inside: &str, replaced: &str, content: Option<&[u8]>) -> Result<Dataset, DataError> {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("cifar10").join(inside);
        fs::create_dir_all(&folder).unwrap();
        for (i, file) in TRAIN.into_iter().chain(TEST).enumerate() {
            match content {
                Some(content) if file == replaced => fs::write(folder.join(file), content).unwrap(),
                None if file == replaced => {}
                _ => fs::write(folder.join(file), rows(2, i as u8, 10 * i as u8)).unwrap(),
            }
        }
        Dataset::cifar10(dir.path())
    }

    #[test]
    fn reads_a_sound_set() {
        for inside in ["", CIFAR10_INSIDE] {
            let data = load(inside, "", None).unwrap();
            assert_eq!((data.train.len(), data.test.len()), (10, 2));
            assert_eq!(data.train.item_shape().dims(), [3, 32, 32]);
            assert_eq!((data.classes[0].as_str(), data.classes[9].as_str()), ("airplane", "truck"));
            let Targets::Classes { labels, .. } = data.train.targets() else { panic!("classes expected") };
            assert_eq!(labels[..], [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]);
            let Features::Bytes(pixels) = data.train.features() else { panic!("bytes expected") };
            assert_eq!((pixels[0], pixels[2 * IMAGE], pixels[10 * IMAGE - 1]), (0, 10, 40));
        }
    }

    #[test]
    fn unsound_sets_are_refused() {
        let cut = rows(2, 0, 1);
        let label = rows(2, 9, 0);
        for (file, content, want) in [
            (
                "data_batch_3.bin",
                Some(&cut[..ROW + 5]),
                ["data_batch_3.bin", "3078 bytes", "multiple of 3073"],
            ),
            ("data_batch_1.bin", Some(&[][..]), ["data_batch_1.bin", "0 bytes", "kiln data fetch"]),
            ("test_batch.bin", Some(&label[..]), ["test_batch.bin", "label 10 of item 1", "0 to 9"]),
            ("data_batch_5.bin", None, ["lacks data_batch_5.bin; ", "kiln data fetch cifar10", "--data"]),
        ] {
            let message = load("", file, content).unwrap_err().to_string();
            for part in want {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
        }
    }
}
