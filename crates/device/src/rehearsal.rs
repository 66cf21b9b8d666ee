//! A device that only counts: what a program would take of the real one.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use kiln_kernel::{
    Backend, BackendError, Buffer, Counters, DType, Holder, Host, HostRef, Kernel, Launch, LaunchTime, Lease,
    Ledger, Limits, Program, Reading, View,
};

use crate::{
    backend::{ELEMENT, WgpuBackend},
    memory::{STAGING, Staging},
    pair::workgroup_bytes,
};

/// What a program asks of one of a device's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// What is limited, in words.
    pub what: &'static str,
    /// The most that is asked for.
    pub needed: u64,
    /// What the device allows.
    pub allowed: u64,
    /// The buffer or launch that asks for it.
    pub by: String,
}

/// The backend of [`crate::Device::rehearse`].
pub(crate) struct Rehearsal {
    name: String,
    limits: Limits,
    /// The adapter's own, which says how kernels would run there; none on the CPU, which allows everything.
    gpu: Option<Arc<WgpuBackend>>,
    ledger: Arc<Ledger>,
    staging: Option<Arc<Staging<Lease>>>,
    reads: AtomicU64,
    /// Kernels with their labels, each once, and the largest buffer and argument so far.
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    kernels: Vec<(Kernel, Arc<str>)>,
    buffer: (u64, String),
    argument: (u64, String),
}

impl Rehearsal {
    pub(crate) fn new(
        of: &dyn Backend,
        gpu: Option<Arc<WgpuBackend>>,
        budget: Option<u64>,
    ) -> Result<Self, BackendError> {
        let ledger = Arc::new(Ledger::new(budget));
        let staging = match &gpu {
            Some(_) => Some(Arc::new(Staging::new(|bytes| ledger.take(STAGING, bytes))?)),
            None => None,
        };
        Ok(Self {
            name: of.name().to_owned(),
            limits: of.limits(),
            gpu,
            ledger,
            staging,
            reads: AtomicU64::new(0),
            asked: Mutex::default(),
        })
    }

    /// The adapter that this stands for, if it is one.
    pub(crate) fn adapter(&self) -> Option<&Arc<WgpuBackend>> {
        self.gpu.as_ref()
    }

    /// The most that was asked of each limit.
    pub(crate) fn needs(&self) -> Result<Vec<Need>, BackendError> {
        let Some(gpu) = &self.gpu else { return Ok(Vec::new()) };
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = &self.limits;
        let mut needs = [
            ("bytes in one buffer", limits.max_buffer_bytes),
            ("bytes in one argument", limits.max_binding_bytes),
            ("buffers in one kernel", limits.max_storage_buffers.into()),
            ("workgroups per dimension", limits.max_workgroups_per_dimension.into()),
            ("bytes of workgroup memory", limits.workgroup_memory_bytes.into()),
            ("invocations in a workgroup", limits.max_workgroup_invocations.into()),
        ]
        .map(|(what, allowed)| Need { what, needed: 0, allowed, by: String::new() });
        let mut raise = |at: usize, needed: u64, by: &str| {
            let need: &mut Need = &mut needs[at];
            if needed > need.needed {
                (need.needed, need.by) = (needed, by.to_owned());
            }
        };
        raise(0, asked.buffer.0, &asked.buffer.1);
        raise(1, asked.argument.0, &asked.argument.1);
        for (kernel, label) in &asked.kernels {
            let by = format!("{label}: {}", kernel.name());
            for dispatch in gpu.pipelines.dispatches(kernel)?.each {
                raise(2, dispatch.kernel.bindings().len() as u64, &by);
                let assembled = &dispatch.assembled;
                raise(3, assembled.workgroups.into_iter().max().unwrap_or(1).into(), &by);
                raise(4, workgroup_bytes(assembled)?.into(), &by);
                raise(5, assembled.workgroup_size.iter().map(|&n| u64::from(n)).product(), &by);
            }
        }
        Ok(needs.into())
    }

