use std::io::Write;

use zip::{ZipWriter, write::SimpleFileOptions};

use super::*;

fn npy_of(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = b"\x93NUMPY".to_vec();
    file.extend([version, 0]);
    match version {
        1 => file.extend((header.len() as u16).to_le_bytes()),
        _ => file.extend((header.len() as u32).to_le_bytes()),
    }
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let fortran = if fortran { "True" } else { "False" };
    npy_of(1, &format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}   \n"), data)
}

#[test]
fn every_type_is_read_in_both_orders() {
    use Elements as E;
    let cases: [(&str, Vec<u8>, Elements); 12] = [
        ("|u1", vec![7, 200], E::Bytes(vec![7, 200])),
        ("|b1", vec![1, 0], E::Bytes(vec![1, 0])),
        ("|i1", vec![7, 0xff], E::Integers(vec![7, -1])),
        ("<u2", [7u16, 60_000].map(u16::to_le_bytes).concat(), E::Integers(vec![7, 60_000])),
        (">i2", [7i16, -2].map(i16::to_be_bytes).concat(), E::Integers(vec![7, -2])),
        (">u4", [7u32, 1 << 31].map(u32::to_be_bytes).concat(), E::Integers(vec![7, 1 << 31])),
        ("<i4", [7i32, -2].map(i32::to_le_bytes).concat(), E::Integers(vec![7, -2])),
        ("<i8", [7i64, -2].map(i64::to_le_bytes).concat(), E::Integers(vec![7, -2])),
        (">u8", [7u64, 9].map(u64::to_be_bytes).concat(), E::Integers(vec![7, 9])),
        ("<f2", vec![0, 0x3c, 0, 0xc0], E::Real(vec![1.0, -2.0])),
        (">f4", [0.5f32, -2.0].map(f32::to_be_bytes).concat(), E::Real(vec![0.5, -2.0])),
        ("<f8", [0.5f64, -2.0].map(f64::to_le_bytes).concat(), E::Real(vec![0.5, -2.0])),
    ];
    for (descr, data, want) in cases {
        let array = parse_npy(&npy(descr, false, "(2,)", &data), "a").unwrap();
        assert_eq!((array.shape, array.elements), (vec![2], want), "{descr}");
    }
    // [[1, 2, 3], [4, 5, 6]] column by column
    let columns = parse_npy(&npy("|u1", true, "(2, 3)", &[1, 4, 2, 5, 3, 6]), "a").unwrap();
    assert_eq!(columns, Array { shape: vec![2, 3], elements: E::Bytes(vec![1, 2, 3, 4, 5, 6]) });
    for (version, shape, want) in [(1, "()", vec![]), (2, "(1L, 1L)", vec![1, 1]), (3, "(1,)", vec![1])] {
        let header = format!("{{\"shape\": {shape}, \"fortran_order\": False, \"descr\": \"|u1\"}}");
        assert_eq!(parse_npy(&npy_of(version, &header, &[9]), "a").unwrap().shape, want);
    }
    assert_eq!(parse_npy(&npy("<f4", true, "(0, 5)", &[]), "a").unwrap().elements, E::Real(vec![]));
}

#[test]
fn bad_files_are_told_apart() {
    let good = npy("<f4", false, "(2,)", &[0; 8]);
    let record = "{'descr': [('x', '<f4'), ('y', '<f4')], 'fortran_order': False, 'shape': (2,)}";
    for (file, want) in [
        (vec![], "truncated"),
        (b"PK\x03\x04 and more".to_vec(), "not a NumPy array"),
        (good[..9].to_vec(), "truncated: ends inside the header"),
        (good[..30].to_vec(), "truncated: ends inside the header"),
        (good[..good.len() - 1].to_vec(), "the header promises 8 bytes, the file holds 7"),
        ([&good[..], &[0]].concat(), "trailing bytes"),
        (npy_of(9, "{}", &[]), "format version 9"),
        (npy_of(2, &" ".repeat(70_000), &[]), "a header of 70000 bytes"),
        (npy("|O", false, "(2,)", &[0; 16]), "elements are Python objects (dtype |O)"),
        (npy("<U5", false, "(2,)", &[0; 40]), "elements are text (dtype <U5)"),
        (npy("|S5", false, "(2,)", &[0; 10]), "elements are text"),
        (npy("<c8", false, "(2,)", &[0; 16]), "complex numbers"),
        (npy("<M8[ns]", false, "(2,)", &[0; 16]), "dates or times"),
        (npy("<f16", false, "(1,)", &[0; 16]), "another width"),
        (npy_of(1, record, &[0; 16]), "elements are records"),
        (npy("<f4", false, "(4294967296, 4294967296)", &[]), "are too large"),
        (npy("<f8", false, "(2305843009213693952,)", &[]), "are too large"),
        (npy("<f4", false, "(1000000000000,)", &[0; 4]), "promises 4000000000000 bytes, the file holds 4"),
        (npy("<f4", false, "(-1,)", &[]), "not understood"),
        (npy("<f4", false, &format!("({})", "1,".repeat(65)), &[0; 4]), "65 dimensions"),
        (npy("|b1", false, "(2,)", &[1, 2]), "element 1 is 2, which is no truth value"),
        (npy("<u8", false, "(1,)", &[0xff; 8]), "has numbers over"),
        (npy_of(1, "{'descr': '<f4'}", &[]), "no dictionary"),
        (npy_of(1, "[1, 2]", &[]), "no dictionary"),
        (npy_of(1, "{'descr': '<f4", &[]), "not understood"),
    ] {
        let message = parse_npy(&file, "a.npy").expect_err(want).to_string();
        assert!(message.starts_with("a.npy: ") && message.contains(want), "{message:?} lacks {want:?}");
        assert!(!message.contains('\n'), "{message:?}");
    }
}

