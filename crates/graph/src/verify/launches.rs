//! A plan's launches one by one on a device, against their twins in `f64`.

use std::{collections::HashMap, fmt, sync::Arc};

use kiln_kernel::{Access, Backend, Buffer, HostRef, Launch, View};

use super::{
    Start,
    expected::{Expected, rounded},
    read,
};
use crate::{GraphError, PARAMETERS, Place, Plan};

/// How one launch did.
#[derive(Clone, Debug)]
pub struct LaunchReport {
    /// Where the launch comes from: `conv1 backward`.
    pub label: String,
    /// The kernel with its sizes and fused functions.
    pub kernel: String,
    /// The largest error of any result, in units of what is allowed.
    pub worst: f64,
    /// Where the largest error is: the binding, the element, and both values.
    pub at: String,
    /// Whether every error is allowed (`worst` is at most 1).
    pub passed: bool,
}

impl fmt::Display for LaunchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed { "ok" } else { "WRONG" };
        write!(f, "{verdict:<6} {:>9.2e}  {:<20} {}", self.worst, self.label, self.kernel)?;
        if self.passed { Ok(()) } else { write!(f, ": {}", self.at) }
    }
}

/// Runs a plan's launches one by one on `reference` (the CPU in `f64`), and each also on `device`, from the same
/// inputs rounded to `f32`.
///
/// An error is allowed up to `1e-5 (s + floor)`, where s is the larger of the wanted value and the same launch on
/// absolute values (for a product, the sum of |a b|), so that a long sum is neither excused nor blamed;
/// the floor is a hundredth of the largest s of the result. Integers must be equal.
///
/// # Errors
/// If a backend fails. A wrong result is not an error but a report that has not passed.
pub fn check_launches(
    plan: &Plan,
    start: Start<'_>,
    device: &dyn Backend,
    reference: &dyn Backend,
) -> Result<Vec<LaunchReport>, GraphError> {
    let state = State::new(plan, start, reference)?;
    plan.launches.iter().map(|launch| state.check(launch, device, reference)).collect()
}

/// The buffers of a plan on the reference; every number in them is one that `f32` can hold.
struct State {
    externals: HashMap<Arc<str>, Buffer>,
    slots: Vec<Buffer>,
}

impl State {
    fn new(plan: &Plan, start: Start<'_>, reference: &dyn Backend) -> Result<Self, GraphError> {
        let mut externals = HashMap::new();
        for (name, external) in &plan.externals {
            let buffer = reference.allocate(external.dtype, external.len, name)?;
            if let Some(value) = start.inputs.get(&**name) {
                let view = View { len: value.len(), ..buffer.view() };
                if value.len() > external.len {
                    let message = format!("\"{name}\" has {} elements, got {}", external.len, value.len());
                    return Err(GraphError::Name(message));
                }
                reference.write(&view, rounded(value.clone()).as_ref())?;
            }
            if let Some(values) = plan.literals.get(name) {
                reference.write(&buffer.view(), HostRef::F32(values))?;
            }
            externals.insert(name.clone(), buffer);
        }
        if let Some(arena) = externals.get(PARAMETERS) {
            for segment in start.segments.list() {
                let Some(value) = start.parameters.get(&segment.name) else { continue };
                let elements: Vec<f32> = value.iter().map(|&v| v as f32).collect();
                let view = arena.slice(segment.offset, segment.shape.elements());
                // a parameter that this plan does not use may lie behind the part of the arena it needs
                if segment.offset + elements.len() <= arena.len() {
                    reference.write(&view, HostRef::F32(&elements))?;
                }
            }
        }
        let slots = plan.slots.iter().map(|slot| reference.allocate(slot.dtype, slot.len, "workspace"));
        Ok(Self { externals, slots: slots.collect::<Result<_, _>>()? })
    }

    fn view(&self, place: &Place) -> View {
        match place {
            Place::Slot { index, offset, len } => self.slots[*index].slice(*offset, *len),
            Place::External { name, offset, len } => self.externals[name].slice(*offset, *len),
        }
    }

    fn check(
        &self,
        launch: &Launch<Place>,
        device: &dyn Backend,
        reference: &dyn Backend,
    ) -> Result<LaunchReport, GraphError> {
        let bindings = launch.kernel.bindings();
        let mut inputs = Vec::with_capacity(bindings.len());
        for (binding, place) in bindings.iter().zip(&launch.arguments) {
            inputs.push(match binding.access {
                Access::Write => None,
                Access::Read | Access::ReadWrite => Some(read(reference, &self.view(place))?),
            });
        }
        let expected = Expected::of(launch.clone(), inputs, reference)?;
        let report = expected.check(device)?;
        for (want, place) in expected.want.iter().zip(&launch.arguments) {
            if let Some(want) = want {
                reference.write(&self.view(place), rounded(want.clone()).as_ref())?;
            }
        }
        Ok(report)
    }
}
