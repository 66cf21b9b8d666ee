//! Whether a kernel is one that the shaders can run without leaving their buffers.
//!
//! Release builds compile shaders without bounds checks, so each kernel's indices must follow from its
//! constants alone. What a shader does not guard itself is refused here, before anything is compiled.

use kiln_kernel::{
    Access, Accumulate, AugmentRanges, BackendError, Concat, ConvShape, DenseCrossEntropy, EmbeddingBackward,
    FirstNonFinite, GatherType, Kernel, Layout, MAX_ELEMENTS, MovingAverage, Pair, PoolShape, SegmentNorms,
    Softmax, Source, SumPart, SumParts, Tail, Tally,
};

use crate::choose::is_disjoint;

/// The most loop iterations that one invocation may run: lavapipe of Mesa 22 stops silently at 65,535.
pub(crate) const MAX_ITERATIONS: u64 = 49_152;

/// Refuses kernels whose settings contradict each other, or that no launch can compute.
///
/// # Errors
/// [`BackendError::Validation`] for a layout that leaves its buffer, a size of zero, a part without terms;
/// [`BackendError::Limit`] for a pooling window that is too large for one invocation.
pub(crate) fn kernel(kernel: &Kernel) -> Result<(), BackendError> {
    let invalid = |message: String| BackendError::Validation { label: kernel.to_string(), message };
    if let Some(binding) = kernel.bindings().iter().find(|b| b.len == 0 || b.len > MAX_ELEMENTS) {
        return Err(invalid(format!(
            "\"{}\" has {} elements; a shader indexes 1 to {MAX_ELEMENTS}",
            binding.name, binding.len
        )));
    }
    let result = match kernel {
        Kernel::Elementwise(k) => match &k.source {
            Source::Operand(o) => layout("x", &o.layout, k.len.into(), o.len),
            Source::Constant(_) => Ok(()),
        },
        Kernel::Reduce(k) => reduce(k),
        Kernel::SumParts(k) => sum_parts(k),
        Kernel::Matmul(k) => need(
            [k.batch, k.m, k.n, k.k].iter().all(|&v| v > 0)
                && (k.a_stride == 0 || k.a_stride == k.m * k.k)
                && (k.b_stride == 0 || k.b_stride == k.k * k.n),
            "a size is zero, or a stride is neither 0 nor a matrix's elements",
        )
        .and_then(|()| splits(k.splits, u64::from(k.k)))
        .and_then(|()| need(!k.row_sums || k.batch == 1, "sums of rows are of one product")),
        Kernel::Conv2d(k) => conv(&k.shape, k.pool.is_pooled()),
        Kernel::Conv2dBackwardInput(k) => conv(&k.shape, k.unpool),
        Kernel::Conv2dBackwardWeight(k) => {
            let s = &k.shape;
            conv(s, k.unpool)
                .and_then(|()| splits(k.splits, u64::from(s.batch) * u64::from(s.out_h) * u64::from(s.out_w)))
        }
        Kernel::MaxPool2d(k) => pool(&k.shape),
        Kernel::MaxPool2dBackward(k) => pool(&k.shape),
        Kernel::AvgPool2d(k) => pool(&k.shape),
        Kernel::AvgPool2dBackward(k) => pool(&k.shape),
        Kernel::Softmax(k) => rows(k.len, k.outer > 0 && k.inner > 0),
        Kernel::SoftmaxBackward(k) => rows(k.len, k.outer > 0 && k.inner > 0),
        Kernel::CrossEntropy(k) => rows(k.classes, k.rows > 0),
        Kernel::CrossEntropyBackward(k) => rows(k.classes, k.rows > 0),
        Kernel::DenseCrossEntropy(k) => {
            rows(k.loss.classes, k.loss.rows > 0 && k.features > 0).and_then(|()| {
                need(
                    k.features as usize <= DenseCrossEntropy::MAX_TERMS / k.loss.classes as usize,
                    "a row has more than 16,384 products",
                )
            })
        }
        Kernel::Dropout(k) => need(
            (0.0..1.0).contains(&k.rate.0) && k.group > 0,
            "the rate is not in [0, 1), or a group has no element",
        ),
        Kernel::RandomNormal(k) => need(k.len <= 1 << 31, "more numbers than a stream has pairs of words"),
        Kernel::Pad(k) => {
            let far = [k.rows, k.columns, k.row_before, k.row_after, k.column_before, k.column_after];
            need(far.iter().all(|&v| v < 1 << 30), "a size is too large")
        }
        Kernel::Concat(k) => need(
            (2..=Concat::MAX_SOURCES).contains(&k.widths.len()),
            "there are two to four sources of at least one element",
        ),
        Kernel::Embedding(_) | Kernel::ToIndices(_) => Ok(()),
        Kernel::EmbeddingBackward(k) => splits(k.splits, k.rows.into()).and_then(|()| {
            need(
                k.rows.div_ceil(k.splits) as usize <= EmbeddingBackward::MAX_ROWS,
                "a part has more than 16,384 rows",
            )
        }),
        Kernel::Moments(k) => reduction(&k.kept, &k.reduced, k.splits, k.len)
            .and_then(|()| need(k.eps.0 >= 0.0, "eps is negative or no number")),
        Kernel::MomentsFinish(k) => splits(k.splits, k.terms.into())
            .and_then(|()| need(u64::from(k.splits) <= MAX_ITERATIONS, "there are too many parts"))
            .and_then(|()| need(k.eps.0 >= 0.0, "eps is negative or no number")),
        Kernel::MovingAverage(k) => need(
            !k.pairs.is_empty() && k.pairs.len() <= MovingAverage::MAX_PAIRS,
            "there are one to four pairs",
        ),
        Kernel::Gather(k) => need(
            k.rows.checked_mul(k.row_len).is_some_and(|n| n > 0)
                && k.items > 0
                && k.items as usize * k.row_len as usize <= MAX_ELEMENTS
                && k.scale.len() == k.shift.len()
                && match k.dtype {
                    GatherType::U32 => k.scale.is_empty(),
                    GatherType::U8 | GatherType::F32 => {
                        !k.scale.is_empty() && (k.row_len as usize).is_multiple_of(k.scale.len())
                    }
                },
            "sizes are zero or too large, or scale and shift do not fit the rows",
        ),
        Kernel::AugmentDraw(k) => need(
            k.rows > 0
                && (1..=AugmentRanges::MAX_SIDE).contains(&k.height)
                && (1..=AugmentRanges::MAX_SIDE).contains(&k.width)
                && k.ranges.out_of_bounds().is_none(),
            "a size is zero or above 4,096, or a range is out of bounds",
        ),
        Kernel::GatherAugmented(k) => need(
            k.rows > 0
                && k.items > 0
                && (1..=AugmentRanges::MAX_CHANNELS).contains(&k.channels)
                && (1..=AugmentRanges::MAX_SIDE).contains(&k.height)
                && (1..=AugmentRanges::MAX_SIDE).contains(&k.width)
                && [k.rows, k.items].into_iter().all(|n| {
                    n as usize * k.channels as usize * (k.height as usize * k.width as usize) <= MAX_ELEMENTS
                })
                && k.scale.len() == k.shift.len()
                && (k.scale.len() == 1 || k.scale.len() == k.channels as usize)
                && (!k.hue || k.channels == 3)
                && k.dtype != GatherType::U32,
            "sizes are zero or too large, or scale and shift do not fit the channels",
        ),
        Kernel::OneHot(k) => need(product(k.rows, k.classes), "sizes are zero or too large"),
        Kernel::RankRows(k) => rows(k.classes, k.rows > 0)
            .and_then(|()| need(product(k.rows, k.classes), "there are too many rows")),
        Kernel::Tally(k) => need(
            k.classes > 0 && (1..=Tally::MAX_ROWS).contains(&(k.rows as usize)),
            "there are no classes, or not 1 to 32,768 rows",
        ),
        Kernel::Collect(k) => {
            need(product(k.rows, k.width) && product(k.capacity, k.width), "sizes are zero or too large")
        }
        Kernel::FirstNonFinite(k) => {
            need((1..=FirstNonFinite::MAX_LEN).contains(&k.len), "there are no elements, or too many")
        }
        Kernel::Accumulate(k) => need(
            (1..=Accumulate::MAX_SOURCES).contains(&k.sources.len())
                && k.sources.iter().all(|s| s.0 > 0 && s.0 as usize <= Accumulate::MAX_LEN),
            "there are one to four sources of 1 to 4,096 elements",
        ),
        Kernel::Sgd(k) => table(k.hyper_rows),
        Kernel::Lion(k) => table(k.hyper_rows),
        Kernel::Rmsprop(k) => table(k.hyper_rows),
        Kernel::Adagrad(k) => table(k.hyper_rows),
        Kernel::Adadelta(k) => table(k.hyper_rows),
        Kernel::Adam(k) => table(k.hyper_rows),
        Kernel::Adamax(k) => table(k.hyper_rows),
        Kernel::Nadam(k) => table(k.hyper_rows),
        Kernel::Lamb(k) => table(k.hyper_rows),
        Kernel::LambApply(k) => {
            table(k.hyper_rows).and_then(|()| need(k.segments > 0, "there are no parameters"))
        }
        Kernel::ClipValue(k) => need(k.limit.0 >= 0.0, "the limit is not a number of at least 0"),
        Kernel::ClipNorm(k) => need(
            k.limit.0 >= 0.0 && k.segments != Some(0),
            "the limit is below 0, or there are no parameters",
        ),
        Kernel::SumSquares(_) => Ok(()),
        Kernel::SegmentNorms(k) => need(
            k.blocks <= SegmentNorms::MAX_BLOCKS && k.segments != Some(0),
            "there are more blocks than one launch takes, or no parameters",
        ),
        Kernel::AddScaled(k) => need(k.factor.0.is_finite(), "the factor is no finite number"),
        Kernel::Advance(_) => Ok(()),
        Kernel::Pair(k) => return pair(kernel, k),
        Kernel::Custom(k) => {
            let names: Vec<&str> = k.inputs.iter().map(|input| &*input.name).collect();
            kiln_kernel::Custom::check_names(&k.name, &names)
        }
    };
    result.map_err(invalid)?;
    if let Some(t) = kernel.tail() {
        tail(kernel, t).map_err(invalid)?;
    }
    iterations(kernel)
}

