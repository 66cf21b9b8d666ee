//! Networks: layers with names, each reading the one before or those that it names.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use kiln_graph::{Graph, GraphError, Tensor};
use kiln_kernel::Shape;
use serde::{Deserialize, Serialize};

use crate::{Activation, Layer, Loss, Mode, Module, Node, Output, ParameterSpec, Penalty, Recording};

/// What layers call the network's own input in `inputs`.
pub const INPUT: &str = "input";

/// Most layers, and most results that are compared with the target: what is looked up for each in all of them takes no
/// longer than a second then.
const MAX_LAYERS: usize = 10_000;

/// One line of a summary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerSummary {
    /// `conv1`.
    pub name: String,
    /// `conv2d`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Names of what it reads, where that is not just the layer before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// Shape of one item's result.
    pub output_shape: Vec<usize>,
    /// Elements of its parameters. Those of a shared layer count once, where they are first used.
    pub parameters: usize,
    /// Elements of the parameters that training changes.
    pub trainable: usize,
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
    /// Elements of the parameters that training changes; the others are frozen or running statistics.
    pub trainable: usize,
}

impl fmt::Display for Summary {
    /// A line a layer: name, type, shape of its result, parameters; then their sum. Keras' `model.summary()`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<String> = self.layers.iter().map(|l| format!("{:?}", l.output_shape)).collect();
        let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
        let names = widest(&mut self.layers.iter().map(|l| l.name.len()));
        let kinds = widest(&mut self.layers.iter().map(|l| l.kind.len()));
        let outputs = widest(&mut shapes.iter().map(String::len));
        for (LayerSummary { name, kind, parameters, .. }, shape) in self.layers.iter().zip(&shapes) {
            writeln!(f, "{name:<names$}  {kind:<kinds$}  {shape:<outputs$}  {parameters:>10}")?;
        }
        write!(f, "{} parameters, {} of them trainable", self.parameters, self.trainable)
    }
}

/// A network of layers. Each reads the layer before it, or the layers that it names; the last one's result, or the
/// [`Output`]s, are compared with the target.
///
/// Layers are named by kind and number in order (`conv1`, `pool1`, `conv2`, `fc1`), or as they are told.
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
///
/// A residual connection:
///
/// ```
/// use kiln_nn::{Activation::Relu, Add, Conv2d, LayerExt, Network};
///
/// let model = Network::new([8, 5, 5])
///     .add(Conv2d::new(8, 3).same().activation(Relu))
///     .add(Conv2d::new(8, 3).same())
///     .add(Add.inputs(["conv2", "input"]))
///     .add(Relu);
/// assert_eq!(model.output_shape()?.dims(), [8, 5, 5]);
/// # Ok::<(), kiln_graph::GraphError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    input: Vec<usize>,
    layers: Vec<Node>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<Output>,
}

/// A [`Network`] that is a line of layers, Keras' and PyTorch's word for it.
pub type Sequential = Network;

/// A layer after recording.
pub(crate) struct Recorded {
    pub(crate) name: String,
    inputs: Vec<String>,
    pub(crate) result: Tensor,
    /// What its softmax was taken of, where it ends in one.
    logits: Option<Tensor>,
    /// The parameters that it was the first to use.
    parameters: std::ops::Range<usize>,
}

impl Network {
    /// A network without layers over items of this shape.
    pub fn new(input: impl Into<Shape>) -> Self {
        Self { input: input.into().dims().to_vec(), layers: Vec::new(), outputs: Vec::new() }
    }

    /// With one more layer at the end.
    #[allow(clippy::should_implement_trait)] // Keras' word; nothing is summed
    pub fn add(mut self, layer: impl Into<Node>) -> Self {
        self.layers.push(layer.into());
        self
    }

    /// With one more result that is compared with the target. The first is the main one, which predicts; where there
    /// are none it is the last layer's.
    pub fn output(mut self, output: Output) -> Self {
        self.outputs.push(output);
        self
    }

    /// Shape of an item that goes in.
    pub fn input_shape(&self) -> Shape {
        self.input.clone().into()
    }

    /// The layers in order.
    pub fn layers(&self) -> &[Node] {
        &self.layers
    }

    /// The layers, to be changed in place: their settings, not their number.
    pub fn layers_mut(&mut self) -> &mut [Node] {
        &mut self.layers
    }

    /// Keeps so many layers.
    pub(crate) fn truncate(&mut self, layers: usize) {
        self.layers.truncate(layers);
    }

    /// The results that are compared with the target, where they are named.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Whether some layer is a module of the user's own, which files cannot describe.
    pub fn has_own_modules(&self) -> bool {
        self.layers.iter().any(|node| matches!(node.layer, Layer::Own(_)))
    }

