//! Maximum and average pooling.

use kiln_kernel::{self as kernel, DType, Kernel, PoolShape, Shape, Tail};
use ndarray::{Array4, ArrayView4, Ix4};

use super::{Op, Rule, conv2d::LARGEST, incoming, real};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// Settings of a pooling. Pairs are (rows, columns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2dOptions {
    /// Size of the window.
    pub kernel: (usize, usize),
    /// Pixels between neighbouring windows.
    pub stride: (usize, usize),
    /// Pixels added on each side; at most half of the window.
    pub padding: (usize, usize),
}

impl Pool2dOptions {
    /// Square windows side by side, without padding.
    pub fn square(size: usize) -> Self {
        Self { kernel: (size, size), stride: (size, size), padding: (0, 0) }
    }
}

fn pool_shape(x: &Shape, o: Pool2dOptions) -> Result<PoolShape, String> {
    if x.rank() != 4 {
        return Err(format!("needs input [batch, channels, height, width], got {x}"));
    }
    let size = |axis: &str, size: usize, kernel: usize, stride: usize, pad: usize| {
        if kernel == 0 || stride == 0 {
            return Err(format!(
                "window and stride must be at least 1, are {kernel} and {stride} along the {axis}"
            ));
        }
        if kernel >= LARGEST || stride >= LARGEST {
            return Err(format!(
                "window and stride must be below {LARGEST}, are {kernel} and {stride} along the {axis}"
            ));
        }
        if pad > kernel / 2 {
            return Err(format!(
                "padding {pad} is more than half of the window of {kernel} along the {axis}"
            ));
        }
        if kernel > size + 2 * pad {
            let padded = size + 2 * pad;
            return Err(format!(
                "the window covers {kernel} pixels of {axis}, but the padded input has {padded}"
            ));
        }
        Ok((size + 2 * pad - kernel) / stride + 1)
    };
    let out_h = size("height", x[2], o.kernel.0, o.stride.0, o.padding.0)?;
    let out_w = size("width", x[3], o.kernel.1, o.stride.1, o.padding.1)?;
    Ok(PoolShape {
        planes: (x[0] * x[1]) as u32,
        in_h: x[2] as u32,
        in_w: x[3] as u32,
        out_h: out_h as u32,
        out_w: out_w as u32,
        kernel_h: o.kernel.0 as u32,
        kernel_w: o.kernel.1 as u32,
        stride_h: o.stride.0 as u32,
        stride_w: o.stride.1 as u32,
        pad_top: o.padding.0 as u32,
        pad_left: o.padding.1 as u32,
    })
}

/// A pooling of [batch, channels, ...]; `shape` knows planes only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    pub(crate) channels: usize,
    pub(crate) shape: PoolShape,
}

impl Windows {
    fn x_shape(&self) -> Shape {
        let s = &self.shape;
        let batch = s.planes as usize / self.channels;
        [batch, self.channels, s.in_h as usize, s.in_w as usize].into()
    }

    fn y_shape(&self) -> Shape {
        let s = &self.shape;
        let batch = s.planes as usize / self.channels;
        [batch, self.channels, s.out_h as usize, s.out_w as usize].into()
    }

    fn expect(&self, what: &str, got: &Shape, want: Shape) -> Result<(), String> {
        if *got == want { Ok(()) } else { Err(format!("{what} is {got}, must be {want}")) }
    }

    /// The positions of the input under window (oh, ow), in row-major order.
    fn positions(&self, oh: usize, ow: usize) -> Vec<(usize, usize)> {
        let s = self.shape;
        let along = |out: usize, stride: u32, kernel: u32, pad: u32, size: u32| {
            (0..kernel as usize)
                .filter_map(move |k| (out * stride as usize + k).checked_sub(pad as usize))
                .filter(move |&at| at < size as usize)
        };
        along(oh, s.stride_h, s.kernel_h, s.pad_top, s.in_h)
            .flat_map(|ih| along(ow, s.stride_w, s.kernel_w, s.pad_left, s.in_w).map(move |iw| (ih, iw)))
            .collect()
    }

    /// Calls `f(batch, channel, output position, input positions)` for every window.
    fn for_each(&self, mut f: impl FnMut(usize, usize, (usize, usize), &[(usize, usize)])) {
        let y = self.y_shape();
        for (oh, ow) in (0..y[2]).flat_map(|oh| (0..y[3]).map(move |ow| (oh, ow))) {
            let positions = self.positions(oh, ow);
            for (n, c) in (0..y[0]).flat_map(|n| (0..y[1]).map(move |c| (n, c))) {
                f(n, c, (oh, ow), &positions);
            }
        }
    }

