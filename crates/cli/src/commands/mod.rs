//! One module per command: `run` does it, the types beside it are its `--json`.

pub(crate) mod bench_conv;
pub(crate) mod bench_matmul;
pub(crate) mod bench_step;
pub(crate) mod bench_tune;
pub(crate) mod compare;
pub(crate) mod data_fetch;
pub(crate) mod data_show;
pub(crate) mod devices;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod inspect;
mod model;
pub(crate) mod plan;
pub(crate) mod predict;
pub(crate) mod recipes;
pub(crate) mod report;
pub(crate) mod summary;
pub(crate) mod train;
pub(crate) mod verify;
