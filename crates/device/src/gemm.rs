//! Variants, tiles and grids of the four products: matmul, conv2d and its two gradients.
//!
//! [`choose`] is one pure function of the kernel and the device's [`Facts`]; it runs nothing and remembers
//! nothing, so the same kernel on the same device always gets the same variant, and rounds the same way.
//!
//! | variant | for | file |
//! |---|---|---|
//! | `tiled MxNxK of RxC` | every GPU: tiles in workgroup memory, R x C an invocation | `lib/gemm_tiled.wgsl` |
//! | `subgroup MxNxK` | lavapipe: register tiles, operands handed round by shuffles | `lib/gemm_subgroup.wgsl` |
//! | `strip CxHxW` | lavapipe: convolutions that load an input once for all taps | `lib/conv_strip.wgsl` |
//! | `strip CxPxW` | lavapipe: weight gradients alike | `lib/conv_strip_weight.wgsl` |
//!
//! On lavapipe a load costs about 35 cycles for eight numbers and a multiplication with its addition one or two,
//! so tiles are as large as compile time allows: the driver's compiler takes milliseconds for each load and
//! store in the text, and runs on one thread at the first launch.
//!
//! A variant's text tells it from all others of its kernel. [`candidates`] are the others: what tuning may
//! choose.

mod candidates;
mod strip;

pub(crate) use candidates::{candidates, pair_candidates};

use kiln_kernel::{BackendError, Constant, Kernel, Pooling};

use crate::assemble::{Choice, Facts, Kind, Part, part};

const TILED: Part = part!("lib/gemm_tiled.wgsl");
const SUBGROUP: Part = part!("lib/gemm_subgroup.wgsl");

/// A kernel seen as `problems` matrix products of `m` x `n` results with `terms` terms each.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Product {
    /// What the variant's file asks for; the kernel's own file, with the entry point, last.
    files: Vec<Part>,
    /// Products side by side: batch entries, groups and parts of the reduction.
    problems: u64,
    /// Rows of a result.
    m: u32,
    /// Columns of a result.
    n: u32,
    /// Terms of the longest part of the reduction.
    terms: u32,
    /// Whether the left operand's memory is contiguous along the terms rather than along its rows.
    left_along_k: bool,
    /// Whether the right operand's memory is contiguous along the terms rather than along its columns.
    right_along_k: bool,
    /// Results in neighbouring columns that one invocation stores together: 4 where they are pooled, else 1.
    window: u32,
    /// Whether the sums of the left operand's rows are results too.
    row_sums: bool,
}

const NO_ROW_SUMS: Part = part!("lib/no_row_sums.wgsl");

/// How a kernel reads the gradient of a convolution's results.
fn gradient(unpool: bool) -> Part {
    if unpool { part!("lib/dy_unpool.wgsl") } else { part!("lib/dy.wgsl") }
}

/// What becomes of a convolution's results.
fn stores(pool: Pooling) -> Vec<Part> {
    match pool {
        Pooling::None => vec![part!("lib/conv2d_store.wgsl")],
        Pooling::Max => vec![part!("lib/conv2d_largest.wgsl"), part!("lib/conv2d_pool.wgsl")],
        Pooling::MaxAndPlaces => vec![part!("lib/conv2d_places.wgsl"), part!("lib/conv2d_pool.wgsl")],
    }
}

