//! The losses as operations of a graph.

use kiln_graph::{Graph, GraphError, Tensor};
use kiln_kernel::DType;

use super::{CrossEntropyOptions, Loss};

/// Below this a probability's logarithm is not taken: the smallest number of 32 bits is near.
const LEAST_PROBABILITY: f32 = 1e-37;
/// Keras' epsilon.
const EPSILON: f32 = 1e-7;

/// A loss recorded for a step.
pub(crate) struct RecordedLoss {
    /// The scalar that is differentiated.
    pub(crate) mean: Tensor,
    /// What is summed over an epoch, with factors, so that the sum divided by the rows is the mean loss;
    /// then, for classification, the number of hits.
    pub(crate) totals: Vec<(Tensor, f32)>,
}

/// How many rows of a split have each label: what a mean over all of them divides by, in whatever batches they come. None where
/// a batch stands for itself, as a step's does.
pub(crate) type LabelCounts<'a> = Option<&'a [u64]>;

/// Losses before the mean.
struct Terms {
    /// \[rows\], or of the output's shape where the loss of a row is the mean of its elements'.
    losses: Tensor,
    /// What the mean divides by, instead of the number of rows.
    divisor: Option<Tensor>,
    /// Of class labels: whether the row is right, where that came with the losses.
    hits: Option<Tensor>,
}

impl From<Tensor> for Terms {
    fn from(losses: Tensor) -> Self {
        Self { losses, divisor: None, hits: None }
    }
}

impl Loss {
    /// Records the loss of each row, \[rows\]: class weights are in it, the mean over the rows is not (PyTorch's
    /// `reduction="none"`, but that elements of one row are averaged).
    ///
    /// `output` is [rows, ...]. `target` is of the same shape, or class labels (integers, \[rows\]).
    ///
    /// # Errors
    /// If the shapes or a setting do not fit the loss.
    pub fn record_rows(&self, g: &mut Graph, output: Tensor, target: Tensor) -> Result<Tensor, GraphError> {
        let terms = self.terms(g, output, target, None)?;
        mean_by_row(g, terms.losses)
    }

    /// Records the mean loss, a scalar, of `output` and `target` as [`Loss::record_rows`] takes them.
    ///
    /// The mean is over the rows; with class weights on class labels, `Σ loss / Σ weight` (PyTorch). Weights of rows
    /// (`sample_weights`, \[rows\]) are factors beside that: `Σ w loss / rows`, as Keras.
    ///
    /// # Errors
    /// If the shapes or a setting do not fit the loss.
    pub fn record_mean(
        &self,
        g: &mut Graph,
        output: Tensor,
        target: Tensor,
        sample_weights: Option<Tensor>,
    ) -> Result<Tensor, GraphError> {
        self.record_part(g, output, target, sample_weights, None)
    }

    /// [`Loss::record_mean`] of a batch of a split whose labels are counted: the batches' means, each times its rows, add up to
    /// that of all rows times their number.
    pub(crate) fn record_part(
        &self,
        g: &mut Graph,
        output: Tensor,
        target: Tensor,
        sample_weights: Option<Tensor>,
        counts: LabelCounts<'_>,
    ) -> Result<Tensor, GraphError> {
        let terms = self.terms(g, output, target, counts)?;
        reduce(g, terms, sample_weights)
    }