    /// PyTorch's divisor of an average: the window clipped to the padded input, or to the input.
    fn count(&self, oh: usize, ow: usize, include_pad: bool) -> f64 {
        if !include_pad {
            return self.positions(oh, ow).len() as f64;
        }
        let s = self.shape;
        let along = |out: usize, stride: u32, kernel: u32, pad: u32, size: u32| {
            let start = out * stride as usize;
            (start + kernel as usize).min((size + 2 * pad) as usize) - start
        };
        let rows = along(oh, s.stride_h, s.kernel_h, s.pad_top, s.in_h);
        (rows * along(ow, s.stride_w, s.kernel_w, s.pad_left, s.in_w)) as f64
    }
}

fn view4(x: &Array) -> ArrayView4<'_, f64> {
    x.view().into_dimensionality::<Ix4>().unwrap_or_else(|_| unreachable!("infer checked the rank"))
}

fn zeros4(shape: &Shape) -> Array4<f64> {
    Array4::zeros((shape[0], shape[1], shape[2], shape[3]))
}

/// The first largest of some positions.
fn first_maximum(
    x: &ArrayView4<'_, f64>,
    n: usize,
    c: usize,
    positions: &[(usize, usize)],
) -> Option<(usize, usize)> {
    let mut best: Option<(usize, usize)> = None;
    for &(ih, iw) in positions {
        if best.is_none_or(|(bh, bw)| x[[n, c, ih, iw]] > x[[n, c, bh, bw]]) {
            best = Some((ih, iw));
        }
    }
    best
}

/// The largest of each window.
#[derive(Clone, Debug)]
pub(crate) struct MaxPool2d(pub(crate) Windows);

impl Rule for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        self.0.expect("input", inputs[0], self.0.x_shape())?;
        real(self.0.y_shape())
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let x = view4(inputs[0]);
        let mut y = zeros4(&self.0.y_shape());
        self.0.for_each(|n, c, (oh, ow), positions| {
            if let Some((ih, iw)) = first_maximum(&x, n, c, positions) {
                y[[n, c, oh, ow]] = x[[n, c, ih, iw]];
            }
        });
        vec![y.into_dyn()]
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
        let op = Op::MaxPool2dBackward(MaxPool2dBackward(self.0));
        Ok(vec![Some(g.record1(op, &[inputs[0], dy])?)])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let (x, y) = (to.argument(node.inputs[0])?, to.result(node.outputs[0]));
        let kernel = kernel::MaxPool2d { shape: self.0.shape, places: false, tail: Tail::default() };
        to.emit(Kernel::MaxPool2d(kernel), vec![x, y]);
        Ok(())
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(2)
    }
}

/// Each window's gradient, to the place of its first maximum.
#[derive(Clone, Debug)]
pub(crate) struct MaxPool2dBackward(pub(crate) Windows);

impl Rule for MaxPool2dBackward {
    fn name(&self) -> &'static str {
        "max_pool2d_backward"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        self.0.expect("input", inputs[0], self.0.x_shape())?;
        self.0.expect("gradient", inputs[1], self.0.y_shape())?;
        real(self.0.x_shape())
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let (x, dy) = (view4(inputs[0]), view4(inputs[1]));
        let mut dx = zeros4(&self.0.x_shape());
        self.0.for_each(|n, c, (oh, ow), positions| {
            if let Some((ih, iw)) = first_maximum(&x, n, c, positions) {
                dx[[n, c, ih, iw]] += dy[[n, c, oh, ow]];
            }
        });
        vec![dx.into_dyn()]
    }

    /// No second derivative: which place is the largest does not change in a neighbourhood, but the
    /// selection itself is not recorded.
    fn vjp(
        &self,
        _: &mut Graph,
        _: &[Tensor],
        _: &[Tensor],
        _: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        Ok(vec![None, None])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let (x, dy) = (to.argument(node.inputs[0])?, to.argument(node.inputs[1])?);
        let dx = to.result(node.outputs[0]);
        let kernel = kernel::MaxPool2dBackward { shape: self.0.shape, tail: Tail::default() };
        to.emit(Kernel::MaxPool2dBackward(kernel), vec![x, dy, dx]);
        Ok(())
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(3)
    }
}

/// The mean of each window.
#[derive(Clone, Debug)]
pub(crate) struct AvgPool2d {
    pub(crate) windows: Windows,
    pub(crate) count_include_pad: bool,
}

