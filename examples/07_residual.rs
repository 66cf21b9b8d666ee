//! A residual network with batch normalisation on Fashion-MNIST: the recipe `fashion-resnet` built in code.
//!
//! `cargo run --release --example 07_residual` (Fashion-MNIST from KILN_DATA or the user's cache folder, else downloaded)

use kiln::{data::fetch, prelude::*};

/// Convolution and normalisation; the latter has a shift of its own, so that the former needs no bias.
fn conv_norm(model: Network, filters: usize, stride: usize, norm: Option<&str>) -> Network {
    let model = model.add(Conv2d::new(filters, 3).stride(stride).same().no_bias());
    match norm {
        Some(name) => model.add(BatchNorm::default().named(name)),
        None => model.add(BatchNorm::default()),
    }
}

/// The network, layer by layer.
pub fn network() -> Network {
    let mut model = Network::new(Shape::image(1, 28, 28))
        .add(Conv2d::new(32, 3).same().no_bias().named("stem"))
        .add(BatchNorm::default())
        .add(Layer::from(Relu).named("stem_relu"))
        .add(MaxPool2d::new(2).named("stem_pool"));
    // block 1: the input is added as it is
    model = conv_norm(model, 32, 1, None).add(Relu);
    model = conv_norm(model, 32, 1, Some("block1"))
        .add(Add.inputs(["block1", "stem_pool"]))
        .add(Layer::from(Relu).named("block1_relu"));
    // block 2: half the pixels, twice the channels
    model = conv_norm(model, 96, 2, None).add(Relu);
    conv_norm(model, 96, 1, Some("block2"))
        .add(Conv2d::new(96, 1).stride(2).no_bias().inputs(["block1_relu"]).named("shortcut"))
        .add(BatchNorm::default().named("shortcut_bn"))
        .add(Add.inputs(["block2", "shortcut_bn"]))
        .add(Relu)
        .add(GlobalAvgPool2d)
        .add(Dense::new(10))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::best()?;
    let dir = DataDir::from_env();
    fetch("fashion-mnist", &dir)?;
    let data = Dataset::fashion_mnist(dir)?;
    let train = data.train.limit(10_000)?;
    let schedule = Schedule::one_cycle();
    let mut trainer =
        Trainer::new(&device, network(), Adam::new(0.01), Loss::CrossEntropy)?.with_schedule(schedule)?;
    let mut tell = OnEpoch(|epoch| println!("epoch {}: training loss {:.3}", epoch.epoch, epoch.train.loss));
    let fit = Fit { epochs: 3, batch_size: 32, callbacks: vec![&mut tell], ..Fit::default() };
    trainer.fit(&train, fit)?;
    println!("test accuracy {:.2} %", 100.0 * trainer.evaluate(&data.test)?.accuracy.unwrap_or_default());
    Ok(())
}
