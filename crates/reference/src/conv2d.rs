use kiln_kernel::{Conv2d, ConvShape, Pooling};

use crate::{
    gemm::{Matrix, Threads, gemm},
    max_pool2d::{first_maxima, windows_2x2},
    parallel::{BLOCK, for_blocks, for_blocks_of_two, items_per_block},
    patches::{Patches, images_per_block},
    pool2x2::pool,
    real::{Real, with_scratch},
    tail::BoundTail,
    window::Tap,
    winograd::{self, Tiles},
    winograd_forward::conv2d_winograd,
};

/// `y[n, oc, oh, ow] = tail(Σ_{c, kh, kw} weight[oc, c, kh, kw] · x[n, group(oc) + c, ih, iw])`, or of each 2 x 2 window of
/// these the largest and, unless `places` is empty, its place.
pub(crate) fn conv2d<T: Real>(
    kernel: &Conv2d,
    x: &[T],
    weight: &[T],
    y: &mut [T],
    places: &mut [u32],
    tail: &BoundTail<'_, T>,
) {
    let s = &kernel.shape;
    match (T::FAST, kernel.pool) {
        (true, pool) if winograd::pays(s, &Tiles::forward(s)) => {
            conv2d_winograd(s, pool, x, weight, y, places, tail);
        }
        (true, pool) => conv2d_gemm(s, pool, x, weight, y, places, tail),
        (false, Pooling::None) => conv2d_plain(s, x, weight, y, tail),
        (false, Pooling::Max | Pooling::MaxAndPlaces) => pooled_plain(s, x, weight, y, places, tail),
    }
}

fn conv2d_plain<T: Real>(s: &ConvShape, x: &[T], weight: &[T], y: &mut [T], tail: &BoundTail<'_, T>) {
    let plane = (s.out_h * s.out_w) as usize;
    for_blocks(y, plane * items_per_block(plane * s.taps()), |start, block| {
        for (i, y) in block.chunks_exact_mut(plane).enumerate() {
            plain_plane(s, x, weight, start / plane + i, y);
        }
        tail.apply(start, block);
    });
}

/// Each plane as it is, then its windows.
fn pooled_plain<T: Real>(
    s: &ConvShape,
    x: &[T],
    weight: &[T],
    y: &mut [T],
    places: &mut [u32],
    tail: &BoundTail<'_, T>,
) {
    let plane = (s.out_h * s.out_w) as usize;
    let windows = windows_2x2(s.out_h, s.out_w);
    let planes = items_per_block(plane * s.taps());
    for_blocks_of_two(y, places, plane / 4 * planes, |start, y, places| {
        with_scratch(plane, |scratch| {
            let mut places = places.chunks_exact_mut(plane / 4);
            for (i, y) in y.chunks_exact_mut(plane / 4).enumerate() {
                let p = start / (plane / 4) + i;
                plain_plane(s, x, weight, p, scratch);
                first_maxima(&windows, scratch, y, places.next().unwrap_or_default());
            }
        });
        tail.apply(start, y);
    });
}

/// One output plane, n · out_channels + oc: each tap adds its weight times a shifted input plane.
fn plain_plane<T: Real>(s: &ConvShape, x: &[T], weight: &[T], plane: usize, y: &mut [T]) {
    let x_plane = (s.in_h * s.in_w) as usize;
    let (in_w, out_w, out_channels) = (s.in_w as usize, s.out_w as usize, s.out_channels as usize);
    let channels = (s.in_channels / s.groups) as usize;
    let (n, oc) = (plane / out_channels, plane % out_channels);
    let first = oc / (out_channels / s.groups as usize) * channels;
    let mut weights = weight[oc * s.taps()..].iter();
    y.fill(T::ZERO);
    for c in first..first + channels {
        let x = &x[(n * s.in_channels as usize + c) * x_plane..][..x_plane];
        for kh in 0..s.kernel_h {
            let tap_h = Tap::new(kh, s.dilation_h, s.pad_top, s.stride_h, s.in_h, s.out_h);
            for (kw, &w) in (0..s.kernel_w).zip(&mut weights) {
                let tap_w = Tap::new(kw, s.dilation_w, s.pad_left, s.stride_w, s.in_w, s.out_w);
                for oh in tap_h.outputs.clone() {
                    let x = &x[tap_h.input(oh) * in_w..];
                    let y = &mut y[oh * out_w..];
                    for ow in tap_w.outputs.clone() {
                        y[ow] += w * x[tap_w.input(ow)];
                    }
                }
            }
        }
    }
}

/// Elements of the planes that are pooled at once: a part of a first-level cache.
const POOLED: usize = BLOCK / 4;

