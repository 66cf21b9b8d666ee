use std::{
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Instant,
};

use kiln_kernel::{
    Backend, BackendError, Buffer, Counters, DType, Holder, Host, HostRef, Launch, LaunchTime, Ledger,
    Limits, Program, Reading, View,
};

use crate::{
    Real,
    arguments::Bound,
    parallel::Pool,
    storage::{Data, Shared, Storage},
};

/// The CPU as a [`Backend`]: `Cpu<f32>` (`cpu`) trains where there is no GPU, `Cpu<f64>` (`cpu-f64`) is the
/// ground truth that every shader is checked against.
///
/// Kernels run on a pool of threads of their own, one after the other, when [`Backend::run`] is called; it returns when
/// they are done. `RAYON_NUM_THREADS` says how many threads there are. Results do not depend on their number or timing:
/// two runs give the same bits.
///
/// ```
/// use kiln_kernel::{Backend, DType, HostRef};
/// use kiln_reference::Cpu;
///
/// let cpu = Cpu::<f32>::new();
/// let x = cpu.allocate(DType::F32, 3, "x")?;
/// cpu.write(&x.view(), HostRef::F32(&[1.0, 2.0, 3.0]))?;
/// # Ok::<(), kiln_kernel::BackendError>(())
/// ```
pub struct Cpu<T> {
    shared: Arc<Shared>,
    /// One submission at a time. A GPU's queue has the same effect.
    queue: Mutex<()>,
    pool: Pool,
    real: PhantomData<fn() -> T>,
}

impl<T: Real> Cpu<T> {
    /// Opens the CPU.
    pub fn new() -> Self {
        Self::with_budget(None)
    }

    /// Opens the CPU, of whose memory buffers may take at most so many bytes at a time.
    pub fn with_budget(budget: Option<u64>) -> Self {
        let shared = Arc::new(Shared::new(budget));
        Self { shared, queue: Mutex::new(()), pool: Pool::shared(), real: PhantomData }
    }

    /// With so many threads of its own, instead of those that all share.
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.pool = Pool::of(threads.max(1));
        self
    }

    /// The account of the memory.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.shared.ledger
    }

    /// The view's storage, after checking that it belongs here and that `len` elements fit.
    fn storage<'a>(&self, view: &'a View, len: usize) -> Result<&'a Storage<T>, BackendError> {
        let storage = view.buffer.downcast::<Storage<T>>().filter(|s| s.belongs_to(&self.shared));
        let Some(storage) = storage else {
            return Err(invalid("buffer", "it belongs to another device".into()));
        };
        let inside = view.offset.checked_add(view.len).is_some_and(|end| end <= view.buffer.len());
        if !inside || len > view.len {
            let (offset, view_len, all) = (view.offset, view.len, view.buffer.len());
            return Err(invalid(
                "buffer",
                format!("{len} elements do not fit elements {offset}..+{view_len} of {all}"),
            ));
        }
        Ok(storage)
    }
}

impl<T> Cpu<T> {
    /// A program's launches, if it was prepared here.
    fn launches<'a>(&self, program: &'a Program) -> Result<&'a [Bound], BackendError> {
        let launches = program.downcast::<Launches>();
        let launches = launches.filter(|launches| Arc::ptr_eq(&launches.shared, &self.shared));
        launches
            .map(|launches| &*launches.bound)
            .ok_or_else(|| invalid("run", "the program was prepared by another device".into()))
    }
}

impl<T: Real> Default for Cpu<T> {
    fn default() -> Self {
        Self::new()
    }
}

fn invalid(label: &str, message: String) -> BackendError {
    BackendError::Validation { label: label.into(), message }
}

/// `len` zeros, or `None` where there is no memory for them.
fn zeros<E: Copy + Default>(len: usize) -> Option<Vec<E>> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).ok()?;
    values.resize(len, E::default());
    Some(values)
}

impl<T: Real> Backend for Cpu<T> {
    fn name(&self) -> &str {
        T::NAME
    }

    fn limits(&self) -> Limits {
        Limits {
            max_buffer_bytes: isize::MAX as u64,
            max_binding_bytes: isize::MAX as u64,
            max_storage_buffers: u32::MAX,
            max_workgroups_per_dimension: u32::MAX,
            workgroup_memory_bytes: u32::MAX,
            max_workgroup_invocations: u32::MAX,
            offset_alignment: 1,
        }
    }

