use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use kiln_kernel::{CLOCK_WORDS, DType, MAX_ELEMENTS, Shape};

use crate::{GRADIENTS, GraphError, PARAMETERS, ops::Op};

/// Most axes of a tensor: NumPy has no more either.
const MAX_RANK: usize = 64;

/// A value in a [`Graph`]: a handle, cheap to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tensor {
    graph: u32,
    index: u32,
}

impl Tensor {
    pub(crate) fn index(self) -> usize {
        self.index as usize
    }
}

/// What is known of a tensor.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Axis sizes.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
    pub(crate) node: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) op: Op,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) scope: Arc<str>,
}

/// A recorded computation. Nodes stand in the order of recording, which is an order of execution.
///
/// Each method of [`crate::ops`] records one operation, or a few, and returns the result's handle. Names
/// that [`Graph::scoped`] opens appear in errors, plans and profiles.
#[derive(Clone, Debug)]
pub struct Graph {
    id: u32,
    pub(crate) nodes: Vec<Node>,
    pub(crate) tensors: Vec<TensorInfo>,
    /// Inputs and parameters by name.
    leaves: HashMap<String, Tensor>,
    scopes: Vec<String>,
    streams: u32,
    averages: Vec<(String, Tensor, f32)>,
}

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            nodes: Vec::new(),
            tensors: Vec::new(),
            leaves: HashMap::new(),
            scopes: Vec::new(),
            streams: 0,
            averages: Vec::new(),
        }
    }

    /// Records what `f` records under a name: `scoped("conv1", ...)` inside `scoped("block2", ...)` is
    /// `block2.conv1`.
    pub fn scoped<R>(&mut self, name: &str, f: impl FnOnce(&mut Self) -> R) -> R {
        self.scopes.push(name.to_string());
        let result = f(self);
        self.scopes.pop();
        result
    }

    /// The open scopes, joined by dots.
    pub fn scope(&self) -> String {
        self.scopes.join(".")
    }

    /// Records what `f` records under exactly this name, whatever scopes are open.
    pub(crate) fn rescoped<R>(&mut self, name: String, f: impl FnOnce(&mut Self) -> R) -> R {
        let outer = std::mem::replace(&mut self.scopes, if name.is_empty() { vec![] } else { vec![name] });
        let result = f(self);
        self.scopes = outer;
        result
    }

    /// A value that is written from outside before each run, or that lies on the device: a batch of
    /// images. Recording the same name twice gives the same tensor.
    ///
    /// # Errors
    /// If the name was recorded with another shape or type.
    pub fn input(&mut self, name: &str, shape: impl Into<Shape>) -> Result<Tensor, GraphError> {
        self.leaf(Op::Input(name.into()), name, shape.into(), DType::F32)
    }

    /// As [`Graph::input`], of unsigned integers: class labels, indices.
    ///
    /// # Errors
    /// If the name was recorded with another shape or type.
    pub fn input_u32(&mut self, name: &str, shape: impl Into<Shape>) -> Result<Tensor, GraphError> {
        self.leaf(Op::Input(name.into()), name, shape.into(), DType::U32)
    }

    /// The clock of [`kiln_kernel::CLOCK_WORDS`]: the step, the cursor and the seed.
    ///
    /// # Errors
    /// If an input named `clock` was recorded with another shape or type.
    pub fn clock(&mut self) -> Result<Tensor, GraphError> {
        self.input_u32(crate::CLOCK, [CLOCK_WORDS])
    }

    /// A value that training changes; it lives in a [`crate::ParameterStore`] under this name. Recording
    /// the same name twice gives the same tensor (a shared layer).
    ///
    /// # Errors
    /// If the name was recorded with another shape.
    pub fn parameter(&mut self, name: &str, shape: impl Into<Shape>) -> Result<Tensor, GraphError> {
        self.leaf(Op::Parameter(name.into()), name, shape.into(), DType::F32)
    }

    fn leaf(&mut self, op: Op, name: &str, shape: Shape, dtype: DType) -> Result<Tensor, GraphError> {
        if [PARAMETERS, GRADIENTS].contains(&name) || name.starts_with(crate::plan::LITERAL) {
            return Err(GraphError::Name(format!(
                "the name \"{name}\" is taken by a buffer of the plan; choose another"
            )));
        }
        if let Some(&tensor) = self.leaves.get(name) {
            let info = &self.tensors[tensor.index()];
            if std::mem::discriminant(&self.nodes[info.node].op) != std::mem::discriminant(&op) {
                return Err(GraphError::Name(format!(
                    "\"{name}\" is the name of an input and of a parameter"
                )));
            }
            if info.shape != shape || info.dtype != dtype {
                return Err(GraphError::Name(format!(
                    "\"{name}\" was recorded with shape {} {:?} and again with {shape} {dtype:?}",
                    info.shape, info.dtype
                )));
            }
            return Ok(tensor);
        }
        self.check_size(&op, &shape)?;
        let tensor = self.push(op, Vec::new(), vec![(shape, dtype)])[0];
        self.leaves.insert(name.into(), tensor);
        Ok(tensor)
    }

    /// Asks that parameter `name` follow `value` from training step to training step: after each it becomes
    /// `p + momentum (value - p)`, as the running statistics of batch normalisation. A plan does so if its
    /// [`crate::Request::averages`] hold what [`Graph::averages`] gives. The value must not be computed from the
    /// parameter after it has moved; what the graph computes reads it as it was before.
    ///
    /// # Errors
    /// If there is no such parameter, its elements are not as many as the value's, or the momentum is not in [0, 1].
    pub fn running_average(&mut self, name: &str, value: Tensor, momentum: f32) -> Result<(), GraphError> {
        let shape = self.shape(value)?.clone();
        let fail = |message: String| {
            Err(GraphError::Shape { op: "running_average".into(), scope: self.scope(), message })
        };
        let known = self.leaves.get(name).map(|t| &self.tensors[t.index()]);
        match known.filter(|info| matches!(self.nodes[info.node].op, Op::Parameter(_))) {
            None => return fail(format!("there is no parameter \"{name}\"; record it first")),
            Some(own) if own.shape.elements() != shape.elements() => {
                let own = &own.shape;
                return fail(format!(
                    "parameter \"{name}\" is {own}, the value that it is to follow {shape}"
                ));
            }
            Some(_) => {}
        }
        if !(0.0..=1.0).contains(&momentum) {
            return fail(format!("momentum must be in [0, 1], is {momentum}"));
        }
        if self.info(value)?.dtype != DType::F32 {
            return fail("an average is of real numbers, the value holds integers".into());
        }
        self.averages.push((name.into(), value, momentum));
        Ok(())
    }

    /// The averages that [`Graph::running_average`] has recorded: parameter, value, momentum.
    pub fn averages(&self) -> &[(String, Tensor, f32)] {
        &self.averages
    }

    /// Names and shapes of the recorded parameters, in the order of recording.
    pub fn parameters(&self) -> Vec<(String, Shape)> {
        self.nodes
            .iter()
            .filter_map(|n| match &n.op {
                Op::Parameter(name) => {
                    Some((name.to_string(), self.tensors[n.outputs[0].index()].shape.clone()))
                }
                _ => None,
            })
            .collect()
    }

    /// The tensors of the recorded parameters, in the order of [`Graph::parameters`].
    pub fn parameter_tensors(&self) -> Vec<Tensor> {
        self.nodes.iter().filter(|n| matches!(n.op, Op::Parameter(_))).map(|n| n.outputs[0]).collect()
    }

    /// Shape and type of a tensor.
    ///
    /// # Errors
    /// If another graph recorded it.
    pub fn info(&self, tensor: Tensor) -> Result<&TensorInfo, GraphError> {
        if tensor.graph != self.id {
            return Err(GraphError::ForeignTensor);
        }
        self.tensors.get(tensor.index()).ok_or(GraphError::ForeignTensor)
    }

    /// Shape of a tensor.
    ///
    /// # Errors
    /// If another graph recorded it.
    pub fn shape(&self, tensor: Tensor) -> Result<&Shape, GraphError> {
        Ok(&self.info(tensor)?.shape)
    }

    /// What recorded a tensor, for messages: `relu "conv1"`.
    pub fn describe(&self, tensor: Tensor) -> String {
        match self.info(tensor) {
            Ok(info) => {
                let node = &self.nodes[info.node];
                match &node.op {
                    Op::Input(name) => format!("input \"{name}\""),
                    Op::Parameter(name) => format!("parameter \"{name}\""),
                    op if node.scope.is_empty() => op.name(),
                    op => format!("{} \"{}\"", op.name(), node.scope),
                }
            }
            Err(error) => error.to_string(),
        }
    }

    /// The name of an input; nothing of what is computed, and of parameters.
    pub fn input_name(&self, tensor: Tensor) -> Option<&str> {
        match &self.nodes[self.info(tensor).ok()?.node].op {
            Op::Input(name) => Some(name),
            _ => None,
        }
    }

    /// Every tensor, in the order of recording.
    pub fn tensors(&self) -> Vec<Tensor> {
        (0..self.tensors.len() as u32).map(|index| Tensor { graph: self.id, index }).collect()
    }

    /// A stream of random numbers that no other operation of this graph draws from.
    pub(crate) fn next_stream(&mut self) -> u32 {
        self.streams += 1;
        self.streams
    }

    /// Checks shapes and appends a node.
    pub(crate) fn record(&mut self, op: Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, GraphError> {
        let mut infos = Vec::with_capacity(inputs.len());
        for &input in inputs {
            infos.push(self.info(input)?);
        }
        let rule = op.rule();
        let dtypes = rule.dtypes();
        for (i, info) in infos.iter().enumerate() {
            let want = dtypes.get(i).copied().unwrap_or(DType::F32);
            if info.dtype != want {
                return Err(self.shape_error(&op, format!("input {i} is {:?}, must be {want:?}", info.dtype)));
            }
        }
        let shapes: Vec<&Shape> = infos.iter().map(|i| &i.shape).collect();
        let outputs = rule.infer(&shapes).map_err(|message| self.shape_error(&op, message))?;
        for (shape, _) in &outputs {
            self.check_size(&op, shape)?;
        }
        Ok(self.push(op, inputs.to_vec(), outputs))
    }

    /// A further tensor of a node, for planning.
    pub(crate) fn add_tensor(&mut self, info: TensorInfo) -> Tensor {
        self.tensors.push(info);
        Tensor { graph: self.id, index: (self.tensors.len() - 1) as u32 }
    }

    /// Records an operation with one result.
    pub(crate) fn record1(&mut self, op: Op, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        Ok(self.record(op, inputs)?[0])
    }

    pub(crate) fn shape_error(&self, op: &Op, message: String) -> GraphError {
        GraphError::Shape { op: op.name(), scope: self.scope(), message }
    }

    /// Kernels index elements with 32 bits; a size of zero has no meaning in any of them. Every node keeps its shape, so that
    /// a long one in a file of many layers would take memory beyond all proportion.
    fn check_size(&self, op: &Op, shape: &Shape) -> Result<(), GraphError> {
        if shape.rank() > MAX_RANK {
            let message = format!("{} axes are more than {MAX_RANK}", shape.rank());
            return Err(self.shape_error(op, message));
        }
        let elements = shape.dims().iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        match elements {
            Some(0) => Err(self.shape_error(op, format!("shape {shape} has an axis of size 0"))),
            Some(n) if n <= MAX_ELEMENTS => Ok(()),
            _ => Err(self.shape_error(op, format!("shape {shape} has more than {MAX_ELEMENTS} elements"))),
        }
    }

    fn push(&mut self, op: Op, inputs: Vec<Tensor>, outputs: Vec<(Shape, DType)>) -> Vec<Tensor> {
        let node = self.nodes.len();
        let first = self.tensors.len() as u32;
        let handles: Vec<Tensor> =
            (first..first + outputs.len() as u32).map(|index| Tensor { graph: self.id, index }).collect();
        self.tensors.extend(outputs.into_iter().map(|(shape, dtype)| TensorInfo { shape, dtype, node }));
        self.nodes.push(Node { op, inputs, outputs: handles.clone(), scope: self.scope().into() });
        handles
    }
}
