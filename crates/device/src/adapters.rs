//! Which adapters there are, in which order Kiln prefers them, and what they say of themselves.

use kiln_kernel::{BackendError, Limits};
use sysinfo::System;

use crate::assemble::{Facts, Kind};

/// What is known of a device before it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Position in [`crate::Device::list`], by which the device can be opened.
    pub index: usize,
    /// The adapter's name, or `cpu`.
    pub name: String,
    /// `Vulkan`, `Metal`, `Dx12`, or `cpu`.
    pub backend: String,
    /// What kind of machine it is.
    pub kind: Kind,
    /// The driver's name and version, as it gives them; the system's where the driver is a part of it and names none (Metal).
    pub driver: String,
    /// What Kiln makes use of beyond plain compute: `subgroup`, `timestamp-query`, `shader-f16`, ...
    pub features: Vec<String>,
    /// What it allows.
    pub limits: Limits,
    /// Invocations of a subgroup, where they are always of one size.
    pub subgroup_size: Option<u32>,
    /// The PCI vendor, 0 for none.
    pub vendor: u32,
    /// The PCI device, 0 for none.
    pub device: u32,
    /// Where it is plugged in, as `0000:65:00.0`, if the driver says: cards of one kind differ in nothing else.
    pub bus: String,
}

/// One limit of a device, beside what Kiln's portable kernels need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRow {
    /// What is limited, in words.
    pub what: &'static str,
    /// What the device allows.
    pub allowed: u64,
    /// What Kiln needs at least.
    pub needed: u64,
}

impl LimitRow {
    /// True if the device allows what Kiln needs.
    pub fn is_enough(&self) -> bool {
        self.allowed >= self.needed
    }
}

impl Info {
    /// The limits that Kiln cares for, beside what it needs: for `kiln devices` and `kiln doctor`.
    pub fn limit_rows(&self) -> [LimitRow; 6] {
        let (have, need) = (&self.limits, Facts::portable().limits);
        let row = |what, allowed, needed| LimitRow { what, allowed, needed };
        [
            row("bytes in one buffer", have.max_buffer_bytes, need.max_buffer_bytes),
            row("bytes in one argument", have.max_binding_bytes, need.max_binding_bytes),
            row("buffers in one kernel", have.max_storage_buffers.into(), need.max_storage_buffers.into()),
            row(
                "workgroups per dimension",
                have.max_workgroups_per_dimension.into(),
                need.max_workgroups_per_dimension.into(),
            ),
            row(
                "bytes of workgroup memory",
                have.workgroup_memory_bytes.into(),
                need.workgroup_memory_bytes.into(),
            ),
            row(
                "invocations in a workgroup",
                have.max_workgroup_invocations.into(),
                need.max_workgroup_invocations.into(),
            ),
        ]
    }

    /// Whether it allows all that Kiln needs.
    pub fn is_sufficient(&self) -> bool {
        self.limit_rows().iter().all(LimitRow::is_enough)
    }

    pub(crate) fn facts(&self) -> Facts {
        Facts {
            limits: self.limits,
            grid_width: None,
            subgroup_size: self.subgroup_size,
            kind: self.kind,
            vendor: self.vendor,
        }
    }

    /// The `cpu` backend's entry.
    pub(crate) fn cpu(index: usize, limits: Limits) -> Self {
        Self {
            index,
            name: "cpu".to_owned(),
            backend: "cpu".to_owned(),
            kind: Kind::Cpu,
            driver: format!("kiln-reference {}", env!("CARGO_PKG_VERSION")),
            features: Vec::new(),
            limits,
            subgroup_size: None,
            vendor: 0,
            device: 0,
            bus: String::new(),
        }
    }

