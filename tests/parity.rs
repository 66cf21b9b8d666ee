//! Every kernel on the adapter against its CPU twin in `f64`, from the same `f32` inputs, with the shaders' run-time
//! checks and without.
//!
//! `|got - want| <= eps (s + floor)`, where s is the larger of what the twin gives and what it gives for the inputs'
//! absolute values: for a sum, the sum of the terms' sizes, so that a long sum is neither excused nor blamed.
//!
//! With `KILN_REQUIRE_ADAPTER=1` a missing adapter is a failure, else the tests say that they are skipped. The adapter
//! is the one that `gpu` names.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;
#[path = "common/kernels.rs"]
mod kernels;

use std::{collections::HashMap, sync::OnceLock};

use kiln_device::{
    Device, DeviceOptions, ReplaceShader,
    assemble::{Facts, dispatches},
};
use kiln_kernel::{Access, Backend, BackendError, Buffer, Host, Kernel, Launch, View};
use kiln_reference::Cpu;

const EPS: f64 = 1e-5;
const FLOOR: f64 = 0.1;

/// The adapter, opened once for each mode in the whole process: drivers refuse after some ten.
fn device(checked: bool, portable: bool) -> Option<&'static Device> {
    static DEVICES: [OnceLock<Option<Device>>; 4] = [const { OnceLock::new() }; 4];
    let slot = &DEVICES[usize::from(checked) + 2 * usize::from(portable)];
    slot.get_or_init(|| devices::open(DeviceOptions { checked, portable, ..DeviceOptions::default() }))
        .as_ref()
}

/// Runs a kernel on a backend from these inputs; all of its arguments afterwards.
fn run(backend: &dyn Backend, kernel: &Kernel, inputs: &[Host]) -> Result<Vec<Host>, BackendError> {
    let bindings = kernel.bindings();
    let mut buffers: Vec<Buffer> = Vec::new();
    for (binding, host) in bindings.iter().zip(inputs) {
        let buffer = backend.allocate(binding.dtype, binding.len, &binding.name)?;
        backend.write(&buffer.view(), host.as_ref())?;
        buffers.push(buffer);
    }
    let arguments: Vec<View> = buffers.iter().map(Buffer::view).collect();
    let launch = Launch { kernel: kernel.clone(), arguments, label: kernel.name().into() };
    let program = backend.prepare(&[launch])?;
    backend.run(&program, 1)?;
    let readings: Vec<_> = buffers.iter().map(|b| backend.read(&b.view())).collect();
    readings.into_iter().map(pollster::block_on).collect()
}

/// The worst error in units of the tolerance, with where it is; more than 1 is a failure.
struct Worst {
    error: f64,
    text: String,
}

fn compare(backend: &dyn Backend, kernel: &Kernel, seed: u64) -> Result<Worst, BackendError> {
    let inputs = kernels::inputs(kernel, seed);
    let sizes: Vec<Host> = inputs
        .iter()
        .map(|host| match host {
            Host::F32(values) => Host::F32(values.iter().map(|v| v.abs()).collect()),
            other => other.clone(),
        })
        .collect();
    let twin = Cpu::<f64>::new();
    let want = run(&twin, kernel, &inputs)?;
    let scale = run(&twin, kernel, &sizes)?;
    let got = run(backend, kernel, &inputs)?;

    // what is added and taken away in a changed picture is as large as its colours may be
    let floor = match kernel {
        Kernel::GatherAugmented(k) => FLOOR + f64::from(k.range()),
        _ => FLOOR,
    };
    let mut worst = Worst { error: 0.0, text: String::new() };
    for (((binding, got), want), scale) in kernel.bindings().iter().zip(got).zip(want).zip(scale) {
        let name = &binding.name;
        if let Host::U32(want) = &want {
            let got = got.into_u32();
            if let Some(i) = (0..want.len()).find(|&i| got[i] != want[i]) {
                let text = format!("{name}[{i}] = {} and not {}", got[i], want[i]);
                return Ok(Worst { error: f64::INFINITY, text });
            }
            continue;
        }
        // What is only read must come back as it was.
        let exact = binding.access == Access::Read;
        let (got, want, scale) = (got.into_f64(), want.into_f64(), scale.into_f64());
        for (i, ((g, w), s)) in got.iter().zip(&want).zip(&scale).enumerate() {
            let tolerance = if exact { 0.0 } else { EPS * (s.abs().max(w.abs()) + floor) };
            // A NaN is the worst error of all, but where it was given and came back.
            let same = exact && (g == w || (g.is_nan() && w.is_nan()));
            let difference = if same { 0.0 } else { (g - w).abs() };
            let error = match difference {
                d if d.is_nan() => f64::INFINITY,
                0.0 => 0.0,
                d => d / tolerance,
            };
            if error > worst.error {
                worst = Worst { error, text: format!("{name}[{i}] = {g} and not {w} (size {s})") };
            }
        }
    }
    Ok(worst)
}

fn all_kernels(checked: bool, portable: bool) {
    if let Some(device) = device(checked, portable) {
        kernels_on(device, |_| true);
    }
}

