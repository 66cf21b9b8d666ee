//! Each twin in f64 against a formula written down again in a few lines, and in f32 against its f64 self.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy takes only #[test] functions for tests

mod common;

use common::{Input, assert_close, run, values};
use kiln_kernel::{random::Stream, *};

/// Runs in f64 and f32; the two must agree as far as f32 goes. Returns what f64 says.
#[track_caller]
fn check(kernel: Kernel, inputs: &[Input]) -> Vec<Vec<f64>> {
    let (exact, rounded) = (run::<f64>(&kernel, inputs), run::<f32>(&kernel, inputs));
    for (exact, rounded) in exact.iter().zip(&rounded) {
        assert!(exact.iter().all(|v| !v.is_nan()), "{kernel}: NaN in {exact:?}");
        assert_close(rounded, exact, 2e-5, &kernel.to_string());
    }
    exact
}

fn real(len: usize, seed: u64) -> Input {
    Input::Real(values(len, seed))
}

fn data(input: &Input) -> &[f64] {
    match input {
        Input::Real(values) => values,
        Input::Uint(_) => panic!("not real"),
    }
}

fn map(tail: Tail, x: &[f64]) -> Vec<f64> {
    let source = Source::Operand(Operand { layout: Layout::contiguous(x.len()), len: x.len() as u32 });
    let kernel = Kernel::Elementwise(Elementwise { len: x.len() as u32, source, tail });
    run::<f64>(&kernel, &[Input::Real(x.to_vec())]).remove(0)
}

fn unary(f: Unary, x: &[f64]) -> Vec<f64> {
    map(Tail { operands: vec![], steps: vec![Step::Unary(f)] }, x)
}

/// f'(x) for each x, by the kernel.
fn derivative<T: kiln_reference::Real>(f: Unary, x: &[f64]) -> Vec<f64> {
    let len = x.len() as u32;
    let saved = match f.saved() {
        Saved::Input => x.to_vec(),
        Saved::Output => {
            let source = Source::Operand(Operand { layout: Layout::contiguous(x.len()), len });
            let tail = Tail { operands: vec![], steps: vec![Step::Unary(f)] };
            run::<T>(&Kernel::Elementwise(Elementwise { len, source, tail }), &[Input::Real(x.to_vec())])
                .remove(0)
        }
    };
    let tail = Tail {
        operands: vec![Operand { layout: Layout::contiguous(x.len()), len }],
        steps: vec![Step::UnaryBackward { unary: f, operand: 0 }],
    };
    let kernel = Kernel::Elementwise(Elementwise { len, source: Source::Constant(Real(1.0)), tail });
    run::<T>(&kernel, &[Input::Real(saved)]).remove(0)
}

/// Points off the kinks at 0, ±3 and 6; positive where the function wants it.
fn points(f: Unary) -> Vec<f64> {
    let positive = matches!(f, Unary::Sqrt | Unary::Log);
    let all = [-7.3, -3.4, -2.2, -1.1, -0.3, -0.1, 0.2, 0.4, 0.9, 1.7, 2.6, 3.5, 5.5, 6.4];
    all.into_iter().filter(|&x| !positive || x > 0.0).collect()
}

#[test]
fn unary_functions_follow_their_formulas() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    // Φ by Simpson's rule: shares nothing with the twin's erfc.
    let phi = |x: f64| {
        let density = |t: f64| (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt();
        let (n, h) = (2000, x / 2000.0);
        let inner = (1..n).map(|i| density(f64::from(i) * h) * if i % 2 == 1 { 4.0 } else { 2.0 });
        0.5 + h / 3.0 * (density(0.0) + density(x) + inner.sum::<f64>())
    };
    for f in Unary::ALL {
        let slope = f64::from(f.setting().unwrap_or(0.0));
        let formula = |x: f64| match f {
            Unary::Neg => -x,
            Unary::Abs => x.max(-x),
            Unary::Square => x.powi(2),
            Unary::Sqrt => x.powf(0.5),
            Unary::Exp => std::f64::consts::E.powf(x),
            Unary::Log => x.log2() / std::f64::consts::LOG2_E,
            Unary::Reciprocal => x.powi(-1),
            Unary::Relu => x.max(0.0),
            Unary::Relu6 => x.clamp(0.0, 6.0),
            Unary::LeakyRelu(_) => x.max(0.0) + slope * x.min(0.0),
            Unary::Elu(_) => x.max(0.0) + slope * (x.min(0.0).exp() - 1.0),
            Unary::Selu => {
                let (alpha, scale) = (1.6732632423543772, 1.0507009873554805);
                scale * (x.max(0.0) + alpha * (x.min(0.0).exp() - 1.0))
            }
            Unary::Gelu => x * phi(x),
            Unary::GeluTanh => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + u.tanh())
            }
            Unary::Sigmoid => sigmoid(x),
            Unary::HardSigmoid => (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Unary::Tanh => 2.0 * sigmoid(2.0 * x) - 1.0,
            Unary::Softplus => (1.0 + x.exp()).ln(),
            Unary::Softsign => x / (1.0 + x.abs()),
            Unary::Silu => x * sigmoid(x),
            Unary::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Unary::Mish => x * (1.0 + x.exp()).ln().tanh(),
        };
        let x = points(f);
        let want: Vec<f64> = x.iter().map(|&x| formula(x)).collect();
        assert_close(&unary(f, &x), &want, 1e-12, f.name());
    }
}

#[test]
fn unary_derivatives_are_those_of_the_functions() {
    for f in Unary::ALL {
        let x = points(f);
        let h = 1e-5;
        let shifted = |by: f64| unary(f, &x.iter().map(|x| x + by).collect::<Vec<_>>());
        let want: Vec<f64> =
            shifted(h).iter().zip(shifted(-h)).map(|(up, down)| (up - down) / (2.0 * h)).collect();
        assert_close(&derivative::<f64>(f, &x), &want, 1e-7, f.name());
        assert_close(&derivative::<f32>(f, &x), &want, 2e-5, f.name());
    }
}

#[test]
fn large_arguments_give_finite_values_where_the_truth_is_finite() {
    for f in Unary::ALL {
        for x in [-3e4, -500.0, -89.0, -40.0, 40.0, 87.0, 500.0, 3e4] {
            let no_value = x < 0.0 && matches!(f, Unary::Sqrt | Unary::Log);
            if no_value || (x > 87.0 && f == Unary::Exp) {
                continue;
            }
            let x = [x];
            let (exact, rounded) = (derivative::<f64>(f, &x)[0], derivative::<f32>(f, &x)[0]);
            assert!(
                exact.is_finite() && (rounded - exact).abs() <= 1e-5 * (1.0 + exact.abs()),
                "{f:?} {x:?}"
            );
            let source = Source::Operand(Operand { layout: Layout::contiguous(1), len: 1 });
            let tail = Tail { operands: vec![], steps: vec![Step::Unary(f)] };
            let [y] =
                check(Kernel::Elementwise(Elementwise { len: 1, source, tail }), &[Input::Real(x.to_vec())])
                    .try_into()
                    .unwrap();
            assert!(y[0].is_finite(), "{f:?} {x:?}");
        }
    }
}

