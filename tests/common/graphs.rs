//! Random graphs over all operations, from a seed.

use std::{collections::HashMap, sync::Arc};

use kiln_graph::{
    Array, AugmentOptions, Conv2dOptions, GatherOptions, Graph, GraphError, Interpreter, Padding,
    Pool2dOptions, Tensor,
};
use kiln_kernel::{AugmentRanges, Binary, Border, CLOCK_WORDS, DType, GatherType, Host, Real, Unary};
use ndarray::IxDyn;

use super::{
    custom::{Blur, Pick, SquaredRelu},
    random::Random,
};

/// A graph with what is asked of it.
pub struct Generated {
    pub graph: Graph,
    pub fetch: Vec<(String, Tensor)>,
    pub gradients: Vec<(String, Tensor)>,
    pub totals: Vec<(Tensor, f32)>,
    /// Values of inputs and parameters.
    pub leaves: HashMap<String, Leaf>,
    /// Whether folding constants in `f32` rounds nothing in it.
    pub exact: bool,
}

/// The value of an input or parameter.
#[derive(Clone)]
pub struct Leaf {
    pub value: Array,
    pub dtype: DType,
}

impl Leaf {
    /// As a device is given it.
    pub fn host(&self) -> Host {
        match self.dtype {
            DType::U32 => Host::U32(self.value.iter().map(|&v| v as u32).collect()),
            DType::F32 => Host::F64(self.value.iter().copied().collect()),
        }
    }
}

const SIZES: [usize; 6] = [1, 2, 3, 4, 5, 7];
/// Powers of two, so that folding is exact.
const CONSTANTS: [f32; 7] = [0.0, 1.0, -1.0, 0.5, 2.0, -0.25, 4.0];
/// Values beyond this are not built upon, lest they overflow.
const LARGEST: f64 = 30.0;

struct Builder {
    random: Random,
    g: Graph,
    /// Tensors of real numbers to build upon, with their values.
    pool: Vec<(Tensor, Array)>,
    leaves: HashMap<String, Leaf>,
    /// Logits and labels of the cross entropies so far.
    classified: Vec<(Tensor, Tensor)>,
    exact: bool,
}

type Made = Result<Vec<Tensor>, GraphError>;

