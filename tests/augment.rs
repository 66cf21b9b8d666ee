//! Pictures changed by chance: what each transform does to a picture, that devices agree, and that training sees them.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;

use devices::devices;
use kiln::{
    data::{Features, Split, Targets},
    nn::{Augment, Fill, Reach, Recipe, Residency, Sampling, verify},
    prelude::*,
};

/// Pictures [channels, height, width] of bytes, from a function of (row, channel, y, x).
fn pictures(rows: usize, [c, h, w]: [usize; 3], value: impl Fn([usize; 4]) -> u8) -> Split {
    let mut bytes = Vec::with_capacity(rows * c * h * w);
    for i in 0..rows * c * h * w {
        bytes.push(value([i / (c * h * w), i / (h * w) % c, i / w % h, i % w]));
    }
    Split::new(Features::Bytes(bytes), [c, h, w], Targets::Input).unwrap()
}

fn changed(augment: &Augment, device: &Device, split: &Split, step: u64) -> Vec<Vec<f32>> {
    let values = augment.apply(device, split, 11, step).unwrap();
    values.chunks(split.item_shape().elements()).map(<[f32]>::to_vec).collect()
}

/// A picture with a different value at each pixel.
fn all_different(h: usize, w: usize) -> Split {
    pictures(40, [1, h, w], |[_, _, y, x]| (y * w + x + 1) as u8)
}

/// The value at (y, x) of [`all_different`], or what is seen beyond its edge.
fn seen(fill: Fill, (h, w): (i32, i32), y: i32, x: i32) -> f32 {
    let inside = (0..h).contains(&y) && (0..w).contains(&x);
    let (y, x) = match fill {
        Fill::Constant if !inside => return 200.0,
        Fill::Reflect => {
            let fold = |i: i32, n: i32| {
                if i < 0 {
                    -1 - i
                } else if i >= n {
                    2 * n - 1 - i
                } else {
                    i
                }
            };
            (fold(y, h), fold(x, w))
        }
        _ => (y.clamp(0, h - 1), x.clamp(0, w - 1)),
    };
    (y * w + x + 1) as f32
}

/// How far (down, right) a picture of [`all_different`] was moved, if it was.
fn moved_by(picture: &[f32], fill: Fill, (h, w): (i32, i32)) -> Option<(i32, i32)> {
    let moves = (-h..=h).flat_map(|down| (-w..=w).map(move |right| (down, right)));
    let pixels =
        |down: i32, right: i32| (0..h * w).map(move |i| seen(fill, (h, w), i / w - down, i % w - right));
    moves.into_iter().find(|&(down, right)| pixels(down, right).eq(picture.iter().copied()))
}

#[test]
fn flips_mirror_half_of_the_pictures() {
    for device in devices() {
        let split = all_different(5, 7);
        for (augment, mirrored) in [
            (Augment { horizontal_flip: true, ..Augment::default() }, [0, 1]),
            (Augment { vertical_flip: true, ..Augment::default() }, [1, 0]),
        ] {
            let mut turned = 0;
            for picture in changed(&augment, device, &split, 0) {
                let at = |y: usize, x: usize| (y * 7 + x + 1) as f32;
                let is = |flip: [usize; 2]| {
                    (0..35).all(|i| {
                        let (y, x) = (i / 7, i % 7);
                        let source =
                            at(if flip[0] == 1 { 4 - y } else { y }, if flip[1] == 1 { 6 - x } else { x });
                        picture[i] == source
                    })
                };
                assert!(is([0, 0]) || is(mirrored), "{device}: {picture:?}");
                turned += usize::from(is(mirrored));
            }
            assert!((8..=32).contains(&turned), "{device}: {turned} of 40 turned");
        }
    }
}