#[test]
fn gelu_keeps_its_digits_far_out() {
    // -x Φ(-x) at 10, from tables of the normal distribution's tail: Φ(-10) = 7.619853024160526e-24.
    let y = unary(Unary::Gelu, &[-10.0])[0];
    assert!((y / -7.619853024160526e-23 - 1.0).abs() < 1e-12, "{y}");
}

#[test]
fn binary_steps_broadcast_and_swap() {
    let (rows, columns) = (3, 5);
    let x = values(15, 1);
    for f in Binary::ALL {
        let formula = |a: f64, b: f64| match f {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Maximum => a.max(b),
            Binary::Minimum => a.min(b),
            Binary::Greater => f64::from(u8::from(a > b)),
            Binary::GreaterEqual => f64::from(u8::from(a >= b)),
            Binary::Equal => f64::from(u8::from(a == b)),
            Binary::NotEqual => f64::from(u8::from(a != b)),
            Binary::Mask => [b, 0.0][usize::from(a == 0.0)],
            Binary::Prelu => a.max(0.0) + b * a.min(0.0),
        };
        for swapped in [false, true] {
            let per_row = Operand { layout: Layout::new(0, [(rows, 1), (columns, 0)]), len: 3 };
            let steps = vec![
                Step::Binary { binary: f, operand: 0, swapped },
                Step::Constant { binary: f, value: Real(0.75), swapped },
            ];
            let source = Source::Operand(Operand { layout: Layout::contiguous(15), len: 15 });
            let kernel = Elementwise { len: 15, source, tail: Tail { operands: vec![per_row], steps } };
            let operand = vec![0.5, x[7], -1.5];
            let y =
                check(Kernel::Elementwise(kernel), &[Input::Real(x.clone()), Input::Real(operand.clone())]);
            let apply = |a, b| if swapped { formula(b, a) } else { formula(a, b) };
            let want: Vec<f64> = (0..15).map(|i| apply(apply(x[i], operand[i / 5]), 0.75)).collect();
            assert_close(&y[0], &want, 1e-14, f.name());
        }
    }
}

#[test]
fn elementwise_permutes_and_fills() {
    // [2, 3, 4] read as [4, 2, 3], in a buffer with two elements before.
    let layout = Layout::new(2, [(4, 1), (2, 12), (3, 4)]);
    let x = real(26, 3);
    let kernel = Elementwise {
        len: 24,
        source: Source::Operand(Operand { layout: layout.clone(), len: 26 }),
        tail: Tail::default(),
    };
    let y = check(Kernel::Elementwise(kernel), std::slice::from_ref(&x));
    let want: Vec<f64> = (0..24).map(|i| data(&x)[2 + i / 6 + i / 3 % 2 * 12 + i % 3 * 4]).collect();
    assert_eq!(y[0], want);
    let fill = Elementwise { len: 70_001, source: Source::Constant(Real(2.5)), tail: Tail::default() };
    assert_eq!(check(Kernel::Elementwise(fill), &[])[0], vec![2.5; 70_001]);
}

#[test]
fn reduce_takes_any_axes_in_parts() {
    let layouts = [
        // x [5, 6, 7]: over the last axis, the first, the middle, the outer two, all
        (Layout::new(0, [(5, 42), (6, 7)]), Layout::new(0, [(7, 1)])),
        (Layout::new(0, [(6, 7), (7, 1)]), Layout::new(0, [(5, 42)])),
        (Layout::new(0, [(5, 42), (7, 1)]), Layout::new(0, [(6, 7)])),
        (Layout::new(0, [(7, 1)]), Layout::new(0, [(5, 42), (6, 7)])),
        (Layout::new(0, []), Layout::new(0, [(210, 1)])),
        (Layout::new(0, [(210, 1)]), Layout::new(0, [])),
    ];
    let x = real(210, 5);
    for (kept, reduced) in layouts {
        for op in [ReduceOp::Sum, ReduceOp::Max] {
            let terms = reduced.len();
            for splits in [1, 2, 3, 5].into_iter().filter(|&s| (s - 1) * terms.div_ceil(s) < terms) {
                let tail = if splits == 1 {
                    Tail { operands: vec![], steps: vec![Step::Unary(Unary::Neg)] }
                } else {
                    Tail::default()
                };
                let (kept, reduced) = (kept.clone(), reduced.clone());
                let mut want = Vec::new();
                for part in 0..splits {
                    let chunk = terms.div_ceil(splits);
                    for o in 0..kept.len() {
                        let part = part * chunk..((part + 1) * chunk).min(terms);
                        let values = part.map(|r| data(&x)[kept.at(o) + reduced.at(r)]);
                        let value = match op {
                            ReduceOp::Sum => values.sum(),
                            ReduceOp::Max => values.fold(f64::MIN, f64::max),
                        };
                        want.push(if splits == 1 { -value } else { value });
                    }
                }
                let kernel = Reduce { op, kept, reduced, len: 210, splits: splits as u32, tail };
                let y = check(Kernel::Reduce(kernel), std::slice::from_ref(&x));
                assert_close(&y[0], &want, 1e-13, "reduce");
            }
        }
    }
}

#[test]
fn sums_of_many_outputs_and_long_rows_agree_in_f32() {
    for (outer, inner) in [(300, 70), (3, 50_001), (40_003, 2)] {
        for over_rows in [true, false] {
            let (rows, columns) = (Layout::new(0, [(outer, inner)]), Layout::new(0, [(inner, 1)]));
            let (kept, reduced) = if over_rows { (columns, rows) } else { (rows, columns) };
            let (len, splits) = ((outer * inner) as u32, splits_for(reduced.len(), 1));
            let kernel = Reduce { op: ReduceOp::Sum, kept, reduced, len, splits, tail: Tail::default() };
            let y = check(Kernel::Reduce(kernel), &[real(outer * inner, 2)]);
            let total: f64 = values(outer * inner, 2).iter().sum();
            assert!((y[0].iter().sum::<f64>() - total).abs() < 1e-9);
        }
    }
}

#[test]
fn sum_parts_adds_the_parts_and_leaves_the_rest() {
    let part = |len, splits, from, stride, to| SumPart { len, splits, from, stride, to };
    let tables = [
        vec![part(37, 3, 0, 42, 11), part(5, 3, 37, 42, 0)],
        vec![part(20_000, 4, 1, 20_003, 100), part(1, 1, 0, 1, 99), part(64, 7, 20_100, 64, 20_100)],
        vec![],
    ];
    for parts in tables {
        let end = |p: &SumPart| p.from + (p.splits - 1) * p.stride + p.len;
        let partial_len = parts.iter().map(end).max().unwrap_or(1);
        let gradients_len = parts.iter().map(|p| p.to + p.len).max().unwrap_or(1) + 3;
        let (partial, mut want) = (values(partial_len as usize, 9), values(gradients_len as usize, 10));
        let inputs = [Input::Real(partial.clone()), Input::Real(want.clone())];
        for p in &parts {
            for i in 0..p.len {
                let term = |s| partial[(p.from + s * p.stride + i) as usize];
                want[(p.to + i) as usize] = (0..p.splits).map(term).sum();
            }
        }
        let got = check(Kernel::SumParts(SumParts { parts, partial_len, gradients_len }), &inputs);
        assert_close(&got[0], &want, 1e-15, "sum_parts");
    }
}

