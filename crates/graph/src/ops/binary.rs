//! Functions of two numbers, with NumPy's broadcasting.

use kiln_kernel::{Binary, DType, Shape};
use ndarray::Zip;

use super::{Op, Rule, broadcast_shapes, incoming, real};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

pub(crate) fn value(f: Binary, a: f64, b: f64) -> f64 {
    match f {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        // what is no number stays on the left, as in the kernels
        Binary::Maximum => {
            if a < b {
                b
            } else {
                a
            }
        }
        Binary::Minimum => {
            if b < a {
                b
            } else {
                a
            }
        }
        Binary::Greater => f64::from(a > b),
        Binary::GreaterEqual => f64::from(a >= b),
        Binary::Equal => f64::from(a == b),
        Binary::NotEqual => f64::from(a != b),
        Binary::Mask if a == 0.0 => 0.0,
        Binary::Mask => b,
        Binary::Prelu if a > 0.0 => a,
        Binary::Prelu => a * b,
    }
}

/// f(a, constant) = a for every a.
pub(crate) fn is_right_identity(f: Binary, constant: f32) -> bool {
    match f {
        Binary::Add | Binary::Sub => constant == 0.0,
        Binary::Mul | Binary::Div | Binary::Prelu => constant == 1.0,
        Binary::Maximum
        | Binary::Minimum
        | Binary::Greater
        | Binary::GreaterEqual
        | Binary::Equal
        | Binary::NotEqual
        | Binary::Mask => false,
    }
}

/// f(constant, b) = b for every b.
pub(crate) fn is_left_identity(f: Binary, constant: f32) -> bool {
    match f {
        Binary::Add => constant == 0.0,
        Binary::Mul => constant == 1.0,
        Binary::Mask => constant != 0.0,
        _ => false,
    }
}

impl Rule for Binary {
    fn name(&self) -> &'static str {
        Binary::name(self)
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        match broadcast_shapes(inputs[0], inputs[1]) {
            Some(shape) => real(shape),
            None => Err(format!(
                "shapes {} and {} do not broadcast: from the last axis on, sizes must be equal or 1",
                inputs[0], inputs[1]
            )),
        }
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let shape = |a: &Array| Shape::from(a.shape());
        let out = broadcast_shapes(&shape(inputs[0]), &shape(inputs[1])).unwrap_or_default();
        let mut y = Array::zeros(out.dims());
        Zip::from(&mut y)
            .and_broadcast(inputs[0])
            .and_broadcast(inputs[1])
            .for_each(|y, &a, &b| *y = value(*self, a, b));
        vec![y]
    }

    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        wanted: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let dy = incoming(g, outputs, dys, 0)?;
        let (a, b, y) = (inputs[0], inputs[1], outputs[0]);
        let mut gradients = vec![None, None];
        for (side, gradient) in gradients.iter_mut().enumerate().filter(|(side, _)| wanted[*side]) {
            let full = match (self, side) {
                (Binary::Add, _) | (Binary::Sub, 0) => dy,
                (Binary::Sub, _) => g.neg(dy)?,
                (Binary::Mul, _) => g.mul(dy, inputs[1 - side])?,
                (Binary::Div, 0) => g.div(dy, b)?,
                // d(a / b)/db = -y / b
                (Binary::Div, _) => {
                    let ratio = g.div(y, b)?;
                    let product = g.mul(dy, ratio)?;
                    g.neg(product)?
                }
                (Binary::Maximum | Binary::Minimum, _) => {
                    // half to each where they are equal, as PyTorch
                    let larger = if (*self == Binary::Maximum) == (side == 0) { (a, b) } else { (b, a) };
                    let wins = g.greater(larger.0, larger.1)?;
                    let ties = g.equal(a, b)?;
                    let ties = g.scale(ties, 0.5)?;
                    let share = g.add(wins, ties)?;
                    g.mul(dy, share)?
                }
                (Binary::Mask, 1) => g.mask(a, dy)?,
                // 1 where a > 0, else b, as PyTorch also at 0
                (Binary::Prelu, 0) => {
                    let zero = g.fill(Shape::scalar(), 0.0)?;
                    let positive = g.greater(a, zero)?;
                    let scaled = g.mul(dy, b)?;
                    g.where_(positive, dy, scaled)?
                }
                (Binary::Prelu, _) => {
                    let zero = g.fill(Shape::scalar(), 0.0)?;
                    let negative = g.minimum(a, zero)?;
                    g.mul(dy, negative)?
                }
                (
                    Binary::Greater | Binary::GreaterEqual | Binary::Equal | Binary::NotEqual | Binary::Mask,
                    _,
                ) => {
                    let shape = g.shape(inputs[side])?.clone();
                    g.fill(shape, 0.0)?
                }
            };
            let shape = g.shape(inputs[side])?.clone();
            *gradient = Some(g.sum_to(full, shape)?);
        }
        Ok(gradients)
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        to.elementwise(node)
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(2)
    }
}

