//! Data of the user's own: rows that are read when they are needed, image folders, tables; on the CPU and the adapter.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;
#[path = "common/program.rs"]
#[allow(dead_code)]
mod program;
#[path = "common/training.rs"]
#[allow(dead_code)]
mod training;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use devices::{data_dir, devices};
use kiln::{
    data::{DataError, ImageFolder, RowKind, RowMut, Rows},
    nn::{NnError, Residency},
    prelude::*,
};
use training::{model_bytes as bytes, timeless};

/// Pictures that are drawn when they are needed: a bright square whose quarter is the class. 12 KiB each.
#[derive(Clone, Debug)]
struct Squares {
    rows: usize,
    /// Cannot be read.
    bad: usize,
    reads: Arc<AtomicUsize>,
}

impl Squares {
    fn new(rows: usize, bad: usize) -> Self {
        Self { rows, bad, reads: Arc::default() }
    }

    fn targets(&self) -> Targets {
        Targets::Classes { labels: (0..self.rows as u32).map(|row| row * 7 % 4).collect(), classes: 4 }
    }

    fn split(&self) -> Split {
        Split::from_rows(self.clone(), self.targets()).unwrap()
    }
}

impl Rows for Squares {
    fn len(&self) -> usize {
        self.rows
    }

    fn shape(&self) -> Shape {
        Shape::image(3, 64, 64)
    }

    fn kind(&self) -> RowKind {
        RowKind::Bytes
    }

    fn read(&self, row: usize, to: RowMut<'_>) -> Result<(), DataError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if row == self.bad {
            return Err(DataError::other("the database is down"));
        }
        let RowMut::Bytes(to) = to else { return Err(DataError::other("bytes are asked for")) };
        let class = row * 7 % 4;
        for (i, pixel) in to.iter_mut().enumerate() {
            let (y, x) = (i / 64 % 64 / 32, i % 64 / 32);
            *pixel = (if y * 2 + x == class { 150 } else { 20 }) + (row + i) as u8 % 50;
        }
        Ok(())
    }
}

fn trainer(device: &Device, residency: Residency) -> Trainer {
    let model = Sequential::new(Shape::image(3, 64, 64))
        .add(AvgPool2d::new(8))
        .add(Flatten)
        .add(Dropout::new(0.2))
        .add(Dense::new(4));
    Trainer::new(device, model, Adam::new(0.01), Loss::CrossEntropy).unwrap().with_residency(residency)
}

#[test]
fn rows_train_to_the_same_bits_wherever_they_lie() {
    // three windows of 4 MiB and a part of one, the last batch smaller
    let rows = Squares::new(1_107, usize::MAX);
    let on_demand = rows.split();
    let in_memory = on_demand.in_memory().unwrap().into_owned();
    let test = Squares::new(341, usize::MAX).split();
    let folder = tempfile::tempdir().unwrap();
    let weights: Vec<f32> = (0..1_107).map(|i| (i % 3) as f32).collect();
    for device in devices() {
        let run = |train: &Split, residency: Residency| {
            let mut trainer = trainer(device, residency);
            let fit = Fit {
                epochs: 2,
                batch_size: 32,
                validation: Some(&test),
                sample_weights: Some(&weights),
                ..Fit::default()
            };
            let history = trainer.fit(train, fit).unwrap();
            let waited: f64 = history.epochs.iter().map(|epoch| epoch.data_wait_seconds).sum();
            assert_eq!(waited > 0.0, residency == Residency::Streamed, "{device}: {waited}");
            assert!(history.epochs.iter().all(|epoch| epoch.data_wait_seconds <= epoch.seconds));
            let outputs = trainer.predict_split(&test).unwrap();
            (timeless(&history.epochs), outputs, bytes(&trainer, folder.path()))
        };
        let want = run(&in_memory, Residency::Resident);
        assert!(want.0[1].validation.unwrap().accuracy > Some(0.9), "{:?}", want.0[1]);
        for (train, residency) in [
            (&in_memory, Residency::Streamed),
            (&on_demand, Residency::Resident),
            (&on_demand, Residency::Streamed),
        ] {
            let got = run(train, residency);
            assert_eq!(got.0, want.0, "{device}, {residency:?}");
            assert!(got.1 == want.1 && got.2 == want.2, "{device}, {residency:?}: other bits");
        }
        // where there is room they are read once
        rows.reads.store(0, Ordering::Relaxed);
        run(&on_demand, Residency::Auto);
        assert_eq!(rows.reads.load(Ordering::Relaxed), 1_107, "{device}");
    }
}

