//! Codes of any width up to eight bits out of bytes: every lane takes the two bytes that hold its code, shifts and masks.

use super::Level;

/// Codes that are taken out together.
pub(crate) const CODES: usize = 16;

/// Where sixteen codes lie within at most sixteen bytes.
pub(crate) struct Places {
    /// The byte that each code begins in.
    bytes: [u8; CODES],
    /// The bits below it there.
    shifts: [u32; CODES],
    mask: u32,
    /// Bytes that are looked at.
    span: usize,
    /// `bytes` and the one after each, spread over lanes of 32 bits; the upper halves are zero.
    shuffle: [u8; 4 * CODES],
}

impl Places {
    const fn new(bytes: [u8; CODES], shifts: [u32; CODES], mask: u32, span: usize) -> Self {
        let mut shuffle = [0x80; 4 * CODES];
        let mut j = 0;
        while j < CODES {
            shuffle[4 * j] = bytes[j];
            if (bytes[j] as usize + 1) < span {
                shuffle[4 * j + 1] = bytes[j] + 1;
            }
            j += 1;
        }
        Self { bytes, shifts, mask, span, shuffle }
    }

    /// A little-endian string of codes.
    pub(crate) const fn string(bits: u32) -> Self {
        let (mut bytes, mut shifts, mut j) = ([0; CODES], [0; CODES], 0);
        while j < CODES {
            bytes[j] = (j as u32 * bits / 8) as u8;
            shifts[j] = j as u32 * bits % 8;
            j += 1;
        }
        Self::new(bytes, shifts, (1 << bits) - 1, 2 * bits as usize)
    }

    /// Codes of four bits in the low or in the high halves of bytes.
    pub(crate) const fn nibbles(high: bool) -> Self {
        let (mut bytes, mut j) = ([0; CODES], 0);
        while j < CODES {
            bytes[j] = j as u8;
            j += 1;
        }
        Self::new(bytes, [if high { 4 } else { 0 }; CODES], 15, CODES)
    }

    /// Codes of four bits, those of the low halves of eight bytes before those of the high ones.
    pub(crate) const fn halves() -> Self {
        let (mut bytes, mut shifts, mut j) = ([0; CODES], [0; CODES], 0);
        while j < CODES {
            bytes[j] = (j % 8) as u8;
            shifts[j] = j as u32 / 8 * 4;
            j += 1;
        }
        Self::new(bytes, shifts, 15, 8)
    }

    /// The code of a lane.
    fn code(&self, bytes: &[u8; 16], lane: usize) -> u32 {
        let at = usize::from(self.bytes[lane]) & 15;
        let two = u32::from(bytes[at]) | u32::from(bytes[(at + 1).min(15)]) << 8;
        two >> self.shifts[lane] & self.mask
    }

    /// The bytes to look at; they are copied where fewer than sixteen follow.
    #[inline(always)]
    fn bytes<'a>(&self, packed: &'a [u8], copy: &'a mut [u8; 16]) -> &'a [u8; 16] {
        if let Some(bytes) = packed.first_chunk() {
            return bytes;
        }
        copy.iter_mut().zip(packed.iter().take(self.span)).for_each(|(to, from)| *to = *from);
        copy
    }
}

/// Codes at the beginning of `packed` as floats.
#[inline(always)]
pub(crate) fn codes(level: Level, places: &Places, packed: &[u8], out: &mut [f32; CODES]) {
    let mut copy = [0; 16];
    let bytes = places.bytes(packed, &mut copy);
    match level {
        // SAFETY: a level above portable is only found where its instruction set was detected.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::codes_avx512(places, bytes, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::codes_avx2(places, bytes, out) },
        _ => (0..CODES).for_each(|j| out[j] = places.code(bytes, j) as i32 as f32),
    }
}

