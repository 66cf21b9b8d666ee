//! Known driver defects, found by running them.

use kiln_kernel::{BackendError, DType};

use crate::{
    Device,
    memory::{Memory, scoped},
};

/// One invocation that takes `WANTED` steps of a random number generator, and counts them.
const LONG_LOOP: &str = "\
@group(0) @binding(0) var<storage, read_write> result: array<u32>;

@compute @workgroup_size(1)
fn long_loop() {
    var state = 1u;
    var count = 0u;
    for (var i = 0u; i < WANTED; i++) {
        state = state * 1664525u + 1013904223u;
        count++;
    }
    result[0] = count;
    result[1] = state;
}
";

impl Device {
    /// How many of `wanted` loop iterations one invocation really runs: `wanted` on a sound driver.
    ///
    /// Mesa 22's lavapipe stops an invocation after 65,535 iterations, all its loops together, without any
    /// error. Kiln's kernels stay far below that on every device; this says whether a driver has the defect.
    /// 0 means that the loop computed something else altogether.
    ///
    /// # Errors
    /// Where the shader does not compile, or the device is lost.
    pub fn loop_iterations(&self, wanted: u32) -> Result<u32, BackendError> {
        let Some((device, queue)) = self.wgpu() else { return Ok(wanted) };
        let label = "long_loop";
        let result = self.backend().allocate(DType::U32, 2, label)?;
        let Some(memory) = result.downcast::<Memory>() else {
            unreachable!("a GPU's backend allocates this type")
        };
        let source = format!("const WANTED = {wanted}u;\n{LONG_LOOP}");
        scoped(device, label, 0, || {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(label),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(label),
                layout: None,
                module: &module,
                entry_point: Some(label),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            });
            let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(label),
                layout: &pipeline.get_bind_group_layout(0),
                entries: &[wgpu::BindGroupEntry { binding: 0, resource: memory.buffer.as_entire_binding() }],
            });
            let mut encoder =
                device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(label) });
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: Some(label),
                    timestamp_writes: None,
                });
                pass.set_pipeline(&pipeline);
                pass.set_bind_group(0, &group, &[]);
                pass.dispatch_workgroups(1, 1, 1);
            }
            queue.submit([encoder.finish()]);
        })?;
        let found = self.read(&result)?.into_u32();
        let count = found.first().copied().unwrap_or(0);
        let state = (0..count.min(wanted))
            .fold(1u32, |state, _| state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        Ok(if found.get(1) == Some(&state) { count } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_loops_run_whole_everywhere() {
        assert_eq!(Device::cpu().loop_iterations(1_000_000).unwrap(), 1_000_000);
        let Ok(device) = Device::open("gpu") else {
            let is_required = std::env::var("KILN_REQUIRE_ADAPTER").is_ok_and(|v| v == "1");
            assert!(!is_required, "KILN_REQUIRE_ADAPTER is set");
            println!("skipped: no adapter");
            return;
        };
        assert_eq!(device.loop_iterations(60_000).unwrap(), 60_000);
    }
}
