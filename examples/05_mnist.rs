//! Handwritten digits by the text-book network of three convolutions, with its training curve in the terminal.
//!
//! `cargo run --release --example 05_mnist` (MNIST from KILN_DATA or the user's cache folder, else downloaded)

use kiln::{
    data::fetch,
    nn::{NnError, StepReport},
    plot::{Series, terminal},
    prelude::*,
};

/// The logarithm of the loss of every 25 steps.
#[derive(Default)]
struct Curve {
    points: Vec<(f64, f64)>,
    /// Rows of the epoch so far, and the sum of their losses.
    last: (usize, f64),
}

impl Callback for Curve {
    fn each_step(&self) -> bool {
        false
    }

    fn on_progress(&mut self, _: &mut Trainer, report: &StepReport) -> Result<Flow, NnError> {
        // what is reported is the mean since the epoch began
        let sum = report.scores.loss * report.rows as f64;
        let (rows, before) = if report.rows > self.last.0 { self.last } else { (0, 0.0) };
        self.points.push((report.step as f64, ((sum - before) / (report.rows - rows) as f64).log10()));
        self.last = (report.rows, sum);
        Ok(Flow::Continue)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::best()?;
    let dir = DataDir::from_env();
    fetch("mnist", &dir).map_err(|error| error.to_string())?;
    let data = Dataset::mnist(dir).map_err(|error| error.to_string())?;
    let model = Sequential::new(Shape::image(1, 28, 28))
        .add(Conv2d::new(32, 3).activation(Relu))
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(64, 3).activation(Relu))
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(64, 3).activation(Relu))
        .add(Flatten)
        .add(Dense::new(64).activation(Relu))
        .add(Dense::new(10));
    println!("{} parameters on {device}", model.summary()?.parameters);

    let mut trainer = Trainer::new(&device, model, Adam::default(), Loss::CrossEntropy)?;
    let mut curve = Curve::default();
    let mut tell = OnEpoch(|epoch| {
        let held_out = epoch.validation.and_then(|scores| scores.accuracy).unwrap_or_default();
        println!(
            "epoch {}: loss {:.4}, {:.2} % of the held-out rows right, {:.0} images/s",
            epoch.epoch,
            epoch.train.loss,
            100.0 * held_out,
            epoch.images_per_second
        );
    });
    let callbacks: Vec<&mut dyn Callback> = vec![&mut curve, &mut tell];
    let fit = Fit { epochs: 2, batch_size: 64, validation_split: 0.05, callbacks, ..Fit::default() };
    let history = trainer.fit(&data.train, fit)?;

    let held_out = history.epochs.iter().filter_map(|e| Some((e.step as f64, e.validation?.loss.log10())));
    let series = [
        Series::new("log10 of the loss by step", curve.points),
        Series::new("of the held-out rows", held_out).dashed(),
    ];
    println!("\n{}", terminal::lines(&series, &terminal::Style::default()));
    let test = trainer.evaluate(&data.test)?;
    println!("\ntest accuracy {:.2} %", 100.0 * test.accuracy.unwrap_or_default());
    Ok(())
}
