//! Matrices of groups whose words hold the codes of several groups that lie equally far apart, as HQQ and Quanto store
//! them: slot 0 has the first groups, slot 1 those after, and so on.

use std::io;
use std::ops::Range;

use windlass_tensor::DType;

use crate::arrange::{Arrangement, Array, Stored};
use crate::mlx::bits::{pack32, unpack32};
use crate::simd::per_level;
use crate::{Grid, Packing};

/// Names of the arrays with codes, scales and zeros, and the slot that lies in the highest bits of a word.
pub(crate) struct Slots {
    pub(crate) names: [&'static str; 3],
    /// Otherwise in the lowest bits.
    pub(crate) first_highest: bool,
}

/// Where the codes of one tensor lie.
struct Layout {
    bits: usize,
    group: usize,
    /// Groups of the tensor.
    groups: usize,
    slots: usize,
    /// Bytes of a word.
    word: usize,
    /// Groups per slot.
    step: usize,
}

impl Slots {
    fn layout(&self, packing: &Packing, shape: &[usize]) -> Result<Layout, String> {
        let Grid::Affine { bits, group, .. } = packing.scheme.grid() else {
            return Err(format!("{} has no groups of integers", packing.scheme.name()));
        };
        let columns = shape.last().copied().unwrap_or(0);
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let values = count.ok_or_else(|| format!("{shape:?} is too large"))?;
        if group == 0 || values == 0 || columns % packing.scheme.block() != 0 {
            return Err(format!("rows of {columns} values are not whole blocks of {}", packing.scheme.block()));
        }
        let (slots, word) = if bits == 3 { (10, 4) } else { (8 / usize::from(bits), 1) };
        let groups = values / group;
        if self.first_highest && bits != 3 && groups % slots != 0 {
            return Err(format!("{groups} groups do not fill words of {slots} codes"));
        }
        Ok(Layout { bits: bits.into(), group, groups, slots, word, step: groups.div_ceil(slots) })
    }

    fn shift(&self, layout: &Layout, slot: usize) -> usize {
        layout.bits * if self.first_highest { layout.slots - 1 - slot } else { slot }
    }
}

impl Layout {
    /// Runs of groups within one slot: slot, first row of the stored array, groups.
    fn runs(&self, groups: Range<usize>) -> impl Iterator<Item = (usize, usize, usize)> {
        let (step, mut next) = (self.step, groups.start);
        std::iter::from_fn(move || {
            let (slot, row) = (next / step, next % step);
            let length = (groups.end.saturating_sub(next)).min(step - row);
            next += length;
            (length > 0).then_some((slot, row, length))
        })
    }

    fn groups_of(&self, rows: &Range<usize>, columns: usize) -> Range<usize> {
        rows.start * columns / self.group..(rows.end * columns / self.group).min(self.groups)
    }
}

impl Arrangement for Slots {
    fn arrays(&self, packing: &Packing, shape: &[usize]) -> Result<Vec<Array>, String> {
        let layout = self.layout(packing, shape)?;
        let dtype = if layout.word == 4 { DType::I32 } else { DType::U8 };
        let codes = Array { name: self.names[0], dtype, shape: vec![layout.step, layout.group] };
        let meta = |name| Array { name, dtype: packing.float, shape: vec![layout.groups, 1] };
        Ok(vec![codes, meta(self.names[1]), meta(self.names[2])])
    }

    fn gather(
        &self,
        packing: &Packing,
        shape: &[usize],
        rows: Range<usize>,
        stored: &dyn Stored,
        planes: &mut [&mut [u8]],
    ) -> io::Result<()> {
        let layout = self.layout(packing, shape).map_err(io::Error::other)?;
        let groups = layout.groups_of(&rows, shape.last().copied().unwrap_or(0));
        let [packed, scales, zeros, rest @ ..] = planes else {
            return Err(io::Error::other("codes, scales and zeros are three planes"));
        };
        let mut codes = vec![0; groups.len() * layout.group];
        let mut at = 0;
        let mut words = Vec::new();
        for (slot, row, length) in layout.runs(groups.clone()) {
            words.resize(length * layout.group * layout.word, 0);
            stored.read(0, (row * layout.group * layout.word) as u64, &mut words)?;
            let codes = &mut codes[at..at + length * layout.group];
            take(layout.word, self.shift(&layout, slot), layout.bits, &words, codes);
            at += codes.len();
        }
        pack(layout.bits, &codes, packed);
        let size = packing.float.size();
        stored.read(1, (groups.start * size) as u64, scales)?;
        stored.read(2, (groups.start * size) as u64, zeros)?;
        rest.iter_mut().for_each(|plane| plane.fill(0));
        Ok(())
    }