impl Product {
    /// `None` if the kernel is not a product.
    fn of(kernel: &Kernel) -> Option<Self> {
        Some(match kernel {
            Kernel::Matmul(k) => Self {
                files: vec![
                    if k.row_sums { part!("lib/row_sums.wgsl") } else { NO_ROW_SUMS },
                    part!("matmul.wgsl"),
                ],
                problems: u64::from(k.batch) * u64::from(k.splits),
                m: k.m,
                n: k.n,
                terms: k.k.div_ceil(k.splits),
                left_along_k: !k.transpose_a,
                right_along_k: k.transpose_b,
                window: 1,
                row_sums: k.row_sums,
            },
            Kernel::Conv2d(k) => Self {
                files: [vec![NO_ROW_SUMS], stores(k.pool), vec![part!("conv2d.wgsl")]].concat(),
                problems: k.shape.groups.into(),
                m: k.shape.out_channels / k.shape.groups,
                n: k.shape.batch * k.shape.out_h * k.shape.out_w,
                terms: k.shape.taps() as u32,
                left_along_k: true,
                right_along_k: false,
                window: if k.pool.is_pooled() { 4 } else { 1 },
                row_sums: false,
            },
            Kernel::Conv2dBackwardInput(k) => Self {
                files: vec![NO_ROW_SUMS, gradient(k.unpool), part!("conv2d_backward_input.wgsl")],
                problems: k.shape.groups.into(),
                m: k.shape.in_channels / k.shape.groups,
                n: k.shape.batch * k.shape.in_h * k.shape.in_w,
                terms: k.shape.out_channels / k.shape.groups * k.shape.kernel_h * k.shape.kernel_w,
                left_along_k: true,
                right_along_k: false,
                window: 1,
                row_sums: false,
            },
            Kernel::Conv2dBackwardWeight(k) => Self {
                files: vec![gradient(k.unpool), part!("conv2d_backward_weight.wgsl")],
                problems: u64::from(k.shape.groups) * u64::from(k.splits),
                m: k.shape.out_channels / k.shape.groups,
                n: k.shape.taps() as u32,
                terms: (k.shape.batch * k.shape.out_h * k.shape.out_w).div_ceil(k.splits),
                left_along_k: true,
                right_along_k: true,
                window: 1,
                row_sums: k.bias,
            },
            _ => return None,
        })
    }

    fn constants(&self) -> Vec<(&'static str, Constant)> {
        vec![
            ("GEMM_M", self.m.into()),
            ("GEMM_N", self.n.into()),
            ("GEMM_TERMS", self.terms.into()),
            ("LEFT_ALONG_K", self.left_along_k.into()),
            ("RIGHT_ALONG_K", self.right_along_k.into()),
            ("WINDOW", self.window.into()),
            ("ROW_SUMS", self.row_sums.into()),
        ]
    }

    /// The variant's file before what it asks for.
    fn parts(&self, variant: Part) -> Vec<Part> {
        [&[variant][..], &self.files].concat()
    }
}

/// The variant for a product on a device; `None` if the kernel is not a product.
///
/// What the assembly does with the result: the constants become `const` lines beside the kernel's own; the
/// parts follow in their order, the kernel's file (whose entry point is [`Kernel::name`]) last. The shader
/// computes its flat number as `workgroup_id.x + workgroup_id.y * GRID_WIDTH` and leaves, with its whole
/// workgroup, if that is `WORKGROUPS` or more. `epilogue(v, i)` and the functions it calls are there if the
/// kernel has a tail: the caller adds them. Core bindings are declared in the kernel's file.
///
/// # Errors
/// [`BackendError::Limit`] where a product has more terms than an invocation on lavapipe can add up.
pub(crate) fn choose(kernel: &Kernel, facts: &Facts) -> Result<Option<Choice>, BackendError> {
    let Some(product) = Product::of(kernel) else { return Ok(None) };
    let Some(lanes) = cpu_lanes(facts) else { return Ok(Some(tiled(&product, facts))) };
    if let Some(strip) = strip::strips(kernel, &product, lanes).into_iter().next() {
        return Ok(Some(strip));
    }
    if product.terms > MOST_TERMS {
        return Err(BackendError::Limit {
            label: kernel.to_string(),
            what: "terms in one product (use fewer channels or a smaller kernel)",
            needed: product.terms.into(),
            allowed: MOST_TERMS.into(),
        });
    }
    Ok(Some(subgroup(&product, kernel.flops(), lanes)))
}

/// Invocations that lavapipe computes at once, if the device is lavapipe: the width of the processor's vectors.
///
/// The variants for it take a workgroup of that many invocations to be one subgroup, lane for lane.
fn cpu_lanes(facts: &Facts) -> Option<u32> {
    const MESA: u32 = 0x10005;
    let is_lavapipe = facts.kind == Kind::Software && facts.vendor == MESA;
    facts.subgroup_size.filter(|lanes| is_lavapipe && [4, 8, 16].contains(lanes))
}

