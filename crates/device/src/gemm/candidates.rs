//! All tiles that a device can run a product with: what tuning chooses from.

use kiln_kernel::{BackendError, Kernel};

use super::{
    MAX_ITERATIONS, MOST_TERMS, Product, TILES, Tile, best_tile, busy, choose, cost_together, cpu_lanes,
    fit_together, fitted, strip, subgroup_tiles, with_subgroup_tile, with_tile,
};
use crate::assemble::{Choice, Facts};

/// Tiles that are worth a try where time is taken: their speeds only say in which order. Each has at least as
/// many invocations as rows.
pub(super) const MORE_TILES: [Tile; 12] = [
    Tile { m: 128, n: 128, k: 16, rows: 8, columns: 8, speed: 1.0 },
    Tile { m: 128, n: 64, k: 8, rows: 8, columns: 8, speed: 0.9 },
    Tile { m: 64, n: 128, k: 8, rows: 8, columns: 8, speed: 0.9 },
    Tile { m: 64, n: 64, k: 8, rows: 8, columns: 8, speed: 0.75 },
    Tile { m: 64, n: 64, k: 8, rows: 4, columns: 4, speed: 0.7 },
    Tile { m: 64, n: 64, k: 32, rows: 4, columns: 4, speed: 0.7 },
    Tile { m: 32, n: 128, k: 8, rows: 4, columns: 8, speed: 0.7 },
    Tile { m: 32, n: 32, k: 32, rows: 4, columns: 4, speed: 0.55 },
    Tile { m: 64, n: 16, k: 16, rows: 4, columns: 4, speed: 0.5 },
    Tile { m: 32, n: 32, k: 16, rows: 2, columns: 2, speed: 0.3 },
    Tile { m: 32, n: 16, k: 16, rows: 2, columns: 2, speed: 0.28 },
    Tile { m: 16, n: 16, k: 32, rows: 2, columns: 2, speed: 0.25 },
];

/// Most ways of a pair in one launch that are tried, and tiles of each half where it runs apart.
const MOST_TOGETHER: usize = 16;
const MOST_APART: usize = 4;

/// The same where a candidate takes long to compile.
const MOST_HALVES_ON_LAVAPIPE: usize = 3;

/// Two kernels of a pair, each with its variant.
#[derive(Debug, Default)]
pub(crate) struct PairCandidates {
    /// In one launch.
    pub(crate) together: Vec<(Choice, Choice)>,
    /// In two.
    pub(crate) apart: Vec<(Choice, Choice)>,
}

/// All variants of a product, that which [`choose`] gives first; none if the kernel is no product.
///
/// # Errors
/// As [`choose`].
pub(crate) fn candidates(kernel: &Kernel, facts: &Facts) -> Result<Vec<Choice>, BackendError> {
    let (Some(product), Some(default)) = (Product::of(kernel), choose(kernel, facts)?) else {
        return Ok(Vec::new());
    };
    let mut all = vec![default];
    match cpu_lanes(facts) {
        None => all.extend(tiles(&product, facts).iter().map(|tile| with_tile(&product, tile))),
        Some(lanes) => {
            all.extend(strip::strips(kernel, &product, lanes));
            if product.terms <= MOST_TERMS {
                let tiles = subgroup_tiles(&product, kernel.flops()).iter();
                let tiles = tiles.map(|&tile| fitted(&product, tile, lanes));
                let short = tiles.filter(|(iterations, _)| *iterations <= MAX_ITERATIONS);
                all.extend(short.map(|(_, tile)| with_subgroup_tile(&product, tile, lanes)));
            }
        }
    }
    Ok(distinct(all))
}

/// The ways in which two products run in one launch and in two, best first as far as their costs say; none if
/// one is no product.
///
/// # Errors
/// As [`choose`].
pub(crate) fn pair_candidates(
    first: &Kernel,
    second: &Kernel,
    facts: &Facts,
) -> Result<PairCandidates, BackendError> {
    let (Some(a), Some(b)) = (Product::of(first), Product::of(second)) else {
        return Ok(PairCandidates::default());
    };
    if cpu_lanes(facts).is_some() {
        let few = |kernel| -> Result<Vec<Choice>, BackendError> {
            let mut all = candidates(kernel, facts)?;
            all.truncate(MOST_HALVES_ON_LAVAPIPE);
            Ok(all)
        };
        let together = product_of(&few(first)?, &few(second)?);
        let apart = together.first().cloned().into_iter().collect();
        return Ok(PairCandidates { together, apart });
    }
    let busy = busy(facts);
    let (of_a, of_b) = (tiles(&a, facts), tiles(&b, facts));
    let pairs = of_a.iter().flat_map(|x| of_b.iter().map(move |y| (*x, *y)));
    let mut together: Vec<(Tile, Tile)> = pairs.filter(|(x, y)| fit_together(x, y, facts)).collect();
    let cost = |(x, y): &(Tile, Tile)| cost_together((&a, x), (&b, y), busy);
    together.sort_by(|p, q| cost(p).total_cmp(&cost(q)));
    together.truncate(MOST_TOGETHER);
    let few = |product: &Product, tiles: &[Tile]| -> Vec<Choice> {
        let best = best_tile(product, facts);
        let others = tiles.iter().filter(|tile| **tile != best).take(MOST_APART - 1);
        std::iter::once(&best).chain(others).map(|tile| with_tile(product, tile)).collect()
    };
    Ok(PairCandidates {
        together: together.iter().map(|(x, y)| (with_tile(&a, x), with_tile(&b, y))).collect(),
        apart: product_of(&few(&a, &of_a), &few(&b, &of_b)),
    })
}

/// Every tile that a device can run a product with, of least cost first.
fn tiles(product: &Product, facts: &Facts) -> Vec<Tile> {
    let busy = busy(facts);
    let all = TILES.iter().chain(&MORE_TILES);
    let mut tiles: Vec<Tile> = all.filter(|tile| tile.fits(product, facts)).copied().collect();
    tiles.sort_by(|x, y| x.cost(product, busy).total_cmp(&y.cost(product, busy)));
    tiles
}

/// Each of the first with each of the second.
fn product_of(first: &[Choice], second: &[Choice]) -> Vec<(Choice, Choice)> {
    first.iter().flat_map(|a| second.iter().map(|b| (a.clone(), b.clone()))).collect()
}

/// The first of each text.
fn distinct(all: Vec<Choice>) -> Vec<Choice> {
    let mut found: Vec<Choice> = Vec::with_capacity(all.len());
    for choice in all {
        if !found.iter().any(|known| known.variant == choice.variant) {
            found.push(choice);
        }
    }
    found
}
