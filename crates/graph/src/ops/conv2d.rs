//! 2-D convolution and its two gradients, which are convolutions again.

use kiln_kernel::{self as kernel, ConvShape, DType, Kernel, Pooling, ReduceOp, Shape, Tail, splits_for};
use ndarray::{ArrayView4, Ix4};

use super::{
    Arguments, Op, Rule, incoming, real,
    reduce::{Parts, finish_splits},
};
use crate::{
    Graph, GraphError, Tensor,
    graph::Node,
    interpret::Array,
    plan::{Lowering, Storage},
};

/// How the input's border is extended with zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// Not at all.
    #[default]
    Valid,
    /// So that the result has `ceil(size / stride)` rows and columns; an odd pixel goes to the bottom and
    /// right (TensorFlow's rule).
    Same,
    /// By this many pixels on each side.
    Explicit {
        /// Rows above.
        top: usize,
        /// Rows below.
        bottom: usize,
        /// Columns to the left.
        left: usize,
        /// Columns to the right.
        right: usize,
    },
}

impl Padding {
    /// The same on all sides of an axis: rows above and below, columns left and right.
    pub fn symmetric(rows: usize, columns: usize) -> Self {
        Padding::Explicit { top: rows, bottom: rows, left: columns, right: columns }
    }

    /// (before, after) of the rows or the columns.
    pub(crate) fn amounts(self, rows: bool, size: usize, extent: usize, stride: usize) -> (usize, usize) {
        match self {
            Padding::Valid => (0, 0),
            Padding::Same => {
                let total = ((size.div_ceil(stride) - 1) * stride + extent).saturating_sub(size);
                (total / 2, total - total / 2)
            }
            Padding::Explicit { top, bottom, .. } if rows => (top, bottom),
            Padding::Explicit { left, right, .. } => (left, right),
        }
    }
}

/// Settings of a convolution. Pairs are (rows, columns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Pixels between neighbouring outputs.
    pub stride: (usize, usize),
    /// Zeros around the input.
    pub padding: Padding,
    /// Pixels between neighbouring taps of the kernel.
    pub dilation: (usize, usize),
    /// Channels are split into this many independent groups.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self { stride: (1, 1), padding: Padding::Valid, dilation: (1, 1), groups: 1 }
    }
}

/// Settings of a transposed convolution. Pairs are (rows, columns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTranspose2dOptions {
    /// Pixels between neighbouring inputs, in the output.
    pub stride: (usize, usize),
    /// Pixels cut off the output's border; [`Padding::Same`] gives an output `stride` times as large as the input.
    pub padding: Padding,
    /// Pixels more at the output's bottom and right, less than the stride; none with [`Padding::Same`].
    pub output_padding: (usize, usize),
    /// Pixels between neighbouring taps of the kernel.
    pub dilation: (usize, usize),
    /// Channels are split into this many independent groups.
    pub groups: usize,
}

impl Default for ConvTranspose2dOptions {
    fn default() -> Self {
        Self { stride: (1, 1), padding: Padding::Valid, output_padding: (0, 0), dilation: (1, 1), groups: 1 }
    }
}

/// The output size of a transposed convolution along one axis.
fn transposed_size(
    axis: &str,
    (size, kernel): (usize, usize),
    (stride, dilation): (usize, usize),
    padding: Padding,
    more: usize,
) -> Result<usize, String> {
    let too_large = |value: usize| value >= LARGEST;
    if stride == 0 || dilation == 0 || [kernel, stride, dilation].into_iter().any(too_large) {
        return Err(format!(
            "kernel, stride and dilation must be at least 1 and below {LARGEST}, are {kernel}, {stride} and \
             {dilation} along the {axis}"
        ));
    }
    if more >= stride {
        return Err(format!("output padding {more} along the {axis} must be less than the stride {stride}"));
    }
    if padding == Padding::Same {
        return match more {
            0 if size * stride > i32::MAX as usize => {
                Err(format!("{} pixels of {axis} are more than {}", size * stride, i32::MAX))
            }
            0 => Ok(size * stride),
            _ => Err(format!("output padding {more} along the {axis} has no meaning with padding \"same\"")),
        };
    }
    let (before, after) = padding.amounts(axis == "height", size, 0, stride);
    let whole = (size - 1) * stride + (kernel - 1) * dilation + 1 + more;
    match before.checked_add(after).and_then(|cut| whole.checked_sub(cut)) {
        // a size beyond 32 bits would come out as what is left of it there
        Some(left) if left > i32::MAX as usize => {
            Err(format!("{left} pixels of {axis} are more than {}", i32::MAX))
        }
        Some(left) if left > 0 => Ok(left),
        _ => Err(format!("padding {before} and {after} along the {axis} leaves nothing of {whole} pixels")),
    }
}

