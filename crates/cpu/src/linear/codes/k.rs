//! Super-blocks of 256 with sub-blocks of 32: Q4_K and Q5_K; of 16: Q2_K, Q3_K and Q6_K.

use super::{Codes, Form, Sink, byte_of, nibbles};
use crate::simd::{Simd, tile_pieces, transpose};

/// A loop whose body knows the value of its counter when it is compiled, for shifts by immediates and arrays in registers.
macro_rules! unrolled {
    ($i:ident in $($n:literal)* $body:block) => {
        $({
            let $i: usize = $n;
            $body
        })*
    };
}

pub(super) struct Q2K;
pub(super) struct Q3K;
pub(super) struct Q4K;
pub(super) struct Q5K;
pub(super) struct Q6K;

impl Codes for Q4K {
    const BLOCK: usize = 256;
    const BYTES: usize = 144;
    const GROUP: usize = 32;
    const OFFSET: i32 = 0;
    const MINS: bool = true;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes256;

    /// Layout: see `Scales`, then 4 x 32 bytes: nibbles of two sub-blocks.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe {
            let scales = Scales::<S>::read(at, stride);
            for pair in 0..4 {
                let bytes = at.add(16 + 32 * pair);
                let first = nibbles::<S>(tile_pieces::<S>(bytes, stride));
                let second = nibbles::<S>(tile_pieces::<S>(bytes.add(16), stride));
                for half in 0..2 {
                    let (scale, min) = scales.get(2 * pair + half);
                    sink.take(2 * pair + half, [first[half], second[half]], scale, min);
                }
            }
        }
    }
}

impl Codes for Q5K {
    const BLOCK: usize = 256;
    const BYTES: usize = 176;
    const GROUP: usize = 32;
    const OFFSET: i32 = 0;
    const MINS: bool = true;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes256;

    /// Layout: see `Scales`, then 32 bytes of fifth bits (bit `j` of byte `i` is that of code `i` of sub-block `j`), then
    /// as Q4_K.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe {
            let scales = Scales::<S>::read(at, stride);
            let top = [tile_pieces::<S>(at.add(16), stride), tile_pieces::<S>(at.add(32), stride)];
            let fifth = S::splat8(16);
            for pair in 0..4 {
                let bytes = at.add(48 + 32 * pair);
                let first = nibbles::<S>(tile_pieces::<S>(bytes, stride));
                let second = nibbles::<S>(tile_pieces::<S>(bytes.add(16), stride));
                for half in 0..2 {
                    let sub = 2 * pair + half;
                    let (scale, min) = scales.get(sub);
                    let bit = S::splat8(1 << sub);
                    let add = |codes: [S::I; 4], top: [S::I; 4]| {
                        [
                            S::or_where(codes[0], top[0], bit, fifth),
                            S::or_where(codes[1], top[1], bit, fifth),
                            S::or_where(codes[2], top[2], bit, fifth),
                            S::or_where(codes[3], top[3], bit, fifth),
                        ]
                    };
                    sink.take(sub, [add(first[half], top[0]), add(second[half], top[1])], scale, min);
                }
            }
        }
    }
}

/// Scales and minima of the eight sub-blocks of Q4_K and Q5_K: two halves, then eight pairs of 6-bit numbers in 12 bytes.
struct Scales<S: Simd> {
    scale: S::F,
    min: S::F,
    /// Scales of sub-blocks 0 to 3, and 4 to 7: a byte each.
    scales: [S::I; 2],
    mins: [S::I; 2],
}

impl<S: Simd> Scales<S> {
    /// # Safety
    /// A block is readable at `at` in each row; the processor has the instructions.
    #[inline(always)]
    unsafe fn read(at: *const u8, stride: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let [halves, a, b, c] = transpose::<S>(tile_pieces::<S>(at, stride));
            let (six, four, two) = (S::splat8(63), S::splat8(15), S::splat8(48));
            Scales {
                scale: S::half(halves),
                min: S::mul(S::half(S::shr32(halves, 16)), S::splat(-1.0)),
                scales: [S::and(a, six), S::or(S::and(c, four), S::and(S::shr16(a, 2), two))],
                mins: [S::and(b, six), S::or(S::and(S::shr16(c, 4), four), S::and(S::shr16(b, 2), two))],
            }
        }
    }

    /// Scale and (negative) minimum of a sub-block.
    ///
    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    unsafe fn get(&self, sub: usize) -> (S::F, S::F) {
        // SAFETY: the caller's promise.
        unsafe {
            let (part, byte) = (sub / 4, sub as u32 % 4);
            let scale = S::mul(self.scale, S::to_float(byte_of::<S>(self.scales[part], byte)));
            (scale, S::mul(self.min, S::to_float(byte_of::<S>(self.mins[part], byte))))
        }
    }
}

impl Codes for Q6K {
    const BLOCK: usize = 256;
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    const OFFSET: i32 = 32;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes256;

