//! Two launches in one.

use super::Constants;
use crate::{Binding, Kernel, Spec};

/// Two kernels that do not depend on each other, in one launch: neither writes what the other reads or writes.
///
/// Bindings: those of the first, then those of the second that it does not share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// The one.
    pub first: Kernel,
    /// The other.
    pub second: Kernel,
    /// (binding of the second, binding of the first) where both read the same argument, in ascending order.
    pub shared: Vec<(usize, usize)>,
}

impl Pair {
    /// For each of the second kernel's bindings, which of the pair's it is.
    pub fn second_bindings(&self) -> Vec<usize> {
        let mut next = self.first.bindings().len();
        (0..self.second.bindings().len())
            .map(|i| match self.shared.iter().find(|s| s.0 == i) {
                Some(&(_, of_first)) => of_first,
                None => {
                    next += 1;
                    next - 1
                }
            })
            .collect()
    }
}

impl Spec for Pair {
    fn name(&self) -> &'static str {
        "pair"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let mut bindings = self.first.bindings();
        for (i, binding) in self.second.bindings().into_iter().enumerate() {
            if !self.shared.iter().any(|s| s.0 == i) {
                bindings.push(Binding { name: format!("second_{}", binding.name).into(), ..binding });
            }
        }
        bindings
    }

    /// None of its own: each of the two has its constants.
    fn constants(&self) -> Constants {
        Vec::new()
    }

    fn shapes(&self) -> String {
        format!("{} | {}", self.first.shapes(), self.second.shapes())
    }

    fn flops(&self) -> u64 {
        self.first.flops() + self.second.flops()
    }
}
