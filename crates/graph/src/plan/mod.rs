//! From a graph to a short list of launches over few buffers.
//!
//! [`Plan::new`] works on a copy of the graph, in phases, each a file here: `rewrite` (constants folded, work
//! joined, dead operations pruned), `fuse` (elementwise tails attached to their producers), `lower`
//! (launches over storages), `liveness` (storages to slots).

mod fuse;
mod liveness;
mod lower;
mod pairs;
mod rewrite;
mod sums;

use std::{collections::BTreeMap, fmt, sync::Arc};

use kiln_kernel::{Advance, DType, Kernel, Launch, Shape};

use crate::{Graph, GraphError, Tensor, store::Segments};

pub(crate) use lower::{Lowering, Storage, step_name};

/// Name of the buffer that holds all parameters.
pub const PARAMETERS: &str = "parameters";
/// Name of the buffer that holds all gradients, at the same offsets.
pub const GRADIENTS: &str = "gradients";
/// Name of the clock; see [`kiln_kernel::CLOCK_WORDS`].
pub const CLOCK: &str = "clock";
/// Name of the hyper-parameter table; see [`kiln_kernel::HYPER_COLUMNS`].
pub const HYPER: &str = "hyper";
/// Name of the buffer of running sums; see [`Request::totals`].
pub const TOTALS: &str = "totals";
/// Name of the buffer of a classifier's counts; see [`Request::tally`].
pub const TALLY: &str = "tally";
/// Name of the buffer of what is no number; see [`Request::find`].
pub const FINDINGS: &str = "findings";
/// Elements of [`FINDINGS`] for each tensor of [`Request::find`]: arguments may start at any multiple of it.
pub const FINDING_LEN: usize = 64;

/// What the names of buffers of given numbers begin with; see [`Plan::literals`].
pub(crate) const LITERAL: &str = "literal ";

/// Where an argument of a planned launch lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Elements of a workspace slot.
    Slot {
        /// Index into [`Plan::slots`].
        index: usize,
        /// First element.
        offset: usize,
        /// Number of elements.
        len: usize,
    },
    /// Elements of a buffer that outlives the run: an input, the parameters, the clock.
    External {
        /// The buffer's name.
        name: Arc<str>,
        /// First element.
        offset: usize,
        /// Number of elements.
        len: usize,
    },
}

impl Place {
    /// The whole of an external buffer.
    pub fn external(name: &str, len: usize) -> Self {
        Self::External { name: name.into(), offset: 0, len }
    }
}

/// A buffer of the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Element type.
    pub dtype: DType,
    /// Number of elements: the most that any of its tenants needs.
    pub len: usize,
}

/// A tensor that lives in a slot for some of the launches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Index into [`Plan::slots`].
    pub slot: usize,
    /// Its operation and layer: `relu "conv1"`.
    pub what: Arc<str>,
    /// Its shape.
    pub shape: Shape,
    /// Its bytes on a device.
    pub bytes: u64,
}

/// A buffer that the plan expects to exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct External {
    /// Element type.
    pub dtype: DType,
    /// Number of elements.
    pub len: usize,
}

/// A result that can be read after a run.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// The name it was asked for under.
    pub name: String,
    /// Where it lies.
    pub place: Place,
    /// Its shape.
    pub shape: Shape,
}