/// Both kernels of a pair, and what they share.
fn pair(kernel: &Kernel, pair: &Pair) -> Result<(), BackendError> {
    for one in [&pair.first, &pair.second] {
        if matches!(one, Kernel::Pair(_) | Kernel::Custom(_)) {
            return Err(BackendError::Validation {
                label: kernel.to_string(),
                message: format!("{} cannot be one of a pair", one.name()),
            });
        }
        self::kernel(one)?;
    }
    let (first, second) = (pair.first.bindings(), pair.second.bindings());
    let reads_the_same = |&(of_second, of_first): &(usize, usize)| {
        second.get(of_second).zip(first.get(of_first)).is_some_and(|(a, b)| {
            a.access == Access::Read && b.access == Access::Read && a.dtype == b.dtype && a.len == b.len
        })
    };
    need(
        pair.shared.iter().all(reads_the_same) && pair.shared.is_sorted_by(|a, b| a.0 < b.0),
        "what two kernels share is not read by both alike, or not in order",
    )
    .map_err(|message| BackendError::Validation { label: kernel.to_string(), message })
}

/// The table of hyper-parameters, whose last row is read where the clock is past it.
fn table(rows: u32) -> Result<(), String> {
    need(rows > 0, "the table of hyper-parameters is empty")
}

