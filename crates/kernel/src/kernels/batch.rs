//! What a step begins and ends with: the batch, dropout, running sums, the clock.

use super::Constants;
use crate::{Binding, CLOCK_WORDS, Constant, DType, Real, Spec, Tail};

/// A batch of a resident data set: `y[r, j] = data[order[min(cursor + r, items - 1)], j] · scale[c] + shift[c]`
/// with c the channel `j / channel_len`, and cursor the clock's. Class labels (`U32`) are copied. With `reversed` row r
/// takes the place of row `rows - 1 - r`: its partner where rows are mixed.
///
/// Bindings: `data`, `order` (u32 \[items\]), `clock` (u32), `y` [rows, row_len].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gather {
    /// Rows of the batch.
    pub rows: u32,
    /// Rows of the data set and of `order`.
    pub items: u32,
    /// Elements of a row.
    pub row_len: u32,
    /// How the data set is stored.
    pub dtype: GatherType,
    /// Whether the last row of the batch comes first.
    pub reversed: bool,
    /// Factor of each channel; one entry, or one for each channel. Empty for `U32`.
    pub scale: Vec<Real>,
    /// Summand of each channel; as many as `scale`.
    pub shift: Vec<Real>,
}

impl Spec for Gather {
    fn name(&self) -> &'static str {
        match self.dtype {
            GatherType::U8 => "gather_u8",
            GatherType::F32 => "gather_f32",
            GatherType::U32 => "gather_u32",
        }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let (items, row_len) = (self.items as usize, self.row_len as usize);
        let mut y = Binding::write("y", self.rows as usize * row_len);
        let data = match self.dtype {
            GatherType::U8 => Binding::read_u32("data", (items * row_len).div_ceil(4)),
            GatherType::F32 => Binding::read("data", items * row_len),
            GatherType::U32 => {
                y.dtype = DType::U32;
                Binding::read_u32("data", items * row_len)
            }
        };
        vec![data, Binding::read_u32("order", items), Binding::read_u32("clock", CLOCK_WORDS), y]
    }

    fn constants(&self) -> Constants {
        let mut constants: Constants =
            vec![("ROWS", self.rows.into()), ("ITEMS", self.items.into()), ("ROW_LEN", self.row_len.into())];
        constants.push(("REVERSED", self.reversed.into()));
        if !self.scale.is_empty() {
            constants.extend([
                ("CHANNELS", self.scale.len().into()),
                ("CHANNEL_LEN", (self.row_len as usize / self.scale.len()).into()),
                ("SCALE", Constant::F32Array(self.scale.iter().map(|s| s.0).collect())),
                ("SHIFT", Constant::F32Array(self.shift.iter().map(|s| s.0).collect())),
            ]);
        }
        constants
    }
}

/// How the rows of a data set are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GatherType {
    /// Bytes, four to a `u32` word, first lowest; gathered as real numbers. Item `i`'s byte `j` is byte
    /// `i · row_len + j` of the buffer; the buffer is padded to whole words.
    U8,
    /// Real numbers, gathered as they are.
    F32,
    /// Unsigned integers (class labels), gathered as they are.
    U32,
}

/// Inverted dropout: `y[i] = tail(x[i] / (1 - rate) if u(i / group) >= rate else 0)`, with u(j) the j-th uniform number
/// ([`crate::random::Stream::uniform`]) of this stream at the clock's seed and step. Its own gradient. A `group` of
/// neighbours shares one draw: the pixels of a channel in spatial dropout.
///
/// Bindings: `x`, `clock` (u32), `y`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dropout {
    /// Number of elements.
    pub len: u32,
    /// Probability that an element is dropped, in [0, 1).
    pub rate: Real,
    /// How many neighbouring elements are kept or dropped together, at least 1.
    pub group: u32,
    /// The layer's stream of random numbers.
    pub stream: u32,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let len = self.len as usize;
        vec![Binding::read("x", len), Binding::read_u32("clock", CLOCK_WORDS), Binding::write("y", len)]
    }

    fn constants(&self) -> Constants {
        vec![
            ("LEN", self.len.into()),
            ("RATE", self.rate.0.into()),
            ("SCALE", (1.0 / (1.0 - self.rate.0)).into()),
            ("GROUP", self.group.into()),
            ("STREAM", self.stream.into()),
        ]
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }
}

