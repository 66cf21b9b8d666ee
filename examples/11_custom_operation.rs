//! An operation of your own, from WGSL, a CPU function and a gradient, and a network that trains with it.
//!
//! `cargo run --release --example 11_custom_operation`, or `... -- gpu` for a device by name

use std::sync::Arc;

use kiln::{
    graph::{
        CustomOp, CustomValue, GraphError,
        verify::{check_custom, sample},
    },
    nn::History,
    prelude::*,
};

/// max(x, 0)²: So et al. (2021), "Primer: Searching for Efficient Transformers".
#[derive(Debug)]
struct SquaredRelu;

impl CustomOp for SquaredRelu {
    fn name(&self) -> &str {
        "squared_relu"
    }

    fn inputs(&self) -> &[&str] {
        &["x"]
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    /// Element `i` on a GPU: `x` is declared, as are `X_LEN`, `X_SHAPE`, `RESULT_LEN` and `RESULT_SHAPE`.
    fn wgsl(&self) -> String {
        "fn squared_relu(i: u32) -> f32 {
            let v = max(x[i], 0.0);
            return v * v;
        }"
        .into()
    }

    /// Element `i` on the CPU.
    fn cpu(&self, inputs: &[CustomValue<'_>], i: usize) -> f64 {
        inputs[0][i].max(0.0).powi(2)
    }

    /// dx = dy · 2 max(x, 0), of operations that the graph has; it could be another operation of one's own.
    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        _output: Tensor,
        dy: Tensor,
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let slope = g.relu(inputs[0])?;
        let slope = g.scale(slope, 2.0)?;
        Ok(vec![Some(g.mul(dy, slope)?)])
    }
}

/// The operation as a layer.
#[derive(Debug)]
struct SquaredReluLayer;

impl Module for SquaredReluLayer {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        to.graph().custom(Arc::new(SquaredRelu), inputs)
    }
}

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let device = Device::open(&std::env::args().nth(1).unwrap_or("auto".into()))?;
    let report = check_custom(device.backend(), Arc::new(SquaredRelu), &[sample([7, 5], 1)])?;
    println!("squared_relu on {device}: {report}");

    let data = Dataset::digits(1, 2048, 1)?.train;
    let (here, on_cpu) = (train(&device, &data)?, train(&Device::cpu(), &data)?);
    let losses: Vec<(f64, f64)> =
        here.epochs.iter().zip(&on_cpu.epochs).map(|(a, b)| (a.train.loss, b.train.loss)).collect();
    for (epoch, (loss, other)) in here.epochs.iter().zip(&losses) {
        let accuracy = 100.0 * epoch.train.accuracy.unwrap_or_default();
        println!("epoch {}: loss {loss:.4} ({other:.4} on the cpu), accuracy {accuracy:.1} %", epoch.epoch);
    }
    let (first, last) = (losses[0].0, losses[losses.len() - 1].0);
    assert!(last < 0.5 * first, "the loss did not fall: {first} to {last}");
    // rounding differs, and grows a little with each step
    let apart = losses.iter().map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max);
    assert!(apart < 0.05, "{device} and cpu differ by {apart}");
    println!("{device} and cpu agree: the losses are at most {:.3} % apart", 100.0 * apart);
    Ok(())
}

/// Trains a network of one hidden layer.
fn train(device: &Device, data: &Split) -> Result<History, Error> {
    let model = Network::new(data.item_shape().clone())
        .add(Flatten)
        .add(Dense::new(64).initializer(Initializer::HeNormal))
        .add(Layer::own(SquaredReluLayer))
        .add(Dense::new(10));
    let optimizer = Sgd { momentum: 0.9, ..Sgd::new(0.02) };
    let mut trainer = Trainer::new(device, model, optimizer, Loss::CrossEntropy)?;
    Ok(trainer.fit(data, Fit { epochs: 4, batch_size: 32, ..Fit::default() })?)
}