#[test]
fn what_cannot_be_read_ends_a_fit_with_its_name() {
    let bad = Squares::new(900, 700).split();
    let sound = Squares::new(900, usize::MAX).split();
    let want = "row 700: the database is down";
    for device in devices() {
        for residency in [Residency::Auto, Residency::Resident, Residency::Streamed] {
            let fit = || Fit { epochs: 1, batch_size: 32, ..Fit::default() };
            let error = trainer(device, residency).fit(&bad, fit()).unwrap_err();
            assert_eq!(error.to_string(), want, "{device}, {residency:?}");
            let validated = Fit { validation: Some(&bad), ..fit() };
            let error = trainer(device, residency).fit(&sound, validated).unwrap_err();
            assert_eq!(error.to_string(), want, "{device}, {residency:?}");
            let error = trainer(device, residency).predict_split(&bad).unwrap_err();
            assert_eq!(error.to_string(), want, "{device}, {residency:?}");
        }
    }
}

/// Stops after a few steps.
struct Stop;

impl Callback for Stop {
    fn on_step_end(&mut self, _: &mut Trainer, _: usize, steps: usize) -> Result<Flow, NnError> {
        Ok(if steps == 3 { Flow::Stop } else { Flow::Continue })
    }
}

#[test]
fn a_fit_that_ends_early_reads_no_more_than_a_few_windows() {
    // 3 GiB, if all were read
    let rows = Squares::new(250_000, usize::MAX);
    let split = rows.split();
    let mut trainer = trainer(&Device::cpu(), Residency::Auto);
    let mut stop = Stop;
    let fit = Fit { batch_size: 32, callbacks: vec![&mut stop], ..Fit::default() };
    let history = trainer.fit(&split, fit).unwrap();
    assert!(history.stopped.is_some() && trainer.steps() == 3);
    // a window has 320 of them
    let reads = rows.reads.load(Ordering::Relaxed);
    assert!((320..=7 * 320).contains(&reads), "{reads}");
}

/// A folder of 100 x 100 images of two classes, by their colour.
fn fruit(root: &Path, rows: u32) {
    for (part, rows) in [("train", rows), ("test", rows / 2)] {
        for (class, colour) in [("apple", [200, 30, 40]), ("pear", [150, 200, 40])] {
            let folder = root.join(part).join(class);
            fs::create_dir_all(&folder).unwrap();
            for i in 0..rows {
                let image = image::RgbImage::from_fn(100, 100, |x, y| {
                    let far = (x as i64 - 50).pow(2) + (y as i64 - 50).pow(2) > (30 + i as i64).pow(2);
                    image::Rgb(if far { [255; 3] } else { colour })
                });
                image.save(folder.join(format!("{i}.{}", if i % 2 == 0 { "png" } else { "jpg" }))).unwrap();
            }
        }
    }
}

#[test]
fn folder_cnn_takes_any_folder() {
    let dir = tempfile::tempdir().unwrap();
    fruit(dir.path(), 8);
    let mut recipe = Recipe::open("folder-cnn").unwrap();
    assert!(recipe.is_guessed() && recipe.data_form() == (vec![3, 100, 100], 10));
    let data = recipe.dataset(&DataDir::new(dir.path())).unwrap();
    recipe.resolve(&data).unwrap();
    assert!(!recipe.is_guessed());
    assert_eq!(recipe.data_form(), (vec![3, 100, 100], 2));
    // 98, 49, 47, 23: 64 * 23 * 23 inputs of the first dense layer
    let parameters = recipe.model().unwrap().summary().unwrap().parameters;
    assert_eq!(parameters, 896 + 18_496 + (33_856 * 100 + 100) + 20_200 + 402);
    let mut trainer = recipe.trainer(&Device::cpu(), &data.classes, 1).unwrap();
    let fit = Fit { epochs: 6, batch_size: 4, ..Fit::default() };
    let losses = trainer.fit(&data.train, fit).unwrap().figures("loss");
    assert!(losses[5] < losses[0], "{losses:?}");
    assert!(trainer.evaluate(&data.test).unwrap().accuracy.is_some());
    let path = dir.path().join("model.safetensors");
    trainer.save(&path).unwrap();
    let file = kiln::nn::ModelFile::read(&path).unwrap();
    assert_eq!(file.classes().unwrap(), ["apple", "pear"]);

    // a recipe written down and read again knows which layer follows the classes
    let text = serde_json::to_string(&recipe).unwrap();
    let mut again: Recipe = serde_json::from_str(&text).unwrap();
    again.resolve(&data).unwrap();
    assert_eq!(again, recipe);
}

