//! Functions of single elements, with broadcasting.

use super::Constants;
use crate::{Binding, Operand, Source, Spec, Tail};

/// `y[i] = tail(source[i], i)`: elementwise functions with broadcasting; also copies, permutations,
/// slices (through the source's layout) and fills.
///
/// Bindings: `x` (only if the source is a buffer), `y` (len).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Elementwise {
    /// Number of result elements.
    pub len: u32,
    /// Where the running value starts.
    pub source: Source,
    /// What is done to it.
    pub tail: Tail,
}

impl Spec for Elementwise {
    fn name(&self) -> &'static str {
        match self.source {
            Source::Operand(_) => "elementwise",
            Source::Constant(_) => "fill",
        }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let y = Binding::write("y", self.len as usize);
        match &self.source {
            Source::Operand(Operand { len, .. }) => vec![Binding::read("x", *len as usize), y],
            Source::Constant(_) => vec![y],
        }
    }

    /// `x`'s layout becomes the generated function `source_index(i: u32) -> u32`.
    fn constants(&self) -> Constants {
        let mut constants: Constants = vec![("LEN", self.len.into())];
        if let Source::Constant(value) = self.source {
            constants.push(("VALUE", value.0.into()));
        }
        constants
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }
}
