//! Evaluating and predicting.

use std::collections::BTreeMap;

use kiln_data::{Features, Split, Targets};
use kiln_graph::{CLOCK, GraphError, Session, TALLY, TOTALS};
use kiln_kernel::{Buffer, DType, HostRef, Reading};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use crate::{
    NnError, TargetKind, Trainer,
    feed::{Feed, Residency, WINDOW_BYTES, is_no_room},
    metrics::{Accumulator, Metric, Truth},
    pass::{Pass, scores},
    state::clock_words,
    step::{self, Form, Keep, OUTPUTS},
};

/// Rows of a batch in evaluation and prediction, unless there are fewer or that many do not fit on the device.
pub(crate) const EVALUATION_ROWS: usize = 256;

/// Most outputs that an evaluation keeps on the device for metrics that need them: 128 MiB.
const MOST_KEPT_OUTPUTS: usize = 32 << 20;

/// Loss, and for classification accuracy, over some rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The mean loss of a row.
    #[serde(deserialize_with = "number_or_nan")]
    pub loss: f64,
    /// The part of rows whose largest output is at the label; none in regression.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub accuracy: Option<f64>,
}

/// JSON has no NaN: it is written as null.
fn number_or_nan<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
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
    pub(crate) passes: Vec<Pass>,
    /// Empty; each run fills a copy.
    pub(crate) metrics: Accumulator,
    tally: Option<Buffer>,
    outputs: Option<Buffer>,
    pub(crate) feed: Feed<'s>,
}

