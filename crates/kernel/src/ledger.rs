//! Who holds how much of a device's memory.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::BackendError;

/// What a buffer or several of one purpose hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What they are for.
    pub label: String,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Why there was no memory, and who has it. See [`BackendError::OutOfMemory`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// What the buffer was to be for.
    pub label: String,
    /// Its size.
    pub bytes: u64,
    /// Bytes that were held when it was asked for.
    pub live_bytes: u64,
    /// The most that may be held, where it was said.
    pub budget: Option<u64>,
    /// Who held most, largest first; three at most.
    pub holders: Vec<Holder>,
    /// Rows of a batch with which it would fit, where that is known.
    pub largest_batch: Option<usize>,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, bytes, live_bytes, budget, holders, largest_batch } = self;
        write!(f, "out of device memory: \"{label}\" wanted {bytes} bytes beside {live_bytes}")?;
        if let Some(budget) = budget {
            write!(f, " of a budget of {budget}")?;
        }
        for (i, Holder { label, bytes }) in holders.iter().enumerate() {
            write!(f, "{} \"{label}\" ({bytes})", if i == 0 { "; the largest holders are" } else { "," })?;
        }
        match largest_batch {
            Some(rows) => write!(f, "; batches of {rows} fit (--batch-size {rows})"),
            None => f.write_str("; use a smaller batch (--batch-size)"),
        }
    }
}

/// The account of a device's memory: what is allocated by whom, and how much there may be. For backends.
#[derive(Debug, Default)]
pub struct Ledger {
    budget: Option<u64>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    held: BTreeMap<u64, Holder>,
    allocations: u64,
    live: u64,
    peak: u64,
    /// The allocation that fails, counted from 1.
    fails_at: Option<u64>,
}

impl Ledger {
    /// An empty account, of which at most `budget` bytes may be held at a time.
    pub fn new(budget: Option<u64>) -> Self {
        Self { budget, book: Mutex::default() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the `nth` allocation from now on, counted from 1, fail as if there were no memory. For tests.
    pub fn fail(&self, nth: Option<u64>) {
        let mut book = self.book();
        book.fails_at = nth.map(|nth| book.allocations.saturating_add(nth));
    }

    /// Enters an allocation, before it is made.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] where it would pass the budget, or was made to fail.
    pub fn take(self: &Arc<Self>, label: &str, bytes: u64) -> Result<Lease, BackendError> {
        let mut book = self.book();
        let fails = book.fails_at == Some(book.allocations + 1);
        let live = book.live.saturating_add(bytes);
        if fails || self.budget.is_some_and(|budget| live > budget) {
            if fails {
                book.fails_at = None;
            }
            drop(book);
            return Err(self.out_of_memory(label, bytes));
        }
        book.allocations += 1;
        book.live = live;
        book.peak = book.peak.max(live);
        let id = book.allocations;
        book.held.insert(id, Holder { label: label.to_owned(), bytes });
        Ok(Lease { ledger: Arc::clone(self), id, bytes })
    }

    /// The error for an allocation that was not made.
    pub fn out_of_memory(&self, label: &str, bytes: u64) -> BackendError {
        let mut holders = self.holders();
        holders.truncate(3);
        BackendError::OutOfMemory(Box::new(OutOfMemory {
            label: label.to_owned(),
            bytes,
            live_bytes: self.live_bytes(),
            budget: self.budget,
            holders,
            largest_batch: None,
        }))
    }

    /// Who holds memory, largest first, buffers of one label together.
    pub fn holders(&self) -> Vec<Holder> {
        let mut by_label: BTreeMap<String, u64> = BTreeMap::new();
        for Holder { label, bytes } in self.book().held.values() {
            *by_label.entry(label.clone()).or_default() += bytes;
        }
        let mut all: Vec<Holder> =
            by_label.into_iter().map(|(label, bytes)| Holder { label, bytes }).collect();
        all.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.label.cmp(&b.label)));
        all
    }

    /// The most that may be held at a time, where it is bounded.
    pub fn budget(&self) -> Option<u64> {
        self.budget
    }

    /// Allocations so far.
    pub fn allocations(&self) -> u64 {
        self.book().allocations
    }

    /// Bytes that are held.
    pub fn live_bytes(&self) -> u64 {
        self.book().live
    }

    /// The most bytes that were held at a time.
    pub fn peak_bytes(&self) -> u64 {
        self.book().peak
    }
}

/// An allocation that counts as long as it lives.
#[derive(Debug)]
pub struct Lease {
    ledger: Arc<Ledger>,
    id: u64,
    bytes: u64,
}

impl Lease {
    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it was entered in this account.
    pub fn is_of(&self, ledger: &Arc<Ledger>) -> bool {
        Arc::ptr_eq(&self.ledger, ledger)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut book = self.ledger.book();
        book.held.remove(&self.id);
        book.live -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_told() {
        let ledger = Arc::new(Ledger::new(Some(100)));
        let kept = ledger.take("x", 40).unwrap();
        let more = [ledger.take("y", 30).unwrap(), ledger.take("x", 10).unwrap()];
        assert_eq!((ledger.allocations(), ledger.live_bytes()), (3, 80));
        let BackendError::OutOfMemory(error) = ledger.take("z", 21).unwrap_err() else { panic!("memory") };
        assert_eq!(
            error.to_string(),
            "out of device memory: \"z\" wanted 21 bytes beside 80 of a budget of 100; the largest holders are \
             \"x\" (50), \"y\" (30); use a smaller batch (--batch-size)"
        );
        drop(more);
        assert_eq!((ledger.live_bytes(), ledger.peak_bytes()), (40, 80));
        ledger.fail(Some(2));
        let _z = ledger.take("z", 1).unwrap();
        assert!(ledger.take("z", 1).is_err() && ledger.take("z", 1).is_ok());
        drop(kept);
        assert_eq!(ledger.live_bytes(), 1);
    }
}
