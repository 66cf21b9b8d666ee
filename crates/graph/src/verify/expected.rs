//! What a launch must give, and how far from it a device may be.

use std::collections::{HashMap, hash_map::Entry};

use kiln_kernel::{
    Access, Backend, Binary, Binding, Buffer, Conv2d, DType, Host, HostRef, Kernel, Launch, Pooling, Real,
    Step, Tail, Unary,
};

use super::{LaunchReport, read};
use crate::{GraphError, Place};

/// What a launch must give from some inputs, and how far from it a device may be.
pub struct Expected {
    launch: Launch<Place>,
    bindings: Vec<Binding>,
    /// By binding; none of what is only written.
    inputs: Vec<Option<Host>>,
    /// By binding; none of what is only read.
    pub(super) want: Vec<Option<Host>>,
    /// What errors scale with, by binding: of each half of a pair.
    magnitudes: Vec<Option<Host>>,
    extra: Vec<f64>,
    ties: Vec<Option<Ties>>,
}

impl Expected {
    /// Of a kernel by itself, over arguments of its own. `inputs` are what is read, by binding, and none for
    /// what is only written; numbers are rounded to `f32`. It is run once on `reference` (the CPU in `f64`),
    /// and a few times more to learn how large errors may be, as [`super::check_launches`] says.
    ///
    /// # Errors
    /// If there are not as many inputs as bindings, or the backend fails.
    pub fn of_kernel(
        kernel: &Kernel,
        label: &str,
        inputs: Vec<Option<Host>>,
        reference: &dyn Backend,
    ) -> Result<Self, GraphError> {
        let bindings = kernel.bindings();
        if inputs.len() != bindings.len() {
            let (needed, got) = (bindings.len(), inputs.len());
            return Err(GraphError::Name(format!("{kernel} takes {needed} arguments, not {got}")));
        }
        let places = bindings.iter().enumerate();
        let arguments = places.map(|(index, b)| Place::Slot { index, offset: 0, len: b.len }).collect();
        let launch = Launch { kernel: kernel.clone(), arguments, label: label.into() };
        let inputs = inputs.into_iter().map(|input| input.map(rounded)).collect();
        Self::of(launch, inputs, reference)
    }

    pub(super) fn of(
        launch: Launch<Place>,
        inputs: Vec<Option<Host>>,
        reference: &dyn Backend,
    ) -> Result<Self, GraphError> {
        let bindings = launch.kernel.bindings();
        let mut magnitudes: Vec<Option<Host>> = vec![None; bindings.len()];
        let mut extra = vec![0.0; bindings.len()];
        let mut ties: Vec<Option<Ties>> = (0..bindings.len()).map(|_| None).collect();
        for (half, places) in halves(&launch) {
            let bindings = half.kernel.bindings();
            let inputs: Vec<Option<Host>> = places.iter().map(|&i| inputs[i].clone()).collect();
            for (i, &place) in places.iter().enumerate() {
                extra[place] = extra_scale(&half.kernel, i, &inputs);
            }
            if let Some(kernel) = absolute(&half.kernel) {
                let absolute = |(value, binding): (&Option<Host>, &Binding)| {
                    value.clone().map(|v| absolutes(v, &half.kernel, binding))
                };
                let inputs: Vec<Option<Host>> = inputs.iter().zip(&bindings).map(absolute).collect();
                let sizes = run_alone(reference, &half, &kernel, &bindings, &inputs)?;
                for (size, &place) in sizes.into_iter().zip(&places) {
                    magnitudes[place] = size.or(magnitudes[place].take());
                }
            }
            if let Some(found) = Ties::of(&half, &inputs, reference)? {
                ties[places[Ties::BINDING]] = Some(found);
            }
        }
        let want = run_alone(reference, &launch, &launch.kernel, &bindings, &inputs)?;
        Ok(Self { launch, bindings, inputs, want, magnitudes, extra, ties })
    }

    /// What is read, by binding, and none for what is only written.
    pub fn inputs(&self) -> &[Option<Host>] {
        &self.inputs
    }

    /// Runs the launch on a device, over buffers that are full of NaN where it writes, and compares.
    ///
    /// # Errors
    /// If the device fails, or cannot run the kernel. A wrong result is no error but a report that has not
    /// passed.
    pub fn check(&self, device: &dyn Backend) -> Result<LaunchReport, GraphError> {
        let got = run_alone(device, &self.launch, &self.launch.kernel, &self.bindings, &self.inputs)?;
        Ok(self.compare(got))
    }

