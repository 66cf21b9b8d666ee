use std::{any::Any, fmt, future::Future, pin::Pin, sync::Arc};

use crate::{BackendError, DType, Holder, Kernel};

/// A piece of device memory. Cheap to clone; the memory is freed with the last clone.
#[derive(Clone)]
pub struct Buffer {
    inner: Arc<dyn Any + Send + Sync>,
    dtype: DType,
    len: usize,
}

impl Buffer {
    /// Wraps a backend's own buffer. For backends.
    pub fn new(inner: Arc<dyn Any + Send + Sync>, dtype: DType, len: usize) -> Self {
        Self { inner, dtype, len }
    }

    /// The backend's own buffer. For backends; `None` if the buffer belongs to another kind of backend.
    pub fn downcast<T: 'static>(&self) -> Option<&T> {
        self.inner.downcast_ref()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if the buffer has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True if both handles name the same memory.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// All elements.
    pub fn view(&self) -> View {
        View { buffer: self.clone(), offset: 0, len: self.len }
    }

    /// `len` elements from `offset` on. On a GPU the offset of an argument must be a multiple of
    /// [`Limits::offset_alignment`].
    pub fn slice(&self, offset: usize, len: usize) -> View {
        View { buffer: self.clone(), offset, len }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({:?} x {})", self.dtype, self.len)
    }
}

/// A range of a buffer's elements.
#[derive(Clone, Debug)]
pub struct View {
    /// The memory.
    pub buffer: Buffer,
    /// First element.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
}

/// Elements on the host, on their way to a device.
#[derive(Clone, Copy, Debug)]
pub enum HostRef<'a> {
    /// Real numbers.
    F32(&'a [f32]),
    /// Real numbers in double precision; a GPU rounds them.
    F64(&'a [f64]),
    /// Unsigned integers.
    U32(&'a [u32]),
}

impl HostRef<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::U32(v) => v.len(),
        }
    }

    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Elements on the host, back from a device.
#[derive(Clone, Debug, PartialEq)]
pub enum Host {
    /// Real numbers, from a GPU or the `cpu` backend.
    F32(Vec<f32>),
    /// Real numbers from the reference in double precision.
    F64(Vec<f64>),
    /// Unsigned integers.
    U32(Vec<u32>),
}

impl Host {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    /// True if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As `f32`, rounding or converting where needed.
    pub fn into_f32(self) -> Vec<f32> {
        match self {
            Self::F32(v) => v,
            Self::F64(v) => v.into_iter().map(|x| x as f32).collect(),
            Self::U32(v) => v.into_iter().map(|x| x as f32).collect(),
        }
    }

    /// As `f64`.
    pub fn into_f64(self) -> Vec<f64> {
        match self {
            Self::F32(v) => v.into_iter().map(f64::from).collect(),
            Self::F64(v) => v,
            Self::U32(v) => v.into_iter().map(f64::from).collect(),
        }
    }

    /// As `u32`, truncating real numbers.
    pub fn into_u32(self) -> Vec<u32> {
        match self {
            Self::F32(v) => v.into_iter().map(|x| x as u32).collect(),
            Self::F64(v) => v.into_iter().map(|x| x as u32).collect(),
            Self::U32(v) => v,
        }
    }

    /// Borrowed, to be written somewhere else.
    pub fn as_ref(&self) -> HostRef<'_> {
        match self {
            Self::F32(v) => HostRef::F32(v),
            Self::F64(v) => HostRef::F64(v),
            Self::U32(v) => HostRef::U32(v),
        }
    }
}

/// A kernel and its arguments, one for each of the kernel's bindings in their order.
///
/// `A` is what an argument is at this stage: a place in a plan, then a [`View`] of a buffer.
#[derive(Clone, Debug)]
pub struct Launch<A> {
    /// What to run.
    pub kernel: Kernel,
    /// What to run it on.
    pub arguments: Vec<A>,
    /// Where it comes from, for errors and profiles: `conv1`, `fc2 backward`.
    pub label: Arc<str>,
}