    /// Layout: 128 bytes of low nibbles, 64 bytes of high pairs, 16 signed scales, the scale of all. Of each 128 codes,
    /// those 64 apart share a byte of nibbles, those 32 apart a byte of pairs.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block: its last four bytes end with the scale.
        unsafe {
            let scale = S::half(S::shr32(S::dwords(at.add(206), stride), 16));
            let scales = transpose::<S>(tile_pieces::<S>(at.add(192), stride));
            let (four, two) = (S::splat8(15), S::splat8(48));
            for half in 0..2 {
                let pairs = at.add(128 + 32 * half);
                let top = [tile_pieces::<S>(pairs, stride), tile_pieces::<S>(pairs.add(16), stride)];
                unrolled!(eighth in 0 1 2 3 4 5 6 7 {
                    let (part, odd) = (eighth / 2, eighth % 2);
                    let mut codes = tile_pieces::<S>(at.add(64 * half + 32 * (part % 2) + 16 * odd), stride);
                    for (j, code) in codes.iter_mut().enumerate() {
                        let top = top[odd][j];
                        let high = match part {
                            0 => S::shl16(top, 4),
                            1 => S::shl16(top, 2),
                            2 => top,
                            _ => S::shr16(top, 2),
                        };
                        let low = S::and(if part < 2 { *code } else { S::shr16(*code, 4) }, four);
                        *code = S::or(low, S::and(high, two));
                    }
                    let group = 8 * half + eighth;
                    let factor = S::sar32(S::shl32(scales[group / 4], 24 - 8 * (group as u32 % 4)), 24);
                    sink.take(group, [codes], S::mul(scale, S::to_float(factor)), S::zero());
                });
            }
        }
    }
}

impl Codes for Q3K {
    const BLOCK: usize = 256;
    const BYTES: usize = 110;
    const GROUP: usize = 16;
    const OFFSET: i32 = 4;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes256;

    /// Layout: 32 bytes of third bits (bit `j` of byte `i` is that of code `32 j + i`), 64 bytes of pairs as in Q2_K, 12 bytes
    /// of 6-bit scales around 32, the scale of all.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block: its last four bytes end with the scale.
        unsafe {
            let scale = S::half(S::shr32(S::dwords(at.add(106), stride), 16));
            let low = [S::dwords(at.add(96), stride), S::dwords(at.add(100), stride)];
            let high = S::dwords(at.add(104), stride);
            let top = [tile_pieces::<S>(at, stride), tile_pieces::<S>(at.add(16), stride)];
            let (four, two, third) = (S::splat8(15), S::splat8(3), S::splat8(4));
            for half in 0..2 {
                let pairs = Pairs::<S>::read(at.add(32), stride, half);
                unrolled!(eighth in 0 1 2 3 4 5 6 7 {
                    let group = 8 * half + eighth;
                    let quarter = group as u32 / 4;
                    let nibble = S::and(S::shr16(low[eighth / 4], 4 * half as u32), four);
                    let pair = S::shl16(S::and(S::shr16(high, 2 * quarter), two), 4);
                    let factor = byte_of::<S>(S::or(nibble, pair), eighth as u32 % 4);
                    let factor = S::to_float(S::add32(factor, S::splat32(-32)));
                    let mut codes = pairs.group(eighth);
                    let bit = S::splat8(1 << (group / 2));
                    for (j, code) in codes.iter_mut().enumerate() {
                        *code = S::or_where(*code, top[eighth % 2][j], bit, third);
                    }
                    sink.take(group, [codes], S::mul(scale, factor), S::zero());
                });
            }
        }
    }
}

impl Codes for Q2K {
    const BLOCK: usize = 256;
    const BYTES: usize = 84;
    const GROUP: usize = 16;
    const OFFSET: i32 = 0;
    const MINS: bool = true;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes256;

    /// Layout: 16 bytes of scales (low nibbles) and minima (high), 64 bytes of pairs, scale and minimum of all.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe {
            let halves = S::dwords(at.add(80), stride);
            let scale = S::half(halves);
            let min = S::mul(S::half(S::shr32(halves, 16)), S::splat(-1.0));
            let scales = transpose::<S>(tile_pieces::<S>(at, stride));
            let four = S::splat32(15);
            for half in 0..2 {
                let pairs = Pairs::<S>::read(at.add(16), stride, half);
                let scales = [scales[2 * half], scales[2 * half + 1]];
                unrolled!(eighth in 0 1 2 3 4 5 6 7 {
                    let both = S::shr32(scales[eighth / 4], 8 * (eighth as u32 % 4));
                    let scale = S::mul(scale, S::to_float(S::and(both, four)));
                    let min = S::mul(min, S::to_float(S::and(S::shr32(both, 4), four)));
                    sink.take(8 * half + eighth, [pairs.group(eighth)], scale, min);
                });
            }
        }
    }
}

/// Codes of two bits: of each half of a super-block, byte `i` of 32 holds those of `i`, `i + 32`, `i + 64` and `i + 96`.
struct Pairs<S: Simd>([[S::I; 4]; 2]);

impl<S: Simd> Pairs<S> {
    /// # Safety
    /// 64 bytes of pairs are readable at `at` in each row; the processor has the instructions.
    #[inline(always)]
    unsafe fn read(at: *const u8, stride: usize, half: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let at = at.add(32 * half);
            Pairs([tile_pieces::<S>(at, stride), tile_pieces::<S>(at.add(16), stride)])
        }
    }

    /// Group `eighth` of this half.
    ///
    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    unsafe fn group(&self, eighth: usize) -> [S::I; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut codes = self.0[eighth % 2];
            for code in &mut codes {
                *code = S::and(S::shr16(*code, eighth as u32 / 2 * 2), S::splat8(3));
            }
            codes
        }
    }
}