    /// The layers with their names.
    pub fn named_layers(&self) -> Vec<(String, &Layer)> {
        self.names().into_iter().zip(self.layers.iter().map(|node| &node.layer)).collect()
    }

    fn names(&self) -> Vec<String> {
        let given: HashSet<&str> = self.layers.iter().filter_map(|node| node.name.as_deref()).collect();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let mut number = |prefix: &'static str| {
            loop {
                let count = counts.entry(prefix).or_default();
                *count += 1;
                let name = format!("{prefix}{count}");
                if !given.contains(name.as_str()) {
                    return name;
                }
            }
        };
        self.layers
            .iter()
            .map(|node| node.name.clone().unwrap_or_else(|| number(node.layer.prefix())))
            .collect()
    }

    /// The position of the layer whose result is the main one.
    fn main_layer(&self, names: &[String]) -> Option<usize> {
        match self.outputs.first() {
            Some(output) => names.iter().position(|name| *name == output.layer),
            None => self.layers.len().checked_sub(1),
        }
    }

    /// Whether the main result comes from a softmax, so that it is probabilities.
    pub fn ends_in_softmax(&self) -> bool {
        let main = self.main_layer(&self.names());
        main.is_some_and(|i| self.layers[i].layer.ends_in_softmax())
    }

    /// The activation that the main result comes from, where its layer has one; linear if it is left out.
    pub(crate) fn main_activation(&self) -> Option<Activation> {
        let main = self.main_layer(&self.names())?;
        self.layers[main].layer.clone().activation_mut().map(|activation| *activation)
    }

    /// The loss that the main result is compared with the target by, where `loss` is the network's.
    pub fn main_loss<'a>(&'a self, loss: &'a Loss) -> &'a Loss {
        self.outputs.first().and_then(|output| output.loss.as_ref()).unwrap_or(loss)
    }

    /// Records the network on a batch `x` [rows, ...] and gives its results: the main one, then the others. Where
    /// `logits` says so of a result, what its softmax is taken of is given instead, because the loss takes logits.
    ///
    /// # Errors
    /// If a layer does not fit what it reads, or names what is not before it; the layer is named.
    pub fn record(
        &self,
        to: &mut Recording<'_>,
        x: Tensor,
        logits: impl Fn(usize) -> bool,
    ) -> Result<Vec<Tensor>, GraphError> {
        let layers = self.record_all(to, x)?;
        self.results(&layers, x, logits)
    }

    /// The results that are compared with the target.
    fn results(
        &self,
        layers: &[Recorded],
        x: Tensor,
        logits: impl Fn(usize) -> bool,
    ) -> Result<Vec<Tensor>, GraphError> {
        let of = |i: usize, layer: &Recorded| layer.logits.filter(|_| logits(i)).unwrap_or(layer.result);
        if self.outputs.is_empty() {
            return Ok(vec![layers.last().map_or(x, |layer| of(0, layer))]);
        }
        if self.outputs.iter().all(|output| output.weight == 0.0) {
            let message = "all weights are 0, so that nothing would be trained".into();
            return Err(GraphError::Shape { op: "output".into(), scope: "outputs".into(), message });
        }
        let named = self.outputs.iter().enumerate().map(|(i, output)| {
            let fail = |message: String| GraphError::Shape {
                op: "output".into(),
                scope: output.layer.clone(),
                message,
            };
            if !(output.weight.is_finite() && output.weight >= 0.0) {
                return Err(fail(format!("the weight must be a number of at least 0, is {}", output.weight)));
            }
            if self.outputs[..i].iter().any(|o| (&o.layer, &o.loss) == (&output.layer, &output.loss)) {
                return Err(fail("is listed twice with one loss; leave one out, or set its weight".into()));
            }
            let layer = layers.iter().find(|layer| layer.name == output.layer);
            layer.map(|layer| of(i, layer)).ok_or_else(|| fail("there is no layer of this name".into()))
        });
        named.collect()
    }

    /// The layer whose parameters a layer uses: itself, unless it shares.
    fn owner(&self, names: &[String], i: usize) -> Result<usize, String> {
        let node = &self.layers[i];
        let Some(share) = &node.share else { return Ok(i) };
        let kind = node.layer.type_name();
        let owner = names.iter().position(|name| name == share).filter(|&j| {
            j != i && self.layers[j].layer.type_name() == kind && self.layers[j].share.is_none()
        });
        let Some(owner) = owner else {
            return Err(format!(
                "shares with \"{share}\", which is no other {kind} layer with parameters of its own"
            ));
        };
        if !node.trainable || node.weight_l1 != 0.0 || node.weight_l2 != 0.0 {
            return Err(format!(
                "shares the parameters of \"{share}\"; set trainable, weight_l1 and weight_l2 there"
            ));
        }
        Ok(owner)
    }

    /// A layer that no result comes from: what it has would be trained for nothing.
    pub(crate) fn idle_layer(&self) -> Option<String> {
        let names = self.names();
        let last = names.last().filter(|_| self.outputs.is_empty());
        let mut read: HashSet<&str> = self.outputs.iter().map(|output| output.layer.as_str()).collect();
        read.extend(last.map(String::as_str));
        // those that share stand behind or before the layer that has the parameters
        read.extend(self.layers.iter().filter_map(|node| node.share.as_deref()));
        let is_penalised = |node: &Node| node.activity_l1 != 0.0 || node.activity_l2 != 0.0;
        read.extend(
            self.layers.iter().zip(&names).filter(|(node, _)| is_penalised(node)).map(|(_, name)| &**name),
        );
        for (i, node) in self.layers.iter().enumerate().rev() {
            if !read.contains(names[i].as_str()) {
                return Some(names[i].clone());
            }
            match &node.inputs {
                Some(inputs) => read.extend(inputs.iter().map(String::as_str)),
                None => read.extend(i.checked_sub(1).map(|before| names[before].as_str())),
            }
        }
        None
    }

    /// The layer whose parameters layer `i` uses, with its name.
    pub(crate) fn owner_of(&self, i: usize) -> Result<(String, &Layer), String> {
        let names = self.names();
        let owner = self.owner(&names, i)?;
        Ok((names[owner].clone(), &self.layers[owner].layer))
    }

    /// The network with another layer in place of layer `i`.
    pub(crate) fn with_layer(&self, i: usize, layer: Layer) -> Self {
        let mut network = self.clone();
        network.layers[i].layer = layer;
        network
    }

    /// Records the layers on a batch `x` [rows, ...].
    pub(crate) fn record_all(&self, to: &mut Recording<'_>, x: Tensor) -> Result<Vec<Recorded>, GraphError> {
        for (count, what) in [(self.layers.len(), "layers"), (self.outputs.len(), "outputs")] {
            if count > MAX_LAYERS {
                let message = format!("{count} {what} are more than {MAX_LAYERS}");
                return Err(GraphError::Shape { op: "network".into(), scope: String::new(), message });
            }
        }
        let names = self.names();
        let known_names: HashSet<&str> = names.iter().map(String::as_str).collect();
        let mut known: HashMap<&str, Tensor> = HashMap::from([(INPUT, x)]);
        let mut all: Vec<Recorded> = Vec::with_capacity(self.layers.len());
        for (i, (node, name)) in self.layers.iter().zip(&names).enumerate() {
            let fail = |message: String| GraphError::Shape {
                op: node.layer.type_name().into(),
                scope: name.clone(),
                message,
            };
            check_name(name).map_err(fail)?;
            if known.contains_key(name.as_str()) {
                return Err(fail(format!("the name \"{name}\" is taken by what comes before")));
            }
            let before = all.last().map_or(INPUT, |layer| layer.name.as_str()).to_string();
            let inputs = node.inputs.clone().unwrap_or_else(|| vec![before.clone()]);
            let read = |input: &String| {
                known.get(input.as_str()).copied().ok_or_else(|| {
                    fail(match known_names.contains(input.as_str()) {
                        true => format!("reads \"{input}\", which comes after it; put it behind"),
                        false => format!("there is no layer \"{input}\" before it"),
                    })
                })
            };
            let tensors = inputs.iter().map(read).collect::<Result<Vec<Tensor>, _>>()?;
            let owner = self.owner(&names, i).map_err(fail)?;
            let first = to.parameters().len();
            let (result, logits) =
                record_node(node, &self.layers[owner], to, [name, &names[owner]], &tensors)?;
            let plain = inputs == [before];
            all.push(Recorded {
                name: name.clone(),
                inputs: if plain { Vec::new() } else { inputs },
                result,
                logits,
                parameters: first..to.parameters().len(),
            });
            known.insert(name, result);
        }
        Ok(all)
    }

    /// Records the network on one item, and looks at what came of it.
    fn examine<R>(
        &self,
        look: impl FnOnce(&Recording<'_>, &[Recorded], &[Tensor]) -> Result<R, GraphError>,
    ) -> Result<R, GraphError> {
        let mut g = Graph::new();
        let mut batch = vec![1];
        batch.extend(&self.input);
        let x = g.input("x", batch)?;
        let mut to = Recording::new(&mut g, Mode::Eval);
        let layers = self.record_all(&mut to, x)?;
        let outputs = self.results(&layers, x, |_| false)?;
        look(&to, &layers, &outputs)
    }

    /// The shape of one item of the main result.
    ///
    /// # Errors
    /// If a layer does not fit what it reads.
    pub fn output_shape(&self) -> Result<Shape, GraphError> {
        self.examine(|to, _, outputs| item_shape(to, outputs[0]))
    }

    /// The shapes of one item of all results that are compared with the target.
    ///
    /// # Errors
    /// If a layer does not fit what it reads.
    pub fn output_shapes(&self) -> Result<Vec<Shape>, GraphError> {
        self.examine(|to, _, outputs| outputs.iter().map(|&t| item_shape(to, t)).collect())
    }

    /// All parameters, in the order of the layers.
    ///
    /// # Errors
    /// If a layer does not fit what it reads.
    pub fn parameters(&self) -> Result<Vec<ParameterSpec>, GraphError> {
        self.examine(|to, _, _| Ok(to.parameters().to_vec()))
    }

    /// Shapes and sizes of every layer.
    ///
    /// # Errors
    /// If a layer does not fit what it reads.
    pub fn summary(&self) -> Result<Summary, GraphError> {
        self.examine(|to, layers, _| {
            let mut lines = Vec::with_capacity(layers.len());
            for (layer, node) in layers.iter().zip(&self.layers) {
                let specs = &to.parameters()[layer.parameters.clone()];
                let elements = |p: &ParameterSpec| p.shape.elements();
                let output = item_shape(to, layer.result)?;
                lines.push(LayerSummary {
                    name: layer.name.clone(),
                    kind: node.layer.type_name(),
                    inputs: layer.inputs.clone(),
                    output_bytes: 4 * output.elements(),
                    output_shape: output.dims().to_vec(),
                    parameters: specs.iter().map(elements).sum(),
                    trainable: specs.iter().filter(|p| p.trainable).map(elements).sum(),
                });
            }
            let parameters = lines.iter().map(|l| l.parameters).sum();
            let trainable = lines.iter().map(|l| l.trainable).sum();
            Ok(Summary { layers: lines, parameters, trainable })
        })
    }
}

