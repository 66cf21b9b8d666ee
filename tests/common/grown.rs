//! Kernels of the table with their outermost size multiplied: larger than any device of the tests holds, for what is
//! computed of shapes alone.

use kiln_kernel::{
    Custom, CustomInput, Elementwise, Kernel, Layout, MAX_ELEMENTS, Operand, Real, Shape, Source, Tail,
};

/// A size times `by`, where 32 bits hold it.
fn times(size: u32, by: u32) -> Option<u32> {
    size.checked_mul(by)
}

/// `by` such buffers one behind the other, each read as it was.
fn operand(one: &Operand, by: u32) -> Option<Operand> {
    Some(Operand { layout: repeated(&one.layout, one.len, by), len: times(one.len, by)? })
}

/// What a layout reads of each of `by` buffers of `len` elements.
fn repeated(layout: &Layout, len: u32, by: u32) -> Layout {
    let mut dims = layout.dims.clone();
    if by > 1 {
        dims.insert(0, (by, len));
    }
    Layout { offset: layout.offset, dims }
}

fn tail(tail: &Tail, by: u32) -> Option<Tail> {
    let operands = tail.operands.iter().map(|o| operand(o, by)).collect::<Option<_>>()?;
    Some(Tail { operands, steps: tail.steps.clone() })
}

fn lens(all: &[(u32, Real)], by: u32) -> Option<Vec<(u32, Real)>> {
    all.iter().map(|&(len, factor)| Some((times(len, by)?, factor))).collect()
}

