//! A line fitted to noisy points: y = 2 x + 1.
//!
//! `cargo run --release --example 02_line`

use kiln::{plot::terminal::sparkline, prelude::*};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::best()?;
    let data = Dataset::linear(1)?;
    let model = Sequential::new([1]).add(Dense::new(1));
    let mut trainer = Trainer::new(&device, model, Sgd::new(0.1), Loss::MeanSquaredError)?;
    let history = trainer.fit(&data.train, Fit { epochs: 30, ..Fit::default() })?;
    for report in history.epochs.iter().step_by(5) {
        println!("epoch {:>2}: loss {:.5}", report.epoch, report.train.loss);
    }
    let losses: Vec<f64> = history.epochs.iter().map(|report| report.train.loss).collect();
    println!("{}", sparkline(&losses, 30));
    let (slope, intercept) = (trainer.parameter("fc1.weight")?[0], trainer.parameter("fc1.bias")?[0]);
    println!("y = {slope:.3} x + {intercept:.3}, drawn from y = 2 x + 1 with noise");
    Ok(())
}