#[test]
fn folder_cnn_learns_photographs() {
    let Some(dir) = data_dir().map(|dir| dir.join("cifar10-folder")).filter(|dir| dir.is_dir()) else {
        println!("skipped: there is no cifar10-folder");
        return;
    };
    for device in devices() {
        let mut recipe = Recipe::open("folder-cnn").unwrap();
        let data = recipe.dataset(&DataDir::new(&dir)).unwrap();
        recipe.resolve(&data).unwrap();
        assert_eq!(recipe.data_form(), (vec![3, 32, 32], 10));
        assert_eq!((data.train.len(), data.test.len(), data.remarks.len()), (5_000, 1_000, 0));
        let mut trainer = recipe.trainer(device, &data.classes, 1).unwrap();
        let train = data.train.limit(320).unwrap();
        let history = trainer.fit(&train, Fit { epochs: 3, batch_size: 32, ..Fit::default() }).unwrap();
        let losses = history.figures("loss");
        assert!(losses[2] < losses[0] && losses[2] < Some(2.35), "{device}: {losses:?}");
        // every transform at once
        let every = "rotation = 10, shift = 0.1, shear = 10, zoom = 0.2, crop = 2, horizontal_flip = true, vertical_flip = true, \
                     brightness = 0.2, contrast = 0.2, saturation = 0.2, hue = 0.05, cutout = 8, mixup = 0.2";
        let mut trainer = recipe.trainer(device, &data.classes, 1).unwrap();
        trainer = trainer.with_augment(every.parse().unwrap()).unwrap();
        let history = trainer.fit(&train, Fit { epochs: 3, batch_size: 32, ..Fit::default() }).unwrap();
        let losses = history.figures("loss");
        assert!(losses[2] < losses[0] && losses[2] < Some(2.4), "{device}: {losses:?}");
        let on_demand = ImageFolder::new(&dir).memory(0).read().unwrap();
        let test = on_demand.test.limit(100).unwrap();
        assert!(trainer.evaluate(&test).unwrap().loss.is_finite());
    }
}

/// The whole recipe, rotation, shear, zoom and flips included: ten classes of 500 photographs each.
#[test]
fn folder_cnn_tells_photographs_apart() {
    let Some(dir) = data_dir().map(|dir| dir.join("cifar10-folder")).filter(|dir| dir.is_dir()) else {
        println!("skipped: there is no cifar10-folder");
        return;
    };
    let mut recipe = Recipe::open("folder-cnn").unwrap();
    let data = recipe.dataset(&DataDir::new(&dir)).unwrap();
    recipe.resolve(&data).unwrap();
    assert!(recipe.augment.is_some());
    let mut trainer = recipe.trainer(&Device::cpu(), &data.classes, 42).unwrap();
    let fit = Fit { epochs: recipe.epochs, batch_size: recipe.batch_size, ..Fit::default() };
    trainer.fit(&data.train, fit).unwrap();
    let accuracy = trainer.evaluate(&data.test).unwrap().accuracy.unwrap();
    assert!(recipe.epochs <= 10 && accuracy >= 0.45, "{accuracy} after {} epochs", recipe.epochs);
}

