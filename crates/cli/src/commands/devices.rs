//! `kiln devices`

use kiln_device::{Device, Info};
use serde::Serialize;

use crate::{
    Failure,
    output::{Align, Table, Ui, bytes, count},
};

/// What `--json` prints a list of.
#[derive(Serialize)]
struct Report {
    index: usize,
    name: String,
    backend: String,
    kind: String,
    chosen: bool,
    driver: String,
    features: Vec<String>,
    max_buffer_bytes: u64,
    max_binding_bytes: u64,
    max_storage_buffers: u32,
    max_workgroups_per_dimension: u32,
    workgroup_memory_bytes: u32,
    max_workgroup_invocations: u32,
    subgroup_size: Option<u32>,
}

pub(crate) fn run(ui: &Ui) -> Result<(), Failure> {
    let list = Device::list();
    let chosen = chosen()?;
    let reports: Vec<Report> = list.iter().map(|info| report(info, &chosen)).collect();
    ui.json(&reports)?;
    ui.result(&table(&list, &chosen))?;
    // the CPU has none
    for info in list.iter().filter(|info| info.backend != "cpu" || ui.is_verbose()) {
        ui.result(&format!("\n{}: {}", info.index, info.name))?;
        ui.result(&limits(info))?;
    }
    Ok(())
}

/// What `--device auto` opens here.
///
/// Opening is the only honest answer: a driver may list an adapter and then refuse it.
pub(crate) fn chosen() -> Result<Info, Failure> {
    Ok(Device::best()?.info().clone())
}

fn is_same(a: &Info, b: &Info) -> bool {
    (a.index, &a.name, &a.backend) == (b.index, &b.name, &b.backend)
}

fn report(info: &Info, chosen: &Info) -> Report {
    Report {
        index: info.index,
        name: info.name.clone(),
        backend: info.backend.clone(),
        kind: info.kind.to_string(),
        chosen: is_same(info, chosen),
        driver: info.driver.clone(),
        features: info.features.clone(),
        max_buffer_bytes: info.limits.max_buffer_bytes,
        max_binding_bytes: info.limits.max_binding_bytes,
        max_storage_buffers: info.limits.max_storage_buffers,
        max_workgroups_per_dimension: info.limits.max_workgroups_per_dimension,
        workgroup_memory_bytes: info.limits.workgroup_memory_bytes,
        max_workgroup_invocations: info.limits.max_workgroup_invocations,
        subgroup_size: info.subgroup_size,
    }
}

/// A row per device, the chosen one starred.
pub(crate) fn table(list: &[Info], chosen: &Info) -> String {
    let mut table = Table::new([
        ("", Align::Left),
        ("index", Align::Right),
        ("name", Align::Left),
        ("kind", Align::Left),
        ("backend", Align::Left),
        ("driver", Align::Left),
        ("features", Align::Left),
    ]);
    for info in list {
        table.row([
            if is_same(info, chosen) { "*" } else { "" }.into(),
            info.index.to_string(),
            info.name.clone(),
            info.kind.to_string(),
            info.backend.clone(),
            info.driver.clone(),
            info.features.join(" "),
        ]);
    }
    format!("{}\n\n* what --device auto opens", table.render())
}

/// A device's limits beside what Kiln needs.
pub(crate) fn limits(info: &Info) -> String {
    let mut table = Table::new([
        ("limit", Align::Left),
        ("has", Align::Right),
        ("needs", Align::Right),
        ("", Align::Left),
    ]);
    for row in info.limit_rows() {
        let number = |n: u64| {
            // Where the CPU has no limit of its own, the largest number there is says so.
            if n == u64::from(u32::MAX) || n > 1 << 60 {
                "any".into()
            } else if row.what.starts_with("bytes") {
                bytes(n)
            } else {
                count(n)
            }
        };
        let verdict = if row.is_enough() { "ok" } else { "too little" };
        table.row([row.what.into(), number(row.allowed), number(row.needed), verdict.into()]);
    }
    table.render()
}
