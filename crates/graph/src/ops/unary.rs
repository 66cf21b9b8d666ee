//! Functions of one number: activations and the rest.
//!
//! Adding one: the variant in `crates/kernel/src/elementwise.rs`, its WGSL in `shaders/lib/unary.wgsl`, its
//! CPU twin in `crates/reference/src/unary.rs`, and its meaning and derivative here.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use kiln_kernel::{DType, Real, Saved, Shape, Unary};
use ndarray::Zip;

use super::{Op, Rule, incoming, real};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

fn sigmoid_value(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus_value(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// f(x).
pub(crate) fn value(f: Unary, x: f64) -> f64 {
    match f {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Square => x * x,
        Unary::Sqrt => x.sqrt(),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Relu => x.max(0.0),
        Unary::Relu6 => x.clamp(0.0, 6.0),
        Unary::LeakyRelu(slope) => x * if x > 0.0 { 1.0 } else { f64::from(slope.0) },
        Unary::Elu(alpha) => {
            if x > 0.0 {
                x
            } else {
                f64::from(alpha.0) * x.exp_m1()
            }
        }
        Unary::Selu => SELU_SCALE * if x > 0.0 { x } else { SELU_ALPHA * x.exp_m1() },
        Unary::Gelu => x * 0.5 * libm::erfc(-x * FRAC_1_SQRT_2),
        Unary::GeluTanh => 0.5 * x * (1.0 + gelu_inner(x).tanh()),
        Unary::Sigmoid => sigmoid_value(x),
        Unary::HardSigmoid => (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Unary::Tanh => x.tanh(),
        Unary::Softplus => softplus_value(x),
        Unary::Softsign => x / (1.0 + x.abs()),
        Unary::Silu => x * sigmoid_value(x),
        Unary::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Unary::Mish => x * softplus_value(x).tanh(),
    }
}

fn gelu_inner(x: f64) -> f64 {
    (2.0 / PI).sqrt() * (x + 0.044_715 * x * x * x)
}

/// f'(x), in terms of x or of y = f(x), whichever [`Unary::saved`] names.
fn derivative(f: Unary, saved: f64) -> f64 {
    let (x, y) = (saved, saved);
    match f {
        Unary::Neg => -1.0,
        Unary::Abs => {
            if x == 0.0 {
                0.0
            } else {
                x.signum()
            }
        }
        Unary::Square => 2.0 * x,
        Unary::Sqrt => 0.5 / y,
        Unary::Exp => y,
        Unary::Log => 1.0 / x,
        Unary::Reciprocal => -y * y,
        Unary::Relu => f64::from(y > 0.0),
        Unary::Relu6 => f64::from(y > 0.0 && y < 6.0),
        Unary::LeakyRelu(slope) => {
            if y > 0.0 {
                1.0
            } else {
                f64::from(slope.0)
            }
        }
        Unary::Elu(alpha) => {
            if y > 0.0 {
                1.0
            } else {
                y + f64::from(alpha.0)
            }
        }
        Unary::Selu => {
            if y > 0.0 {
                SELU_SCALE
            } else {
                y + SELU_SCALE * SELU_ALPHA
            }
        }
        Unary::Gelu => 0.5 * libm::erfc(-x * FRAC_1_SQRT_2) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt(),
        Unary::GeluTanh => {
            let t = gelu_inner(x).tanh();
            let inner = (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044_715 * x * x);
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
        }
        Unary::Sigmoid => y * (1.0 - y),
        Unary::HardSigmoid => {
            if y > 0.0 && y < 1.0 {
                1.0 / 6.0
            } else {
                0.0
            }
        }
        Unary::Tanh => 1.0 - y * y,
        Unary::Softplus => -(-y).exp_m1(),
        Unary::Softsign => (1.0 - y.abs()).powi(2),
        Unary::Silu => {
            let s = sigmoid_value(x);
            s + x * s * (1.0 - s)
        }
        Unary::HardSwish => {
            if x <= -3.0 {
                0.0
            } else if x >= 3.0 {
                1.0
            } else {
                x / 3.0 + 0.5
            }
        }
        Unary::Mish => {
            let t = softplus_value(x).tanh();
            t + x * (1.0 - t * t) * sigmoid_value(x)
        }
    }
}

impl Rule for Unary {
    fn name(&self) -> &'static str {
        Unary::name(self)
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        real(inputs[0])
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        vec![inputs[0].mapv(|x| value(*self, x))]
    }

    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let dy = incoming(g, outputs, dys, 0)?;
        let saved = match self.saved() {
            Saved::Input => inputs[0],
            Saved::Output => outputs[0],
        };
        Ok(vec![Some(g.record1(Op::UnaryBackward(UnaryBackward(*self)), &[dy, saved])?)])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        to.elementwise(node)
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(2)
    }
}

/// dy · f'(saved): the gradient of a [`Unary`].
#[derive(Clone, Debug)]
pub(crate) struct UnaryBackward(pub(crate) Unary);

impl Rule for UnaryBackward {
    fn name(&self) -> &'static str {
        "unary_backward"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        if inputs[0] != inputs[1] {
            return Err(format!("gradient {} and value {} differ in shape", inputs[0], inputs[1]));
        }
        real(inputs[0])
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        vec![Zip::from(inputs[0]).and(inputs[1]).map_collect(|&dy, &saved| dy * derivative(self.0, saved))]
    }

    /// Linear in `dy`. A second derivative with respect to the saved value is not provided, except where
    /// it is zero.
    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let ddx = incoming(g, outputs, dys, 0)?;
        let saved = inputs[1];
        let ddy = g.record1(Op::UnaryBackward(self.clone()), &[ddx, saved])?;
        let second = match self.0 {
            Unary::Neg
            | Unary::Abs
            | Unary::Relu
            | Unary::Relu6
            | Unary::LeakyRelu(_)
            | Unary::HardSigmoid => {
                let shape = g.shape(saved)?.clone();
                Some(g.fill(shape, 0.0)?)
            }
            Unary::Square => {
                let product = g.mul(ddx, inputs[0])?;
                Some(g.scale(product, 2.0)?)
            }
            // d(dy · y)/dy and d(dy y (1 - y))/dy and d(dy (1 - y²))/dy, with y the saved value
            Unary::Exp => Some(g.mul(ddx, inputs[0])?),
            Unary::Sigmoid => {
                let slope = g.scale(saved, -2.0)?;
                let slope = g.add_constant(slope, 1.0)?;
                let product = g.mul(ddx, inputs[0])?;
                Some(g.mul(product, slope)?)
            }
            Unary::Tanh => {
                let slope = g.scale(saved, -2.0)?;
                let product = g.mul(ddx, inputs[0])?;
                Some(g.mul(product, slope)?)
            }
            _ => None,
        };
        Ok(vec![Some(ddy), second])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        to.elementwise(node)
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(2)
    }
}

