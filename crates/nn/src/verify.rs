//! Checking a recipe's training step on a device: what `kiln verify` does.

use std::collections::HashMap;

use kiln_data::Targets;
use kiln_device::Device;
use kiln_graph::{
    Array, CLOCK, HYPER, Plan,
    verify::{LaunchReport, Start, TensorReport, check_launches, check_steps},
};
use kiln_kernel::{CLOCK_WORDS, Host};

use crate::{
    NnError, Optimizer, Recipe, Update,
    bench::{check, random_rows},
    feed::pack_all,
    step::{self, FEATURES, Form, HYPER_ROWS, ORDER, Recorded, TARGETS},
};

/// What a verification found. See [`verify`].
#[derive(Clone, Debug)]
pub struct Verification {
    /// Each launch of the training step against its twin in `f64`, in order.
    pub launches: Vec<LaunchReport>,
    /// Gradients, updated parameters and the clock of whole steps against the interpreter, in the order of
    /// computing.
    pub tensors: Vec<TensorReport>,
}

impl Verification {
    /// True if nothing was off by more than rounding allows.
    pub fn passed(&self) -> bool {
        self.launches.iter().all(|l| l.passed) && self.tensors.iter().all(|t| t.passed)
    }
}

/// Checks a recipe's training step on a device, on seeded random rows of its data's form and parameters drawn
/// from the seed.
///
/// First each launch of the plan is run on the device and on its CPU twin in `f64`, from the same inputs; then
/// `steps` whole steps are run and compared with the interpreter, which knows nothing of the plan.
///
/// # Errors
/// If the layers do not fit each other, or the device fails. A wrong result is no error but a report that has
/// not passed.
pub fn verify(
    recipe: &Recipe,
    device: &Device,
    batch_size: usize,
    steps: u32,
    seed: u64,
) -> Result<Verification, NnError> {
    if batch_size == 0 {
        return Err(NnError::Settings("batch size must be at least 1".into()));
    }
    check(recipe, batch_size)?;
    let split = random_rows(recipe, batch_size)?;
    let form = Form::of(&split);
    // The parameters are drawn on the CPU: a device that is broken must not spoil what it is checked with.
    let trainer = recipe.trainer(&Device::cpu(), &[], seed)?;
    let preprocess = recipe.preprocess.measured(&split)?;
    let record = |optimizer: &Optimizer| {
        step::record_training(
            trainer.model(),
            &recipe.loss,
            optimizer,
            recipe.preparation(&preprocess),
            &form,
            batch_size,
        )
    };
    let Recorded { graph, request } = record(&recipe.optimizer)?;
    let segments = trainer.store().segments();
    let mut parameters = HashMap::new();
    for segment in segments.list() {
        let values = trainer.parameter(&segment.name)?.into_iter().map(f64::from).collect();
        let array = Array::from_shape_vec(segment.shape.dims(), values)
            .map_err(|e| NnError::Settings(format!("parameter \"{}\": {e}", segment.name)))?;
        parameters.insert(segment.name.clone(), array);
    }

    let mut inputs: HashMap<String, Host> = HashMap::new();
    let features = pack_all(&split)?;
    let mut clock = vec![0; CLOCK_WORDS];
    (clock[3], clock[4]) = (seed as u32, (seed >> 32) as u32);
    let base = recipe.optimizer.learning_rate();
    let schedule = recipe.schedule.as_ref().map(|s| s.over(HYPER_ROWS as u64, recipe.epochs as u64));
    let rate = |step: u64| schedule.as_ref().map_or(base, |s| s.learning_rate(base, step, 0));
    let hyper = recipe.optimizer.hyper_table(0, HYPER_ROWS, &rate);
    let specs = trainer.model().parameters()?;
    let learns = |name: &str| specs.iter().any(|p| p.trainable && p.name == name);
    for (name, table) in recipe.optimizer.tables(segments, &learns) {
        inputs.insert(name.into(), table);
    }
    inputs.insert(FEATURES.into(), features);
    match split.targets() {
        Targets::Classes { labels, .. } => inputs.insert(TARGETS.into(), Host::U32(labels.clone())),
        Targets::Real { values, .. } => inputs.insert(TARGETS.into(), Host::F32(values.clone())),
        Targets::Input => None,
    };
    inputs.insert(ORDER.into(), Host::U32(kiln_data::order(seed, 0, batch_size, true)));
    inputs.insert(CLOCK.into(), Host::U32(clock));
    inputs.insert(HYPER.into(), Host::F32(hyper));

    let start = Start { segments, parameters: &parameters, inputs: &inputs };
    let plan = Plan::new(&graph, segments, &request)?;
    let reference = kiln_reference::Cpu::<f64>::new();
    let launches = check_launches(&plan, start, &**device.backend(), &reference)?;

    let arenas = recipe.optimizer.moments();
    let mut moments: HashMap<String, Vec<Vec<f64>>> = HashMap::new();
    let mut update = |w: &mut HashMap<String, Array>, gradients: &HashMap<String, Array>, step: u32| {
        for (name, w) in w.iter_mut() {
            let Some(gradient) = gradients.get(name) else { continue };
            let gradient: Vec<f64> = gradient.iter().copied().collect();
            let moments =
                moments.entry(name.clone()).or_insert_with(|| vec![vec![0.0; gradient.len()]; arenas.len()]);
            let rank = w.ndim();
            // Arrays that were made from a vector lie in one piece.
            if let Some(w) = w.as_slice_mut() {
                let learning_rate = rate(step.into());
                let at = Update { name, rank, step: step.into(), learning_rate };
                recipe.optimizer.update_f64(at, w, &gradient, moments);
            }
        }
    };
    // Clipping overwrites the gradients that whole steps are compared by: its launches were checked above.
    let Recorded { graph, request } = record(&Optimizer { clip: None, ..recipe.optimizer.clone() })?;
    let tensors = check_steps(&graph, &request, start, arenas, device.backend(), steps, &mut update)?;
    Ok(Verification { launches, tensors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_at_once() {
        let xor = Recipe::builtin_text("xor").unwrap();
        let wide = Recipe::parse(&xor.replacen("units = 1\n", "units = 2\n", 1), "wide").unwrap();
        let cnn = Recipe::open("mnist-cnn").unwrap();
        for (recipe, rows, want) in
            [(&wide, 4, "output is [2]"), (&cnn, 1 << 40, "elements"), (&cnn, usize::MAX, "elements")]
        {
            let message = verify(recipe, &Device::cpu(), rows, 1, 0).unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
            let message = crate::bench_step(recipe, &Device::cpu(), rows, 1).unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
        }
    }

    #[test]
    fn the_cpu_passes() {
        for name in ["xor", "body-size", "linear"] {
            let recipe = Recipe::open(name).unwrap();
            let found = verify(&recipe, &Device::cpu(), 4, 3, 1).unwrap();
            assert!(!found.launches.is_empty() && !found.tensors.is_empty(), "{name}");
            for launch in &found.launches {
                assert!(launch.passed, "{name}: {launch}");
            }
            for tensor in &found.tensors {
                assert!(tensor.passed, "{name}: {tensor:?}");
            }
        }
    }
}
