//! Layers that join branches.

use kiln_graph::{Graph, GraphError, Tensor};
use serde::{Deserialize, Serialize};

use super::yes;
use crate::{Module, Recording};

/// Folds two inputs or more by a function of two, their shapes broadcasting.
fn fold(
    to: &mut Recording<'_>,
    op: &str,
    inputs: &[Tensor],
    f: impl Fn(&mut Graph, Tensor, Tensor) -> Result<Tensor, GraphError>,
) -> Result<Tensor, GraphError> {
    let [first, rest @ ..] = inputs else {
        return Err(to.fail(op, "takes two inputs or more, got none".into()));
    };
    if rest.is_empty() {
        return Err(to.fail(op, "takes two inputs or more, got one; name them in `inputs`".into()));
    }
    let rank = highest_rank(to, inputs)?;
    let first = of_rank(to, *first, rank)?;
    rest.iter().try_fold(first, |y, &x| {
        let x = of_rank(to, x, rank)?;
        f(to.graph(), y, x)
    })
}

fn highest_rank(to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<usize, GraphError> {
    inputs.iter().try_fold(0, |most, &x| Ok(most.max(to.shape(x)?.rank())))
}

/// Axes of one behind the batch until there are so many, as Keras has it: rows meet only their own, whatever broadcasts.
fn of_rank(to: &mut Recording<'_>, x: Tensor, rank: usize) -> Result<Tensor, GraphError> {
    let mut dims = to.shape(x)?.dims().to_vec();
    if dims.len() >= rank || dims.is_empty() {
        return Ok(x);
    }
    dims.splice(1..1, vec![1; rank - dims.len()]);
    to.graph().reshape(x, dims)
}

macro_rules! merging {
    ($($(#[$doc:meta])* $layer:ident $name:literal => $f:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// Takes two inputs or more whose shapes broadcast; those of fewer axes get axes of one behind the batch.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $layer;

        impl Module for $layer {
            fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
                fold(to, $name, inputs, $f)
            }
        }
    )*};
}

merging! {
    /// The sum of its inputs: a residual connection.
    Add "add" => Graph::add;
    /// The product of its inputs, element by element: a gate.
    Multiply "multiply" => Graph::mul;
    /// The largest of its inputs, element by element.
    Maximum "maximum" => Graph::maximum;
    /// The smallest of its inputs, element by element.
    Minimum "minimum" => Graph::minimum;
}

/// The first input less the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subtract;

impl Module for Subtract {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        match inputs {
            [a, b] => {
                let rank = highest_rank(to, inputs)?;
                let (a, b) = (of_rank(to, *a, rank)?, of_rank(to, *b, rank)?);
                to.graph().sub(a, b)
            }
            _ => Err(to.fail("subtract", format!("takes two inputs, got {}", inputs.len()))),
        }
    }
}

/// The mean of its inputs, two or more, element by element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Average;

impl Module for Average {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let sum = fold(to, "average", inputs, Graph::add)?;
        to.graph().scale(sum, 1.0 / inputs.len() as f32)
    }
}

/// Its inputs side by side along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concat {
    /// The axis, counted with the batch as 0; 1, the channels or features, if left out.
    #[serde(default = "channels", alias = "dim")]
    pub axis: usize,
}

fn channels() -> usize {
    1
}

impl Default for Concat {
    fn default() -> Self {
        Self { axis: 1 }
    }
}

impl Module for Concat {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        if self.axis == 0 {
            return Err(to.fail("concat", "axis 0 is the batch, which a layer cannot join".into()));
        }
        if inputs.len() < 2 {
            let message = format!("takes two inputs or more, got {}; name them in `inputs`", inputs.len());
            return Err(to.fail("concat", message));
        }
        to.graph().concat(inputs, self.axis)
    }
}

/// The matrix product of two inputs for each item: [rows, inner] by [inner, columns], or, with `transpose`, by
/// [columns, inner].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matmul {
    /// Whether the second input is transposed.
    #[serde(default = "yes")]
    pub transpose: bool,
}

impl Module for Matmul {
    fn record(&self, to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        let [a, b] = inputs else {
            return Err(to.fail("matmul", format!("takes two inputs, got {}", inputs.len())));
        };
        let (ranks, shapes) = {
            let (a, b) = (to.shape(*a)?, to.shape(*b)?);
            ((a.rank(), b.rank()), format!("{a} and {b}"))
        };
        if ranks.0 < 3 || ranks.1 < 3 {
            let message = format!("needs two stacks of matrices [batch, rows, columns], got {shapes}");
            return Err(to.fail("matmul", message));
        }
        let rank = ranks.0.max(ranks.1);
        let (a, b) = (of_rank(to, *a, rank)?, of_rank(to, *b, rank)?);
        to.graph().matmul(a, b, false, self.transpose)
    }
}
