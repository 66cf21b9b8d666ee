//! The wgpu backend: buffers, programs, submissions and reads.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use kiln_kernel::{
    Access, Backend, BackendError, Binding, Buffer, Counters, DType, Holder, Host, HostRef, Kernel, Launch,
    LaunchTime, Ledger, Limits, Program, Reading, View,
};

use crate::{
    device::DeviceOptions,
    incidents::{Incidents, poll},
    memory::{Memory, Staging, Tally, scoped, staging},
    pipeline::{Compiled, Pipelines},
};

/// Bytes of an element: both types have 32 bits on a GPU.
pub(crate) const ELEMENT: u64 = 4;

/// Submissions that may be under way before [`Backend::run`] waits for the oldest: enough to keep the device
/// busy, few enough that an interrupt is heard and command buffers do not pile up.
const IN_FLIGHT: usize = 8;

/// Most submissions that a run begins in, where a device was lost again and again.
const MOST_PIECES: usize = 1 << 10;

/// A submission of [`Backend::run`] that may be under way.
struct Flight {
    index: wgpu::SubmissionIndex,
    /// That of the program.
    pieces: Arc<AtomicUsize>,
    /// How many it was in.
    was: usize,
}

/// An open wgpu device. Users hold a [`crate::Device`].
pub(crate) struct WgpuBackend {
    pub(crate) name: String,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) pipelines: Pipelines,
    pub(crate) incidents: Arc<Incidents>,
    tally: Arc<Tally>,
    staging: Arc<Staging<Memory>>,
    /// What may be under way, oldest first.
    in_flight: Mutex<VecDeque<Flight>>,
    /// A run whose submission took longer is made in more of them the next time.
    longest_submission: Duration,
    /// Submissions that a run of a program begins in.
    pieces: AtomicUsize,
    /// The most that one has come to.
    grown: AtomicUsize,
}

/// Launches with their pipelines and bind groups.
struct Prepared {
    /// A bind group for each of a kernel's dispatches.
    launches: Vec<(Compiled, Vec<wgpu::BindGroup>)>,
    dispatches: u64,
    /// Submissions that one run is made in.
    pieces: Arc<AtomicUsize>,
    tally: Arc<Tally>,
}

impl WgpuBackend {
    pub(crate) fn new(
        name: String,
        device: wgpu::Device,
        queue: wgpu::Queue,
        pipelines: Pipelines,
        incidents: Arc<Incidents>,
        options: &DeviceOptions,
    ) -> Result<Self, BackendError> {
        let longest_submission = options.longest_submission;
        let ledger = Arc::new(Ledger::new(options.memory_budget));
        let tally = Arc::new(Tally { ledger, ..Tally::default() });
        let staging = Arc::new(Staging::new(|bytes| staging(&device, &tally, bytes))?);
        tally.ledger.fail(options.fail_allocation);
        let in_flight = Mutex::new(VecDeque::with_capacity(IN_FLIGHT + 1));
        let (pieces, grown) = (AtomicUsize::new(1), AtomicUsize::new(1));
        Ok(Self {
            name,
            device,
            queue,
            pipelines,
            incidents,
            tally,
            staging,
            in_flight,
            longest_submission,
            pieces,
            grown,
        })
    }

    /// What was said when the device was lost, if it was; that it takes longer is no loss.
    pub(crate) fn lost(&self) -> Option<String> {
        if let Some(message) = self.incidents.loss() {
            return Some(message);
        }
        // a loss is told of when somebody asks the device for news, and what was under way has ended
        let how = wgpu::PollType::Wait { submission_index: None, timeout: Some(Duration::from_secs(2)) };
        let _ = poll(&self.device, &self.incidents, how);
        self.incidents.loss()
    }

    /// Programs that are prepared from now on begin in twice as many submissions as one of a device that was lost had come to:
    /// it may have been given up for one that took too long.
    pub(crate) fn submit_less_than(&self, lost: &Self) {
        let most = lost.pieces.load(Relaxed).max(lost.grown.load(Relaxed));
        self.pieces.store(most.saturating_mul(2).min(MOST_PIECES), Relaxed);
    }

