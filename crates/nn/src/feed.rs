//! Rows on their way to a step: a data set that lies on the device, or a window of it that moves along.

use std::{
    collections::HashMap,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel, sync_channel},
    },
    thread,
    time::Instant,
};

use kiln_data::{DataError, RowKind, RowMut, Split, Targets};
use kiln_graph::{CLOCK, GraphError, TOTALS};
use kiln_kernel::{Backend, BackendError, Buffer, CLOCK_WORDS, DType, Host, HostRef, MAX_ELEMENTS};

use crate::{
    NnError,
    step::{FEATURES, Form, ORDER, SAMPLE_WEIGHTS, TARGETS},
};

/// Where the rows of a data set lie while they are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residency {
    /// On the device where they fit, else streamed. Rows that are read when they are needed are then read once.
    #[default]
    Auto,
    /// On the device; an error where they do not fit.
    Resident,
    /// On the host; threads read and pack the next rows while the device is busy with these. The same steps, to the bit.
    Streamed,
}

/// Bytes of the window of a streamed data set.
pub(crate) const WINDOW_BYTES: usize = 4 << 20;

/// Windows that are packed ahead. At most two more are there: the one that is being packed, and the one that is being
/// written to the device.
const AHEAD: usize = 4;

/// Windows that are written to the device before the host waits for them: what is written lies on the host until then.
const WINDOWS_PER_FLUSH: usize = 16;

/// The rows of a split for plans of one batch size, and the buffers that those read.
pub(crate) struct Feed<'s> {
    /// The form of what lies on the device: `items` are the rows of the window where it is streamed.
    pub(crate) form: Form,
    pub(crate) buffers: HashMap<String, Buffer>,
    split: &'s Split,
    weights: Option<Vec<f32>>,
    window: Option<usize>,
    /// Nanoseconds that were waited for rows.
    waited: AtomicU64,
}

/// Some rows as buffers take them.
#[derive(Default)]
struct Packed {
    features: Words,
    /// Empty where the rows are their own targets.
    targets: Words,
    /// Empty where there are none.
    weights: Vec<f32>,
}

/// Elements of a buffer, and the memory of either kind, to be used again.
#[derive(Default)]
struct Words {
    is_real: bool,
    whole: Vec<u32>,
    real: Vec<f32>,
}

impl Words {
    fn as_ref(&self) -> HostRef<'_> {
        if self.is_real { HostRef::F32(&self.real) } else { HostRef::U32(&self.whole) }
    }

    fn clear(&mut self, is_real: bool) {
        self.is_real = is_real;
        self.whole.clear();
        self.real.clear();
    }

    /// Takes up rows, of bytes four to a word, the first lowest.
    fn read(&mut self, split: &Split, rows: &[u32]) -> Result<(), DataError> {
        let elements = rows.len() * split.item_shape().elements();
        self.clear(split.kind() == RowKind::Real);
        match split.kind() {
            RowKind::Bytes => {
                self.whole.resize(elements.div_ceil(4), 0);
                split
                    .read(rows, RowMut::Bytes(&mut bytemuck::cast_slice_mut(&mut self.whole)[..elements]))?;
                if cfg!(target_endian = "big") {
                    self.whole.iter_mut().for_each(|word| *word = word.swap_bytes());
                }
            }
            RowKind::Real => {
                self.real.resize(elements, 0.0);
                split.read(rows, RowMut::Real(&mut self.real))?;
            }
        }
        Ok(())
    }
}

/// Rows of a window of a split in batches of `rows`.
fn window_rows(split: &Split, rows: usize, window_bytes: usize) -> usize {
    let bytes = row_bytes(split) + target_bytes(split);
    let batches = (window_bytes / bytes.max(1) / rows).clamp(1, split.len().div_ceil(rows));
    batches * rows
}

fn row_bytes(split: &Split) -> usize {
    let elements = split.item_shape().elements();
    4 * if split.kind() == RowKind::Bytes { elements.div_ceil(4) } else { elements }
}

fn target_bytes(split: &Split) -> usize {
    match split.targets() {
        Targets::Classes { .. } => 4,
        Targets::Real { shape, .. } => 4 * shape.elements(),
        Targets::Input => 0,
    }
}