    /// Refuses what the adapter would refuse.
    fn check(&self, gpu: &WgpuBackend, launch: &Launch<View>) -> Result<(), BackendError> {
        let limit = |what: &'static str, needed: u64, allowed: u64, label: String| {
            if needed > allowed { Err(BackendError::Limit { label, what, needed, allowed }) } else { Ok(()) }
        };
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        for (binding, view) in launch.kernel.bindings().iter().zip(&launch.arguments) {
            let bytes = view.len as u64 * ELEMENT;
            let label = || format!("{}: {}", launch.label, binding.name);
            limit("bytes in one argument", bytes, self.limits.max_binding_bytes, label())?;
            if bytes > asked.argument.0 {
                asked.argument = (bytes, label());
            }
        }
        if asked.kernels.iter().any(|(kernel, _)| *kernel == launch.kernel) {
            return Ok(());
        }
        for dispatch in gpu.pipelines.dispatches(&launch.kernel)?.each {
            let (needed, allowed) = (dispatch.kernel.bindings().len(), self.limits.max_storage_buffers);
            limit("buffers in one kernel", needed as u64, allowed.into(), launch.label.to_string())?;
        }
        asked.kernels.push((launch.kernel.clone(), launch.label.clone()));
        Ok(())
    }
}

/// A read that was queued; as on an adapter, its buffer goes back with it.
struct Pending {
    pool: Arc<Staging<Lease>>,
    staging: Option<Lease>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(staging) = self.staging.take() {
            self.pool.give(staging);
        }
    }
}

impl Backend for Rehearsal {
    fn name(&self) -> &str {
        &self.name
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn counters(&self) -> Counters {
        Counters {
            allocations: self.ledger.allocations(),
            live_bytes: self.ledger.live_bytes(),
            peak_bytes: self.ledger.peak_bytes(),
            reads: self.reads.load(Relaxed),
            ..Counters::default()
        }
    }

    fn is_rehearsal(&self) -> bool {
        true
    }

    fn holders(&self) -> Vec<Holder> {
        self.ledger.holders()
    }

    fn allocate(&self, dtype: DType, len: usize, label: &str) -> Result<Buffer, BackendError> {
        let least = if self.gpu.is_some() { ELEMENT } else { 0 };
        let bytes = (len as u64).saturating_mul(ELEMENT).max(least);
        let allowed = self.limits.max_buffer_bytes;
        if bytes > allowed {
            let (label, what) = (label.to_owned(), "bytes in one buffer");
            return Err(BackendError::Limit { label, what, needed: bytes, allowed });
        }
        let lease = self.ledger.take(label, bytes)?;
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > asked.buffer.0 {
            asked.buffer = (bytes, label.to_owned());
        }
        Ok(Buffer::new(Arc::new(lease), dtype, len))
    }

    fn write(&self, _: &View, _: HostRef<'_>) -> Result<(), BackendError> {
        Ok(())
    }

    fn read(&self, from: &View) -> Reading {
        self.reads.fetch_add(1, Relaxed);
        let (dtype, len) = (from.buffer.dtype(), from.len);
        let bytes = (len as u64 * ELEMENT).max(ELEMENT);
        let largest = self.gpu.as_ref().map_or(u64::MAX, |gpu| gpu.device.limits().max_buffer_size);
        let pending = match &self.staging {
            None => Ok(None),
            Some(pool) => pool
                .take(bytes, largest, |bytes| self.ledger.take(STAGING, bytes))
                .map(|staging| Some(Pending { pool: Arc::clone(pool), staging: Some(staging) })),
        };
        Box::pin(async move {
            drop(pending?);
            Ok(match dtype {
                DType::F32 => Host::F32(vec![0.0; len]),
                DType::U32 => Host::U32(vec![0; len]),
            })
        })
    }

    fn prepare(&self, launches: &[Launch<View>]) -> Result<Program, BackendError> {
        if let Some(gpu) = &self.gpu {
            launches.iter().try_for_each(|launch| self.check(gpu, launch))?;
        }
        Ok(Program::new(Arc::new(()), launches.len()))
    }

    fn run(&self, _: &Program, _: u32) -> Result<(), BackendError> {
        Ok(())
    }

    fn profile(&self, program: &Program) -> Result<Vec<LaunchTime>, BackendError> {
        Ok(vec![LaunchTime { seconds: 0.0, variant: "rehearsed".to_owned() }; program.launches()])
    }
}
