//! The rows of a batch, from a data set that lies on the device.

use kiln_kernel::{self as kernel, CLOCK_WORDS, DType, GatherType, Kernel, Real, Shape};
use ndarray::IxDyn;

use super::{Op, Rule};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// How a batch is taken from a resident data set.
#[derive(Clone, Debug)]
pub struct GatherOptions {
    /// Rows of the batch.
    pub rows: usize,
    /// Items of the data set.
    pub items: usize,
    /// Shape of one item.
    pub item: Shape,
    /// How the items are stored.
    pub dtype: GatherType,
    /// Whether the last row of the batch comes first: what each row of a batch is mixed with.
    pub reversed: bool,
    /// Factor of each channel (one, or as many as the item's first axis); empty for integers.
    pub scale: Vec<f32>,
    /// Summand of each channel; as many as `scale`.
    pub shift: Vec<f32>,
}

/// data[order[cursor + r]] · scale + shift.
#[derive(Clone, Debug)]
pub(crate) struct Gather {
    pub(crate) options: GatherOptions,
}

impl Gather {
    fn dtype(&self) -> DType {
        match self.options.dtype {
            GatherType::U32 => DType::U32,
            GatherType::U8 | GatherType::F32 => DType::F32,
        }
    }

    fn data_len(&self) -> usize {
        let elements = self.options.items * self.options.item.elements();
        if self.options.dtype == GatherType::U8 { elements.div_ceil(4) } else { elements }
    }
}

impl Rule for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn dtypes(&self) -> &'static [DType] {
        match self.options.dtype {
            GatherType::F32 => &[DType::F32, DType::U32, DType::U32],
            GatherType::U8 | GatherType::U32 => &[DType::U32; 3],
        }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        let o = &self.options;
        if inputs[0].elements() != self.data_len() {
            return Err(format!(
                "{} items of {} need {} elements, the data set has {}",
                o.items,
                o.item,
                self.data_len(),
                inputs[0].elements()
            ));
        }
        if inputs[1].elements() != o.items || inputs[2].elements() != CLOCK_WORDS {
            return Err(format!(
                "order {} and clock {} must have {} and {CLOCK_WORDS} elements",
                inputs[1], inputs[2], o.items
            ));
        }
        let by_channel = |count: usize| count <= 1 || o.item.dims().first() == Some(&count);
        if o.scale.len() != o.shift.len() || !by_channel(o.scale.len()) {
            return Err(format!(
                "{} factors and {} summands for items of {}: needs one, or one for each channel",
                o.scale.len(),
                o.shift.len(),
                o.item
            ));
        }
        if o.scale.is_empty() != (o.dtype == GatherType::U32) {
            return Err("real numbers need a factor and a summand, integers have none".into());
        }
        let mut dims = vec![o.rows];
        dims.extend(o.item.dims());
        Ok(vec![(dims.into(), self.dtype())])
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let o = &self.options;
        let data: Vec<f64> = match o.dtype {
            GatherType::U8 => {
                inputs[0].iter().flat_map(|&w| (w as u32).to_le_bytes().map(f64::from)).collect()
            }
            GatherType::F32 | GatherType::U32 => inputs[0].iter().copied().collect(),
        };
        let order: Vec<usize> = inputs[1].iter().map(|&i| i as usize).collect();
        let cursor = inputs[2].iter().nth(2).map_or(0, |&c| c as usize);
        let row_len = o.item.elements();
        let mut y = Vec::with_capacity(o.rows * row_len);
        for r in 0..o.rows {
            let r = if o.reversed { o.rows - 1 - r } else { r };
            let item = order[(cursor + r).min(o.items - 1)];
            for j in 0..row_len {
                let v = data[item * row_len + j];
                let channel = if o.scale.is_empty() { None } else { Some(j / (row_len / o.scale.len())) };
                y.push(channel.map_or(v, |c| v * f64::from(o.scale[c]) + f64::from(o.shift[c])));
            }
        }
        let mut dims = vec![o.rows];
        dims.extend(o.item.dims());
        vec![Array::from_shape_vec(IxDyn(&dims), y).unwrap_or_else(|_| unreachable!("one value per element"))]
    }

    /// Data sets have no gradient.
    fn vjp(
        &self,
        _: &mut Graph,
        _: &[Tensor],
        _: &[Tensor],
        _: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        Ok(vec![None, None, None])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let o = &self.options;
        let mut arguments = Vec::with_capacity(4);
        for &input in &node.inputs {
            arguments.push(to.argument(input)?);
        }
        arguments.push(to.result(node.outputs[0]));
        let reals = |values: &[f32]| values.iter().map(|&v| Real(v)).collect();
        let kernel = kernel::Gather {
            rows: o.rows as u32,
            items: o.items as u32,
            row_len: o.item.elements() as u32,
            dtype: o.dtype,
            reversed: o.reversed,
            scale: reals(&o.scale),
            shift: reals(&o.shift),
        };
        to.emit(Kernel::Gather(kernel), arguments);
        Ok(())
    }
}

impl Graph {
    /// A batch of a data set that lies on the device: row `r` is item `order[cursor + r]`, scaled and shifted
    /// by channel. `data` holds the items (bytes packed four to an integer, real numbers, or integers),
    /// `order` the epoch's order of items; the cursor is the clock's.
    ///
    /// # Errors
    /// If the sizes do not fit.
    pub fn gather(
        &mut self,
        data: Tensor,
        order: Tensor,
        options: GatherOptions,
    ) -> Result<Tensor, GraphError> {
        let clock = self.clock()?;
        self.record1(Op::Gather(Gather { options }), &[data, order, clock])
    }
}
