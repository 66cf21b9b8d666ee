//! Devices and data that a test runs on, if they are there.

use std::{path::PathBuf, sync::OnceLock};

use kiln::device::{Device, DeviceOptions};

/// The adapter that `gpu` names. Without one, with `KILN_REQUIRE_ADAPTER=1`, the test fails; else it says that it
/// was skipped there.
pub fn open(options: DeviceOptions) -> Option<Device> {
    match Device::open_with("gpu", options) {
        Ok(device) => Some(device),
        Err(error) if std::env::var("KILN_REQUIRE_ADAPTER").is_ok_and(|v| v == "1") => {
            panic!("KILN_REQUIRE_ADAPTER is set: {error}")
        }
        Err(error) => {
            println!("skipped on an adapter: {error}");
            None
        }
    }
}

/// The adapter with its usual settings, opened once.
pub fn adapter() -> Option<&'static Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    DEVICE.get_or_init(|| open(DeviceOptions::default())).as_ref()
}

/// The CPU, and the adapter if there is one.
pub fn devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| std::iter::once(Device::cpu()).chain(adapter().cloned()).collect())
}

/// The folder of real data sets; without one the test says that it was skipped.
pub fn data_dir() -> Option<PathBuf> {
    let folder = std::env::var_os("KILN_DATA").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: KILN_DATA does not name the folder of data sets");
    }
    folder
}