    fn compare(&self, got: Vec<Option<Host>>) -> LaunchReport {
        let mut report = LaunchReport {
            label: self.launch.label.to_string(),
            kernel: describe(&self.launch.kernel),
            worst: 0.0,
            at: String::new(),
            passed: true,
        };
        for (i, (binding, got)) in self.bindings.iter().zip(got).enumerate() {
            let (Some(want), Some(got)) = (self.want[i].clone().map(Host::into_f64), got) else { continue };
            let magnitude = self.magnitudes[i].clone().map(Host::into_f64);
            let before = self.inputs[i].clone().map(Host::into_f64);
            let size = |e: usize| {
                let from = |v: &Option<Vec<f64>>| {
                    v.as_ref().map_or(0.0, |v| if v[e].is_finite() { v[e].abs() } else { 0.0 })
                };
                want[e].abs().max(from(&magnitude)).max(from(&before))
            };
            let largest = (0..want.len()).map(size).fold(0.0, f64::max);
            let floor = 0.01 * largest + self.extra[i] + f64::from(f32::MIN_POSITIVE);
            for (e, (got, want)) in got.into_f64().into_iter().zip(&want).enumerate() {
                let allowed = if binding.dtype == DType::U32 { 0.5 } else { 1e-5 * (size(e) + floor) };
                let tie = self.ties[i].as_ref().is_some_and(|t| t.excuse(e, got, *want));
                let error = if tie { 0.0 } else { (got - want).abs() };
                // anything but a number is as wrong as can be, unless the twin says the same
                let units = if error.is_finite() {
                    error / allowed
                } else if got == *want || (got.is_nan() && want.is_nan()) {
                    0.0
                } else {
                    f64::INFINITY
                };
                if units > report.worst || (report.at.is_empty() && units > 0.0) {
                    report.worst = units;
                    report.at = format!("{}[{e}] is {got:e}, must be {want:e}", binding.name);
                }
            }
        }
        report.passed = report.worst <= 1.0;
        report
    }
}

/// A launch's kernels, each with its arguments and which of the launch's these are: two of a pair, else one.
fn halves(launch: &Launch<Place>) -> Vec<(Launch<Place>, Vec<usize>)> {
    let part = |kernel: &Kernel, places: Vec<usize>| {
        let arguments = places.iter().map(|&i| launch.arguments[i].clone()).collect();
        (Launch { kernel: kernel.clone(), arguments, label: launch.label.clone() }, places)
    };
    match &launch.kernel {
        Kernel::Pair(pair) => vec![
            part(&pair.first, (0..pair.first.bindings().len()).collect()),
            part(&pair.second, pair.second_bindings()),
        ],
        kernel => vec![part(kernel, (0..launch.arguments.len()).collect())],
    }
}

/// The results of a pooled convolution before pooling: where two of a window differ by less than rounding,
/// either may be called the largest.
struct Ties {
    shape: kiln_kernel::ConvShape,
    values: Vec<f64>,
    largest: f64,
}

impl Ties {
    /// Where the places of the maxima stand among the kernel's bindings.
    const BINDING: usize = 3;

    fn of(
        launch: &Launch<Place>,
        inputs: &[Option<Host>],
        reference: &dyn Backend,
    ) -> Result<Option<Self>, GraphError> {
        let Kernel::Conv2d(k) = &launch.kernel else { return Ok(None) };
        if k.pool != Pooling::MaxAndPlaces {
            return Ok(None);
        }
        let kernel = Kernel::Conv2d(Conv2d { shape: k.shape, pool: Pooling::None, tail: Tail::default() });
        let whole = Launch {
            kernel: kernel.clone(),
            arguments: launch.arguments[..3].to_vec(),
            label: launch.label.clone(),
        };
        let results = run_alone(reference, &whole, &kernel, &kernel.bindings(), &inputs[..3])?;
        let values = results.into_iter().flatten().next().map_or(Vec::new(), Host::into_f64);
        let largest = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        Ok(Some(Self { shape: k.shape, values, largest }))
    }

    /// Whether both of two places of a window hold its largest, but for rounding.
    fn excuse(&self, window: usize, got: f64, want: f64) -> bool {
        let (h, w) = (self.shape.out_h as usize / 2, self.shape.out_w as usize / 2);
        let value = |place: f64| {
            let (place, row, column) = (place as usize, window / w % h, window % w);
            let plane = window / (w * h) * 2 * h;
            (place < 4).then(|| self.values[(plane + 2 * row + place / 2) * 2 * w + 2 * column + place % 2])
        };
        match (value(got), value(want)) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-5 * (a.abs() + 0.01 * self.largest),
            _ => false,
        }
    }
}

