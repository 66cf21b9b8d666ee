//! Which variant of each kernel is the fastest on a device: checked, then timed, one by one.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use kiln_device::{Adopted, Device, kernel_text};
use kiln_graph::{GraphError, verify::Expected};
use kiln_kernel::{
    Access, Backend, BackendError, Binding, DType, Elementwise, Host, Kernel, Launch, Program, Real, Source,
    Tail, View, random::Stream,
};
use kiln_reference::Cpu;
use serde::Serialize;

use crate::{NnError, Recipe, bench, evaluation::EVALUATION_ROWS, evaluation_plan, training_plan};

/// How much faster than the usual variant another must be to be chosen.
const GAIN: f64 = 1.03;

/// A candidate that takes so many times as long as the usual variant twice in a row is timed no more.
const HOPELESS: f64 = 2.0;

/// Seconds that the timing of a candidate should take at least, as far as the most rounds allow.
const WORTH_TIMING: f64 = 0.03;

/// What a tuning is doing. See [`tune_step`].
#[derive(Clone, Debug)]
pub struct TuneProgress<'a> {
    /// The kernel, counted from 1.
    pub kernel: usize,
    /// Kernels to tune.
    pub kernels: usize,
    /// The layer that the kernel comes from.
    pub label: &'a str,
    /// The candidate, counted from 1; 0 while the reference computes what is right.
    pub candidate: usize,
    /// Candidates of the kernel.
    pub candidates: usize,
    /// Since the tuning began.
    pub elapsed: Duration,
}

/// What a tuning found. See [`tune_step`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TuneReport {
    /// The recipe's name.
    pub recipe: String,
    /// The device's name.
    pub device: String,
    /// Rows of a step.
    pub batch_size: usize,
    /// Seconds that it took.
    pub seconds: f64,
    /// The kernels that were tuned, those with most arithmetic in a step first.
    pub kernels: Vec<TunedKernel>,
    /// Kernels that were passed over because they are known.
    pub known: usize,
    /// Kernels for which no time was left.
    pub left: usize,
    /// What was decided, by [`kernel_text`]: the best variant of each kernel, usual or not.
    pub choices: BTreeMap<String, String>,
}

/// One kernel's candidates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TunedKernel {
    /// The layer that it comes from: `conv1 backward`.
    pub label: String,
    /// The kernel.
    pub kernel: String,
    /// Its sizes.
    pub shapes: String,
    /// How often a step runs it.
    pub launches: usize,
    /// The variant that runs unless another is chosen.
    pub default: String,
    /// Its time; the median beside the best one's, or of a few runs where nothing is better. 0 where even it
    /// is wrong.
    pub default_seconds: f64,
    /// The variant that was chosen.
    pub best: String,
    /// Its time.
    pub best_seconds: f64,
    /// How many times faster the best is.
    pub ratio: f64,
    /// Candidates that were right and were timed, beside the usual variant.
    pub tried: usize,
    /// Candidates that were wrong, or did not run.
    pub refused: Vec<Refused>,
    /// Whether all candidates were tried before time was up.
    pub complete: bool,
}

/// A candidate that must not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The variant.
    pub variant: String,
    /// What is wrong with it.
    pub why: String,
}

/// A kernel with more than one variant.
struct Tunable {
    kernel: Kernel,
    label: String,
    launches: usize,
    /// The usual one first.
    variants: Vec<String>,
}

/// The distinct kernels of a recipe's training step on `batch_size` rows, and of its evaluation, in this
/// order, with their labels and how often each runs.
fn kernels(recipe: &Recipe, batch_size: usize) -> Result<Vec<(Kernel, String, usize)>, NnError> {
    bench::check(recipe, batch_size)?;
    let plans = [
        (training_plan(recipe, batch_size)?, ""),
        (evaluation_plan(recipe, EVALUATION_ROWS)?, " (evaluation)"),
    ];
    let mut found: Vec<(Kernel, String, usize)> = Vec::new();
    let mut places: HashMap<Kernel, usize> = HashMap::new();
    for (plan, suffix) in plans {
        for launch in plan.launches {
            match places.get(&launch.kernel) {
                Some(&place) => found[place].2 += 1,
                None => {
                    places.insert(launch.kernel.clone(), found.len());
                    found.push((launch.kernel, format!("{}{suffix}", launch.label), 1));
                }
            }
        }
    }
    Ok(found)
}

