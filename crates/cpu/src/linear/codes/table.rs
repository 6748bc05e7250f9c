//! Codes that index a table of 16 values: IQ4_NL, IQ4_XS, MXFP4 and NVFP4 of GGML; with scales in a plane of their own NF4
//! and FP4 of bitsandbytes, MXFP4 and NVFP4.

use super::bits::{give, in_turn};
use super::{Codes, Form, Sink, byte_of, nibbles};
use crate::simd::{Simd, tile_pieces};

pub(super) struct Iq4Nl;
pub(super) struct Iq4Xs;
pub(super) struct Mxfp4;
pub(super) struct Nvfp4;

/// NF4, in units of [`NORMAL_UNIT`].
pub(super) struct Normal;

/// FP4 of bitsandbytes, in units of [`SMALL_UNIT`].
pub(super) struct Small;

/// The numbers of values in the lists of NF4 (`NORMAL`) and FP4.
pub(super) struct Listed<const NORMAL: bool>;

/// Four-bit floats, doubled; `G` share a scale.
pub(super) struct E2m1<const G: usize>;

/// Values of IQ4 codes, plus 128.
const UNEVEN: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// Twice the values of four-bit floats, plus 12.
const FLOATS: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];

/// What the values of [`Normal`] are multiplied by. Of all units this leaves the least error on normal weights: 0.5 % of
/// their size, where the scheme itself has 9 %.
pub(in super::super) const NORMAL_UNIT: f32 = 1.0 / 124.115;

/// The same for [`Small`]: of its values only the least, 1/192, is not a multiple.
pub(in super::super) const SMALL_UNIT: f32 = 1.0 / 120.0;

/// Values of NF4 in their unit, plus 128.
const NORMAL: [u8; 16] = [4, 42, 63, 79, 93, 105, 117, 128, 138, 148, 159, 170, 183, 198, 218, 252];

/// Values of FP4 in their unit, plus 128.
const SMALL: [u8; 16] = [128, 129, 208, 248, 168, 188, 148, 158, 128, 127, 48, 8, 88, 68, 108, 98];

impl Codes for Iq4Nl {
    const BLOCK: usize = 32;
    const BYTES: usize = 18;
    const GROUP: usize = 32;
    const OFFSET: i32 = 128;
    const MINS: bool = false;
    const WIDE: bool = true;
    const FORM: Form = Form::Bytes32;

    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe {
            let codes = look_up::<S>(&UNEVEN, nibbles::<S>(tile_pieces::<S>(at.add(2), stride)));
            sink.take(0, codes, S::half(S::dwords(at, stride)), S::zero());
        }
    }
}

impl Codes for Iq4Xs {
    const BLOCK: usize = 256;
    const BYTES: usize = 136;
    const GROUP: usize = 32;
    const OFFSET: i32 = 128;
    const MINS: bool = false;
    const WIDE: bool = true;
    const FORM: Form = Form::Bytes256;

    /// Layout: scale, eight high pairs of scales around 32, eight low nibbles, 8 x 16 bytes of nibbles.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe {
            let head = S::dwords(at, stride);
            let scale = S::half(head);
            let low = S::dwords(at.add(4), stride);
            for group in 0..8 {
                let nibble = S::and(S::shr32(low, 4 * group as u32), S::splat32(15));
                let pair = S::and(S::shr32(head, 16 + 2 * group as u32), S::splat32(3));
                let factor = S::add32(S::or(nibble, S::shl32(pair, 4)), S::splat32(-32));
                let codes = nibbles::<S>(tile_pieces::<S>(at.add(8 + 16 * group), stride));
                let scale = S::mul(scale, S::to_float(factor));
                sink.take(group, look_up::<S>(&UNEVEN, codes), scale, S::zero());
            }
        }
    }
}

impl Codes for Mxfp4 {
    const BLOCK: usize = 32;
    const BYTES: usize = 17;
    const GROUP: usize = 32;
    const OFFSET: i32 = 12;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes32;

    /// Layout: an exponent, nibbles. Scales below the least normal float count as zero.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe {
            let codes = look_up::<S>(&FLOATS, nibbles::<S>(tile_pieces::<S>(at.add(1), stride)));
            let exponent = S::and(S::dwords(at, stride), S::splat32(255));
            // Half of two to the power of the exponent less 127: table values are doubled.
            let scale = S::as_float(S::shl32(S::sub32_or_zero(exponent, S::splat32(1)), 23));
            sink.take(0, codes, scale, S::zero());
        }
    }
}