/// What settings along an axis must stay below: kernels compute positions in 32 bits.
pub(super) const LARGEST: usize = 1 << 30;

/// The output size and the padding before, along one axis.
fn output_size(
    axis: &str,
    (size, kernel): (usize, usize),
    (stride, dilation): (usize, usize),
    padding: Padding,
) -> Result<(usize, usize), String> {
    if stride == 0 || dilation == 0 {
        return Err(format!(
            "stride and dilation must be at least 1, are {stride} and {dilation} along the {axis}"
        ));
    }
    let too_large = |value: usize| value >= LARGEST;
    if [kernel, stride, dilation].into_iter().any(too_large) {
        return Err(format!(
            "kernel, stride and dilation must be below {LARGEST}, are {kernel}, {stride} and {dilation} along the {axis}"
        ));
    }
    let extent = (kernel - 1) * dilation + 1;
    let (before, after) = padding.amounts(axis == "height", size, extent, stride);
    if too_large(before) || too_large(after) {
        return Err(format!("padding must be below {LARGEST}, is {before} and {after} along the {axis}"));
    }
    let padded = size + before + after;
    if extent > padded {
        return Err(format!(
            "the kernel covers {extent} pixels of {axis}, but the padded input has {padded}"
        ));
    }
    Ok(((padded - extent) / stride + 1, before))
}

pub(crate) fn conv_shape(x: &Shape, weight: &Shape, options: Conv2dOptions) -> Result<ConvShape, String> {
    if x.rank() != 4 || weight.rank() != 4 {
        return Err(format!(
            "needs input [batch, channels, height, width] and weight [out, in / groups, height, width], \
             got {x} and {weight}"
        ));
    }
    let groups = options.groups;
    if groups == 0 || !x[1].is_multiple_of(groups) || !weight[0].is_multiple_of(groups) {
        return Err(format!(
            "groups must divide the channels: {groups} groups, {} channels in, {} out",
            x[1], weight[0]
        ));
    }
    if x[1] / groups != weight[1] {
        return Err(format!(
            "input {x} has {} channels per group, weight {weight} takes {}",
            x[1] / groups,
            weight[1]
        ));
    }
    let Conv2dOptions { stride, dilation, padding, .. } = options;
    let (out_h, pad_top) = output_size("height", (x[2], weight[2]), (stride.0, dilation.0), padding)?;
    let (out_w, pad_left) = output_size("width", (x[3], weight[3]), (stride.1, dilation.1), padding)?;
    Ok(ConvShape {
        batch: x[0] as u32,
        in_channels: x[1] as u32,
        in_h: x[2] as u32,
        in_w: x[3] as u32,
        out_channels: weight[0] as u32,
        out_h: out_h as u32,
        out_w: out_w as u32,
        kernel_h: weight[2] as u32,
        kernel_w: weight[3] as u32,
        stride_h: stride.0 as u32,
        stride_w: stride.1 as u32,
        pad_top: pad_top as u32,
        pad_left: pad_left as u32,
        dilation_h: dilation.0 as u32,
        dilation_w: dilation.1 as u32,
        groups: groups as u32,
    })
}

fn x_shape(s: &ConvShape) -> [usize; 4] {
    [s.batch as usize, s.in_channels as usize, s.in_h as usize, s.in_w as usize]
}

fn weight_shape(s: &ConvShape) -> [usize; 4] {
    let per_group = s.in_channels / s.groups;
    [s.out_channels as usize, per_group as usize, s.kernel_h as usize, s.kernel_w as usize]
}

fn y_shape(s: &ConvShape) -> [usize; 4] {
    [s.batch as usize, s.out_channels as usize, s.out_h as usize, s.out_w as usize]
}

