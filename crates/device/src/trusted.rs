//! The one place where shaders are compiled without run-time checks and compiled ones taken from a file, and why that is
//! sound.
#![allow(unsafe_code)]

/// Compiles WGSL without bounds checks on buffers, bounded loops and division checks, which cost 20 to 190 %.
///
/// Only text that [`crate::assemble`] made from Kiln's own files for a kernel that [`crate::check`] accepts
/// comes here; text that a caller replaced, or brought as a custom operation, is compiled with all checks.
pub(crate) fn create_shader_module(
    device: &wgpu::Device,
    descriptor: wgpu::ShaderModuleDescriptor<'_>,
) -> wgpu::ShaderModule {
    // SAFETY: the shader must not index out of bounds, loop forever or divide by zero. Every index in
    // `shaders/` is a function of the kernel's constants and of invocation numbers that the shader compares
    // with them; an index that is read from a buffer (labels, the order of a data set, the clock) is clamped
    // in the shader first. `check::kernel` refuses constants whose layouts leave their buffers or whose sizes
    // and divisors are zero, and `prepare` binds exactly as many elements as the kernel declares. Loops run
    // over ranges of constants. tests/parity.rs runs every kernel with and without the checks.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}

/// A cache of compiled pipelines, which begins with what an earlier one held.
///
/// Only [`crate::pipeline_file`] calls it, with data whose SHA-256, over the device, its driver and Kiln's version too, is
/// the one that was written beside them.
pub(crate) fn create_pipeline_cache(device: &wgpu::Device, data: Option<&[u8]>) -> wgpu::PipelineCache {
    // SAFETY: data must come from an earlier `get_data`. The hash shows that a file is whole and was made for this device
    // and driver by this version; wgpu compares the adapter once more. Whoever can forge one can write into the user's
    // cache folder, where drivers keep compiled shaders of their own, and so needs no forged file.
    unsafe {
        device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
            label: Some("kiln"),
            data,
            fallback: true,
        })
    }
}
