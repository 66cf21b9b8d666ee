//! How long each launch of a program takes.

use std::time::Instant;

use kiln_kernel::{BackendError, LaunchTime};

use crate::{backend::WgpuBackend, incidents::poll, memory::scoped, pipeline::Pipeline};

/// Launches that one set of timestamps holds: two each, and WebGPU allows 4,096.
const MOST: usize = 2048;

/// A dispatch to be timed.
pub(crate) type Dispatch<'a> = (&'a Pipeline, &'a wgpu::BindGroup);

impl WgpuBackend {
    /// Runs dispatches once, each in a pass of its own, and says how long each took: by the device's own clock where it
    /// has one, else by the host's, which then counts the submission and the wait, too.
    pub(crate) fn time(&self, dispatches: &[Dispatch<'_>]) -> Result<Vec<LaunchTime>, BackendError> {
        let has_clock = self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let mut seconds = Vec::with_capacity(dispatches.len());
        for part in dispatches.chunks(MOST) {
            seconds.extend(if has_clock { self.by_timestamps(part)? } else { self.by_waiting(part)? });
        }
        let time = |(&(pipeline, _), seconds): (&Dispatch<'_>, f64)| LaunchTime {
            seconds,
            variant: pipeline.variant.clone(),
        };
        Ok(dispatches.iter().zip(seconds).map(time).collect())
    }

    fn by_timestamps(&self, dispatches: &[Dispatch<'_>]) -> Result<Vec<f64>, BackendError> {
        let count = 2 * dispatches.len() as u32;
        let bytes = 8 * u64::from(count);
        let (buffer, index) = scoped(&self.device, "profile", bytes, || {
            let queries = self.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("profile"),
                ty: wgpu::QueryType::Timestamp,
                count,
            });
            let buffer = |usage| {
                self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("profile"),
                    size: bytes,
                    usage,
                    mapped_at_creation: false,
                })
            };
            let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
            let read = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
            let mut encoder = self
                .device
                .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("profile") });
            for (i, dispatch) in (0u32..).zip(dispatches) {
                let writes = wgpu::ComputePassTimestampWrites {
                    query_set: &queries,
                    beginning_of_pass_write_index: Some(2 * i),
                    end_of_pass_write_index: Some(2 * i + 1),
                };
                self.encode_alone(&mut encoder, dispatch, Some(writes));
            }
            encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, &read, 0, Some(bytes));
            (read, self.submit(encoder))
        })?;
        let lost = |message: String| BackendError::DeviceLost(message);
        let slice = buffer.slice(..);
        let (sender, receiver) = std::sync::mpsc::channel();
        slice.map_async(wgpu::MapMode::Read, move |result| {
            let _ = sender.send(result);
        });
        self.wait(index)?;
        match receiver.recv() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(lost(format!("mapping timestamps: {e}"))),
            Err(_) => return Err(lost("timestamps were never mapped".to_owned())),
        }
        let mapped = slice.get_mapped_range().map_err(|e| lost(format!("mapping timestamps: {e}")))?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&mapped);
        let period = f64::from(self.queue.get_timestamp_period()) * 1e-9;
        let (pairs, _) = ticks.as_chunks::<2>();
        Ok(pairs.iter().map(|[start, end]| end.saturating_sub(*start) as f64 * period).collect())
    }

    fn by_waiting(&self, dispatches: &[Dispatch<'_>]) -> Result<Vec<f64>, BackendError> {
        let time = |dispatch: &Dispatch<'_>| {
            let start = Instant::now();
            let index = scoped(&self.device, "profile", 0, || {
                let mut encoder = self
                    .device
                    .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("profile") });
                self.encode_alone(&mut encoder, dispatch, None);
                self.submit(encoder)
            })?;
            self.wait(index)?;
            Ok(start.elapsed().as_secs_f64())
        };
        dispatches.iter().map(time).collect()
    }

    fn encode_alone(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        (pipeline, group): &Dispatch<'_>,
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) {
        let mut pass = encoder
            .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("profile"), timestamp_writes });
        let [x, y, z] = pipeline.workgroups;
        pass.set_pipeline(&pipeline.pipeline);
        pass.set_bind_group(0, *group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }

    pub(crate) fn wait(&self, index: wgpu::SubmissionIndex) -> Result<(), BackendError> {
        poll(
            &self.device,
            &self.incidents,
            wgpu::PollType::Wait { submission_index: Some(index), timeout: None },
        )
    }
}