    fn counters(&self) -> Counters {
        self.shared.counters()
    }

    fn holders(&self) -> Vec<Holder> {
        self.shared.ledger.holders()
    }

    fn allocate(&self, dtype: DType, len: usize, label: &str) -> Result<Buffer, BackendError> {
        let size = match dtype {
            DType::F32 => size_of::<T>(),
            DType::U32 => size_of::<u32>(),
        };
        let bytes = (len as u64).saturating_mul(size as u64);
        let lease = self.shared.ledger.take(label, bytes)?;
        let data = match dtype {
            DType::F32 => zeros::<T>(len).map(|values| Data::Real(RwLock::new(values))),
            DType::U32 => zeros::<u32>(len).map(|values| Data::Uint(RwLock::new(values))),
        };
        let Some(data) = data else {
            drop(lease);
            return Err(self.shared.ledger.out_of_memory(label, bytes));
        };
        Ok(Buffer::new(Arc::new(Storage::new(data, lease)), dtype, len))
    }

    fn write(&self, to: &View, data: HostRef<'_>) -> Result<(), BackendError> {
        let storage = self.storage(to, data.len())?;
        let range = to.offset..to.offset + data.len();
        match (&storage.data, data) {
            (Data::Real(values), HostRef::F32(data)) => {
                let mut values = values.write().unwrap_or_else(PoisonError::into_inner);
                values[range].iter_mut().zip(data).for_each(|(v, &x)| *v = T::from_f32(x));
            }
            (Data::Real(values), HostRef::F64(data)) => {
                let mut values = values.write().unwrap_or_else(PoisonError::into_inner);
                values[range].iter_mut().zip(data).for_each(|(v, &x)| *v = T::from_f64(x));
            }
            (Data::Uint(values), HostRef::U32(data)) => {
                let mut values = values.write().unwrap_or_else(PoisonError::into_inner);
                values[range].copy_from_slice(data);
            }
            (Data::Real(_), HostRef::U32(_)) | (Data::Uint(_), HostRef::F32(_) | HostRef::F64(_)) => {
                let message =
                    format!("the buffer holds {:?}, the data are of another type", to.buffer.dtype());
                return Err(invalid("write", message));
            }
        }
        Ok(())
    }

    fn read(&self, from: &View) -> Reading {
        self.shared.read();
        let range = from.offset..from.offset.saturating_add(from.len);
        let host = self.storage(from, from.len).map(|storage| match &storage.data {
            Data::Real(v) => T::host(v.read().unwrap_or_else(PoisonError::into_inner)[range].to_vec()),
            Data::Uint(v) => Host::U32(v.read().unwrap_or_else(PoisonError::into_inner)[range].to_vec()),
        });
        Box::pin(std::future::ready(host))
    }

    fn prepare(&self, launches: &[Launch<View>]) -> Result<Program, BackendError> {
        let bound: Result<Vec<Bound>, _> =
            launches.iter().map(|launch| Bound::new::<T>(launch, &self.shared)).collect();
        let list = Launches { bound: bound?, shared: self.shared.clone() };
        Ok(Program::new(Arc::new(list), launches.len()))
    }

    fn run(&self, program: &Program, times: u32) -> Result<(), BackendError> {
        let launches = self.launches(program)?;
        let _queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.submitted(u64::from(times) * launches.len() as u64);
        self.pool.run(|| {
            for _ in 0..times {
                for launch in launches {
                    T::dispatch(launch)?;
                }
            }
            Ok(())
        })
    }

    fn profile(&self, program: &Program) -> Result<Vec<LaunchTime>, BackendError> {
        let launches = self.launches(program)?;
        let _queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.submitted(launches.len() as u64);
        self.pool.run(|| {
            let time = |launch| {
                let start = Instant::now();
                T::dispatch(launch)?;
                Ok(LaunchTime { seconds: start.elapsed().as_secs_f64(), variant: T::NAME.to_string() })
            };
            launches.iter().map(time).collect()
        })
    }
}

/// A program of this backend.
struct Launches {
    bound: Vec<Bound>,
    shared: Arc<Shared>,
}
