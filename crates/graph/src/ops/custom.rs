//! Operations that a user brings.

use std::{
    any::{Any, TypeId},
    fmt,
    sync::Arc,
};

use kiln_kernel::{self as kernel, CustomFunction, CustomInput, CustomValue, DType, Kernel, Shape};
use ndarray::IxDyn;

use super::{Op, Rule, incoming, real};
use crate::{Graph, GraphError, Tensor, graph::Node, interpret::Array, plan::Lowering};

/// An operation of your own: its name, its shape rule, and one element of its result, once in WGSL for GPUs
/// and once in Rust for the CPU. [`Graph::custom`] records it.
///
/// The WGSL defines a function under the operation's name, `fn name(i: u32) -> f32`, which computes element
/// `i` (row-major) of the result. It is called once for each element, and may define whatever else it needs.
/// Before it are declared
///
/// - each input as an array under its name, `array<f32>` or `array<u32>`;
/// - for an input `x`, `X_LEN`, its number of elements, and `X_SHAPE`, an `array<u32, rank>` of its axis
///   sizes (left out for scalars);
/// - `RESULT_LEN` and `RESULT_SHAPE`.
///
/// The text is compiled with run-time checks on every device, also where Kiln's own shaders are not: an index
/// that leaves an array gives some element of it, never another's memory. One element should stay below 65,535
/// loop iterations, after which Mesa 22's software rasterizer stops silently.
///
/// What a value of the type is set to (a slope, a window) must stand in the text, as by `format!`: two values of
/// one type with the same text and shapes share one compiled shader.
///
/// [`crate::verify::check_custom`] compares the WGSL with the CPU function, and the gradient with finite
/// differences.
///
/// # Example
/// The squared ReLU, max(x, 0)², of So et al. (2021), "Primer":
/// ```
/// use std::sync::Arc;
///
/// use kiln_graph::{CustomOp, CustomValue, Graph, GraphError, Interpreter, Tensor};
/// use kiln_kernel::Shape;
/// use ndarray::arr1;
///
/// #[derive(Debug)]
/// struct SquaredRelu;
///
/// impl CustomOp for SquaredRelu {
///     fn name(&self) -> &str {
///         "squared_relu"
///     }
///     fn inputs(&self) -> &[&str] {
///         &["x"]
///     }
///     fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
///         Ok(inputs[0].clone())
///     }
///     fn wgsl(&self) -> String {
///         "fn squared_relu(i: u32) -> f32 { let v = max(x[i], 0.0); return v * v; }".into()
///     }
///     fn cpu(&self, inputs: &[CustomValue<'_>], i: usize) -> f64 {
///         inputs[0][i].max(0.0).powi(2)
///     }
///     // dx = dy · 2 max(x, 0)
///     fn vjp(
///         &self,
///         g: &mut Graph,
///         inputs: &[Tensor],
///         _: Tensor,
///         dy: Tensor,
///     ) -> Result<Vec<Option<Tensor>>, GraphError> {
///         let slope = g.relu(inputs[0])?;
///         let slope = g.scale(slope, 2.0)?;
///         Ok(vec![Some(g.mul(dy, slope)?)])
///     }
/// }
///
/// # fn main() -> Result<(), GraphError> {
/// let mut g = Graph::new();
/// let x = g.input("x", [3])?;
/// let y = g.custom(Arc::new(SquaredRelu), &[x])?;
/// let dx = g.gradients(y, &[x])?[0];
///
/// let mut run = Interpreter::new(&g);
/// run.feed("x", arr1(&[-1.0, 0.5, 3.0]).into_dyn());
/// assert_eq!(run.value(y)?.as_slice(), Some(&[0.0, 0.25, 9.0][..]));
/// assert_eq!(run.value(dx)?.as_slice(), Some(&[0.0, 1.0, 6.0][..]));
///
/// // the shader against the function, the gradient against differences; give it `device.backend()`
/// use kiln_graph::verify::{check_custom, sample};
/// let device: Arc<dyn kiln_kernel::Backend> = Arc::new(kiln_reference::Cpu::<f32>::new());
/// let report = check_custom(&device, Arc::new(SquaredRelu), &[sample([3, 5], 1)])?;
/// assert_eq!(report.gradients, [true]);
/// # Ok(())
/// # }
/// ```
pub trait CustomOp: Any + fmt::Debug + Send + Sync {
    /// The operation's name in errors and plans, and that of the WGSL function: lower-case letters, digits and
    /// underscores, a letter first; not `custom`, `custom_element` or `result`.
    fn name(&self) -> &str;

    /// The inputs' names, which are the WGSL arrays': of the same form, and each another. At most seven.
    fn inputs(&self) -> &[&str];

    /// The inputs' element types; `F32` where the list ends. The result is always `F32`.
    fn dtypes(&self) -> &[DType] {
        &[]
    }

    /// The result's shape, given as many input shapes as there are names, or which equality fails.
    ///
    /// # Errors
    /// What must hold, with both sides; [`Graph::custom`] adds the operation and the layer.
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String>;

    /// The WGSL that defines `fn name(i: u32) -> f32`.
    fn wgsl(&self) -> String;

