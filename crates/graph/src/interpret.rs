//! The oracle: each operation's meaning in plain `f64`, node by node, with no kernel, fusion or buffer.

use std::collections::HashMap;

use ndarray::ArrayD;

use crate::{Graph, GraphError, Tensor, ops::Op};

/// A value of the interpreter. Integers are held as whole numbers.
pub type Array = ArrayD<f64>;

/// Evaluates tensors of a graph from fed inputs and parameters.
pub struct Interpreter<'g> {
    graph: &'g Graph,
    feeds: HashMap<String, Array>,
    values: Vec<Option<Array>>,
}

impl<'g> Interpreter<'g> {
    /// An interpreter with nothing fed.
    pub fn new(graph: &'g Graph) -> Self {
        Self { graph, feeds: HashMap::new(), values: vec![None; graph.tensors.len()] }
    }

    /// Gives an input or parameter its value, and forgets what was computed.
    pub fn feed(&mut self, name: &str, value: Array) {
        self.feeds.insert(name.to_string(), value);
        self.values.fill(None);
    }

    /// The value of a tensor.
    ///
    /// # Errors
    /// Where an input was not fed, or fed in another shape than recorded.
    pub fn value(&mut self, tensor: Tensor) -> Result<&Array, GraphError> {
        let last = self.graph.info(tensor)?.node;
        let mut needed = vec![false; last + 1];
        needed[last] = true;
        for index in (0..=last).rev() {
            if needed[index] {
                for input in &self.graph.nodes[index].inputs {
                    needed[self.graph.tensors[input.index()].node] = true;
                }
            }
        }
        for (index, _) in needed.iter().enumerate().filter(|(_, needed)| **needed) {
            self.evaluate(index)?;
        }
        self.values[tensor.index()].as_ref().ok_or(GraphError::ForeignTensor)
    }

    fn evaluate(&mut self, index: usize) -> Result<(), GraphError> {
        let node = &self.graph.nodes[index];
        if node.outputs.iter().all(|t| self.values[t.index()].is_some()) {
            return Ok(());
        }
        let results = match &node.op {
            Op::Input(name) | Op::Parameter(name) => vec![self.fed(name, node.outputs[0])?],
            op => {
                let inputs: Option<Vec<&Array>> =
                    node.inputs.iter().map(|t| self.values[t.index()].as_ref()).collect();
                op.rule().meaning(&inputs.ok_or(GraphError::ForeignTensor)?)
            }
        };
        for (tensor, value) in node.outputs.iter().zip(results) {
            self.values[tensor.index()] = Some(value);
        }
        Ok(())
    }

    fn fed(&self, name: &str, tensor: Tensor) -> Result<Array, GraphError> {
        let value =
            self.feeds.get(name).ok_or_else(|| GraphError::Name(format!("input \"{name}\" was not fed")))?;
        let shape = self.graph.shape(tensor)?;
        if value.shape() != shape.dims() {
            return Err(GraphError::Name(format!(
                "input \"{name}\" was fed with shape {:?}, recorded with {shape}",
                value.shape()
            )));
        }
        Ok(value.as_standard_layout().into_owned())
    }
}
