//! The logic gate that no line separates, learned from its four rows.
//!
//! `cargo run --release --example 03_xor`

use kiln::{data::Gate, prelude::*};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::best()?;
    let data = Dataset::gate(Gate::Xor)?;
    let model =
        Sequential::new([2]).add(Dense::new(16).activation(Relu)).add(Dense::new(1).activation(Sigmoid));
    let mut trainer = Trainer::new(&device, model, Adam::new(0.02), Loss::MeanSquaredError)?;
    trainer.fit(&data.train, Fit { epochs: 500, batch_size: 4, ..Fit::default() })?;
    let outputs = trainer.predict_split(&data.test)?;
    for (row, output) in [(0, 0), (0, 1), (1, 0), (1, 1)].iter().zip(outputs.iter()) {
        println!("{} xor {} = {output:.3}", row.0, row.1);
    }
    Ok(())
}