#[test]
fn recipes_of_own_data_are_checked() {
    let text = Recipe::builtin_text("folder-cnn").unwrap();
    let line = |text: &str, needle: &str| text.lines().position(|l| l.starts_with(needle)).unwrap() + 1;
    for (from, to, at, want) in [
        ("test_split = 0.2", "test_split = 1.2", "test_split", "between 0 and 1, is 1.2"),
        ("test_split = 0.2", "size = [100]", "size = [", "invalid length 1"),
        ("test_split = 0.2", "size = [0, 100]", "size = [0", "at least 1, is [0, 100]"),
        ("test_split = 0.2", "unreadable = \"ignore\"", "unreadable = \"ig", "unknown variant `ignore`"),
        ("name = \"folder\"", "name = \"mnist\"", "test_split =", "takes no test_split; it is for folder"),
        ("units = \"classes\"", "units = \"class\"", "units = \"class\"", "expected a whole number"),
    ] {
        let text = text.replacen(from, to, 1);
        let error = Recipe::parse(&text, "my.toml").unwrap_err().to_string();
        assert!(error.contains(want), "{to}: {error}");
        let at = line(&text, at);
        let near = [at, at - 1].map(|at| format!("my.toml, line {at}:"));
        assert!(near.iter().any(|start| error.starts_with(start)), "{error} (line {at})");
    }
    let line = Recipe::builtin_text("linear").unwrap().replace("units = 1", "units = \"classes\"");
    let error = Recipe::parse(&line, "my.toml").unwrap_err().to_string();
    assert!(error.contains("the data have no classes"), "{error}");
    // as many as a known data set has
    let digits = Recipe::builtin_text("mnist-cnn").unwrap().replace("units = 10", "units = \"classes\"");
    assert_eq!(Recipe::parse(&digits, "d").unwrap().model().unwrap().summary().unwrap().parameters, 93_322);
}

/// A table of three classes by two numbers and a text.
fn flowers() -> String {
    let mut text = "id,length,width,place,species\n".to_string();
    for i in 0..120 {
        let (class, i) = (i % 3, f64::from(i));
        let length = 1.0 + f64::from(class) + (i * 0.7).sin() * 0.3;
        let place = if class == 2 { "wood" } else { "field" };
        let species = ["setosa", "versicolor", "virginica"][class as usize];
        text += &format!("{i},{length:.3},{:.3},{place},{species}\n", 2.0 - length / 3.0);
    }
    text
}

const TABLE: &str = r#"
name = "flowers"
epochs = 30
batch_size = 8
loss = "cross_entropy"

[data]
name = "table"
label = "species"
ignore = ["id"]
test_split = 0.25

[optimizer]
type = "adam"
learning_rate = 0.05

[[layers]]
type = "dense"
units = 8
activation = "relu"

[[layers]]
type = "dense"
units = "classes"
"#;

#[test]
fn tables_are_learned() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("flowers.csv");
    fs::write(&file, flowers()).unwrap();
    let mut recipe = Recipe::parse(TABLE, "flowers.toml").unwrap();
    let data = recipe.dataset(&DataDir::new(&file)).unwrap();
    recipe.resolve(&data).unwrap();
    assert_eq!(recipe.data_form(), (vec![4], 3));
    assert_eq!((data.train.len(), data.test.len()), (90, 30));
    for device in devices() {
        let mut trainer = recipe.trainer(device, &data.classes, 1).unwrap();
        let fit = Fit { epochs: recipe.epochs, batch_size: recipe.batch_size, ..Fit::default() };
        trainer.fit(&data.train, fit).unwrap();
        let scores = trainer.evaluate(&data.test).unwrap();
        assert!(scores.accuracy > Some(0.95), "{device}: {scores:?}");
    }
    for (from, to, want) in [
        ("label = \"species\"\n", "", "a table needs label"),
        ("test_split = 0.25\n", "", "either test_split"),
        ("test_split", "test_path = \"t.csv\"\ntest_split", "either test_split"),
        ("test_split", "size = [3, 3]\ntest_split", "takes no size; it is for folder"),
        ("test_split", "delimiter = \"\u{3bb}\"\ntest_split", "one character of ASCII"),
        ("test_split", "task = \"regression\"\ntest_split", "the data have no classes"),
    ] {
        let text = TABLE.replacen(from, to, 1);
        let error = Recipe::parse(&text, "my.toml").unwrap_err().to_string();
        assert!(error.starts_with("my.toml, line ") && error.contains(want), "{to}: {error}");
    }
    // numbers where classes are wanted
    let mut numbers = Recipe::parse(&TABLE.replace("\"species\"", "\"width\""), "my.toml").unwrap();
    let data = numbers.dataset(&DataDir::new(&file)).unwrap();
    let error = numbers.resolve(&data).unwrap_err().to_string();
    assert!(error.contains("the data have no classes"), "{error}");
}