    fn memory<'a>(&self, view: &'a View, label: &str) -> Result<&'a Memory, BackendError> {
        let invalid = |message: String| BackendError::Validation { label: label.to_owned(), message };
        let memory = view
            .buffer
            .downcast::<Memory>()
            .filter(|m| m.belongs_to(&self.tally))
            .ok_or_else(|| invalid("the buffer belongs to another device".to_owned()))?;
        if view.offset.checked_add(view.len).is_none_or(|end| end > view.buffer.len()) {
            return Err(invalid(format!(
                "elements {} to {} of a buffer of {}",
                view.offset,
                view.offset.saturating_add(view.len),
                view.buffer.len()
            )));
        }
        Ok(memory)
    }

    /// Checks an argument against the binding and the device's limits.
    fn argument<'a>(
        &self,
        binding: &Binding,
        view: &'a View,
        label: &str,
    ) -> Result<&'a Memory, BackendError> {
        let invalid = |message: String| BackendError::Validation { label: label.to_owned(), message };
        let memory = self.memory(view, label)?;
        let (name, limits) = (&binding.name, &self.pipelines.facts.limits);
        if view.len != binding.len {
            return Err(invalid(format!("\"{name}\" takes {} elements, not {}", binding.len, view.len)));
        }
        if view.buffer.dtype() != binding.dtype {
            return Err(invalid(format!(
                "\"{name}\" takes {:?} elements, not {:?}",
                binding.dtype,
                view.buffer.dtype()
            )));
        }
        if !view.offset.is_multiple_of(limits.offset_alignment) {
            return Err(invalid(format!(
                "\"{name}\" begins at element {}, which is not a multiple of {}",
                view.offset, limits.offset_alignment
            )));
        }
        let needed = view.len as u64 * ELEMENT;
        if needed > limits.max_binding_bytes {
            return Err(BackendError::Limit {
                label: format!("{label}: {name}"),
                what: "bytes in one argument",
                needed,
                allowed: limits.max_binding_bytes,
            });
        }
        Ok(memory)
    }

    /// Refuses a launch that writes what it also reads or writes through another argument.
    fn aliases(bindings: &[Binding], arguments: &[View], label: &str) -> Result<(), BackendError> {
        for (i, (a, x)) in bindings.iter().zip(arguments).enumerate() {
            for (b, y) in bindings.iter().zip(arguments).skip(i + 1) {
                if !x.buffer.same(&y.buffer) || (a.access == Access::Read && b.access == Access::Read) {
                    continue;
                }
                let both_write = a.access != Access::Read && b.access != Access::Read;
                let overlap = x.offset < y.offset + y.len && y.offset < x.offset + x.len;
                if !both_write || overlap {
                    return Err(BackendError::Validation {
                        label: label.to_owned(),
                        message: format!(
                            "\"{}\" and \"{}\" are in one buffer, and one of them is written",
                            a.name, b.name
                        ),
                    });
                }
            }
        }
        Ok(())
    }

    fn bind(&self, launch: &Launch<View>) -> Result<(Compiled, Vec<wgpu::BindGroup>), BackendError> {
        let label = &*launch.label;
        let Some(pipelines) = self.pipelines.get(&launch.kernel) else {
            unreachable!("prepare compiles every launch's kernel first")
        };
        let bindings = launch.kernel.bindings();
        let mut groups = Vec::with_capacity(pipelines.len());
        for pipeline in &*pipelines {
            let mut entries = Vec::with_capacity(pipeline.arguments.len());
            for (slot, &argument) in (0u32..).zip(&pipeline.arguments) {
                let view = &launch.arguments[argument];
                let memory = self.argument(&bindings[argument], view, label)?;
                entries.push(wgpu::BindGroupEntry {
                    binding: slot,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &memory.buffer,
                        offset: view.offset as u64 * ELEMENT,
                        size: std::num::NonZeroU64::new(view.len as u64 * ELEMENT),
                    }),
                });
            }
            groups.push(scoped(&self.device, label, 0, || {
                self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some(label),
                    layout: &pipeline.layout,
                    entries: &entries,
                })
            })?);
        }
        Ok((pipelines, groups))
    }

    /// What needs no device: counts, aliases and the number of buffers.
    fn check_launch(&self, launch: &Launch<View>) -> Result<(), BackendError> {
        let label = &*launch.label;
        let bindings = launch.kernel.bindings();
        if bindings.len() != launch.arguments.len() {
            return Err(BackendError::Validation {
                label: label.to_owned(),
                message: format!(
                    "{} takes {} arguments, not {}",
                    launch.kernel,
                    bindings.len(),
                    launch.arguments.len()
                ),
            });
        }
        let allowed = self.pipelines.facts.limits.max_storage_buffers;
        let needed = match &launch.kernel {
            // with more than fit, its kernels run apart
            Kernel::Pair(pair) => pair.first.bindings().len().max(pair.second.bindings().len()),
            _ => bindings.len(),
        };
        if needed > allowed as usize {
            return Err(BackendError::Limit {
                label: label.to_owned(),
                what: "buffers in one kernel",
                needed: needed as u64,
                allowed: allowed.into(),
            });
        }
        for (binding, view) in bindings.iter().zip(&launch.arguments) {
            self.argument(binding, view, label)?;
        }
        Self::aliases(&bindings, &launch.arguments, label)
    }

    pub(crate) fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        let index = self.queue.submit([encoder.finish()]);
        self.tally.submissions.fetch_add(1, Relaxed);
        index
    }

    /// A program's launches, if it was prepared here and the device is well.
    fn prepared<'a>(&self, program: &'a Program) -> Result<&'a Prepared, BackendError> {
        self.incidents.check()?;
        let prepared = program.downcast::<Prepared>().filter(|p| Arc::ptr_eq(&p.tally, &self.tally));
        prepared.ok_or_else(|| BackendError::Validation {
            label: "run".to_owned(),
            message: "the program was prepared by another device".to_owned(),
        })
    }

    /// Submits some launches of a program that is run several times over, counted from the first of the first run.
    fn submit_part(&self, prepared: &Prepared, part: Range<usize>) -> wgpu::SubmissionIndex {
        let mut encoder =
            self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("run") });
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("run"),
                timestamp_writes: None,
            });
            for launch in part {
                let (pipelines, groups) = &prepared.launches[launch % prepared.launches.len()];
                for (pipeline, group) in pipelines.iter().zip(groups) {
                    let [x, y, z] = pipeline.workgroups;
                    pass.set_pipeline(&pipeline.pipeline);
                    pass.set_bind_group(0, group, &[]);
                    pass.dispatch_workgroups(x, y, z);
                }
            }
        }
        self.submit(encoder)
    }

    /// Notes a submission; where too many are under way, waits for the oldest. A display's driver gives a device up that
    /// does not answer for seconds: a run whose submission took long is made in more of them from then on.
    fn enqueue(
        &self,
        index: wgpu::SubmissionIndex,
        prepared: &Prepared,
        pieces: usize,
    ) -> Result<(), BackendError> {
        let flight = Flight { index, pieces: Arc::clone(&prepared.pieces), was: pieces };
        let oldest = {
            let mut flights = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
            flights.push_back(flight);
            if flights.len() <= IN_FLIGHT {
                return Ok(());
            }
            flights.pop_front()
        };
        let Some(oldest) = oldest else { return Ok(()) };
        // what it takes at least: where the host was busy elsewhere, it may have been over long ago
        let waiting = Instant::now();
        self.wait(oldest.index)?;
        if waiting.elapsed() > self.longest_submission {
            // twice as many, unless another of its submissions has seen to that already
            oldest.pieces.fetch_max(2 * oldest.was, Relaxed);
            self.grown.fetch_max(2 * oldest.was, Relaxed);
        }
        Ok(())
    }

    fn start_read(&self, from: &View) -> Result<Pending, BackendError> {
        self.incidents.check()?;
        let memory = self.memory(from, "read")?;
        let bytes = from.len as u64 * ELEMENT;
        let largest = self.device.limits().max_buffer_size;
        let create = |bytes| staging(&self.device, &self.tally, bytes);
        let staging = self.staging.take(bytes.max(ELEMENT), largest, create)?;
        let index = scoped(&self.device, "read", bytes, || {
            let mut encoder =
                self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("read") });
            if bytes > 0 {
                let offset = from.offset as u64 * ELEMENT;
                encoder.copy_buffer_to_buffer(&memory.buffer, offset, &staging.buffer, 0, Some(bytes));
            }
            self.submit(encoder)
        })
        .map_err(|error| self.tally.told(error))?;
        self.tally.reads.fetch_add(1, Relaxed);
        Ok(Pending {
            device: self.device.clone(),
            incidents: Arc::clone(&self.incidents),
            pool: Arc::clone(&self.staging),
            staging: Some(staging),
            index,
            dtype: from.buffer.dtype(),
            len: from.len,
        })
    }
}

