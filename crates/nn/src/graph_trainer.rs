//! Training of any graph: several inputs and outputs, losses of one's own.

use std::path::Path;

use kiln_device::Device;
use kiln_graph::{Graph, GraphError, PARAMETERS, ParameterStore, Plan, Request, Session, Tensor};
use kiln_kernel::{Advance, HostRef, Shape};

use crate::{
    Mode, NnError, Optimizer, ParameterSpec, Recording, file::write_parameters, state::State,
    step::HYPER_ROWS,
};

/// What a recorded graph computes. See [`GraphTrainer::new`].
#[derive(Clone, Debug)]
pub struct Objective {
    /// The scalar that training makes small.
    pub loss: Tensor,
    /// Results that can be read after a step, by name.
    pub fetch: Vec<(String, Tensor)>,
}

/// Trains a graph that is recorded by hand: any number of inputs and results, shared layers, any loss. Inputs are
/// written before a step and have a fixed shape, the batch included.
///
/// ```
/// use kiln_kernel::HostRef;
/// use kiln_nn::{Dense, GraphTrainer, Objective, Sgd};
///
/// # fn main() -> Result<(), kiln_nn::NnError> {
/// let device = kiln_device::Device::cpu();
/// let mut trainer = GraphTrainer::new(&device, Sgd::new(0.1), 42, |to| {
///     let x = to.graph().input("x", [4, 1])?;
///     let target = to.graph().input("target", [4, 1])?;
///     let y = to.layer("line", &Dense::new(1), &[x])?;
///     let g = to.graph();
///     let error = g.sub(y, target)?;
///     let squares = g.square(error)?;
///     Ok(Objective { loss: g.mean_all(squares)?, fetch: vec![("y".into(), y)] })
/// })?;
/// trainer.write("x", HostRef::F32(&[0.0, 1.0, 2.0, 3.0]))?;
/// trainer.write("target", HostRef::F32(&[1.0, 3.0, 5.0, 7.0]))?;
/// for _ in 0..300 {
///     trainer.step()?;
/// }
/// assert!((trainer.parameter("line.weight")?[0] - 2.0).abs() < 0.01);
/// # Ok(())
/// # }
/// ```
pub struct GraphTrainer {
    device: Device,
    optimizer: Optimizer,
    state: State,
    session: Session,
    parameters: Vec<ParameterSpec>,
    seed: u64,
    step: u64,
}

/// The name under which the loss is fetched.
const LOSS: &str = "loss";

impl GraphTrainer {
    /// Records a step, draws the parameters from `seed`, plans and compiles.
    ///
    /// # Errors
    /// If recording fails, the loss is no scalar, nothing is trainable, or the device fails.
    pub fn new(
        device: &Device,
        optimizer: impl Into<Optimizer>,
        seed: u64,
        record: impl FnOnce(&mut Recording<'_>) -> Result<Objective, GraphError>,
    ) -> Result<Self, NnError> {
        let optimizer = optimizer.into();
        optimizer.check()?;
        let backend = device.backend();
        let mut g = Graph::new();
        let mut to = Recording::new(&mut g, Mode::Train);
        let objective = record(&mut to)?;
        let (parameters, penalties) = (to.parameters().to_vec(), to.penalties().to_vec());
        if g.shape(objective.loss)?.elements() != 1 {
            let shape = g.shape(objective.loss)?;
            return Err(NnError::Settings(format!(
                "the loss must be one number, has the shape {shape}; take its mean"
            )));
        }
        let mut loss = g.reshape(objective.loss, Shape::scalar())?;
        for penalty in penalties {
            loss = g.add(loss, penalty)?;
        }
        let mut trained = Vec::new();
        for spec in parameters.iter().filter(|spec| spec.trainable) {
            trained.push((spec.name.clone(), g.parameter(&spec.name, spec.shape.clone())?));
        }
        let tensors: Vec<Tensor> = trained.iter().map(|(_, tensor)| *tensor).collect();
        let gradients = g.gradients(loss, &tensors)?;

        let state = State::new(&**backend, &optimizer, &parameters)?;
        state.draw(&**backend, &parameters, seed)?;
        let mut fetch = objective.fetch;
        if fetch.iter().any(|(name, _)| name == LOSS) {
            return Err(NnError::Settings(format!(
                "\"{LOSS}\" is the name of the loss; fetch under another"
            )));
        }
        fetch.push((LOSS.into(), loss));
        let request = Request {
            fetch,
            gradients: trained.into_iter().map(|(name, _)| name).zip(gradients).collect(),
            averages: g.averages().to_vec(),
            updates: optimizer.launches(state.store.segments(), HYPER_ROWS),
            advance: Some(Advance::step(0)),
            ..Request::default()
        };
        let plan = Plan::new(&g, state.store.segments(), &request)?;
        let session = Session::new(backend.clone(), &state.store, &plan, &state.shared)?;
        Ok(Self { device: device.clone(), optimizer, state, session, parameters, seed, step: 0 })
    }

    /// Writes an input. It keeps its value until it is written again.
    ///
    /// # Errors
    /// If the graph reads no input of that name, or the data are too long.
    pub fn write(&self, input: &str, data: HostRef<'_>) -> Result<(), NnError> {
        Ok(self.session.write(input, data)?)
    }

    /// One step on what was written: the loss before the update, penalties included.
    ///
    /// # Errors
    /// If the device fails.
    pub fn step(&mut self) -> Result<f32, NnError> {
        if self.step.is_multiple_of(HYPER_ROWS as u64) {
            let backend = &**self.device.backend();
            let lr = self.optimizer.learning_rate();
            let rows = self.optimizer.hyper_table(self.step, HYPER_ROWS, &|_| lr);
            self.state.write_hyper(backend, &rows)?;
            self.state.write_clock(backend, self.seed, self.step, 0)?;
        }
        self.session.run(1)?;
        self.step += 1;
        Ok(self.session.read(LOSS)?.into_f32()[0])
    }

    /// A result of the last step.
    ///
    /// # Errors
    /// If nothing was fetched under that name, or the device fails.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, NnError> {
        Ok(self.session.read(name)?.into_f32())
    }

