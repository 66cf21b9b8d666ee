//! A plan on a device, ready to run.

use std::{collections::HashMap, sync::Arc};

use kiln_kernel::{Backend, BackendError, Buffer, Host, HostRef, Launch, LaunchTime, Program, Reading, View};

use crate::{GraphError, ParameterStore, Place, Plan, Tenant};

/// A plan with its workspace allocated, its pipelines compiled and its arguments bound.
///
/// ```
/// use kiln_graph::{Graph, ParameterStore, Plan, Request, Session};
/// use kiln_kernel::{Backend, HostRef};
/// use std::{collections::HashMap, sync::Arc};
///
/// # fn main() -> Result<(), kiln_graph::GraphError> {
/// let backend: Arc<dyn Backend> = Arc::new(kiln_reference::Cpu::<f32>::new());
/// let mut g = Graph::new();
/// let x = g.input("x", [3])?;
/// let y = g.square(x)?;
/// let store = ParameterStore::new(&*backend, &[], &[])?;
/// let request = Request { fetch: vec![("y".into(), y)], ..Request::default() };
/// let plan = Plan::new(&g, store.segments(), &request)?;
/// let session = Session::new(backend, &store, &plan, &HashMap::new())?;
/// session.write("x", HostRef::F32(&[1.0, 2.0, 3.0]))?;
/// session.run(1)?;
/// assert_eq!(session.read("y")?.into_f32(), [1.0, 4.0, 9.0]);
/// # Ok(())
/// # }
/// ```
pub struct Session {
    backend: Arc<dyn Backend>,
    program: Program,
    externals: HashMap<String, Buffer>,
    /// Those that are its own.
    owned: Vec<String>,
    tenants: Vec<Tenant>,
    slots: Vec<Buffer>,
    fetches: HashMap<String, View>,
}

impl Session {
    /// Allocates and compiles all that a plan needs. Buffers of `shared`, by name, are used for the plan's
    /// inputs (a resident data set, the clock); inputs that are not in it get a buffer of their own.
    ///
    /// # Errors
    /// If a shared buffer does not fit, or the device is out of memory, lacks a limit or fails to compile.
    pub fn new(
        backend: Arc<dyn Backend>,
        store: &ParameterStore,
        plan: &Plan,
        shared: &HashMap<String, Buffer>,
    ) -> Result<Self, GraphError> {
        let (mut externals, mut owned) = (HashMap::new(), Vec::new());
        for (name, external) in &plan.externals {
            if let Some(values) = plan.literals.get(name) {
                let buffer = backend.allocate(external.dtype, external.len, name)?;
                backend.write(&buffer.view(), HostRef::F32(values))?;
                externals.insert(name.to_string(), buffer);
                owned.push(name.to_string());
                continue;
            }
            let known = store.arena(name).or_else(|| shared.get(&**name));
            let buffer = match known {
                Some(buffer) => buffer.clone(),
                None => {
                    owned.push(name.to_string());
                    backend.allocate(external.dtype, external.len, name)?
                }
            };
            if buffer.len() < external.len || buffer.dtype() != external.dtype {
                return Err(GraphError::Name(format!(
                    "\"{name}\" must be {} elements of {:?}, is {} of {:?}",
                    external.len,
                    external.dtype,
                    buffer.len(),
                    buffer.dtype()
                )));
            }
            externals.insert(name.to_string(), buffer);
        }
        let mut slots = Vec::with_capacity(plan.slots.len());
        for (i, slot) in plan.slots.iter().enumerate() {
            slots.push(backend.allocate(slot.dtype, slot.len, &plan.describe_slot(i))?);
        }
        let view = |place: &Place| match place {
            Place::Slot { index, offset, len } => slots[*index].slice(*offset, *len),
            Place::External { name, offset, len } => externals[&**name].slice(*offset, *len),
        };
        let launches: Vec<Launch<View>> = plan
            .launches
            .iter()
            .map(|l| Launch {
                kernel: l.kernel.clone(),
                arguments: l.arguments.iter().map(view).collect(),
                label: l.label.clone(),
            })
            .collect();
        let program = backend.prepare(&launches)?;
        let fetches = plan.fetches.iter().map(|f| (f.name.clone(), view(&f.place))).collect();
        let tenants = plan.tenants.clone();
        Ok(Self { backend, program, externals, owned, tenants, slots, fetches })
    }

    /// Number of launches of one run.
    pub fn launches(&self) -> usize {
        self.program.launches()
    }

    /// The buffers of the workspace, and what lives in them.
    pub fn workspace(&self) -> (&[Buffer], &[Tenant]) {
        (&self.slots, &self.tenants)
    }

    /// Names and buffers of the inputs and given numbers that are its own, and not shared.
    pub fn owned(&self) -> impl Iterator<Item = (&str, &Buffer)> {
        self.owned.iter().filter_map(|name| Some((name.as_str(), self.externals.get(name)?)))
    }

    /// The buffer of an input.
    ///
    /// # Errors
    /// If the plan reads no input of that name.
    pub fn input(&self, name: &str) -> Result<&Buffer, GraphError> {
        self.externals
            .get(name)
            .ok_or_else(|| GraphError::Name(format!("the plan reads no input \"{name}\"")))
    }

    /// Writes an input from its start.
    ///
    /// # Errors
    /// If the plan reads no input of that name, the data are too long, or the device fails.
    pub fn write(&self, name: &str, data: HostRef<'_>) -> Result<(), GraphError> {
        let view = self.input(name)?.view();
        if data.len() > view.len {
            let (len, got) = (view.len, data.len());
            return Err(GraphError::Name(format!("input \"{name}\" has {len} elements, got {got}")));
        }
        Ok(self.backend.write(&View { len: data.len(), ..view }, data)?)
    }

    /// Runs the plan `times` over, as one submission.
    ///
    /// # Errors
    /// If the device fails.
    pub fn run(&self, times: u32) -> Result<(), GraphError> {
        Ok(self.backend.run(&self.program, times)?)
    }

    /// Runs the plan once, launch by launch, and says how long each took.
    ///
    /// # Errors
    /// If the device fails.
    pub fn profile(&self) -> Result<Vec<LaunchTime>, GraphError> {
        Ok(self.backend.profile(&self.program)?)
    }

    /// Queues a copy of a fetched result; awaiting it waits for the runs that were submitted before.
    ///
    /// # Errors
    /// If nothing was fetched under that name.
    pub fn read_async(&self, name: &str) -> Result<Reading, GraphError> {
        let view = self
            .fetches
            .get(name)
            .ok_or_else(|| GraphError::Name(format!("the plan fetches no \"{name}\"")))?;
        Ok(self.backend.read(view))
    }

    /// Reads a fetched result, and waits for it.
    ///
    /// # Errors
    /// If nothing was fetched under that name, or the device fails.
    pub fn read(&self, name: &str) -> Result<Host, GraphError> {
        Ok(pollster::block_on(self.read_async(name)?)?)
    }

    /// Fills the workspace with NaN (integers: their largest value), so that a kernel that reads what
    /// nothing has written shows. For tests.
    ///
    /// # Errors
    /// If the device fails.
    pub fn poison(&self) -> Result<(), BackendError> {
        for slot in &self.slots {
            match slot.dtype() {
                kiln_kernel::DType::F32 => {
                    self.backend.write(&slot.view(), HostRef::F32(&vec![f32::NAN; slot.len()]))?;
                }
                kiln_kernel::DType::U32 => {
                    self.backend.write(&slot.view(), HostRef::U32(&vec![u32::MAX; slot.len()]))?;
                }
            }
        }
        Ok(())
    }
}