#[test]
fn shifts_and_crops_move_pictures_and_fill_their_edges() {
    for device in devices() {
        let split = all_different(6, 9);
        for fill in [Fill::Constant, Fill::Nearest, Fill::Reflect] {
            let common = Augment { fill, fill_value: 200.0, ..Augment::default() };
            // a third of 6 rows, a third of 9 columns
            let shift =
                Augment { shift: Reach::Both(1.0 / 3.0), sampling: Sampling::Nearest, ..common.clone() };
            // whole pixels are exact in bilinear sampling, too
            let crop = Augment { crop: 2, ..common };
            for (augment, reach) in [(shift, (2, 3)), (crop, (2, 2))] {
                let mut found = Vec::new();
                for picture in changed(&augment, device, &split, 3) {
                    let by = moved_by(&picture, fill, (6, 9));
                    let (down, right) = by.unwrap_or_else(|| panic!("{device}, {fill:?}: {picture:?}"));
                    assert!(down.abs() <= reach.0 && right.abs() <= reach.1, "{down} {right}");
                    found.push((down, right));
                }
                for extreme in [-reach.1, reach.1] {
                    assert!(
                        found.iter().any(|f| f.1 == extreme),
                        "{device}: no shift of {extreme}: {found:?}"
                    );
                }
                found.sort_unstable();
                found.dedup();
                assert!(found.len() > 12, "{found:?}");
            }
        }
    }
}

/// Where the light of a picture is: (right, down) from the middle.
fn centre_of_light(picture: &[f32], side: usize) -> (f32, f32) {
    let total: f32 = picture.iter().sum();
    let middle = (side as f32 - 1.0) / 2.0;
    let mean = |of: fn(usize, usize) -> usize| {
        picture.iter().enumerate().map(|(i, v)| v * (of(i, side) as f32 - middle)).sum::<f32>() / total
    };
    (mean(|i, side| i % side), mean(|i, side| i / side))
}

/// A blot three pixels wide at (right, down) from the middle of 41 pixels a side.
fn blot(right: usize, down: usize) -> Split {
    pictures(
        60,
        [1, 41, 41],
        |[_, _, y, x]| {
            if y.abs_diff(20 + down) <= 1 && x.abs_diff(20 + right) <= 1 { 200 } else { 0 }
        },
    )
}

#[test]
fn rotation_turns_about_the_middle() {
    for device in devices() {
        for (degrees, spread) in [(30.0, 25.0), (180.0, 150.0)] {
            let augment = Augment { rotation: degrees, ..Augment::default() };
            let mut angles = Vec::new();
            for picture in changed(&augment, device, &blot(12, 0), 0) {
                let (right, down) = centre_of_light(&picture, 41);
                assert!((right.hypot(down) - 12.0).abs() < 0.3, "{device}: {right} {down}");
                angles.push(f64::from(down.atan2(right).to_degrees()));
            }
            let (least, most) =
                (angles.iter().copied().fold(0.0, f64::min), angles.iter().copied().fold(0.0, f64::max));
            assert!(least >= -degrees - 1.0 && most <= degrees + 1.0, "{least} {most}");
            assert!(least < -spread && most > spread, "{device}: {least} to {most} degrees");
        }
    }
}

#[test]
fn shear_moves_rows_by_their_height_and_zoom_moves_away_from_the_middle() {
    for device in devices() {
        let augment = Augment { shear: 20.0, ..Augment::default() };
        let mut slants = Vec::new();
        for picture in changed(&augment, device, &blot(0, 12), 0) {
            let (right, down) = centre_of_light(&picture, 41);
            assert!((down - 12.0).abs() < 0.1, "{device}: {down}");
            slants.push((right / 12.0).atan().to_degrees());
        }
        let (least, most) =
            (slants.iter().copied().fold(0.0, f32::min), slants.iter().copied().fold(0.0, f32::max));
        assert!((-20.5..-16.0).contains(&least) && (16.0..20.5).contains(&most), "{least} {most}");

        let augment = Augment { zoom: Reach::Each([0.5, 1.5]), ..Augment::default() };
        let mut factors = Vec::new();
        for picture in changed(&augment, device, &blot(8, 6), 0) {
            let (right, down) = centre_of_light(&picture, 41);
            assert!((right / 8.0 - down / 6.0).abs() < 0.05, "{device}: {right} {down}");
            factors.push(right / 8.0);
        }
        let least = factors.iter().copied().fold(1.0, f32::min);
        let most = factors.iter().copied().fold(1.0, f32::max);
        assert!((0.45..0.6).contains(&least) && (1.4..1.55).contains(&most), "{least} {most}");
    }
}

