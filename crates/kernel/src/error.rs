use crate::OutOfMemory;

/// What can go wrong on a device.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// No adapter answers the selector.
    #[error("{0}")]
    NoAdapter(String),
    /// The adapter lacks something that Kiln needs.
    #[error("device \"{device}\" lacks {feature}")]
    MissingFeature {
        /// The adapter's name.
        device: String,
        /// What is missing, in words.
        feature: String,
    },
    /// A buffer could not be allocated.
    #[error("{0}")]
    OutOfMemory(Box<OutOfMemory>),
    /// A buffer or grid is larger than the device allows.
    #[error("\"{label}\" needs {needed} {what}, but this device allows {allowed}")]
    Limit {
        /// What the buffer or launch is for.
        label: String,
        /// Which limit, in words.
        what: &'static str,
        /// What is needed.
        needed: u64,
        /// What the device allows.
        allowed: u64,
    },
    /// The device went away: a driver reset, an unplugged card, a hang.
    #[error("device lost: {0}")]
    DeviceLost(String),
    /// A shader did not compile; the place is in the `.wgsl` file.
    #[error("shader {file}: {message}")]
    Shader {
        /// File and line under `shaders/`.
        file: String,
        /// What the compiler says.
        message: String,
    },
    /// Arguments that do not fit the kernel, or a call that wgpu refuses. A defect in Kiln, or a launch
    /// put together by hand wrongly.
    #[error("invalid use of the device in \"{label}\": {message}")]
    Validation {
        /// The launch or buffer.
        label: String,
        /// What does not fit.
        message: String,
    },
}
