use image::{GrayImage, Luma, Rgb, RgbImage};

use super::*;

/// A folder with `n` images of 6 x 5 pixels for each class, of the class' number and their own.
fn folder(parts: &[&str], classes: &[&str], n: u8) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for part in parts {
        for (label, class) in (0..).zip(classes) {
            let path = dir.path().join(part).join(class);
            fs::create_dir_all(&path).unwrap();
            for i in 0..n {
                let image = RgbImage::from_pixel(6, 5, Rgb([label, i, 7]));
                image.save(path.join(format!("{i}.png"))).unwrap();
            }
        }
    }
    dir
}

fn message(folder: &ImageFolder) -> String {
    let message = folder.read().expect_err("refused").to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

/// Label and own number of each row, by its pixels.
fn rows(split: &Split) -> Vec<(u32, u8)> {
    let loaded = split.in_memory().unwrap();
    let (Features::Bytes(bytes), Targets::Classes { labels, .. }) = (loaded.features(), loaded.targets())
    else {
        panic!("bytes and classes expected")
    };
    let rows: Vec<_> = bytes.chunks(90).zip(labels).collect();
    assert!(rows.iter().all(|(row, label)| u32::from(row[0]) == **label && row[89] == 7));
    rows.iter().map(|(row, label)| (**label, row[30])).collect()
}

#[test]
fn folders_are_read_into_memory_and_on_demand_alike() {
    let dir = folder(&["train", "test"], &["apple", "fig", "pear"], 20);
    let data = ImageFolder::new(dir.path()).read().unwrap();
    assert_eq!(data.classes, ["apple", "fig", "pear"]);
    assert_eq!((data.train.len(), data.test.len()), (60, 60));
    assert_eq!(data.train.item_shape().dims(), [3, 5, 6]);
    assert!(matches!(data.train.features(), Features::Bytes(_)) && data.remarks.is_empty());
    let mut all = rows(&data.train);
    all.sort_unstable();
    assert!(all.into_iter().eq((0..3).flat_map(|label| (0..20).map(move |i| (label, i)))));
    let on_demand = ImageFolder::new(dir.path()).memory(0).read().unwrap();
    assert!(matches!(on_demand.train.features(), Features::OnDemand(_)));
    assert_eq!(*on_demand.train.in_memory().unwrap(), data.train);
    assert_eq!(*on_demand.test.in_memory().unwrap(), data.test);
    // the order is of chance, so that the first few have all classes
    let Targets::Classes { labels, .. } = data.train.targets() else { panic!("classes expected") };
    assert!((0..3).all(|class| labels[..20].contains(&class)));
}

#[test]
fn a_part_is_dealt_out_to_be_tested_on() {
    let dir = folder(&[""], &["a", "b", "c"], 10);
    let read = |seed| ImageFolder::new(dir.path()).test_split(0.2).seed(seed).read().unwrap();
    let data = read(1);
    let (train, test) = (rows(&data.train), rows(&data.test));
    assert_eq!((train.len(), test.len()), (24, 6));
    for class in 0..3 {
        assert_eq!(test.iter().filter(|row| row.0 == class).count(), 2);
    }
    let mut all = [train, test.clone()].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 30);
    assert_eq!(rows(&read(1).test), test);
    assert_ne!(rows(&read(2).test), test);
    assert_eq!(rows(&ImageFolder::new(dir.path()).test_split(0.2).memory(0).read().unwrap().test), test);
    // where there is no folder test, one of train is enough
    let dir = folder(&["train"], &["a", "b"], 10);
    assert_eq!(ImageFolder::new(dir.path()).test_split(0.5).read().unwrap().test.len(), 10);
    assert!(message(&ImageFolder::new(dir.path())).contains("has no folder test"));
    assert!(message(&ImageFolder::new(dir.path()).test_split(1.5)).contains("between 0 and 1, is 1.5"));
    assert!(
        message(&ImageFolder::new(dir.path()).test_split(0.001))
            .contains("test_split of 0.001 leaves no image")
    );
}