/// The product beside the sums of its left factor's rows, whole and in parts.
#[test]
fn matmul_sums_rows_beside_the_product() {
    for (m, n, k) in [(1, 1, 1usize), (10, 64, 64), (65, 3, 130), (300, 2, 1000)] {
        let (a, b) = (values(m * k, 1), values(k * n, 2));
        for (transpose_a, splits) in [(false, 1), (true, 1), (true, 3), (false, 3)] {
            let chunk = k.div_ceil(splits);
            if (splits - 1) * chunk >= k {
                continue;
            }
            let kernel = |row_sums| {
                let [m, n, k, splits] = [m, n, k, splits].map(|v| v as u32);
                let (batch, transpose_b, a_stride, b_stride) = (1, false, 0, 0);
                let tail = Tail::default();
                Kernel::Matmul(Matmul {
                    batch,
                    m,
                    n,
                    k,
                    transpose_a,
                    transpose_b,
                    a_stride,
                    b_stride,
                    splits,
                    row_sums,
                    tail,
                })
            };
            let inputs = [Input::Real(a.clone()), Input::Real(b.clone())];
            let at = |i: usize, t: usize| if transpose_a { a[t * m + i] } else { a[i * k + t] };
            let rows = (0..splits).flat_map(|s| (0..m).map(move |i| (s, i)));
            let sum = |(s, i): (usize, usize)| (s * chunk..((s + 1) * chunk).min(k)).map(|t| at(i, t)).sum();
            let want: Vec<f64> = rows.map(sum).collect();
            let got = check(kernel(true), &inputs);
            assert_eq!(got[0], check(kernel(false), &inputs)[0]);
            assert_close(&got[1], &want, 1e-13, "row sums");
        }
    }
}

/// A dense layer with its loss is the product, the bias and cross entropy one after the other.
#[test]
fn dense_cross_entropy_is_a_product_and_its_loss() {
    for (rows, classes, features) in [(1, 1, 1), (64, 10, 64), (301, 10, 33), (7, 100, 2), (5, 3, 1200)] {
        for (bias, smoothing, gradient) in [
            (true, 0.0, Some(Real(1.0 / 64.0))),
            (false, 0.25, None),
            (true, 0.125, None),
            (false, 0.0, Some(Real(2.0))),
        ] {
            let (x, weight, b) = (real(rows * features, 1), real(classes * features, 2), real(classes, 3));
            // The last label is past the classes.
            let labels: Vec<u32> = (0..rows as u32).map(|r| r * 7 % (classes as u32 + 1)).collect();
            let [rows_, classes_, features_] = [rows, classes, features].map(|v| v as u32);
            let loss = CrossEntropy { rows: rows_, classes: classes_, smoothing: Real(smoothing), gradient };
            let kernel = DenseCrossEntropy { loss: loss.clone(), features: features_, bias };
            let mut inputs = vec![x.clone(), weight.clone()];
            if bias {
                inputs.push(b.clone());
            }
            inputs.push(Input::Uint(labels.clone()));
            let got = check(Kernel::DenseCrossEntropy(kernel), &inputs);
            let logits: Vec<f64> = (0..rows * classes)
                .map(|i| {
                    let (r, c) = (i / classes, i % classes);
                    let terms =
                        (0..features).map(|k| data(&x)[r * features + k] * data(&weight)[c * features + k]);
                    terms.sum::<f64>() + if bias { data(&b)[c] } else { 0.0 }
                })
                .collect();
            assert_close(&got[0], &logits, 1e-13, "logits");
            let want = check(Kernel::CrossEntropy(loss), &[Input::Real(logits), Input::Uint(labels)]);
            assert_eq!(got.len(), want.len() + 1);
            for (got, want) in got[1..].iter().zip(&want) {
                assert_close(got, want, 1e-12, "dense_cross_entropy");
            }
        }
    }
}

#[test]
fn matmul_transposes_batches_and_splits() {
    for (batch, m, n, k) in [(1, 1, 1, 1usize), (1, 7, 5, 9), (3, 4, 6, 5), (1, 65, 33, 130), (5, 70, 3, 17)]
    {
        for setting in 0..16 {
            let [transpose_a, transpose_b, share_a, share_b] = [1, 2, 4, 8].map(|bit| setting & bit != 0);
            for splits in [1, 3].into_iter().filter(|&s| s <= k && (s - 1) * k.div_ceil(s) < k) {
                let (a_stride, b_stride) = (if share_a { 0 } else { m * k }, if share_b { 0 } else { k * n });
                let a = real(if share_a { m * k } else { batch * m * k }, 1);
                let b = real(if share_b { k * n } else { batch * k * n }, 2);
                let bias = real(n, 3);
                let mut inputs = vec![a.clone(), b.clone()];
                let mut tail = Tail::default();
                if splits == 1 {
                    let layout = Layout::new(0, [(batch * m, 0), (n, 1)]);
                    tail.operands.push(Operand { layout, len: n as u32 });
                    tail.steps.push(Step::Binary { binary: Binary::Add, operand: 0, swapped: false });
                    inputs.push(bias.clone());
                }
                let mut want = Vec::new();
                for part in 0..splits {
                    let chunk = k.div_ceil(splits);
                    for p in 0..batch {
                        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                            let terms = part * chunk..((part + 1) * chunk).min(k);
                            let total: f64 = terms
                                .map(|t| {
                                    let at_a = if transpose_a { t * m + i } else { i * k + t };
                                    let at_b = if transpose_b { j * k + t } else { t * n + j };
                                    data(&a)[p * a_stride + at_a] * data(&b)[p * b_stride + at_b]
                                })
                                .sum();
                            want.push(if splits == 1 { total + data(&bias)[j] } else { total });
                        }
                    }
                }
                let [batch, m, n, k, a_stride, b_stride] =
                    [batch, m, n, k, a_stride, b_stride].map(|v| v as u32);
                let splits = splits as u32;
                let kernel = Matmul {
                    batch,
                    m,
                    n,
                    k,
                    transpose_a,
                    transpose_b,
                    a_stride,
                    b_stride,
                    splits,
                    row_sums: false,
                    tail,
                };
                assert_close(&check(Kernel::Matmul(kernel), &inputs)[0], &want, 1e-13, "matmul");
            }
        }
    }
}

const POOL: PoolShape = PoolShape {
    planes: 3,
    in_h: 5,
    in_w: 7,
    out_h: 2,
    out_w: 3,
    kernel_h: 2,
    kernel_w: 2,
    stride_h: 2,
    stride_w: 2,
    pad_top: 0,
    pad_left: 0,
};

/// The usual pooling (odd sizes, many planes), overlapping windows, padding, and windows past the end.
const POOLS: [PoolShape; 5] = [
    POOL,
    PoolShape { planes: 901, in_w: 6, ..POOL },
    PoolShape { out_h: 3, out_w: 5, kernel_h: 3, kernel_w: 3, stride_h: 1, stride_w: 1, ..POOL },
    PoolShape { out_h: 3, out_w: 4, kernel_h: 3, kernel_w: 3, pad_top: 1, pad_left: 1, ..POOL },
    PoolShape { out_h: 5, out_w: 3, kernel_h: 1, kernel_w: 3, stride_h: 1, pad_left: 1, ..POOL },
];

