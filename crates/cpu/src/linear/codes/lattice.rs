//! Codes that are points of a lattice, eight or four values at a time, with signs of their own: IQ1, IQ2 and IQ3.
//!
//! Points are gathered by the numbers that lie in a row's own lane. Magnitudes and signs become unsigned codes around
//! [`Codes::OFFSET`].

use windlass_quant::ggml::lattices;

use super::{Codes, Form, Sink};
use crate::simd::{Simd, tile_pieces, transpose};

pub(super) struct Iq1S;
pub(super) struct Iq1M;
pub(super) struct Iq2Xxs;
pub(super) struct Iq2Xs;
pub(super) struct Iq2S;
pub(super) struct Iq3Xxs;
pub(super) struct Iq3S;

/// A byte of a shuffle that gives zero.
const NONE: u8 = 128;

/// The bit of each of eight values among their signs, twice.
const SIGN_BITS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];

/// Shuffles by the byte of a lane that they begin at. They are tables, because compilers do not always find them out.
struct Shuffles([[u8; 16]; 16]);

impl Shuffles {
    /// At each byte of a result: the byte after the first that it comes from, or [`NONE`].
    const fn new(pattern: [u8; 16]) -> Self {
        let (mut all, mut first) = ([[NONE; 16]; 16], 0);
        while first < 16 {
            let mut i = 0;
            while i < 16 {
                if pattern[i] != NONE {
                    all[first][i] = (first as u8 + pattern[i]) % 16;
                }
                i += 1;
            }
            first += 1;
        }
        Shuffles(all)
    }

    /// # Safety
    /// The processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn at<S: Simd>(&self, first: usize, x: S::I) -> S::I {
        // SAFETY: the caller's promise; the array is a piece.
        unsafe { S::shuffle(x, S::same_piece(self.0[first % 16].as_ptr())) }
    }
}

/// One byte everywhere.
static SAME: Shuffles = Shuffles::new([0; 16]);
/// One byte eight times, then the next.
static TWICE: Shuffles = Shuffles::new([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
/// One byte eight times, then the next but one.
static TWICE_APART: Shuffles = Shuffles::new([0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2]);
/// Two bytes, to the low ends of 64-bit elements.
static TWO_BYTES: Shuffles = Shuffles::new(low_ends([0, NONE], [1, NONE]));
/// One byte, to the low ends of 64-bit elements.
static ONE_BYTE: Shuffles = Shuffles::new(low_ends([0, NONE], [0, NONE]));
/// Two pairs of bytes, to the low ends of 64-bit elements.
static TWO_PAIRS: Shuffles = Shuffles::new(low_ends([0, 1], [2, 3]));
/// One pair of bytes, to the low ends of 64-bit elements.
static ONE_PAIR: Shuffles = Shuffles::new(low_ends([0, 1], [0, 1]));
/// Four bytes, to the low ends of 32-bit elements.
static FOUR_BYTES: Shuffles =
    Shuffles::new([0, NONE, NONE, NONE, 1, NONE, NONE, NONE, 2, NONE, NONE, NONE, 3, NONE, NONE, NONE]);

const fn low_ends(first: [u8; 2], second: [u8; 2]) -> [u8; 16] {
    let mut index = [NONE; 16];
    (index[0], index[1], index[8], index[9]) = (first[0], first[1], second[0], second[1]);
    index
}

/// Factors of 16 bits at the low ends of 64-bit elements.
const fn factors(first: u16, second: u16) -> [u8; 16] {
    let ([a, b], [c, d]) = (first.to_le_bytes(), second.to_le_bytes());
    [a, b, 0, 0, 0, 0, 0, 0, c, d, 0, 0, 0, 0, 0, 0]
}

/// Codes from magnitudes and signs: `offset` plus or minus the magnitudes. The bits of a byte of `flags` are the signs of
/// eight values, and are repeated for each of them.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn signed<S: Simd>(magnitudes: S::I, flags: S::I, offset: i32) -> S::I {
    // SAFETY: the caller's promise; the array is a piece.
    unsafe {
        let offset = S::splat8(offset as u8);
        S::minus_where(S::add8(offset, magnitudes), flags, S::same_piece(SIGN_BITS.as_ptr()), offset, magnitudes)
    }
}

/// Bytes of eight signs from four fields of seven bits in 32-bit elements: the number of signs is even.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn even_signs<S: Simd>(x: S::I) -> S::I {
    // SAFETY: the caller's promise.
    unsafe {
        let mut bytes = S::and(x, S::splat32(127));
        for n in 1..4 {
            bytes = S::or(bytes, S::and(S::shl32(x, n), S::splat32(127 << (8 * n))));
        }
        with_parity::<S>(bytes)
    }
}

