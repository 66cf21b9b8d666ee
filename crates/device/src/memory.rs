//! Device memory: buffers that count themselves, and a pool of staging buffers for reads.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use kiln_kernel::{BackendError, Counters};

/// What a backend has done, counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) allocations: AtomicU64,
    pub(crate) live_bytes: AtomicU64,
    pub(crate) pipelines: AtomicU64,
    pub(crate) submissions: AtomicU64,
    pub(crate) dispatches: AtomicU64,
    pub(crate) reads: AtomicU64,
}

impl Tally {
    pub(crate) fn counters(&self) -> Counters {
        Counters {
            allocations: self.allocations.load(Relaxed),
            live_bytes: self.live_bytes.load(Relaxed),
            pipelines: self.pipelines.load(Relaxed),
            submissions: self.submissions.load(Relaxed),
            dispatches: self.dispatches.load(Relaxed),
            reads: self.reads.load(Relaxed),
        }
    }
}

/// A buffer on the device, counted while it lives.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) buffer: wgpu::Buffer,
    tally: Arc<Tally>,
}

impl Memory {
    /// Allocates. wgpu clears a buffer before its first use.
    pub(crate) fn new(
        device: &wgpu::Device,
        tally: &Arc<Tally>,
        bytes: u64,
        usage: wgpu::BufferUsages,
        label: &str,
    ) -> Result<Self, BackendError> {
        let buffer = scoped(device, label, bytes, || {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: bytes,
                usage,
                mapped_at_creation: false,
            })
        })?;
        tally.allocations.fetch_add(1, Relaxed);
        tally.live_bytes.fetch_add(bytes, Relaxed);
        Ok(Self { buffer, tally: Arc::clone(tally) })
    }

    /// True if the buffer was allocated by the backend with this tally.
    pub(crate) fn belongs_to(&self, tally: &Arc<Tally>) -> bool {
        Arc::ptr_eq(&self.tally, tally)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.tally.live_bytes.fetch_sub(self.buffer.size(), Relaxed);
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
        wgpu::Error::OutOfMemory { .. } => BackendError::OutOfMemory { label: label.to_owned(), bytes },
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

/// Buffers that results are copied to on their way to the host, kept for the next read.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    free: Mutex<Vec<Memory>>,
}

impl Staging {
    /// Reads of up to this many bytes find a buffer from the start.
    const SMALLEST: u64 = 4096;
    /// More than this is not kept.
    const MOST_BYTES: u64 = 256 << 20;

    /// Puts the first small buffers there, so that a loss that is read now and then allocates nothing.
    pub(crate) fn fill(&self, device: &wgpu::Device, tally: &Arc<Tally>) -> Result<(), BackendError> {
        for _ in 0..2 {
            self.give(Self::create(device, tally, Self::SMALLEST)?);
        }
        Ok(())
    }

    /// The smallest free buffer of at least `bytes`, or a new one.
    pub(crate) fn take(
        &self,
        device: &wgpu::Device,
        tally: &Arc<Tally>,
        bytes: u64,
    ) -> Result<Memory, BackendError> {
        let size = bytes.next_power_of_two().max(Self::SMALLEST);
        let found = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let best = free
                .iter()
                .enumerate()
                // A far larger one would make a later, larger read allocate again.
                .filter(|(_, m)| m.buffer.size() >= bytes && m.buffer.size() <= 4 * size)
                .min_by_key(|(_, m)| m.buffer.size())
                .map(|(i, _)| i);
            best.map(|i| free.swap_remove(i))
        };
        match found {
            Some(memory) => Ok(memory),
            None => Self::create(device, tally, size.min(device.limits().max_buffer_size).max(bytes)),
        }
    }

    /// Takes an unmapped buffer back.
    pub(crate) fn give(&self, memory: Memory) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let held: u64 = free.iter().map(|m| m.buffer.size()).sum();
        if held + memory.buffer.size() <= Self::MOST_BYTES {
            free.push(memory);
        }
    }

    fn create(device: &wgpu::Device, tally: &Arc<Tally>, bytes: u64) -> Result<Memory, BackendError> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Memory::new(device, tally, bytes, usage, "staging")
    }
}
