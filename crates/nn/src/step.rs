//! The graphs of a training step and of an evaluation, over a data set that lies on the device.

use kiln_data::{RowKind, Split};
use kiln_graph::{Collect, GatherOptions, Graph, GraphError, Request, Segments, Tensor};
use kiln_kernel::{Advance, GatherType, Shape};

use crate::{
    Loss, Mode, Network, NnError, Optimizer, Preprocess, Recording, TargetKind, loss::record::RecordedLoss,
};

/// Rows of the hyper-parameter table: steps that run before it is written again.
pub(crate) const HYPER_ROWS: usize = 1024;

/// Names of the inputs that hold a resident data set.
pub(crate) const FEATURES: &str = "features";
pub(crate) const TARGETS: &str = "targets";
pub(crate) const ORDER: &str = "order";
pub(crate) const SAMPLE_WEIGHTS: &str = "sample_weights";
/// Name of the buffer that an evaluation's outputs are kept in.
pub(crate) const OUTPUTS: &str = "outputs";

/// The form of a resident split: all that its plans depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Form {
    pub(crate) items: usize,
    pub(crate) item: Shape,
    pub(crate) bytes: bool,
    pub(crate) targets: TargetKind,
    /// Whether each item has a weight in the loss.
    pub(crate) weighted: bool,
}

impl Form {
    pub(crate) fn of(split: &Split) -> Self {
        Self {
            items: split.len(),
            item: split.item_shape().clone(),
            bytes: split.kind() == RowKind::Bytes,
            targets: TargetKind::of(split),
            weighted: false,
        }
    }

    pub(crate) fn record_features(
        &self,
        g: &mut Graph,
        rows: usize,
        preprocess: &Preprocess,
    ) -> Result<Tensor, GraphError> {
        // what overflows is refused by the graph, as is all that is too large
        let elements = self.items.saturating_mul(self.item.elements());
        let (data, dtype) = match self.bytes {
            true => (g.input_u32(FEATURES, [elements.div_ceil(4)])?, GatherType::U8),
            false => (g.input(FEATURES, [elements])?, GatherType::F32),
        };
        let order = g.input_u32(ORDER, [self.items])?;
        let (scale, shift) = preprocess.factors(self.bytes);
        g.scoped("batch", |g| {
            let options =
                GatherOptions { rows, items: self.items, item: self.item.clone(), dtype, scale, shift };
            g.gather(data, order, options)
        })
    }

    /// The targets of the rows that `x` holds as the network sees them.
    fn record_targets(&self, g: &mut Graph, rows: usize, x: Tensor) -> Result<Tensor, GraphError> {
        let order = g.input_u32(ORDER, [self.items])?;
        let items = self.items;
        g.scoped("batch", |g| match &self.targets {
            TargetKind::Classes(_) => {
                let data = g.input_u32(TARGETS, [items])?;
                let (item, dtype) = (Shape::scalar(), GatherType::U32);
                let labels = g.gather(
                    data,
                    order,
                    GatherOptions { rows, items, item, dtype, scale: vec![], shift: vec![] },
                )?;
                Ok(labels)
            }
            TargetKind::Real(shape) => {
                let data = g.input(TARGETS, [items * shape.elements()])?;
                let (item, dtype) = (shape.clone(), GatherType::F32);
                g.gather(
                    data,
                    order,
                    GatherOptions { rows, items, item, dtype, scale: vec![1.0], shift: vec![0.0] },
                )
            }
            TargetKind::Input(_) => Ok(x),
        })
    }

    fn record_weights(&self, g: &mut Graph, rows: usize) -> Result<Option<Tensor>, GraphError> {
        if !self.weighted {
            return Ok(None);
        }
        let order = g.input_u32(ORDER, [self.items])?;
        let data = g.input(SAMPLE_WEIGHTS, [self.items])?;
        let options = GatherOptions {
            rows,
            items: self.items,
            item: Shape::scalar(),
            dtype: GatherType::F32,
            scale: vec![1.0],
            shift: vec![0.0],
        };
        g.scoped("batch", |g| g.gather(data, order, options)).map(Some)
    }
}

/// A recorded step and what to compute of it.
pub(crate) struct Recorded {
    pub(crate) graph: Graph,
    pub(crate) request: Request,
}

/// Refuses a loss that does not fit the targets, or an output that does not.
pub(crate) fn check_targets(model: &Network, loss: &Loss, form: &Form) -> Result<(), NnError> {
    if model.input_shape() != form.item {
        return Err(NnError::Settings(format!(
            "the network takes items of shape {}, the data have {}",
            model.input_shape(),
            form.item
        )));
    }
    for (i, shape) in model.output_shapes()?.iter().enumerate() {
        let own = model.outputs().get(i).and_then(|output| output.loss.as_ref());
        let checked = own.unwrap_or(loss).check_targets(shape, &form.targets);
        checked.map_err(|error| match model.outputs().get(i) {
            Some(output) => NnError::Settings(format!("output \"{}\": {error}", output.layer)),
            None => error,
        })?;
    }
    Ok(())
}

/// A network recorded with its loss.
struct RecordedNetwork {
    loss: RecordedLoss,
    /// The main result.
    output: Tensor,
    /// The trainable parameters.
    trained: Vec<(String, Tensor)>,
}

