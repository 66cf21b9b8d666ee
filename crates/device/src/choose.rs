//! Which files, workgroup and grid a kernel gets: one pure function of the kernel and the device's facts.

use kiln_kernel::{
    BackendError, Constant, DenseCrossEntropy, FirstNonFinite, GROUP_BLOCK, GatherType, Kernel, Pair,
    PoolShape, SegmentNorms, Softmax, SumParts,
};

use crate::{
    assemble::{Choice, Facts, Kind, Part, part},
    check, functions, gemm,
};

/// Invocations of a workgroup wherever the work is a flat list: a multiple of every subgroup size.
const FLAT: u32 = 64;

const INDEX: Part = part!("lib/index.wgsl");

/// How a kernel runs on a device.
///
/// # Errors
/// Where the kernel cannot be run: see [`check::kernel`].
pub(crate) fn choose(kernel: &Kernel, facts: &Facts) -> Result<Choice, BackendError> {
    check::kernel(kernel)?;
    let steps = check::steps(kernel);
    let choice = match kernel {
        Kernel::Matmul(_)
        | Kernel::Conv2d(_)
        | Kernel::Conv2dBackwardInput(_)
        | Kernel::Conv2dBackwardWeight(_) => match gemm::choose(kernel, facts)? {
            Some(choice) => choice,
            None => unreachable!("the four products are what gemm::choose answers for"),
        },
        Kernel::Elementwise(k) => {
            let file = match k.source {
                kiln_kernel::Source::Operand(_) => part!("elementwise.wgsl"),
                kiln_kernel::Source::Constant(_) => part!("fill.wgsl"),
            };
            flat(facts, &[INDEX, file], k.len)
        }
        Kernel::Reduce(k) => {
            let rows = k.kept.len() as u64 * u64::from(k.splits);
            rows_of(facts, part!("reduce.wgsl"), rows, k.reduced.len().div_ceil(k.splits as usize), 1)
        }
        Kernel::SumParts(k) => sum_parts(facts, k),
        Kernel::MaxPool2d(k) => {
            let file = if k.places { part!("max_pool2d_with_places.wgsl") } else { part!("max_pool2d.wgsl") };
            let parts = [INDEX, file];
            windows(&k.shape, flat_of(facts, &parts, k.shape.y_len() as u32, steps))
        }
        Kernel::MaxPool2dBackward(k) if is_disjoint(&k.shape) => {
            // One invocation for each window, which owns its part of the input.
            let file = part!("max_pool2d_backward_disjoint.wgsl");
            let choice = windows(&k.shape, flat_of(facts, &[INDEX, file], k.shape.y_len() as u32, steps));
            Choice { variant: format!("disjoint {}", choice.variant), ..choice }
        }
        Kernel::MaxPool2dBackward(k) => {
            flat_of(facts, &[INDEX, part!("max_pool2d_backward.wgsl")], k.shape.x_len() as u32, steps)
        }
        Kernel::AvgPool2d(k) => {
            let parts = [INDEX, part!("lib/avg_pool2d_count.wgsl"), part!("avg_pool2d.wgsl")];
            windows(&k.shape, flat_of(facts, &parts, k.shape.y_len() as u32, steps))
        }
        Kernel::AvgPool2dBackward(k) => flat_of(
            facts,
            &[INDEX, part!("lib/avg_pool2d_count.wgsl"), part!("avg_pool2d_backward.wgsl")],
            k.shape.x_len() as u32,
            steps,
        ),
        Kernel::Softmax(k) => {
            let rows = u64::from(k.outer) * u64::from(k.inner);
            rows_of(facts, part!("softmax.wgsl"), rows, k.len as usize, 3)
        }
        Kernel::SoftmaxBackward(k) => {
            let rows = u64::from(k.outer) * u64::from(k.inner);
            rows_of(facts, part!("softmax_backward.wgsl"), rows, k.len as usize, 2)
        }
        Kernel::CrossEntropy(k) => {
            let file = part!("cross_entropy.wgsl");
            let mut choice = rows_of(facts, file, u64::from(k.rows), k.classes as usize, 3);
            choice.parts.insert(2, part!("lib/cross_entropy_row.wgsl"));
            // The file holds the entry points with and without the gradient.
            choice.constants.push(("GRADIENT", Constant::F32(0.0)));
            choice
        }
        Kernel::DenseCrossEntropy(k) => dense_cross_entropy(facts, k),
        Kernel::CrossEntropyBackward(k) => {
            let file = part!("cross_entropy_backward.wgsl");
            rows_of(facts, file, u64::from(k.rows), k.classes as usize, 3)
        }
        Kernel::Dropout(k) => {
            // One block of four random words for four elements.
            let parts = [INDEX, part!("lib/philox.wgsl"), part!("dropout.wgsl")];
            flat(facts, &parts, k.len.div_ceil(4))
        }
        Kernel::Gather(k) => {
            let file = match k.dtype {
                GatherType::U8 => part!("gather_u8.wgsl"),
                GatherType::F32 => part!("gather_f32.wgsl"),
                GatherType::U32 => part!("gather_u32.wgsl"),
            };
            flat(facts, &[INDEX, part!("lib/gather_row.wgsl"), file], k.rows * k.row_len)
        }
        Kernel::AugmentDraw(k) => {
            flat_of(facts, &[INDEX, part!("lib/philox.wgsl"), part!("augment_draw.wgsl")], k.rows, u64::MAX)
        }
        Kernel::GatherAugmented(k) => {
            let file = match k.dtype {
                GatherType::U8 => part!("gather_augmented_u8.wgsl"),
                GatherType::F32 | GatherType::U32 => part!("gather_augmented_f32.wgsl"),
            };
            // One pixel with all its channels.
            let parts = [INDEX, part!("lib/gather_row.wgsl"), part!("lib/augmented.wgsl"), file];
            flat(facts, &parts, k.rows * k.height * k.width)
        }
        Kernel::RandomNormal(k) => {
            // One block of four random words for two elements.
            let parts =
                [INDEX, part!("lib/philox.wgsl"), part!("lib/normal.wgsl"), part!("random_normal.wgsl")];
            flat(facts, &parts, k.len.div_ceil(2))
        }
        Kernel::Pad(_) => flat(facts, &[INDEX, part!("pad.wgsl")], kernel.bindings()[1].len as u32),
        Kernel::Concat(k) => {
            let sources = match k.widths.len() {
                2 => part!("lib/concat2.wgsl"),
                3 => part!("lib/concat3.wgsl"),
                _ => part!("lib/concat4.wgsl"),
            };
            let elements = k.outer * k.widths.iter().sum::<u32>();
            flat(facts, &[INDEX, sources, part!("concat.wgsl")], elements)
        }
        Kernel::Embedding(k) => flat(facts, &[INDEX, part!("embedding.wgsl")], k.rows * k.width),
        Kernel::EmbeddingBackward(k) => Choice {
            variant: "entry per workgroup".to_owned(),
            parts: vec![INDEX, part!("embedding_backward.wgsl")],
            constants: Vec::new(),
            workgroup_size: [FLAT, 1, 1],
            workgroups: u64::from(k.splits) * u64::from(k.entries) * u64::from(k.width.div_ceil(FLAT)),
        },
        Kernel::ToIndices(k) => flat(facts, &[INDEX, part!("to_indices.wgsl")], k.len),
        Kernel::Moments(k) => {
            let rows = k.kept.len() as u64 * u64::from(k.splits);
            rows_of(facts, part!("moments.wgsl"), rows, k.reduced.len().div_ceil(k.splits as usize), 2)
        }
        Kernel::MomentsFinish(k) => Choice {
            variant: "output per invocation".to_owned(),
            ..flat_of(facts, &[INDEX, part!("moments_finish.wgsl")], k.outputs, u64::MAX)
        },
        Kernel::MovingAverage(k) => {
            let longest = k.pairs.iter().map(|p| p.0).max().unwrap_or(1);
            // One element to an invocation; the file holds entry points for one to four pairs.
            let mut choice = flat_of(facts, &[INDEX, part!("moving_average.wgsl")], longest, u64::MAX);
            for (len, momentum) in
                [("LEN0", "MOMENTUM0"), ("LEN1", "MOMENTUM1"), ("LEN2", "MOMENTUM2"), ("LEN3", "MOMENTUM3")]
            {
                choice.constants.extend([(len, 0u32.into()), (momentum, 0.0f32.into())]);
            }
            choice
        }
        Kernel::OneHot(k) => flat(facts, &[INDEX, part!("one_hot.wgsl")], k.rows * k.classes),
        Kernel::RankRows(k) => rows_of(facts, part!("rank_rows.wgsl"), k.rows.into(), k.classes as usize, 2),
        Kernel::Tally(k) => {
            // One class to an invocation on every device: it walks all rows.
            flat_of(facts, &[INDEX, part!("tally.wgsl")], k.classes, u64::MAX)
        }
        Kernel::Collect(k) => flat(facts, &[INDEX, part!("collect.wgsl")], k.rows * k.width),
        Kernel::FirstNonFinite(k) => Choice {
            variant: "part per workgroup".to_owned(),
            parts: vec![INDEX, part!("first_non_finite.wgsl")],
            constants: Vec::new(),
            workgroup_size: [FirstNonFinite::LANES, 1, 1],
            workgroups: k.parts().into(),
        },
        Kernel::Accumulate(_) => {
            // One workgroup; the file holds entry points for one to four sources.
            let mut choice = cooperative(part!("accumulate.wgsl"), 1);
            for (len, scale) in
                [("LEN0", "SCALE0"), ("LEN1", "SCALE1"), ("LEN2", "SCALE2"), ("LEN3", "SCALE3")]
            {
                choice.constants.extend([(len, 0u32.into()), (scale, 0.0f32.into())]);
            }
            choice
        }
        Kernel::Sgd(k) => update(facts, part!("sgd.wgsl"), k.len),
        Kernel::Lion(k) => update(facts, part!("lion.wgsl"), k.len),
        Kernel::Rmsprop(k) => update(facts, part!("rmsprop.wgsl"), k.len),
        Kernel::Adagrad(k) => update(facts, part!("adagrad.wgsl"), k.len),
        Kernel::Adadelta(k) => update(facts, part!("adadelta.wgsl"), k.len),
        Kernel::Adam(k) => update(facts, part!("adam.wgsl"), k.len),
        Kernel::Adamax(k) => update(facts, part!("adamax.wgsl"), k.len),
        Kernel::Nadam(k) => update(facts, part!("nadam.wgsl"), k.len),
        Kernel::Lamb(k) => update(facts, part!("lamb.wgsl"), k.len),
        Kernel::LambApply(k) => update(facts, part!("lamb_apply.wgsl"), k.len),
        Kernel::ClipValue(k) => flat(facts, &[INDEX, part!("clip_value.wgsl")], k.len),
        Kernel::ClipNorm(k) => flat(facts, &[INDEX, part!("clip_norm.wgsl")], k.len),
        Kernel::SumSquares(k) => {
            let blocks = u64::from(k.len.div_ceil(GROUP_BLOCK as u32));
            let mut choice = rows_of(facts, part!("sum_squares.wgsl"), blocks, GROUP_BLOCK, 1);
            choice.parts.insert(2, part!("lib/group.wgsl"));
            choice
        }
        Kernel::SegmentNorms(k) => {
            let mut choice = cooperative(part!("segment_norms.wgsl"), k.segments.unwrap_or(1).into());
            // A parameter of 2^28 elements has four million blocks: more lanes than elsewhere share them.
            choice.workgroup_size[0] = SegmentNorms::LANES;
            choice.constants = vec![("LANES", SegmentNorms::LANES.into())];
            choice
        }
        Kernel::AddScaled(k) => flat(facts, &[INDEX, part!("add_scaled.wgsl")], k.len),
        Kernel::Advance(_) => flat(facts, &[INDEX, part!("advance.wgsl")], 1),
        // One element to an invocation: how many steps the user's function takes is not known.
        Kernel::Custom(k) => {
            flat_of(facts, &[part!("custom.wgsl")], k.shape.elements() as u32, u64::from(u32::MAX))
        }
        Kernel::Pair(_) => {
            return Err(BackendError::Validation {
                label: kernel.to_string(),
                message: "each kernel of a pair is chosen for".to_owned(),
            });
        }
    };
    Ok(with_functions(kernel, choice))
}

