//! `readers::program::compare` as a fuzz target.
#![no_main]

#[path = "../readers/mod.rs"]
#[allow(dead_code)]
mod readers;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    _ = readers::program::compare(input);
});