/// What a device allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest buffer, in bytes.
    pub max_buffer_bytes: u64,
    /// Largest range of a buffer that one argument can cover, in bytes.
    pub max_binding_bytes: u64,
    /// Most arguments of one kernel.
    pub max_storage_buffers: u32,
    /// Most workgroups in each of the grid's three dimensions.
    pub max_workgroups_per_dimension: u32,
    /// Memory that one workgroup shares, in bytes.
    pub workgroup_memory_bytes: u32,
    /// Most invocations of one workgroup.
    pub max_workgroup_invocations: u32,
    /// Arguments start at multiples of this many 4-byte elements.
    pub offset_alignment: usize,
}

/// What a backend has done since it was opened. For tests and `kiln bench`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Buffers allocated.
    pub allocations: u64,
    /// Bytes that allocated and not yet freed buffers hold.
    pub live_bytes: u64,
    /// The most that they held at a time.
    pub peak_bytes: u64,
    /// Pipelines compiled (0 on the CPU).
    pub pipelines: u64,
    /// Submissions to the queue.
    pub submissions: u64,
    /// Kernels launched.
    pub dispatches: u64,
    /// Reads back to the host.
    pub reads: u64,
}

/// A list of launches that a backend has made ready: pipelines compiled, arguments bound.
#[derive(Clone)]
pub struct Program {
    inner: Arc<dyn Any + Send + Sync>,
    launches: usize,
}

impl Program {
    /// Wraps a backend's own program. For backends.
    pub fn new(inner: Arc<dyn Any + Send + Sync>, launches: usize) -> Self {
        Self { inner, launches }
    }

    /// The backend's own program. For backends.
    pub fn downcast<T: 'static>(&self) -> Option<&T> {
        self.inner.downcast_ref()
    }

    /// Number of launches.
    pub fn launches(&self) -> usize {
        self.launches
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({} launches)", self.launches)
    }
}

/// How long one launch of a program took, and how it ran; see [`Backend::profile`].
#[derive(Clone, Debug, PartialEq)]
pub struct LaunchTime {
    /// Seconds on the device.
    pub seconds: f64,
    /// Which of the backend's programs for the kernel ran, in words: `tiled 64x64x16 of 4x4`.
    pub variant: String,
}

/// Elements on their way back from a device.
///
/// The copy is queued when [`Backend::read`] is called, so it sees what was submitted before and nothing
/// of what is submitted later; awaiting it only waits.
pub type Reading = Pin<Box<dyn Future<Output = Result<Host, BackendError>> + Send>>;

/// A device that runs kernels: wgpu, or the CPU in `f32` or `f64`.
///
/// Operations are never methods here: a backend finds the program for a [`Kernel`] by matching on it.
pub trait Backend: Send + Sync {
    /// The device's name, for people.
    fn name(&self) -> &str;

    /// What the device allows.
    fn limits(&self) -> Limits;

    /// What the backend has done so far.
    fn counters(&self) -> Counters;

    /// Whether this backend only counts what a program would take of a device, and keeps nothing: what is written to it
    /// need not be made.
    fn is_rehearsal(&self) -> bool {
        false
    }

    /// Who holds the memory, largest first, buffers of one label together.
    fn holders(&self) -> Vec<Holder>;

    /// Allocates a buffer of zeros.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`], or [`BackendError::Limit`] where the buffer is larger than the
    /// device allows.
    fn allocate(&self, dtype: DType, len: usize, label: &str) -> Result<Buffer, BackendError>;

    /// Writes elements to the start of a view, before anything that is submitted later.
    ///
    /// # Errors
    /// [`BackendError::Validation`] where type or length do not fit, or the device is lost.
    fn write(&self, to: &View, data: HostRef<'_>) -> Result<(), BackendError>;

    /// Copies elements back. See [`Reading`].
    fn read(&self, from: &View) -> Reading;

    /// Compiles and binds launches, to be run many times.
    ///
    /// # Errors
    /// Where arguments do not fit the kernels' bindings, a limit is passed, or a shader does not compile.
    fn prepare(&self, launches: &[Launch<View>]) -> Result<Program, BackendError>;

    /// Runs a program's launches in order, the whole list `times` over, as one submission.
    ///
    /// # Errors
    /// Where the device is lost or out of memory.
    fn run(&self, program: &Program, times: u32) -> Result<(), BackendError>;

    /// Runs a program's launches once, in order, each by itself between two readings of a clock, and waits for them.
    ///
    /// # Errors
    /// As [`Backend::run`].
    fn profile(&self, program: &Program) -> Result<Vec<LaunchTime>, BackendError>;
}
