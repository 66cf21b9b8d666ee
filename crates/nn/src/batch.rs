//! Single steps on batches of the caller's own.

use std::collections::HashMap;

use kiln_data::Split;
use kiln_graph::{CLOCK, TOTALS};
use kiln_kernel::{Buffer, HostRef};

use crate::{
    NnError, Residency, Scores, Trainer,
    feed::{Feed, upload},
    pass::{Pass, scores},
    state::clock_words,
    step::{self, Form},
};

/// Most kinds of batches whose plans are kept.
const KEPT: usize = 8;

/// The plan of a step on one kind of batch, and the buffers that it reads.
pub(crate) struct Batch {
    buffers: HashMap<String, Buffer>,
    passes: Vec<Pass>,
}

impl Trainer {
    /// One step on the rows of a split, all of them as one batch: loss and accuracy before the update. Keras'
    /// `train_on_batch`, for loops of one's own. The plan for each number of rows is made once and kept. Waits for the
    /// device; [`Trainer::fit`] does not.
    ///
    /// ```
    /// use kiln_data::{Dataset, Gate};
    /// use kiln_nn::{Activation::Relu, Adam, Dense, Loss, Sequential, Trainer};
    ///
    /// # fn main() -> Result<(), kiln_nn::NnError> {
    /// let data = Dataset::gate(Gate::Xor)?;
    /// let model = Sequential::new([2]).add(Dense::new(8).activation(Relu)).add(Dense::new(1));
    /// let mut trainer =
    ///     Trainer::new(&kiln_device::Device::cpu(), model, Adam::new(0.05), Loss::MeanSquaredError)?;
    /// let first = trainer.train_on_batch(&data.train)?;
    /// for _ in 0..200 {
    ///     trainer.train_on_batch(&data.train)?;
    /// }
    /// assert!(trainer.train_on_batch(&data.train)?.loss < first.loss / 2.0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the rows do not fit the network or the loss, or the device fails.
    pub fn train_on_batch(&mut self, batch: &Split) -> Result<Scores, NnError> {
        step::check_entries(self.model(), self.preprocess(), batch)?;
        let form = Form::of(batch);
        if !self.batches.contains_key(&form) {
            if self.batches.len() >= KEPT {
                self.batches.clear();
            }
            let made = self.batch(batch)?;
            self.batches.insert(form.clone(), made);
        }
        let backend = self.backend().clone();
        let Some(Batch { buffers, passes }) = self.batches.get(&form) else {
            unreachable!("it was inserted above")
        };
        upload(&*backend, buffers, batch)?;
        let totals = buffers[TOTALS].view();
        backend.write(&totals, HostRef::F32(&vec![0.0; totals.len]))?;
        // the table is that of the running fit, if there is one: its next step writes it anew
        let rows = self.optimizer.hyper_table(self.step, 1, &|step| self.learning_rate_at(step));
        self.state.write_hyper(&*backend, &rows)?;
        backend.write(&buffers[CLOCK].view(), HostRef::U32(&clock_words(self.seed, self.step, 0)))?;
        for pass in passes {
            pass.run(1)?;
        }
        let sums = pollster::block_on(backend.read(&totals))?.into_f64();
        let scores = scores(passes, &sums, batch.len());
        self.step += 1;
        self.hyper_is_stale = true;
        Ok(scores)
    }

    fn batch(&self, batch: &Split) -> Result<Batch, NnError> {
        step::check_targets(self.model(), self.loss(), &Form::of(batch))?;
        let backend = &**self.backend();
        let feed = Feed::new(backend, batch, None, batch.len(), Residency::Resident)?.apart(backend)?;
        let passes = self.passes(&feed, batch.len(), |rows| self.record_step(&feed, rows))?;
        Ok(Batch { buffers: feed.buffers.clone(), passes })
    }
}
