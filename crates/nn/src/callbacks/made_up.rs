//! Reports for tests.

use std::collections::BTreeMap;

use super::StepReport;
use crate::{EpochReport, Scores};

pub(crate) fn epoch(epoch: usize) -> EpochReport {
    EpochReport {
        epoch,
        step: 938 * epoch as u64,
        train: Scores { loss: 1.5, accuracy: Some(0.5) },
        validation: Some(Scores { loss: 2.25, accuracy: Some(0.25) }),
        metrics: BTreeMap::new(),
        learning_rate: 0.001,
        seconds: 2.5,
        images_per_second: 24_000.0,
        data_wait_seconds: 0.25,
    }
}

pub(crate) fn step(epoch: usize, step: u64) -> StepReport {
    StepReport {
        epoch,
        step,
        steps: 25,
        rows: 1600,
        total_rows: 60_000,
        scores: Scores { loss: 1.5, accuracy: Some(0.5) },
        images_per_second: 24_000.0,
        learning_rate: 0.001,
    }
}