/// The kernel for `by` times as many rows, images, results or elements, whichever its arguments begin with. None where
/// a size of it would not fit into 32 bits; the clock's launch, which has no size, stays as it is.
pub fn grown(kernel: &Kernel, by: u32) -> Option<Kernel> {
    let mut kernel = kernel.clone();
    macro_rules! grow {
        ($k:ident: $($($field:ident).+),+) => {{
            $($k.$($field).+ = times($k.$($field).+, by)?;)+
        }};
    }
    match &mut kernel {
        Kernel::Elementwise(k) => {
            let source = match &k.source {
                Source::Operand(one) => Source::Operand(operand(one, by)?),
                Source::Constant(value) => Source::Constant(*value),
            };
            *k = Elementwise { len: times(k.len, by)?, source, tail: tail(&k.tail, by)? };
        }
        Kernel::Reduce(k) => {
            k.kept = repeated(&k.kept, k.len, by);
            grow!(k: len);
            k.tail = tail(&k.tail, by)?;
        }
        Kernel::Moments(k) => {
            k.kept = repeated(&k.kept, k.len, by);
            grow!(k: len);
        }
        Kernel::SumParts(k) => {
            grow!(k: partial_len, gradients_len);
            for part in &mut k.parts {
                grow!(part: len, from, stride, to);
            }
        }
        Kernel::Matmul(k) => {
            if k.batch > 1 {
                grow!(k: batch);
            } else {
                let stride = k.a_stride;
                grow!(k: m);
                k.a_stride = if stride == 0 { 0 } else { times(k.m, k.k)? };
            }
            k.tail = tail(&k.tail, by)?;
        }
        Kernel::Conv2d(k) => {
            grow!(k: shape.batch);
            k.tail = tail(&k.tail, by)?;
        }
        Kernel::Conv2dBackwardInput(k) => {
            grow!(k: shape.batch);
            k.tail = tail(&k.tail, by)?;
        }
        Kernel::Conv2dBackwardWeight(k) => grow!(k: shape.batch, splits),
        Kernel::MaxPool2d(k) => {
            grow!(k: shape.planes);
            k.tail = tail(&k.tail, by)?;
        }
        Kernel::MaxPool2dBackward(k) => {
            grow!(k: shape.planes);
            k.tail = tail(&k.tail, by)?;
        }
        Kernel::AvgPool2d(k) => {
            grow!(k: shape.planes);
            k.tail = tail(&k.tail, by)?;
        }
        Kernel::AvgPool2dBackward(k) => {
            grow!(k: shape.planes);
            k.tail = tail(&k.tail, by)?;
        }
        Kernel::Softmax(k) => grow!(k: outer),
        Kernel::SoftmaxBackward(k) => grow!(k: outer),
        Kernel::CrossEntropy(k) => grow!(k: rows),
        Kernel::CrossEntropyBackward(k) => grow!(k: rows),
        Kernel::DenseCrossEntropy(k) => grow!(k: loss.rows),
        Kernel::Dropout(k) => {
            grow!(k: len);
            k.tail = tail(&k.tail, by)?;
        }
        Kernel::RandomNormal(k) => {
            grow!(k: len);
            k.tail = tail(&k.tail, by)?;
        }
        Kernel::Gather(k) => grow!(k: rows, items),
        Kernel::AugmentDraw(k) => grow!(k: rows),
        Kernel::GatherAugmented(k) => grow!(k: rows, items),
        Kernel::Pad(k) => {
            grow!(k: outer);
            k.tail = tail(&k.tail, by)?;
        }
        Kernel::Concat(k) => {
            grow!(k: outer);
            k.tail = tail(&k.tail, by)?;
        }
        Kernel::Embedding(k) => {
            grow!(k: rows, entries);
            k.tail = tail(&k.tail, by)?;
        }
        Kernel::EmbeddingBackward(k) => grow!(k: rows, splits),
        Kernel::ToIndices(k) => grow!(k: len),
        Kernel::MomentsFinish(k) => grow!(k: outputs),
        Kernel::MovingAverage(k) => k.pairs = lens(&k.pairs, by)?,
        Kernel::OneHot(k) => {
            grow!(k: rows);
            k.tail = tail(&k.tail, by)?;
        }
        Kernel::RankRows(k) => grow!(k: rows),
        Kernel::Tally(k) => grow!(k: classes),
        Kernel::Collect(k) => grow!(k: rows, capacity),
        Kernel::FirstNonFinite(k) => grow!(k: len),
        Kernel::Accumulate(k) => k.sources = lens(&k.sources, by)?,
        Kernel::AddScaled(k) => grow!(k: len),
        Kernel::Sgd(k) => grow!(k: len),
        Kernel::Rmsprop(k) => grow!(k: len),
        Kernel::Adagrad(k) => grow!(k: len),
        Kernel::Adadelta(k) => grow!(k: len),
        Kernel::Adam(k) => grow!(k: len),
        Kernel::Adamax(k) => grow!(k: len),
        Kernel::Nadam(k) => grow!(k: len),
        Kernel::Lion(k) => grow!(k: len),
        Kernel::Lamb(k) => grow!(k: len),
        Kernel::LambApply(k) => grow!(k: len),
        Kernel::ClipValue(k) => grow!(k: len),
        Kernel::SumSquares(k) => grow!(k: len),
        Kernel::SegmentNorms(k) => grow!(k: blocks),
        Kernel::ClipNorm(k) => grow!(k: len),
        Kernel::Advance(_) => {}
        Kernel::Custom(k) => {
            let rows = |shape: &Shape| {
                let mut dims = shape.dims().to_vec();
                dims.iter_mut().take(1).for_each(|size| *size *= by as usize);
                Shape::new(dims)
            };
            let inputs =
                k.inputs.iter().map(|input| CustomInput { shape: rows(&input.shape), ..input.clone() });
            *k = Custom { shape: rows(&k.shape), inputs: inputs.collect(), ..k.clone() };
        }
        Kernel::Pair(k) => {
            k.first = grown(&k.first, by)?;
            k.second = grown(&k.second, by)?;
        }
    }
    Some(kernel)
}

/// The arguments of a kernel that are longer than any may be: name and length.
pub fn too_long(kernel: &Kernel) -> Vec<(String, usize)> {
    let bindings = kernel.bindings().into_iter().filter(|b| b.len > MAX_ELEMENTS);
    bindings.map(|b| (b.name.into_owned(), b.len)).collect()
}
