// The table of hyper-parameters, one row a step: [HYPER_ROWS, 4].

// Where the row begins that the clock names; past the end of the table it is the last.
fn hyper_row(row: u32) -> u32 { return min(row, HYPER_ROWS - 1u) * 4u; }