/// The most loop iterations planned for one invocation: Mesa 22 stops silently after 65,535 of all its loops together.
///
/// The count takes each loop inside the main one as run, and those inside them as unrolled. Unchecked, a driver
/// unrolls them all; wgpu's run-time checks keep it from that.
const MAX_ITERATIONS: u64 = 60_000;

/// The most terms that one product may have on lavapipe. [`MAX_ITERATIONS`] is counted pessimistically, so that a long
/// product may pass it and be right: with run-time checks 40,500 terms are (a test says so), 54,000 are not.
const MOST_TERMS: u32 = 40_960;

/// The longest piece, of at most `most`, that cuts `size` into as few pieces as that allows.
fn piece(size: u32, most: u32) -> u32 {
    let pieces = size.div_ceil(most.max(1));
    size.div_ceil(pieces)
}

/// Rows, columns of a lane, and terms of a round: from fast to those that run few iterations.
///
/// Two terms a round use more of each cache line than one; four are no faster and compile longer.
const SUBGROUP_TILES: [(u32, u32, u32); 8] =
    [(32, 8, 2), (32, 8, 4), (16, 2, 2), (16, 2, 4), (16, 2, 8), (8, 1, 8), (8, 1, 16), (8, 1, 32)];

/// The same for results that are stored four columns at a time.
const SUBGROUP_WINDOW_TILES: [(u32, u32, u32); 8] =
    [(32, 8, 2), (32, 8, 4), (16, 4, 2), (16, 4, 4), (16, 4, 8), (8, 4, 8), (8, 4, 16), (8, 4, 32)];

/// Register tiles for subgroups that are worth their compile time. Where there is much to compute they are
/// large and take a quarter of a second to compile, where there is little they are small.
fn subgroup_tiles(product: &Product, flops: u64) -> &'static [(u32, u32, u32)] {
    let tiles = if product.window == 1 { &SUBGROUP_TILES } else { &SUBGROUP_WINDOW_TILES };
    if flops >= 1 << 26 { &tiles[..] } else { &tiles[2..] }
}

/// A register tile cut to the product, and the loop iterations of an invocation with it.
fn fitted(product: &Product, (rows, columns, step): (u32, u32, u32), lanes: u32) -> (u64, (u32, u32, u32)) {
    let rows = piece(product.m, rows);
    let window = product.window;
    let columns = window * piece(product.n.div_ceil(lanes * window), columns / window);
    let step = product.terms.min(step);
    let inner = rows + (rows * step).div_ceil(lanes) + step * (columns + 1) + 1;
    (u64::from(product.terms.div_ceil(step)) * u64::from(inner), (rows, columns, step))
}

/// The first register tile that runs few enough iterations, else that with the fewest.
fn subgroup(product: &Product, flops: u64, lanes: u32) -> Choice {
    let all = subgroup_tiles(product, flops).iter().map(|&tile| fitted(product, tile, lanes));
    let chosen = all
        .clone()
        .find(|(iterations, _)| *iterations <= MAX_ITERATIONS)
        .or_else(|| all.min_by_key(|(iterations, _)| *iterations));
    with_subgroup_tile(product, chosen.map_or((1, 1, 1), |(_, tile)| tile), lanes)
}

fn with_subgroup_tile(product: &Product, (rows, columns, step): (u32, u32, u32), lanes: u32) -> Choice {
    let mut constants = product.constants();
    constants.extend([("ROWS", rows.into()), ("COLUMNS", columns.into()), ("STEP", step.into())]);
    Choice {
        variant: format!("subgroup {rows}x{}x{step}", columns * lanes),
        parts: product.parts(SUBGROUP),
        constants,
        workgroup_size: [lanes, 1, 1],
        workgroups: product.problems
            * u64::from(product.m.div_ceil(rows))
            * u64::from(product.n.div_ceil(columns * lanes)),
    }
}