/// Runs the program in a folder; its status and what it says.
fn kiln(here: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = program::kiln(here, arguments).env_remove("KILN_DATA").output().unwrap();
    let (out, err) = program::texts(&output);
    (output.status.code(), out + &err)
}

#[test]
fn a_model_knows_the_columns_and_classes_that_it_was_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let table = |colours: [&str; 2], names: [&str; 2]| {
        let row = |i: usize| format!("{},{},{}\n", 150 + i % 40, colours[i % 2], names[i % 2]);
        (0..40).fold("height,colour,kind\n".to_owned(), |text, i| text + &row(i))
    };
    std::fs::write(here.join("a.csv"), table(["green", "red"], ["apple", "pear"])).unwrap();
    std::fs::write(here.join("b.csv"), table(["blue", "red"], ["apple", "pear"])).unwrap();
    std::fs::write(here.join("c.csv"), table(["green", "red"], ["yak", "zebra"])).unwrap();
    let recipe = "name = \"fruit\"\nepochs = 3\nbatch_size = 8\nloss = \"cross_entropy\"\n\
                  [data]\nname = \"table\"\nlabel = \"kind\"\ntest_split = 0.25\n\
                  [preprocess]\nnormalize = \"standardize\"\n\
                  [optimizer]\ntype = \"adam\"\nlearning_rate = 0.1\n\
                  [[layers]]\ntype = \"dense\"\nunits = \"classes\"\n";
    std::fs::write(here.join("fruit.toml"), recipe).unwrap();
    let train = ["train", "fruit.toml", "--device", "cpu", "--quiet", "--out", "run"];
    let (status, said) = kiln(here, &train);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("a table of your own: name its file with --data FILE"), "{said}");
    let (status, said) = kiln(here, &[&train[..], &["--data", "a.csv"]].concat());
    assert_eq!(status, Some(0), "{said}");
    let eval = |data: &str| {
        kiln(
            here,
            &["eval", "run/model.safetensors", "--recipe", "fruit.toml", "--device", "cpu", "--data", data],
        )
    };
    // new rows, in another order and without labels
    std::fs::write(here.join("new.csv"), "colour,height\nred,160\ngreen,170\nred,180\n").unwrap();
    let (status, said) = kiln(here, &["predict", "run/model.safetensors", "new.csv", "--device", "cpu"]);
    assert_eq!(status, Some(0), "{said}");
    for (row, class) in ["pear", "apple", "pear"].into_iter().enumerate() {
        let line = said.lines().find(|line| line.contains(&format!("new.csv row {row} "))).unwrap_or(&said);
        assert!(line.split_whitespace().nth(3) == Some(class), "{said}");
    }
    std::fs::write(here.join("new.csv"), "height\n160\n").unwrap();
    let (status, said) = kiln(here, &["predict", "run/model.safetensors", "new.csv", "--device", "cpu"]);
    assert!(
        status == Some(1) && said.contains("has no column \"colour=green\", which the network"),
        "{said}"
    );
    let (status, said) = eval("a.csv");
    assert_eq!(status, Some(0), "{said}");
    for (data, want) in [
        (
            "b.csv",
            "other columns than the model: height, colour=blue, colour=red instead of height, colour=green",
        ),
        ("c.csv", "other classes than the model: yak, zebra instead of apple, pear"),
    ] {
        let (status, said) = eval(data);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(want), "{said}");
        let (_, said) = kiln(here, &["report", "run", "--data", data]);
        let page = std::fs::read_to_string(here.join("run/report.html")).unwrap_or_default();
        assert!(said.contains(want) || page.contains(&want[..24]), "{said}");
    }
}

/// A copy of a table or of a folder of classes, with a row more.
fn grow(from: &Path, to: &Path) {
    if from.is_file() {
        let text = fs::read_to_string(from).unwrap();
        let last = text.lines().last().unwrap();
        return fs::write(to, format!("{text}{last}\n")).unwrap();
    }
    for class in fs::read_dir(from).unwrap().map(|class| class.unwrap().path()) {
        let copy = to.join(class.file_name().unwrap());
        fs::create_dir_all(&copy).unwrap();
        for image in fs::read_dir(&class).unwrap().map(|image| image.unwrap().path()) {
            fs::copy(&image, copy.join(image.file_name().unwrap())).unwrap();
            fs::copy(&image, copy.join("more.png")).unwrap();
        }
    }
}

