//! Is the gradient rule of each operation right? On the interpreter, in `f64`.
//!
//! For a function f, a random tangent t and a random cotangent u, two ways to the same number:
//! `<u, (f(x + h t) - f(x - h t)) / 2h>` and `<vjp(u), t>`. A row of the table is a function with the inputs that
//! it is checked at; the last test fails for an operation without a row.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // clippy takes only #[test] functions for tests

mod common;

use std::{collections::BTreeSet, sync::Arc};

use common::{
    custom::{Blur, Pick, SquaredRelu, SquaredReluBackward},
    random::Random,
};
use kiln::nn::{CrossEntropyOptions, Loss};
use kiln_graph::{
    Array, Conv2dOptions, ConvTranspose2dOptions, GatherOptions, Graph, GraphError, Interpreter, Padding,
    Pool2dOptions, Tensor,
};
use kiln_kernel::{Binary, GatherType, Unary};
use ndarray::{IxDyn, arr1};

/// Where an input's elements are drawn from.
#[derive(Clone, Copy)]
enum Draw {
    /// Uniform, and at least 0.01 away from where one of the functions has a kink.
    Smooth(f64, f64),
    /// Distances of at least 0.1 between any two elements: for maxima.
    Distinct,
}

const USUAL: Draw = Draw::Smooth(-2.0, 2.0);
const POSITIVE: Draw = Draw::Smooth(0.3, 2.5);
/// Reaches the far branches of every activation.
const WIDE: Draw = Draw::Smooth(-7.0, 7.0);

type Build = Box<dyn Fn(&mut Graph, &[Tensor]) -> Result<Tensor, GraphError>>;

/// One function, and the shapes of its inputs.
struct Row {
    name: String,
    inputs: Vec<(Vec<usize>, Draw)>,
    build: Build,
}

fn row(
    name: impl Into<String>,
    inputs: &[(&[usize], Draw)],
    build: impl Fn(&mut Graph, &[Tensor]) -> Result<Tensor, GraphError> + 'static,
) -> Row {
    let inputs = inputs.iter().map(|(shape, draw)| (shape.to_vec(), *draw)).collect();
    Row { name: name.into(), inputs, build: Box::new(build) }
}

fn draw(random: &mut Random, shape: &[usize], how: Draw) -> Array {
    match how {
        Draw::Smooth(low, high) => Array::from_shape_simple_fn(IxDyn(shape), || {
            loop {
                let x = random.uniform(low, high);
                if [-3.0, 0.0, 3.0, 6.0].iter().all(|kink| (x - kink).abs() > 0.01) {
                    return x;
                }
            }
        }),
        Draw::Distinct => {
            let len: usize = shape.iter().product();
            let mut order: Vec<usize> = (0..len).collect();
            for i in (1..len).rev() {
                order.swap(i, random.below(i + 1));
            }
            let value = |&i: &usize| 0.15 * i as f64 - 0.075 * len as f64 + 0.01;
            Array::from_shape_vec(IxDyn(shape), order.iter().map(value).collect()).unwrap()
        }
    }
}

/// Feeds what every row may need beside its inputs.
fn feed_constants(run: &mut Interpreter<'_>) {
    run.feed("clock", arr1(&[3.0, 0.0, 1.0, 77.0, 5.0, 0.0, 0.0, 0.0]).into_dyn());
    run.feed("labels3", arr1(&[1.0, 0.0, 3.0]).into_dyn());
    run.feed("labels5", arr1(&[0.0, 6.0, 2.0, 2.0, 5.0]).into_dyn());
}

fn dot(a: &Array, b: &Array) -> (f64, f64) {
    let products = a.iter().zip(b).map(|(a, b)| a * b);
    products.fold((0.0, 0.0), |(sum, size), p: f64| (sum + p, size + p.abs()))
}

/// Checks one row; returns the operations that stood between its inputs and its result.
fn check(row: &Row) -> Vec<(&'static str, String)> {
    let mut random = Random::new(row.name.bytes().map(u64::from).sum::<u64>() * 7919 + 1);
    let mut g = Graph::new();
    let xs: Vec<Tensor> = row
        .inputs
        .iter()
        .enumerate()
        .map(|(i, (shape, _))| g.input(&format!("x{i}"), &shape[..]).unwrap())
        .collect();
    let y = (row.build)(&mut g, &xs).unwrap_or_else(|e| panic!("{}: {e}", row.name));
    let recorded = g.recorded();
    let shape = g.shape(y).unwrap().clone();
    let u = g.input("u", &shape).unwrap();
    let dxs = g.gradients_from(y, u, &xs).unwrap_or_else(|e| panic!("{}: {e}", row.name));

    let at: Vec<Array> = row.inputs.iter().map(|(shape, how)| draw(&mut random, shape, *how)).collect();
    let tangents: Vec<Array> = row.inputs.iter().map(|(shape, _)| random.array(shape, -1.0, 1.0)).collect();
    let cotangent = random.array(shape.dims(), -1.0, 1.0);
    let mut run = Interpreter::new(&g);
    feed_constants(&mut run);
    run.feed("u", cotangent.clone());
    let move_to = |run: &mut Interpreter<'_>, h: f64| {
        for (i, (x, t)) in at.iter().zip(&tangents).enumerate() {
            run.feed(&format!("x{i}"), x + &(t * h));
        }
    };

    move_to(&mut run, 0.0);
    let (mut by_rule, mut size) = (0.0, 0.0);
    for (i, (&dx, t)) in dxs.iter().zip(&tangents).enumerate() {
        let dx = run.value(dx).unwrap_or_else(|e| panic!("{}: {e}", row.name));
        assert_eq!(dx.shape(), t.shape(), "{}: shape of the gradient of input {i}", row.name);
        let (sum, abs) = dot(dx, t);
        (by_rule, size) = (by_rule + sum, size + abs);
    }
    let h = 1e-5;
    move_to(&mut run, h);
    let right = run.value(y).unwrap().clone();
    move_to(&mut run, -h);
    let left = run.value(y).unwrap().clone();
    let (by_difference, abs) = dot(&((right - left) / (2.0 * h)), &cotangent);
    let error = (by_rule - by_difference).abs();
    let allowed = 1e-7 * (size + abs + 1.0);
    assert!(
        error <= allowed,
        "{}: vjp {by_rule}, differences {by_difference}, error {error:e} > {allowed:e}",
        row.name
    );
    assert!(size.is_finite() && abs.is_finite(), "{}: not finite", row.name);
    recorded
}