/// A few images at a time: their patches as a matrix, then one product for each group. Where results are pooled, the
/// product stays in spare memory, and a few planes at a time are taken from there.
fn conv2d_gemm<T: Real>(
    s: &ConvShape,
    pool: Pooling,
    x: &[T],
    weight: &[T],
    y: &mut [T],
    places: &mut [u32],
    tail: &BoundTail<'_, T>,
) {
    let patches = Patches::new(s);
    let (positions, taps, groups) = (patches.positions(), s.taps(), s.groups as usize);
    let columns = patches.columns(&positions);
    let (x_image, y_image) = (x.len() / s.batch as usize, y.len() / s.batch as usize);
    let (x_group, y_group) = (x_image / groups, y_image / groups);
    let group_channels = s.out_channels as usize / groups;
    let images = images_per_block(s.batch as usize, columns);
    let threads = if images >= s.batch as usize { Threads::All } else { Threads::One };
    let pooled = pool.is_pooled().then(|| PooledPlanes::new(s, &patches));
    for_blocks_of_two(y, places, images * y_image, |start, y, places| {
        let images = y.len() / y_image;
        let width = images * columns;
        // The result goes straight to y where its layout is y's.
        let direct = images == 1 && patches.is_exact() && pooled.is_none();
        let result_len = if direct { 0 } else { group_channels * width };
        let spare_len = pooled.as_ref().map_or(0, PooledPlanes::spare_len);
        with_scratch(taps * width + result_len + spare_len, |scratch| {
            let (matrix, result) = scratch.split_at_mut(taps * width);
            let (result, spare) = result.split_at_mut(result_len);
            for g in 0..groups {
                for i in 0..images {
                    let x = &x[(start / y_image + i) * x_image + g * x_group..][..x_group];
                    patches.fill(x, &positions, &mut matrix[i * columns..], width);
                }
                let w = Matrix::new(&weight[g * group_channels * taps..], taps, false);
                let m = Matrix::new(matrix, width, false);
                let size = [group_channels, width, taps];
                if direct {
                    gemm(size, w, m, &mut y[g * y_group..(g + 1) * y_group], width, false, threads);
                    continue;
                }
                gemm(size, w, m, result, width, false, threads);
                for (i, y) in y.chunks_exact_mut(y_image).enumerate() {
                    let y = &mut y[g * y_group..(g + 1) * y_group];
                    if let Some(pooled) = &pooled {
                        let first = i * y_image + g * y_group;
                        let places =
                            if places.is_empty() { &mut [] } else { &mut places[first..][..y_group] };
                        pooled.take(&result[i * columns..], width, y, places, spare);
                        continue;
                    }
                    for (y, row) in y.chunks_exact_mut(positions.len()).zip(result.chunks_exact(width)) {
                        patches.narrow(&row[i * columns..(i + 1) * columns], y);
                    }
                }
            }
        });
        tail.apply(start, y);
    });
}

/// How planes of a product are pooled.
struct PooledPlanes<'a> {
    patches: &'a Patches<'a>,
    out_w: usize,
    /// Elements of a plane before pooling, and how many planes are taken at once.
    plane: usize,
    planes: usize,
}

impl<'a> PooledPlanes<'a> {
    fn new(s: &ConvShape, patches: &'a Patches<'a>) -> Self {
        let plane = patches.positions().len();
        let planes = (POOLED / plane).clamp(1, (s.out_channels / s.groups) as usize);
        Self { patches, out_w: s.out_w as usize, plane, planes }
    }

    /// Room for the planes.
    fn spare_len(&self) -> usize {
        self.planes * self.plane
    }

