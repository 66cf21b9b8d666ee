//! From units to launches over storages: buffers that do not yet share memory.

mod finish;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use kiln_kernel::{
    Binary, CLOCK_WORDS, DType, Elementwise, Kernel, Launch, Layout, MAX_ELEMENTS, Operand, Real, Shape,
    Source, Step, Tail,
};

use crate::{
    GraphError, Tensor,
    graph::Node,
    ops::{Op, ViewKind, is_right_identity},
    plan::{
        CLOCK, GRADIENTS, LITERAL, PARAMETERS, Place, Request,
        fuse::{Unit, is_elementwise, root},
        rewrite::Rewritten,
    },
    store::Segments,
};

/// A buffer of its own, before memory is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Storage(pub(crate) usize);

#[derive(Clone, Debug)]
pub(crate) struct StorageInfo {
    pub(crate) dtype: DType,
    pub(crate) len: usize,
    /// Where it lies, if outside the workspace.
    pub(crate) place: Option<Place>,
    /// The storage that it is a range of, and its first element there.
    pub(crate) within: Option<(Storage, usize)>,
    /// What it holds, for people, and in which shape.
    pub(crate) what: Option<(Arc<str>, Shape)>,
}

/// Launches over storages.
#[derive(Clone)]
pub(crate) struct Lowered {
    pub(crate) launches: Vec<Launch<Storage>>,
    pub(crate) storages: Vec<StorageInfo>,
    /// Storage and shape of each fetch.
    pub(crate) fetches: Vec<(String, Storage, Shape)>,
    /// Given numbers, by the buffer that holds them.
    pub(crate) literals: BTreeMap<Arc<str>, Arc<[f32]>>,
    /// Elements of the workspace that are no recorded operation's result: parts of sums, views that had to be written out.
    pub(crate) besides: usize,
}

impl Lowered {
    /// A further storage.
    pub(crate) fn store(&mut self, info: StorageInfo) -> Storage {
        self.storages.push(info);
        Storage(self.storages.len() - 1)
    }
}

/// The state of lowering, and what a [`crate::ops::Rule`] needs to emit its launches.
pub(crate) struct Lowering<'a> {
    r: &'a Rewritten,
    segments: &'a Segments,
    launches: Vec<Launch<Storage>>,
    storages: Vec<StorageInfo>,
    /// Storage of each tensor that has one, by root.
    of: HashMap<Tensor, Storage>,
    /// Storages of external buffers, by place.
    externals: HashMap<Place, Storage>,
    literals: BTreeMap<Arc<str>, Arc<[f32]>>,
    /// The core's result, which the attached tail writes under another tensor.
    redirect: Option<(Tensor, Tensor)>,
    label: Arc<str>,
    /// As [`Lowered::besides`].
    besides: usize,
}

/// How an elementwise function reads a tensor.
enum Reads {
    Constant(Real),
    Buffer(Storage, Operand),
}

/// A tensor as strides over a tensor whose elements lie in order.
struct Strides {
    base: Tensor,
    /// Where the first element lies.
    offset: usize,
    strides: Vec<usize>,
}

