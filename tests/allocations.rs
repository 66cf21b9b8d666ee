//! A training step on the CPU asks the host for no memory.
//!
//! The allocator is the process's, so this is a file, and a process, of its own.
#![allow(unsafe_code)] // an allocator is an unsafe thing to implement

use std::{
    alloc::{GlobalAlloc, Layout, System},
    backtrace::Backtrace,
    cell::Cell,
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use kiln::{
    graph::Place,
    kernel::{Backend, Launch, View},
    nn::{Recipe, training_plan},
    reference::{Cpu, Real},
};

struct Watched;

static WATCHING: AtomicBool = AtomicBool::new(false);
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    /// Whether this thread is noting an allocation, for which it allocates.
    static NOTING: Cell<bool> = const { Cell::new(false) };
}

fn note() {
    if WATCHING.load(Ordering::SeqCst) && !NOTING.replace(true) {
        let from = Backtrace::force_capture().to_string();
        SEEN.lock().unwrap().push(from);
        NOTING.set(false);
    }
}

unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Steps that are watched.
const STEPS: u32 = 2;

/// A step of a recipe's training on buffers of zeros: where it allocated, once it had run before.
fn allocations_of<T: Real>(recipe: &str) -> Vec<String> {
    let cpu = Cpu::<T>::new();
    let plan = training_plan(&Recipe::open(recipe).unwrap(), 8).unwrap();
    let externals: BTreeMap<_, _> = plan
        .externals
        .iter()
        .map(|(name, external)| (name, cpu.allocate(external.dtype, external.len, name).unwrap()))
        .collect();
    let slots: Vec<_> =
        plan.slots.iter().map(|slot| cpu.allocate(slot.dtype, slot.len, "workspace").unwrap()).collect();
    let view = |place: &Place| match place {
        Place::Slot { index, offset, len } => slots[*index].slice(*offset, *len),
        Place::External { name, offset, len } => externals[name].slice(*offset, *len),
    };
    let launches = plan.launches.iter().map(|launch| Launch::<View> {
        kernel: launch.kernel.clone(),
        arguments: launch.arguments.iter().map(view).collect(),
        label: launch.label.clone(),
    });
    let program = cpu.prepare(&launches.collect::<Vec<_>>()).unwrap();
    // Every thread must once have had every kind of work.
    cpu.run(&program, 5).unwrap();
    WATCHING.store(true, Ordering::SeqCst);
    cpu.run(&program, STEPS).unwrap();
    WATCHING.store(false, Ordering::SeqCst);
    std::mem::take(&mut SEEN.lock().unwrap())
}

/// Whose an allocation is: the first crate, from within, that is not the standard library.
fn owner(backtrace: &str) -> &'static str {
    let crates = ["kiln_", "gemm_", "crossbeam_", "rayon"];
    let frames = backtrace.lines().map(str::trim).filter(|line| !line.starts_with("at "));
    frames.flat_map(|line| crates.into_iter().find(|name| line.contains(name))).next().unwrap_or("unknown")
}

#[test]
fn a_step_on_the_cpu_allocates_nothing() {
    // One thread: of several, one may meet a depth of nested work, and the memory that it takes, only after many steps.
    // SAFETY: this test is the process's only one, and nothing has asked for the variable so far.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
    for recipe in ["mnist-cnn", "mnist-cnn-dropout", "fashion-cnn"] {
        for (device, seen) in
            [("cpu", allocations_of::<f32>(recipe)), ("cpu-f64", allocations_of::<f64>(recipe))]
        {
            let mut count = BTreeMap::new();
            for backtrace in &seen {
                *count.entry(owner(backtrace)).or_insert(0u32) += 1;
            }
            // The matrix product's crate takes memory to pack its factors into, and gives it back. The pool's queue
            // takes a new block of places now and then.
            let own = seen.iter().find(|b| !matches!(owner(b), "gemm_" | "crossbeam_" | "rayon"));
            let queue = ["crossbeam_", "rayon"].map(|name| count.get(name).copied().unwrap_or(0));
            assert!(own.is_none(), "{recipe} on {device}: {count:?}\n{}", own.map_or("", |b| b));
            assert!(queue.iter().sum::<u32>() <= 2 * STEPS, "{recipe} on {device}: {count:?}");
        }
    }
}
