//! From a [`Kernel`] to WGSL: a prelude of constants, generated index and tail functions, the shared parts
//! that the kernel names, and the kernel's own file.
//!
//! There is no template engine. Every file under `shaders/` reads as WGSL; what it needs beyond its own lines
//! is declared by the text that this module puts before it:
//!
//! - one `const` line for each of [`Kernel::constants`] and for each choice made for the device;
//! - `epilogue(v: f32, i: u32) -> f32` from the kernel's tail, with the tail's operands as bindings `tail0`,
//!   `tail1`, ... behind the kernel's own;
//! - `source_index`, `kept_index` and `reduced_index` from its layouts, `sum_part` from a table of sums.
//!
//! A kernel's own bindings are declared in its file, under the names of [`Kernel::bindings`]; a test compares
//! what naga reflects with what the kernel declares.

use std::{borrow::Cow, fmt::Write as _};

use kiln_kernel::{
    BackendError, Constant, Kernel, Layout, Limits, Pair, Source as ValueSource, Step, SumPart,
};

use crate::{choose, custom, functions, pair};

pub use crate::variants::{dispatches_as, variants};

/// What kind of machine executes the shaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A graphics card with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A GPU handed through to a virtual machine, or one that does not say what it is.
    Virtual,
    /// A program that plays GPU: lavapipe, WARP.
    Software,
    /// No adapter: the `cpu` backend.
    Cpu,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Discrete => "discrete",
            Kind::Integrated => "integrated",
            Kind::Virtual => "virtual",
            Kind::Software => "software",
            Kind::Cpu => "cpu",
        })
    }
}

/// All that the choice of a kernel's variant may depend on besides the kernel: a plain value, so that tests
/// can assemble for devices that are not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the device allows.
    pub limits: Limits,
    /// The most workgroups in a row of a grid, where that is fewer than the device allows: so small grids fold too.
    pub grid_width: Option<u32>,
    /// Invocations of a subgroup, where the device has subgroups and always makes them of one size.
    pub subgroup_size: Option<u32>,
    /// What kind of machine it is.
    pub kind: Kind,
    /// The PCI vendor: 0x10de NVIDIA, 0x1002 AMD, 0x8086 Intel, 0x10005 Mesa; 0 unknown, as on Metal.
    pub vendor: u32,
}

impl Facts {
    /// The least that any WebGPU device offers, with no features: what the portable variants must live with.
    pub fn portable() -> Self {
        Self {
            limits: Limits {
                max_buffer_bytes: 256 << 20,
                max_binding_bytes: 128 << 20,
                max_storage_buffers: 8,
                max_workgroups_per_dimension: 65_535,
                workgroup_memory_bytes: 16 << 10,
                max_workgroup_invocations: 256,
                offset_alignment: 64,
            },
            grid_width: None,
            subgroup_size: None,
            kind: Kind::Discrete,
            vendor: 0,
        }
    }

    /// Mesa's CPU driver: subgroups of eight.
    pub fn lavapipe() -> Self {
        let portable = Self::portable();
        Self {
            limits: Limits {
                workgroup_memory_bytes: 32 << 10,
                max_workgroup_invocations: 1024,
                ..portable.limits
            },
            grid_width: None,
            subgroup_size: Some(8),
            kind: Kind::Software,
            vendor: 0x10005,
        }
    }
}

/// One file of WGSL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its path under `shaders/`.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// The [`Part`] with this path under `shaders/`.
macro_rules! part {
    ($file:literal) => {
        $crate::assemble::Part {
            file: $file,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shaders/", $file)),
        }
    };
}
pub(crate) use part;

/// How a kernel runs on a device: its files, the constants chosen for the device, and its grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The variant in words, for profiles and errors: `tiled 64x64x16 of 4x4`. It tells the kernel's variants
    /// apart.
    pub variant: String,
    /// The shared parts, then the kernel's own file last.
    pub parts: Vec<Part>,
    /// Constants beyond [`Kernel::constants`]: tile sizes, items per invocation.
    pub constants: Vec<(&'static str, Constant)>,
    /// Invocations of a workgroup along x, y, z. The shader sees them as the constants `WORKGROUP_X`,
    /// `WORKGROUP_Y`, `WORKGROUP_Z`, and their product as `WORKGROUP_SIZE`.
    pub workgroup_size: [u32; 3],
    /// Number of workgroups, numbered flat. The grid is folded so that no dimension passes its limit: the
    /// shader computes its number as `workgroup_id.x + workgroup_id.y * GRID_WIDTH` and leaves if that is
    /// `WORKGROUPS` or more.
    pub workgroups: u64,
}