/// Bytes of seven bits, with an eighth that makes the number of ones even.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn with_parity<S: Simd>(x: S::I) -> S::I {
    // SAFETY: the caller's promise. Bits that cross from one byte into another do not reach its lowest bit.
    unsafe {
        let p = S::xor(x, S::shr16(x, 4));
        let p = S::xor(p, S::shr16(p, 2));
        let p = S::and(S::xor(p, S::shr16(p, 1)), S::splat8(1));
        S::or(x, S::shl16(p, 7))
    }
}

/// Odd numbers `2 n + 1`, times a scale.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn odd<S: Simd>(n: S::I, scale: S::F) -> S::F {
    // SAFETY: the caller's promise.
    unsafe { S::mul(scale, S::to_float(S::or(S::add32(n, n), S::splat32(1)))) }
}

/// Nibble `index` of 32-bit elements.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn nibble<S: Simd>(words: S::I, index: usize) -> S::I {
    // SAFETY: the caller's promise.
    unsafe { S::and(S::shr32(words, 4 * index as u32), S::splat32(15)) }
}

impl Codes for Iq2Xxs {
    const BLOCK: usize = 256;
    const BYTES: usize = 66;
    const GROUP: usize = 32;
    const OFFSET: i32 = 64;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes256;

    /// Layout: scale, then for each 32 values four numbers and four times seven signs below four bits of scale.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block. The table has a point for every byte.
        unsafe {
            let scale = S::mul(S::half(S::dwords(at, stride)), S::splat(0.125));
            for two in 0..4 {
                let x = tile_pieces::<S>(at.add(2 + 16 * two), stride);
                let words = transpose::<S>(x);
                for half in 0..2 {
                    let signs = even_signs::<S>(words[2 * half + 1]);
                    let mut codes = [[S::splat32(0); 4]; 2];
                    for (piece, codes) in codes.iter_mut().enumerate() {
                        for (j, code) in codes.iter_mut().enumerate() {
                            let numbers = TWO_BYTES.at::<S>(8 * half + 2 * piece, x[j]);
                            let point = S::gather64(lattices::IQ2_XXS.as_ptr().cast(), numbers);
                            let flags = TWICE.at::<S>(4 * j + 2 * piece, signs);
                            *code = signed::<S>(point, flags, Self::OFFSET);
                        }
                    }
                    let scale = odd::<S>(S::shr32(words[2 * half + 1], 28), scale);
                    sink.take(2 * two + half, codes, scale, S::zero());
                }
            }
        }
    }
}

impl Codes for Iq2Xs {
    const BLOCK: usize = 256;
    const BYTES: usize = 74;
    const GROUP: usize = 16;
    const OFFSET: i32 = 64;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes256;