/// Calls `f(x index, weight index, y index)` for every product that the convolution adds up.
fn for_each_product(s: &ConvShape, mut f: impl FnMut([usize; 4], [usize; 4], [usize; 4])) {
    let [_, per_group, kernel_h, kernel_w] = weight_shape(s);
    let [batch, out_channels, out_h, out_w] = y_shape(s);
    let out_per_group = out_channels / s.groups as usize;
    let source = |out: usize, stride: u32, tap: usize, dilation: u32, pad: u32, size: u32| {
        (out * stride as usize + tap * dilation as usize)
            .checked_sub(pad as usize)
            .filter(|&at| at < size as usize)
    };
    for n in 0..batch {
        for oc in 0..out_channels {
            for (oh, ow) in (0..out_h).flat_map(|oh| (0..out_w).map(move |ow| (oh, ow))) {
                for c in 0..per_group {
                    for (kh, kw) in (0..kernel_h).flat_map(|kh| (0..kernel_w).map(move |kw| (kh, kw))) {
                        let ih = source(oh, s.stride_h, kh, s.dilation_h, s.pad_top, s.in_h);
                        let iw = source(ow, s.stride_w, kw, s.dilation_w, s.pad_left, s.in_w);
                        if let (Some(ih), Some(iw)) = (ih, iw) {
                            let ic = oc / out_per_group * per_group + c;
                            f([n, ic, ih, iw], [oc, c, kh, kw], [n, oc, oh, ow]);
                        }
                    }
                }
            }
        }
    }
}

fn view4(x: &Array) -> ArrayView4<'_, f64> {
    x.view().into_dimensionality::<Ix4>().unwrap_or_else(|_| unreachable!("infer checked the rank"))
}

fn expect_shapes(what: [&str; 2], got: &[&Shape], want: [[usize; 4]; 2]) -> Result<(), String> {
    for ((name, got), want) in what.iter().zip(got).zip(want) {
        if **got != Shape::from(want) {
            return Err(format!("{name} is {got}, must be {}", Shape::from(want)));
        }
    }
    Ok(())
}

/// y = x * weight.
#[derive(Clone, Debug)]
pub(crate) struct Conv2d {
    pub(crate) shape: ConvShape,
    /// Whether the result is pooled; where its maxima are then may be a second result. Set by planning only.
    pub(crate) pool: Pooling,
}

impl Rule for Conv2d {
    fn name(&self) -> &'static str {
        match self.pool {
            Pooling::None => "conv2d",
            Pooling::Max => "conv2d_max_pool",
            Pooling::MaxAndPlaces => "conv2d_max_pool_with_places",
        }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        expect_shapes(["input", "weight"], inputs, [x_shape(&self.shape), weight_shape(&self.shape)])?;
        real(y_shape(&self.shape))
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let (x, weight) = (view4(inputs[0]), view4(inputs[1]));
        let mut y = Array::zeros(&y_shape(&self.shape)[..]);
        for_each_product(&self.shape, |ix, iw, iy| y[&iy[..]] += x[ix] * weight[iw]);
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
        let mut gradients = vec![None, None];
        // the weight gradient first, so that the two launches stand side by side
        if wanted[1] {
            gradients[1] = Some(backward_weight(g, self.shape, inputs[0], dy)?);
        }
        if wanted[0] {
            gradients[0] = Some(backward_input(g, self.shape, dy, inputs[1])?);
        }
        Ok(gradients)
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let mut arguments = arguments(to, node)?;
        arguments.extend(node.outputs.get(1).map(|&places| to.result(places)));
        let kernel = kernel::Conv2d { shape: self.shape, pool: self.pool, tail: Tail::default() };
        to.emit(Kernel::Conv2d(kernel), arguments);
        Ok(())
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(if self.pool == Pooling::MaxAndPlaces { 4 } else { 3 })
    }
}

fn arguments(to: &mut Lowering<'_>, node: &Node) -> Result<Arguments, GraphError> {
    Ok(vec![to.argument(node.inputs[0])?, to.argument(node.inputs[1])?, to.result(node.outputs[0])])
}

/// Where the maxima of pooled results are, which planning has made a third input.
fn places(to: &mut Lowering<'_>, node: &Node) -> Result<Option<Storage>, GraphError> {
    node.inputs.get(2).map(|&places| to.argument(places)).transpose()
}

fn forward(g: &mut Graph, shape: ConvShape, x: Tensor, weight: Tensor) -> Result<Tensor, GraphError> {
    g.record1(Op::Conv2d(Conv2d { shape, pool: Pooling::None }), &[x, weight])
}