/// How long the news of a finished copy may take from one thread to another.
const CALLBACK_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// A copy that was queued for the host. Nobody need wait for it: its buffer goes back to the pool with it.
struct Pending {
    device: wgpu::Device,
    incidents: Arc<Incidents>,
    pool: Arc<Staging<Memory>>,
    /// None once it has gone back, or cannot.
    staging: Option<Memory>,
    index: wgpu::SubmissionIndex,
    dtype: DType,
    len: usize,
}

impl Drop for Pending {
    fn drop(&mut self) {
        // a later copy into it is queued behind this one
        if let Some(staging) = self.staging.take() {
            self.pool.give(staging);
        }
    }
}

impl Pending {
    /// Waits for the copy and takes its elements. Blocks the thread: wgpu has no other way to wait natively.
    fn finish(mut self) -> Result<Host, BackendError> {
        let lost = |message: String| BackendError::DeviceLost(message);
        // taken out: where anything fails it may still be mapped, and is of no use to the pool
        let staging = self.staging.take().filter(|_| self.len > 0);
        let Some(staging) = staging else {
            return Ok(match self.dtype {
                DType::F32 => Host::F32(Vec::new()),
                DType::U32 => Host::U32(Vec::new()),
            });
        };
        let slice = staging.buffer.slice(..self.len as u64 * ELEMENT);
        let (sender, receiver) = std::sync::mpsc::channel();
        slice.map_async(wgpu::MapMode::Read, move |result| {
            // Nobody is waiting any more if the wait below has given up.
            let _ = sender.send(result);
        });
        let how = wgpu::PollType::Wait { submission_index: Some(self.index.clone()), timeout: None };
        poll(&self.device, &self.incidents, how)?;
        self.incidents.check()?;
        // Another thread's poll may be the one that found the copy done, and be about to say so.
        match receiver.recv_timeout(CALLBACK_PATIENCE) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(lost(format!("mapping a read: {e}"))),
            Err(_) => return Err(lost("a read was never mapped".to_owned())),
        }
        let mapped = slice.get_mapped_range().map_err(|e| lost(format!("mapping a read: {e}")))?;
        // Collected rather than cast: a mapping need not be aligned for the type.
        let host = match self.dtype {
            DType::F32 => Host::F32(bytemuck::pod_collect_to_vec(&mapped)),
            DType::U32 => Host::U32(bytemuck::pod_collect_to_vec(&mapped)),
        };
        drop(mapped);
        staging.buffer.unmap();
        self.staging = Some(staging);
        Ok(host)
    }
}

