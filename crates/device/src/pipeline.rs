//! Pipelines: a kernel's WGSL compiled for a device, once.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, atomic::Ordering::Relaxed},
};

use kiln_kernel::{Access, BackendError, Kernel};

use crate::{
    assemble::{Assembled, Dispatch, Dispatches, Facts, dispatches, dispatches_as},
    custom,
    memory::{Tally, one_line, scoped, translate},
    pipeline_file::PipelineFile,
    trusted,
};

/// A test's own text for the shader of one kernel: how it is shown that `kiln verify` catches a wrong one.
#[derive(Clone, Copy, Debug)]
pub struct ReplaceShader {
    /// [`Kernel::name`] of the kernels whose shader is replaced.
    pub kernel: &'static str,
    /// From the complete WGSL to what is compiled instead.
    pub edit: fn(&str) -> String,
}

/// A compiled kernel: what is dispatched for it, in order.
pub(crate) type Compiled = Arc<[Pipeline]>;

/// One compiled dispatch.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
    pub(crate) workgroups: [u32; 3],
    /// How the kernel runs, in words.
    pub(crate) variant: String,
    /// Which of the launch's arguments it binds.
    pub(crate) arguments: Vec<usize>,
}

/// All pipelines of a device, by kernel.
#[derive(Debug)]
pub(crate) struct Pipelines {
    pub(crate) facts: Facts,
    pub(crate) checked: bool,
    pub(crate) replace: Option<ReplaceShader>,
    compiled: RwLock<HashMap<Kernel, Compiled>>,
    /// Variants that were chosen instead of the usual ones.
    chosen: RwLock<HashMap<Kernel, String>>,
    /// What was compiled in earlier processes, where that is kept.
    pub(crate) file: OnceLock<PipelineFile>,
}

impl Pipelines {
    pub(crate) fn new(facts: Facts, checked: bool, replace: Option<ReplaceShader>) -> Self {
        Self {
            facts,
            checked,
            replace,
            compiled: RwLock::default(),
            chosen: RwLock::default(),
            file: OnceLock::new(),
        }
    }

    /// What is dispatched for a kernel: in the variant that was chosen for it, else in the usual one.
    pub(crate) fn dispatches(&self, kernel: &Kernel) -> Result<Dispatches, BackendError> {
        let chosen = self.chosen.read().unwrap_or_else(PoisonError::into_inner).get(kernel).cloned();
        match chosen {
            Some(variant) => match dispatches_as(kernel, &self.facts, &variant)? {
                Some(dispatches) => Ok(dispatches),
                None => unreachable!("only variants of the kernel are chosen"),
            },
            None => dispatches(kernel, &self.facts),
        }
    }

    /// Chooses a variant for all programs that are prepared from now on; `None` or the usual one takes the
    /// choice back. False if the kernel has no such variant here, and nothing has changed.
    pub(crate) fn choose(&self, kernel: &Kernel, variant: Option<&str>) -> Result<bool, BackendError> {
        if let Some(variant) = variant
            && dispatches_as(kernel, &self.facts, variant)?.is_none()
        {
            return Ok(false);
        }
        let usual = dispatches(kernel, &self.facts)?.variant;
        let mut chosen = self.chosen.write().unwrap_or_else(PoisonError::into_inner);
        let changed = match variant.filter(|variant| *variant != usual) {
            Some(variant) => chosen.insert(kernel.clone(), variant.to_owned()).as_deref() != Some(variant),
            None => chosen.remove(kernel).is_some(),
        };
        drop(chosen);
        if changed {
            self.compiled.write().unwrap_or_else(PoisonError::into_inner).remove(kernel);
        }
        Ok(true)
    }

    /// The kernels for which another than the usual variant was chosen, with it.
    pub(crate) fn chosen(&self) -> Vec<(Kernel, String)> {
        let chosen = self.chosen.read().unwrap_or_else(PoisonError::into_inner);
        chosen.iter().map(|(kernel, variant)| (kernel.clone(), variant.clone())).collect()
    }

    /// A kernel's pipeline, if it is compiled.
    pub(crate) fn get(&self, kernel: &Kernel) -> Option<Compiled> {
        self.compiled.read().unwrap_or_else(PoisonError::into_inner).get(kernel).cloned()
    }