    /// Records for each row how far it is right, \[rows\], without a gradient: 1 or 0, of several yes-or-no outputs
    /// the part that is right.
    ///
    /// Of class labels a row is right where the first largest output is at the label; of probabilities where an
    /// output and a target are largest in one place, of several such lists the part of them that is right; of yes-or-no
    /// outputs where both lie on one side of the threshold, 1/2 for probabilities, 0 for logits and hinges.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn record_hits(&self, g: &mut Graph, output: Tensor, target: Tensor) -> Result<Tensor, GraphError> {
        let shape = g.shape(output)?.clone();
        let labels = g.info(target)?.dtype == DType::U32;
        if labels && shape.rank() == 2 && shape[1] > 1 {
            return Ok(g.cross_entropy(output, target, 0.0)?.1);
        }
        let target = self.matching(g, output, target)?;
        if self.is_categorical() && !labels {
            let classes = [shape.rank().saturating_sub(1)];
            let best = g.max(output, &classes, true)?;
            let here = g.equal(output, best)?;
            let wanted = g.max(target, &classes, true)?;
            let there = g.equal(target, wanted)?;
            let both = g.mul(here, there)?;
            let right = g.max(both, &classes, false)?;
            return mean_by_row(g, right);
        }
        let sides = matches!(self, Loss::Hinge | Loss::SquaredHinge);
        let threshold = if sides || matches!(self, Loss::BinaryCrossEntropyWithLogits) { 0.0 } else { 0.5 };
        let at = g.fill([], threshold)?;
        let yes = g.greater(output, at)?;
        let at = g.fill([], if sides { 0.0 } else { 0.5 })?;
        let wanted = g.greater(target, at)?;
        let right = g.equal(yes, wanted)?;
        mean_by_row(g, right)
    }

    /// Records what the output says as probabilities, where it says such: softmax or sigmoid of logits, the
    /// exponential of logarithms, else the output itself.
    ///
    /// # Errors
    /// If the output is not [rows, classes] where that is needed.
    pub fn record_probabilities(&self, g: &mut Graph, output: Tensor) -> Result<Tensor, GraphError> {
        match self {
            Loss::CrossEntropy | Loss::CrossEntropyWith(_) => g.softmax(output, 1),
            Loss::BinaryCrossEntropyWithLogits => g.sigmoid(output),
            Loss::NllLoss => g.exp(output),
            _ => Ok(output),
        }
    }

    /// Records the loss of a batch as [`Loss::record_part`] does, its rows weighted or not, with hits if it `classifies`.
    pub(crate) fn record(
        &self,
        g: &mut Graph,
        (output, target): (Tensor, Tensor),
        sample_weights: Option<Tensor>,
        counts: LabelCounts<'_>,
        classifies: bool,
    ) -> Result<RecordedLoss, GraphError> {
        g.scoped("loss", |g| {
            let rows = g.shape(output)?.dims().first().copied().unwrap_or(1);
            let terms = self.terms(g, output, target, counts)?;
            let (losses, hits) = (terms.losses, terms.hits);
            // where each row counts alike, its loss is summed as it is: one launch with the hits
            let alike = terms.divisor.is_none() && sample_weights.is_none();
            let plain = alike && g.shape(losses)?.rank() == 1;
            let mean = reduce(g, terms, sample_weights)?;
            let mut totals = vec![if plain { (losses, 1.0) } else { (mean, rows as f32) }];
            if classifies {
                let hits = match hits {
                    Some(hits) => hits,
                    None => self.record_hits(g, output, target)?,
                };
                totals.push((hits, 1.0));
            }
            Ok(RecordedLoss { mean, totals })
        })
    }

    fn terms(
        &self,
        g: &mut Graph,
        output: Tensor,
        target: Tensor,
        counts: LabelCounts<'_>,
    ) -> Result<Terms, GraphError> {
        if let Some(message) = self.wrong_setting() {
            return Err(self.error(message));
        }
        if let Some(options) = self.cross_entropy_options() {
            return self.cross_entropy(g, output, target, &options, counts);
        }
        if *self == Loss::NllLoss {
            let (output_shape, info) = (g.shape(output)?.clone(), g.info(target)?.clone());
            if info.dtype != DType::U32 || output_shape.rank() != 2 {
                return Err(self.error(format!(
                    "takes logarithms [rows, classes] and class labels (integers), got {output_shape} and {} {:?}",
                    info.shape, info.dtype
                )));
            }
            let hot = g.one_hot(target, output_shape[1])?;
            // of the others' logarithms nothing counts, though they be infinite
            let product = g.mask(hot, output)?;
            let chosen = g.sum(product, &[1], false)?;
            return Ok(g.neg(chosen)?.into());
        }
        let target = self.matching(g, output, target)?;
        let (p, t) = (output, target);
        // as in Keras the classes lie along the last axis; along others the losses of a row are averaged
        let classes = [g.shape(output)?.rank().saturating_sub(1)];
        Ok(match self {
            Loss::CategoricalHinge => {
                let product = g.mul(t, p)?;
                let positive = g.sum(product, &classes, false)?;
                let others = one_minus(g, t)?;
                let others = g.mul(others, p)?;
                let negative = g.max(others, &classes, false)?;
                let margin = g.sub(negative, positive)?;
                let margin = g.add_constant(margin, 1.0)?;
                g.relu(margin)?.into()
            }
            Loss::KlDivergence => {
                let (p, t) = (at_least(g, p, EPSILON)?, at_least(g, t, EPSILON)?);
                let ratio = g.div(t, p)?;
                let log = g.log(ratio)?;
                let product = g.mul(t, log)?;
                g.sum(product, &classes, false)?.into()
            }
            Loss::CosineSimilarity => {
                let mut length = |x: Tensor| {
                    let square = g.square(x)?;
                    let sum = g.sum(square, &classes, true)?;
                    let sum = at_least(g, sum, 1e-12)?;
                    g.sqrt(sum)
                };
                let (of_p, of_t) = (length(p)?, length(t)?);
                let (p, t) = (g.div(p, of_p)?, g.div(t, of_t)?);
                let product = g.mul(p, t)?;
                let cosine = g.sum(product, &classes, false)?;
                g.neg(cosine)?.into()
            }
            _ => self.elementwise(g, p, t)?.into(),
        })
    }

    /// Losses of which a row's is the mean of its elements'.
    fn elementwise(&self, g: &mut Graph, p: Tensor, t: Tensor) -> Result<Tensor, GraphError> {
        match self {
            Loss::BinaryCrossEntropy => {
                let (q, u) = (one_minus(g, p)?, one_minus(g, t)?);
                let (log_p, log_q) = (log_probability(g, p)?, log_probability(g, q)?);
                let (hit, miss) = (g.mul(t, log_p)?, g.mul(u, log_q)?);
                let sum = g.add(hit, miss)?;
                g.neg(sum)
            }
            Loss::BinaryCrossEntropyWithLogits => {
                let s = g.softplus(p)?;
                let product = g.mul(p, t)?;
                g.sub(s, product)
            }
            Loss::MeanAbsoluteError => {
                let d = g.sub(p, t)?;
                g.abs(d)
            }
            Loss::MeanAbsolutePercentageError => {
                let d = g.sub(t, p)?;
                let (d, size) = (g.abs(d)?, g.abs(t)?);
                let size = at_least(g, size, EPSILON)?;
                let ratio = g.div(d, size)?;
                g.scale(ratio, 100.0)
            }
            Loss::MeanSquaredLogarithmicError => {
                let mut log = |x: Tensor| {
                    let x = at_least(g, x, EPSILON)?;
                    let x = g.add_constant(x, 1.0)?;
                    g.log(x)
                };
                let (p, t) = (log(p)?, log(t)?);
                let d = g.sub(p, t)?;
                g.square(d)
            }
            Loss::Huber { delta } => {
                // m (a - m / 2) with a = |p - t| and m = min(a, delta)
                let d = g.sub(p, t)?;
                let a = g.abs(d)?;
                let delta = g.fill([], *delta)?;
                let m = g.minimum(a, delta)?;
                let half = g.scale(m, 0.5)?;
                let rest = g.sub(a, half)?;
                g.mul(m, rest)
            }
            Loss::LogCosh => {
                let d = g.sub(p, t)?;
                let a = g.abs(d)?;
                let s = g.scale(a, -2.0)?;
                let s = g.softplus(s)?;
                let y = g.add(a, s)?;
                g.add_constant(y, -std::f32::consts::LN_2)
            }
            Loss::Hinge | Loss::SquaredHinge => {
                let product = g.mul(p, t)?;
                let margin = one_minus(g, product)?;
                let margin = g.relu(margin)?;
                if *self == Loss::Hinge { Ok(margin) } else { g.square(margin) }
            }
            Loss::Poisson => {
                let shifted = g.add_constant(p, EPSILON)?;
                let log = g.log(shifted)?;
                let product = g.mul(t, log)?;
                g.sub(p, product)
            }
            // the squared error; the others have been recorded before
            _ => {
                let d = g.sub(p, t)?;
                g.square(d)
            }
        }
    }

    fn cross_entropy(
        &self,
        g: &mut Graph,
        output: Tensor,
        target: Tensor,
        options: &CrossEntropyOptions,
        counts: LabelCounts<'_>,
    ) -> Result<Terms, GraphError> {
        let (shape, labels) = (g.shape(output)?.clone(), g.info(target)?.dtype == DType::U32);
        if shape.rank() != 2 {
            return Err(self.error(format!("needs logits [rows, classes], got {shape}")));
        }
        let (classes, smoothing) = (shape[1], options.label_smoothing);
        let weights = match options.class_weights.as_slice() {
            [] => None,
            weights if weights.len() == classes => Some(g.literal([classes], weights)?),
            weights => {
                let count = weights.len();
                return Err(self.error(format!("{count} class_weights for {classes} classes")));
            }
        };
        let divided = |g: &mut Graph, labels: Tensor, weights: Tensor| {
            let weights = weight_by_row(g, labels, weights, classes)?;
            let divisor = match counts {
                None => g.sum(weights, &[0], false)?,
                Some(counts) => {
                    // what the batch's rows would weigh, were its labels those of all
                    let weighed: f64 = counts
                        .iter()
                        .zip(&options.class_weights)
                        .map(|(&n, &w)| n as f64 * f64::from(w))
                        .sum();
                    let rows = counts.iter().sum::<u64>().max(1);
                    g.fill([], (weighed * shape[0] as f64 / rows as f64) as f32)?
                }
            };
            Ok::<_, GraphError>((weights, Some(divisor)))
        };
        if labels && (weights.is_none() || smoothing == 0.0) {
            let (losses, hits) = g.cross_entropy(output, target, smoothing)?;
            let Some(weights) = weights else {
                return Ok(Terms { losses, divisor: None, hits: Some(hits) });
            };
            let (weights, divisor) = divided(g, target, weights)?;
            return Ok(Terms { losses: g.mul(losses, weights)?, divisor, hits: Some(hits) });
        }
        let divisor = match weights {
            Some(weights) if labels => divided(g, target, weights)?.1,
            _ => None,
        };
        let mut q = self.matching(g, output, target)?;
        if smoothing > 0.0 {
            q = g.scale(q, 1.0 - smoothing)?;
            q = g.add_constant(q, smoothing / classes as f32)?;
        }
        if let Some(weights) = weights {
            q = g.mul(q, weights)?;
        }
        let log = g.log_softmax(output, 1)?;
        let product = g.mul(q, log)?;
        let sum = g.sum(product, &[1], false)?;
        Ok(Terms { losses: g.neg(sum)?, divisor, hits: None })
    }
}

