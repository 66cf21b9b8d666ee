//! A batch of pictures, each changed by chance.

use kiln_kernel::{
    self as kernel, AugmentRanges, Border, CLOCK_WORDS, DType, GatherType, Kernel, Real, Shape,
};
use ndarray::{Array2, IxDyn};

use super::{GatherOptions, Op, Rule};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// The stream of what is drawn for pictures: that of one batch, whatever else a network draws.
const STREAM: u32 = 0xDA7A_0100;

/// How the pictures of a batch are changed.
#[derive(Clone, Debug)]
pub struct AugmentOptions {
    /// How far each property may change.
    pub ranges: AugmentRanges,
    /// Whether a place between pixels shows a mixture of the four around it, or the nearest.
    pub bilinear: bool,
    /// What is seen beyond the edge.
    pub border: Border,
    /// What covered pixels show.
    pub cover: Real,
}

/// What is drawn for each row: whole numbers [rows, 16], and the row's own share \[rows\] where rows are mixed.
#[derive(Clone, Debug)]
pub(crate) struct AugmentDraw {
    pub(crate) kernel: kernel::AugmentDraw,
}

impl Rule for AugmentDraw {
    fn name(&self) -> &'static str {
        "augment_draw"
    }

    fn dtypes(&self) -> &'static [DType] {
        &[DType::U32]
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        let rows = self.kernel.rows as usize;
        if inputs[0].elements() != CLOCK_WORDS {
            return Err(format!("the clock has {CLOCK_WORDS} words, got {}", inputs[0]));
        }
        Ok(vec![([rows, AugmentRanges::WORDS].into(), DType::U32), ([rows].into(), DType::F32)])
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let clock: Vec<u32> = inputs[0].iter().map(|&word| word as u32).collect();
        let rows: Vec<[i32; AugmentRanges::WORDS]> =
            (0..self.kernel.rows).map(|row| self.kernel.row(&clock, row)).collect();
        let draws =
            Array2::from_shape_fn((rows.len(), AugmentRanges::WORDS), |(r, k)| f64::from(rows[r][k] as u32));
        let shares = rows.iter().map(|row| f64::from(row[13]) / 65_536.0).collect::<ndarray::Array1<f64>>();
        vec![draws.into_dyn(), shares.into_dyn()]
    }

    /// The clock has no gradient.
    fn vjp(
        &self,
        _: &mut Graph,
        _: &[Tensor],
        _: &[Tensor],
        _: &[Option<Tensor>],
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        Ok(vec![None])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let clock = to.argument(node.inputs[0])?;
        let (draws, shares) = (to.result(node.outputs[0]), to.result(node.outputs[1]));
        to.emit(Kernel::AugmentDraw(self.kernel.clone()), vec![clock, draws, shares]);
        Ok(())
    }
}

/// The pictures of a batch, changed as was drawn.
#[derive(Clone, Debug)]
pub(crate) struct GatherAugmented {
    pub(crate) kernel: kernel::GatherAugmented,
}

impl GatherAugmented {
    fn shape(&self) -> [usize; 4] {
        let k = &self.kernel;
        [k.rows, k.channels, k.height, k.width].map(|n| n as usize)
    }