    /// Layout: scale, 32 numbers of nine bits with seven signs above, sixteen nibbles of scales.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block. Numbers have nine bits, the table as many points.
        unsafe {
            let scale = S::mul(S::half(S::dwords(at, stride)), S::splat(0.125));
            let scales = [S::dwords(at.add(66), stride), S::dwords(at.add(70), stride)];
            let mask = S::splat32(511);
            for four in 0..4 {
                let x = tile_pieces::<S>(at.add(2 + 16 * four), stride);
                let mut signs = x;
                for signs in &mut signs {
                    *signs = with_parity::<S>(S::shr16(*signs, 9));
                }
                for group in 0..4 {
                    let mut codes = [S::splat32(0); 4];
                    for (j, code) in codes.iter_mut().enumerate() {
                        let numbers = S::and(TWO_PAIRS.at::<S>(4 * group, x[j]), mask);
                        let point = S::gather64(lattices::IQ2_XS.as_ptr().cast(), numbers);
                        *code = signed::<S>(point, TWICE_APART.at::<S>(4 * group, signs[j]), Self::OFFSET);
                    }
                    let number = 4 * four + group;
                    let scale = odd::<S>(nibble::<S>(scales[number / 8], number % 8), scale);
                    sink.take(number, [codes], scale, S::zero());
                }
            }
        }
    }
}

impl Codes for Iq2S {
    const BLOCK: usize = 256;
    const BYTES: usize = 82;
    const GROUP: usize = 16;
    const OFFSET: i32 = 64;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes256;

    /// Layout: scale, low bytes of 32 numbers, their signs, two high bits of each, sixteen nibbles of scales.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        /// Bits `s` and `s + 1` of a byte go to bits 8 and 9.
        static MOVES: [[u8; 16]; 2] = [factors(256, 64), factors(16, 4)];
        // SAFETY: the trait's promise; all reads lie in the block. Numbers have ten bits, the table as many points.
        unsafe {
            let scale = S::mul(S::half(S::dwords(at, stride)), S::splat(0.125));
            let high = tile_pieces::<S>(at.add(66), stride);
            let [_, _, s0, s1] = transpose::<S>(high);
            for half in 0..2 {
                let low = tile_pieces::<S>(at.add(2 + 16 * half), stride);
                let signs = tile_pieces::<S>(at.add(34 + 16 * half), stride);
                for group in 0..8 {
                    let moves = S::same_piece(MOVES[group % 2].as_ptr());
                    let mut codes = [S::splat32(0); 4];
                    for (j, code) in codes.iter_mut().enumerate() {
                        let numbers = TWO_BYTES.at::<S>(2 * group, low[j]);
                        let above = S::mul16(ONE_BYTE.at::<S>(4 * half + group / 2, high[j]), moves);
                        let numbers = S::or(numbers, S::and(above, S::splat32(0x300)));
                        let point = S::gather64(lattices::IQ2_S.as_ptr().cast(), numbers);
                        *code = signed::<S>(point, TWICE.at::<S>(2 * group, signs[j]), Self::OFFSET);
                    }
                    let number = 8 * half + group;
                    let step = nibble::<S>(if half == 0 { s0 } else { s1 }, number % 8);
                    sink.take(number, [codes], odd::<S>(step, scale), S::zero());
                }
            }
        }
    }
}

impl Codes for Iq3Xxs {
    const BLOCK: usize = 256;
    const BYTES: usize = 98;
    const GROUP: usize = 32;
    const OFFSET: i32 = 64;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes256;

    /// Layout: scale, 64 numbers, and for each 32 values four times seven signs below four bits of scale.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the trait's promise; all reads lie in the block. The table has a point for every byte.
        unsafe {
            let scale = S::mul(S::half(S::dwords(at, stride)), S::splat(0.25));
            for four in 0..2 {
                let words = transpose::<S>(tile_pieces::<S>(at.add(66 + 16 * four), stride));
                for two in 0..2 {
                    let x = tile_pieces::<S>(at.add(2 + 32 * four + 16 * two), stride);
                    for half in 0..2 {
                        let word = words[2 * two + half];
                        let signs = even_signs::<S>(word);
                        let mut codes = [[S::splat32(0); 4]; 2];
                        for (piece, codes) in codes.iter_mut().enumerate() {
                            for (j, code) in codes.iter_mut().enumerate() {
                                let numbers = FOUR_BYTES.at::<S>(8 * half + 4 * piece, x[j]);
                                let points = S::gather32(lattices::IQ3_XXS.as_ptr().cast(), numbers);
                                let flags = TWICE.at::<S>(4 * j + 2 * piece, signs);
                                *code = signed::<S>(points, flags, Self::OFFSET);
                            }
                        }
                        let scale = odd::<S>(S::shr32(word, 28), scale);
                        sink.take(4 * four + 2 * two + half, codes, scale, S::zero());
                    }
                }
            }
        }
    }
}