#[test]
fn brightness_is_a_factor_and_contrast_one_about_the_middle() {
    let grey = pictures(60, [1, 1, 3], |[_, _, _, x]| [60, 100, 160][x]);
    for device in devices() {
        let augment = Augment { brightness: 0.5, ..Augment::default() };
        let mut factors = Vec::new();
        for picture in changed(&augment, device, &grey, 0) {
            factors.push(picture[1] / 100.0);
            assert!((picture[0] - 0.6 * picture[1]).abs() < 0.01, "{device}: {picture:?}");
            assert!((picture[2] - 160.0 * factors[factors.len() - 1]).abs() < 0.05);
        }
        assert!(factors.iter().all(|f| (0.5..=1.5).contains(f)), "{factors:?}");
        assert!(factors.iter().any(|f| *f < 0.6) && factors.iter().any(|f| *f > 1.4));

        let augment = Augment { contrast: 1.0, ..Augment::default() };
        let mut flat = 0;
        for picture in changed(&augment, device, &grey, 0) {
            let factor = (picture[1] - 127.5) / (100.0 - 127.5);
            flat += usize::from(factor < 0.3);
            for (got, from) in picture.iter().zip([60.0, 100.0, 160.0]) {
                let want = (127.5 + (from - 127.5) * factor).clamp(0.0, 255.0);
                assert!((got - want).abs() < 0.05, "{device}: {picture:?}");
            }
        }
        assert!(flat > 2);
    }
}

#[test]
fn saturation_and_hue_keep_greys() {
    let colours = pictures(60, [3, 1, 2], |[_, c, _, x]| if x == 0 { 90 } else { [150, 100, 80][c] });
    let luma = |p: &[f32]| 0.2126 * p[1] + 0.7152 * p[3] + 0.0722 * p[5];
    let mean = |p: &[f32]| (p[1] + p[3] + p[5]) / 3.0;
    for device in devices() {
        let mut all: Vec<f32> = Vec::new();
        let augment = Augment { saturation: 1.0, ..Augment::default() };
        for picture in changed(&augment, device, &colours, 0) {
            assert!([0, 2, 4].iter().all(|&i| (picture[i] - 90.0).abs() < 0.01), "{device}: {picture:?}");
            assert!(
                (luma(&picture) - 0.2126 * 150.0 - 0.7152 * 100.0 - 0.0722 * 80.0).abs() < 0.02,
                "{picture:?}"
            );
            all.push((picture[1] - picture[3]) / 50.0);
        }
        assert!(
            all.iter().any(|f| *f < 0.2)
                && all.iter().any(|f| *f > 1.8)
                && all.iter().all(|f| (0.0..=2.0).contains(f))
        );

        let augment = Augment { hue: 0.5, ..Augment::default() };
        let (mut warm, mut cold) = (0, 0);
        for picture in changed(&augment, device, &colours, 0) {
            assert!([0, 2, 4].iter().all(|&i| (picture[i] - 90.0).abs() < 0.01), "{device}: {picture:?}");
            assert!((mean(&picture) - 110.0).abs() < 0.02, "{picture:?}");
            let away = [1, 3, 5].iter().map(|&i| (picture[i] - 110.0).powi(2)).sum::<f32>().sqrt();
            assert!((away - (40.0f32.powi(2) + 10.0f32.powi(2) + 30.0f32.powi(2)).sqrt()).abs() < 0.05);
            warm += usize::from(picture[1] > picture[5]);
            cold += usize::from(picture[1] < picture[5]);
        }
        assert!(warm > 10 && cold > 10, "{warm} {cold}");
    }
}

#[test]
fn cutout_covers_a_square() {
    let white = pictures(60, [2, 9, 12], |_| 255);
    for device in devices() {
        let augment = Augment { cutout: 4, fill_value: 7.0, ..Augment::default() };
        let mut whole = 0;
        for picture in changed(&augment, device, &white, 0) {
            let covered = |i: &usize| picture[*i] == 7.0;
            let first: Vec<usize> = (0..108).filter(covered).collect();
            let second: Vec<usize> = (108..216).filter(covered).map(|i| i - 108).collect();
            assert_eq!(first, second, "{device}: the channels differ");
            assert!(picture.iter().all(|v| *v == 7.0 || *v == 255.0));
            let (rows, columns) = (first.iter().map(|i| i / 12), first.iter().map(|i| i % 12));
            let side = |values: &mut dyn Iterator<Item = usize>| {
                let all: Vec<usize> = values.collect();
                all.iter().max().unwrap() - all.iter().min().unwrap() + 1
            };
            let (h, w) = (side(&mut rows.into_iter()), side(&mut columns.into_iter()));
            assert!(h <= 4 && w <= 4 && first.len() == h * w, "{device}: {h} x {w}, {} pixels", first.len());
            whole += usize::from(h * w == 16);
        }
        assert!((10..60).contains(&whole), "{whole}");
    }
}

