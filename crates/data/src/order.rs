use kiln_kernel::random::Stream;

use crate::streams;

/// The order in which an epoch visits the rows of a split: `0..len`, shuffled or not.
///
/// A pure function: the same for a resumed run, whatever was drawn before, on every platform. Philox under
/// (`seed`, shuffling, `epoch`) and Fisher and Yates' shuffle.
///
/// ```
/// let order = kiln_data::order(7, 0, 5, true);
/// assert_eq!(order, kiln_data::order(7, 0, 5, true));
/// assert_eq!(kiln_data::order(7, 0, 5, false), [0, 1, 2, 3, 4]);
/// ```
pub fn order(seed: u64, epoch: u32, len: usize, shuffle: bool) -> Vec<u32> {
    if shuffle {
        Stream { seed, stream: streams::SHUFFLE, step: epoch }.permutation(len)
    } else {
        (0..len as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_and_seeds_differ_and_hold_each_row_once() {
        let orders = [order(1, 0, 500, true), order(1, 1, 500, true), order(2, 0, 500, true)];
        for (i, a) in orders.iter().enumerate() {
            let mut sorted = a.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, order(1, 0, 500, false));
            assert!(orders.iter().skip(i + 1).all(|b| a != b));
        }
        assert!(order(1, 0, 0, true).is_empty());
    }
}