    fn of(adapter: &wgpu::Adapter) -> Self {
        let (info, limits) = (adapter.get_info(), adapter.limits());
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => Kind::Discrete,
            wgpu::DeviceType::IntegratedGpu => Kind::Integrated,
            wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => Kind::Virtual,
            wgpu::DeviceType::Cpu => Kind::Software,
        };
        let wanted = wanted_features(adapter, kind);
        let fixed = info.subgroup_min_size == info.subgroup_max_size && info.subgroup_min_size > 0;
        let subgroup_size =
            (wanted.contains(wgpu::Features::SUBGROUP) && fixed).then_some(info.subgroup_min_size);
        let features = [
            (wgpu::Features::SUBGROUP, "subgroup"),
            (wgpu::Features::TIMESTAMP_QUERY, "timestamp-query"),
            (wgpu::Features::SHADER_F16, "shader-f16"),
            (wgpu::Features::MAPPABLE_PRIMARY_BUFFERS, "mappable-primary-buffers"),
        ];
        Self {
            index: 0,
            name: info.name.clone(),
            backend: match info.backend {
                wgpu::Backend::Vulkan => "Vulkan".to_owned(),
                wgpu::Backend::Metal => "Metal".to_owned(),
                wgpu::Backend::Dx12 => "Dx12".to_owned(),
                other => format!("{other:?}"),
            },
            kind,
            driver: driver(&info),
            features: features.iter().filter(|f| wanted.contains(f.0)).map(|f| f.1.to_owned()).collect(),
            limits: Limits {
                max_buffer_bytes: limits.max_buffer_size,
                max_binding_bytes: limits.max_storage_buffer_binding_size,
                max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
                max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
                workgroup_memory_bytes: limits.max_compute_workgroup_storage_size,
                max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
                offset_alignment: (limits.min_storage_buffer_offset_alignment as usize / 4).max(1),
            },
            subgroup_size,
            vendor: info.vendor,
            device: info.device,
            bus: info.device_pci_bus_id,
        }
    }
}

/// The driver and its version; that of the system, to which it belongs, where wgpu names none, as on Metal.
fn driver(info: &wgpu::AdapterInfo) -> String {
    match format!("{} {}", info.driver, info.driver_info).trim() {
        "" => System::long_os_version().unwrap_or_default(),
        named => named.to_owned(),
    }
}

/// The features that Kiln asks an adapter for, where it has them.
pub(crate) fn wanted_features(adapter: &wgpu::Adapter, kind: Kind) -> wgpu::Features {
    let mut wanted = wgpu::Features::SUBGROUP
        | wgpu::Features::TIMESTAMP_QUERY
        | wgpu::Features::SHADER_F16
        | wgpu::Features::PIPELINE_CACHE;
    if matches!(kind, Kind::Integrated | Kind::Software) {
        // On a card with memory of its own, buffers that the host can see are many times slower.
        wanted |= wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
    }
    adapter.features() & wanted
}

/// An entry of the list: an adapter, or, without one, the `cpu` backend.
pub(crate) struct Candidate {
    pub(crate) info: Info,
    pub(crate) adapter: Option<wgpu::Adapter>,
}

/// All devices, best first: GPUs (discrete, integrated, virtual), the CPU, software rasterizers. Only Vulkan,
/// Metal and DX12 count: the same adapters appear under OpenGL again, without what compute needs.
pub(crate) async fn candidates(backends: wgpu::Backends, cpu_limits: Limits) -> Vec<Candidate> {
    let native = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends & native;
    if !cfg!(debug_assertions) {
        descriptor.flags = wgpu::InstanceFlags::empty();
    }
    let mut found: Vec<Candidate> = if descriptor.backends.is_empty() {
        Vec::new()
    } else {
        wgpu::Instance::new(descriptor)
            .enumerate_adapters(native)
            .await
            .into_iter()
            .map(|adapter| Candidate { info: Info::of(&adapter), adapter: Some(adapter) })
            .collect()
    };
    found.push(Candidate { info: Info::cpu(0, cpu_limits), adapter: None });
    let rank = |kind: Kind| match kind {
        Kind::Discrete => 0,
        Kind::Integrated => 1,
        Kind::Virtual => 2,
        Kind::Cpu => 3,
        Kind::Software => 4,
    };
    found.sort_by_key(|c| rank(c.info.kind));
    for (index, candidate) in found.iter_mut().enumerate() {
        candidate.info.index = index;
    }
    found
}