impl Codes for Iq3S {
    const BLOCK: usize = 256;
    const BYTES: usize = 110;
    const GROUP: usize = 32;
    const OFFSET: i32 = 64;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes256;

    /// Layout: scale, low bytes of 64 numbers, their ninth bits, signs, eight nibbles of scales.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        /// Bit `i` of a group's byte is the ninth bit of number `i`, which four numbers have in their second bytes.
        static NINTH: [[u8; 16]; 2] =
            [[0, 1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0], [0, 16, 0, 0, 0, 32, 0, 0, 0, 64, 0, 0, 0, 128, 0, 0]];
        // SAFETY: the trait's promise; all reads lie in the block. Numbers have nine bits, the table as many points.
        unsafe {
            let scale = S::half(S::dwords(at, stride));
            let scales = S::dwords(at.add(106), stride);
            let ninth = tile_pieces::<S>(at.add(66), stride);
            for two in 0..4 {
                let x = tile_pieces::<S>(at.add(2 + 16 * two), stride);
                let signs = tile_pieces::<S>(at.add(74 + 16 * (two / 2)), stride);
                for half in 0..2 {
                    let group = 2 * two + half;
                    let mut codes = [[S::splat32(0); 4]; 2];
                    for (piece, codes) in codes.iter_mut().enumerate() {
                        let bits = S::same_piece(NINTH[piece].as_ptr());
                        let sign = 8 * (two % 2) + 4 * half + 2 * piece;
                        for (j, code) in codes.iter_mut().enumerate() {
                            let numbers = FOUR_BYTES.at::<S>(8 * half + 4 * piece, x[j]);
                            let numbers = S::or_where(numbers, SAME.at::<S>(group, ninth[j]), bits, S::splat32(256));
                            let points = S::gather32(lattices::IQ3_S.as_ptr().cast(), numbers);
                            *code = signed::<S>(points, TWICE.at::<S>(sign, signs[j]), Self::OFFSET);
                        }
                    }
                    sink.take(group, codes, odd::<S>(nibble::<S>(scales, group), scale), S::zero());
                }
            }
        }
    }
}

/// Points of IQ1 as codes around 9, in eighths: moved up by one.
static IQ1: [[u8; 8]; 2048] = {
    let (mut codes, mut i) = ([[0; 8]; 2048], 0);
    while i < 2048 * 8 {
        codes[i / 8][i % 8] = (8 * lattices::IQ1_S[i / 8][i % 8] + 10) as u8;
        i += 1;
    }
    codes
};

/// Takes the two eighths off that lie between moved up and moved down, where a bit says so. `flags` of a lane come from
/// byte `place` of `x`.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn moved<S: Simd>(codes: S::I, x: S::I, place: usize, bits: &[u8; 16]) -> S::I {
    // SAFETY: the caller's promise; the arrays are pieces.
    unsafe { S::minus_where(codes, SAME.at::<S>(place, x), S::same_piece(bits.as_ptr()), codes, S::splat8(2)) }
}

impl Codes for Iq1S {
    const BLOCK: usize = 256;
    const BYTES: usize = 50;
    const GROUP: usize = 32;
    const OFFSET: i32 = 9;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes256;

