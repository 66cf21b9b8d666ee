//! The graphs of a training step and of an evaluation, over a data set that lies on the device.

use std::collections::HashMap;

use kiln_data::{Features, Split, Targets};
use kiln_graph::{GatherOptions, Graph, GraphError, Request, Tensor};
use kiln_kernel::{Advance, Backend, Buffer, DType, GatherType, HostRef, Shape};

use crate::{Loss, Mode, NnError, Optimizer, Preprocess, Sequential};

/// Rows of the hyper-parameter table: steps that run before it is written again.
pub(crate) const HYPER_ROWS: usize = 1024;

/// Names of the inputs that hold a resident data set.
pub(crate) const FEATURES: &str = "features";
pub(crate) const TARGETS: &str = "targets";
pub(crate) const ORDER: &str = "order";

/// What a split's targets are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TargetKind {
    Classes(usize),
    Real(Shape),
}

/// The form of a resident split: all that its plans depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Form {
    pub(crate) items: usize,
    pub(crate) item: Shape,
    pub(crate) bytes: bool,
    pub(crate) targets: TargetKind,
}

impl Form {
    pub(crate) fn of(split: &Split) -> Self {
        Self {
            items: split.len(),
            item: split.item_shape().clone(),
            bytes: matches!(split.features(), Features::Bytes(_)),
            targets: match split.targets() {
                Targets::Classes { classes, .. } => TargetKind::Classes(*classes),
                Targets::Real { shape, .. } => TargetKind::Real(shape.clone()),
            },
        }
    }

    fn record_features(
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

    fn record_targets(&self, g: &mut Graph, rows: usize) -> Result<Tensor, GraphError> {
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
        })
    }
}

/// A split on the device.
pub(crate) struct Resident {
    pub(crate) form: Form,
    pub(crate) buffers: HashMap<String, Buffer>,
}

impl Resident {
    /// Uploads features and targets, and an order that visits them as they come.
    pub(crate) fn new(backend: &dyn Backend, split: &Split) -> Result<Self, NnError> {
        let form = Form::of(split);
        let mut buffers = HashMap::new();
        let mut upload = |name: &str, data: HostRef<'_>| -> Result<(), NnError> {
            let dtype = if matches!(data, HostRef::U32(_)) { DType::U32 } else { DType::F32 };
            let buffer = backend.allocate(dtype, data.len(), name)?;
            backend.write(&buffer.view(), data)?;
            buffers.insert(name.to_string(), buffer);
            Ok(())
        };
        match split.features() {
            Features::Bytes(bytes) => upload(FEATURES, HostRef::U32(&pack_bytes(bytes)))?,
            Features::Real(values) => upload(FEATURES, HostRef::F32(values))?,
        }
        match split.targets() {
            Targets::Classes { labels, .. } => upload(TARGETS, HostRef::U32(labels))?,
            Targets::Real { values, .. } => upload(TARGETS, HostRef::F32(values))?,
        }
        upload(ORDER, HostRef::U32(&kiln_data::order(0, 0, split.len(), false)))?;
        Ok(Self { form, buffers })
    }
}

/// Bytes four to a word, the first lowest.
pub(crate) fn pack_bytes(bytes: &[u8]) -> Vec<u32> {
    bytes
        .chunks(4)
        .map(|chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u32::from_le_bytes(word)
        })
        .collect()
}

/// A recorded step and what to compute of it.
pub(crate) struct Recorded {
    pub(crate) graph: Graph,
    pub(crate) request: Request,
}

/// Refuses a loss that does not fit the targets, or an output that does not.
pub(crate) fn check_targets(model: &Sequential, loss: Loss, form: &Form) -> Result<(), NnError> {
    let fail = |message: String| Err(NnError::Settings(message));
    if model.input_shape() != form.item {
        return fail(format!(
            "the network takes items of shape {}, the data have {}",
            model.input_shape(),
            form.item
        ));
    }
    let output = model.output_shape()?;
    match (&form.targets, loss.is_classification()) {
        (TargetKind::Classes(classes), true) if output != Shape::from([*classes]) => {
            fail(format!("the network's output is {output}, the data have {classes} classes"))
        }
        (TargetKind::Real(shape), false) if output != *shape => {
            fail(format!("the network's output is {output}, the targets are {shape}"))
        }
        (TargetKind::Classes(_), false) => fail("the targets are classes; use the loss cross_entropy".into()),
        (TargetKind::Real(_), true) => fail(
            "the targets are real numbers, but the loss cross_entropy takes classes; use mean_squared_error"
                .into(),
        ),
        _ => Ok(()),
    }
}

/// One training step on `rows` rows: batch, loss, gradients, update, clock.
pub(crate) fn record_training(
    model: &Sequential,
    loss: Loss,
    optimizer: &Optimizer,
    preprocess: &Preprocess,
    form: &Form,
    rows: usize,
) -> Result<Recorded, GraphError> {
    let mut g = Graph::new();
    let x = form.record_features(&mut g, rows, preprocess)?;
    let target = form.record_targets(&mut g, rows)?;
    let output = model.record(&mut g, x, Mode::Train, loss.is_classification())?;
    let recorded = loss.record(&mut g, output, target, rows)?;
    let tensors = g.parameter_tensors();
    let gradients = g.gradients(recorded.mean, &tensors)?;
    let parameters = g.parameters();
    let len = kiln_graph::Segments::new(&parameters).len();
    let request = Request {
        gradients: parameters.into_iter().map(|(name, _)| name).zip(gradients).collect(),
        totals: recorded.totals,
        updates: vec![optimizer.launch(len, HYPER_ROWS)],
        advance: Some(Advance { batch: rows as u32, steps: 1 }),
        fetch: Vec::new(),
    };
    Ok(Recorded { graph: g, request })
}

/// The loss of `rows` rows, summed into the totals.
pub(crate) fn record_evaluation(
    model: &Sequential,
    loss: Loss,
    preprocess: &Preprocess,
    form: &Form,
    rows: usize,
) -> Result<Recorded, GraphError> {
    let mut g = Graph::new();
    let x = form.record_features(&mut g, rows, preprocess)?;
    let target = form.record_targets(&mut g, rows)?;
    let output = model.record(&mut g, x, Mode::Eval, loss.is_classification())?;
    let totals = loss.record(&mut g, output, target, rows)?.totals;
    let advance = Some(Advance { batch: rows as u32, steps: 0 });
    Ok(Recorded { graph: g, request: Request { totals, advance, ..Request::default() } })
}

/// The network's results on `rows` rows, to be fetched as `output`: probabilities where it classifies.
pub(crate) fn record_prediction(
    model: &Sequential,
    loss: Loss,
    preprocess: &Preprocess,
    form: &Form,
    rows: usize,
) -> Result<Recorded, GraphError> {
    let mut g = Graph::new();
    let x = form.record_features(&mut g, rows, preprocess)?;
    let mut output = model.record(&mut g, x, Mode::Eval, false)?;
    if loss.is_classification() && !model.ends_in_softmax() {
        output = g.softmax(output, 1)?;
    }
    let request = Request {
        fetch: vec![("output".into(), output)],
        advance: Some(Advance { batch: rows as u32, steps: 0 }),
        ..Request::default()
    };
    Ok(Recorded { graph: g, request })
}
