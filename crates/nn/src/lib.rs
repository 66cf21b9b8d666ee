//! Layers, losses, optimizers, training, and model files.
//!
//! A [`Sequential`] is a list of layers over an input shape; a [`Trainer`] holds its parameters on a device and
//! fits, evaluates and predicts. A [`Recipe`] is both, with data and settings, as a TOML file.
//!
//! ```
//! use kiln_nn::{Activation::Relu, Adam, Dense, Fit, Loss, Sequential, Trainer};
//! use kiln_data::{Dataset, Gate};
//!
//! # fn main() -> Result<(), kiln_nn::NnError> {
//! let device = kiln_device::Device::cpu();
//! let data = Dataset::gate(Gate::Xor)?;
//! let model = Sequential::new([2]).add(Dense::new(16).activation(Relu)).add(Dense::new(1));
//! let mut trainer = Trainer::new(&device, model, Adam::new(0.05), Loss::MeanSquaredError)?;
//! let history = trainer.fit(&data.train, Fit { epochs: 200, batch_size: 4, ..Fit::default() })?;
//! assert!(history.epochs.last().is_some_and(|e| e.train.loss < 0.05));
//! # Ok(())
//! # }
//! ```

mod activation;
mod bench;
mod error;
mod file;
mod init;
mod layers;
mod loss;
pub mod metrics;
mod model;
mod optimizer;
mod preprocess;
mod recipe;
mod step;
mod trainer;
mod verify;

pub use activation::Activation;
pub use bench::{BenchReport, bench_step, training_plan};
pub use error::NnError;
pub use file::{ModelFile, write_atomically};
pub use init::{Initializer, parameter_stream};
pub use layers::{
    ActivationLayer, AvgPool2d, Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d, NamedPadding, PaddingSpec,
    Pair,
};
pub use loss::Loss;
pub use model::{LayerSummary, Mode, ParameterSpec, Sequential, Summary};
pub use optimizer::{Adam, Optimizer, Sgd};
pub use preprocess::{Numbers, Preprocess};
pub use recipe::{DataSpec, Recipe};
pub use trainer::{EpochReport, Fit, History, OnProgress, Progress, Scores, Trainer};
pub use verify::{Verification, verify};