/// A product's choice with what its tail calls.
pub(crate) fn with_functions(kernel: &Kernel, mut choice: Choice) -> Choice {
    choice.parts.splice(0..0, functions::parts(kernel));
    choice
}

/// How the kernels of a pair run in one launch, or why they do not.
///
/// # Errors
/// As [`choose`].
pub(crate) fn choose_pair(pair: &Pair, facts: &Facts) -> Result<gemm::Together, BackendError> {
    let (first, second) = (&pair.first, &pair.second);
    let chosen = match gemm::choose_pair(first, second, facts)? {
        Some(Ok((a, b))) => (with_functions(first, a), with_functions(second, b)),
        Some(Err(reason)) => return Ok(Err(reason)),
        None => (choose(first, facts)?, choose(second, facts)?),
    };
    let sizes = (chosen.0.workgroup_size, chosen.1.workgroup_size);
    Ok(if sizes.0 == sizes.1 {
        Ok(chosen)
    } else {
        Err(format!("workgroups of {:?} and {:?} invocations", sizes.0, sizes.1))
    })
}

/// A flat list of elements, `PER_INVOCATION` to an invocation: one on a GPU, which wants many invocations; some more on
/// a software rasterizer, where each workgroup costs, while there is enough for every core.
fn flat(facts: &Facts, parts: &[Part], elements: u32) -> Choice {
    flat_of(facts, parts, elements, 1)
}

