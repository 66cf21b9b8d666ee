//! What stands around the WGSL of a custom operation, and what is asked of the user's text before a driver sees it.

use std::fmt::Write as _;

use kiln_kernel::{BackendError, Custom, DType, Shape};
use naga::valid::{Capabilities, ValidationFlags, Validator};

use crate::assemble::Assembled;

/// The arrays, their constants, and the call of the user's function.
pub(crate) fn declarations(out: &mut String, custom: &Custom) {
    for (binding, input) in custom.inputs.iter().enumerate() {
        let dtype = match input.dtype {
            DType::F32 => "f32",
            DType::U32 => "u32",
        };
        let (name, shape) = (&input.name, &input.shape);
        let _ = writeln!(
            out,
            "@group(0) @binding({binding}) var<storage, read> {name}: array<{dtype}>; // {shape}"
        );
        sizes(out, &name.to_uppercase(), shape);
    }
    let (binding, shape) = (custom.inputs.len(), &custom.shape);
    let _ = writeln!(
        out,
        "@group(0) @binding({binding}) var<storage, read_write> result: array<f32>; // {shape}"
    );
    sizes(out, "RESULT", shape);
    let _ = writeln!(out, "fn custom_element(i: u32) -> f32 {{ return {}(i); }}", custom.name);
}

/// `NAME_LEN`, and `NAME_SHAPE` where there are axes: WGSL has no empty arrays.
fn sizes(out: &mut String, name: &str, shape: &Shape) {
    let _ = writeln!(out, "const {name}_LEN: u32 = {}u;", shape.elements());
    let rank = shape.rank();
    if rank > 0 {
        let dims: Vec<String> = shape.dims().iter().map(|d| format!("{d}u")).collect();
        let dims = dims.join(", ");
        let _ = writeln!(out, "const {name}_SHAPE: array<u32, {rank}> = array<u32, {rank}>({dims});");
    }
}

/// Refuses text that does not compile, that lacks the function, or that reaches beyond its inputs.
///
/// wgpu would refuse most of it too, but with the lines of the assembled text.
///
/// # Errors
/// [`BackendError::Shader`] with the operation, the line of its own text, and what naga says.
pub(crate) fn validate(assembled: &Assembled, custom: &Custom) -> Result<(), BackendError> {
    let wgsl = &assembled.wgsl;
    let module = match naga::front::wgsl::parse_str(wgsl) {
        Ok(module) => module,
        Err(e) => {
            let line = e.location(wgsl).map(|l| l.line_number as usize);
            return Err(error(assembled, custom, line, e.message()));
        }
    };
    let refuse = |message: &str| Err(error(assembled, custom, None, message));
    if module.entry_points.len() > 1 {
        return refuse("has an entry point of its own; Kiln's calls its function");
    }
    if module.global_variables.iter().filter(|(_, v)| v.binding.is_some()).count() > custom.inputs.len() + 1 {
        return refuse("declares bindings of its own; its inputs are declared for it");
    }
    let info = match Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module) {
        Ok(info) => info,
        Err(e) => {
            // the whole function is marked, and in it what is wrong: the shortest span
            let spans = e.spans().map(|(span, _)| *span).filter(naga::Span::is_defined);
            let span = spans.min_by_key(|span| span.to_range().map_or(0, |range| range.len()));
            let line = span.map(|span| span.location(wgsl).line_number as usize);
            return Err(error(assembled, custom, line, &causes(&e.into_inner())));
        }
    };
    // One invocation writes each element, and that is the entry point's business.
    let result =
        module.global_variables.iter().find(|(_, v)| v.name.as_deref() == Some("result")).map(|(v, _)| v);
    for (handle, function) in module.functions.iter() {
        if result.is_some_and(|result| !info[handle][result].is_empty()) {
            let name = function.name.as_deref().unwrap_or_default();
            return refuse(&format!("`{name}` reads or writes `result`; return the element instead"));
        }
    }
    Ok(())
}

/// What naga says, without its outermost "function is invalid" where it says why.
fn causes(e: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(e.source(), |e| e.source()).map(ToString::to_string);
    let causes: Vec<String> = causes.collect();
    if causes.is_empty() { e.to_string() } else { causes.join(": ") }
}

/// An error about a line of the complete text, in the user's terms.
fn error(assembled: &Assembled, custom: &Custom, line: Option<usize>, message: &str) -> BackendError {
    let name = &custom.name;
    let place = line.map(|line| (assembled.locate(line), assembled.wgsl.lines().nth(line - 1)));
    let (file, message) = match place {
        Some(((part, line), Some(text))) if *part == **name => {
            (format!("{name}:{line}"), format!("{message}, in `{}`", text.trim()))
        }
        // in what was generated: the call of the user's function, or an array under a word of WGSL
        Some((_, Some(text))) => (
            name.to_string(),
            format!("{message}, in `{}`; the source must define `fn {name}(i: u32) -> f32`", text.trim()),
        ),
        _ => (name.to_string(), message.to_owned()),
    };
    BackendError::Shader { file, message: format!("{message} (custom operation \"{name}\")") }
}
