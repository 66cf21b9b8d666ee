//! The wgpu backend, and [`Device`], the one handle on hardware that users hold.
//!
//! [`assemble`] turns a kernel into WGSL; the rest opens adapters, compiles pipelines, holds buffers, submits
//! and reads back. No type of wgpu appears in the public interface but in [`Device::wgpu`].

mod adapters;
pub mod assemble;
mod backend;
mod check;
mod choose;
mod custom;
mod device;
mod functions;
mod gemm;
mod host_memory;
#[doc(hidden)]
pub mod hostile;
mod incidents;
mod memory;
mod pair;
mod pipeline;
mod pipeline_file;
mod probe;
mod profile;
mod rehearsal;
mod trusted;
mod tuning;
mod variants;

pub use adapters::{Info, LimitRow};
pub use assemble::Kind;
pub use device::{Device, DeviceOptions};
pub use memory::STAGING;
pub use pipeline::ReplaceShader;
pub use rehearsal::Need;
pub use tuning::{Adopted, Remembered, Tuning, TuningKey, kernel_text};