macro_rules! recorded {
    ($($(#[$doc:meta])* $name:ident => $unary:expr;)*) => {
        impl Graph {
            $($(#[$doc])*
            ///
            /// # Errors
            /// If the tensor holds integers or belongs to another graph.
            pub fn $name(&mut self, x: Tensor) -> Result<Tensor, GraphError> {
                self.unary($unary, x)
            })*
        }
    };
}

recorded! {
    /// -x.
    neg => Unary::Neg;
    /// |x|; the derivative at 0 is 0.
    abs => Unary::Abs;
    /// x².
    square => Unary::Square;
    /// √x.
    sqrt => Unary::Sqrt;
    /// eˣ.
    exp => Unary::Exp;
    /// ln x.
    log => Unary::Log;
    /// 1 / x.
    reciprocal => Unary::Reciprocal;
    /// max(x, 0); the derivative at 0 is 0.
    relu => Unary::Relu;
    /// min(max(x, 0), 6).
    relu6 => Unary::Relu6;
    /// λ x where x > 0, else λ α (eˣ - 1), with α = 1.6733 and λ = 1.0507 (Klambauer et al., 2017).
    selu => Unary::Selu;
    /// x Φ(x), with Φ the standard normal distribution (Hendrycks and Gimpel, 2016).
    gelu => Unary::Gelu;
    /// The tanh approximation of [`Graph::gelu`].
    gelu_tanh => Unary::GeluTanh;
    /// 1 / (1 + e⁻ˣ).
    sigmoid => Unary::Sigmoid;
    /// clamp(x/6 + 1/2, 0, 1), PyTorch's and Keras 3's form.
    hard_sigmoid => Unary::HardSigmoid;
    /// tanh x.
    tanh => Unary::Tanh;
    /// ln(1 + eˣ).
    softplus => Unary::Softplus;
    /// x / (1 + |x|).
    softsign => Unary::Softsign;
    /// x sigmoid(x), also called swish.
    silu => Unary::Silu;
    /// x hard_sigmoid(x).
    hard_swish => Unary::HardSwish;
    /// x tanh(softplus(x)) (Misra, 2019).
    mish => Unary::Mish;
}

impl Graph {
    /// Applies a function to each element.
    ///
    /// # Errors
    /// If the tensor holds integers or belongs to another graph.
    pub fn unary(&mut self, f: Unary, x: Tensor) -> Result<Tensor, GraphError> {
        self.record1(Op::Unary(f), &[x])
    }

    /// x where x > 0, else slope · x.
    ///
    /// # Errors
    /// If the slope is not positive: the gradient is computed from the value's sign.
    pub fn leaky_relu(&mut self, x: Tensor, slope: f32) -> Result<Tensor, GraphError> {
        let op = Unary::LeakyRelu(Real(slope));
        if !(slope.is_finite() && slope > 0.0) {
            let message = format!("slope must be a finite number above 0, is {slope}");
            return Err(self.shape_error(&Op::Unary(op), message));
        }
        self.unary(op, x)
    }

    /// x where x > 0, else α (eˣ - 1) (Clevert et al., 2016).
    ///
    /// # Errors
    /// If α is not positive: the gradient is computed from the value's sign.
    pub fn elu(&mut self, x: Tensor, alpha: f32) -> Result<Tensor, GraphError> {
        let op = Unary::Elu(Real(alpha));
        if !(alpha.is_finite() && alpha > 0.0) {
            let message = format!("alpha must be a finite number above 0, is {alpha}");
            return Err(self.shape_error(&Op::Unary(op), message));
        }
        self.unary(op, x)
    }
}
