//! The ways in which a device can run a kernel, each with a text that names it: what tuning tries, and
//! remembers.

use kiln_kernel::{BackendError, Kernel, Pair};

use crate::{
    assemble::{Choice, Dispatches, Facts, dispatches, with_choice},
    check, choose, gemm, pair,
};

/// A way to run a kernel other than the one that it runs unless told otherwise.
enum Way<'a> {
    /// A product with another tile.
    Alone(Choice),
    /// A pair in one launch.
    Together(&'a Pair, Choice, Choice),
    /// A pair in two.
    Apart(&'a Pair, Choice, Choice),
}

impl Way<'_> {
    fn variant(&self) -> String {
        match self {
            Way::Alone(choice) => choice.variant.clone(),
            Way::Together(_, a, b) => format!("{} | {}", a.variant, b.variant),
            Way::Apart(_, a, b) => format!("apart: {} | {}", a.variant, b.variant),
        }
    }

    /// `None` where this device cannot run it so: some limits show only in the text.
    fn assemble(self, kernel: &Kernel, facts: &Facts) -> Option<Dispatches> {
        match self {
            Way::Alone(choice) => {
                let choice = choose::with_functions(kernel, choice);
                Some(Dispatches::one(kernel, with_choice(kernel, choice, facts).ok()?))
            }
            Way::Together(of, a, b) => {
                let choices = (choose::with_functions(&of.first, a), choose::with_functions(&of.second, b));
                let assembled = pair::with_choices(kernel, of, choices, facts).ok()?.ok()?;
                Some(Dispatches::one(kernel, assembled))
            }
            Way::Apart(of, a, b) => {
                let first = with_choice(&of.first, choose::with_functions(&of.first, a), facts).ok()?;
                let second = with_choice(&of.second, choose::with_functions(&of.second, b), facts).ok()?;
                Some(Dispatches::apart(of, first, second, ""))
            }
        }
    }
}

/// All ways of a kernel, in the order in which they are worth a try; none if there is no choice.
fn ways<'a>(kernel: &'a Kernel, facts: &Facts) -> Result<Vec<Way<'a>>, BackendError> {
    check::kernel(kernel)?;
    let Kernel::Pair(of) = kernel else {
        return Ok(gemm::candidates(kernel, facts)?.into_iter().map(Way::Alone).collect());
    };
    let found = gemm::pair_candidates(&of.first, &of.second, facts)?;
    let together = found.together.into_iter().map(|(a, b)| Way::Together(of, a, b));
    let apart = found.apart.into_iter().map(|(a, b)| Way::Apart(of, a, b));
    Ok(together.chain(apart).collect())
}

/// The texts of all variants in which a device can run a kernel, that which it runs unless told otherwise
/// first.
///
/// # Errors
/// As [`dispatches`].
pub fn variants(kernel: &Kernel, facts: &Facts) -> Result<Vec<String>, BackendError> {
    let default = dispatches(kernel, facts)?.variant;
    let mut all = vec![default];
    for way in ways(kernel, facts)? {
        let text = way.variant();
        // a default that runs apart says why, and may have the tiles of another
        let is_default = text
            .strip_prefix("apart: ")
            .is_some_and(|tiles| all[0].starts_with("apart: ") && all[0].ends_with(&format!(": {tiles}")));
        if !is_default && !all.contains(&text) && way.assemble(kernel, facts).is_some() {
            all.push(text);
        }
    }
    Ok(all)
}

/// As [`dispatches`], in the variant of this text; `None` if it names none in which the device can run the
/// kernel.
///
/// # Errors
/// As [`dispatches`].
pub fn dispatches_as(
    kernel: &Kernel,
    facts: &Facts,
    variant: &str,
) -> Result<Option<Dispatches>, BackendError> {
    let default = dispatches(kernel, facts)?;
    if default.variant == variant {
        return Ok(Some(default));
    }
    let way = ways(kernel, facts)?.into_iter().find(|way| way.variant() == variant);
    Ok(way.and_then(|way| way.assemble(kernel, facts)))
}
