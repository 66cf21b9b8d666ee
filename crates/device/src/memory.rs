//! Device memory: buffers that count themselves, and a pool of staging buffers for reads.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use kiln_kernel::{BackendError, Counters, Lease, Ledger};

/// What a backend has done, counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) pipelines: AtomicU64,
    pub(crate) submissions: AtomicU64,
    pub(crate) dispatches: AtomicU64,
    pub(crate) reads: AtomicU64,
}

impl Tally {
    pub(crate) fn counters(&self) -> Counters {
        Counters {
            allocations: self.ledger.allocations(),
            live_bytes: self.ledger.live_bytes(),
            peak_bytes: self.ledger.peak_bytes(),
            pipelines: self.pipelines.load(Relaxed),
            submissions: self.submissions.load(Relaxed),
            dispatches: self.dispatches.load(Relaxed),
            reads: self.reads.load(Relaxed),
        }
    }

    /// The error with those who hold the memory, where there was none.
    pub(crate) fn told(&self, error: BackendError) -> BackendError {
        match error {
            BackendError::OutOfMemory(error) => self.ledger.out_of_memory(&error.label, error.bytes),
            error => error,
        }
    }
}

/// A buffer on the device, counted while it lives.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) buffer: wgpu::Buffer,
    lease: Lease,
}

impl Memory {
    /// Allocates. wgpu clears a buffer before its first use.
    pub(crate) fn new(
        device: &wgpu::Device,
        tally: &Tally,
        bytes: u64,
        usage: wgpu::BufferUsages,
        label: &str,
    ) -> Result<Self, BackendError> {
        let lease = tally.ledger.take(label, bytes)?;
        let buffer = scoped(device, label, bytes, || {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: bytes,
                usage,
                mapped_at_creation: false,
            })
        });
        match buffer {
            Ok(buffer) => Ok(Self { buffer, lease }),
            Err(error) => {
                drop(lease);
                Err(tally.told(error))
            }
        }
    }

    /// True if the buffer was allocated by the backend with this tally.
    pub(crate) fn belongs_to(&self, tally: &Tally) -> bool {
        self.lease.is_of(&tally.ledger)
    }
}

/// Runs wgpu calls and returns the first error that they report, in Kiln's words.
///
/// Scopes belong to the calling thread, so calls on other threads do not mix.
pub(crate) fn scoped<T>(
    device: &wgpu::Device,
    label: &str,
    bytes: u64,
    call: impl FnOnce() -> T,
) -> Result<T, BackendError> {
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let result = call();
    let errors = [internal.pop(), memory.pop(), validation.pop()].map(pollster::block_on);
    match errors.into_iter().flatten().next() {
        Some(error) => Err(translate(error, label, bytes)),
        None => Ok(result),
    }
}

/// wgpu's error in Kiln's words.
pub(crate) fn translate(error: wgpu::Error, label: &str, bytes: u64) -> BackendError {
    match error {
        wgpu::Error::OutOfMemory { .. } => Arc::new(Ledger::default()).out_of_memory(label, bytes),
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            let message = one_line(&description);
            if message.contains("device is lost") || message.contains("Device is lost") {
                BackendError::DeviceLost(message)
            } else {
                BackendError::Validation { label: label.to_owned(), message }
            }
        }
    }
}

/// wgpu's messages run over several indented lines.
pub(crate) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Something of a size: memory, or what stands for it.
pub(crate) trait Bytes {
    fn bytes(&self) -> u64;
}

impl Bytes for Memory {
    fn bytes(&self) -> u64 {
        self.lease.bytes()
    }
}

impl Bytes for Lease {
    fn bytes(&self) -> u64 {
        self.bytes()
    }
}

/// What buffers for reading are called.
pub const STAGING: &str = "staging";

/// Buffers that results are copied to on their way to the host, kept for the next read.
#[derive(Debug)]
pub(crate) struct Staging<M> {
    free: Mutex<Vec<M>>,
}

impl<M: Bytes> Staging<M> {
    /// Reads of up to this many bytes find a buffer from the start.
    const SMALLEST: u64 = 4096;
    /// More than this is not kept.
    const MOST_BYTES: u64 = 256 << 20;

    /// With the first small buffers, so that a loss that is read now and then allocates nothing.
    pub(crate) fn new(create: impl Fn(u64) -> Result<M, BackendError>) -> Result<Self, BackendError> {
        let free = vec![create(Self::SMALLEST)?, create(Self::SMALLEST)?];
        Ok(Self { free: Mutex::new(free) })
    }

    /// The smallest free buffer of at least `bytes`, or a new one, of no more than `largest` unless it must be.
    pub(crate) fn take(
        &self,
        bytes: u64,
        largest: u64,
        create: impl FnOnce(u64) -> Result<M, BackendError>,
    ) -> Result<M, BackendError> {
        let size = bytes.next_power_of_two().max(Self::SMALLEST);
        let found = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let best = free
                .iter()
                .enumerate()
                // A far larger one would make a later, larger read allocate again.
                .filter(|(_, m)| m.bytes() >= bytes && m.bytes() <= 4 * size)
                .min_by_key(|(_, m)| m.bytes())
                .map(|(i, _)| i);
            best.map(|i| free.swap_remove(i))
        };
        match found {
            Some(memory) => Ok(memory),
            None => create(size.min(largest).max(bytes)),
        }
    }

    /// Takes an unmapped buffer back.
    pub(crate) fn give(&self, memory: M) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let held: u64 = free.iter().map(Bytes::bytes).sum();
        if held + memory.bytes() <= Self::MOST_BYTES {
            free.push(memory);
        }
    }
}

/// A buffer to read through.
pub(crate) fn staging(device: &wgpu::Device, tally: &Tally, bytes: u64) -> Result<Memory, BackendError> {
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    Memory::new(device, tally, bytes, usage, STAGING)
}