fn backward_input(g: &mut Graph, shape: ConvShape, dy: Tensor, weight: Tensor) -> Result<Tensor, GraphError> {
    g.record1(Op::Conv2dBackwardInput(Conv2dBackwardInput { shape, unpool: false }), &[dy, weight])
}

fn backward_weight(g: &mut Graph, shape: ConvShape, x: Tensor, dy: Tensor) -> Result<Tensor, GraphError> {
    let op = Conv2dBackwardWeight { shape, bias: false, unpool: false };
    g.record1(Op::Conv2dBackwardWeight(op), &[x, dy])
}

/// dx from dy and the weight: the transposed convolution.
#[derive(Clone, Debug)]
pub(crate) struct Conv2dBackwardInput {
    pub(crate) shape: ConvShape,
    /// Whether dy is that of pooled results, and a third input says where they were. Set by planning only.
    pub(crate) unpool: bool,
}

impl Rule for Conv2dBackwardInput {
    fn name(&self) -> &'static str {
        if self.unpool { "conv2d_backward_input_unpool" } else { "conv2d_backward_input" }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        expect_shapes(["gradient", "weight"], inputs, [y_shape(&self.shape), weight_shape(&self.shape)])?;
        real(x_shape(&self.shape))
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let (dy, weight) = (view4(inputs[0]), view4(inputs[1]));
        let mut dx = Array::zeros(&x_shape(&self.shape)[..]);
        for_each_product(&self.shape, |ix, iw, iy| dx[&ix[..]] += dy[iy] * weight[iw]);
        vec![dx]
    }

    /// Bilinear like the convolution itself.
    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        wanted: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let ddx = incoming(g, outputs, dys, 0)?;
        let mut gradients = vec![None, None];
        if wanted[0] {
            gradients[0] = Some(forward(g, self.shape, ddx, inputs[1])?);
        }
        if wanted[1] {
            gradients[1] = Some(backward_weight(g, self.shape, ddx, inputs[0])?);
        }
        Ok(gradients)
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let mut arguments = arguments(to, node)?;
        arguments.extend(places(to, node)?);
        let (shape, unpool) = (self.shape, self.unpool);
        let kernel = kernel::Conv2dBackwardInput { shape, unpool, tail: Tail::default() };
        to.emit(Kernel::Conv2dBackwardInput(kernel), arguments);
        Ok(())
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(if self.unpool { 4 } else { 3 })
    }
}

/// dweight from x and dy; and, once planning has joined them, the bias gradient beside it.
#[derive(Clone, Debug)]
pub(crate) struct Conv2dBackwardWeight {
    pub(crate) shape: ConvShape,
    /// Whether the second result is the sum of dy over batch and pixels. Set by planning only.
    pub(crate) bias: bool,
    /// As of [`Conv2dBackwardInput`].
    pub(crate) unpool: bool,
}

impl Rule for Conv2dBackwardWeight {
    fn name(&self) -> &'static str {
        match (self.unpool, self.bias) {
            (false, false) => "conv2d_backward_weight",
            (false, true) => "conv2d_backward_weight_and_bias",
            (true, false) => "conv2d_backward_weight_unpool",
            (true, true) => "conv2d_backward_weight_and_bias_unpool",
        }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        expect_shapes(["input", "gradient"], inputs, [x_shape(&self.shape), y_shape(&self.shape)])?;
        real(weight_shape(&self.shape))
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let (x, dy) = (view4(inputs[0]), view4(inputs[1]));
        let mut dweight = Array::zeros(&weight_shape(&self.shape)[..]);
        for_each_product(&self.shape, |ix, iw, iy| dweight[&iw[..]] += x[ix] * dy[iy]);
        vec![dweight]
    }

    /// Bilinear like the convolution itself.
    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        wanted: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let ddw = incoming(g, outputs, dys, 0)?;
        let mut gradients = vec![None, None];
        if wanted[0] {
            gradients[0] = Some(backward_input(g, self.shape, inputs[1], ddw)?);
        }
        if wanted[1] {
            gradients[1] = Some(forward(g, self.shape, inputs[0], ddw)?);
        }
        Ok(gradients)
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let s = self.shape;
        let splits = splits_for(s.batch as usize * s.out_h as usize * s.out_w as usize, s.weight_len());
        let bias_len = if self.bias { s.out_channels as usize } else { 0 };
        let part_len = s.weight_len() + bias_len;
        let mut arguments = vec![to.argument(node.inputs[0])?, to.argument(node.inputs[1])?];
        // one part without a bias is the result
        let finished = splits == 1 && bias_len == 0;
        let results: Vec<Storage> = node.outputs.iter().map(|&t| to.result(t)).collect();
        let partial = if finished { results[0] } else { to.scratch(splits as usize * part_len) };
        arguments.push(partial);
        arguments.extend(places(to, node)?);
        let kernel = kernel::Conv2dBackwardWeight { shape: s, splits, bias: self.bias, unpool: self.unpool };
        to.emit(Kernel::Conv2dBackwardWeight(kernel), arguments);
        if !finished {
            let mut from = 0;
            for (len, y) in [s.weight_len(), bias_len].into_iter().zip(results) {
                finish_splits(to, ReduceOp::Sum, partial, Parts { from, len, stride: part_len, splits }, y);
                from += len;
            }
        }
        Ok(())
    }
}