/// An optimizer: a flat list of elements, and the tables that say how fast they learn.
fn update(facts: &Facts, file: Part, elements: u32) -> Choice {
    flat(facts, &[INDEX, part!("lib/hyper.wgsl"), part!("lib/group.wgsl"), file], elements)
}

/// As [`flat`], where an element takes `steps` loop iterations: one of many steps is enough for an invocation.
fn flat_of(facts: &Facts, parts: &[Part], elements: u32, steps: u64) -> Choice {
    let items: u32 = if facts.kind == Kind::Software && elements >= 1 << 14 && steps <= 1024 { 4 } else { 1 };
    Choice {
        variant: "flat".to_owned(),
        parts: parts.to_vec(),
        constants: vec![("PER_INVOCATION", items.into())],
        workgroup_size: [FLAT, 1, 1],
        workgroups: u64::from(elements.div_ceil(FLAT * items)),
    }
}

/// Rows of terms that are summed, or searched for their largest: an invocation to a row where rows are many
/// or short, else a workgroup to a row.
///
/// An invocation that walks a row `passes` times stays far below the 65,535 loop iterations after which Mesa
/// 22's lavapipe stops silently.
fn rows_of(facts: &Facts, file: Part, rows: u64, terms: usize, passes: usize) -> Choice {
    let short = match facts.kind {
        // Barriers cost much there, and two cores of eight lanes are soon busy.
        Kind::Software => terms < 64 || rows >= 16,
        _ => terms < 64 || (terms < 256 && rows > 16_384),
    };
    if short && terms * passes <= 16_384 { row_per_invocation(file, rows) } else { cooperative(file, rows) }
}

