// Which row of a data set of ITEMS rows a row of the batch is. Both indices come from buffers, and are held to the
// data set here.

// The position in the epoch's order; past its end it is the last. The sum is not formed: it could wrap.
fn order_position(cursor: u32, row: u32) -> u32 {
    let last = ITEMS - 1u;
    return select(cursor + row, last, cursor > last || row > last - min(cursor, last));
}

// The row that the order names; past the end of the data set it is the last.
fn data_row(named: u32) -> u32 { return min(named, ITEMS - 1u); }

// The row of the batch that is shown as row r: itself, or counted from the end.
fn batch_row(r: u32) -> u32 { return select(r, ROWS - 1u - r, REVERSED); }