/// Shapes of elementwise functions: a scalar, size-one axes, odd sizes.
const SHAPES: [&[usize]; 4] = [&[], &[1], &[7], &[3, 1, 5]];

fn draw_for(f: Unary) -> Draw {
    match f {
        Unary::Sqrt | Unary::Log | Unary::Reciprocal => POSITIVE,
        Unary::Exp | Unary::Square => USUAL,
        _ => WIDE,
    }
}

fn unary_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for f in Unary::ALL {
        for shape in SHAPES {
            rows.push(row(format!("{} {shape:?}", f.name()), &[(shape, draw_for(f))], move |g, x| {
                g.unary(f, x[0])
            }));
        }
        // linear in the incoming gradient, for every function
        rows.push(row(format!("{}_backward of dy", f.name()), &[(&[5], USUAL)], move |g, x| {
            let at = g.fill([5], 1.25)?;
            let y = g.unary(f, at)?;
            Ok(g.gradients_from(y, x[0], &[at])?[0])
        }));
    }
    rows
}

fn binary_rows() -> Vec<Row> {
    let pairs: [(&[usize], &[usize]); 9] = [
        (&[], &[]),
        (&[5], &[5]),
        (&[3, 4], &[4]),
        (&[4], &[3, 4]),
        (&[3, 1], &[1, 5]),
        (&[2, 3, 4], &[3, 1]),
        (&[2, 3], &[]),
        (&[1, 1], &[1]),
        (&[2, 1, 3, 1], &[4, 1, 5]),
    ];
    let mut rows = Vec::new();
    for f in Binary::ALL {
        for (a, b) in pairs {
            let name = format!("{} {a:?} {b:?}", f.name());
            let b_from = if f == Binary::Div { POSITIVE } else { USUAL };
            rows.push(row(name, &[(a, USUAL), (b, b_from)], move |g, x| g.binary(f, x[0], x[1])));
        }
    }
    rows.push(row("where", &[(&[3, 4], USUAL), (&[4], USUAL), (&[3, 1], USUAL)], |g, x| {
        g.where_(x[0], x[1], x[2])
    }));
    rows.push(row("where of a comparison", &[(&[5, 4], USUAL), (&[5, 4], USUAL)], |g, x| {
        let less = g.less(x[0], x[1])?;
        let either = g.less_equal(x[1], x[0])?;
        let a = g.where_(less, x[0], x[1])?;
        let b = g.where_(either, x[1], x[0])?;
        g.mul(a, b)
    }));
    for (x, slope) in [(&[2, 3, 2, 2][..], &[3][..]), (&[4, 3], &[3]), (&[5], &[]), (&[2, 3, 2], &[1])] {
        rows.push(row(format!("prelu {x:?} {slope:?}"), &[(x, USUAL), (slope, USUAL)], |g, x| {
            g.prelu(x[0], x[1])
        }));
    }
    rows.push(row("second derivative of prelu", &[(&[5], USUAL), (&[], USUAL)], |g, x| {
        let y = g.prelu(x[0], x[1])?;
        let y = g.square(y)?;
        let d = g.gradients(y, &[x[0], x[1]])?;
        g.mul(d[0], d[1])
    }));
    rows.push(row("scale", &[(&[3], USUAL)], |g, x| g.scale(x[0], -1.7)));
    rows.push(row("add_constant", &[(&[3], USUAL)], |g, x| g.add_constant(x[0], 0.3)));
    rows
}

fn reduce_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let cases: [(&[usize], &[usize]); 8] = [
        (&[5], &[0]),
        (&[2, 3, 5], &[0]),
        (&[2, 3, 5], &[1]),
        (&[2, 3, 5], &[2, 0]),
        (&[2, 3, 5], &[0, 1, 2]),
        (&[3, 1, 4], &[1]),
        (&[2, 3], &[]),
        (&[2, 3, 4, 5], &[1, 3]),
    ];
    for (shape, axes) in cases {
        for keepdim in [false, true] {
            let name = format!("{shape:?} over {axes:?} keepdim {keepdim}");
            rows.push(row(format!("sum {name}"), &[(shape, USUAL)], move |g, x| g.sum(x[0], axes, keepdim)));
            rows.push(row(format!("mean {name}"), &[(shape, USUAL)], move |g, x| {
                g.mean(x[0], axes, keepdim)
            }));
            rows.push(row(format!("max {name}"), &[(shape, Draw::Distinct)], move |g, x| {
                g.max(x[0], axes, keepdim)
            }));
            rows.push(row(format!("min {name}"), &[(shape, Draw::Distinct)], move |g, x| {
                g.min(x[0], axes, keepdim)
            }));
        }
    }
    rows.push(row("mean_all", &[(&[3, 5], USUAL)], |g, x| g.mean_all(x[0])));
    rows.push(row("sum_to [1, 4]", &[(&[2, 3, 4], USUAL)], |g, x| g.sum_to(x[0], [1, 4])));
    rows.push(row("sum_to []", &[(&[2, 3], USUAL)], |g, x| g.sum_to(x[0], [0usize; 0])));
    rows
}

