//! MNIST and the sets that share its files' names and formats.

use std::path::Path;

use kiln_kernel::Shape;

use crate::{
    DataDir, DataError, Dataset, Features, IdxProblem, Split, Targets, dataset::check_labels,
    idx::read_idx_shape, read_idx,
};

const FASHION: [&str; 10] = [
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
];

/// Names of the digits' classes.
pub(crate) fn digit_names() -> Vec<String> {
    (0..10).map(|digit: u32| digit.to_string()).collect()
}

impl Dataset {
    /// MNIST: 60,000 and 10,000 handwritten digits, [1, 28, 28], white on black, ten classes.
    ///
    /// Reads `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    /// `t10k-labels-idx1-ubyte`, plain or with `.gz`, from the folder `mnist` of `dir`.
    ///
    /// Never uses the network: [`crate::fetch`] downloads the files.
    ///
    /// # Errors
    /// [`DataError::Missing`] with the files to put where; otherwise which file is wrong in what.
    ///
    /// Source: LeCun, Cortes and Burges, the MNIST database of handwritten digits.
    pub fn mnist(dir: impl Into<DataDir>) -> Result<Self, DataError> {
        idx_dataset("mnist", &dir.into(), digit_names())
    }

    /// Fashion-MNIST: as [`Dataset::mnist`], but articles of clothing, from the folder `fashion-mnist`.
    ///
    /// Never uses the network: [`crate::fetch`] downloads the files.
    ///
    /// # Errors
    /// As [`Dataset::mnist`].
    ///
    /// Source: Xiao, Rasul and Vollgraf (2017), "Fashion-MNIST".
    pub fn fashion_mnist(dir: impl Into<DataDir>) -> Result<Self, DataError> {
        idx_dataset("fashion-mnist", &dir.into(), FASHION.map(String::from).to_vec())
    }
}

fn idx_dataset(name: &str, dir: &DataDir, classes: Vec<String>) -> Result<Dataset, DataError> {
    let folder = dir.folder(name);
    let wanted = [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ];
    let found = wanted.map(|file| {
        [folder.join(file), folder.join(format!("{file}.gz"))].into_iter().find(|path| path.exists())
    });
    let [Some(train_images), Some(train_labels), Some(test_images), Some(test_labels)] = &found else {
        let missing =
            wanted.iter().zip(&found).filter(|(_, f)| f.is_none()).map(|(w, _)| (*w).into()).collect();
        return Err(DataError::Missing { name: name.into(), dir: folder, folder: name.into(), missing });
    };
    let train = idx_split(train_images, train_labels, classes.len())?;
    let test = idx_split(test_images, test_labels, classes.len())?;
    if train.item_shape() != test.item_shape() {
        return Err(DataError::Shape {
            origin: format!("data set \"{name}\""),
            message: format!(
                "images of {} are {}, those of {} are {}",
                train_images.display(),
                train.item_shape(),
                test_images.display(),
                test.item_shape()
            ),
        });
    }
    Dataset::new(name, train, test, classes)
}

fn idx_split(images_file: &Path, labels_file: &Path, classes: usize) -> Result<Split, DataError> {
    // Both headers before any element: what one file says of its length is compared with the other, and the short file of
    // labels is read whole before the long one.
    let (shape, count) = (shape_of(images_file, 3)?, shape_of(labels_file, 1)?);
    if shape[0] != count[0] {
        return Err(DataError::Counts {
            images_file: images_file.into(),
            images: shape[0],
            labels_file: labels_file.into(),
            labels: count[0],
        });
    }
    let labels = read_idx(labels_file)?.bytes;
    let pixels = read_idx(images_file)?.bytes;
    let labels: Vec<u32> = labels.into_iter().map(u32::from).collect();
    check_labels(&labels_file.display().to_string(), &labels, classes)?;
    let item = Shape::image(1, shape[1], shape[2]);
    Split::new(Features::Bytes(pixels), item, Targets::Classes { labels, classes }).map_err(|error| {
        match error {
            DataError::Shape { message, .. } => {
                DataError::Shape { origin: images_file.display().to_string(), message }
            }
            other => other,
        }
    })
}