/// A kernel's complete WGSL with all that a pipeline needs.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// The complete text.
    pub wgsl: String,
    /// The entry point: the kernel's name.
    pub entry: &'static str,
    /// The variant in words.
    pub variant: String,
    /// Invocations of a workgroup.
    pub workgroup_size: [u32; 3],
    /// Workgroups along x, y, z.
    pub workgroups: [u32; 3],
    /// Workgroups that have work, which the grid is folded from.
    pub(crate) number: u64,
    /// (file, first line in `wgsl`, counted from 1), in the order of the text.
    pub(crate) parts: Vec<(Cow<'static, str>, usize)>,
}

impl Assembled {
    /// The file and line (from 1) that a line of the complete text came from. The generated part is called
    /// `prelude`, the text of a custom operation by its name.
    pub fn locate(&self, line: usize) -> (&str, usize) {
        let mut found = ("prelude", line);
        for (file, first) in &self.parts {
            if line >= *first {
                found = (file, line - first + 1);
            }
        }
        found
    }

    /// The error for a message of the shader compiler about a line of the complete text.
    pub fn error(&self, line: Option<usize>, message: &str) -> BackendError {
        let file = match line {
            Some(line) => {
                let (file, line) = self.locate(line);
                format!("{file}:{line}")
            }
            None => self.parts.last().map_or("prelude", |p| &*p.0).to_owned(),
        };
        BackendError::Shader { file, message: format!("{} ({})", message.trim(), self.entry) }
    }
}

/// One of the dispatches that run a kernel.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// What is dispatched: the kernel, or one of a pair.
    pub kernel: Kernel,
    /// Which of the whole kernel's arguments it binds, in the order of its own bindings.
    pub arguments: Vec<usize>,
    /// Its text.
    pub assembled: Assembled,
}

/// How a kernel runs on a device: as one dispatch, or, if it is a pair that cannot be one there, as two.
#[derive(Clone, Debug)]
pub struct Dispatches {
    /// The variant in words: `strip 16x1x13 | strip 16x3x6`, or `apart: ...`.
    pub variant: String,
    /// In the order in which they run.
    pub each: Vec<Dispatch>,
}

/// Puts together the WGSL of all dispatches of a kernel.
///
/// # Errors
/// As [`assemble`].
pub fn dispatches(kernel: &Kernel, facts: &Facts) -> Result<Dispatches, BackendError> {
    let Kernel::Pair(of) = kernel else {
        return Ok(Dispatches::one(kernel, assemble(kernel, facts)?));
    };
    Ok(match pair::assemble(kernel, of, facts)? {
        Ok(assembled) => Dispatches::one(kernel, assembled),
        Err(reason) => {
            let (first, second) = (assemble(&of.first, facts)?, assemble(&of.second, facts)?);
            Dispatches::apart(of, first, second, &format!("{reason}: "))
        }
    })
}

impl Dispatches {
    /// The whole kernel as one.
    pub(crate) fn one(kernel: &Kernel, assembled: Assembled) -> Self {
        let arguments = (0..kernel.bindings().len()).collect();
        let variant = assembled.variant.clone();
        Self { variant, each: vec![Dispatch { kernel: kernel.clone(), arguments, assembled }] }
    }

    /// The kernels of a pair one after the other; `reason` stands in the variant's text.
    pub(crate) fn apart(of: &Pair, first: Assembled, second: Assembled, reason: &str) -> Self {
        let variant = format!("apart: {reason}{} | {}", first.variant, second.variant);
        let arguments = (0..of.first.bindings().len()).collect();
        let first = Dispatch { kernel: of.first.clone(), arguments, assembled: first };
        let arguments = of.second_bindings();
        let second = Dispatch { kernel: of.second.clone(), arguments, assembled: second };
        Self { variant, each: vec![first, second] }
    }
}

/// Puts a kernel's WGSL together for a device.
///
/// # Errors
/// [`BackendError::Limit`] where the grid is larger than the device allows, [`BackendError::Validation`]
/// where a constant is not a finite number, or where a pair needs two [`dispatches`].
pub fn assemble(kernel: &Kernel, facts: &Facts) -> Result<Assembled, BackendError> {
    if let Kernel::Pair(of) = kernel {
        return pair::assemble(kernel, of, facts)?.map_err(|reason| BackendError::Validation {
            label: kernel.to_string(),
            message: format!("apart: {reason}"),
        });
    }
    with_choice(kernel, choose::choose(kernel, facts)?, facts)
}