/// Chooses for the kernels of a recipe's training step on `batch_size` rows, and of its evaluation, what a
/// tuning has found (by [`kernel_text`]). Nothing is compiled or timed.
///
/// # Errors
/// If the layers do not fit each other or the data.
pub fn adopt_tuning(
    recipe: &Recipe,
    device: &Device,
    batch_size: usize,
    choices: &BTreeMap<String, String>,
) -> Result<Adopted, NnError> {
    if choices.is_empty() || !device.is_gpu() {
        return Ok(Adopted::default());
    }
    let kernels = kernels(recipe, batch_size)?;
    Ok(device.adopt(choices, kernels.iter().map(|(kernel, ..)| kernel))?)
}

/// Tunes the kernels of a recipe's training step on `batch_size` rows, and of its evaluation, and chooses the
/// best variant of each on the device.
///
/// Each candidate is first run on made-up numbers and compared with the reference in `f64`: one that is
/// wrong, or does not compile, is never used. Those that are right are timed in turn with the usual variant,
/// and one is chosen if its median is 3 % less, and once more when both are timed again.
///
/// `known` are choices (by [`kernel_text`]) that an earlier tuning made; these kernels are passed over, or,
/// with `again`, tuned last. When `budget` is used up, or `progress` breaks, it ends with what is decided so
/// far; one candidate, or one check on the reference, may go past it. On the CPU there is nothing to tune.
///
/// # Errors
/// If the layers do not fit each other, or the device is lost.
pub fn tune_step(
    recipe: &Recipe,
    device: &Device,
    batch_size: usize,
    budget: Duration,
    (known, again): (&BTreeMap<String, String>, bool),
    progress: &mut dyn FnMut(&TuneProgress<'_>) -> ControlFlow<()>,
) -> Result<TuneReport, NnError> {
    let started = Instant::now();
    let mut report = TuneReport {
        recipe: recipe.name.clone(),
        device: device.info().name.clone(),
        batch_size,
        seconds: 0.0,
        kernels: Vec::new(),
        known: 0,
        left: 0,
        choices: BTreeMap::new(),
    };
    let mut all = Vec::new();
    for (kernel, label, launches) in kernels(recipe, batch_size)? {
        let variants = device.variants(&kernel)?;
        if variants.len() > 1 {
            all.push(Tunable { kernel, label, launches, variants });
        }
    }
    let is_known = |t: &Tunable| known.contains_key(&kernel_text(&t.kernel));
    report.known = all.iter().filter(|t| is_known(t)).count();
    if again {
        report.known = 0;
    } else {
        all.retain(|t| !is_known(t));
    }
    // what is not known first, then what a step computes most with; those of the evaluation behind the
    // training's
    let is_late = |t: &Tunable| t.label.ends_with("(evaluation)");
    all.sort_by_key(|t| (is_known(t), is_late(t), std::cmp::Reverse(t.kernel.flops() * t.launches as u64)));

    let mut tuner = Tuner {
        device,
        reference: Cpu::new(),
        ends: started + budget,
        flops_per_second: 1e9,
        launch_seconds: 0.0,
        stopped: false,
    };
    if all.iter().any(|tunable| matches!(tunable.kernel, Kernel::Pair(_))) {
        tuner.launch_seconds = launch_seconds(&**device.backend())?;
    }
    for (i, tunable) in all.iter().enumerate() {
        let mut tell = |candidate: usize| {
            let candidates = tunable.variants.len();
            let (kernel, kernels, label) = (i + 1, all.len(), &*tunable.label);
            progress(&TuneProgress {
                kernel,
                kernels,
                label,
                candidate,
                candidates,
                elapsed: started.elapsed(),
            })
        };
        if tuner.stopped || !tuner.has_time_for(&tunable.kernel) {
            report.left += 1;
            continue;
        }
        let tuned = tuner.tune(tunable, &mut tell);
        let tuned = tuned.inspect_err(|_| {
            // the first error is the one to tell
            let _ = device.choose(&tunable.kernel, None);
        })?;
        let Some(tuned) = tuned else {
            report.left += 1;
            continue;
        };
        let is_better = tuned.best != tuned.default;
        device.choose(&tunable.kernel, is_better.then_some(&*tuned.best))?;
        let usual_is_right = tuned.refused.iter().all(|refused| refused.variant != tuned.default);
        if is_better || (tuned.complete && usual_is_right) {
            report.choices.insert(kernel_text(&tunable.kernel), tuned.best.clone());
        }
        report.kernels.push(tuned);
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// What is needed to tune one kernel after another.
struct Tuner<'a> {
    device: &'a Device,
    reference: Cpu<f64>,
    ends: Instant,
    /// How fast the reference computed so far.
    flops_per_second: f64,
    /// What a launch costs beside its work: a pair in two launches is charged for the second.
    launch_seconds: f64,
    /// Whether it is to end, for whatever reason.
    stopped: bool,
}

impl Tuner<'_> {
    fn backend(&self) -> &dyn Backend {
        &**self.device.backend()
    }

    fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// Whether the reference is likely to be through with a kernel in time.
    fn has_time_for(&self, kernel: &Kernel) -> bool {
        // it computes the result, and the sizes of its terms
        let seconds = 2.0 * kernel.flops() as f64 / self.flops_per_second;
        self.left().as_secs_f64() > seconds
    }

    /// `None` if it was broken off before anything was timed.
    fn tune(
        &mut self,
        tunable: &Tunable,
        tell: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<TunedKernel>, NnError> {
        let Tunable { kernel, label, launches, variants } = tunable;
        let text = kernel.to_string();
        let mut tuned = TunedKernel {
            label: label.clone(),
            kernel: text.split('(').next().unwrap_or(&text).to_owned(),
            shapes: kernel.shapes(),
            launches: *launches,
            default: variants[0].clone(),
            default_seconds: 0.0,
            best: variants[0].clone(),
            best_seconds: 0.0,
            ratio: 1.0,
            tried: 0,
            refused: Vec::new(),
            complete: true,
        };
        if tell(0).is_break() {
            self.stopped = true;
            return Ok(None);
        }
        self.device.choose(kernel, None)?;
        let began = Instant::now();
        let expected = Expected::of_kernel(kernel, label, made_up(kernel), &self.reference)?;
        self.flops_per_second = 2.0 * kernel.flops() as f64 / began.elapsed().as_secs_f64().max(1e-6);
        let arguments = match self.arguments(&expected, kernel) {
            Ok(arguments) => arguments,
            Err(error) => {
                tuned.refuse(&variants[0], error)?;
                return Ok(Some(tuned));
            }
        };
        // where even the usual variant is not right there is nothing to measure others by
        let usual = match self.right_program(&expected, kernel, &arguments) {
            Ok(program) => program,
            Err(error) => {
                tuned.refuse(&variants[0], error)?;
                return Ok(Some(tuned));
            }
        };
        (tuned.default_seconds, _) = self.race(&usual, &usual, 1)?;
        tuned.best_seconds = tuned.default_seconds;

        let mut best: Option<(f64, &String, Program)> = None;
        for (i, variant) in variants.iter().enumerate().skip(1) {
            if tell(i).is_break() || self.left().is_zero() {
                (self.stopped, tuned.complete) = (true, false);
                break;
            }
            self.device.choose(kernel, Some(variant))?;
            let program = match self.right_program(&expected, kernel, &arguments) {
                Ok(program) => program,
                Err(error) => {
                    tuned.refuse(variant, error)?;
                    continue;
                }
            };
            let (usual_seconds, seconds) = self.race(&usual, &program, 1)?;
            tuned.tried += 1;
            let ratio = usual_seconds / seconds;
            if ratio >= GAIN && best.as_ref().is_none_or(|(least, ..)| ratio > *least) {
                best = Some((ratio, variant, program));
            }
        }
        // the best of many may owe it to chance: once more, and longer
        if let Some((_, variant, program)) = best {
            let (usual_seconds, seconds) = self.race(&usual, &program, 3)?;
            if usual_seconds >= GAIN * seconds {
                tuned.best = variant.clone();
                (tuned.default_seconds, tuned.best_seconds) = (usual_seconds, seconds);
                tuned.ratio = usual_seconds / seconds;
            }
        }
        Ok(Some(tuned))
    }

    /// Buffers for a kernel's arguments, with the inputs in them.
    fn arguments(&self, expected: &Expected, kernel: &Kernel) -> Result<Vec<View>, GraphError> {
        let mut views = Vec::new();
        for (binding, input) in kernel.bindings().iter().zip(expected.inputs()) {
            let view = self.backend().allocate(binding.dtype, binding.len, &binding.name)?.view();
            if let Some(input) = input {
                self.backend().write(&view, input.as_ref())?;
            }
            views.push(view);
        }
        Ok(views)
    }

    /// The variant that is chosen at the moment, over these arguments, if it gives what it must.
    fn right_program(
        &self,
        expected: &Expected,
        kernel: &Kernel,
        arguments: &[View],
    ) -> Result<Program, GraphError> {
        let report = expected.check(self.backend())?;
        if !report.passed {
            return Err(GraphError::Name(format!("wrong: {}", report.at)));
        }
        let launch = Launch { kernel: kernel.clone(), arguments: arguments.to_vec(), label: "tune".into() };
        Ok(self.backend().prepare(&[launch])?)
    }

    /// Runs two programs in turn; the median seconds of each.
    fn race(&self, usual: &Program, other: &Program, thoroughness: usize) -> Result<(f64, f64), NnError> {
        let time = |program: &Program| -> Result<f64, BackendError> {
            let work: f64 = self.backend().profile(program)?.iter().map(|launch| launch.seconds).sum();
            Ok(work + self.launch_seconds * program.launches().saturating_sub(1) as f64)
        };
        // to warm up, and to see how long it takes
        time(other)?;
        let once = time(usual)?.max(1e-9);
        let rounds = thoroughness * ((WORTH_TIMING / once) as usize).clamp(5, 25);
        let (mut usual_times, mut other_times) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            usual_times.push(time(usual)?);
            other_times.push(time(other)?);
            let is_hopeless = |(usual, other): (&f64, &f64)| *other > HOPELESS * usual;
            if round == 1 && usual_times.iter().zip(&other_times).all(is_hopeless) {
                break;
            }
        }
        // a clock may be too coarse for a short launch
        Ok((median(&mut usual_times).max(1e-9), median(&mut other_times).max(1e-9)))
    }
}

impl TunedKernel {
    /// Notes a candidate that cannot be used.
    ///
    /// # Errors
    /// If the device is lost: then nothing is known of the candidate.
    fn refuse(&mut self, variant: &str, error: GraphError) -> Result<(), NnError> {
        if let GraphError::Backend(BackendError::DeviceLost(_)) = error {
            return Err(error.into());
        }
        self.refused.push(Refused { variant: variant.to_owned(), why: error.to_string() });
        Ok(())
    }
}

/// What a launch costs that has hardly any work, in seconds: the best of a few runs.
fn launch_seconds(backend: &dyn Backend) -> Result<f64, BackendError> {
    const LAUNCHES: u32 = 500;
    let kernel = Kernel::Elementwise(Elementwise {
        len: 1,
        source: Source::Constant(Real(1.0)),
        tail: Tail::default(),
    });
    let view = backend.allocate(DType::F32, 1, "tune")?.view();
    let program =
        backend.prepare(&[Launch { kernel, arguments: vec![view.clone()], label: "tune".into() }])?;
    let run = |times: u32| -> Result<f64, BackendError> {
        let started = Instant::now();
        backend.run(&program, times)?;
        pollster::block_on(backend.read(&view))?;
        Ok(started.elapsed().as_secs_f64())
    };
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        let (one, many) = (run(1)?, run(1 + LAUNCHES)?);
        least = least.min((many - one).max(0.0) / f64::from(LAUNCHES));
    }
    Ok(least)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Numbers for what a product reads, by binding.
fn made_up(kernel: &Kernel) -> Vec<Option<Host>> {
    let numbers = |(binding, position): (&Binding, u32)| {
        if binding.access == Access::Write {
            return None;
        }
        let stream = Stream { seed: 7, stream: position, step: 0 };
        let elements = 0..binding.len as u32;
        // what is fused behind a product may ask for numbers above 0
        let is_tail = binding.name.contains("tail");
        Some(match binding.dtype {
            // the only integers that products read: which of a window's four results was the largest
            DType::U32 => Host::U32(elements.map(|i| stream.word(i) % 4).collect()),
            DType::F32 if is_tail => Host::F32(elements.map(|i| 0.25 + stream.uniform(i)).collect()),
            DType::F32 => Host::F32(elements.map(|i| 2.0 * stream.uniform(i) - 1.0).collect()),
        })
    };
    kernel.bindings().iter().zip(0u32..).map(numbers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_cpu_there_is_nothing_to_tune() {
        let recipe = Recipe::open("xor").unwrap();
        let device = Device::cpu();
        let none = BTreeMap::new();
        let mut never = |_: &TuneProgress<'_>| -> ControlFlow<()> { panic!("there is nothing to tell") };
        let report =
            tune_step(&recipe, &device, 4, Duration::from_secs(5), (&none, false), &mut never).unwrap();
        assert!(report.kernels.is_empty() && report.choices.is_empty() && report.left == 0);
        let any = BTreeMap::from([("matmul".to_string(), "tiled".to_string())]);
        assert_eq!(adopt_tuning(&recipe, &device, 4, &any).unwrap(), Adopted::default());
    }
}
