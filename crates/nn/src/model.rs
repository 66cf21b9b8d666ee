use std::collections::HashMap;

use kiln_graph::{Graph, GraphError, Tensor};
use kiln_kernel::Shape;
use serde::{Deserialize, Serialize};

use crate::{Activation, Initializer, Layer};

/// Whether a network is being trained; dropout does nothing otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Training.
    Train,
    /// Evaluation and prediction.
    Eval,
}

/// A parameter of a network, and how it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpec {
    /// `conv1.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// How it starts.
    pub initializer: Initializer,
    /// Inputs that one output connects.
    pub fan_in: usize,
    /// Outputs that one input connects.
    pub fan_out: usize,
}

/// One line of a summary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerSummary {
    /// `conv1`.
    pub name: String,
    /// `conv2d`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Shape of one item's result.
    pub output_shape: Vec<usize>,
    /// Elements of its parameters.
    pub parameters: usize,
    /// Bytes of one item's result.
    pub output_bytes: usize,
}

/// What a network is made of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The layers in order.
    pub layers: Vec<LayerSummary>,
    /// Elements of all parameters.
    pub parameters: usize,
    /// Elements of the parameters that training changes.
    pub trainable: usize,
}

/// A network that is a line of layers, each reading the one before.
///
/// Layers are named by kind and number in order: `conv1`, `pool1`, `conv2`, `fc1`.
///
/// ```
/// use kiln_nn::{Activation::Relu, Conv2d, Dense, Flatten, MaxPool2d, Sequential};
/// use kiln_kernel::Shape;
///
/// let model = Sequential::new(Shape::image(1, 28, 28))
///     .add(Conv2d::new(32, 3).activation(Relu))
///     .add(MaxPool2d::new(2))
///     .add(Flatten)
///     .add(Dense::new(10));
/// let summary = model.summary()?;
/// assert_eq!(summary.layers[0].output_shape, [32, 26, 26]);
/// assert_eq!(summary.parameters, 320 + 54_090);
/// # Ok::<(), kiln_graph::GraphError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sequential {
    input: Vec<usize>,
    layers: Vec<Layer>,
}

impl Sequential {
    /// A network without layers over items of this shape.
    pub fn new(input: impl Into<Shape>) -> Self {
        Self { input: input.into().dims().to_vec(), layers: Vec::new() }
    }

    /// With one more layer at the end.
    #[allow(clippy::should_implement_trait)] // Keras' word; nothing is summed
    pub fn add(mut self, layer: impl Into<Layer>) -> Self {
        self.layers.push(layer.into());
        self
    }

    /// Shape of an item that goes in.
    pub fn input_shape(&self) -> Shape {
        self.input.clone().into()
    }

    /// The layers in order.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The layers with their names.
    pub fn named_layers(&self) -> Vec<(String, &Layer)> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let mut name = |layer: &Layer| {
            let count = counts.entry(layer.prefix()).or_default();
            *count += 1;
            format!("{}{count}", layer.prefix())
        };
        self.layers.iter().map(|layer| (name(layer), layer)).collect()
    }

    /// Whether the last layer ends in softmax, so that its results are probabilities.
    pub fn ends_in_softmax(&self) -> bool {
        match self.layers.last() {
            Some(Layer::Conv2d(l)) => l.activation == Activation::Softmax,
            Some(Layer::Dense(l)) => l.activation == Activation::Softmax,
            Some(Layer::Activation(l)) => l.function == Activation::Softmax,
            _ => false,
        }
    }

    /// Records the network on a batch `x` [rows, ...]. With `logits`, a softmax at the very end is left out:
    /// the loss takes logits.
    ///
    /// # Errors
    /// If a layer does not fit what comes before it; the layer is named.
    pub fn record(&self, g: &mut Graph, x: Tensor, mode: Mode, logits: bool) -> Result<Tensor, GraphError> {
        Ok(self.record_all(g, x, mode, logits)?.last().copied().unwrap_or(x))
    }

    fn record_all(
        &self,
        g: &mut Graph,
        x: Tensor,
        mode: Mode,
        logits: bool,
    ) -> Result<Vec<Tensor>, GraphError> {
        let mut results = Vec::with_capacity(self.layers.len());
        let mut x = x;
        for (i, (name, layer)) in self.named_layers().into_iter().enumerate() {
            x = layer.record(g, &name, x, mode, logits && i + 1 == self.layers.len())?;
            results.push(x);
        }
        Ok(results)
    }

    /// The shape of one item after each layer.
    fn output_shapes(&self) -> Result<Vec<Shape>, GraphError> {
        let mut g = Graph::new();
        let mut batch = vec![1];
        batch.extend(&self.input);
        let x = g.input("x", batch)?;
        let results = self.record_all(&mut g, x, Mode::Eval, false)?;
        results.into_iter().map(|t| Ok(Shape::from(&g.shape(t)?.dims()[1..]))).collect()
    }

    /// The shape of one item that comes out.
    ///
    /// # Errors
    /// If a layer does not fit what comes before it.
    pub fn output_shape(&self) -> Result<Shape, GraphError> {
        Ok(self.output_shapes()?.pop().unwrap_or_else(|| self.input_shape()))
    }

    /// All parameters, in the order of the layers.
    ///
    /// # Errors
    /// If a layer does not fit what comes before it.
    pub fn parameters(&self) -> Result<Vec<ParameterSpec>, GraphError> {
        let outputs = self.output_shapes()?;
        let inputs = std::iter::once(self.input_shape()).chain(outputs);
        Ok(self.named_layers().iter().zip(inputs).flat_map(|((name, l), x)| l.parameters(name, &x)).collect())
    }

    /// Shapes and sizes of every layer.
    ///
    /// # Errors
    /// If a layer does not fit what comes before it.
    pub fn summary(&self) -> Result<Summary, GraphError> {
        let outputs = self.output_shapes()?;
        let inputs = std::iter::once(self.input_shape()).chain(outputs.clone());
        let layers: Vec<LayerSummary> = self
            .named_layers()
            .into_iter()
            .zip(inputs.zip(outputs))
            .map(|((name, layer), (input, output))| LayerSummary {
                parameters: layer.parameters(&name, &input).iter().map(|p| p.shape.elements()).sum(),
                kind: layer.type_name(),
                output_bytes: 4 * output.elements(),
                output_shape: output.dims().to_vec(),
                name,
            })
            .collect();
        let parameters = layers.iter().map(|l| l.parameters).sum();
        Ok(Summary { layers, parameters, trainable: parameters })
    }
}
