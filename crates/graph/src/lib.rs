//! Recording, differentiating, planning and running networks.
//!
//! A [`Graph`] is recorded once: [`Graph::input`], [`Graph::parameter`] and one method per operation, each
//! checking shapes on the spot. [`Graph::gradients`] appends the gradient as more graph. A [`Plan`] turns
//! what is asked for into a short list of kernel launches over as few buffers as liveness allows, and a
//! [`Session`] runs it on any [`kiln_kernel::Backend`]. The [`Interpreter`] walks the same graph in plain
//! `f64` over ndarray and knows nothing of kernels: it is what planning is checked against.
//!
//! ```
//! use kiln_graph::{Graph, Interpreter};
//! use ndarray::arr1;
//!
//! # fn main() -> Result<(), kiln_graph::GraphError> {
//! let mut g = Graph::new();
//! let x = g.input("x", [3])?;
//! let y = g.square(x)?;
//! let loss = g.sum(y, &[0], false)?; // x0² + x1² + x2²
//! let dx = g.gradients(loss, &[x])?[0]; // 2 x
//!
//! let mut run = Interpreter::new(&g);
//! run.feed("x", arr1(&[1.0, 2.0, 3.0]).into_dyn());
//! assert_eq!(run.value(dx)?.as_slice(), Some(&[2.0, 4.0, 6.0][..]));
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod alone;
mod autodiff;
mod error;
mod graph;
mod interpret;
pub mod ops;
mod plan;
mod session;
mod store;
pub mod verify;

pub use alone::Alone;
pub use error::GraphError;
pub use graph::{Graph, Tensor, TensorInfo};
pub use interpret::{Array, Interpreter};
pub use kiln_kernel::CustomValue;
pub use ops::{
    AugmentOptions, Conv2dOptions, ConvTranspose2dOptions, CustomOp, GatherOptions, Padding, Pool2dOptions,
};
pub use plan::{
    CLOCK, Collect, External, FINDING_LEN, FINDINGS, Fetch, GRADIENTS, HYPER, PARAMETERS, Place, Plan,
    Request, Slot, TALLY, TOTALS, Tenant,
};
pub use session::Session;
pub use store::{ParameterStore, Segment, Segments};
