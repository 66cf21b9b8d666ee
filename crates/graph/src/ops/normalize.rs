//! Normalisation by mean and variance: of batches, layers and groups.

use kiln_kernel::{self as kernel, Binary, DType, Kernel, Layout, Real, Shape, splits_for};
use ndarray::Axis;

use super::{Op, Rule, broadcast_shapes};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// (x - mean) rstd gamma + beta over some axes, with the biased variance; and mean, variance and
/// rstd = 1 / √(variance + eps), in which the axes have size 1.
#[derive(Clone, Debug)]
pub(crate) struct Normalize {
    /// Sorted, without repeats.
    pub(crate) axes: Vec<usize>,
    pub(crate) eps: Real,
}

impl Normalize {
    fn terms(&self, x: &Shape) -> usize {
        self.axes.iter().map(|&axis| x[axis]).product()
    }
}

impl Rule for Normalize {
    fn name(&self) -> &'static str {
        "normalize"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        let x = inputs[0];
        if let Some(axis) = self.axes.iter().find(|&&axis| axis >= x.rank()) {
            return Err(format!("axis {axis} does not exist in {x}"));
        }
        if !self.eps.0.is_finite() || self.eps.0 < 0.0 {
            return Err(format!("eps must be at least 0 and finite, is {}", self.eps.0));
        }
        for (what, shape) in [("gamma", inputs[1]), ("beta", inputs[2])] {
            if broadcast_shapes(x, shape).as_ref() != Some(x) {
                return Err(format!("{what} {shape} does not broadcast to {x}"));
            }
        }
        let size = |axis: usize| if self.axes.contains(&axis) { 1 } else { x[axis] };
        let statistics: Shape = (0..x.rank()).map(size).collect::<Vec<_>>().into();
        let mut outputs = vec![(x.clone(), DType::F32)];
        outputs.resize(4, (statistics, DType::F32));
        Ok(outputs)
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let mean_of = |x: &Array| {
            let mut mean = x.clone();
            for &axis in &self.axes {
                let terms = mean.len_of(Axis(axis)) as f64;
                mean = mean.sum_axis(Axis(axis)).insert_axis(Axis(axis)) / terms;
            }
            mean
        };
        let x = inputs[0];
        let mean = mean_of(x);
        let centred = x - &mean;
        let variance = mean_of(&centred.mapv(|d| d * d));
        let rstd = variance.mapv(|v| 1.0 / (v + f64::from(self.eps.0)).sqrt());
        let y = centred * &rstd * inputs[1] + inputs[2];
        vec![y, mean, variance, rstd]
    }

    /// With x̂ = (x - mean) rstd and d = dy gamma: dgamma = Σ dy x̂, dbeta = Σ dy,
    /// dx = (d - mean of d - x̂ · mean of (d x̂)) rstd; recorded such that each line becomes one launch. Where gamma is
    /// the same for all that is normalised together (batch normalisation), the two means are gamma dbeta / N and
    /// gamma dgamma / N, which are there already.
    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        wanted: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let [x, gamma, beta] = [inputs[0], inputs[1], inputs[2]];
        let [mean, rstd] = [outputs[1], outputs[3]];
        let share = 1.0 / self.terms(&g.shape(x)?.clone()) as f32;
        let normalised = |g: &mut Graph| {
            let centred = g.sub(x, mean)?;
            g.mul(centred, rstd)
        };
        let mut gradients = vec![None, None, None];
        if let Some(dy) = dys[0] {
            let statistics = g.shape(mean)?.clone();
            let by_statistics = *g.shape(gamma)? == statistics && *g.shape(beta)? == statistics;
            if wanted[1] || (by_statistics && wanted[0]) {
                let product = normalised(g)?;
                let product = g.mul(product, dy)?;
                let shape = g.shape(gamma)?.clone();
                gradients[1] = Some(g.sum_to(product, shape)?);
            }
            if wanted[2] || (by_statistics && wanted[0]) {
                let shape = g.shape(beta)?.clone();
                gradients[2] = Some(g.sum_to(dy, shape)?);
            }
            if wanted[0] {
                let (d, weighted, sum, factor) = match (by_statistics, gradients[1], gradients[2]) {
                    (true, Some(dgamma), Some(dbeta)) => (dy, dgamma, dbeta, g.mul(gamma, rstd)?),
                    _ => {
                        let d = g.mul(dy, gamma)?;
                        let product = normalised(g)?;
                        let product = g.mul(product, d)?;
                        (d, g.sum_to(product, &statistics)?, g.sum_to(d, &statistics)?, rstd)
                    }
                };
                let v = normalised(g)?;
                let v = g.mul(v, weighted)?;
                let v = g.add(v, sum)?;
                let v = g.scale(v, -share)?;
                let v = g.add(v, d)?;
                gradients[0] = Some(g.mul(v, factor)?);
            }
        }
        if wanted[0] {
            let mut add = |g: &mut Graph, term: Tensor| -> Result<(), GraphError> {
                gradients[0] = Some(match gradients[0] {
                    Some(sum) => g.add(sum, term)?,
                    None => term,
                });
                Ok(())
            };
            if let Some(dmean) = dys[1] {
                let term = g.scale(dmean, share)?;
                let shape = g.shape(x)?.clone();
                let term = g.broadcast(term, shape)?;
                add(g, term)?;
            }
            let mut dvariance = dys[2];
            if let Some(drstd) = dys[3] {
                // d(v + eps)^(-1/2) = -1/2 rstd³
                let cube = g.square(rstd)?;
                let cube = g.mul(cube, rstd)?;
                let term = g.mul(cube, drstd)?;
                let term = g.scale(term, -0.5)?;
                dvariance = Some(match dvariance {
                    Some(sum) => g.add(sum, term)?,
                    None => term,
                });
            }
            if let Some(dvariance) = dvariance {
                let factor = g.scale(dvariance, 2.0 * share)?;
                let centred = g.sub(x, mean)?;
                let term = g.mul(centred, factor)?;
                add(g, term)?;
            }
        }
        for (gradient, &input) in gradients.iter_mut().zip(inputs) {
            if gradient.is_none() {
                let shape = g.shape(input)?.clone();
                *gradient = Some(g.fill(shape, 0.0)?);
            }
        }
        Ok(gradients)
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let shape = to.shape(node.inputs[0]);
        let strides = shape.strides();
        let part = |reduced: bool| {
            let axes = (0..shape.rank()).filter(|a| self.axes.contains(a) == reduced);
            Layout::new(0, axes.map(|a| (shape[a], strides[a])))
        };
        let (kept, reduced) = (part(false), part(true));
        let (outputs, terms) = (kept.len(), reduced.len());
        let splits = splits_for(terms, outputs);
        let x = to.argument(node.inputs[0])?;
        let statistics: Vec<_> = node.outputs[1..].iter().map(|&t| to.result(t)).collect();
        let moments = kernel::Moments { kept, reduced, len: shape.elements() as u32, splits, eps: self.eps };
        if splits == 1 {
            to.emit(Kernel::Moments(moments), [vec![x], statistics].concat());
        } else {
            let partial = to.scratch(2 * splits as usize * outputs);
            to.emit(Kernel::Moments(moments), vec![x, partial]);
            let finish =
                kernel::MomentsFinish { outputs: outputs as u32, terms: terms as u32, splits, eps: self.eps };
            to.emit(Kernel::MomentsFinish(finish), [vec![partial], statistics].concat());
        }
        let functions = [
            (Binary::Sub, node.outputs[1]),
            (Binary::Mul, node.outputs[3]),
            (Binary::Mul, node.inputs[1]),
            (Binary::Add, node.inputs[2]),
        ];
        to.chain(node.inputs[0], &functions, node.outputs[0])
    }

    /// The chain's x, y, mean, rstd, gamma and beta.
    fn tail_hook(&self) -> Option<usize> {
        Some(6)
    }
}

