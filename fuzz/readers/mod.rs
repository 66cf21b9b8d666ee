//! Everything of Kiln that reads what others have written, each as a function of bytes: it may say no, but must not panic,
//! hang, or answer what does not hold. The fuzz targets call them, and so does `tests/hostile.rs`, on a stable compiler.

pub mod data;
pub mod model;
pub mod program;

/// A reader: what may be thrown at it, and whether it took it.
pub type Reader = fn(&[u8]) -> bool;

/// All of them, by the names of their fuzz targets.
pub const READERS: [(&str, Reader); 15] = [
    ("idx", data::idx),
    ("npy", data::npy),
    ("npz", data::npz),
    ("csv", data::csv),
    ("image", data::image),
    ("archive", data::archive),
    ("cifar", data::cifar),
    ("recipe", model::recipe),
    ("model", model::model),
    ("checkpoint", model::checkpoint),
    ("bundle", model::bundle),
    ("run_json", program::run_json),
    ("report", program::report),
    ("compare", program::compare),
    ("cache", program::cache),
];