/// As [`assemble`], with what was chosen for the kernel.
pub(crate) fn with_choice(kernel: &Kernel, choice: Choice, facts: &Facts) -> Result<Assembled, BackendError> {
    let workgroups = fold(kernel, choice.workgroups, facts)?;

    let mut wgsl = String::new();
    let [x, y, z] = choice.workgroup_size;
    let mut constants = kernel.constants();
    for (name, value) in choice.constants {
        if !constants.iter().any(|(known, _)| *known == name) {
            constants.push((name, value));
        }
    }
    if !constants.iter().any(|(name, _)| *name == "PER_INVOCATION") {
        constants.push(("PER_INVOCATION", 1u32.into()));
    }
    constants.extend([
        ("WORKGROUP_X", x.into()),
        ("WORKGROUP_Y", y.into()),
        ("WORKGROUP_Z", z.into()),
        ("WORKGROUP_SIZE", (x * y * z).into()),
        ("GRID_WIDTH", workgroups[0].into()),
        ("WORKGROUPS", Constant::U32(choice.workgroups as u32)),
    ]);
    let invalid = |message: String| BackendError::Validation { label: kernel.to_string(), message };
    for (name, value) in &constants {
        constant(&mut wgsl, name, value).map_err(invalid)?;
    }
    layouts(&mut wgsl, kernel);
    if let Kernel::Custom(custom) = kernel {
        custom::declarations(&mut wgsl, custom);
    }
    epilogue(&mut wgsl, kernel).map_err(invalid)?;

    let mut parts = Vec::with_capacity(choice.parts.len() + 1);
    let mut append = |file: Cow<'static, str>, text: &str| {
        if !wgsl.ends_with('\n') {
            wgsl.push('\n');
        }
        parts.push((file, wgsl.lines().count() + 1));
        wgsl.push_str(text);
    };
    for part in &choice.parts {
        append(part.file.into(), part.text);
    }
    if let Kernel::Custom(custom) = kernel {
        append(custom.name.to_string().into(), &custom.source);
    }
    Ok(Assembled {
        wgsl,
        entry: kernel.name(),
        variant: choice.variant,
        workgroup_size: choice.workgroup_size,
        workgroups,
        number: choice.workgroups,
        parts,
    })
}

/// A grid of at least `count` workgroups with as few rows as fit, and as few workgroups too many.
pub(crate) fn fold(kernel: &Kernel, count: u64, facts: &Facts) -> Result<[u32; 3], BackendError> {
    let most = u64::from(facts.limits.max_workgroups_per_dimension).max(1);
    let width = facts.grid_width.map_or(most, |width| u64::from(width).clamp(1, most));
    let count = count.max(1);
    let rows = count.div_ceil(width);
    if rows > most || count > u64::from(u32::MAX) {
        return Err(BackendError::Limit {
            label: kernel.to_string(),
            what: "workgroups",
            needed: count,
            allowed: (width * most).min(u64::from(u32::MAX)),
        });
    }
    Ok([count.div_ceil(rows) as u32, rows as u32, 1])
}

/// `const NAME: type = value;`
fn constant(out: &mut String, name: &str, value: &Constant) -> Result<(), String> {
    let line = match value {
        Constant::U32(v) => format!("const {name}: u32 = {v}u;"),
        Constant::I32(v) => format!("const {name}: i32 = i32({v});"),
        Constant::F32(v) => format!("const {name}: f32 = {};", literal(*v, name)?),
        Constant::Bool(v) => format!("const {name}: bool = {v};"),
        Constant::F32Array(values) => {
            let list = values.iter().map(|v| literal(*v, name)).collect::<Result<Vec<_>, _>>()?;
            let len = list.len();
            format!("const {name}: array<f32, {len}> = array<f32, {len}>({});", list.join(", "))
        }
    };
    out.push_str(&line);
    out.push('\n');
    Ok(())
}

/// The shortest WGSL literal that reads back as the same number. WGSL cannot write NaN or infinity.
fn literal(v: f32, name: &str) -> Result<String, String> {
    if v.is_finite() {
        Ok(format!("{v:?}f"))
    } else {
        Err(format!("{name} is {v}; a shader's constants must be finite"))
    }
}

