//! Convolutions by tiles against the plain loops, in double precision, where what is left is not rounding.

use kiln_kernel::{
    Binary, Conv2d, Conv2dBackwardWeight, ConvShape, Layout, Operand, Pooling, Step, Tail, Unary,
};

use crate::{
    conv2d::conv2d,
    conv2d_backward_input::conv2d_backward_input,
    conv2d_backward_weight::conv2d_backward_weight,
    gradient::Gradient,
    tail::BoundTail,
    testing::{assert_close, tiled_shapes, unpooled, values, whole_windows},
    winograd::is_possible,
    winograd_forward::{backward_input_winograd, conv2d_winograd},
    winograd_weight::backward_weight_winograd,
};

/// A tail that reads an operand at each of `len` results.
fn tail(len: usize) -> Tail {
    Tail {
        operands: vec![Operand { layout: Layout::contiguous(len), len: len as u32 }],
        steps: vec![
            Step::Binary { binary: Binary::Add, operand: 0, swapped: false },
            Step::Unary(Unary::Relu),
        ],
    }
}

#[test]
fn results_are_those_of_the_plain_loop() {
    for s in tiled_shapes() {
        assert!(is_possible(&s), "{s:?}");
        let (x, weight, each) = (values(s.x_len(), 1), values(s.weight_len(), 2), values(s.y_len(), 3));
        let tail = tail(each.len());
        let bound = BoundTail::new(&tail, vec![&each]);
        let (mut want, mut got) = (vec![f64::NAN; s.y_len()], vec![f64::NAN; s.y_len()]);
        let kernel = Conv2d { shape: s, pool: Pooling::None, tail: tail.clone() };
        conv2d(&kernel, &x, &weight, &mut want, &mut [], &bound);
        conv2d_winograd(&s, Pooling::None, &x, &weight, &mut got, &mut [], &bound);
        assert_close(&got, &want, 1e-12);
    }
}

#[test]
fn pooled_results_are_those_of_the_plain_loop() {
    for s in whole_windows(tiled_shapes()) {
        let len = s.y_len() / 4;
        let (x, weight, each) = (values(s.x_len(), 1), values(s.weight_len(), 2), values(len, 3));
        let tail = tail(len);
        let bound = BoundTail::new(&tail, vec![&each]);
        let mut want = vec![f64::NAN; len];
        let kernel = Conv2d { shape: s, pool: Pooling::Max, tail: tail.clone() };
        conv2d(&kernel, &x, &weight, &mut want, &mut [], &bound);
        let (mut got, mut places) = (vec![f64::NAN; len], vec![9; len]);
        conv2d_winograd(&s, Pooling::MaxAndPlaces, &x, &weight, &mut got, &mut places, &bound);
        assert_close(&got, &want, 1e-12);
        // Of equal results any may win, since rounding tells them apart.
        let none = Tail::default();
        let mut whole = vec![f64::NAN; s.y_len()];
        let kernel = Conv2d { shape: s, pool: Pooling::None, tail: none.clone() };
        conv2d(&kernel, &x, &weight, &mut whole, &mut [], &BoundTail::new(&none, Vec::new()));
        let width = s.out_w as usize;
        let values: Vec<[f64; 2]> = places
            .iter()
            .enumerate()
            .map(|(i, &place)| {
                let corner = i / (width / 2) * 2 * width + i % (width / 2) * 2;
                let window = [0, 1, width, width + 1].map(|at| whole[corner + at]);
                [window[place as usize], window.into_iter().fold(f64::NEG_INFINITY, f64::max)]
            })
            .collect();
        let [there, largest] = [0, 1].map(|k| values.iter().map(|v| v[k]).collect::<Vec<f64>>());
        assert_close(&there, &largest, 1e-12);
        got.fill(f64::NAN);
        conv2d_winograd(&s, Pooling::Max, &x, &weight, &mut got, &mut [], &bound);
        assert_close(&got, &want, 1e-12);
    }
}

#[test]
fn input_gradients_are_those_of_the_plain_loop() {
    let check = |s: ConvShape, dy: &[f64], places: Option<&[u32]>| {
        let (weight, each) = (values(s.weight_len(), 2), values(s.x_len(), 4));
        let tail = tail(each.len());
        let bound = BoundTail::new(&tail, vec![&each]);
        let (mut want, mut got) = (vec![f64::NAN; s.x_len()], vec![f64::NAN; s.x_len()]);
        let kernel =
            kiln_kernel::Conv2dBackwardInput { shape: s, unpool: places.is_some(), tail: tail.clone() };
        conv2d_backward_input(&kernel, dy, &weight, &mut want, places, &bound);
        backward_input_winograd(&s, &Gradient::new(&s, dy, places), &weight, &mut got, &bound);
        assert_close(&got, &want, 1e-12);
    };
    for s in tiled_shapes() {
        check(s, &values(s.y_len(), 3), None);
    }
    for s in whole_windows(tiled_shapes()) {
        let dy = values(s.y_len() / 4, 3);
        check(s, &dy, Some(&unpooled(&s, &dy).0));
    }
}

#[test]
fn weight_gradients_are_those_of_the_plain_loop() {
    let check = |s: ConvShape, dy: &[f64], places: Option<&[u32]>| {
        let x = values(s.x_len(), 1);
        let terms = (s.batch * s.out_h * s.out_w) as usize;
        for splits in [1, 2, 3, 7].into_iter().filter(|&n| (n - 1) * terms.div_ceil(n) < terms) {
            for bias in [false, true] {
                let unpool = places.is_some();
                let kernel = Conv2dBackwardWeight { shape: s, splits: splits as u32, bias, unpool };
                let part = s.weight_len() + if bias { s.out_channels as usize } else { 0 };
                let (mut want, mut got) = (vec![f64::NAN; splits * part], vec![f64::NAN; splits * part]);
                conv2d_backward_weight(&kernel, &x, dy, &mut want, places);
                backward_weight_winograd(&kernel, &x, &Gradient::new(&s, dy, places), &mut got);
                assert_close(&got, &want, 1e-11);
            }
        }
    };
    for s in tiled_shapes() {
        check(s, &values(s.y_len(), 3), None);
    }
    for s in whole_windows(tiled_shapes()) {
        let dy = values(s.y_len() / 4, 3);
        check(s, &dy, Some(&unpooled(&s, &dy).0));
    }
}
