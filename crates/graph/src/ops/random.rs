//! Random numbers as tensors.

use kiln_kernel::{self as kernel, CLOCK_WORDS, DType, Kernel, Shape, Tail, random::Stream};
use ndarray::IxDyn;

use super::{Op, Rule, real};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// Standard normal numbers.
#[derive(Clone, Debug)]
pub(crate) struct RandomNormal {
    pub(crate) shape: Shape,
    pub(crate) stream: u32,
}

impl Rule for RandomNormal {
    fn name(&self) -> &'static str {
        "random_normal"
    }

    fn dtypes(&self) -> &'static [DType] {
        &[DType::U32]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        if inputs[0].elements() != CLOCK_WORDS {
            return Err(format!("the clock has {CLOCK_WORDS} words, got {}", inputs[0]));
        }
        real(&self.shape)
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let clock: Vec<u32> = inputs[0].iter().map(|&word| word as u32).collect();
        let seed = u64::from(clock[3]) | u64::from(clock[4]) << 32;
        let stream = Stream { seed, stream: self.stream, step: clock[0] };
        let numbers = (0..self.shape.elements()).map(|i| f64::from(stream.normal(i as u32)));
        let drawn = Array::from_shape_vec(IxDyn(self.shape.dims()), numbers.collect());
        vec![drawn.unwrap_or_else(|_| unreachable!("one number for each element"))]
    }

    /// The clock has no gradient.
    fn vjp(
        &self,
        _: &mut Graph,
        _: &[Tensor],
        _: &[Tensor],
        _: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        Ok(vec![None])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let len = self.shape.elements() as u32;
        let (clock, y) = (to.argument(node.inputs[0])?, to.result(node.outputs[0]));
        let kernel = kernel::RandomNormal { len, stream: self.stream, tail: Tail::default() };
        to.emit(Kernel::RandomNormal(kernel), vec![clock, y]);
        Ok(())
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(2)
    }
}

impl Graph {
    /// Standard normal numbers. Each call draws from a stream of its own; the numbers follow from the clock's seed
    /// and step.
    ///
    /// # Errors
    /// If the shape is too large or has an axis of size 0.
    ///
    /// Source: Box and Muller (1958).
    pub fn random_normal(&mut self, shape: impl Into<Shape>) -> Result<Tensor, GraphError> {
        let clock = self.clock()?;
        let stream = self.next_stream();
        self.record1(Op::RandomNormal(RandomNormal { shape: shape.into(), stream }), &[clock])
    }

    /// x + stddev · n, with n standard normal numbers, new at every step.
    ///
    /// # Errors
    /// If the standard deviation is negative or not finite.
    ///
    /// Source: Keras' `GaussianNoise`.
    pub fn gaussian_noise(&mut self, x: Tensor, stddev: f32) -> Result<Tensor, GraphError> {
        if !stddev.is_finite() || stddev < 0.0 {
            return Err(GraphError::Shape {
                op: "gaussian_noise".into(),
                scope: self.scope(),
                message: format!("the standard deviation must be at least 0 and finite, is {stddev}"),
            });
        }
        let shape = self.shape(x)?.clone();
        let noise = self.random_normal(shape)?;
        let noise = self.scale(noise, stddev)?;
        self.add(noise, x)
    }
}