fn layout_rows() -> Vec<Row> {
    vec![
        row("reshape", &[(&[2, 3, 4], USUAL)], |g, x| g.reshape(x[0], [6, 4])),
        row("reshape to a scalar", &[(&[1, 1], USUAL)], |g, x| g.reshape(x[0], [0usize; 0])),
        row("flatten", &[(&[2, 3, 4], USUAL)], |g, x| g.flatten(x[0])),
        row("broadcast rows", &[(&[4], USUAL)], |g, x| g.broadcast(x[0], [2, 3, 4])),
        row("broadcast columns", &[(&[3, 1], USUAL)], |g, x| g.broadcast(x[0], [2, 3, 5])),
        row("broadcast a scalar", &[(&[], USUAL)], |g, x| g.broadcast(x[0], [2, 3])),
        row("permute [0, 2, 3, 1]", &[(&[2, 3, 4, 5], USUAL)], |g, x| g.permute(x[0], &[0, 2, 3, 1])),
        row("permute [2, 0, 1]", &[(&[2, 3, 4], USUAL)], |g, x| g.permute(x[0], &[2, 0, 1])),
        row("transpose", &[(&[1, 5], USUAL)], |g, x| g.permute(x[0], &[1, 0])),
    ]
}

fn rearranged_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (axis, start, end) in [(0, 1, 2), (1, 0, 2), (1, 1, 3), (2, 3, 4), (2, 0, 4)] {
        let name = format!("slice {start}..{end} of axis {axis}");
        rows.push(row(name, &[(&[2, 3, 4], USUAL)], move |g, x| g.slice(x[0], axis, start, end)));
    }
    rows.push(row("slice of a slice of a permutation", &[(&[2, 3, 4], USUAL)], |g, x| {
        let y = g.permute(x[0], &[2, 0, 1])?;
        let y = g.slice(y, 0, 1, 4)?;
        let y = g.slice(y, 2, 2, 3)?;
        g.slice(y, 0, 1, 2)
    }));
    let amounts: [&[(usize, usize)]; 6] = [
        &[(0, 0), (0, 0), (0, 0)],
        &[(1, 2), (0, 0), (0, 0)],
        &[(0, 0), (0, 3), (2, 0)],
        &[(2, 0), (0, 0), (0, 1)],
        &[(0, 0), (0, 0), (1, 1)],
        &[(1, 0), (2, 1), (0, 3)],
    ];
    for amounts in amounts {
        let name = format!("pad {amounts:?}");
        rows.push(row(name, &[(&[2, 3, 4], USUAL)], move |g, x| g.pad(x[0], amounts, 0.7)));
    }
    rows.push(row("pad a scalar by nothing", &[(&[], USUAL)], |g, x| g.pad(x[0], &[], 1.0)));
    rows.push(row("pad2d", &[(&[2, 1, 3, 2], USUAL)], |g, x| g.pad2d(x[0], 1, 2, 3, 0)));
    rows.push(row("crop2d", &[(&[2, 1, 5, 4], USUAL)], |g, x| g.crop2d(x[0], 1, 2, 0, 3)));
    rows.push(row("upsample_nearest2d", &[(&[2, 3, 2, 3], USUAL)], |g, x| {
        g.upsample_nearest2d(x[0], (2, 3))
    }));
    let widths: [&[usize]; 5] = [&[2], &[2, 3], &[1, 2, 1], &[2, 1, 3, 1], &[1, 2, 3, 1, 2, 1, 1, 1, 2]];
    for widths in widths {
        for axis in [0, 1, 2] {
            let shapes: Vec<Vec<usize>> = widths
                .iter()
                .map(|&width| {
                    let mut shape = vec![2, 3, 2];
                    shape[axis] = width;
                    shape
                })
                .collect();
            let inputs: Vec<(&[usize], Draw)> = shapes.iter().map(|s| (&s[..], USUAL)).collect();
            let name = format!("concat {widths:?} along {axis}");
            rows.push(row(name, &inputs, move |g, x| g.concat(x, axis)));
        }
    }
    rows.push(row("concat of one tensor twice", &[(&[2, 3], USUAL)], |g, x| g.concat(&[x[0], x[0]], 1)));
    rows.push(row("global_avg_pool2d", &[(&[2, 3, 4, 5], USUAL)], |g, x| g.global_avg_pool2d(x[0])));
    rows.push(row("global_max_pool2d", &[(&[2, 3, 4, 5], Draw::Distinct)], |g, x| g.global_max_pool2d(x[0])));
    rows
}

fn embedding_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (entries, width, shape) in [(7, 3, &[5][..]), (5, 1, &[5]), (1, 4, &[5, 1])] {
        let rows_ = shape[0];
        // labels5 holds an index past the smaller tables
        let indices = move |g: &mut Graph| {
            let labels = g.input("labels5", [rows_])?;
            let labels = g.reshape(labels, shape)?;
            g.to_indices(labels)
        };
        let name = format!("embedding of {entries} x {width} at {shape:?}");
        rows.push(row(name.clone(), &[(&[entries, width], USUAL)], move |g, x| {
            let indices = indices(g)?;
            g.embedding(x[0], indices)
        }));
        let dy = [shape, &[width]].concat();
        rows.push(row(format!("{name}, backward"), &[(&dy, USUAL)], move |g, x| {
            let indices = indices(g)?;
            let weight = g.fill([entries, width], 0.0)?;
            let y = g.embedding(weight, indices)?;
            Ok(g.gradients_from(y, x[0], &[weight])?[0])
        }));
    }
    rows
}

