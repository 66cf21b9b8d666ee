//! `readers::data::cifar` as a fuzz target.
#![no_main]

#[path = "../readers/data.rs"]
#[allow(dead_code)]
mod data;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    _ = data::cifar(input);
});