impl Graph {
    /// 2-D cross-correlation: x [batch, in, height, width] with weight [out, in / groups, height, width] to
    /// [batch, out, height', width'], where `height' = (height + padding - dilation (kernel - 1) - 1) / stride + 1`.
    ///
    /// # Errors
    /// If channels or groups do not fit, or the kernel is larger than the padded input.
    ///
    /// Source: PyTorch's `conv2d`; [`Padding::Same`] follows TensorFlow.
    pub fn conv2d(
        &mut self,
        x: Tensor,
        weight: Tensor,
        options: Conv2dOptions,
    ) -> Result<Tensor, GraphError> {
        let shape = conv_shape(self.shape(x)?, self.shape(weight)?, options)
            .map_err(|message| GraphError::Shape { op: "conv2d".into(), scope: self.scope(), message })?;
        forward(self, shape, x, weight)
    }

    /// 2-D transposed convolution, the transpose of [`Graph::conv2d`]: x [batch, in, height, width] with weight
    /// [in, out / groups, height, width] to [batch, out, height', width'], where
    /// `height' = (height - 1) stride - padding + dilation (kernel - 1) + output_padding + 1`.
    ///
    /// # Errors
    /// If channels or groups do not fit, the output padding is not less than the stride, or the padding leaves nothing.
    ///
    /// Source: Zeiler et al. (2010), as PyTorch's `conv_transpose2d`.
    pub fn conv_transpose2d(
        &mut self,
        x: Tensor,
        weight: Tensor,
        options: ConvTranspose2dOptions,
    ) -> Result<Tensor, GraphError> {
        let (s, w) = (self.shape(x)?.clone(), self.shape(weight)?.clone());
        let o = options;
        let shape = || -> Result<ConvShape, String> {
            if s.rank() != 4 || w.rank() != 4 {
                return Err(format!(
                    "needs input [batch, in, height, width] and weight [in, out / groups, height, width], \
                     got {s} and {w}"
                ));
            }
            if s[1] != w[0] || o.groups == 0 || !s[1].is_multiple_of(o.groups) {
                return Err(format!(
                    "input {s} has {} channels, weight {w} takes {} in {} groups",
                    s[1], w[0], o.groups
                ));
            }
            let height = transposed_size(
                "height",
                (s[2], w[2]),
                (o.stride.0, o.dilation.0),
                o.padding,
                o.output_padding.0,
            )?;
            let width = transposed_size(
                "width",
                (s[3], w[3]),
                (o.stride.1, o.dilation.1),
                o.padding,
                o.output_padding.1,
            )?;
            let forward = Conv2dOptions {
                stride: o.stride,
                padding: o.padding,
                dilation: o.dilation,
                groups: o.groups,
            };
            // the convolution whose input this computes
            conv_shape(&[s[0], w[1] * o.groups, height, width].into(), &w, forward)
        };
        let shape = shape().map_err(|message| GraphError::Shape {
            op: "conv_transpose2d".into(),
            scope: self.scope(),
            message,
        })?;
        backward_input(self, shape, x, weight)
    }

    /// Adds a bias \[channels\] to each channel of x [batch, channels, ...].
    ///
    /// # Errors
    /// If the numbers of channels differ.
    pub fn add_channels(&mut self, x: Tensor, bias: Tensor) -> Result<Tensor, GraphError> {
        let mut shape = vec![1; self.shape(x)?.rank()];
        if shape.len() > 1 {
            shape[1] = self.shape(bias)?.elements();
        }
        let bias = self.reshape(bias, shape)?;
        self.add(x, bias)
    }
}
