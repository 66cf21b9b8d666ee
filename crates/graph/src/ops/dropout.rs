//! Inverted dropout.

use kiln_kernel::{self as kernel, CLOCK_WORDS, DType, Kernel, Real, Shape, Tail, random::Stream};

use super::{Op, Rule, incoming, real};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// x / (1 - rate) where the element's random number is at least the rate, else 0.
#[derive(Clone, Debug)]
pub(crate) struct Dropout {
    pub(crate) rate: Real,
    /// How many neighbouring elements share a draw.
    pub(crate) group: usize,
    pub(crate) stream: u32,
}

impl Rule for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn dtypes(&self) -> &'static [DType] {
        &[DType::F32, DType::U32]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        if !(0.0..1.0).contains(&self.rate.0) {
            return Err(format!("rate must be in [0, 1), is {}", self.rate.0));
        }
        if self.group == 0 || !inputs[0].elements().is_multiple_of(self.group) {
            return Err(format!("{} elements are no whole groups of {}", inputs[0].elements(), self.group));
        }
        if inputs[1].elements() != CLOCK_WORDS {
            return Err(format!("the clock has {CLOCK_WORDS} words, got {}", inputs[1]));
        }
        real(inputs[0])
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let clock: Vec<u32> = inputs[1].iter().map(|&word| word as u32).collect();
        let seed = u64::from(clock[3]) | u64::from(clock[4]) << 32;
        let stream = Stream { seed, stream: self.stream, step: clock[0] };
        let scale = 1.0 / (1.0 - f64::from(self.rate.0));
        let mut y = inputs[0].clone();
        for (i, y) in y.iter_mut().enumerate() {
            *y *= if stream.uniform((i / self.group) as u32) >= self.rate.0 { scale } else { 0.0 };
        }
        vec![y]
    }

    /// Linear: the same mask again.
    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let dy = incoming(g, outputs, dys, 0)?;
        Ok(vec![Some(g.record1(Op::Dropout(self.clone()), &[dy, inputs[1]])?), None])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let len = to.shape(node.inputs[0]).elements() as u32;
        let (x, clock) = (to.argument(node.inputs[0])?, to.argument(node.inputs[1])?);
        let y = to.result(node.outputs[0]);
        let kernel = kernel::Dropout {
            len,
            rate: self.rate,
            group: self.group as u32,
            stream: self.stream,
            tail: Tail::default(),
        };
        to.emit(Kernel::Dropout(kernel), vec![x, clock, y]);
        Ok(())
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(3)
    }
}

impl Graph {
    /// Sets each element to zero with probability `rate` and divides the others by `1 - rate`, so that the
    /// mean stays. Each call draws from a stream of its own; the numbers follow from the clock's seed and
    /// step.
    ///
    /// # Errors
    /// If the rate is not in [0, 1).
    ///
    /// Source: Srivastava et al. (2014), in the inverted form of PyTorch and Keras.
    pub fn dropout(&mut self, x: Tensor, rate: f32) -> Result<Tensor, GraphError> {
        self.dropout_groups(x, rate, 1)
    }

    /// Dropout of whole channels: x [batch, channels, height, width], each plane kept or dropped as one.
    ///
    /// # Errors
    /// If `x` has not four axes, or the rate is not in [0, 1).
    ///
    /// Source: Tompson et al. (2015), as PyTorch's `Dropout2d` and Keras' `SpatialDropout2D`.
    pub fn spatial_dropout2d(&mut self, x: Tensor, rate: f32) -> Result<Tensor, GraphError> {
        let shape = self.image("spatial_dropout2d", x)?;
        self.dropout_groups(x, rate, shape[2] * shape[3])
    }

    fn dropout_groups(&mut self, x: Tensor, rate: f32, group: usize) -> Result<Tensor, GraphError> {
        let clock = self.clock()?;
        let stream = self.next_stream();
        self.record1(Op::Dropout(Dropout { rate: Real(rate), group, stream }), &[x, clock])
    }
}
