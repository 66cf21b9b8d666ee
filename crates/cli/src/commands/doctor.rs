//! `kiln doctor`: is this machine ready?

use kiln_device::{Device, Info, Kind};
use kiln_kernel::{BackendError, DType, HostRef};
use serde::Serialize;

use super::devices;
use crate::{
    Failure,
    arguments::Doctor,
    output::{Spinner, Ui, bytes, duration},
    product::time_product,
};

/// Iterations of the loop that shows a driver's limit.
const LONG_LOOP: u32 = 100_000;

/// Rows and columns of the timed product.
const PRODUCT: u32 = 512;

/// Memory that is taken and written to see that it is there.
const MEMORY: u64 = 256 << 20;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Worth knowing; Kiln works.
    Note,
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    verdict: Verdict,
    found: String,
}

#[derive(Serialize)]
struct Report {
    ready: bool,
    device: Option<String>,
    checks: Vec<Check>,
    advice: Vec<String>,
}

/// The checks so far, each printed when it is done.
struct Examination<'a> {
    ui: &'a Ui,
    checks: Vec<Check>,
}

impl Examination<'_> {
    fn note(&mut self, what: &'static str, verdict: Verdict, found: String) -> Result<(), Failure> {
        let sign = match verdict {
            Verdict::Ok => "ok    ",
            Verdict::Note => "note  ",
            Verdict::Failed => "FAILED",
        };
        self.ui.result(&format!("{sign}  {what:<8}  {found}"))?;
        self.checks.push(Check { what, verdict, found });
        Ok(())
    }
}

pub(crate) fn run(args: &Doctor, ui: &Ui) -> Result<(), Failure> {
    let list = Device::list();
    let mut examination = Examination { ui, checks: Vec::new() };
    let found: Vec<String> = list.iter().filter(|i| i.kind != Kind::Cpu).map(describe).collect();
    if found.is_empty() {
        examination.note(
            "adapters",
            Verdict::Note,
            "none: no Vulkan, Metal or DX12 driver answers".into(),
        )?;
    } else {
        examination.note("adapters", Verdict::Ok, found.join("; "))?;
    }
    let device = match Device::open(&args.device.device) {
        Ok(device) => {
            let info = device.info();
            let why = reason(&args.device.device, info, &list);
            examination.note("device", Verdict::Ok, format!("{} ({why})", describe(info)))?;
            examine(&device, &mut examination)?;
            Some(device)
        }
        Err(error) => {
            examination.note("device", Verdict::Failed, crate::error::one_line(&error.to_string()))?;
            None
        }
    };
    let advice = advice(&list);
    for line in &advice {
        ui.result(&format!("\n{line}"))?;
    }
    let failed = examination.checks.iter().filter(|c| c.verdict == Verdict::Failed).count();
    ui.json(&Report {
        ready: failed == 0,
        device: device.map(|d| d.info().name.clone()),
        checks: examination.checks,
        advice,
    })?;
    if failed > 0 {
        return Err(Failure::Message(format!(
            "this machine is not ready: {failed} check{} failed",
            if failed == 1 { "" } else { "s" }
        )));
    }
    ui.result("\nready")
}

/// Looks at one open device.
fn examine(device: &Device, examination: &mut Examination<'_>) -> Result<(), Failure> {
    let info = device.info();
    let driver = if info.driver.is_empty() { "does not say" } else { &info.driver };
    examination.note("driver", Verdict::Ok, format!("{driver}; {}", features(info)))?;

    let rows = info.limit_rows();
    let short: Vec<String> = rows
        .iter()
        .filter(|row| !row.is_enough())
        .map(|row| format!("{} {}, Kiln needs {}", row.allowed, row.what, row.needed))
        .collect();
    if short.is_empty() {
        examination.note("limits", Verdict::Ok, "all that Kiln needs:".into())?;
        let table = devices::limits(info);
        examination
            .ui
            .result(&table.lines().map(|line| format!("          {line}")).collect::<Vec<_>>().join("\n"))?;
    } else {
        examination.note("limits", Verdict::Failed, short.join("; "))?;
    }

    match take_memory(device) {
        Ok(taken) => examination.note("memory", Verdict::Ok, taken)?,
        Err(error) => examination.note("memory", Verdict::Failed, error.to_string())?,
    }

    if device.is_gpu() {
        match device.loop_iterations(LONG_LOOP) {
            Ok(LONG_LOOP) => {
                examination.note(
                    "loops",
                    Verdict::Ok,
                    format!("an invocation runs {LONG_LOOP} iterations"),
                )?;
            }
            Ok(0) => {
                let found = format!("a loop of {LONG_LOOP} iterations computes a wrong result");
                examination.note("loops", Verdict::Failed, found)?;
            }
            Ok(stopped) => examination.note(
                "loops",
                Verdict::Note,
                format!(
                    "known driver defect: an invocation stops silently after {stopped} loop iterations \
                     (Mesa before 23); worked around, Kiln's kernels stay below it"
                ),
            )?,
            Err(error) => examination.note("loops", Verdict::Failed, error.to_string())?,
        }
    }

    let timed = {
        let _spinner = Spinner::new(examination.ui, "timing a matrix product");
        time_product(device.backend().as_ref(), PRODUCT, 5)
    };
    match timed {
        Ok(timed) if timed.is_right() => examination.note(
            "product",
            Verdict::Ok,
            format!(
                "{PRODUCT} x {PRODUCT} x {PRODUCT} in {}, {:.1} GFLOP/s, right to within rounding",
                duration(timed.median),
                timed.gflops()
            ),
        ),
        Ok(timed) => examination.note(
            "product",
            Verdict::Failed,
            format!(
                "{PRODUCT} x {PRODUCT} x {PRODUCT} is wrong: {:.0} times further off than rounding allows; \
                 update the driver, or use --device cpu",
                timed.worst
            ),
        ),
        Err(error) => examination.note("product", Verdict::Failed, error.to_string()),
    }
}

