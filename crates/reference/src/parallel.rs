//! How work is shared out: blocks whose bounds depend on the shapes alone, so that the bits of a result
//! do not depend on the number of threads or on which of them is faster.

use std::{
    panic::resume_unwind,
    sync::{Arc, LazyLock},
    thread,
};

use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

/// Threads that run kernels and nothing else.
///
/// A thread of a pool that waits for its share of a kernel takes up whatever else lies in the pool's queue. In rayon's global
/// pool, where users have work of their own, that may be work which waits for the device that the kernel is on: for ever.
#[derive(Clone)]
pub(crate) struct Pool(Option<Arc<ThreadPool>>);

impl Pool {
    /// The pool that devices share.
    pub(crate) fn shared() -> Self {
        static SHARED: LazyLock<Pool> = LazyLock::new(|| Pool::of(0));
        SHARED.clone()
    }

    /// So many threads; with 0 as many as rayon takes.
    pub(crate) fn of(threads: usize) -> Self {
        let name = |i| format!("kiln-cpu-{i}");
        Self(ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build().ok().map(Arc::new))
    }

    /// Calls `f` on one of the threads and waits: on the caller's where the system gave none.
    pub(crate) fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        let Some(pool) = &self.0 else { return f() };
        if rayon::current_thread_index().is_none() {
            return pool.install(f);
        }
        // a thread of another pool would take up other work while it waits, see above
        let run = || thread::scope(|scope| scope.spawn(|| pool.install(f)).join());
        run().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// Elements of a block of cheap work: large beside the cost of handing it to another thread.
pub(crate) const BLOCK: usize = 16_384;

/// Calls `f(first, block)` for each block of `size` elements (the last may be shorter), side by side.
pub(crate) fn for_blocks<T: Send>(values: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let size = size.max(1);
    if values.len() <= size {
        if !values.is_empty() {
            f(0, values);
        }
        return;
    }
    values.par_chunks_mut(size).enumerate().for_each(|(i, block)| f(i * size, block));
}

/// As [`for_blocks`], with a second result of as many elements, or of none.
pub(crate) fn for_blocks_of_two<T: Send, U: Send>(
    values: &mut [T],
    others: &mut [U],
    size: usize,
    f: impl Fn(usize, &mut [T], &mut [U]) + Sync,
) {
    let size = size.max(1);
    if others.is_empty() {
        return for_blocks(values, size, |start, values| f(start, values, &mut []));
    }
    if values.len() <= size {
        return f(0, values, others);
    }
    let blocks = values.par_chunks_mut(size).zip(others.par_chunks_mut(size)).enumerate();
    blocks.for_each(|(i, (values, others))| f(i * size, values, others));
}

/// As many whole items of `item` elements as make a block worth a thread's while. `work` is the cost of
/// an item, in cheap element operations.
pub(crate) fn items_per_block(work: usize) -> usize {
    (BLOCK / work.max(1)).max(1)
}
