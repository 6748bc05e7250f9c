//! Blocks of 32 with one scale: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0.

use super::{Codes, Form, Sink, nibbles};
use crate::simd::{Simd, tile_pieces, transpose};

pub(super) struct Q4_0;
pub(super) struct Q4_1;
pub(super) struct Q5_0;
pub(super) struct Q5_1;
pub(super) struct Q8_0;

impl Codes for Q4_0 {
    const BLOCK: usize = 32;
    const BYTES: usize = 18;
    const GROUP: usize = 32;
    const OFFSET: i32 = 8;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes32;

    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe {
            let codes = nibbles::<S>(tile_pieces::<S>(at.add(2), stride));
            sink.take(0, codes, S::half(S::dwords(at, stride)), S::zero());
        }
    }
}

impl Codes for Q4_1 {
    const BLOCK: usize = 32;
    const BYTES: usize = 20;
    const GROUP: usize = 32;
    const OFFSET: i32 = 0;
    const MINS: bool = true;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes32;

    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe {
            let codes = nibbles::<S>(tile_pieces::<S>(at.add(4), stride));
            let head = S::dwords(at, stride);
            sink.take(0, codes, S::half(head), S::half(S::shr32(head, 16)));
        }
    }
}

impl Codes for Q5_0 {
    const BLOCK: usize = 32;
    const BYTES: usize = 22;
    const GROUP: usize = 32;
    const OFFSET: i32 = 16;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes32;

    /// Layout: scale, 32 fifth bits, nibbles.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe {
            let head = tile_pieces::<S>(at, stride);
            let codes = five::<S>(nibbles::<S>(tile_pieces::<S>(at.add(6), stride)), head, 2);
            sink.take(0, codes, S::half(transpose::<S>(head)[0]), S::zero());
        }
    }
}

impl Codes for Q5_1 {
    const BLOCK: usize = 32;
    const BYTES: usize = 24;
    const GROUP: usize = 32;
    const OFFSET: i32 = 0;
    const MINS: bool = true;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes32;

    /// Layout: scale, minimum, 32 fifth bits, nibbles.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe {
            let head = tile_pieces::<S>(at, stride);
            let codes = five::<S>(nibbles::<S>(tile_pieces::<S>(at.add(8), stride)), head, 4);
            let first = transpose::<S>(head)[0];
            sink.take(0, codes, S::half(first), S::half(S::shr32(first, 16)));
        }
    }
}

impl Codes for Q8_0 {
    const BLOCK: usize = 32;
    const BYTES: usize = 34;
    const GROUP: usize = 32;
    const OFFSET: i32 = 128;
    const MINS: bool = false;
    const WIDE: bool = true;
    const FORM: Form = Form::Bytes32;

    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe {
            let scale = S::half(S::dwords(at, stride));
            let top = S::splat8(128);
            let mut codes = [tile_pieces::<S>(at.add(2), stride), tile_pieces::<S>(at.add(18), stride)];
            for code in codes.as_flattened_mut() {
                *code = S::xor(*code, top);
            }
            sink.take(0, codes, scale, S::zero());
        }
    }
}

/// Puts the fifth bits on top of nibbles: bit `i` of the four bytes at `first` of a head is that of code `i`.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn five<S: Simd>(mut codes: [[S::I; 4]; 2], head: [S::I; 4], first: u8) -> [[S::I; 4]; 2] {
    // SAFETY: the caller's promise; the arrays are pieces.
    unsafe {
        let bits = S::same_piece([1u8, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128].as_ptr());
        let value = S::splat8(16);
        for (half, codes) in codes.iter_mut().enumerate() {
            let byte = first + 2 * half as u8;
            let mut index = [byte; 16];
            index[8..].fill(byte + 1);
            let index = S::same_piece(index.as_ptr());
            for (j, codes) in codes.iter_mut().enumerate() {
                *codes = S::or_where(*codes, S::shuffle(head[j], index), bits, value);
            }
        }
        codes
    }
}