fn normalize_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for shape in [&[6, 3][..], &[2, 3, 4, 2], &[1, 2, 3, 3], &[4, 1], &[3, 2, 5]] {
        let channels = [shape[1]];
        let inputs = [(shape, USUAL), (&channels[..], USUAL), (&channels[..], USUAL)];
        rows.push(row(format!("batch_norm {shape:?}"), &inputs, |g, x| {
            Ok(g.batch_norm(x[0], x[1], x[2], 1e-3)?.0)
        }));
        // all three results, and the statistics' own gradients
        rows.push(row(format!("batch_norm with statistics {shape:?}"), &inputs, |g, x| {
            let (y, mean, variance) = g.batch_norm(x[0], x[1], x[2], 1e-3)?;
            let mean = g.square(mean)?;
            let y = g.mul(y, y)?;
            let statistics = g.mul(mean, variance)?;
            g.add_channels(y, statistics)
        }));
        rows.push(row(format!("statistics alone {shape:?}"), &inputs[..1], |g, x| {
            let channels = g.shape(x[0])?[1];
            let (gamma, beta) = (g.fill([channels], 1.0)?, g.fill([channels], 0.0)?);
            let (_, mean, variance) = g.batch_norm(x[0], gamma, beta, 1e-3)?;
            g.sub(mean, variance)
        }));
        let statistics = [(&channels[..], USUAL), (&channels[..], POSITIVE)];
        let inputs = [&inputs[..], &statistics[..]].concat();
        rows.push(row(format!("batch_norm_eval {shape:?}"), &inputs, |g, x| {
            g.batch_norm_eval(x[0], (x[1], x[2]), (x[3], x[4]), 1e-3)
        }));
    }
    for (shape, own) in
        [(&[6, 8][..], &[8][..]), (&[5], &[5]), (&[2, 3, 4], &[3, 4]), (&[2, 2, 3], &[3]), (&[3, 1], &[1])]
    {
        let name = format!("layer_norm {shape:?} over {own:?}");
        rows.push(row(name, &[(shape, USUAL), (own, USUAL), (own, USUAL)], |g, x| {
            g.layer_norm(x[0], x[1], x[2], 1e-3)
        }));
    }
    for (shape, groups) in [(&[2, 6, 3, 2][..], 2), (&[3, 4], 4), (&[2, 4, 5], 1), (&[1, 3, 2, 2], 3)] {
        let channels = [shape[1]];
        let inputs = [(shape, USUAL), (&channels[..], USUAL), (&channels[..], USUAL)];
        rows.push(row(format!("group_norm {shape:?} in {groups}"), &inputs, move |g, x| {
            g.group_norm(x[0], groups, x[1], x[2], 1e-3)
        }));
    }
    // a variance of its own in each position: gamma and beta of different shapes
    rows.push(row(
        "second derivative of batch_norm",
        &[(&[5, 2], USUAL), (&[2], USUAL), (&[2], USUAL), (&[5, 2], USUAL)],
        |g, x| {
            let y = g.batch_norm(x[0], x[1], x[2], 1e-2)?.0;
            let d = g.gradients_from(y, x[3], &[x[0], x[1]])?;
            g.mul(d[0], d[1])
        },
    ));
    rows.push(row(
        "second derivative of layer_norm",
        &[(&[2, 5], USUAL), (&[5], USUAL), (&[5], USUAL), (&[2, 5], USUAL)],
        |g, x| {
            let y = g.layer_norm(x[0], x[1], x[2], 1e-2)?;
            let d = g.gradients_from(y, x[3], &[x[0]])?;
            g.square(d[0])
        },
    ));
    rows
}

fn matmul_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (4, 1, 6), (1, 8, 3)] {
            let a = if ta { [k, m] } else { [m, k] };
            let b = if tb { [n, k] } else { [k, n] };
            let batched = |s: [usize; 2], batch: &[usize]| [batch, &s[..]].concat();
            // no batch, on both sides, on one side, of size one, of two axes, broadcast on one side and on both
            for (ba, bb) in [
                (&[][..], &[][..]),
                (&[2], &[2]),
                (&[3], &[]),
                (&[], &[3]),
                (&[1], &[]),
                (&[2, 3], &[2, 3]),
                (&[1], &[3]),
                (&[3], &[1, 1]),
                (&[2, 3], &[3]),
                (&[2, 1], &[3]),
                (&[1, 2, 1], &[1, 2]),
            ] {
                let (a, b) = (batched(a, ba), batched(b, bb));
                let name = format!("matmul {a:?} {ta} {b:?} {tb}");
                rows.push(row(name, &[(&a, USUAL), (&b, USUAL)], move |g, x| g.matmul(x[0], x[1], ta, tb)));
            }
        }
    }
    rows.push(row("linear", &[(&[4, 3], USUAL), (&[5, 3], USUAL), (&[5], USUAL)], |g, x| {
        g.linear(x[0], x[1], Some(x[2]))
    }));
    rows
}

/// Input, weight and settings of convolutions: plain, 1x1, strided, padded unevenly, dilated, grouped,
/// rectangular, with pixels at the border that no window reads.
fn convolutions() -> Vec<([usize; 4], [usize; 4], Conv2dOptions)> {
    let plain = Conv2dOptions::default();
    let uneven = Padding::Explicit { top: 2, bottom: 0, left: 1, right: 3 };
    vec![
        ([2, 3, 5, 6], [4, 3, 3, 3], plain),
        ([1, 1, 1, 1], [1, 1, 1, 1], plain),
        ([2, 3, 4, 5], [2, 3, 1, 1], plain),
        ([2, 2, 6, 5], [3, 2, 2, 3], Conv2dOptions { stride: (2, 1), ..plain }),
        ([1, 2, 8, 8], [2, 2, 3, 3], Conv2dOptions { stride: (3, 3), ..plain }),
        ([1, 2, 5, 4], [3, 2, 3, 3], Conv2dOptions { padding: Padding::Same, ..plain }),
        ([1, 2, 7, 6], [3, 2, 3, 2], Conv2dOptions { padding: Padding::Same, stride: (2, 2), ..plain }),
        ([1, 2, 4, 4], [1, 2, 3, 3], Conv2dOptions { padding: uneven, stride: (1, 2), ..plain }),
        ([1, 2, 7, 7], [2, 2, 3, 2], Conv2dOptions { dilation: (2, 3), ..plain }),
        ([2, 4, 5, 5], [6, 2, 3, 3], Conv2dOptions { groups: 2, padding: Padding::symmetric(1, 1), ..plain }),
        ([1, 3, 4, 4], [3, 1, 2, 2], Conv2dOptions { groups: 3, stride: (2, 2), ..plain }),
    ]
}