    /// Layout: scale, low bytes of 32 numbers, and for each four of them their high bits, three bits of scale, and whether
    /// they are moved down.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        /// Bits 0 to 2 and 3 to 5 of 16 go to bits 8 to 10.
        static MOVES: [u8; 16] = factors(256, 32);
        // SAFETY: the trait's promise; all reads lie in the block. Numbers have eleven bits, the table as many points.
        unsafe {
            let scale = S::mul(S::half(S::dwords(at, stride)), S::splat(0.125));
            let high = tile_pieces::<S>(at.add(34), stride);
            let words = transpose::<S>(high);
            let moves = S::same_piece(MOVES.as_ptr());
            for half in 0..2 {
                let low = tile_pieces::<S>(at.add(2 + 16 * half), stride);
                for quarter in 0..4 {
                    let group = 4 * half + quarter;
                    let mut codes = [[S::splat32(0); 4]; 2];
                    for (piece, codes) in codes.iter_mut().enumerate() {
                        for (j, code) in codes.iter_mut().enumerate() {
                            let numbers = TWO_BYTES.at::<S>(4 * quarter + 2 * piece, low[j]);
                            let bits = ONE_PAIR.at::<S>(2 * group, S::shr16(high[j], 6 * piece as u32));
                            let bits = S::and(S::mul16(bits, moves), S::splat32(0x700));
                            let point = S::gather64(IQ1.as_ptr().cast(), S::or(numbers, bits));
                            *code = moved::<S>(point, high[j], 2 * group + 1, &[128; 16]);
                        }
                    }
                    let step = S::and(S::shr32(words[group / 2], 16 * (group as u32 % 2) + 12), S::splat32(7));
                    sink.take(group, codes, odd::<S>(step, scale), S::zero());
                }
            }
        }
    }
}

impl Codes for Iq1M {
    const BLOCK: usize = 256;
    const BYTES: usize = 56;
    const GROUP: usize = 16;
    const OFFSET: i32 = 9;
    const MINS: bool = false;
    const WIDE: bool = false;
    const FORM: Form = Form::Bytes256;

    /// Layout: low bytes of 32 numbers, for each a nibble of three high bits and whether it is moved down, and four words of
    /// four times three bits of scale, below a quarter of the scale of all.
    #[inline(always)]
    unsafe fn unpack<S: Simd>(at: *const u8, stride: usize, sink: &mut impl Sink<S>) {
        /// Low and high nibbles go to bits 8 to 11.
        static MOVES: [u8; 16] = factors(256, 16);
        /// Their highest bits.
        static DOWN: [u8; 16] = [8, 8, 8, 8, 8, 8, 8, 8, 128, 128, 128, 128, 128, 128, 128, 128];
        // SAFETY: the trait's promise; all reads lie in the block. Numbers have eleven bits, the table as many points.
        unsafe {
            let words = [S::dwords(at.add(48), stride), S::dwords(at.add(52), stride)];
            let mut bits = S::splat32(0);
            for (to, word) in words.into_iter().enumerate() {
                for half in 0..2 {
                    let part = S::and(S::shr32(word, 16 * half + 12), S::splat32(15));
                    bits = S::or(bits, S::shl32(part, 8 * to as u32 + 4 * half));
                }
            }
            let scale = S::mul(S::half(bits), S::splat(0.125));
            let high = tile_pieces::<S>(at.add(32), stride);
            let moves = S::same_piece(MOVES.as_ptr());
            for half in 0..2 {
                let low = tile_pieces::<S>(at.add(16 * half), stride);
                for eighth in 0..8 {
                    let group = 8 * half + eighth;
                    let mut codes = [S::splat32(0); 4];
                    for (j, code) in codes.iter_mut().enumerate() {
                        let numbers = TWO_BYTES.at::<S>(2 * eighth, low[j]);
                        let bits = S::and(S::mul16(ONE_BYTE.at::<S>(group, high[j]), moves), S::splat32(0x700));
                        let point = S::gather64(IQ1.as_ptr().cast(), S::or(numbers, bits));
                        *code = moved::<S>(point, high[j], group, &DOWN);
                    }
                    let from = 16 * (group as u32 / 4 % 2) + 3 * (group as u32 % 4);
                    let step = S::and(S::shr32(words[group / 8], from), S::splat32(7));
                    sink.take(group, [codes], odd::<S>(step, scale), S::zero());
                }
            }
        }
    }
}