impl<'s> Feed<'s> {
    /// Uploads a split, or prepares to stream it in windows of whole batches of `rows`.
    pub(crate) fn new(
        backend: &dyn Backend,
        split: &'s Split,
        weights: Option<Vec<f32>>,
        rows: usize,
        residency: Residency,
    ) -> Result<Self, NnError> {
        Self::within(WINDOW_BYTES, backend, split, weights, rows, residency)
    }

    /// [`Feed::new`] with windows of at most so many bytes, or of one batch.
    pub(crate) fn within(
        window_bytes: usize,
        backend: &dyn Backend,
        split: &'s Split,
        weights: Option<Vec<f32>>,
        rows: usize,
        residency: Residency,
    ) -> Result<Self, NnError> {
        let bytes = row_bytes(split).max(target_bytes(split)).saturating_mul(split.len()) as u64;
        let limits = backend.limits();
        // one argument covers no more than a binding
        let fits = split.features().len().max(bytes as usize / 4) <= MAX_ELEMENTS
            && bytes <= limits.max_binding_bytes.min(limits.max_buffer_bytes);
        let window = window_rows(split, rows, window_bytes);
        let streamed = || Self::allocate(backend, split, weights.clone(), Some(window));
        match residency {
            Residency::Streamed => streamed(),
            Residency::Auto if !fits => streamed(),
            _ => match Self::allocate(backend, split, weights.clone(), None) {
                Err(error) if residency == Residency::Auto && is_no_room(&error) => streamed(),
                feed => feed,
            },
        }
    }

    fn allocate(
        backend: &dyn Backend,
        split: &'s Split,
        weights: Option<Vec<f32>>,
        window: Option<usize>,
    ) -> Result<Self, NnError> {
        let items = window.unwrap_or(split.len());
        let form = Form { items, weighted: weights.is_some(), ..Form::of(split) };
        let mut buffers = HashMap::new();
        let mut buffer = |name: &str, dtype: DType, len: usize| -> Result<(), NnError> {
            let label = format!("{name} of {items} rows");
            buffers.insert(name.to_string(), backend.allocate(dtype, len, &label)?);
            Ok(())
        };
        let item = split.item_shape().elements();
        match split.kind() {
            RowKind::Bytes => buffer(FEATURES, DType::U32, (items * item).div_ceil(4))?,
            RowKind::Real => buffer(FEATURES, DType::F32, items * item)?,
        }
        match split.targets() {
            Targets::Classes { .. } => buffer(TARGETS, DType::U32, items)?,
            Targets::Real { shape, .. } => buffer(TARGETS, DType::F32, items * shape.elements())?,
            Targets::Input => {}
        }
        if weights.is_some() {
            buffer(SAMPLE_WEIGHTS, DType::F32, items)?;
        }
        buffer(ORDER, DType::U32, items)?;
        let feed = Self { form, buffers, split, weights, window, waited: AtomicU64::new(0) };
        if backend.is_rehearsal() {
            return Ok(feed);
        }
        feed.write(backend, ORDER, HostRef::U32(&(0..items as u32).collect::<Vec<u32>>()))?;
        if window.is_none() {
            upload(backend, &feed.buffers, split)?;
            if let Some(weights) = &feed.weights {
                feed.write(backend, SAMPLE_WEIGHTS, HostRef::F32(weights))?;
            }
        }
        Ok(feed)
    }

    fn write(&self, backend: &dyn Backend, name: &str, data: HostRef<'_>) -> Result<(), NnError> {
        Ok(backend.write(&self.buffers[name].slice(0, data.len()), data)?)
    }

    /// With a clock and sums of its own, so that what it is used for disturbs no training.
    pub(crate) fn apart(mut self, backend: &dyn Backend) -> Result<Self, NnError> {
        self.buffers.insert(CLOCK.into(), backend.allocate(DType::U32, CLOCK_WORDS, CLOCK)?);
        self.buffers.insert(TOTALS.into(), backend.allocate(DType::F32, 3, TOTALS)?);
        Ok(self)
    }

    /// Rows in all.
    pub(crate) fn rows(&self) -> usize {
        self.split.len()
    }

