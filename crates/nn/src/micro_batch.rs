//! Steps that are done in parts: the gradients of micro-batches add up before one update.
//!
//! A part runs forward and backward over some of the step's rows and adds `rows · gradient` to a sum. The update divides
//! the sum by the step's rows and is what it always is. So the loss of a step is the mean over its rows, whatever the
//! parts, as far as rows do not depend on each other; [`MicroBatches::differs`] says where they do.
//!
//! Between parts the clock's first word moves by one, so that each part draws random numbers of its own. A step moves it by
//! the same number whatever its rows, so that it follows from the step's number alone.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use kiln_graph::{GRADIENTS, Graph, GraphError, Place, Plan, Request, Segments, Session};
use kiln_kernel::{
    AddScaled, Advance, BackendError, Binary, DType, Elementwise, HostRef, Kernel, Launch, Layout, Operand,
    Real, Source, Step, Tail,
};
use serde::{Deserialize, Serialize};

use crate::{
    Loss, NnError, Optimizer, Trainer,
    feed::Feed,
    pass::{Part, Pass},
    step::{self, HYPER_ROWS, Recorded},
};

/// Name of the buffer that the parts' gradients add up in.
pub(crate) const GRADIENT_SUM: &str = "gradient sum";

/// What a fit does where its batches do not fit the device's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnOom {
    /// It fails before its first step, and says which batch would fit.
    #[default]
    Fail,
    /// Each step is done in parts of as many rows as fit: half of the batch, a quarter of it, and so on. See
    /// [`crate::Fit::micro_batch_size`].
    Split,
}

/// How the steps of a fit are done in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MicroBatches {
    /// Rows of a part; the last of a step may have fewer.
    pub rows: usize,
    /// Parts of a step of a whole batch.
    pub parts: usize,
    /// Why, where the batch as a whole did not fit.
    pub reason: Option<String>,
    /// What is not as it would be in whole batches, beside rounding: empty where rows do not depend on each other and
    /// nothing is drawn by chance.
    pub differs: Vec<&'static str>,
}

impl MicroBatches {
    /// Why a batch did not fit, in a clause.
    pub(crate) fn reason(error: &NnError) -> String {
        let out = match error {
            NnError::Backend(BackendError::OutOfMemory(out))
            | NnError::Graph(GraphError::Backend(BackendError::OutOfMemory(out))) => out,
            error => return error.to_string(),
        };
        let budget = out.budget.map_or_else(String::new, |budget| format!(" of a budget of {budget}"));
        format!("no memory for \"{}\", {} bytes beside {}{budget}", out.label, out.bytes, out.live_bytes)
    }

    /// Rows of the parts of a step that are tried one after the other where a batch does not fit: those of two parts, of four,
    /// and so on, down to one row.
    pub(crate) fn candidates(batch: usize) -> impl Iterator<Item = usize> {
        let parts = (1..usize::BITS).map(|exponent| 1usize << exponent);
        let rows = parts.take_while(move |parts| parts / 2 < batch).map(move |parts| batch.div_ceil(parts));
        let mut last = batch;
        rows.filter(move |&rows| std::mem::replace(&mut last, rows) > rows)
    }
}

/// Passes whose steps are done in parts, and what of a step is not as it would be otherwise.
pub(crate) struct InParts {
    pub(crate) passes: Vec<Pass>,
    pub(crate) differs: Vec<&'static str>,
}

impl Trainer {
    /// Sessions for steps of `batch` rows, and of what is left over at the end, in parts of `rows`. The gradients' sum joins
    /// the buffers of the feed.
    pub(crate) fn passes_in_parts(
        &self,
        feed: &mut Feed<'_>,
        batch: usize,
        rows: usize,
    ) -> Result<InParts, NnError> {
        let backend = &**self.backend();
        let segments = self.store().segments();
        let sum = backend.allocate(DType::F32, segments.len(), GRADIENT_SUM)?;
        if !backend.is_rehearsal() {
            backend.write(&sum.view(), HostRef::F32(&vec![0.0; sum.len()]))?;
        }
        feed.buffers.insert(GRADIENT_SUM.into(), sum);
        let draws = batch.div_ceil(rows);
        let classifies = self.main_loss().is_classification(&feed.form.targets);
        let mut known: HashMap<usize, Arc<Session>> = HashMap::new();
        let (mut totals, mut differs) = (0, Vec::new());
        let items = feed.rows();
        let mut passes = Vec::new();
        for (batch, steps) in [(batch, items / batch), (items % batch, 1)] {
            if batch == 0 || steps == 0 {
                continue;
            }
            let mut parts = Vec::new();
            for (rows, times) in [(rows, batch / rows), (batch % rows, 1)] {
                if rows == 0 || times == 0 {
                    continue;
                }
                let session = match known.entry(rows) {
                    Entry::Occupied(entry) => entry.get().clone(),
                    Entry::Vacant(entry) => {
                        let Recorded { graph, mut request } = self.record_step(feed, rows)?;
                        totals = request.totals.len();
                        (request.updates, request.advance) = add_up(segments, rows);
                        let plan = Plan::new(&graph, segments, &request)?;
                        differs = self.differences(&plan, &graph);
                        entry.insert(Arc::new(self.session(&plan, feed)?)).clone()
                    }
                };
                parts.push(Part { session, rows, times });
            }
            let done: usize = parts.iter().map(|part| part.times).sum();
            let request = Request {
                updates: update(&self.optimizer, segments, batch),
                advance: Some(Advance { batch: 0, draws: (draws - done) as u32, steps: 1 }),
                ..Request::default()
            };
            let plan = Plan::new(&Graph::new(), segments, &request)?;
            parts.push(Part { session: Arc::new(self.session(&plan, feed)?), rows: 0, times: 1 });
            passes.push(Pass::new(parts, steps, totals, classifies));
        }
        Ok(InParts { passes, differs })
    }

