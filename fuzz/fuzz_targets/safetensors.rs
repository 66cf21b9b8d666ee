//! Model files: a small one either fits the network that it describes or is refused.
#![no_main]

use std::path::Path;

use kiln_nn::ModelFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match ModelFile::from_bytes(data, Path::new("fuzz.safetensors")) {
        Ok(file) => {
            if let Ok(model) = file.model() {
                // a description was checked when it was read
                assert!(model.summary().is_ok());
            }
        }
        Err(error) => assert!(error.to_string().starts_with("fuzz.safetensors: "), "{error}"),
    }
});
