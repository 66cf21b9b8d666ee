//! From a kernel to the function of its name.

use kiln_kernel::{BackendError, DType, GatherType, Kernel, Pooling};

use crate::{
    Real,
    accumulate::{accumulate, add_scaled},
    adadelta::adadelta,
    adagrad::adagrad,
    adam::{adam, amsgrad},
    adamax::adamax,
    advance::advance,
    arguments::{Argument, Bound, List},
    augment::{augment_draw, gather_augmented_f32, gather_augmented_u8},
    avg_pool2d::{avg_pool2d, avg_pool2d_backward},
    clip::{clip_norm, clip_value, global_norm, segment_norms, sum_squares},
    concat::concat,
    conv2d::conv2d,
    conv2d_backward_input::conv2d_backward_input,
    conv2d_backward_weight::conv2d_backward_weight,
    cross_entropy::{cross_entropy, cross_entropy_backward},
    custom::custom,
    dense_cross_entropy::{DenseRows, dense_cross_entropy},
    dropout::dropout,
    elementwise::elementwise,
    embedding::{embedding, embedding_backward, to_indices},
    first_non_finite::first_non_finite,
    gather::{gather_f32, gather_u8, gather_u32},
    lamb::{lamb, lamb_apply},
    lion::lion,
    matmul::{matmul, row_sums},
    max_pool2d::{max_pool2d, max_pool2d_backward},
    moments::{moments, moments_finish, moments_partial, moving_average},
    nadam::nadam,
    one_hot::one_hot,
    pad::pad,
    random_normal::random_normal,
    reduce::reduce,
    rmsprop::{rmsprop, rmsprop_centered, rmsprop_momentum},
    sgd::{sgd, sgd_momentum},
    softmax::{softmax, softmax_backward},
    sum_parts::sum_parts,
    tail::BoundTail,
    tally::{collect, rank_rows, tally},
    update::Tables,
};

/// The arguments that a twin has not taken yet.
struct Arguments<'a, 'b, T> {
    rest: smallvec::IntoIter<[Argument<'a, T>; 12]>,
    bound: &'b Bound,
}

impl<'a, 'b, T: Real> Arguments<'a, 'b, T> {
    /// Cannot happen once a launch has been checked against its kernel's bindings.
    fn unexpected(&self) -> BackendError {
        BackendError::Validation {
            label: self.bound.label.to_string(),
            message: format!("{}: arguments differ from the kernel's bindings", self.bound.kernel.name()),
        }
    }

    fn real(&mut self) -> Result<&'a [T], BackendError> {
        match self.rest.next() {
            Some(Argument::Real(slice)) => Ok(slice),
            _ => Err(self.unexpected()),
        }
    }

    fn real_mut(&mut self) -> Result<&'a mut [T], BackendError> {
        match self.rest.next() {
            Some(Argument::RealMut(slice)) => Ok(slice),
            _ => Err(self.unexpected()),
        }
    }

    fn uint(&mut self) -> Result<&'a [u32], BackendError> {
        match self.rest.next() {
            Some(Argument::Uint(slice)) => Ok(slice),
            _ => Err(self.unexpected()),
        }
    }

    fn uint_mut(&mut self) -> Result<&'a mut [u32], BackendError> {
        match self.rest.next() {
            Some(Argument::UintMut(slice)) => Ok(slice),
            _ => Err(self.unexpected()),
        }
    }

    /// `real_mut`, where the binding is there only if `there`.
    fn optional_mut(&mut self, there: bool) -> Result<Option<&'a mut [T]>, BackendError> {
        if there { self.real_mut().map(Some) } else { Ok(None) }
    }

    /// `uint`, where the binding is there only if `there`.
    fn optional_uint(&mut self, there: bool) -> Result<Option<&'a [u32]>, BackendError> {
        if there { self.uint().map(Some) } else { Ok(None) }
    }

    /// `places`, or nothing where there is no such binding.
    fn places(&mut self, there: bool) -> Result<&'a mut [u32], BackendError> {
        if there { self.uint_mut() } else { Ok(&mut []) }
    }

    /// `hyper`, `clock` and `group_settings`.
    fn tables(&mut self) -> Result<Tables<'a, T>, BackendError> {
        Ok(Tables { hyper: self.real()?, clock: self.uint()?, group_settings: self.real()? })
    }

    /// All that are left: the operands of the tail.
    fn tail(&mut self, tail: &'b kiln_kernel::Tail) -> Result<BoundTail<'b, T>, BackendError>
    where
        'a: 'b,
    {
        let mut operands = List::new();
        for _ in &tail.operands {
            operands.push(self.real()?);
        }
        Ok(BoundTail { tail, operands })
    }
}

