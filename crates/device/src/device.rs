//! [`Device`]: the one handle on hardware that users hold.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration};

use kiln_kernel::{Backend, BackendError, Buffer, DType, Host, HostRef, Kernel, Launch, View};
use kiln_reference::Cpu;

use crate::{
    adapters::{Candidate, Info, candidates, select, wanted_features},
    assemble::{Facts, Kind, variants},
    backend::WgpuBackend,
    incidents::Incidents,
    pipeline::{Pipelines, ReplaceShader},
    pipeline_file::PipelineFile,
    rehearsal::{Need, Rehearsal},
    tuning::{Adopted, Tuning, TuningKey, kernel_text},
};

/// How a device is opened.
#[derive(Clone, Copy, Debug)]
pub struct DeviceOptions {
    /// Compile shaders with wgpu's run-time checks: indices are clamped, loops bounded, divisions guarded.
    ///
    /// Kiln's shaders need none of that (tests run every kernel both ways), so release builds leave it out:
    /// on lavapipe it costs 20 to 190 %. It is on by default in debug builds.
    pub checked: bool,
    /// Choose kernels as for a GPU of which nothing is known but the least that any adapter offers: how tests
    /// run, on a software rasterizer, the variants that real GPUs get.
    pub portable: bool,
    /// The most workgroups in a row of a grid, where the device allows more: how tests fold the grids of small kernels,
    /// as those of more than 65,535 workgroups are.
    pub grid_width: Option<u32>,
    /// A run of launches whose submission took longer than this is made in more submissions the next time, since drivers
    /// of displays give a device up that does not answer for seconds.
    pub longest_submission: Duration,
    /// The most bytes that buffers may hold at a time, those for reading included: for machines that are shared. What
    /// would pass it fails as if there were no memory. Where it is not said, the CPU and adapters that share its memory
    /// have the machine's memory (of a container: what it is allowed); of other devices it is not known.
    pub memory_budget: Option<u64>,
    /// Let an allocation after the opening, counted from 1, fail as if there were no memory: how tests show what becomes
    /// of that.
    pub fail_allocation: Option<u64>,
    /// Compile other text for one kernel: how tests show that `kiln verify` catches a wrong shader.
    pub replace_shader: Option<ReplaceShader>,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            checked: cfg!(debug_assertions),
            portable: false,
            grid_width: None,
            longest_submission: Duration::from_millis(500),
            memory_budget: None,
            fail_allocation: None,
            replace_shader: None,
        }
    }
}

/// A GPU, or the CPU. Cheap to clone, and shared by the threads of a program.
///
/// ```
/// use kiln_device::Device;
/// let device = Device::cpu();
/// let buffer = device.upload_f32(&[1.0, 2.0, 3.0])?;
/// assert_eq!(device.read(&buffer)?.into_f32(), [1.0, 2.0, 3.0]);
/// # Ok::<(), kiln_kernel::BackendError>(())
/// ```
#[derive(Clone)]
pub struct Device {
    backend: Arc<dyn Backend>,
    gpu: Option<Arc<WgpuBackend>>,
    rehearsal: Option<Arc<Rehearsal>>,
    info: Arc<Info>,
    options: DeviceOptions,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Device").field(&self.info).finish()
    }
}

impl fmt::Display for Device {
    /// `NVIDIA H200 (Vulkan)`, or `cpu`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_gpu() {
            write!(f, "{} ({})", self.info.name, self.info.backend)
        } else {
            f.write_str(&self.info.name)
        }
    }
}

impl Device {
    /// All devices in the order in which Kiln prefers them: GPUs (discrete, integrated, virtual), the CPU,
    /// software rasterizers such as lavapipe. Nothing is opened.
    pub fn list() -> Vec<Info> {
        pollster::block_on(Self::list_async())
    }

    /// [`Device::list`] without blocking.
    pub async fn list_async() -> Vec<Info> {
        let backend = Cpu::<f32>::new();
        candidates(wgpu::Backends::all(), backend.limits()).await.into_iter().map(|c| c.info).collect()
    }