/// Whether the product of two sizes is one that a shader can index.
fn product(a: u32, b: u32) -> bool {
    a.checked_mul(b).is_some_and(|n| n > 0)
}

fn need(condition: bool, otherwise: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise.to_owned()) }
}

/// A layout over `elements` elements that stays inside a buffer of `len`.
fn layout(name: &str, layout: &Layout, elements: u64, len: u32) -> Result<(), String> {
    let size: u64 = layout.dims.iter().map(|d| u64::from(d.0)).product();
    if size != elements {
        return Err(format!("the layout of \"{name}\" has {size} elements where {elements} are read"));
    }
    let last = u64::from(layout.offset)
        + layout.dims.iter().map(|&(size, stride)| u64::from(size - 1) * u64::from(stride)).sum::<u64>();
    if last >= u64::from(len) {
        return Err(format!("the layout of \"{name}\" reads element {last} of {len}"));
    }
    Ok(())
}

fn splits(splits: u32, terms: u64) -> Result<(), String> {
    if splits == 0 || terms == 0 {
        return Err("a reduction has no terms or no parts".to_owned());
    }
    let chunk = terms.div_ceil(u64::from(splits));
    if u64::from(splits - 1) * chunk >= terms {
        return Err(format!("the last of {splits} parts of {terms} terms is empty"));
    }
    Ok(())
}

