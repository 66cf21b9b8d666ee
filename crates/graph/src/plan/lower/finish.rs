//! What a run keeps beyond its results: running averages, counts, outputs, sums.

use kiln_kernel::{
    self as kernel, Accumulate, CLOCK_WORDS, DType, FirstNonFinite, Kernel, Layout, MAX_ELEMENTS,
    MovingAverage, Real, ReduceOp, Tail, splits_for,
};

use super::{Lowering, Storage, StorageInfo};
use crate::{
    GraphError, Tensor,
    plan::{CLOCK, FINDING_LEN, FINDINGS, GRADIENTS, HYPER, PARAMETERS, Place, Request, TALLY, TOTALS},
};

impl Lowering<'_> {
    /// Updates averages in the parameters' arena, up to four in a launch.
    pub(super) fn averages(&mut self, averages: &[(String, Tensor, f32)]) -> Result<(), GraphError> {
        self.label = "averages".into();
        let mut open: Vec<(Storage, Storage, u32, Real)> = Vec::new();
        for (name, value, momentum) in averages {
            let place = self.segments.place(PARAMETERS, name)?;
            let (Place::External { len, .. } | Place::Slot { len, .. }) = place;
            if len != self.shape(*value).elements() {
                let shape = self.shape(*value);
                return Err(GraphError::Name(format!(
                    "the average \"{name}\" has {len} elements, the value that it follows is {shape}"
                )));
            }
            let running = self.external(place, DType::F32);
            let mut source = self.argument(*value)?;
            // one buffer cannot be read and written by one launch
            let arena = |p: &Place| matches!(p, Place::External { name, .. } if **name == *PARAMETERS);
            if self.storages[source.0].place.as_ref().is_some_and(arena) {
                let copied = self.scratch(len);
                self.copy(*value, copied)?;
                source = copied;
            }
            // what follows two values moves twice, in their order
            if open.len() == MovingAverage::MAX_PAIRS || open.iter().any(|pair| pair.0 == running) {
                self.move_averages(std::mem::take(&mut open));
            }
            open.push((running, source, len as u32, Real(*momentum)));
        }
        self.move_averages(open);
        Ok(())
    }

    fn move_averages(&mut self, open: Vec<(Storage, Storage, u32, Real)>) {
        if open.is_empty() {
            return;
        }
        let arguments = open.iter().flat_map(|&(running, value, ..)| [running, value]).collect();
        let pairs = open.iter().map(|&(_, _, len, momentum)| (len, momentum)).collect();
        self.emit(Kernel::MovingAverage(MovingAverage { pairs }), arguments);
    }

    pub(super) fn tally(&mut self, request: &Request) -> Result<(), GraphError> {
        let Some((scores, labels)) = request.tally else { return Ok(()) };
        let (shape, of) = (self.shape(scores), self.shape(labels));
        let dtype = |t: Tensor| self.r.graph.tensors[t.index()].dtype;
        if shape.rank() != 2 || of.dims() != &shape.dims()[..1] {
            return Err(GraphError::Name(format!(
                "a tally takes scores [rows, classes] and labels [rows], got {shape} and {of}"
            )));
        }
        if dtype(scores) != DType::F32 || dtype(labels) != DType::U32 {
            return Err(GraphError::Name(
                "a tally takes scores of real numbers and labels of integers".into(),
            ));
        }
        let (rows, classes) = (shape[0], shape[1]);
        let counts = classes.saturating_add(1).saturating_mul(classes);
        let (most, most_rows) = (kernel::Softmax::MAX_LEN, kernel::Tally::MAX_ROWS);
        if rows > most_rows || classes > most {
            return Err(GraphError::Name(format!(
                "a tally takes at most {most_rows} rows of {most} classes, got {rows} of {classes}"
            )));
        }
        self.label = TALLY.into();
        let (scores, labels) = (self.argument(scores)?, self.argument(labels)?);
        let what = Some(("counts of rows".into(), [rows].into()));
        let integers = StorageInfo { dtype: DType::U32, len: rows, place: None, within: None, what };
        self.besides += 2 * rows;
        let (predicted, ranks) = (self.store(integers.clone()), self.store(integers));
        let (rows, classes) = (rows as u32, classes as u32);
        let rank = kernel::RankRows { rows, classes };
        self.emit(Kernel::RankRows(rank), vec![scores, labels, predicted, ranks]);
        let counts = self.external(Place::external(TALLY, counts), DType::U32);
        self.emit(Kernel::Tally(kernel::Tally { rows, classes }), vec![predicted, ranks, labels, counts]);
        Ok(())
    }

    /// Searches results for what is no number.
    pub(super) fn find(&mut self, wanted: &[Tensor]) -> Result<(), GraphError> {
        for (i, &tensor) in wanted.iter().enumerate() {
            let (shape, dtype) = (self.shape(tensor), self.r.graph.tensors[tensor.index()].dtype);
            let most = FirstNonFinite::MAX_LEN as usize;
            if dtype != DType::F32 || shape.elements() > most {
                return Err(GraphError::Name(format!(
                    "only real numbers can be searched for what is none, at most {most} of them; got {dtype:?} {shape}"
                )));
            }
            self.label = FINDINGS.into();
            let kernel = FirstNonFinite { len: shape.elements() as u32 };
            let x = self.argument(tensor)?;
            let place = Place::External {
                name: FINDINGS.into(),
                offset: i * FINDING_LEN,
                len: kernel.parts() as usize,
            };
            let first = self.external(place, DType::U32);
            self.emit(Kernel::FirstNonFinite(kernel), vec![x, first]);
        }
        Ok(())
    }

    pub(super) fn collect(&mut self, request: &Request) -> Result<(), GraphError> {
        for wanted in &request.collect {
            let (shape, name) = (self.shape(wanted.tensor), &wanted.buffer);
            let (rows, width) = (shape.dims().first().copied(), shape.dims().iter().skip(1).product());
            let real = self.r.graph.tensors[wanted.tensor.index()].dtype == DType::F32;
            let len = wanted.capacity.checked_mul(width).filter(|n| (1..=MAX_ELEMENTS).contains(n));
            let (Some(rows), Some(len), true) = (rows, len, real) else {
                let capacity = wanted.capacity;
                return Err(GraphError::Name(format!(
                    "\"{name}\" collects {capacity} rows of {shape}; needs rows of real numbers, and from 1 to \
                     {MAX_ELEMENTS} elements in all"
                )));
            };
            let used =
                |place: &Place| matches!(place, Place::External { name: used, .. } if **used == **name);
            if [CLOCK, FINDINGS, GRADIENTS, HYPER, PARAMETERS, TALLY, TOTALS].contains(&name.as_str())
                || self.externals.keys().any(used)
            {
                return Err(GraphError::Name(format!(
                    "\"{name}\" collects into a buffer that the plan uses otherwise; give it a name of its own"
                )));
            }
            self.label = format!("collect {name}").into();
            let x = self.argument(wanted.tensor)?;
            let clock = self.external(Place::external(CLOCK, CLOCK_WORDS), DType::U32);
            let collected = self.external(Place::external(name, len), DType::F32);
            let (rows, width, capacity) = (rows as u32, width as u32, wanted.capacity as u32);
            self.emit(Kernel::Collect(kernel::Collect { rows, width, capacity }), vec![x, clock, collected]);
        }
        Ok(())
    }

    pub(super) fn totals(&mut self, totals: &[(Tensor, f32)]) -> Result<(), GraphError> {
        if totals.is_empty() {
            return Ok(());
        }
        if totals.len() > Accumulate::MAX_SOURCES {
            return Err(GraphError::Name(format!(
                "at most {} totals, got {}",
                Accumulate::MAX_SOURCES,
                totals.len()
            )));
        }
        self.label = TOTALS.into();
        let mut sources = Vec::new();
        let mut arguments = vec![self.external(Place::external(TOTALS, totals.len()), DType::F32)];
        for &(tensor, scale) in totals {
            let (mut x, mut len) = (self.argument(tensor)?, self.shape(tensor).elements());
            while len > Accumulate::MAX_LEN {
                let splits = splits_for(len, 1);
                let y = self.scratch(splits as usize);
                let reduce = kernel::Reduce {
                    op: ReduceOp::Sum,
                    kept: Layout::contiguous(1),
                    reduced: Layout::contiguous(len),
                    len: len as u32,
                    splits,
                    tail: Tail::default(),
                };
                self.emit(Kernel::Reduce(reduce), vec![x, y]);
                (x, len) = (y, splits as usize);
            }
            sources.push((len as u32, Real(scale)));
            arguments.push(x);
        }
        self.emit(Kernel::Accumulate(Accumulate { sources }), arguments);
        Ok(())
    }
}