/// The weight of each label's class, \[rows\].
fn weight_by_row(
    g: &mut Graph,
    labels: Tensor,
    weights: Tensor,
    classes: usize,
) -> Result<Tensor, GraphError> {
    let hot = g.one_hot(labels, classes)?;
    let product = g.mul(hot, weights)?;
    g.sum(product, &[1], false)
}

/// The mean of each row's elements, \[rows\].
fn mean_by_row(g: &mut Graph, x: Tensor) -> Result<Tensor, GraphError> {
    let axes: Vec<usize> = (1..g.shape(x)?.rank()).collect();
    if axes.is_empty() { Ok(x) } else { g.mean(x, &axes, false) }
}

fn reduce(g: &mut Graph, terms: Terms, sample_weights: Option<Tensor>) -> Result<Tensor, GraphError> {
    let mut losses = terms.losses;
    if let Some(weights) = sample_weights {
        losses = mean_by_row(g, losses)?;
        let (rows, got) = (g.shape(losses)?.clone(), g.shape(weights)?.clone());
        if got != rows {
            return Err(GraphError::Shape {
                op: "sample_weights".into(),
                scope: "loss".into(),
                message: format!("needs one weight for each row, {rows}, got {got}"),
            });
        }
        losses = g.mul(losses, weights)?;
    }
    match terms.divisor {
        None => g.mean_all(losses),
        Some(divisor) => {
            let sum = g.sum(losses, &[0], false)?;
            // a batch of nothing but classes of weight 0 has a loss of 0
            let divisor = at_least(g, divisor, 1e-12)?;
            g.div(sum, divisor)
        }
    }
}

