//! Training, validation and test rows: the settings are chosen on the second, and the third are looked at once, at the
//! end. A score that chose its own settings would flatter them.
//!
//! `cargo run --release --example 14_tuning` (MNIST from KILN_DATA or the user's cache folder, else downloaded)

use kiln::{data::fetch, prelude::*};

type Error = Box<dyn std::error::Error>;

const RATES: [f64; 4] = [0.0003, 0.001, 0.003, 0.01];
const DROPOUTS: [f32; 3] = [0.0, 0.25, 0.5];

fn trained(device: &Device, rate: f64, dropout: f32, train: &Split) -> Result<Trainer, Error> {
    let model = Network::new(Shape::image(1, 28, 28))
        .add(Conv2d::new(16, 3).activation(Relu))
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(32, 3).activation(Relu))
        .add(MaxPool2d::new(2))
        .add(Flatten)
        .add(Dropout::new(dropout))
        .add(Dense::new(10));
    let mut trainer = Trainer::new(device, model, Adam::new(rate), Loss::CrossEntropy)?;
    trainer.fit(train, Fit { epochs: 4, batch_size: 32, ..Fit::default() })?;
    Ok(trainer)
}

fn percent(trainer: &Trainer, rows: &Split) -> Result<f64, Error> {
    Ok(100.0 * trainer.evaluate(rows)?.accuracy.unwrap_or_default())
}

fn main() -> Result<(), Error> {
    let device = Device::best()?;
    let dir = DataDir::from_env();
    fetch("mnist", &dir).map_err(|error| error.to_string())?;
    let data = Dataset::mnist(dir).map_err(|error| error.to_string())?;
    let all = data.train.limit(5_000)?;
    let (train, validation) = all.split(0.8, 1)?;
    println!(
        "{} rows to train on, {} to choose by, {} to test once\n",
        train.len(),
        validation.len(),
        data.test.len()
    );
    println!("validation accuracy in %, by learning rate and dropout");
    println!("{:>8} {}", "", DROPOUTS.map(|dropout| format!("{dropout:>8}")).join(""));
    let mut best = (f64::MIN, RATES[0], DROPOUTS[0]);
    for rate in RATES {
        let mut line = format!("{rate:>8} ");
        for dropout in DROPOUTS {
            let score = percent(&trained(&device, rate, dropout, &train)?, &validation)?;
            line += &format!("{score:>8.2}");
            if score > best.0 {
                best = (score, rate, dropout);
            }
        }
        println!("{line}");
    }
    let (score, rate, dropout) = best;
    println!("\nchosen: learning rate {rate}, dropout {dropout}, {score:.2} % on the validation rows");
    // with the settings known, the validation rows may be learned from too
    let chosen = trained(&device, rate, dropout, &all)?;
    println!(
        "trained again on all {} rows: {:.2} % on the test rows",
        all.len(),
        percent(&chosen, &data.test)?
    );
    Ok(())
}
