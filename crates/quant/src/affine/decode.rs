//! Decoding, in each library's order and with its roundings.

use crate::mlx::Float;
use crate::simd::codes::{CODES, Places, codes};
use crate::simd::{Level, ahead, level, per_level};

/// Values that pass through the nearest cache twice.
const PIECE: usize = 128;

/// What is done first.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Order {
    /// `code * scale + offset`
    ScaleFirst,
    /// `(code + offset) * scale`
    OffsetFirst,
}

/// One offset for each group.
#[derive(Clone, Copy)]
pub(crate) enum Offsets<'a> {
    /// In the type of the scales.
    Added(&'a [u8]),
    /// In the type of the scales.
    Subtracted(&'a [u8]),
    /// Whole numbers of a byte, subtracted.
    Bytes(&'a [u8]),
}

/// Rows of codes. The caller has checked all lengths; groups and columns are multiples of [`CODES`].
#[derive(Clone, Copy)]
pub(crate) struct Codes<'a> {
    pub bits: u8,
    /// Columns of a group; the last group of a row may be shorter.
    pub group: usize,
    pub columns: usize,
    pub packed: &'a [u8],
    /// Type of the scales.
    pub float: Float,
    pub scales: &'a [u8],
    pub offsets: Offsets<'a>,
    pub order: Order,
    /// What each result is rounded to.
    pub rounded: Float,
}

static STRINGS: [Places; 8] = [
    Places::string(1),
    Places::string(2),
    Places::string(3),
    Places::string(4),
    Places::string(5),
    Places::string(6),
    Places::string(7),
    Places::string(8),
];

impl Codes<'_> {
    /// Values of all rows.
    pub(crate) fn decode(&self, values: &mut [f32]) {
        decode(self, values);
    }

    /// Values where columns of a group are not side by side: `groups` has the group of each column.
    pub(crate) fn decode_ordered(&self, groups: &[u32], values: &mut [f32]) {
        decode_ordered(self, groups, values);
    }

    fn places(&self) -> &'static Places {
        &STRINGS[usize::from(self.bits - 1) % 8]
    }

    /// Scale of group `index`, and what is added.
    #[inline(always)]
    fn group(&self, index: usize) -> (f32, f32) {
        let offset = match self.offsets {
            Offsets::Added(bytes) => self.float.read(bytes, index),
            Offsets::Subtracted(bytes) => -self.float.read(bytes, index),
            Offsets::Bytes(bytes) => -f32::from(bytes[index]),
        };
        (self.float.read(self.scales, index), offset)
    }
}

per_level! {
    fn decode(rows: &Codes<'_>, values: &mut [f32]) {
        let level = level();
        match (rows.order, rows.rounded) {
            (Order::ScaleFirst, Float::F32) => decode_rows(rows, level, Order::ScaleFirst, Float::F32, values),
            (Order::ScaleFirst, Float::F16) => decode_rows(rows, level, Order::ScaleFirst, Float::F16, values),
            (Order::ScaleFirst, Float::Bf16) => decode_rows(rows, level, Order::ScaleFirst, Float::Bf16, values),
            (Order::OffsetFirst, Float::F32) => decode_rows(rows, level, Order::OffsetFirst, Float::F32, values),
            (Order::OffsetFirst, Float::F16) => decode_rows(rows, level, Order::OffsetFirst, Float::F16, values),
            (Order::OffsetFirst, Float::Bf16) => decode_rows(rows, level, Order::OffsetFirst, Float::Bf16, values),
        }
    }
}

per_level! {
    fn decode_ordered(rows: &Codes<'_>, groups: &[u32], values: &mut [f32]) {
        decode_columns(rows, level(), groups, values);
    }
}

/// Order and type are constants here, so that nothing is chosen within the loop.
#[inline(always)]
fn decode_rows(rows: &Codes<'_>, level: Level, order: Order, rounded: Float, values: &mut [f32]) {
    let (places, bytes) = (rows.places(), CODES / 8 * usize::from(rows.bits));
    let (mut index, mut at) = (0, 0);
    for row in values.chunks_exact_mut(rows.columns) {
        for values in row.chunks_mut(rows.group) {
            let (scale, offset) = rows.group(index);
            for values in values.chunks_mut(PIECE) {
                ahead(values);
                for out in values.as_chunks_mut::<CODES>().0 {
                    codes(level, places, &rows.packed[at..], out);
                    at += bytes;
                }
                // A loop of its own over a number of values that is not known becomes vectors, whatever the rounding.
                for v in values.iter_mut() {
                    *v = value(*v, scale, offset, order, rounded);
                }
            }
            index += 1;
        }
    }
}

/// Scale and offset are looked up for each column.
#[inline(always)]
fn decode_columns(rows: &Codes<'_>, level: Level, groups: &[u32], values: &mut [f32]) {
    let (places, bytes) = (rows.places(), CODES / 8 * usize::from(rows.bits));
    let per_row = rows.columns.div_ceil(rows.group);
    let (mut table, mut at) = (vec![(0.0, 0.0); per_row], 0);
    for (row, values) in values.chunks_exact_mut(rows.columns).enumerate() {
        for (i, entry) in table.iter_mut().enumerate() {
            *entry = rows.group(row * per_row + i);
        }
        for out in values.as_chunks_mut::<CODES>().0 {
            codes(level, places, &rows.packed[at..], out);
            at += bytes;
        }
        for (v, group) in values.iter_mut().zip(groups) {
            let (scale, offset) = table[*group as usize];
            *v = value(*v, scale, offset, rows.order, rows.rounded);
        }
    }
}

#[inline(always)]
fn value(code: f32, scale: f32, offset: f32, order: Order, rounded: Float) -> f32 {
    match order {
        Order::ScaleFirst => rounded.round(rounded.round(code * scale) + offset),
        Order::OffsetFirst => rounded.round(rounded.round(code + offset) * scale),
    }
}