fn conv2d_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (x, weight, options) in convolutions() {
        let name = format!("{x:?} {weight:?} {options:?}");
        rows.push(row(format!("conv2d {name}"), &[(&x, USUAL), (&weight, USUAL)], move |g, x| {
            g.conv2d(x[0], x[1], options)
        }));
        // the gradients' own gradients: x, weight and dy are all inputs
        let mut probe = Graph::new();
        let (px, pw) = (probe.input("x", x).unwrap(), probe.input("w", weight).unwrap());
        let y = probe.conv2d(px, pw, options).unwrap();
        let y_shape = probe.shape(y).unwrap().dims().to_vec();
        for side in [0, 1] {
            let inputs: [(&[usize], Draw); 3] = [(&x, USUAL), (&weight, USUAL), (&y_shape, USUAL)];
            let what = ["input", "weight"][side];
            rows.push(row(format!("conv2d_backward_{what} {name}"), &inputs, move |g, x| {
                let y = g.conv2d(x[0], x[1], options)?;
                Ok(g.gradients_from(y, x[2], &[x[side]])?[0])
            }));
        }
    }
    for (x, weight, stride, padding, output_padding, dilation, groups) in [
        ([2, 3, 4, 3], [3, 2, 3, 3], (1, 1), Padding::Valid, (0, 0), (1, 1), 1),
        ([1, 2, 3, 3], [2, 3, 3, 3], (2, 2), Padding::symmetric(1, 1), (1, 1), (1, 1), 1),
        ([1, 4, 3, 2], [4, 2, 2, 3], (3, 2), Padding::Valid, (2, 0), (1, 2), 2),
        ([1, 2, 3, 4], [2, 1, 3, 2], (2, 3), Padding::Same, (0, 0), (1, 1), 1),
    ] {
        let options = ConvTranspose2dOptions { stride, padding, output_padding, dilation, groups };
        let name = format!("conv_transpose2d {x:?} {weight:?} {options:?}");
        rows.push(row(name, &[(&x, USUAL), (&weight, USUAL)], move |g, x| {
            g.conv_transpose2d(x[0], x[1], options)
        }));
    }
    rows.push(row("add_channels", &[(&[2, 3, 2, 2], USUAL), (&[3], USUAL)], |g, x| {
        g.add_channels(x[0], x[1])
    }));
    rows.push(row("add_channels of rows", &[(&[4, 3], USUAL), (&[3], USUAL)], |g, x| {
        g.add_channels(x[0], x[1])
    }));
    rows
}

fn pool2d_rows() -> Vec<Row> {
    let settings = |kernel, stride, padding| Pool2dOptions { kernel, stride, padding };
    let cases: [([usize; 4], Pool2dOptions); 7] = [
        ([2, 3, 4, 6], Pool2dOptions::square(2)),
        ([1, 2, 5, 7], Pool2dOptions::square(2)),
        ([1, 1, 1, 1], Pool2dOptions::square(1)),
        ([1, 2, 7, 6], settings((3, 3), (2, 2), (1, 1))),
        ([2, 1, 5, 5], settings((3, 2), (1, 1), (0, 0))),
        ([1, 2, 6, 5], settings((2, 3), (3, 1), (1, 1))),
        ([1, 1, 5, 5], settings((5, 5), (1, 1), (2, 2))),
    ];
    let mut rows = Vec::new();
    for (x, options) in cases {
        let name = format!("{x:?} {options:?}");
        rows.push(row(format!("max_pool2d {name}"), &[(&x, Draw::Distinct)], move |g, x| {
            g.max_pool2d(x[0], options)
        }));
        for pad in [false, true] {
            rows.push(row(format!("avg_pool2d {name} {pad}"), &[(&x, USUAL)], move |g, x| {
                g.avg_pool2d(x[0], options, pad)
            }));
            let mut probe = Graph::new();
            let px = probe.input("x", x).unwrap();
            let y = probe.avg_pool2d(px, options, pad).unwrap();
            let y_shape = probe.shape(y).unwrap().dims().to_vec();
            rows.push(row(
                format!("avg_pool2d_backward {name} {pad}"),
                &[(&y_shape, USUAL)],
                move |g, dy| {
                    let at = g.fill(x, 0.0)?;
                    let y = g.avg_pool2d(at, options, pad)?;
                    Ok(g.gradients_from(y, dy[0], &[at])?[0])
                },
            ));
        }
    }
    rows
}

fn softmax_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let cases: [(&[usize], usize); 6] =
        [(&[5], 0), (&[3, 4], 1), (&[3, 4], 0), (&[2, 3, 4], 1), (&[2, 1, 3], 1), (&[2, 3, 1, 5], 3)];
    for (shape, axis) in cases {
        for log in [false, true] {
            let apply =
                move |g: &mut Graph, x: Tensor| if log { g.log_softmax(x, axis) } else { g.softmax(x, axis) };
            let name = format!("{}softmax {shape:?} over {axis}", if log { "log_" } else { "" });
            rows.push(row(name.clone(), &[(shape, USUAL)], move |g, x| apply(g, x[0])));
            rows.push(row(format!("{name}, backward"), &[(shape, USUAL), (shape, USUAL)], move |g, x| {
                let y = apply(g, x[0])?;
                Ok(g.gradients_from(y, x[1], &[x[0]])?[0])
            }));
        }
    }
    // longer than one launch takes: composed of reductions
    rows.push(row("softmax of 16,390", &[(&[1, 16_390], USUAL)], |g, x| g.softmax(x[0], 1)));
    rows.push(row("log_softmax of 16,390", &[(&[1, 16_390], USUAL)], |g, x| g.log_softmax(x[0], 1)));
    rows
}

fn cross_entropy_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (rows_, classes) in [(3, 4), (5, 7)] {
        for smoothing in [0.0, 0.1] {
            let losses = move |g: &mut Graph, logits: Tensor| {
                let labels = g.input_u32(&format!("labels{rows_}"), [rows_])?;
                Ok(g.cross_entropy(logits, labels, smoothing)?.0)
            };
            let name = format!("cross_entropy [{rows_}, {classes}] smoothed by {smoothing}");
            rows.push(row(name.clone(), &[(&[rows_, classes], USUAL)], move |g, x| losses(g, x[0])));
            rows.push(row(
                format!("{name}, backward"),
                &[(&[rows_, classes], USUAL), (&[rows_], USUAL)],
                move |g, x| {
                    let y = losses(g, x[0])?;
                    Ok(g.gradients_from(y, x[1], &[x[0]])?[0])
                },
            ));
            // the hits have no gradient, and take none away from the losses
            rows.push(row(format!("{name}, with hits"), &[(&[rows_, classes], USUAL)], move |g, x| {
                let labels = g.input_u32(&format!("labels{rows_}"), [rows_])?;
                let (losses, correct) = g.cross_entropy(x[0], labels, smoothing)?;
                let weighted = g.mul(losses, correct)?;
                g.add(weighted, correct)
            }));
        }
    }
    rows
}

