use std::sync::{
    Arc, RwLock,
    atomic::{AtomicU64, Ordering},
};

use kiln_kernel::{Counters, Lease, Ledger};

/// What a backend and its buffers share: the counters.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) ledger: Arc<Ledger>,
    submissions: AtomicU64,
    dispatches: AtomicU64,
    reads: AtomicU64,
}

impl Shared {
    /// At most `budget` bytes may be held at a time.
    pub(crate) fn new(budget: Option<u64>) -> Self {
        Self { ledger: Arc::new(Ledger::new(budget)), ..Self::default() }
    }

    pub(crate) fn counters(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            allocations: self.ledger.allocations(),
            live_bytes: self.ledger.live_bytes(),
            peak_bytes: self.ledger.peak_bytes(),
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
    lease: Lease,
}

impl<T> Storage<T> {
    pub(crate) fn new(data: Data<T>, lease: Lease) -> Self {
        Self { data, lease }
    }

    /// Whether the buffer was allocated by the backend that this belongs to.
    pub(crate) fn belongs_to(&self, shared: &Shared) -> bool {
        self.lease.is_of(&shared.ledger)
    }
}
