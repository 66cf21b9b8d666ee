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
    if inputs.len() < 2 {
        let message = format!("takes two inputs or more, got {}; name them in `inputs`", inputs.len());
        return Err(to.fail(op, message));
    }
    let aligned = aligned(to, inputs)?;
    aligned[1..].iter().try_fold(aligned[0], |y, &x| f(to.graph(), y, x))
}

/// Inputs of one rank: the others get axes of one behind the batch, as Keras has it, so that rows meet only their own, whatever
/// broadcasts.
fn aligned(to: &mut Recording<'_>, inputs: &[Tensor]) -> Result<Vec<Tensor>, GraphError> {
    let shapes =
        inputs.iter().map(|&x| Ok(to.shape(x)?.dims().to_vec())).collect::<Result<Vec<_>, GraphError>>()?;
    let rank = shapes.iter().map(Vec::len).max().unwrap_or(0);
    let align = |(&x, mut dims): (&Tensor, Vec<usize>)| match rank - dims.len() {
        0 => Ok(x),
        // without a batch there is nothing to stand behind
        _ if dims.is_empty() => Ok(x),
        axes => {
            dims.splice(1..1, vec![1; axes]);
            to.graph().reshape(x, dims)
        }
    };
    inputs.iter().zip(shapes).map(align).collect()
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
        match aligned(to, inputs)?[..] {
            [a, b] => to.graph().sub(a, b),
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
    /// Whether the second input is transposed; it is in a recipe that leaves this out.
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
        let aligned = aligned(to, inputs)?;
        to.graph().matmul(aligned[0], aligned[1], false, self.transpose)
    }
}