/// Targets as a constant: probabilities, the first row with a zero.
fn probabilities(g: &mut Graph) -> Result<Tensor, GraphError> {
    g.literal([3, 4], &[0.5, 0.25, 0.25, 0.0, 0.125, 0.125, 0.5, 0.25, 0.0625, 0.9375, 0.0, 0.0])
}

fn label_rows() -> Vec<Row> {
    let labels = |g: &mut Graph| g.input_u32("labels3", [3]);
    vec![
        row("one_hot times x", &[(&[3, 4], USUAL)], move |g, x| {
            let labels = labels(g)?;
            let hot = g.one_hot(labels, 4)?;
            g.mul(x[0], hot)
        }),
        row("literal times x", &[(&[2, 3], USUAL)], |g, x| {
            let y = g.literal([3], &[1.0, -2.0, 0.5])?;
            g.mul(x[0], y)
        }),
    ]
}

/// Each loss, of class labels, of probabilities, and of a single yes-or-no output.
fn loss_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let weighted = |label_smoothing| {
        let class_weights = vec![0.5, 2.0, 1.0, 0.25];
        Loss::CrossEntropyWith(CrossEntropyOptions { label_smoothing, class_weights })
    };
    let smoothed = CrossEntropyOptions { label_smoothing: 0.1, class_weights: vec![] };
    let mut losses: Vec<Loss> = Loss::NAMES.iter().map(|n| Loss::named(n.name).unwrap()).collect();
    losses.extend([
        weighted(0.0),
        weighted(0.1),
        Loss::CrossEntropyWith(smoothed),
        Loss::Huber { delta: 0.25 },
        Loss::Huber { delta: 20.0 },
    ]);
    for loss in losses {
        let of = match loss {
            Loss::BinaryCrossEntropy => Draw::Smooth(0.05, 0.95),
            Loss::KlDivergence | Loss::Poisson | Loss::MeanSquaredLogarithmicError => POSITIVE,
            _ => USUAL,
        };
        let name = format!("{loss:?}");
        if loss != Loss::MeanAbsolutePercentageError {
            let this = loss.clone();
            rows.push(row(format!("{name} of labels"), &[(&[3, 4], of)], move |g, x| {
                let target = g.input_u32("labels3", [3])?;
                this.record_mean(g, x[0], target, None)
            }));
            let this = loss.clone();
            rows.push(row(
                format!("{name} of labels, rows weighted"),
                &[(&[3, 4], of), (&[3], USUAL)],
                move |g, x| {
                    let target = g.input_u32("labels3", [3])?;
                    this.record_mean(g, x[0], target, Some(x[1]))
                },
            ));
        }
        if loss != Loss::NllLoss {
            let this = loss.clone();
            rows.push(row(format!("{name} of probabilities"), &[(&[3, 4], of)], move |g, x| {
                let target = probabilities(g)?;
                let target = g.add_constant(target, 0.125)?;
                this.record_rows(g, x[0], target)
            }));
        }
        if !loss.includes_softmax() && !matches!(loss, Loss::NllLoss | Loss::MeanAbsolutePercentageError) {
            rows.push(row(format!("{name} of one output"), &[(&[3, 1], of)], move |g, x| {
                let target = g.input_u32("labels3", [3])?;
                loss.record_rows(g, x[0], target)
            }));
        }
    }
    rows
}

fn dropout_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for rate in [0.0, 0.25, 0.9] {
        rows.push(row(format!("dropout {rate}"), &[(&[4, 9], USUAL)], move |g, x| g.dropout(x[0], rate)));
        let name = format!("spatial_dropout2d {rate}");
        rows.push(row(name, &[(&[4, 3, 3, 2], USUAL)], move |g, x| g.spatial_dropout2d(x[0], rate)));
    }
    rows
}

fn custom_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for shape in SHAPES {
        rows.push(row(format!("custom squared_relu {shape:?}"), &[(shape, USUAL)], |g, x| {
            g.custom(Arc::new(SquaredRelu(0.75)), &[x[0]])
        }));
        rows.push(row(
            format!("custom of two inputs {shape:?}"),
            &[(shape, USUAL), (shape, USUAL)],
            |g, x| g.custom(Arc::new(SquaredReluBackward(0.75)), x),
        ));
    }
    rows.push(row("custom blur", &[(&[2, 3, 4, 5], USUAL)], |g, x| g.custom(Arc::new(Blur), x)));
    rows.push(row("custom pick", &[(&[5, 7], USUAL)], |g, x| {
        let labels = g.input_u32("labels5", [5])?;
        g.custom(Arc::new(Pick), &[x[0], labels])
    }));
    rows
}

fn noise_rows() -> Vec<Row> {
    vec![
        row("gaussian_noise", &[(&[4, 9], USUAL)], |g, x| {
            let y = g.gaussian_noise(x[0], 0.5)?;
            g.square(y)
        }),
        row("product with random numbers", &[(&[3, 3], USUAL)], |g, x| {
            let noise = g.random_normal([3, 3])?;
            g.mul(x[0], noise)
        }),
    ]
}

