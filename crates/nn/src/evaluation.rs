//! Evaluating and predicting.

use std::collections::BTreeMap;

use kiln_data::{Features, Split, Targets};
use kiln_graph::{GraphError, TALLY};
use kiln_kernel::{BackendError, Buffer, DType, HostRef};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use crate::{
    NnError, TargetKind, Trainer,
    metrics::{Accumulator, Metric, Truth},
    step::{self, Keep, OUTPUTS, Recorded, Resident},
    trainer::{Pass, scores},
};

/// Rows of a batch in evaluation and prediction, unless there are fewer or that many do not fit on the device.
const EVALUATION_ROWS: usize = 256;

/// Most outputs that an evaluation keeps on the device for metrics that need them: 128 MiB.
const MOST_KEPT_OUTPUTS: usize = 32 << 20;

/// Loss, and for classification accuracy, over some rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The mean loss of a row.
    pub loss: f64,
    /// The part of rows whose largest output is at the label; none in regression.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub accuracy: Option<f64>,
}

/// What an evaluation with metrics gave. See [`Trainer::evaluate_with`].
#[derive(Clone, Debug)]
pub struct Scored {
    /// Loss and accuracy.
    pub scores: Scores,
    /// The metrics, with counts and outputs where they were needed.
    pub metrics: Accumulator,
}

impl Scored {
    /// The metrics' values by name; none where one is not defined.
    pub fn values(&self) -> BTreeMap<String, Option<f64>> {
        self.metrics.values().into_iter().collect()
    }
}

/// An evaluation that is ready to run.
pub(crate) struct Evaluation<'s> {
    passes: Vec<Pass>,
    /// Empty; each run fills a copy.
    metrics: Accumulator,
    tally: Option<Buffer>,
    outputs: Option<Buffer>,
    split: &'s Split,
}

impl Trainer {
    /// Loss and accuracy over a split, without training.
    ///
    /// # Errors
    /// If the data do not fit the network or the loss, or the device fails.
    pub fn evaluate(&self, split: &Split) -> Result<Scores, NnError> {
        Ok(self.evaluate_with(split, &[])?.scores)
    }

    /// As [`Trainer::evaluate`], with metrics. Their counts, and the outputs that some need, gather on the device and
    /// are read once at the end.
    ///
    /// # Errors
    /// As [`Trainer::evaluate`], and where a metric does not fit the network or its targets.
    pub fn evaluate_with(&self, split: &Split, metrics: &[Metric]) -> Result<Scored, NnError> {
        self.run_evaluation(&self.evaluation(split, metrics)?)
    }

    /// The network's output for each row, [rows, ...]: class probabilities where it classifies.
    ///
    /// # Errors
    /// If the rows do not fit the network, or the device fails.
    pub fn predict(&self, features: Features) -> Result<ArrayD<f32>, NnError> {
        let items = features.len() / self.model().input_shape().elements().max(1);
        let targets = Targets::Classes { labels: vec![0; items], classes: 1 };
        let split = Split::new(features, self.model().input_shape(), targets)?;
        self.predict_split(&split)
    }

    /// The network's output for each row of a split, [rows, ...].
    ///
    /// # Errors
    /// If the rows do not fit the network, or the device fails.
    pub fn predict_split(&self, split: &Split) -> Result<ArrayD<f32>, NnError> {
        let data = Resident::new(&**self.backend(), split)?;
        if data.form.item != self.model().input_shape() {
            let (want, got) = (self.model().input_shape(), data.form.item);
            return Err(NnError::Settings(format!(
                "the network takes items of shape {want}, the data have {got}"
            )));
        }
        let passes = self.fitting_passes(&data, |rows| {
            step::record_prediction(self.model(), self.loss(), self.preprocess(), &data.form, rows)
        })?;
        self.write_clock(0)?;
        let mut outputs = Vec::new();
        for pass in &passes {
            for _ in 0..pass.times {
                pass.session.run(1)?;
                outputs.extend(pass.session.read("output")?.into_f32());
            }
        }
        let mut dims = vec![split.len()];
        dims.extend(self.model().output_shape()?.dims());
        ArrayD::from_shape_vec(dims, outputs).map_err(|e| NnError::Settings(e.to_string()))
    }