/// A graph of some twenty operations.
pub fn generate(seed: u64) -> Generated {
    let mut b = Builder {
        random: Random::new(seed),
        g: Graph::new(),
        pool: Vec::new(),
        leaves: HashMap::new(),
        classified: Vec::new(),
        exact: true,
    };
    b.leaf("clock", clock_value(seed), DType::U32);
    for _ in 0..1 + b.random.below(3) {
        let shape = b.shape();
        b.real_leaf(&shape);
    }
    for _ in 0..4 + b.random.below(18) {
        let kind = b.random.below(26);
        let made = b.operation(kind);
        match made {
            Ok(tensors) => b.keep(&tensors),
            // asked for what does not exist: shapes that do not fit, or a second derivative
            Err(GraphError::Shape { .. } | GraphError::NoGradient { .. }) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    b.finish()
}

/// Whether a tensor may be a constant that planning folds.
fn uniform(value: &Array) -> bool {
    value.iter().all(|v| Some(v) == value.first())
}

fn clock_value(seed: u64) -> Array {
    let words = [seed % 11, 0, 1, seed, 3, 0, 0, 0];
    Array::from_shape_vec(IxDyn(&[CLOCK_WORDS]), words.iter().map(|&w| w as f64).collect()).unwrap()
}

impl Builder {
    fn shape(&mut self) -> Vec<usize> {
        let rank = self.random.pick(&[0, 1, 2, 2, 3, 4, 4]);
        let mut shape: Vec<usize> = (0..rank).map(|_| self.random.pick(&SIZES)).collect();
        while shape.iter().product::<usize>() > 400 {
            let axis = self.random.below(shape.len());
            shape[axis] = 2;
        }
        shape
    }

    fn leaf(&mut self, name: &str, value: Array, dtype: DType) {
        self.leaves.insert(name.into(), Leaf { value, dtype });
    }

    /// A new input or parameter with random values, in the pool.
    fn real_leaf(&mut self, shape: &[usize]) -> Tensor {
        let name = format!("leaf{}", self.leaves.len());
        let t =
            if self.random.chance(0.6) { self.g.parameter(&name, shape) } else { self.g.input(&name, shape) };
        let t = t.unwrap();
        let value = self.random.array(shape, -1.5, 1.5);
        self.leaf(&name, value.clone(), DType::F32);
        self.pool.push((t, value));
        t
    }

    fn integer_leaf(&mut self, shape: &[usize], bound: usize) -> Tensor {
        let name = format!("leaf{}", self.leaves.len());
        let t = self.g.input_u32(&name, shape).unwrap();
        let value = Array::from_shape_simple_fn(IxDyn(shape), || self.random.below(bound) as f64);
        self.leaf(&name, value, DType::U32);
        t
    }

    fn any(&mut self) -> (Tensor, Array) {
        let i = if self.random.chance(0.5) {
            // rather something recent
            let recent = self.pool.len().min(3);
            self.pool.len() - 1 - self.random.below(recent)
        } else {
            self.random.below(self.pool.len())
        };
        self.pool[i].clone()
    }

    fn of_rank(&mut self, rank: usize) -> (Tensor, Array) {
        let known: Vec<usize> = (0..self.pool.len()).filter(|&i| self.pool[i].1.ndim() == rank).collect();
        if known.is_empty() || self.random.chance(0.2) {
            let shape: Vec<usize> = (0..rank).map(|_| self.random.pick(&SIZES)).collect();
            self.real_leaf(&shape);
            return self.pool[self.pool.len() - 1].clone();
        }
        let i = self.random.pick(&known);
        self.pool[i].clone()
    }

    fn values(&self, tensors: &[Tensor]) -> Vec<Array> {
        let mut run = Interpreter::new(&self.g);
        for (name, leaf) in &self.leaves {
            run.feed(name, leaf.value.clone());
        }
        tensors.iter().map(|&t| run.value(t).unwrap().clone()).collect()
    }

    /// Puts what can be built upon into the pool. What cannot stays in the graph, dead.
    fn keep(&mut self, tensors: &[Tensor]) {
        let values = self.values(tensors);
        for (&t, value) in tensors.iter().zip(values) {
            let real = self.g.info(t).unwrap().dtype == DType::F32;
            if real && value.len() <= 3000 && value.iter().all(|v| v.abs() < LARGEST) {
                self.pool.push((t, value));
            }
        }
    }

    fn axes(&mut self, rank: usize) -> Vec<usize> {
        (0..rank).filter(|_| self.random.chance(0.5)).collect()
    }

    fn operation(&mut self, kind: usize) -> Made {
        match kind {
            0 | 1 => self.unary(),
            2..=4 => self.binary(),
            5 => self.constants(),
            6 => self.reduce(),
            7 => self.reshape(),
            8 => self.permute(),
            9 => self.broadcast(),
            10 | 11 => self.matmul(),
            12 | 13 => self.conv2d(),
            14 => self.pool2d(),
            15 => self.softmax(),
            16 => self.cross_entropy(),
            17 => self.noise(),
            18 => self.slice(),
            19 => self.pad(),
            20 => self.concat(),
            21 => self.embedding(),
            22 => self.normalize(),
            23 => self.custom(),
            24 => {
                if self.random.chance(0.5) {
                    self.one_hot()
                } else {
                    self.literal()
                }
            }
            _ => match self.random.below(4) {
                0 => self.gather(),
                1 => self.augmented(),
                _ => self.gradient(),
            },
        }
    }

    fn noise(&mut self) -> Made {
        let (x, value) = self.any();
        let rate = self.random.pick(&[0.0, 0.5, 0.75]);
        Ok(vec![match self.random.below(3) {
            0 if value.ndim() == 4 => self.g.spatial_dropout2d(x, rate)?,
            0 | 1 => self.g.dropout(x, rate)?,
            _ => self.g.gaussian_noise(x, 0.5)?,
        }])
    }

    fn slice(&mut self) -> Made {
        let (x, value) = self.any();
        let axis = self.random.below(value.ndim().max(1));
        let size = value.shape().get(axis).copied().unwrap_or(1);
        let start = self.random.below(size);
        let end = start + 1 + self.random.below(size - start);
        Ok(vec![if value.ndim() == 4 && self.random.chance(0.3) {
            self.g.crop2d(x, self.random.below(2), 1, self.random.below(2), 0)?
        } else {
            self.g.slice(x, axis, start, end)?
        }])
    }

    fn pad(&mut self) -> Made {
        let (x, value) = self.any();
        if value.ndim() == 4 && self.random.chance(0.3) {
            return Ok(vec![self.g.upsample_nearest2d(x, (2, 1))?]);
        }
        let amounts: Vec<(usize, usize)> = (0..value.ndim())
            .map(|_| if self.random.chance(0.4) { self.pair(&[0, 1, 2]) } else { (0, 0) })
            .collect();
        let border = self.random.pick(&CONSTANTS);
        Ok(vec![self.g.pad(x, &amounts, border)?])
    }

    fn concat(&mut self) -> Made {
        let (x, value) = self.any();
        let axis = self.random.below(value.ndim().max(1));
        let mut parts = vec![x];
        for _ in 0..self.random.below(6) {
            let mut shape = value.shape().to_vec();
            let fits = |other: &Array| {
                other.ndim() == shape.len()
                    && (0..shape.len()).all(|a| a == axis || other.shape()[a] == shape[a])
            };
            let known: Vec<usize> = (0..self.pool.len()).filter(|&i| fits(&self.pool[i].1)).collect();
            parts.push(if self.random.chance(0.6) {
                self.pool[self.random.pick(&known)].0
            } else {
                if let Some(size) = shape.get_mut(axis) {
                    *size = self.random.pick(&SIZES);
                }
                self.real_leaf(&shape)
            });
        }
        Ok(vec![self.g.concat(&parts, axis)?])
    }

    fn embedding(&mut self) -> Made {
        let (weight, value) = self.of_rank(2);
        let shape = self.random.pick(&[vec![], vec![5], vec![2, 3], vec![3, 1]]);
        let indices = if self.random.chance(0.5) {
            // some past the table
            self.integer_leaf(&shape, value.shape()[0] + 1)
        } else {
            let (x, _) = self.any();
            let x = self.g.scale(x, 2.0)?;
            self.g.to_indices(x)?
        };
        Ok(vec![self.g.embedding(weight, indices)?])
    }

    fn normalize(&mut self) -> Made {
        let rank = self.random.pick(&[2, 3, 4, 4]);
        let (x, value) = self.of_rank(rank);
        let shape = value.shape().to_vec();
        let eps = 0.25;
        let kind = self.random.below(4);
        let own = if kind == 0 { shape[shape.len() - 1..].to_vec() } else { vec![shape[1]] };
        let (gamma, beta) = (self.real_leaf(&own), self.real_leaf(&own));
        // the mean is by a number that is no power of two
        self.exact = false;
        Ok(match kind {
            0 => vec![self.g.layer_norm(x, gamma, beta, eps)?],
            1 => {
                let groups = if shape[1].is_multiple_of(2) { 2 } else { 1 };
                vec![self.g.group_norm(x, groups, gamma, beta, eps)?]
            }
            2 => {
                let (mean, variance) = (self.real_leaf(&own), self.real_leaf(&own));
                let variance = self.g.abs(variance)?;
                vec![self.g.batch_norm_eval(x, (gamma, beta), (mean, variance), eps)?]
            }
            _ => {
                let (y, mean, variance) = self.g.batch_norm(x, gamma, beta, eps)?;
                match self.random.below(4) {
                    0 => vec![y, mean, variance],
                    1 => {
                        // a tail that depends on the statistics
                        let twice = self.g.tanh(mean)?;
                        let y = self.g.add_channels(y, twice)?;
                        vec![self.activation(y)?]
                    }
                    2 => vec![self.activation(y)?],
                    _ => vec![y],
                }
            }
        })
    }

    fn unary(&mut self) -> Made {
        let (mut x, value) = self.any();
        let f = self.random.pick(&Unary::ALL);
        let smallest = value.iter().fold(f64::INFINITY, |m, &v| m.min(v));
        if matches!(f, Unary::Log | Unary::Sqrt | Unary::Reciprocal) && smallest < 0.1 {
            let a = self.g.abs(x)?;
            x = self.g.add_constant(a, 0.5)?;
        }
        self.exact &= !uniform(&value);
        Ok(vec![self.g.unary(f, x)?])
    }

    fn binary(&mut self) -> Made {
        let (a, value) = self.any();
        let f = self.random.pick(&Binary::ALL);
        // sometimes itself, or a leaf that broadcasts against it
        let mut b = match self.random.below(4) {
            0 => a,
            1 => {
                let shape: Vec<usize> =
                    value.shape().iter().map(|&s| if self.random.chance(0.4) { 1 } else { s }).collect();
                let from = self.random.below(shape.len() + 1);
                self.real_leaf(&shape[from..])
            }
            _ => self.any().0,
        };
        if f == Binary::Div {
            let size = self.g.abs(b)?;
            b = self.g.add_constant(size, 0.5)?;
            self.exact &= !uniform(&self.values(&[b])[0]);
        }
        let (a, b) = if self.random.chance(0.5) || f == Binary::Div { (a, b) } else { (b, a) };
        Ok(vec![self.g.binary(f, a, b)?])
    }

    /// Arithmetic with constants, such that folding meets each of its cases.
    fn constants(&mut self) -> Made {
        let (x, value) = self.any();
        let constant = self.random.pick(&CONSTANTS);
        Ok(vec![match self.random.below(6) {
            0 => self.g.scale(x, constant)?,
            1 => self.g.add_constant(x, constant)?,
            2 => {
                let c = self.g.fill(value.shape(), constant)?;
                let f = self.random.pick(&[
                    Binary::Add,
                    Binary::Sub,
                    Binary::Mul,
                    Binary::Maximum,
                    Binary::Greater,
                ]);
                if self.random.chance(0.5) { self.g.binary(f, x, c)? } else { self.g.binary(f, c, x)? }
            }
            3 => {
                let c = self.g.fill([], 2.0)?;
                self.g.div(x, c)?
            }
            4 => {
                // a constant of constants, broadcast, reduced and reshaped
                let c = self.g.fill([2, 3], constant)?;
                let c = self.g.square(c)?;
                let c = self.g.sum(c, &[1], true)?;
                let c = self.g.broadcast(c, [2, 4])?;
                let c = self.g.permute(c, &[1, 0])?;
                self.g.add_constant(c, 0.5)?
            }
            _ => {
                let shape = self.shape();
                self.g.fill(shape, constant)?
            }
        }])
    }

    fn reduce(&mut self) -> Made {
        let (x, value) = self.any();
        let axes = self.axes(value.ndim());
        let keepdim = self.random.chance(0.5);
        Ok(vec![match self.random.below(4) {
            0 => self.g.sum(x, &axes, keepdim)?,
            1 => self.g.max(x, &axes, keepdim)?,
            2 => self.g.min(x, &axes, keepdim)?,
            _ => {
                let terms: usize = axes.iter().map(|&a| value.shape()[a]).product();
                self.exact &= terms.is_power_of_two();
                self.g.mean(x, &axes, keepdim)?
            }
        }])
    }

    fn reshape(&mut self) -> Made {
        let (x, value) = self.any();
        let mut rest = value.len();
        let mut shape = Vec::new();
        for size in [2, 3, 5, 7, 2, 2] {
            if rest.is_multiple_of(size) && self.random.chance(0.7) {
                shape.push(size);
                rest /= size;
            }
        }
        shape.push(rest);
        if self.random.chance(0.3) {
            shape.push(1);
        }
        while shape.len() > 4 {
            let last = shape.pop().unwrap();
            *shape.last_mut().unwrap() *= last;
        }
        let y = self.g.reshape(x, shape)?;
        if value.ndim() > 0 && self.random.chance(0.3) {
            Ok(vec![self.g.flatten(x)?, y])
        } else {
            Ok(vec![y])
        }
    }

    fn permute(&mut self) -> Made {
        let (x, value) = self.any();
        let mut axes: Vec<usize> = (0..value.ndim()).collect();
        for i in (1..axes.len()).rev() {
            axes.swap(i, self.random.below(i + 1));
        }
        Ok(vec![self.g.permute(x, &axes)?])
    }

    fn broadcast(&mut self) -> Made {
        let (x, value) = self.any();
        let mut shape: Vec<usize> =
            value.shape().iter().map(|&s| if s == 1 { self.random.pick(&SIZES) } else { s }).collect();
        while shape.len() < 4 && self.random.chance(0.5) {
            shape.insert(0, self.random.pick(&SIZES));
        }
        Ok(vec![self.g.broadcast(x, shape)?])
    }

    fn matmul(&mut self) -> Made {
        let (ta, tb) = (self.random.chance(0.5), self.random.chance(0.5));
        let rank = self.random.pick(&[2, 2, 3]);
        let (a, value) = self.of_rank(rank);
        let shape = value.shape();
        let (m, k) = (shape[rank - 2], shape[rank - 1]);
        let k = if ta { m } else { k };
        let n = self.random.pick(&SIZES);
        let mut other = if tb { vec![n, k] } else { vec![k, n] };
        if rank == 3 && self.random.chance(0.6) {
            other.insert(0, shape[0]);
        } else if rank == 3 && self.random.chance(0.5) {
            // batches that broadcast, on one side or both
            other.insert(0, if shape[0] == 1 { 3 } else { 1 });
            if self.random.chance(0.5) {
                other.insert(0, 2);
            }
        } else if rank == 2 && self.random.chance(0.2) {
            other.insert(0, 3);
        }
        let known: Vec<usize> = (0..self.pool.len()).filter(|&i| self.pool[i].1.shape() == other).collect();
        let b = if known.is_empty() { self.real_leaf(&other) } else { self.pool[self.random.pick(&known)].0 };
        let y = self.g.scoped("product", |g| g.matmul(a, b, ta, tb))?;
        let mut made = vec![y];
        if self.random.chance(0.4) {
            let bias = self.real_leaf(&[n]);
            let sum = self.g.add(y, bias)?;
            made = vec![self.activation(sum)?];
        }
        Ok(made)
    }

    fn activation(&mut self, x: Tensor) -> Result<Tensor, GraphError> {
        let f = self.random.pick(&[
            Unary::Relu,
            Unary::Tanh,
            Unary::Sigmoid,
            Unary::Gelu,
            Unary::Elu(kiln_kernel::Real(0.5)),
        ]);
        self.g.unary(f, x)
    }

    fn pair(&mut self, of: &[usize]) -> (usize, usize) {
        (self.random.pick(of), self.random.pick(of))
    }

    fn conv2d(&mut self) -> Made {
        let (x, value) = self.of_rank(4);
        let shape = value.shape();
        let groups = if shape[1].is_multiple_of(2) && self.random.chance(0.3) { 2 } else { 1 };
        let out = groups * self.random.pick(&[1, 2, 3]);
        let (kernel_h, kernel_w) = self.pair(&[1, 2, 3]);
        let padding = match self.random.below(4) {
            0 => Padding::Valid,
            1 => Padding::Same,
            2 => Padding::symmetric(1, 2),
            _ => Padding::Explicit { top: 0, bottom: 2, left: 1, right: 0 },
        };
        let options =
            Conv2dOptions { stride: self.pair(&[1, 1, 2]), padding, dilation: self.pair(&[1, 1, 2]), groups };
        let weight = self.real_leaf(&[out, shape[1] / groups, kernel_h, kernel_w]);
        let mut y = self.g.scoped("conv", |g| g.conv2d(x, weight, options))?;
        let mut made = vec![y];
        if self.random.chance(0.6) {
            let bias = self.real_leaf(&[out]);
            y = self.g.add_channels(y, bias)?;
            y = self.activation(y)?;
            made = vec![y];
        }
        Ok(made)
    }

    fn pool2d(&mut self) -> Made {
        let (x, _) = self.of_rank(4);
        let kernel = self.pair(&[1, 2, 3]);
        let padding = (self.random.below(kernel.0 / 2 + 1), self.random.below(kernel.1 / 2 + 1));
        let options = Pool2dOptions { kernel, stride: self.pair(&[1, 2, 3]), padding };
        let include = self.random.chance(0.5);
        Ok(vec![if self.random.chance(0.5) {
            self.g.max_pool2d(x, options)?
        } else {
            self.g.avg_pool2d(x, options, include)?
        }])
    }

    fn softmax(&mut self) -> Made {
        let (x, value) = self.any();
        let axis = self.random.below(value.ndim().max(1));
        Ok(vec![if self.random.chance(0.5) {
            self.g.softmax(x, axis)?
        } else {
            self.g.log_softmax(x, axis)?
        }])
    }

    fn cross_entropy(&mut self) -> Made {
        // sometimes the same logits again, with another smoothing
        let (logits, labels) = if !self.classified.is_empty() && self.random.chance(0.4) {
            self.random.pick(&self.classified)
        } else {
            let (logits, value) = self.of_rank(2);
            (logits, self.integer_leaf(&[value.shape()[0]], value.shape()[1]))
        };
        self.classified.push((logits, labels));
        let smoothing = self.random.pick(&[0.0, 0.25]);
        let (losses, correct) = self.g.scoped("loss", |g| g.cross_entropy(logits, labels, smoothing))?;
        Ok(if self.random.chance(0.3) { vec![losses, correct] } else { vec![losses] })
    }

    fn one_hot(&mut self) -> Made {
        let (rows, classes) = (self.random.pick(&SIZES), self.random.pick(&SIZES));
        // a label past the classes is a row of zeros
        let labels = self.integer_leaf(&[rows], classes + 1);
        let hot = self.g.one_hot(labels, classes)?;
        Ok(vec![if self.random.chance(0.5) { hot } else { self.activation(hot)? }])
    }

    fn literal(&mut self) -> Made {
        let shape = self.shape();
        let len = shape.iter().product();
        let values: Vec<f32> = (0..len).map(|_| self.random.pick(&CONSTANTS)).collect();
        Ok(vec![self.g.literal(shape, &values)?])
    }

    /// A batch of pictures of which everything changes.
    fn augmented(&mut self) -> Made {
        let (items, rows) = (2 + self.random.below(4), 1 + self.random.below(4));
        let channels = self.random.pick(&[1, 3]);
        let item = [channels, 3 + self.random.below(4), 3 + self.random.below(4)];
        let elements: usize = item.iter().product();
        let dtype = self.random.pick(&[GatherType::U8, GatherType::F32]);
        let data = match dtype {
            GatherType::F32 => self.real_leaf(&[items, elements]),
            _ => self.integer_leaf(&[(items * elements).div_ceil(4)], 1 << 30),
        };
        let order = self.integer_leaf(&[items], items);
        let factor = if dtype == GatherType::U8 { 1.0 / 256.0 } else { 0.5 };
        let options = GatherOptions {
            rows,
            items,
            item: item.into(),
            dtype,
            reversed: false,
            scale: vec![factor],
            shift: vec![0.25],
        };
        let border = self.random.pick(&[Border::Nearest, Border::Reflect, Border::Constant(Real(0.5))]);
        let augment = AugmentOptions {
            ranges: ranges(channels == 3, self.random.chance(0.5)),
            bilinear: self.random.chance(0.5),
            border,
            cover: Real(0.75),
        };
        let (pictures, shares) = self.g.gather_augmented(data, order, options, &augment)?;
        Ok(vec![pictures, shares])
    }

    fn gather(&mut self) -> Made {
        let (items, rows) = (2 + self.random.below(4), 1 + self.random.below(4));
        let item = self.random.pick(&[vec![3], vec![2, 3, 3], vec![1, 5, 4], vec![]]);
        let elements: usize = item.iter().product();
        let dtype = self.random.pick(&[GatherType::U8, GatherType::F32]);
        let channels = if item.is_empty() || self.random.chance(0.5) { 1 } else { item[0] };
        let data = match dtype {
            GatherType::F32 => self.real_leaf(&[items, elements]),
            _ => self.integer_leaf(&[(items * elements).div_ceil(4)], 1 << 30),
        };
        let order = self.integer_leaf(&[items], items);
        let factor = if dtype == GatherType::U8 { 1.0 / 256.0 } else { 0.5 };
        let options = GatherOptions {
            rows,
            items,
            item: item.into(),
            dtype,
            reversed: false,
            scale: (0..channels).map(|c| factor * (c + 1) as f32).collect(),
            shift: (0..channels).map(|c| 0.25 * c as f32).collect(),
        };
        Ok(vec![self.g.gather(data, order, options)?])
    }

    /// What a user might bring.
    fn custom(&mut self) -> Made {
        Ok(vec![match self.random.below(3) {
            0 => {
                let x = self.any().0;
                let factor = self.random.pick(&[0.5, 1.0]);
                self.g.scoped("custom", |g| g.custom(Arc::new(SquaredRelu(factor)), &[x]))?
            }
            1 => {
                let x = self.of_rank(4).0;
                self.g.custom(Arc::new(Blur), &[x])?
            }
            _ => {
                let (x, value) = self.of_rank(2);
                let labels = self.integer_leaf(&[value.shape()[0]], value.shape()[1]);
                self.g.custom(Arc::new(Pick), &[x, labels])?
            }
        }])
    }

    /// A gradient as a tensor to build upon.
    fn gradient(&mut self) -> Made {
        let (of, wrt) = (self.any().0, self.any().0);
        let square = self.g.square(of)?;
        self.g.gradients(square, &[wrt])
    }

    fn finish(mut self) -> Generated {
        // a scalar of a few tensors, and its gradients with respect to all leaves and one intermediate value
        let mut loss = self.g.fill([], 0.5).unwrap();
        for _ in 0..1 + self.random.below(3) {
            let (t, value) = self.any();
            let axes: Vec<usize> = (0..value.ndim()).collect();
            let sum = if self.random.chance(0.5) || !value.len().is_power_of_two() {
                self.g.sum(t, &axes, false).unwrap()
            } else {
                self.g.mean(t, &axes, false).unwrap()
            };
            loss = self.g.add(loss, sum).unwrap();
        }
        let (names, parameters) = (self.g.parameters(), self.g.parameter_tensors());
        let inside = self.any().0;
        let wrt: Vec<Tensor> = parameters.iter().copied().chain([inside]).collect();
        let mut fetch = vec![("loss".to_string(), loss)];
        let mut gradients = Vec::new();
        match self.g.gradients(loss, &wrt) {
            Ok(found) => {
                gradients.extend(names.into_iter().map(|(name, _)| name).zip(found.iter().copied()));
                fetch.push(("inside".into(), found[parameters.len()]));
                if !gradients.is_empty() && self.random.chance(0.3) {
                    let (_, t) = self.random.pick(&gradients);
                    fetch.push(("a gradient too".into(), t));
                }
            }
            Err(GraphError::NoGradient { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        for i in 0..self.random.below(4) {
            let t = self.any().0;
            fetch.push((format!("fetch{i}"), t));
            if self.random.chance(0.3) {
                fetch.push((format!("fetch{i} again"), t));
            }
        }
        let mut totals = Vec::new();
        for _ in 0..self.random.below(4) {
            let t = self.any().0;
            totals.push((t, self.random.pick(&[1.0, 0.5])));
        }
        // gradients may overflow where values do not
        let fine = |value: &Array| value.iter().all(|v| v.abs() < 1e6);
        let values = self.values(&fetch.iter().map(|f| f.1).collect::<Vec<_>>());
        let mut values = values.iter();
        fetch.retain(|_| values.next().is_some_and(fine));
        let values = self.values(&gradients.iter().map(|f| f.1).collect::<Vec<_>>());
        let mut values = values.iter();
        gradients.retain(|_| values.next().is_some_and(fine));
        Generated { graph: self.g, fetch, gradients, totals, leaves: self.leaves, exact: self.exact }
    }
}

/// Changes of every kind.
fn ranges(hue: bool, mixed: bool) -> AugmentRanges {
    AugmentRanges {
        rotation: 1 << 30,
        shift: [1 << 15, 3 << 14],
        shear: 1 << 13,
        zoom: [1 << 13, 1 << 15],
        crop: 1,
        horizontal_flip: true,
        vertical_flip: true,
        brightness: 1 << 12,
        contrast: 1 << 13,
        saturation: if hue { 1 << 14 } else { 0 },
        hue: if hue { 1 << 30 } else { 0 },
        cutout: 2,
        mixup: if mixed { (0..65).map(|i| 32_768 + 512 * i).collect() } else { Vec::new() },
    }
}