/// A workgroup's tile of results in the portable variant.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    m: u32,
    n: u32,
    /// Terms that lie in workgroup memory at a time.
    k: u32,
    /// Rows and columns of one invocation.
    rows: u32,
    columns: u32,
    /// Speed on a full device, relative to the best: the more results an invocation holds in registers, the
    /// fewer reads of workgroup memory does each multiplication need.
    speed: f64,
}

/// From large, which read memory least, to small, which keep a device busy where results are few.
const TILES: [Tile; 7] = [
    Tile { m: 128, n: 128, k: 8, rows: 8, columns: 8, speed: 1.0 },
    Tile { m: 64, n: 64, k: 16, rows: 4, columns: 4, speed: 0.75 },
    Tile { m: 32, n: 64, k: 16, rows: 4, columns: 4, speed: 0.65 },
    Tile { m: 64, n: 32, k: 16, rows: 4, columns: 4, speed: 0.65 },
    Tile { m: 32, n: 32, k: 16, rows: 4, columns: 4, speed: 0.55 },
    Tile { m: 16, n: 64, k: 16, rows: 4, columns: 4, speed: 0.5 },
    Tile { m: 16, n: 16, k: 16, rows: 2, columns: 2, speed: 0.25 },
];

impl Tile {
    fn invocations(&self) -> u32 {
        self.m / self.rows * (self.n / self.columns)
    }

    fn workgroup_bytes(&self) -> u32 {
        4 * self.k * (self.m + 4 + self.n + 4)
    }

    /// Whether a device can run it, and whether an invocation's columns hold whole windows.
    fn fits(&self, product: &Product, facts: &Facts) -> bool {
        self.invocations() <= facts.limits.max_workgroup_invocations
            && self.workgroup_bytes() <= facts.limits.workgroup_memory_bytes
            && self.columns.is_multiple_of(product.window)
    }

    fn workgroups(&self, product: &Product) -> u64 {
        product.problems * u64::from(product.m.div_ceil(self.m)) * u64::from(product.n.div_ceil(self.n))
    }

    /// Time in arbitrary units on a device that works on `busy` workgroups at once: rounds of workgroups,
    /// each as long as its tile is large, whether results fill the tile or not.
    fn cost(&self, product: &Product, busy: u64) -> f64 {
        let rounds = self.workgroups(product).div_ceil(busy);
        rounds as f64 * self.workgroup_cost(product)
    }

    /// Time of one workgroup in the same units.
    fn workgroup_cost(&self, product: &Product) -> f64 {
        f64::from(self.m * self.n) * f64::from(product.terms) / self.speed
    }
}

/// Workgroups that a device works on at once.
fn busy(facts: &Facts) -> u64 {
    match facts.kind {
        Kind::Discrete | Kind::Virtual => 128,
        Kind::Integrated => 32,
        Kind::Software | Kind::Cpu => 4,
    }
}

/// The portable variant with the tile of least cost.
fn tiled(product: &Product, facts: &Facts) -> Choice {
    with_tile(product, &best_tile(product, facts))
}

/// The tile of least cost; on devices below the least that WebGPU asks for, a small one that suits every product.
fn best_tile(product: &Product, facts: &Facts) -> Tile {
    let busy = busy(facts);
    TILES
        .iter()
        .filter(|tile| tile.fits(product, facts))
        .min_by(|a, b| a.cost(product, busy).total_cmp(&b.cost(product, busy)))
        .copied()
        .unwrap_or(TILES[TILES.len() - 2])
}

/// How two kernels run in one launch, or why they do not.
pub(crate) type Together = Result<(Choice, Choice), String>;

/// How much longer than one after the other two products may take in one launch: where they are small, a launch saved is
/// worth more.
const PAIR_COST: f64 = 1.1;