/// The functions that say where an element is read.
fn layouts(out: &mut String, kernel: &Kernel) {
    match kernel {
        Kernel::Elementwise(k) => {
            if let ValueSource::Operand(operand) = &k.source {
                layout(out, "source_index", &operand.layout);
            }
        }
        Kernel::Reduce(k) => {
            layout(out, "kept_index", &k.kept);
            layout(out, "reduced_index", &k.reduced);
        }
        Kernel::Moments(k) => {
            layout(out, "kept_index", &k.kept);
            layout(out, "reduced_index", &k.reduced);
        }
        Kernel::SumParts(k) => sum_part(out, &k.parts),
        _ => {}
    }
}

/// `fn sum_part(i: u32) -> SumPart`: where the terms of the i-th sum of [`kiln_kernel::SumParts`] lie, and its result.
fn sum_part(out: &mut String, parts: &[SumPart]) {
    out.push_str("struct SumPart { first: u32, stride: u32, splits: u32, place: u32 }\n");
    out.push_str("fn sum_part(i: u32) -> SumPart {\n    var part: SumPart;\n");
    let mut behind = 0;
    let numbered: Vec<(u32, SumPart)> = parts
        .iter()
        .map(|&part| {
            let first = behind;
            behind += part.len;
            (first, part)
        })
        .collect();
    choose_part(out, &numbered, 1);
    out.push_str("    return part;\n}\n");
}

/// Halves the parts until one is left, so that an element is found in few comparisons.
fn choose_part(out: &mut String, parts: &[(u32, SumPart)], depth: usize) {
    let indent = "    ".repeat(depth);
    match parts {
        [] => {}
        [(start, p)] => {
            let SumPart { from, stride, splits, to, .. } = p;
            let j = if *start == 0 { "i".to_owned() } else { format!("(i - {start}u)") };
            let _ =
                writeln!(out, "{indent}part = SumPart({from}u + {j}, {stride}u, {splits}u, {to}u + {j});");
        }
        _ => {
            let (before, behind) = parts.split_at(parts.len() / 2);
            let _ = writeln!(out, "{indent}if (i < {}u) {{", behind[0].0);
            choose_part(out, before, depth + 1);
            let _ = writeln!(out, "{indent}}} else {{");
            choose_part(out, behind, depth + 1);
            let _ = writeln!(out, "{indent}}}");
        }
    }
}

/// `fn name(i: u32) -> u32`: [`Layout::at`], with divisions by constants only, and none where the layout is
/// plain.
fn layout(out: &mut String, name: &str, layout: &Layout) {
    let axes: Vec<(u32, u32, u64)> = {
        // (size, stride, elements of the axes behind)
        let mut behind = 1u64;
        let mut axes: Vec<_> = layout
            .dims
            .iter()
            .rev()
            .map(|&(size, stride)| {
                let axis = (size, stride, behind);
                behind *= u64::from(size);
                axis
            })
            .collect();
        axes.reverse();
        axes
    };
    let mut terms: Vec<String> = Vec::new();
    for (position, &(size, stride, behind)) in axes.iter().enumerate() {
        if stride == 0 {
            continue;
        }
        let mut term = if behind == 1 { "i".to_owned() } else { format!("i / {behind}u") };
        // The outermost coordinate needs no remainder: i is below the layout's length.
        if position > 0 {
            term = if behind == 1 { format!("i % {size}u") } else { format!("({term}) % {size}u") };
        }
        if stride != 1 {
            term = format!("({term}) * {stride}u");
        } else if term.contains(' ') {
            term = format!("({term})");
        }
        terms.push(term);
    }
    if layout.offset > 0 || terms.is_empty() {
        terms.insert(0, format!("{}u", layout.offset));
    }
    let _ = writeln!(out, "fn {name}(i: u32) -> u32 {{ return {}; }}", terms.join(" + "));
}

