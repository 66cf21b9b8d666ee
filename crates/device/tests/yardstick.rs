//! The matrix product of 512 beside a bare kernel that does nothing else: a measurement, run by hand.
//!
//! `cargo test --release -p kiln-device --test yardstick -- --ignored --nocapture`

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;

use kiln_device::{Device, DeviceOptions, ReplaceShader};
use kiln_kernel::{DType, HostRef, Kernel, Launch, Matmul, Tail};

const N: usize = 512;

/// A subgroup of eight computes 32 rows of 64 columns: each lane loads four numbers of the left matrix, which are spread
/// over all, and two vectors of the right one. Written out, for whole tiles of this one size; its subgroups must be of
/// eight lanes.
fn bare() -> String {
    let mut sums = String::new();
    let mut terms = String::new();
    let mut stores = String::new();
    for i in 0..32 {
        sums += &format!("var s{i}a = vec4<f32>(); var s{i}b = vec4<f32>();\n");
        terms += &format!("let l{i} = subgroupBroadcast(left{}, {}u);\n", i / 8, i % 8);
        terms += &format!("s{i}a += l{i} * right_a; s{i}b += l{i} * right_b;\n");
        for (part, skip) in [("a", 0), ("b", 32)] {
            for c in 0..4 {
                let at = format!("(row + {i}u) * 512u + column + {}u", skip + c);
                stores += &format!("y[{at}] = s{i}{part}[{c}];\n");
            }
        }
    }
    let left: String =
        (0..4).map(|i| format!("let left{i} = a[(row + {}u + lane) * 512u + k];\n", i * 8)).collect();
    let right = |part: &str, skip: u32| {
        let of = |c: u32| format!("b[k * 512u + column + {}u]", skip + c);
        format!("let right_{part} = vec4<f32>({}, {}, {}, {});\n", of(0), of(1), of(2), of(3))
    };
    let (right_a, right_b) = (right("a", 0), right("b", 32));
    format!(
        "@group(0) @binding(0) var<storage, read> a: array<f32>;
        @group(0) @binding(1) var<storage, read> b: array<f32>;
        @group(0) @binding(2) var<storage, read_write> y: array<f32>;

        @compute @workgroup_size(8)
        fn matmul(
            @builtin(workgroup_id) group: vec3<u32>,
            @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32,
        ) {{
            for (var tile = group.x + group.y * groups.x; tile < 128u; tile += groups.x * groups.y) {{
                let row = tile % 16u * 32u;
                let column = tile / 16u * 64u + lane * 4u;
                {sums}
                for (var k = 0u; k < 512u; k++) {{
                    {left} {right_a} {right_b} {terms}
                }}
                {stores}
            }}
        }}"
    )
}

/// Something that multiplies: seconds of a product, and the result.
fn product(device: &Device) -> impl FnMut(u32) -> (f64, Vec<f32>) {
    let backend = device.backend().clone();
    let matrix = |name: &str, data: &dyn Fn(usize) -> f32| {
        let buffer = backend.allocate(DType::F32, N * N, name).unwrap();
        let values: Vec<f32> = (0..N * N).map(data).collect();
        backend.write(&buffer.view(), HostRef::F32(&values)).unwrap();
        buffer
    };
    // small whole numbers: sums of any order are exact
    let a = matrix("a", &|i| (i % 7) as f32 - 3.0);
    let b = matrix("b", &|i| (i % 5) as f32 - 2.0);
    let y = matrix("y", &|_| 0.0);
    let n = N as u32;
    let kernel = Kernel::Matmul(Matmul {
        batch: 1,
        m: n,
        n,
        k: n,
        transpose_a: false,
        transpose_b: false,
        a_stride: 0,
        b_stride: 0,
        splits: 1,
        row_sums: false,
        tail: Tail::default(),
    });
    let launch = Launch { kernel, arguments: vec![a.view(), b.view(), y.view()], label: "product".into() };
    let program = backend.prepare(&[launch]).unwrap();
    move |times| {
        let since = Instant::now();
        backend.run(&program, times).unwrap();
        pollster::block_on(backend.read(&y.slice(0, 1))).unwrap();
        let seconds = since.elapsed().as_secs_f64() / f64::from(times);
        (seconds, pollster::block_on(backend.read(&y.view())).unwrap().into_f32())
    }
}

#[test]
#[ignore = "a measurement, for an idle machine with lavapipe"]
fn matmul_512_beside_a_bare_kernel() {
    let options = DeviceOptions { checked: false, ..DeviceOptions::default() };
    let replace_shader = Some(ReplaceShader { kernel: "matmul", edit: |_| bare() });
    let own = Device::open_with("gpu", options).unwrap();
    let bare = Device::open_with("gpu", DeviceOptions { replace_shader, ..options }).unwrap();
    let (mut own, mut bare) = (product(&own), product(&bare));
    let (mut own_seconds, mut bare_seconds) = (Vec::new(), Vec::new());
    assert!(own(1).1 == bare(1).1);
    for _ in 0..9 {
        own_seconds.push(own(8).0);
        bare_seconds.push(bare(8).0);
    }
    let speed = |seconds: &mut Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        2.0 * (N as f64).powi(3) / seconds[seconds.len() / 2] / 1e9
    };
    let (own, bare) = (speed(&mut own_seconds), speed(&mut bare_seconds));
    println!("matmul 512: {own:.1} GFLOP/s; a bare 32 x (2 vec4) kernel: {bare:.1}; ratio {:.2}", own / bare);
}
