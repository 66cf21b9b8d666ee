//! Readers of data sets: they need kiln-data alone, so that their fuzz targets are quick to build.

use std::{fs, io::Write, panic, path::Path, sync::Once};

use flate2::{Compression, write::GzEncoder};
use kiln_data::{Csv, Dataset, Elements, Features, ImageForm, Npz, Split, Task};

/// IDX files, plain and gzip: what is read is as long as its dimensions say, and bytes are read alike by both readers.
pub fn idx(data: &[u8]) -> bool {
    let array = kiln_data::parse_idx_array(data);
    if let Ok(array) = &array {
        assert_eq!(array.elements.len(), array.shape.iter().product::<usize>());
    }
    match (kiln_data::parse_idx(data), array) {
        (Ok(bytes), Ok(array)) => {
            assert_eq!(bytes.shape, array.shape);
            assert_eq!(Elements::Bytes(bytes.bytes), array.elements);
            true
        }
        (Ok(_), Err(error)) => panic!("one reader takes it, the other says: {error}"),
        (Err(error), array) => {
            assert!(!error.to_string().contains('\n'));
            array.is_ok()
        }
    }
}

/// NumPy arrays: what is read is as long as its dimensions say, and becomes rows and labels or a typed error.
pub fn npy(data: &[u8]) -> bool {
    match kiln_data::parse_npy(data, "fuzz.npy") {
        Ok(array) => {
            assert_eq!(array.elements.len(), array.shape.iter().product::<usize>());
            match Split::from_arrays(array.clone(), array, None, "fuzz.npy") {
                Ok(split) => assert!(!split.is_empty()),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
            true
        }
        Err(error) => {
            assert!(error.to_string().starts_with("fuzz.npy: "));
            false
        }
    }
}

/// Archives of NumPy arrays.
pub fn npz(data: &[u8]) -> bool {
    with_file("fuzz.npz", data, |path| {
        if let Ok(mut file) = Npz::open(path) {
            for name in file.names().into_iter().take(8) {
                if let Ok(array) = file.read(&name) {
                    assert_eq!(array.elements.len(), array.shape.iter().product::<usize>());
                }
            }
        }
        let data = Dataset::npz(path);
        assert!(data.as_ref().is_ok_and(|data| !data.train.is_empty()) || data.is_err());
        data.is_ok()
    })
}

/// Tables: the first byte chooses the settings. Every row has a finite number for each column, and a target.
pub fn csv(data: &[u8]) -> bool {
    let Some((settings, text)) = data.split_first() else { return false };
    let mut csv = Csv::new("fuzz.csv", if settings & 1 == 0 { "y" } else { "0" });
    if settings & 2 != 0 {
        csv = csv.without_header();
    }
    match settings >> 2 & 3 {
        1 => csv = csv.task(Task::Classification),
        2 => csv = csv.task(Task::Regression),
        3 => csv = csv.delimiter(b';'),
        _ => {}
    }
    match csv.parse(text) {
        Ok(table) => {
            let Features::Real(values) = table.split.features() else { panic!("tables are real numbers") };
            assert_eq!(values.len(), table.split.len() * table.columns.len());
            assert!(values.iter().all(|value| value.is_finite()));
            // to be predicted: the same rows, or words for why not
            match kiln_data::parse_csv_rows(text, Path::new("fuzz.csv"), &table.columns) {
                Ok(rows) => assert_eq!(rows.item_shape().elements(), table.columns.len()),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// Pictures, in the form that a network expects. What a decoder panics of becomes an error, of which libFuzzer's hook, which
/// aborts, is not to hear.
pub fn image(data: &[u8]) -> bool {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !kiln_kernel::panics::is_contained() {
                others(info);
            }
        }));
    });
    with_file("fuzz.png", data, |path| {
        let mut is_read = false;
        for form in [(1, 8, 8), (3, 5, 9)] {
            let form = ImageForm { channels: form.0, height: form.1, width: form.2, invert: form.0 == 3 };
            if let Ok(bytes) = kiln_data::read_image(path, &form) {
                assert_eq!(bytes.len(), form.channels * form.height * form.width);
                is_read = true;
            }
        }
        is_read
    })
}

/// Archives of downloads: only members that are known are written, and only where they are said to. What is not packed is
/// packed first, and its headers' sums set right, so that changes reach what is inside.
pub fn archive(data: &[u8]) -> bool {
    let packed = if data.starts_with(&[0x1f, 0x8b]) { data.to_vec() } else { packed(data) };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fuzz.tar.gz");
    fs::write(&path, packed).unwrap();
    let inside = folder.path().join("into");
    fs::create_dir(&inside).unwrap();
    let all = kiln_data::unpack_known(&path, "set", &[("a.bin", 5, ARCHIVED)], &inside);
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    };
    assert!(names(&inside).iter().all(|name| name == "a.bin"), "{:?}", names(&inside));
    assert_eq!(names(folder.path()).len(), 2, "it wrote beside its folder");
    matches!(all, Ok(true))
}

/// A tar archive as gzip has it, where the blocks that are headers have the sums of their bytes.
fn packed(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    for header in tar.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(&tar).unwrap();
    encoder.finish().unwrap()
}

/// SHA-256 of `hello`, the member of [`archive`].
pub const ARCHIVED: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// CIFAR-10's binary files, all six of this content: a row for each 3,073 bytes, labels of ten classes.
pub fn cifar(data: &[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("cifar10");
    fs::create_dir(&inside).unwrap();
    for file in (1..6).map(|n| format!("data_batch_{n}.bin")).chain(["test_batch.bin".to_string()]) {
        fs::write(inside.join(file), data).unwrap();
    }
    match Dataset::cifar10(folder.path()) {
        Ok(set) => {
            assert_eq!(set.test.len() * 3073, data.len());
            assert_eq!(set.train.len(), 5 * set.test.len());
            true
        }
        Err(error) => {
            assert!(error.to_string().contains("cifar10"), "{error}");
            false
        }
    }
}

/// A file of this content for as long as `f` runs.
pub(super) fn with_file(name: &str, data: &[u8], f: impl FnOnce(&Path) -> bool) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, data).unwrap();
    f(&path)
}
