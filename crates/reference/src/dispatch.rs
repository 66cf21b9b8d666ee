//! From a kernel to the function of its name.

use kiln_kernel::{BackendError, GatherType, Kernel};

use crate::{
    Real,
    accumulate::accumulate,
    adam::adam,
    advance::advance,
    arguments::{Argument, Bound},
    avg_pool2d::{avg_pool2d, avg_pool2d_backward},
    conv2d::conv2d,
    conv2d_backward_input::conv2d_backward_input,
    conv2d_backward_weight::conv2d_backward_weight,
    cross_entropy::{cross_entropy, cross_entropy_backward},
    dropout::dropout,
    elementwise::elementwise,
    gather::{gather_f32, gather_u8, gather_u32},
    matmul::matmul,
    max_pool2d::{max_pool2d, max_pool2d_backward},
    reduce::reduce,
    sgd::{sgd, sgd_momentum},
    softmax::{softmax, softmax_backward},
    sum_splits::sum_splits,
    tail::BoundTail,
};

/// The arguments that a twin has not taken yet.
struct Arguments<'a, 'b, T> {
    rest: std::vec::IntoIter<Argument<'a, T>>,
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

    /// All that are left: the operands of the tail.
    fn tail(&mut self, tail: &'b kiln_kernel::Tail) -> Result<BoundTail<'b, T>, BackendError>
    where
        'a: 'b,
    {
        let mut operands = Vec::with_capacity(tail.operands.len());
        for _ in &tail.operands {
            operands.push(self.real()?);
        }
        Ok(BoundTail::new(tail, operands))
    }
}

/// Runs the twin of a launch's kernel.
pub(crate) fn dispatch<T: Real>(bound: &Bound) -> Result<(), BackendError> {
    bound.with_arguments(|arguments| {
        let mut args = Arguments::<T> { rest: arguments.into_iter(), bound };
        call(&bound.kernel, &mut args)
    })
}

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
        Kernel::SumSplits(k) => {
            sum_splits(k, args.real()?, args.real_mut()?, args.optional_mut(k.bias_len > 0)?);
        }
        Kernel::Matmul(k) => {
            matmul(k, args.real()?, args.real()?, args.real_mut()?, &args.tail(&k.tail)?);
        }
        Kernel::Conv2d(k) => {
            conv2d(k, args.real()?, args.real()?, args.real_mut()?, &args.tail(&k.tail)?);
        }
        Kernel::Conv2dBackwardInput(k) => {
            conv2d_backward_input(k, args.real()?, args.real()?, args.real_mut()?, &args.tail(&k.tail)?);
        }
        Kernel::Conv2dBackwardWeight(k) => {
            conv2d_backward_weight(k, args.real()?, args.real()?, args.real_mut()?);
        }
        Kernel::MaxPool2d(k) => max_pool2d(k, args.real()?, args.real_mut()?, &args.tail(&k.tail)?),
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
        Kernel::Dropout(k) => {
            dropout(k, args.real()?, args.uint()?, args.real_mut()?, &args.tail(&k.tail)?);
        }
        Kernel::Gather(k) => match k.dtype {
            GatherType::U8 => gather_u8(k, args.uint()?, args.uint()?, args.uint()?, args.real_mut()?),
            GatherType::F32 => gather_f32(k, args.real()?, args.uint()?, args.uint()?, args.real_mut()?),
            GatherType::U32 => gather_u32(k, args.uint()?, args.uint()?, args.uint()?, args.uint_mut()?),
        },
        Kernel::Accumulate(k) => {
            let totals = args.real_mut()?;
            let mut sources = Vec::with_capacity(k.sources.len());
            for _ in &k.sources {
                sources.push(args.real()?);
            }
            accumulate(k, totals, &sources);
        }
        Kernel::Sgd(k) => {
            let (w, gradient, hyper, clock) = (args.real_mut()?, args.real()?, args.real()?, args.uint()?);
            match args.optional_mut(k.momentum.0 != 0.0)? {
                Some(velocity) => sgd_momentum(k, w, gradient, hyper, clock, velocity),
                None => sgd(k, w, gradient, hyper, clock),
            }
        }
        Kernel::Adam(k) => adam(
            k,
            args.real_mut()?,
            args.real()?,
            args.real()?,
            args.uint()?,
            args.real_mut()?,
            args.real_mut()?,
        ),
        Kernel::Advance(k) => advance(k, args.uint_mut()?),
    }
    Ok(())
}
