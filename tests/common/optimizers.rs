//! An optimizer's launches over arenas of their own, without a network.

use std::collections::HashMap;

use kiln::nn::Optimizer;
use kiln_graph::{GRADIENTS, HYPER, PARAMETERS, Place, Segments};
use kiln_kernel::{Advance, Buffer, Host, HostRef, Kernel, Launch, Program, View};

use super::backends::Target;

/// Arenas on a device, and a program of one step over them.
pub struct Arenas {
    target: Target,
    segments: Segments,
    buffers: HashMap<String, Buffer>,
    program: Program,
}

impl Arenas {
    /// Zeroed arenas for `steps` steps at one learning rate.
    pub fn new(
        target: &Target,
        optimizer: &Optimizer,
        segments: &Segments,
        trainable: &dyn Fn(&str) -> bool,
        steps: usize,
    ) -> Self {
        let backend = &*target.backend;
        let mut buffers: HashMap<String, Buffer> = HashMap::new();
        let mut launches = Vec::new();
        for launch in optimizer.launches(segments, steps) {
            let mut arguments = Vec::new();
            for (place, binding) in launch.arguments.iter().zip(launch.kernel.bindings()) {
                let Place::External { name, offset: 0, len } = place else { panic!("{place:?}") };
                let make = || backend.allocate(binding.dtype, *len, name).unwrap();
                arguments.push(buffers.entry(name.to_string()).or_insert_with(make).view());
            }
            launches.push(Launch { kernel: launch.kernel, arguments, label: launch.label });
        }
        launches.push(Launch {
            kernel: Kernel::Advance(Advance::step(1)),
            arguments: vec![buffers["clock"].view()],
            label: "step".into(),
        });
        let hyper = optimizer.hyper_table(0, steps, &|_| optimizer.learning_rate());
        let mut tables = optimizer.tables(segments, trainable);
        tables.push((HYPER, Host::F32(hyper)));
        for (name, table) in tables {
            backend.write(&buffers[name].view(), table.as_ref()).unwrap();
        }
        let program = backend.prepare(&launches).unwrap();
        Self { target: target.clone(), segments: segments.clone(), buffers, program }
    }

    fn view(&self, arena: &str, name: &str) -> View {
        let segment = self.segments.get(name).unwrap();
        self.buffers[arena].slice(segment.offset, segment.shape.elements())
    }

    /// Sets a parameter's weights.
    pub fn set_weights(&self, name: &str, values: &[f64]) {
        self.target.backend.write(&self.view(PARAMETERS, name), HostRef::F64(values)).unwrap();
    }

    /// Sets a parameter's gradient.
    pub fn set_gradient(&self, name: &str, values: &[f64]) {
        self.target.backend.write(&self.view(GRADIENTS, name), HostRef::F64(values)).unwrap();
    }

    /// One update.
    pub fn step(&self) {
        self.target.backend.run(&self.program, 1).unwrap();
    }

    /// A parameter's weights.
    pub fn weights(&self, name: &str) -> Vec<f64> {
        pollster::block_on(self.target.backend.read(&self.view(PARAMETERS, name))).unwrap().into_f64()
    }
}