    /// A row's picture in `f64`, not mixed and not scaled: one value for each channel at (y, x).
    fn pixel(&self, item: &[f64], drawn: &[i32], y: usize, x: usize) -> Vec<f64> {
        let k = &self.kernel;
        let [_, channels, height, width] = self.shape();
        let word = |i: usize| f64::from(drawn[i]);
        // in pixels from the middle, then from the first pixel
        let (dx, dy) = (x as f64 - (width - 1) as f64 / 2.0, y as f64 - (height - 1) as f64 / 2.0);
        let seen_x = (word(0) * dx + word(1) * dy) / 16_384.0 + word(4) / 32_768.0;
        let seen_y = (word(2) * dx + word(3) * dy) / 16_384.0 + word(5) / 32_768.0;
        let at = |c: usize, x: f64, y: f64| {
            let inside = x >= 0.0 && y >= 0.0 && x < width as f64 && y < height as f64;
            let place = |v: f64, size: usize| {
                let last = size as f64 - 1.0;
                match k.border {
                    Border::Reflect => {
                        let v = v.rem_euclid(2.0 * size as f64);
                        if v > last { 2.0 * last + 1.0 - v } else { v }
                    }
                    Border::Nearest | Border::Constant(_) => v.clamp(0.0, last),
                }
            };
            match k.border {
                Border::Constant(value) if !inside => f64::from(value.0),
                _ => item[(c * height + place(y, height) as usize) * width + place(x, width) as usize],
            }
        };
        let mut values: Vec<f64> = (0..channels)
            .map(|c| {
                if !k.bilinear {
                    return at(c, (seen_x + 0.5).floor(), (seen_y + 0.5).floor());
                }
                let (x0, y0) = (seen_x.floor(), seen_y.floor());
                let (right, down) = (seen_x - x0, seen_y - y0);
                let above = at(c, x0, y0) * (1.0 - right) + at(c, x0 + 1.0, y0) * right;
                let below = at(c, x0, y0 + 1.0) * (1.0 - right) + at(c, x0 + 1.0, y0 + 1.0) * right;
                above * (1.0 - down) + below * down
            })
            .collect();
        let range = f64::from(k.range());
        if k.colour {
            let (factor, contrast) = (word(6) / 16_384.0, word(7) / 16_384.0);
            values
                .iter_mut()
                .for_each(|v| *v = (*v * factor + (1.0 - contrast) * range / 2.0).clamp(0.0, range));
        }
        if k.hue {
            let luma = 0.2126 * values[0] + 0.7152 * values[1] + 0.0722 * values[2];
            values.iter_mut().for_each(|v| *v = luma + (*v - luma) * word(8) / 16_384.0);
            let grey = values.iter().sum::<f64>() / 3.0;
            let (cos, sin) = (word(9) / 16_384.0, word(10) / 16_384.0);
            let turned = |c: usize| {
                let across = (values[(c + 2) % 3] - values[(c + 1) % 3]) / 3.0f64.sqrt();
                (grey + (values[c] - grey) * cos + across * sin).clamp(0.0, range)
            };
            values = (0..3).map(turned).collect();
        }
        let covers = |at: usize, first: i32| (0..k.cutout as i32).contains(&(at as i32 - first));
        if covers(y, drawn[11]) && covers(x, drawn[12]) {
            values.fill(f64::from(k.cover.0));
        }
        values
    }
}

impl Rule for GatherAugmented {
    fn name(&self) -> &'static str {
        "gather_augmented"
    }

    fn dtypes(&self) -> &'static [DType] {
        match self.kernel.dtype {
            GatherType::F32 => &[DType::F32, DType::U32, DType::U32, DType::U32],
            GatherType::U8 | GatherType::U32 => &[DType::U32; 4],
        }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        let k = &self.kernel;
        let items = k.items as usize;
        let data = match k.dtype {
            GatherType::U8 => (items * k.row_len()).div_ceil(4),
            GatherType::F32 => items * k.row_len(),
            GatherType::U32 => return Err("integers are no pictures".into()),
        };
        let wanted = [data, items, CLOCK_WORDS, k.rows as usize * AugmentRanges::WORDS];
        for ((input, want), what) in inputs.iter().zip(wanted).zip(["data", "order", "clock", "draws"]) {
            if input.elements() != want {
                return Err(format!("{what} needs {want} elements, has {input}"));
            }
        }
        if k.scale.len() != k.shift.len() || ![1, k.channels as usize].contains(&k.scale.len()) {
            return Err(format!(
                "{} factors and {} summands for {} channels: needs one, or one for each",
                k.scale.len(),
                k.shift.len(),
                k.channels
            ));
        }
        Ok(vec![(self.shape().into(), DType::F32)])
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let k = &self.kernel;
        let [rows, channels, height, width] = self.shape();
        let data: Vec<f64> = match k.dtype {
            GatherType::U8 => {
                inputs[0].iter().flat_map(|&w| (w as u32).to_le_bytes().map(f64::from)).collect()
            }
            GatherType::F32 | GatherType::U32 => inputs[0].iter().copied().collect(),
        };
        let order: Vec<usize> = inputs[1].iter().map(|&i| i as usize).collect();
        let cursor = inputs[2].iter().nth(2).map_or(0, |&c| c as usize);
        let draws: Vec<i32> = inputs[3].iter().map(|&word| word as u32 as i32).collect();
        let mut result = Array::zeros(IxDyn(&[rows, channels, height, width]));
        let pixel = |r: usize, y: usize, x: usize| {
            let item = order[(cursor + r).min(k.items as usize - 1)] * k.row_len();
            self.pixel(&data[item..item + k.row_len()], &draws[r * 16..r * 16 + 16], y, x)
        };
        for r in 0..rows {
            let share = if k.mixup { f64::from(draws[r * 16 + 13]) / 65_536.0 } else { 1.0 };
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                let own = pixel(r, y, x);
                let other = if k.mixup { pixel(rows - 1 - r, y, x) } else { own.clone() };
                for c in 0..channels {
                    let of_channel = c.min(k.scale.len() - 1);
                    let (scale, shift) = (f64::from(k.scale[of_channel].0), f64::from(k.shift[of_channel].0));
                    let mixed = share * own[c] + (1.0 - share) * other[c];
                    result[[r, c, y, x]] = mixed * scale + shift;
                }
            }
        }
        vec![result]
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
        Ok(vec![None; 4])
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let mut arguments = Vec::with_capacity(5);
        for &input in &node.inputs {
            arguments.push(to.argument(input)?);
        }
        arguments.push(to.result(node.outputs[0]));
        to.emit(Kernel::GatherAugmented(self.kernel.clone()), arguments);
        Ok(())
    }
}