/// Which of a list's devices a selector names: its position.
///
/// `name_filter` narrows `auto` and `gpu` to adapters whose name contains it, software included.
///
/// # Errors
/// [`BackendError::NoAdapter`], with the list.
pub(crate) fn select(
    list: &[Info],
    selector: &str,
    name_filter: Option<&str>,
) -> Result<usize, BackendError> {
    let selector = selector.trim();
    let contains = |info: &Info, part: &str| info.name.to_lowercase().contains(&part.to_lowercase());
    let is_gpu = |info: &Info| info.kind < Kind::Software && info.is_sufficient();
    let none = |what: String| {
        let known: Vec<String> = list
            .iter()
            .map(|i| match i.kind {
                Kind::Cpu => format!("{}: cpu", i.index),
                kind => format!("{}: {} ({}, {kind})", i.index, i.name, i.backend),
            })
            .collect();
        BackendError::NoAdapter(format!(
            "{what}; choose auto, cpu, gpu, an index or part of a name of: {}",
            known.join("; ")
        ))
    };
    let position = |wanted: &dyn Fn(&Info) -> bool| list.iter().position(wanted);
    match selector.to_lowercase().as_str() {
        "auto" | "" | "gpu" if name_filter.is_some() => {
            let part = name_filter.unwrap_or_default();
            position(&|i| i.kind != Kind::Cpu && contains(i, part))
                .ok_or_else(|| none(format!("no adapter is named \"{part}\" (WGPU_ADAPTER_NAME)")))
        }
        "auto" | "" => position(&is_gpu)
            .or_else(|| position(&|i| i.kind == Kind::Cpu))
            .ok_or_else(|| none("there is no device".to_owned())),
        "gpu" => position(&is_gpu)
            .or_else(|| position(&|i| i.kind == Kind::Software))
            .ok_or_else(|| none("there is no GPU, and no software rasterizer".to_owned())),
        "cpu" => position(&|i| i.kind == Kind::Cpu).ok_or_else(|| none("there is no cpu".to_owned())),
        other => match other.parse::<usize>() {
            Ok(index) if index < list.len() => Ok(index),
            Ok(index) => Err(none(format!("there is no device {index}"))),
            Err(_) => position(&|i| i.kind != Kind::Cpu && contains(i, other))
                .ok_or_else(|| none(format!("there is no device \"{selector}\""))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(devices: &[(&str, Kind)]) -> Vec<Info> {
        let info = |(index, &(name, kind)): (usize, &(&str, Kind))| Info {
            name: name.to_owned(),
            kind,
            ..Info::cpu(index, Facts::portable().limits)
        };
        devices.iter().enumerate().map(info).collect()
    }

    #[test]
    fn selectors_follow_their_rules() {
        let all = list(&[
            ("NVIDIA H200", Kind::Discrete),
            ("Intel Iris", Kind::Integrated),
            ("cpu", Kind::Cpu),
            ("llvmpipe (LLVM 15)", Kind::Software),
        ]);
        let soft = list(&[("cpu", Kind::Cpu), ("llvmpipe (LLVM 15)", Kind::Software)]);
        let bare = list(&[("cpu", Kind::Cpu)]);
        let mut old = list(&[("Iris 5100", Kind::Integrated), ("cpu", Kind::Cpu)]);
        old[0].limits.max_storage_buffers = 2;
        for (devices, selector, filter, wanted) in [
            (&all, "auto", None, Some(0)),
            (&all, "gpu", None, Some(0)),
            (&all, "cpu", None, Some(2)),
            (&all, "iris", None, Some(1)),
            (&all, "LLVMpipe", None, Some(3)),
            (&all, "3", None, Some(3)),
            (&all, "4", None, None),
            (&all, "radeon", None, None),
            (&all, "auto", Some("iris"), Some(1)),
            (&all, "auto", Some("radeon"), None),
            (&all, "cpu", Some("iris"), Some(2)),
            (&soft, "auto", None, Some(0)),
            (&soft, "gpu", None, Some(1)),
            (&soft, "auto", Some("llvmpipe"), Some(1)),
            (&bare, "auto", None, Some(0)),
            (&old, "auto", None, Some(1)),
            (&old, "gpu", None, None),
            (&old, "iris", None, Some(0)),
            (&bare, "gpu", None, None),
            (&bare, "llvmpipe", None, None),
        ] {
            let got = select(devices, selector, filter).ok();
            assert_eq!(got, wanted, "{selector} with {filter:?} of {}", devices.len());
        }
    }

    #[test]
    fn an_unknown_device_is_answered_with_the_list() {
        let all = list(&[("NVIDIA H200", Kind::Discrete), ("cpu", Kind::Cpu)]);
        let message = select(&all, "radeon", None).unwrap_err().to_string();
        assert!(
            message.contains("radeon") && message.contains("0: NVIDIA H200") && message.contains("1: cpu")
        );
    }
}
