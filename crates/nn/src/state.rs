//! What training keeps on the device from step to step.

use std::collections::{HashMap, HashSet};

use kiln_graph::{CLOCK, GRADIENTS, HYPER, PARAMETERS, ParameterStore, TOTALS};
use kiln_kernel::{Backend, Buffer, CLOCK_WORDS, DType, HYPER_COLUMNS, Host, HostRef, Shape};

use crate::{NnError, Optimizer, ParameterSpec, parameter_stream, step::HYPER_ROWS};

/// Parameters, gradients and moments in their arenas, and the buffers that every plan of a training shares: the clock,
/// the hyper-parameter table, the optimizer's tables.
pub(crate) struct State {
    pub(crate) store: ParameterStore,
    pub(crate) shared: HashMap<String, Buffer>,
}

impl State {
    /// Allocates everything; the parameters are zero.
    pub(crate) fn new(
        backend: &dyn Backend,
        optimizer: &Optimizer,
        parameters: &[ParameterSpec],
    ) -> Result<Self, NnError> {
        let trainable: HashSet<&str> =
            parameters.iter().filter(|p| p.trainable).map(|p| p.name.as_str()).collect();
        if trainable.is_empty() {
            return Err(NnError::Settings("the network has no parameters to train".into()));
        }
        let shapes: Vec<(String, Shape)> =
            parameters.iter().map(|p| (p.name.clone(), p.shape.clone())).collect();
        let arenas: Vec<&str> =
            std::iter::once(GRADIENTS).chain(optimizer.moments().iter().copied()).collect();
        let store = ParameterStore::new(backend, &shapes, &arenas)?;
        optimizer.check_groups(store.segments())?;
        let learns =
            |p: &ParameterSpec| p.trainable && optimizer.settings_of(&p.name, p.shape.rank()).0 > 0.0;
        if !parameters.iter().any(learns) {
            return Err(NnError::Settings(
                "all parameters are frozen, so that nothing would be trained".into(),
            ));
        }
        let mut shared = HashMap::new();
        shared.insert(CLOCK.into(), backend.allocate(DType::U32, CLOCK_WORDS, CLOCK)?);
        // the loss, the hits where it classifies, and what is added to the loss
        shared.insert(TOTALS.into(), backend.allocate(DType::F32, 3, TOTALS)?);
        shared.insert(HYPER.into(), backend.allocate(DType::F32, HYPER_ROWS * HYPER_COLUMNS, HYPER)?);
        for (name, table) in optimizer.tables(store.segments(), &|name| trainable.contains(name)) {
            let dtype = if matches!(table, Host::U32(_)) { DType::U32 } else { DType::F32 };
            let buffer = backend.allocate(dtype, table.len(), name)?;
            backend.write(&buffer.view(), table.as_ref())?;
            shared.insert(name.into(), buffer);
        }
        Ok(Self { store, shared })
    }

    /// Draws all parameters from a seed, and zeroes gradients and moments.
    pub(crate) fn draw(
        &self,
        backend: &dyn Backend,
        parameters: &[ParameterSpec],
        seed: u64,
    ) -> Result<(), NnError> {
        if backend.is_rehearsal() {
            return Ok(());
        }
        for spec in parameters {
            let named = |e: NnError| NnError::Settings(format!("parameter \"{}\": {e}", spec.name));
            spec.initializer.check().map_err(named)?;
            let stream = parameter_stream(seed, &spec.name);
            let values = spec.initializer.values(stream, &spec.shape, spec.fan_in, spec.fan_out);
            self.store.write(backend, PARAMETERS, &spec.name, HostRef::F32(&values))?;
        }
        for (name, buffer) in self.store.arenas() {
            if name != PARAMETERS {
                backend.write(&buffer.view(), HostRef::F32(&vec![0.0; buffer.len()]))?;
            }
        }
        Ok(())
    }

    /// Writes rows of the hyper-parameter table from its start.
    pub(crate) fn write_hyper(&self, backend: &dyn Backend, rows: &[f32]) -> Result<(), NnError> {
        Ok(backend.write(&self.shared[HYPER].slice(0, rows.len()), HostRef::F32(rows))?)
    }

    /// Sets the clock: the table's first row, the epoch's row `cursor`, and what random numbers are drawn by, which is the
    /// step unless steps are done in parts.
    pub(crate) fn write_clock(
        &self,
        backend: &dyn Backend,
        seed: u64,
        step: u64,
        cursor: usize,
    ) -> Result<(), NnError> {
        let words = clock_words(seed, step, cursor);
        Ok(backend.write(&self.shared[CLOCK].view(), HostRef::U32(&words))?)
    }
}

/// The clock at the hyper-parameter table's first row.
pub(crate) fn clock_words(seed: u64, step: u64, cursor: usize) -> [u32; CLOCK_WORDS] {
    [step as u32, 0, cursor as u32, seed as u32, (seed >> 32) as u32, 0, 0, 0]
}
