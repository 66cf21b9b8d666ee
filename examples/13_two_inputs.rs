//! A network of two inputs with one shared tower: do two digits show the same number?
//!
//! `cargo run --release --example 13_two_inputs`

use kiln::{graph::GraphError, kernel::HostRef, prelude::*};

const PAIRS: usize = 64;

/// What becomes of one picture; both inputs go through the same.
#[derive(Debug)]
struct Tower;

impl Module for Tower {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let x = to.layer("conv", &Conv2d::new(8, 3).stride(2).activation(Relu), inputs)?;
        let x = to.layer("flatten", &Flatten, &[x])?;
        let x = to.layer("dropout", &Dropout::new(0.2), &[x])?;
        to.layer("fc", &Dense::new(32).activation(Tanh), &[x])
    }
}

/// The logits that `left` and `right` show the same.
fn same(to: &mut Recording<'_>, pairs: usize) -> Result<Tensor, GraphError> {
    let left = to.graph().input("left", [pairs, 1, 28, 28])?;
    let right = to.graph().input("right", [pairs, 1, 28, 28])?;
    let a = to.layer("tower", &Tower, &[left])?;
    let b = to.layer_sharing("tower_again", "tower", &Tower, &[right])?;
    let difference = to.graph().sub(a, b)?;
    let distance = to.graph().square(difference)?;
    to.layer("head", &Dense::new(1), &[distance])
}

/// Pictures of pairs, every other one of equal digits, and whether they are.
fn pairs(data: &Split, start: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let (Features::Bytes(bytes), Targets::Classes { labels, .. }) = (data.features(), data.targets()) else {
        unreachable!("digits are bytes with classes")
    };
    let picture = |i: usize| bytes[i * 784..][..784].iter().map(|&b| f32::from(b) / 255.0);
    let (mut left, mut right, mut equal) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let i = (start + pair) % data.len();
        let wanted = |j: usize| pair % 2 == 1 || labels[j] == labels[i];
        let j = (1..data.len()).map(|k| (i + 7 * k) % data.len()).find(|&j| wanted(j)).unwrap_or(i);
        left.extend(picture(i));
        right.extend(picture(j));
        equal.push(f32::from(u8::from(labels[i] == labels[j])));
    }
    (left, right, equal)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::best()?;
    let data = Dataset::digits(1, 4000, 1000)?;
    let mut trainer = GraphTrainer::new(&device, Adam::new(0.002), 1, |to| {
        let logits = same(to, PAIRS)?;
        let equal = to.graph().input("equal", [PAIRS, 1])?;
        let loss = Loss::BinaryCrossEntropyWithLogits.record_mean(to.graph(), logits, equal, None)?;
        Ok(Objective { loss, fetch: Vec::new() })
    })?;
    for step in 0..600 {
        let (left, right, equal) = pairs(&data.train, step * PAIRS);
        trainer.write("left", HostRef::F32(&left))?;
        trainer.write("right", HostRef::F32(&right))?;
        trainer.write("equal", HostRef::F32(&equal))?;
        let loss = trainer.step()?;
        if step % 100 == 99 {
            println!("step {}: loss {loss:.3}", step + 1);
        }
    }
    // the same network without dropout, over the parameters that were trained
    let evaluator = trainer.evaluator(|to| Ok(vec![("logits".into(), same(to, PAIRS)?)]))?;
    let (mut right_ones, mut all) = (0, 0);
    for start in (0..data.test.len()).step_by(PAIRS) {
        let (left, right, equal) = pairs(&data.test, start);
        evaluator.write("left", HostRef::F32(&left))?;
        evaluator.write("right", HostRef::F32(&right))?;
        evaluator.run()?;
        let logits = evaluator.read("logits")?;
        right_ones += logits.iter().zip(&equal).filter(|(l, e)| (**l > 0.0) == (**e > 0.5)).count();
        all += PAIRS;
    }
    println!("{:.1} % of {all} unseen pairs told right", 100.0 * right_ones as f64 / all as f64);
    Ok(())
}