impl Backend for WgpuBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn limits(&self) -> Limits {
        self.pipelines.facts.limits
    }

    fn counters(&self) -> Counters {
        self.tally.counters()
    }

    fn holders(&self) -> Vec<Holder> {
        self.tally.ledger.holders()
    }

    /// A length of zero is allowed; such a buffer can be written and read, but not bound.
    fn allocate(&self, dtype: DType, len: usize, label: &str) -> Result<Buffer, BackendError> {
        self.incidents.check()?;
        let bytes = (len as u64).saturating_mul(ELEMENT).max(ELEMENT);
        let allowed = self.pipelines.facts.limits.max_buffer_bytes;
        if bytes > allowed {
            return Err(BackendError::Limit {
                label: label.to_owned(),
                what: "bytes in one buffer",
                needed: bytes,
                allowed,
            });
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let memory = Memory::new(&self.device, &self.tally, bytes, usage, label)?;
        Ok(Buffer::new(Arc::new(memory), dtype, len))
    }

    fn write(&self, to: &View, data: HostRef<'_>) -> Result<(), BackendError> {
        self.incidents.check()?;
        let memory = self.memory(to, "write")?;
        let invalid = |message: String| BackendError::Validation { label: "write".to_owned(), message };
        if data.len() > to.len {
            return Err(invalid(format!("{} elements do not fit into {}", data.len(), to.len)));
        }
        let rounded: Vec<f32>;
        let bytes: &[u8] = match (data, to.buffer.dtype()) {
            (HostRef::F32(v), DType::F32) => bytemuck::cast_slice(v),
            (HostRef::U32(v), DType::U32) => bytemuck::cast_slice(v),
            (HostRef::F64(v), DType::F32) => {
                rounded = v.iter().map(|&x| x as f32).collect();
                bytemuck::cast_slice(&rounded)
            }
            (_, dtype) => {
                return Err(invalid(format!("the elements are not of the buffer's type {dtype:?}")));
            }
        };
        if bytes.is_empty() {
            return Ok(());
        }
        scoped(&self.device, "write", bytes.len() as u64, || {
            self.queue.write_buffer(&memory.buffer, to.offset as u64 * ELEMENT, bytes);
        })
        .map_err(|error| self.tally.told(error))
    }

    fn read(&self, from: &View) -> Reading {
        let pending = self.start_read(from);
        Box::pin(async move { pending?.finish() })
    }

    fn prepare(&self, launches: &[Launch<View>]) -> Result<Program, BackendError> {
        self.incidents.check()?;
        for launch in launches {
            self.check_launch(launch)?;
        }
        self.pipelines.compile(&self.device, &self.tally, launches.iter().map(|l| &l.kernel))?;
        let bound = launches.iter().map(|l| self.bind(l)).collect::<Result<Vec<_>, _>>()?;
        let dispatches: usize = bound.iter().map(|(_, groups)| groups.len()).sum();
        let tally = Arc::clone(&self.tally);
        let pieces = Arc::new(AtomicUsize::new(self.pieces.load(Relaxed)));
        let prepared = Prepared { launches: bound, dispatches: dispatches as u64, pieces, tally };
        Ok(Program::new(Arc::new(prepared), dispatches))
    }

    fn run(&self, program: &Program, times: u32) -> Result<(), BackendError> {
        let prepared = self.prepared(program)?;
        if prepared.launches.is_empty() || times == 0 {
            return Ok(());
        }
        let all = prepared.launches.len() * times as usize;
        let pieces = prepared.pieces.load(Relaxed).min(all);
        for piece in 0..pieces {
            let part = all * piece / pieces..all * (piece + 1) / pieces;
            let index = scoped(&self.device, "run", 0, || self.submit_part(prepared, part))
                .map_err(|error| self.tally.told(error))?;
            self.enqueue(index, prepared, pieces)?;
        }
        self.tally.dispatches.fetch_add(prepared.dispatches * u64::from(times), Relaxed);
        Ok(())
    }

    fn profile(&self, program: &Program) -> Result<Vec<LaunchTime>, BackendError> {
        let prepared = self.prepared(program)?;
        let dispatches: Vec<_> =
            prepared.launches.iter().flat_map(|(pipelines, groups)| pipelines.iter().zip(groups)).collect();
        self.tally.dispatches.fetch_add(prepared.dispatches, Relaxed);
        let mut times = self.time(&dispatches)?.into_iter();
        let together = prepared.launches.iter().map(|(pipelines, _)| {
            // a pair that runs apart is one launch of the program
            let parts: Vec<LaunchTime> = times.by_ref().take(pipelines.len()).collect();
            let variants: Vec<&str> = parts.iter().map(|part| &*part.variant).collect();
            let seconds = parts.iter().map(|part| part.seconds).sum();
            let apart = if variants.len() > 1 { "apart: " } else { "" };
            LaunchTime { seconds, variant: format!("{apart}{}", variants.join("; ")) }
        });
        Ok(together.collect())
    }
}
