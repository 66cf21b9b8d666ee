//! What a layer is given to record itself on a graph.

use std::collections::HashSet;

use kiln_graph::{Graph, GraphError, Tensor};
use kiln_kernel::Shape;

use crate::Initializer;

/// Whether a network is being trained. Dropout and noise do nothing otherwise, and batch normalisation uses its
/// running statistics.
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
    /// Whether training changes it by its gradient. Running statistics and frozen layers are not trainable.
    pub trainable: bool,
    /// Whether it is a weight, which penalties take, rather than a bias or the scale and shift of a norm.
    pub is_weight: bool,
}

/// Something that records itself on a graph: a layer, or a block of layers and operations of one's own.
///
/// A residual block as a module:
///
/// ```
/// use kiln_graph::{Graph, GraphError, Tensor};
/// use kiln_nn::{Activation::Relu, Conv2d, Mode, Module, Recording};
///
/// #[derive(Debug)]
/// struct Residual {
///     filters: usize,
/// }
///
/// impl Module for Residual {
///     fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
///         let x = inputs[0];
///         let y = to.layer("conv1", &Conv2d::new(self.filters, 3).same().activation(Relu), &[x])?;
///         let y = to.layer("conv2", &Conv2d::new(self.filters, 3).same(), &[y])?;
///         let sum = to.graph().add(x, y)?;
///         to.graph().relu(sum)
///     }
/// }
///
/// let mut g = Graph::new();
/// let x = g.input("x", [2, 8, 5, 5])?;
/// let mut to = Recording::new(&mut g, Mode::Train);
/// to.layer("block1", &Residual { filters: 8 }, &[x])?;
/// assert_eq!(to.parameters()[0].name, "block1.conv1.weight");
/// # Ok::<(), GraphError>(())
/// ```
pub trait Module: std::fmt::Debug + Send + Sync {
    /// Records what it computes from `inputs`, whose first axis is the batch.
    ///
    /// # Errors
    /// If the inputs do not fit.
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError>;
}

/// How a parameter starts: the distribution, and the numbers of connections that it may depend on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Start {
    /// The distribution.
    pub initializer: Initializer,
    /// Inputs that one output connects.
    pub fan_in: usize,
    /// Outputs that one input connects.
    pub fan_out: usize,
    /// Whether it is a weight, which penalties take, rather than a bias or the scale and shift of a norm.
    pub is_weight: bool,
}

impl Start {
    /// The start of a weight between `fan_in` inputs and `fan_out` outputs.
    pub fn weight(initializer: Initializer, fan_in: usize, fan_out: usize) -> Self {
        Self { initializer, fan_in, fan_out, is_weight: true }
    }

    /// The start of a bias or a norm's parameter, which does not depend on the connections.
    pub fn plain(initializer: Initializer) -> Self {
        Self { initializer, fan_in: 1, fan_out: 1, is_weight: false }
    }
}

/// Summands of the loss that keep numbers small: `l1 Σ|v| + l2 Σv²`, Keras' `L1L2` regularizer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Penalty {
    /// Factor of the sum of magnitudes.
    pub l1: f32,
    /// Factor of the sum of squares.
    pub l2: f32,
}

impl Penalty {
    fn is_none(self) -> bool {
        self.l1 == 0.0 && self.l2 == 0.0
    }

    pub(crate) fn check(self) -> Result<(), String> {
        let Penalty { l1, l2 } = self;
        if l1.is_finite() && l2.is_finite() && l1 >= 0.0 && l2 >= 0.0 {
            return Ok(());
        }
        Err(format!("factors of a penalty must be finite and at least 0, are l1 = {l1} and l2 = {l2}"))
    }
}

/// A graph under recording, with what the layers ask for beside it: parameters, penalties.
#[derive(Debug)]
pub struct Recording<'g> {
    graph: &'g mut Graph,
    mode: Mode,
    trainable: bool,
    weight_penalty: Penalty,
    asked: Asked,
}

/// What the layers ask for beside the graph.
#[derive(Debug, Default)]
struct Asked {
    /// What the names of parameters begin with.
    path: Vec<String>,
    parameters: Vec<ParameterSpec>,
    /// Their names.
    names: HashSet<String>,
    penalties: Vec<Tensor>,
}

impl<'g> Recording<'g> {
    /// Records on `graph`.
    pub fn new(graph: &'g mut Graph, mode: Mode) -> Self {
        Self { graph, mode, trainable: true, weight_penalty: Penalty::default(), asked: Asked::default() }
    }

    /// The graph.
    pub fn graph(&mut self) -> &mut Graph {
        self.graph
    }

    /// Whether the network is being trained.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the layer under recording learns: in training, unless it is frozen.
    pub fn is_learning(&self) -> bool {
        self.mode == Mode::Train && self.trainable
    }

    /// All parameters so far, each once, in the order of recording.
    pub fn parameters(&self) -> &[ParameterSpec] {
        &self.asked.parameters
    }

    /// Scalars that are added to the loss.
    pub fn penalties(&self) -> &[Tensor] {
        &self.asked.penalties
    }

    /// Shape of a tensor.
    ///
    /// # Errors
    /// If another graph recorded it.
    pub fn shape(&self, tensor: Tensor) -> Result<Shape, GraphError> {
        Ok(self.graph.shape(tensor)?.clone())
    }

