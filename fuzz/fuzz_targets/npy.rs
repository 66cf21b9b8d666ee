//! NumPy arrays: what is read is as long as its dimensions say, and becomes rows and labels or a typed error.
#![no_main]

use kiln_data::{Split, parse_npy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match parse_npy(data, "fuzz.npy") {
        Ok(array) => {
            assert_eq!(array.elements.len(), array.shape.iter().product::<usize>());
            match Split::from_arrays(array.clone(), array, None, "fuzz.npy") {
                Ok(split) => assert!(!split.is_empty()),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        Err(error) => assert!(error.to_string().starts_with("fuzz.npy: ")),
    }
});