/// Numbers that `f32` holds.
pub(super) fn rounded(value: Host) -> Host {
    match value {
        Host::F64(v) => Host::F32(v.into_iter().map(|x| x as f32).collect()),
        other => other,
    }
}

/// Runs a kernel over buffers of its own; returns what it wrote. Results start as NaN.
fn run_alone(
    backend: &dyn Backend,
    launch: &Launch<Place>,
    kernel: &Kernel,
    bindings: &[Binding],
    inputs: &[Option<Host>],
) -> Result<Vec<Option<Host>>, GraphError> {
    // one place is one buffer, as in the plan
    let mut buffers: HashMap<&Place, Buffer> = HashMap::new();
    let mut views = Vec::with_capacity(bindings.len());
    for ((binding, place), input) in bindings.iter().zip(&launch.arguments).zip(inputs) {
        let view = match buffers.entry(place) {
            Entry::Occupied(known) => known.get().view(),
            Entry::Vacant(free) => {
                let buffer = backend.allocate(binding.dtype, binding.len, &launch.label)?;
                match (input, binding.dtype) {
                    (Some(value), _) => backend.write(&buffer.view(), rounded(value.clone()).as_ref())?,
                    (None, DType::F32) => {
                        backend.write(&buffer.view(), HostRef::F32(&vec![f32::NAN; binding.len]))?;
                    }
                    (None, DType::U32) => {
                        backend.write(&buffer.view(), HostRef::U32(&vec![u32::MAX; binding.len]))?;
                    }
                }
                free.insert(buffer).view()
            }
        };
        views.push(view);
    }
    let alone = Launch { kernel: kernel.clone(), arguments: views.clone(), label: launch.label.clone() };
    backend.run(&backend.prepare(&[alone])?, 1)?;
    let outputs = bindings.iter().zip(&views);
    outputs
        .map(|(b, view)| if b.access == Access::Read { Ok(None) } else { read(backend, view).map(Some) })
        .collect()
}

/// The kernel that gives the size of the terms when it is fed with absolute values; `None` where that is not
/// what the kernel's error scales with.
fn absolute(kernel: &Kernel) -> Option<Kernel> {
    let mut kernel = kernel.clone();
    match &mut kernel {
        Kernel::Softmax(_)
        | Kernel::SoftmaxBackward(_)
        | Kernel::CrossEntropy(_)
        | Kernel::CrossEntropyBackward(_)
        | Kernel::RankRows(_)
        | Kernel::AugmentDraw(_)
        | Kernel::Advance(_) => return None,
        // colours are held to their range: none is larger
        Kernel::GatherAugmented(_) => return None,
        Kernel::Gather(k) => {
            for value in k.scale.iter_mut().chain(&mut k.shift) {
                *value = Real(value.0.abs());
            }
        }
        Kernel::Accumulate(k) => {
            for (_, scale) in &mut k.sources {
                *scale = Real(scale.0.abs());
            }
        }
        Kernel::AddScaled(k) => k.factor = Real(k.factor.0.abs()),
        Kernel::Elementwise(k) => {
            if let kiln_kernel::Source::Constant(value) = &mut k.source {
                *value = Real(value.0.abs());
            }
        }
        _ => {}
    }
    if let Some(tail) = kernel.tail_mut() {
        *tail = absolute_tail(tail);
    }
    Some(kernel)
}

