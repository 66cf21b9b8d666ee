//! Transfer learning: what a network has learned of digits helps it to tell clothes apart after one short look at 1,000
//! of them. Four ways to begin, each with as many steps; the learning rate of each is chosen on rows held out for that.
//! The gain is that of a short look: with several passes over the same rows a network from nothing catches up, and frozen
//! convolutions that know only digits fall behind it.
//!
//! `cargo run --release --example 08_transfer` (MNIST and Fashion-MNIST from KILN_DATA or the user's cache folder, else downloaded)

use kiln::{
    data::fetch,
    nn::{ModelFile, ParameterGroup},
    prelude::*,
};

type Error = Box<dyn std::error::Error>;

const SEEDS: [u64; 3] = [1, 2, 3];

/// How a network begins on clothes.
#[derive(Clone, Copy, PartialEq)]
enum Begin {
    Anew,
    Frozen,
    Slow,
    All,
}

fn digits_network() -> Network {
    Network::new(Shape::image(1, 28, 28))
        .add(Conv2d::new(32, 3).activation(Relu))
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(64, 3).activation(Relu))
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(64, 3).activation(Relu))
        .add(Flatten)
        .add(Dense::new(64).activation(Relu))
        .add(Dense::new(10).named("digits"))
}

/// One pass over a few clothes.
fn tune(
    device: &Device,
    digits: &ModelFile,
    begin: Begin,
    rate: f64,
    seed: u64,
    train: &Split,
) -> Result<Trainer, Error> {
    let mut model = digits_network().without_last(1)?.add(Dense::new(10).named("clothes"));
    let mut optimizer = Optimizer::from(Adam::new(rate));
    match begin {
        Begin::Frozen => drop(model.freeze("conv*")?),
        // discriminative learning rates: what is general changes less than what is new
        Begin::Slow => {
            optimizer =
                optimizer.with_group(ParameterGroup { lr_factor: Some(0.3), ..ParameterGroup::new("conv*") });
        }
        Begin::Anew | Begin::All => {}
    }
    let mut trainer = Trainer::new(device, model, optimizer, Loss::CrossEntropy)?;
    trainer.reset(seed)?;
    if begin != Begin::Anew {
        digits.load_matching(&trainer)?;
    }
    trainer.fit(train, Fit { epochs: 1, batch_size: 32, ..Fit::default() })?;
    Ok(trainer)
}

fn main() -> Result<(), Error> {
    let device = Device::best()?;
    let dir = DataDir::from_env();
    for name in ["mnist", "fashion-mnist"] {
        fetch(name, &dir).map_err(|error| error.to_string())?;
    }
    let digits = Dataset::mnist(dir.clone()).map_err(|error| error.to_string())?;
    let clothes = Dataset::fashion_mnist(dir).map_err(|error| error.to_string())?;
    let mut teacher = Trainer::new(&device, digits_network(), Adam::default(), Loss::CrossEntropy)?;
    teacher.fit(&digits.train.limit(10_000)?, Fit { epochs: 2, batch_size: 64, ..Fit::default() })?;
    println!("digits: {:.2} % of the test rows right", accuracy(&teacher, &digits.test)?);
    let path = std::env::temp_dir().join("kiln-example-digits-network.safetensors");
    teacher.save(&path)?;
    let file = ModelFile::read(&path)?;

    let (train, validation) = clothes.train.limit(2_000)?.split(0.5, 1)?;
    println!("\nclothes: {} rows seen once, the means of {} seeds in %", train.len(), SEEDS.len());
    println!("{:<42} {:>6} {:>6} {:>6}   test", "learning rate", "0.001", "0.003", "0.01");
    let mut from_nothing = 0.0;
    for (begin, name) in [
        (Begin::Anew, "from nothing"),
        (Begin::Frozen, "digits' convolutions, frozen"),
        (Begin::Slow, "digits' convolutions, at 0.3 of the rate"),
        (Begin::All, "all that fits of digits"),
    ] {
        let mut tried: Vec<(f64, Vec<Trainer>)> = Vec::new();
        for rate in [0.001, 0.003, 0.01] {
            let trainers = SEEDS.map(|seed| tune(&device, &file, begin, rate, seed, &train));
            let trainers = trainers.into_iter().collect::<Result<Vec<_>, _>>()?;
            tried.push((mean(&trainers, &validation)?, trainers));
        }
        let held_out: Vec<String> = tried.iter().map(|(score, _)| format!("{score:>6.1}")).collect();
        // the test rows see one learning rate of each: that which the held-out rows chose
        let best = tried.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        let test = best.map_or(Ok(0.0), |(_, trainers)| mean(&trainers, &clothes.test))?;
        if begin == Begin::Anew {
            from_nothing = test;
        }
        println!("{name:<42} {} {test:>6.1} ({:+.1})", held_out.join(" "), test - from_nothing);
    }
    Ok(())
}

fn mean(trainers: &[Trainer], split: &Split) -> Result<f64, Error> {
    let scores = trainers.iter().map(|trainer| accuracy(trainer, split)).collect::<Result<Vec<f64>, _>>()?;
    Ok(scores.iter().sum::<f64>() / scores.len() as f64)
}

fn accuracy(trainer: &Trainer, split: &Split) -> Result<f64, Error> {
    Ok(100.0 * trainer.evaluate(split)?.accuracy.unwrap_or_default())
}