/// Takes memory, writes its end and reads it back.
fn take_memory(device: &Device) -> Result<String, BackendError> {
    let limits = device.info().limits;
    let taken = MEMORY.min(limits.max_buffer_bytes).min(limits.max_binding_bytes);
    let len = (taken / 4) as usize;
    let buffer = device.backend().allocate(DType::U32, len, "memory check")?;
    // The end must be aligned as arguments are.
    let alignment = limits.offset_alignment.max(1);
    let last = (len - 1) / alignment * alignment;
    let end = buffer.slice(last, 1);
    device.backend().write(&end, HostRef::U32(&[0x600D_DA7A]))?;
    let read = pollster::block_on(device.backend().read(&end))?.into_u32();
    if read != [0x600D_DA7A] {
        return Err(BackendError::Validation {
            label: "memory check".into(),
            message: format!("wrote 1617812090, read back {read:?}"),
        });
    }
    Ok(format!(
        "{} in one piece taken, written and read; one buffer may have {}",
        bytes(taken),
        if limits.max_buffer_bytes > 1 << 60 { "any size".into() } else { bytes(limits.max_buffer_bytes) }
    ))
}

fn describe(info: &Info) -> String {
    match info.kind {
        Kind::Cpu => "cpu".into(),
        kind => format!("{}: {} ({}, {kind})", info.index, info.name, info.backend),
    }
}

fn features(info: &Info) -> String {
    if info.features.is_empty() { "no optional features".into() } else { info.features.join(", ") }
}

/// Why this device and no other.
fn reason(selector: &str, info: &Info, list: &[Info]) -> String {
    let software = list.iter().any(|i| i.kind == Kind::Software);
    match (selector.trim().to_lowercase().as_str(), info.kind) {
        ("auto" | "", Kind::Cpu) if software => {
            "no real GPU; a software rasterizer is slower than the cpu backend, so it is used only when named"
                .into()
        }
        ("auto" | "", Kind::Cpu) => "no GPU".into(),
        ("auto" | "" | "gpu", Kind::Software) => {
            "the only adapter there is, or named by WGPU_ADAPTER_NAME".into()
        }
        ("auto" | "" | "gpu", kind) => format!("the best of {}: {kind}", list.len()),
        _ => format!("asked for with --device {selector}"),
    }
}

/// What to install where no real GPU answers.
fn advice(list: &[Info]) -> Vec<String> {
    if list.iter().any(|i| !matches!(i.kind, Kind::Cpu | Kind::Software)) {
        return Vec::new();
    }
    let install: &[&str] = if cfg!(target_os = "macos") {
        &["Metal comes with macOS on every Mac since 2012; in a virtual machine, turn on its GPU."]
    } else if cfg!(target_os = "windows") {
        &[
            "install the graphics card maker's driver (NVIDIA, AMD or Intel), not Windows' basic display driver;",
            "in a virtual machine or a remote session, pass the GPU through.",
        ]
    } else {
        &[
            "AMD, Intel:  Mesa's Vulkan drivers (Debian, Ubuntu: mesa-vulkan-drivers; Fedora: \
             mesa-vulkan-drivers; Arch: vulkan-radeon, vulkan-intel)",
            "NVIDIA:      the proprietary driver with its Vulkan part (Debian: nvidia-driver; Ubuntu: \
             ubuntu-drivers install; Arch: nvidia-utils)",
            "all:         the loader (libvulkan1, vulkan-icd-loader); in a container, pass the GPU in \
             (--gpus all and NVIDIA_DRIVER_CAPABILITIES=all, or --device /dev/dri)",
        ]
    };
    let mut lines = vec!["no real GPU answers. The cpu backend needs nothing; for a GPU:".to_owned()];
    lines.extend(install.iter().map(|line| format!("  {line}")));
    vec![lines.join("\n")]
}