    /// Element `i` of the result, on the CPU and in the interpreter. Integers come as whole numbers.
    fn cpu(&self, inputs: &[CustomValue<'_>], i: usize) -> f64;

    /// The gradient: given what went in and came out, and the gradient `dy` of the result, records the gradient
    /// of each input in that input's shape. `None` for an input says that there is no derivative with respect
    /// to it, and asking for one is [`GraphError::NoGradient`]. By default there is none for any.
    ///
    /// # Errors
    /// Those of the operations that it records.
    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        output: Tensor,
        dy: Tensor,
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let _ = (g, output, dy);
        Ok(vec![None; inputs.len()])
    }
}

/// A recorded [`CustomOp`].
#[derive(Clone, Debug)]
pub(crate) struct Custom(Arc<dyn CustomOp>);

impl Rule for Custom {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn dtypes(&self) -> &[DType] {
        self.0.dtypes()
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>, String> {
        let names = self.0.inputs();
        kernel::Custom::check_names(self.0.name(), names)?;
        if inputs.len() != names.len() {
            let (want, got) = (names.len(), inputs.len());
            return Err(format!("takes {want} inputs ({}), got {got}", names.join(", ")));
        }
        real(self.0.shape(inputs)?)
    }

    fn meaning(&self, inputs: &[&Array]) -> Vec<Array> {
        let shapes: Vec<Shape> = inputs.iter().map(|x| x.shape().into()).collect();
        // the interpreter's values may be views in another order
        let data: Vec<Vec<f64>> = inputs.iter().map(|x| x.iter().copied().collect()).collect();
        let values: Vec<CustomValue<'_>> =
            data.iter().zip(&shapes).map(|(data, shape)| CustomValue { data, shape }).collect();
        let shape = match self.0.shape(&shapes.iter().collect::<Vec<_>>()) {
            Ok(shape) => shape,
            Err(message) => {
                unreachable!("{}: the shapes were accepted when recorded: {message}", self.name())
            }
        };
        let mut i = 0..shape.elements();
        let element = || self.0.cpu(&values, i.next().unwrap_or_default());
        vec![Array::from_shape_simple_fn(IxDyn(shape.dims()), element)]
    }

    fn vjp(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        outputs: &[Tensor],
        dys: &[Option<Tensor>],
        wanted: &[bool],
    ) -> Result<Vec<Option<Tensor>>, GraphError> {
        let dy = incoming(g, outputs, dys, 0)?;
        let dxs = self.0.vjp(g, inputs, outputs[0], dy)?;
        let refuse = |g: &Graph, message: String| {
            Err(g.shape_error(&Op::Custom(self.clone()), format!("vjp {message}")))
        };
        if dxs.len() != inputs.len() {
            return refuse(g, format!("gave {} gradients for {} inputs", dxs.len(), inputs.len()));
        }
        for (i, (dx, &x)) in dxs.iter().zip(inputs).enumerate() {
            let Some(dx) = *dx else { continue };
            let (got, want) = (g.info(dx)?, g.info(x)?);
            if wanted[i] && (got.shape != want.shape || got.dtype != DType::F32) {
                let name = self.0.inputs()[i];
                let (got, dtype, want) = (&got.shape, got.dtype, &want.shape);
                return refuse(
                    g,
                    format!("gave a gradient of \"{name}\" with shape {got} {dtype:?}, must be {want} F32"),
                );
            }
        }
        Ok(dxs)
    }

    fn lower(&self, to: &mut Lowering<'_>, node: &Node) -> Result<(), GraphError> {
        let names = self.0.inputs();
        let mut inputs = Vec::with_capacity(names.len());
        let mut arguments = Vec::with_capacity(names.len() + 1);
        for (i, (&tensor, &name)) in node.inputs.iter().zip(names).enumerate() {
            let dtype = self.dtypes().get(i).copied().unwrap_or(DType::F32);
            inputs.push(CustomInput { name: name.into(), dtype, shape: to.shape(tensor) });
            arguments.push(to.argument(tensor)?);
        }
        arguments.push(to.result(node.outputs[0]));
        let op = self.0.clone();
        let kernel = kernel::Custom {
            name: self.0.name().into(),
            source: self.0.wgsl().into(),
            inputs,
            shape: to.shape(node.outputs[0]),
            function: CustomFunction::new(self.origin(), move |inputs, i| op.cpu(inputs, i)),
        };
        to.emit(Kernel::Custom(kernel), arguments);
        Ok(())
    }
}

impl Custom {
    /// The user's type.
    fn origin(&self) -> TypeId {
        let op: &dyn Any = &*self.0;
        op.type_id()
    }
}

impl Graph {
    /// An operation of your own; see [`CustomOp`].
    ///
    /// # Errors
    /// If its names cannot stand in WGSL, the number, types or shapes of the inputs do not fit. WGSL that
    /// does not compile is found when a [`crate::Session`] is made on a GPU.
    pub fn custom(&mut self, op: Arc<dyn CustomOp>, inputs: &[Tensor]) -> Result<Tensor, GraphError> {
        self.record1(Op::Custom(Custom(op)), inputs)
    }
}
