//! Integer codes with a scale and a zero for each group of a row: what GPTQ, AWQ and compressed-tensors have in common.
//!
//! `value = scale * (code - zero)`. Codes are one little-endian bit string per row, as MLX packs them. The product of a
//! half and an 8-bit difference is exact in `f32`; the libraries round it to the type of the scales.

use windlass_tensor::DType;

use crate::affine::{Codes, Offsets, Order};
use crate::mlx::Float;
use crate::shape::check;
use crate::{Error, Family, Grid, Plane, PlaneType, Scheme};

/// Values that are unpacked together; rows are whole numbers of these.
const BLOCK: usize = 32;

const PACKED: Plane = Plane::new("packed", PlaneType::Fixed(DType::U32), 0);
const SCALES: Plane = Plane::new("scales", PlaneType::Float, 0);
const ZEROS: Plane = Plane::new("zeros", PlaneType::Fixed(DType::U8), 0);
const G_IDX: Plane = Plane::whole("g_idx", PlaneType::Fixed(DType::I32));

static PLAIN: [Plane; 3] = [PACKED, SCALES, ZEROS];
static ORDERED: [Plane; 4] = [PACKED, SCALES, ZEROS, G_IDX];

/// One width and group size of one library. Planes of `[rows, columns]`: `packed` U32 `[rows, columns * bits / 32]`,
/// `scales` and `zeros` `[rows, groups]`, and with `ordered` the group of each column, `g_idx` I32 `[columns]`.
pub(crate) struct Grouped {
    pub name: &'static str,
    pub family: Family,
    pub bits: u8,
    /// Columns of a group, a multiple of 32; `None` for a group per row.
    pub group: Option<usize>,
    pub ordered: bool,
}

impl Grouped {
    pub(crate) const fn new(name: &'static str, family: Family, bits: u8, group: Option<usize>) -> Self {
        Self { name, family, bits, group, ordered: !matches!(family, Family::Awq) }
    }

    /// Columns of a group in rows of this length.
    pub(crate) fn group_of(&self, columns: usize) -> usize {
        self.group.unwrap_or(columns.max(1))
    }

    /// The group of each column, or `None` where columns are in order of their groups.
    pub(crate) fn order(&self, columns: usize, g_idx: Option<&&[u8]>) -> Result<Option<Vec<u32>>, Error> {
        let Some(g_idx) = g_idx else { return Ok(None) };
        let group = self.group_of(columns);
        let groups = columns.div_ceil(group) as u32;
        let entries = g_idx.as_chunks::<4>().0;
        let plain = |(group, entries): (usize, &[[u8; 4]])| {
            // Not `all`, which would look at one entry after the other.
            let others = entries.iter().map(|b| u32::from_le_bytes(*b) ^ group as u32);
            others.fold(0, |found, other| found | other) == 0
        };
        if entries.chunks(group).enumerate().all(plain) {
            return Ok(None);
        }
        let order: Vec<u32> = entries.iter().map(|b| u32::from_le_bytes(*b)).collect();
        // A negative number is a large one here.
        if let Some((column, found)) = order.iter().enumerate().find(|(_, g)| **g >= groups) {
            let found = *found as i32;
            let message = format!("plane g_idx puts column {column} into group {found}, expected 0 to {}", groups - 1);
            return Err(Error::Shape { scheme: self.name, message });
        }
        Ok(Some(order))
    }
}

impl Scheme for Grouped {
    fn name(&self) -> &'static str {
        self.name
    }

    fn family(&self) -> Family {
        self.family
    }

    /// Rows that are one group say 0.
    fn grid(&self) -> Grid {
        Grid::Affine { bits: self.bits, group: self.group.unwrap_or(0), symmetric: false }
    }

    fn block(&self) -> usize {
        BLOCK
    }

    fn planes(&self) -> &'static [Plane] {
        if self.ordered { &ORDERED } else { &PLAIN }
    }

    fn plane_shape(&self, index: usize, shape: &[usize]) -> Vec<usize> {
        let columns = shape.last().copied().unwrap_or(0);
        let per_row = match index {
            0 => columns / BLOCK * usize::from(self.bits),
            1 | 2 => columns.div_ceil(self.group_of(columns)),
            _ => return vec![columns],
        };
        let mut shape = shape.to_vec();
        if let Some(last) = shape.last_mut() {
            *last = per_row;
        }
        shape
    }

    /// What rounding to nearest gives; calibration moves errors elsewhere.
    fn error_ceiling(&self) -> f32 {
        match (self.bits, self.group) {
            (2, None) => 0.75,
            (2, _) => 0.44,
            (3, None) => 0.34,
            (3, _) => 0.22,
            (4, None) => 0.16,
            (4, _) => 0.11,
            _ => 0.011,
        }
    }

    fn can_encode(&self) -> bool {
        false
    }

    fn encode(
        &self,
        _values: &[f32],
        _columns: usize,
        _importance: Option<&[f32]>,
        _float: DType,
        _planes: &mut [&mut [u8]],
    ) -> Result<(), Error> {
        Err(Error::ReadOnly(self.name))
    }

    fn decode(&self, planes: &[&[u8]], columns: usize, float: DType, values: &mut [f32]) -> Result<(), Error> {
        check(self, (values.len(), columns), float, planes.iter().map(|p| p.len()))?;
        let float = Float::new(self.name, float)?;
        let places = self.order(columns, planes.get(3))?;
        if let [packed, scales, zeros, ..] = *planes {
            let (bits, group, order) = (self.bits, self.group_of(columns), Order::OffsetFirst);
            let offsets = Offsets::Bytes(zeros);
            let codes = Codes { bits, group, columns, packed, float, scales, offsets, order, rounded: Float::F32 };
            match places {
                Some(groups) => codes.decode_ordered(&groups, values),
                None => codes.decode(values),
            }
        }
        Ok(())
    }
}