#[test]
fn no_prefix_or_flipped_bit_panics() {
    let good = npy(">i2", true, "(2, 2)", &[1, 2, 3, 4, 5, 6, 7, 8]);
    for end in 0..good.len() {
        assert!(parse_npy(&good[..end], "a").is_err(), "prefix of {end}");
    }
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(array) = parse_npy(&bad, "a") {
            assert_eq!(array.elements.len(), array.shape.iter().product::<usize>(), "bit {bit}");
        }
    }
}

fn npz(path: &Path, members: &[(&str, Vec<u8>)]) {
    let mut archive = ZipWriter::new(File::create(path).unwrap());
    for (name, data) in members {
        archive.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
        archive.write_all(data).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn archives_are_data_sets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.npz");
    let images = |n: usize| {
        npy("|u1", false, &format!("({n}, 2, 2)"), &(0..4 * n).map(|i| i as u8).collect::<Vec<_>>())
    };
    let labels = |labels: &[i64]| {
        let bytes: Vec<u8> = labels.iter().flat_map(|l| l.to_le_bytes()).collect();
        npy("<i8", false, &format!("({},)", labels.len()), &bytes)
    };
    let write = |y_train: &[i64], y_test: &[i64]| {
        let members = [
            ("x_train", images(3)),
            ("y_train", labels(y_train)),
            ("x_test", images(2)),
            ("y_test", labels(y_test)),
        ];
        npz(&path, &members);
    };
    write(&[0, 2, 1], &[0, 1]);
    let data = Dataset::npz(&path).unwrap();
    assert_eq!((data.name.as_str(), data.train.len(), data.test.len()), ("tiny", 3, 2));
    assert_eq!((data.train.item_shape().dims(), data.classes.len()), (&[1, 2, 2][..], 3));
    write(&[0, 2], &[0, 1]);
    let message = Dataset::npz(&path).unwrap_err().to_string();
    assert!(message.contains("tiny.npz: x_train: 3 rows, but 2 targets"), "{message}");
    write(&[0, -2, 1], &[0, 1]);
    assert!(Dataset::npz(&path).unwrap_err().to_string().contains("y_train: label -2 of item 1"));
    let mut file = Npz::open(&path).unwrap();
    assert_eq!(file.names(), ["x_test", "x_train", "y_test", "y_train"]);
    let message = file.read("x").unwrap_err().to_string();
    assert!(message.contains("holds no array x; there are x_test, x_train"), "{message}");

    let (x, y) = (dir.path().join("x.npy"), dir.path().join("y.npy"));
    std::fs::write(&x, npy("<f4", false, "(2, 3)", &[0; 24])).unwrap();
    std::fs::write(&y, labels(&[1, 0])).unwrap();
    assert_eq!(Split::from_npy(&x, &y).unwrap().item_shape().dims(), [3]);
    std::fs::write(&x, "hello").unwrap();
    assert!(Split::from_npy(&x, &y).unwrap_err().to_string().contains("x.npy: truncated"));
    std::fs::write(&x, npy("<f4", false, "(2,)", &[0, 0, 0x80, 0x7f, 0, 0, 0, 0])).unwrap();
    assert!(Split::from_npy(&x, &y).unwrap_err().to_string().contains("value 0 is not a finite number"));
}

#[test]
fn archives_that_lie_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.npz");
    let message = || match Npz::open(&path) {
        Err(error) => error.to_string(),
        Ok(mut file) => file.read("a").expect_err("refused").to_string(),
    };
    // far more behind the elements than they are
    npz(&path, &[("a", [npy("|u1", false, "(4,)", &[0; 4]), vec![0; 60_000_000]].concat())]);
    assert!(message().contains("array a: trailing bytes"), "{}", message());
    npz(&path, &[("a", npy("|u1", false, "(100000000000,)", &[0; 100]))]);
    assert!(message().contains("promises 100000000000 bytes"), "{}", message());
    npz(&path, &[("a", npy("|O", false, "(4,)", &[0; 40]))]);
    assert!(message().contains("array a: elements are Python objects"), "{}", message());
    npz(
        &path,
        &[("a", npy("|u1", false, "(4000,)", &(0..4000).map(|i| (i * i % 251) as u8).collect::<Vec<_>>()))],
    );
    let sound = std::fs::read(&path).unwrap();
    for at in (0..sound.len()).step_by(7) {
        let mut bad = sound.clone();
        bad[at] ^= 0x55;
        std::fs::write(&path, &bad).unwrap();
        if let Ok(mut file) = Npz::open(&path) {
            let _ = file.read("a");
        }
        std::fs::write(&path, &sound[..at]).unwrap();
        assert!(Npz::open(&path).is_err(), "cut at {at}");
    }
    std::fs::write(&path, "no archive").unwrap();
    assert!(message().contains("a.npz: not an .npz archive"), "{}", message());
}
