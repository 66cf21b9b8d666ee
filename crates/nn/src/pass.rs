//! The plans of one pass over a split.

use std::sync::Arc;

use kiln_graph::Session;

use crate::{NnError, Scores};

/// The steps over a split that are alike: those of whole batches, or the one of the rest.
pub(crate) struct Pass {
    /// What makes a step, in its order: one plan, or those of a step that is done in parts.
    parts: Vec<Part>,
    /// Rows of a step.
    pub(crate) rows: usize,
    /// Number of steps.
    pub(crate) times: usize,
    /// Sums that it adds to: the loss, the hits where it classifies, and what is added to the loss.
    pub(crate) totals: usize,
    pub(crate) classifies: bool,
}

/// A plan that a step runs, once or several times over.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) session: Arc<Session>,
    /// Rows of one run; 0 for an update from gradients that were summed before.
    pub(crate) rows: usize,
    pub(crate) times: usize,
}

impl Pass {
    pub(crate) fn new(parts: Vec<Part>, times: usize, totals: usize, classifies: bool) -> Self {
        let rows = parts.iter().map(|part| part.rows * part.times).sum();
        Self { parts, rows, times, totals, classifies }
    }

    /// The plan of a step that is not done in parts.
    pub(crate) fn session(&self) -> &Session {
        &self.parts[0].session
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Launches of a step.
    pub(crate) fn launches(&self) -> usize {
        self.parts.iter().map(|part| part.session.launches() * part.times).sum()
    }

    /// Submits so many steps.
    pub(crate) fn run(&self, steps: usize) -> Result<(), NnError> {
        if let [Part { session, times: 1, .. }] = &*self.parts {
            return Ok(session.run(steps as u32)?);
        }
        for _ in 0..steps {
            for Part { session, times, .. } in &self.parts {
                session.run(*times as u32)?;
            }
        }
        Ok(())
    }
}

/// The parts of passes, each session once.
pub(crate) fn distinct(passes: &[Pass]) -> Vec<&Part> {
    let mut found: Vec<&Part> = Vec::new();
    for part in passes.iter().flat_map(Pass::parts) {
        if !found.iter().any(|known| Arc::ptr_eq(&known.session, &part.session)) {
            found.push(part);
        }
    }
    found
}

/// The means of the sums that passes have added to.
pub(crate) fn scores(passes: &[Pass], totals: &[f64], rows: usize) -> Scores {
    let (count, classifies) = passes.first().map_or((1, false), |p| (p.totals, p.classifies));
    let extra = if count > 1 + usize::from(classifies) { totals[count - 1] } else { 0.0 };
    let accuracy = classifies.then(|| totals[1] / rows as f64);
    Scores { loss: (totals[0] + extra) / rows as f64, accuracy }
}
