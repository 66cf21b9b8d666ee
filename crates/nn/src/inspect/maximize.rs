//! The input that most excites a filter.

use std::collections::HashMap;

use kiln_graph::{Graph, GraphError, PARAMETERS, ParameterStore, Plan, Request, Session, Tensor};
use kiln_kernel::{HostRef, Shape, random::Stream};
use ndarray::ArrayD;

use super::{array, find, has_filters};
use crate::{Layer, Mode, NnError, Preprocess, Recording, Trainer};

/// The name of the pictures among the parameters. Layers' names have no space, so that it meets none of theirs.
const PICTURE: &str = "the picture";

/// The stream that pictures start from; see [`Stream`].
const NOISE: u32 = 0x1D1E_A000;

/// How much of what a map has below 0 counts; see [`maximize`].
const SLOPE: f32 = 0.1;

/// What keeps a gradient of zero from being divided by zero.
const TINY: f32 = 1e-12;

/// Settings of [`maximize`].
#[derive(Clone, Debug, PartialEq)]
pub struct Maximize {
    /// Steps of gradient ascent.
    pub steps: u32,
    /// How far the pixels move in a step, as the root of their mean square, where black to white is 1.
    pub learning_rate: f32,
    /// The part of each pixel's distance from grey that is taken back per step, in units of the learning rate: large
    /// values keep what does not matter to the filter grey.
    pub decay: f32,
    /// Seed of the noise that the pictures start from.
    pub seed: u64,
}

impl Default for Maximize {
    fn default() -> Self {
        Self { steps: 100, learning_rate: 0.02, decay: 1.0, seed: 0 }
    }
}

impl Maximize {
    fn check(&self) -> Result<(), NnError> {
        let fail = |message: String| Err(NnError::Settings(message));
        let Self { learning_rate, decay, .. } = *self;
        if !(learning_rate.is_finite() && learning_rate > 0.0) {
            return fail(format!("the learning rate must be a finite number above 0, is {learning_rate}"));
        }
        if !(decay >= 0.0 && decay * learning_rate < 1.0) {
            return fail(format!(
                "the decay times the learning rate must be at least 0 and below 1, is {decay} · {learning_rate}"
            ));
        }
        Ok(())
    }
}

/// What [`maximize`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Maximized {
    /// The layer.
    pub layer: String,
    /// Its filters, in the order of the pictures.
    pub filters: Vec<usize>,
    /// An input for each filter, [filters, ...]: of networks that take images [filters, channels, height, width] from
    /// 0, black, to 1, white; of others in the units of their data.
    pub pictures: ArrayD<f32>,
    /// What each filter answered to the noise that its picture started from.
    pub before: Vec<f32>,
    /// What each filter answers to its picture.
    pub after: Vec<f32>,
}

/// The inputs that most excite filters of a layer, by gradient ascent from noise around grey. Without a name the layer
/// is the last convolution, or the last layer where there is none; a filter is a channel of its result, of a dense layer
/// a unit: of the last layer a class.
///
/// Each step moves a picture along the gradient of its filter's answer, divided by the root of its mean square, and
/// keeps the pixels of images within what an image can hold. A filter's answer is the mean over its map of what is above
/// 0. While climbing, a tenth of what is below counts too, so that a relu that is silent on noise still says which way
/// is up. A single number, as that of a dense layer, is taken as it is before its relu or softmax: a class by its logit,
/// for a probability also grows where those of the others fall.
///
/// All pictures are one batch, and stay on the device from the first step to the last. A picture depends on its filter
/// and the seed, not on which others are asked for.
///
/// # Errors
/// If there is no such layer or filter, a setting is out of range, the layer has no gradient with respect to the input
/// (it lies behind an embedding), or the device fails.
///
/// Source: Erhan, Bengio, Courville and Vincent, "Visualizing higher-layer features of a deep network" (2009); Chollet,
/// "Deep Learning with Python" (2nd edition, section 9.4.2); the decay towards grey is Simonyan, Vedaldi and Zisserman's
/// (2014).
pub fn maximize(
    trainer: &Trainer,
    layer: Option<&str>,
    filters: &[usize],
    settings: &Maximize,
) -> Result<Maximized, NnError> {
    settings.check()?;
    let target = Target::of(trainer, layer)?;
    target.check_filters(filters)?;

    let space = Space::of(trainer);
    let item = trainer.model().input_shape();
    let mut dims = vec![filters.len()];
    dims.extend(item.dims());
    let mut g = Graph::new();
    let picture = g.parameter(PICTURE, dims.clone())?;
    let x = space.record_input(&mut g, picture)?;
    let open = trainer.model().with_layer(target.at, target.layer.before_activation());
    let result = open.record_all(&mut Recording::new(&mut g, Mode::Eval), x)?[target.at].result;
    let Answer { climbed, told } = record_answer(&mut g, result, target.axis, filters)?;
    let gradient = g.gradients(climbed, &[picture])?[0];
    let moved = space.record_step(&mut g, picture, gradient, settings)?;
    // the picture becomes what a step makes of it after everything has been computed from it: the ascent needs no
    // gradient arena, no optimizer and nothing from the host
    let request = Request {
        fetch: vec![("answer".into(), told)],
        averages: vec![(PICTURE.into(), moved, 1.0)],
        ..Request::default()
    };

    let backend = trainer.backend();
    let store = store_with_picture(trainer, &dims.clone().into())?;
    let start = space.noise(settings.seed, filters, item.elements());
    store.write(&**backend, PARAMETERS, PICTURE, HostRef::F32(&start))?;
    let plan = Plan::new(&g, store.segments(), &request)?;
    let session = Session::new(backend.clone(), &store, &plan, &HashMap::new())?;
    // each run answers to the picture as it was, then moves it; so the last answer takes one run more
    let mut before = None;
    for _ in 0..settings.steps {
        session.run(1)?;
        if before.is_none() {
            before = Some(session.read("answer")?.into_f32());
        }
    }
    let pictures = store.read(&**backend, PARAMETERS, PICTURE)?.into_f32();
    session.run(1)?;
    let after = session.read("answer")?.into_f32();
    if !pictures.iter().chain(&after).all(|v| v.is_finite()) {
        return Err(NnError::Settings(format!(
            "the gradient of layer \"{}\" is no number: the network's parameters are too large or no numbers \
             themselves",
            target.name
        )));
    }
    Ok(Maximized {
        layer: target.name,
        filters: filters.to_vec(),
        pictures: array(&dims, pictures)?,
        before: before.unwrap_or_else(|| after.clone()),
        after,
    })
}

