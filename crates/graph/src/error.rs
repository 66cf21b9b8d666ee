use kiln_kernel::BackendError;

/// What can go wrong while recording, differentiating, planning or running a graph.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// Shapes, types or settings that do not fit an operation. Found when the operation is recorded.
    #[error("{}: {message}", place(.op, .scope))]
    Shape {
        /// The operation: `matmul`.
        op: String,
        /// The layer or scope that recorded it: `fc1`.
        scope: String,
        /// Which equality fails, with both sides.
        message: String,
    },
    /// A gradient was asked for through an operation that has none.
    #[error("{}: has no gradient with respect to its input {input}", place(.op, .scope))]
    NoGradient {
        /// The operation.
        op: String,
        /// The layer or scope that recorded it.
        scope: String,
        /// Which input, counted from 0.
        input: usize,
    },
    /// A tensor of one graph was used in another.
    #[error("a tensor was used in a graph that did not record it")]
    ForeignTensor,
    /// A name that was not recorded, or recorded twice.
    #[error("{0}")]
    Name(String),
    /// A custom operation whose shader, CPU function and gradient do not agree.
    #[error("custom operation \"{op}\": {message}")]
    Mismatch {
        /// The operation.
        op: String,
        /// What differs, where, and both values.
        message: String,
    },
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

fn place(op: &str, scope: &str) -> String {
    if scope.is_empty() { op.to_string() } else { format!("{op} \"{scope}\"") }
}
