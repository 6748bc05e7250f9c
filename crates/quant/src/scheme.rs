//! A scheme is data: named planes, a grid, an error ceiling, and two functions.

use std::sync::Arc;

use windlass_tensor::{DType, Element, PackedLayout};

use crate::Error;

/// A registered scheme. Registries live as long as the process, so a plain reference is enough.
pub type SchemeRef = &'static dyn Scheme;

/// The library that defines a scheme; its bytes are the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    Ggml,
    Mlx,
    BitsAndBytes,
    Hqq,
    Quanto,
    Gptq,
    Awq,
    /// 8-bit floats with scales, as Hugging Face checkpoints keep them.
    Fp8,
    CompressedTensors,
    ModelOpt,
    /// Registered from outside.
    User,
}

/// How codes and planes give values.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Grid {
    /// `value = code * scale + offset` for groups of `group` codes of `bits` bits.
    Affine { bits: u8, group: usize, symmetric: bool },
    /// A code is an index into a table of 16 values, times a scale per group.
    Table16 { group: usize },
    /// Blocks of 256 with quantized scales of sub-blocks.
    SuperBlock { bits: u8 },
    /// Codes are points of a lattice.
    Lattice { bits: f32 },
    /// A small float, with a scale per row, block or tensor.
    SmallFloat { bits: u8, group: usize },
}

/// Whether an encoder uses importance weights (one per column).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    Ignored,
    Used,
    Required,
}

/// Element type of a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaneType {
    Fixed(DType),
    /// The float type of the packing: MLX keeps scales in the type the model had.
    Float,
}

/// One byte string of a packed tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Lower case: `blocks`, `packed`, `scales`, `biases`.
    pub name: &'static str,
    /// Type of its elements.
    pub element: PlaneType,
    /// Elements of this plane for one block of values; 0 where [`Scheme::plane_shape`] says otherwise.
    pub per_block: usize,
    /// Whether the plane belongs to the tensor as a whole (a scale of all, an order of columns) and not to its rows.
    pub whole: bool,
}

impl Plane {
    /// A plane that follows the rows, `per_block` elements for each block of values.
    pub const fn new(name: &'static str, element: PlaneType, per_block: usize) -> Self {
        Self { name, element, per_block, whole: false }
    }

    /// A plane that belongs to the whole tensor: [`Scheme::plane_shape`] gives its shape.
    pub const fn whole(name: &'static str, element: PlaneType) -> Self {
        Self { name, element, per_block: 0, whole: true }
    }
}

/// What one pass over a tensor tells an encoder that must know all of it before its first row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    pub sum: f64,
    pub count: f64,
    pub largest: f64,
    /// Sums of errors before each step of an encoder that repeats until they do not fall any more.
    pub errors: [f64; 20],
}

impl Tally {
    /// This tally with that of later rows.
    pub fn merge(self, later: Tally) -> Tally {
        let Tally { sum, count, largest, mut errors } = later;
        for (later, error) in errors.iter_mut().zip(self.errors) {
            *later += error;
        }
        Tally { sum: self.sum + sum, count: self.count + count, largest: self.largest.max(largest), errors }
    }
}

/// A quantization.
pub trait Scheme: Send + Sync {
    /// Lower case, as on the command line: `q4_0`, `mlx4-g64`.
    fn name(&self) -> &'static str;
    fn family(&self) -> Family;
    fn grid(&self) -> Grid;

    /// Values along a row that are coded together. A row must be a whole number of blocks.
    fn block(&self) -> usize;

    fn planes(&self) -> &'static [Plane];

    /// Ceiling of the relative root mean square error on normally distributed values.
    fn error_ceiling(&self) -> f32;

    fn importance(&self) -> Importance {
        Importance::Ignored
    }

    /// False for schemes that are read but not written.
    fn can_encode(&self) -> bool {
        true
    }

    /// Shape of plane `index` for a tensor of `shape` (row-major, outermost first). By default planes follow the rows.
    fn plane_shape(&self, index: usize, shape: &[usize]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        if let Some(columns) = shape.last_mut() {
            *columns = *columns / self.block() * self.planes()[index].per_block;
        }
        shape
    }