/// The layer that [`maximize`] takes for a name, or for none, and the number of its filters.
///
/// # Errors
/// If there is no such layer, or its result is one number an item.
pub fn maximizable(trainer: &Trainer, layer: Option<&str>) -> Result<(String, usize), NnError> {
    let target = Target::of(trainer, layer)?;
    Ok((target.name, target.count))
}

/// A layer whose filters are to be excited.
struct Target<'t> {
    name: String,
    layer: &'t Layer,
    /// Its position in the network.
    at: usize,
    /// The axis of its result, the batch included, along which its filters lie.
    axis: usize,
    /// The filters along it.
    count: usize,
}

impl<'t> Target<'t> {
    fn of(trainer: &'t Trainer, name: Option<&str>) -> Result<Self, NnError> {
        let layers = trainer.model().named_layers();
        let at = match name {
            Some(name) => find(&layers, name)?,
            None => {
                let last = layers.iter().rposition(|(_, layer)| has_filters(layer));
                let last = last.or(layers.len().checked_sub(1));
                last.ok_or_else(|| NnError::Settings("the network has no layers".into()))?
            }
        };
        let (name, layer) = layers[at].clone();
        let output = &trainer.model().summary()?.layers[at].output_shape;
        let axis = match layer {
            _ if output.is_empty() => {
                return Err(NnError::Settings(format!(
                    "layer \"{name}\" gives one number an item, which has no filters"
                )));
            }
            Layer::Dense(_) | Layer::Embedding(_) => output.len(),
            _ => 1,
        };
        Ok(Self { name, layer, at, axis, count: output[axis - 1] })
    }

    fn check_filters(&self, filters: &[usize]) -> Result<(), NnError> {
        let Self { name, count, .. } = self;
        if filters.is_empty() {
            return Err(NnError::Settings(format!("no filters of layer \"{name}\" are asked for")));
        }
        match filters.iter().find(|&filter| filter >= count) {
            None => Ok(()),
            Some(filter) => Err(NnError::Settings(format!(
                "layer \"{name}\" has no filter {filter}: there are {count}, numbered from 0 to {}",
                count - 1
            ))),
        }
    }
}

/// What filters answer to their pictures.
struct Answer {
    /// A sum that grows where each picture's answer does.
    climbed: Tensor,
    /// The answers themselves, \[filters\].
    told: Tensor,
}

