//! An autoencoder: digits through a bottleneck of 392 numbers and back, and noise that does not get through.
//!
//! `cargo run --release --example 10_autoencoder` (MNIST from KILN_DATA or the user's cache folder, else downloaded)

use kiln::{
    data::fetch,
    kernel::random::Stream,
    plot::{Cell, Figure, Grid, Picture, Pixels, PlotError, Range},
    prelude::*,
};

const SIZE: usize = 28 * 28;

/// How strong the noise is: its standard deviation, where white is 1.
const NOISE: f32 = 0.4;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::best()?;
    let dir = DataDir::from_env();
    fetch("mnist", &dir).map_err(|error| error.to_string())?;
    let data = Dataset::mnist(dir).map_err(|error| error.to_string())?;
    // each row is its own target: nobody has to label anything
    let data = data.limit(10_000)?.with_input_as_target();
    let model = Network::new(Shape::image(1, 28, 28))
        // in training alone; the target stays as it is
        .add(GaussianNoise::new(NOISE))
        .add(Conv2d::new(16, 3).same().activation(Relu))
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(8, 3).same().activation(Relu))
        .add(MaxPool2d::new(2).named("code"))
        .add(ConvTranspose2d::new(16, 2).stride(2).activation(Relu))
        .add(ConvTranspose2d::new(16, 2).stride(2).activation(Relu))
        .add(Conv2d::new(1, 3).same().activation(Sigmoid));
    for layer in model.summary()?.layers {
        let shape = Shape::from(layer.output_shape).to_string();
        println!("{:<16} {shape:>12} {:>6} parameters", layer.name, layer.parameters);
    }
    let mut trainer = Trainer::new(&device, model, Adam::new(0.002), Loss::MeanSquaredError)?;
    let mut tell = OnEpoch(|epoch| println!("epoch {}: loss {:.4}", epoch.epoch, epoch.train.loss));
    let fit = Fit { epochs: 4, batch_size: 32, callbacks: vec![&mut tell], ..Fit::default() };
    trainer.fit(&data.train, fit)?;
    println!("test loss without noise {:.4}", trainer.evaluate(&data.test)?.loss);

    let given = trainer.preprocess().apply(&data.test.limit(12)?)?;
    let stream = Stream { seed: 1, stream: 0, step: 0 };
    let noisy: Vec<f32> = given
        .iter()
        .enumerate()
        .map(|(i, x)| (x + NOISE * stream.normal(i as u32)).clamp(0.0, 1.0))
        .collect();
    let back = |rows: &[f32]| -> Result<Vec<f32>, kiln::nn::NnError> {
        Ok(trainer.predict(Features::Real(rows.to_vec()))?.into_iter().collect())
    };
    let (clean, denoised) = (back(&given)?, back(&noisy)?);
    let difference =
        |rows: &[f32]| given.iter().zip(rows).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / given.len() as f32;
    println!("off by {:.4} with noise, by {:.4} without it again", difference(&noisy), difference(&denoised));

    let mut grid = Grid::new("digits through an autoencoder").columns(12).range(Range::Between(0.0, 1.0));
    for (heading, rows) in [
        ("test digits", &given),
        ("what comes back", &clean),
        ("the same with noise", &noisy),
        ("what comes back", &denoised),
    ] {
        let cells = rows.chunks(SIZE).map(|row| Picture::real([1, 28, 28], row).map(Cell::new));
        grid = grid.row(heading, cells.collect::<Result<Vec<_>, PlotError>>()?);
    }
    let path = std::env::temp_dir().join("kiln-example-autoencoder.png");
    grid.save_png(&path, Pixels::Natural)?;
    println!("drawn in {}", path.display());
    Ok(())
}
