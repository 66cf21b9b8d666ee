//! Reverse-mode differentiation: the gradient as more graph.

use crate::{Graph, GraphError, Tensor, ops::Op};

impl Graph {
    /// The gradients of the sum of `of`'s elements with respect to each of `wrt`, each in the shape of its
    /// tensor. `of` is usually a scalar loss. Where `of` does not depend on a tensor the gradient is zero.
    ///
    /// # Errors
    /// [`GraphError::NoGradient`] where the path leads through an operation without a derivative.
    pub fn gradients(&mut self, of: Tensor, wrt: &[Tensor]) -> Result<Vec<Tensor>, GraphError> {
        let shape = self.shape(of)?.clone();
        let seed = self.rescoped("gradient".into(), |g| g.fill(shape, 1.0))?;
        self.gradients_from(of, seed, wrt)
    }

    /// The product of `seed` (in the shape of `of`) with the Jacobian of `of`, with respect to each of
    /// `wrt`.
    ///
    /// # Errors
    /// As [`Graph::gradients`], and where `seed` has another shape than `of`.
    pub fn gradients_from(
        &mut self,
        of: Tensor,
        seed: Tensor,
        wrt: &[Tensor],
    ) -> Result<Vec<Tensor>, GraphError> {
        if self.shape(of)? != self.shape(seed)? {
            let message = format!("seed {} must have the shape {}", self.shape(seed)?, self.shape(of)?);
            return Err(self.shape_error(&Op::Input("gradient".into()), message));
        }
        let last = self.tensors[of.index()].node;
        let reaches = self.reaching(wrt, last)?;

        let mut gradient: Vec<Option<Tensor>> = vec![None; self.tensors.len()];
        gradient[of.index()] = Some(seed);
        for index in (0..=last).rev() {
            let node = self.nodes[index].clone();
            let dys: Vec<Option<Tensor>> = node.outputs.iter().map(|t| gradient[t.index()]).collect();
            let wanted: Vec<bool> = node.inputs.iter().map(|t| reaches[t.index()]).collect();
            if dys.iter().all(Option::is_none) || !wanted.contains(&true) {
                continue;
            }
            let scope =
                if node.scope.is_empty() { "backward".into() } else { format!("{} backward", node.scope) };
            let dxs = self.rescoped(scope, |g| {
                let dxs = node.op.rule().vjp(g, &node.inputs, &node.outputs, &dys, &wanted)?;
                for (input, (&tensor, dx)) in node.inputs.iter().zip(dxs).enumerate() {
                    if !wanted[input] {
                        continue;
                    }
                    let Some(dx) = dx else {
                        let (op, scope) = (node.op.name(), node.scope.to_string());
                        return Err(GraphError::NoGradient { op, scope, input });
                    };
                    gradient[tensor.index()] = Some(match gradient[tensor.index()] {
                        Some(sum) => g.add(sum, dx)?,
                        None => dx,
                    });
                }
                Ok(())
            });
            dxs?;
        }
        wrt.iter()
            .map(|&t| match gradient[t.index()] {
                Some(gradient) => Ok(gradient),
                None => self.zeros_like(t),
            })
            .collect()
    }

    fn zeros_like(&mut self, tensor: Tensor) -> Result<Tensor, GraphError> {
        let shape = self.shape(tensor)?.clone();
        self.fill(shape, 0.0)
    }

    /// Which tensors depend on one of `from`, up to node `last`.
    fn reaching(&self, from: &[Tensor], last: usize) -> Result<Vec<bool>, GraphError> {
        let mut reaches = vec![false; self.tensors.len()];
        for &t in from {
            self.info(t)?;
            reaches[t.index()] = true;
        }
        for node in &self.nodes[..=last] {
            if node.inputs.iter().any(|t| reaches[t.index()]) {
                for t in &node.outputs {
                    reaches[t.index()] = true;
                }
            }
        }
        Ok(reaches)
    }
}