/// An invocation to a row.
fn row_per_invocation(file: Part, rows: u64) -> Choice {
    Choice {
        variant: "row per invocation".to_owned(),
        parts: vec![INDEX, part!("lib/row_invocation.wgsl"), file],
        constants: vec![("LANES", 1u32.into())],
        workgroup_size: [FLAT, 1, 1],
        workgroups: rows.div_ceil(u64::from(FLAT)),
    }
}

/// A workgroup to a row.
fn cooperative(file: Part, rows: u64) -> Choice {
    Choice {
        variant: "row per workgroup".to_owned(),
        parts: vec![INDEX, part!("lib/row_workgroup.wgsl"), file],
        constants: vec![("LANES", FLAT.into())],
        workgroup_size: [FLAT, 1, 1],
        workgroups: rows,
    }
}

/// A dense layer with its loss: a workgroup to a row, whose lanes share the products; on a software rasterizer, where
/// barriers cost much, an invocation.
fn dense_cross_entropy(facts: &Facts, k: &DenseCrossEntropy) -> Choice {
    let file = part!("dense_cross_entropy.wgsl");
    let (rows, classes) = (u64::from(k.loss.rows), u64::from(k.loss.classes));
    // Four logits are computed at once, then all of them are walked three times.
    let iterations = classes.div_ceil(4) * (u64::from(k.features) + 1) + 3 * classes;
    let mut choice = if facts.kind == Kind::Software && iterations <= check::MAX_ITERATIONS {
        row_per_invocation(file, rows)
    } else {
        cooperative(file, rows)
    };
    let bias = if k.bias { part!("lib/dense_bias.wgsl") } else { part!("lib/dense_no_bias.wgsl") };
    choice.parts.splice(2..2, [part!("lib/cross_entropy_row.wgsl"), bias]);
    // The file holds the entry points with and without the gradient.
    choice.constants.extend([("LABELS", (2 + u32::from(k.bias)).into()), ("GRADIENT", Constant::F32(0.0))]);
    choice
}

