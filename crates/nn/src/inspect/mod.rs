//! Looking inside a network: the weights of its filters, what its layers make of an item, where in it a class is seen, and the
//! input that most excites a filter.
//!
//! ```
//! use kiln_data::Dataset;
//! use kiln_device::Device;
//! use kiln_nn::{Recipe, inspect};
//!
//! # fn main() -> Result<(), kiln_nn::NnError> {
//! let data = Dataset::digits(1, 1, 1)?;
//! let trainer = Recipe::open("digits-cnn")?.trainer(&Device::cpu(), &data.classes, 1)?;
//! let (layer, weights) = inspect::filters(&trainer, None)?;
//! assert_eq!((layer.as_str(), weights.shape()), ("conv1", &[32, 1, 3, 3][..]));
//! let layers = inspect::activations(&trainer, data.test.features().clone())?;
//! assert_eq!((layers[0].0.as_str(), layers[0].1.shape()), ("conv1", &[32, 26, 26][..]));
//! # Ok(())
//! # }
//! ```
//!
//! Source: Chollet, "Deep Learning with Python" (2nd edition, chapter 9), on what convolutional networks learn.

mod grad_cam;
mod maximize;

use kiln_data::{Features, Split, Targets};
use kiln_graph::{Graph, Plan, Request};
use ndarray::{ArrayD, Axis, IxDyn};

use crate::{Layer, Mode, Network, NnError, Recording, Residency, Trainer, feed::Feed, words::nearest};

pub use grad_cam::{GradCam, grad_cam};
pub use maximize::{Maximize, Maximized, maximizable, maximize};

/// The weights of a convolution, with its name: [filters, channels / groups, rows, columns], PyTorch's OIHW. Without a
/// name the first convolution's. Those of a `conv1d` have one row; those of a transposed convolution are turned around
/// from the order in which they are kept, so that the first axis is always what the layer gives.
///
/// Keras: `layer.get_weights()[0]`, as HWIO.
///
/// # Errors
/// If there is no such layer, it has no filters (the error names those that do), or the device fails.
pub fn filters(trainer: &Trainer, layer: Option<&str>) -> Result<(String, ArrayD<f32>), NnError> {
    let layers = trainer.model().named_layers();
    let at = match layer {
        Some(name) => find(&layers, name)?,
        None => layers.iter().position(|(_, layer)| has_filters(layer)).ok_or_else(|| {
            NnError::Settings(
                "the network has no convolution, so there are no filters to show; its layers' results are shown by \
                 their activations"
                    .into(),
            )
        })?,
    };
    let (name, layer) = &layers[at];
    if !has_filters(layer) {
        let known: Vec<&str> = with_filters(&layers);
        let hint = match known.as_slice() {
            [] => "the network has no convolution".into(),
            known => format!("there are filters in {}", known.join(", ")),
        };
        let kind = layer.type_name();
        return Err(NnError::Settings(format!("layer \"{name}\" is {kind}, which has no filters; {hint}")));
    }
    let (owner, layer) = trainer.model().owner_of(at).map_err(NnError::Settings)?;
    let parameter = format!("{owner}.weight");
    let shape = trainer.store().segments().get(&parameter)?.shape.dims().to_vec();
    let values = array(&shape, trainer.parameter(&parameter)?)?;
    Ok((name.clone(), as_oihw(layer, values)?))
}

/// Names of the layers that [`filters`] takes, in order.
pub fn layers_with_filters(model: &Network) -> Vec<String> {
    with_filters(&model.named_layers()).into_iter().map(String::from).collect()
}

/// The position of the layer of this name in the network.
///
/// # Errors
/// If there is none; with the nearest names.
pub fn position(model: &Network, name: &str) -> Result<usize, NnError> {
    find(&model.named_layers(), name)
}

