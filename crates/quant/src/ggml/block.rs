//! What all schemes of GGML have in common: one plane of equal blocks, each coded by itself.

use windlass_tensor::DType;

use crate::simd::ahead;
use crate::{Error, Family, Grid, Importance, Plane, PlaneType, Scheme};

/// Values that are decoded at a time, while memory for the next ones is on its way.
const PIECE: usize = 512;

/// A scheme as constants and functions on whole blocks. The functions may rely on the lengths being checked.
pub(super) struct BlockScheme {
    pub name: &'static str,
    pub grid: Grid,
    /// Values of a block.
    pub block: usize,
    /// One plane; see [`blocks`].
    pub planes: &'static [Plane; 1],
    pub error_ceiling: f32,
    pub encode: Encode,
    pub decode: fn(&[u8], &mut [f32]),
}

/// How a scheme is written.
pub(super) enum Encode {
    /// From values alone.
    Plain(fn(&[f32], &mut [u8])),
    /// From values and importance; not without.
    Required(fn(Weighted<'_>, &mut [u8])),
    /// Another way when importance is given.
    Weighted { plain: fn(&[f32], &mut [u8]), weighted: fn(Weighted<'_>, &mut [u8]) },
}

/// Rows of values with the importance of their columns.
#[derive(Clone, Copy)]
pub(super) struct Weighted<'a> {
    pub values: &'a [f32],
    /// One weight per column; its length is the length of a row.
    pub importance: &'a [f32],
}

/// The plane of a scheme whose blocks take this many bytes.
pub(super) const fn blocks(bytes: usize) -> [Plane; 1] {
    [Plane::new("blocks", PlaneType::Fixed(DType::U8), bytes)]
}

impl BlockScheme {
    fn shape_error(&self, message: String) -> Error {
        Error::Shape { scheme: self.name, message }
    }

    /// Lengths must agree: whole blocks to a row, whole rows, and as many bytes as the blocks take.
    fn check(&self, values: usize, columns: usize, bytes: usize) -> Result<(), Error> {
        if columns == 0 || !columns.is_multiple_of(self.block) {
            return Err(self.shape_error(format!("rows of {columns} values are not whole blocks of {}", self.block)));
        }
        if !values.is_multiple_of(columns) {
            return Err(self.shape_error(format!("{values} values are not whole rows of {columns}")));
        }
        let expected = values / self.block * self.planes[0].per_block;
        if bytes != expected {
            return Err(self.shape_error(format!("{values} values take {expected} bytes, not {bytes}")));
        }
        Ok(())
    }
}

impl Scheme for BlockScheme {
    fn name(&self) -> &'static str {
        self.name
    }

    fn family(&self) -> Family {
        Family::Ggml
    }

    fn grid(&self) -> Grid {
        self.grid
    }

    fn block(&self) -> usize {
        self.block
    }

    fn planes(&self) -> &'static [Plane] {
        self.planes
    }

    fn error_ceiling(&self) -> f32 {
        self.error_ceiling
    }

    fn importance(&self) -> Importance {
        match self.encode {
            Encode::Weighted { .. } => Importance::Used,
            Encode::Required(_) => Importance::Required,
            _ => Importance::Ignored,
        }
    }

    fn encode(
        &self,
        values: &[f32],
        columns: usize,
        importance: Option<&[f32]>,
        _float: DType,
        planes: &mut [&mut [u8]],
    ) -> Result<(), Error> {
        let [bytes] = planes else {
            return Err(self.shape_error(format!("has one plane, not {}", planes.len())));
        };
        self.check(values.len(), columns, bytes.len())?;
        if let Some(weights) = importance
            && weights.len() != columns
        {
            return Err(self.shape_error(format!("{} importance weights for {columns} columns", weights.len())));
        }
        match (&self.encode, importance) {
            (Encode::Required(weighted) | Encode::Weighted { weighted, .. }, Some(importance)) => {
                weighted(Weighted { values, importance }, bytes);
            }
            (Encode::Required(_), None) => return Err(Error::NeedsImportance(self.name)),
            (Encode::Plain(plain) | Encode::Weighted { plain, .. }, _) => plain(values, bytes),
        }
        Ok(())
    }

    fn decode(&self, planes: &[&[u8]], columns: usize, _float: DType, values: &mut [f32]) -> Result<(), Error> {
        let [bytes] = planes else {
            return Err(self.shape_error(format!("has one plane, not {}", planes.len())));
        };
        self.check(values.len(), columns, bytes.len())?;
        let blocks = PIECE.div_ceil(self.block);
        let pieces = bytes.chunks(blocks * self.planes[0].per_block).zip(values.chunks_mut(blocks * self.block));
        for (bytes, values) in pieces {
            ahead(values);
            (self.decode)(bytes, values);
        }
        Ok(())
    }
}