fn one_minus(g: &mut Graph, x: Tensor) -> Result<Tensor, GraphError> {
    let one = g.fill([], 1.0)?;
    g.sub(one, x)
}

fn at_least(g: &mut Graph, x: Tensor, least: f32) -> Result<Tensor, GraphError> {
    let least = g.fill([], least)?;
    g.maximum(x, least)
}

/// log p, or -100 where p is too small for a logarithm; there without a gradient.
fn log_probability(g: &mut Graph, p: Tensor) -> Result<Tensor, GraphError> {
    let held = at_least(g, p, LEAST_PROBABILITY)?;
    let log = g.log(held)?;
    let least = g.fill([], LEAST_PROBABILITY)?;
    let below = g.greater(least, p)?;
    let rest = g.scale(below, 100.0 + LEAST_PROBABILITY.ln())?;
    g.sub(log, rest)
}

#[cfg(test)]
mod tests {
    use kiln_graph::Interpreter;
    use ndarray::ArrayD;

    use super::*;

    /// Losses and hits of each row.
    fn of(loss: &Loss, dims: &[usize], output: &[f64], target: &[f64]) -> [Vec<f64>; 2] {
        let mut g = Graph::new();
        let (p, t) = (g.input("p", dims).unwrap(), g.input("t", dims).unwrap());
        let (losses, hits) =
            (loss.record_rows(&mut g, p, t).unwrap(), loss.record_hits(&mut g, p, t).unwrap());
        let mut interpreter = Interpreter::new(&g);
        for (name, values) in [("p", output), ("t", target)] {
            interpreter.feed(name, ArrayD::from_shape_vec(dims, values.to_vec()).unwrap());
        }
        [losses, hits].map(|tensor| interpreter.value(tensor).unwrap().iter().copied().collect())
    }

    #[test]
    fn classes_lie_along_the_last_axis() {
        let output = [0.2, 0.5, 0.3, 0.1, 0.1, 0.8, 0.6, 0.3, 0.1, 0.4, 0.4, 0.2];
        let target = [0.0, 1.0, 0.0, 0.3, 0.6, 0.1, 0.7, 0.2, 0.1, 0.1, 0.1, 0.8];
        for loss in [Loss::CategoricalHinge, Loss::KlDivergence, Loss::CosineSimilarity] {
            let (lines, rows) =
                (of(&loss, &[4, 3], &output, &target), of(&loss, &[2, 2, 3], &output, &target));
            for (lines, rows) in lines.iter().zip(&rows) {
                let want: Vec<f64> = lines.chunks(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
                assert!(
                    rows.iter().zip(&want).all(|(got, want)| (got - want).abs() < 1e-12),
                    "{loss:?}: {rows:?}"
                );
            }
        }
    }
}