impl Codes for Nvfp4 {
    const BLOCK: usize = 64;
    const BYTES: usize = 36;
    const GROUP: usize = 16;
    const OFFSET: i32 = 12;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes16;

    /// Layout: four scales (floats of seven bits), then for each group eight bytes, whose low nibbles come first.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe {
            let seven = S::splat8(127);
            let scales = S::and(S::dwords(at, stride), seven);
            // The largest code is no scale: one more sets the top bit.
            let scales = S::minus_where(scales, S::add8(scales, S::splat8(1)), S::splat8(128), scales, scales);
            for two in 0..2 {
                let codes = look_up::<S>(&FLOATS, nibbles::<S>(tile_pieces::<S>(at.add(4 + 16 * two), stride)));
                for half in 0..2 {
                    let mut group = [S::splat32(0); 4];
                    for (j, group) in group.iter_mut().enumerate() {
                        let (low, high) = (codes[0][j], codes[1][j]);
                        *group = if half == 0 { S::low64(low, high) } else { S::high64(low, high) };
                    }
                    let number = 2 * two + half;
                    let bits = S::shl32(byte_of::<S>(scales, number as u32), 7);
                    // A half has four more exponents on either side, and table values are doubled.
                    sink.take(number, [group], S::mul(S::half(bits), S::splat(128.0)), S::zero());
                }
            }
        }
    }
}

impl Codes for Normal {
    const BLOCK: usize = 32;
    const BYTES: usize = 16;
    const GROUP: usize = 32;
    const OFFSET: i32 = 128;
    const MINS: bool = false;
    const WIDE: bool = true;
    const FORM: Form = Form::Bytes32;
    const APART: bool = true;

    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe { high_first::<S>(at, stride, &NORMAL, sink) }
    }
}

impl Codes for Small {
    const BLOCK: usize = 32;
    const BYTES: usize = 16;
    const GROUP: usize = 32;
    const OFFSET: i32 = 128;
    const MINS: bool = false;
    const WIDE: bool = true;
    const FORM: Form = Form::Bytes32;
    const APART: bool = true;

    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe { high_first::<S>(at, stride, &SMALL, sink) }
    }
}

impl<const NORMAL: bool> Codes for Listed<NORMAL> {
    const BLOCK: usize = 32;
    const BYTES: usize = 16;
    const GROUP: usize = 32;
    const OFFSET: i32 = 0;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Floats;
    const APART: bool = true;
    const VALUES: Option<fn() -> &'static [f32; 16]> = Some(|| windlass_quant::bnb::values(NORMAL));

    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe {
            let [low, high] = nibbles::<S>(tile_pieces::<S>(at, stride));
            give::<S, 32>(in_turn::<S>([high, low]), 0, sink);
        }
    }
}

impl<const G: usize> Codes for E2m1<G> {
    const BLOCK: usize = 32;
    const BYTES: usize = 16;
    const GROUP: usize = G;
    const OFFSET: i32 = 12;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = if G == 16 { Form::Bytes16 } else { Form::Bytes32 };
    const APART: bool = true;

    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe {
            let codes = look_up::<S>(&FLOATS, nibbles::<S>(tile_pieces::<S>(at, stride)));
            give::<S, G>(in_turn::<S>(codes), 0, sink);
        }
    }
}

/// A block of 32 codes, two to a byte, the first in its high half.
///
/// # Safety
/// As for [`Codes::unpack`].
#[inline(always)]
unsafe fn high_first<S: Simd>(at: *const u8, stride: usize, table: &[u8; 16], sink: &mut impl Sink<S>) {
    // SAFETY: the caller's promise.
    unsafe {
        let [low, high] = look_up::<S>(table, nibbles::<S>(tile_pieces::<S>(at, stride)));
        give::<S, 32>(in_turn::<S>([high, low]), 0, sink);
    }
}

/// The table's values at the codes.
///
/// # Safety
/// The processor has the instructions.
#[inline(always)]
unsafe fn look_up<S: Simd>(table: &[u8; 16], mut codes: [[S::I; 4]; 2]) -> [[S::I; 4]; 2] {
    // SAFETY: the caller's promise; the table is a piece.
    unsafe {
        let table = S::same_piece(table.as_ptr());
        for code in codes.as_flattened_mut() {
            *code = S::shuffle(table, *code);
        }
        codes
    }
}