    /// Records a layer or block under a name: its parameters are called `name.weight` and so on.
    ///
    /// # Errors
    /// If the inputs do not fit the layer.
    pub fn layer(
        &mut self,
        name: &str,
        module: &dyn Module,
        inputs: &[Tensor],
    ) -> Result<Tensor, GraphError> {
        self.layer_sharing(name, name, module, inputs)
    }

    /// As [`Recording::layer`], with the parameters of the layer that was recorded as `of`.
    ///
    /// # Errors
    /// If the inputs do not fit the layer, or the parameters have other shapes there.
    pub fn layer_sharing(
        &mut self,
        name: &str,
        of: &str,
        module: &dyn Module,
        inputs: &[Tensor],
    ) -> Result<Tensor, GraphError> {
        self.asked.path.push(of.to_string());
        let Self { graph, mode, trainable, weight_penalty, asked } = self;
        let (mode, trainable, weight_penalty) = (*mode, *trainable, *weight_penalty);
        let result = graph.scoped(name, |graph| {
            let taken = std::mem::take(asked);
            let mut inner = Recording { graph, mode, trainable, weight_penalty, asked: taken };
            let result = module.record(&mut inner, inputs);
            *asked = inner.asked;
            result
        });
        self.asked.path.pop();
        result
    }

    /// What `f` records is not changed by training, and batch normalisation in it uses its running statistics.
    pub fn frozen<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> R {
        let outer = std::mem::replace(&mut self.trainable, false);
        let result = f(self);
        self.trainable = outer;
        result
    }

    /// The weights of the layers that `f` records ([`Start::weight`]) are penalised.
    pub fn penalised<R>(&mut self, weights: Penalty, f: impl FnOnce(&mut Self) -> R) -> R {
        let outer = std::mem::replace(&mut self.weight_penalty, weights);
        let result = f(self);
        self.weight_penalty = outer;
        result
    }

    /// The name of a parameter of the layer under recording: `conv1.weight` for `weight`.
    pub fn full_name(&self, name: &str) -> String {
        match self.asked.path.join(".") {
            path if path.is_empty() => name.to_string(),
            path => format!("{path}.{name}"),
        }
    }

    /// A parameter of the layer under recording. Asking for the same one again gives the same tensor.
    ///
    /// # Errors
    /// If it was recorded with another shape.
    pub fn parameter(
        &mut self,
        name: &str,
        shape: impl Into<Shape>,
        start: Start,
    ) -> Result<Tensor, GraphError> {
        self.named_parameter(name, shape.into(), start, self.trainable)
    }

    /// A parameter that no gradient changes: a running statistic.
    ///
    /// # Errors
    /// If it was recorded with another shape.
    pub fn statistic(
        &mut self,
        name: &str,
        shape: impl Into<Shape>,
        initializer: Initializer,
    ) -> Result<Tensor, GraphError> {
        self.named_parameter(name, shape.into(), Start::plain(initializer), false)
    }

    fn named_parameter(
        &mut self,
        name: &str,
        shape: Shape,
        start: Start,
        trainable: bool,
    ) -> Result<Tensor, GraphError> {
        let name = self.full_name(name);
        let tensor = self.graph.parameter(&name, shape.clone())?;
        if !self.asked.names.insert(name.clone()) {
            return Ok(tensor);
        }
        if trainable && start.is_weight && !self.weight_penalty.is_none() {
            self.penalise(tensor, self.weight_penalty, 1.0)?;
        }
        let Start { initializer, fan_in, fan_out, is_weight } = start;
        self.asked.parameters.push(ParameterSpec {
            name,
            shape,
            initializer,
            fan_in,
            fan_out,
            trainable,
            is_weight,
        });
        Ok(tensor)
    }

    /// Asks that a running statistic of the layer moves towards `value` by `momentum` of the way after each step.
    ///
    /// # Errors
    /// If there is no such parameter or the shapes differ.
    pub fn running_average(&mut self, name: &str, value: Tensor, momentum: f32) -> Result<(), GraphError> {
        let name = self.full_name(name);
        self.graph.running_average(&name, value, momentum)
    }

    /// Adds `factor (l1 Σ|v| + l2 Σv²)` over the elements of a tensor to the loss.
    ///
    /// # Errors
    /// If the tensor belongs to another graph, or a factor is negative or no number.
    pub fn penalise(&mut self, tensor: Tensor, penalty: Penalty, factor: f32) -> Result<(), GraphError> {
        let Penalty { l1, l2 } = penalty;
        penalty.check().map_err(|message| self.fail("penalty", message))?;
        let g = &mut *self.graph;
        let axes: Vec<usize> = (0..g.shape(tensor)?.rank()).collect();
        for (weight, squared) in [(l1, false), (l2, true)] {
            if weight > 0.0 {
                let terms = if squared { g.square(tensor)? } else { g.abs(tensor)? };
                let sum = g.sum(terms, &axes, false)?;
                self.asked.penalties.push(g.scale(sum, weight * factor)?);
            }
        }
        Ok(())
    }

    /// An error of the layer under recording.
    pub fn fail(&self, op: &str, message: String) -> GraphError {
        GraphError::Shape { op: op.into(), scope: self.graph.scope(), message }
    }
}