/// Parts that stay inside both arenas, each result being written once.
fn sum_parts(k: &SumParts) -> Result<(), String> {
    let elements: u64 = k.parts.iter().map(|p| u64::from(p.len)).sum();
    need(
        (1..=MAX_ELEMENTS as u64).contains(&elements) && k.parts.iter().all(|p| p.len > 0 && p.splits > 0),
        "there is nothing to sum, or too much",
    )?;
    let last = |p: &SumPart| {
        u64::from(p.from) + u64::from(p.splits - 1) * u64::from(p.stride) + u64::from(p.len) - 1
    };
    need(
        k.parts.iter().all(|p| {
            last(p) < u64::from(k.partial_len)
                && u64::from(p.to) + u64::from(p.len) <= u64::from(k.gradients_len)
                && u64::from(p.splits) <= MAX_ITERATIONS
        }),
        "a part leaves its arena, or has too many sums",
    )?;
    let mut written: Vec<(u32, u32)> = k.parts.iter().map(|p| (p.to, p.to + p.len)).collect();
    written.sort_unstable();
    need(written.windows(2).all(|pair| pair[0].1 <= pair[1].0), "parts overlap where they are written")
}

fn reduce(k: &kiln_kernel::Reduce) -> Result<(), String> {
    if k.splits > 1 && !k.tail.is_empty() {
        return Err("a split reduction has a tail".to_owned());
    }
    reduction(&k.kept, &k.reduced, k.splits, k.len)
}

/// Parts that are not empty, and layouts that together stay inside a buffer of `len`.
fn reduction(kept: &Layout, reduced: &Layout, parts: u32, len: u32) -> Result<(), String> {
    splits(parts, reduced.len() as u64)?;
    // Strides of 0 make terms of which no buffer is long.
    let (outputs, terms) = (kept.len(), reduced.len());
    if outputs.max(terms) > MAX_ELEMENTS {
        return Err(format!("{outputs} results of {terms} terms; a shader counts {MAX_ELEMENTS} of each"));
    }
    // Their largest places add up to the largest place that is read.
    let joined = Layout {
        offset: kept.offset.checked_add(reduced.offset).ok_or("offsets are too large")?,
        dims: kept.dims.iter().chain(&reduced.dims).copied().collect(),
    };
    layout("x", &joined, kept.len() as u64 * reduced.len() as u64, len)
}

/// A convolution, whose results may be pooled in windows of 2 x 2.
fn conv(s: &ConvShape, pooled: bool) -> Result<(), String> {
    need(
        !pooled || (s.out_h.is_multiple_of(2) && s.out_w.is_multiple_of(2)),
        "windows of 2 x 2 do not fill the results",
    )?;
    let sizes = [
        s.batch,
        s.in_channels,
        s.in_h,
        s.in_w,
        s.out_channels,
        s.out_h,
        s.out_w,
        s.kernel_h,
        s.kernel_w,
        s.stride_h,
        s.stride_w,
        s.dilation_h,
        s.dilation_w,
        s.groups,
    ];
    need(sizes.iter().all(|&v| v > 0), "a size is zero")?;
    need(
        s.in_channels.is_multiple_of(s.groups) && s.out_channels.is_multiple_of(s.groups),
        "the channels are not a multiple of the groups",
    )?;
    // Positions are computed in 32 bits, below zero by wrapping.
    let far = |out: u32, stride: u32, kernel: u32, dilation: u32| {
        u64::from(out) * u64::from(stride) + u64::from(kernel) * u64::from(dilation) < 1 << 30
    };
    need(
        far(s.out_h, s.stride_h, s.kernel_h, s.dilation_h)
            && far(s.out_w, s.stride_w, s.kernel_w, s.dilation_w)
            && s.pad_top < 1 << 30
            && s.pad_left < 1 << 30,
        "strides, dilations or padding are too large",
    )
}

