//! Every kernel's WGSL, with no adapter: it parses and validates, binds what the kernel declares, and translates to
//! SPIR-V, Metal and HLSL.

#[path = "common/kernels.rs"]
#[allow(dead_code)] // the inputs are for tests that run the kernels
mod kernels;

use kiln::nn::{Recipe, evaluation_plan, training_plan};
use kiln_device::assemble::{Assembled, Facts, Kind, assemble, dispatches};
use kiln_kernel::{Access, DType, Kernel};
use naga::{
    back,
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};

/// Devices that the kernels are assembled for.
fn devices() -> Vec<(&'static str, Facts)> {
    let portable = Facts::portable();
    let nvidia = Facts { subgroup_size: Some(32), vendor: 0x10de, ..portable };
    let apple = Facts { subgroup_size: Some(32), vendor: 0x106b, kind: Kind::Integrated, ..portable };
    // Software without subgroups: WARP.
    let warp = Facts { kind: Kind::Software, ..portable };
    vec![
        ("portable", portable),
        ("lavapipe", Facts::lavapipe()),
        ("nvidia", nvidia),
        ("apple", apple),
        ("warp", warp),
    ]
}

fn parse(assembled: &Assembled, context: &str) -> (naga::Module, ModuleInfo) {
    let fail = |line: Option<usize>, message: &str| -> ! {
        panic!("{context}: {}\n{}", assembled.error(line, message), assembled.wgsl)
    };
    let module = match naga::front::wgsl::parse_str(&assembled.wgsl) {
        Ok(module) => module,
        Err(e) => fail(e.location(&assembled.wgsl).map(|l| l.line_number as usize), e.message()),
    };
    let capabilities = Capabilities::SUBGROUP | Capabilities::SHADER_FLOAT16;
    match Validator::new(ValidationFlags::all(), capabilities).validate(&module) {
        Ok(info) => (module, info),
        Err(e) => {
            let line = e.location(&assembled.wgsl).map(|l| l.line_number as usize);
            fail(line, &format!("{:?}", e.into_inner()))
        }
    }
}

/// What the entry point uses: (binding, name, access, type).
fn reflect(module: &naga::Module, info: &ModuleInfo, entry: usize) -> Vec<(u32, String, Access, DType)> {
    let mut found = Vec::new();
    for (handle, variable) in module.global_variables.iter() {
        let Some(binding) = variable.binding else { continue };
        if info.get_entry_point(entry)[handle].is_empty() {
            continue;
        }
        assert_eq!(binding.group, 0);
        let naga::AddressSpace::Storage { access } = variable.space else {
            panic!("{variable:?} is not a storage buffer")
        };
        let writes = access.contains(naga::StorageAccess::STORE);
        let naga::TypeInner::Array { base, .. } = module.types[variable.ty].inner else {
            panic!("{variable:?} is not an array")
        };
        let scalar = match module.types[base].inner {
            naga::TypeInner::Scalar(scalar) | naga::TypeInner::Vector { scalar, .. } => scalar,
            ref other => panic!("{variable:?} is an array of {other:?}"),
        };
        let dtype = match scalar {
            naga::Scalar::F32 => DType::F32,
            naga::Scalar::U32 => DType::U32,
            other => panic!("{variable:?} is an array of {other:?}"),
        };
        let access = if writes { Access::Write } else { Access::Read };
        found.push((binding.binding, variable.name.clone().unwrap_or_default(), access, dtype));
    }
    found.sort_by_key(|f| f.0);
    found
}

fn declared(kernel: &Kernel) -> Vec<(u32, String, Access, DType)> {
    (0u32..)
        .zip(kernel.bindings())
        .map(|(binding, b)| {
            // WGSL does not tell a result from an update.
            let access = if b.access == Access::Read { Access::Read } else { Access::Write };
            (binding, b.name.into_owned(), access, b.dtype)
        })
        .collect()
}