/// Numbers whose twins are compiled in this crate, so that the crates that open a [`crate::Cpu`] of them do not each compile
/// all twins again.
pub trait Twins {
    /// Runs the twin of a launch's kernel.
    fn dispatch(bound: &Bound) -> Result<(), BackendError>;
}

macro_rules! twins {
    ($t:ty) => {
        impl Twins for $t {
            #[inline(never)]
            fn dispatch(bound: &Bound) -> Result<(), BackendError> {
                bound.with_arguments(|arguments| {
                    let mut args = Arguments::<$t> { rest: arguments.into_iter(), bound };
                    call(&bound.kernel, &mut args)
                })
            }
        }
    };
}

twins!(f32);
twins!(f64);

fn call<'a: 'b, 'b, T: Real>(
    kernel: &'b Kernel,
    args: &mut Arguments<'a, 'b, T>,
) -> Result<(), BackendError> {
    match kernel {
        Kernel::Elementwise(k) => {
            let x = match k.source {
                kiln_kernel::Source::Operand(_) => Some(args.real()?),
                kiln_kernel::Source::Constant(_) => None,
            };
            elementwise(k, x, args.real_mut()?, &args.tail(&k.tail)?);
        }
        Kernel::Reduce(k) => reduce(k, args.real()?, args.real_mut()?, &args.tail(&k.tail)?),
        Kernel::SumParts(k) => sum_parts(k, args.real()?, args.real_mut()?),
        Kernel::Matmul(k) => {
            let (a, b, y) = (args.real()?, args.real()?, args.real_mut()?);
            if let Some(sums) = args.optional_mut(k.row_sums)? {
                row_sums(k, a, sums);
            }
            matmul(k, a, b, y, &args.tail(&k.tail)?);
        }
        Kernel::Conv2d(k) => {
            let (x, weight, y) = (args.real()?, args.real()?, args.real_mut()?);
            let places = args.places(k.pool == Pooling::MaxAndPlaces)?;
            conv2d(k, x, weight, y, places, &args.tail(&k.tail)?);
        }
        Kernel::Conv2dBackwardInput(k) => {
            let (dy, weight, dx) = (args.real()?, args.real()?, args.real_mut()?);
            let places = args.optional_uint(k.unpool)?;
            conv2d_backward_input(k, dy, weight, dx, places, &args.tail(&k.tail)?);
        }
        Kernel::Conv2dBackwardWeight(k) => {
            let (x, dy, partial) = (args.real()?, args.real()?, args.real_mut()?);
            conv2d_backward_weight(k, x, dy, partial, args.optional_uint(k.unpool)?);
        }
        Kernel::MaxPool2d(k) => {
            let (x, y, places) = (args.real()?, args.real_mut()?, args.places(k.places)?);
            max_pool2d(k, x, y, places, &args.tail(&k.tail)?);
        }
        Kernel::MaxPool2dBackward(k) => {
            max_pool2d_backward(k, args.real()?, args.real()?, args.real_mut()?, &args.tail(&k.tail)?);
        }
        Kernel::AvgPool2d(k) => avg_pool2d(k, args.real()?, args.real_mut()?, &args.tail(&k.tail)?),
        Kernel::AvgPool2dBackward(k) => {
            avg_pool2d_backward(k, args.real()?, args.real_mut()?, &args.tail(&k.tail)?);
        }
        Kernel::Softmax(k) => softmax(k, args.real()?, args.real_mut()?),
        Kernel::SoftmaxBackward(k) => softmax_backward(k, args.real()?, args.real()?, args.real_mut()?),
        Kernel::CrossEntropy(k) => cross_entropy(
            k,
            args.real()?,
            args.uint()?,
            args.real_mut()?,
            args.real_mut()?,
            args.optional_mut(k.gradient.is_some())?,
        ),
        Kernel::CrossEntropyBackward(k) => {
            cross_entropy_backward(k, args.real()?, args.uint()?, args.real()?, args.real_mut()?);
        }
        Kernel::DenseCrossEntropy(k) => {
            let (x, weight) = (args.real()?, args.real()?);
            let bias = if k.bias { Some(args.real()?) } else { None };
            let rows = DenseRows {
                x,
                labels: args.uint()?,
                logits: args.real_mut()?,
                losses: args.real_mut()?,
                correct: args.real_mut()?,
                dlogits: args.optional_mut(k.loss.gradient.is_some())?.unwrap_or_default(),
            };
            dense_cross_entropy(k, weight, bias, rows);
        }
        Kernel::Dropout(k) => {
            dropout(k, args.real()?, args.uint()?, args.real_mut()?, &args.tail(&k.tail)?);
        }
        Kernel::RandomNormal(k) => random_normal(k, args.uint()?, args.real_mut()?, &args.tail(&k.tail)?),
        Kernel::Pad(k) => pad(k, args.real()?, args.real_mut()?, &args.tail(&k.tail)?),
        Kernel::Concat(k) => {
            let y = args.real_mut()?;
            let mut sources = List::new();
            for _ in &k.widths {
                sources.push(args.real()?);
            }
            concat(k, y, &sources, &args.tail(&k.tail)?);
        }
        Kernel::Embedding(k) => {
            embedding(k, args.real()?, args.uint()?, args.real_mut()?, &args.tail(&k.tail)?);
        }
        Kernel::EmbeddingBackward(k) => {
            embedding_backward(k, args.real()?, args.uint()?, args.real_mut()?);
        }
        Kernel::ToIndices(_) => to_indices(args.real()?, args.uint_mut()?),
        Kernel::Moments(k) if k.splits > 1 => moments_partial(k, args.real()?, args.real_mut()?),
        Kernel::Moments(k) => {
            moments(k, args.real()?, args.real_mut()?, args.real_mut()?, args.real_mut()?);
        }
        Kernel::MomentsFinish(k) => {
            moments_finish(k, args.real()?, args.real_mut()?, args.real_mut()?, args.real_mut()?);
        }
        Kernel::MovingAverage(k) => {
            let mut pairs = List::new();
            for _ in &k.pairs {
                pairs.push((args.real_mut()?, args.real()?));
            }
            moving_average(k, pairs);
        }
        Kernel::AugmentDraw(k) => augment_draw(k, args.uint()?, args.uint_mut()?, args.real_mut()?),
        Kernel::GatherAugmented(k) => match k.dtype {
            GatherType::U8 => {
                let data = args.uint()?;
                gather_augmented_u8(k, data, (args.uint()?, args.uint()?, args.uint()?), args.real_mut()?);
            }
            GatherType::F32 | GatherType::U32 => {
                let data = args.real()?;
                gather_augmented_f32(k, data, (args.uint()?, args.uint()?, args.uint()?), args.real_mut()?);
            }
        },
        Kernel::Gather(k) => match k.dtype {
            GatherType::U8 => gather_u8(k, args.uint()?, args.uint()?, args.uint()?, args.real_mut()?),
            GatherType::F32 => gather_f32(k, args.real()?, args.uint()?, args.uint()?, args.real_mut()?),
            GatherType::U32 => gather_u32(k, args.uint()?, args.uint()?, args.uint()?, args.uint_mut()?),
        },
        Kernel::OneHot(k) => one_hot(k, args.uint()?, args.real_mut()?, &args.tail(&k.tail)?),
        Kernel::RankRows(k) => {
            rank_rows(k, args.real()?, args.uint()?, args.uint_mut()?, args.uint_mut()?);
        }
        Kernel::Tally(k) => tally(k, args.uint()?, args.uint()?, args.uint()?, args.uint_mut()?),
        Kernel::Collect(k) => collect(k, args.real()?, args.uint()?, args.real_mut()?),
        Kernel::FirstNonFinite(k) => first_non_finite(k, args.real()?, args.uint_mut()?),
        Kernel::Accumulate(k) => {
            let totals = args.real_mut()?;
            let mut sources = List::new();
            for _ in &k.sources {
                sources.push(args.real()?);
            }
            accumulate(k, totals, &sources);
        }
        Kernel::Sgd(k) => {
            let (w, gradient, t) = (args.real_mut()?, args.real()?, args.tables()?);
            match args.optional_mut(k.momentum.0 != 0.0)? {
                Some(velocity) => sgd_momentum(k, w, gradient, t, velocity),
                None => sgd(w, gradient, t),
            }
        }
        Kernel::Lion(k) => {
            let (w, gradient, t) = (args.real_mut()?, args.real()?, args.tables()?);
            lion(k, w, gradient, t, args.real_mut()?);
        }
        Kernel::Rmsprop(k) => {
            let (w, gradient, t, s) = (args.real_mut()?, args.real()?, args.tables()?, args.real_mut()?);
            match (k.centered, k.momentum.0 != 0.0) {
                (true, _) => rmsprop_centered(k, w, gradient, t, s, args.real_mut()?, args.real_mut()?),
                (false, true) => rmsprop_momentum(k, w, gradient, t, s, args.real_mut()?),
                (false, false) => rmsprop(k, w, gradient, t, s),
            }
        }
        Kernel::Adagrad(k) => {
            let (w, gradient, t) = (args.real_mut()?, args.real()?, args.tables()?);
            adagrad(k, w, gradient, t, args.real_mut()?);
        }
        Kernel::Adadelta(k) => {
            let (w, gradient, t) = (args.real_mut()?, args.real()?, args.tables()?);
            adadelta(k, w, gradient, t, args.real_mut()?, args.real_mut()?);
        }
        Kernel::Adam(k) => {
            let (w, gradient, t) = (args.real_mut()?, args.real()?, args.tables()?);
            let (m, v) = (args.real_mut()?, args.real_mut()?);
            match args.optional_mut(k.amsgrad)? {
                Some(largest) => amsgrad(k, w, gradient, t, m, v, largest),
                None => adam(k, w, gradient, t, m, v),
            }
        }
        Kernel::Adamax(k) => {
            let (w, gradient, t) = (args.real_mut()?, args.real()?, args.tables()?);
            adamax(k, w, gradient, t, args.real_mut()?, args.real_mut()?);
        }
        Kernel::Nadam(k) => {
            let (w, gradient, t) = (args.real_mut()?, args.real()?, args.tables()?);
            nadam(k, w, gradient, t, args.real_mut()?, args.real_mut()?);
        }
        Kernel::Lamb(k) => {
            let (w, gradient, t) = (args.real()?, args.real()?, args.tables()?);
            lamb(k, w, gradient, t, [args.real_mut()?, args.real_mut()?, args.real_mut()?]);
        }
        Kernel::LambApply(_) => {
            let (w, direction, t) = (args.real_mut()?, args.real()?, args.tables()?);
            lamb_apply(w, direction, t, [args.real()?, args.real()?], args.uint()?);
        }
        Kernel::ClipValue(k) => clip_value(k, args.real_mut()?),
        Kernel::SumSquares(_) => sum_squares(args.real()?, args.real()?, args.real_mut()?),
        Kernel::SegmentNorms(k) => match k.segments {
            Some(_) => segment_norms(args.real()?, args.real_mut()?, args.uint()?),
            None => global_norm(args.real()?, args.real_mut()?),
        },
        Kernel::ClipNorm(k) => {
            let (gradient, norms) = (args.real_mut()?, args.real()?);
            let block_segments = if k.segments.is_some() { Some(args.uint()?) } else { None };
            clip_norm(k, gradient, norms, block_segments);
        }
        Kernel::AddScaled(k) => add_scaled(k, args.real_mut()?, args.real()?),
        Kernel::Advance(k) => advance(k, args.uint_mut()?),
        Kernel::Custom(k) => {
            // The user's function takes doubles, whatever the backend computes in.
            let mut inputs = Vec::with_capacity(k.inputs.len());
            for input in &k.inputs {
                inputs.push(match input.dtype {
                    DType::F32 => args.real()?.iter().map(|v| v.to_f64()).collect(),
                    DType::U32 => args.uint()?.iter().map(|&v| f64::from(v)).collect(),
                });
            }
            custom(k, &inputs, args.real_mut()?);
        }
        Kernel::Pair(pair) => {
            // The second's arguments are taken out from among the pair's; what both read stays for the first.
            let mut all: List<Option<Argument<'a, T>>> = args.rest.by_ref().map(Some).collect();
            let Some((own, positions)) = &args.bound.pair else { return Err(args.unexpected()) };
            let own = *own;
            let mut second = List::new();
            for &position in positions {
                second.push(match all.get_mut(position) {
                    Some(Some(Argument::Real(shared))) if position < own => Argument::Real(shared),
                    Some(Some(Argument::Uint(shared))) if position < own => Argument::Uint(shared),
                    Some(argument) if position >= own => argument.take().ok_or_else(|| args.unexpected())?,
                    _ => return Err(args.unexpected()),
                });
            }
            all.truncate(own);
            let first: List<_> = all.into_iter().flatten().collect();
            let bound = args.bound;
            call(&pair.first, &mut Arguments { rest: first.into_iter(), bound })?;
            call(&pair.second, &mut Arguments { rest: second.into_iter(), bound })?;
        }
    }
    Ok(())
}