/// `y[i] = tail(n(i))`, with n(i) the i-th standard normal number ([`crate::random::Stream::normal`]) of this stream at
/// the clock's seed and step.
///
/// Bindings: `clock` (u32), `y`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RandomNormal {
    /// Number of elements, at most 2^31: an element takes two random words, numbered in 32 bits.
    pub len: u32,
    /// The operation's stream of random numbers.
    pub stream: u32,
    /// What is done to each result.
    pub tail: Tail,
}

impl Spec for RandomNormal {
    fn name(&self) -> &'static str {
        "random_normal"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        vec![Binding::read_u32("clock", CLOCK_WORDS), Binding::write("y", self.len as usize)]
    }

    fn constants(&self) -> Constants {
        vec![("LEN", self.len.into()), ("STREAM", self.stream.into())]
    }

    fn tail(&self) -> Option<&Tail> {
        Some(&self.tail)
    }

    fn flops(&self) -> u64 {
        40 * u64::from(self.len)
    }
}

/// `totals[q] += scale[q] · Σ_i source_q[i]` for each source q: sums of losses and hits that grow on the device
/// and are read back now and then.
///
/// Bindings: `totals` (one for each source), `source0`, `source1`, ... (at most four).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Accumulate {
    /// (length, scale) of each source; a length is at most 4,096 (planning reduces longer ones first).
    pub sources: Vec<(u32, Real)>,
}

impl Accumulate {
    /// The longest source that one launch takes.
    pub const MAX_LEN: usize = 4096;
    /// Most sources of one launch.
    pub const MAX_SOURCES: usize = 4;
    const NAMES: [(&'static str, &'static str, &'static str); 4] = [
        ("source0", "LEN0", "SCALE0"),
        ("source1", "LEN1", "SCALE1"),
        ("source2", "LEN2", "SCALE2"),
        ("source3", "LEN3", "SCALE3"),
    ];
}

impl Spec for Accumulate {
    fn name(&self) -> &'static str {
        match self.sources.len() {
            1 => "accumulate1",
            2 => "accumulate2",
            3 => "accumulate3",
            _ => "accumulate4",
        }
    }

    fn core_bindings(&self) -> Vec<Binding> {
        let mut bindings = vec![Binding::update("totals", self.sources.len())];
        for (&(len, _), (name, ..)) in self.sources.iter().zip(Self::NAMES) {
            bindings.push(Binding::read(name, len as usize));
        }
        bindings
    }

    fn constants(&self) -> Constants {
        self.sources
            .iter()
            .zip(Self::NAMES)
            .flat_map(|(&(len, scale), (_, len_name, scale_name))| {
                [(len_name, len.into()), (scale_name, scale.0.into())]
            })
            .collect()
    }
}

/// `sum[i] += factor · x[i]`: gradients of the parts of a step, each counted by its rows.
///
/// Bindings: `sum` (len), `x` (len).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AddScaled {
    /// Elements.
    pub len: u32,
    /// How often x counts.
    pub factor: Real,
}

impl Spec for AddScaled {
    fn name(&self) -> &'static str {
        "add_scaled"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        vec![Binding::update("sum", self.len as usize), Binding::read("x", self.len as usize)]
    }

    fn constants(&self) -> Constants {
        vec![("LEN", self.len.into()), ("FACTOR", self.factor.0.into())]
    }

    fn flops(&self) -> u64 {
        2 * u64::from(self.len)
    }
}

/// `clock[0] += draws; clock[1] += steps; clock[2] += batch`, which wrap: the end of a step, or of a part of one.
///
/// Bindings: `clock` (u32).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Advance {
    /// Rows of the batch.
    pub batch: u32,
    /// Times that the kernels of a step may draw random numbers: 1 at the end of a training step, 0 in evaluation.
    pub draws: u32,
    /// Rows of the hyper-parameter table: 1 at the end of a training step, 0 in evaluation and between the parts of a
    /// step.
    pub steps: u32,
}

impl Advance {
    /// The end of a training step.
    pub fn step(batch: u32) -> Self {
        Self { batch, draws: 1, steps: 1 }
    }

    /// The end of a batch that trains nothing.
    pub fn rows(batch: u32) -> Self {
        Self { batch, draws: 0, steps: 0 }
    }
}

impl Spec for Advance {
    fn name(&self) -> &'static str {
        "advance"
    }

    fn core_bindings(&self) -> Vec<Binding> {
        vec![Binding { dtype: DType::U32, ..Binding::update("clock", CLOCK_WORDS) }]
    }

    fn constants(&self) -> Constants {
        vec![("BATCH", self.batch.into()), ("DRAWS", self.draws.into()), ("STEPS", self.steps.into())]
    }
}
