//! From views of buffers to slices: what is checked once when a program is prepared, and what is done for
//! each launch.

use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};

use kiln_kernel::{Access, BackendError, Binding, Buffer, ConvShape, Kernel, Launch, Pair, View};
use smallvec::SmallVec;

use crate::storage::{Data, Storage};
use crate::{Real, storage::Shared};

/// One argument of a kernel, as its twin sees it.
pub(crate) enum Argument<'a, T> {
    Real(&'a [T]),
    RealMut(&'a mut [T]),
    Uint(&'a [u32]),
    UintMut(&'a mut [u32]),
}

/// The arguments of a launch: in place, so that a step allocates nothing, while they are no more than GPUs allow and a few
/// besides.
pub(crate) type List<A> = SmallVec<[A; 12]>;

/// A launch whose arguments have been checked, grouped by buffer.
pub struct Bound {
    pub(crate) kernel: Kernel,
    pub(crate) label: std::sync::Arc<str>,
    /// Of a pair, how many of the arguments are the first kernel's, and which are the second's.
    pub(crate) pair: Option<(usize, Vec<usize>)>,
    buffers: Vec<BoundBuffer>,
    arguments: usize,
}

struct BoundBuffer {
    buffer: Buffer,
    writes: bool,
    /// (position among the arguments, first element, length), by first element.
    ranges: Vec<(usize, usize, usize)>,
}

impl Bound {
    /// Checks a launch's arguments against its kernel's bindings.
    pub(crate) fn new<T: Real>(launch: &Launch<View>, shared: &Shared) -> Result<Self, BackendError> {
        let invalid = |message: String| BackendError::Validation {
            label: launch.label.to_string(),
            message: format!("{}: {message}", launch.kernel.name()),
        };
        let bindings = launch.kernel.bindings();
        if bindings.len() != launch.arguments.len() {
            let (want, got) = (bindings.len(), launch.arguments.len());
            return Err(invalid(format!("{got} arguments given, the kernel binds {want}")));
        }
        check_kernel(&launch.kernel, &bindings).map_err(invalid)?;
        let mut buffers: Vec<BoundBuffer> = Vec::new();
        for (position, (binding, view)) in bindings.iter().zip(&launch.arguments).enumerate() {
            check_view::<T>(binding, view, shared).map_err(invalid)?;
            let writes = binding.access != Access::Read;
            let range = (position, view.offset, view.len);
            match buffers.iter_mut().find(|b| b.buffer.same(&view.buffer)) {
                Some(bound) if bound.writes != writes => {
                    return Err(invalid(format!(
                        "\"{}\" reads and another argument writes one buffer, or the other way round; \
                         give them buffers of their own",
                        binding.name
                    )));
                }
                Some(bound) => bound.ranges.push(range),
                None => {
                    buffers.push(BoundBuffer { buffer: view.buffer.clone(), writes, ranges: vec![range] });
                }
            }
        }
        for bound in &mut buffers {
            // An empty range before the one that starts at the same place.
            bound.ranges.sort_by_key(|&(_, offset, len)| (offset, len));
            let overlap = bound.ranges.windows(2).find(|pair| pair[0].1 + pair[0].2 > pair[1].1);
            if let (true, Some(pair)) = (bound.writes, overlap) {
                return Err(invalid(format!(
                    "\"{}\" and \"{}\" write overlapping ranges of one buffer",
                    bindings[pair[0].0].name, bindings[pair[1].0].name
                )));
            }
        }
        let label = launch.label.clone();
        let pair = match &launch.kernel {
            Kernel::Pair(pair) => Some((pair.first.bindings().len(), pair.second_bindings())),
            _ => None,
        };
        Ok(Self { kernel: launch.kernel.clone(), label, pair, buffers, arguments: bindings.len() })
    }

    /// Locks the buffers and calls `f` with the arguments in binding order.
    pub(crate) fn with_arguments<T: Real, R>(
        &self,
        f: impl FnOnce(List<Argument<'_, T>>) -> Result<R, BackendError>,
    ) -> Result<R, BackendError> {
        let mut guards: List<Guard<'_, T>> = List::new();
        for bound in &self.buffers {
            guards.push(Guard::lock(bound).ok_or_else(|| self.invalid("a buffer of another backend"))?);
        }
        let mut arguments: List<Option<Argument<'_, T>>> = (0..self.arguments).map(|_| None).collect();
        for (guard, bound) in guards.iter_mut().zip(&self.buffers) {
            match guard {
                Guard::Real(data) => {
                    for &(position, offset, len) in &bound.ranges {
                        arguments[position] = Some(Argument::Real(&data[offset..offset + len]));
                    }
                }
                Guard::Uint(data) => {
                    for &(position, offset, len) in &bound.ranges {
                        arguments[position] = Some(Argument::Uint(&data[offset..offset + len]));
                    }
                }
                Guard::RealMut(data) => {
                    for (position, slice) in split(data, &bound.ranges) {
                        arguments[position] = Some(Argument::RealMut(slice));
                    }
                }
                Guard::UintMut(data) => {
                    for (position, slice) in split(data, &bound.ranges) {
                        arguments[position] = Some(Argument::UintMut(slice));
                    }
                }
            }
        }
        f(arguments.into_iter().flatten().collect())
    }

    fn invalid(&self, message: &str) -> BackendError {
        BackendError::Validation {
            label: self.label.to_string(),
            message: format!("{}: {message}", self.kernel.name()),
        }
    }
}

/// Disjoint ranges of one buffer, for writing, in the order of their first elements.
fn split<'a, T>(
    mut rest: &'a mut [T],
    ranges: &'a [(usize, usize, usize)],
) -> impl Iterator<Item = (usize, &'a mut [T])> {
    let mut at = 0;
    ranges.iter().map(move |&(position, offset, len)| {
        let (_, from_offset) = std::mem::take(&mut rest).split_at_mut(offset - at);
        let (slice, behind) = from_offset.split_at_mut(len);
        (rest, at) = (behind, offset + len);
        (position, slice)
    })
}

fn check_view<T: Real>(binding: &Binding, view: &View, shared: &Shared) -> Result<(), String> {
    let name = &binding.name;
    let Some(storage) = view.buffer.downcast::<Storage<T>>() else {
        return Err(format!("\"{name}\" is a buffer of another backend"));
    };
    if !storage.belongs_to(shared) {
        return Err(format!("\"{name}\" is a buffer of another device"));
    }
    if view.buffer.dtype() != binding.dtype {
        return Err(format!("\"{name}\" is {:?}, given {:?}", binding.dtype, view.buffer.dtype()));
    }
    if view.len != binding.len {
        return Err(format!("\"{name}\" has {} elements, given {}", binding.len, view.len));
    }
    if view.offset.checked_add(view.len).is_none_or(|end| end > view.buffer.len()) {
        return Err(format!(
            "\"{name}\" is elements {}..+{} of a buffer of {}",
            view.offset,
            view.len,
            view.buffer.len()
        ));
    }
    Ok(())
}

/// Checks that no layout reads past its buffer, that steps name operands which exist, and what else a twin relies on.
fn check_kernel(kernel: &Kernel, bindings: &[Binding]) -> Result<(), String> {
    let last = |layout: &kiln_kernel::Layout| -> usize {
        let far =
            layout.dims.iter().map(|&(size, stride)| (size as usize).saturating_sub(1) * stride as usize);
        layout.offset as usize + far.sum::<usize>()
    };
    let inside = |what: &str, at: usize, len: usize| {
        if at < len { Ok(()) } else { Err(format!("{what} reads element {at} of a buffer of {len}")) }
    };
    // A layout repeats over a result that is longer than itself, so its own elements are all there is.
    for (i, operand) in kernel.tail().map_or(&[][..], |tail| &tail.operands).iter().enumerate() {
        inside(&format!("tail{i}"), last(&operand.layout), operand.len as usize)?;
    }
    for step in kernel.tail().map_or(&[][..], |tail| &tail.steps) {
        use kiln_kernel::Step;
        if let Step::UnaryBackward { operand, .. } | Step::Binary { operand, .. } = step {
            let count = kernel.tail().map_or(0, |tail| tail.operands.len());
            if *operand >= count {
                return Err(format!("a step reads tail{operand}, but the tail has {count} operands"));
            }
        }
    }
    match kernel {
        Kernel::Elementwise(k) => match &k.source {
            kiln_kernel::Source::Operand(x) => inside("x", last(&x.layout), x.len as usize),
            kiln_kernel::Source::Constant(_) => Ok(()),
        },
        Kernel::Reduce(k) => inside("x", last(&k.kept) + last(&k.reduced), bindings[0].len),
        Kernel::Moments(k) => inside("x", last(&k.kept) + last(&k.reduced), bindings[0].len),
        Kernel::Matmul(k) if k.row_sums && k.batch != 1 => {
            Err(format!("row sums of {} products; there is room for those of one", k.batch))
        }
        Kernel::Conv2d(k) if k.pool.is_pooled() => check_windows(&k.shape),
        Kernel::Conv2dBackwardInput(k) if k.unpool => check_windows(&k.shape),
        Kernel::Conv2dBackwardWeight(k) if k.unpool => check_windows(&k.shape),
        Kernel::SumParts(k) => k.parts.iter().try_for_each(|part| {
            let [len, splits, from, stride, to] =
                [part.len, part.splits, part.from, part.stride, part.to].map(|v| v as usize);
            if len == 0 || splits == 0 {
                return Err("a part has no elements or no sums".to_owned());
            }
            inside("partial", from + (splits - 1) * stride + len - 1, k.partial_len as usize)?;
            inside("gradients", to + len - 1, k.gradients_len as usize)
        }),
        Kernel::Pair(pair) => check_pair(pair),
        _ => Ok(()),
    }
}

/// Windows of 2 x 2 cover the results of a convolution.
fn check_windows(s: &ConvShape) -> Result<(), String> {
    if s.out_h.is_multiple_of(2) && s.out_w.is_multiple_of(2) {
        return Ok(());
    }
    Err(format!("results of {} x {} are no whole windows of 2 x 2", s.out_h, s.out_w))
}

/// Two kernels that are themselves right, neither of them a pair, and share what both read alike.
fn check_pair(pair: &Pair) -> Result<(), String> {
    if matches!(pair.first, Kernel::Pair(_)) || matches!(pair.second, Kernel::Pair(_)) {
        return Err("a pair is one of a pair".to_owned());
    }
    let (first, second) = (pair.first.bindings(), pair.second.bindings());
    for &(of_second, of_first) in &pair.shared {
        let alike = |a: &Binding, b: &Binding| {
            a.access == Access::Read && b.access == Access::Read && (a.dtype, a.len) == (b.dtype, b.len)
        };
        if !second.get(of_second).zip(first.get(of_first)).is_some_and(|(a, b)| alike(a, b)) {
            return Err(format!("bindings {of_first} and {of_second} cannot be shared"));
        }
    }
    check_kernel(&pair.first, &first)?;
    check_kernel(&pair.second, &second)
}

/// A buffer locked for one launch.
enum Guard<'a, T> {
    Real(RwLockReadGuard<'a, Vec<T>>),
    RealMut(RwLockWriteGuard<'a, Vec<T>>),
    Uint(RwLockReadGuard<'a, Vec<u32>>),
    UintMut(RwLockWriteGuard<'a, Vec<u32>>),
}

impl<'a, T: Real> Guard<'a, T> {
    fn lock(bound: &'a BoundBuffer) -> Option<Self> {
        let storage = bound.buffer.downcast::<Storage<T>>()?;
        Some(match (&storage.data, bound.writes) {
            (Data::Real(data), false) => Self::Real(data.read().unwrap_or_else(PoisonError::into_inner)),
            (Data::Real(data), true) => Self::RealMut(data.write().unwrap_or_else(PoisonError::into_inner)),
            (Data::Uint(data), false) => Self::Uint(data.read().unwrap_or_else(PoisonError::into_inner)),
            (Data::Uint(data), true) => Self::UintMut(data.write().unwrap_or_else(PoisonError::into_inner)),
        })
    }
}
