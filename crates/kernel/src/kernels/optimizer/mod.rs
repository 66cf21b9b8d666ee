//! Updates of all parameters at once, and what comes before them: clipping of gradients.
//!
//! Every update works in place over a whole arena, and reads three small tables: `hyper`
//! ([`HYPER_COLUMNS`](crate::HYPER_COLUMNS)), `clock` ([`CLOCK_WORDS`](crate::CLOCK_WORDS)) and `group_settings`
//! ([`GROUP_BLOCK`](crate::GROUP_BLOCK)). In the formulas `lr` is the table's learning rate times the factor of the
//! element's block, `decay` the block's weight decay. Where the factor is 0 nothing is written. An arena of `len` elements has
//! as many `blocks` as it takes, the last of which may be shorter.

mod adam;
mod adaptive;
mod clip;
mod lamb;
mod sgd;

pub use adam::{Adam, Adamax, Nadam};
pub use adaptive::{Adadelta, Adagrad, Rmsprop};
pub use clip::{ClipNorm, ClipValue, SegmentNorms, SumSquares};
pub use lamb::{Lamb, LambApply};
pub use sgd::{Lion, Sgd};

use crate::{Binding, CLOCK_WORDS, GROUP_BLOCK, GROUP_COLUMNS, HYPER_COLUMNS};

/// Blocks of an arena, the last of which may be shorter.
fn blocks(len: u32) -> usize {
    (len as usize).div_ceil(GROUP_BLOCK)
}

fn group_settings(len: u32) -> Binding {
    Binding::read("group_settings", blocks(len) * GROUP_COLUMNS)
}

/// The tables that say which learning rate holds: of the step, and of the block.
fn tables(len: u32, hyper_rows: u32) -> [Binding; 3] {
    [
        Binding::read("hyper", hyper_rows as usize * HYPER_COLUMNS),
        Binding::read_u32("clock", CLOCK_WORDS),
        group_settings(len),
    ]
}

/// What every update in one launch binds: `w`, `gradient`, `hyper`, `clock`, `group_settings`, then its arenas.
fn update(len: u32, hyper_rows: u32, arenas: &[&'static str]) -> Vec<Binding> {
    let mut bindings = vec![Binding::update("w", len as usize), Binding::read("gradient", len as usize)];
    bindings.extend(tables(len, hyper_rows));
    bindings.extend(arenas.iter().map(|name| Binding::update(name, len as usize)));
    bindings
}
