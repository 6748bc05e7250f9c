//! Codes of 1 to 8 bits as one bit string, with scales and minima in planes of their own; and signed bytes.

use super::{Codes, Form, Sink, nibbles};
use crate::simd::{Simd, tile_pieces};

/// Unsigned codes of `B` bits; `G` (16 or 32) of them share a scale.
pub(super) struct Bits<const B: usize, const G: usize>;

/// Signed codes of 8 bits.
pub(super) struct Signed;

impl<const B: usize, const G: usize> Bits<B, G> {
    /// The fewest values that fill a piece, or two that overlap.
    const VALUES: usize = match B {
        1 => 128,
        2 | 3 => 64,
        _ => 32,
    };
}

impl<const B: usize, const G: usize> Codes for Bits<B, G> {
    const BLOCK: usize = Self::VALUES;
    const BYTES: usize = Self::VALUES * B / 8;
    const GROUP: usize = G;
    const OFFSET: i32 = 0;
    const MINS: bool = true;
    const WIDE: bool = B == 8;
    const FORM: Form = if G == 16 { Form::Bytes16 } else { Form::Bytes32 };
    const APART: bool = true;

    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; the last piece ends with the block.
        unsafe {
            let first = tile_pieces::<S>(at, stride);
            let last = if Self::BYTES > 16 { tile_pieces::<S>(at.add(Self::BYTES - 16), stride) } else { first };
            for pair in 0..Self::VALUES / 32 {
                let mut codes = [first, last];
                if B == 4 {
                    codes = in_turn::<S>(nibbles::<S>(first));
                } else if B < 8 {
                    for (i, codes) in codes.iter_mut().enumerate() {
                        *codes = Spread::<B>::codes::<S>(first, last, 2 * pair + i);
                    }
                }
                give::<S, G>(codes, pair, sink);
            }
        }
    }
}

impl Codes for Signed {
    const BLOCK: usize = 32;
    const BYTES: usize = 32;
    const GROUP: usize = 32;
    const OFFSET: i32 = 128;
    const MINS: bool = false;
    const WIDE: bool = true;
    const FORM: Form = Form::Bytes32;
    const APART: bool = true;

    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block.
        unsafe {
            let mut codes = [tile_pieces::<S>(at, stride), tile_pieces::<S>(at.add(16), stride)];
            for code in codes.as_flattened_mut() {
                *code = S::xor(*code, S::splat8(128));
            }
            give::<S, 32>(codes, 0, sink);
        }
    }
}

/// Hands over 32 codes, numbered `pair` among those of the block, in groups of `G`; scales are in planes of their own.
///
/// # Safety
/// As for [`Sink::take`].
#[inline(always)]
pub(super) unsafe fn give<S: Simd, const G: usize>(codes: [[S::I; 4]; 2], pair: usize, sink: &mut impl Sink<S>) {
    // SAFETY: the caller's promise.
    unsafe {
        if G == 16 {
            sink.take(2 * pair, [codes[0]], S::zero(), S::zero());
            sink.take(2 * pair + 1, [codes[1]], S::zero(), S::zero());
        } else {
            sink.take(pair, codes, S::zero(), S::zero());
        }
    }
}

/// Codes of which every other one is in each array, in order.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn in_turn<S: Simd>([even, odd]: [[S::I; 4]; 2]) -> [[S::I; 4]; 2] {
    let (mut first, mut second) = (even, odd);
    for (j, first) in first.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        (*first, second[j]) = unsafe { (S::low8(even[j], odd[j]), S::high8(even[j], odd[j])) };
    }
    [first, second]
}

/// How 16 codes of `B` bits become bytes: two codes lie in two bytes, which a factor moves to the same bits for all.
struct Spread<const B: usize>;

impl<const B: usize> Spread<B> {
    /// The highest bit of a byte that the first of two codes begins at.
    const TOP: usize = if B.is_multiple_of(2) { 4 } else { 6 };
    /// Bytes of a block.
    const BYTES: usize = Bits::<B, 32>::BYTES;
    /// By part of a block: where in the piece the bytes of each two codes lie.
    const PLACES: [[u8; 16]; 8] = {
        let (mut all, mut part) = ([[0; 16]; 8], 0);
        while part < Self::BYTES * 8 / B / 16 {
            let from = 2 * B * part - if Self::late(part) { Self::BYTES - 16 } else { 0 };
            let mut i = 0;
            while i < 8 {
                let byte = from + 2 * B * i / 8;
                all[part][2 * i] = byte as u8;
                // The second byte does not matter where the first holds both codes.
                all[part][2 * i + 1] = if byte < 15 { byte as u8 + 1 } else { 15 };
                i += 1;
            }
            part += 1;
        }
        all
    };
    const FACTORS: [u8; 16] = {
        let (mut factors, mut i) = ([0; 16], 0);
        while i < 8 {
            factors[2 * i] = 1 << (Self::TOP - 2 * B * i % 8);
            i += 1;
        }
        factors
    };

    /// Whether a part does not lie in the first 16 bytes.
    const fn late(part: usize) -> bool {
        2 * B * part + 2 * B > 16
    }

    /// Codes `16 part` to `16 part + 15` of a block, whose first and last 16 bytes are given.
    ///
    /// # Safety
    /// The processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn codes<S: Simd>(first: [S::I; 4], last: [S::I; 4], part: usize) -> [S::I; 4] {
        let mut codes = if Self::late(part) { last } else { first };
        let (mask, second) = ((1 << B) - 1, Self::TOP + B);
        // SAFETY: the caller's promise; the arrays are pieces.
        unsafe {
            let places = S::same_piece(const { &Self::PLACES }[part % 8].as_ptr());
            let factors = S::same_piece(const { &Self::FACTORS }.as_ptr());
            let (low, high) = (S::splat32(mask * 0x0001_0001), S::splat32(mask * 0x0100_0100));
            for x in &mut codes {
                let two = S::mul16(S::shuffle(*x, places), factors);
                let above =
                    if second < 8 { S::shl16(two, 8 - second as u32) } else { S::shr16(two, second as u32 - 8) };
                *x = S::or(S::and(S::shr16(two, Self::TOP as u32), low), S::and(above, high));
            }
        }
        codes
    }
}