/// Translates a module for Vulkan, Metal and DX12.
fn translate(module: &naga::Module, info: &ModuleInfo, entry: &str, context: &str) {
    let options = back::spv::Options {
        lang_version: (1, 3),
        zero_initialize_workgroup_memory: back::spv::ZeroInitializeWorkgroupMemoryMode::None,
        ..Default::default()
    };
    let pipeline = back::spv::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: entry.to_owned(),
    };
    let words = back::spv::write_vec(module, info, &options, Some(&pipeline))
        .unwrap_or_else(|e| panic!("{context}: SPIR-V: {e}"));
    assert_eq!(words[0], 0x0723_0203, "{context}: SPIR-V");

    let options =
        back::msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
    let (text, _) = back::msl::write_string(module, info, &options, &back::msl::PipelineOptions::default())
        .unwrap_or_else(|e| panic!("{context}: Metal: {e}"));
    assert!(text.contains("kernel void"), "{context}: Metal");

    let options = back::hlsl::Options {
        shader_model: back::hlsl::ShaderModel::V6_0,
        fake_missing_bindings: true,
        ..Default::default()
    };
    let mut text = String::new();
    back::hlsl::Writer::new(&mut text, &options, &back::hlsl::PipelineOptions::default())
        .write(module, info, None)
        .unwrap_or_else(|e| panic!("{context}: HLSL: {e}"));
    assert!(text.contains("numthreads"), "{context}: HLSL");
}

/// All that is dispatched for the cases: of a pair that is not one dispatch on a device, both kernels.
fn for_each_dispatch(each: impl Fn(&str, &Facts, &Kernel, &Assembled)) {
    for (device, facts) in devices() {
        for case in cases() {
            let context = format!("{} on {device}", case.name);
            let all = dispatches(&case.kernel, &facts).unwrap_or_else(|e| panic!("{context}: {e}"));
            for dispatch in &all.each {
                let context = format!("{context} ({})", all.variant);
                each(&context, &facts, &dispatch.kernel, &dispatch.assembled);
            }
        }
    }
}

#[test]
fn every_kernel_translates_and_binds_what_it_declares() {
    for_each_dispatch(|context, _, kernel, assembled| {
        let (module, info) = parse(assembled, context);
        let entry = module
            .entry_points
            .iter()
            .position(|e| e.name == kernel.name())
            .unwrap_or_else(|| panic!("{context}: no entry point {}", kernel.name()));
        assert_eq!(reflect(&module, &info, entry), declared(kernel), "{context}: bindings");
        assert_eq!(
            module.entry_points[entry].workgroup_size, assembled.workgroup_size,
            "{context}: workgroup size"
        );
        translate(&module, &info, kernel.name(), context);
    });
}

/// The table, and every launch of every recipe's training step and evaluation with its own constants.
fn cases() -> Vec<kernels::Case> {
    let mut cases = kernels::table();
    for name in Recipe::names() {
        let recipe = Recipe::open(name).unwrap_or_else(|e| panic!("{e}"));
        let plan = training_plan(&recipe, recipe.batch_size).unwrap_or_else(|e| panic!("{e}"));
        let evaluation = evaluation_plan(&recipe, recipe.batch_size).unwrap_or_else(|e| panic!("{e}"));
        cases.extend(plan.launches.into_iter().chain(evaluation.launches).map(|launch| kernels::Case {
            name: format!("{name}: {}", launch.label),
            kernel: launch.kernel,
        }));
    }
    cases
}

