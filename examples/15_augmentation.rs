//! Pictures changed by chance: what training sees, and what becomes of the accuracy on the rows that it saw and on others. In
//! so few epochs the two come near each other, but the second does not rise.
//!
//! `cargo run --release --example 15_augmentation` (Fashion-MNIST from KILN_DATA or the user's cache folder, else downloaded)

use kiln::{
    data::{Features, fetch},
    nn::{Reach, Scores},
    plot::{Cell, Figure, Grid, Picture, Pixels},
    prelude::*,
};

/// Training rows: few, so that it is worth while to see each in many ways.
const ROWS: usize = 2_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::best()?;
    let dir = DataDir::from_env();
    fetch("fashion-mnist", &dir)?;
    let data = Dataset::fashion_mnist(dir)?;
    let few = data.train.clone().limit(ROWS)?;

    let augment = Augment { horizontal_flip: true, crop: 2, zoom: Reach::Both(0.1), ..Augment::default() };
    draw(&device, &augment, &few)?;
    for (what, augment) in [("as they are", Augment::default()), ("changed by chance", augment)] {
        let model = Sequential::new(Shape::image(1, 28, 28))
            .add(Conv2d::new(32, 3).activation(Relu))
            .add(MaxPool2d::new(2))
            .add(Conv2d::new(64, 3).activation(Relu))
            .add(MaxPool2d::new(2))
            .add(Flatten)
            .add(Dense::new(128).activation(Relu))
            .add(Dense::new(10));
        let mut trainer = Trainer::new(&device, model, Adam::new(0.002), Loss::CrossEntropy)?
            .with_augment(augment)?
            .with_schedule(Schedule::one_cycle())?;
        trainer.fit(&few, Fit { epochs: 30, batch_size: 64, ..Fit::default() })?;
        let (train, test) = (trainer.evaluate(&few)?, trainer.evaluate(&data.test)?);
        let percent = |scores: Scores| scores.accuracy.unwrap_or_default() * 100.0;
        println!(
            "{what:18} {:5.1} % of {ROWS} training rows, {:.1} % of test rows",
            percent(train),
            percent(test)
        );
    }
    Ok(())
}

/// Five pictures, each as five steps would see it.
fn draw(device: &Device, augment: &Augment, rows: &Split) -> Result<(), Box<dyn std::error::Error>> {
    let five = rows.clone().limit(5)?;
    let mut grid = Grid::new("clothes, as they are and changed");
    let mut columns = vec![five.clone()];
    for step in 0..5 {
        columns.push(augment.split(device, &five, 1, step)?);
    }
    for row in 0..5 {
        let mut cells = Vec::new();
        for column in &columns {
            let Features::Bytes(pixels) = column.features() else { return Err("bytes were expected".into()) };
            cells.push(Cell::new(Picture::bytes([1, 28, 28], &pixels[row * 784..(row + 1) * 784])?));
        }
        grid = grid.row("", cells);
    }
    let path = std::env::temp_dir().join("kiln-example-augmentation.png");
    std::fs::write(&path, grid.to_png(Pixels::Natural)?)?;
    println!("what training sees: {}", path.display());
    Ok(())
}