/// The positions of x that each element of y covers, in order, and its count with the padding.
fn windows(s: &PoolShape) -> Vec<(Vec<usize>, usize)> {
    let mut windows = Vec::new();
    for p in 0..s.planes {
        for (oh, ow) in (0..s.out_h).flat_map(|oh| (0..s.out_w).map(move |ow| (oh, ow))) {
            let (mut inside, mut count) = (Vec::new(), 0);
            for (kh, kw) in (0..s.kernel_h).flat_map(|kh| (0..s.kernel_w).map(move |kw| (kh, kw))) {
                let (ih, iw) = (oh * s.stride_h + kh, ow * s.stride_w + kw);
                count += usize::from(ih < s.in_h + 2 * s.pad_top && iw < s.in_w + 2 * s.pad_left);
                let rows = s.pad_top..s.pad_top + s.in_h;
                if rows.contains(&ih) && (s.pad_left..s.pad_left + s.in_w).contains(&iw) {
                    let (ih, iw) = (ih - s.pad_top, iw - s.pad_left);
                    inside.push(((p * s.in_h + ih) * s.in_w + iw) as usize);
                }
            }
            windows.push((inside, count));
        }
    }
    windows
}

#[test]
fn max_pooling_takes_the_first_maximum() {
    for s in POOLS {
        // Few different values, so that there are ties.
        let x: Vec<f64> = values(s.x_len(), 4).iter().map(|v| (v * 2.0).round()).collect();
        let dy = values(s.y_len(), 5);
        let (mut y, mut dx, mut places) = (Vec::new(), vec![0.0; x.len()], Vec::new());
        for (((inside, _), dy), i) in windows(&s).iter().zip(&dy).zip(0u32..) {
            let mut best = inside[0];
            for &at in inside {
                best = if x[at] > x[best] { at } else { best };
            }
            y.push(x[best]);
            dx[best] += dy;
            let (ih, iw) = (best as u32 / s.in_w % s.in_h, best as u32 % s.in_w);
            let (oh, ow) = (i / s.out_w % s.out_h, i % s.out_w);
            let row = ih + s.pad_top - oh * s.stride_h;
            places.push(f64::from(row * s.kernel_w + iw + s.pad_left - ow * s.stride_w));
        }
        let tail = Tail::default();
        let inputs = [Input::Real(x), Input::Real(dy)];
        let got =
            check(Kernel::MaxPool2d(MaxPool2d { shape: s, places: false, tail: tail.clone() }), &inputs[..1]);
        assert_eq!(got[0], y);
        let got =
            check(Kernel::MaxPool2d(MaxPool2d { shape: s, places: true, tail: tail.clone() }), &inputs[..1]);
        assert_eq!((&got[0], &got[1]), (&y, &places));
        let got = check(Kernel::MaxPool2dBackward(MaxPool2dBackward { shape: s, tail }), &inputs);
        assert_close(&got[0], &dx, 1e-14, "max_pool2d_backward");
    }
}

#[test]
fn average_pooling_counts_the_padding_if_told() {
    for (s, count_include_pad) in POOLS.into_iter().flat_map(|s| [(s, false), (s, true)]) {
        let (x, dy) = (values(s.x_len(), 4), values(s.y_len(), 5));
        let (mut y, mut dx) = (Vec::new(), vec![0.0; x.len()]);
        for ((inside, padded), dy) in windows(&s).iter().zip(&dy) {
            let count = if count_include_pad { *padded } else { inside.len() } as f64;
            y.push(inside.iter().map(|&at| x[at]).sum::<f64>() / count);
            inside.iter().for_each(|&at| dx[at] += dy / count);
        }
        let steps = vec![Step::Unary(Unary::Neg)];
        let tail = Tail { operands: vec![], steps };
        let negative = |v: Vec<f64>| v.iter().map(|v| -v).collect::<Vec<_>>();
        let kernel = AvgPool2d { shape: s, count_include_pad, tail: tail.clone() };
        let got = check(Kernel::AvgPool2d(kernel), &[Input::Real(x)]);
        assert_close(&got[0], &negative(y), 1e-14, "avg_pool2d");
        let kernel = AvgPool2dBackward { shape: s, count_include_pad, tail };
        let got = check(Kernel::AvgPool2dBackward(kernel), &[Input::Real(dy)]);
        assert_close(&got[0], &negative(dx), 1e-14, "avg_pool2d_backward");
    }
}

#[test]
fn softmax_and_its_gradient() {
    for (outer, len, inner) in [(4, 10, 1), (2, 3, 5), (1, 1, 1), (700, 11, 3)] {
        let n = outer * len * inner;
        let (x, dy) = (values(n, 1), values(n, 2));
        let row = |i: usize| (0..len).map(move |c| i / (len * inner) * len * inner + c * inner + i % inner);
        for log in [false, true] {
            let softmax = |i: usize| x[i].exp() / row(i).map(|j| x[j].exp()).sum::<f64>();
            let y: Vec<f64> = (0..n).map(|i| if log { softmax(i).ln() } else { softmax(i) }).collect();
            // Σ_j dy_j dy_j/dx_i, from the Jacobian.
            let dx: Vec<f64> = (0..n)
                .map(|i| {
                    let terms = row(i).map(|j| {
                        let same = f64::from(u8::from(i == j));
                        dy[j] * if log { same - softmax(i) } else { softmax(j) * (same - softmax(i)) }
                    });
                    terms.sum()
                })
                .collect();
            let [outer, len, inner] = [outer, len, inner].map(|v| v as u32);
            let got = check(Kernel::Softmax(Softmax { outer, len, inner, log }), &[Input::Real(x.clone())]);
            assert_close(&got[0], &y, 1e-13, "softmax");
            let kernel = Kernel::SoftmaxBackward(SoftmaxBackward { outer, len, inner, log });
            let got = check(kernel, &[Input::Real(y), Input::Real(dy.clone())]);
            assert_close(&got[0], &dx, 1e-13, "softmax_backward");
        }
    }
    let far = Kernel::Softmax(Softmax { outer: 1, len: 3, inner: 1, log: true });
    let y = check(far, &[Input::Real(vec![1e4, -1e4, 1e4])]);
    assert_close(&y[0], &[-2f64.ln(), -2e4 - 2f64.ln(), -2f64.ln()], 1e-12, "log softmax far out");
}

