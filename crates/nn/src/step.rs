//! The graphs of a training step and of an evaluation, over a data set that lies on the device.

use kiln_data::{Features, RowKind, Split};
use kiln_graph::{Collect, GatherOptions, Graph, GraphError, Request, Segments, Tensor};
use kiln_kernel::{Advance, GatherType, Shape};

use crate::{
    Augment, Layer, Loss, Mode, Network, NnError, Optimizer, Preprocess, Recording, TargetKind,
    loss::record::{LabelCounts, RecordedLoss},
    network::INPUT,
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

/// How the rows of a data set become what a network sees.
#[derive(Clone, Copy)]
pub(crate) struct Preparation<'a> {
    pub(crate) preprocess: &'a Preprocess,
    /// None where rows are seen as they are.
    pub(crate) augment: Option<&'a Augment>,
}

/// The rows of a batch.
pub(crate) struct Rows {
    /// As the network sees them.
    pub(crate) features: Tensor,
    /// The share that each has in its mixture, where rows are mixed.
    pub(crate) shares: Option<Tensor>,
}

/// A target with the share of the loss that each row of it has.
#[derive(Clone, Copy)]
struct Wanted {
    target: Tensor,
    weights: Option<Tensor>,
}

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

/// So many factors and summands stand in the gather's shader; those of a table of more columns lie in buffers.
const MOST_FACTORS: usize = 16;

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

    /// What the network sees of a batch.
    pub(crate) fn record_features(
        &self,
        g: &mut Graph,
        rows: usize,
        preprocess: &Preprocess,
    ) -> Result<Tensor, GraphError> {
        Ok(self.record_batch(g, rows, Preparation { preprocess, augment: None })?.features)
    }

    /// What the network sees of a batch, changed by chance where it is to be.
    pub(crate) fn record_batch(
        &self,
        g: &mut Graph,
        rows: usize,
        Preparation { preprocess, augment }: Preparation<'_>,
    ) -> Result<Rows, GraphError> {
        // what overflows is refused by the graph, as is all that is too large
        let elements = self.items.saturating_mul(self.item.elements());
        let (data, dtype) = match self.bytes {
            true => (g.input_u32(FEATURES, [elements.div_ceil(4)])?, GatherType::U8),
            false => (g.input(FEATURES, [elements])?, GatherType::F32),
        };
        let order = g.input_u32(ORDER, [self.items])?;
        let (scale, shift) = preprocess.factors(self.bytes);
        g.scoped("batch", |g| {
            let item = self.item.clone();
            let mut options =
                GatherOptions { rows, items: self.items, item, dtype, reversed: false, scale, shift };
            let Some(augment) = augment.filter(|augment| !augment.is_identity()) else {
                // what does not fit the rows is for the gather to refuse
                let fits = self.item.dims().first() == Some(&options.scale.len());
                if options.scale.len() <= MOST_FACTORS || !fits {
                    let gathered = g.gather(data, order, options)?;
                    return Ok(Rows { features: preprocess.record_rest(g, gathered)?, shares: None });
                }
                let scale = std::mem::replace(&mut options.scale, vec![1.0]);
                let shift = std::mem::replace(&mut options.shift, vec![0.0]);
                let mut by_channel = vec![1; 1 + self.item.rank()];
                by_channel[1] = scale.len();
                let gathered = g.gather(data, order, options)?;
                let (scale, shift) = (g.literal(by_channel.clone(), &scale)?, g.literal(by_channel, &shift)?);
                let scaled = g.mul(gathered, scale)?;
                let shifted = g.add(scaled, shift)?;
                return Ok(Rows { features: preprocess.record_rest(g, shifted)?, shares: None });
            };
            let side = |axis: usize| self.item.dims().get(axis).copied().unwrap_or(1);
            let (features, shares) =
                g.gather_augmented(data, order, options, &augment.options(side(1), side(2)))?;
            let features = preprocess.record_rest(g, features)?;
            Ok(Rows { features, shares: (augment.mixup > 0.0).then_some(shares) })
        })
    }

    /// The targets of the rows that `x` holds as the network sees them, or those of the rows that they are mixed with.
    fn record_targets(
        &self,
        g: &mut Graph,
        rows: usize,
        x: Tensor,
        reversed: bool,
    ) -> Result<Tensor, GraphError> {
        let order = g.input_u32(ORDER, [self.items])?;
        let items = self.items;
        g.scoped("batch", |g| match &self.targets {
            TargetKind::Classes(_) => {
                let data = g.input_u32(TARGETS, [items])?;
                let (item, dtype) = (Shape::scalar(), GatherType::U32);
                let labels = g.gather(
                    data,
                    order,
                    GatherOptions { rows, items, item, dtype, reversed, scale: vec![], shift: vec![] },
                )?;
                Ok(labels)
            }
            TargetKind::Real(shape) => {
                let data = g.input(TARGETS, [items * shape.elements()])?;
                let (item, dtype) = (shape.clone(), GatherType::F32);
                g.gather(
                    data,
                    order,
                    GatherOptions { rows, items, item, dtype, reversed, scale: vec![1.0], shift: vec![0.0] },
                )
            }
            TargetKind::Input(_) => Ok(x),
        })
    }

    fn record_weights(
        &self,
        g: &mut Graph,
        rows: usize,
        reversed: bool,
    ) -> Result<Option<Tensor>, GraphError> {
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
            reversed,
            scale: vec![1.0],
            shift: vec![0.0],
        };
        g.scoped("batch", |g| g.gather(data, order, options)).map(Some)
    }

    /// The targets of a batch with their weights: the rows' own and, where rows are mixed, those of the rows that they
    /// are mixed with.
    fn record_wanted(&self, g: &mut Graph, rows: usize, batch: &Rows) -> Result<Vec<Wanted>, GraphError> {
        let mut wanted = Vec::with_capacity(2);
        // an autoencoder's target is the mixture itself
        let shares = batch.shares.filter(|_| !matches!(self.targets, TargetKind::Input(_)));
        for reversed in [false, true] {
            let mut weights = self.record_weights(g, rows, reversed)?;
            if let Some(shares) = shares {
                let share = match reversed {
                    false => shares,
                    true => {
                        let others = g.neg(shares)?;
                        g.add_constant(others, 1.0)?
                    }
                };
                weights = Some(match weights {
                    Some(weights) => g.mul(weights, share)?,
                    None => share,
                });
            }
            let target = self.record_targets(g, rows, batch.features, reversed)?;
            wanted.push(Wanted { target, weights });
            if shares.is_none() {
                break;
            }
        }
        Ok(wanted)
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

/// Refuses numbers that an embedding has no entry for, where it looks up the items themselves as they are. What other layers
/// make of items is known on the device alone, where it is held to the table.
pub(crate) fn check_entries(model: &Network, preprocess: &Preprocess, split: &Split) -> Result<(), NnError> {
    let bytes = split.kind() == RowKind::Bytes;
    let as_they_are = preprocess.factors(bytes) == (vec![1.0], vec![0.0]) && !preprocess.unit_length;
    let least = model.layers().iter().enumerate().filter_map(|(i, node)| match (&node.layer, &node.inputs) {
        (Layer::Embedding(table), None) if i == 0 => Some((i, table.entries)),
        (Layer::Embedding(table), Some(inputs)) if inputs == &[INPUT] => Some((i, table.entries)),
        _ => None,
    });
    let Some((at, entries)) = least.min_by_key(|&(_, entries)| entries).filter(|_| as_they_are) else {
        return Ok(());
    };
    // to even, as the device rounds
    let has = |value: f32| value.round_ties_even() >= 0.0 && value.round_ties_even() < entries as f32;
    let wrong = match split.features() {
        Features::Bytes(values) => {
            values.iter().position(|&v| !has(v.into())).map(|i| (i, f32::from(values[i])))
        }
        Features::Real(values) => values.iter().position(|&v| !has(v)).map(|i| (i, values[i])),
        // they are read when they are needed
        Features::OnDemand(_) => None,
    };
    match wrong {
        None => Ok(()),
        Some((i, value)) => Err(NnError::Settings(format!(
            "row {}: {value} is no entry of layer \"{}\", which has {entries}, numbered from 0 to {}",
            i / split.item_shape().elements().max(1),
            model.named_layers()[at].0,
            entries - 1
        ))),
    }
}

/// A network recorded with its loss.
struct RecordedNetwork {
    loss: RecordedLoss,
    /// The main result.
    output: Tensor,
    /// The trainable parameters.
    trained: Vec<(String, Tensor)>,
}

/// Records the network and its loss: the sum over the outputs, each with its weight, of the losses of all that is
/// wanted, and the layers' penalties. Hits are counted of the first that is wanted.
fn record_loss(
    model: &Network,
    loss: &Loss,
    g: &mut Graph,
    mode: Mode,
    form: &Form,
    (x, wanted, counts): (Tensor, &[Wanted], LabelCounts<'_>),
) -> Result<RecordedNetwork, GraphError> {
    let rows = g.shape(x)?[0];
    let own = wanted[0];
    let mut to = Recording::new(g, mode);
    let loss_of = |i: usize| model.outputs().get(i).and_then(|output| output.loss.as_ref()).unwrap_or(loss);
    let outputs = model.record(&mut to, x, |i| loss_of(i).includes_softmax())?;
    let (specs, penalties) = (to.parameters().to_vec(), to.penalties().to_vec());
    let weight_of = |i: usize| model.outputs().get(i).map_or(1.0, |output| output.weight);
    let classifies = loss_of(0).is_classification(&form.targets);
    let mut recorded = loss_of(0).record(g, (outputs[0], own.target), own.weights, counts, classifies)?;
    let main = recorded.mean;
    g.scoped("loss", |g| {
        let mut mean = g.scale(main, weight_of(0))?;
        // everything but the main loss, for the totals
        let mut extra: Option<Tensor> = None;
        let mut summands = penalties;
        for (i, &output) in outputs.iter().enumerate() {
            for part in wanted.iter().skip(usize::from(i == 0)) {
                let other = loss_of(i).record_part(g, output, part.target, part.weights, counts)?;
                summands.push(g.scale(other, weight_of(i))?);
            }
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
    preparation: Preparation<'_>,
    form: &Form,
    rows: usize,
) -> Result<Recorded, GraphError> {
    let mut g = Graph::new();
    let batch = form.record_batch(&mut g, rows, preparation)?;
    let wanted = form.record_wanted(&mut g, rows, &batch)?;
    let RecordedNetwork { loss, trained, .. } =
        record_loss(model, loss, &mut g, Mode::Train, form, (batch.features, &wanted, None))?;
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
        advance: Some(Advance::step(rows as u32)),
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

/// The loss of `rows` rows of a split whose labels are counted, summed into the totals, and what else is kept.
pub(crate) fn record_evaluation(
    model: &Network,
    (loss, counts): (&Loss, LabelCounts<'_>),
    preprocess: &Preprocess,
    form: &Form,
    keep: Keep,
    rows: usize,
) -> Result<Recorded, GraphError> {
    let mut g = Graph::new();
    let x = form.record_features(&mut g, rows, preprocess)?;
    let target = form.record_targets(&mut g, rows, x, false)?;
    let weights = form.record_weights(&mut g, rows, false)?;
    let wanted = [Wanted { target, weights }];
    let recorded = record_loss(model, loss, &mut g, Mode::Eval, form, (x, &wanted, counts))?;
    let mut request = Request {
        totals: recorded.loss.totals,
        advance: Some(Advance::rows(rows as u32)),
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
        advance: Some(Advance::rows(rows as u32)),
        ..Request::default()
    };
    Ok(Recorded { graph: g, request })
}
