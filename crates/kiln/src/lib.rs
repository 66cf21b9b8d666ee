//! Kiln trains neural networks on any GPU, from Rust.
//!
//! Three levels, each usable alone:
//!
//! - [`nn`]: layers, losses, optimizers and a [`nn::Trainer`] that fits, evaluates, predicts and saves.
//! - [`graph`]: record tensors and operations by hand, ask for gradients, plan and run.
//! - [`device`]: open a [`device::Device`], upload, run one kernel, read back.
//!
//! ```
//! use kiln::prelude::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::cpu(); // or Device::best()?, Device::open("gpu")?, Device::list()
//! let data = Dataset::digits(1, 1000, 200)?; // or fetch("mnist", &dir)?, Dataset::mnist(dir)?
//! let model = Sequential::new(Shape::image(1, 28, 28))
//!     .add(Conv2d::new(16, 3).activation(Relu))
//!     .add(MaxPool2d::new(2))
//!     .add(Flatten)
//!     .add(Dense::new(10));
//! let mut trainer = Trainer::new(&device, model, Adam::default(), Loss::CrossEntropy)?;
//! let history = trainer.fit(
//!     &data.train,
//!     Fit { epochs: 2, batch_size: 64, validation: Some(&data.test), ..Fit::default() },
//! )?;
//! let scores = trainer.evaluate(&data.test)?;
//! assert!(scores.accuracy > Some(0.5));
//! # assert_eq!(history.epochs.len(), 2);
//! # let folder = std::env::temp_dir().join(format!("kiln-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let path = folder.join("digits.safetensors");
//! trainer.save(&path)?;
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok(())
//! # }
//! ```
//!
//! What goes on around a fit, and how one goes on after an interruption:
//!
//! ```
//! use kiln::prelude::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = std::env::temp_dir().join(format!("kiln-doc-fit-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let data = Dataset::digits(1, 300, 50)?;
//! # let model = Sequential::new(Shape::image(1, 28, 28)).add(Flatten).add(Dense::new(10));
//! # let mut trainer = Trainer::new(&Device::cpu(), model, Adam::default(), Loss::CrossEntropy)?;
//! let mut stop = EarlyStopping::new("val_loss").patience(3).restore_best_weights();
//! let mut best = ModelCheckpoint::best(folder.join("best.safetensors"), "val_accuracy");
//! let history = trainer.fit(
//!     &data.train,
//!     Fit {
//!         epochs: 5,
//!         validation_split: 0.1,
//!         callbacks: vec![&mut stop, &mut best],
//!         checkpoints: Some(&mut Checkpoints::new(folder.join("checkpoints"))),
//!         ..Fit::default()
//!     },
//! )?;
//! println!("{:?}", history.figures("val_loss"));
//! # assert!(history.epochs.len() > 1);
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub use kiln_data as data;
pub use kiln_device as device;
pub use kiln_graph as graph;
pub use kiln_kernel as kernel;
pub use kiln_nn as nn;
pub use kiln_plot as plot;
pub use kiln_reference as reference;

/// What most programs need: `use kiln::prelude::*`.
pub mod prelude {
    pub use kiln_data::{DataDir, Dataset, Features, Split, Targets};
    pub use kiln_device::Device;
    pub use kiln_graph::{Graph, ParameterStore, Plan, Request, Session, Tensor};
    pub use kiln_kernel::Shape;
    pub use kiln_nn::callbacks::{
        Callback, CsvLogger, EarlyStopping, Flow, JsonLines, LearningRateScheduler, ModelCheckpoint, OnEpoch,
        ReduceLrOnPlateau, TensorBoard, TerminateOnNan,
    };
    pub use kiln_nn::{
        Activation::{self, *},
        Adadelta, Adagrad, Adam, Adamax, Add, Augment, Average, AvgPool2d, BatchNorm, Checkpoints, Clip,
        Concat, Conv1d, Conv2d, ConvTranspose2d, Crop2d, Dense, Dropout, Embedding, EpochReport, Fit,
        Flatten, GaussianNoise, GlobalAvgPool2d, GlobalMaxPool2d, GraphTrainer, GroupNorm, History,
        Initializer, Lamb, Layer, LayerExt, LayerNorm, Lion, Loss, MaxPool2d, Maximum, Minimum, Module,
        Multiply, Nadam, Network, Objective, Optimizer, Permute, Prelu, Recipe, Recording, Reshape,
        Residency, Rmsprop, Schedule, Sequential, Sgd, Slice, SpatialDropout2d, Subtract, Trainer,
        Upsample2d, ZeroPad2d,
    };
}
