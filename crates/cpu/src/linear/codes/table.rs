//! Codes that index a table of 16 values: IQ4_NL, IQ4_XS and MXFP4.

use super::{Codes, Form, Sink, nibbles};
use crate::simd::{Simd, tile_pieces};

pub(super) struct Iq4Nl;
pub(super) struct Iq4Xs;
pub(super) struct Mxfp4;

/// Values of IQ4 codes, plus 128.
const UNEVEN: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// Twice the values of four-bit floats, plus 12.
const FLOATS: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];

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
