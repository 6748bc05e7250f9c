//! Cuts rows into super-blocks and codes sixteen of them at a time.

use crate::ggml::block::Weighted;

use super::search::Steps;
use super::vector::{LANES, Lanes, Mask, lanes_only};

/// Values of a super-block.
pub(super) const SUPER: usize = 256;

/// Searches with importance all try these.
pub(super) const WEIGHTED_STEPS: Steps = Steps { first: -0.9, delta: 0.05, count: 36 };

/// Codes of a batch, four to a word: value `4 * i + k` of super-block `n` has byte `k` of `[i][n]`.
pub(super) type BatchCodes = [[u32; LANES]; SUPER / 4];

/// How super-blocks of a format are coded: one alone, and sixteen in lanes with the same result.
pub(super) trait Coder {
    /// Scales and codes of one super-block.
    type Block: Default;
    /// Bytes of one super-block.
    const BYTES: usize;

    /// One super-block; `weights` are the importance of its columns.
    fn one(x: &[f32; SUPER], weights: Option<&[f32; SUPER]>) -> Self::Block;

    /// One super-block per lane: all but the codes of values go to `blocks`. Lanes of the answer must be coded by [`Coder::one`].
    fn many(
        x: &[Lanes; SUPER],
        weights: Option<&[Lanes; SUPER]>,
        blocks: &mut [Self::Block; LANES],
        codes: &mut BatchCodes,
    ) -> Mask;

    fn codes(block: &mut Self::Block) -> &mut [u8; SUPER];

    fn pack(block: &Self::Block, bytes: &mut [u8]);
}

/// Codes whole rows; the lengths are checked.
#[inline(always)]
pub(super) fn encode<C: Coder>(rows: Weighted<'_>, bytes: &mut [u8]) {
    let (blocks, _) = rows.values.as_chunks::<SUPER>();
    let (importance, _) = rows.importance.as_chunks::<SUPER>();
    let weights = |n: usize| (!importance.is_empty()).then(|| &importance[n % importance.len()]);
    let batches = blocks.chunks(LANES).zip(bytes.chunks_mut(LANES * C::BYTES));
    for (batch, (blocks, bytes)) in batches.enumerate() {
        let weights = |n: usize| weights(batch * LANES + n);
        let single = |n: usize, bytes: &mut [u8]| C::pack(&C::one(&blocks[n], weights(n)), bytes);
        if blocks.len() == 1 {
            single(0, bytes);
            continue;
        }
        let mut coded = Default::default();
        let odd = encode_batch::<C>(blocks, weights, &mut coded);
        for (n, (block, bytes)) in coded.iter().zip(bytes.chunks_exact_mut(C::BYTES)).enumerate() {
            if odd.lane(n) { single(n, bytes) } else { C::pack(block, bytes) }
        }
    }
}

#[inline(always)]
fn encode_batch<'a, C: Coder>(
    blocks: &[[f32; SUPER]],
    weights: impl Fn(usize) -> Option<&'a [f32; SUPER]>,
    coded: &mut [C::Block; LANES],
) -> Mask {
    let mut x = [Lanes::ZERO; SUPER];
    let mut codes = [[0; LANES]; SUPER / 4];
    transpose(|n| blocks.get(n), &mut x);
    let odd = if weights(0).is_some() {
        let mut w = [Lanes::ZERO; SUPER];
        transpose(weights, &mut w);
        C::many(&x, Some(&w), coded, &mut codes)
    } else {
        C::many(&x, None, coded, &mut codes)
    };
    for (n, block) in coded.iter_mut().enumerate() {
        for (to, from) in C::codes(block).as_chunks_mut::<4>().0.iter_mut().zip(&codes) {
            lanes_only();
            *to = from[n].to_le_bytes();
        }
    }
    odd
}

#[inline(always)]
fn transpose<'a>(block: impl Fn(usize) -> Option<&'a [f32; SUPER]>, lanes: &mut [Lanes; SUPER]) {
    let blocks: [&[f32; SUPER]; LANES] = std::array::from_fn(|n| block(n).unwrap_or(&[0.0; SUPER]));
    for (i, lanes) in lanes.iter_mut().enumerate() {
        lanes_only();
        for (lane, block) in lanes.0.iter_mut().zip(blocks) {
            *lane = block[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ggml::k::{q2::Q2, q3::Q3, q4::Q4, q5::Q5, q6::Q6};

    fn odd_blocks<C: Coder>(blocks: &[[f32; SUPER]; LANES], weights: Option<&[f32; SUPER]>) -> usize {
        let odd = encode_batch::<C>(blocks, |_| weights, &mut Default::default());
        (0..LANES).filter(|n| odd.lane(*n)).count()
    }

    /// A vector encoder that leaves its work to the plain one would pass every test of bytes.
    #[test]
    fn ordinary_values_are_coded_in_lanes() {
        let value = |n: usize, i: usize| ((n * SUPER + i) as f32 * 1.7).sin() * (1.0 + (i / 16) as f32) * 0.01;
        let blocks = std::array::from_fn(|n| std::array::from_fn(|i| value(n, i)));
        let ones = [1.0; SUPER];
        for weights in [None, Some(&ones)] {
            assert_eq!(odd_blocks::<Q2>(&blocks, weights), 0);
            assert_eq!(odd_blocks::<Q3>(&blocks, weights), 0);
            assert_eq!(odd_blocks::<Q4>(&blocks, weights), 0);
            assert_eq!(odd_blocks::<Q5>(&blocks, weights), 0);
            assert_eq!(odd_blocks::<Q6>(&blocks, weights), 0);
        }
    }
}