    pub(crate) fn split(&self) -> &'s Split {
        self.split
    }

    pub(crate) fn is_streamed(&self) -> bool {
        self.window.is_some()
    }

    /// Seconds that were waited for rows since this was last asked.
    pub(crate) fn take_waited(&self) -> f64 {
        self.waited.swap(0, Ordering::Relaxed) as f64 * 1e-9
    }

    /// Visits rows in an order, from one of them on. `visit` is given a [`Visit`], which it asks before each step.
    pub(crate) fn visit<R>(
        &self,
        backend: &dyn Backend,
        order: &[u32],
        from: usize,
        visit: impl FnOnce(&mut Visit<'_, 's>) -> Result<R, NnError>,
    ) -> Result<R, NnError> {
        let Some(window) = self.window else {
            self.write(backend, ORDER, HostRef::U32(order))?;
            let source = Source::Resident { begun: false };
            return visit(&mut Visit { feed: self, source });
        };
        thread::scope(|scope| {
            let (sender, windows) = sync_channel(AHEAD);
            let (used, again) = channel::<Packed>();
            scope.spawn(move || {
                for rows in order[from..].chunks(window) {
                    let mut packed = again.try_recv().unwrap_or_default();
                    let read = self.pack(rows, &mut packed);
                    let is_over = read.is_err();
                    // nobody takes it where a fit ends within an epoch
                    if sender.send(read.map(|()| packed)).is_err() || is_over {
                        return;
                    }
                }
            });
            let source = Source::Streamed { windows, used, window, until: from };
            visit(&mut Visit { feed: self, source })
        })
    }

    fn pack(&self, rows: &[u32], to: &mut Packed) -> Result<(), DataError> {
        fn pick<T: Copy>(values: &[T], size: usize, rows: &[u32], to: &mut Vec<T>) {
            rows.iter().for_each(|&r| to.extend_from_slice(&values[r as usize * size..][..size]));
        }
        to.features.read(self.split, rows)?;
        match self.split.targets() {
            Targets::Classes { labels, .. } => {
                to.targets.clear(false);
                pick(labels, 1, rows, &mut to.targets.whole);
            }
            Targets::Real { values, shape } => {
                to.targets.clear(true);
                pick(values, shape.elements(), rows, &mut to.targets.real);
            }
            Targets::Input => {}
        }
        to.weights.clear();
        if let Some(weights) = &self.weights {
            pick(weights, 1, rows, &mut to.weights);
        }
        Ok(())
    }
}

/// All rows of a split as a buffer takes them.
pub(crate) fn pack_all(split: &Split) -> Result<Host, NnError> {
    let mut words = Words::default();
    words.read(split, &(0..split.len() as u32).collect::<Vec<u32>>())?;
    Ok(if words.is_real { Host::F32(words.real) } else { Host::U32(words.whole) })
}

/// Writes all rows of a split, as they come.
pub(crate) fn upload(
    backend: &dyn Backend,
    buffers: &HashMap<String, Buffer>,
    split: &Split,
) -> Result<(), NnError> {
    let write = |name: &str, data: HostRef<'_>| backend.write(&buffers[name].slice(0, data.len()), data);
    // windows of whole words
    let window = window_rows(split, 4, WINDOW_BYTES).max(4);
    let rows: Vec<u32> = (0..split.len() as u32).collect();
    let mut words = Words::default();
    let mut offset = 0;
    for (i, rows) in rows.chunks(window).enumerate() {
        words.read(split, rows)?;
        let data = words.as_ref();
        backend.write(&buffers[FEATURES].slice(offset, data.len()), data)?;
        if (i + 1) % WINDOWS_PER_FLUSH == 0 {
            pollster::block_on(backend.read(&buffers[FEATURES].slice(offset, 1)))?;
        }
        offset += data.len();
    }
    match split.targets() {
        Targets::Classes { labels, .. } => write(TARGETS, HostRef::U32(labels))?,
        Targets::Real { values, .. } => write(TARGETS, HostRef::F32(values))?,
        Targets::Input => {}
    }
    Ok(())
}

