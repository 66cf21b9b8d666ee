//! Opening devices, with the pipelines that earlier processes have compiled.

use kiln_device::{Device, DeviceOptions};
use kiln_kernel::BackendError;

use crate::{Failure, output::Ui, tuning::cache};

/// Opens a device. Where nobody asked for a GPU, one whose driver refuses is passed over for the CPU, with a word. A cache of
/// pipelines that is of no use is told of.
///
/// # Errors
/// As [`Device::open_with`].
pub(crate) fn open(selector: &str, options: DeviceOptions, ui: &Ui) -> Result<Device, Failure> {
    let is_auto = ["", "auto"].contains(&selector.trim().to_lowercase().as_str());
    let device = match Device::open_with(selector, options) {
        // an adapter that was named in the environment is asked for
        Err(error @ BackendError::NoAdapter(_))
            if is_auto && std::env::var_os("WGPU_ADAPTER_NAME").is_none() =>
        {
            ui.warn(&format!("{error}; going on with the cpu"));
            Device::cpu_with(options)
        }
        opened => opened?,
    };
    if let Some(cache) = cache()
        && let Some(ignored) = device.remember_pipelines(&cache.join("pipelines"))
    {
        ui.warn(&ignored);
    }
    Ok(device)
}

/// Keeps what was compiled for the next process.
pub(crate) fn keep_pipelines(device: &Device, ui: &Ui) {
    if let Err(error) = device.save_pipelines() {
        // the next process compiles them again
        ui.detail(&format!("compiled pipelines cannot be kept: {error}"));
    }
}
