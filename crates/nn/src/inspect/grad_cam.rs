//! Where in an image a class is seen.

use kiln_data::Features;
use kiln_graph::{Graph, Plan, Request};
use ndarray::{Array2, ArrayD};

use super::{array, find, has_filters, on_device, one_item};
use crate::{Activation, Layer, Mode, NnError, Recording, Trainer};

/// What [`grad_cam`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct GradCam {
    /// The layer whose maps were weighed.
    pub layer: String,
    /// The class that was looked for.
    pub class: usize,
    /// The network's answer for it: its logit, before a softmax or sigmoid.
    pub score: f32,
    /// How much each place of the maps speaks for the class, in the shape of a map, at least 0; 0 everywhere where none does.
    pub heat: ArrayD<f32>,
}

/// Gradient-weighted class activation mapping (Grad-CAM): where in an item a class is seen. Without a layer it is the last
/// convolution, without a class the one that the network predicts.
///
/// With the maps A of the layer's result, the class's logit y and n places in a map:
///
/// ```text
/// weight[k]  = 1/n Σ_p ∂y / ∂A[k, p]
/// heat[p]    = max(0, Σ_k weight[k] · A[k, p])
/// ```
///
/// As in prediction: the item is prepared as the model says, dropout does nothing, batch normalisation uses its running
/// statistics. A network with one output has two classes: 1, for which the output speaks, and 0, for which its negative does.
///
/// Keras: "Grad-CAM class activation visualization" among its code examples; PyTorch: `pytorch-grad-cam`.
///
/// # Errors
/// If there is no such layer or class, the layer's result is no maps, the network's result is no list of scores, it does not
/// depend on the layer, the item is not one of the network's, or the device fails.
///
/// Source: Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization" (2017);
/// Chollet, "Deep Learning with Python" (2nd edition, section 9.4.3).
pub fn grad_cam(
    trainer: &Trainer,
    item: Features,
    layer: Option<&str>,
    class: Option<usize>,
) -> Result<GradCam, NnError> {
    let model = trainer.model();
    let layers = model.named_layers();
    let shapes: Vec<Vec<usize>> = model.summary()?.layers.into_iter().map(|line| line.output_shape).collect();
    let at = mapped(&layers, &shapes, layer)?;
    let (name, last) = (layers[at].0.clone(), layers.len() - 1);
    let &[outputs] = &shapes[last][..] else {
        return Err(NnError::Settings(format!(
            "the network's last layer gives {:?}, not one score for each class",
            shapes[last]
        )));
    };
    let classes = outputs.max(2);
    if let Some(class) = class.filter(|&class| class >= classes) {
        return Err(NnError::Settings(format!(
            "there is no class {class}: there are {classes}, numbered from 0 to {}",
            classes - 1
        )));
    }
    let item = one_item(model, item)?;
    let data = on_device(trainer, &item)?;

    let mut g = Graph::new();
    let x = data.form.record_features(&mut g, 1, trainer.preprocess())?;
    let open = model.with_layer(last, scored(layers[last].1));
    let results = open.record_all(&mut Recording::new(&mut g, Mode::Eval), x)?;
    let (maps, scores) = (results[at].result, results[last].result);
    let score = match class.filter(|_| outputs > 1) {
        Some(class) => g.slice(scores, 1, class, class + 1)?,
        // the largest is that of the predicted class; a single one is taken for class 1
        None => g.max(scores, &[1], false)?,
    };
    let gradient = g.gradients(score, &[maps])?[0];
    let places: Vec<usize> = (2..g.shape(maps)?.rank()).collect();
    let weights = g.mean(gradient, &places, true)?;
    let weighted = g.mul(maps, weights)?;
    let heat = g.sum(weighted, &[1], false)?;
    let fetch = vec![("scores".into(), scores), ("heat".into(), heat)];
    let plan = Plan::new(&g, trainer.store().segments(), &Request { fetch, ..Request::default() })?;
    let session = trainer.session(&plan, &data)?;
    session.run(1)?;
    let (scores, heat) = (session.read("scores")?.into_f32(), session.read("heat")?.into_f32());
    if !heat.iter().chain(&scores).all(|v| v.is_finite()) {
        return Err(NnError::Settings(format!(
            "what layer \"{name}\" makes of the item, or its gradient, is no number: the network's parameters are too large or \
             no numbers themselves"
        )));
    }
    let class = class.unwrap_or_else(|| predicted(&scores));
    // a single output speaks against class 0
    let (score, sign) = match scores[..] {
        [score] => (score, if class == 1 { 1.0 } else { -1.0 }),
        _ => (scores[class], 1.0),
    };
    let heat = array(&shapes[at][1..], heat.iter().map(|h| (sign * h).max(0.0)).collect())?;
    Ok(GradCam { layer: name, class, score: sign * score, heat })
}