#[test]
fn mixup_mixes_rows_counted_from_both_ends() {
    let flat = pictures(9, [1, 2, 2], |[row, ..]| (20 * row) as u8);
    for device in devices() {
        let augment = Augment { mixup: 1.0, ..Augment::default() };
        let rows = changed(&augment, device, &flat, 0);
        for (r, row) in rows.iter().enumerate() {
            assert!(row.iter().all(|v| (v - row[0]).abs() < 1e-3), "{row:?}");
            let (own, other) = (20.0 * r as f32, 20.0 * (8 - r) as f32);
            let share = if r == 4 { 1.0 } else { (row[0] - other) / (own - other) };
            assert!((0.499..=1.001).contains(&share), "{device}: {share} of row {r}");
        }
        assert!(
            rows.iter().enumerate().filter(|(r, row)| (row[0] - 20.0 * *r as f32).abs() > 2.0).count() > 3
        );
    }
}

/// Everything at once, as far as a number of channels allows.
fn everything(channels: usize) -> Augment {
    let hue = if channels == 3 { 0.2 } else { 0.0 };
    Augment {
        rotation: 40.0,
        shift: Reach::Both(0.2),
        shear: 20.0,
        zoom: Reach::Both(0.4),
        crop: 2,
        horizontal_flip: true,
        vertical_flip: true,
        brightness: 0.4,
        contrast: 0.4,
        saturation: hue,
        hue,
        cutout: 6,
        mixup: 0.4,
        ..Augment::default()
    }
}

#[test]
fn devices_make_the_same_pictures() {
    let mut sets = vec![
        Dataset::digits(1, 64, 1).unwrap().train,
        pictures(33, [3, 32, 32], |[r, c, y, x]| ((r * 31 + c * 77 + y * y + x * 13) % 256) as u8),
    ];
    match std::env::var_os("KILN_DATA") {
        Some(folder) => {
            let clothes = Dataset::fashion_mnist(std::path::PathBuf::from(folder)).unwrap().test;
            sets.push(clothes.limit(256).unwrap());
        }
        None => println!("skipped: KILN_DATA is not set"),
    }
    let cpu = Device::cpu();
    for device in devices().iter().skip(1) {
        let mut worst = 0.0f32;
        for split in &sets {
            for fill in [Fill::Constant, Fill::Nearest, Fill::Reflect] {
                for sampling in [Sampling::Bilinear, Sampling::Nearest] {
                    let augment = Augment { fill, sampling, ..everything(split.item_shape()[0]) };
                    for step in 0..3 {
                        let want = augment.apply(&cpu, split, 5, step).unwrap();
                        let got = augment.apply(device, split, 5, step).unwrap();
                        worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
                        assert!(worst <= 1.0, "{device}: {worst} grey levels apart, {augment:?}");
                        // and they are no longer what they were, nor what they are in the next step
                        assert_ne!(want, augment.apply(&cpu, split, 5, step + 1).unwrap());
                    }
                }
            }
        }
        println!("{device}: at most {worst} grey levels apart");
    }
}

/// A small network on drawn digits, changed in every way.
fn trainer(device: &Device, residency: Residency) -> Trainer {
    let model = Sequential::new(Shape::image(1, 28, 28))
        .add(Conv2d::new(4, 3).activation(Relu))
        .add(MaxPool2d::new(4))
        .add(Flatten)
        .add(Dense::new(10));
    let trainer = Trainer::new(device, model, Adam::new(0.004), Loss::CrossEntropy).unwrap();
    trainer.with_residency(residency).with_augment(everything(1)).unwrap()
}

#[test]
fn streamed_and_resident_rows_are_changed_alike() {
    let digits = Dataset::digits(1, 330, 50).unwrap();
    for device in devices() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for (name, residency) in [("a", Residency::Resident), ("b", Residency::Streamed)] {
            let mut trainer = trainer(device, residency);
            trainer.fit(&digits.train, Fit { epochs: 2, batch_size: 32, ..Fit::default() }).unwrap();
            let path = folder.path().join(name);
            trainer.save(&path).unwrap();
            files.push(std::fs::read(path).unwrap());
        }
        assert!(files[0] == files[1], "{device}: the models differ");
    }
}