fn pool(s: &PoolShape) -> Result<(), String> {
    let sizes = [s.planes, s.in_h, s.in_w, s.out_h, s.out_w, s.kernel_h, s.kernel_w, s.stride_h, s.stride_w];
    need(sizes.iter().all(|&v| v > 0 && v < 1 << 30), "a size is zero or too large")?;
    // Each window holds a position of the input, so that a largest one exists.
    let inside = |size: u32, out: u32, kernel: u32, stride: u32, pad: u32| {
        pad < kernel && u64::from(out - 1) * u64::from(stride) < u64::from(size) + u64::from(pad)
    };
    need(
        inside(s.in_h, s.out_h, s.kernel_h, s.stride_h, s.pad_top)
            && inside(s.in_w, s.out_w, s.kernel_w, s.stride_w, s.pad_left),
        "a window lies wholly outside the input",
    )
}

fn rows(len: u32, others: bool) -> Result<(), String> {
    need(len > 0 && others, "a size is zero")?;
    need(len as usize <= Softmax::MAX_LEN, "the axis is longer than one launch takes")
}

fn tail(kernel: &Kernel, tail: &Tail) -> Result<(), String> {
    // The index that a tail sees counts the result's elements.
    let result = kernel.bindings().into_iter().find(|b| b.access == Access::Write);
    let results = result.map_or(0, |b| b.len as u64);
    for (k, operand) in tail.operands.iter().enumerate() {
        layout(&format!("tail{k}"), &operand.layout, results, operand.len)?;
    }
    if let Kernel::Matmul(k) = kernel {
        need(k.splits == 1 || tail.is_empty(), "a split product has a tail")?;
    }
    Ok(())
}

/// Loop iterations that an invocation spends on one element, where they are not bounded otherwise: pooling walks whole
/// windows.
pub(crate) fn steps(kernel: &Kernel) -> u64 {
    let window = |s: &PoolShape| u64::from(s.kernel_h.min(s.in_h)) * u64::from(s.kernel_w.min(s.in_w));
    // the part of the input that a window of its own writes, up to the edge for the last
    let cell = |s: &PoolShape| {
        let rows =
            s.stride_h.max((s.in_h + s.pad_top).saturating_sub((s.out_h - 1) * s.stride_h)).min(s.in_h);
        let columns =
            s.stride_w.max((s.in_w + s.pad_left).saturating_sub((s.out_w - 1) * s.stride_w)).min(s.in_w);
        u64::from(rows) * u64::from(columns)
    };
    let covering = |s: &PoolShape| {
        u64::from(s.kernel_h.div_ceil(s.stride_h).min(s.out_h))
            * u64::from(s.kernel_w.div_ceil(s.stride_w).min(s.out_w))
    };
    match kernel {
        Kernel::MaxPool2d(k) => window(&k.shape),
        Kernel::AvgPool2d(k) => window(&k.shape),
        Kernel::AvgPool2dBackward(k) => covering(&k.shape),
        Kernel::MaxPool2dBackward(k) if is_disjoint(&k.shape) => 2 * window(&k.shape) + cell(&k.shape),
        Kernel::MaxPool2dBackward(k) => window(&k.shape) * covering(&k.shape),
        _ => 1,
    }
}

/// Refuses what would run into a driver's limit on loop iterations.
fn iterations(kernel: &Kernel) -> Result<(), BackendError> {
    let needed = steps(kernel);
    if needed > MAX_ITERATIONS {
        return Err(BackendError::Limit {
            label: kernel.to_string(),
            what: "steps of one invocation (pool with a smaller window)",
            needed,
            allowed: MAX_ITERATIONS,
        });
    }
    Ok(())
}
