//! Seeded draws for the tests.

use kiln_graph::Array;
use kiln_kernel::random::Stream;
use ndarray::IxDyn;

/// Random numbers one after the other, from a seed.
pub struct Random {
    stream: Stream,
    next: u32,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { stream: Stream { seed, stream: 0x7e57, step: 0 }, next: 0 }
    }

    fn index(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    /// Uniform in [low, high), with all the digits of an `f32`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        let i = self.index();
        f64::from((low + (high - low) * f64::from(self.stream.uniform(i))) as f32)
    }

    /// A whole number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        let i = self.index();
        self.stream.below(i, bound as u32) as usize
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform(0.0, 1.0) < probability
    }

    /// One of a list.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let i = self.below(from.len());
        from[i].clone()
    }

    /// An array of uniform numbers.
    pub fn array(&mut self, shape: &[usize], low: f64, high: f64) -> Array {
        Array::from_shape_simple_fn(IxDyn(shape), || self.uniform(low, high))
    }
}
