//! A timed and checked matrix product: `kiln bench matmul`, and part of `kiln doctor`.

use std::time::{Duration, Instant};

use kiln_kernel::{
    Backend, BackendError, DType, Host, HostRef, Kernel, Launch, Matmul, Tail, View, random::Stream,
};

/// Time that the products of one submission should take: so long that the wait at its end does not count.
const SAMPLE: Duration = Duration::from_millis(20);

/// Most products in one submission, so that a mistaken first measurement does not hang a device.
const MOST_PRODUCTS: u32 = 200;

/// Elements of the result that are compared with the host.
const COMPARED: u32 = 64;

/// What a timed product showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timed {
    /// Rows and columns.
    pub(crate) n: u32,
    /// Median time of one product.
    pub(crate) median: Duration,
    /// Largest error among the compared elements, in units of what rounding may amount to: up to 1 is
    /// right.
    pub(crate) worst: f64,
}

impl Timed {
    /// 10⁹ floating-point operations per second, a multiply and add counted as two.
    pub(crate) fn gflops(&self) -> f64 {
        2.0 * f64::from(self.n).powi(3) / self.median.as_secs_f64() / 1e9
    }

    /// True if every compared element is right to within rounding.
    pub(crate) fn is_right(&self) -> bool {
        self.worst <= 1.0
    }
}

/// Multiplies two n x n matrices of seeded numbers in [-1, 1), `samples` times over, and compares elements
/// all over the result with sums in `f64` on the host.
///
/// # Errors
/// Where the device refuses: too large, out of memory, lost.
pub(crate) fn time_product(backend: &dyn Backend, n: u32, samples: u32) -> Result<Timed, BackendError> {
    let elements = n as usize * n as usize;
    let (a, b) = (numbers(1, elements), numbers(2, elements));
    let input = |data: &[f32], name: &str| -> Result<View, BackendError> {
        let view = backend.allocate(DType::F32, elements, name)?.view();
        backend.write(&view, HostRef::F32(data))?;
        Ok(view)
    };
    let y = backend.allocate(DType::F32, elements, "y")?;
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
    let arguments = vec![input(&a, "a")?, input(&b, "b")?, y.view()];
    let program = backend.prepare(&[Launch { kernel, arguments, label: "matmul".into() }])?;
    let sample = |times: u32| -> Result<Duration, BackendError> {
        let start = Instant::now();
        backend.run(&program, times)?;
        // Reading one element waits for the whole submission.
        pollster::block_on(backend.read(&y.slice(0, 1)))?;
        Ok(start.elapsed())
    };
    // The first run pays for page faults and clocks that ramp up.
    sample(1)?;
    let once = sample(1)?.max(Duration::from_nanos(100));
    let times =
        (SAMPLE.as_secs_f64() / once.as_secs_f64()).ceil().clamp(1.0, f64::from(MOST_PRODUCTS)) as u32;
    let mut measured =
        (0..samples.max(1)).map(|_| Ok(sample(times)? / times)).collect::<Result<Vec<_>, BackendError>>()?;
    measured.sort_unstable();
    let result = pollster::block_on(backend.read(&y.view()))?;
    Ok(Timed { n, median: measured[measured.len() / 2], worst: worst_error(&a, &b, &result, n) })
}

/// Seeded numbers in [-1, 1). Words of one Philox block each would be slow for large arguments; a short period does not
/// matter.
pub(crate) fn numbers(stream: u32, len: usize) -> Vec<f32> {
    let stream = Stream { seed: 0, stream, step: 0 };
    let few: Vec<f32> = (0..4093).map(|i| stream.uniform(i) * 2.0 - 1.0).collect();
    few.into_iter().cycle().take(len).collect()
}

/// Compares elements all over the product, corners included.
fn worst_error(a: &[f32], b: &[f32], result: &Host, n: u32) -> f64 {
    let places = Stream { seed: 0, stream: 3, step: 0 };
    let size = n as usize;
    let corners = [(0, 0), (0, size - 1), (size - 1, 0), (size - 1, size - 1)];
    let inside =
        (0..COMPARED).map(|i| (places.below(2 * i, n) as usize, places.below(2 * i + 1, n) as usize));
    let mut worst = 0.0f64;
    for (row, column) in corners.into_iter().chain(inside) {
        let (mut sum, mut scale) = (0.0, 0.0);
        for k in 0..size {
            let term = f64::from(a[row * size + k]) * f64::from(b[k * size + column]);
            sum += term;
            scale += term.abs();
        }
        let got = match result {
            Host::F32(y) => y.get(row * size + column).copied().map(f64::from),
            Host::F64(y) => y.get(row * size + column).copied(),
            Host::U32(_) => None,
        };
        // Rounding errors add like a random walk: √K steps of half a unit each, with a margin.
        let allowed = 4.0 * (f64::from(n).sqrt() + 4.0) * f64::from(f32::EPSILON) / 2.0 * scale;
        let error = got.map_or(f64::INFINITY, |got| (got - sum).abs() / allowed.max(f64::MIN_POSITIVE));
        // NaN is an error, too: `max` would drop it.
        worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_multiplies_rightly_and_a_wrong_result_is_seen() {
        let cpu = kiln_reference::Cpu::<f32>::new();
        for n in [1, 7, 130] {
            let timed = time_product(&cpu, n, 2).unwrap();
            assert!(timed.is_right(), "{n}: {}", timed.worst);
            assert!(timed.gflops() > 0.0);
        }
        let (a, b) = (vec![0.5; 64], vec![0.25; 64]);
        let mut y = vec![1.0f32; 64];
        assert!(worst_error(&a, &b, &Host::F32(y.clone()), 8) <= 1.0);
        y[63] = 1.01;
        assert!(worst_error(&a, &b, &Host::F32(y.clone()), 8) > 1.0);
        y[63] = f32::NAN;
        assert!(worst_error(&a, &b, &Host::F32(y), 8) > 1.0);
    }
}
