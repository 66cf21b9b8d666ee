//! Pseudo-labels: 500 digits have labels; a network that has learned them labels those others that it is sure of, and a
//! new one learns from all. Both are trained for as many steps.
//!
//! `cargo run --release --example 09_pseudo_labels` (MNIST from KILN_DATA or the user's cache folder, else downloaded)

use kiln::{data::fetch, prelude::*};

type Error = Box<dyn std::error::Error>;

/// Rows with labels, and rows in all.
const LABELLED: usize = 500;
const ALL: usize = 10_000;

/// How sure the network must be of a label.
const SURE: f32 = 0.95;

/// Steps of each training, at batches of 32 rows.
const STEPS: usize = 900;

fn trained(device: &Device, rows: &Split, seed: u64) -> Result<Trainer, Error> {
    let model = Network::new(Shape::image(1, 28, 28))
        .add(Conv2d::new(16, 3).activation(Relu))
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(32, 3).activation(Relu))
        .add(MaxPool2d::new(2))
        .add(Flatten)
        .add(Dropout::new(0.4))
        .add(Dense::new(10));
    let mut trainer = Trainer::new(device, model, Adam::new(0.002), Loss::CrossEntropy)?
        .with_schedule(Schedule::one_cycle())?;
    trainer.reset(seed)?;
    let epochs = (STEPS as f64 / rows.len().div_ceil(32) as f64).round() as usize;
    trainer.fit(rows, Fit { epochs, batch_size: 32, ..Fit::default() })?;
    Ok(trainer)
}

/// The labelled rows with others that the network is sure of, and how many of the latter it has labelled wrongly.
fn with_pseudo_labels(trainer: &Trainer, all: &Split, truth: &[u32]) -> Result<(Split, usize), Error> {
    let probabilities: Vec<f32> = trainer.predict_split(all)?.into_iter().collect();
    let mut rows: Vec<u32> = (0..LABELLED as u32).collect();
    let mut labels = truth[..LABELLED].to_vec();
    for (row, said) in probabilities.chunks(10).enumerate().skip(LABELLED) {
        let best = (0..10).fold(0, |best, c| if said[c] > said[best] { c } else { best });
        if said[best] >= SURE {
            rows.push(row as u32);
            labels.push(best as u32);
        }
    }
    let wrong = rows.iter().zip(&labels).filter(|(row, label)| truth[**row as usize] != **label).count();
    Ok((all.select(&rows)?.with_targets(Targets::Classes { labels, classes: 10 })?, wrong))
}

fn main() -> Result<(), Error> {
    let device = Device::best()?;
    let dir = DataDir::from_env();
    fetch("mnist", &dir).map_err(|error| error.to_string())?;
    let data = Dataset::mnist(dir).map_err(|error| error.to_string())?;
    let all = data.train.limit(ALL)?;
    let Targets::Classes { labels: truth, .. } = all.targets() else { return Err("no classes".into()) };
    let accuracy = |trainer: &Trainer| -> Result<f64, Error> {
        Ok(100.0 * trainer.evaluate(&data.test)?.accuracy.unwrap_or_default())
    };
    let mut gains = Vec::new();
    for seed in [1, 2, 3] {
        let teacher = trained(&device, &all.clone().limit(LABELLED)?, seed)?;
        // the true labels of the others are looked at here to count mistakes, and nowhere else
        let (more, wrong) = with_pseudo_labels(&teacher, &all, truth)?;
        let student = trained(&device, &more, seed + 10)?;
        let (before, after) = (accuracy(&teacher)?, accuracy(&student)?);
        let labelled = more.len() - LABELLED;
        println!(
            "seed {seed}: {LABELLED} labels: {before:.2} % right; {labelled} more of its own, {wrong} of them wrong: \
             {after:.2} % ({:+.2})",
            after - before
        );
        gains.push(after - before);
    }
    println!("a gain of {:+.2} on average, on the test rows", gains.iter().sum::<f64>() / gains.len() as f64);
    Ok(())
}
