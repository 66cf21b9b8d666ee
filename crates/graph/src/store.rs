//! Where parameters live: arenas that every plan borrows.

use std::collections::HashMap;

use kiln_kernel::{Backend, Buffer, DType, GROUP_BLOCK, HostRef, Shape, View};

use crate::{GraphError, PARAMETERS, Place};

/// A parameter's place in the arenas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The parameter's name: `conv1.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// First element.
    pub offset: usize,
}

/// The layout of the arenas: each parameter at a multiple of 64 elements (256 bytes, the strictest alignment
/// that an adapter may ask of an argument). The gaps hold zeros and stay so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    list: Vec<Segment>,
    by_name: HashMap<String, usize>,
    len: usize,
}

impl Segments {
    const ALIGNMENT: usize = GROUP_BLOCK;

    /// Lays parameters out in this order.
    pub fn new(parameters: &[(String, Shape)]) -> Self {
        let mut segments = Self::default();
        for (name, shape) in parameters {
            segments.by_name.insert(name.clone(), segments.list.len());
            segments.list.push(Segment { name: name.clone(), shape: shape.clone(), offset: segments.len });
            segments.len += shape.elements().next_multiple_of(Self::ALIGNMENT);
        }
        segments
    }

    /// Elements of an arena. At least 1, so that a network without parameters is none's special case.
    pub fn len(&self) -> usize {
        self.len.max(1)
    }

    /// Blocks of [`GROUP_BLOCK`] elements that an arena has; each belongs to one parameter.
    pub fn blocks(&self) -> usize {
        self.len().div_ceil(GROUP_BLOCK)
    }

    /// Each parameter's first block and its number of blocks, [parameters, 2].
    pub fn table(&self) -> Vec<u32> {
        let blocks = |s: &Segment| s.shape.elements().div_ceil(GROUP_BLOCK);
        self.list.iter().flat_map(|s| [s.offset / GROUP_BLOCK, blocks(s)]).map(|v| v as u32).collect()
    }

    /// The index of each block's parameter, [`Segments::blocks`] of them.
    pub fn block_table(&self) -> Vec<u32> {
        let mut table = Vec::with_capacity(self.blocks());
        for (segment, i) in self.list.iter().zip(0..) {
            table.resize(table.len() + segment.shape.elements().div_ceil(GROUP_BLOCK), i);
        }
        table.resize(self.blocks(), 0);
        table
    }

    /// True if there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The parameters in order.
    pub fn list(&self) -> &[Segment] {
        &self.list
    }

    /// A parameter's segment.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn get(&self, name: &str) -> Result<&Segment, GraphError> {
        let index = self.by_name.get(name);
        index
            .map(|&i| &self.list[i])
            .ok_or_else(|| GraphError::Name(format!("there is no parameter \"{name}\"")))
    }

    pub(crate) fn place(&self, arena: &str, name: &str) -> Result<Place, GraphError> {
        let segment = self.get(name)?;
        Ok(Place::External { name: arena.into(), offset: segment.offset, len: segment.shape.elements() })
    }
}

/// Parameters, gradients and optimizer moments on a device, each in an arena of its own.
pub struct ParameterStore {
    segments: Segments,
    arenas: Vec<(String, Buffer)>,
}

impl ParameterStore {
    /// Allocates zeroed arenas: `parameters`, and those named in `more` (`gradients`, moments).
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn new(
        backend: &dyn Backend,
        parameters: &[(String, Shape)],
        more: &[&str],
    ) -> Result<Self, GraphError> {
        let segments = Segments::new(parameters);
        let mut arenas = Vec::new();
        for name in [PARAMETERS].iter().chain(more) {
            arenas.push((name.to_string(), backend.allocate(DType::F32, segments.len(), name)?));
        }
        Ok(Self { segments, arenas })
    }

    /// The layout.
    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    /// An arena's buffer.
    pub fn arena(&self, name: &str) -> Option<&Buffer> {
        self.arenas.iter().find(|(n, _)| n == name).map(|(_, buffer)| buffer)
    }

    /// Names and buffers of the arenas.
    pub fn arenas(&self) -> impl Iterator<Item = (&str, &Buffer)> {
        self.arenas.iter().map(|(name, buffer)| (name.as_str(), buffer))
    }

    /// Bytes of one arena.
    pub fn arena_bytes(&self) -> u64 {
        4 * self.segments.len() as u64
    }

    fn view(&self, arena: &str, name: &str) -> Result<View, GraphError> {
        let segment = self.segments.get(name)?;
        let buffer =
            self.arena(arena).ok_or_else(|| GraphError::Name(format!("there is no arena \"{arena}\"")))?;
        Ok(buffer.slice(segment.offset, segment.shape.elements()))
    }

    /// Writes a parameter's elements in an arena.
    ///
    /// # Errors
    /// If the name is unknown, the length differs, or the device fails.
    pub fn write(
        &self,
        backend: &dyn Backend,
        arena: &str,
        name: &str,
        data: HostRef<'_>,
    ) -> Result<(), GraphError> {
        let view = self.view(arena, name)?;
        if view.len != data.len() {
            let (len, got) = (view.len, data.len());
            return Err(GraphError::Name(format!("\"{name}\" has {len} elements, got {got}")));
        }
        Ok(backend.write(&view, data)?)
    }

    /// Reads a parameter's elements from an arena, and waits for them.
    ///
    /// # Errors
    /// If the name is unknown or the device fails.
    pub fn read(
        &self,
        backend: &dyn Backend,
        arena: &str,
        name: &str,
    ) -> Result<kiln_kernel::Host, GraphError> {
        Ok(pollster::block_on(backend.read(&self.view(arena, name)?))?)
    }
}