/// Compares the kernels of the table that are wanted; how many.
fn kernels_on(device: &Device, mut is_wanted: impl FnMut(&Kernel) -> bool) -> usize {
    let mut compared = 0;
    let mut failures = Vec::new();
    let mut worst = Worst { error: 0.0, text: String::new() };
    for (case, seed) in kernels::table().into_iter().zip(1u64..) {
        if !is_wanted(&case.kernel) {
            continue;
        }
        compared += 1;
        match compare(&**device.backend(), &case.kernel, seed) {
            Ok(found) => {
                if found.error > 1.0 {
                    failures.push(format!("{}: {}", case.name, found.text));
                } else if found.error > worst.error {
                    worst = Worst { error: found.error, text: format!("{}: {}", case.name, found.text) };
                }
            }
            Err(e) => failures.push(format!("{}: {e}", case.name)),
        }
    }
    println!("worst on {device}: {:.3} of the tolerance at {}", worst.error, worst.text);
    assert!(failures.is_empty(), "{} kernels differ:\n{}", failures.len(), failures.join("\n"));
    compared
}

#[test]
fn every_kernel_equals_its_twin_with_checks() {
    all_kernels(true, false);
}

#[test]
fn every_kernel_equals_its_twin_without_checks() {
    all_kernels(false, false);
}

/// The variants that real GPUs get, run on whatever adapter there is.
#[test]
fn every_portable_kernel_equals_its_twin_with_checks() {
    all_kernels(true, true);
}

#[test]
fn every_portable_kernel_equals_its_twin_without_checks() {
    all_kernels(false, true);
}

/// Grids of more than 65,535 workgroups are folded: here all of more than seven are, with this adapter's tiles and with the
/// portable ones. Of each kernel four cases will do that are not long.
#[test]
fn every_kernel_equals_its_twin_in_a_folded_grid() {
    for portable in [false, true] {
        let grid_width = Some(7);
        let options = DeviceOptions { grid_width, portable, ..DeviceOptions::default() };
        let Some(device) = devices::open(options) else { return };
        let info = device.info();
        let own = Facts {
            limits: info.limits,
            grid_width,
            subgroup_size: info.subgroup_size,
            kind: info.kind,
            vendor: info.vendor,
        };
        let facts = if portable { Facts { grid_width, ..Facts::portable() } } else { own };
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let is_wanted = |kernel: &Kernel| {
            let is_folded = dispatches(kernel, &facts)
                .is_ok_and(|d| d.each.iter().any(|one| one.assembled.workgroups[1] > 1));
            let is_short = kernel.bindings().iter().all(|b| b.len < 1 << 18);
            let times = seen.entry(kernel.name()).or_default();
            *times += usize::from(is_folded && is_short);
            is_folded && is_short && *times <= 4
        };
        let compared = kernels_on(&device, is_wanted);
        println!("{compared} kernels have a folded grid");
        assert!(compared > 80 && seen.len() > 40, "{compared} of {} kernels", seen.len());
    }
}

/// The harness itself: a kernel that is wrong in one element of many, by little, is noticed.
#[test]
fn a_wrong_kernel_is_noticed() {
    let edit: fn(&str) -> String = |wgsl| {
        assert!(wgsl.contains("y[i] = epilogue(x[source_index(i)], i);"));
        wgsl.replace(
            "y[i] = epilogue(x[source_index(i)], i);",
            "y[i] = epilogue(x[source_index(i)], i) * select(1.0, 1.0001, i == 70u);",
        )
    };
    let replace_shader = Some(ReplaceShader { kernel: "elementwise", edit });
    let Some(device) = devices::open(DeviceOptions { replace_shader, ..DeviceOptions::default() }) else {
        return;
    };
    let table = kernels::table();
    let find = |name: &str| &table.iter().find(|c| c.name == name).expect("a case of the table").kernel;
    let wrong = compare(&**device.backend(), find("unary neg"), 2).expect("it runs");
    assert!(wrong.error > 1.0 && wrong.text.starts_with("y[70]"), "{}", wrong.text);
    let right = compare(&**device.backend(), find("fill 1000"), 2).expect("it runs");
    assert!(right.error <= 1.0, "{}", right.text);
}

/// Two runs of one kernel give the same bits: sums have one order.
#[test]
fn results_repeat_bit_by_bit() {
    let Some(device) = device(false, false) else { return };
    let wanted =
        ["reduce Sum past 65,535", "conv2d_backward_weight past 65,535 terms", "matmul past 65,535 terms"];
    for case in kernels::table().iter().filter(|c| wanted.contains(&c.name.as_str())) {
        let inputs = kernels::inputs(&case.kernel, 9);
        let bits = || -> Vec<Vec<u32>> {
            let results = run(&**device.backend(), &case.kernel, &inputs).expect("it runs");
            results.into_iter().map(|h| h.into_f32().iter().map(|v| v.to_bits()).collect()).collect()
        };
        assert_eq!(bits(), bits(), "{}", case.name);
    }
}