    /// A graph over the trained parameters that computes without training: dropout does nothing, batch normalisation
    /// uses its running statistics. `record` records what the training step did, as far as it is wanted, and gives the
    /// results to read, by name.
    ///
    /// # Errors
    /// If recording fails, a parameter is none of the trainer's, or the device fails.
    pub fn evaluator(
        &self,
        record: impl FnOnce(&mut Recording<'_>) -> Result<Vec<(String, Tensor)>, GraphError>,
    ) -> Result<Evaluator, NnError> {
        let mut g = Graph::new();
        let fetch = record(&mut Recording::new(&mut g, Mode::Eval))?;
        let request = Request { fetch, ..Request::default() };
        let plan = Plan::new(&g, self.state.store.segments(), &request)?;
        let backend = self.device.backend().clone();
        Ok(Evaluator { session: Session::new(backend, &self.state.store, &plan, &self.state.shared)? })
    }

    /// Writes all parameters to a safetensors file, under their names.
    ///
    /// # Errors
    /// If the device fails or the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), NnError> {
        write_parameters(path.as_ref(), &self.state.store, &**self.device.backend(), None)
    }

    /// The parameters, in the order of recording.
    pub fn parameters(&self) -> &[ParameterSpec] {
        &self.parameters
    }

    /// Where the parameters live.
    pub fn store(&self) -> &ParameterStore {
        &self.state.store
    }

    /// A parameter's elements.
    ///
    /// # Errors
    /// If there is none of that name, or the device fails.
    pub fn parameter(&self, name: &str) -> Result<Vec<f32>, NnError> {
        Ok(self.state.store.read(&**self.device.backend(), PARAMETERS, name)?.into_f32())
    }

    /// Sets a parameter's elements.
    ///
    /// # Errors
    /// If there is none of that name or the length differs.
    pub fn set_parameter(&self, name: &str, values: &[f32]) -> Result<(), NnError> {
        Ok(self.state.store.write(&**self.device.backend(), PARAMETERS, name, HostRef::F32(values))?)
    }
}

/// A graph over a [`GraphTrainer`]'s parameters, as they are when it runs. See [`GraphTrainer::evaluator`].
pub struct Evaluator {
    session: Session,
}

impl Evaluator {
    /// Writes an input. It keeps its value until it is written again.
    ///
    /// # Errors
    /// If the graph reads no input of that name, or the data are too long.
    pub fn write(&self, input: &str, data: HostRef<'_>) -> Result<(), NnError> {
        Ok(self.session.write(input, data)?)
    }

    /// Computes everything from what was written.
    ///
    /// # Errors
    /// If the device fails.
    pub fn run(&self) -> Result<(), NnError> {
        Ok(self.session.run(1)?)
    }

    /// A result of the last run.
    ///
    /// # Errors
    /// If there is none of that name, or the device fails.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, NnError> {
        Ok(self.session.read(name)?.into_f32())
    }
}