/// What a plan is to compute.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Results to be read after a run, by name. A parameter fetched beside updates has its value after them.
    pub fetch: Vec<(String, Tensor)>,
    /// Gradients, by parameter name; they go to the gradient arena.
    pub gradients: Vec<(String, Tensor)>,
    /// Sums that grow from run to run: `totals[i] += factor · Σ tensor`. At most four.
    pub totals: Vec<(Tensor, f32)>,
    /// Averages that follow values from run to run: parameter `name` becomes `p + momentum (value - p)`; what the
    /// graph has recorded is [`Graph::averages`]. They move after everything that the graph computes and before the
    /// updates; a launch of those must not move them too (their gradient is zero, but a weight decay would).
    pub averages: Vec<(String, Tensor, f32)>,
    /// A classifier's scores [rows, classes] and its labels (integers, \[rows\]), to be counted in the buffer
    /// [`TALLY`] from run to run: integers [classes + 1, classes], row i the rows of class i by what they were
    /// predicted as, the last row the labels by rank. See [`kiln_kernel::RankRows`] and [`kiln_kernel::Tally`].
    pub tally: Option<(Tensor, Tensor)>,
    /// Results of real numbers to be searched for what is no number: the i-th's findings are the
    /// [`FINDING_LEN`] elements of the buffer [`FINDINGS`] from `i * FINDING_LEN` on, of which
    /// [`kiln_kernel::FirstNonFinite::parts`] are written.
    pub find: Vec<Tensor>,
    /// Results that are kept from run to run.
    pub collect: Vec<Collect>,
    /// Launches after all that: the optimizer's.
    pub updates: Vec<Launch<Place>>,
    /// The end of the step.
    pub advance: Option<Advance>,
}

/// Rows of a result that are kept in a buffer of their own, at the clock's cursor; see [`kiln_kernel::Collect`].
#[derive(Clone, Debug)]
pub struct Collect {
    /// Name of the buffer, which holds `capacity` rows of real numbers.
    pub buffer: String,
    /// The result, real numbers [rows, ...].
    pub tensor: Tensor,
    /// Rows that the buffer has room for.
    pub capacity: usize,
}

/// Launches in order, and the memory that they need.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to run.
    pub launches: Vec<Launch<Place>>,
    /// The workspace.
    pub slots: Vec<Slot>,
    /// What lives in the slots, one after the other, the largest first.
    pub tenants: Vec<Tenant>,
    /// Buffers that must exist, by name.
    pub externals: BTreeMap<Arc<str>, External>,
    /// What some of the externals hold from the start: numbers that were given when the graph was recorded.
    pub literals: BTreeMap<Arc<str>, Arc<[f32]>>,
    /// Results that can be read.
    pub fetches: Vec<Fetch>,
    /// Bytes that the workspace would take if nothing were fused and each recorded operation's result had a buffer of its
    /// own.
    pub naive_bytes: u64,
}

impl Plan {
    /// Plans a request.
    ///
    /// # Errors
    /// If a tensor belongs to another graph, a gradient has another size than its parameter, a name is
    /// unknown, a request has more than four totals, or what is tallied or collected has another shape than
    /// that takes.
    pub fn new(graph: &Graph, segments: &Segments, request: &Request) -> Result<Self, GraphError> {
        let asked = request.fetch.iter().map(|(_, t)| *t);
        let asked = asked.chain(request.gradients.iter().map(|(_, t)| *t));
        let asked = asked.chain(request.totals.iter().map(|(t, _)| *t));
        let asked = asked.chain(request.averages.iter().map(|(_, t, _)| *t));
        let asked = asked.chain(request.tally.iter().flat_map(|&(scores, labels)| [scores, labels]));
        let asked = asked.chain(request.find.iter().copied());
        let sinks: Vec<Tensor> = asked.chain(request.collect.iter().map(|c| c.tensor)).collect();
        for &t in &sinks {
            graph.info(t)?;
        }
        let value_bytes = rewrite::value_bytes(graph, &sinks);
        let rewritten = rewrite::rewrite(graph, &sinks);
        let units = fuse::fuse(&rewritten, &sinks);
        let mut lowered = lower::lower(&rewritten, units, segments, request)?;
        sums::join(&mut lowered, segments);
        pairs::join(&mut lowered);
        Ok(liveness::assign(lowered, value_bytes))
    }

    /// What lives in a slot, for people: `relu "conv1" [64, 32, 26, 26], then 3 others`.
    pub fn describe_slot(&self, slot: usize) -> String {
        let mut tenants = self.tenants.iter().filter(|tenant| tenant.slot == slot);
        let Some(first) = tenants.next() else { return format!("workspace {slot}") };
        let others = match tenants.count() {
            0 => String::new(),
            1 => ", then another".to_owned(),
            n => format!(", then {n} others"),
        };
        format!("{} {}{others}", first.what, first.shape)
    }

