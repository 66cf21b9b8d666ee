//! What reads the files of the cache folder, for fuzzing: `fuzz/readers` has no other door to it.

use crate::{Tuning, TuningKey, pipeline_file};

/// Tuning of a device that there is not, with nothing in it.
pub fn tuning() -> Tuning {
    Tuning::new(TuningKey {
        kiln: env!("CARGO_PKG_VERSION").to_owned(),
        adapter: "hostile".to_owned(),
        backend: "Vulkan".to_owned(),
        vendor: 1,
        device: 2,
        driver: "3".to_owned(),
        checked: false,
        portable: false,
    })
}

/// The compiled pipelines in a file, if it was written under this key.
///
/// # Errors
/// Why it is of no use.
pub fn pipelines(key: &str, file: &[u8]) -> Result<Vec<u8>, String> {
    pipeline_file::parse(key, file).map(<[u8]>::to_vec)
}

/// The file that compiled pipelines are written to under a key.
pub fn pipeline_file(key: &str, data: &[u8]) -> Vec<u8> {
    pipeline_file::whole(&pipeline_file::digest(key, data), data)
}