/// The variants with which two products run in one launch: workgroups of as many invocations, and workgroup memory for
/// both. Or why they cannot, or should not; `None` if one is no product.
///
/// # Errors
/// As [`choose`].
pub(crate) fn choose_pair(
    first: &Kernel,
    second: &Kernel,
    facts: &Facts,
) -> Result<Option<Together>, BackendError> {
    let (Some(a), Some(b)) = (Product::of(first), Product::of(second)) else { return Ok(None) };
    if cpu_lanes(facts).is_some() {
        // one subgroup each, and no workgroup memory
        return Ok(choose(first, facts)?.zip(choose(second, facts)?).map(Ok));
    }
    let busy = busy(facts);
    let mut best: Option<(f64, Tile, Tile)> = None;
    for x in TILES.iter().filter(|tile| tile.fits(&a, facts)) {
        for y in TILES.iter().filter(|tile| tile.fits(&b, facts)) {
            let cost = cost_together((&a, x), (&b, y), busy);
            if fit_together(x, y, facts) && best.is_none_or(|(least, ..)| cost < least) {
                best = Some((cost, *x, *y));
            }
        }
    }
    let Some((cost, x, y)) = best else {
        return Ok(Some(Err("no tiles fit into workgroup memory together".to_owned())));
    };
    let apart = best_tile(&a, facts).cost(&a, busy) + best_tile(&b, facts).cost(&b, busy);
    if cost > PAIR_COST * apart {
        return Ok(Some(Err("tiles that fit together are slower than two launches".to_owned())));
    }
    Ok(Some(Ok((with_tile(&a, &x), with_tile(&b, &y)))))
}

/// Whether workgroups of both have as many invocations, and memory suffices for both.
fn fit_together(x: &Tile, y: &Tile, facts: &Facts) -> bool {
    x.invocations() == y.invocations()
        && x.workgroup_bytes() + y.workgroup_bytes() <= facts.limits.workgroup_memory_bytes
}

/// Time of two products in one launch, in the units of [`Tile::cost`].
fn cost_together((a, x): (&Product, &Tile), (b, y): (&Product, &Tile), busy: u64) -> f64 {
    let (longest_x, longest_y) = (x.workgroup_cost(a), y.workgroup_cost(b));
    let all = x.workgroups(a) as f64 * longest_x + y.workgroups(b) as f64 * longest_y;
    (all / busy as f64).max(longest_x).max(longest_y)
}

fn with_tile(product: &Product, tile: &Tile) -> Choice {
    let mut constants = product.constants();
    constants.extend([
        ("TILE_M", tile.m.into()),
        ("TILE_N", tile.n.into()),
        ("TILE_K", tile.k.into()),
        ("ROWS", tile.rows.into()),
        ("COLUMNS", tile.columns.into()),
    ]);
    Choice {
        variant: format!("tiled {}x{}x{} of {}x{}", tile.m, tile.n, tile.k, tile.rows, tile.columns),
        parts: product.parts(TILED),
        constants,
        workgroup_size: [tile.invocations(), 1, 1],
        workgroups: tile.workgroups(product),
    }
}

#[cfg(test)]
mod tests {
    use kiln_kernel::{
        Conv2d, Conv2dBackwardInput, Conv2dBackwardWeight, ConvShape, Matmul, Tail, splits_for,
    };

    use super::*;

    fn matmul(m: u32, n: u32, k: u32) -> Kernel {
        Kernel::Matmul(Matmul {
            batch: 1,
            m,
            n,
            k,
            transpose_a: false,
            transpose_b: false,
            a_stride: m * k,
            b_stride: k * n,
            splits: 1,
            row_sums: false,
            tail: Tail::default(),
        })
    }

    /// The middle convolution of mnist-cnn at batch 64.
    fn shape() -> ConvShape {
        ConvShape {
            batch: 64,
            in_channels: 32,
            in_h: 13,
            in_w: 13,
            out_channels: 64,
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
        }
    }

    fn kernels(shape: ConvShape) -> [Kernel; 3] {
        let terms = (shape.batch * shape.out_h * shape.out_w) as usize;
        [
            Kernel::Conv2d(Conv2d { shape, pool: Pooling::None, tail: Tail::default() }),
            Kernel::Conv2dBackwardInput(Conv2dBackwardInput { shape, unpool: false, tail: Tail::default() }),
            Kernel::Conv2dBackwardWeight(Conv2dBackwardWeight {
                shape,
                splits: splits_for(terms, 1),
                bias: true,
                unpool: false,
            }),
        ]
    }