    /// Number of rows of `columns` values that are coded together: encoding and decoding begin at multiples of it, and
    /// end there or at the last row.
    fn row_granularity(&self, _columns: usize) -> usize {
        1
    }

    /// Whether the encoder must see the whole tensor first: [`Scheme::tally`] over all rows, then [`Scheme::begin`].
    fn tallies(&self) -> bool {
        false
    }

    /// What these rows add to the tally of their tensor. Arguments as for [`Scheme::encode`].
    fn tally(&self, _values: &[f32], _columns: usize, _float: DType) -> Tally {
        Tally::default()
    }

    /// Fills the planes that belong to the whole tensor; `encode` finds them filled.
    fn begin(&self, _tally: &Tally, _planes: &mut [&mut [u8]]) {}

    /// Encodes whole rows of `columns` values each. `float` is the type that values had before they became `f32`
    /// (F32, F16 or BF16) and the type of [`PlaneType::Float`] planes. `planes` have exactly the size that
    /// [`Packing::plane_bytes`] gives for `[values.len() / columns, columns]`.
    fn encode(
        &self,
        values: &[f32],
        columns: usize,
        importance: Option<&[f32]>,
        float: DType,
        planes: &mut [&mut [u8]],
    ) -> Result<(), Error>;

    /// Decodes whole rows; the inverse of [`Scheme::encode`].
    fn decode(&self, planes: &[&[u8]], columns: usize, float: DType, values: &mut [f32]) -> Result<(), Error>;
}

impl std::fmt::Debug for dyn Scheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A scheme as one tensor uses it.
#[derive(Clone, Copy)]
pub struct Packing {
    pub scheme: SchemeRef,
    /// Type of planes that follow the model's float type; F32 where the scheme has none.
    pub float: DType,
}

impl Packing {
    /// Average number of bits per value of a matrix with 4096 columns, planes included.
    pub fn bits_per_weight(&self) -> f64 {
        let shape = [4096, 4096usize.next_multiple_of(self.scheme.block())];
        let bytes: u64 = self.plane_bytes(&shape).unwrap_or_default().iter().sum();
        bytes as f64 * 8.0 / (shape[0] * shape[1]) as f64
    }

    /// Element type of a plane in this packing.
    pub fn plane_type(&self, plane: &Plane) -> DType {
        match plane.element {
            PlaneType::Fixed(dtype) => dtype,
            PlaneType::Float => self.float,
        }
    }

    /// As an element of a tensor.
    pub fn element(self) -> Element {
        Element::Packed(Arc::new(self))
    }
}

impl PackedLayout for Packing {
    fn name(&self) -> &str {
        self.scheme.name()
    }

    fn block(&self) -> usize {
        self.scheme.block()
    }

    fn plane_names(&self) -> Vec<&str> {
        self.scheme.planes().iter().map(|p| p.name).collect()
    }

    fn plane_bytes(&self, shape: &[usize]) -> Result<Vec<u64>, String> {
        let columns = shape.last().copied().unwrap_or(0);
        if columns == 0 || columns % self.scheme.block() != 0 {
            return Err(format!("rows of {columns} values are not whole blocks of {}", self.scheme.block()));
        }
        let product = |shape: Vec<usize>, size: usize| {
            shape
                .iter()
                .try_fold(size as u64, |n, d| n.checked_mul(*d as u64))
                .ok_or_else(|| format!("{shape:?} is too large"))
        };
        let planes = self.scheme.planes().iter().enumerate();
        planes.map(|(i, p)| product(self.scheme.plane_shape(i, shape), self.plane_type(p).size())).collect()
    }

    fn row_granularity(&self, columns: usize) -> Option<usize> {
        Some(self.scheme.row_granularity(columns).max(1))
    }

    fn plane_ranges(&self, columns: usize, first: usize, rows: usize) -> Result<Vec<(u64, u64)>, String> {
        let lengths = self.plane_bytes(&[rows, columns])?;
        let starts = if first == 0 { vec![0; lengths.len()] } else { self.plane_bytes(&[first, columns])? };
        let ranges = starts.into_iter().zip(lengths).zip(self.scheme.planes());
        Ok(ranges.map(|((start, length), plane)| (if plane.whole { 0 } else { start }, length)).collect())
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
