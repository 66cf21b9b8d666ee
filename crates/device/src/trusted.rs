//! The one place where shaders are compiled without run-time checks, and why that is sound.
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
