//! `kiln verify` on every recipe: right on right devices, and not on a kernel that is broken on purpose.

use kiln::{
    device::{Device, DeviceOptions, ReplaceShader},
    nn::{Recipe, verify},
};

/// The adapter; or a failure or a message, as `KILN_REQUIRE_ADAPTER` says.
fn adapter(options: DeviceOptions) -> Option<Device> {
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

#[test]
fn every_recipe_passes() {
    for device in [Some(Device::cpu()), adapter(DeviceOptions::default())].into_iter().flatten() {
        for name in Recipe::names() {
            let recipe = Recipe::open(name).unwrap();
            let found = verify(&recipe, &device, recipe.batch_size.min(5), 3, 1).unwrap();
            assert!(found.launches.len() >= 10 && found.tensors.len() >= 9, "{name}");
            for launch in &found.launches {
                assert!(launch.passed, "{name} on {device}: {launch}");
            }
            for tensor in &found.tensors {
                assert!(tensor.passed, "{name} on {device}: {tensor:?}");
            }
        }
    }
}

/// One wrong letter in an update, one wrong percent in a gradient.
#[test]
fn a_broken_kernel_is_caught_by_name() {
    type Edit = fn(&str) -> String;
    let breaks: [(&str, Edit); 2] = [
        ("adam", |text| text.replace("(1.0 - BETA1) * g", "(1.0 - BETA2) * g")),
        ("cross_entropy_with_gradient", |text| text.replace("GRADIENT * (exp", "1.01 * GRADIENT * (exp")),
    ];
    for (kernel, edit) in breaks {
        let options = DeviceOptions {
            replace_shader: Some(ReplaceShader { kernel, edit }),
            ..DeviceOptions::default()
        };
        let Some(device) = adapter(options) else { return };
        let recipe = Recipe::open("digits-cnn").unwrap();
        let found = verify(&recipe, &device, 4, 1, 1).unwrap();
        assert!(!found.passed(), "{kernel}");
        for launch in &found.launches {
            assert_eq!(launch.passed, !launch.kernel.starts_with(kernel), "{kernel}: {launch}");
        }
    }
}