#[test]
fn cross_entropy_loss_hits_and_gradient() {
    let (rows, classes) = (5, 4);
    let mut logits = values(rows * classes, 1);
    // A tie for the first place: the first counts.
    logits[..4].copy_from_slice(&[0.5, 0.75, 0.75, -1.0]);
    // The last label is out of range, and counts as the last class.
    let labels = vec![1, 2, 0, 3, 9];
    for smoothing in [0.0f32, 0.125] {
        let s = f64::from(smoothing);
        let losses = |logits: &[f64]| -> Vec<f64> {
            let row = |r: usize| {
                let x = &logits[r * classes..(r + 1) * classes];
                let log_total = x.iter().map(|x| x.exp()).sum::<f64>().ln();
                let label = (labels[r] as usize).min(classes - 1);
                let q = |c| s / classes as f64 + if c == label { 1.0 - s } else { 0.0 };
                -(0..classes).map(|c| q(c) * (x[c] - log_total)).sum::<f64>()
            };
            (0..rows).map(row).collect()
        };
        let kernel = CrossEntropy {
            rows: rows as u32,
            classes: classes as u32,
            smoothing: Real(smoothing),
            gradient: Some(Real(0.25)),
        };
        let inputs = [Input::Real(logits.clone()), Input::Uint(labels.clone())];
        let got = check(Kernel::CrossEntropy(kernel.clone()), &inputs);
        assert_close(&got[0], &losses(&logits), 1e-14, "losses");
        let first_largest = |r: usize| {
            let x = &logits[r * classes..(r + 1) * classes];
            (0..classes).rev().max_by(|&a, &b| x[a].total_cmp(&x[b])).unwrap()
        };
        let correct: Vec<f64> = (0..rows)
            .map(|r| f64::from(u8::from(first_largest(r) == (labels[r] as usize).min(classes - 1))))
            .collect();
        assert_eq!(got[1], correct);
        assert_eq!(got[1][0], 1.0);
        let h = 1e-6;
        let gradient = |dlosses: &dyn Fn(usize) -> f64| -> Vec<f64> {
            (0..rows * classes)
                .map(|i| {
                    let (mut up, mut down) = (logits.clone(), logits.clone());
                    up[i] += h;
                    down[i] -= h;
                    let r = i / classes;
                    dlosses(r) * (losses(&up)[r] - losses(&down)[r]) / (2.0 * h)
                })
                .collect()
        };
        assert_close(&got[2], &gradient(&|_| 0.25), 1e-8, "dlogits");
        let without = Kernel::CrossEntropy(CrossEntropy { gradient: None, ..kernel.clone() });
        assert_eq!(check(without, &inputs), got[..2]);
        let dlosses = values(rows, 8);
        let backward =
            CrossEntropyBackward { rows: rows as u32, classes: classes as u32, smoothing: Real(smoothing) };
        let [logits_input, labels_input] = inputs;
        let inputs = [logits_input, labels_input, Input::Real(dlosses.clone())];
        let got = check(Kernel::CrossEntropyBackward(backward), &inputs);
        assert_close(&got[0], &gradient(&|r| dlosses[r]), 1e-8, "cross_entropy_backward");
    }
}

#[test]
fn dropout_draws_from_its_stream() {
    let len = 40_003;
    let x = values(len, 1);
    let clock = vec![17, 0, 0, 5, 6, 0, 0, 0];
    let kernel = Dropout { len: len as u32, rate: Real(0.3), group: 1, stream: 9, tail: Tail::default() };
    let y = check(Kernel::Dropout(kernel), &[Input::Real(x.clone()), Input::Uint(clock)]);
    let stream = Stream { seed: 5 | 6 << 32, stream: 9, step: 17 };
    let scale = 1.0 / (1.0 - f64::from(0.3f32));
    let want: Vec<f64> =
        (0..len).map(|i| if stream.uniform(i as u32) >= 0.3 { x[i] * scale } else { 0.0 }).collect();
    assert_close(&y[0], &want, 1e-15, "dropout");
    let dropped = y[0].iter().filter(|&&y| y == 0.0).count() as f64 / len as f64;
    assert!((dropped - 0.3).abs() < 0.01, "{dropped}");
}

