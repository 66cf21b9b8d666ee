//! The steps of an epoch on their way to the device.

use crate::{NnError, Trainer, feed::Visit, fit::Prepare, pass::Pass, step::HYPER_ROWS};

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

impl Prepare<'_> {
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
    use super::*;

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