    fn can_scatter(&self) -> bool {
        true
    }

    fn scatter(
        &self,
        packing: &Packing,
        shape: &[usize],
        rows: Range<usize>,
        planes: &[&[u8]],
        stored: &dyn Stored,
    ) -> io::Result<()> {
        let layout = self.layout(packing, shape).map_err(io::Error::other)?;
        let groups = layout.groups_of(&rows, shape.last().copied().unwrap_or(0));
        let [packed, scales, zeros, ..] = planes else {
            return Err(io::Error::other("codes, scales and zeros are three planes"));
        };
        let mut codes = vec![0; groups.len() * layout.group];
        unpack(layout.bits, packed, &mut codes);
        let mut at = 0;
        let mut words = Vec::new();
        for (slot, row, length) in layout.runs(groups.clone()) {
            let offset = (row * layout.group * layout.word) as u64;
            words.resize(length * layout.group * layout.word, 0);
            // Other slots of these words may be there already.
            stored.read(0, offset, &mut words)?;
            let codes = &codes[at..at + length * layout.group];
            put(layout.word, self.shift(&layout, slot), codes, &mut words);
            stored.write(0, offset, &words)?;
            at += codes.len();
        }
        let size = packing.float.size();
        stored.write(1, (groups.start * size) as u64, scales)?;
        stored.write(2, (groups.start * size) as u64, zeros)
    }
}

per_level! {
    /// Codes out of their slot.
    fn take(word: usize, shift: usize, bits: usize, words: &[u8], codes: &mut [u8]) {
        let mask = ((1u32 << bits) - 1) as u8;
        if word == 4 {
            for (code, word) in codes.iter_mut().zip(words.as_chunks::<4>().0) {
                *code = (u32::from_le_bytes(*word) >> shift) as u8 & mask;
            }
        } else {
            for (code, word) in codes.iter_mut().zip(words) {
                *code = word >> shift & mask;
            }
        }
    }
}

per_level! {
    /// Codes into their slot.
    fn put(word: usize, shift: usize, codes: &[u8], words: &mut [u8]) {
        if word == 4 {
            for (code, word) in codes.iter().zip(words.as_chunks_mut::<4>().0) {
                *word = (u32::from_le_bytes(*word) | u32::from(*code) << shift).to_le_bytes();
            }
        } else {
            for (code, word) in codes.iter().zip(words) {
                *word |= code << shift;
            }
        }
    }
}

per_level! {
    /// Whole blocks of 32 codes as a bit string.
    pub(crate) fn pack(bits: usize, codes: &[u8], packed: &mut [u8]) {
        for (codes, packed) in codes.as_chunks::<32>().0.iter().zip(packed.chunks_exact_mut(4 * bits)) {
            match bits {
                1 => pack32::<1>(codes, packed),
                2 => pack32::<2>(codes, packed),
                3 => pack32::<3>(codes, packed),
                4 => pack32::<4>(codes, packed),
                _ => pack32::<8>(codes, packed),
            }
        }
    }
}

per_level! {
    /// The inverse of [`pack`].
    pub(crate) fn unpack(bits: usize, packed: &[u8], codes: &mut [u8]) {
        for (codes, packed) in codes.as_chunks_mut::<32>().0.iter_mut().zip(packed.chunks_exact(4 * bits)) {
            *codes = match bits {
                1 => unpack32::<1>(packed),
                2 => unpack32::<2>(packed),
                3 => unpack32::<3>(packed),
                4 => unpack32::<4>(packed),
                _ => unpack32::<8>(packed),
            };
        }
    }
}