impl Graph {
    /// y, mean and variance of `x` normalised over some axes, with gamma and beta in shapes that broadcast to it.
    fn normalize(
        &mut self,
        axes: Vec<usize>,
        [x, gamma, beta]: [Tensor; 3],
        eps: f32,
    ) -> Result<[Tensor; 3], GraphError> {
        let outputs = self.record(Op::Normalize(Normalize { axes, eps: Real(eps) }), &[x, gamma, beta])?;
        Ok([outputs[0], outputs[1], outputs[2]])
    }

    /// One number for each channel of `x` [batch, channels, ...], in a shape that broadcasts to it.
    fn by_channel(&mut self, op: &str, x: &Shape, vector: Tensor) -> Result<Tensor, GraphError> {
        let own = self.shape(vector)?.clone();
        let channels = x.dims().get(1).copied();
        if channels != Some(own.elements()) || own.rank() != 1 {
            let message = match channels {
                Some(channels) => format!("{x} has {channels} channels, {own} is not one number for each"),
                None => format!("needs [batch, channels, ...], got {x}"),
            };
            return Err(GraphError::Shape { op: op.into(), scope: self.scope(), message });
        }
        let mut dims = vec![1; x.rank()];
        dims[1] = own.elements();
        self.reshape(vector, dims)
    }