    /// Pools rows of a product, `width` apart.
    fn take<T: Real>(&self, rows: &[T], width: usize, y: &mut [T], places: &mut [u32], spare: &mut [T]) {
        let columns = self.patches.columns(&self.patches.positions());
        let mut places = places.chunks_mut(self.planes * self.plane / 4);
        for (block, y) in y.chunks_mut(self.planes * self.plane / 4).enumerate() {
            let narrow = &mut spare[..4 * y.len()];
            for (i, to) in narrow.chunks_exact_mut(self.plane).enumerate() {
                let row = &rows[(block * self.planes + i) * width..];
                self.patches.narrow(&row[..columns], to);
            }
            pool(narrow, self.out_w / 2, y, places.next().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_kernel::{Binary, Layout, MaxPool2d, Operand, PoolShape, Step, Tail, Unary};

    use super::*;
    use crate::{
        max_pool2d::max_pool2d,
        testing::{CONV_SHAPES, assert_close, pooled_shapes, values},
    };

    /// The formula, index by index.
    fn formula(s: &ConvShape, x: &[f64], weight: &[f64]) -> Vec<f64> {
        let s_ = |v: u32| i64::from(v);
        let inside = |at: i64, size: u32| (0..s_(size)).contains(&at);
        let mut y = Vec::new();
        let (channels, group) = (s.in_channels / s.groups, s.out_channels / s.groups);
        for (n, oc) in (0..s.batch).flat_map(|n| (0..s.out_channels).map(move |oc| (n, oc))) {
            for (oh, ow) in (0..s.out_h).flat_map(|oh| (0..s.out_w).map(move |ow| (oh, ow))) {
                let mut total = 0.0;
                for tap in 0..channels * s.kernel_h * s.kernel_w {
                    let (c, kh, kw) =
                        (tap / (s.kernel_h * s.kernel_w), tap / s.kernel_w % s.kernel_h, tap % s.kernel_w);
                    let ih = s_(oh * s.stride_h + kh * s.dilation_h) - s_(s.pad_top);
                    let iw = s_(ow * s.stride_w + kw * s.dilation_w) - s_(s.pad_left);
                    if inside(ih, s.in_h) && inside(iw, s.in_w) {
                        let plane = s_(n * s.in_channels + oc / group * channels + c);
                        let at = (plane * s_(s.in_h) + ih) * s_(s.in_w) + iw;
                        let w = oc * channels * s.kernel_h * s.kernel_w + tap;
                        total += weight[w as usize] * x[at as usize];
                    }
                }
                y.push(total);
            }
        }
        y
    }

    #[test]
    fn plain_and_fast_follow_the_formula() {
        let tail = Tail::default();
        let tail = BoundTail::new(&tail, Vec::new());
        for s in CONV_SHAPES {
            let (x, weight) = (values(s.x_len(), 1), values(s.weight_len(), 2));
            let want = formula(&s, &x, &weight);
            let (mut plain, mut fast) = (vec![f64::NAN; s.y_len()], vec![f64::NAN; s.y_len()]);
            conv2d_plain(&s, &x, &weight, &mut plain, &tail);
            conv2d_gemm(&s, Pooling::None, &x, &weight, &mut fast, &mut [], &tail);
            assert_close(&plain, &want, 1e-13);
            assert_close(&fast, &want, 1e-13);
        }
    }

    /// Pooled, with a tail that reads an operand at each result: what the convolution, the tail and pooling give one
    /// after the other.
    #[test]
    fn pooled_results_are_those_of_pooling() {
        for s in pooled_shapes() {
            let (x, weight) = (values(s.x_len(), 1), values(s.weight_len(), 2));
            let none = Tail::default();
            let mut whole = vec![f64::NAN; s.y_len()];
            conv2d_plain(&s, &x, &weight, &mut whole, &BoundTail::new(&none, Vec::new()));
            let windows = PoolShape { planes: s.batch * s.out_channels, ..windows_2x2(s.out_h, s.out_w) };
            let len = windows.y_len();
            let each = values(len, 3);
            let layout = Layout::contiguous(len);
            let tail = Tail {
                operands: vec![Operand { layout, len: len as u32 }],
                steps: vec![
                    Step::Binary { binary: Binary::Add, operand: 0, swapped: false },
                    Step::Unary(Unary::Relu),
                ],
            };
            let kernel = MaxPool2d { shape: windows, places: true, tail: tail.clone() };
            let tail = BoundTail::new(&tail, vec![&each]);
            let (mut want, mut want_places) = (vec![f64::NAN; len], vec![9; len]);
            max_pool2d(&kernel, &whole, &mut want, &mut want_places, &tail);

            let (mut plain, mut fast, mut places) = (vec![f64::NAN; len], vec![f64::NAN; len], vec![9; len]);
            pooled_plain(&s, &x, &weight, &mut plain, &mut places, &tail);
            assert_eq!((&plain, &places), (&want, &want_places), "{s:?}");
            plain.fill(f64::NAN);
            pooled_plain(&s, &x, &weight, &mut plain, &mut [], &tail);
            assert_eq!(plain, want);
            places.fill(9);
            conv2d_gemm(&s, Pooling::MaxAndPlaces, &x, &weight, &mut fast, &mut places, &tail);
            assert_close(&fast, &want, 1e-13);
            assert_eq!(places, want_places, "{s:?}");
            fast.fill(f64::NAN);
            conv2d_gemm(&s, Pooling::Max, &x, &weight, &mut fast, &mut [], &tail);
            assert_close(&fast, &want, 1e-13);
        }
    }
}