/// Records the network and its loss: the sum over the outputs, each with its weight, and the layers' penalties.
fn record_loss(
    model: &Network,
    loss: &Loss,
    g: &mut Graph,
    mode: Mode,
    form: &Form,
    (x, target): (Tensor, Tensor),
) -> Result<RecordedNetwork, GraphError> {
    let rows = g.shape(x)?[0];
    let weights = form.record_weights(g, rows)?;
    let mut to = Recording::new(g, mode);
    let loss_of = |i: usize| model.outputs().get(i).and_then(|output| output.loss.as_ref()).unwrap_or(loss);
    let outputs = model.record(&mut to, x, |i| loss_of(i).includes_softmax())?;
    let (specs, penalties) = (to.parameters().to_vec(), to.penalties().to_vec());
    let weight_of = |i: usize| model.outputs().get(i).map_or(1.0, |output| output.weight);
    let classifies = loss_of(0).is_classification(&form.targets);
    let mut recorded = loss_of(0).record(g, outputs[0], target, weights, classifies)?;
    let main = recorded.mean;
    g.scoped("loss", |g| {
        let mut mean = g.scale(main, weight_of(0))?;
        // everything but the main loss, for the totals
        let mut extra: Option<Tensor> = None;
        let mut summands = penalties;
        for (i, &output) in outputs.iter().enumerate().skip(1) {
            let other = loss_of(i).record_mean(g, output, target, weights)?;
            summands.push(g.scale(other, weight_of(i))?);
        }
        for summand in summands {
            extra = Some(match extra {
                Some(extra) => g.add(extra, summand)?,
                None => summand,
            });
        }
        if let Some(extra) = extra {
            mean = g.add(mean, extra)?;
            recorded.totals.push((extra, rows as f32));
        }
        recorded.totals[0].1 *= weight_of(0);
        recorded.mean = mean;
        Ok::<(), GraphError>(())
    })?;
    let mut trained = Vec::new();
    for spec in specs.into_iter().filter(|spec| spec.trainable) {
        let tensor = g.parameter(&spec.name, spec.shape)?;
        trained.push((spec.name, tensor));
    }
    Ok(RecordedNetwork { loss: recorded, output: outputs[0], trained })
}

/// One training step on `rows` rows: batch, loss, gradients, update, clock.
pub(crate) fn record_training(
    model: &Network,
    loss: &Loss,
    optimizer: &Optimizer,
    preprocess: &Preprocess,
    form: &Form,
    rows: usize,
) -> Result<Recorded, GraphError> {
    let mut g = Graph::new();
    let x = form.record_features(&mut g, rows, preprocess)?;
    let target = form.record_targets(&mut g, rows, x)?;
    let RecordedNetwork { loss, trained, .. } =
        record_loss(model, loss, &mut g, Mode::Train, form, (x, target))?;
    let tensors: Vec<Tensor> = trained.iter().map(|(_, tensor)| *tensor).collect();
    let gradients = g.gradients(loss.mean, &tensors)?;
    // as the trainer lays them out
    let parameters: Vec<(String, Shape)> =
        model.parameters()?.into_iter().map(|p| (p.name, p.shape)).collect();
    let segments = Segments::new(&parameters);
    let request = Request {
        gradients: trained.into_iter().map(|(name, _)| name).zip(gradients).collect(),
        averages: g.averages().to_vec(),
        totals: loss.totals,
        updates: optimizer.launches(&segments, HYPER_ROWS),
        advance: Some(Advance { batch: rows as u32, steps: 1 }),
        ..Request::default()
    };
    Ok(Recorded { graph: g, request })
}

/// What an evaluation keeps on the device beside the sums of losses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keep {
    /// Counts of what was predicted as what.
    pub(crate) tally: bool,
    /// The outputs of this many rows.
    pub(crate) outputs: Option<usize>,
}

/// The loss of `rows` rows, summed into the totals, and what else is kept.
pub(crate) fn record_evaluation(
    model: &Network,
    loss: &Loss,
    preprocess: &Preprocess,
    form: &Form,
    keep: Keep,
    rows: usize,
) -> Result<Recorded, GraphError> {
    let mut g = Graph::new();
    let x = form.record_features(&mut g, rows, preprocess)?;
    let target = form.record_targets(&mut g, rows, x)?;
    let recorded = record_loss(model, loss, &mut g, Mode::Eval, form, (x, target))?;
    let mut request = Request {
        totals: recorded.loss.totals,
        advance: Some(Advance { batch: rows as u32, steps: 0 }),
        ..Request::default()
    };
    if keep.tally {
        request.tally = Some((recorded.output, target));
    }
    if let Some(capacity) = keep.outputs {
        let tensor = model.main_loss(loss).record_probabilities(&mut g, recorded.output)?;
        request.collect.push(Collect { buffer: OUTPUTS.into(), tensor, capacity });
    }
    Ok(Recorded { graph: g, request })
}

/// The network's results on `rows` rows, to be fetched as `output`: probabilities where the loss takes logits.
pub(crate) fn record_prediction(
    model: &Network,
    loss: &Loss,
    preprocess: &Preprocess,
    form: &Form,
    rows: usize,
) -> Result<Recorded, GraphError> {
    let mut g = Graph::new();
    let x = form.record_features(&mut g, rows, preprocess)?;
    let mut to = Recording::new(&mut g, Mode::Eval);
    let mut output = model.record(&mut to, x, |_| false)?[0];
    let loss = model.main_loss(loss);
    if !(loss.includes_softmax() && model.ends_in_softmax()) {
        output = loss.record_probabilities(&mut g, output)?;
    }
    let request = Request {
        fetch: vec![("output".into(), output)],
        advance: Some(Advance { batch: rows as u32, steps: 0 }),
        ..Request::default()
    };
    Ok(Recorded { graph: g, request })
}
