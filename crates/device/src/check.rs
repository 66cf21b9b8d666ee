//! Whether a kernel is one that the shaders can run without leaving their buffers.
//!
//! Release builds compile shaders without bounds checks, so each kernel's indices must follow from its
//! constants alone. What a shader does not guard itself is refused here, before anything is compiled.

use kiln_kernel::{
    Accumulate, BackendError, ConvShape, GatherType, Kernel, Layout, PoolShape, Softmax, Source, Tail,
};

use crate::choose::is_disjoint;

/// The most loop iterations that one invocation may run: lavapipe of Mesa 22 stops silently at 65,535.
const MAX_ITERATIONS: u64 = 49_152;

/// Refuses kernels whose settings contradict each other, or that no launch can compute.
///
/// # Errors
/// [`BackendError::Validation`] for a layout that leaves its buffer, a size of zero, a part without terms;
/// [`BackendError::Limit`] for a pooling window that is too large for one invocation.
pub(crate) fn kernel(kernel: &Kernel) -> Result<(), BackendError> {
    let invalid = |message: String| BackendError::Validation { label: kernel.to_string(), message };
    if let Some(binding) = kernel.bindings().iter().find(|b| b.len == 0 || b.len > u32::MAX as usize) {
        return Err(invalid(format!(
            "\"{}\" has {} elements; a shader indexes 1 to 4,294,967,295",
            binding.name, binding.len
        )));
    }
    let result = match kernel {
        Kernel::Elementwise(k) => match &k.source {
            Source::Operand(o) => layout("x", &o.layout, k.len.into(), o.len),
            Source::Constant(_) => Ok(()),
        },
        Kernel::Reduce(k) => reduce(k),
        Kernel::SumSplits(k) => need(k.splits > 0 && k.weight_len > 0, "a size is zero"),
        Kernel::Matmul(k) => need(
            [k.batch, k.m, k.n, k.k].iter().all(|&v| v > 0)
                && (k.a_stride == 0 || k.a_stride == k.m * k.k)
                && (k.b_stride == 0 || k.b_stride == k.k * k.n),
            "a size is zero, or a stride is neither 0 nor a matrix's elements",
        )
        .and_then(|()| splits(k.splits, u64::from(k.k))),
        Kernel::Conv2d(k) => conv(&k.shape),
        Kernel::Conv2dBackwardInput(k) => conv(&k.shape),
        Kernel::Conv2dBackwardWeight(k) => {
            let s = &k.shape;
            conv(s)
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
        Kernel::Dropout(k) => need((0.0..1.0).contains(&k.rate.0), "the rate is not in [0, 1)"),
        Kernel::Gather(k) => need(
            k.rows.checked_mul(k.row_len).is_some_and(|n| n > 0)
                && k.items > 0
                && u64::from(k.items) * u64::from(k.row_len) <= u64::from(u32::MAX)
                && k.scale.len() == k.shift.len()
                && match k.dtype {
                    GatherType::U32 => k.scale.is_empty(),
                    GatherType::U8 | GatherType::F32 => {
                        !k.scale.is_empty() && (k.row_len as usize).is_multiple_of(k.scale.len())
                    }
                },
            "sizes are zero or too large, or scale and shift do not fit the rows",
        ),
        Kernel::Accumulate(k) => need(
            (1..=Accumulate::MAX_SOURCES).contains(&k.sources.len())
                && k.sources.iter().all(|s| s.0 > 0 && s.0 as usize <= Accumulate::MAX_LEN),
            "there are one to four sources of 1 to 4,096 elements",
        ),
        Kernel::Sgd(k) => need(k.hyper_rows > 0, "the table of hyper-parameters is empty"),
        Kernel::Adam(k) => need(k.hyper_rows > 0, "the table of hyper-parameters is empty"),
        Kernel::Advance(_) => Ok(()),
    };
    result.map_err(invalid)?;
    if let Some(t) = kernel.tail() {
        tail(kernel, t).map_err(invalid)?;
    }
    iterations(kernel)
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

fn reduce(k: &kiln_kernel::Reduce) -> Result<(), String> {
    let (kept, reduced) = (k.kept.len() as u64, k.reduced.len() as u64);
    splits(k.splits, reduced)?;
    if k.splits > 1 && !k.tail.is_empty() {
        return Err("a split reduction has a tail".to_owned());
    }
    // Their largest places add up to the largest place that is read.
    let joined = Layout {
        offset: k.kept.offset.checked_add(k.reduced.offset).ok_or("offsets are too large")?,
        dims: k.kept.dims.iter().chain(&k.reduced.dims).copied().collect(),
    };
    layout("x", &joined, kept * reduced, k.len)
}

fn conv(s: &ConvShape) -> Result<(), String> {
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
    let results =
        kernel.bindings().iter().find(|b| b.access == kiln_kernel::Access::Write).map_or(0, |b| b.len as u64);
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