pub(crate) fn lower(
    r: &Rewritten,
    units: Vec<Unit>,
    segments: &Segments,
    request: &Request,
) -> Result<Lowered, GraphError> {
    let mut to = Lowering {
        r,
        segments,
        launches: Vec::new(),
        storages: Vec::new(),
        of: HashMap::new(),
        externals: HashMap::new(),
        literals: BTreeMap::new(),
        redirect: None,
        label: "".into(),
        besides: 0,
    };
    let copies = to.place_gradients(&units, request)?;
    for unit in &units {
        to.unit(unit)?;
    }
    to.label = "gradients".into();
    for (tensor, storage) in copies {
        to.copy(tensor, storage)?;
    }
    let mut fetches = Vec::new();
    for (name, tensor) in &request.fetch {
        to.label = format!("fetch {name}").into();
        fetches.push((name.clone(), to.argument(*tensor)?, to.shape(*tensor)));
    }
    to.totals(&request.totals)?;
    to.averages(&request.averages)?;
    to.tally(request)?;
    to.find(&request.find)?;
    to.collect(request)?;
    for launch in &request.updates {
        let arguments = launch.arguments.iter().zip(launch.kernel.bindings());
        let arguments = arguments.map(|(place, b)| to.external(place.clone(), b.dtype)).collect();
        to.launches.push(Launch { kernel: launch.kernel.clone(), arguments, label: launch.label.clone() });
    }
    if let Some(advance) = &request.advance {
        to.label = "step".into();
        let clock = to.external(Place::external(CLOCK, CLOCK_WORDS), DType::U32);
        to.emit(Kernel::Advance(advance.clone()), vec![clock]);
    }
    // recording has checked every tensor; partial results of split reductions are more than their outputs, and an arena
    // holds all parameters
    if let Some(large) = to.storages.iter().find(|s| s.len > MAX_ELEMENTS) {
        let what = match &large.place {
            Some(Place::External { name, .. }) => format!("\"{name}\" together are"),
            _ => "the partial results of a split reduction are".to_owned(),
        };
        return Err(GraphError::Name(format!(
            "{what} {} elements, at most {MAX_ELEMENTS} can be indexed",
            large.len
        )));
    }
    Ok(Lowered {
        launches: to.launches,
        storages: to.storages,
        fetches,
        literals: to.literals,
        besides: to.besides,
    })
}