#[test]
fn only_training_sees_changed_pictures_and_the_loss_of_mixed_rows_is_mixed() {
    let digits = Dataset::digits(1, 64, 50).unwrap();
    for device in devices() {
        let mut changed = trainer(device, Residency::Auto);
        let plain = trainer(device, Residency::Auto).with_augment(Augment::default()).unwrap();
        assert!(plain.augment().is_none());
        assert_eq!(changed.evaluate(&digits.test).unwrap(), plain.evaluate(&digits.test).unwrap());
        // with weights of 0 every class is as likely, and each part of a mixture costs ln 10
        let weights = vec![0.0; changed.weights().unwrap().len()];
        changed.set_weights(&weights).unwrap();
        let scores = changed.train_on_batch(&digits.train).unwrap();
        assert!((scores.loss - 10f64.ln()).abs() < 1e-5, "{device}: {}", scores.loss);
    }
}

/// Rows of numbers as targets are mixed with those of the same rows as labels are.
#[test]
fn targets_of_numbers_are_mixed_as_labels_are() {
    let labels = Dataset::digits(1, 64, 1).unwrap().train;
    let hot = labels.targets().clone().one_hot();
    let numbers = labels.clone().with_targets(hot).unwrap();
    for device in devices() {
        let mixed = |rows: &Split| {
            let augment = Augment { mixup: 1.0, ..Augment::default() };
            let mut trainer = trainer(device, Residency::Auto).with_augment(augment).unwrap();
            (0..3).map(|_| trainer.train_on_batch(rows).unwrap().loss).collect::<Vec<_>>()
        };
        let (a, b) = (mixed(&labels), mixed(&numbers));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4), "{device}: {a:?} {b:?}");
    }
}

#[test]
fn training_steps_on_changed_pictures_pass_verification() {
    let text = Recipe::builtin_text("digits-cnn").unwrap();
    let text = format!(
        "{}\n\n[augment]\nrotation = 30\nzoom = 0.3\nshift = 0.1\nmixup = 0.4\ncutout = 5\nhorizontal_flip = true\ncontrast = 0.3\n",
        text.replace("units = 64", "units = 8").replace("filters = 64", "filters = 8")
    );
    let recipe = Recipe::parse(&text, "augmented digits").unwrap();
    for device in devices() {
        let found = verify(&recipe, device, 5, 2, 3).unwrap();
        let failed = found.launches.iter().filter(|l| !l.passed).map(|l| format!("{} {}", l.kernel, l.at));
        let wrong = found.tensors.iter().filter(|t| !t.passed).map(|t| format!("{} {}", t.what, t.at));
        let failed: Vec<String> = failed.chain(wrong).collect();
        assert!(failed.is_empty(), "{device}: {failed:#?}");
        assert!(found.launches.iter().any(|l| l.kernel.starts_with("augment_draw")));
    }
}

#[test]
fn what_cannot_be_changed_is_refused() {
    let table = Sequential::new([2]).add(Dense::new(1));
    let trainer = Trainer::new(&Device::cpu(), table, Adam::default(), Loss::MeanSquaredError).unwrap();
    let message = trainer.with_augment(everything(1)).err().unwrap().to_string();
    assert!(message.contains("changes pictures [channels, height, width], but items are [2]"), "{message}");
    let message = everything(3).apply(&Device::cpu(), &all_different(3, 3), 0, 0).unwrap_err().to_string();
    assert!(
        message.contains("saturation and hue are of red, green and blue") && message.contains("1 channel"),
        "{message}"
    );
    for wide in [Augment { crop: 29, ..Augment::default() }, Augment { cutout: 40, ..Augment::default() }] {
        let message = wide.check_for(&Shape::image(1, 28, 30)).unwrap_err().to_string();
        assert!(message.contains("up to the smaller side of a picture"), "{message}");
    }
    let text = Recipe::builtin_text("mnist-cnn").unwrap();
    let line = text.lines().count() + 1;
    for (setting, want) in [
        ("rotation = 200", "rotation must be from 0 to 180 degrees, is 200"),
        ("rotate = 20", "unknown field `rotate`"),
        ("zoom = [1, 2, 3]", "expected a number, or a list of two"),
        ("fill = \"wrap\"", "unknown variant `wrap`"),
    ] {
        let message =
            Recipe::parse(&format!("{text}\n[augment]\n{setting}\n"), "my.toml").unwrap_err().to_string();
        assert!(message.contains(want), "{message}");
        assert!(
            (line..line + 4).any(|line| message.starts_with(&format!("my.toml, line {line}:"))),
            "{message}"
        );
    }
}
