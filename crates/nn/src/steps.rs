//! The steps of an epoch on their way to the device.

use std::time::Instant;

use kiln_graph::CLOCK;
use kiln_kernel::BackendError;

use crate::{
    NnError, Trainer, feed::Visit, fit::Prepare, history::figure_names, pass::Pass, step::HYPER_ROWS,
};

/// The longest that a submission of several steps should take. A display's driver gives a device up that does not answer
/// for seconds; an interrupt waits for what is under way, which is several submissions.
const SUBMISSION_SECONDS: f64 = 0.05;

/// What goes on around the steps of [`Trainer::run_steps`].
pub(crate) trait Around {
    /// Before a step for which everything lies ready; so many of the epoch were done before it. How many steps may be
    /// submitted before [`Around::after`] is told; with 0 the epoch ends here.
    fn before(&mut self, trainer: &mut Trainer, steps: usize) -> Result<usize, NnError>;

    /// After steps were submitted; so many steps and rows of the epoch are done or under way. Whether it goes on.
    fn after(&mut self, trainer: &mut Trainer, steps: usize, rows: usize) -> Result<bool, NnError>;
}

/// How long steps take, from which follows how many of them make one submission. Nothing that is computed depends on it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// Unknown before anything was read back.
    step_seconds: Option<f64>,
}

impl Pace {
    /// Notes that the device has done at least so many steps in a time. What is under way besides makes steps seem
    /// longer than they are, never shorter.
    pub(crate) fn note(&mut self, steps: usize, seconds: f64) {
        // after the first step of an epoch others have long been under way
        if steps > usize::from(self.step_seconds.is_some()) {
            self.step_seconds = Some(seconds / steps as f64);
        }
    }

    /// Steps of one submission: at least one.
    pub(crate) fn together(&self) -> usize {
        self.step_seconds.map_or(1, |seconds| ((SUBMISSION_SECONDS / seconds) as usize).max(1))
    }
}

/// Rows per second, as callbacks are told. A reading is taken when the next is queued, so that the time that it says something
/// of is that at which it was queued.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    /// When and behind how many rows of the epoch the first reading was queued that was not the first step's.
    from: Option<(Instant, usize)>,
    /// What was told last: in the first steps of an epoch that of the one before.
    last: Option<f64>,
}

impl Rate {
    /// At the beginning of an epoch.
    pub(crate) fn begin(&mut self) {
        self.from = None;
    }

    /// Behind so many steps and rows, where the epoch began `since` with `rows_before`. `at` is when the reading was queued.
    pub(crate) fn at(
        &mut self,
        at: Instant,
        steps: usize,
        rows: usize,
        (since, rows_before): (Instant, usize),
    ) -> f64 {
        let over = |from: Instant, rows: usize| {
            rows as f64 / at.saturating_duration_since(from).as_secs_f64().max(1e-9)
        };
        let rate = match (self.from, self.last) {
            (Some((from, behind)), _) => over(from, rows.saturating_sub(behind)),
            // what is under way on a device would count as done
            (None, Some(last)) => last,
            (None, None) => over(since, rows.saturating_sub(rows_before)),
        };
        if steps > 1 && self.from.is_none() {
            self.from = Some((at, rows));
        }
        // sums that an earlier attempt had asked for say nothing of this one
        if steps > 0 {
            self.last = Some(rate);
        }
        rate
    }

    /// At the end of an epoch of so many rows, which the device has done.
    pub(crate) fn end(&mut self, rows: usize, since: Instant) -> f64 {
        let rate = rows as f64 / since.elapsed().as_secs_f64().max(1e-9);
        self.last = Some(rate);
        rate
    }
}

