//! The devices that a test runs on, and one planned run.

use std::{collections::HashMap, sync::Arc};

use kiln_graph::{GRADIENTS, Graph, GraphError, PARAMETERS, ParameterStore, Plan, Request, Session, Tensor};
use kiln_kernel::{Backend, Host};
use kiln_reference::Cpu;

/// A device under a name, and whether it computes in `f64`.
#[derive(Clone)]
pub struct Target {
    pub name: String,
    pub backend: Arc<dyn Backend>,
    pub double: bool,
}

pub fn cpu_f64() -> Target {
    Target { name: "cpu-f64".into(), backend: Arc::new(Cpu::<f64>::new()), double: true }
}

pub fn cpu_f32() -> Target {
    Target { name: "cpu".into(), backend: Arc::new(Cpu::<f32>::new()), double: false }
}

/// The adapter of this machine: a GPU, or a software rasterizer where that is all there is. Without one the
/// tests say that they were skipped, or fail if `KILN_REQUIRE_ADAPTER=1`.
pub fn adapter() -> Option<Target> {
    super::devices::adapter().map(|d| Target {
        name: d.to_string(),
        backend: d.backend().clone(),
        double: false,
    })
}

/// Both CPU backends, and the adapter if there is one.
pub fn all() -> Vec<Target> {
    [cpu_f64(), cpu_f32()].into_iter().chain(adapter()).collect()
}

/// Plans a request, with the averages that the graph has recorded, and runs it once over a workspace full of NaN. `leaves` are inputs and parameters; the
/// result holds the fetches by name, and the gradients under their parameters' names.
pub fn run_planned(
    target: &Target,
    graph: &Graph,
    fetch: &[(String, Tensor)],
    gradients: &[(String, Tensor)],
    leaves: &HashMap<String, Host>,
) -> Result<HashMap<String, Vec<f64>>, GraphError> {
    let backend = &*target.backend;
    let parameters = graph.parameters();
    let store = ParameterStore::new(backend, &parameters, &[GRADIENTS])?;
    for (name, _) in &parameters {
        if let Some(value) = leaves.get(name) {
            store.write(backend, PARAMETERS, name, value.as_ref())?;
        }
    }
    let request = Request {
        fetch: fetch.to_vec(),
        gradients: gradients.to_vec(),
        averages: graph.averages().to_vec(),
        ..Request::default()
    };
    let plan = Plan::new(graph, store.segments(), &request)?;
    let session = Session::new(target.backend.clone(), &store, &plan, &HashMap::new())?;
    for (name, value) in leaves {
        if session.input(name).is_ok() {
            session.write(name, value.as_ref())?;
        }
    }
    session.poison()?;
    session.run(1)?;
    let mut results = HashMap::new();
    for (name, _) in fetch {
        results.insert(name.clone(), session.read(name)?.into_f64());
    }
    for (name, _) in gradients {
        results.insert(name.clone(), store.read(backend, GRADIENTS, name)?.into_f64());
    }
    Ok(results)
}
