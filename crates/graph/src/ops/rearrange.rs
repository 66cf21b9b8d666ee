//! Elements moved: a part of an axis, a border around axes, tensors side by side.

use kiln_kernel::{self as kernel, DType, Kernel, Real, Shape, Tail};
use ndarray::{Axis, Slice as Range, concatenate};

use super::{Op, Rule, ViewKind, incoming, real};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// Elements `start .. end` of an axis.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) axis: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Rule for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        let mut dims = inputs[0].dims().to_vec();
        let Some(size) = dims.get_mut(self.axis) else {
            return Err(format!("axis {} does not exist in {}", self.axis, inputs[0]));
        };
        if self.start >= self.end || self.end > *size {
            return Err(format!(
                "elements {}..{} of axis {} of {}: needs start < end <= {size}",
                self.start, self.end, self.axis, inputs[0]
            ));
        }
        *size = self.end - self.start;
        real(dims)
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let part = inputs[0].slice_axis(Axis(self.axis), Range::from(self.start..self.end));
        vec![part.as_standard_layout().into_owned()]
    }

    /// Zeros around it.
    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let dy = incoming(g, outputs, dys, 0)?;
        let shape = g.shape(inputs[0])?;
        let mut amounts = vec![(0, 0); shape.rank()];
        amounts[self.axis] = (self.start, shape[self.axis] - self.end);
        Ok(vec![Some(g.pad(dy, &amounts, 0.0)?)])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        to.elementwise(node)
    }

    fn view(&self) -> ViewKind {
        ViewKind::Strided
    }
}

/// The input with a border of one number. At most two axes have one: what a kernel pads at once.
#[derive(Clone, Debug)]
pub(crate) struct Pad {
    /// Elements (before, behind) each axis.
    pub(crate) amounts: Vec<(usize, usize)>,
    pub(crate) value: Real,
}

impl Pad {
    /// The axes that get a border.
    fn padded(amounts: &[(usize, usize)]) -> Vec<usize> {
        (0..amounts.len()).filter(|&axis| amounts[axis] != (0, 0)).collect()
    }
}

impl Rule for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        if self.amounts.len() != inputs[0].rank() {
            return Err(format!(
                "{} amounts for {}: needs one pair (before, behind) for each axis",
                self.amounts.len(),
                inputs[0]
            ));
        }
        let large = |amount: &usize| *amount >= super::conv2d::LARGEST;
        if let Some(amount) = self.amounts.iter().flat_map(|&(a, b)| [a, b]).find(large) {
            return Err(format!("amounts must be below {}, one is {amount}", super::conv2d::LARGEST));
        }
        let sizes = inputs[0].dims().iter().zip(&self.amounts);
        real(sizes.map(|(size, (before, behind))| before + size + behind).collect::<Vec<_>>())
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let sizes = inputs[0].shape().iter().zip(&self.amounts);
        let dims: Vec<usize> = sizes.map(|(size, (before, behind))| before + size + behind).collect();
        let mut y = Array::from_elem(dims, f64::from(self.value.0));
        let mut inside = y.view_mut();
        for (axis, &(before, _)) in self.amounts.iter().enumerate() {
            let size = inputs[0].len_of(Axis(axis));
            inside.slice_axis_inplace(Axis(axis), Range::from(before..before + size));
        }
        inside.assign(inputs[0]);
        vec![y]
    }

    /// The part inside the border.
    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let mut dx = incoming(g, outputs, dys, 0)?;
        let shape = g.shape(inputs[0])?.clone();
        for axis in Self::padded(&self.amounts) {
            let before = self.amounts[axis].0;
            dx = g.slice(dx, axis, before, before + shape[axis])?;
        }
        Ok(vec![Some(dx)])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let shape = to.shape(node.inputs[0]);
        let (x, y) = (to.argument(node.inputs[0])?, to.result(node.outputs[0]));
        let product = |axes: std::ops::Range<usize>| shape.dims()[axes].iter().product::<usize>() as u32;
        let padded = Self::padded(&self.amounts);
        let first = padded.first().copied().unwrap_or(0);
        let pair = |axis: usize| (self.amounts[axis].0 as u32, self.amounts[axis].1 as u32);
        let (row_before, row_after) = pair(first);
        let mut kernel = kernel::Pad {
            outer: product(0..first),
            rows: shape[first] as u32,
            middle: 1,
            columns: 1,
            inner: product(first + 1..shape.rank()),
            row_before,
            row_after,
            column_before: 0,
            column_after: 0,
            value: self.value,
            tail: Tail::default(),
        };
        if let Some(&second) = padded.get(1) {
            kernel.middle = product(first + 1..second);
            kernel.columns = shape[second] as u32;
            kernel.inner = product(second + 1..shape.rank());
            (kernel.column_before, kernel.column_after) = pair(second);
        }
        to.emit(Kernel::Pad(kernel), vec![x, y]);
        Ok(())
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(2)
    }
}