/// `fn epilogue(value: f32, i: u32) -> f32`, the tail's operands and where they are read.
fn epilogue(out: &mut String, kernel: &Kernel) -> Result<(), String> {
    let Some(tail) = kernel.tail() else { return Ok(()) };
    let first = kernel.bindings().len() - tail.operands.len();
    for (k, operand) in tail.operands.iter().enumerate() {
        let binding = first + k;
        let _ = writeln!(
            out,
            "@group(0) @binding({binding}) var<storage, read> tail{k}: array<f32>; // [{}]",
            operand.len
        );
        layout(out, &format!("tail{k}_index"), &operand.layout);
    }
    out.push_str("fn epilogue(value: f32, i: u32) -> f32 {\n    var v = value;\n");
    let operand = |k: usize| {
        if k < tail.operands.len() {
            Ok(format!("tail{k}[tail{k}_index(i)]"))
        } else {
            Err(format!("a step reads operand {k}, but the tail has {}", tail.operands.len()))
        }
    };
    for step in &tail.steps {
        let call = match step {
            Step::Unary(unary) => match unary.setting() {
                Some(s) => format!("{}(v, {})", functions::unary(unary), literal(s, unary.name())?),
                None => format!("{}(v)", functions::unary(unary)),
            },
            Step::UnaryBackward { unary, operand: k } => {
                let (name, saved) = (unary.name(), operand(*k)?);
                match unary.setting() {
                    Some(s) => format!("{name}_backward(v, {saved}, {})", literal(s, name)?),
                    None => format!("{name}_backward(v, {saved})"),
                }
            }
            Step::Binary { binary, operand: k, swapped } => call(binary.name(), operand(*k)?, *swapped),
            Step::Constant { binary, value, swapped } => {
                call(binary.name(), literal(value.0, binary.name())?, *swapped)
            }
        };
        let _ = writeln!(out, "    v = {call};");
    }
    out.push_str("    return v;\n}\n");
    Ok(())
}

fn call(name: &str, other: String, swapped: bool) -> String {
    if swapped { format!("{name}({other}, v)") } else { format!("{name}(v, {other})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(l: &Layout) -> String {
        let mut out = String::new();
        layout(&mut out, "at", l);
        out
    }

    #[test]
    fn plain_layouts_cost_nothing() {
        assert_eq!(text(&Layout::contiguous(12)), "fn at(i: u32) -> u32 { return i; }\n");
        assert_eq!(text(&Layout::new(0, [(12, 0)])), "fn at(i: u32) -> u32 { return 0u; }\n");
        assert_eq!(
            text(&Layout::new(5, [(3, 4), (4, 0), (2, 1)])),
            "fn at(i: u32) -> u32 { return 5u + (i / 8u) * 4u + (i % 2u); }\n"
        );
    }

    #[test]
    fn sums_are_found_by_halving() {
        let part = |len, from, to| SumPart { len, splits: 3, from, stride: 9, to };
        let mut out = String::new();
        sum_part(&mut out, &[part(4, 0, 64), part(5, 4, 0), part(2, 30, 70)]);
        let lines: Vec<&str> = out.lines().map(str::trim).collect();
        assert_eq!(
            lines[3..],
            [
                "if (i < 4u) {",
                "part = SumPart(0u + i, 9u, 3u, 64u + i);",
                "} else {",
                "if (i < 9u) {",
                "part = SumPart(4u + (i - 4u), 9u, 3u, 0u + (i - 4u));",
                "} else {",
                "part = SumPart(30u + (i - 9u), 9u, 3u, 70u + (i - 9u));",
                "}",
                "}",
                "return part;",
                "}"
            ]
        );
    }

    #[test]
    fn grids_fold_past_the_limit() {
        let kernel = Kernel::Advance(kiln_kernel::Advance::step(1));
        let portable = Facts::portable();
        for width in [65_535u32, 300, 7] {
            let facts = Facts { grid_width: Some(width), ..portable };
            for count in [1u64, 2, 7, 8, 65_535, 65_536, 131_071, 458_745, 1_000_003] {
                if count > u64::from(width) * 65_535 {
                    assert!(fold(&kernel, count, &facts).is_err());
                    continue;
                }
                let [x, y, z] = fold(&kernel, count, &facts).unwrap();
                assert!(x <= width && y <= 65_535 && z == 1);
                let all = u64::from(x) * u64::from(y);
                assert!(all >= count && all - count < u64::from(y), "{count}: {x} x {y}");
            }
        }
        assert_eq!(fold(&kernel, 65_536, &portable).unwrap(), [32_768, 2, 1]);
        let message = fold(&kernel, 1 << 33, &portable).unwrap_err().to_string();
        assert!(message.contains("needs 8589934592 workgroups"), "{message}");
    }

    #[test]
    fn literals_read_back() {
        for v in [0.1f32, -0.0, 1e-8, 3.4e38, f32::MIN_POSITIVE, 1.0] {
            let text = literal(v, "V").unwrap();
            assert_eq!(text.trim_end_matches('f').parse::<f32>().unwrap().to_bits(), v.to_bits());
        }
        assert!(literal(f32::NAN, "V").is_err());
    }
}