impl GradCam {
    /// The heat of each pixel of an image of this height and width, from 0 to 1 at the hottest place: places in between are
    /// interpolated linearly, as PyTorch's `interpolate(mode="bilinear", align_corners=False)` does. None if the heat is no map
    /// of rows and columns.
    pub fn over(&self, height: usize, width: usize) -> Option<Array2<f32>> {
        let &[rows, columns] = self.heat.shape() else { return None };
        let most = self.heat.iter().fold(f32::MIN_POSITIVE, |most, &h| most.max(h));
        // the two nearest places, and how near the second one is
        let between = |at: usize, to: usize, from: usize| {
            let place = ((at as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, (from - 1) as f32);
            let first = place as usize;
            (first, (first + 1).min(from - 1), place - first as f32)
        };
        Some(Array2::from_shape_fn((height, width), |(y, x)| {
            let (top, bottom, down) = between(y, height, rows);
            let (left, right, across) = between(x, width, columns);
            let along = |row: usize| {
                let (a, b) = (self.heat[[row, left]], self.heat[[row, right]]);
                a + (b - a) * across
            };
            (along(top) + (along(bottom) - along(top)) * down) / most
        }))
    }
}

/// The position of the layer whose maps are weighed.
fn mapped(layers: &[(String, &Layer)], shapes: &[Vec<usize>], name: Option<&str>) -> Result<usize, NnError> {
    let at = match name {
        Some(name) => find(layers, name)?,
        None => layers.iter().rposition(|(_, layer)| has_filters(layer)).ok_or_else(|| {
            NnError::Settings(
                "the network has no convolution, whose maps could show where a class is seen".into(),
            )
        })?,
    };
    let ((name, layer), shape) = (&layers[at], &shapes[at]);
    if shape.len() < 2 || matches!(layer, Layer::Dense(_) | Layer::Embedding(_)) {
        return Err(NnError::Settings(format!(
            "layer \"{name}\" gives {shape:?}, no maps [channels, height, width] that could show where a class is seen"
        )));
    }
    Ok(at)
}

/// The last layer as it gives scores: without the softmax, sigmoid or relu at its end.
fn scored(layer: &Layer) -> Layer {
    let mut layer = layer.before_activation();
    if let Some(sigmoid @ Activation::Sigmoid) = layer.activation_mut() {
        *sigmoid = Activation::Linear;
    }
    layer
}

/// The class of the largest score, of a single one 1 where it is above 0.
fn predicted(scores: &[f32]) -> usize {
    match scores {
        [score] => usize::from(*score > 0.0),
        scores => (1..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_is_interpolated_as_pytorch_does() {
        let heat = ArrayD::from_shape_vec(vec![2, 2], vec![0.0, 1.0, 2.0, 4.0]).unwrap();
        let found = GradCam { layer: "conv1".into(), class: 0, score: 1.0, heat };
        // torch.nn.functional.interpolate(heat / 4, size=(4, 2), mode="bilinear", align_corners=False)
        let want = [[0.0, 0.25], [0.125, 0.4375], [0.375, 0.8125], [0.5, 1.0]];
        let got = found.over(4, 2).unwrap();
        assert_eq!(got, ndarray::arr2(&want));
        assert_eq!(found.over(2, 2).unwrap(), ndarray::arr2(&[[0.0, 0.25], [0.5, 1.0]]));
        let cold = GradCam { heat: ArrayD::zeros(vec![1, 1]), ..found };
        assert_eq!(cold.over(3, 1).unwrap().sum(), 0.0, "no place speaks for it");
    }
}