/// Two to four tensors side by side along an axis.
#[derive(Clone, Debug)]
pub(crate) struct Concat {
    pub(crate) axis: usize,
    pub(crate) count: usize,
}

impl Rule for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        let mut dims = inputs[0].dims().to_vec();
        if self.axis >= dims.len() {
            return Err(format!("axis {} does not exist in {}", self.axis, inputs[0]));
        }
        for other in &inputs[1..] {
            let fits = other.rank() == dims.len()
                && (0..dims.len()).all(|axis| axis == self.axis || other[axis] == dims[axis]);
            if !fits {
                return Err(format!(
                    "{} and {other} differ in more than axis {}, along which they are joined",
                    inputs[0], self.axis
                ));
            }
            dims[self.axis] += other[self.axis];
        }
        real(dims)
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let views: Vec<_> = inputs.iter().map(|x| x.view()).collect();
        let joined = concatenate(Axis(self.axis), &views);
        let joined = joined.unwrap_or_else(|_| unreachable!("infer compared the shapes"));
        vec![joined.as_standard_layout().into_owned()]
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
        let mut gradients = Vec::with_capacity(inputs.len());
        let mut start = 0;
        for (&input, &wanted) in inputs.iter().zip(wanted) {
            let end = start + g.shape(input)?[self.axis];
            gradients.push(if wanted { Some(g.slice(dy, self.axis, start, end)?) } else { None });
            start = end;
        }
        Ok(gradients)
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let mut arguments = vec![to.result(node.outputs[0])];
        let mut widths = Vec::with_capacity(node.inputs.len());
        let mut outer = 1;
        for &input in &node.inputs {
            let shape = to.shape(input);
            outer = shape.dims()[..self.axis].iter().product::<usize>() as u32;
            widths.push(shape.dims()[self.axis..].iter().product::<usize>() as u32);
            arguments.push(to.argument(input)?);
        }
        to.emit(Kernel::Concat(kernel::Concat { outer, widths, tail: Tail::default() }), arguments);
        Ok(())
    }

    fn tail_hook(&self) -> Option<usize> {
        Some(1 + self.count)
    }
}

impl Graph {
    /// Elements `start .. end` of an axis. Costs nothing where the reader can read with strides.
    ///
    /// # Errors
    /// If the axis does not exist, or not `start < end <=` its size.
    pub fn slice(&mut self, x: Tensor, axis: usize, start: usize, end: usize) -> Result<Tensor, GraphError> {
        if self.shape(x)?.dims().get(axis) == Some(&end) && start == 0 {
            return Ok(x);
        }
        self.record1(Op::Slice(Slice { axis, start, end }), &[x])
    }

    /// `x` with a border of `value`: `amounts[axis]` is how many elements come (before, behind) each axis.
    ///
    /// # Errors
    /// If there is not one pair for each axis.
    pub fn pad(&mut self, x: Tensor, amounts: &[(usize, usize)], value: f32) -> Result<Tensor, GraphError> {
        let value = Real(value);
        let padded = Pad::padded(amounts);
        if amounts.len() != self.shape(x)?.rank() {
            return self.record1(Op::Pad(Pad { amounts: amounts.to_vec(), value }), &[x]);
        }
        let mut y = x;
        for pair in padded.chunks(2) {
            let mut part = vec![(0, 0); amounts.len()];
            for &axis in pair {
                part[axis] = amounts[axis];
            }
            y = self.record1(Op::Pad(Pad { amounts: part, value }), &[y])?;
        }
        Ok(y)
    }

    /// Images x [batch, channels, height, width] with a border of zeros: rows above and below, columns to the left
    /// and right.
    ///
    /// # Errors
    /// If `x` has not four axes.
    ///
    /// Source: PyTorch's `ZeroPad2d`, Keras' `ZeroPadding2D`.
    pub fn pad2d(
        &mut self,
        x: Tensor,
        top: usize,
        bottom: usize,
        left: usize,
        right: usize,
    ) -> Result<Tensor, GraphError> {
        self.image("pad2d", x)?;
        self.pad(x, &[(0, 0), (0, 0), (top, bottom), (left, right)], 0.0)
    }