#[test]
fn rows_to_validate_on_are_not_taken_for_others() {
    // beside rows to test on they are left alone, and named
    let three = folder(&["train", "Validation", "test"], &["a", "b"], 4);
    let data = ImageFolder::new(three.path()).test_split(0.5).read().unwrap();
    assert_eq!((data.train.len(), data.test.len()), (8, 8));
    assert!(data.remarks[0].contains("the folder \"Validation\" is not read"), "{:?}", data.remarks);
    // without those they are tested on, all of them
    for names in [["train", "val"], ["Training", "VALIDATION"], ["TRAIN", "Test"]] {
        let two = folder(&names, &["a", "b"], 4);
        let data = ImageFolder::new(two.path()).test_split(0.5).read().unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.remarks.len()), (8, 8, 0), "{names:?}");
        assert_eq!(data.classes, ["a", "b"]);
    }
}

#[test]
fn sizes_and_colours_are_as_asked() {
    let dir = folder(&["train", "test"], &["a", "b"], 2);
    GrayImage::from_pixel(9, 4, Luma([50])).save(dir.path().join("train/b/odd.jpg")).unwrap();
    let several = message(&ImageFolder::new(dir.path()));
    for part in ["several sizes", "0.png is 5 x 6", "odd.jpg is 4 x 9", "size = [5, 6]"] {
        assert!(several.contains(part), "{several:?} lacks {part:?}");
    }
    let data = ImageFolder::new(dir.path()).size([8, 3]).grey().read().unwrap();
    assert_eq!(data.train.item_shape().dims(), [1, 8, 3]);
    let Features::Bytes(bytes) = data.train.features() else { panic!("bytes expected") };
    assert!(bytes.chunks(24).any(|row| row.iter().all(|p| p.abs_diff(50) < 2)), "grey stays grey");
    for size in [[0, 5], [5, 1 << 20]] {
        assert!(message(&ImageFolder::new(dir.path()).size(size)).contains("from 1 to 16384 pixels"));
    }
    let huge = message(&ImageFolder::new(dir.path()).size([16_384, 16_384]));
    assert!(huge.contains("in 3 channels are 805306368 bytes each"), "{huge}");
}

