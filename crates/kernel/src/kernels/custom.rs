//! An operation of the user's own.

use std::{
    any::TypeId,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::Constants;
use crate::{Binding, DType, Shape, Spec};

/// `result[i] = name(i)`: an operation that a user brought as WGSL and as a function of the CPU.
///
/// `source` defines `fn name(i: u32) -> f32`. Before it stand, generated, the inputs as arrays under their
/// names, and for an input `x` the constants `X_LEN` (its number of elements) and, unless it is a scalar,
/// `X_SHAPE` (`array<u32, rank>`); for the result `RESULT_LEN` and `RESULT_SHAPE`. The text is not Kiln's:
/// devices compile it with run-time checks always.
///
/// Bindings: the inputs in order, `result`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Custom {
    /// The operation, and the function that `source` defines.
    pub name: Arc<str>,
    /// The user's WGSL.
    pub source: Arc<str>,
    /// What it reads.
    pub inputs: Vec<CustomInput>,
    /// Shape of the result.
    pub shape: Shape,
    /// The same function for the CPU.
    pub function: CustomFunction,
}

/// An argument of a [`Custom`] kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomInput {
    /// The array's name in WGSL.
    pub name: Arc<str>,
    /// Element type.
    pub dtype: DType,
    /// Axis sizes.
    pub shape: Shape,
}

/// An input of a custom operation as its CPU function sees it: elements in row-major order, integers as whole
/// numbers.
#[derive(Clone, Copy, Debug)]
pub struct CustomValue<'a> {
    /// The elements.
    pub data: &'a [f64],
    /// Axis sizes.
    pub shape: &'a Shape,
}

impl std::ops::Index<usize> for CustomValue<'_> {
    type Output = f64;

    /// The element with this flat index.
    fn index(&self, i: usize) -> &f64 {
        &self.data[i]
    }
}

/// The CPU function of a [`Custom`] kernel: the inputs and the flat index of a result element to its value.
///
/// Two are equal if they come from the same type: together with the text and the shapes that says that two kernels
/// are one program. What distinguishes two values of a type must therefore stand in the text.
#[derive(Clone)]
pub struct CustomFunction {
    origin: TypeId,
    call: Arc<Call>,
}

type Call = dyn Fn(&[CustomValue<'_>], usize) -> f64 + Send + Sync;

impl CustomFunction {
    /// A function, and the type of the operation that it belongs to.
    pub fn new(origin: TypeId, f: impl Fn(&[CustomValue<'_>], usize) -> f64 + Send + Sync + 'static) -> Self {
        Self { origin, call: Arc::new(f) }
    }

    /// Element `i` of the result.
    pub fn call(&self, inputs: &[CustomValue<'_>], i: usize) -> f64 {
        (self.call)(inputs, i)
    }
}

impl fmt::Debug for CustomFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CustomFunction").field(&self.origin).finish()
    }
}

impl PartialEq for CustomFunction {
    fn eq(&self, other: &Self) -> bool {
        self.origin == other.origin
    }
}

impl Eq for CustomFunction {}

impl Hash for CustomFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.origin.hash(state);
    }
}

impl Custom {
    /// The most inputs: with the result they are the eight buffers that every adapter allows.
    pub const MAX_INPUTS: usize = 7;

    /// Names that the text around the user's has taken.
    const RESERVED: [&'static str; 3] = ["custom", "custom_element", "result"];

    /// Refuses names that cannot stand in the generated WGSL, and too many inputs.
    ///
    /// # Errors
    /// Which name, and what a name must be.
    pub fn check_names(name: &str, inputs: &[&str]) -> Result<(), String> {
        if inputs.len() > Self::MAX_INPUTS {
            return Err(format!("has {} inputs; a kernel takes at most {}", inputs.len(), Self::MAX_INPUTS));
        }
        let mut seen: Vec<&str> = Self::RESERVED.to_vec();
        for &word in std::iter::once(&name).chain(inputs) {
            let plain = word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !plain {
                return Err(format!(
                    "\"{word}\" cannot name a function or an array in WGSL; use lower-case letters, digits and \
                     underscores, a letter first"
                ));
            }
            if seen.contains(&word) {
                return Err(format!("the name \"{word}\" is taken; choose another"));
            }
            seen.push(word);
        }
        Ok(())
    }
}

impl Spec for Custom {
    fn name(&self) -> &'static str {
        "custom"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let inputs = self.inputs.iter().map(|input| Binding {
            name: input.name.to_string().into(),
            dtype: input.dtype,
            ..Binding::read("", input.shape.elements())
        });
        inputs.chain([Binding::write("result", self.shape.elements())]).collect()
    }

    /// None: the constants' names follow from the inputs', and are generated with the arrays.
    fn constants(&self) -> Constants {
        Vec::new()
    }
}