#[test]
fn gather_follows_the_order_from_the_cursor() {
    let (items, row_len, rows) = (5, 6, 4);
    let order = [3, 0, 4, 1, 2];
    // The batch passes the end: its last row is the last of the order again.
    let clock = vec![9, 9, 2, 0, 0, 0, 0, 0];
    let picked = [4, 1, 2, 2];
    let (scale, shift) = (vec![Real(0.5), Real(2.0)], vec![Real(0.25), Real(-1.0)]);
    let factor = |j: usize| if j < 3 { (0.5, 0.25) } else { (2.0, -1.0) };
    let kernel = |dtype| Gather {
        rows,
        items,
        row_len,
        dtype,
        reversed: false,
        scale: scale.clone(),
        shift: shift.clone(),
    };
    let want = |value: &dyn Fn(usize) -> f64| -> Vec<f64> {
        let at = |(r, j): (usize, usize)| value(picked[r] * 6 + j) * factor(j).0 + factor(j).1;
        (0..4).flat_map(|r| (0..6).map(move |j| (r, j))).map(at).collect()
    };
    let shared = [Input::Uint(order.to_vec()), Input::Uint(clock)];
    let with = |data: Input| [data, shared[0].clone(), shared[1].clone()];

    let bytes: Vec<u8> = (0..32).map(|i| (i * 37 % 256) as u8).collect();
    let words = bytes.chunks(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let y = check(Kernel::Gather(kernel(GatherType::U8)), &with(Input::Uint(words)));
    assert_eq!(y[0], want(&|i| f64::from(bytes[i])));

    let x = values(30, 1);
    let y = check(Kernel::Gather(kernel(GatherType::F32)), &with(Input::Real(x.clone())));
    assert_close(&y[0], &want(&|i| x[i]), 1e-15, "gather_f32");

    let labels: Vec<u32> = (100..130).collect();
    let kernel = Gather { scale: vec![], shift: vec![], ..kernel(GatherType::U32) };
    let y = check(Kernel::Gather(kernel), &with(Input::Uint(labels)));
    let plain: Vec<f64> = picked.iter().flat_map(|p| (0..6).map(move |j| (100 + p * 6 + j) as f64)).collect();
    assert_eq!(y[0], plain);
}

#[test]
fn accumulate_adds_to_the_totals() {
    let kernel = Accumulate { sources: vec![(4000, Real(0.5)), (3, Real(1.0))] };
    let (first, second) = (values(4000, 1), values(3, 2));
    let want = [10.0 + 0.5 * first.iter().sum::<f64>(), 20.0 + second.iter().sum::<f64>()];
    let inputs = [Input::Real(vec![10.0, 20.0]), Input::Real(first), Input::Real(second)];
    assert_close(&check(Kernel::Accumulate(kernel), &inputs)[0], &want, 1e-13, "accumulate");
}

#[test]
fn scaled_gradients_add_up() {
    let (sum, x) = (values(70_001, 1), values(70_001, 2));
    let want: Vec<f64> = sum.iter().zip(&x).map(|(sum, x)| sum - 1.5 * x).collect();
    let kernel = AddScaled { len: 70_001, factor: Real(-1.5) };
    let got = check(Kernel::AddScaled(kernel), &[Input::Real(sum), Input::Real(x)]);
    assert_close(&got[0], &want, 1e-15, "add_scaled");
}

/// The settings of every block: a learning rate factor of 1, and this weight decay.
fn groups(len: usize, decay: f64) -> Input {
    Input::Real([1.0, decay].repeat(len.div_ceil(GROUP_BLOCK)))
}

#[test]
fn sgd_in_its_three_forms() {
    let len = 20_001;
    let (w, g, v) = (values(len, 1), values(len, 2), values(len, 3));
    // Row 1 of the table; a clock past the end reads the last.
    let hyper = Input::Real(vec![9.0, 1.0, 1.0, 0.0, 0.125, 1.0, 1.0, 0.0]);
    for (momentum, nesterov, row) in [(0.0, false, 1), (0.5, false, 1), (0.5, true, 99)] {
        let kernel = Sgd { len: len as u32, hyper_rows: 2, momentum: Real(momentum), nesterov };
        let clock = Input::Uint(vec![0, row, 0, 0, 0, 0, 0, 0]);
        let groups = groups(len, 0.25);
        let mut inputs = vec![Input::Real(w.clone()), Input::Real(g.clone()), hyper.clone(), clock, groups];
        if momentum > 0.0 {
            inputs.push(Input::Real(v.clone()));
        }
        let got = check(Kernel::Sgd(kernel), &inputs);
        let g: Vec<f64> = w.iter().zip(&g).map(|(w, g)| g + 0.25 * w).collect();
        let velocity: Vec<f64> =
            g.iter().zip(&v).map(|(g, v)| if momentum > 0.0 { 0.5 * v + g } else { *g }).collect();
        let step = |i: usize| if nesterov { g[i] + 0.5 * velocity[i] } else { velocity[i] };
        let want: Vec<f64> = (0..len).map(|i| w[i] - 0.125 * step(i)).collect();
        assert_close(&got[0], &want, 1e-14, "sgd");
        if momentum > 0.0 {
            assert_close(&got[1], &velocity, 1e-14, "sgd's velocity");
        }
    }
}

#[test]
fn adam_and_adamw() {
    let len = 20_001;
    let (w, g, m) = (values(len, 1), values(len, 2), values(len, 3));
    let v: Vec<f64> = values(len, 4).iter().map(|v| v * v).collect();
    let (c1, c2, lr) = (0.4375, 0.625, 0.0078125);
    for decoupled in [false, true] {
        let kernel = Adam {
            len: len as u32,
            hyper_rows: 1,
            beta1: Real(0.875),
            beta2: Real(0.75),
            eps: Real(0.0625),
            decoupled,
            amsgrad: false,
        };
        let inputs = [
            Input::Real(w.clone()),
            Input::Real(g.clone()),
            Input::Real(vec![lr, c1, c2, 0.0]),
            Input::Uint(vec![0; 8]),
            groups(len, 0.5),
            Input::Real(m.clone()),
            Input::Real(v.clone()),
        ];
        let got = check(Kernel::Adam(kernel), &inputs);
        for i in 0..len {
            let (w, g) = if decoupled { (w[i] * (1.0 - lr * 0.5), g[i]) } else { (w[i], g[i] + 0.5 * w[i]) };
            let m = 0.875 * m[i] + 0.125 * g;
            let v = 0.75 * v[i] + 0.25 * g * g;
            let w = w - lr * (m / c1) / ((v / c2).sqrt() + 0.0625);
            assert_close(&[got[0][i], got[1][i], got[2][i]], &[w, m, v], 1e-14, "adam");
        }
    }
}

#[test]
fn advance_moves_the_clock() {
    let clock = Input::Uint(vec![5, 6, 7, 8, 9, 0, 0, 0]);
    let training = Kernel::Advance(Advance::step(64));
    assert_eq!(check(training, std::slice::from_ref(&clock))[0], [6.0, 7.0, 71.0, 8.0, 9.0, 0.0, 0.0, 0.0]);
    let evaluation = Kernel::Advance(Advance::rows(64));
    assert_eq!(check(evaluation, std::slice::from_ref(&clock))[0], [5.0, 6.0, 71.0, 8.0, 9.0, 0.0, 0.0, 0.0]);
    // what is added wraps, so that a cursor can be taken back
    let back = Kernel::Advance(Advance { batch: 0u32.wrapping_sub(3), draws: u32::MAX, steps: 0 });
    assert_eq!(check(back, &[clock])[0], [4.0, 6.0, 4.0, 8.0, 9.0, 0.0, 0.0, 0.0]);
}

/// The convolutions' own formulas are tested beside them; here tails, and f32 against f64 at larger shapes.
#[test]
fn convolutions_with_tails_agree_in_f32() {
    let base = ConvShape {
        batch: 37,
        in_channels: 6,
        in_h: 13,
        in_w: 13,
        out_channels: 10,
        out_h: 11,
        out_w: 11,
        kernel_h: 3,
        kernel_w: 3,
        stride_h: 1,
        stride_w: 1,
        pad_top: 0,
        pad_left: 0,
        dilation_h: 1,
        dilation_w: 1,
        groups: 1,
    };
    let shapes = [
        base,
        ConvShape { out_h: 13, out_w: 13, pad_top: 1, pad_left: 1, ..base },
        ConvShape { in_h: 5, in_w: 5, out_h: 3, out_w: 3, ..base },
        ConvShape { out_h: 6, out_w: 6, stride_h: 2, stride_w: 2, groups: 2, ..base },
        ConvShape { batch: 1, ..base },
        // by tiles; few channels, since the tolerance knows nothing of how many terms are added
        ConvShape { in_channels: 16, out_channels: 16, batch: 6, ..base },
    ];
    for s in shapes {
        let (x, w, dy) = (real(s.x_len(), 1), real(s.weight_len(), 2), real(s.y_len(), 3));
        let bias = real(s.out_channels as usize, 4);
        let plane = (s.out_h * s.out_w) as usize;
        let per_channel = Layout::new(0, [(s.batch as usize, 0), (s.out_channels as usize, 1), (plane, 0)]);
        let tail = Tail {
            operands: vec![Operand { layout: per_channel, len: s.out_channels }],
            steps: vec![
                Step::Binary { binary: Binary::Add, operand: 0, swapped: false },
                Step::Unary(Unary::Relu),
            ],
        };
        let fused = Kernel::Conv2d(Conv2d { shape: s, pool: Pooling::None, tail });
        let y = check(fused, &[x.clone(), w.clone(), bias.clone()]);
        let bare = check(
            Kernel::Conv2d(Conv2d { shape: s, pool: Pooling::None, tail: Tail::default() }),
            &[x.clone(), w.clone()],
        );
        let want: Vec<f64> = (bare[0].iter().enumerate())
            .map(|(i, y)| (y + data(&bias)[i / plane % s.out_channels as usize]).max(0.0))
            .collect();
        assert_close(&y[0], &want, 1e-14, "conv2d with a tail");

        let tail = Tail {
            operands: vec![Operand { layout: Layout::contiguous(s.x_len()), len: s.x_len() as u32 }],
            steps: vec![Step::UnaryBackward { unary: Unary::Relu, operand: 0 }],
        };
        let fused = Kernel::Conv2dBackwardInput(Conv2dBackwardInput { shape: s, unpool: false, tail });
        let dx = check(fused, &[dy.clone(), w.clone(), x.clone()]);
        let bare = Kernel::Conv2dBackwardInput(Conv2dBackwardInput {
            shape: s,
            unpool: false,
            tail: Tail::default(),
        });
        let bare = check(bare, &[dy.clone(), w]);
        let want: Vec<f64> =
            bare[0].iter().zip(data(&x)).map(|(&d, &x)| if x > 0.0 { d } else { 0.0 }).collect();
        assert_close(&dx[0], &want, 1e-14, "conv2d_backward_input with a tail");

        let terms = s.batch as usize * plane;
        for splits in [splits_for(terms, 1), 3] {
            let kernel = Conv2dBackwardWeight { shape: s, splits, bias: true, unpool: false };
            check(Kernel::Conv2dBackwardWeight(kernel), &[x.clone(), dy.clone()]);
        }
    }
}

/// Pooled forward, and back through the places that were found: what the three kernels give one after the other.
#[test]
fn pooled_convolutions_are_compositions() {
    let base = ConvShape {
        batch: 37,
        in_channels: 6,
        in_h: 13,
        in_w: 13,
        out_channels: 10,
        out_h: 10,
        out_w: 10,
        kernel_h: 3,
        kernel_w: 3,
        stride_h: 1,
        stride_w: 1,
        pad_top: 0,
        pad_left: 0,
        dilation_h: 1,
        dilation_w: 1,
        groups: 1,
    };
    let shapes = [
        base,
        ConvShape { in_channels: 1, in_h: 28, in_w: 28, out_h: 26, out_w: 26, batch: 5, ..base },
        ConvShape { out_h: 12, out_w: 12, pad_top: 1, pad_left: 1, ..base },
        ConvShape { out_h: 6, out_w: 6, stride_h: 2, stride_w: 2, groups: 2, ..base },
        ConvShape { batch: 1, ..base },
        // by tiles; few channels, since the tolerance knows nothing of how many terms are added
        ConvShape { in_channels: 16, out_channels: 16, batch: 6, ..base },
    ];
    for s in shapes {
        let (x, w, bias) = (real(s.x_len(), 1), real(s.weight_len(), 2), real(s.out_channels as usize, 4));
        let plane = (s.out_h * s.out_w) as usize;
        let per_channel =
            Layout::new(0, [(s.batch as usize, 0), (s.out_channels as usize, 1), (plane / 4, 0)]);
        let tail = Tail {
            operands: vec![Operand { layout: per_channel, len: s.out_channels }],
            steps: vec![
                Step::Binary { binary: Binary::Add, operand: 0, swapped: false },
                Step::Unary(Unary::Relu),
            ],
        };
        let conv = |pool| Kernel::Conv2d(Conv2d { shape: s, pool, tail: tail.clone() });
        let forward = [x.clone(), w.clone(), bias.clone()];
        let bare = Kernel::Conv2d(Conv2d { shape: s, pool: Pooling::None, tail: Tail::default() });
        let whole = check(bare, &forward[..2]).remove(0);
        let shape = PoolShape {
            planes: s.batch * s.out_channels,
            in_h: s.out_h,
            in_w: s.out_w,
            out_h: s.out_h / 2,
            out_w: s.out_w / 2,
            kernel_h: 2,
            kernel_w: 2,
            stride_h: 2,
            stride_w: 2,
            pad_top: 0,
            pad_left: 0,
        };
        let none = Tail::default;
        let pool = |tail| Kernel::MaxPool2d(MaxPool2d { shape, places: true, tail });
        let largest = check(pool(none()), &[Input::Real(whole.clone())]).remove(0);
        let want = check(pool(tail.clone()), &[Input::Real(whole.clone()), bias]);
        assert_eq!(run::<f64>(&conv(Pooling::MaxAndPlaces), &forward), want);
        assert_eq!(check(conv(Pooling::Max), &forward)[0], want[0]);
        // Rounding may decide between equal results, but the values stay.
        let rounded = run::<f32>(&conv(Pooling::MaxAndPlaces), &forward);
        assert_close(&rounded[0], &want[0], 2e-5, "pooled in f32");
        for (i, &place) in rounded[1].iter().enumerate() {
            let (p, oh, ow) =
                (i / (plane / 4), i % (plane / 4) * 2 / s.out_w as usize, i * 2 % s.out_w as usize);
            let (row, column) = (2 * oh + place as usize / 2, ow + place as usize % 2);
            let there = whole[p * plane + row * s.out_w as usize + column];
            assert_close(&[there], &[largest[i]], 2e-5, "the place in f32");
        }

        let dy = real(shape.y_len(), 3);
        let unpool = Kernel::MaxPool2dBackward(MaxPool2dBackward { shape, tail: none() });
        let spread = Input::Real(check(unpool, &[Input::Real(whole), dy.clone()]).remove(0));
        let places = Input::Uint(want[1].iter().map(|&p| p as u32).collect());
        let gradient =
            |unpool| Kernel::Conv2dBackwardInput(Conv2dBackwardInput { shape: s, unpool, tail: none() });
        let want = check(gradient(false), &[spread.clone(), w.clone()]);
        assert_eq!(check(gradient(true), &[dy.clone(), w, places.clone()]), want);
        for splits in [1, 3, splits_for(s.batch as usize * plane, 1)] {
            let gradient = |unpool| {
                Kernel::Conv2dBackwardWeight(Conv2dBackwardWeight { shape: s, splits, bias: true, unpool })
            };
            let want = check(gradient(false), &[x.clone(), spread.clone()]);
            assert_eq!(check(gradient(true), &[x.clone(), dy.clone(), places.clone()]), want);
        }
    }
}

#[test]
fn pad_puts_a_border_around_two_axes() {
    let (outer, rows, middle, columns, inner) = (2, 3, 2, 4, 5);
    let x = values(outer * rows * middle * columns * inner, 1);
    for [top, bottom, left, right] in [[0, 0, 0, 0], [1, 2, 0, 3], [0, 0, 2, 0], [3, 0, 0, 0]] {
        let kernel = Pad {
            outer: 2,
            rows: 3,
            middle: 2,
            columns: 4,
            inner: 5,
            row_before: top,
            row_after: bottom,
            column_before: left,
            column_after: right,
            value: Real(0.5),
            tail: Tail { operands: vec![], steps: vec![Step::Unary(Unary::Neg)] },
        };
        let mut want = Vec::new();
        for o in 0..outer {
            for r in 0..rows + (top + bottom) as usize {
                for (m, c) in
                    (0..middle).flat_map(|m| (0..columns + (left + right) as usize).map(move |c| (m, c)))
                {
                    for k in 0..inner {
                        let (r, c) = (r.wrapping_sub(top as usize), c.wrapping_sub(left as usize));
                        let inside = r < rows && c < columns;
                        let at = || (((o * rows + r) * middle + m) * columns + c) * inner + k;
                        want.push(if inside { -x[at()] } else { -0.5 });
                    }
                }
            }
        }
        let y = check(Kernel::Pad(kernel), &[Input::Real(x.clone())]);
        assert_close(&y[0], &want, 1e-15, "pad");
    }
}

#[test]
fn concat_puts_rows_side_by_side() {
    for widths in [&[1u32, 4][..], &[2, 1, 3], &[1, 1, 1, 2]] {
        let sources: Vec<Vec<f64>> =
            widths.iter().zip(1..).map(|(&w, seed)| values(3 * w as usize, seed)).collect();
        let rows = (0..3).flat_map(|o| {
            let part =
                move |(source, &w): (&Vec<f64>, &u32)| source[o * w as usize..(o + 1) * w as usize].to_vec();
            sources.iter().zip(widths).flat_map(part).collect::<Vec<f64>>()
        });
        let want: Vec<f64> = rows.collect();
        let kernel = Concat { outer: 3, widths: widths.to_vec(), tail: Tail::default() };
        let inputs: Vec<Input> = sources.iter().cloned().map(Input::Real).collect();
        assert_eq!(check(Kernel::Concat(kernel), &inputs)[0], want);
    }
}

#[test]
fn embeddings_read_rows_and_their_gradient_adds_them() {
    let (entries, width) = (4, 3);
    // the last is past the table
    let indices = vec![2, 0, 2, 1, 9];
    let picked = [2, 0, 2, 1, 3];
    let (weight, dy) = (values(12, 1), values(15, 2));
    let kernel = Embedding { rows: 5, entries: 4, width: 3, tail: Tail::default() };
    let y = check(Kernel::Embedding(kernel), &[Input::Real(weight.clone()), Input::Uint(indices.clone())]);
    let want: Vec<f64> = picked.iter().flat_map(|&v| weight[v * width..(v + 1) * width].to_vec()).collect();
    assert_eq!(y[0], want);
    for splits in [1, 2] {
        let kernel = EmbeddingBackward { rows: 5, entries: 4, width: 3, splits };
        let inputs = [Input::Real(dy.clone()), Input::Uint(indices.clone())];
        let dweight = check(Kernel::EmbeddingBackward(kernel), &inputs);
        let chunk = 5usize.div_ceil(splits as usize);
        let mut want = vec![0.0; splits as usize * entries * width];
        for (r, v) in picked.into_iter().enumerate() {
            for d in 0..width {
                want[(r / chunk * entries + v) * width + d] += dy[r * width + d];
            }
        }
        assert_close(&dweight[0], &want, 1e-15, "embedding_backward");
    }
}

#[test]
fn to_indices_rounds_and_saturates() {
    let x = vec![0.5, 1.5, 2.4, -3.0, 1e30, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let want = [0.0, 2.0, 2.0, 0.0, 4_294_967_040.0, 0.0, 4_294_967_040.0, 0.0];
    let kernel = Kernel::ToIndices(ToIndices { len: 8 });
    assert_eq!(run::<f64>(&kernel, &[Input::Real(x.clone())])[0], want);
    assert_eq!(run::<f32>(&kernel, &[Input::Real(x)])[0], want);
}

/// Means and variances of numbers that lie far from zero, whole and in parts that are joined.
#[test]
fn moments_whole_and_in_parts() {
    let strides = [(2usize, 105usize), (15, 7), (7, 1)];
    let x: Vec<f64> = values(210, 3).iter().map(|v| v + 300.0).collect();
    for kept_axes in [[true, false, false], [false, true, false], [false, false, true], [true, true, false]] {
        let part = |kept: bool| {
            Layout::new(0, strides.iter().zip(kept_axes).filter(|(_, k)| *k == kept).map(|(&s, _)| s))
        };
        let (kept, reduced) = (part(true), part(false));
        let (outputs, terms) = (kept.len(), reduced.len());
        let mut want = [Vec::new(), Vec::new(), Vec::new()];
        for o in 0..outputs {
            let taken: Vec<f64> = (0..terms).map(|r| x[kept.at(o) + reduced.at(r)]).collect();
            let mean = taken.iter().sum::<f64>() / terms as f64;
            let variance = taken.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / terms as f64;
            want[0].push(mean);
            want[1].push(variance);
            want[2].push(1.0 / (variance + f64::from(1e-3f32)).sqrt());
        }
        for splits in [1, 2, 3].into_iter().filter(|s| (s - 1) * terms.div_ceil(*s) < terms) {
            let eps = Real(1e-3);
            let moments = Moments {
                kept: kept.clone(),
                reduced: reduced.clone(),
                len: 210,
                splits: splits as u32,
                eps,
            };
            let mut got = check(Kernel::Moments(moments), &[Input::Real(x.clone())]);
            if splits > 1 {
                let (outputs, terms, splits) = (outputs as u32, terms as u32, splits as u32);
                let finish = MomentsFinish { outputs, terms, splits, eps };
                got = check(Kernel::MomentsFinish(finish), &[Input::Real(got.remove(0))]);
            }
            for (got, want) in got.iter().zip(&want) {
                assert_close(got, want, 1e-11, "moments");
            }
        }
    }
}

#[test]
fn moving_averages_forget() {
    let lens = [3usize, 5, 1, 4];
    for count in 1..=4 {
        let pairs: Vec<(u32, Real)> =
            lens[..count].iter().zip([0.1, 0.5, 1.0, 0.0]).map(|(&l, m)| (l as u32, Real(m))).collect();
        let mut inputs = Vec::new();
        let mut want = Vec::new();
        for (&(len, momentum), seed) in pairs.iter().zip(1..) {
            let (running, value) = (values(len as usize, seed), values(len as usize, seed + 10));
            let m = f64::from(momentum.0);
            want.push(running.iter().zip(&value).map(|(r, v)| r + m * (v - r)).collect::<Vec<f64>>());
            inputs.extend([Input::Real(running), Input::Real(value)]);
        }
        let got = check(Kernel::MovingAverage(MovingAverage { pairs }), &inputs);
        for (got, want) in got.iter().zip(&want) {
            assert_close(got, want, 1e-15, "moving_average");
        }
    }
}

#[test]
fn random_normal_draws_from_its_stream() {
    let len = 50_001;
    let clock = vec![17, 0, 0, 5, 6, 0, 0, 0];
    let tail = Tail { operands: vec![], steps: vec![Step::Unary(Unary::Neg)] };
    let kernel = RandomNormal { len: len as u32, stream: 9, tail };
    let y = check(Kernel::RandomNormal(kernel), &[Input::Uint(clock)]).remove(0);
    let stream = Stream { seed: 5 | 6 << 32, stream: 9, step: 17 };
    let want: Vec<f64> = (0..len).map(|i| -f64::from(stream.normal(i as u32))).collect();
    assert_eq!(y, want);
    // mean, variance and fourth moment of the standard normal distribution: 0, 1 and 3
    let moment = |power: i32| y.iter().map(|v| v.powi(power)).sum::<f64>() / len as f64;
    let (mean, variance, fourth) = (moment(1), moment(2), moment(4));
    assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03 && (fourth - 3.0).abs() < 0.2);
}

#[test]
fn dropout_in_groups_keeps_or_drops_them_whole() {
    let (len, group) = (30_000, 6);
    let clock = vec![17, 0, 0, 5, 6, 0, 0, 0];
    let x = values(len, 4);
    let kernel = Dropout { len: len as u32, rate: Real(0.3), group: 6, stream: 9, tail: Tail::default() };
    let y = check(Kernel::Dropout(kernel), &[Input::Real(x.clone()), Input::Uint(clock)]);
    let stream = Stream { seed: 5 | 6 << 32, stream: 9, step: 17 };
    let scale = 1.0 / (1.0 - f64::from(0.3f32));
    let want: Vec<f64> = (0..len)
        .map(|i| if stream.uniform((i / group) as u32) >= 0.3 { x[i] * scale } else { 0.0 })
        .collect();
    assert_close(&y[0], &want, 1e-15, "dropout in groups");
}