/// Records the answer of filter `filters[i]` along `axis` to picture i.
fn record_answer(
    g: &mut Graph,
    result: Tensor,
    axis: usize,
    filters: &[usize],
) -> Result<Answer, GraphError> {
    let shape = g.shape(result)?.clone();
    let (rows, count) = (filters.len(), shape[axis]);
    let mut chosen = vec![0.0; rows * count];
    for (row, &filter) in filters.iter().enumerate() {
        chosen[row * count + filter] = 1.0;
    }
    let mut one_each = vec![1; shape.rank()];
    (one_each[0], one_each[axis]) = (rows, count);
    let chosen = g.literal(one_each, &chosen)?;
    let others: Vec<usize> = (1..shape.rank()).collect();
    let places = shape.elements() / (rows * count);
    let of_filter = |g: &mut Graph, values: Tensor| {
        let own = g.mul(values, chosen)?;
        g.sum(own, &others, false)
    };
    let (climbed, told) = match places {
        1 => {
            let value = of_filter(g, result)?;
            (value, value)
        }
        _ => {
            let leaky = g.leaky_relu(result, SLOPE)?;
            let above = g.relu(result)?;
            let told = of_filter(g, above)?;
            (of_filter(g, leaky)?, g.scale(told, 1.0 / places as f32)?)
        }
    };
    Ok(Answer { climbed: g.sum(climbed, &[0], false)?, told })
}

/// What pictures are made of.
struct Space {
    preprocess: Preprocess,
    /// Of each channel, or one for all: what becomes of a pixel before the first layer, `pixel · scale + shift`.
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// The pixel that noise lies around.
    grey: f32,
    /// Whether pixels lie between 0 and 1.
    bounded: bool,
}

impl Space {
    /// Images are pixels from 0 to 1, of which the network sees 0 to 255 as its preparation makes of it; other items
    /// are what the data hold.
    fn of(trainer: &Trainer) -> Self {
        let images = is_image(&trainer.model().input_shape());
        let (mut scale, shift) = trainer.preprocess().factors(images);
        if images {
            scale.iter_mut().for_each(|s| *s *= 255.0);
        }
        let preprocess = trainer.preprocess().clone();
        Self { preprocess, scale, shift, grey: if images { 0.5 } else { 0.0 }, bounded: images }
    }

    fn record_input(&self, g: &mut Graph, picture: Tensor) -> Result<Tensor, GraphError> {
        let mut dims = vec![1; g.shape(picture)?.rank()];
        if self.scale.len() > 1 {
            dims[1] = self.scale.len();
        }
        let (scale, shift) = (g.literal(dims.clone(), &self.scale)?, g.literal(dims, &self.shift)?);
        let scaled = g.mul(picture, scale)?;
        let shifted = g.add(scaled, shift)?;
        self.preprocess.record_rest(g, shifted)
    }

    /// The picture after a step: `p + r (d / √(mean d² + tiny) - decay (p - grey))`.
    fn record_step(
        &self,
        g: &mut Graph,
        picture: Tensor,
        gradient: Tensor,
        settings: &Maximize,
    ) -> Result<Tensor, GraphError> {
        g.scoped("ascent", |g| {
            let axes: Vec<usize> = (1..g.shape(picture)?.rank()).collect();
            let squares = g.square(gradient)?;
            let mean = g.mean(squares, &axes, true)?;
            let mean = g.add_constant(mean, TINY)?;
            let root = g.sqrt(mean)?;
            let direction = g.div(gradient, root)?;
            let away = g.add_constant(picture, -self.grey)?;
            let back = g.scale(away, settings.decay)?;
            let way = g.sub(direction, back)?;
            let way = g.scale(way, settings.learning_rate)?;
            let moved = g.add(picture, way)?;
            if !self.bounded {
                return Ok(moved);
            }
            let (black, white) = (g.fill(Shape::scalar(), 0.0)?, g.fill(Shape::scalar(), 1.0)?);
            let moved = g.maximum(moved, black)?;
            g.minimum(moved, white)
        })
    }

    /// Within a tenth of grey; of each filter its own.
    fn noise(&self, seed: u64, filters: &[usize], elements: usize) -> Vec<f32> {
        let of_filter = |&filter: &usize| {
            let stream = Stream { seed, stream: NOISE, step: filter as u32 };
            (0..elements as u32).map(move |i| self.grey + 0.2 * (stream.uniform(i) - 0.5))
        };
        filters.iter().flat_map(of_filter).collect()
    }
}

/// Whether items are grey or coloured images.
fn is_image(item: &Shape) -> bool {
    matches!(item.dims(), [1 | 3, _, _])
}

/// The trainer's parameters, copied, with the pictures beside them.
fn store_with_picture(trainer: &Trainer, pictures: &Shape) -> Result<ParameterStore, NnError> {
    let backend = &**trainer.backend();
    let own = trainer.store();
    let mut parameters: Vec<(String, Shape)> =
        own.segments().list().iter().map(|s| (s.name.clone(), s.shape.clone())).collect();
    parameters.push((PICTURE.into(), pictures.clone()));
    let store = ParameterStore::new(backend, &parameters, &[])?;
    for segment in own.segments().list() {
        let values = own.read(backend, PARAMETERS, &segment.name)?.into_f32();
        store.write(backend, PARAMETERS, &segment.name, HostRef::F32(&values))?;
    }
    Ok(store)
}