    /// Bytes of the workspace.
    pub fn workspace_bytes(&self) -> u64 {
        self.slots.iter().map(|s| 4 * s.len as u64).sum()
    }
}

impl fmt::Display for Plan {
    /// One line a launch: label, kernel with its sizes, fused steps, and where the arguments lie.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for launch in &self.launches {
            write!(f, "{:<24} {}", launch.label, launch.kernel)?;
            let halves = match &launch.kernel {
                Kernel::Pair(pair) => vec![&pair.first, &pair.second],
                kernel => vec![kernel],
            };
            for (i, kernel) in halves.iter().enumerate() {
                let tail = kernel.tail().map_or(&[][..], |t| &t.steps);
                if i > 0 && !tail.is_empty() {
                    f.write_str(" |")?;
                }
                for step in tail {
                    write!(f, " > {}", step_name(step))?;
                }
            }
            f.write_str(" @")?;
            for place in &launch.arguments {
                match place {
                    Place::Slot { index, offset: 0, .. } => write!(f, " #{index}")?,
                    Place::Slot { index, offset, .. } => write!(f, " #{index}+{offset}")?,
                    Place::External { name, offset: 0, .. } => write!(f, " {name}")?,
                    Place::External { name, offset, .. } => write!(f, " {name}+{offset}")?,
                }
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conv2dOptions, Graph};

    /// A step of a network of two convolutions, as launches before any is joined.
    pub(super) fn lowered() -> (lower::Lowered, Segments) {
        let mut g = Graph::new();
        let x = g.input("x", [2, 1, 6, 6]).unwrap();
        let mut parameter = |name: &str, shape: &[usize]| g.parameter(name, shape).unwrap();
        let (w1, b1) = (parameter("w1", &[2, 1, 3, 3]), parameter("b1", &[2]));
        let (w2, b2) = (parameter("w2", &[3, 2, 3, 3]), parameter("b2", &[3]));
        let mut layer = |x, w, b| {
            let y = g.conv2d(x, w, Conv2dOptions::default()).unwrap();
            let y = g.add_channels(y, b).unwrap();
            g.relu(y).unwrap()
        };
        let y = layer(x, w1, b1);
        let y = layer(y, w2, b2);
        let loss = g.mean_all(y).unwrap();
        let wanted = [("w1", w1), ("b1", b1), ("w2", w2), ("b2", b2)];
        let d = g.gradients(loss, &wanted.map(|w| w.1)).unwrap();
        let gradients = wanted.iter().zip(d).map(|((name, _), d)| (name.to_string(), d)).collect();
        let advance = Some(Advance::step(2));
        let request = Request { gradients, totals: vec![(loss, 1.0)], advance, ..Request::default() };
        let segments = Segments::new(&g.parameters());
        let sinks: Vec<Tensor> = request.gradients.iter().map(|g| g.1).chain([loss]).collect();
        let rewritten = rewrite::rewrite(&g, &sinks);
        let units = fuse::fuse(&rewritten, &sinks);
        (lower::lower(&rewritten, units, &segments, &request).unwrap(), segments)
    }

    /// The plan that launches make, in words.
    pub(super) fn text(lowered: &lower::Lowered) -> String {
        let plan = liveness::assign(lowered.clone(), 0).to_string();
        let lines = plan.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        format!("\n{}\n", lines.collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn the_values_of_a_plan_are_counted_as_recorded() {
        let mut g = Graph::new();
        let x = g.input("x", [4]).unwrap();
        let y = g.square(x).unwrap();
        let y = g.relu(y).unwrap();
        let request = Request { fetch: vec![("y".into(), y)], ..Request::default() };
        let plan = Plan::new(&g, &Segments::new(&[]), &request).unwrap();
        assert_eq!((plan.workspace_bytes(), plan.naive_bytes), (16, 32));
    }
}