impl Lowering<'_> {
    /// Shape of a tensor.
    pub(crate) fn shape(&self, tensor: Tensor) -> Shape {
        self.r.graph.tensors[tensor.index()].shape.clone()
    }

    /// A buffer of real numbers for the launches of one operation only.
    pub(crate) fn scratch(&mut self, len: usize) -> Storage {
        self.besides += len;
        self.store(StorageInfo {
            dtype: DType::F32,
            len,
            place: None,
            within: None,
            what: Some((format!("partial results \"{}\"", self.label).into(), [len].into())),
        })
    }

    /// The storage that an operation's result is written to.
    pub(crate) fn result(&mut self, tensor: Tensor) -> Storage {
        let tensor = match self.redirect {
            Some((from, to)) if from == tensor => to,
            _ => tensor,
        };
        if let Some(&storage) = self.of.get(&tensor) {
            return storage;
        }
        let info = &self.r.graph.tensors[tensor.index()];
        let storage = StorageInfo {
            dtype: info.dtype,
            len: info.shape.elements(),
            place: None,
            within: None,
            what: Some((self.r.graph.describe(tensor).into(), info.shape.clone())),
        };
        let storage = self.store(storage);
        self.of.insert(tensor, storage);
        storage
    }

    /// The storage that holds a tensor's elements in order. Constants, broadcasts and permutations are
    /// written out on first demand.
    pub(crate) fn argument(&mut self, tensor: Tensor) -> Result<Storage, GraphError> {
        let tensor = root(self.r, tensor);
        if let Some(&storage) = self.of.get(&tensor) {
            return Ok(storage);
        }
        let node = self.r.producer(tensor).clone();
        match &node.op {
            Op::Input(name) => {
                let info = self.r.graph.tensors[tensor.index()].clone();
                let storage = self.external(Place::external(name, info.shape.elements()), info.dtype);
                self.of.insert(tensor, storage);
                Ok(storage)
            }
            Op::Literal(literal) => {
                let place = Place::external(&format!("{LITERAL}{}", tensor.index()), literal.values.len());
                if let Place::External { name, .. } = &place {
                    self.literals.insert(name.clone(), literal.values.clone());
                }
                let storage = self.external(place, DType::F32);
                self.of.insert(tensor, storage);
                Ok(storage)
            }
            Op::Parameter(name) => {
                let storage = self.external(self.segments.place(PARAMETERS, name)?, DType::F32);
                self.of.insert(tensor, storage);
                Ok(storage)
            }
            _ => {
                let shape = self.shape(tensor);
                let reads = self.reads(tensor, &shape)?;
                let y = self.result(tensor);
                self.besides += shape.elements();
                self.emit_elementwise(shape.elements(), reads, Tail::default(), Vec::new(), y);
                Ok(y)
            }
        }
    }

    /// Appends a launch.
    pub(crate) fn emit(&mut self, kernel: Kernel, arguments: Vec<Storage>) {
        self.launches.push(Launch { kernel, arguments, label: self.label.clone() });
    }

    /// Lowers an elementwise operation that nothing else took in.
    pub(crate) fn elementwise(&mut self, node: &Node) -> Result<(), GraphError> {
        let constant = |t: Tensor| self.constant(t).is_some();
        let input = match node.op {
            Op::Binary(_) if constant(node.inputs[0]) && !constant(node.inputs[1]) => 1,
            _ => 0,
        };
        let shape = self.shape(node.outputs[0]);
        let reads = self.reads(node.inputs[input], &shape)?;
        let mut tail = Tail::default();
        let mut operands = Vec::new();
        self.step(node, input, &shape, &mut tail, &mut operands)?;
        let y = self.result(node.outputs[0]);
        self.emit_elementwise(shape.elements(), reads, tail, operands, y);
        Ok(())
    }

    /// Emits one launch that writes `y` from `x` by functions of two numbers one after the other, each with another
    /// tensor, read as broadcast to the shape of `y`, on its right.
    pub(crate) fn chain(
        &mut self,
        x: Tensor,
        functions: &[(Binary, Tensor)],
        y: Tensor,
    ) -> Result<(), GraphError> {
        let shape = self.shape(y);
        let reads = self.reads(x, &shape)?;
        let (mut tail, mut operands) = (Tail::default(), Vec::new());
        for &(binary, other) in functions {
            let step = match self.constant(other) {
                Some(value) if is_right_identity(binary, value.0) => continue,
                Some(value) => Step::Constant { binary, value, swapped: false },
                None => {
                    let operand = self.operand(other, &shape, &mut tail, &mut operands)?;
                    Step::Binary { binary, operand, swapped: false }
                }
            };
            tail.steps.push(step);
        }
        let y = self.result(y);
        self.emit_elementwise(shape.elements(), reads, tail, operands, y);
        Ok(())
    }

    fn emit_elementwise(&mut self, len: usize, reads: Reads, tail: Tail, operands: Vec<Storage>, y: Storage) {
        let (source, mut arguments) = match reads {
            Reads::Constant(value) => (Source::Constant(value), vec![y]),
            Reads::Buffer(x, operand) => (Source::Operand(operand), vec![x, y]),
        };
        arguments.extend(operands);
        self.emit(Kernel::Elementwise(Elementwise { len: len as u32, source, tail }), arguments);
    }

    fn unit(&mut self, unit: &Unit) -> Result<(), GraphError> {
        let core = self.r.graph.nodes[unit.core].clone();
        self.label = core.scope.clone();
        let mut tail = Tail::default();
        let mut operands = Vec::new();
        for &(index, input) in &unit.tail {
            let node = &self.r.graph.nodes[index];
            let shape = self.shape(node.outputs[0]);
            self.step(node, input, &shape, &mut tail, &mut operands)?;
        }
        if !unit.tail.is_empty() {
            self.redirect = Some((core.outputs[0], self.r.graph.nodes[unit.last()].outputs[0]));
        }
        if is_elementwise(&core.op) {
            self.elementwise(&core)?;
        } else {
            core.op.rule().lower(self, &core)?;
        }
        self.redirect = None;
        if tail.is_empty() {
            return Ok(());
        }
        let Some(launch) = self.launches.last_mut() else { return Ok(()) };
        let Some(hook) = launch.kernel.tail_mut() else {
            unreachable!("{} has a hook for tails, its kernel has none", core.op.name());
        };
        let first = hook.operands.len();
        for step in &mut tail.steps {
            if let Step::Binary { operand, .. } | Step::UnaryBackward { operand, .. } = step {
                *operand += first;
            }
        }
        hook.operands.append(&mut tail.operands);
        hook.steps.append(&mut tail.steps);
        launch.arguments.append(&mut operands);
        Ok(())
    }

    /// Appends an elementwise node's function, with input `input` as the running value.
    fn step(
        &mut self,
        node: &Node,
        input: usize,
        shape: &Shape,
        tail: &mut Tail,
        operands: &mut Vec<Storage>,
    ) -> Result<(), GraphError> {
        let step = match &node.op {
            Op::Unary(f) => Step::Unary(*f),
            Op::UnaryBackward(f) => {
                let operand = self.operand(node.inputs[1], shape, tail, operands)?;
                Step::UnaryBackward { unary: f.0, operand }
            }
            Op::Binary(f) => {
                let (other, swapped) = (node.inputs[1 - input], input == 1);
                match self.constant(other) {
                    Some(value) => Step::Constant { binary: *f, value, swapped },
                    None => {
                        let operand = self.operand(other, shape, tail, operands)?;
                        Step::Binary { binary: *f, operand, swapped }
                    }
                }
            }
            // a broadcast, permutation or slice: only the reading
            _ => return Ok(()),
        };
        tail.steps.push(step);
        Ok(())
    }

    fn operand(
        &mut self,
        tensor: Tensor,
        shape: &Shape,
        tail: &mut Tail,
        operands: &mut Vec<Storage>,
    ) -> Result<usize, GraphError> {
        let (storage, operand) = match self.reads(tensor, shape)? {
            Reads::Buffer(storage, operand) => (storage, operand),
            Reads::Constant(_) => {
                let storage = self.argument(tensor)?;
                let len = self.shape(tensor).elements();
                (storage, Operand { layout: Layout::contiguous(len), len: len as u32 })
            }
        };
        tail.operands.push(operand);
        operands.push(storage);
        Ok(tail.operands.len() - 1)
    }

    /// The number, if all elements of a tensor are the same known one.
    fn constant(&self, tensor: Tensor) -> Option<Real> {
        self.r.producer(root(self.r, tensor)).op.constant()
    }

    /// How the elements of `tensor`, broadcast to `shape`, are read.
    fn reads(&mut self, tensor: Tensor, shape: &Shape) -> Result<Reads, GraphError> {
        if let Some(value) = self.constant(tensor) {
            return Ok(Reads::Constant(value));
        }
        let own = self.shape(tensor);
        let Strides { base, offset, strides } = self.strides(tensor);
        let storage = self.argument(base)?;
        let missing = shape.rank() - own.rank();
        let dims = (0..shape.rank()).map(|axis| match axis.checked_sub(missing) {
            Some(a) if own[a] == shape[axis] => (shape[axis], strides[a]),
            _ => (shape[axis], 0),
        });
        let layout = Layout::new(offset, dims);
        Ok(Reads::Buffer(storage, Operand { layout, len: self.shape(base).elements() as u32 }))
    }

    /// Looks through broadcasts, permutations and slices whose result nobody has written out.
    fn strides(&self, tensor: Tensor) -> Strides {
        let node = self.r.producer(tensor);
        let shape = self.shape(tensor);
        let written = self.of.contains_key(&tensor);
        match &node.op {
            Op::Broadcast(_) if !written => {
                let (inner, from) = (self.strides(node.inputs[0]), self.shape(node.inputs[0]));
                let missing = shape.rank() - from.rank();
                let stride = |axis: usize| match axis.checked_sub(missing) {
                    Some(a) if from[a] == shape[axis] => inner.strides[a],
                    _ => 0,
                };
                let strides = (0..shape.rank()).map(stride).collect();
                Strides { strides, ..inner }
            }
            Op::Permute(permute) if !written => {
                let inner = self.strides(node.inputs[0]);
                let strides = permute.axes.iter().map(|&a| inner.strides[a]).collect();
                Strides { strides, ..inner }
            }
            Op::Slice(slice) if !written => {
                let inner = self.strides(node.inputs[0]);
                Strides { offset: inner.offset + slice.start * inner.strides[slice.axis], ..inner }
            }
            op if op.rule().view() == ViewKind::Alias => {
                Strides { base: root(self.r, tensor), offset: 0, strides: shape.strides() }
            }
            _ => Strides { base: tensor, offset: 0, strides: shape.strides() },
        }
    }

    fn store(&mut self, info: StorageInfo) -> Storage {
        self.storages.push(info);
        Storage(self.storages.len() - 1)
    }

    fn external(&mut self, place: Place, dtype: DType) -> Storage {
        if let Some(&storage) = self.externals.get(&place) {
            return storage;
        }
        let (Place::External { len, .. } | Place::Slot { len, .. }) = place;
        let storage =
            self.store(StorageInfo { dtype, len, place: Some(place.clone()), within: None, what: None });
        self.externals.insert(place, storage);
        storage
    }

    /// Gradients are computed in their place in the arena where no launch would then both read and write it; the
    /// others are returned, to be copied there at the end.
    fn place_gradients(
        &mut self,
        units: &[Unit],
        request: &Request,
    ) -> Result<Vec<(Tensor, Storage)>, GraphError> {
        let mut copies = Vec::new();
        let mut owners: HashMap<Tensor, usize> = HashMap::new();
        for (_, tensor) in &request.gradients {
            *owners.entry(root(self.r, *tensor)).or_default() += 1;
        }
        let looked_at = self.looked_at(units, request, &owners);
        let computed: HashSet<usize> = units.iter().map(Unit::last).collect();
        for (name, tensor) in &request.gradients {
            let place = self.segments.place(GRADIENTS, name)?;
            let Place::External { len, .. } = place else { continue };
            if len != self.shape(*tensor).elements() {
                let shape = self.shape(*tensor);
                return Err(GraphError::Name(format!(
                    "gradient of \"{name}\" has shape {shape}, not {len} elements"
                )));
            }
            let storage = self.external(place, DType::F32);
            let tensor = root(self.r, *tensor);
            // one tensor that is the gradient of two parameters is copied to both: one buffer cannot be read and
            // written by one launch
            let alone = owners.get(&tensor) == Some(&1);
            if computed.contains(&self.r.node_of(tensor)) && alone && !looked_at.contains(&tensor) {
                self.of.insert(tensor, storage);
            } else {
                copies.push((tensor, storage));
            }
        }
        Ok(copies)
    }

    /// The root tensors that, in the arena of gradients, would be read by a launch that may write there, or by one
    /// that comes after the operations.
    fn looked_at(
        &self,
        units: &[Unit],
        request: &Request,
        gradients: &HashMap<Tensor, usize>,
    ) -> HashSet<Tensor> {
        let mut looked_at = HashSet::new();
        let node = |n: usize| &self.r.graph.nodes[n];
        for unit in units {
            let mut written = node(unit.core).outputs.iter().chain(&node(unit.last()).outputs);
            if written.any(|t| gradients.contains_key(t)) {
                for &input in unit.members().flat_map(|n| &node(n).inputs) {
                    looked_at.extend(self.bases(input));
                }
            }
        }
        // a view of a gradient that is a gradient too is copied from it
        for &gradient in gradients.keys() {
            looked_at.extend(self.bases(gradient).into_iter().skip(1));
        }
        let after = request.fetch.iter().map(|(_, t)| *t);
        let after = after.chain(request.totals.iter().map(|(t, _)| *t));
        let after = after.chain(request.averages.iter().map(|(_, t, _)| *t));
        let after = after.chain(request.tally.iter().flat_map(|&(scores, labels)| [scores, labels]));
        let after = after.chain(request.find.iter().copied());
        for tensor in after.chain(request.collect.iter().map(|c| c.tensor)) {
            looked_at.extend(self.bases(tensor));
        }
        looked_at
    }

    /// The root tensor of `tensor`, and, as far as that is a view, those that it looks at.
    fn bases(&self, tensor: Tensor) -> Vec<Tensor> {
        let mut bases = vec![root(self.r, tensor)];
        let mut last = bases[0];
        while self.r.producer(last).op.rule().view() == ViewKind::Strided {
            let Some(&input) = self.r.producer(last).inputs.first() else { break };
            last = root(self.r, input);
            bases.push(last);
        }
        bases
    }

    fn copy(&mut self, tensor: Tensor, to: Storage) -> Result<(), GraphError> {
        let shape = self.shape(tensor);
        let reads = self.reads(tensor, &shape)?;
        self.emit_elementwise(shape.elements(), reads, Tail::default(), Vec::new(), to);
        Ok(())
    }
}

/// A step's function, for listings.
pub(crate) fn step_name(step: &Step) -> String {
    match step {
        Step::Unary(f) => f.name().into(),
        Step::UnaryBackward { unary, .. } => format!("{}_backward", unary.name()),
        Step::Binary { binary, .. } => binary.name().into(),
        Step::Constant { binary, value, .. } => format!("{} {}", binary.name(), value.0),
    }
}