/// A tail through which sizes pass as errors do: differences become sums, and functions that are no steeper
/// than the identity become the identity.
fn absolute_tail(tail: &Tail) -> Tail {
    let mut steps = Vec::with_capacity(tail.steps.len());
    let sum = |binary: Binary| match binary {
        Binary::Sub => Binary::Add,
        Binary::Minimum => Binary::Maximum,
        other => other,
    };
    let one = [(Binary::Mul, 0.0), (Binary::Add, 1.0)];
    let one = one.map(|(binary, value)| Step::Constant { binary, value: Real(value), swapped: false });
    for step in &tail.steps {
        match *step {
            Step::Unary(f) if matches!(f, Unary::Square | Unary::Sqrt) => steps.push(Step::Unary(f)),
            Step::Unary(_) | Step::UnaryBackward { unary: Unary::Neg, .. } => {}
            Step::UnaryBackward { unary: Unary::Reciprocal, operand } => {
                steps.extend([Step::Binary { binary: Binary::Mul, operand, swapped: false }; 2]);
            }
            Step::UnaryBackward { .. } => steps.push(*step),
            Step::Binary { binary, .. } | Step::Constant { binary, .. } if is_comparison(binary) => {
                steps.extend(one);
            }
            // where the value is the condition, the operand passes
            Step::Binary { binary: Binary::Mask, operand, swapped: false } => {
                steps.push(one[0]);
                steps.push(Step::Binary { binary: Binary::Add, operand, swapped: false });
            }
            Step::Constant { binary: Binary::Mask, value, swapped: false } => {
                let value = Real(value.0.abs());
                steps.extend([one[0], Step::Constant { binary: Binary::Add, value, swapped: false }]);
            }
            // the larger of both branches
            Step::Binary { binary: Binary::Prelu, operand, swapped: false } => {
                steps.push(Step::Binary { binary: Binary::Maximum, operand, swapped: false });
                steps.push(Step::Binary { binary: Binary::Add, operand, swapped: false });
            }
            Step::Binary { binary, operand, swapped } => {
                steps.push(Step::Binary { binary: sum(binary), operand, swapped });
            }
            Step::Constant { binary, value, swapped } => {
                steps.push(Step::Constant { binary: sum(binary), value: Real(value.0.abs()), swapped });
            }
        }
    }
    Tail { operands: tail.operands.clone(), steps }
}

fn is_comparison(binary: Binary) -> bool {
    matches!(binary, Binary::Greater | Binary::GreaterEqual | Binary::Equal | Binary::NotEqual)
}

/// Absolute values of an argument, unless the kernel only compares it.
fn absolutes(value: Host, kernel: &Kernel, binding: &Binding) -> Host {
    if matches!(kernel, Kernel::MaxPool2dBackward(_)) && binding.name == "x" {
        return value;
    }
    match value {
        Host::F32(v) => Host::F32(v.into_iter().map(f32::abs).collect()),
        Host::F64(v) => Host::F64(v.into_iter().map(f64::abs).collect()),
        Host::U32(v) => Host::U32(v),
    }
}

/// What the error of a kernel's result scales with beside its own size, the same for all elements.
fn extra_scale(kernel: &Kernel, binding: usize, inputs: &[Option<Host>]) -> f64 {
    let largest = |i: usize| {
        let values = inputs[i].clone().map_or(Vec::new(), Host::into_f64);
        values.into_iter().fold(0.0f64, |m, v| m.max(v.abs()))
    };
    match kernel {
        // y (dy - Σ y dy), with y at most 1; of the logarithm, dy - exp(y) Σ dy
        Kernel::SoftmaxBackward(k) => largest(1) * if k.log { f64::from(k.len) } else { 1.0 },
        Kernel::CrossEntropy(k) => match k.gradient {
            // gradient (p - q), with p and q at most 1
            Some(gradient) if binding == 4 => f64::from(gradient.0.abs()),
            _ => 0.1,
        },
        Kernel::CrossEntropyBackward(_) => largest(2),
        // a step of the logits, as large as their rounding, moves the loss and its gradient as far
        Kernel::DenseCrossEntropy(k) => {
            let logits = f64::from(k.features).sqrt() * largest(0) * largest(1);
            let results = 3 + usize::from(k.bias);
            match k.loss.gradient {
                Some(gradient) if binding == results + 3 => f64::from(gradient.0.abs()) * (1.0 + logits),
                _ => 0.1 + logits,
            }
        }
        // a colour of the full range may be the difference of two such
        Kernel::GatherAugmented(k) => {
            let steepest = k.scale.iter().fold(0.0f64, |m, s| m.max(f64::from(s.0.abs())));
            steepest * f64::from(k.range())
        }
        // near a zero of a function that hardware approximates, its error does not shrink with its value
        Kernel::Custom(_) => 0.05,
        _ => match kernel.tail() {
            Some(tail)
                if tail.steps.iter().any(|s| matches!(s, Step::Unary(_) | Step::UnaryBackward { .. })) =>
            {
                0.05
            }
            _ => 0.0,
        },
    }
}

/// A kernel with its sizes and fused functions, for reports.
fn describe(kernel: &Kernel) -> String {
    if let Kernel::Pair(pair) = kernel {
        return format!("{} | {}", describe(&pair.first), describe(&pair.second));
    }
    let steps = kernel.tail().map_or(&[][..], |t| &t.steps);
    steps.iter().fold(kernel.to_string(), |text, step| format!("{text} > {}", crate::plan::step_name(step)))
}