/// How rows are visited: so many at a time, from where they lie, in windows of so many bytes where they are streamed.
#[derive(Clone, Copy)]
struct Batches {
    rows: usize,
    residency: Residency,
    window: usize,
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
        self.run_evaluation(&self.evaluation(split, metrics, EVALUATION_ROWS, self.residency)?)
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
        if *split.item_shape() != self.model().input_shape() {
            let (want, got) = (self.model().input_shape(), split.item_shape());
            return Err(NnError::Settings(format!(
                "the network takes items of shape {want}, the data have {got}"
            )));
        }
        step::check_entries(self.model(), self.preprocess(), split)?;
        let (data, passes) = self.prediction(split)?;
        let mut outputs = Vec::new();
        // one batch is read while the next is computed
        let mut reading: Option<Reading> = None;
        self.run_apart(&data, &passes, |session| {
            if let Some(reading) = reading.replace(session.read_async("output")?) {
                outputs.extend(pollster::block_on(reading)?.into_f32());
            }
            Ok(())
        })?;
        if let Some(reading) = reading {
            outputs.extend(pollster::block_on(reading)?.into_f32());
        }
        let mut dims = vec![split.len()];
        dims.extend(self.model().output_shape()?.dims());
        ArrayD::from_shape_vec(dims, outputs).map_err(|e| NnError::Settings(e.to_string()))
    }

    /// What a prediction needs.
    fn prediction<'s>(&self, split: &'s Split) -> Result<(Feed<'s>, Vec<Pass>), NnError> {
        let backend = &**self.backend();
        self.with_room(
            EVALUATION_ROWS.min(split.len()),
            self.residency,
            |Batches { rows, residency, window }| {
                let data = Feed::within(window, backend, split, None, rows, residency)?.apart(backend)?;
                let passes = self.passes(&data, rows, |rows| {
                    step::record_prediction(self.model(), self.loss(), self.preprocess(), &data.form, rows)
                })?;
                Ok((data, passes))
            },
        )
    }

    /// What `make` makes of batches of so many rows. Where there is no room for it, of rows that are streamed, then of half
    /// as many to a batch and half as many to a window, and so on.
    fn with_room<T>(
        &self,
        rows: usize,
        residency: Residency,
        make: impl Fn(Batches) -> Result<T, NnError>,
    ) -> Result<T, NnError> {
        let mut batches = Batches { rows, residency, window: WINDOW_BYTES };
        loop {
            match make(batches) {
                Err(error) if is_no_room(&error) => {
                    if batches.residency == Residency::Auto {
                        batches.residency = Residency::Streamed;
                    } else if batches.rows > 1 {
                        (batches.rows, batches.window) = (batches.rows / 2, batches.window / 2);
                    } else {
                        return Err(error);
                    }
                }
                made => return made,
            }
        }
    }

    /// Runs passes over all rows as they come, by a clock of their own; `after` is called after each batch.
    fn run_apart(
        &self,
        data: &Feed<'_>,
        passes: &[Pass],
        mut after: impl FnMut(&Session) -> Result<(), NnError>,
    ) -> Result<(), NnError> {
        let backend = &**self.backend();
        let order: Vec<u32> = (0..data.rows() as u32).collect();
        data.visit(backend, &order, 0, |visit| {
            let mut row = 0;
            for pass in passes {
                for _ in 0..pass.times {
                    if let Some(cursor) = visit.before(backend, row)? {
                        let words = clock_words(self.seed, self.step, cursor);
                        backend.write(&data.buffers[CLOCK].view(), HostRef::U32(&words))?;
                    }
                    pass.run(1)?;
                    after(pass.session())?;
                    row += pass.rows;
                }
            }
            Ok(())
        })
    }

    /// Makes an evaluation ready, in batches of at most so many rows.
    pub(crate) fn evaluation<'s>(
        &self,
        split: &'s Split,
        metrics: &[Metric],
        most_rows: usize,
        residency: Residency,
    ) -> Result<Evaluation<'s>, NnError> {
        step::check_targets(self.model(), self.loss(), &Form::of(split))?;
        step::check_entries(self.model(), self.preprocess(), split)?;
        self.with_room(most_rows.min(split.len()), residency, |batches| {
            self.evaluation_in(batches, split, metrics)
        })
    }

    fn evaluation_in<'s>(
        &self,
        Batches { rows, residency, window }: Batches,
        split: &'s Split,
        metrics: &[Metric],
    ) -> Result<Evaluation<'s>, NnError> {
        let backend = &**self.backend();
        let mut data = Feed::within(window, backend, split, None, rows, residency)?.apart(backend)?;
        let output = self.model().output_shape()?;
        let metrics = Accumulator::new(metrics, &output, &data.form.targets)?
            .with_threshold(self.main_loss().decision_threshold());
        let mut keep = Keep { tally: metrics.needs_tally(), outputs: None };
        if let (true, TargetKind::Classes(classes)) = (keep.tally, &data.form.targets) {
            let words = (classes + 1) * classes;
            data.buffers.insert(TALLY.into(), backend.allocate(DType::U32, words, TALLY)?);
        }
        let kept = split.len().saturating_mul(output.elements());
        // they are kept at the clock's cursor, which begins anew with each window of streamed rows
        if metrics.needs_outputs() && kept <= MOST_KEPT_OUTPUTS && !data.is_streamed() {
            keep.outputs = Some(split.len());
            data.buffers.insert(OUTPUTS.into(), backend.allocate(DType::F32, kept, OUTPUTS)?);
        }
        let counts = label_counts(split);
        let loss = (self.loss(), counts.as_deref());
        let passes = self.passes(&data, rows, |rows| {
            step::record_evaluation(self.model(), loss, self.preprocess(), &data.form, keep, rows)
        })?;
        let buffer = |name: &str| data.buffers.get(name).cloned();
        Ok(Evaluation { passes, metrics, tally: buffer(TALLY), outputs: buffer(OUTPUTS), feed: data })
    }

    /// Reads what an evaluation reads, without one, on a device that only counts.
    pub(crate) fn rehearse_evaluation(&self, evaluation: &Evaluation<'_>) -> Result<(), NnError> {
        let Evaluation { tally, outputs, feed, metrics, .. } = evaluation;
        let backend = &**self.backend();
        for buffer in [Some(&feed.buffers[TOTALS]), tally.as_ref()].into_iter().flatten() {
            pollster::block_on(backend.read(&buffer.view()))?;
        }
        match outputs {
            Some(outputs) => drop(pollster::block_on(backend.read(&outputs.view()))?),
            None if metrics.needs_outputs() => {
                let (_data, passes) = self.prediction(feed.split())?;
                // two batches are on their way at a time
                let readings: Result<Vec<Reading>, GraphError> = passes
                    .iter()
                    .flat_map(|pass| [pass; 2].into_iter().take(pass.times))
                    .map(|pass| pass.session().read_async("output"))
                    .collect();
                readings?.into_iter().try_for_each(|reading| pollster::block_on(reading).map(drop))?;
            }
            None => {}
        }
        Ok(())
    }

    pub(crate) fn run_evaluation(&self, evaluation: &Evaluation<'_>) -> Result<Scored, NnError> {
        let Evaluation { passes, tally, outputs, feed, .. } = evaluation;
        let backend = &**self.backend();
        let totals = feed.buffers[TOTALS].view();
        backend.write(&totals, HostRef::F32(&vec![0.0; totals.len]))?;
        if let Some(tally) = tally {
            backend.write(&tally.view(), HostRef::U32(&vec![0; tally.len()]))?;
        }
        self.run_apart(feed, passes, |_| Ok(()))?;
        let split = feed.split();
        let rows = passes.iter().map(|p| p.rows * p.times).sum();
        let scores = scores(passes, &pollster::block_on(backend.read(&totals))?.into_f64(), rows);
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
            let own;
            let truth = match split.targets() {
                Targets::Classes { labels, .. } => Truth::Labels(labels),
                Targets::Real { values, .. } => Truth::Real(values),
                Targets::Input => {
                    own = self.preprocess().apply(split)?;
                    Truth::Real(&own)
                }
            };
            metrics.add_outputs(&outputs, truth)?;
        }
        Ok(Scored { scores, metrics })
    }
}

/// How many rows have each label, where the targets are labels.
fn label_counts(split: &Split) -> Option<Vec<u64>> {
    let Targets::Classes { labels, classes } = split.targets() else { return None };
    let mut counts = vec![0; *classes];
    labels.iter().for_each(|&label| counts[label as usize] += 1);
    Some(counts)
}