/// What a table has for codes of at most four bits at the beginning of `packed`.
#[inline(always)]
pub(crate) fn entries(level: Level, places: &Places, table: &[f32; 16], packed: &[u8], out: &mut [f32; CODES]) {
    let mut copy = [0; 16];
    let bytes = places.bytes(packed, &mut copy);
    match level {
        // SAFETY: a level above portable is only found where its instruction set was detected.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::entries_avx512(places, table, bytes, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::entries_avx2(places, table, bytes, out) },
        _ => (0..CODES).for_each(|j| out[j] = table[places.code(bytes, j) as usize & 15]),
    }
}

/// What a table has at each index; higher bits of an index do not count.
#[inline(always)]
pub(crate) fn look_up(level: Level, table: &[f32; 32], indices: &[u32; CODES]) -> [f32; CODES] {
    match level {
        // SAFETY: a level above portable is only found where its instruction set was detected.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::look_up_avx512(table, indices) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::look_up_avx2(table, indices) },
        _ => {
            let mut found = [0.0; CODES];
            (0..CODES).for_each(|j| found[j] = table[indices[j] as usize & 31]);
            found
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{CODES, Places};

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn lanes_avx512(places: &Places, bytes: &[u8; 16]) -> __m512i {
        // SAFETY: the three are arrays of as many bytes as are read.
        let (bytes, shuffle, shifts) = unsafe {
            (
                _mm_loadu_si128(bytes.as_ptr().cast()),
                _mm512_loadu_si512(places.shuffle.as_ptr().cast()),
                _mm512_loadu_si512(places.shifts.as_ptr().cast()),
            )
        };
        let twos = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), shuffle);
        _mm512_and_si512(_mm512_srlv_epi32(twos, shifts), _mm512_set1_epi32(places.mask as i32))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn codes_avx512(places: &Places, bytes: &[u8; 16], out: &mut [f32; CODES]) {
        let codes = _mm512_cvtepi32_ps(lanes_avx512(places, bytes));
        // SAFETY: sixteen floats are written to an array of sixteen.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), codes) };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn entries_avx512(places: &Places, table: &[f32; 16], bytes: &[u8; 16], out: &mut [f32; CODES]) {
        let lanes = lanes_avx512(places, bytes);
        // SAFETY: sixteen floats are read from one array of sixteen and written to the other.
        unsafe {
            let table = _mm512_loadu_ps(table.as_ptr());
            _mm512_storeu_ps(out.as_mut_ptr(), _mm512_permutexvar_ps(lanes, table));
        }
    }

    /// Lanes of the lower or the upper half.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn lanes_avx2(places: &Places, bytes: &[u8; 16], half: usize) -> __m256i {
        let (shuffle, shifts) = (&places.shuffle.as_chunks::<32>().0[half], &places.shifts.as_chunks::<8>().0[half]);
        // SAFETY: the three are arrays of as many bytes as are read.
        let (bytes, shuffle, shifts) = unsafe {
            (
                _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast())),
                _mm256_loadu_si256(shuffle.as_ptr().cast()),
                _mm256_loadu_si256(shifts.as_ptr().cast()),
            )
        };
        let shifted = _mm256_srlv_epi32(_mm256_shuffle_epi8(bytes, shuffle), shifts);
        _mm256_and_si256(shifted, _mm256_set1_epi32(places.mask as i32))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn codes_avx2(places: &Places, bytes: &[u8; 16], out: &mut [f32; CODES]) {
        for (half, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let codes = _mm256_cvtepi32_ps(lanes_avx2(places, bytes, half));
            // SAFETY: eight floats are written to an array of eight.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), codes) };
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn entries_avx2(places: &Places, table: &[f32; 16], bytes: &[u8; 16], out: &mut [f32; CODES]) {
        // SAFETY: eight floats are read from each half of an array of sixteen.
        let (low, high) = unsafe { (_mm256_loadu_ps(table.as_ptr()), _mm256_loadu_ps(table.as_ptr().add(8))) };
        for (half, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let lanes = lanes_avx2(places, bytes, half);
            let (low, high) = (_mm256_permutevar8x32_ps(low, lanes), _mm256_permutevar8x32_ps(high, lanes));
            // The fourth bit of a code chooses, as the sign of a lane.
            let fourth = _mm256_castsi256_ps(_mm256_slli_epi32(lanes, 28));
            // SAFETY: eight floats are written to an array of eight.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_blendv_ps(low, high, fourth)) };
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn look_up_avx512(table: &[f32; 32], indices: &[u32; CODES]) -> [f32; CODES] {
        let mut found = [0.0; CODES];
        // SAFETY: both halves of the table and the indices are arrays of sixteen, and so is what is written.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(table.as_ptr()), _mm512_loadu_ps(table.as_ptr().add(16)));
            let indices = _mm512_loadu_si512(indices.as_ptr().cast());
            _mm512_storeu_ps(found.as_mut_ptr(), _mm512_permutex2var_ps(low, indices, high));
        }
        found
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn look_up_avx2(table: &[f32; 32], indices: &[u32; CODES]) -> [f32; CODES] {
        let mut found = [0.0; CODES];
        for (indices, found) in indices.as_chunks::<8>().0.iter().zip(found.as_chunks_mut::<8>().0) {
            // SAFETY: eight indices are read and eight floats written; the indices are below 32, as the table is long.
            unsafe {
                let indices = _mm256_and_si256(_mm256_loadu_si256(indices.as_ptr().cast()), _mm256_set1_epi32(31));
                _mm256_storeu_ps(found.as_mut_ptr(), _mm256_i32gather_ps::<4>(table.as_ptr(), indices));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each_level(places: &Places, packed: &[u8], expected: [u32; CODES]) {
        let table: [f32; 16] = std::array::from_fn(|i| (i as f32 - 7.5).powi(3));
        for level in [Level::Avx512, Level::Avx2, Level::Portable] {
            let (mut out, mut found) = ([0.0; CODES], [0.0; CODES]);
            crate::simd::with_level(level, || {
                codes(crate::simd::level(), places, packed, &mut out);
                entries(crate::simd::level(), places, &table, packed, &mut found);
            });
            assert_eq!(out, expected.map(|c| c as f32), "{level:?}");
            if places.mask <= 15 {
                assert_eq!(found, expected.map(|c| table[c as usize]), "{level:?}");
            }
        }
    }

    #[test]
    fn strings_of_every_width_are_read_with_and_without_bytes_after_them() {
        let bytes: Vec<u8> = (0..48u32).map(|i| (i * 89 + 57) as u8).collect();
        for bits in 1..=8 {
            let bit = |n: u32| u32::from(bytes[n as usize / 8]) >> (n % 8) & 1;
            let expected = std::array::from_fn(|j| (0..bits).fold(0, |c, b| c | bit(j as u32 * bits + b) << b));
            each_level(&Places::string(bits), &bytes, expected);
            each_level(&Places::string(bits), &bytes[..2 * bits as usize], expected);
        }
    }

    #[test]
    fn halves_of_bytes_are_read_in_each_order() {
        let bytes: Vec<u8> = (0..16u32).map(|i| (i * 89 + 57) as u8).collect();
        let half = |j: usize| u32::from(bytes[j % 8] >> (j / 8 * 4) & 15);
        each_level(&Places::halves(), &bytes[..8], std::array::from_fn(half));
        each_level(&Places::nibbles(false), &bytes, std::array::from_fn(|j| u32::from(bytes[j] & 15)));
        each_level(&Places::nibbles(true), &bytes, std::array::from_fn(|j| u32::from(bytes[j] >> 4)));
    }

    #[test]
    fn entries_of_a_table_are_found_by_the_low_bits_of_indices() {
        let table: [f32; 32] = std::array::from_fn(|i| i as f32 * 0.5);
        let indices: [u32; CODES] = std::array::from_fn(|j| (j as u32).wrapping_mul(0x9e37_79b1));
        for level in [Level::Avx512, Level::Avx2, Level::Portable] {
            let found = crate::simd::with_level(level, || look_up(crate::simd::level(), &table, &indices));
            assert_eq!(found, indices.map(|i| (i & 31) as f32 * 0.5), "{level:?}");
        }
    }
}