    /// The best real GPU, or the CPU where there is none: `open("auto")`.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn best() -> Result<Self, BackendError> {
        Self::open("auto")
    }

    /// The CPU, in `f32`.
    pub fn cpu() -> Self {
        Self::cpu_with(DeviceOptions::default())
    }

    /// [`Device::cpu`] with options; those of memory matter.
    pub fn cpu_with(options: DeviceOptions) -> Self {
        let options = options.within_host_memory();
        let backend = Cpu::<f32>::with_budget(options.memory_budget);
        backend.ledger().fail(options.fail_allocation);
        let info = Arc::new(Info::cpu(0, backend.limits()));
        Self { backend: Arc::new(backend), gpu: None, rehearsal: None, info, options }
    }

    /// Opens a device by what the user calls it:
    ///
    /// - `auto`: the best real GPU whose limits suffice, else the CPU;
    /// - `gpu`: the best such GPU; a software rasterizer only if it is all there is;
    /// - `cpu`;
    /// - a number: the position in [`Device::list`];
    /// - anything else: the first adapter whose name contains it, in any case (`llvmpipe`, `nvidia`).
    ///
    /// A device that is asked for by number or name is opened or refused, never replaced by another. For
    /// `auto` and `gpu` the environment narrows the choice as wgpu's users expect: `WGPU_BACKEND` (`vulkan`,
    /// `metal`, `dx12`; several with commas) and `WGPU_ADAPTER_NAME` (part of a name, which may be a software
    /// rasterizer's).
    ///
    /// # Errors
    /// [`BackendError::NoAdapter`] with the list of devices where none answers, or where the driver refuses.
    pub fn open(selector: &str) -> Result<Self, BackendError> {
        Self::open_with(selector, DeviceOptions::default())
    }

    /// [`Device::open`] with options.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn open_with(selector: &str, options: DeviceOptions) -> Result<Self, BackendError> {
        pollster::block_on(Self::open_async(selector, options))
    }

    /// [`Device::open_with`] without blocking.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub async fn open_async(selector: &str, options: DeviceOptions) -> Result<Self, BackendError> {
        if selector.trim().eq_ignore_ascii_case("cpu") {
            // drivers are not asked: some take their time, and some print
            return Ok(Self::cpu_with(options));
        }
        let cpu = Cpu::<f32>::new();
        let is_open_choice = matches!(selector.trim().to_lowercase().as_str(), "" | "auto" | "gpu");
        let (backends, filter) = if is_open_choice {
            let filter = std::env::var("WGPU_ADAPTER_NAME").ok().filter(|name| !name.is_empty());
            (wgpu::Backends::from_env().unwrap_or(wgpu::Backends::all()), filter)
        } else {
            (wgpu::Backends::all(), None)
        };
        let mut list = candidates(backends, cpu.limits()).await;
        let infos: Vec<Info> = list.iter().map(|c| c.info.clone()).collect();
        let chosen = select(&infos, selector, filter.as_deref())?;
        let Candidate { info, adapter } = list.swap_remove(chosen);
        match adapter {
            Some(adapter) => Self::open_adapter(&adapter, info, options).await,
            None => Ok(Self { info: Arc::new(info), ..Self::cpu_with(options) }),
        }
    }

    async fn open_adapter(
        adapter: &wgpu::Adapter,
        info: Info,
        options: DeviceOptions,
    ) -> Result<Self, BackendError> {
        let options = match info.kind {
            Kind::Integrated | Kind::Software | Kind::Cpu => options.within_host_memory(),
            Kind::Discrete | Kind::Virtual => options,
        };
        if let Some(row) = info.limit_rows().iter().find(|row| !row.is_enough()) {
            return Err(BackendError::MissingFeature {
                device: info.name.clone(),
                feature: format!("{} {} (it allows {})", row.needed, row.what, row.allowed),
            });
        }
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("kiln"),
                required_features: wanted_features(adapter, info.kind),
                required_limits: adapter.limits(),
                ..Default::default()
            })
            .await
            .map_err(|e| BackendError::NoAdapter(format!("\"{}\" cannot be opened: {e}", info.name)))?;
        let incidents = Arc::new(Incidents::default());
        let sink = Arc::clone(&incidents);
        device.on_uncaptured_error(Arc::new(move |error| sink.note(error)));
        let sink = Arc::clone(&incidents);
        device.set_device_lost_callback(move |reason, message| {
            sink.lose(format!("{message} ({reason:?})"));
        });
        let known = if options.portable { Facts::portable() } else { info.facts() };
        let facts = Facts { grid_width: options.grid_width, ..known };
        let pipelines = Pipelines::new(facts, options.checked, options.replace_shader);
        let gpu =
            Arc::new(WgpuBackend::new(info.name.clone(), device, queue, pipelines, incidents, &options)?);
        let backend: Arc<dyn Backend> = gpu.clone();
        Ok(Self { backend, gpu: Some(gpu), rehearsal: None, info: Arc::new(info), options })
    }

    /// Opens the same device once more, for after it was lost: the adapter of the same name, interface and driver, that in the
    /// same slot if there are several, with the same options and the same chosen variants. It may have been given up for a
    /// submission that took too long: programs begin in twice as many as on the lost one. What lies on the lost device is gone; other handles on it stay lost.
    ///
    /// # Errors
    /// [`BackendError::NoAdapter`] where it does not answer any more.
    pub fn reopen(&self) -> Result<Self, BackendError> {
        if self.gpu.is_none() {
            return Ok(self.clone());
        }
        pollster::block_on(async {
            let list = candidates(wgpu::Backends::all(), Cpu::<f32>::new().limits()).await;
            let same = |info: &Info| {
                (&info.name, &info.backend, &info.driver)
                    == (&self.info.name, &self.info.backend, &self.info.driver)
            };
            let mut alike: Vec<Candidate> =
                list.into_iter().filter(|candidate| same(&candidate.info)).collect();
            alike.sort_by_key(|candidate| candidate.info.bus != self.info.bus);
            match alike.into_iter().next() {
                Some(Candidate { info, adapter: Some(adapter) }) => {
                    // what a test made fail has failed
                    let options = DeviceOptions { fail_allocation: None, ..self.options };
                    let device = Self::open_adapter(&adapter, info, options).await?;
                    if let (Some(lost), Some(gpu)) = (&self.gpu, &device.gpu) {
                        gpu.submit_less_than(lost);
                        for (kernel, variant) in lost.pipelines.chosen() {
                            gpu.pipelines.choose(&kernel, Some(&variant))?;
                        }
                    }
                    Ok(device)
                }
                _ => Err(BackendError::NoAdapter(format!("\"{}\" is not there any more", self.info.name))),
            }
        })
    }

    /// What is said of the device's loss, if it was lost: by a driver that was reset or updated, a card that was taken
    /// out, a machine that slept, or [`wgpu::Device::destroy`]. Nothing runs on it any more; see [`Device::reopen`].
    /// Waits for what is under way, at most two seconds.
    pub fn lost(&self) -> Option<String> {
        self.gpu.as_ref().and_then(|gpu| gpu.lost())
    }

    /// A device of the same limits on which nothing is allocated, compiled or run, but all of it counted, with at most
    /// `budget` bytes: what a program would take of this one. Reads give zeros.
    ///
    /// # Errors
    /// Where the budget is smaller than the first buffers for reading.
    pub fn rehearse(&self, budget: Option<u64>) -> Result<Self, BackendError> {
        let gpu = self.gpu.clone().or_else(|| self.rehearsal.as_ref()?.adapter().cloned());
        let rehearsal = Arc::new(Rehearsal::new(&*self.backend, gpu, budget)?);
        let backend: Arc<dyn Backend> = rehearsal.clone();
        let (info, options) = (Arc::clone(&self.info), self.options);
        Ok(Self { backend, gpu: None, rehearsal: Some(rehearsal), info, options })
    }

    /// The most that was asked so far of each limit of the adapter, and for what: of a [`Device::rehearse`]d one; empty on
    /// others, and on the CPU, which has none.
    ///
    /// # Errors
    /// Where a shader cannot be read.
    pub fn needs(&self) -> Result<Vec<Need>, BackendError> {
        self.rehearsal.as_ref().map_or_else(|| Ok(Vec::new()), |rehearsal| rehearsal.needs())
    }

    /// The options that it was opened with.
    pub fn options(&self) -> &DeviceOptions {
        &self.options
    }

    /// What runs the kernels.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Name, driver, features and limits.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// True if kernels run on an adapter, and not on the `cpu` backend, or would in what is rehearsed.
    pub fn is_gpu(&self) -> bool {
        self.gpu.is_some() || self.rehearsal.as_ref().is_some_and(|rehearsal| rehearsal.adapter().is_some())
    }

    /// Which variant of a kernel this device runs, in words: `tiled 64x64x16 of 4x4`; `None` on the CPU.
    ///
    /// # Errors
    /// Where the device cannot run the kernel.
    pub fn variant(&self, kernel: &Kernel) -> Result<Option<String>, BackendError> {
        match &self.gpu {
            Some(gpu) => gpu.pipelines.dispatches(kernel).map(|d| Some(d.variant)),
            None => Ok(None),
        }
    }

    /// All variants of a kernel that this device can run, in words, that which it runs unless another is
    /// chosen first: of most kernels there is one. Empty on the CPU.
    ///
    /// # Errors
    /// Where the device cannot run the kernel.
    pub fn variants(&self, kernel: &Kernel) -> Result<Vec<String>, BackendError> {
        match &self.gpu {
            Some(gpu) => variants(kernel, &gpu.pipelines.facts),
            None => Ok(Vec::new()),
        }
    }

    /// Chooses the variant in which a kernel runs, of [`Device::variants`], for all that is prepared from now
    /// on; `None` goes back to the usual one. What was prepared before stays as it is. Not to be called while
    /// another thread prepares the same kernel.
    ///
    /// Variants differ in speed, and in the order of sums: results may differ in their last bits.
    ///
    /// # Errors
    /// [`BackendError::Validation`] where the kernel has no such variant on this device.
    pub fn choose(&self, kernel: &Kernel, variant: Option<&str>) -> Result<(), BackendError> {
        let done = match &self.gpu {
            Some(gpu) => gpu.pipelines.choose(kernel, variant)?,
            None => variant.is_none(),
        };
        if done {
            return Ok(());
        }
        Err(BackendError::Validation {
            label: kernel.to_string(),
            message: format!("this device has no variant \"{}\"", variant.unwrap_or_default()),
        })
    }

    /// The variants that were chosen instead of the usual ones, by [`kernel_text`].
    pub fn choices(&self) -> BTreeMap<String, String> {
        let chosen = self.gpu.as_ref().map_or_else(Vec::new, |gpu| gpu.pipelines.chosen());
        chosen.into_iter().map(|(kernel, variant)| (kernel_text(&kernel), variant)).collect()
    }

    /// Chooses for each of these kernels what was remembered for it, by [`kernel_text`]. What is no variant
    /// of its kernel on this device is left out, and said.
    ///
    /// # Errors
    /// Where the device cannot run a kernel.
    pub fn adopt<'a>(
        &self,
        remembered: &BTreeMap<String, String>,
        kernels: impl IntoIterator<Item = &'a Kernel>,
    ) -> Result<Adopted, BackendError> {
        let mut adopted = Adopted::default();
        let Some(gpu) = self.gpu.as_ref().filter(|_| !remembered.is_empty()) else { return Ok(adopted) };
        let mut seen = std::collections::HashSet::new();
        for kernel in kernels.into_iter().filter(|kernel| seen.insert(*kernel)) {
            let text = kernel_text(kernel);
            let Some(variant) = remembered.get(&text) else { continue };
            if gpu.pipelines.choose(kernel, Some(variant))? {
                adopted.found += 1;
            } else {
                adopted.stale.push((text, variant.clone()));
            }
        }
        adopted.used = gpu.pipelines.chosen().len();
        Ok(adopted)
    }

    /// Takes compiled pipelines from a file in a folder from now on, and has [`Device::save_pipelines`] write them there. Only
    /// Vulkan has such a cache; elsewhere, and on the CPU, nothing happens. Many drivers keep one of their own as well.
    /// A file that is damaged or of another device, driver or version is ignored; the result says so.
    pub fn remember_pipelines(&self, folder: &Path) -> Option<String> {
        let gpu = self.gpu.as_ref()?;
        if !gpu.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let key = format!("{:?}", self.tuning()?.key());
        let mut ignored = None;
        gpu.pipelines.file.get_or_init(|| {
            let (file, why) = PipelineFile::open(&gpu.device, folder, key);
            ignored = why;
            file
        });
        ignored
    }

    /// Writes the pipelines that were compiled so far to the file of [`Device::remember_pipelines`], if there is one and they
    /// are not in it yet.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn save_pipelines(&self) -> std::io::Result<()> {
        match self.gpu.as_ref().and_then(|gpu| gpu.pipelines.file.get()) {
            Some(file) => file.save(),
            None => Ok(()),
        }
    }

    /// What this device's tuning is remembered under, with nothing in it so far; `None` on the CPU, where
    /// there is nothing to be tuned.
    pub fn tuning(&self) -> Option<Tuning> {
        let gpu = self.gpu.as_ref()?;
        Some(Tuning::new(TuningKey {
            kiln: env!("CARGO_PKG_VERSION").to_owned(),
            adapter: self.info.name.clone(),
            backend: self.info.backend.clone(),
            vendor: self.info.vendor,
            device: self.info.device,
            driver: self.info.driver.clone(),
            checked: gpu.pipelines.checked,
            portable: self.options.portable,
        }))
    }

    /// wgpu's own device and queue, for programs that mix Kiln with their own wgpu code; `None` on the CPU.
    ///
    /// The one place where wgpu's types show. What is done with them is outside Kiln's error scopes and
    /// counters; a device that is destroyed through them is lost to Kiln too.
    pub fn wgpu(&self) -> Option<(&wgpu::Device, &wgpu::Queue)> {
        self.gpu.as_ref().map(|gpu| (&gpu.device, &gpu.queue))
    }

    /// A buffer with these numbers.
    ///
    /// # Errors
    /// As [`Backend::allocate`].
    pub fn upload_f32(&self, data: &[f32]) -> Result<Buffer, BackendError> {
        self.upload(DType::F32, HostRef::F32(data))
    }

    /// A buffer with these numbers.
    ///
    /// # Errors
    /// As [`Backend::allocate`].
    pub fn upload_u32(&self, data: &[u32]) -> Result<Buffer, BackendError> {
        self.upload(DType::U32, HostRef::U32(data))
    }

    fn upload(&self, dtype: DType, data: HostRef<'_>) -> Result<Buffer, BackendError> {
        let buffer = self.backend.allocate(dtype, data.len(), "upload")?;
        self.backend.write(&buffer.view(), data)?;
        Ok(buffer)
    }

    /// A buffer's elements, after all that was submitted before.
    ///
    /// # Errors
    /// Where the device is lost.
    pub fn read(&self, buffer: &Buffer) -> Result<Host, BackendError> {
        pollster::block_on(self.backend.read(&buffer.view()))
    }

    /// Runs one kernel on whole buffers, one for each of [`Kernel::bindings`].
    ///
    /// ```
    /// use kiln_device::Device;
    /// use kiln_kernel::{Elementwise, Kernel, Layout, Operand, Source, Step, Tail, Unary};
    /// let device = Device::cpu();
    /// let (x, y) = (device.upload_f32(&[-1.0, 2.0])?, device.upload_f32(&[0.0, 0.0])?);
    /// let relu = Kernel::Elementwise(Elementwise {
    ///     len: 2,
    ///     source: Source::Operand(Operand { layout: Layout::contiguous(2), len: 2 }),
    ///     tail: Tail { operands: vec![], steps: vec![Step::Unary(Unary::Relu)] },
    /// });
    /// device.run_kernel(&relu, &[&x, &y])?;
    /// assert_eq!(device.read(&y)?.into_f32(), [0.0, 2.0]);
    /// # Ok::<(), kiln_kernel::BackendError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Backend::prepare`] and [`Backend::run`].
    pub fn run_kernel(&self, kernel: &Kernel, arguments: &[&Buffer]) -> Result<(), BackendError> {
        let arguments: Vec<View> = arguments.iter().map(|b| b.view()).collect();
        let launch = Launch { kernel: kernel.clone(), arguments, label: kernel.name().into() };
        let program = self.backend.prepare(&[launch])?;
        self.backend.run(&program, 1)
    }
}