#[test]
fn folders_of_another_layout_are_refused() {
    let empty = tempfile::tempdir().unwrap();
    let root = empty.path();
    assert!(message(&ImageFolder::new(root.join("absent"))).contains("there is no such folder"));
    let is = |want: &[&str]| {
        let message = message(&ImageFolder::new(root).test_split(0.5));
        for part in want {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    };
    is(&["holds no folders of classes", "train/CLASS", "--data"]);
    fs::write(root.join("a.png"), "").unwrap();
    is(&["holds no folders of classes"]);
    fs::create_dir(root.join("cats")).unwrap();
    is(&["cats: the class \"cats\" has no .png"]);
    fs::write(root.join("cats/.DS_Store"), "").unwrap();
    fs::write(root.join("cats/Thumbs.db"), "").unwrap();
    fs::write(root.join("cats/notes.txt"), "").unwrap();
    is(&["cats: the class \"cats\" has no .png"]);
    fs::create_dir(root.join("test")).unwrap();
    is(&["has a folder \"test\", but no folder \"train\""]);

    let one = folder(&["train", "test"], &["a"], 1);
    let refused = message(&ImageFolder::new(one.path()));
    assert!(
        refused.contains("train: holds one class only, \"a\"") && refused.contains("at least two"),
        "{refused}"
    );
    let outer = folder(&["fruit/train", "fruit/test"], &["a", "b"], 1);
    for folder in [ImageFolder::new(outer.path()), ImageFolder::new(outer.path()).test_split(0.5)] {
        let refused = message(&folder);
        assert!(
            refused.contains("its folder \"fruit\" holds train and test itself: name that folder"),
            "{refused}"
        );
    }
    assert!(ImageFolder::new(outer.path().join("fruit")).read().is_ok());
    assert!(message(&ImageFolder::new("")).contains("path is empty"));

    let dir = folder(&["train"], &["a", "b", "c"], 1);
    for class in ["a", "d"] {
        fs::create_dir_all(dir.path().join("test").join(class)).unwrap();
        let image = dir.path().join("test").join(class).join("1.png");
        RgbImage::new(6, 5).save(image).unwrap();
    }
    let odd = message(&ImageFolder::new(dir.path()));
    assert!(odd.contains("the same classes; only train has \"b\", \"c\"; only test has \"d\""), "{odd}");
}

#[test]
fn unreadable_images_are_refused_or_skipped_and_named() {
    let dir = folder(&["train", "test"], &["a", "b"], 10);
    let root = dir.path();
    let sound = fs::read(root.join("train/a/3.png")).unwrap();
    fs::write(root.join("train/a/cut.png"), &sound[..sound.len() / 2]).unwrap();
    fs::write(root.join("train/a/text.png"), "no picture at all").unwrap();
    let mut lying = sound.clone();
    lying[16..24].copy_from_slice(&[0, 0, 0x3f, 0, 0, 0, 0x3f, 0]);
    let mut crc = flate2::Crc::new();
    crc.update(&lying[12..29]);
    lying[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    fs::write(root.join("train/b/lying.png"), lying).unwrap();
    fs::write(root.join("train/b/empty.jpeg"), "").unwrap();
    fs::create_dir(root.join("test/a/deeper")).unwrap();
    fs::rename(root.join("test/a/0.png"), root.join("test/a/deeper/0.png")).unwrap();
    fs::write(root.join("test/a/notes.txt"), "").unwrap();
    fs::write(root.join("test/readme.md"), "").unwrap();
    fs::write(root.join("test/a/.DS_Store"), "").unwrap();

    let refused = message(&ImageFolder::new(root));
    for part in [
        "3 of 44 images",
        "text.png: not an image",
        "lying.png: too large",
        "empty.jpeg",
        "without them by unreadable = \"skip\"",
    ] {
        assert!(refused.contains(part), "{refused:?} lacks {part:?}");
    }
    let mut memories = Vec::new();
    for memory in [0, 1 << 30] {
        let data = ImageFolder::new(root).unreadable(Unreadable::Skip).memory(memory).read().unwrap();
        assert_eq!((data.train.len(), data.test.len()), (20, 20));
        let [left_out, skipped] = &data.remarks[..] else { panic!("{:?}", data.remarks) };
        assert!(left_out.starts_with("left out 2 files that are no .png"), "{left_out}");
        assert!(left_out.contains("notes.txt") && left_out.contains("readme.md"), "{left_out}");
        assert!(skipped.starts_with("skipped 4 images that cannot be read"), "{skipped}");
        assert!(skipped.contains("cut.png"), "{skipped}");
        memories.push(rows(&data.train));
    }
    memories.iter_mut().for_each(|rows| rows.sort_unstable());
    assert_eq!(memories[0], memories[1]);

    // a header that is sound and pixels that are not show when the pixels are read
    for name in ["train/a/text.png", "train/b/lying.png", "train/b/empty.jpeg"] {
        fs::remove_file(root.join(name)).unwrap();
    }
    let refused = message(&ImageFolder::new(root));
    assert!(refused.contains("1 of 41 images") && refused.contains("cut.png"), "{refused}");
    let late = ImageFolder::new(root).memory(0).read().unwrap();
    let error = late.train.in_memory().unwrap_err().to_string();
    assert!(error.starts_with("row ") && error.contains("cut.png"), "{error}");

    for i in 0..10 {
        fs::write(root.join(format!("train/b/{i}.png")), "broken").unwrap();
    }
    let gone = message(&ImageFolder::new(root).unreadable(Unreadable::Skip));
    assert!(gone.contains("no train image of the class \"b\" can be read"), "{gone}");
}

#[test]
#[cfg(unix)]
fn links_are_followed_within_and_their_loops_end() {
    use std::os::unix::fs::symlink;
    let dir = folder(&["train", "test"], &["a", "b"], 3);
    let root = dir.path();
    let elsewhere = tempfile::tempdir().unwrap();
    RgbImage::from_pixel(6, 5, Rgb([0, 9, 7])).save(elsewhere.path().join("linked.png")).unwrap();
    symlink(elsewhere.path().join("linked.png"), root.join("train/a/file.png")).unwrap();
    // up, to itself, and round about
    symlink("..", root.join("train/a/up")).unwrap();
    symlink(root, root.join("train/loop")).unwrap();
    symlink("self", root.join("train/b/self")).unwrap();
    fs::create_dir(root.join("train/a/x")).unwrap();
    fs::create_dir(root.join("train/a/y")).unwrap();
    symlink("../y", root.join("train/a/x/to_y")).unwrap();
    symlink("../x", root.join("train/a/y/to_x")).unwrap();
    let refused = message(&ImageFolder::new(root));
    assert!(refused.contains("file.png") && refused.contains("leads out of the folder"), "{refused}");
    let data = ImageFolder::new(root).follow_links().read().unwrap();
    assert_eq!((data.train.len(), data.test.len()), (7, 6));
    assert!(data.remarks[0].contains("a link upward"), "{:?}", data.remarks);

    assert_eq!(data.remarks.len(), 1, "{:?}", data.remarks);

    // a class that lies elsewhere, and a list of names that does: it is not read
    fs::remove_file(root.join("train/a/file.png")).unwrap();
    symlink("/etc/passwd", root.join("train/a/names.txt")).unwrap();
    symlink(elsewhere.path(), root.join("train/outside")).unwrap();
    let refused = message(&ImageFolder::new(root));
    assert!(refused.contains("outside") && refused.contains("leads out of the folder"), "{refused}");
    fs::remove_file(root.join("train/outside")).unwrap();
    fs::remove_file(root.join("train/a/names.txt")).unwrap();
    RgbImage::from_pixel(6, 5, Rgb([0, 9, 7])).save(root.join("train/a/file.png")).unwrap();

    // one folder under two names, as two classes and as rows to learn from and to be tested on
    symlink("a", root.join("train/c")).unwrap();
    symlink("../train/b", root.join("test/c")).unwrap();
    let twins = ImageFolder::new(root).read().unwrap().remarks;
    let twins = twins.iter().find(|remark| remark.starts_with("read more than once 2 folders")).unwrap();
    assert!(twins.contains("train/c is ") && twins.contains("train/a, "), "{twins}");
    assert!(twins.contains("test/c is ") && twins.ends_with("train/b"), "{twins}");
    fs::remove_file(root.join("train/c")).unwrap();
    fs::remove_file(root.join("test/c")).unwrap();

    // a link to nowhere is an image that cannot be read
    symlink("nowhere.png", root.join("train/b/gone.png")).unwrap();
    let refused = message(&ImageFolder::new(root));
    assert!(refused.contains("1 of 14 images") && refused.contains("gone.png"), "{refused}");
}

#[test]
#[cfg(all(unix, not(target_os = "macos")))]
fn names_that_are_no_text_are_told() {
    use std::os::unix::ffi::OsStrExt;
    let dir = folder(&["train", "test"], &["a", "b"], 1);
    // of files they are taken
    let file = dir.path().join("train/a").join(OsStr::from_bytes(b"\xff\xfe.png"));
    RgbImage::from_pixel(6, 5, Rgb([0, 1, 7])).save_with_format(&file, image::ImageFormat::Png).unwrap();
    assert_eq!(ImageFolder::new(dir.path()).read().unwrap().train.len(), 3);
    fs::write(&file, "broken").unwrap();
    assert!(message(&ImageFolder::new(dir.path())).contains("\u{fffd}"));
    fs::remove_file(file).unwrap();
    fs::create_dir(dir.path().join("train").join(OsStr::from_bytes(b"gr\xfcn"))).unwrap();
    let message = message(&ImageFolder::new(dir.path()));
    assert!(message.contains("gr\u{fffd}n") && message.contains("not UTF-8; rename it"), "{message}");
}