impl Prepare<'_> {
    /// The names of the figures that an epoch will have.
    pub(crate) fn figures(&self) -> Vec<String> {
        let classifies = |passes: &[Pass]| passes.first().is_some_and(|pass| pass.classifies);
        let metrics = self.evaluation.as_ref().map(|e| e.metrics.names()).unwrap_or_default();
        let validation = self.evaluation.as_ref().map(|e| classifies(&e.passes));
        figure_names(classifies(&self.passes), validation, metrics.iter())
    }

    /// How often a step draws random numbers.
    pub(crate) fn draws(&self) -> u64 {
        self.micro_batches.as_ref().map_or(1, |micro| micro.parts as u64)
    }

    /// The plan of a step of an epoch, counted from 0, and how many steps from it on have that plan; none behind the
    /// last.
    pub(crate) fn pass(&self, step: usize) -> Option<(&Pass, usize)> {
        let mut end = 0;
        self.passes.iter().find_map(|pass| {
            end += pass.times;
            (step < end).then(|| (pass, end - step))
        })
    }
}

impl Trainer {
    /// Whether the device has done all steps that were submitted since the clock was written last (at the beginning of an epoch
    /// or of a window of streamed rows, and every [`HYPER_ROWS`] steps): it counts them. Some drivers drop work that takes too
    /// long or faults, and call it done. Waits for the device.
    pub(crate) fn check_done(&self) -> Result<(), NnError> {
        // the clock is written anew before the next step
        if self.hyper_is_stale || self.backend().is_rehearsal() {
            return Ok(());
        }
        let clock = pollster::block_on(self.backend().read(&self.state.shared[CLOCK].view()))?.into_u32();
        let (done, wanted) = (clock[1], (self.step - self.table_step) as u32);
        if done != wanted {
            let message = format!("it has done {done} of {wanted} steps and calls them done");
            return Err(BackendError::DeviceLost(message).into());
        }
        Ok(())
    }

    /// Runs steps of an epoch from a place on, until `around` says that it is enough.
    pub(crate) fn run_steps(
        &mut self,
        on: &Prepare<'_>,
        order: &[u32],
        (mut steps, mut rows): (usize, usize),
        around: &mut dyn Around,
    ) -> Result<(), NnError> {
        let backend = self.backend().clone();
        on.feed.visit(&*backend, order, rows, |visit: &mut Visit<'_, '_>| {
            let mut table_until = 0;
            while let Some((pass, left)) = on.pass(steps) {
                // the cursor counts from the beginning of what lies on the device
                let cursor = visit.before(&*backend, rows)?;
                self.hyper_is_stale |= cursor.is_some() || steps >= table_until;
                if std::mem::take(&mut self.hyper_is_stale) {
                    let cursor = cursor.unwrap_or_else(|| visit.cursor(rows));
                    self.write_hyper(on.steps - steps, cursor, on.draws())?;
                    self.table_step = self.step;
                    table_until = steps + HYPER_ROWS;
                }
                let asked = around.before(self, steps)?;
                if asked == 0 {
                    return Ok(());
                }
                let ready = visit.ready(rows) / pass.rows;
                let together = asked.min(left).min(table_until - steps).min(ready).max(1);
                pass.run(together)?;
                steps += together;
                rows += together * pass.rows;
                self.step += together as u64;
                self.steps = steps;
                if !around.after(self, steps, rows)? {
                    return Ok(());
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rates_are_of_the_time_between_readings() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut rate = Rate::default();
        // the first step takes long, the others a second each
        assert_eq!(rate.at(at(10), 1, 10, (start, 0)), 1.0);
        assert_eq!(rate.at(at(34), 25, 250, (start, 0)), 1.0);
        assert_eq!(rate.at(at(59), 50, 500, (start, 0)), 10.0);
        rate.begin();
        assert_eq!(rate.at(at(60), 1, 10, (at(60), 0)), 10.0, "nothing is known of this epoch");
        assert_eq!(rate.at(at(65), 25, 250, (at(60), 0)), 10.0);
        assert_eq!(rate.at(at(90), 50, 500, (at(60), 0)), 10.0);
    }

    #[test]
    fn submissions_are_short() {
        let mut pace = Pace::default();
        assert_eq!(pace.together(), 1);
        for (steps, seconds, together) in
            [(1, 0.01, 5), (25, 0.025, 50), (10, 1.0, 1), (4, 0.1, 2), (1, 9.0, 2), (0, 9.0, 2)]
        {
            pace.note(steps, seconds);
            assert_eq!(pace.together(), together, "{steps} steps in {seconds} s");
        }
        pace.note(2, 0.0);
        assert!(pace.together() >= 1);
    }
}
