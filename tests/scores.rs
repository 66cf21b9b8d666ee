//! What a device counts and keeps during an evaluation, against the same by the host.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // clippy takes only #[test] functions for tests

mod common;

use std::collections::HashMap;

use common::{
    backends::{self, Target},
    random::Random,
};
use kiln::nn::{
    TargetKind,
    metrics::{Accumulator, Average, Metric, Truth},
};
use kiln_graph::{
    CLOCK, Collect, GatherOptions, Graph, GraphError, ParameterStore, Plan, Request, Segments, Session,
    TALLY, Tensor,
};
use kiln_kernel::{Advance, CLOCK_WORDS, DType, GatherType, HostRef, Kernel};

const ITEMS: usize = 149;

/// A batch of `rows` rows of resident scores and labels, counted and kept.
fn evaluation(rows: usize, classes: usize) -> Result<(Graph, Request), GraphError> {
    let mut g = Graph::new();
    let order = g.input_u32("order", [ITEMS])?;
    let data = g.input("scores", [ITEMS * classes])?;
    let labels = g.input_u32("labels", [ITEMS])?;
    let (items, item) = (ITEMS, [classes].into());
    let real = GatherOptions {
        rows,
        items,
        item,
        dtype: GatherType::F32,
        reversed: false,
        scale: vec![1.0],
        shift: vec![0.0],
    };
    let scores = g.gather(data, order, real)?;
    let item = [0usize; 0].into();
    let whole = GatherOptions {
        rows,
        items,
        item,
        dtype: GatherType::U32,
        reversed: false,
        scale: vec![],
        shift: vec![],
    };
    let labels = g.gather(labels, order, whole)?;
    let doubled = g.scale(scores, 2.0)?;
    let collect = vec![Collect { buffer: "outputs".into(), tensor: doubled, capacity: ITEMS }];
    let advance = Some(Advance::rows(rows as u32));
    let request = Request { tally: Some((scores, labels)), collect, advance, ..Request::default() };
    Ok((g, request))
}

fn device_and_host_agree(target: &Target, classes: usize) {
    let backend = &target.backend;
    let mut random = Random::new(classes as u64);
    // multiples of 1/8, so that scores tie
    let scores: Vec<f32> =
        (0..ITEMS * classes).map(|_| (random.uniform(-2.0, 2.0) * 8.0).round() as f32 / 8.0).collect();
    let labels: Vec<u32> = (0..ITEMS).map(|_| random.below(classes) as u32).collect();
    let order: Vec<u32> = (0..ITEMS as u32).collect();
    let mut shared = HashMap::new();
    for (name, data) in [
        ("scores", HostRef::F32(&scores)),
        ("labels", HostRef::U32(&labels)),
        ("order", HostRef::U32(&order)),
        (CLOCK, HostRef::U32(&[0; CLOCK_WORDS])),
        (TALLY, HostRef::U32(&vec![0; (classes + 1) * classes])),
        ("outputs", HostRef::F32(&vec![f32::NAN; ITEMS * classes])),
    ] {
        let dtype = if matches!(data, HostRef::U32(_)) { DType::U32 } else { DType::F32 };
        let buffer = backend.allocate(dtype, data.len(), name).unwrap();
        backend.write(&buffer.view(), data).unwrap();
        shared.insert(name.to_string(), buffer);
    }
    let store = ParameterStore::new(&**backend, &[], &[]).unwrap();
    for (rows, times) in [(64, (ITEMS / 64) as u32), (ITEMS % 64, 1)] {
        let (graph, request) = evaluation(rows, classes).unwrap();
        let plan = Plan::new(&graph, store.segments(), &request).unwrap();
        let session = Session::new(backend.clone(), &store, &plan, &shared).unwrap();
        session.poison().unwrap();
        session.run(times).unwrap();
    }
    let read = |name: &str| pollster::block_on(backend.read(&shared[name].view())).unwrap();
    let doubled: Vec<f64> = scores.iter().map(|v| 2.0 * f64::from(*v)).collect();
    assert_eq!(read("outputs").into_f64(), doubled, "{} of {classes} on {}", "outputs", target.name);

    let average = Average::Macro;
    let metrics =
        [Metric::Accuracy, Metric::TopKAccuracy { k: 2 }, Metric::F1 { average }, Metric::Recall { average }];
    let new = || Accumulator::new(&metrics, &[classes].into(), &TargetKind::Classes(classes)).unwrap();
    let (mut host, mut device) = (new(), new());
    host.add(&scores, Truth::Labels(&labels)).unwrap();
    device.add_tally(&read(TALLY).into_u32()).unwrap();
    assert_eq!(device.counts(), host.counts(), "{classes} classes on {}", target.name);
    assert_eq!(device.counts().rows(), ITEMS as u64);
    assert_eq!(device.values(), host.values());
}

#[test]
fn devices_count_and_keep_what_the_host_does() {
    for target in backends::all() {
        for classes in [2, 10, 130] {
            device_and_host_agree(&target, classes);
        }
    }
}

/// Counting costs two launches, keeping one, and neither hinders what else is asked for.
#[test]
fn tallies_are_planned_beside_the_rest() {
    let (graph, mut request) = evaluation(32, 10).unwrap();
    let (scores, _) = request.tally.unwrap();
    request.fetch.push(("scores".into(), scores));
    let plan = Plan::new(&graph, &Segments::new(&[]), &request).unwrap();
    let names: Vec<&str> = plan.launches.iter().map(|l| l.kernel.name()).collect();
    assert_eq!(names, ["pair", "elementwise", "rank_rows", "tally", "collect", "advance"], "{plan}");
    assert_eq!((plan.externals[TALLY].len, plan.externals[TALLY].dtype), (110, DType::U32));
    assert_eq!(plan.externals["outputs"].len, ITEMS * 10);
    assert!(plan.launches.iter().any(|l| matches!(&l.kernel, Kernel::Tally(k) if k.rows == 32)));
}

#[test]
fn what_cannot_be_counted_or_kept_is_refused() {
    let mut g = Graph::new();
    let scores = g.input("scores", [4, 3]).unwrap();
    let labels = g.input_u32("labels", [4]).unwrap();
    let few = g.input_u32("few", [3]).unwrap();
    let numbers = g.input("numbers", [4]).unwrap();
    let scalar = g.fill([], 1.0).unwrap();
    let refused =
        |request: Request| Plan::new(&g, &Segments::new(&[]), &request).map(|_| ()).unwrap_err().to_string();
    let tally =
        |scores: Tensor, labels: Tensor| Request { tally: Some((scores, labels)), ..Request::default() };
    assert!(refused(tally(scores, few)).contains("got [4, 3] and [3]"));
    assert!(refused(tally(numbers, labels)).contains("got [4] and [4]"));
    assert!(refused(tally(scores, numbers)).contains("labels of integers"));
    let keep = |tensor: Tensor, capacity: usize| {
        let collect = vec![Collect { buffer: "kept".into(), tensor, capacity }];
        Request { collect, ..Request::default() }
    };
    for request in [keep(scalar, 5), keep(labels, 5), keep(scores, 0), keep(scores, usize::MAX / 2)] {
        assert!(refused(request).contains("\"kept\" collects"));
    }
    for name in ["scores", TALLY, CLOCK] {
        let mut request = keep(scores, 5);
        request.collect[0].buffer = name.into();
        request.fetch.push(("scores".into(), scores));
        assert!(refused(request).contains("give it a name of its own"), "{name}");
    }
    let mut request = keep(scores, 5);
    request.collect.extend(request.collect.clone());
    assert!(refused(request).contains("give it a name of its own"));
}