    /// Batch normalisation in training: x [batch, channels, ...] to `(y, mean, variance)`, with
    /// `y = (x - mean) / √(variance + eps) · gamma + beta`, mean and biased variance \[channels\] those of each channel
    /// over all other axes; gamma and beta are \[channels\].
    ///
    /// [`Graph::batch_norm_averages`] keeps the statistics that [`Graph::batch_norm_eval`] evaluates with.
    ///
    /// # Errors
    /// If there are not as many gammas and betas as channels, or eps is negative.
    ///
    /// Source: Ioffe and Szegedy (2015), as PyTorch's `batch_norm`.
    pub fn batch_norm(
        &mut self,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        eps: f32,
    ) -> Result<(Tensor, Tensor, Tensor), GraphError> {
        let shape = self.shape(x)?.clone();
        let gamma = self.by_channel("batch_norm", &shape, gamma)?;
        let beta = self.by_channel("batch_norm", &shape, beta)?;
        let axes = (0..shape.rank()).filter(|&axis| axis != 1).collect();
        let [y, mean, variance] = self.normalize(axes, [x, gamma, beta], eps)?;
        let (mean, variance) = (self.reshape(mean, [shape[1]])?, self.reshape(variance, [shape[1]])?);
        Ok((y, mean, variance))
    }

    /// Lets the parameters `running_mean` and `running_variance` follow the statistics that [`Graph::batch_norm`] gave
    /// for `x`: after each training step `running = (1 - momentum) running + momentum now`, with the variance unbiased,
    /// n / (n - 1) times that of the n numbers of a channel (of one alone: as it is).
    ///
    /// # Errors
    /// As [`Graph::running_average`].
    ///
    /// Source: PyTorch's `batch_norm` (Keras' momentum is 1 less this one).
    pub fn batch_norm_averages(
        &mut self,
        x: Tensor,
        (mean, variance): (Tensor, Tensor),
        (running_mean, running_variance): (&str, &str),
        momentum: f32,
    ) -> Result<(), GraphError> {
        let terms = self.shape(x)?.elements() / self.shape(mean)?.elements();
        let unbiased = if terms > 1 {
            self.scale(variance, (terms as f64 / (terms - 1) as f64) as f32)?
        } else {
            variance
        };
        self.running_average(running_mean, mean, momentum)?;
        self.running_average(running_variance, unbiased, momentum)
    }