impl Graph {
    /// A batch of pictures of a data set that lies on the device, as [`Graph::gather`] gives it, each changed by chance:
    /// moved, then its colours, then a square covered, then mixed with the batch's row counted from the end. The second
    /// tensor is the share that each row has in its mixture, \[rows\]. What is drawn follows from the clock's seed and
    /// step and the row's place in the batch.
    ///
    /// # Errors
    /// If the items are no pictures [channels, height, width] with sides up to 4,096, the hue of anything but three
    /// channels is to change, or the sizes do not fit.
    pub fn gather_augmented(
        &mut self,
        data: Tensor,
        order: Tensor,
        options: GatherOptions,
        augment: &AugmentOptions,
    ) -> Result<(Tensor, Tensor), GraphError> {
        let fail = |g: &Graph, message: String| {
            Err(GraphError::Shape { op: "gather_augmented".into(), scope: g.scope(), message })
        };
        let ranges = &augment.ranges;
        let side = |n: usize| (1..=AugmentRanges::MAX_SIDE as usize).contains(&n);
        let &[channels, height, width] = options.item.dims() else {
            return fail(
                self,
                format!("needs pictures [channels, height, width], got items of {}", options.item),
            );
        };
        if channels == 0 || !side(height) || !side(width) {
            let most = AugmentRanges::MAX_SIDE;
            return fail(self, format!("needs pictures with sides from 1 to {most}, got {}", options.item));
        }
        if ranges.changes_hue() && channels != 3 {
            return fail(
                self,
                format!("saturation and hue are of red, green and blue; pictures have {channels} channels"),
            );
        }
        if channels > AugmentRanges::MAX_CHANNELS as usize {
            let most = AugmentRanges::MAX_CHANNELS;
            return fail(self, format!("needs pictures of at most {most} channels, got {}", options.item));
        }
        if let Some(name) = ranges.out_of_bounds() {
            return fail(self, format!("{name} is out of bounds: {ranges:?}"));
        }
        let clock = self.clock()?;
        let size = |n: usize| n as u32;
        let draw = kernel::AugmentDraw {
            rows: size(options.rows),
            height: size(height),
            width: size(width),
            ranges: ranges.clone(),
            stream: STREAM,
        };
        let drawn = self.record(Op::AugmentDraw(AugmentDraw { kernel: draw }), &[clock])?;
        let reals = |values: &[f32]| values.iter().map(|&v| Real(v)).collect();
        let gather = kernel::GatherAugmented {
            rows: size(options.rows),
            items: size(options.items),
            channels: size(channels),
            height: size(height),
            width: size(width),
            dtype: options.dtype,
            scale: reals(&options.scale),
            shift: reals(&options.shift),
            // on a pixel its neighbours have no part
            bilinear: augment.bilinear && ranges.falls_between_pixels(),
            border: augment.border,
            colour: ranges.changes_colour(),
            hue: ranges.changes_hue(),
            cutout: ranges.cutout,
            cover: augment.cover,
            mixup: !ranges.mixup.is_empty(),
        };
        let op = Op::GatherAugmented(GatherAugmented { kernel: gather });
        Ok((self.record1(op, &[data, order, clock, drawn[0]])?, drawn[1]))
    }
}