/// Gradients of gradients, where a function has a second derivative; and compositions.
fn composed_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for f in
        [Unary::Square, Unary::Exp, Unary::Sigmoid, Unary::Tanh, Unary::Neg, Unary::Relu, Unary::HardSigmoid]
    {
        rows.push(row(
            format!("second derivative of {}", f.name()),
            &[(&[3, 4], USUAL), (&[3, 4], USUAL)],
            move |g, x| {
                let y = g.unary(f, x[0])?;
                Ok(g.gradients_from(y, x[1], &[x[0]])?[0])
            },
        ));
    }
    rows.push(row("third derivative of square of tanh", &[(&[5], USUAL)], |g, x| {
        let y = g.tanh(x[0])?;
        let y = g.square(y)?;
        let first = g.gradients(y, &[x[0]])?[0];
        Ok(g.gradients(first, &[x[0]])?[0])
    }));
    rows.push(row("second derivative of matmul", &[(&[3, 4], USUAL), (&[5, 4], USUAL)], |g, x| {
        let y = g.matmul(x[0], x[1], false, true)?;
        let y = g.square(y)?;
        let first = g.gradients(y, &[x[1]])?[0];
        g.square(first)
    }));
    rows.push(row("second derivative of softmax", &[(&[3, 4], USUAL)], |g, x| {
        let y = g.softmax(x[0], 1)?;
        let y = g.square(y)?;
        Ok(g.gradients(y, &[x[0]])?[0])
    }));
    for f in [Binary::Mul, Binary::Div] {
        rows.push(row(
            format!("second derivative of {}", f.name()),
            &[(&[3, 2], USUAL), (&[2], POSITIVE)],
            move |g, x| {
                let y = g.binary(f, x[0], x[1])?;
                let y = g.square(y)?;
                Ok(g.gradients(y, &[x[1]])?[0])
            },
        ));
    }
    rows.push(row(
        "gradient penalty of a small network",
        &[(&[2, 3], USUAL), (&[4, 3], USUAL), (&[1, 4], USUAL)],
        |g, x| {
            let h = g.matmul(x[0], x[1], false, true)?;
            let h = g.tanh(h)?;
            let y = g.matmul(h, x[2], false, true)?;
            let dx = g.gradients(y, &[x[0]])?[0];
            let square = g.square(dx)?;
            let penalty = g.sum(square, &[0, 1], false)?;
            let total = g.mean_all(y)?;
            g.add(penalty, total)
        },
    ));
    rows.push(row("one tensor used five times", &[(&[3, 3], USUAL)], |g, x| {
        let a = g.tanh(x[0])?;
        let b = g.mul(a, x[0])?;
        let c = g.matmul(a, b, false, true)?;
        let d = g.add(c, a)?;
        let e = g.mul(a, a)?;
        g.sub(d, e)
    }));
    rows.push(row(
        "residual block",
        &[(&[1, 2, 4, 4], USUAL), (&[2, 2, 3, 3], USUAL), (&[2], USUAL)],
        |g, x| {
            let same = Conv2dOptions { padding: Padding::Same, ..Conv2dOptions::default() };
            let y = g.conv2d(x[0], x[1], same)?;
            let y = g.add_channels(y, x[2])?;
            let y = g.silu(y)?;
            let y = g.conv2d(y, x[1], same)?;
            g.add(y, x[0])
        },
    ));
    rows.push(row("normalisation", &[(&[4, 6], USUAL), (&[6], USUAL), (&[6], USUAL)], |g, x| {
        let mean = g.mean(x[0], &[1], true)?;
        let centred = g.sub(x[0], mean)?;
        let square = g.square(centred)?;
        let variance = g.mean(square, &[1], true)?;
        let variance = g.add_constant(variance, 1e-3)?;
        let deviation = g.sqrt(variance)?;
        let y = g.div(centred, deviation)?;
        let y = g.mul(y, x[1])?;
        g.add(y, x[2])
    }));
    rows
}