    /// Batch normalisation in evaluation: `(x - mean) / √(variance + eps) · gamma + beta` with given statistics; all four
    /// are \[channels\], x is [batch, channels, ...].
    ///
    /// # Errors
    /// If one of them has not as many elements as x has channels.
    ///
    /// Source: PyTorch's `batch_norm`.
    pub fn batch_norm_eval(
        &mut self,
        x: Tensor,
        (gamma, beta): (Tensor, Tensor),
        (mean, variance): (Tensor, Tensor),
        eps: f32,
    ) -> Result<Tensor, GraphError> {
        let shape = self.shape(x)?.clone();
        let mut by_channel = |vector: Tensor| self.by_channel("batch_norm_eval", &shape, vector);
        let (gamma, beta) = (by_channel(gamma)?, by_channel(beta)?);
        let (mean, variance) = (by_channel(mean)?, by_channel(variance)?);
        let factor = self.add_constant(variance, eps)?;
        let factor = self.sqrt(factor)?;
        let factor = self.reciprocal(factor)?;
        let factor = self.mul(factor, gamma)?;
        let y = self.sub(x, mean)?;
        let y = self.mul(y, factor)?;
        self.add(y, beta)
    }

    /// Layer normalisation over the last axes of `x`, those that gamma and beta have: each item's mean and biased
    /// variance over them, `y = (x - mean) / √(variance + eps) · gamma + beta`.
    ///
    /// # Errors
    /// If gamma and beta have not the shape of the last axes, or eps is negative.
    ///
    /// Source: Ba, Kiros and Hinton (2016), as PyTorch's `layer_norm`.
    pub fn layer_norm(
        &mut self,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        eps: f32,
    ) -> Result<Tensor, GraphError> {
        let (shape, own, other) =
            (self.shape(x)?.clone(), self.shape(gamma)?.clone(), self.shape(beta)?.clone());
        if own.rank() == 0 || !shape.dims().ends_with(own.dims()) || own != other {
            return Err(GraphError::Shape {
                op: "layer_norm".into(),
                scope: self.scope(),
                message: format!("gamma {own} and beta {other} must both have the last axes of {shape}"),
            });
        }
        let axes = (shape.rank() - own.rank()..shape.rank()).collect();
        Ok(self.normalize(axes, [x, gamma, beta], eps)?[0])
    }

    /// Group normalisation of x [batch, channels, ...]: mean and biased variance of each item over each of `groups`
    /// groups of neighbouring channels, then gamma and beta \[channels\] by channel. As many groups as channels give
    /// instance normalisation.
    ///
    /// # Errors
    /// If the groups do not divide the channels, or there are not as many gammas and betas as channels.
    ///
    /// Source: Wu and He (2018), as PyTorch's `group_norm`.
    pub fn group_norm(
        &mut self,
        x: Tensor,
        groups: usize,
        gamma: Tensor,
        beta: Tensor,
        eps: f32,
    ) -> Result<Tensor, GraphError> {
        let shape = self.shape(x)?.clone();
        // checks that there are channels
        self.by_channel("group_norm", &shape, gamma)?;
        self.by_channel("group_norm", &shape, beta)?;
        if groups == 0 || !shape[1].is_multiple_of(groups) {
            return Err(GraphError::Shape {
                op: "group_norm".into(),
                scope: self.scope(),
                message: format!("{groups} groups do not divide the {} channels of {shape}", shape[1]),
            });
        }
        let each = shape[1] / groups;
        let rest: usize = shape.dims()[2..].iter().product();
        let spread = self.reshape(x, [shape[0], groups, each, rest])?;
        let gamma = self.reshape(gamma, [1, groups, each, 1])?;
        let beta = self.reshape(beta, [1, groups, each, 1])?;
        let y = self.normalize(vec![2, 3], [spread, gamma, beta], eps)?[0];
        self.reshape(y, shape)
    }
}
