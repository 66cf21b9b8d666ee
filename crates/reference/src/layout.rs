//! Walking a [`Layout`] run by run instead of element by element.

use kiln_kernel::Layout;

use crate::{real::Real, simd::vectorize};

/// Calls `f(first, count, at, stride)` for each run of elements `start .. start + len` that lie evenly
/// spaced: element `first + i` of the layout is read at `at + i · stride`. `first` counts from `start`.
#[inline(always)] // so that it is compiled with the vectors of its caller
pub(crate) fn for_runs(
    layout: &Layout,
    start: usize,
    len: usize,
    mut f: impl FnMut(usize, usize, usize, usize),
) {
    let Some(&(size, stride)) = layout.dims.last() else {
        // One element, whatever the index.
        return f(0, len, layout.offset as usize, 0);
    };
    let (size, stride) = (size as usize, stride as usize);
    let mut done = 0;
    while done < len {
        let i = start + done;
        let count = (size - i % size).min(len - done);
        f(done, count, layout.at(i), stride);
        done += count;
    }
}

/// A buffer's elements as a block of a kernel's result sees them.
pub(crate) struct Runs<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) layout: &'a Layout,
    /// The result element that the block's first value is.
    pub(crate) start: usize,
}

impl<T: Real> Runs<'_, T> {
    /// `values[i] = f(values[i], element start + i)`.
    pub(crate) fn zip(&self, values: &mut [T], f: impl Fn(T, T) -> T) {
        vectorize(|| {
            for_runs(self.layout, self.start, values.len(), |first, count, at, stride| {
                let values = &mut values[first..first + count];
                match stride {
                    0 => {
                        let operand = self.data[at];
                        for v in values {
                            *v = f(*v, operand);
                        }
                    }
                    1 => {
                        for (v, &operand) in values.iter_mut().zip(&self.data[at..at + count]) {
                            *v = f(*v, operand);
                        }
                    }
                    _ => {
                        for (v, &operand) in values.iter_mut().zip(self.data[at..].iter().step_by(stride)) {
                            *v = f(*v, operand);
                        }
                    }
                }
            })
        });
    }

    /// `values[i] = element start + i`.
    pub(crate) fn copy_to(&self, values: &mut [T]) {
        for_runs(self.layout, self.start, values.len(), |first, count, at, stride| {
            let values = &mut values[first..first + count];
            match stride {
                0 => values.fill(self.data[at]),
                1 => values.copy_from_slice(&self.data[at..at + count]),
                _ => {
                    for (v, &x) in values.iter_mut().zip(self.data[at..].iter().step_by(stride)) {
                        *v = x;
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_read_what_layout_at_reads() {
        let data: Vec<f64> = (0..200).map(f64::from).collect();
        for layout in [
            Layout::contiguous(24),
            Layout::new(5, [(24, 0)]),
            Layout::new(3, [(2, 60), (3, 0), (4, 1)]),
            Layout::new(0, [(2, 1), (3, 2), (4, 7)]),
            Layout::new(9, [(4, 0), (3, 5), (2, 0)]),
        ] {
            for (start, len) in [(0, 24), (0, 1), (5, 13), (23, 1), (7, 0)] {
                let mut values = vec![0.0; len];
                Runs { data: &data, layout: &layout, start }.copy_to(&mut values);
                let mut sums = vec![1000.0; len];
                Runs { data: &data, layout: &layout, start }.zip(&mut sums, |v, o| v + o);
                for i in 0..len {
                    assert_eq!(values[i], data[layout.at(start + i)], "{layout:?} {start} {i}");
                    assert_eq!(sums[i], 1000.0 + data[layout.at(start + i)], "{layout:?} {start} {i}");
                }
            }
        }
    }

    #[test]
    fn a_scalar_is_read_by_every_element() {
        let layout = Layout::new(2, []);
        let mut values = [0.0; 3];
        Runs { data: &[1.0, 2.0, 3.0], layout: &layout, start: 4 }.copy_to(&mut values);
        assert_eq!(values, [3.0; 3]);
    }
}
