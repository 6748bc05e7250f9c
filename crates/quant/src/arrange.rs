//! Arrangements: how a library stores the planes of a scheme where that is not plane by plane and row after row.
//!
//! Inside Windlass a packed matrix always has its planes row-major, so that rows can be cut, streamed and computed with
//! one at a time. GPTQ stores codes transposed, HQQ puts two halves of a matrix into the nibbles of one byte: an
//! arrangement goes from one to the other, for any range of rows, in bounded memory.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use windlass_tensor::DType;

use crate::Packing;

/// A shared arrangement; it may hold what a checkpoint said of its tensor.
pub type ArrangementRef = Arc<dyn Arrangement>;

/// One array as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// The last part of its name: `qweight`, `scales`.
    pub name: &'static str,
    pub dtype: DType,
    /// Row-major, outermost first.
    pub shape: Vec<usize>,
}

/// The stored arrays of one tensor, by their number in [`Arrangement::arrays`].
pub trait Stored {
    /// Reads bytes of an array from `offset`.
    fn read(&self, array: usize, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes bytes of an array at `offset`.
    fn write(&self, array: usize, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

/// A bijection between the planes of a scheme and the arrays of a library.
pub trait Arrangement: Send + Sync {
    /// The arrays that hold a tensor of `shape`, or why it cannot be held.
    fn arrays(&self, packing: &Packing, shape: &[usize]) -> Result<Vec<Array>, String>;

    /// Reads `rows` into planes (of the sizes that [`crate::Packing`] gives for that many rows). The range begins at a
    /// multiple of [`Arrangement::granularity`], and ends there or at the last row.
    fn gather(
        &self,
        packing: &Packing,
        shape: &[usize],
        rows: Range<usize>,
        stored: &dyn Stored,
        planes: &mut [&mut [u8]],
    ) -> io::Result<()>;

    /// Whether [`Arrangement::scatter`] works.
    fn can_scatter(&self) -> bool {
        false
    }

    /// Writes `rows`. The arrays are zero where nothing was written; ranges come in any order, one at a time, and the
    /// same range may come twice with the same content.
    fn scatter(
        &self,
        _packing: &Packing,
        _shape: &[usize],
        _rows: Range<usize>,
        _planes: &[&[u8]],
        _stored: &dyn Stored,
    ) -> io::Result<()> {
        Err(io::Error::other("this arrangement is read, not written"))
    }

    /// Number of rows that a range begins at a multiple of.
    fn granularity(&self, packing: &Packing, columns: usize) -> usize {
        packing.scheme.row_granularity(columns)
    }
}

impl std::fmt::Debug for dyn Arrangement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("arrangement")
    }
}