    /// Compiles those kernels that are not yet, on all cores: a cold pipeline takes a driver tens of
    /// milliseconds, in which it uses one.
    pub(crate) fn compile<'a>(
        &self,
        device: &wgpu::Device,
        tally: &Tally,
        kernels: impl Iterator<Item = &'a Kernel>,
    ) -> Result<(), BackendError> {
        let mut missing: Vec<&Kernel> = Vec::new();
        {
            let compiled = self.compiled.read().unwrap_or_else(PoisonError::into_inner);
            let mut seen = std::collections::HashSet::new();
            missing.extend(kernels.filter(|k| !compiled.contains_key(*k) && seen.insert(*k)));
        }
        if missing.is_empty() {
            return Ok(());
        }
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(missing.len());
        let next = Mutex::new(missing.into_iter());
        let work = || -> Result<(), BackendError> {
            loop {
                let kernel = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(kernel) = kernel else { return Ok(()) };
                let dispatches = self.dispatches(kernel)?.each;
                let built =
                    dispatches.into_iter().map(|d| self.build(device, d)).collect::<Result<_, _>>()?;
                let pipelines: Compiled = Vec::into(built);
                tally.pipelines.fetch_add(pipelines.len() as u64, Relaxed);
                let mut compiled = self.compiled.write().unwrap_or_else(PoisonError::into_inner);
                compiled.insert(kernel.clone(), pipelines);
            }
        };
        if threads == 1 {
            return work();
        }
        std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            handles.into_iter().try_for_each(|handle| match handle.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    fn build(&self, device: &wgpu::Device, dispatch: Dispatch) -> Result<Pipeline, BackendError> {
        let Dispatch { ref kernel, arguments, mut assembled } = dispatch;
        let replaced = match self.replace {
            Some(replace) if replace.kernel == kernel.name() => {
                assembled.wgsl = (replace.edit)(&assembled.wgsl);
                true
            }
            _ => false,
        };
        let foreign = match kernel {
            Kernel::Custom(custom) => {
                custom::validate(&assembled, custom)?;
                true
            }
            _ => false,
        };
        let module = self.module(device, &assembled, self.checked || replaced || foreign)?;
        let name = kernel.name();
        let entries: Vec<wgpu::BindGroupLayoutEntry> = (0u32..)
            .zip(kernel.bindings())
            .map(|(binding, b)| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only: b.access == Access::Read },
                    has_dynamic_offset: false,
                    min_binding_size: NonZeroU64::new(b.len as u64 * 4),
                },
                count: None,
            })
            .collect();
        scoped(device, &kernel.to_string(), 0, || {
            let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(name),
                entries: &entries,
            });
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(name),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(assembled.entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Every shader of Kiln writes its workgroup memory before it reads it.
                    zero_initialize_workgroup_memory: foreign,
                    ..Default::default()
                },
                cache: self.file.get().map(|file| &file.cache),
            });
            Pipeline {
                pipeline,
                layout,
                workgroups: assembled.workgroups,
                variant: assembled.variant.clone(),
                arguments,
            }
        })
    }

    /// The shader module, or an error with the file and line that do not compile.
    fn module(
        &self,
        device: &wgpu::Device,
        assembled: &Assembled,
        checked: bool,
    ) -> Result<wgpu::ShaderModule, BackendError> {
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(assembled.entry),
            source: wgpu::ShaderSource::Wgsl(assembled.wgsl.as_str().into()),
        };
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let module = if checked {
            device.create_shader_module(descriptor)
        } else {
            trusted::create_shader_module(device, descriptor)
        };
        let Some(error) = pollster::block_on(scope.pop()) else { return Ok(module) };
        let info = pollster::block_on(module.get_compilation_info());
        let first = info.messages.iter().find(|m| m.message_type == wgpu::CompilationMessageType::Error);
        Err(match first {
            Some(message) => {
                let line = message.location.map(|l| l.line_number as usize);
                assembled.error(line, &one_line(&message.message))
            }
            None => match translate(error, assembled.entry, 0) {
                BackendError::Validation { message, .. } => assembled.error(None, &message),
                other => other,
            },
        })
    }
}
