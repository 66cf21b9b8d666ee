// For products without sums of rows: never called, as ROW_SUMS is false.

fn store_row_sum(z: u32, i: u32, sum: f32) {}