impl Rule for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        self.windows.expect("input", inputs[0], self.windows.x_shape())?;
        real(self.windows.y_shape())
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let x = view4(inputs[0]);
        let mut y = zeros4(&self.windows.y_shape());
        self.windows.for_each(|n, c, (oh, ow), positions| {
            let sum: f64 = positions.iter().map(|&(ih, iw)| x[[n, c, ih, iw]]).sum();
            y[[n, c, oh, ow]] = sum / self.windows.count(oh, ow, self.count_include_pad);
        });
        vec![y.into_dyn()]
    }

    fn vjp(
        &self,
        g: &mut Graph,
        _: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let dy = incoming(g, outputs, dys, 0)?;
        let (windows, count_include_pad) = (self.windows, self.count_include_pad);
        let op = Op::AvgPool2dBackward(AvgPool2dBackward { windows, count_include_pad });
        Ok(vec![Some(g.record1(op, &[dy])?)])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let (x, y) = (to.argument(node.inputs[0])?, to.result(node.outputs[0]));
        let kernel = kernel::AvgPool2d {
            shape: self.windows.shape,
            count_include_pad: self.count_include_pad,
            tail: Tail::default(),
        };
        to.emit(Kernel::AvgPool2d(kernel), vec![x, y]);
        Ok(())
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(2)
    }
}

/// Each window's gradient, in equal parts to its places.
#[derive(Clone, Debug)]
pub(crate) struct AvgPool2dBackward {
    pub(crate) windows: Windows,
    pub(crate) count_include_pad: bool,
}

impl Rule for AvgPool2dBackward {
    fn name(&self) -> &'static str {
        "avg_pool2d_backward"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        self.windows.expect("gradient", inputs[0], self.windows.y_shape())?;
        real(self.windows.x_shape())
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let dy = view4(inputs[0]);
        let mut dx = zeros4(&self.windows.x_shape());
        self.windows.for_each(|n, c, (oh, ow), positions| {
            let part = dy[[n, c, oh, ow]] / self.windows.count(oh, ow, self.count_include_pad);
            for &(ih, iw) in positions {
                dx[[n, c, ih, iw]] += part;
            }
        });
        vec![dx.into_dyn()]
    }

    fn vjp(
        &self,
        g: &mut Graph,
        _: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let ddx = incoming(g, outputs, dys, 0)?;
        let (windows, count_include_pad) = (self.windows, self.count_include_pad);
        Ok(vec![Some(g.record1(Op::AvgPool2d(AvgPool2d { windows, count_include_pad }), &[ddx])?)])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let (dy, dx) = (to.argument(node.inputs[0])?, to.result(node.outputs[0]));
        let kernel = kernel::AvgPool2dBackward {
            shape: self.windows.shape,
            count_include_pad: self.count_include_pad,
            tail: Tail::default(),
        };
        to.emit(Kernel::AvgPool2dBackward(kernel), vec![dy, dx]);
        Ok(())
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(2)
    }
}

impl Graph {
    fn windows(&self, op: &str, x: Tensor, options: Pool2dOptions) -> Result<Windows, GraphError> {
        let shape = self.shape(x)?;
        let pool = pool_shape(shape, options).map_err(|message| GraphError::Shape {
            op: op.into(),
            scope: self.scope(),
            message,
        })?;
        Ok(Windows { channels: shape[1], shape: pool })
    }

    /// The largest value of each window: x [batch, channels, height, width] to [batch, channels, height',
    /// width'], `height' = (height + 2 padding - kernel) / stride + 1`. Among equal values the gradient goes
    /// to the first in row-major order.
    ///
    /// # Errors
    /// If a window is larger than the padded input, or the padding more than half of the window.
    ///
    /// Source: PyTorch's `max_pool2d`.
    pub fn max_pool2d(&mut self, x: Tensor, options: Pool2dOptions) -> Result<Tensor, GraphError> {
        let windows = self.windows("max_pool2d", x, options)?;
        self.record1(Op::MaxPool2d(MaxPool2d(windows)), &[x])
    }

    /// The mean of each window; positions in the padding count as zeros if `count_include_pad`, else not at
    /// all.
    ///
    /// # Errors
    /// As [`Graph::max_pool2d`].
    ///
    /// Source: PyTorch's `avg_pool2d`.
    pub fn avg_pool2d(
        &mut self,
        x: Tensor,
        options: Pool2dOptions,
        count_include_pad: bool,
    ) -> Result<Tensor, GraphError> {
        let windows = self.windows("avg_pool2d", x, options)?;
        self.record1(Op::AvgPool2d(AvgPool2d { windows, count_include_pad }), &[x])
    }
}