/// A way through the rows of a [`Feed`].
pub(crate) struct Visit<'f, 's> {
    feed: &'f Feed<'s>,
    source: Source,
}

enum Source {
    Resident {
        begun: bool,
    },
    Streamed {
        windows: Receiver<Result<Packed, DataError>>,
        /// Takes windows that were written, to be filled again.
        used: Sender<Packed>,
        window: usize,
        /// The first row that is not on the device yet.
        until: usize,
    },
}

impl Visit<'_, '_> {
    /// Where the clock's cursor stands at a row of the order.
    pub(crate) fn cursor(&self, row: usize) -> usize {
        match &self.source {
            Source::Resident { .. } => row,
            Source::Streamed { window, until, .. } => row + window - until,
        }
    }

    /// How many rows lie on the device from a row of the order on.
    pub(crate) fn ready(&self, row: usize) -> usize {
        match &self.source {
            Source::Resident { .. } => usize::MAX,
            Source::Streamed { until, .. } => until.saturating_sub(row),
        }
    }

    /// Makes the batch that begins at `row` of the order ready. Where the clock's cursor does not stand at it by itself,
    /// where it must be set to.
    pub(crate) fn before(&mut self, backend: &dyn Backend, row: usize) -> Result<Option<usize>, NnError> {
        match &mut self.source {
            Source::Resident { begun } => Ok((!std::mem::replace(begun, true)).then_some(row)),
            Source::Streamed { until, .. } if row < *until => Ok(None),
            Source::Streamed { windows, used, window, until } => {
                let gone = || NnError::Settings("the thread that packs rows has ended early".into());
                let since = Instant::now();
                let packed = windows.recv();
                self.feed.waited.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
                let packed = packed.map_err(|_| gone())??;
                *until += *window;
                self.feed.write(backend, FEATURES, packed.features.as_ref())?;
                if self.feed.buffers.contains_key(TARGETS) {
                    self.feed.write(backend, TARGETS, packed.targets.as_ref())?;
                }
                if !packed.weights.is_empty() {
                    self.feed.write(backend, SAMPLE_WEIGHTS, HostRef::F32(&packed.weights))?;
                }
                // where the last window is packed already, nobody takes it
                let _ = used.send(packed);
                Ok(Some(0))
            }
        }
    }
}

/// The factor of each row's loss: its own weight times that of its class. None where there are neither.
pub(crate) fn row_weights(
    split: &Split,
    sample_weights: Option<&[f32]>,
    class_weights: Option<&[f32]>,
) -> Result<Option<Vec<f32>>, NnError> {
    let fail = |message: String| Err(NnError::Settings(message));
    let check = |what: &str, of: &str, weights: &[f32]| match weights
        .iter()
        .position(|w| !(w.is_finite() && *w >= 0.0))
    {
        Some(at) => Err(NnError::Settings(format!(
            "{what} weights must be finite and at least 0, that of {of} {at} is {}",
            weights[at]
        ))),
        None => Ok(()),
    };
    if let Some(weights) = sample_weights {
        check("sample", "row", weights)?;
        if weights.len() != split.len() {
            return fail(format!("{} sample weights for {} rows", weights.len(), split.len()));
        }
    }
    let Some(by_class) = class_weights else { return Ok(sample_weights.map(<[f32]>::to_vec)) };
    check("class", "class", by_class)?;
    let Targets::Classes { labels, classes } = split.targets() else {
        return fail("class weights are for class labels; the targets are none".into());
    };
    if by_class.len() != *classes {
        return fail(format!("{} class weights for {classes} classes", by_class.len()));
    }
    let of_class = labels.iter().map(|&label| by_class[label as usize]);
    Ok(Some(match sample_weights {
        Some(own) => of_class.zip(own).map(|(a, b)| a * b).collect(),
        None => of_class.collect(),
    }))
}

/// Whether an error says that there is no room.
pub(crate) fn is_no_room(error: &NnError) -> bool {
    matches!(
        error,
        NnError::Backend(BackendError::OutOfMemory { .. } | BackendError::Limit { .. })
            | NnError::Graph(GraphError::Backend(
                BackendError::OutOfMemory { .. } | BackendError::Limit { .. }
            ))
    )
}