    /// Records a training step of so many rows.
    pub(crate) fn record_step(&self, feed: &Feed<'_>, rows: usize) -> Result<Recorded, GraphError> {
        let (model, loss) = (self.model(), self.loss());
        step::record_training(model, loss, &self.optimizer, self.preparation(), &feed.form, rows)
    }

    /// What of a step in parts is not as it would be otherwise, in words.
    fn differences(&self, plan: &Plan, graph: &Graph) -> Vec<&'static str> {
        let mut all = Vec::new();
        if !graph.averages().is_empty() {
            all.push("batch normalisation takes the statistics of each part");
        }
        let by_chance = |kernel: &Kernel| {
            matches!(kernel, Kernel::Dropout(_) | Kernel::RandomNormal(_) | Kernel::AugmentDraw(_))
        };
        if plan.launches.iter().any(|launch| by_chance(&launch.kernel)) {
            all.push("other random numbers are drawn");
        }
        if self.augment().is_some_and(|augment| augment.mixup > 0.0) {
            all.push("rows are mixed within each part");
        }
        let own = self.model().outputs().iter().filter_map(|output| output.loss.as_ref());
        let divides_by_weights = |loss: &Loss| matches!(loss, Loss::CrossEntropyWith(options) if !options.class_weights.is_empty());
        if own.chain([self.loss()]).any(divides_by_weights) {
            all.push("the loss divides by the class weights of each part");
        }
        all
    }
}

/// What follows the gradients of a part: they join the sum, each row counting once.
fn add_up(segments: &Segments, rows: usize) -> (Vec<Launch<Place>>, Option<Advance>) {
    let arena = |name| Place::external(name, segments.len());
    let kernel = AddScaled { len: segments.len() as u32, factor: Real(rows as f32) };
    let (kernel, arguments) = (Kernel::AddScaled(kernel), vec![arena(GRADIENT_SUM), arena(GRADIENTS)]);
    let launch = Launch { kernel, arguments, label: "gradient sum".into() };
    (vec![launch], Some(Advance { batch: rows as u32, draws: 1, steps: 0 }))
}

/// What ends a step of so many rows: the mean of the gradients, a sum that begins anew, and the optimizer's launches.
fn update(optimizer: &Optimizer, segments: &Segments, rows: usize) -> Vec<Launch<Place>> {
    let arena = |name| Place::external(name, segments.len());
    let len = segments.len() as u32;
    let elementwise = |source, steps, arguments| {
        let tail = Tail { operands: Vec::new(), steps };
        let kernel = Kernel::Elementwise(Elementwise { len, source, tail });
        Launch { kernel, arguments, label: "gradient sum".into() }
    };
    let whole = Operand { layout: Layout::contiguous(segments.len()), len };
    let divide = Step::Constant { binary: Binary::Div, value: Real(rows as f32), swapped: false };
    let mut launches = vec![
        elementwise(Source::Operand(whole), vec![divide], vec![arena(GRADIENT_SUM), arena(GRADIENTS)]),
        elementwise(Source::Constant(Real(0.0)), Vec::new(), vec![arena(GRADIENT_SUM)]),
    ];
    launches.extend(optimizer.launches(segments, HYPER_ROWS));
    launches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_tried_from_the_largest_on() {
        let candidates = |batch| MicroBatches::candidates(batch).collect::<Vec<_>>();
        assert_eq!(candidates(64), [32, 16, 8, 4, 2, 1]);
        assert_eq!(candidates(100), [50, 25, 13, 7, 4, 2, 1]);
        assert_eq!(candidates(3), [2, 1]);
        assert_eq!(candidates(1), Vec::<usize>::new());
    }
}
