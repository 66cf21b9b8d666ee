//! One operation of a graph by itself.

use crate::{Graph, GraphError, Tensor, ops::Op};

/// One recorded operation in a graph of its own; see [`Graph::alone`].
#[derive(Clone, Debug)]
pub struct Alone {
    /// The graph: inputs and the operation.
    pub graph: Graph,
    /// The inputs' names and tensors, in the order of [`Graph::operands`].
    pub inputs: Vec<(String, Tensor)>,
    /// The result that stands for the tensor that was asked for.
    pub output: Tensor,
}

impl Graph {
    /// What the operation that recorded a tensor reads, each tensor once; nothing for inputs and parameters.
    ///
    /// # Errors
    /// If another graph recorded it.
    pub fn operands(&self, tensor: Tensor) -> Result<Vec<Tensor>, GraphError> {
        let node = &self.nodes[self.info(tensor)?.node];
        let mut operands: Vec<Tensor> = Vec::with_capacity(node.inputs.len());
        for &input in &node.inputs {
            if !operands.contains(&input) {
                operands.push(input);
            }
        }
        Ok(operands)
    }

    /// The operation that recorded a tensor, in a graph of its own, with inputs in the place of what it reads: to
    /// repeat it from values that were kept. `None` for inputs and parameters, which nothing computes.
    ///
    /// # Errors
    /// If another graph recorded it.
    pub fn alone(&self, tensor: Tensor) -> Result<Option<Alone>, GraphError> {
        let node = &self.nodes[self.info(tensor)?.node];
        if matches!(node.op, Op::Input(_) | Op::Parameter(_)) {
            return Ok(None);
        }
        let mut graph = Self::new();
        let operands = self.operands(tensor)?;
        let mut inputs = Vec::with_capacity(operands.len());
        for (i, &operand) in operands.iter().enumerate() {
            let (name, info) = (format!("operand {i}"), self.info(operand)?);
            let leaf = match info.dtype {
                kiln_kernel::DType::F32 => graph.input(&name, info.shape.clone())?,
                kiln_kernel::DType::U32 => graph.input_u32(&name, info.shape.clone())?,
            };
            inputs.push((name, leaf));
        }
        let leaf_of = |input: &Tensor| operands.iter().position(|operand| operand == input);
        let arguments: Vec<Tensor> = node.inputs.iter().filter_map(leaf_of).map(|i| inputs[i].1).collect();
        let outputs = graph.rescoped(node.scope.to_string(), |g| g.record(node.op.clone(), &arguments))?;
        let wanted = node.outputs.iter().position(|output| *output == tensor).unwrap_or(0);
        Ok(Some(Alone { inputs, output: outputs[wanted], graph }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ndarray::arr1;

    use super::*;
    use crate::Interpreter;

    #[test]
    fn an_operation_alone_computes_the_same() {
        let mut g = Graph::new();
        let x = g.input("x", [3]).unwrap();
        let w = g.parameter("w", [3]).unwrap();
        let y = g.mul(x, w).unwrap();
        let twice = g.mul(y, y).unwrap();
        assert!(g.alone(x).unwrap().is_none() && g.alone(w).unwrap().is_none());
        assert_eq!((g.operands(y).unwrap().len(), g.operands(twice).unwrap()), (2, vec![y]));
        assert_eq!((g.input_name(x), g.input_name(w), g.input_name(y)), (Some("x"), None, None));

        let mut run = Interpreter::new(&g);
        run.feed("x", arr1(&[1.0, 2.0, 3.0]).into_dyn());
        run.feed("w", arr1(&[0.5, -1.0, 4.0]).into_dyn());
        let mut values = HashMap::new();
        for tensor in g.tensors() {
            values.insert(tensor, run.value(tensor).unwrap().clone());
        }
        for tensor in [y, twice] {
            let alone = g.alone(tensor).unwrap().unwrap();
            let mut run = Interpreter::new(&alone.graph);
            for ((name, _), operand) in alone.inputs.iter().zip(g.operands(tensor).unwrap()) {
                run.feed(name, values[&operand].clone());
            }
            assert_eq!(*run.value(alone.output).unwrap(), values[&tensor]);
        }
    }
}
