//! Opening devices, with the pipelines that earlier processes have compiled.

use kiln_device::{Device, DeviceOptions};

use crate::{Failure, output::Ui, tuning::cache};

/// Opens a device. A cache of pipelines that is of no use is told of.
///
/// # Errors
/// As [`Device::open_with`].
pub(crate) fn open(selector: &str, options: DeviceOptions, ui: &Ui) -> Result<Device, Failure> {
    let device = Device::open_with(selector, options)?;
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
