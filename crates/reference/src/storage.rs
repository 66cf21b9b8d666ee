use std::sync::{
    Arc, RwLock,
    atomic::{AtomicU64, Ordering},
};

use kiln_kernel::Counters;

/// What a backend and its buffers share: the counters.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    allocations: AtomicU64,
    live_bytes: AtomicU64,
    submissions: AtomicU64,
    dispatches: AtomicU64,
    reads: AtomicU64,
}

impl Shared {
    pub(crate) fn counters(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            allocations: get(&self.allocations),
            live_bytes: get(&self.live_bytes),
            pipelines: 0,
            submissions: get(&self.submissions),
            dispatches: get(&self.dispatches),
            reads: get(&self.reads),
        }
    }

    pub(crate) fn submitted(&self, dispatches: u64) {
        self.submissions.fetch_add(1, Ordering::Relaxed);
        self.dispatches.fetch_add(dispatches, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// A buffer's elements.
pub(crate) enum Data<T> {
    Real(RwLock<Vec<T>>),
    Uint(RwLock<Vec<u32>>),
}

/// A buffer of this backend: its elements, counted as long as it lives.
pub(crate) struct Storage<T> {
    pub(crate) data: Data<T>,
    bytes: u64,
    shared: Arc<Shared>,
}

impl<T> Storage<T> {
    pub(crate) fn new(data: Data<T>, bytes: u64, shared: Arc<Shared>) -> Self {
        shared.allocations.fetch_add(1, Ordering::Relaxed);
        shared.live_bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { data, bytes, shared }
    }

    /// Whether the buffer was allocated by the backend that these counters belong to.
    pub(crate) fn belongs_to(&self, shared: &Shared) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.shared), shared)
    }
}

impl<T> Drop for Storage<T> {
    fn drop(&mut self) {
        self.shared.live_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