fn shape_of(path: &Path, expected: usize) -> Result<Vec<usize>, DataError> {
    let shape = read_idx_shape(path)?;
    if shape.len() != expected {
        let problem = IdxProblem::Rank { found: shape.len(), expected, shape };
        return Err(DataError::Idx { path: path.into(), problem });
    }
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, path::PathBuf};

    use super::*;

    fn idx(shape: &[u32], elements: &[u8]) -> Vec<u8> {
        let mut data = vec![0, 0, 8, shape.len() as u8];
        shape.iter().for_each(|size| data.extend(size.to_be_bytes()));
        data.extend(elements);
        data
    }

    fn pack(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// A tiny set in the right files, one of them replaced.
    fn load(replaced: &str, content: Option<Vec<u8>>) -> Result<Dataset, DataError> {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("mnist");
        std::fs::create_dir(&folder).unwrap();
        for (part, n) in [("train", 3), ("t10k", 2)] {
            let images = idx(&[n, 2, 2], &vec![9; n as usize * 4]);
            let labels = idx(&[n], &vec![1; n as usize]);
            for (file, data) in
                [(format!("{part}-images-idx3-ubyte"), images), (format!("{part}-labels-idx1-ubyte"), labels)]
            {
                match (&content, file == replaced) {
                    (Some(content), true) => std::fs::write(folder.join(file), content).unwrap(),
                    (None, true) => {}
                    _ => std::fs::write(folder.join(file), data).unwrap(),
                }
            }
        }
        Dataset::mnist(dir.path())
    }

    #[test]
    fn reads_a_sound_set() {
        let data = load("", None).unwrap();
        assert_eq!((data.train.len(), data.test.len()), (3, 2));
        assert_eq!(data.train.item_shape().dims(), [1, 2, 2]);
        assert_eq!(data.classes[7], "7");
    }

    #[test]
    fn unsound_sets_are_refused() {
        type Case = (&'static str, Option<Vec<u8>>, &'static [&'static str]);
        let short = pack(&idx(&[5, 2, 2], &[9; 7]));
        let cases: [Case; 9] = [
            ("train-labels-idx1-ubyte", Some(idx(&[2], &[0, 1])), &["3 images", "2 labels"]),
            // what a header says of its length is compared before the elements, which are cut off here
            ("train-images-idx3-ubyte", Some(short), &["5 images", "3 labels"]),
            (
                "t10k-labels-idx1-ubyte",
                Some(idx(&[2], &[0, 10])),
                &["t10k-labels", "label 10 of item 1", "0 to 9"],
            ),
            (
                "train-labels-idx1-ubyte",
                Some(idx(&[3, 1], &[0; 3])),
                &["train-labels", "2 dimensions [3, 1], expected 1"],
            ),
            ("train-images-idx3-ubyte", Some(idx(&[3], &[0; 3])), &["train-images", "expected 3"]),
            ("train-images-idx3-ubyte", Some(idx(&[3, 0, 2], &[])), &["train-images", "no elements"]),
            (
                "t10k-images-idx3-ubyte",
                Some(idx(&[2, 3, 3], &[0; 18])),
                &["train-images-idx3-ubyte are [1, 2, 2]", "t10k-images-idx3-ubyte are [1, 3, 3]"],
            ),
            (
                "t10k-images-idx3-ubyte",
                Some(b"<!doctype html>".to_vec()),
                &["t10k-images", "not an IDX file"],
            ),
            ("t10k-images-idx3-ubyte", None, &["lacks t10k-images-idx3-ubyte (plain", "--data", "KILN_DATA"]),
        ];
        for (file, content, want) in cases {
            let message = load(file, content).unwrap_err().to_string();
            for part in want {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
            assert!(!message.contains('\n'));
        }
    }

    #[test]
    fn the_real_sets() {
        let Some(dir) = std::env::var_os("KILN_DATA") else {
            println!("skipped: KILN_DATA is not set");
            return;
        };
        type Load = fn(PathBuf) -> Result<Dataset, DataError>;
        // Mean and standard deviation of the training pixels, as published with the sets.
        let sets: [(Load, f64, f64); 2] = [
            (|d| Dataset::mnist(d), 0.1307 * 255.0, 0.3081 * 255.0),
            (|d| Dataset::fashion_mnist(d), 72.94, 90.02),
        ];
        for (load, mean, deviation) in sets {
            let data = load(dir.clone().into()).unwrap();
            assert_eq!((data.train.len(), data.test.len()), (60_000, 10_000), "{}", data.name);
            let Features::Bytes(pixels) = data.train.features() else { panic!("bytes expected") };
            let (n, sum, squares) = pixels.iter().fold((0.0, 0.0, 0.0), |(n, s, q), &p| {
                (n + 1.0, s + f64::from(p), q + f64::from(p) * f64::from(p))
            });
            assert!((sum / n - mean).abs() < 0.02, "{}: mean {}", data.name, sum / n);
            let found = (squares / n - (sum / n).powi(2)).sqrt();
            assert!((found - deviation).abs() < 0.02, "{}: deviation {found}", data.name);
        }
        let data = Dataset::mnist(PathBuf::from(&dir)).unwrap();
        let Targets::Classes { labels, .. } = data.train.targets() else { panic!("classes expected") };
        assert_eq!(labels[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    }
}
