//! `kiln bench matmul N`

use kiln_device::Device;
use serde::Serialize;

use crate::{
    Failure,
    arguments::BenchMatmul,
    output::{Ui, duration},
    product::time_product,
};

#[derive(Serialize)]
struct Report {
    device: String,
    m: u32,
    n: u32,
    k: u32,
    median_seconds: f64,
    gflops: f64,
}

pub(crate) fn run(args: &BenchMatmul, ui: &Ui) -> Result<(), Failure> {
    let device = Device::open(&args.device.device)?;
    ui.note(&format!("device: {}", device.info().name));
    let timed = time_product(device.backend().as_ref(), args.n, args.steps)?;
    if !timed.is_right() {
        return Err(Failure::Message(format!(
            "device \"{}\" multiplies wrongly: an element of the {n} x {n} product is {:.0} times further off \
             than rounding allows; see `kiln doctor`",
            device.info().name,
            timed.worst,
            n = args.n
        )));
    }
    ui.result(&format!(
        "matmul {n} x {n} x {n}: {} each, {:.1} GFLOP/s",
        duration(timed.median),
        timed.gflops(),
        n = args.n
    ))?;
    ui.json(&Report {
        device: device.info().name.clone(),
        m: args.n,
        n: args.n,
        k: args.n,
        median_seconds: timed.median.as_secs_f64(),
        gflops: timed.gflops(),
    })
}