macro_rules! recorded {
    ($($(#[$doc:meta])* $name:ident => $binary:expr;)*) => {
        impl Graph {
            $($(#[$doc])*
            ///
            /// Shapes broadcast as in NumPy: aligned at the last axis, sizes equal or 1.
            ///
            /// # Errors
            /// If the shapes do not broadcast.
            pub fn $name(&mut self, a: Tensor, b: Tensor) -> Result<Tensor, GraphError> {
                self.binary($binary, a, b)
            })*
        }
    };
}

recorded! {
    /// a + b.
    add => Binary::Add;
    /// a - b.
    sub => Binary::Sub;
    /// a · b, element by element.
    mul => Binary::Mul;
    /// a / b.
    div => Binary::Div;
    /// The larger of both; where they are equal each gets half of the gradient.
    maximum => Binary::Maximum;
    /// The smaller of both; where they are equal each gets half of the gradient.
    minimum => Binary::Minimum;
    /// 1 where a > b, else 0; the gradient is zero.
    greater => Binary::Greater;
    /// 1 where a >= b, else 0; the gradient is zero.
    greater_equal => Binary::GreaterEqual;
    /// 1 where a = b, else 0; the gradient is zero.
    equal => Binary::Equal;
    /// 1 where a and b differ, else 0; the gradient is zero.
    not_equal => Binary::NotEqual;
    /// b where a is not 0, else 0: what b is there does not matter, not even where it is infinite or no number. The
    /// gradient goes to b alone.
    mask => Binary::Mask;
}

impl Graph {
    /// Applies a function to pairs of elements.
    ///
    /// # Errors
    /// If the shapes do not broadcast.
    pub fn binary(&mut self, f: Binary, a: Tensor, b: Tensor) -> Result<Tensor, GraphError> {
        self.record1(Op::Binary(f), &[a, b])
    }

    /// 1 where a < b, else 0; the gradient is zero. Shapes broadcast as in [`Graph::greater`].
    ///
    /// # Errors
    /// If the shapes do not broadcast.
    pub fn less(&mut self, a: Tensor, b: Tensor) -> Result<Tensor, GraphError> {
        self.greater(b, a)
    }

    /// 1 where a <= b, else 0; the gradient is zero. Shapes broadcast as in [`Graph::greater`].
    ///
    /// # Errors
    /// If the shapes do not broadcast.
    pub fn less_equal(&mut self, a: Tensor, b: Tensor) -> Result<Tensor, GraphError> {
        self.greater_equal(b, a)
    }

    /// a where the condition is not 0, else b. Shapes broadcast as in NumPy; the condition has no gradient, and what
    /// is not chosen is not multiplied by 0, so that it may be infinite or no number.
    ///
    /// # Errors
    /// If the shapes do not broadcast.
    ///
    /// Source: NumPy's and PyTorch's `where`.
    pub fn where_(&mut self, condition: Tensor, a: Tensor, b: Tensor) -> Result<Tensor, GraphError> {
        let zero = self.fill(Shape::scalar(), 0.0)?;
        let otherwise = self.equal(condition, zero)?;
        let (a, b) = (self.mask(condition, a)?, self.mask(otherwise, b)?);
        self.add(a, b)
    }

    /// x where x > 0, else slope · x, with a learned slope: a scalar or \[1\], or \[channels\] along axis 1 of x.
    ///
    /// # Errors
    /// If there is neither one slope nor one for each channel.
    ///
    /// Source: He et al. (2015), as PyTorch's `PReLU`.
    pub fn prelu(&mut self, x: Tensor, slope: Tensor) -> Result<Tensor, GraphError> {
        let (shape, slopes) = (self.shape(x)?.clone(), self.shape(slope)?.clone());
        let count = slopes.elements();
        let slope = match shape.dims().get(1) {
            _ if count == 1 => self.reshape(slope, Shape::scalar())?,
            Some(&channels) if slopes.rank() == 1 && count == channels => {
                let mut dims = vec![1; shape.rank()];
                dims[1] = channels;
                self.reshape(slope, dims)?
            }
            _ => {
                let message =
                    format!("slope {slopes} is neither one number nor one for each channel of {shape}");
                return Err(self.shape_error(&Op::Binary(Binary::Prelu), message));
            }
        };
        self.binary(Binary::Prelu, x, slope)
    }

    /// factor · x.
    ///
    /// # Errors
    /// If the tensor holds integers or belongs to another graph.
    pub fn scale(&mut self, x: Tensor, factor: f32) -> Result<Tensor, GraphError> {
        let factor = self.fill(Shape::scalar(), factor)?;
        self.mul(x, factor)
    }

    /// x + value.
    ///
    /// # Errors
    /// If the tensor holds integers or belongs to another graph.
    pub fn add_constant(&mut self, x: Tensor, value: f32) -> Result<Tensor, GraphError> {
        let value = self.fill(Shape::scalar(), value)?;
        self.add(x, value)
    }
}
