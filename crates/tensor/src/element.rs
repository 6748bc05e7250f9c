//! What a tensor is made of: plain values, or a packed layout that another crate knows how to read.

use std::fmt;
use std::sync::Arc;

use crate::DType;

/// A packed layout, seen from below: enough to size, cut and move its bytes, not to read them.
///
/// A packed matrix is a list of planes (codes, scales, ...), each a byte string of its own.
pub trait PackedLayout: Send + Sync {
    /// Name of the scheme, lower case.
    fn name(&self) -> &str;

    /// Values along a row that are coded together; a row is a whole number of them.
    fn block(&self) -> usize;

    /// Names of the planes, in order.
    fn plane_names(&self) -> Vec<&str>;

    /// Bytes of each plane for a tensor of this shape (row-major, outermost first), or why the shape does not fit.
    fn plane_bytes(&self, shape: &[usize]) -> Result<Vec<u64>, String>;

    /// Number of rows, of `columns` values each, that a cut must be a multiple of; `None` when the tensor cannot be cut.
    fn row_granularity(&self, columns: usize) -> Option<usize>;

    /// Where rows `first..first + rows` of `columns` values lie in each plane: offset and length in bytes. `first` is a
    /// multiple of the granularity. Planes that belong to the whole tensor begin at 0 for every range.
    fn plane_ranges(&self, columns: usize, first: usize, rows: usize) -> Result<Vec<(u64, u64)>, String> {
        let lengths = self.plane_bytes(&[rows, columns])?;
        let starts = if first == 0 { vec![0; lengths.len()] } else { self.plane_bytes(&[first, columns])? };
        Ok(starts.into_iter().zip(lengths).collect())
    }

    /// For the crate that supplied the layout to find its own type again.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// Element of a tensor: known at run time.
#[derive(Clone)]
pub enum Element {
    Plain(DType),
    Packed(Arc<dyn PackedLayout>),
}

impl Element {
    /// Name for people: `BF16`, `q4_k`.
    pub fn name(&self) -> &str {
        match self {
            Element::Plain(dtype) => dtype.name(),
            Element::Packed(layout) => layout.name(),
        }
    }

    /// The plain type, if it is one.
    pub fn dtype(&self) -> Option<DType> {
        if let Element::Plain(dtype) = self { Some(*dtype) } else { None }
    }
}

impl From<DType> for Element {
    fn from(dtype: DType) -> Self {
        Element::Plain(dtype)
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Element::Plain(a), Element::Plain(b)) => a == b,
            (Element::Packed(a), Element::Packed(b)) => a.name() == b.name(),
            _ => false,
        }
    }
}

impl fmt::Debug for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