    /// Images x [batch, channels, height, width] without rows at the top and bottom and columns at the left and
    /// right.
    ///
    /// # Errors
    /// If `x` has not four axes, or nothing is left of them.
    ///
    /// Source: Keras' `Cropping2D`.
    pub fn crop2d(
        &mut self,
        x: Tensor,
        top: usize,
        bottom: usize,
        left: usize,
        right: usize,
    ) -> Result<Tensor, GraphError> {
        let shape = self.image("crop2d", x)?;
        let left_of = |size: usize, before: usize, behind: usize| {
            before.checked_add(behind).filter(|&cut| cut < size).map(|_| size - behind)
        };
        let (Some(bottom), Some(right)) = (left_of(shape[2], top, bottom), left_of(shape[3], left, right))
        else {
            return Err(GraphError::Shape {
                op: "crop2d".into(),
                scope: self.scope(),
                message: format!(
                    "cutting {top} rows above and {bottom} below, {left} columns left and {right} right \
                     leaves nothing of {shape}"
                ),
            });
        };
        let y = self.slice(x, 2, top, bottom)?;
        self.slice(y, 3, left, right)
    }

    /// Each pixel of x [batch, channels, height, width] repeated `scale.0` times down and `scale.1` times across:
    /// [batch, channels, height · scale.0, width · scale.1].
    ///
    /// # Errors
    /// If `x` has not four axes, or a factor is 0.
    ///
    /// Source: PyTorch's `Upsample` (nearest), Keras' `UpSampling2D`.
    pub fn upsample_nearest2d(&mut self, x: Tensor, scale: (usize, usize)) -> Result<Tensor, GraphError> {
        let s = self.image("upsample_nearest2d", x)?;
        if scale.0 == 0 || scale.1 == 0 {
            return Err(GraphError::Shape {
                op: "upsample_nearest2d".into(),
                scope: self.scope(),
                message: format!("factors must be at least 1, are {} and {}", scale.0, scale.1),
            });
        }
        let spread = self.reshape(x, [s[0], s[1], s[2], 1, s[3], 1])?;
        let repeated = self.broadcast(spread, [s[0], s[1], s[2], scale.0, s[3], scale.1])?;
        self.reshape(repeated, [s[0], s[1], s[2] * scale.0, s[3] * scale.1])
    }

    /// Tensors side by side along an axis, in the order given; along the others they have equal sizes.
    ///
    /// # Errors
    /// If there are none, the axis does not exist, or another axis differs.
    ///
    /// Source: PyTorch's `cat`, Keras' `Concatenate`.
    pub fn concat(&mut self, tensors: &[Tensor], axis: usize) -> Result<Tensor, GraphError> {
        let mut open = tensors.to_vec();
        if open.is_empty() {
            let message = "needs at least one tensor".into();
            return Err(GraphError::Shape { op: "concat".into(), scope: self.scope(), message });
        }
        if open.len() == 1 && axis >= self.shape(open[0])?.rank() {
            let op = Op::Concat(Concat { axis, count: 1 });
            let message = format!("axis {axis} does not exist in {}", self.shape(open[0])?);
            return Err(self.shape_error(&op, message));
        }
        // a launch joins four: more are joined in groups of four, and these again
        while open.len() > 1 {
            let mut joined = Vec::with_capacity(open.len().div_ceil(4));
            for group in open.chunks(kernel::Concat::MAX_SOURCES) {
                joined.push(match group {
                    [one] => *one,
                    _ => self.record1(Op::Concat(Concat { axis, count: group.len() }), group)?,
                });
            }
            open = joined;
        }
        Ok(open[0])
    }

    /// The shape of images [batch, channels, height, width], or an error that says what it is instead.
    pub(crate) fn image(&self, op: &str, x: Tensor) -> Result<Shape, GraphError> {
        let shape = self.shape(x)?;
        if shape.rank() != 4 {
            let message = format!("needs images [batch, channels, height, width], got {shape}");
            return Err(GraphError::Shape { op: op.into(), scope: self.scope(), message });
        }
        Ok(shape.clone())
    }
}
