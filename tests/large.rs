//! Shapes that are larger than what tests can hold, and some that are not: by arithmetic on every kernel of the table, and
//! with buffers of more than 2^31 bytes where a device allows them.
//!
//! `KILN_LONG=1` runs those that take some 10 GiB of memory; see tests/RELIABILITY.md.

#[path = "common/devices.rs"]
#[allow(dead_code)]
mod devices;
#[path = "common/grown.rs"]
mod grown;
#[path = "common/kernels.rs"]
#[allow(dead_code)]
mod kernels;

use devices::devices;
use grown::{grown, too_long};
use kiln::{
    graph::{GRADIENTS, GraphError, Place, Segments},
    kernel::{
        BackendError, Binary, ClipValue, DType, Elementwise, HostRef, Kernel, Launch, Layout, MAX_ELEMENTS,
        Operand, Real, Reduce, ReduceOp, Source, Step, Tail, View,
    },
    nn::{Group, LargestBatch, NnError, OnOom},
    prelude::*,
};
use kiln_device::assemble::{Dispatch, Facts, dispatches};

/// Devices of each kind of tiles, whose memory is no limit.
fn facts() -> [(&'static str, Facts); 2] {
    [("portable", Facts::portable()), ("lavapipe", Facts::lavapipe())]
}

/// The constant of this name in a shader.
fn constant(wgsl: &str, name: &str) -> Option<u64> {
    let start = format!("const {name}: u32 = ");
    let line = wgsl.lines().find(|line| line.starts_with(&start))?;
    line[start.len()..].trim_end_matches("u;").parse().ok()
}

/// One more than the largest number of an element or row that an invocation of the grid computes, those past the last
/// included.
fn numbers(dispatch: &Dispatch) -> u64 {
    let wgsl = &dispatch.assembled.wgsl;
    let groups: u64 = dispatch.assembled.workgroups.iter().map(|&n| u64::from(n)).product();
    let size = constant(wgsl, "WORKGROUP_SIZE").expect("every shader has it");
    let each = if wgsl.contains("= first_element(group, local);") {
        size * constant(wgsl, "PER_INVOCATION").expect("every shader has it")
    } else if wgsl.contains("{ return element_number(group, local); }")
        || wgsl.contains("= element_number(group, local);")
    {
        size
    } else {
        1
    };
    groups * each
}

/// The error of a shape that no device takes, if these do not.
fn refusal(kernel: &Kernel, facts: &Facts) -> Option<String> {
    dispatches(kernel, facts).err().map(|error| error.to_string())
}

/// Each kernel is made as large as it is taken: there its grid numbers no element twice, and no constant of its shader is
/// past 32 bits (naga would refuse it). Of the next size it is refused, with its name and the number of elements.
#[test]
fn every_kernel_counts_in_32_bits_at_its_largest_shape() {
    let table = kernels::table();
    let (mut by_length, mut by_another) = (0, 0);
    for (device, facts) in facts() {
        for case in &table {
            let context = format!("{} on {device}", case.name);
            assert_eq!(grown(&case.kernel, 1).as_ref(), Some(&case.kernel), "{context}");
            let is_taken =
                |by: u32| grown(&case.kernel, by).is_some_and(|large| dispatches(&large, &facts).is_ok());
            // the largest factor that is taken
            let (mut low, mut high) = (1u32, u32::MAX);
            while low + 1 < high {
                let middle = low + (high - low) / 2;
                if is_taken(middle) {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            let large = grown(&case.kernel, low).expect("it is taken");
            let all = dispatches(&large, &facts).unwrap_or_else(|e| panic!("{context}: {e}"));
            for dispatch in &all.each {
                let context = format!("{context}, {low} times as large: {}", dispatch.kernel);
                let numbers = numbers(dispatch);
                assert!(numbers <= 1 << 32, "{context}: {numbers} elements are numbered");
                let parsed = naga::front::wgsl::parse_str(&dispatch.assembled.wgsl);
                assert!(parsed.is_ok(), "{context}: {}", parsed.unwrap_err().message());
            }
            let Some(next) = grown(&case.kernel, high) else { continue };
            let Some(error) = refusal(&next, &facts) else {
                // the clock's launch has no size
                assert!(case.kernel.name() == "advance", "{context}: any size is taken");
                continue;
            };
            let long = too_long(&next);
            if long.is_empty() {
                by_another += 1;
                assert!(error.chars().any(|c| c.is_ascii_digit()), "{context}: {error}");
            } else {
                by_length += 1;
                let named =
                    |(name, len): &(String, usize)| error.contains(&format!("\"{name}\" has {len} elements"));
                assert!(error.contains(&next.to_string()) || matches!(next, Kernel::Pair(_)), "{error}");
                assert!(long.iter().any(named), "{context}: {error}, but {long:?}");
            }
        }
    }
    println!("{by_length} are refused for an argument's length, {by_another} by a limit of their own");
    assert!(by_length > 10 * by_another, "{by_length} and {by_another}");
}

/// Grids of small kernels fold where a row is narrow; what is behind each row's end is in the next.
#[test]
fn grids_have_rows_no_wider_than_asked() {
    let mut folded = 0;
    for (device, facts) in facts() {
        let facts = Facts { grid_width: Some(7), ..facts };
        for case in kernels::table() {
            let all = dispatches(&case.kernel, &facts).unwrap_or_else(|e| panic!("{}: {e}", case.name));
            for dispatch in &all.each {
                let ([x, y, z], wgsl) = (dispatch.assembled.workgroups, &dispatch.assembled.wgsl);
                assert!(x <= 7 && z == 1, "{} on {device}: {x} x {y} x {z}", case.name);
                if !matches!(dispatch.kernel, Kernel::Pair(_)) {
                    assert_eq!(constant(wgsl, "GRID_WIDTH"), Some(x.into()), "{}", case.name);
                }
                folded += usize::from(y > 1);
            }
        }
    }
    // most of the table is small on purpose
    assert!(folded > 300, "{folded} grids are folded");
}

/// A reduction whose terms are in no buffer one by one.
#[test]
fn terms_that_32_bits_do_not_count_are_refused() {
    let many = |reduced: Vec<(u32, u32)>| {
        let layout = |dims| Layout { offset: 0, dims };
        let (kept, reduced) = (layout(vec![]), layout(reduced));
        let tail = Tail::default();
        let kernel = Reduce { op: ReduceOp::Sum, kept, reduced, len: 1, splits: 1 << 18, tail };
        refusal(&Kernel::Reduce(kernel), &Facts::portable())
    };
    assert_eq!(many(vec![(1 << 15, 0), (1 << 15, 0)]), None);
    let error = many(vec![(1 << 16, 0), (1 << 16, 0)]).expect("2^32 terms");
    assert!(error.contains("1 results of 4294967296 terms"), "{error}");
}

/// Recording refuses by shape what no kernel could index, with the operation and the layer; planning does it for all
/// parameters together.
#[test]
fn graphs_refuse_what_no_kernel_could_index() {
    let mut g = Graph::new();
    let half = g.parameter("a", [1 << 15, 1 << 15]).unwrap();
    let b = g.parameter("b", [1 << 15, 1 << 15]).unwrap();
    let error = g.scoped("fc1", |g| g.concat(&[half, b], 0)).unwrap_err().to_string();
    assert!(
        error.contains("fc1") && error.contains("[65536, 32768]") && error.contains("2147483647"),
        "{error}"
    );

    // two of 2^30 elements are too many for one arena
    let segments = Segments::new(&g.parameters());
    assert_eq!(segments.len(), 1 << 31);
    let x = g.mean_all(half).unwrap();
    let d = g.gradients(x, &[half]).unwrap()[0];
    let launches = Kernel::ClipValue(ClipValue { len: u32::MAX, limit: Real(1.0) });
    let whole = Place::external(GRADIENTS, segments.len());
    let updates = vec![Launch { kernel: launches, arguments: vec![whole], label: "clip".into() }];
    let request = Request { gradients: vec![("a".into(), d)], updates, ..Request::default() };
    let error = Plan::new(&g, &segments, &request).unwrap_err();
    assert!(matches!(error, GraphError::Name(_)), "{error}");
    let error = error.to_string();
    assert!(error.contains("\"gradients\" together are 2147483648 elements"), "{error}");
}

fn limit(error: NnError) -> (String, String) {
    let text = error.to_string();
    match error {
        NnError::Backend(BackendError::Limit { label, .. })
        | NnError::Graph(GraphError::Backend(BackendError::Limit { label, .. })) => (label, text),
        _ => panic!("{text}"),
    }
}

/// A tensor that no argument of the device covers is refused by its name, with its size and the limit, before anything
/// of it is run; and so is one that no buffer holds.
#[test]
fn tensors_past_the_largest_binding_are_refused_by_name() {
    let Some(device) = devices::adapter() else { return };
    let limits = device.backend().limits();
    let most = (limits.max_binding_bytes / 4) as usize;
    if limits.max_binding_bytes > 1 << 30 {
        println!("skipped on {device}: an argument may have {} bytes", limits.max_binding_bytes);
        return;
    }
    // on a device that only counts, so that the test takes no memory
    let counted = device.rehearse(None).unwrap();
    let make = |inputs: usize, units: usize| {
        let model = Sequential::new(Shape::new([inputs]))
            .add(Flatten)
            .add(Dense::new(units).named("wide"))
            .add(Dense::new(1).named("last"));
        Trainer::new(&counted, model, Sgd::new(0.1), Loss::MeanSquaredError)
    };
    let rows = |n: usize, width: usize, units: usize| {
        let targets = Targets::Real { values: vec![0.0; n * units], shape: Shape::new([units]) };
        Split::new(Features::Real(vec![0.0; n * width]), Shape::new([width]), targets).unwrap()
    };
    let refused = |trainer: Trainer, rows: &Split, batch_size: usize| {
        let fit = Fit { batch_size, ..Fit::default() };
        limit(trainer.memory_plan(rows, &fit, LargestBatch::Skip).expect_err("it is refused"))
    };
    // parameters: their arena is one argument of the update
    let (binding, buffer) = (limits.max_binding_bytes, limits.max_buffer_bytes);
    let units = most / 1024 + 1;
    let (label, text) = refused(make(1024, units).unwrap(), &rows(2, 1024, 1), 1);
    println!("{text}");
    assert!(label.contains("wide") || label.contains("parameters") || label.contains("gradient"), "{text}");
    assert!(text.contains(&format!("allows {binding}")), "{text}");

    // an activation: its layer is named, with its bytes
    let batch = most / 4096 + 1;
    let (label, text) = refused(make(4, 4096).unwrap(), &rows(batch, 4, 1), batch);
    println!("{text}");
    assert!(label.contains("wide"), "{text}");
    assert!(text.contains(&format!("needs {} bytes", batch * 4096 * 4)), "{text}");
    assert!(text.contains(&format!("allows {binding}")), "{text}");
    // or the step is done in parts
    let fit = Fit { batch_size: batch, on_oom: OnOom::Split, ..Fit::default() };
    let plan = make(4, 4096).unwrap().memory_plan(&rows(batch, 4, 1), &fit, LargestBatch::Skip).unwrap();
    assert_eq!((plan.fits, plan.micro_batch_size), (true, Some(batch.div_ceil(2))), "{plan}");

    // rows or targets that no argument covers are streamed, in windows that are no larger for it
    for (width, targets) in [(2048, 1), (1, 2048)] {
        let model = Sequential::new(Shape::new([width])).add(Dense::new(targets));
        let trainer = Trainer::new(&counted, model, Sgd::new(0.1), Loss::MeanSquaredError).unwrap();
        let fit = Fit { batch_size: 32, ..Fit::default() };
        let plan = trainer.memory_plan(&rows(most / 2048 + 1, width, targets), &fit, LargestBatch::Skip);
        let plan = plan.unwrap();
        assert!(plan.streamed, "{width} features, {targets} targets:\n{plan}");
        assert!(plan.group_bytes(Group::TrainingData) < 64 << 20, "{width}, {targets}:\n{plan}");
    }

    // and on the device itself, what no buffer holds
    let len = limits.max_buffer_bytes / 4 + 1;
    let error = device.backend().allocate(DType::F32, len as usize, "activations").unwrap_err().to_string();
    assert!(error.contains("\"activations\"") && error.contains(&(4 * len).to_string()), "{error}");
    assert!(error.contains(&format!("allows {buffer}")), "{error}");
}

/// y = 2 x + 1 over the elements from `from` on of a buffer of `len`.
fn double(len: usize, from: usize) -> Kernel {
    let source = Operand { layout: Layout::new(from, [(len - from, 1)]), len: len as u32 };
    let steps = [(Binary::Mul, 2.0), (Binary::Add, 1.0)].map(|(binary, value)| Step::Constant {
        binary,
        value: Real(value),
        swapped: false,
    });
    let tail = Tail { operands: vec![], steps: steps.into() };
    Kernel::Elementwise(Elementwise { len: (len - from) as u32, source: Source::Operand(source), tail })
}

fn read(device: &Device, from: &View) -> Vec<f32> {
    pollster::block_on(device.backend().read(from)).unwrap().into_f32()
}

/// Elements beyond 2^31 bytes of a buffer are written, computed with and read where they lie: as ranges of it, which is
/// how arenas are bound, and, where an argument may be so large, as one.
#[test]
fn elements_beyond_two_to_the_31_bytes_are_where_they_should_be() {
    if std::env::var("KILN_LONG").is_ok_and(|v| v == "1") {
        for device in devices() {
            beyond_two_to_the_31_bytes(device);
        }
    } else {
        println!("skipped: KILN_LONG is not 1; this takes 6 GiB");
    }
}

fn beyond_two_to_the_31_bytes(device: &Device) {
    const EDGE: usize = 1 << 29; // elements before the one at byte 2^31
    const MORE: usize = 1 << 18;
    let limits = device.backend().limits();
    let len = EDGE + MORE;
    if limits.max_buffer_bytes < 4 * len as u64 {
        println!("skipped on {device}: a buffer may have {} bytes", limits.max_buffer_bytes);
        return;
    }
    let backend = device.backend();
    let x = backend.allocate(DType::F32, len, "x").unwrap();
    // on both sides of the edge, far apart numbers that an f32 holds exactly
    let around: Vec<f32> = (0..2 * MORE).map(|i| i as f32).collect();
    backend.write(&x.slice(EDGE - MORE, 2 * MORE), HostRef::F32(&around)).unwrap();
    assert_eq!(read(device, &x.slice(EDGE - 3, 6)), around[MORE - 3..MORE + 3]);
    // where a size would wrap in 31 bits of bytes nothing was written
    assert!(read(device, &x.slice(0, MORE)).iter().all(|&v| v == 0.0), "{device}");

    // ranges that begin beyond the edge, as arguments
    let run = |kernel: Kernel, arguments: Vec<View>| {
        let program = backend.prepare(&[Launch { kernel, arguments, label: "double".into() }]).unwrap();
        backend.run(&program, 1).unwrap();
    };
    let y = backend.allocate(DType::F32, len, "y").unwrap();
    run(double(MORE, 0), vec![x.slice(EDGE, MORE), y.slice(EDGE, MORE)]);
    let want: Vec<f32> = around[MORE..].iter().map(|v| 2.0 * v + 1.0).collect();
    assert_eq!(read(device, &y.slice(EDGE, MORE)), want, "{device}");
    assert!(read(device, &y.slice(EDGE - MORE, MORE)).iter().all(|&v| v == 0.0), "{device}");

    // the whole as one argument, read through an offset and written to its end
    if limits.max_binding_bytes < 4 * len as u64 {
        println!("{device}: ranges only, an argument may have {} bytes", limits.max_binding_bytes);
        return;
    }
    run(double(len, 64), vec![x.view(), y.slice(64, len - 64)]);
    for at in [EDGE - 64, EDGE, len - 64] {
        let (from, want) = (at + MORE - EDGE, read(device, &y.slice(at, 64)));
        let same = around[from..from + 64].iter().map(|v| 2.0 * v + 1.0);
        assert_eq!(same.collect::<Vec<f32>>(), want, "{device}: elements from {at} on");
    }
    assert_eq!(read(device, &y.slice(128, 64)), [1.0; 64]);
    // and all of it added up in parts, of which the last lie beyond the edge
    let parts = 1 << 15;
    let sums = backend.allocate(DType::F32, parts, "sums").unwrap();
    let (kept, reduced) = (Layout::new(0, []), Layout::contiguous(len));
    let tail = Tail::default();
    let kernel = Reduce { op: ReduceOp::Max, kept, reduced, len: len as u32, splits: parts as u32, tail };
    run(Kernel::Reduce(kernel), vec![x.view(), sums.view()]);
    let chunk = len.div_ceil(parts);
    let largest = |part: usize| {
        let values = (part * chunk..((part + 1) * chunk).min(len)).map(|i| (i + MORE).saturating_sub(EDGE));
        values.max().unwrap_or_default() as f32
    };
    assert_eq!(read(device, &sums.view()), (0..parts).map(largest).collect::<Vec<f32>>(), "{device}");
    println!("{device}: buffers of {} bytes", 4 * len);
}

/// What tests count with is what graphs and devices refuse by.
#[test]
fn the_bound_leaves_room_for_the_ends_of_grids() {
    // tiles of at most 128 x 128 and workgroups of 1,024 with four elements each, and a row of workgroups too many
    assert!(MAX_ELEMENTS as u64 + 65_535 * 4096 < 1 << 32);
}
