//! `kiln verify` on every recipe: right on right devices, and not on a kernel that is broken on purpose.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;

use kiln::{
    device::{DeviceOptions, ReplaceShader},
    nn::{Recipe, verify},
};

#[test]
fn every_recipe_passes() {
    for device in devices::devices() {
        for name in Recipe::names() {
            let mut recipe = Recipe::open(name).unwrap();
            if recipe.data.name == "folder" {
                // as large as they come they would take the interpreter a minute
                recipe.data.size = Some([32, 32]);
            }
            let found = verify(&recipe, device, recipe.batch_size.min(5), 3, 1).unwrap();
            assert!(found.launches.len() >= 5 && found.tensors.len() >= 9, "{name}");
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
        ("dense_bias_cross_entropy_with_gradient", |text| {
            text.replace("GRADIENT * (exp", "1.01 * GRADIENT * (exp")
        }),
    ];
    for (kernel, edit) in breaks {
        let options = DeviceOptions {
            replace_shader: Some(ReplaceShader { kernel, edit }),
            ..DeviceOptions::default()
        };
        let Some(device) = devices::open(options) else { return };
        let recipe = Recipe::open("digits-cnn").unwrap();
        let found = verify(&recipe, &device, 4, 1, 1).unwrap();
        assert!(!found.passed(), "{kernel}");
        for launch in &found.launches {
            assert_eq!(launch.passed, !launch.kernel.starts_with(kernel), "{kernel}: {launch}");
        }
    }
}

/// The gradient of a bias before a normalisation cancels to nothing but rounding, which is no fault.
#[test]
fn gradients_that_cancel_are_no_fault() {
    let text = Recipe::builtin_text("digits-cnn").unwrap();
    let layers = text.find("[[layers]]").unwrap();
    for norm in ["batch_norm\"", "group_norm\"\ngroups = 4"] {
        let network = format!(
            "[[layers]]\ntype = \"conv2d\"\nfilters = 4\nkernel = 3\n[[layers]]\ntype = \"{norm}\n[[layers]]\n\
             type = \"flatten\"\n[[layers]]\ntype = \"dense\"\nunits = 10\n"
        );
        let recipe = Recipe::parse(&format!("{}{network}", &text[..layers]), "norm").unwrap();
        for device in devices::devices() {
            let found = verify(&recipe, device, 4, 3, 1).unwrap();
            for tensor in &found.tensors {
                assert!(tensor.passed, "{norm} on {device}: {tensor:?}");
            }
        }
    }
}