/// What a network was not trained on is told from what it was by the model file alone.
#[test]
fn a_model_is_evaluated_on_the_rows_that_its_training_has_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fruit(&here.join("fruit"), 10);
    fs::rename(here.join("fruit/train"), here.join("images")).unwrap();
    fs::write(here.join("flowers.csv"), flowers()).unwrap();
    fs::write(here.join("flowers.toml"), TABLE.replace("epochs = 30", "epochs = 1")).unwrap();
    let text = Recipe::builtin_text("folder-cnn").unwrap().replace("test_split = 0.2", "test_split = 0.35");
    assert!(text.contains("test_split = 0.35"));
    fs::write(here.join("fruit.toml"), text).unwrap();
    for (recipe, data, run) in [("fruit.toml", "images", "a"), ("flowers.toml", "flowers.csv", "b")] {
        let line =
            ["train", recipe, "--data", data, "--epochs", "1", "--device", "cpu", "--quiet", "--out", run];
        let (status, said) = kiln(here, &[&line[..5], &line[5..]].concat());
        assert_eq!(status, Some(0), "{said}");
        let record: serde_json::Value =
            serde_json::from_slice(&fs::read(here.join(run).join("run.json")).unwrap()).unwrap();
        // rows that came later: others are drawn to be tested on
        let more = format!("more-{data}");
        let eval = |data: &str| {
            kiln(here, &["eval", &format!("{run}/model.safetensors"), "--data", data, "--device", "cpu"])
        };
        grow(&here.join(data), &here.join(&more));
        for (data, is_other) in [(data, false), (&*more, true)] {
            let (status, said) = eval(data);
            assert_eq!(status, Some(0), "{said}");
            let warned =
                said.contains("these are not the test rows that") && said.contains("run.json tells of");
            assert_eq!(warned, is_other, "{data}: {said}");
        }
        let model = format!("{run}/model.safetensors");
        let (status, said) = kiln(here, &["eval", &model, "--device", "cpu"]);
        assert!(
            status == Some(1) && said.contains("of your own: name it") && said.contains("run.json names "),
            "{said}"
        );
        // it may have been moved
        let model = format!("{data}.safetensors");
        fs::rename(here.join(run).join("model.safetensors"), here.join(&model)).unwrap();
        let output = program::kiln(here, &["eval", &model, "--data", data, "--device", "cpu", "--json"])
            .output()
            .unwrap();
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["test_loss"], record["result"]["test_loss"], "{recipe}: {told}, {record}");
        let bytes = fs::read(here.join(&model)).unwrap();
        let header = String::from_utf8_lossy(&bytes[..2048.min(bytes.len())]).into_owned();
        assert!(
            !header.contains(&*here.to_string_lossy()),
            "where the data lie is nobody's business: {header}"
        );
        // where data sets lie there are none of one's own
        fs::create_dir_all(here.join("sets/cifar10")).unwrap();
        for sets in [None, Some(here.join("sets"))] {
            let mut eval = program::kiln(here, &["eval", &model, "--device", "cpu"]);
            eval.env_remove("KILN_DATA").envs(sets.map(|sets| ("KILN_DATA", sets)));
            let output = eval.output().unwrap();
            let said = program::texts(&output).1;
            assert!(output.status.code() == Some(1) && said.contains("of your own: name it"), "{said}");
        }
    }
}

#[test]
fn what_was_measured_is_taken_from_the_model_also_with_its_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let text = Recipe::builtin_text("digits-cnn").unwrap();
    let text = text.replace("scale = \"1/255\"", "normalize = \"standardize\"");
    let text = text.replace("train = 12000", "train = 100").replace("test = 2000", "test = 40");
    assert!(text.contains("normalize") && text.contains("train = 100"));
    std::fs::write(here.join("d.toml"), text).unwrap();
    let (status, said) =
        kiln(here, &["train", "d.toml", "--epochs", "1", "--device", "cpu", "--quiet", "--out", "run"]);
    assert_eq!(status, Some(0), "{said}");
    let (status, said) =
        kiln(here, &["eval", "run/model.safetensors", "--recipe", "d.toml", "--device", "cpu"]);
    assert_eq!(status, Some(0), "{said}");
}
