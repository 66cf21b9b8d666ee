//! A small network and what is asked of its trainings.

use std::{fs, path::Path};

use kiln::{nn::EpochReport, prelude::*};

/// A small network with running statistics and dropout.
pub fn network() -> Sequential {
    Sequential::new(Shape::image(1, 28, 28))
        .add(Conv2d::new(4, 3).activation(Relu))
        .add(BatchNorm::default())
        .add(MaxPool2d::new(2))
        .add(Flatten)
        .add(Dropout::new(0.3))
        .add(Dense::new(10))
}

/// Its trainer with all that a checkpoint must hold: moments, running statistics, dropout, a schedule.
pub fn trainer(device: &Device) -> Trainer {
    let trainer = Trainer::new(device, network(), Nadam::new(0.004), Loss::CrossEntropy).unwrap();
    trainer.with_schedule(Schedule::one_cycle()).unwrap()
}

/// The bytes of its model file.
pub fn model_bytes(trainer: &Trainer, folder: &Path) -> Vec<u8> {
    let path = folder.join("model.safetensors");
    trainer.save(&path).unwrap();
    fs::read(path).unwrap()
}

/// Epochs without the times that they took.
pub fn timeless(epochs: &[EpochReport]) -> Vec<EpochReport> {
    let timeless = |e: &EpochReport| EpochReport {
        seconds: 0.0,
        images_per_second: 0.0,
        data_wait_seconds: 0.0,
        ..e.clone()
    };
    epochs.iter().map(timeless).collect()
}
