//! Tables: the first byte chooses the settings. Every row has a finite number for each column, and a target.
#![no_main]

use kiln_data::{Csv, Features, Task};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((settings, text)) = data.split_first() else { return };
    let mut csv = Csv::new("fuzz.csv", if settings & 1 == 0 { "y" } else { "0" });
    if settings & 2 != 0 {
        csv = csv.without_header();
    }
    match settings >> 2 & 3 {
        1 => csv = csv.task(Task::Classification),
        2 => csv = csv.task(Task::Regression),
        3 => csv = csv.delimiter(b';'),
        _ => {}
    }
    match csv.parse(text) {
        Ok(table) => {
            let Features::Real(values) = table.split.features() else { panic!("tables are real numbers") };
            assert_eq!(values.len(), table.split.len() * table.columns.len());
            assert!(values.iter().all(|value| value.is_finite()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
