//! Clothes: which are taken for which, and pictures of the mistakes that the network is surest of.
//!
//! `cargo run --release --example 06_fashion` (Fashion-MNIST from KILN_DATA or the user's cache folder, else downloaded)

use kiln::{
    data::fetch,
    nn::metrics::{Classification, classification},
    plot::{Cell, Figure, Grid, Heatmap, Picture, Pixels, Tone},
    prelude::*,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::best()?;
    let dir = DataDir::from_env();
    fetch("fashion-mnist", &dir).map_err(|error| error.to_string())?;
    let data = Dataset::fashion_mnist(dir).map_err(|error| error.to_string())?;
    let model = Sequential::new(Shape::image(1, 28, 28))
        .add(Conv2d::new(32, 3).activation(Relu))
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(64, 3).activation(Relu))
        .add(MaxPool2d::new(2))
        .add(Flatten)
        .add(Dropout::new(0.3))
        .add(Dense::new(128).activation(Relu))
        .add(Dense::new(10));
    let mut trainer = Trainer::new(&device, model, Adam::new(0.002), Loss::CrossEntropy)?;
    let mut tell = OnEpoch(|epoch| println!("epoch {}: training loss {:.3}", epoch.epoch, epoch.train.loss));
    let fit = Fit { epochs: 4, batch_size: 64, callbacks: vec![&mut tell], ..Fit::default() };
    trainer.fit(&data.train.clone().limit(20_000)?, fit)?;

    let probabilities: Vec<f32> = trainer.predict_split(&data.test)?.into_iter().collect();
    let (Targets::Classes { labels, .. }, Features::Bytes(pixels)) =
        (data.test.targets(), data.test.features())
    else {
        return Err("pictures with classes were expected".into());
    };
    let scores = classification(&probabilities, labels, &data.classes)?;
    print_classes(&scores, &data.classes);
    let map = Heatmap::confusion("Fashion-MNIST, test rows", &data.classes, &scores.confusion)?;
    let path = std::env::temp_dir().join("kiln-example-confusion.png");
    map.save_png(&path, Pixels::Times(2))?;
    println!("the confusion matrix is drawn in {}", path.display());

    let mut mistakes: Vec<(usize, usize, f32)> = Vec::new();
    for (row, said) in probabilities.chunks(10).enumerate() {
        let best = (0..10).fold(0, |best, c| if said[c] > said[best] { c } else { best });
        if best != labels[row] as usize {
            mistakes.push((row, best, said[best]));
        }
    }
    mistakes.sort_by(|a, b| b.2.total_cmp(&a.2));
    let mut cells = Vec::new();
    for &(row, said, sure) in mistakes.iter().take(20) {
        let picture = Picture::bytes([1, 28, 28], &pixels[row * 784..][..784])?;
        let said = format!("{} {:.0} %", data.classes[said], 100.0 * sure);
        let is = format!("is {}", data.classes[labels[row] as usize]);
        cells.push(Cell::new(picture).toned(said, Tone::Wrong).caption(is));
    }
    let path = std::env::temp_dir().join("kiln-example-mistakes.png");
    let title = format!("the {} surest of {} mistakes", cells.len(), mistakes.len());
    Grid::new(title).sides(112).columns(5).row("", cells).save_png(&path, Pixels::Natural)?;
    println!("the mistakes that it is surest of are drawn in {}", path.display());
    Ok(())
}

/// A line for each class: how many are found, and what most of the others are taken for.
fn print_classes(scores: &Classification, names: &[String]) {
    println!("\n{:<12} {:>9} {:>7}   most often taken for", "class", "precision", "recall");
    for (class, row) in scores.per_class.iter().zip(&scores.confusion) {
        let others = (0..row.len()).filter(|&c| names[c] != class.class);
        let other = others.max_by_key(|&c| row[c]).unwrap_or_default();
        let (precision, recall) = (100.0 * class.precision, 100.0 * class.recall);
        println!(
            "{:<12} {precision:>7.1} % {recall:>5.1} %   {} ({})",
            class.class, names[other], row[other]
        );
    }
    println!("test accuracy {:.2} %\n", 100.0 * scores.accuracy);
}