/// Names become parts of parameters' names and of files.
fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-/".contains(c);
    if name.is_empty() || name == INPUT || name.len() > 100 || !name.chars().all(allowed) {
        let name: String = name.chars().take(100).collect();
        return Err(format!(
            "\"{name}\" cannot be a layer's name: up to 100 letters, digits, _, - and /, and not \"{INPUT}\""
        ));
    }
    Ok(())
}

fn item_shape(to: &Recording<'_>, tensor: Tensor) -> Result<Shape, GraphError> {
    let shape = to.shape(tensor)?;
    Ok(Shape::from(shape.dims().get(1..).unwrap_or_default()))
}

/// Records one layer, with its penalties, by what its parameters' owner says of them. Its result, and what a softmax at
/// its end was taken of.
fn record_node(
    node: &Node,
    owner: &Node,
    to: &mut Recording<'_>,
    [name, of]: [&str; 2],
    inputs: &[Tensor],
) -> Result<(Tensor, Option<Tensor>), GraphError> {
    let fail = |message: String| GraphError::Shape {
        op: node.layer.type_name().into(),
        scope: name.into(),
        message,
    };
    let weights = Penalty { l1: owner.weight_l1, l2: owner.weight_l2 };
    let activity = Penalty { l1: node.activity_l1, l2: node.activity_l2 };
    weights.check().and_then(|()| activity.check()).map_err(fail)?;
    let split = node.layer.without_softmax();
    let layer = split.as_ref().map_or(&node.layer, |(layer, _)| layer);
    let record = |to: &mut Recording<'_>| {
        to.penalised(weights, |to| to.layer_sharing(name, of, layer as &dyn Module, inputs))
    };
    let y = if owner.trainable { record(to) } else { to.frozen(record) };
    let y = y.map_err(|error| match error {
        GraphError::Name(message) if name != of => {
            fail(format!("cannot share the parameters of \"{of}\": {message}"))
        }
        error => error,
    })?;
    // by name, since a layer that shares them may have recorded them before
    let of_owner = format!("{of}.");
    let has_weights = || to.parameters().iter().any(|p| p.is_weight && p.name.starts_with(&of_owner));
    if weights != Penalty::default() && !has_weights() {
        return Err(fail("has no weights that weight_l1 and weight_l2 could penalise".into()));
    }
    let (y, logits) = match split {
        None => (y, None),
        Some((_, axis)) => {
            let axis = axis.unwrap_or(to.shape(y)?.rank().saturating_sub(1));
            (to.graph().scoped(name, |g| g.softmax(y, axis))?, Some(y))
        }
    };
    if activity != Penalty::default() {
        let rows = to.shape(y)?.dims().first().copied().unwrap_or(1);
        to.penalise(y, activity, 1.0 / rows as f32)?;
    }
    Ok((y, logits))
}
