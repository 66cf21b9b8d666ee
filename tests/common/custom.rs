//! Operations that a user might bring.

use std::sync::Arc;

use kiln_graph::{CustomOp, CustomValue, Graph, GraphError, Tensor};
use kiln_kernel::{DType, Shape};

type Gradients = Result<Vec<Option<Tensor>>, GraphError>;

/// max(x, 0)², times a setting that stands in the text; its gradient is an operation of its own.
#[derive(Debug)]
pub struct SquaredRelu(pub f32);

impl CustomOp for SquaredRelu {
    fn name(&self) -> &str {
        "squared_relu"
    }

    fn inputs(&self) -> &[&str] {
        &["x"]
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    fn wgsl(&self) -> String {
        let factor = self.0;
        format!(
            "fn squared_relu(i: u32) -> f32 {{\n    let v = max(x[i], 0.0);\n    return {factor:?} * v * v;\n}}\n"
        )
    }

    fn cpu(&self, inputs: &[CustomValue<'_>], i: usize) -> f64 {
        f64::from(self.0) * inputs[0][i].max(0.0).powi(2)
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Tensor], _: Tensor, dy: Tensor) -> Gradients {
        Ok(vec![Some(g.custom(Arc::new(SquaredReluBackward(self.0)), &[inputs[0], dy])?)])
    }
}

/// 2 max(x, 0) dy, times the setting; linear in dy, its gradient is made of graph operations.
#[derive(Debug)]
pub struct SquaredReluBackward(pub f32);

impl CustomOp for SquaredReluBackward {
    fn name(&self) -> &str {
        "squared_relu_backward"
    }

    fn inputs(&self) -> &[&str] {
        &["x", "dy"]
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        if inputs[0] != inputs[1] {
            return Err(format!("x {} and dy {} differ in shape", inputs[0], inputs[1]));
        }
        Ok(inputs[0].clone())
    }

    fn wgsl(&self) -> String {
        let factor = 2.0 * self.0;
        format!("fn squared_relu_backward(i: u32) -> f32 {{ return {factor:?} * max(x[i], 0.0) * dy[i]; }}")
    }

    fn cpu(&self, inputs: &[CustomValue<'_>], i: usize) -> f64 {
        2.0 * f64::from(self.0) * inputs[0][i].max(0.0) * inputs[1][i]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Tensor], _: Tensor, ddx: Tensor) -> Gradients {
        let zero = g.fill([], 0.0)?;
        let step = g.greater(inputs[0], zero)?;
        let both = g.mul(step, inputs[1])?;
        let both = g.mul(both, ddx)?;
        let d_x = g.scale(both, 2.0 * self.0)?;
        let slope = g.relu(inputs[0])?;
        let slope = g.mul(slope, ddx)?;
        Ok(vec![Some(d_x), Some(g.scale(slope, 2.0 * self.0)?)])
    }
}

/// A 3 x 3 blur of each channel, zeros around it: neighbours, shapes, loops. It is its own gradient.
#[derive(Debug)]
pub struct Blur;

/// The text of [`Blur`].
pub const BLUR: &str = "
// out of 16
const TAPS = array<f32, 9>(1.0, 2.0, 1.0, 2.0, 4.0, 2.0, 1.0, 2.0, 1.0);

fn blur(i: u32) -> f32 {
    const H = i32(X_SHAPE[2]);
    const W = i32(X_SHAPE[3]);
    let column = i32(i) % W;
    let row = (i32(i) / W) % H;
    var sum = 0.0;
    for (var tap = 0; tap < 9; tap++) {
        let r = tap / 3 - 1;
        let c = tap % 3 - 1;
        if (row + r >= 0 && row + r < H && column + c >= 0 && column + c < W) {
            sum += TAPS[tap] * x[i32(i) + r * W + c];
        }
    }
    return sum / 16.0;
}
";

/// Element `i` of a blur of `x`.
pub fn blur(x: &CustomValue<'_>, i: usize) -> f64 {
    let (h, w) = (x.shape[2], x.shape[3]);
    let (row, column) = (i / w % h, i % w);
    let mut sum = 0.0;
    for (r, weights) in [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]].iter().enumerate() {
        for (c, weight) in weights.iter().enumerate() {
            // one off, so that no index is below zero
            if (1..=h).contains(&(row + r)) && (1..=w).contains(&(column + c)) {
                sum += weight * x[i + r * w + c - w - 1];
            }
        }
    }
    sum / 16.0
}

impl CustomOp for Blur {
    fn name(&self) -> &str {
        "blur"
    }

    fn inputs(&self) -> &[&str] {
        &["x"]
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        match inputs[0].rank() {
            4 => Ok(inputs[0].clone()),
            _ => Err(format!("needs images [batch, channels, height, width], got {}", inputs[0])),
        }
    }

    fn wgsl(&self) -> String {
        BLUR.into()
    }

    fn cpu(&self, inputs: &[CustomValue<'_>], i: usize) -> f64 {
        blur(&inputs[0], i)
    }

    fn vjp(&self, g: &mut Graph, _: &[Tensor], _: Tensor, dy: Tensor) -> Gradients {
        Ok(vec![Some(g.custom(Arc::new(Blur), &[dy])?)])
    }
}

/// x[r, labels[r]]: an input of integers, a result of another shape, and no gradient for the labels.
#[derive(Debug)]
pub struct Pick;

impl CustomOp for Pick {
    fn name(&self) -> &str {
        "pick"
    }

    fn inputs(&self) -> &[&str] {
        &["x", "labels"]
    }

    fn dtypes(&self) -> &[DType] {
        &[DType::F32, DType::U32]
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        match (inputs[0].dims(), inputs[1].dims()) {
            ([rows, _], [labels]) if rows == labels => Ok([*rows].into()),
            _ => Err(format!("needs [rows, classes] and [rows], got {} and {}", inputs[0], inputs[1])),
        }
    }

    fn wgsl(&self) -> String {
        "fn pick(i: u32) -> f32 { return x[i * X_SHAPE[1] + min(labels[i], X_SHAPE[1] - 1u)]; }".into()
    }

    fn cpu(&self, inputs: &[CustomValue<'_>], i: usize) -> f64 {
        let classes = inputs[0].shape[1];
        inputs[0][i * classes + (inputs[1][i] as usize).min(classes - 1)]
    }

    fn vjp(&self, g: &mut Graph, inputs: &[Tensor], _: Tensor, dy: Tensor) -> Gradients {
        let classes = g.shape(inputs[0])?[1];
        Ok(vec![Some(g.custom(Arc::new(Place(classes)), &[inputs[1], dy])?), None])
    }
}

/// dy[r] at [r, labels[r]] and zeros elsewhere; it has no gradient.
#[derive(Debug)]
pub struct Place(pub usize);

impl CustomOp for Place {
    fn name(&self) -> &str {
        "place"
    }

    fn inputs(&self) -> &[&str] {
        &["labels", "dy"]
    }

    fn dtypes(&self) -> &[DType] {
        &[DType::U32]
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok([inputs[1].elements(), self.0].into())
    }

    fn wgsl(&self) -> String {
        "fn place(i: u32) -> f32 {
            let row = i / RESULT_SHAPE[1];
            let label = min(labels[row], RESULT_SHAPE[1] - 1u);
            return select(0.0, dy[row], i % RESULT_SHAPE[1] == label);
        }"
        .into()
    }

    fn cpu(&self, inputs: &[CustomValue<'_>], i: usize) -> f64 {
        let row = i / self.0;
        let label = (inputs[0][row] as usize).min(self.0 - 1);
        if i % self.0 == label { inputs[1][row] } else { 0.0 }
    }
}