fn table() -> Vec<Row> {
    [
        unary_rows(),
        binary_rows(),
        reduce_rows(),
        layout_rows(),
        rearranged_rows(),
        embedding_rows(),
        normalize_rows(),
        matmul_rows(),
        conv2d_rows(),
        pool2d_rows(),
        softmax_rows(),
        cross_entropy_rows(),
        label_rows(),
        loss_rows(),
        dropout_rows(),
        custom_rows(),
        noise_rows(),
        composed_rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Operations whose gradient is an error, each with a test of that below; constants have no inputs.
const WITHOUT_GRADIENT: [&str; 6] =
    ["AugmentDraw", "Fill", "Gather", "GatherAugmented", "MaxPool2dBackward", "ToIndices"];

#[test]
fn every_rule_agrees_with_differences_and_no_operation_is_left_out() {
    let rows = table();
    let mut variants = BTreeSet::new();
    let mut names = BTreeSet::new();
    for row in &rows {
        for (variant, name) in check(row) {
            variants.insert(variant);
            names.insert(name);
        }
    }
    for variant in kiln_graph::ops::VARIANTS {
        let exempt = WITHOUT_GRADIENT.contains(variant);
        assert!(
            variants.contains(variant) || exempt,
            "operation {variant} has no row in the gradient checks"
        );
    }
    let functions = Unary::ALL.iter().map(Unary::name).chain(Binary::ALL.iter().map(Binary::name));
    for function in functions {
        assert!(names.contains(function), "{function} has no row in the gradient checks");
    }
    println!("{} rows over {} operations", rows.len(), variants.len());
}

/// The path through the selection of a maximum has no second derivative, and says so.
#[test]
fn second_derivative_of_max_pool2d_is_a_typed_error() {
    let mut g = Graph::new();
    let x = g.input("x", [1, 1, 4, 4]).unwrap();
    let square = g.square(x).unwrap();
    let y = g.scoped("pool", |g| g.max_pool2d(square, Pool2dOptions::square(2))).unwrap();
    let dx = g.gradients(y, &[x]).unwrap()[0];
    match g.gradients(dx, &[x]) {
        Err(GraphError::NoGradient { op, scope, .. }) => {
            assert_eq!((op.as_str(), scope.as_str()), ("max_pool2d_backward", "pool backward"));
        }
        other => panic!("expected no gradient, got {other:?}"),
    }
}

/// Functions whose second derivative is not provided say so instead of giving zero.
#[test]
fn missing_second_derivatives_are_typed_errors() {
    let mut without = Vec::new();
    for f in Unary::ALL {
        let mut g = Graph::new();
        let x = g.input("x", [3]).unwrap();
        let y = g.unary(f, x).unwrap();
        let dx = g.gradients(y, &[x]).unwrap()[0];
        match g.gradients(dx, &[x]) {
            Ok(_) => {}
            Err(GraphError::NoGradient { op, input: 1, .. }) => {
                assert_eq!(op, "unary_backward");
                without.push(f.name());
            }
            Err(other) => panic!("{}: {other}", f.name()),
        }
    }
    let expected = [
        "sqrt",
        "log",
        "reciprocal",
        "elu",
        "selu",
        "gelu",
        "gelu_tanh",
        "softplus",
        "softsign",
        "silu",
        "hard_swish",
        "mish",
    ];
    assert_eq!(without, expected);
}

#[test]
fn data_sets_and_integers_have_no_gradient() {
    let mut g = Graph::new();
    let data = g.input("data", [4, 2]).unwrap();
    let order = g.input_u32("order", [4]).unwrap();
    let options = GatherOptions {
        rows: 3,
        items: 4,
        item: [2].into(),
        dtype: GatherType::F32,
        reversed: false,
        scale: vec![1.0],
        shift: vec![0.0],
    };
    let batch = g.gather(data, order, options).unwrap();
    let error = g.gradients(batch, &[data]).unwrap_err();
    assert!(matches!(error, GraphError::NoGradient { input: 0, .. }), "{error}");
    // but the gradient with respect to the batch is there
    let y = g.square(batch).unwrap();
    let dy = g.gradients(y, &[batch]).unwrap()[0];
    let mut run = Interpreter::new(&g);
    run.feed("data", ndarray::array![[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]].into_dyn());
    run.feed("order", arr1(&[2.0, 0.0, 3.0, 1.0]).into_dyn());
    run.feed("clock", arr1(&[0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]).into_dyn());
    // cursor 2: items 3, 1, and 1 again past the end
    let want = ndarray::array![[14.0, 16.0], [6.0, 8.0], [6.0, 8.0]].into_dyn();
    assert_eq!(run.value(dy).unwrap(), want);
}

#[test]
fn indices_have_no_gradient() {
    let mut g = Graph::new();
    let x = g.input("x", [3]).unwrap();
    let weight = g.input("weight", [4, 2]).unwrap();
    let indices = g.scoped("embed", |g| g.to_indices(x)).unwrap();
    let y = g.embedding(weight, indices).unwrap();
    match g.gradients(y, &[x]) {
        Err(GraphError::NoGradient { op, input: 1, .. }) => assert_eq!(op, "embedding"),
        other => panic!("expected no gradient, got {other:?}"),
    }
}

/// What is not chosen may be anything.
#[test]
fn masks_keep_infinities_and_what_is_no_number_out() {
    let mut g = Graph::new();
    let (c, a) = (g.input("c", [4]).unwrap(), g.input("a", [4]).unwrap());
    let zero = g.fill([4], 0.0).unwrap();
    let y = g.where_(c, a, zero).unwrap();
    let da = g.gradients(y, &[a]).unwrap()[0];
    let mut run = Interpreter::new(&g);
    run.feed("c", arr1(&[0.0, 1.0, 0.0, -2.0]).into_dyn());
    run.feed("a", arr1(&[f64::INFINITY, 3.0, f64::NAN, 4.0]).into_dyn());
    assert_eq!(run.value(y).unwrap(), arr1(&[0.0, 3.0, 0.0, 4.0]).into_dyn());
    assert_eq!(run.value(da).unwrap(), arr1(&[0.0, 1.0, 0.0, 1.0]).into_dyn());
}

/// The slope of PyTorch's PReLU at 0 is that of the negative side.
#[test]
fn prelu_at_zero_follows_the_slope() {
    let mut g = Graph::new();
    let (x, slope) = (g.input("x", [3]).unwrap(), g.input("slope", [1]).unwrap());
    let y = g.prelu(x, slope).unwrap();
    let d = g.gradients(y, &[x, slope]).unwrap();
    let mut run = Interpreter::new(&g);
    run.feed("x", arr1(&[0.0, -2.0, 3.0]).into_dyn());
    run.feed("slope", arr1(&[0.25]).into_dyn());
    assert_eq!(run.value(d[0]).unwrap(), arr1(&[0.25, 0.25, 1.0]).into_dyn());
    assert_eq!(run.value(d[1]).unwrap(), arr1(&[-2.0]).into_dyn());
}

#[test]
fn gradient_of_what_does_not_depend_is_zero() {
    let mut g = Graph::new();
    let (x, other) = (g.input("x", [2]).unwrap(), g.input("other", [3]).unwrap());
    let y = g.square(x).unwrap();
    let d = g.gradients(y, &[other, y]).unwrap();
    let mut run = Interpreter::new(&g);
    run.feed("x", arr1(&[1.0, 2.0]).into_dyn());
    assert_eq!(run.value(d[0]).unwrap(), arr1(&[0.0; 3]).into_dyn());
    assert_eq!(run.value(d[1]).unwrap(), arr1(&[1.0; 2]).into_dyn());
}

/// Equal values share a gradient as PyTorch shares it.
#[test]
fn ties_share_the_gradient() {
    let mut g = Graph::new();
    let (a, b) = (g.input("a", [2]).unwrap(), g.input("b", [2]).unwrap());
    let y = g.maximum(a, b).unwrap();
    let da = g.gradients(y, &[a]).unwrap()[0];
    let most = g.max(a, &[0], false).unwrap();
    let dmost = g.gradients(most, &[a]).unwrap()[0];
    let mut run = Interpreter::new(&g);
    run.feed("a", arr1(&[2.0, 2.0]).into_dyn());
    run.feed("b", arr1(&[2.0, 1.0]).into_dyn());
    assert_eq!(run.value(da).unwrap(), arr1(&[0.5, 1.0]).into_dyn());
    assert_eq!(run.value(dmost).unwrap(), arr1(&[0.5, 0.5]).into_dyn());
}