    fn variants(kernels: &[Kernel], facts: &Facts) -> Vec<String> {
        kernels.iter().map(|k| choose(k, facts).unwrap().unwrap().variant).collect()
    }

    #[test]
    fn each_device_gets_its_variant() {
        assert_eq!(
            variants(&kernels(shape()), &Facts::lavapipe()),
            ["strip 16x1x11", "strip 16x1x13", "strip 16x3x6"]
        );
        let large = [matmul(512, 512, 512), matmul(64, 10, 64), matmul(4096, 4096, 64)];
        assert_eq!(
            variants(&large, &Facts::lavapipe()),
            ["subgroup 32x64x2", "subgroup 16x16x2", "subgroup 32x64x2"]
        );
        assert!(variants(&large, &Facts::portable()).iter().all(|v| v.starts_with("tiled")));
        assert_eq!(variants(&large[2..], &Facts::portable()), ["tiled 128x128x8 of 8x8"]);
        // Another software device, or one whose subgroups vary, is not lavapipe.
        for facts in [
            Facts { vendor: 0x1414, ..Facts::lavapipe() },
            Facts { subgroup_size: None, ..Facts::lavapipe() },
            Facts { kind: Kind::Discrete, vendor: 0x10de, subgroup_size: Some(32), ..Facts::portable() },
        ] {
            assert!(variants(&kernels(shape()), &facts).iter().all(|v| v.starts_with("tiled")), "{facts:?}");
        }
    }

    #[test]
    fn what_strips_cannot_do_falls_back() {
        let strided = ConvShape { stride_w: 2, out_w: 6, ..shape() };
        let long_rows = ConvShape { in_w: 40, kernel_w: 20, out_w: 21, ..shape() };
        let cropped = ConvShape { pad_top: 3, out_h: 17, ..shape() };
        let lavapipe = Facts::lavapipe();
        assert_eq!(variants(&kernels(strided), &lavapipe)[1], "subgroup 32x64x2");
        assert!(variants(&kernels(long_rows), &lavapipe).iter().all(|v| v.starts_with("subgroup")));
        assert_eq!(variants(&kernels(cropped), &lavapipe)[1], "subgroup 32x64x2");
    }

    #[test]
    fn tiles_respect_the_least_limits() {
        let least = Facts::portable().limits;
        for tile in TILES {
            assert!(tile.workgroup_bytes() <= least.workgroup_memory_bytes, "{tile:?}");
        }
        for tile in TILES.iter().chain(&candidates::MORE_TILES) {
            assert!(tile.invocations() <= least.max_workgroup_invocations, "{tile:?}");
            // One invocation adds up a row of the left operand.
            assert!(tile.invocations() >= tile.m, "{tile:?}");
            // Each invocation brings the same number of elements of both operands.
            assert_eq!(tile.m * tile.k % tile.invocations(), 0, "{tile:?}");
            assert_eq!(tile.n * tile.k % tile.invocations(), 0, "{tile:?}");
        }
    }

    #[test]
    fn few_results_get_small_tiles() {
        let cnn = kernels(shape());
        // 64 x 289 results in eight parts: larger tiles would leave most of a card idle.
        assert_eq!(variants(&cnn[2..], &Facts::portable()), ["tiled 32x64x16 of 4x4"]);
        assert_eq!(variants(&[matmul(64, 10, 64)], &Facts::portable()), ["tiled 16x16x16 of 2x2"]);
    }

    #[test]
    fn pieces_waste_little() {
        for (size, most, want) in
            [(11, 14, 11), (13, 14, 13), (26, 14, 13), (28, 14, 14), (1, 14, 1), (3, 0, 1)]
        {
            assert_eq!(piece(size, most), want, "{size} in pieces of {most}");
        }
    }
}