/// What a device cannot know before it compiles: workgroup memory, invocations and grids within the limits.
#[test]
fn every_kernel_stays_within_the_limits() {
    for_each_dispatch(|context, facts, kernel, assembled| {
        let limits = facts.limits;
        let invocations: u32 = assembled.workgroup_size.iter().product();
        assert!(invocations <= limits.max_workgroup_invocations, "{context}: {invocations} invocations");
        assert!(assembled.workgroup_size[0].is_multiple_of(8), "{context}: x is not a multiple of eight");
        for count in assembled.workgroups {
            assert!((1..=limits.max_workgroups_per_dimension).contains(&count), "{context}: grid");
        }
        let (module, _) = parse(assembled, context);
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).unwrap_or_else(|e| panic!("{context}: {e}"));
        let memory: u32 = module
            .global_variables
            .iter()
            .filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup)
            .map(|(_, v)| layouter[v.ty].size)
            .sum();
        assert!(memory <= limits.workgroup_memory_bytes, "{context}: {memory} bytes of workgroup memory");
        assert!(
            kernel.bindings().len() <= limits.max_storage_buffers as usize,
            "{context}: too many buffers"
        );
    });
}

/// Which pairs are one dispatch, and why others are not.
#[test]
fn pairs_run_together_where_they_can() {
    let table = kernels::table();
    let variant = |name: &str, facts: &Facts| {
        let case = table.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no case {name}"));
        dispatches(&case.kernel, facts).unwrap().variant
    };
    let (lavapipe, portable) = (Facts::lavapipe(), Facts::portable());
    for case in table.iter().filter(|c| c.name.starts_with("pair of ")) {
        let apart = case.name == "pair of ten buffers" || case.name == "pair of product and gather";
        for facts in [lavapipe, portable] {
            let large = case.name == "pair of products large" && facts == portable;
            let variant = dispatches(&case.kernel, &facts).unwrap().variant;
            assert_eq!(variant.starts_with("apart"), apart || large, "{}: {variant}", case.name);
        }
    }
    assert_eq!(
        variant("pair of unpooled gradients conv2 of mnist-cnn, relu", &lavapipe),
        "strip 16x3x5 | strip 16x1x13"
    );
    assert_eq!(
        variant("pair of ten buffers", &portable),
        "apart: 10 buffers where 8 are allowed: tiled 16x16x16 of 2x2 | tiled 16x16x16 of 2x2"
    );
    assert_eq!(
        variant("pair of product and gather", &lavapipe),
        "apart: workgroups of [8, 1, 1] and [64, 1, 1] invocations: subgroup 32x64x2 | flat"
    );
}

#[test]
fn errors_name_the_file_and_line() {
    let case = kernels::table().into_iter().find(|c| c.name == "unary relu").unwrap();
    let assembled = assemble(&case.kernel, &Facts::portable()).unwrap();
    let line = 1 + assembled.wgsl.lines().position(|l| l.contains("fn elementwise(")).unwrap();
    let (file, local) = assembled.locate(line);
    assert_eq!(file, "elementwise.wgsl");
    let text = std::fs::read_to_string(format!("{}/shaders/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert!(text.lines().nth(local - 1).unwrap().contains("fn elementwise("));
    let message = assembled.error(Some(line), "unknown identifier").to_string();
    assert_eq!(message, format!("shader elementwise.wgsl:{local}: unknown identifier (elementwise)"));
    assert_eq!(assembled.locate(1).0, "prelude");

    // of a pair, both kernels' files
    let case = kernels::table().into_iter().find(|c| c.name == "pair of gathers 9x3").unwrap();
    let assembled = assemble(&case.kernel, &Facts::portable()).unwrap();
    for (function, want) in
        [("fn gather_u8(", "gather_u8.wgsl"), ("fn second_gather_u32(", "gather_u32.wgsl")]
    {
        let line = 1 + assembled.wgsl.lines().position(|l| l.contains(function)).unwrap();
        let (file, local) = assembled.locate(line);
        assert_eq!(file, want);
        let text = std::fs::read_to_string(format!("{}/shaders/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(text.lines().nth(local - 1).unwrap().contains(function.trim_start_matches("fn second_")));
    }
    assert_eq!(assembled.locate(assembled.wgsl.lines().count()).0, "pair");
}