    /// [`Trainer::passes`] in batches of [`EVALUATION_ROWS`], or of half as many, and so on, where the device has no
    /// room for more.
    fn fitting_passes(
        &self,
        data: &Resident,
        record: impl Fn(usize) -> Result<Recorded, GraphError>,
    ) -> Result<Vec<Pass>, NnError> {
        let mut rows = EVALUATION_ROWS.min(data.form.items);
        loop {
            match self.passes(data, rows, &record) {
                Err(NnError::Graph(GraphError::Backend(
                    BackendError::OutOfMemory { .. } | BackendError::Limit { .. },
                ))) if rows > 1 => rows /= 2,
                result => return result,
            }
        }
    }

    pub(crate) fn evaluation<'s>(
        &self,
        split: &'s Split,
        metrics: &[Metric],
    ) -> Result<Evaluation<'s>, NnError> {
        let backend = self.backend();
        let mut data = Resident::new(&**backend, split)?;
        step::check_targets(self.model(), self.loss(), &data.form)?;
        let output = self.model().output_shape()?;
        let metrics = Accumulator::new(metrics, &output, &data.form.targets)?
            .with_threshold(self.main_loss().decision_threshold());
        let mut keep = Keep { tally: metrics.needs_tally(), outputs: None };
        if let (true, TargetKind::Classes(classes)) = (keep.tally, &data.form.targets) {
            let words = (classes + 1) * classes;
            data.buffers.insert(TALLY.into(), backend.allocate(DType::U32, words, TALLY)?);
        }
        let kept = split.len().saturating_mul(output.elements());
        if metrics.needs_outputs() && kept <= MOST_KEPT_OUTPUTS {
            keep.outputs = Some(split.len());
            data.buffers.insert(OUTPUTS.into(), backend.allocate(DType::F32, kept, OUTPUTS)?);
        }
        let passes = self.fitting_passes(&data, |rows| {
            step::record_evaluation(self.model(), self.loss(), self.preprocess(), &data.form, keep, rows)
        })?;
        let buffer = |name: &str| data.buffers.get(name).cloned();
        Ok(Evaluation { passes, metrics, tally: buffer(TALLY), outputs: buffer(OUTPUTS), split })
    }

    pub(crate) fn run_evaluation(&self, evaluation: &Evaluation<'_>) -> Result<Scored, NnError> {
        let Evaluation { passes, tally, outputs, split, .. } = evaluation;
        let backend = self.backend();
        self.take_totals()?;
        self.write_clock(0)?;
        if let Some(tally) = tally {
            backend.write(&tally.view(), HostRef::U32(&vec![0; tally.len()]))?;
        }
        for pass in passes {
            for _ in 0..pass.times {
                pass.session.run(1)?;
            }
        }
        let rows = passes.iter().map(|p| p.rows * p.times).sum();
        let scores = scores(passes, &self.take_totals()?, rows);
        let mut metrics = evaluation.metrics.clone();
        if let Some(tally) = tally {
            metrics.add_tally(&pollster::block_on(backend.read(&tally.view()))?.into_u32())?;
        }
        if metrics.needs_outputs() {
            let outputs = match outputs {
                Some(outputs) => pollster::block_on(backend.read(&outputs.view()))?.into_f32(),
                // more than a device should keep beside the network: batch by batch
                None => self.predict_split(split)?.into_iter().collect(),
            };
            let truth = match split.targets() {
                Targets::Classes { labels, .. } => Truth::Labels(labels),
                Targets::Real { values, .. } => Truth::Real(values),
            };
            metrics.add_outputs(&outputs, truth)?;
        }
        Ok(Scored { scores, metrics })
    }
}