/// What every layer makes of one item, in the order of the layers: name and result, in the shape of
/// [`crate::LayerSummary::output_shape`]. As in prediction: the item is prepared as the model says, dropout does
/// nothing, batch normalisation uses its running statistics.
///
/// Keras: `Model(model.input, [layer.output for layer in model.layers])`.
///
/// # Errors
/// If the features are not one item of the network's input, or the device fails.
pub fn activations(trainer: &Trainer, item: Features) -> Result<Vec<(String, ArrayD<f32>)>, NnError> {
    let item = one_item(trainer.model(), item)?;
    let data = on_device(trainer, &item)?;
    let mut g = Graph::new();
    let x = data.form.record_features(&mut g, 1, trainer.preprocess())?;
    let layers = trainer.model().record_all(&mut Recording::new(&mut g, Mode::Eval), x)?;
    let fetch = layers.iter().map(|layer| (layer.name.clone(), layer.result)).collect();
    let plan = Plan::new(&g, trainer.store().segments(), &Request { fetch, ..Request::default() })?;
    let session = trainer.session(&plan, &data)?;
    // its own clock is new, so that it stands at the first row
    session.run(1)?;
    let mut results = Vec::with_capacity(layers.len());
    for layer in layers {
        let values = session.read(&layer.name)?.into_f32();
        results.push((layer.name, array(&g.shape(layer.result)?.dims()[1..], values)?));
    }
    Ok(results)
}

/// One item of the network's input.
fn one_item(model: &Network, item: Features) -> Result<Split, NnError> {
    let (want, got) = (model.input_shape(), item.len());
    if got != want.elements() {
        let elements = want.elements();
        return Err(NnError::Settings(format!(
            "one item of the network's input is {want}, {elements} numbers; got {got}"
        )));
    }
    // nothing looks at the target
    let target = Targets::Classes { labels: vec![0], classes: 1 };
    Ok(Split::new(item, want, target)?)
}

/// Its rows on the device, with a clock of their own.
fn on_device<'s>(trainer: &Trainer, item: &'s Split) -> Result<Feed<'s>, NnError> {
    let backend = &**trainer.backend();
    Feed::new(backend, item, None, 1, Residency::Resident)?.apart(backend)
}

/// The position of the layer of this name.
fn find(layers: &[(String, &Layer)], name: &str) -> Result<usize, NnError> {
    layers.iter().position(|(known, _)| known == name).ok_or_else(|| {
        let names: Vec<&str> = layers.iter().map(|(name, _)| name.as_str()).collect();
        let hint = match nearest(name, &names).as_slice() {
            [] => format!("the layers are {}", names.join(", ")),
            near => format!("did you mean {}?", near.join(" or ")),
        };
        NnError::Settings(format!("there is no layer \"{name}\"; {hint}"))
    })
}

fn has_filters(layer: &Layer) -> bool {
    matches!(layer, Layer::Conv1d(_) | Layer::Conv2d(_) | Layer::ConvTranspose2d(_))
}

fn with_filters<'l>(layers: &'l [(String, &Layer)]) -> Vec<&'l str> {
    layers.iter().filter(|(_, layer)| has_filters(layer)).map(|(name, _)| name.as_str()).collect()
}

/// A convolution's weight as [filters, channels / groups, rows, columns].
fn as_oihw(layer: &Layer, weight: ArrayD<f32>) -> Result<ArrayD<f32>, NnError> {
    let shape = weight.shape().to_vec();
    match (layer, shape.as_slice()) {
        (Layer::Conv1d(_), _) => Ok(weight.insert_axis(Axis(2))),
        (Layer::ConvTranspose2d(layer), &[channels, filters, rows, columns]) => {
            let (groups, per_group) = (layer.groups, channels / layer.groups);
            let grouped = reshaped(weight, &[groups, per_group, filters, rows, columns])?;
            let turned = grouped.permuted_axes(IxDyn(&[0, 2, 1, 3, 4])).as_standard_layout().into_owned();
            reshaped(turned, &[groups * filters, per_group, rows, columns])
        }
        _ => Ok(weight),
    }
}

fn array(dims: &[usize], values: Vec<f32>) -> Result<ArrayD<f32>, NnError> {
    ArrayD::from_shape_vec(IxDyn(dims), values).map_err(|e| NnError::Settings(e.to_string()))
}

fn reshaped(values: ArrayD<f32>, dims: &[usize]) -> Result<ArrayD<f32>, NnError> {
    values.into_shape_with_order(IxDyn(dims)).map_err(|e| NnError::Settings(e.to_string()))
}