/// Sums side by side, so that neighbours are read together, and for each as many lanes as its terms are worth.
fn sum_parts(facts: &Facts, k: &SumParts) -> Choice {
    let most = k.parts.iter().map(|p| p.splits).max().unwrap_or(1);
    let (columns, lanes) = match (facts.kind, most) {
        // A lane of its own for each sum keeps it busy, and barriers cost much there.
        (Kind::Software, _) | (_, 0..16) => (FLAT, 1),
        (_, 16..64) => (32, 4),
        (_, _) => (32, 8),
    };
    Choice {
        variant: format!("{lanes} lanes to a sum"),
        parts: vec![INDEX, part!("sum_parts.wgsl")],
        constants: vec![("COLUMNS", columns.into()), ("LANES", lanes.into())],
        workgroup_size: [columns * lanes, 1, 1],
        workgroups: u64::from(k.elements().div_ceil(columns)),
    }
}

/// Tells a pooling shader whether any window leaves the input: where none does, its loops have constant bounds.
fn windows(s: &PoolShape, mut choice: Choice) -> Choice {
    let leaves = |size: u32, out: u32, kernel: u32, stride: u32| (out - 1) * stride + kernel > size;
    let clipped = s.pad_top > 0
        || s.pad_left > 0
        || leaves(s.in_h, s.out_h, s.kernel_h, s.stride_h)
        || leaves(s.in_w, s.out_w, s.kernel_w, s.stride_w);
    choice.constants.push(("CLIPPED", clipped.into()));
    choice.variant = if clipped { "clipped windows" } else { "whole windows" }.to_owned();
    choice
}

/// True if no position of the input lies in two windows.
pub(crate) fn is_disjoint(s: &PoolShape) -> bool {
    s.stride_h >= s.kernel_h && s.stride_w >= s.kernel_w
}

const _: () = assert!(Softmax::MAX_LEN <= 16_384 * FLAT as usize);
